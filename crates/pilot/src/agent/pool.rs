//! Warm ranks: which are idle, which must be started.
//!
//! ```text
//!          hello           claim           call            returned
//! Starting ─────► Idle ◄──────────► Claimed ────► Running ──────────► Idle      (any state) ──► died, retired
//! ```

use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    process::ExitStatus,
};

use tokio::sync::mpsc::UnboundedSender;

use super::gang::GangKey;
use crate::{Pool, wire::ToRank};

/// A rank of a gang that needs a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seat {
    pub gang: GangKey,
    pub local: usize,
    /// GPU slots.
    pub gpus: Vec<u32>,
}

/// A process of a pool.
pub(super) struct Worker {
    /// Index of its pool.
    pub pool: usize,
    pub pid: u32,
    pub state: WorkerState,
    /// Set once it has said hello.
    pub outgoing: Option<UnboundedSender<ToRank>>,
    /// GPUs of its first function: CUDA looks at `CUDA_VISIBLE_DEVICES` only once per process.
    pub bound: Option<Vec<u32>>,
    /// Its connection has ended (or never began).
    pub closed: bool,
    pub exit: Option<ExitStatus>,
    pub log: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WorkerState {
    Starting,
    Idle,
    /// Kept for a gang that is not complete yet: local rank.
    Claimed(GangKey, usize),
    Running(GangKey, usize),
    /// Killed by us.
    Retired,
}

/// The workers of all pools, and who waits for one.
pub(super) struct Pools {
    pools: Vec<Pool>,
    /// By pool.
    waiting: Vec<VecDeque<Seat>>,
    /// By pool: its last process ended before it was ready. None are started ahead until one succeeds.
    broken: Vec<bool>,
    pub workers: BTreeMap<u64, Worker>,
}

impl Pools {
    pub(super) fn new(pools: Vec<Pool>) -> Pools {
        let waiting = pools.iter().map(|_| VecDeque::new()).collect();
        let broken = vec![false; pools.len()];
        Pools { pools, waiting, broken, workers: BTreeMap::new() }
    }

    pub(super) fn index(&self, name: &str) -> Option<usize> {
        self.pools.iter().position(|pool| pool.name == name)
    }

    pub(super) fn len(&self) -> usize {
        self.pools.len()
    }

    pub(super) fn get(&self, pool: usize) -> &Pool {
        &self.pools[pool]
    }

    /// Puts a rank in the line for a worker.
    pub(super) fn request(&mut self, pool: usize, seat: Seat) {
        self.waiting[pool].push_back(seat);
    }

    /// The same for one whose worker died before the gang was complete: it does not lose its place.
    pub(super) fn request_again(&mut self, pool: usize, seat: Seat) {
        self.waiting[pool].push_front(seat);
    }

    /// Claims idle workers for those who wait; returns who got which.
    pub(super) fn assign(&mut self, pool: usize) -> Vec<(Seat, u64)> {
        let mut assigned = Vec::new();
        let mut left = VecDeque::new();
        while let Some(seat) = self.waiting[pool].pop_front() {
            match self.idle(pool, &seat.gpus) {
                Some(id) => {
                    if let Some(worker) = self.workers.get_mut(&id) {
                        worker.state = WorkerState::Claimed(seat.gang, seat.local);
                    }
                    assigned.push((seat, id));
                }
                None => left.push_back(seat),
            }
        }
        self.waiting[pool] = left;
        assigned
    }

    /// An idle worker that may use these GPUs, best one that already does.
    fn idle(&self, pool: usize, gpus: &[u32]) -> Option<u64> {
        let fits = |worker: &Worker| worker.bound.as_ref().is_none_or(|bound| bound == gpus);
        let idle = self.workers.iter().filter(|(_, worker)| worker.pool == pool && worker.state == WorkerState::Idle);
        idle.filter(|(_, worker)| fits(worker)).min_by_key(|(id, worker)| (worker.bound.is_none(), **id)).map(|w| *w.0)
    }

    /// How many processes to start now, by pool: for those who wait, and ahead. Pools are warmed up one after the
    /// other, so that the first one, which the first task will need, has the machine for itself.
    pub(super) fn to_start(&self) -> Vec<(usize, usize)> {
        let mut starts = Vec::new();
        let mut earlier_ready = true;
        for (pool, description) in self.pools.iter().enumerate() {
            let starting = self.count(pool, |state| state == WorkerState::Starting);
            let alive = self.count(pool, |state| state != WorkerState::Retired);
            let asked = self.waiting[pool].len().saturating_sub(starting);
            let ahead = if earlier_ready && !self.broken[pool] { description.warm.saturating_sub(alive) } else { 0 };
            starts.push((pool, asked.max(ahead)));
            earlier_ready &= starting == 0 && ahead == 0;
        }
        starts.retain(|&(_, count)| count > 0);
        starts
    }

