//! Communicators made from others, and several threads on one.

use std::thread;

use bytes::Bytes;

use super::{
    Failure,
    collectives::exchange,
    expect::{bytes, equal, same_buffers},
    messages::{LARGE, neighbours},
};
use crate::{Communicator, ReduceOp, Result};

pub(super) fn split(comm: &Communicator) -> Result<(), Failure> {
    let (rank, size) = (comm.rank(), comm.size());
    // Even and odd ranks, each in reverse; then keys that are all equal: by rank.
    for reverse in [true, false] {
        let part = comm.split((rank % 2) as u64, if reverse { (size - rank) as u64 } else { 0 })?;
        let mut members: Vec<usize> = (0..size).filter(|other| other % 2 == rank % 2).collect();
        if reverse {
            members.reverse();
        }
        equal(comm, "the rank in a part", &members.get(part.rank()), &Some(&rank))?;
        equal(comm, "the size of a part", &part.size(), &members.len())?;
        let all: Vec<Bytes> = members.iter().map(|&member| bytes(member, 1, 10 * member)).collect();
        same_buffers(comm, "an allgather in a part", &part.allgather(bytes(rank, 1, 10 * rank))?, &all)?;
        for (root, &member) in members.iter().enumerate() {
            let received = part.broadcast(root, bytes(rank, 2, 5))?;
            same_buffers(comm, "a broadcast in a part", &[received], &[bytes(member, 2, 5)])?;
        }
        let mut sum = [rank as u64];
        part.allreduce(&mut sum, ReduceOp::Sum)?;
        equal(comm, "a sum in a part", &sum[0], &members.iter().map(|&member| member as u64).sum())?;
        // A split of a split, and the first one is still in order.
        let alone = part.split(rank as u64, 0)?;
        equal(comm, "the communicator of one rank", &(alone.rank(), alone.size()), &(0, 1))?;
        alone.barrier()?;
        comm.barrier()?;
    }
    Ok(())
}

/// The same tags on two communicators of the same ranks.
pub(super) fn apart(comm: &Communicator) -> Result<(), Failure> {
    let other = comm.split(0, comm.rank() as u64)?;
    let (next, previous) = neighbours(comm);
    other.send(next, 1, vec![Bytes::from_static(b"other")])?;
    comm.send(next, 1, vec![Bytes::from_static(b"first")])?;
    same_buffers(comm, "the message on the first communicator", &comm.recv(previous, 1)?, &[Bytes::from_static(b"first")])?;
    same_buffers(comm, "the message on the other communicator", &other.recv(previous, 1)?, &[Bytes::from_static(b"other")])
}

/// Three threads of each rank, each with a communicator of its own, two of them of half of the ranks.
pub(super) fn at_the_same_time(comm: &Communicator) -> Result<(), Failure> {
    let halves = |worker: usize| if worker == 0 { 0 } else { ((comm.rank() + worker) % 2) as u64 };
    let parts: Vec<Communicator> = (0..3).map(|worker| comm.split(halves(worker), comm.rank() as u64)).collect::<Result<_>>()?;
    let work = |worker: usize, part: &Communicator| -> Result<(), Failure> {
        for round in 0..12 {
            let length = if round % 4 == worker { LARGE / 8 } else { round * worker };
            exchange(part, |from, to| vec![length + from, worker, to])?;
            let mut sum = vec![(part.rank() + worker) as u32; 1 + round * 500];
            part.allreduce(&mut sum, ReduceOp::Sum)?;
            let expect = (0..part.size()).map(|rank| (rank + worker) as u32).sum();
            equal(part, "a sum beside others", &sum.iter().all(|&value| value == expect), &true)?;
        }
        Ok(())
    };
    together(parts.iter().enumerate().map(|(worker, part)| move || work(worker, part)))
}

/// Four threads of each rank on one communicator: each has a tag, and they take turns with the barriers.
pub(super) fn turns(comm: &Communicator) -> Result<(), Failure> {
    let (next, previous) = neighbours(comm);
    let work = |worker: usize| -> Result<(), Failure> {
        for round in 0..10 {
            comm.send(next, worker as u64, vec![bytes(round, worker, 40_000)])?;
            same_buffers(comm, &format!("tag {worker}"), &comm.recv(previous, worker as u64)?, &[bytes(round, worker, 40_000)])?;
            comm.barrier()?;
        }
        Ok(())
    };
    together((0..4).map(|worker| move || work(worker)))
}

/// Runs each on a thread of its own; the first failure.
fn together<F: FnOnce() -> Result<(), Failure> + Send>(work: impl Iterator<Item = F>) -> Result<(), Failure> {
    thread::scope(|scope| {
        let threads: Vec<_> = work.map(|work| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("a check reports, it does not panic"))
    })
}
