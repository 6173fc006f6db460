//! Collectives between GPUs with NCCL.
//!
//! ```text
//! ranks ─► store: who has which GPU, which NCCL ─► rank 0 agrees or refuses, and names the group ─► ncclCommInitRankConfig
//! ```
//!
//! NCCL and CUDA's driver are looked for when the program runs; nothing of them is needed to build it. A process with libtorch uses
//! the copy of NCCL that libtorch brought ([`NcclLibrary::find`] takes what is loaded already): two copies in a process
//! can clash.
//!
//! Nothing blocks without a deadline: the communicator is made non-blocking and asked for its state. What NCCL has started cannot be
//! taken back, except by aborting the communicator, which is what happens at a deadline.
//!
//! # When something goes wrong
//! A rank that is killed, stopped or cut off is seen by the others at the deadline of their [`wait`](DeviceCommunicator::wait), or earlier
//! where NCCL notices. They abort then; what is in the output is undefined.
//!
//! # What is tested
//! Without a GPU: finding the library, all refusals, and the way through the calls with a library that only pretends. **More
//! than one GPU is untested.**

mod api;
mod cuda;
mod library;

use std::{
    ffi::{c_int, c_void},
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

pub use api::NcclLibrary;
use api::{Handle, UniqueId, number, reduction};
use cuda::Gpu;

use crate::{
    Deadline, DeviceCommunicator, DeviceMemory, DeviceNumber, DeviceStream, Error, ReduceOp, Rendezvous, Result, Store, idle::Idle,
};

/// How long a rank that is done waits until the others have got what it sent.
const GOODBYE: Duration = Duration::from_secs(5);

/// A rank with a GPU.
pub struct Nccl {
    rank: usize,
    size: usize,
    gpu: Gpu,
    library: NcclLibrary,
    /// How long a call may wait until the one before it is enqueued: the first one to a rank connects to it.
    patience: Duration,
    /// The communicator, or why there is none any more.
    comm: Mutex<Result<Handle>>,
}

impl Nccl {
    /// Meets the other ranks, each of which has a GPU of its own: `gpu` counts those that this process may use. Returns when all are
    /// there. Only `rank`, `size` and `timeout` of the rendezvous are looked at; nobody else uses this part of the store, before or after
    /// (see [`Store::within`]).
    ///
    /// # Errors
    /// [`Error::Library`] without a GPU, or when NCCL fails; [`Error::Rendezvous`] when two ranks name one GPU, or have different versions of
    /// NCCL; [`Error::Timeout`], [`Error::Store`], [`Error::NoSuchRank`].
    pub fn connect(library: NcclLibrary, gpu: usize, at: &Rendezvous, store: &Store) -> Result<Self> {
        at.check()?;
        let deadline = Deadline::new("connect", at.timeout);
        let gpu = Gpu::open(gpu)?;
        let presence = Presence { uuid: gpu.uuid(), version: library.version() };
        let id = meet(&library, &presence, at, store, deadline)?;
        gpu.enter()?;
        let comm = library.api.init(id, at.rank, at.size)?;
        let made = Nccl { rank: at.rank, size: at.size, gpu, library, patience: at.timeout, comm: Mutex::new(Ok(comm)) };
        made.settle(&mut made.lock(), "meet the other ranks", deadline)?;
        Ok(made)
    }

    fn lock(&self) -> MutexGuard<'_, Result<Handle>> {
        self.comm.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until what was asked for before is enqueued. Aborts when that fails.
    fn settle(&self, comm: &mut Result<Handle>, action: &str, deadline: Deadline<'_>) -> Result<Handle> {
        let handle = comm.clone()?;
        let mut idle = Idle::default();
        let failed = loop {
            match self.library.api.state(action, handle) {
                Ok(true) => return Ok(handle),
                Ok(false) => match deadline.remaining(None) {
                    Ok(left) => idle.pause(left),
                    Err(error) => break error,
                },
                Err(error) => break error,
            }
        };
        Err(self.give_up(comm, failed))
    }

    /// Ends the communicator, if there is one still; all later calls fail with this error.
    fn give_up(&self, comm: &mut Result<Handle>, error: Error) -> Error {
        if let Ok(handle) = std::mem::replace(comm, Err(error.clone())) {
            self.library.api.abort(handle);
        }
        error
    }

    fn enqueue(&self, action: &str, call: impl FnOnce(*mut c_void) -> c_int) -> Result<()> {
        let mut comm = self.lock();
        self.gpu.enter()?;
        let handle = self.settle(&mut comm, action, Deadline::new("enqueue", self.patience))?;
        self.library.api.enqueue(action, handle, call).map_err(|error| self.give_up(&mut comm, error))
    }
}

/// The memory is as long as so many numbers.
fn fits(memory: DeviceMemory, count: Option<usize>, number: DeviceNumber) -> Result<()> {
    let needed = count.and_then(|count| count.checked_mul(number.width())).unwrap_or(usize::MAX);
    if needed <= memory.bytes() { Ok(()) } else { Err(Error::DeviceMemory { needed, given: memory.bytes() }) }
}

fn read(memory: DeviceMemory) -> *const c_void {
    memory.address() as *const c_void
}

fn write(memory: DeviceMemory) -> *mut c_void {
    memory.address() as *mut c_void
}

fn on(stream: DeviceStream) -> *mut c_void {
    stream.handle() as *mut c_void
}

impl DeviceCommunicator for Nccl {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn allreduce(
        &self,
        input: DeviceMemory,
        output: DeviceMemory,
        count: usize,
        kind: DeviceNumber,
        op: ReduceOp,
        stream: DeviceStream,
    ) -> Result<()> {
        let op = reduction(op)?;
        fits(input, Some(count), kind)?;
        fits(output, Some(count), kind)?;
        // SAFETY: the type in nccl.h; the memory is long enough, and as whoever made the `DeviceMemory` promised.
        let call = |comm| unsafe { (self.library.api.allreduce)(read(input), write(output), count, number(kind), op, comm, on(stream)) };
        self.enqueue("allreduce", call)
    }

    fn broadcast(
        &self,
        root: usize,
        input: DeviceMemory,
        output: DeviceMemory,
        count: usize,
        kind: DeviceNumber,
        stream: DeviceStream,
    ) -> Result<()> {
        if root >= self.size {
            return Err(Error::NoSuchRank { operation: "broadcast", rank: root, size: self.size });
        }
        if self.rank == root {
            fits(input, Some(count), kind)?;
        }
        fits(output, Some(count), kind)?;
        let root = root as c_int;
        // SAFETY: as in `allreduce`.
        let call = |comm| unsafe { (self.library.api.broadcast)(read(input), write(output), count, number(kind), root, comm, on(stream)) };
        self.enqueue("broadcast", call)
    }

    fn allgather(&self, input: DeviceMemory, output: DeviceMemory, count: usize, kind: DeviceNumber, stream: DeviceStream) -> Result<()> {
        fits(input, Some(count), kind)?;
        fits(output, count.checked_mul(self.size), kind)?;
        // SAFETY: as in `allreduce`.
        let call = |comm| unsafe { (self.library.api.allgather)(read(input), write(output), count, number(kind), comm, on(stream)) };
        self.enqueue("allgather", call)
    }

    fn reduce_scatter(
        &self,
        input: DeviceMemory,
        output: DeviceMemory,
        count: usize,
        kind: DeviceNumber,
        op: ReduceOp,
        stream: DeviceStream,
    ) -> Result<()> {
        let op = reduction(op)?;
        fits(input, count.checked_mul(self.size), kind)?;
        fits(output, Some(count), kind)?;
        // SAFETY: as in `allreduce`.
        let call =
            |comm| unsafe { (self.library.api.reduce_scatter)(read(input), write(output), count, number(kind), op, comm, on(stream)) };
        self.enqueue("reduce_scatter", call)
    }

    fn wait(&self, stream: DeviceStream, deadline: Deadline<'_>) -> Result<()> {
        let mut idle = Idle::default();
        loop {
            // Not held while it pauses: another thread may abort.
            let mut comm = self.lock();
            let handle = self.settle(&mut comm, "exchange", deadline)?;
            let state = self.gpu.is_done(stream).and_then(|done| {
                // Asked once more: what failed on the way also ends.
                let settled = self.library.api.state("exchange", handle)?;
                if done && settled { Ok(None) } else { deadline.remaining(None).map(Some) }
            });
            match state {
                Ok(None) => return Ok(()),
                Ok(Some(left)) => {
                    drop(comm);
                    idle.pause(left);
                }
                Err(error) => return Err(self.give_up(&mut comm, error)),
            }
        }
    }

    fn abort(&self) {
        self.give_up(&mut self.lock(), Error::Aborted { rank: self.rank, reason: "the communicator of the GPUs was aborted".to_owned() });
    }
}

impl fmt::Debug for Nccl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Nccl({} of {})", self.rank, self.size)
    }
}

