//! Ranks that are connected by UCX: over InfiniBand where there is any, in shared memory on a host, else over TCP.
//!
//! ```text
//!  rank 0                                                                      rank 1
//!  send ─► lane ─► frames, bodies ─► worker ─►  what UCX picked  ─► worker ─► desk ─► mailbox ─► recv
//! ```
//! There is no background thread that moves bytes. Whoever waits, in `send` or `recv`, lets the worker of its process work
//! meanwhile ([`Pump`](crate::mailbox::Pump)) and delivers what comes, so that ranks which all send before they receive make
//! progress. When there is nothing to do for 50 µs it sleeps at the worker's file descriptor.
//!
//! Long buffers are read from the sender's memory and written into the receiver's; a `send` of them returns when they are
//! received, so a rank that was stopped makes it time out.
//!
//! UCX does not tell a receiver that the sender has died. On one host the processes watch each other; across hosts, UCX's error
//! handling sees the end of a connection that it has (TCP) and, failing that, the deadline passes. Endpoints of one host do without
//! that error handling, for with it UCX leaves out shared memory.
//!
//! UCX reads its own variables (`UCX_TLS`, `UCX_NET_DEVICES`, …); nothing here overrides them.

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

/// A rank among processes that UCX connects.
pub(crate) struct Ucx {
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
    Ok(Arc::new(Ucx { rank: at.rank, members: (0..at.size).collect(), context: 0, link }))
}

impl Transport for Ucx {
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
        Ok(Arc::new(Ucx { rank, members, context, link: self.link.clone() }))
    }

    fn abort(&self, reason: &str) {
        self.link.abort(reason);
    }

    fn wake(&self) {
        self.link.wake();
    }
}

impl fmt::Debug for Ucx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ucx").field("rank", &self.rank).field("members", &self.members).finish_non_exhaustive()
    }
}
