//! The shared file: who is there, whether somebody aborted, and a ring for each ordered pair of ranks.
//!
//! ```text
//! header | seat 0 … seat n-1 | ring 0→1, 0→2 … 1→0, 1→2 … n-1→n-2
//! ```

use std::{
    fs::{File, OpenOptions},
    io,
    path::Path,
    sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use memmap2::MmapRaw;
use rustix::fs::{FallocateFlags, fallocate};

use super::{data::Data, direct, doorbell::Doorbell, futex, ring::RingHead};
use crate::process::Process;

/// "DRCCOMM" and the version of the layout, the machine's byte order included.
const MAGIC: u64 = u64::from_ne_bytes(*b"DRCCOMM3");
/// A ring is at most this long: what is longer than half of it is lent where that is possible, and a long ring costs time to make.
const LONGEST_RING: usize = 1 << 18;
const SHORTEST_RING: usize = 1 << 14;
/// See [`Segment::lend`].
const LEND: usize = 1 << 17;
/// What the rings of one communicator take together, while they are longer than the shortest: containers often
/// get no more than 64 MiB of `/dev/shm`, and a mebibyte of it takes 0.3 ms to make.
const RINGS: usize = 2 << 20;
const PAGE: usize = 4096;
const REASON: usize = 1024;

/// Everything here and below is atomic, so that shared references to memory that other processes change are sound;
/// all zero is the valid first state.
#[repr(C, align(128))]
struct Header {
    magic: AtomicU64,
    /// The host of rank 0, see [`HostId::digest`](crate::process::HostId::digest).
    host: AtomicU64,
    size: AtomicU32,
    /// How many ranks took their seats; rung at every change.
    attached: AtomicU32,
    /// 0: no; 1: the reason is being written; 2: yes.
    aborted: AtomicU32,
    aborted_by: AtomicU32,
    reason_length: AtomicU32,
    reason: [AtomicU8; REASON],
}

/// A rank's place.
#[repr(C, align(128))]
pub(super) struct Seat {
    /// See [`SeatState`].
    state: AtomicU32,
    pid: AtomicU32,
    started: AtomicU64,
    /// See [`direct::probe`].
    probe: [AtomicU64; 2],
    doorbell: Doorbell,
}

/// What is known of a rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SeatState {
    Empty,
    /// Claimed, not registered yet.
    Claimed,
    Here,
    Left,
}

/// The mapped file.
#[derive(Debug)]
pub(super) struct Segment {
    map: MmapRaw,
    size: usize,
    /// Bytes of data in each ring, a power of two.
    capacity: usize,
}

const fn ring_capacity(size: usize) -> usize {
    let fair = RINGS / (size * (size - 1));
    let capacity = if fair > LONGEST_RING { LONGEST_RING } else { fair };
    if capacity < SHORTEST_RING { SHORTEST_RING } else { 1 << capacity.ilog2() }
}

const fn rings_start(size: usize) -> usize {
    (size_of::<Header>() + size * size_of::<Seat>()).next_multiple_of(PAGE)
}

const fn file_length(size: usize) -> usize {
    rings_start(size) + size * (size - 1) * (size_of::<RingHead>() + ring_capacity(size))
}

impl Segment {
    /// Makes the file for `size` ≥ 2 ranks. It must not exist.
    pub(super) fn create(path: &Path, size: usize, host: u64) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        let length = file_length(size) as u64;
        file.set_len(length)?;
        // A full memory file system is an error now instead of a SIGBUS later. Where space cannot be reserved, we try.
        match fallocate(&file, FallocateFlags::empty(), 0, length) {
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
        let segment = Segment::map(&file, size)?;
        segment.header().size.store(size as u32, Ordering::Relaxed);
        segment.header().host.store(host, Ordering::Relaxed);
        segment.header().magic.store(MAGIC, Ordering::Release);
        Ok(segment)
    }

