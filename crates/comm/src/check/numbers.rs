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
                    ReduceOp::Sum | ReduceOp::Min | ReduceOp::Max => (any % 2001) as $type - 1000.0,
                }
            }

            fn combine(op: ReduceOp, a: Self, b: Self) -> Self {
                match op {
                    ReduceOp::Sum => a + b,
                    ReduceOp::Min => if a < b { a } else { b },
                    ReduceOp::Max => if a > b { a } else { b },
                    ReduceOp::Prod => a * b,
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

integers!(i32, i64, u32, u64);
floats!(f32, f64);

fn allreduce<T: Oracle>(comm: &Communicator) -> Result<(), Failure> {
    for op in ReduceOp::ALL {
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
