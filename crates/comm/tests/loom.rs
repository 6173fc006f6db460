//! The ring and the doorbell of shared memory in every order of their steps that the memory model allows (up to a number of
//! preemptions), with loom: the very source files, with doubles for atomics, memory and the kernel.
//!
//! `make test-loom`; without `--cfg loom` there is nothing here.
#![cfg(loom)]
#![expect(dead_code, reason = "not all of the ring is modelled")]

use std::{sync::Arc, time::Duration};

use loom::thread;

#[path = "../src/shm/doorbell.rs"]
mod doorbell;
#[path = "../src/shm/ring.rs"]
mod ring;

mod atomic {
    use std::ops::Deref;

    pub(super) use loom::sync::atomic::{AtomicU64, Ordering, fence};
    use loom::sync::{Condvar, Mutex};

    /// A word, and the kernel's queue of those who sleep on it.
    #[derive(Default)]
    pub(super) struct AtomicU32 {
        word: loom::sync::atomic::AtomicU32,
        pub(super) queue: Mutex<()>,
        pub(super) woken: Condvar,
    }

    impl Deref for AtomicU32 {
        type Target = loom::sync::atomic::AtomicU32;
        fn deref(&self) -> &Self::Target {
            &self.word
        }
    }
}

mod futex {
    use std::time::Duration;

    use super::atomic::{AtomicU32, Ordering};

    /// Without an end to the time: who is not woken sleeps for ever, which loom reports.
    pub(super) fn sleep(word: &AtomicU32, value: u32, _left: Duration) {
        let queue = word.queue.lock().unwrap();
        if word.load(Ordering::Relaxed) == value {
            drop(word.woken.wait(queue).unwrap());
        }
    }

    pub(super) fn wake(word: &AtomicU32) {
        drop(word.queue.lock().unwrap());
        word.woken.notify_all();
    }
}

mod data {
    use loom::cell::UnsafeCell;

    /// Bytes of which loom notices when one is written while another thread reads or writes it.
    pub(super) struct Data<'a>(pub(super) &'a [UnsafeCell<u8>]);

    impl Data<'_> {
        pub(super) fn capacity(&self) -> usize {
            self.0.len()
        }

        pub(super) unsafe fn write(&self, place: usize, bytes: &[u8]) {
            for (cell, byte) in self.0[place..].iter().zip(bytes) {
                // SAFETY: the caller owns these bytes of the ring; loom fails the test if another thread touches them meanwhile.
                cell.with_mut(|cell| unsafe { *cell = *byte });
            }
        }

        pub(super) unsafe fn read(&self, place: usize, count: usize, sink: &mut dyn FnMut(&[u8])) {
            // SAFETY: as above.
            let bytes: Vec<u8> = self.0[place..place + count].iter().map(|cell| cell.with(|cell| unsafe { *cell })).collect();
            sink(&bytes);
        }
    }
}

mod segment {
    use loom::cell::UnsafeCell;

    use super::{data::Data, doorbell::Doorbell, ring::RingHead};

    /// The shortest ring that there can be, from rank 0 to rank 1, and their doorbells.
    pub(super) struct Segment {
        head: RingHead,
        data: Vec<UnsafeCell<u8>>,
        pub(super) doorbells: [Doorbell; 2],
    }

    // The ring says who touches which byte when; loom checks it.
    unsafe impl Send for Segment {}
    unsafe impl Sync for Segment {}

    impl Segment {
        pub(super) fn new() -> Self {
            Segment { head: RingHead::default(), data: (0..4).map(|_| UnsafeCell::new(0)).collect(), doorbells: Default::default() }
        }

        pub(super) fn ring(&self, _from: usize, _to: usize) -> (&RingHead, Data<'_>) {
            (&self.head, Data(&self.data))
        }

        pub(super) fn ring_doorbell(&self, rank: usize) {
            self.doorbells[rank].ring();
        }
    }
}

use atomic::Ordering;
use ring::{Consumer, Producer};
use segment::Segment;

/// Interruptions of a thread where it need not be; most errors need one or two.
const PREEMPTIONS: usize = 3;
const FOREVER: Duration = Duration::MAX;

fn model(body: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(PREEMPTIONS);
    builder.check(body);
}

