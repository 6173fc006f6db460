//! What a way of moving bytes between ranks has to offer.

use std::{
    fmt::Debug,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{CancelToken, Error, Result, Values};

/// Moves messages between the ranks of one group. All collectives are written once, on top of this.
///
/// The protocol:
/// - Messages from one rank to another with the same tag arrive in the order they were sent, each once.
///   Messages with different tags may be received in any order and never block one another.
/// - `send` may return before the message is received. While it waits for room it goes on receiving, so that
///   ranks which all send before they receive do not wait for each other.
/// - `recv` hands out what a rank sent before it died or left; only then it reports the death.
/// - Every wait ends at the deadline with [`Error::Timeout`], and at once after `abort` anywhere in the group
///   that the transport was made for. A wait whose deadline has a [`CancelToken`] ends with [`Error::Cancelled`] soon after
///   that was cancelled; [`Deadline::remaining`] asks for both.
/// - Sending to oneself is allowed.
/// - Dropping the last transport of a rank (subgroups included) tells the others that it left.
/// - Errors name ranks of the first group, not of the subgroup.
pub trait Transport: Send + Sync + Debug {
    /// This rank, below [`size`](Transport::size).
    fn rank(&self) -> usize;

    /// Number of ranks.
    fn size(&self) -> usize;

    /// Sends a message to rank `to`.
    ///
    /// # Errors
    /// [`Error::PeerDead`], [`Error::PeerLeft`], [`Error::Timeout`], [`Error::Aborted`].
    fn send(&self, to: usize, tag: Tag, message: Message, deadline: Deadline<'_>) -> Result<()>;

    /// Returns when nothing that was sent needs this rank any more: a backend may keep buffers that it was given to send until their
    /// receivers have come for them. Called at the end of every call that sends.
    ///
    /// # Errors
    /// As [`send`](Transport::send).
    fn flush(&self, _deadline: Deadline<'_>) -> Result<()> {
        Ok(())
    }

    /// Receives the next message that rank `from` sent with this tag.
    ///
    /// # Errors
    /// [`Error::PeerDead`], [`Error::PeerLeft`], [`Error::Timeout`], [`Error::Aborted`].
    fn recv(&self, from: usize, tag: Tag, deadline: Deadline<'_>) -> Result<Message>;

    /// The transport of some of these ranks, in this order. Only they call it, with the same `context`, a number
    /// that no other subgroup of theirs has: it keeps the subgroup's messages apart from all others.
    ///
    /// # Errors
    /// What the backend's own agreement among the members can report.
    fn subgroup(&self, ranks: &[usize], context: u64, deadline: Deadline<'_>) -> Result<Arc<dyn Transport>>;

    /// Wakes every blocked call on every rank with [`Error::Aborted`]; so do all later calls end. The first reason stays.
    fn abort(&self, reason: &str);

    /// In how many bytes at once long reductions go best. The same on all ranks.
    fn chunk(&self) -> usize {
        512 << 10
    }

    /// Makes the blocked calls of this rank ask [`Deadline::remaining`] again: a token was cancelled. Needs an
    /// implementation where waits sleep for longer than a few milliseconds.
    fn wake(&self) {}

    /// The backend's own `all_to_all`, if it has one that is faster than sends and receives: `out[to]` are the buffers for a
    /// rank, the result at `[from]` those of a rank. Whether it has one must be the same on all ranks of a call.
    fn exchange(&self, _call: Call, _out: &[Vec<Bytes>], _deadline: Deadline<'_>) -> Option<Result<Vec<Vec<Bytes>>>> {
        None
    }

    /// The backend's own `allreduce`, in place, if it has one that is faster and gives the same bits: the values of the ranks
    /// combined in rank order. Whether it has one must be the same on all ranks of a call.
    fn allreduce(&self, _call: Call, _values: &mut Values<'_>, _deadline: Deadline<'_>) -> Option<Result<()>> {
        None
    }

    /// The number of the host of each rank where ranks of one host reach each other faster than the others; hosts count
    /// from 0 in the order of their first ranks. `None` when all ways are alike.
    fn hosts(&self) -> Option<&[usize]> {
        None
    }
}

/// Which collective call of a communicator: what all its ranks have to agree on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Call {
    /// The how-manyth collective of the communicator.
    pub sequence: u64,
    /// Which collective, with which root, type and operation.
    pub signature: u32,
}

/// Which stream of messages between two ranks. The user's tags and the collectives never meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tag {
    /// [`Communicator::send`](crate::Communicator::send) and [`recv`](crate::Communicator::recv).
    User(u64),
    /// All collectives of a communicator, in the order they are called.
    Collective,
}

/// What travels: buffers, and for a collective which call they belong to.
#[derive(Debug, Clone, Default)]
pub struct Message {
    /// The how-manyth collective of the communicator; 0 for user messages.
    pub sequence: u64,
    /// Which collective, with which root, type and operation; 0 for user messages.
    pub signature: u32,
    /// The buffers. Passed by reference between threads, else copied to addresses that are multiples of 64.
    pub parts: Vec<Bytes>,
}

/// Until when a call may take, whether it was called off, and how to report either.
#[derive(Debug, Clone, Copy)]
pub struct Deadline<'a> {
    /// The call, for [`Error::Timeout`].
    pub operation: &'static str,
    /// The time allowed.
    pub after: Duration,
    /// When that is over.
    pub at: Instant,
    /// Ends the call earlier.
    pub cancel: Option<&'a CancelToken>,
}

impl<'a> Deadline<'a> {
    /// The deadline of a call that starts now.
    pub fn new(operation: &'static str, after: Duration) -> Self {
        let now = Instant::now();
        // A timeout beyond what the clock can hold means "as long as it takes"; thirty years will do.
        let at = now.checked_add(after).unwrap_or(now + Duration::from_secs(1_000_000_000));
        Deadline { operation, after, at, cancel: None }
    }

    /// The same deadline, with a token that may end the call earlier.
    pub fn with_cancel<'b>(self, cancel: Option<&'b CancelToken>) -> Deadline<'b> {
        let Deadline { operation, after, at, .. } = self;
        Deadline { operation, after, at, cancel }
    }

    /// The time that a call which waits for `rank` may still take.
    ///
    /// # Errors
    /// [`Error::Timeout`] when it is over, [`Error::Cancelled`] when the call was called off.
    pub fn remaining(&self, rank: impl Into<Option<usize>>) -> Result<Duration> {
        if self.cancel.is_some_and(CancelToken::is_cancelled) {
            return Err(Error::Cancelled { operation: self.operation });
        }
        self.left().ok_or_else(|| self.expired(rank))
    }

    /// The time that is left; `None` when it is over. Does not look at the token.
    pub fn left(&self) -> Option<Duration> {
        self.at.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }

    /// The error of a call that waited in vain for `rank`.
    pub fn expired(&self, rank: impl Into<Option<usize>>) -> Error {
        Error::Timeout { operation: self.operation, rank: rank.into(), after: self.after }
    }
}
