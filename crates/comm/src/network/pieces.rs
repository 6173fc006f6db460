//! How the buffers of a long message are cut for the way.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use crate::buffer::ALIGNMENT;

/// Buffers below this length travel together with their neighbours, for each piece costs a network library some work of its
/// own and, with a handshake for the memory it goes to, a way there and back.
const SMALL: usize = 16 << 10;
/// What travels together is copied first; not more than this at a time.
const TOGETHER: usize = 256 << 10;

/// A stretch of a message's memory that travels by itself. The memory holds all buffers, each at the next multiple of 64;
/// both sides know the lengths, and so the pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Which buffers.
    parts: Range<usize>,
    /// Where in the memory.
    pub(crate) at: Range<usize>,
}

/// The pieces of a message with buffers of these lengths.
pub(crate) fn pieces(lengths: &[usize]) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    let (mut start, mut open) = (0, false);
    for (part, &length) in lengths.iter().enumerate() {
        let at = start..start + length;
        start = at.end.next_multiple_of(ALIGNMENT);
        if length == 0 {
            continue;
        }
        let small = length < SMALL;
        match pieces.last_mut() {
            Some(last) if open && small && at.end - last.at.start <= TOGETHER => {
                last.parts.end = part + 1;
                last.at.end = at.end;
            }
            _ => pieces.push(Piece { parts: part..part + 1, at }),
        }
        open = small;
    }
    pieces
}

impl Piece {
    /// The bytes to send: a buffer itself, or a copy of several small ones with the gaps that they have in memory.
    pub(crate) fn of(&self, parts: &[Bytes]) -> Bytes {
        if let [part] = &parts[self.parts.clone()] {
            return part.clone();
        }
        let mut bytes = BytesMut::with_capacity(self.at.len());
        for part in &parts[self.parts.clone()] {
            bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
            bytes.extend_from_slice(part);
        }
        // Empty buffers at the end take no room.
        bytes.truncate(self.at.len());
        bytes.freeze()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::{SMALL, TOGETHER, pieces};
    use crate::buffer::ALIGNMENT;

    proptest! {
        #[test]
        fn pieces_put_every_buffer_in_its_place(
            lengths in prop::collection::vec(prop_oneof![Just(0), 1usize..200, SMALL - 2..SMALL + 2, Just(TOGETHER)], 0..60),
        ) {
            let parts: Vec<Bytes> = lengths.iter().enumerate().map(|(i, &l)| vec![i as u8 + 1; l].into()).collect();
            let mut memory = vec![0; lengths.iter().map(|l| l.next_multiple_of(ALIGNMENT)).sum()];
            let mut end = 0;
            for piece in pieces(&lengths) {
                prop_assert!(!piece.at.is_empty() && piece.at.start >= end);
                end = piece.at.end;
                let bytes = piece.of(&parts);
                memory[piece.at.clone()].copy_from_slice(&bytes);
            }
            let mut start = 0;
            for part in &parts {
                prop_assert_eq!(&memory[start..start + part.len()], &part[..]);
                start += part.len().next_multiple_of(ALIGNMENT);
            }
        }
    }

    #[test]
    fn large_buffers_travel_alone_and_as_they_are() {
        let parts: Vec<Bytes> = [10, SMALL, 20, 0, 30].into_iter().map(|length| vec![7; length].into()).collect();
        let pieces = pieces(&parts.iter().map(Bytes::len).collect::<Vec<_>>());
        assert_eq!(pieces.iter().map(|piece| piece.at.len()).collect::<Vec<_>>(), [10, SMALL, 64 + 30]);
        assert_eq!(pieces[1].of(&parts).as_ptr(), parts[1].as_ptr());
    }
}