impl Drop for Nccl {
    fn drop(&mut self) {
        let mut comm = self.lock();
        let Ok(handle) = comm.clone() else { return };
        let deadline = Deadline::new("finish", GOODBYE);
        // After an error, the state says so too, and then the communicator is aborted.
        let finished = self.gpu.enter().and_then(|()| self.settle(&mut comm, "finish", deadline));
        if finished.is_ok() {
            let ended = self.library.api.finalize(handle).and_then(|()| self.settle(&mut comm, "finish", deadline).map(drop));
            match ended {
                Ok(()) => self.library.api.destroy(handle),
                Err(error) => _ = self.give_up(&mut comm, error),
            }
        }
    }
}

/// What a rank says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Presence {
    /// Of its GPU.
    uuid: [u8; 16],
    /// Of its NCCL.
    version: String,
}

impl Presence {
    fn to_bytes(&self) -> Vec<u8> {
        [&self.uuid, self.version.as_bytes()].concat()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (uuid, version) = bytes.split_first_chunk()?;
        Some(Presence { uuid: *uuid, version: String::from_utf8(version.to_vec()).ok()? })
    }
}

/// Rank 0 hears all, agrees or refuses, and names the group.
fn meet(library: &NcclLibrary, mine: &Presence, at: &Rendezvous, store: &Store, deadline: Deadline<'_>) -> Result<UniqueId> {
    store.set(&format!("nccl/rank/{}", at.rank), &mine.to_bytes())?;
    if at.rank > 0 {
        let verdict = store.wait("nccl/verdict", deadline).map_err(|error| naming(error, 0))?;
        return match verdict.split_first() {
            Some((0, id)) => id.try_into().map(UniqueId).map_err(|_| Error::Corrupt { rank: 0 }),
            Some((_, reason)) => Err(refused(store, String::from_utf8_lossy(reason).into_owned())),
            None => Err(Error::Corrupt { rank: 0 }),
        };
    }
    let hear = |rank: usize| {
        let said = store.wait(&format!("nccl/rank/{rank}"), deadline).map_err(|error| naming(error, rank))?;
        Presence::from_bytes(&said).ok_or(Error::Corrupt { rank })
    };
    let all: Result<Vec<Presence>> = (0..at.size).map(hear).collect();
    let agreed = all.and_then(|all| agree(&all).map_err(|reason| refused(store, reason)));
    let named = agreed.and_then(|()| library.api.unique_id());
    let verdict = match &named {
        Ok(id) => [&[0], id.0.as_slice()].concat(),
        Err(Error::Rendezvous { reason, .. }) => [&[1], reason.as_bytes()].concat(),
        Err(error) => [&[1], error.to_string().as_bytes()].concat(),
    };
    store.set("nccl/verdict", &verdict)?;
    named
}

