//! Ranks that are connected by Gloo over TCP.
//!
//! ```text
//!  rank 0                                                                             rank 1
//!  send ─► lane ─► frames, bodies ─► Gloo's queues ─►  TCP connection  ─► Gloo's thread ─► desk ─► mailbox ─► recv
//! ```
//! Every process has a thread of Gloo's that reads and writes all its connections; a message is put together on that thread and
//! lies in the mailbox before anybody asks for it, so ranks may all send before they receive. Who waits sleeps. Gloo's thread
//! wakes every 10 ms when nothing happens, of its own accord.
//!
//! Long buffers are read from the sender's memory and written into the receiver's, without another copy in this
//! process. A `send` of them returns when their last byte is with the operating system, so a rank that was stopped makes it time out.
//!
//! A process that dies is noticed by the end of its connection; where an unrelated process has inherited that, by the watch (on
//! one host) or the deadline.
//!
//! Gloo has collectives of its own; this transport does not use them. Their `allreduce` adds in the order of a ring rather than of
//! the ranks; their waits can be neither aborted nor limited without the end of all connections; and `alltoallv` moves the
//! same bytes the same way. See the figures in `benchmarks/comm`.
//!
//! libtorch contains a Gloo of another version under the same names. In a program that is linked with both, the one that the loader
//! finds first serves both; if that is libtorch's, this transport refuses to open rather than crash.

mod desk;
mod ffi;
mod link;

use std::{fmt, sync::Arc};

use crate::{
    Rendezvous, Result, Store,
    mailbox::Address,
    transport::{Deadline, Message, Tag, Transport},
};
use link::Link;

/// A rank among processes that Gloo connects.
pub(crate) struct Gloo {
    /// This rank in `members`.
    rank: usize,
    /// The ranks of the first communicator that belong to this one.
    members: Arc<[usize]>,
    context: u64,
    /// Shared by all subgroups; its end tells the others that this rank left.
    link: Arc<Link>,
}

/// Meets the other processes; returns when all are connected.
///
/// # Errors
/// [`Error::Timeout`](crate::Error::Timeout) names a rank that did not come, [`Error::PeerDead`](crate::Error::PeerDead) one that
/// died; [`Error::Library`](crate::Error::Library), and those of the store.
pub(crate) fn connect(at: &Rendezvous, store: &Store) -> Result<Arc<dyn Transport>> {
    let link = Arc::new(Link::connect(at, store, Deadline::new("connect", at.timeout))?);
    Ok(Arc::new(Gloo { rank: at.rank, members: (0..at.size).collect(), context: 0, link }))
}

impl Transport for Gloo {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.members.len()
    }

    fn send(&self, to: usize, tag: Tag, message: Message, deadline: Deadline<'_>) -> Result<()> {
        let address = Address { context: self.context, from: self.members[self.rank], tag };
        self.link.send(self.members[to], address, message, deadline)
    }

    fn recv(&self, from: usize, tag: Tag, deadline: Deadline<'_>) -> Result<Message> {
        self.link.recv(Address { context: self.context, from: self.members[from], tag }, deadline)
    }

    fn subgroup(&self, ranks: &[usize], context: u64, _deadline: Deadline<'_>) -> Result<Arc<dyn Transport>> {
        let rank = ranks.iter().position(|&rank| rank == self.rank).expect("only members make a subgroup");
        let members = ranks.iter().map(|&rank| self.members[rank]).collect();
        Ok(Arc::new(Gloo { rank, members, context, link: self.link.clone() }))
    }

    fn abort(&self, reason: &str) {
        self.link.abort(reason);
    }

    fn wake(&self) {
        self.link.wake();
    }
}

impl fmt::Debug for Gloo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gloo").field("rank", &self.rank).field("members", &self.members).finish_non_exhaustive()
    }
}
