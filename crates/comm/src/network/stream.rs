//! One rank's stream of frames and bodies to another.

use std::collections::VecDeque;

use bytes::Bytes;

use super::pieces::pieces;
use crate::{
    frame::{self, Assembly, Body, Garbled, HEAD, Head},
    mailbox::{Address, Mailbox},
    transport::{Message, Tag},
};

/// Kind and length, before everything else in a frame.
const ENVELOPE: usize = 8;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A whole message.
    Small = 1,
    /// The end of a message's head, whose buffers follow as bodies.
    Large = 2,
    /// An earlier stretch of a head that is longer than a frame.
    Stretch = 3,
    /// Who speaks. The first frame.
    Hello = 4,
    /// The sender left.
    Leave = 5,
    /// The receiver got everything up to `Leave`.
    Acknowledge = 6,
    /// The sender aborts; with the reason.
    Abort = 7,
}

impl Kind {
    const ALL: [Kind; 7] = [Kind::Small, Kind::Large, Kind::Stretch, Kind::Hello, Kind::Leave, Kind::Acknowledge, Kind::Abort];
}

fn sealed(kind: Kind, pieces: &[&[u8]]) -> Vec<u8> {
    let length: usize = pieces.iter().map(|piece| piece.len()).sum();
    let mut frame = Vec::with_capacity(ENVELOPE + length);
    frame.extend_from_slice(&(kind as u32).to_le_bytes());
    frame.extend_from_slice(&(length as u32).to_le_bytes());
    pieces.iter().for_each(|piece| frame.extend_from_slice(piece));
    frame
}

/// Kind and content; the frame may be followed by bytes that are none of it.
fn opened(frame: &[u8]) -> Option<(Kind, &[u8])> {
    let (kind, rest) = frame.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let kind = Kind::ALL.into_iter().find(|known| *known as u32 == u32::from_le_bytes(*kind))?;
    Some((kind, rest.get(..u32::from_le_bytes(*length) as usize)?))
}

/// The first frame to a rank: what each drew when they met, so that a rank of an earlier run is found out.
pub(crate) fn hello(mine: u64, yours: u64) -> Vec<u8> {
    sealed(Kind::Hello, &[&mine.to_le_bytes(), &yours.to_le_bytes()])
}

/// The last frame to a rank.
pub(crate) fn leave() -> Vec<u8> {
    sealed(Kind::Leave, &[])
}

/// The answer to the last frame of a rank.
pub(crate) fn acknowledge() -> Vec<u8> {
    sealed(Kind::Acknowledge, &[])
}

/// The end of all work; the reason is cut to fit.
pub(crate) fn abort(reason: &str, longest: usize) -> Vec<u8> {
    let mut end = reason.len().min(longest - ENVELOPE);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    sealed(Kind::Abort, &[&reason.as_bytes()[..end]])
}

/// A message, cut.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// First these, in order.
    pub(crate) frames: Vec<Vec<u8>>,
    /// Then these, in order.
    pub(crate) bodies: Vec<Bytes>,
}

impl Outgoing {
    /// With frames of at most `longest` bytes.
    pub(crate) fn new(context: u64, tag: Tag, message: &Message, longest: usize) -> Self {
        let head = frame::head(context, tag, message);
        let lengths: Vec<usize> = message.parts.iter().map(Bytes::len).collect();
        let room = longest - ENVELOPE;
        if head.len() + lengths.iter().sum::<usize>() <= room {
            let pieces: Vec<&[u8]> = std::iter::once(head.as_slice()).chain(message.parts.iter().map(|part| &part[..])).collect();
            return Outgoing { frames: vec![sealed(Kind::Small, &pieces)], bodies: Vec::new() };
        }
        let last = head.len().div_ceil(room) - 1;
        let kind = |at: usize| if at == last { Kind::Large } else { Kind::Stretch };
        let frames = head.chunks(room).enumerate().map(|(at, chunk)| sealed(kind(at), &[chunk])).collect();
        let bodies = pieces(&lengths).into_iter().map(|piece| piece.of(&message.parts)).collect();
        Outgoing { frames, bodies }
    }
}

/// What a frame has to say to the link, beyond messages.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Nothing: it is about messages, or about the end of the stream, see [`Inbound::deliver`].
    Nothing,
    /// What the sender drew when the ranks met, and what it believes that this one drew.
    Hello { theirs: u64, mine: u64 },
    /// The sender got everything up to this rank's `leave`.
    Acknowledged,
    /// The sender aborted.
    Aborted(String),
}

/// Puts the messages of a rank together.
#[derive(Debug)]
pub(crate) struct Inbound {
    from: usize,
    /// The stretches of a head so far.
    head: Vec<u8>,
    queue: VecDeque<Arriving>,
    /// The number of the first in the queue.
    first: u64,
}

#[derive(Debug)]
enum Arriving {
    /// With the number of bodies that are still on their way.
    Message {
        body: Body,
        missing: usize,
    },
    Whole(u64, Tag, Message),
    Leave,
}

impl Inbound {
    pub(crate) fn new(from: usize) -> Self {
        Inbound { from, head: Vec::new(), queue: VecDeque::new(), first: 0 }
    }

