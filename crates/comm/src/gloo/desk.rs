//! What is known of the other ranks: where everything that comes from Gloo is sorted.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use super::ffi::{Line, Listener};
use crate::{
    Error,
    mailbox::Mailbox,
    network::{Heard, Inbound, acknowledge},
    transport::Deadline,
};

/// One per link. Shared with Gloo's thread.
pub(super) struct Desk {
    pub(super) mailbox: Mailbox,
    /// By rank. Locked before the mailbox.
    streams: Vec<Mutex<Stream>>,
    /// By rank; the entry of this one stays as it is. Locked after the mailbox.
    others: Vec<Mutex<Other>>,
}

/// What comes from a rank.
#[derive(Debug)]
struct Stream {
    inbound: Inbound,
    /// For each body on its way, the message it belongs to, in the order in which they come.
    bodies: VecDeque<u64>,
}

/// A rank and its connection.
#[derive(Debug, Default)]
pub(super) struct Other {
    /// What the rank has to say first: the number that it drew, and this rank's.
    hello: Option<Heard>,
    /// It did.
    pub(super) greeted: bool,
    /// It got everything that this rank sent before it left.
    pub(super) acknowledged: bool,
    /// The connection is over.
    pub(super) ended: bool,
    /// Frames that are not with the operating system yet.
    pub(super) frames: usize,
    /// The bodies on their way, oldest first: their memory is being read.
    pub(super) held: VecDeque<Bytes>,
    /// Bodies ever sent, and ever handed to the operating system.
    pub(super) begun: u64,
    pub(super) done: u64,
}

impl Desk {
    pub(super) fn new(size: usize) -> Self {
        let stream = |from| Mutex::new(Stream { inbound: Inbound::new(from), bodies: VecDeque::new() });
        Desk {
            mailbox: Mailbox::new(size),
            streams: (0..size).map(stream).collect(),
            others: (0..size).map(|_| Mutex::default()).collect(),
        }
    }

    /// What is known of a rank. Not to be held while anything else is used.
    pub(super) fn other(&self, rank: usize) -> MutexGuard<'_, Other> {
        self.others[rank].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stream(&self, rank: usize) -> MutexGuard<'_, Stream> {
        self.streams[rank].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a rank has to say first. Told before it is connected.
    pub(super) fn expect_hello(&self, rank: usize, theirs: u64, mine: u64) {
        self.other(rank).hello = Some(Heard::Hello { theirs, mine });
    }

    /// Sends a frame and counts it.
    pub(super) fn send_frame(&self, line: &Line, rank: usize, frame: &[u8]) -> Result<(), String> {
        self.other(rank).frames += 1;
        line.send_frame(rank, frame)
    }

    /// Gives a connection that should end by itself some time, then ends it.
    pub(super) fn bury(&self, line: &Line, rank: usize, deadline: Deadline<'_>) {
        let ended = self.mailbox.wait(rank, deadline, None, |_| self.other(rank).ended.then_some(Ok(())));
        if ended.is_err() {
            line.hang_up(rank);
        }
    }

    /// Nothing that comes from this rank can be understood, or trusted.
    fn refuse(&self, line: &Line, rank: usize, error: Error) {
        self.mailbox.close(rank, error);
        line.hang_up(rank);
    }

    fn deliver(&self, line: &Line, rank: usize) {
        let left = self.stream(rank).inbound.deliver(&self.mailbox);
        if left {
            self.mailbox.close(rank, Error::PeerLeft { rank });
            // A rank that does not get the answer has gone, or waits until its patience ends.
            let _ = self.send_frame(line, rank, &acknowledge());
        }
    }
}

impl Listener for std::sync::Arc<Desk> {
    fn frame(&self, line: &Line, rank: usize, frame: &[u8]) {
        let mut stream = self.stream(rank);
        let Stream { inbound, bodies } = &mut *stream;
        let heard = inbound.frame(frame, &mut |number, memory| {
            bodies.push_back(number);
            // SAFETY: `inbound` keeps the memory of a message until all its bodies have landed, the desk keeps `inbound`, and
            // the group keeps the desk. An error means that the connection has ended, which Gloo's thread tells.
            let _ = unsafe { line.receive(rank, memory.as_mut_ptr(), memory.len()) };
        });
        drop(stream);
        let (greeted, expected) = {
            let mut other = self.other(rank);
            (std::mem::replace(&mut other.greeted, true), other.hello.take())
        };
        match heard {
            Ok(hello @ Heard::Hello { .. }) if !greeted && Some(&hello) == expected.as_ref() => self.mailbox.wake_all(),
            Ok(Heard::Nothing) if greeted => self.deliver(line, rank),
            Ok(Heard::Acknowledged) if greeted => {
                self.other(rank).acknowledged = true;
                self.mailbox.wake_all();
            }
            Ok(Heard::Aborted(reason)) if greeted => self.mailbox.abort(Error::Aborted { rank, reason }),
            _ => self.refuse(line, rank, Error::Corrupt { rank }),
        }
    }

    fn received(&self, line: &Line, rank: usize) {
        let mut stream = self.stream(rank);
        if let Some(number) = stream.bodies.pop_front() {
            stream.inbound.landed(number);
        }
        drop(stream);
        self.deliver(line, rank);
    }

    fn sent(&self, rank: usize, frames: usize, bodies: usize) {
        let mut other = self.other(rank);
        other.frames -= frames;
        other.done += bodies as u64;
        let over: Vec<Bytes> = other.held.drain(..bodies).collect();
        drop(other);
        // Not under the lock: it may be the last reference to much memory.
        drop(over);
        self.mailbox.wake_all();
    }

    fn ended(&self, rank: usize) {
        self.other(rank).ended = true;
        // Does nothing when the rank has left.
        self.mailbox.close(rank, Error::PeerDead { rank });
    }
}
