//! Ranks that are processes of one host: rings of bytes in one shared file.
//!
//! ```text
//!  rank 0                                  segment (a file both map)                     rank 1
//!  send ─► lane ─► frame ─► producer ─►  [ring 0→1 ▒▒▒▒......]  ─► consumer ─► assembly ─► mailbox ─► recv
//!  recv ◄─ mailbox ◄─ … ◄─ consumer ◄─  [ring 1→0 ▒▒........]  ◄─ producer ◄─ …         ◄─ lane ◄─ send
//!                                        [seats: pid, doorbell, left?]  [abort: reason]
//! ```
//!
//! There is no background thread that moves bytes. Whoever waits, in `send` for room or in `recv` for a message, empties
//! all rings of its process into the mailbox meanwhile ([`Pump`](crate::mailbox::Pump)), so that ranks which all send
//! before they receive make progress. When there is nothing to empty, it sleeps on its seat's doorbell, a futex that
//! the others ring after they wrote, made room, left or aborted.
//!
//! Long messages are lent: only their addresses go through the ring, and the receiver copies them out of the sender's memory, which
//! keeps them until then ([`direct`]). Where the kernel does not allow that, they go through the ring too.
//!
//! A thread per process waits for the death of the others on their pidfds and rings the doorbell of its own seat.

mod atomic;
mod data;
mod direct;
mod doorbell;
mod futex;
mod link;
mod meet;
mod ring;
mod segment;

use std::{fmt, sync::Arc};

use crate::{
    Error, Rendezvous, Result,
    mailbox::Address,
    transport::{Deadline, Message, Tag, Transport},
};
use link::Link;

/// Longer than the second-level cache: to read what another core has just written there took longer than to read it from memory, on
/// two virtual cores that share no such cache an allreduce of 64 MB 40 ms in chunks of 256 KiB and 17 ms in these.
const CHUNK: usize = 4 << 20;

/// A rank among processes.
pub(crate) struct SharedMemory {
    /// This rank in `members`.
    rank: usize,
    /// The ranks of the first communicator that belong to this one.
    members: Arc<[usize]>,
    context: u64,
    /// Shared by all subgroups; its end tells the others that this rank left.
    link: Arc<Link>,
}

impl SharedMemory {
    /// Meets the other processes; returns when all are there.
    pub(crate) fn connect(at: &Rendezvous) -> Result<Self> {
        let missing = Error::Environment { variable: "DEEPRC_RENDEZVOUS", value: None, expected: "a directory that all ranks share" };
        let segment = meet::meet(at.dir.as_deref().ok_or(missing)?, at)?;
        let link = Arc::new(Link::new(segment, at.rank)?);
        Ok(SharedMemory { rank: at.rank, members: (0..at.size).collect(), context: 0, link })
    }

    /// Whether all ranks are threads of this process, which have a faster way.
    pub(crate) fn is_one_process(&self) -> bool {
        self.link.is_one_process()
    }
}

impl Transport for SharedMemory {
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
        Ok(Arc::new(SharedMemory { rank, members, context, link: self.link.clone() }))
    }

    fn abort(&self, reason: &str) {
        self.link.abort(reason);
    }

    fn flush(&self, deadline: Deadline<'_>) -> Result<()> {
        self.link.flush(deadline)
    }

    fn chunk(&self) -> usize {
        CHUNK
    }

    fn wake(&self) {
        self.link.wake();
    }
}

impl fmt::Debug for SharedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedMemory").field("rank", &self.rank).field("members", &self.members).finish_non_exhaustive()
    }
}