    fn count(&self, pool: usize, of: impl Fn(WorkerState) -> bool) -> usize {
        self.workers.values().filter(|worker| worker.pool == pool && of(worker.state)).count()
    }

    /// Idle workers that are bound to GPUs which nobody who waits can use; a new process takes the place of each.
    pub(super) fn misfits(&self, pool: usize, count: usize) -> Vec<u64> {
        if self.waiting[pool].is_empty() {
            return Vec::new();
        }
        let idle = self.workers.iter().filter(|(_, worker)| worker.pool == pool && worker.state == WorkerState::Idle);
        idle.map(|(&id, _)| id).take(count).collect()
    }

    /// A process has said hello.
    pub(super) fn ready(&mut self, id: u64, outgoing: UnboundedSender<ToRank>) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.outgoing = Some(outgoing);
        worker.closed = false;
        if worker.state == WorkerState::Starting {
            worker.state = WorkerState::Idle;
            self.broken[worker.pool] = false;
        }
    }

    /// A process ended before it was ready: returns the rank that is to be told.
    pub(super) fn start_failed(&mut self, pool: usize) -> Option<Seat> {
        self.broken[pool] = true;
        self.waiting[pool].pop_front()
    }

    /// Removes a gang from the line. With `hung`, returns also the processes that are not ready and that nobody
    /// needs any more: they took too long for this gang and would for the next.
    pub(super) fn withdraw(&mut self, pool: usize, gang: GangKey, hung: bool) -> Vec<u64> {
        self.waiting[pool].retain(|seat| seat.gang != gang);
        if !hung {
            return Vec::new();
        }
        let starting = self.workers.iter().filter(|(_, worker)| worker.pool == pool && worker.state == WorkerState::Starting);
        let starting: Vec<u64> = starting.map(|(&id, _)| id).collect();
        let excess = starting.len().saturating_sub(self.waiting[pool].len());
        self.broken[pool] |= excess > 0;
        starting[..excess].to_vec()
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;
    use crate::TaskId;

    const GANG: GangKey = (TaskId(1), 1);

    fn pools() -> Pools {
        Pools::new(vec![Pool::new("table", ["a"]).warm(2), Pool::new("forecast", ["b"]).warm(1)])
    }

    fn add(pools: &mut Pools, id: u64, pool: usize, ready: bool) {
        let worker = Worker {
            pool,
            pid: id as u32,
            state: WorkerState::Starting,
            outgoing: None,
            bound: None,
            closed: true,
            exit: None,
            log: PathBuf::new(),
        };
        pools.workers.insert(id, worker);
        if ready {
            pools.ready(id, unbounded_channel().0);
        }
    }

    fn seat(local: usize, gpus: &[u32]) -> Seat {
        Seat { gang: GANG, local, gpus: gpus.to_vec() }
    }

    #[test]
    fn pools_are_warmed_up_one_after_the_other() {
        let mut pools = pools();
        assert_eq!(pools.to_start(), [(0, 2)]);
        add(&mut pools, 1, 0, true);
        add(&mut pools, 2, 0, false);
        assert_eq!(pools.to_start(), []);
        pools.ready(2, unbounded_channel().0);
        assert_eq!(pools.to_start(), [(1, 1)]);
    }

    #[test]
    fn a_pool_grows_for_those_who_wait() {
        let mut pools = pools();
        add(&mut pools, 1, 0, true);
        add(&mut pools, 2, 0, true);
        (0..3).for_each(|local| pools.request(0, seat(local, &[])));
        let assigned: Vec<u64> = pools.assign(0).into_iter().map(|(_, worker)| worker).collect();
        assert_eq!(assigned, [1, 2]);
        assert_eq!(pools.to_start()[0], (0, 1));
    }

    #[test]
    fn a_worker_stays_with_its_gpus() {
        let mut pools = pools();
        add(&mut pools, 1, 0, true);
        add(&mut pools, 2, 0, true);
        pools.workers.get_mut(&1).unwrap().bound = Some(vec![0]);
        pools.request(0, seat(0, &[1]));
        assert_eq!(pools.assign(0)[0].1, 2);
        pools.request(0, seat(1, &[1]));
        assert_eq!(pools.assign(0), []);
        assert_eq!(pools.misfits(0, 1), [1]);
        pools.withdraw(0, GANG, false);
        pools.request(0, seat(1, &[0]));
        assert_eq!(pools.assign(0)[0].1, 1);
    }

    #[test]
    fn a_broken_pool_starts_nothing_ahead() {
        let mut pools = pools();
        pools.request(0, seat(0, &[]));
        assert_eq!(pools.start_failed(0), Some(seat(0, &[])));
        assert_eq!(pools.start_failed(0), None);
        assert_eq!(pools.to_start(), [(1, 1)]);
        pools.request(0, seat(0, &[]));
        assert_eq!(pools.to_start(), [(0, 1), (1, 1)]);
    }
}
