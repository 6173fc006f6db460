//! Ranks that `mpirun` (or `srun`) started, over whatever network its MPI knows.
//!
//! ```text
//!  rank 0                                      MPI                                         rank 1
//!  send ─► head, buffers ─► MPI_Isend ─►  shared memory, TCP, InfiniBand …  ─► MPI_Improbe, MPI_Irecv ─► mailbox ─► recv
//! ```
//!
//! The processes of the job are the ranks: `RANK` and `WORLD_SIZE` come from MPI, and must not say anything else. No store and no
//! directory is needed. All ranks make their communicators in the same order. Parts of a communicator are kept
//! apart by a number in each message's head; MPI is not asked to agree on them.
//!
//! # Progress
//! MPI moves bytes only while it is called. Whoever waits, in `send` or in `recv`, therefore asks it again and again
//! ([`Pump`](crate::mailbox::Pump)): for 50 µs without a pause, for 150 µs more letting other threads go first, then with
//! pauses that grow to 1 ms. A large message reaches its receiver only while both are in a call of this crate, and
//! a call that sends more than a few kilobytes returns when the receiver has them.
//!
//! # Threads
//! `MPI_THREAD_MULTIPLE` is asked for. `MPI_THREAD_SERIALIZED` is enough, because this crate calls MPI under one lock; with
//! less, connecting fails.
//!
//! # When something goes wrong
//! MPI has a failure domain of its own: the job. That is why it should have one job for each task, and never the agent inside.
//! - A rank that is **killed** takes the job with it: `mpirun` ends all other ranks and itself with an error. What the
//!   survivors see of it, if they live long enough, is [`Error::PeerDead`](crate::Error::PeerDead) on the same host. With
//!   `mpirun --enable-recovery` they do live on, but nothing can be built on that: no new communicator, no end in good order.
//! - A rank that is **stopped** (SIGSTOP) or that nobody hears of any more is [`Error::Timeout`](crate::Error::Timeout) on
//!   those that wait for it. When these end, the job ends.
//! - A rank that **leaves** early or calls **abort** is [`Error::PeerLeft`](crate::Error::PeerLeft) or
//!   [`Error::Aborted`](crate::Error::Aborted) on the others, as with every transport.
//! - A rank that **cannot start**, comes **late** or is refused is `mpirun`'s affair; `MPI_Init` has no deadline.
//!
//! MPI cannot take back what is being sent. When a call ends at its deadline, what it was sending stays under way, and its memory
//! is kept until MPI has read it.
//!
//! # The end
//! MPI starts once in a process, so it is not finalized with a communicator, after which no other could be made, but when the process
//! ends (`atexit`; as mpi4py does): each process says so and waits until all others do, at most an hour; after any
//! error at most 5 seconds. Only then `MPI_Finalize` is called. A process whose wait was in vain, or which has transfers
//! under way that never completed, ends without: `mpirun` takes that for a failure and ends the job. A program that initialised
//! MPI itself also finalizes it itself.
//!
//! # Which MPI
//! Tested with Open MPI 4.1. The `mpi` crate builds against MPICH and its relatives as well; that is untested.

mod library;
mod link;
mod traffic;
mod world;

use std::{fmt, sync::Arc};

use crate::{
    Rendezvous, Result,
    mailbox::Address,
    transport::{Deadline, Message, Tag, Transport},
};
use link::Link;
use world::World;

/// A rank of an MPI job.
pub(crate) struct Mpi {
    /// This rank in `members`.
    rank: usize,
    /// The ranks of the first communicator that belong to this one.
    members: Arc<[usize]>,
    context: u64,
    /// Shared by all subgroups; its end tells the others that this rank left.
    link: Arc<Link>,
}

impl Mpi {
    /// Meets the other processes of the job; returns when all are there.
    ///
    /// # Errors
    /// [`Error::Environment`](crate::Error::Environment) without a launcher; [`Error::Library`](crate::Error::Library) when MPI fails or counts the ranks
    /// otherwise; [`Error::Timeout`](crate::Error::Timeout), [`Error::Corrupt`](crate::Error::Corrupt).
    pub(crate) fn connect(at: &Rendezvous) -> Result<Self> {
        let world = World::get(at)?;
        let deadline = Deadline::new("connect", at.timeout);
        let link = world.connect(deadline, |group| Link::meet(world, group, deadline))?;
        Ok(Mpi { rank: world.rank, members: (0..world.size).collect(), context: 0, link })
    }
}

impl Transport for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.members.len()
    }

    fn send(&self, to: usize, tag: Tag, message: Message, _deadline: Deadline<'_>) -> Result<()> {
        let address = Address { context: self.context, from: self.members[self.rank], tag };
        self.link.send(self.members[to], address, message)
    }

    fn flush(&self, deadline: Deadline<'_>) -> Result<()> {
        self.link.flush(deadline)
    }

    fn recv(&self, from: usize, tag: Tag, deadline: Deadline<'_>) -> Result<Message> {
        self.link.recv(Address { context: self.context, from: self.members[from], tag }, deadline)
    }

    fn subgroup(&self, ranks: &[usize], context: u64, _deadline: Deadline<'_>) -> Result<Arc<dyn Transport>> {
        let rank = ranks.iter().position(|&rank| rank == self.rank).expect("only members make a subgroup");
        let members = ranks.iter().map(|&rank| self.members[rank]).collect();
        Ok(Arc::new(Mpi { rank, members, context, link: self.link.clone() }))
    }

    fn abort(&self, reason: &str) {
        self.link.abort(reason);
    }

    fn wake(&self) {
        self.link.wake();
    }
}

impl fmt::Debug for Mpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mpi").field("rank", &self.rank).field("members", &self.members).finish_non_exhaustive()
    }
}
