//! What every transport has to do, checked over all of them with 1 to 4 ranks against naive oracles.
#![expect(clippy::unwrap_used, reason = "a panic is the test's message")]

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use bytes::Bytes;
use deeprc_comm::{Communicator, Error, Number, ReduceOp, Rendezvous};
use proptest::prelude::*;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Threads,
    SharedMemory,
}

const KINDS: [Kind; 2] = [Kind::Threads, Kind::SharedMemory];
/// Longer than any ring.
const LARGE: usize = 3 << 20;

/// What each of `size` ranks answers, by rank.
fn run<R: Send>(kind: Kind, size: usize, rank: impl Fn(Communicator) -> R + Sync) -> Vec<R> {
    let dir = tempfile::tempdir().unwrap();
    let mut ready = Communicator::threads(size).into_iter();
    thread::scope(|scope| {
        let ranks: Vec<_> = (0..size)
            .map(|number| {
                let (made, dir, rank) = (ready.next().unwrap(), dir.path(), &rank);
                scope.spawn(move || {
                    let comm = match kind {
                        Kind::Threads => made,
                        Kind::SharedMemory => Communicator::connect(&Rendezvous::new(dir, number, size)).unwrap(),
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
    for kind in KINDS {
        for size in 1..=4 {
            run(kind, size, |comm| check(&comm));
        }
    }
}

/// Bytes that differ for every pair of ranks.
fn bytes(from: usize, to: usize, length: usize) -> Bytes {
    (0..length).map(|i| (i * 31 + from * 7 + to * 13) as u8).collect::<Vec<_>>().into()
}

#[test]
fn ranks_are_numbered() {
    for kind in KINDS {
        for size in 1..=4 {
            let found = run(kind, size, |comm| (comm.rank(), comm.size()));
            assert_eq!(found, (0..size).map(|rank| (rank, size)).collect::<Vec<_>>());
        }
    }
}

#[test]
fn tags_are_received_in_any_order() {
    everywhere(|comm| {
        let me = comm.rank();
        let message = |from, to, tag: usize| vec![bytes(from, to, tag), Bytes::new(), bytes(from, to, 2 * tag + 1)];
        for to in 0..comm.size() {
            (0..50).for_each(|tag| comm.send(to, tag as u64, message(me, to, tag)).unwrap());
        }
        for from in 0..comm.size() {
            (0..50).rev().for_each(|tag| assert_eq!(comm.recv(from, tag as u64).unwrap(), message(from, me, tag)));
        }
    });
}

#[test]
fn one_tag_keeps_its_order() {
    everywhere(|comm| {
        for round in 0..200 {
            comm.send((comm.rank() + 1) % comm.size(), 7, vec![bytes(round, 0, round)]).unwrap();
        }
        for round in 0..200 {
            let from = (comm.rank() + comm.size() - 1) % comm.size();
            assert_eq!(comm.recv(from, 7).unwrap(), [bytes(round, 0, round)]);
        }
    });
}

#[test]
fn a_message_may_have_no_buffers() {
    everywhere(|comm| {
        comm.send(0, 1, Vec::new()).unwrap();
        if comm.rank() == 0 {
            (0..comm.size()).for_each(|from| assert!(comm.recv(from, 1).unwrap().is_empty()));
        }
    });
}

#[test]
fn all_may_send_large_messages_before_they_receive() {
    everywhere(|comm| {
        let me = comm.rank();
        for to in 0..comm.size() {
            comm.send(to, 0, vec![bytes(me, to, LARGE), bytes(to, me, 5)]).unwrap();
        }
        for from in 0..comm.size() {
            let received = comm.recv(from, 0).unwrap();
            assert!(received == [bytes(from, me, LARGE), bytes(me, from, 5)]);
        }
    });
}

#[test]
fn nobody_passes_a_barrier_before_all_came() {
    for kind in KINDS {
        for size in 1..=4 {
            let came = AtomicUsize::new(0);
            run(kind, size, |comm| {
                for round in 1..=50 {
                    came.fetch_add(1, Ordering::SeqCst);
                    comm.barrier().unwrap();
                    assert!(came.load(Ordering::SeqCst) >= round * size);
                }
            });
        }
    }
}

#[test]
fn broadcast_gives_the_roots_data() {
    everywhere(|comm| {
        for root in 0..comm.size() {
            for length in [0, 1, 1000, LARGE] {
                let received = comm.broadcast(root, bytes(comm.rank(), 0, length)).unwrap();
                assert!(received == bytes(root, 0, length));
            }
        }
    });
}

#[test]
fn gather_and_allgather_collect_by_rank() {
    everywhere(|comm| {
        let uneven = |rank: usize| bytes(rank, 9, rank * 37 % 4 * 1000);
        let all: Vec<Bytes> = (0..comm.size()).map(uneven).collect();
        for root in 0..comm.size() {
            let received = comm.gather(root, uneven(comm.rank())).unwrap();
            assert_eq!(received, (root == comm.rank()).then(|| all.clone()));
        }
        assert_eq!(comm.allgather(uneven(comm.rank())).unwrap(), all);
    });
}

/// `lengths[from][to]` are the lengths of the buffers.
fn check_all_to_all(kind: Kind, lengths: &[Vec<Vec<usize>>]) {
    let size = lengths.len();
    let buffers = |from: usize, to: usize| -> Vec<Bytes> { lengths[from][to].iter().map(|&l| bytes(from, to, l)).collect() };
    run(kind, size, |comm| {
        let me = comm.rank();
        let received = comm.all_to_all((0..size).map(|to| buffers(me, to)).collect()).unwrap();
        let expect: Vec<Vec<Bytes>> = (0..size).map(|from| buffers(from, me)).collect();
        assert!(received == expect);
    });
}

#[test]
fn all_to_all_moves_large_and_empty_buffers() {
    for kind in KINDS {
        for size in 1..=4 {
            let lengths =
                |from: usize| (0..size).map(|to| if (from + to).is_multiple_of(3) { vec![] } else { vec![0, LARGE + from, to] }).collect();
            check_all_to_all(kind, &(0..size).map(lengths).collect::<Vec<_>>());
        }
    }
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
        KINDS.iter().for_each(|kind| check_all_to_all(*kind, &lengths));
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
fn allreduce_knows_all_operations() {
    check_allreduce(|i| (i as f64).sin(), ReduceOp::Min, f64::min);
    check_allreduce(|i| (i as f32).sin(), ReduceOp::Max, f32::max);
    check_allreduce(|i| i as i32 - 500, ReduceOp::Prod, i32::wrapping_mul);
    check_allreduce(|i| i as i64 - 500, ReduceOp::Min, Ord::min);
    check_allreduce(|i| i as u64, ReduceOp::Max, Ord::max);
}

#[test]
fn split_groups_by_color_and_orders_by_key() {
    everywhere(|comm| {
        let (rank, size) = (comm.rank(), comm.size());
        // Even and odd ranks, each in reverse.
        let part = comm.split((rank % 2) as u64, (size - rank) as u64).unwrap();
        let members: Vec<usize> = (0..size).rev().filter(|other| other % 2 == rank % 2).collect();
        assert_eq!((members[part.rank()], part.size()), (rank, members.len()));
        let all = part.allgather(vec![rank as u8].into()).unwrap();
        assert_eq!(all, members.iter().map(|&member| vec![member as u8]).collect::<Vec<_>>());
        // A split of a split, and the first one is still in order.
        let alone = part.split(rank as u64, 0).unwrap();
        assert_eq!((alone.rank(), alone.size()), (0, 1));
        comm.barrier().unwrap();
    });
}

#[test]
fn communicators_do_not_mix_their_messages() {
    everywhere(|comm| {
        let other = comm.split(0, comm.rank() as u64).unwrap();
        let to = (comm.rank() + 1) % comm.size();
        other.send(to, 1, vec![Bytes::from_static(b"other")]).unwrap();
        comm.send(to, 1, vec![Bytes::from_static(b"first")]).unwrap();
        let from = (comm.rank() + comm.size() - 1) % comm.size();
        assert_eq!(comm.recv(from, 1).unwrap(), ["first"]);
        assert_eq!(other.recv(from, 1).unwrap(), ["other"]);
    });
}

#[test]
fn splits_work_at_the_same_time() {
    everywhere(|comm| {
        let parts: Vec<Communicator> = (0..3).map(|_| comm.split(0, comm.rank() as u64).unwrap()).collect();
        thread::scope(|scope| {
            for (worker, part) in parts.iter().enumerate() {
                scope.spawn(move || {
                    for round in 0..30 {
                        let length = if round % 10 == worker { LARGE / 2 } else { round * worker };
                        let out = (0..part.size()).map(|to| vec![bytes(worker, to, length)]).collect();
                        let received = part.all_to_all(out).unwrap();
                        assert!(received.iter().all(|from| *from == [bytes(worker, part.rank(), length)]));
                    }
                });
            }
        });
    });
}

#[test]
fn threads_of_a_rank_take_turns_and_share_tags() {
    everywhere(|comm| {
        thread::scope(|scope| {
            for worker in 0..4u64 {
                scope.spawn(move || {
                    for round in 0..20 {
                        let next = (comm.rank() + 1) % comm.size();
                        comm.send(next, worker, vec![bytes(round, worker as usize, 40_000)]).unwrap();
                        let from = (comm.rank() + comm.size() - 1) % comm.size();
                        assert!(comm.recv(from, worker).unwrap() == [bytes(round, worker as usize, 40_000)]);
                        comm.barrier().unwrap();
                    }
                });
            }
        });
    });
}

#[test]
fn buffers_arrive_aligned_or_are_the_senders_own() {
    let sent: Vec<Bytes> = [5, 0, 64, 100_000].into_iter().map(|length| bytes(0, 0, length)).collect();
    for kind in KINDS {
        run(kind, 2, |comm| {
            if comm.rank() == 0 {
                return comm.send(1, 0, sent.clone()).unwrap();
            }
            let received = comm.recv(0, 0).unwrap();
            assert_eq!(received, sent);
            for (received, sent) in received.iter().zip(&sent) {
                match kind {
                    Kind::Threads => assert_eq!(received.as_ptr(), sent.as_ptr()),
                    Kind::SharedMemory => assert!(received.as_ptr().addr().is_multiple_of(64)),
                }
            }
        });
    }
}

/// Two ranks that do not do the same: one finds out, the other is told.
fn check_mismatch(first: impl Fn(&Communicator) -> Result<(), Error> + Sync, second: impl Fn(&Communicator) -> Result<(), Error> + Sync) {
    for kind in KINDS {
        let errors = run(kind, 2, |comm| {
            let call = if comm.rank() == 0 { first(&comm) } else { second(&comm) };
            // A rank that only sends does not notice before it receives.
            call.and_then(|()| comm.barrier()).unwrap_err()
        });
        assert!(errors.iter().any(|error| matches!(error, Error::Mismatch { .. })), "{kind:?}: {errors:?}");
        let known = |error: &Error| matches!(error, Error::Mismatch { .. } | Error::Aborted { .. });
        assert!(errors.iter().all(known), "{kind:?}: {errors:?}");
    }
}

#[test]
fn different_collectives_are_a_mismatch() {
    check_mismatch(|comm| comm.barrier(), |comm| comm.allgather(Bytes::new()).map(drop));
    check_mismatch(|comm| comm.broadcast(0, Bytes::new()).map(drop), |comm| comm.gather(0, Bytes::new()).map(drop));
    check_mismatch(|comm| comm.broadcast(0, Bytes::new()).map(drop), |comm| comm.broadcast(1, Bytes::new()).map(drop));
    check_mismatch(|comm| comm.allreduce(&mut [1u32], ReduceOp::Sum), |comm| comm.allreduce(&mut [1f32], ReduceOp::Sum));
    check_mismatch(|comm| comm.allreduce(&mut [1u32], ReduceOp::Sum), |comm| comm.allreduce(&mut [1u32], ReduceOp::Max));
    check_mismatch(|comm| comm.allreduce(&mut [1; 2], ReduceOp::Sum), |comm| comm.allreduce(&mut [1; 3], ReduceOp::Sum));
}

#[test]
fn a_mismatch_says_what_differs() {
    let errors = run(Kind::Threads, 2, |comm| match comm.rank() {
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
fn abort_wakes_everybody_and_stays() {
    for kind in KINDS {
        let errors = run(kind, 4, |comm| {
            // Once rank 0 has its part the others may be told before they have theirs.
            match (comm.rank(), comm.split(comm.rank() as u64 % 2, 0)) {
                (0, part) => part.unwrap().abort("enough"),
                (1, Ok(part)) => drop(part.recv(0, 1).unwrap_err()),
                _ => drop(comm.recv(0, 1).unwrap_err()),
            }
            comm.barrier().unwrap_err().to_string()
        });
        assert_eq!(errors, ["aborted by rank 0: enough"; 4], "{kind:?}");
    }
}

#[test]
fn who_leaves_is_missed_after_its_last_message() {
    for kind in KINDS {
        run(kind, 3, |comm| {
            if comm.rank() == 1 {
                return comm.send(0, 1, vec![bytes(1, 0, 1000)]).unwrap();
            }
            if comm.rank() == 0 {
                assert_eq!(comm.recv(1, 1).unwrap(), [bytes(1, 0, 1000)]);
            }
            let error = comm.recv(1, 1).unwrap_err();
            assert!(matches!(error, Error::PeerLeft { rank: 1 }), "{kind:?}: {error:?}");
        });
    }
}

#[test]
fn nobody_waits_beyond_the_deadline() {
    for kind in KINDS {
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
    run(Kind::SharedMemory, 2, |comm| {
        if comm.rank() == 0 {
            let hasty = comm.with_timeout(Duration::from_millis(20));
            let error = hasty.send(1, 5, vec![bytes(0, 1, LARGE)]).unwrap_err();
            assert!(matches!(error, Error::Timeout { operation: "send", rank: Some(1), .. }), "{error:?}");
        }
        comm
    });
}

#[test]
fn a_wrong_argument_harms_nobody() {
    everywhere(|comm| {
        let size = comm.size();
        assert!(matches!(comm.send(size, 0, vec![]), Err(Error::NoSuchRank { .. })));
        assert!(matches!(comm.broadcast(size, Bytes::new()), Err(Error::NoSuchRank { .. })));
        assert!(matches!(comm.all_to_all(vec![]), Err(Error::WrongCount { given: 0, .. })));
        comm.barrier().unwrap();
    });
}