/// As `Link::write` does, with waits as in `Mailbox::wait`; `false` when `gone` said that the reader is.
fn write(segment: &Segment, producer: &mut Producer, mut bytes: &[u8], gone: impl Fn() -> bool) -> bool {
    while !bytes.is_empty() {
        let count = producer.write(bytes);
        bytes = &bytes[count..];
        if count == 0 {
            segment.ring_doorbell(1);
            loop {
                let ticket = segment.doorbells[0].ticket();
                if gone() {
                    return false;
                }
                if producer.has_room() {
                    break;
                }
                segment.doorbells[0].sleep(ticket, FOREVER);
            }
        }
    }
    segment.ring_doorbell(1);
    true
}

/// As `Link::pump` does, until there are so many bytes.
fn read(segment: &Segment, consumer: &mut Consumer, count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let ticket = segment.doorbells[1].ticket();
        let any = consumer.read(&mut |more| bytes.extend_from_slice(more));
        if bytes.len() >= count {
            return bytes;
        }
        if !any {
            segment.doorbells[1].sleep(ticket, FOREVER);
        }
    }
}

#[test]
fn every_byte_arrives_in_order_and_nobody_sleeps_for_ever() {
    model(|| {
        let segment = Arc::new(Segment::new());
        // SAFETY: the only producer and consumer of this ring.
        let mut producer = unsafe { Producer::new(segment.clone(), 0, 1) };
        let mut consumer = unsafe { Consumer::new(segment.clone(), 0, 1) };
        let writer = thread::spawn({
            let segment = segment.clone();
            move || assert!(write(&segment, &mut producer, &[1, 2, 3, 4, 5, 6], || false))
        });
        assert_eq!(read(&segment, &mut consumer, 6), [1, 2, 3, 4, 5, 6]);
        writer.join().unwrap();
    });
}

#[test]
fn a_writer_without_room_learns_that_its_reader_died() {
    model(|| {
        let segment = Arc::new(Segment::new());
        // SAFETY: the only producer and consumer of this ring.
        let mut producer = unsafe { Producer::new(segment.clone(), 0, 1) };
        let mut consumer = unsafe { Consumer::new(segment.clone(), 0, 1) };
        // What the watching thread of rank 0 sets, and then rings the doorbell.
        let dead = Arc::new(loom::sync::atomic::AtomicBool::new(false));
        let reader = thread::spawn({
            let (segment, dead) = (segment.clone(), dead.clone());
            move || {
                let mut read = Vec::new();
                consumer.read(&mut |bytes| read.extend_from_slice(bytes));
                assert!([1, 2, 3, 4, 5, 6].starts_with(&read));
                dead.store(true, Ordering::Release);
                segment.ring_doorbell(0);
            }
        });
        // Whether it got rid of all bytes or not, it ends.
        write(&segment, &mut producer, &[1, 2, 3, 4, 5, 6], || dead.load(Ordering::Acquire));
        reader.join().unwrap();
    });
}

#[test]
fn a_rank_is_woken_by_each_of_several() {
    model(|| {
        let segment = Arc::new(Segment::new());
        let done = Arc::new(loom::sync::atomic::AtomicUsize::new(0));
        let ringers: Vec<_> = (0..2)
            .map(|_| {
                let (segment, done) = (segment.clone(), done.clone());
                thread::spawn(move || {
                    done.fetch_add(1, Ordering::Relaxed);
                    segment.ring_doorbell(0);
                })
            })
            .collect();
        loop {
            let ticket = segment.doorbells[0].ticket();
            if done.load(Ordering::Relaxed) == 2 {
                break;
            }
            segment.doorbells[0].sleep(ticket, FOREVER);
        }
        ringers.into_iter().for_each(|ringer| ringer.join().unwrap());
    });
}

#[test]
fn what_was_taken_is_what_was_lent() {
    const LENT: u64 = 7;
    model(|| {
        let segment = Arc::new(Segment::new());
        // SAFETY: the only producer of this ring.
        let producer = unsafe { Producer::new(segment.clone(), 0, 1) };
        let memory = Arc::new(loom::sync::atomic::AtomicU64::new(LENT));
        let writer = thread::spawn({
            let memory = memory.clone();
            move || {
                // It does not wait: it gives up, and uses the memory for something else.
                if producer.taken() == 0 {
                    producer.revoke();
                }
                memory.store(0, Ordering::Relaxed);
            }
        });
        // The kernel's copy promises no order.
        let copy = memory.load(Ordering::Relaxed);
        if ring::take(&segment, 0, 1) {
            assert_eq!(copy, LENT);
        }
        writer.join().unwrap();
    });
}
