//! How a message looks as a stream of bytes: in a ring, or on a connection.
//!
//! ```text
//! magic u32 | parts u32 | signature u32 | kind u32 | context u64 | number u64 | length u64 … | bytes …
//! ```
//! in little-endian byte order; instead of the bytes, a process of the same host may send their addresses, each a `u64`, from which the
//! receiver copies them itself; `number` is the tag of a user message or the sequence number of a collective.

use bytes::Bytes;

use crate::{
    buffer::{ALIGNMENT, Buffer},
    transport::{Message, Tag},
};

const MAGIC: u32 = 0x4652_4443;
/// Added to the kind of a message whose buffers are lent: addresses follow instead of bytes.
const LENT: u32 = 0x100;
/// Bytes of a head before the lengths of the buffers.
pub(crate) const HEAD: usize = 32;

/// Where empty buffers point to: Arrow wants even those aligned.
#[repr(align(64))]
struct Aligned([u8; ALIGNMENT]);
static NOTHING: Aligned = Aligned([0; ALIGNMENT]);

/// The bytes before the buffers.
pub(crate) fn head(context: u64, tag: Tag, message: &Message) -> Vec<u8> {
    let (kind, number) = match tag {
        Tag::User(tag) => (0, tag),
        Tag::Collective => (1, message.sequence),
    };
    let mut head = Vec::with_capacity(HEAD + 8 * message.parts.len());
    for word in [MAGIC, message.parts.len() as u32, message.signature, kind] {
        head.extend_from_slice(&word.to_le_bytes());
    }
    for word in [context, number].into_iter().chain(message.parts.iter().map(|part| part.len() as u64)) {
        head.extend_from_slice(&word.to_le_bytes());
    }
    head
}

/// All bytes of a message whose buffers the receiver copies from this process's memory.
pub(crate) fn lent(context: u64, tag: Tag, message: &Message) -> Vec<u8> {
    let mut bytes = head(context, tag, message);
    bytes[13] |= (LENT >> 8) as u8;
    message.parts.iter().for_each(|part| bytes.extend_from_slice(&(part.as_ptr().addr() as u64).to_le_bytes()));
    bytes
}

/// A buffer in another process's memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lent {
    /// Where it goes in the memory of the message.
    pub(crate) start: usize,
    pub(crate) length: usize,
    /// In the other process.
    pub(crate) address: u64,
}

/// Copies the buffers of another process to their places; whether it could.
pub(crate) type Fetch<'a> = &'a mut dyn FnMut(&mut [u8], &[Lent]) -> bool;

/// The bytes are no message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Garbled;

/// Puts messages together from the bytes of a ring, however those are cut.
#[derive(Debug, Default)]
pub(crate) struct Assembly {
    stage: Stage,
    /// The bytes of a head, or of the lengths, so far.
    scratch: Vec<u8>,
}

#[derive(Debug, Default)]
enum Stage {
    #[default]
    Head,
    Lengths(Head),
    Body(Body),
}

/// What is known of a message before the lengths of its buffers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head {
    /// How many lengths follow, each a `u64`.
    pub(crate) parts: usize,
    /// Addresses follow the lengths, and no bytes.
    lent: bool,
    signature: u32,
    tag: Tag,
    context: u64,
    sequence: u64,
}

/// All buffers of a message in one allocation, each at a multiple of 64.
#[derive(Debug)]
pub(crate) struct Body {
    head: Head,
    lengths: Vec<usize>,
    /// Where each part starts in the buffer.
    starts: Vec<usize>,
    /// The part being filled, and how many bytes of it are there.
    part: usize,
    filled: usize,
    buffer: Buffer,
}

impl Assembly {
    /// Takes the next bytes and hands out each message (with its context and tag) that they complete.
    #[cfg_attr(not(any(feature = "mpi", feature = "gloo", feature = "ucx", test)), expect(dead_code, reason = "for network transports"))]
    pub(crate) fn feed(&mut self, input: &[u8], deliver: &mut dyn FnMut(u64, Tag, Message)) -> Result<(), Garbled> {
        self.feed_lent(input, &mut |_, _| false, deliver)
    }

    /// The same where a message may be [`lent`].
    pub(crate) fn feed_lent(
        &mut self,
        mut input: &[u8],
        fetch: Fetch<'_>,
        deliver: &mut dyn FnMut(u64, Tag, Message),
    ) -> Result<(), Garbled> {
        while !input.is_empty() {
            match std::mem::take(&mut self.stage) {
                Stage::Head => {
                    if !collect(&mut self.scratch, HEAD, &mut input) {
                        return Ok(());
                    }
                    let head = Head::parse(&self.scratch).ok_or(Garbled)?;
                    self.scratch.clear();
                    if head.parts == 0 {
                        let body = Body::new(head, &[]).ok_or(Garbled)?;
                        self.stage = body.into_stage(deliver);
                    } else {
                        self.stage = Stage::Lengths(head);
                    }
                }
                Stage::Lengths(head) => {
                    let words = if head.lent { 2 * head.parts } else { head.parts };
                    if !collect(&mut self.scratch, 8 * words, &mut input) {
                        self.stage = Stage::Lengths(head);
                        return Ok(());
                    }
                    let (lengths, addresses) = self.scratch.split_at(8 * head.parts);
                    let mut body = Body::new(head, lengths).ok_or(Garbled)?;
                    if head.lent && !body.fetch(addresses, fetch) {
                        return Err(Garbled);
                    }
                    self.scratch.clear();
                    self.stage = body.into_stage(deliver);
                }
                Stage::Body(mut body) => {
                    body.fill(&mut input);
                    self.stage = body.into_stage(deliver);
                }
            }
        }
        Ok(())
    }
}

