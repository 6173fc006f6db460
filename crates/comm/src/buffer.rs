//! The memory that a message is received into.

use bytes::Bytes;

use crate::pool::Memory;

/// All buffers start at multiples of this: what Arrow recommends, a cache line, and enough for every vector register.
pub(crate) const ALIGNMENT: usize = 64;

/// Aligned memory that is written from its start to its end, and never zeroed or moved.
#[derive(Debug)]
pub(crate) enum Buffer {
    /// Data begins at `base`, the first aligned address.
    Heap { bytes: Vec<u8>, base: usize },
    /// Written up to `end`; what was skipped has any content.
    Pooled { memory: Memory, end: usize },
}

impl Buffer {
    pub(crate) fn new(length: usize) -> Self {
        if let Some(memory) = Memory::take(length) {
            return Buffer::Pooled { memory, end: 0 };
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
            Buffer::Pooled { memory, end } => {
                memory.as_mut()[*end..*end + more.len()].copy_from_slice(more);
                *end += more.len();
            }
        }
    }

    /// Goes on at this distance from the start.
    pub(crate) fn skip_to(&mut self, place: usize) {
        match self {
            Buffer::Heap { bytes, base } => bytes.resize(*base + place, 0),
            Buffer::Pooled { end, .. } => *end = place,
        }
    }

    /// The bytes between two distances from the start, to write over; they count as written.
    pub(crate) fn room(&mut self, from: usize, to: usize) -> &mut [u8] {
        match self {
            Buffer::Heap { bytes, base } => {
                let written = bytes.len().max(*base + to);
                bytes.resize(written, 0);
                &mut bytes[*base + from..*base + to]
            }
            Buffer::Pooled { memory, end } => {
                *end = to.max(*end);
                &mut memory.as_mut()[from..to]
            }
        }
    }

    /// What was written, without a copy.
    pub(crate) fn freeze(self) -> Bytes {
        match self {
            Buffer::Heap { bytes, base } => Bytes::from(bytes).slice(base..),
            Buffer::Pooled { memory, end } => memory.freeze().slice(..end),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ALIGNMENT, Buffer};
    use crate::pool::SHORTEST;

    #[test]
    fn buffers_are_aligned_and_do_not_move() {
        for length in [65, 1000, SHORTEST - 1, SHORTEST, 5 * SHORTEST + 100] {
            let mut buffer = Buffer::new(length);
            buffer.append(&[1; 3]);
            buffer.skip_to(64);
            buffer.append(&vec![2; length - 64]);
            let bytes = buffer.freeze();
            assert!(bytes.as_ptr().addr().is_multiple_of(ALIGNMENT));
            assert_eq!((bytes.len(), &bytes[..3]), (length, [1; 3].as_slice()));
            assert!(bytes[64..].iter().all(|&byte| byte == 2));
        }
    }
}
