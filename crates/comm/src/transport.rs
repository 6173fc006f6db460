//! What a way of moving bytes between ranks has to offer.

use std::{
    fmt::Debug,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{Error, Result};

/// Moves messages between the ranks of one group. All collectives are written once, on top of this.
///
/// The protocol:
/// - Messages from one rank to another with the same tag arrive in the order they were sent, each once.
///   Messages with different tags may be received in any order and never block one another.
/// - `send` may return before the message is received. While it waits for room it goes on receiving, so that
///   ranks which all send before they receive do not wait for each other.
/// - `recv` hands out what a rank sent before it died or left; only then it reports the death.
/// - Every wait ends at the deadline with [`Error::Timeout`], and at once after `abort` anywhere in the group
///   that the transport was made for.
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
    fn send(&self, to: usize, tag: Tag, message: Message, deadline: Deadline) -> Result<()>;

    /// Receives the next message that rank `from` sent with this tag.
    ///
    /// # Errors
    /// [`Error::PeerDead`], [`Error::PeerLeft`], [`Error::Timeout`], [`Error::Aborted`].
    fn recv(&self, from: usize, tag: Tag, deadline: Deadline) -> Result<Message>;

    /// The transport of some of these ranks, in this order. Only they call it, with the same `context`, a number
    /// that no other subgroup of theirs has: it keeps the subgroup's messages apart from all others.
    ///
    /// # Errors
    /// What the backend's own agreement among the members can report.
    fn subgroup(&self, ranks: &[usize], context: u64, deadline: Deadline) -> Result<Arc<dyn Transport>>;

    /// Wakes every blocked call on every rank with [`Error::Aborted`]; so do all later calls end. The first reason stays.
    fn abort(&self, reason: &str);
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

/// Until when a call may take, and how to report that it did not.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    /// The call, for [`Error::Timeout`].
    pub operation: &'static str,
    /// The time allowed.
    pub after: Duration,
    /// When that is over.
    pub at: Instant,
}

impl Deadline {
    /// The deadline of a call that starts now.
    pub fn new(operation: &'static str, after: Duration) -> Self {
        let now = Instant::now();
        // A timeout beyond what the clock can hold means "as long as it takes"; thirty years will do.
        let at = now.checked_add(after).unwrap_or(now + Duration::from_secs(1_000_000_000));
        Deadline { operation, after, at }
    }

    /// The time that is left; `None` when it is over.
    pub fn left(&self) -> Option<Duration> {
        self.at.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }

    /// The error of a call that waited in vain for `rank`.
    pub fn expired(&self, rank: impl Into<Option<usize>>) -> Error {
        Error::Timeout { operation: self.operation, rank: rank.into(), after: self.after }
    }
}