/// Moves bytes from the input until there are `need`; whether there are.
fn collect(scratch: &mut Vec<u8>, need: usize, input: &mut &[u8]) -> bool {
    let (taken, rest) = input.split_at((need - scratch.len()).min(input.len()));
    scratch.extend_from_slice(taken);
    *input = rest;
    scratch.len() == need
}

impl Head {
    /// From the first [`HEAD`] bytes of a message that come from another host; `None` when they are none.
    #[cfg_attr(not(any(feature = "mpi", feature = "gloo", feature = "ucx", test)), expect(dead_code, reason = "for network transports"))]
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        Head::parse(bytes).filter(|head| !head.lent)
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let small = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let large = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let (number, magic) = (large(24)?, small(0)?);
        let kind = small(12)?;
        let (tag, sequence) = match kind & !LENT {
            0 => (Tag::User(number), 0),
            1 => (Tag::Collective, number),
            _ => return None,
        };
        let head = Head { parts: small(4)? as usize, lent: kind & LENT != 0, signature: small(8)?, tag, context: large(16)?, sequence };
        (magic == MAGIC).then_some(head)
    }
}

impl Body {
    /// From the `8 * head.parts` bytes behind the head; `None` when they are no lengths.
    pub(crate) fn new(head: Head, lengths: &[u8]) -> Option<Self> {
        let lengths: Vec<usize> = lengths.as_chunks().0.iter().map(|cell| u64::from_le_bytes(*cell) as usize).collect();
        let mut room = 0usize;
        let mut starts = Vec::with_capacity(lengths.len());
        for length in &lengths {
            starts.push(room);
            room = length.checked_next_multiple_of(ALIGNMENT).and_then(|length| room.checked_add(length))?;
        }
        let room = (room <= isize::MAX as usize - ALIGNMENT && lengths.len() == head.parts).then_some(room)?;
        let mut body = Body { head, lengths, starts, part: 0, filled: 0, buffer: Buffer::new(room) };
        body.skip_full();
        Some(body)
    }

    /// Where the next bytes of the message go, for a transport that receives in place: the rest of one buffer. `None` when
    /// the message is complete.
    #[cfg_attr(not(any(feature = "mpi", test)), expect(dead_code, reason = "for network transports"))]
    pub(crate) fn room(&mut self) -> Option<&mut [u8]> {
        let (&start, &length) = self.starts.get(self.part).zip(self.lengths.get(self.part))?;
        Some(self.buffer.room(start + self.filled, start + length))
    }

    /// Notes that so many bytes of [`room`](Body::room) were written.
    #[cfg_attr(not(any(feature = "mpi", test)), expect(dead_code, reason = "for network transports"))]
    pub(crate) fn advance(&mut self, count: usize) {
        self.filled += count;
        self.skip_full();
    }

    /// Has all buffers copied from their addresses.
    fn fetch(&mut self, addresses: &[u8], fetch: Fetch<'_>) -> bool {
        let all = self.starts.iter().zip(&self.lengths).zip(addresses.as_chunks().0);
        let pieces = all.map(|((&start, &length), address)| Lent { start, length, address: u64::from_le_bytes(*address) });
        let pieces: Vec<Lent> = pieces.filter(|piece| piece.length > 0).collect();
        let end = pieces.last().map_or(0, |piece| piece.start + piece.length);
        self.part = self.lengths.len();
        fetch(self.buffer.room(0, end), &pieces)
    }

    /// The lengths of the buffers.
    #[cfg(any(feature = "gloo", feature = "ucx"))]
    pub(crate) fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// All memory of the message, for a transport that writes everywhere at the same time: each buffer starts at the next
    /// multiple of [`ALIGNMENT`]. It stays where it is.
    #[cfg(any(feature = "gloo", feature = "ucx"))]
    pub(crate) fn memory(&mut self) -> &mut [u8] {
        let end = self.starts.last().zip(self.lengths.last()).map_or(0, |(start, length)| start + length);
        self.buffer.room(0, end)
    }

    /// Hands out the complete message with its context and tag.
    pub(crate) fn finish(self) -> (u64, Tag, Message) {
        let all = self.buffer.freeze();
        let part = |(&start, &length): (&usize, &usize)| match length {
            0 => Bytes::from_static(&NOTHING.0).slice(0..0),
            _ => all.slice(start..start + length),
        };
        let parts = self.starts.iter().zip(&self.lengths).map(part).collect();
        let Head { signature, tag, context, sequence, .. } = self.head;
        (context, tag, Message { sequence, signature, parts })
    }

