//! What is under way between this rank and the others.
//!
//! ```text
//! rank 0 → rank 1, tag FRAME   [head | lengths | bytes]  [head | lengths]                 [head | lengths]   [left]
//!                  tag BODY                                [bytes of buffer 0] [buffer 1]   [bytes]
//! ```
//! A short message is one message of MPI. Of a longer one the head comes alone, and then each buffer, in pieces that MPI can
//! count, straight from the sender's memory to where the receiver wants it. MPI keeps the order of messages
//! with the same tag, so it is enough to ask for the bodies in the order of their heads.

use std::{
    collections::VecDeque,
    ffi::c_int,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;

use super::library::{self, Group, Inside, LONGEST, Matched, Request};
use crate::{
    Result,
    frame::{Assembly, Body, HEAD, Head},
    transport::{Message, Tag},
};

const FRAME: c_int = 1;
const BODY: c_int = 2;
/// A message up to this length, head included, travels in one piece: what Open MPI passes between processes of
/// one host without first asking the receiver (`btl_vader_eager_limit` 4096, its own head included).
const SHORT: usize = 4000;
/// How many messages are taken before completed transfers are looked at.
const TAKE: usize = 64;

/// What a rank says that is no message; the first four bytes of a frame, of which a head's magic is none.
const HELLO: u32 = u32::from_le_bytes(*b"DRH1");
const LEFT: u32 = u32::from_le_bytes(*b"DRL1");
const ABORT: u32 = u32::from_le_bytes(*b"DRA1");

/// Something that came from another rank.
pub(super) enum Event {
    Message {
        context: u64,
        tag: Tag,
        message: Message,
    },
    /// The rank's first words: its process.
    Hello(Vec<u8>),
    /// The rank sends no more.
    Left,
    /// The rank ended the work of all, for this reason.
    Abort(String),
    /// The rank's bytes make no sense.
    Garbled,
}

/// What a rank says of itself rather than for its user.
#[derive(Debug, Clone, Copy)]
pub(super) enum Notice<'a> {
    Hello(&'a [u8]),
    Left,
    Abort(&'a str),
}

/// A message being sent. Its memory must not move or change before [`done`](Outgoing::done).
pub(super) struct Outgoing {
    frame: Vec<u8>,
    bodies: Vec<Bytes>,
    open: AtomicUsize,
}

impl Outgoing {
    /// Whether MPI has read all of it.
    pub(super) fn done(&self) -> bool {
        self.open.load(Ordering::SeqCst) == 0
    }
}

/// Whom a request belongs to.
enum Owner {
    Out(Arc<Outgoing>),
    /// The how-manyth message from a rank.
    In {
        from: usize,
        number: u64,
    },
}

/// A message being received.
struct Incoming {
    stage: Stage,
    /// Requests not complete yet.
    open: usize,
}

enum Stage {
    Frame(Vec<u8>),
    Bodies(Body),
    /// Held back only by those before it.
    Ready(Event),
}

/// The messages from one rank, from the oldest that is not delivered.
#[derive(Default)]
struct Lane {
    /// How many were delivered.
    delivered: u64,
    incoming: VecDeque<Incoming>,
    /// Nothing more is expected or believed.
    over: bool,
}

/// All transfers of a link. Not to be dropped while some are under way, for MPI may still read and write their memory: see
/// [`settle`](Traffic::settle).
pub(super) struct Traffic {
    /// None when it was given up.
    group: Option<Group>,
    lanes: Vec<Lane>,
    /// Under way, each with its owner at the same place in `owners`.
    requests: Vec<Request>,
    owners: Vec<Owner>,
    done: Vec<c_int>,
}

impl Traffic {
    /// Of this rank, in a communicator of MPI that nobody else uses.
    pub(super) fn new(group: Group, rank: usize, size: usize) -> Self {
        let lanes = (0..size).map(|from| Lane { over: from == rank, ..Lane::default() }).collect();
        Traffic { group: Some(group), lanes, requests: Vec::new(), owners: Vec::new(), done: Vec::new() }
    }

    /// Begins to send a message, whose head was written by [`frame::head`](crate::frame::head).
    pub(super) fn post(&mut self, to: usize, mut head: Vec<u8>, parts: Vec<Bytes>) -> Result<Arc<Outgoing>> {
        let bytes: usize = parts.iter().map(Bytes::len).sum();
        let bodies = if short(head.len(), bytes) {
            parts.iter().for_each(|part| head.extend_from_slice(part));
            Vec::new()
        } else {
            parts
        };
        self.start(to, head, bodies)
    }

    /// Begins to send a notice.
    pub(super) fn tell(&mut self, to: usize, notice: Notice<'_>) -> Result<Arc<Outgoing>> {
        let (word, rest) = match notice {
            Notice::Hello(process) => (HELLO, process),
            Notice::Left => (LEFT, [].as_slice()),
            Notice::Abort(reason) => (ABORT, reason.as_bytes()),
        };
        self.start(to, [&word.to_le_bytes(), rest].concat(), Vec::new())
    }

    fn start(&mut self, to: usize, frame: Vec<u8>, bodies: Vec<Bytes>) -> Result<Arc<Outgoing>> {
        let group = self.group.ok_or_else(library::ended)?;
        let inside = library::enter()?;
        let out = Arc::new(Outgoing { frame, bodies, open: AtomicUsize::new(0) });
        let frame = std::iter::once((FRAME, out.frame.as_slice()));
        let bodies = out.bodies.iter().flat_map(|part| part.chunks(LONGEST)).map(|piece| (BODY, piece));
        for (tag, piece) in frame.chain(bodies) {
            // SAFETY: `out` is not moved or changed, and `self.owners` keeps it until the request is complete.
            let request = unsafe { inside.send(group, to, tag, piece)? };
            out.open.fetch_add(1, Ordering::SeqCst);
            self.requests.push(request);
            self.owners.push(Owner::Out(out.clone()));
        }
        drop(inside);
        Ok(out)
    }

    /// Moves all transfers on, and hands out what is complete; whether anything happened.
    ///
    /// # Errors
    /// [`Error::Library`](crate::Error::Library) when MPI failed.
    pub(super) fn poll(&mut self, deliver: &mut dyn FnMut(usize, Event)) -> Result<bool> {
        let Some(group) = self.group else { return Ok(false) };
        let inside = library::enter()?;
        let mut any = false;
        for _ in 0..TAKE {
            let Some(matched) = inside.probe(group, FRAME)? else { break };
            self.take(&inside, matched)?;
            any = true;
        }
        if !self.requests.is_empty() {
            any |= self.complete(&inside)?;
        }
        if any {
            self.advance(&inside, group, deliver)?;
        }
        Ok(any)
    }

    /// Begins to receive a frame.
    fn take(&mut self, inside: &Inside, matched: Matched) -> Result<()> {
        let from = matched.from;
        let lane = &mut self.lanes[from];
        let number = lane.delivered + lane.incoming.len() as u64;
        let mut frame = vec![0; matched.length];
        let place = frame.as_mut_ptr();
        lane.incoming.push_back(Incoming { stage: Stage::Frame(frame), open: 1 });
        // SAFETY: the frame's memory does not move when the `Vec` does, and is not touched while `open` is not 0.
        let request = unsafe { inside.receive_matched(matched, place)? };
        self.requests.push(request);
        self.owners.push(Owner::In { from, number });
        Ok(())
    }

    /// Counts the requests that are complete.
    fn complete(&mut self, inside: &Inside) -> Result<bool> {
        let mut done: Vec<usize> = inside.test(&mut self.requests, &mut self.done)?.iter().map(|&place| place as usize).collect();
        // From the last to the first, so that those not looked at yet stay in their places.
        done.sort_unstable_by(|a, b| b.cmp(a));
        for &place in &done {
            self.requests.swap_remove(place);
            match self.owners.swap_remove(place) {
                Owner::Out(out) => _ = out.open.fetch_sub(1, Ordering::SeqCst),
                Owner::In { from, number } => {
                    let lane = &mut self.lanes[from];
                    lane.incoming[(number - lane.delivered) as usize].open -= 1;
                }
            }
        }
        Ok(!done.is_empty())
    }

    /// Reads the frames that are complete, asks for their bodies, and delivers what is ready, in the order of each sender.
    fn advance(&mut self, inside: &Inside, group: Group, deliver: &mut dyn FnMut(usize, Event)) -> Result<()> {
        for (from, lane) in self.lanes.iter_mut().enumerate() {
            for (place, incoming) in lane.incoming.iter_mut().enumerate() {
                let Stage::Frame(frame) = &mut incoming.stage else { continue };
                if incoming.open > 0 {
                    // Bodies have to be asked for in the order of their heads, so those behind wait.
                    break;
                }
                incoming.stage = read(std::mem::take(frame));
                let Stage::Bodies(body) = &mut incoming.stage else { continue };
                for (start, length) in pieces(body) {
                    // SAFETY: the body's buffer does not move, and is not touched while `open` is not 0.
                    let request = unsafe { inside.receive(group, from, BODY, start, length)? };
                    incoming.open += 1;
                    self.requests.push(request);
                    self.owners.push(Owner::In { from, number: lane.delivered + place as u64 });
                }
            }
            while let Some(Incoming { open: 0, stage: Stage::Bodies(_) | Stage::Ready(_) }) = lane.incoming.front() {
                lane.delivered += 1;
                let event = match lane.incoming.pop_front().map(|incoming| incoming.stage) {
                    Some(Stage::Ready(event)) => event,
                    Some(Stage::Bodies(body)) => {
                        let (context, tag, message) = body.finish();
                        Event::Message { context, tag, message }
                    }
                    Some(Stage::Frame(_)) | None => continue,
                };
                if !lane.over {
                    lane.over = matches!(event, Event::Left | Event::Garbled);
                    deliver(from, event);
                }
            }
        }
        Ok(())
    }

    /// Goes on for a link that ended: what is sent to it is received and dropped, so that senders come to an end. Whether all is
    /// over: the others have left too, and nothing is under way.
    pub(super) fn settle(&mut self) -> Result<bool> {
        self.poll(&mut |_, _| ())?;
        let over = self.requests.is_empty() && self.lanes.iter().all(|lane| lane.over);
        if over && let Some(group) = self.group.take() {
            library::enter()?.free(group);
        }
        Ok(over)
    }
}

/// Whether a message travels in one piece.
fn short(head: usize, bytes: usize) -> bool {
    head.saturating_add(bytes) <= SHORT
}

fn read(frame: Vec<u8>) -> Stage {
    let word = frame.first_chunk().map(|word| u32::from_le_bytes(*word));
    let rest = frame.get(4..).unwrap_or_default();
    let event = match word {
        Some(HELLO) => Event::Hello(rest.to_vec()),
        Some(LEFT) => Event::Left,
        Some(ABORT) => Event::Abort(String::from_utf8_lossy(rest).into_owned()),
        _ => return read_message(&frame).unwrap_or(Stage::Ready(Event::Garbled)),
    };
    Stage::Ready(event)
}

fn read_message(frame: &[u8]) -> Option<Stage> {
    let head = Head::read(frame.get(..HEAD)?)?;
    let end = head.parts.checked_mul(8)?.checked_add(HEAD)?;
    let lengths = frame.get(HEAD..end)?;
    let bytes = lengths.as_chunks().0.iter().try_fold(0u64, |sum, length| sum.checked_add(u64::from_le_bytes(*length)))?;
    if !short(end, bytes.try_into().ok()?) {
        return (frame.len() == end).then(|| Body::new(head, lengths)).flatten().map(Stage::Bodies);
    }
    let (mut assembly, mut event) = (Assembly::default(), None);
    let mut deliver = |context, tag, message| event = Some(Event::Message { context, tag, message });
    assembly.feed(frame, &mut deliver).ok()?;
    event.map(Stage::Ready)
}

/// Where the bytes of a message go, cut into pieces that MPI can count.
fn pieces(body: &mut Body) -> Vec<(*mut u8, usize)> {
    let mut pieces = Vec::new();
    while let Some(room) = body.room() {
        let length = room.len();
        pieces.extend(room.chunks_mut(LONGEST).map(|piece| (piece.as_mut_ptr(), piece.len())));
        body.advance(length);
    }
    pieces
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{Event, SHORT, Stage, pieces, read};
    use crate::{
        frame::{HEAD, head},
        transport::{Message, Tag},
    };

    fn framed(lengths: &[usize]) -> (Vec<u8>, Message) {
        let parts = lengths.iter().map(|&length| Bytes::from(vec![7; length])).collect();
        let message = Message { parts, ..Message::default() };
        (head(5, Tag::User(9), &message), message)
    }

    #[test]
    fn a_short_message_comes_with_its_head() {
        let (mut frame, message) = framed(&[3, 0, 100]);
        message.parts.iter().for_each(|part| frame.extend_from_slice(part));
        let Stage::Ready(Event::Message { context: 5, tag: Tag::User(9), message: read }) = read(frame) else { panic!("no message") };
        assert_eq!(read.parts, message.parts);
    }

    #[test]
    fn a_long_message_comes_in_pieces() {
        let (frame, _) = framed(&[3, 0, SHORT]);
        let Stage::Bodies(mut body) = read(frame) else { panic!("no bodies") };
        assert_eq!(pieces(&mut body).iter().map(|piece| piece.1).collect::<Vec<_>>(), [3, SHORT]);
    }

    #[test]
    fn other_bytes_are_garbled() {
        let (mut long, _) = framed(&[SHORT]);
        long.push(0);
        let (mut endless, _) = framed(&[3, 1]);
        endless[HEAD..HEAD + 8].fill(0xff);
        for frame in [vec![], vec![1], vec![1; 64], framed(&[3]).0, endless, long] {
            assert!(matches!(read(frame), Stage::Ready(Event::Garbled)));
        }
    }
}