/// Whether NCCL can work with these ranks; if not, why.
fn agree(ranks: &[Presence]) -> Result<(), String> {
    for (rank, presence) in ranks.iter().enumerate() {
        let (first, version) = (&ranks[0].version, &presence.version);
        if version != first {
            return Err(format!("rank {rank} has NCCL {version}, rank 0 {first}\nhint: give all ranks the same libtorch"));
        }
        if let Some(other) = ranks[..rank].iter().position(|other| other.uuid == presence.uuid) {
            let way_out = "hint: give each rank a GPU of its own, or use a transport of the host";
            return Err(format!("ranks {other} and {rank} name the same GPU\n{way_out}"));
        }
    }
    Ok(())
}

fn naming(error: Error, rank: usize) -> Error {
    match error {
        Error::Timeout { operation, after, .. } => Error::Timeout { operation, rank: Some(rank), after },
        other => other,
    }
}

fn refused(store: &Store, reason: String) -> Error {
    let at = store.address();
    Error::Rendezvous { place: format!("{}:{}", at.host, at.port), reason }
}

#[cfg(test)]
mod tests {
    use super::{Presence, agree};

    fn check(ranks: &[(u8, &str)], expect: Result<(), &str>) {
        let ranks: Vec<_> = ranks.iter().map(|(gpu, version)| Presence { uuid: [*gpu; 16], version: (*version).to_owned() }).collect();
        let read: Vec<_> = ranks.iter().filter_map(|rank| Presence::from_bytes(&rank.to_bytes())).collect();
        assert_eq!(read, ranks);
        assert_eq!(agree(&ranks), expect.map_err(str::to_owned));
    }

    #[test]
    fn ranks_have_gpus_of_their_own_and_one_version() {
        check(&[(1, "2.28.9")], Ok(()));
        check(&[(1, "2.28.9"), (2, "2.28.9")], Ok(()));
        let shared = "ranks 1 and 2 name the same GPU\nhint: give each rank a GPU of its own, or use a transport of the host";
        check(&[(1, "2.28.9"), (2, "2.28.9"), (2, "2.28.9")], Err(shared));
        let differ = "rank 1 has NCCL 2.28.3, rank 0 2.28.9\nhint: give all ranks the same libtorch";
        check(&[(1, "2.28.9"), (2, "2.28.3")], Err(differ));
    }
}
