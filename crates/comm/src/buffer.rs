//! The memory that a message is received into.

use bytes::Bytes;
use memmap2::{Advice, MmapMut};

/// All buffers start at multiples of this: what Arrow recommends, a cache line, and enough for every vector register.
pub(crate) const ALIGNMENT: usize = 64;

/// From this length on, memory comes in huge pages where the system has them, because a fresh page costs a fault: between 2 processes on
/// 2 virtual cores an `all_to_all` of 256 MB per rank took 220 ms or more in pages of 4 KiB and 50 ms in huge ones (best of 5 to 10 rounds
/// on a busy machine, most of the time in the kernel before).
const HUGE: usize = 4 << 20;

/// Aligned memory that is written from its start to its end, and never zeroed or moved.
#[derive(Debug)]
pub(crate) enum Buffer {
    /// Data begins at `base`, the first aligned address.
    Heap { bytes: Vec<u8>, base: usize },
    /// Written up to `end`.
    Mapped { map: MmapMut, end: usize },
}

impl Buffer {
    pub(crate) fn new(length: usize) -> Self {
        if length >= HUGE
            && let Ok(map) = MmapMut::map_anon(length)
        {
            // Without huge pages it is only slower.
            let _ = map.advise(Advice::HugePage);
            return Buffer::Mapped { map, end: 0 };
        }
        let bytes: Vec<u8> = Vec::with_capacity(length + ALIGNMENT);
        let base = bytes.as_ptr().align_offset(ALIGNMENT);
        let mut buffer = Buffer::Heap { bytes, base };
        buffer.skip_to(0);
        buffer
    }

    pub(crate) fn append(&mut self, more: &[u8]) {
        match self {
            Buffer::Heap { bytes, .. } => bytes.extend_from_slice(more),
            Buffer::Mapped { map, end } => {
                map[*end..*end + more.len()].copy_from_slice(more);
                *end += more.len();
            }
        }
    }

    /// Goes on at this distance from the start; what lies between is zero.
    pub(crate) fn skip_to(&mut self, place: usize) {
        match self {
            Buffer::Heap { bytes, base } => bytes.resize(*base + place, 0),
            Buffer::Mapped { end, .. } => *end = place,
        }
    }

    /// The bytes up to this distance from the start that are not written yet, as zeros to write over; they count as written.
    pub(crate) fn room(&mut self, from: usize, to: usize) -> &mut [u8] {
        match self {
            Buffer::Heap { bytes, base } => {
                let written = bytes.len().max(*base + to);
                bytes.resize(written, 0);
                &mut bytes[*base + from..*base + to]
            }
            Buffer::Mapped { map, end } => {
                *end = to.max(*end);
                &mut map[from..to]
            }
        }
    }

    /// What was written, without a copy.
    pub(crate) fn freeze(self) -> Bytes {
        match self {
            Buffer::Heap { bytes, base } => Bytes::from(bytes).slice(base..),
            Buffer::Mapped { map, end } => Bytes::from_owner(map).slice(..end),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ALIGNMENT, Buffer, HUGE};

    #[test]
    fn buffers_are_aligned_and_do_not_move() {
        for length in [65, 1000, HUGE - 1, HUGE, HUGE + 100] {
            let mut buffer = Buffer::new(length);
            buffer.append(&[1; 3]);
            buffer.skip_to(64);
            buffer.append(&vec![2; length - 64]);
            let bytes = buffer.freeze();
            assert!(bytes.as_ptr().addr().is_multiple_of(ALIGNMENT));
            assert_eq!((bytes.len(), &bytes[..4]), (length, [1, 1, 1, 0].as_slice()));
            assert!(bytes[4..64].iter().all(|&byte| byte == 0) && bytes[64..].iter().all(|&byte| byte == 2));
        }
    }
}
