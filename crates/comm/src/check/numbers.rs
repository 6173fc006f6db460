//! Collectives that calculate.

use std::fmt::Debug;

use super::{Failure, collectives::hash, expect::equal};
use crate::{Communicator, Number, ReduceOp, Result};

/// The longest is beyond what an allreduce sends whole, for every type, and not a multiple of the number of ranks.
const LENGTHS: [usize; 4] = [0, 1, 5, 20_011];

/// A number with the naive arithmetic of the oracle.
trait Oracle: Number + PartialEq + Debug {
    /// The value at place `i` of a rank, for an operation: chosen so that floats do not round.
    fn value(op: ReduceOp, rank: usize, i: usize) -> Self;
    /// `a op b`
    fn combine(op: ReduceOp, a: Self, b: Self) -> Self;
}

macro_rules! integers {
    ($($type:ty),*) => {
        $(impl Oracle for $type {
            fn value(_: ReduceOp, rank: usize, i: usize) -> Self {
                // Any bits: integers wrap around.
                hash(rank * 100_003 + i) as $type
            }

            fn combine(op: ReduceOp, a: Self, b: Self) -> Self {
                match op {
                    ReduceOp::Sum => a.wrapping_add(b),
                    ReduceOp::Min => if a < b { a } else { b },
                    ReduceOp::Max => if a > b { a } else { b },
                    ReduceOp::Prod => a.wrapping_mul(b),
                    ReduceOp::And => a & b,
                    ReduceOp::Or => a | b,
                }
            }
        })*

        pub(super) fn integers(comm: &Communicator) -> Result<(), Failure> {
            $(allreduce::<$type>(comm)?;)*
            Ok(())
        }
    };
}

macro_rules! floats {
    ($($type:ty),*) => {
        $(impl Oracle for $type {
            fn value(op: ReduceOp, rank: usize, i: usize) -> Self {
                let any = hash(rank * 100_003 + i);
                match op {
                    // Powers of two and signs: the product of many ranks is exact.
                    ReduceOp::Prod => [1.0, 2.0, -1.0, 0.5][any % 4],
                    _ => (any % 2001) as $type - 1000.0,
                }
            }

            fn combine(op: ReduceOp, a: Self, b: Self) -> Self {
                match op {
                    ReduceOp::Sum => a + b,
                    ReduceOp::Min => if a < b { a } else { b },
                    ReduceOp::Max => if a > b { a } else { b },
                    ReduceOp::Prod => a * b,
                    ReduceOp::And | ReduceOp::Or => a,
                }
            }
        })*

        pub(super) fn floats(comm: &Communicator) -> Result<(), Failure> {
            $(
                allreduce::<$type>(comm)?;
                for op in [ReduceOp::Min, ReduceOp::Max] {
                    // NaN on the last rank only: it stays, whichever side it is on.
                    let mut values = [if comm.rank() + 1 == comm.size() { <$type>::NAN } else { 1.0 }, 2.0];
                    comm.allreduce(&mut values, op)?;
                    equal(comm, &format!("{op:?} with a NaN"), &[values[0].is_nan(), values[1].is_nan()], &[true, false])?;
                }
            )*
            Ok(())
        }
    };
}

integers!(i8, i16, i32, i64, u8, u16, u32, u64);
floats!(f32, f64);

fn allreduce<T: Oracle>(comm: &Communicator) -> Result<(), Failure> {
    for op in ReduceOp::ALL.into_iter().filter(|op| op.applies_to(T::TYPE)) {
        for length in LENGTHS {
            let mut values: Vec<T> = (0..length).map(|i| T::value(op, comm.rank(), i)).collect();
            comm.allreduce(&mut values, op)?;
            let expect = |i| (1..comm.size()).fold(T::value(op, 0, i), |sum, rank| T::combine(op, sum, T::value(op, rank, i)));
            let what = || format!("{op:?} of {length} {}", std::any::type_name::<T>());
            equal(comm, &what(), &values, &(0..length).map(expect).collect())?;
        }
    }
    Ok(())
}

/// Sums that depend on the order of their terms.
pub(super) fn same_bits(comm: &Communicator) -> Result<(), Failure> {
    for length in LENGTHS {
        for op in [ReduceOp::Sum, ReduceOp::Prod] {
            let sum = || -> Result<Vec<u8>> {
                let scale = 10f64.powi(comm.rank() as i32 % 7 - 3);
                let mut values: Vec<f64> = (0..length).map(|i| (hash(i * 31 + comm.rank()) as f64).sin() * scale).collect();
                comm.allreduce(&mut values, op)?;
                let mut short: Vec<f32> = values.iter().map(|&value| value as f32 + comm.rank() as f32 / 7.0).collect();
                comm.allreduce(&mut short, op)?;
                Ok(values.iter().flat_map(|v| v.to_le_bytes()).chain(short.iter().flat_map(|v| v.to_le_bytes())).collect())
            };
            let first = sum()?;
            for _ in 0..2 {
                equal(comm, "the repetition of an allreduce", &(sum()? == first), &true)?;
            }
            let zeros = comm.broadcast(0, first.clone().into())?;
            equal(comm, "that rank 0 has the bits of this rank", &(zeros == first), &true)?;
        }
    }
    Ok(())
}

/// `reduce` and `reduce_scatter`, short and in many chunks, with sums that depend on the order of their terms.
pub(super) fn parts(comm: &Communicator) -> Result<(), Failure> {
    let (me, size) = (comm.rank(), comm.size());
    for length in [0, 1, 5, 20_011, 700_001] {
        let value = |rank: usize, i: usize| (hash(i * 31 + rank) % 1_000_003) as f32 * 10f32.powi(rank as i32 % 7 - 3);
        let values: Vec<f32> = (0..length).map(|i| value(me, i)).collect();
        let sums: Vec<u32> = (0..length).map(|i| (1..size).fold(value(0, i), |sum, rank| sum + value(rank, i)).to_bits()).collect();
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<u32>>();
        for root in 0..size {
            let mut reduced = values.clone();
            comm.reduce(root, &mut reduced, ReduceOp::Sum)?;
            let expect = if me == root { sums.clone() } else { bits(&values) };
            equal(comm, &format!("the reduce to {root} of {length} values"), &(bits(&reduced) == expect), &true)?;
        }
        let mut reduced = values.clone();
        comm.allreduce(&mut reduced, ReduceOp::Sum)?;
        equal(comm, &format!("the allreduce of {length} values"), &(bits(&reduced) == sums), &true)?;
        // Rank 0 gets nothing, unless it is alone.
        let share = length / size.max(2);
        let counts: Vec<usize> =
            (0..size).map(|rank| if rank + 1 == size { length - share * size.saturating_sub(2) } else { share * rank.min(1) }).collect();
        let part = comm.reduce_scatter(&values, &counts, ReduceOp::Sum)?;
        let start: usize = counts[..me].iter().sum();
        let expect = &sums[start..start + counts[me]];
        equal(comm, &format!("the reduce_scatter of {length} values"), &(bits(&part) == expect), &true)?;
    }
    Ok(())
}
