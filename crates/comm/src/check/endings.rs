//! What goes wrong: arguments, deadlines, calls that do not match, ranks that abort or leave.

use std::{
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    Failure,
    expect::{bytes, equal, fails, same_buffers},
};
use crate::{CancelToken, Communicator, Error, ReduceOp, Result};

type Answer = Result<Option<Communicator>, Failure>;

pub(super) fn wrong_arguments(comm: &Communicator) -> Result<(), Failure> {
    let size = comm.size();
    let no_rank = |error: &Error| matches!(error, Error::NoSuchRank { .. });
    fails(comm, "send to a rank that is not there", comm.send(size, 0, Vec::new()), "`no rank`", no_rank)?;
    fails(comm, "recv from a rank that is not there", comm.recv(size, 0), "`no rank`", no_rank)?;
    fails(comm, "broadcast from a rank that is not there", comm.broadcast(size, Bytes::new()), "`no rank`", no_rank)?;
    fails(comm, "all_to_all without buffers", comm.all_to_all(Vec::new()), "a wrong count", |e| matches!(e, Error::WrongCount { .. }))?;
    Ok(comm.barrier()?)
}

/// Waiting for what nobody sends ends in time, and harms only the communicator that it was for.
pub(super) fn deadline(comm: &Communicator) -> Result<(), Failure> {
    let side = comm.split(0, comm.rank() as u64)?;
    let from = (comm.rank() + 1) % comm.size();
    let started = Instant::now();
    let answer = side.with_timeout(Duration::from_millis(20)).recv(from, 5);
    let waited = started.elapsed();
    fails(comm, "recv of what nobody sent", answer, "a time-out", |e| matches!(e, Error::Timeout { operation: "recv", .. }))?;
    // Half a second is for machines with many more threads than cores.
    let bounds = Duration::from_millis(20)..Duration::from_millis(520);
    equal(comm, "that the wait ended when it should", &bounds.contains(&waited), &true)?;
    fails(comm, "a barrier after that", side.barrier(), "the same time-out", |e| matches!(e, Error::Timeout { operation: "recv", .. }))?;
    Ok(comm.barrier()?)
}

/// A token ends a wait that has begun as well as one that has not.
pub(super) fn cancel(comm: &Communicator) -> Result<(), Failure> {
    let side = comm.split(0, comm.rank() as u64)?;
    let token = CancelToken::new();
    let from = (comm.rank() + 1) % comm.size();
    let answer = thread::scope(|scope| {
        let waiting = scope.spawn(|| side.with_cancel(&token).recv(from, 5));
        token.cancel();
        waiting.join().expect("a receive returns, it does not panic")
    });
    fails(comm, "recv that was called off", answer, "`cancelled`", |error| matches!(error, Error::Cancelled { .. }))?;
    Ok(comm.barrier()?)
}

/// Rank 0 does one thing, the others something else: who finds out says so, and the others are told.
fn mismatch(comm: Communicator, first: fn(&Communicator) -> Result<()>, second: fn(&Communicator) -> Result<()>) -> Answer {
    if comm.size() == 1 {
        return Ok(Some(comm));
    }
    let call = if comm.rank() == 0 { first(&comm) } else { second(&comm) };
    // A rank that only sends does not notice before it receives.
    let answer = call.and_then(|()| comm.barrier());
    let known = |error: &Error| match error {
        Error::Mismatch { .. } => true,
        Error::Aborted { reason, .. } => reason.starts_with("mismatched collective calls"),
        _ => false,
    };
    fails(&comm, "a call that the others did not make", answer, "a mismatch", known)?;
    fails(&comm, "a barrier after that", comm.barrier(), "the same error", known)?;
    Ok(Some(comm))
}

pub(super) fn other_collective(comm: Communicator) -> Answer {
    mismatch(comm, |comm| comm.barrier(), |comm| comm.allgather(Bytes::new()).map(drop))
}

pub(super) fn other_root(comm: Communicator) -> Answer {
    mismatch(comm, |comm| comm.broadcast(0, Bytes::new()).map(drop), |comm| comm.broadcast(1, Bytes::new()).map(drop))
}

pub(super) fn other_type(comm: Communicator) -> Answer {
    mismatch(comm, |comm| comm.allreduce(&mut [1u32], ReduceOp::Sum), |comm| comm.allreduce(&mut [1f32], ReduceOp::Sum))
}

pub(super) fn other_operation(comm: Communicator) -> Answer {
    mismatch(comm, |comm| comm.allreduce(&mut [1u32], ReduceOp::Sum), |comm| comm.allreduce(&mut [1u32], ReduceOp::Max))
}

pub(super) fn other_length(comm: Communicator) -> Answer {
    mismatch(comm, |comm| comm.allreduce(&mut [1; 2], ReduceOp::Sum), |comm| comm.allreduce(&mut [1; 3], ReduceOp::Sum))
}

/// Long messages travel in chunks, of which these have the same number.
pub(super) fn other_count(comm: Communicator) -> Answer {
    mismatch(comm, |comm| reduce(comm, &[20_000, 20_000]), |comm| reduce(comm, &[20_001, 19_999]))
}

fn reduce(comm: &Communicator, counts: &[usize]) -> Result<()> {
    let (mut counts, values) = (counts.to_vec(), vec![1f64; counts.iter().sum::<usize>()]);
    counts.resize(comm.size(), 0);
    comm.reduce_scatter(&values, &counts, ReduceOp::Sum).map(drop)
}

/// The last rank aborts through a part of the communicator while the others wait on the whole or on their part.
pub(super) fn abort(comm: Communicator) -> Answer {
    let last = comm.size() - 1;
    let known = |error: &Error| matches!(error, Error::Aborted { rank, reason } if *rank == last && reason == "enough");
    // Once the last rank has its part the others may be told before they have theirs.
    let answer = match comm.split(comm.rank() as u64 % 2, 0) {
        Ok(part) if comm.rank() == last => {
            part.abort("enough");
            comm.recv(last, 1).map(drop)
        }
        Ok(part) if comm.rank().is_multiple_of(2) => part.recv(part.size() - 1, 1).map(drop),
        Ok(_) => comm.recv(last, 1).map(drop),
        Err(error) => Err(error),
    };
    fails(&comm, "a call while another rank aborts", answer, "`aborted by` the last rank", known)?;
    fails(&comm, "a barrier after that", comm.barrier(), "`aborted by` the last rank", known)?;
    Ok(Some(comm))
}

/// The last rank sends a message to everybody and leaves.
pub(super) fn leave(comm: Communicator) -> Answer {
    let last = comm.size() - 1;
    if comm.rank() == last {
        for to in 0..last {
            comm.send(to, 1, vec![bytes(last, to, 100_000)])?;
        }
        return Ok(None);
    }
    same_buffers(&comm, "the last message of a rank that left", &comm.recv(last, 1)?, &[bytes(last, comm.rank(), 100_000)])?;
    let gone = |error: &Error| matches!(error, Error::PeerLeft { rank } if *rank == last);
    fails(&comm, "recv from a rank that left", comm.recv(last, 1), "`left the communicator`", gone)?;
    Ok(Some(comm))
}
