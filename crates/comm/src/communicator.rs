//! The communicator: a group of ranks that exchange bytes.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;

use crate::{
    CancelToken, Choice, CommSpec, Deadline, Error, Message, Rendezvous, Result, Tag, Transport, hybrid::Hybrid, meeting, threads::Threads,
    turn::Turn,
};

/// How long a call may take unless [`Communicator::with_timeout`] says otherwise.
const TIMEOUT: Duration = Duration::from_secs(300);

/// A group of ranks that exchange bytes: point to point by tag, or all together in collectives.
///
/// A clone is the same communicator. Every rank calls the same collectives in the same order; calls of several
/// threads of a rank on one communicator take turns, so threads that want to work at the same time
/// [`split`](Communicator::split) one for each. Messages sent with [`send`](Communicator::send) never meet those of collectives.
///
/// The first error, except a wrong argument, poisons the communicator: every later call on this rank returns the same
/// error at once. The work is then repeated on a new communicator. When the last clone is dropped (splits included)
/// the other ranks learn that this one left, so a rank whose work failed does not keep them waiting.
#[derive(Clone)]
pub struct Communicator {
    pub(crate) shared: Arc<Shared>,
    timeout: Duration,
    cancel: Option<CancelToken>,
}

/// What the clones of a communicator have in common.
pub(crate) struct Shared {
    pub(crate) transport: Arc<dyn Transport>,
    /// The members' ranks in the first communicator, for messages.
    pub(crate) members: Vec<usize>,
    /// Tells the communicators of one process apart; 0 is the first one.
    pub(crate) context: u64,
    /// Collectives called so far.
    pub(crate) sequence: Turn<u64>,
    poison: OnceLock<Error>,
}

impl Communicator {
    /// The communicator of a single rank.
    pub fn solo() -> Self {
        Communicator::new(Arc::new(Threads::group(1).remove(0)))
    }

    /// One communicator for each of `size` threads of this process. Payloads pass by reference, so receivers see
    /// the very memory (and its alignment) of the sender.
    pub fn threads(size: usize) -> Vec<Communicator> {
        Threads::group(size).into_iter().map(|transport| Communicator::new(Arc::new(transport))).collect()
    }

    /// One communicator for each of some threads of this process, which talk as if they were on several hosts: `hosts` has a
    /// number for each rank. For tests of what ranks do that reach each other in two ways.
    pub fn threads_on_hosts(hosts: &[usize]) -> Vec<Communicator> {
        let mut near: Vec<_> = hosts.iter().map(|_| None).collect();
        for host in hosts {
            let ranks: Vec<usize> = (0..hosts.len()).filter(|&rank| hosts[rank] == *host && near[rank].is_none()).collect();
            ranks.iter().zip(Threads::group(ranks.len())).for_each(|(&rank, seat)| near[rank] = Some(seat));
        }
        let hybrid = |(near, far): (Threads, Threads)| Communicator::new(Arc::new(Hybrid::new(Arc::new(near), Arc::new(far), hosts)));
        near.into_iter().flatten().zip(Threads::group(hosts.len())).map(hybrid).collect()
    }

    /// Meets the other ranks, over the transport that `spec` says, and tells which that is. Returns when all of them are
    /// there; with a size of 1, at once.
    ///
    /// # Errors
    /// [`Error::NotBuiltIn`]; [`Error::Timeout`] names a rank that did not come; [`Error::Rendezvous`] when ranks disagree
    /// about the size or the transport, when two claim the same rank, or when they are not where the transport
    /// needs them; [`Error::Environment`] when the rendezvous has no place for it; [`Error::Store`], [`Error::PeerDead`],
    /// [`Error::Io`].
    pub fn open(spec: CommSpec, at: &Rendezvous) -> Result<(Self, Choice)> {
        let (transport, choice) = meeting::open(spec, at)?;
        Ok((Communicator::new(transport), choice))
    }

    /// Meets the other processes of this host over shared memory.
    ///
    /// # Errors
    /// As [`open`](Communicator::open).
    pub fn connect(at: &Rendezvous) -> Result<Self> {
        Communicator::open(CommSpec::Shm, at).map(|(comm, _)| comm)
    }

    /// The communicator that the environment of this process describes (see [`Rendezvous::from_env`]), over the transport
    /// that `DEEPRC_COMM` says; [`solo`](Communicator::solo) when it describes none.
    ///
    /// # Errors
    /// [`Error::UnknownTransport`], [`Error::Environment`] for variables that make no sense, and those of
    /// [`open`](Communicator::open).
    pub fn from_env() -> Result<Self> {
        let spec = CommSpec::from_env()?;
        spec.check_built_in()?;
        Rendezvous::from_env()?.map_or_else(|| Ok(Communicator::solo()), |at| Ok(Communicator::open(spec, &at)?.0))
    }