    /// Takes the next frame. `post` gets the memory for each body that it announces, and the number to call
    /// [`landed`](Inbound::landed) with when that is filled; the memory stays where it is until then.
    pub(crate) fn frame(&mut self, frame: &[u8], post: &mut dyn FnMut(u64, &mut [u8])) -> Result<Heard, Garbled> {
        let (kind, content) = opened(frame).ok_or(Garbled)?;
        match kind {
            Kind::Small => {
                let mut whole = None;
                Assembly::default().feed(content, &mut |context, tag, message| whole = Some(Arriving::Whole(context, tag, message)))?;
                self.queue.push_back(whole.ok_or(Garbled)?);
            }
            Kind::Stretch => self.head.extend_from_slice(content),
            Kind::Large => {
                self.head.extend_from_slice(content);
                let (head, lengths) = self.head.split_at_checked(HEAD).ok_or(Garbled)?;
                let mut body = Head::read(head).and_then(|head| Body::new(head, lengths)).ok_or(Garbled)?;
                self.head.clear();
                let number = self.first + self.queue.len() as u64;
                let pieces = pieces(body.lengths());
                let memory = body.memory();
                for piece in &pieces {
                    post(number, &mut memory[piece.at.clone()]);
                }
                self.queue.push_back(Arriving::Message { body, missing: pieces.len() });
            }
            Kind::Hello => {
                let number = |cell: &[u8]| cell.try_into().map(u64::from_le_bytes).map_err(|_| Garbled);
                let (theirs, mine) = content.split_at_checked(8).ok_or(Garbled)?;
                return Ok(Heard::Hello { theirs: number(theirs)?, mine: number(mine)? });
            }
            Kind::Leave => self.queue.push_back(Arriving::Leave),
            Kind::Acknowledge => return Ok(Heard::Acknowledged),
            Kind::Abort => return Ok(Heard::Aborted(String::from_utf8_lossy(content).into_owned())),
        }
        Ok(Heard::Nothing)
    }

    /// Notes that a body of a message is there.
    pub(crate) fn landed(&mut self, number: u64) {
        if let Some(Arriving::Message { missing, .. }) = self.queue.get_mut((number - self.first) as usize) {
            *missing -= 1;
        }
    }

    /// Puts what is complete into the mailbox; whether the sender has left.
    pub(crate) fn deliver(&mut self, mailbox: &Mailbox) -> bool {
        while !matches!(self.queue.front(), None | Some(Arriving::Message { missing: 1.., .. })) {
            self.first += 1;
            let (context, tag, message) = match self.queue.pop_front() {
                Some(Arriving::Message { body, .. }) => body.finish(),
                Some(Arriving::Whole(context, tag, message)) => (context, tag, message),
                Some(Arriving::Leave) => return true,
                None => return false,
            };
            mailbox.put(Address { context, from: self.from, tag }, message);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::{Heard, Inbound, Outgoing, abort, hello, leave};
    use crate::{
        Deadline,
        mailbox::{Address, Mailbox},
        transport::{Message, Tag},
    };

    const LONGEST: usize = 1024;

    fn message(lengths: &[usize]) -> Message {
        let parts = lengths.iter().map(|&length| (0..length).map(|i| i as u8).collect::<Vec<_>>().into());
        Message { sequence: 0, signature: 7, parts: parts.collect() }
    }

    fn taken(mailbox: &Mailbox, tag: u64) -> Option<Vec<Bytes>> {
        let address = Address { context: 3, from: 1, tag: Tag::User(tag) };
        mailbox.take(address, Deadline::new("recv", Duration::ZERO), None).ok().map(|message| message.parts)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn messages_arrive_complete_and_in_order(
            shapes in prop::collection::vec(prop::collection::vec(prop_oneof![Just(0usize), 1usize..400, 100_000usize..100_100], 0..300), 1..6),
            late in any::<bool>(),
        ) {
            let sent: Vec<Message> = shapes.iter().map(|lengths| message(lengths)).collect();
            let (mailbox, mut inbound) = (Mailbox::new(2), Inbound::new(1));
            // Bodies that have not landed yet: they come in order, at once or after all frames.
            let mut landing: Vec<(u64, Bytes)> = Vec::new();
            let mut left = false;
            for (tag, message) in sent.iter().enumerate() {
                let Outgoing { frames, bodies } = Outgoing::new(3, Tag::User(tag as u64), message, LONGEST);
                let mut bodies = bodies.into_iter();
                for frame in frames {
                    prop_assert!(frame.len() <= LONGEST);
                    let heard = inbound.frame(&frame, &mut |number, memory| {
                        let body = bodies.next().unwrap();
                        // The library would write later; the memory is the same.
                        memory.copy_from_slice(&body);
                        landing.push((number, body));
                    });
                    prop_assert_eq!(heard, Ok(Heard::Nothing));
                }
                prop_assert!(bodies.next().is_none());
                if !late {
                    landing.drain(..).for_each(|(number, _)| inbound.landed(number));
                    left |= inbound.deliver(&mailbox);
                }
            }
            prop_assert_eq!(inbound.frame(&leave(), &mut |_, _| ()), Ok(Heard::Nothing));
            if late {
                left |= inbound.deliver(&mailbox);
                prop_assert_eq!(left, landing.is_empty());
                landing.drain(..).for_each(|(number, _)| inbound.landed(number));
            }
            left |= inbound.deliver(&mailbox);
            prop_assert!(left);
            for (tag, message) in sent.iter().enumerate() {
                let received = taken(&mailbox, tag as u64).unwrap();
                prop_assert!(received == message.parts);
                prop_assert!(received.iter().all(|part| part.as_ptr().addr().is_multiple_of(64)));
            }
        }
    }

    #[test]
    fn what_is_no_message_is_heard() {
        let mut inbound = Inbound::new(1);
        let mut hear = |frame: &[u8]| inbound.frame(frame, &mut |_, _| panic!("no body"));
        assert_eq!(hear(&hello(5, 6)), Ok(Heard::Hello { theirs: 5, mine: 6 }));
        assert_eq!(hear(&abort("größer", 8 + 3)), Ok(Heard::Aborted("gr".to_owned())));
        assert!(hear(&[9; 64]).is_err());
        assert!(hear(&hello(1, 1)[..20]).is_err());
    }
}