    fn fill(&mut self, input: &mut &[u8]) {
        while !input.is_empty() && self.part < self.lengths.len() {
            let missing = self.lengths[self.part] - self.filled;
            let (taken, rest) = input.split_at(missing.min(input.len()));
            self.buffer.append(taken);
            self.filled += taken.len();
            *input = rest;
            self.skip_full();
        }
    }

    /// Goes on to the first part that is not full, and to its start in the buffer.
    fn skip_full(&mut self) {
        while self.part < self.lengths.len() && self.filled == self.lengths[self.part] {
            self.part += 1;
            self.filled = 0;
            if let Some(&start) = self.starts.get(self.part) {
                self.buffer.skip_to(start);
            }
        }
    }

    fn into_stage(self, deliver: &mut dyn FnMut(u64, Tag, Message)) -> Stage {
        if self.part < self.lengths.len() {
            return Stage::Body(self);
        }
        let (context, tag, message) = self.finish();
        deliver(context, tag, message);
        Stage::Head
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::{Assembly, Body, Garbled, HEAD, Head, Lent, head, lent};
    use crate::transport::{Message, Tag};

    fn written(context: u64, tag: Tag, message: &Message) -> Vec<u8> {
        let mut bytes = head(context, tag, message);
        message.parts.iter().for_each(|part| bytes.extend_from_slice(part));
        bytes
    }

    fn message(lengths: &[usize]) -> Message {
        let parts = lengths.iter().map(|&length| (0..length).map(|i| i as u8).collect::<Vec<_>>().into());
        Message { sequence: 0, signature: 7, parts: parts.collect() }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn messages_survive_any_cut(
            shapes in prop::collection::vec(prop::collection::vec(prop_oneof![Just(0usize), 1usize..200], 0..5), 1..6),
            cut in 1usize..300,
        ) {
            let sent: Vec<Message> = shapes.iter().map(|lengths| message(lengths)).collect();
            let stream: Vec<u8> = sent.iter().enumerate().flat_map(|(i, m)| written(3, Tag::User(i as u64), m)).collect();
            let (mut assembly, mut received) = (Assembly::default(), Vec::new());
            for piece in stream.chunks(cut) {
                assembly.feed(piece, &mut |context, tag, message| received.push((context, tag, message))).unwrap();
            }
            prop_assert_eq!(received.len(), sent.len());
            for (i, ((context, tag, got), sent)) in received.iter().zip(&sent).enumerate() {
                prop_assert_eq!((*context, *tag, got.signature), (3, Tag::User(i as u64), 7));
                prop_assert_eq!(&got.parts, &sent.parts);
                prop_assert!(got.parts.iter().all(|part: &Bytes| part.as_ptr().addr().is_multiple_of(64)));
            }
        }
    }

    #[test]
    fn messages_are_received_in_place() {
        let sent = message(&[3, 0, 70, 5 << 20, 1]);
        let stream = written(9, Tag::Collective, &sent);
        let head = Head::read(&stream[..HEAD]).unwrap();
        let mut rest = &stream[HEAD + 8 * head.parts..];
        let mut body = Body::new(head, &stream[HEAD..HEAD + 8 * head.parts]).unwrap();
        while let Some(room) = body.room() {
            let count = room.len().min(1 << 16);
            room[..count].copy_from_slice(&rest[..count]);
            rest = &rest[count..];
            body.advance(count);
        }
        let (context, tag, received) = body.finish();
        assert_eq!((context, tag, rest.len()), (9, Tag::Collective, 0));
        assert!(received.parts == sent.parts);
        assert!(received.parts.iter().all(|part| part.as_ptr().addr().is_multiple_of(64)));
    }

    #[test]
    fn lent_messages_are_copied_from_their_addresses() {
        let sent = message(&[0, 5, 200_000]);
        let stream = lent(3, Tag::User(8), &sent);
        let mut fetch = |into: &mut [u8], pieces: &[Lent]| {
            for piece in pieces {
                let source = sent.parts.iter().find(|part| part.as_ptr().addr() as u64 == piece.address).unwrap();
                into[piece.start..piece.start + piece.length].copy_from_slice(source);
            }
            true
        };
        let (mut assembly, mut received) = (Assembly::default(), Vec::new());
        for piece in stream.chunks(7) {
            assembly.feed_lent(piece, &mut fetch, &mut |context, tag, message| received.push((context, tag, message))).unwrap();
        }
        assert_eq!((received.len(), received[0].0, received[0].1), (1, 3, Tag::User(8)));
        assert!(received[0].2.parts == sent.parts);
        assert_eq!(Assembly::default().feed(&stream, &mut |_, _, _| panic!("from another host")), Err(Garbled));
    }

    #[test]
    fn other_bytes_are_no_message() {
        let absurd = written(0, Tag::User(0), &message(&[1])).into_iter().take(HEAD).chain([0xff; 8]).collect::<Vec<u8>>();
        assert_eq!(Assembly::default().feed(&absurd, &mut |_, _, _| panic!("no message")), Err(Garbled));
        assert_eq!(Assembly::default().feed(&[1; 64], &mut |_, _, _| panic!("no message")), Err(Garbled));
    }
}
