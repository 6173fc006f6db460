//! What every transport has to do: the public checks over all of them with 1 to 5 ranks, and what is written here because
//! it holds for some transports only or needs a test framework.
#![expect(clippy::unwrap_used, reason = "a panic is the test's message")]

use std::{
    collections::{BTreeSet, HashMap},
    sync::Mutex,
    thread,
    time::Duration,
};

use bytes::Bytes;
use deeprc_comm::{CommSpec, Communicator, Error, Number, ReduceOp, Rendezvous, check};
use proptest::prelude::*;

/// The transports that are built in and work between ranks of one process.
fn kinds() -> impl Iterator<Item = CommSpec> {
    [CommSpec::Threads, CommSpec::Shm, CommSpec::Gloo, CommSpec::Ucx].into_iter().filter(|spec| spec.is_built_in())
}

const TIMEOUT: Duration = Duration::from_secs(60);
/// Longer than any ring.
const LARGE: usize = 3 << 20;

/// What each of `size` ranks answers, by rank.
fn run<R: Send>(kind: CommSpec, size: usize, rank: impl Fn(Communicator) -> R + Sync) -> Vec<R> {
    let dir = tempfile::tempdir().unwrap();
    let mut ready = Communicator::threads(size).into_iter();
    thread::scope(|scope| {
        let ranks: Vec<_> = (0..size)
            .map(|number| {
                let (made, dir, rank) = (ready.next().unwrap(), dir.path(), &rank);
                scope.spawn(move || {
                    let comm = match kind {
                        CommSpec::Threads => made,
                        spec => Communicator::open(spec, &Rendezvous::new(dir, number, size)).unwrap().0,
                    };
                    rank(comm.with_timeout(Duration::from_secs(60)))
                })
            })
            .collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

/// Runs a check on every rank of every transport and size.
fn everywhere(check: impl Fn(&Communicator) + Sync) {
    for kind in kinds() {
        for size in 1..=4 {
            run(kind, size, |comm| check(&comm));
        }
    }
}

/// Bytes that differ for every pair of ranks.
fn bytes(from: usize, to: usize, length: usize) -> Bytes {
    (0..length).map(|i| (i * 31 + from * 7 + to * 13) as u8).collect::<Vec<_>>().into()
}

/// The public checks: everything that can be said of any transport.
#[test]
fn every_check_holds() {
    for kind in kinds() {
        for size in 1..=5 {
            let dir = tempfile::tempdir().unwrap();
            let threads = Mutex::new(HashMap::new());
            run(kind, size, |comm| {
                let open = |name: &str| match kind {
                    CommSpec::Threads => {
                        let mut made = threads.lock().unwrap();
                        let ranks = made
                            .entry(name.to_owned())
                            .or_insert_with(|| Communicator::threads(size).into_iter().map(Some).collect::<Vec<_>>());
                        Ok(ranks[comm.rank()].take().unwrap())
                    }
                    spec => Communicator::open(spec, &Rendezvous::new(dir.path().join(name), comm.rank(), size)).map(|(comm, _)| comm),
                };
                let open = |name: &str| open(name).map(|comm| comm.with_timeout(TIMEOUT));
                let outcomes = check::run(&comm, open, |_| ());
                assert_eq!(outcomes.len(), check::checks().len());
                let failed: Vec<_> = outcomes.iter().filter(|outcome| !outcome.verdict.passed()).collect();
                assert!(failed.is_empty(), "{kind:?}, rank {} of {size}: {failed:#?}", comm.rank());
            });
        }
    }
}

/// `lengths[from][to]` are the lengths of the buffers.
fn check_all_to_all(kind: CommSpec, lengths: &[Vec<Vec<usize>>]) {
    let size = lengths.len();
    let buffers = |from: usize, to: usize| -> Vec<Bytes> { lengths[from][to].iter().map(|&l| bytes(from, to, l)).collect() };
    run(kind, size, |comm| {
        let me = comm.rank();
        let received = comm.all_to_all((0..size).map(|to| buffers(me, to)).collect()).unwrap();
        let expect: Vec<Vec<Bytes>> = (0..size).map(|from| buffers(from, me)).collect();
        assert!(received == expect);
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn all_to_all_equals_a_transposition(
        lengths in (1usize..=4).prop_flat_map(|size| {
            let length = prop_oneof![3 => 0usize..300, 1 => 0usize..3_000_000];
            let buffers = prop::collection::vec(length, 0..4);
            prop::collection::vec(prop::collection::vec(buffers, size), size)
        })
    ) {
        kinds().for_each(|kind| check_all_to_all(kind, &lengths));
    }
}

/// Reduces in rank order, one element after the other, as the documentation says.
fn check_allreduce<T: Number + PartialEq + std::fmt::Debug>(value: fn(usize) -> T, op: ReduceOp, fold: fn(T, T) -> T) {
    everywhere(|comm| {
        // The longest is beyond what is sent whole, and not a multiple of the number of ranks.
        for length in [0, 1, 5, 20_011] {
            let of = |rank: usize, i: usize| value(rank * 1009 + i * 17);
            let mut values: Vec<T> = (0..length).map(|i| of(comm.rank(), i)).collect();
            comm.allreduce(&mut values, op).unwrap();
            let expect = |i| (1..comm.size()).fold(of(0, i), |sum, rank| fold(sum, of(rank, i)));
            assert_eq!(values, (0..length).map(expect).collect::<Vec<T>>());
        }
    });
}

#[test]
fn allreduce_has_the_bits_of_a_sum_in_rank_order() {
    check_allreduce(|i| (i as f32).sin() * 1e3, ReduceOp::Sum, |a, b| a + b);
    check_allreduce(|i| (i as f64).cos() * 1e-3, ReduceOp::Sum, |a, b| a + b);
    check_allreduce(|i| i as u32 * 0x0100_0001, ReduceOp::Sum, u32::wrapping_add);
}

#[test]
fn buffers_arrive_aligned_or_are_the_senders_own() {
    let sent: Vec<Bytes> = [5, 0, 64, 100_000].into_iter().map(|length| bytes(0, 0, length)).collect();
    for kind in kinds() {
        run(kind, 2, |comm| {
            if comm.rank() == 0 {
                return comm.send(1, 0, sent.clone()).unwrap();
            }
            let received = comm.recv(0, 0).unwrap();
            assert_eq!(received, sent);
            for (received, sent) in received.iter().zip(&sent) {
                match kind {
                    CommSpec::Threads => assert_eq!(received.as_ptr(), sent.as_ptr()),
                    _ => assert!(received.as_ptr().addr().is_multiple_of(64)),
                }
            }
        });
    }
}

#[test]
fn a_mismatch_says_what_differs() {
    let errors = run(CommSpec::Threads, 2, |comm| match comm.rank() {
        0 => comm.barrier().unwrap_err(),
        _ => comm.allreduce(&mut [1f32], ReduceOp::Max).unwrap_err(),
    });
    let texts: BTreeSet<String> = errors.iter().map(Error::to_string).collect();
    let expect = "mismatched collective calls: this rank is in barrier, its collective number 1, \
                  rank 1 in allreduce (Max of f32), its collective number 1";
    let mirrored = "mismatched collective calls: this rank is in allreduce (Max of f32), its collective number 1, \
                    rank 0 in barrier, its collective number 1";
    assert!(texts.contains(expect) || texts.contains(mirrored), "{texts:#?}");
}

#[test]
fn nobody_waits_beyond_the_deadline() {
    for kind in kinds() {
        run(kind, 2, |comm| {
            let hasty = comm.with_timeout(Duration::from_millis(20));
            let error = hasty.recv(1 - comm.rank(), 5).unwrap_err();
            assert_eq!(error.to_string(), format!("timed out in recv after 0.02 s waiting for rank {}", 1 - comm.rank()));
            // Poisoned, for the clones as well; and nobody leaves before the other has seen its own time-out.
            assert_eq!(comm.barrier().unwrap_err().to_string(), error.to_string());
            comm
        });
    }
}

#[test]
fn a_send_without_room_ends_at_the_deadline() {
    run(CommSpec::Shm, 2, |comm| {
        if comm.rank() == 0 {
            let hasty = comm.with_timeout(Duration::from_millis(20));
            let error = hasty.send(1, 5, vec![bytes(0, 1, LARGE)]).unwrap_err();
            assert!(matches!(error, Error::Timeout { operation: "send", rank: Some(1), .. }), "{error:?}");
        }
        comm
    });
}
