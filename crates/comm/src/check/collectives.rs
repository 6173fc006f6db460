//! Collectives that move bytes.

use std::time::Duration;

use bytes::Bytes;

use super::{
    Failure,
    expect::{bytes, equal, fails, same_buffers},
    messages::LARGE,
};
use crate::{Communicator, Error, Result};

/// Each rank is the late one once. While it is late nobody may tell it that the barrier is behind them.
pub(super) fn barrier(comm: &Communicator) -> Result<(), Failure> {
    for _ in 0..50 {
        comm.barrier()?;
    }
    for late in 0..comm.size() {
        // The late rank's waiting in vain poisons the communicator that it waits on.
        let side = comm.split(0, comm.rank() as u64)?;
        if comm.rank() != late {
            comm.barrier()?;
            side.send(late, 1, Vec::new())?;
        } else {
            let from = (late + 1) % comm.size();
            let answer = side.with_timeout(Duration::from_millis(3)).recv(from, 1);
            fails(comm, "a barrier that one rank has not reached", answer, "a time-out", |e| matches!(e, Error::Timeout { .. }))?;
            comm.barrier()?;
        }
        // Nobody drops its side before the messages to it have been sent.
        comm.barrier()?;
    }
    Ok(())
}

pub(super) fn broadcast(comm: &Communicator) -> Result<(), Failure> {
    for root in 0..comm.size() {
        for length in [0, 1, 1000, LARGE] {
            let received = comm.broadcast(root, bytes(comm.rank(), 0, length))?;
            same_buffers(comm, &format!("the broadcast from {root}"), &[received], &[bytes(root, 0, length)])?;
        }
    }
    Ok(())
}

pub(super) fn gather(comm: &Communicator) -> Result<(), Failure> {
    // Lengths that differ from rank to rank, zero among them.
    let uneven = |rank: usize, scale: usize| bytes(rank, 9, rank * 37 % 4 * scale);
    for scale in [0, 1, 1000, LARGE / 8] {
        let all: Vec<Bytes> = (0..comm.size()).map(|rank| uneven(rank, scale)).collect();
        for root in 0..comm.size() {
            let received = comm.gather(root, uneven(comm.rank(), scale))?;
            equal(comm, "who gets what was gathered", &received.is_some(), &(root == comm.rank()))?;
            same_buffers(comm, &format!("the gather to {root}"), &received.unwrap_or_else(|| all.clone()), &all)?;
        }
        same_buffers(comm, "the allgather", &comm.allgather(uneven(comm.rank(), scale))?, &all)?;
    }
    Ok(())
}

pub(super) fn all_to_all(comm: &Communicator) -> Result<(), Failure> {
    exchange(comm, |_, _| Vec::new())?;
    exchange(comm, |from, to| vec![from + to])?;
    // Large ones, empty ones and none at all in one exchange.
    exchange(comm, |from, to| if (from + to).is_multiple_of(3) { Vec::new() } else { vec![0, LARGE + from, to] })?;
    // Everything goes to one rank.
    exchange(comm, |from, to| if to == 0 { vec![LARGE / 2 + from] } else { Vec::new() })
}

pub(super) fn random_shapes(comm: &Communicator) -> Result<(), Failure> {
    for round in 0..30 {
        exchange(comm, |from, to| {
            let random = |salt: usize| hash(((round * 1009 + from) * 1009 + to) * 16 + salt);
            (0..random(0) % 4).map(|part| random(part + 1) % if random(9).is_multiple_of(8) { 400_000 } else { 300 }).collect()
        })?;
    }
    Ok(())
}

/// An exchange where `lengths(from, to)` are the lengths of the buffers.
pub(super) fn exchange(comm: &Communicator, lengths: impl Fn(usize, usize) -> Vec<usize>) -> Result<(), Failure> {
    let buffers = |from, to| -> Vec<Bytes> { lengths(from, to).into_iter().map(|length| bytes(from, to, length)).collect() };
    let received = comm.all_to_all((0..comm.size()).map(|to| buffers(comm.rank(), to)).collect())?;
    equal(comm, "the number of ranks received from", &received.len(), &comm.size())?;
    for (from, received) in received.iter().enumerate() {
        same_buffers(comm, &format!("the exchange from {from}"), received, &buffers(from, comm.rank()))?;
    }
    Ok(())
}

/// A number that looks random and is the same on all ranks (the finaliser of SplitMix64, Steele et al. 2014).
pub(super) fn hash(value: usize) -> usize {
    let mut z = (value as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) as usize
}

pub(super) fn scatter(comm: &Communicator) -> Result<(), Failure> {
    for root in 0..comm.size() {
        for scale in [0, 1, 1000, LARGE / 8] {
            let part = |to: usize| bytes(root, to, (to * 37 + 1) % 4 * scale);
            let out = if comm.rank() == root { (0..comm.size()).map(part).collect() } else { Vec::new() };
            let received = comm.scatter(root, out)?;
            same_buffers(comm, &format!("the scatter from {root}"), &[received], &[part(comm.rank())])?;
        }
    }
    Ok(())
}