    /// A communicator on another transport, which has to keep the protocol written there.
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        let members = (0..transport.size()).collect();
        Communicator::assemble(transport, members, 0)
    }

    fn assemble(transport: Arc<dyn Transport>, members: Vec<usize>, context: u64) -> Self {
        let shared = Shared { transport, members, context, sequence: Turn::new(0), poison: OnceLock::new() };
        Communicator { shared: Arc::new(shared), timeout: TIMEOUT, cancel: None }
    }

    /// This rank, below [`size`](Communicator::size).
    pub fn rank(&self) -> usize {
        self.shared.transport.rank()
    }

    /// Number of ranks.
    pub fn size(&self) -> usize {
        self.shared.transport.size()
    }

    /// The same communicator with another deadline: how long each call may take (default 300 s).
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Communicator { timeout, ..self.clone() }
    }

    /// The same communicator with a token that ends its calls early. Like every error, [`Error::Cancelled`] poisons the
    /// communicator for all its clones, and the other ranks see this one leave when those are dropped. Splits
    /// have the token of the communicator they were made from.
    pub fn with_cancel(&self, token: &CancelToken) -> Self {
        token.register(&self.shared.transport);
        Communicator { cancel: Some(token.clone()), ..self.clone() }
    }

    /// The deadline of a call that starts now.
    pub(crate) fn deadline(&self, operation: &'static str) -> Deadline<'_> {
        Deadline::new(operation, self.timeout).with_cancel(self.cancel.as_ref())
    }

    /// Sends buffers to a rank, which receives them with the same tag. Returns when the transport has taken them:
    /// between threads at once, between processes possibly only when the receiver makes room by a call of its own.
    ///
    /// # Errors
    /// [`Error::NoSuchRank`], [`Error::PeerDead`], [`Error::PeerLeft`], [`Error::Timeout`], [`Error::Aborted`].
    pub fn send(&self, to: usize, tag: u64, parts: Vec<Bytes>) -> Result<()> {
        self.known("send", to)?;
        let message = Message { parts, ..Message::default() };
        let deadline = self.deadline("send");
        self.guard(|| {
            self.shared.transport.send(to, Tag::User(tag), message, deadline)?;
            self.shared.transport.flush(deadline)
        })
    }

    /// Receives the next message that a rank sent with this tag. Between processes each buffer starts at an address
    /// that is a multiple of 64; between threads it is the sender's.
    ///
    /// # Errors
    /// [`Error::NoSuchRank`], [`Error::PeerDead`], [`Error::PeerLeft`], [`Error::Timeout`], [`Error::Aborted`].
    pub fn recv(&self, from: usize, tag: u64) -> Result<Vec<Bytes>> {
        self.known("recv", from)?;
        Ok(self.guard(|| self.shared.transport.recv(from, Tag::User(tag), self.deadline("recv")))?.parts)
    }

    /// Splits the ranks into groups by color; each becomes a communicator of its own, ordered by key, then by rank.
    /// Collective. Groups, and the communicator they come from, can be used at the same time.
    ///
    /// ```text
    /// rank      0  1  2  3            color 7: old ranks 0 2 → new ranks 0 1
    /// color     7  9  7  9            color 9: old ranks 3 1 → new ranks 0 1
    /// key       0  5  1  2
    /// ```
    ///
    /// # Errors
    /// As every collective: see [`barrier`](Communicator::barrier).
    pub fn split(&self, color: u64, key: u64) -> Result<Communicator> {
        let (sequence, wishes) = self.split_wishes(color, key)?;
        let mut group: Vec<(u64, usize)> =
            wishes.iter().enumerate().filter(|(_, wish)| wish.0 == color).map(|(rank, wish)| (wish.1, rank)).collect();
        group.sort_unstable();
        let ranks: Vec<usize> = group.into_iter().map(|(_, rank)| rank).collect();
        let context = [self.shared.context, sequence, color].into_iter().fold(0, mix);
        let deadline = self.deadline("split");
        let transport = self.guard(|| self.shared.transport.subgroup(&ranks, context, deadline))?;
        let members = ranks.iter().map(|&rank| self.shared.members[rank]).collect();
        if let Some(token) = &self.cancel {
            token.register(&transport);
        }
        let split = Communicator::assemble(transport, members, context);
        Ok(Communicator { timeout: self.timeout, cancel: self.cancel.clone(), ..split })
    }

    /// Ends the work of all ranks: every blocked and every later call, on every rank of the communicator that this one
    /// was split from, returns [`Error::Aborted`] with this reason. The first reason stays.
    pub fn abort(&self, reason: &str) {
        self.shared.transport.abort(reason);
    }

    /// Runs a call unless the communicator is poisoned, and poisons it when the call fails.
    pub(crate) fn guard<R>(&self, call: impl FnOnce() -> Result<R>) -> Result<R> {
        self.healthy()?;
        call().inspect_err(|error| {
            if error.poisons() {
                // Another thread's error may have been first; then that one stays.
                let _ = self.shared.poison.set(error.clone());
            }
        })
    }

    /// The error that poisoned the communicator, if any.
    pub(crate) fn healthy(&self) -> Result<()> {
        self.shared.poison.get().map_or(Ok(()), |error| Err(error.clone()))
    }

    pub(crate) fn known(&self, operation: &'static str, rank: usize) -> Result<()> {
        let size = self.size();
        if rank < size { Ok(()) } else { Err(Error::NoSuchRank { operation, rank, size }) }
    }
}

/// One step of a hash that every rank computes alike (the finaliser of SplitMix64, Steele et al. 2014).
pub(crate) fn mix(state: u64, value: u64) -> u64 {
    let mut z = (state ^ value).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl fmt::Debug for Communicator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Communicator({} of {})", self.rank(), self.size())
    }
}
