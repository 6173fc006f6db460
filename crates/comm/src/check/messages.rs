//! Messages from rank to rank.

use bytes::Bytes;

use super::{
    Failure,
    expect::{bytes, equal, same_buffers},
};
use crate::{Communicator, Result};

/// Longer than any ring and any socket buffer.
pub(super) const LARGE: usize = 3 << 20;

pub(super) fn ranks(comm: &Communicator) -> Result<(), Failure> {
    let number = |rank: usize| Bytes::copy_from_slice(&[rank, comm.size()].map(|n| n as u64).map(u64::to_le_bytes).concat());
    let all: Vec<Bytes> = (0..comm.size()).map(number).collect();
    same_buffers(comm, "the ranks and sizes", &comm.allgather(number(comm.rank()))?, &all)
}

/// Many messages are on their way at once, and are asked for in the reverse order.
pub(super) fn tags(comm: &Communicator) -> Result<(), Failure> {
    let message = |from, to, tag: usize| vec![bytes(from, to, tag), Bytes::new(), bytes(from, to, 2 * tag + 1)];
    for to in 0..comm.size() {
        for tag in 0..200 {
            comm.send(to, tag as u64, message(comm.rank(), to, tag))?;
        }
    }
    for from in 0..comm.size() {
        for tag in (0..200).rev() {
            let got = comm.recv(from, tag as u64)?;
            same_buffers(comm, &format!("tag {tag} from {from}"), &got, &message(from, comm.rank(), tag))?;
        }
    }
    Ok(())
}

pub(super) fn order(comm: &Communicator) -> Result<(), Failure> {
    let (next, previous) = neighbours(comm);
    for round in 0..300 {
        // Short and long ones take different ways in some transports and still keep their order.
        let length = if round % 100 == 50 { LARGE / 4 } else { round };
        comm.send(next, 7, vec![bytes(round, 0, length)])?;
    }
    for round in 0..300 {
        let length = if round % 100 == 50 { LARGE / 4 } else { round };
        same_buffers(comm, &format!("message {round}"), &comm.recv(previous, 7)?, &[bytes(round, 0, length)])?;
    }
    Ok(())
}

pub(super) fn uneven(comm: &Communicator) -> Result<(), Failure> {
    let lengths = [0, 1, 63, 64, 65, 4095, 4096, 4097, 65_535, 65_536, 65_537, (1 << 20) - 1, 1 << 20];
    let (next, previous) = neighbours(comm);
    let message = |from: usize, round: usize| -> Vec<Bytes> {
        // No buffers, one of each length, and all of them in one message.
        match round.checked_sub(1) {
            None => Vec::new(),
            Some(one) => match lengths.get(one) {
                Some(&length) => vec![bytes(from, round, length)],
                None => lengths.iter().map(|&length| bytes(from, round, length)).collect(),
            },
        }
    };
    for round in 0..=lengths.len() + 1 {
        comm.send(next, 3, message(comm.rank(), round))?;
        same_buffers(comm, &format!("message {round}"), &comm.recv(previous, 3)?, &message(previous, round))?;
    }
    // From all to one at the same time.
    comm.send(0, 4, vec![bytes(comm.rank(), 0, comm.rank() * 70_000)])?;
    if comm.rank() == 0 {
        for from in 0..comm.size() {
            same_buffers(comm, &format!("message from {from}"), &comm.recv(from, 4)?, &[bytes(from, 0, from * 70_000)])?;
        }
    }
    Ok(())
}

pub(super) fn send_first(comm: &Communicator) -> Result<(), Failure> {
    let me = comm.rank();
    for to in 0..comm.size() {
        comm.send(to, 0, vec![bytes(me, to, LARGE), bytes(to, me, 5)])?;
    }
    for from in 0..comm.size() {
        same_buffers(comm, &format!("message from {from}"), &comm.recv(from, 0)?, &[bytes(from, me, LARGE), bytes(me, from, 5)])?;
    }
    equal(comm, "the rank afterwards", &comm.rank(), &me)
}

/// The ranks after and before this one in a ring.
pub(super) fn neighbours(comm: &Communicator) -> (usize, usize) {
    ((comm.rank() + 1) % comm.size(), (comm.rank() + comm.size() - 1) % comm.size())
}