    /// Opens a file that another process made.
    ///
    /// # Errors
    /// `InvalidData` when it is not such a file for this many ranks.
    pub(super) fn open(path: &Path, size: usize) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        if file.metadata()?.len() != file_length(size) as u64 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let segment = Segment::map(&file, size)?;
        let header = segment.header();
        if header.magic.load(Ordering::Acquire) != MAGIC || header.size.load(Ordering::Relaxed) != size as u32 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(segment)
    }

    fn map(file: &File, size: usize) -> io::Result<Self> {
        let map = MmapRaw::map_raw(file)?;
        assert!(map.len() >= file_length(size), "the file was given its length before");
        Ok(Segment { map, size, capacity: ring_capacity(size) })
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// The host of rank 0.
    pub(super) fn host(&self) -> u64 {
        self.header().host.load(Ordering::Relaxed)
    }

    fn header(&self) -> &Header {
        // SAFETY: the map starts at a page, is at least `file_length` long, lives as long as `self`, and `Header` consists of
        // atomics, for which every bit pattern is valid.
        unsafe { &*self.map.as_ptr().cast::<Header>() }
    }

    fn seat(&self, rank: usize) -> &Seat {
        assert!(rank < self.size);
        // SAFETY: as `header`; the seats lie behind it, aligned because `Header`'s size is a multiple of
        // their alignment (checked below), and `rank` is below their number.
        unsafe { &*self.map.as_ptr().add(size_of::<Header>()).cast::<Seat>().add(rank) }
    }

    /// Messages of so many bytes are lent: as many as half a ring holds, or, where rings are long, as many as make the copy in the
    /// kernel worth it.
    pub(super) fn lend(&self) -> usize {
        LEND.min(self.capacity / 2)
    }

    /// The ring from one rank to another: its head, and its data.
    pub(super) fn ring(&self, from: usize, to: usize) -> (&RingHead, Data<'_>) {
        assert!(from < self.size && to < self.size && from != to);
        let index = from * (self.size - 1) + if to > from { to - 1 } else { to };
        let start = rings_start(self.size) + index * (size_of::<RingHead>() + self.capacity);
        // SAFETY: as `header`; `index` is below the number of rings, whose room `file_length` counts. All sizes involved are
        // multiples of 64, the alignment of `RingHead`.
        unsafe {
            let head = self.map.as_mut_ptr().add(start);
            (&*head.cast::<RingHead>(), Data::new(head.add(size_of::<RingHead>()), self.capacity))
        }
    }

    /// Takes a rank's seat; `false` when another process has it.
    pub(super) fn claim(&self, rank: usize, process: Process) -> bool {
        let seat = self.seat(rank);
        let claimed = seat.state.compare_exchange(SeatState::Empty as u32, SeatState::Claimed as u32, Ordering::SeqCst, Ordering::SeqCst);
        if claimed.is_err() {
            return false;
        }
        seat.pid.store(process.pid, Ordering::Relaxed);
        seat.started.store(process.started, Ordering::Relaxed);
        let (address, value) = direct::probe();
        seat.probe[0].store(address, Ordering::Relaxed);
        seat.probe[1].store(value, Ordering::Relaxed);
        seat.state.store(SeatState::Here as u32, Ordering::SeqCst);
        futex::ring(&self.header().attached);
        true
    }

    /// Gives the seat up and tells the others.
    pub(super) fn leave(&self, rank: usize) {
        self.seat(rank).state.store(SeatState::Left as u32, Ordering::SeqCst);
        futex::wake(&self.header().attached);
        (0..self.size).filter(|&peer| peer != rank).for_each(|peer| self.ring_doorbell(peer));
    }

    pub(super) fn state(&self, rank: usize) -> SeatState {
        match self.seat(rank).state.load(Ordering::SeqCst) {
            0 => SeatState::Empty,
            1 => SeatState::Claimed,
            2 => SeatState::Here,
            _ => SeatState::Left,
        }
    }

    /// The process of a rank that is or was here.
    pub(super) fn process(&self, rank: usize) -> Process {
        let seat = self.seat(rank);
        Process { pid: seat.pid.load(Ordering::Relaxed), started: seat.started.load(Ordering::Relaxed) }
    }

    /// Whether this process can read the memory of a rank that is here.
    pub(super) fn can_read(&self, rank: usize) -> bool {
        let seat = self.seat(rank);
        let probe = (seat.probe[0].load(Ordering::Relaxed), seat.probe[1].load(Ordering::Relaxed));
        direct::works(seat.pid.load(Ordering::Relaxed), probe)
    }

    /// How many ranks took their seats.
    pub(super) fn attached(&self) -> u32 {
        self.header().attached.load(Ordering::SeqCst)
    }

    /// Sleeps until that number is another, or the time is over.
    pub(super) fn sleep_for_attached(&self, seen: u32, left: Duration) {
        futex::sleep(&self.header().attached, seen, left);
    }

    /// What the doorbell of a rank shows, for [`sleep`](Segment::sleep).
    pub(super) fn doorbell(&self, rank: usize) -> u32 {
        self.seat(rank).doorbell.ticket()
    }

    /// Sleeps until a rank's doorbell is rung, unless it was since `ticket` was read. One thread of a rank at a time.
    pub(super) fn sleep(&self, rank: usize, ticket: u32, left: Duration) {
        self.seat(rank).doorbell.sleep(ticket, left);
    }

    pub(super) fn ring_doorbell(&self, rank: usize) {
        self.seat(rank).doorbell.ring();
    }

    /// Notes who aborted and why, once, and wakes everybody.
    pub(super) fn abort(&self, rank: usize, reason: &str) {
        let header = self.header();
        if header.aborted.compare_exchange(0, 1, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            return;
        }
        let reason = &reason.as_bytes()[..reason.floor_char_boundary(REASON)];
        for (cell, byte) in header.reason.iter().zip(reason) {
            cell.store(*byte, Ordering::Relaxed);
        }
        header.reason_length.store(reason.len() as u32, Ordering::Relaxed);
        header.aborted_by.store(rank as u32, Ordering::Relaxed);
        header.aborted.store(2, Ordering::SeqCst);
        futex::wake(&header.attached);
        (0..self.size).for_each(|rank| self.ring_doorbell(rank));
    }

    /// Who aborted and why.
    pub(super) fn aborted(&self) -> Option<(usize, String)> {
        let header = self.header();
        if header.aborted.load(Ordering::Acquire) != 2 {
            return None;
        }
        let length = (header.reason_length.load(Ordering::Relaxed) as usize).min(REASON);
        let bytes: Vec<u8> = header.reason[..length].iter().map(|cell| cell.load(Ordering::Relaxed)).collect();
        let rank = header.aborted_by.load(Ordering::Relaxed) as usize;
        Some((rank, String::from_utf8_lossy(&bytes).into_owned()))
    }
}

// What the SAFETY comments above rely on.
const _: () = assert!(size_of::<Header>().is_multiple_of(align_of::<Seat>()));
const _: () = assert!(PAGE.is_multiple_of(align_of::<Header>()) && align_of::<RingHead>() == 64);
const _: () = assert!(size_of::<RingHead>().is_multiple_of(64) && SHORTEST_RING.is_multiple_of(64));

#[cfg(test)]
mod tests {
    use super::{LONGEST_RING, RINGS, SHORTEST_RING, ring_capacity};

    #[test]
    fn rings_share_a_fixed_room_until_they_are_short() {
        assert_eq!(ring_capacity(2), LONGEST_RING);
        for size in 2..100 {
            let capacity = ring_capacity(size);
            assert!(capacity.is_power_of_two());
            assert!(capacity == SHORTEST_RING || capacity * size * (size - 1) <= RINGS);
        }
    }
}
