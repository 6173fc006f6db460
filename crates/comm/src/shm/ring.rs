//! A ring of bytes with one writer and one reader, each in its own process.
//!
//! ```text
//! data   [ . . r e a d m e . . . . ]      positions count all bytes ever; modulo the capacity they are places
//!              ▲           ▲
//!              head        tail           the reader moves head, the writer moves tail; head ≤ tail ≤ head + capacity
//! ```
//! Checked, with the doorbell, by `make test-loom`.
//!
//! Source: Lamport, "Proving the correctness of multiprocess programs", 1977.

use std::sync::Arc;

use super::{
    atomic::{AtomicU32, AtomicU64, Ordering, fence},
    segment::Segment,
};

/// Positions lie on cache lines of their own: writer and reader change them at the same time.
#[derive(Default)]
#[repr(C, align(64))]
pub(super) struct RingHead {
    tail: Line<AtomicU64>,
    head: Line<AtomicU64>,
    /// 1 when the writer waits for room.
    crowded: Line<AtomicU32>,
    /// The reader's side of lent messages.
    lending: Line<Lending>,
}

/// How buffers are lent: the writer posts their addresses and keeps them until the reader has taken a copy.
#[derive(Default)]
#[repr(C)]
struct Lending {
    /// How many lent messages the reader has copied.
    taken: AtomicU64,
    /// 1 when the reader can read the writer's memory.
    possible: AtomicU32,
    /// 1 when the writer no longer keeps what it lent.
    revoked: AtomicU32,
}

#[derive(Default)]
#[repr(C, align(64))]
struct Line<T>(T);

/// The writing end.
pub(super) struct Producer {
    segment: Arc<Segment>,
    from: usize,
    to: usize,
}

/// The reading end.
pub(super) struct Consumer {
    segment: Arc<Segment>,
    from: usize,
    to: usize,
}

/// Notes on the reader's side that a lent message was copied; `false` when the writer did not keep it until then.
pub(super) fn take(segment: &Segment, from: usize, to: usize) -> bool {
    let lending = &segment.ring(from, to).0.lending.0;
    // The copy is complete before this is asked.
    fence(Ordering::Acquire);
    // The writer revokes before it uses the memory again: if it has not by now, what was read is what was lent.
    if lending.revoked.load(Ordering::Relaxed) != 0 {
        return false;
    }
    lending.taken.fetch_add(1, Ordering::Release);
    segment.ring_doorbell(from);
    true
}

impl Producer {
    /// # Safety
    /// The only producer of this ring: the caller holds the seat of `from` and makes one.
    pub(super) unsafe fn new(segment: Arc<Segment>, from: usize, to: usize) -> Self {
        Producer { segment, from, to }
    }

    /// Writes as many bytes as there is room for, but at most a quarter of the ring, so that the reader can start; how many.
    pub(super) fn write(&mut self, bytes: &[u8]) -> usize {
        let (ring, data) = self.segment.ring(self.from, self.to);
        let capacity = data.capacity();
        let tail = ring.tail.0.load(Ordering::Relaxed);
        let used = tail.wrapping_sub(ring.head.0.load(Ordering::Acquire)) as usize;
        let count = bytes.len().min(capacity.saturating_sub(used)).min(capacity / 4);
        let place = tail as usize & (capacity - 1);
        let (first, second) = bytes[..count].split_at(count.min(capacity - place));
        // SAFETY: `count` ≤ capacity - used, so the bytes from `tail` on, around the end of the ring, lie behind what the
        // reader may read (Acquire above: it is done with them) and within the data. There is no other writer.
        unsafe {
            data.write(place, first);
            data.write(0, second);
        }
        ring.tail.0.store(tail + count as u64, Ordering::Release);
        count
    }

    /// Whether the reader can copy from this process's memory.
    pub(super) fn can_lend(&self) -> bool {
        self.segment.ring(self.from, self.to).0.lending.0.possible.load(Ordering::Acquire) == 1
    }

    /// How many lent messages the reader has copied.
    pub(super) fn taken(&self) -> u64 {
        self.segment.ring(self.from, self.to).0.lending.0.taken.load(Ordering::Acquire)
    }

    /// Says that what was lent and not taken is not kept any more. Must come before the memory is used for anything else.
    pub(super) fn revoke(&self) {
        self.segment.ring(self.from, self.to).0.lending.0.revoked.store(1, Ordering::Relaxed);
        // What this thread writes from here on is seen by nobody who does not see this.
        fence(Ordering::SeqCst);
    }

    /// Whether there is room; if not, the reader will ring the writer's doorbell when it has made some.
    pub(super) fn has_room(&self) -> bool {
        let (ring, data) = self.segment.ring(self.from, self.to);
        ring.crowded.0.store(1, Ordering::Relaxed);
        // With the fence in `Consumer::read`: either it sees the flag, or we see its new head.
        fence(Ordering::SeqCst);
        let tail = ring.tail.0.load(Ordering::Relaxed);
        (tail.wrapping_sub(ring.head.0.load(Ordering::Acquire)) as usize) < data.capacity()
    }
}

impl Consumer {
    /// # Safety
    /// The only consumer of this ring: the caller holds the seat of `to` and makes one.
    pub(super) unsafe fn new(segment: Arc<Segment>, from: usize, to: usize) -> Self {
        Consumer { segment, from, to }
    }

    /// Says whether this process can read the writer's memory.
    pub(super) fn set_can_lend(&self, possible: bool) {
        self.segment.ring(self.from, self.to).0.lending.0.possible.store(possible.into(), Ordering::Release);
    }

    /// Hands the bytes that are there to `sink`, in pieces; whether there were any.
    pub(super) fn read(&mut self, sink: &mut dyn FnMut(&[u8])) -> bool {
        let (ring, data) = self.segment.ring(self.from, self.to);
        let capacity = data.capacity();
        let mut head = ring.head.0.load(Ordering::Relaxed);
        // Never beyond the data, whatever another process wrote into the tail.
        let mut left = (ring.tail.0.load(Ordering::Acquire).wrapping_sub(head) as usize).min(capacity);
        let any = left > 0;
        while left > 0 {
            let place = head as usize & (capacity - 1);
            let count = left.min(capacity - place).min(capacity / 4);
            // SAFETY: these bytes lie within the data and before `tail` (Acquire above: they are written), where the writer
            // does not touch them until the store of `head` below. There is no other reader.
            unsafe { data.read(place, count, sink) };
            head += count as u64;
            left -= count;
            ring.head.0.store(head, Ordering::Release);
            fence(Ordering::SeqCst);
            if ring.crowded.0.load(Ordering::Relaxed) != 0 && ring.crowded.0.swap(0, Ordering::Relaxed) != 0 {
                self.segment.ring_doorbell(self.from);
            }
        }
        any
    }
}
