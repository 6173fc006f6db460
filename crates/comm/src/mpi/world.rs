//! MPI in this process: it starts once, and ends with the process.

use std::{
    env,
    mem::MaybeUninit,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    library::{self, Group, Request},
    link::Link,
    traffic::Traffic,
};
use crate::{Error, Rendezvous, Result, idle::Idle, transport::Deadline};

/// How long a process that ends waits for the others to end too, before it ends without telling MPI.
const TOGETHER: Duration = Duration::from_secs(3600);
/// The same when a communicator has failed: the others may be stuck, and then the job shall end.
const FAILED: Duration = Duration::from_secs(5);
/// One of these is set by every launcher of MPI processes: Open MPI's, PMIx's, and PMI's (MPICH, Intel, Slurm).
const LAUNCHERS: [&str; 3] = ["OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"];

static WORLD: OnceLock<Result<World>> = OnceLock::new();

/// What all links of the process share.
pub(super) struct World {
    pub(super) rank: usize,
    pub(super) size: usize,
    /// Links are made one after the other: on every rank in the same order.
    links: Mutex<Vec<Weak<Link>>>,
    /// The traffic of links that have ended, while the others still use theirs.
    ended: Mutex<Vec<Traffic>>,
    /// A link ended after an error.
    failed: AtomicBool,
}

impl World {
    /// Starts MPI when this is the first call.
    ///
    /// # Errors
    /// [`Error::Environment`] when no launcher started this process, or MPI counts the ranks in another way than `at`;
    /// [`Error::Library`].
    pub(super) fn get(at: &Rendezvous) -> Result<&'static World> {
        // Without a launcher MPI starts a job of one process, which takes long and is never what was meant.
        if !library::is_running() && LAUNCHERS.iter().all(|variable| env::var_os(variable).is_none()) {
            let expected = "what mpirun sets\nhint: start the ranks with `mpirun -n <ranks> <program>`";
            return Err(Error::Environment { variable: LAUNCHERS[0], value: None, expected });
        }
        let world = WORLD.get_or_init(World::start).as_ref().map_err(Clone::clone)?;
        if (at.rank, at.size) != (world.rank, world.size) {
            let reason = format!(
                "this process is rank {} of {} for mpirun and rank {} of {} in its rendezvous\nhint: unset RANK and WORLD_SIZE, or start {} ranks with mpirun",
                world.rank, world.size, at.rank, at.size, at.size
            );
            return Err(Error::Library { library: "MPI", action: "agree on the ranks".to_owned(), reason });
        }
        Ok(world)
    }

    fn start() -> Result<World> {
        let started = library::start()?;
        if started.ours {
            // SAFETY: a function without arguments that does not unwind. Registered after MPI was loaded, it runs
            // before MPI's own handlers. Registering fails only without memory; then the process ends without finalizing.
            unsafe { libc::atexit(at_exit) };
        }
        let (links, ended) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
        Ok(World { rank: started.rank, size: started.size, links, ended, failed: AtomicBool::new(false) })
    }

    /// Makes a communicator of MPI for a link, together with all other ranks, and then the link.
    pub(super) fn connect(&self, deadline: Deadline<'_>, link: impl FnOnce(Group) -> Result<Arc<Link>>) -> Result<Arc<Link>> {
        let mut links = lock(&self.links);
        links.retain(|link| link.strong_count() > 0);
        // Not freed when the wait ends without an answer: MPI may still write there.
        let place = Box::leak(Box::new(MaybeUninit::<Group>::uninit()));
        // SAFETY: the place is never freed.
        let request = unsafe { library::enter()?.duplicate(library::job(), place)? };
        self.complete(request, deadline)?;
        // SAFETY: the request is complete.
        let made = link(unsafe { place.assume_init() })?;
        links.push(Arc::downgrade(&made));
        Ok(made)
    }

    fn complete(&self, request: Request, deadline: Deadline<'_>) -> Result<()> {
        let (mut requests, mut done, mut idle) = ([request], Vec::new(), Idle::default());
        while library::enter()?.test(&mut requests, &mut done)?.is_empty() {
            let left = deadline.remaining(None).inspect_err(|_| self.failed())?;
            idle.pause(left);
        }
        Ok(())
    }

    /// Notes that a link failed.
    pub(super) fn failed(&self) {
        self.failed.store(true, Ordering::SeqCst);
    }

    /// Takes over the traffic of a link that ends, and moves on that of the earlier ones.
    pub(super) fn settle(&self, traffic: Traffic) {
        lock(&self.ended).push(traffic);
        self.settle_all();
    }

    /// Whether all links have come to their end on all ranks. After an error of MPI never.
    fn settle_all(&self) -> bool {
        let mut ended = lock(&self.ended);
        ended.retain_mut(|traffic| !traffic.settle().unwrap_or(false));
        ended.is_empty()
    }

    /// Ends MPI if all others do too.
    fn end(&self) -> Result<()> {
        // The program ends although communicators are in use, perhaps by `std::process::exit`: others may wait for this rank.
        let links: Vec<_> = lock(&self.links).iter().filter_map(Weak::upgrade).collect();
        links.iter().for_each(|link| link.leave());
        // The others get to the barrier in any case; it is asked for once everything else is done, so that MPI has nothing under way.
        let (mut requests, mut done, mut idle) = (Vec::new(), Vec::new(), Idle::default());
        let limit = if self.failed.load(Ordering::SeqCst) { FAILED } else { TOGETHER };
        let started = Instant::now();
        while let Some(left) = limit.checked_sub(started.elapsed()) {
            if self.settle_all() && links.iter().all(|link| link.is_settled()) {
                let inside = library::enter()?;
                if requests.is_empty() {
                    requests.push(inside.barrier(library::job())?);
                }
                if !inside.test(&mut requests, &mut done)?.is_empty() {
                    inside.finalize();
                    return Ok(());
                }
            }
            idle.pause(left);
        }
        Ok(())
    }
}

extern "C" fn at_exit() {
    if let Some(Ok(world)) = WORLD.get() {
        // Its memory stays, as that of every static: MPI may still use it. After an error of MPI there is nothing to be done but to end without finalizing, which ends the job.
        let _ = world.end();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
