//! Numbers that ranks can reduce.

use bytes::Bytes;

/// How [`Communicator::allreduce`](crate::Communicator::allreduce) combines the values of the ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReduceOp {
    /// The sum; integers wrap around on overflow.
    Sum,
    /// The smallest; NaN if any value is NaN.
    Min,
    /// The largest; NaN if any value is NaN.
    Max,
    /// The product; integers wrap around on overflow.
    Prod,
}

/// The type of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are the types of Rust")]
pub enum NumberType {
    F32,
    F64,
    I32,
    I64,
    U32,
    U64,
}

/// Numbers to reduce in place, for a transport that does it itself.
#[derive(Debug)]
pub struct Values<'a> {
    /// What the bytes are.
    pub number: NumberType,
    /// How to combine them.
    pub op: ReduceOp,
    /// The numbers in the machine's byte order, aligned for their type.
    pub bytes: &'a mut [u8],
}

/// A number that can be reduced: `f32`, `f64`, `i32`, `i64`, `u32`, `u64`.
pub trait Number: Copy + Send + Sync + sealed::Bits {}

pub(crate) mod sealed {
    use super::{Bytes, ReduceOp};

    /// The byte form and the arithmetic of a number. Bytes are in the machine's order: ranks share a host.
    pub trait Bits: Sized {
        /// Bytes of one value.
        const WIDTH: usize;
        /// The type in a collective's signature, below 16.
        const CODE: u8;
        /// The values one after the other.
        fn pack(values: &[Self]) -> Bytes;
        /// `values[i] = bytes[i]`; both of one length.
        fn unpack(values: &mut [Self], bytes: &[u8]);
        /// `values[i] = op(values[i], bytes[i])`; both of one length.
        fn fold(values: &mut [Self], bytes: &[u8], op: ReduceOp);
    }
}

/// The names behind [`sealed::Bits::CODE`], for messages.
pub(crate) const NAMES: [&str; 6] = ["f32", "f64", "i32", "i64", "u32", "u64"];

impl ReduceOp {
    pub(crate) const ALL: [ReduceOp; 4] = [ReduceOp::Sum, ReduceOp::Min, ReduceOp::Max, ReduceOp::Prod];
}

macro_rules! number {
    ($type:ty, $code:literal, $sum:expr, $min:expr, $max:expr, $prod:expr) => {
        impl Number for $type {}
        impl sealed::Bits for $type {
            const WIDTH: usize = size_of::<$type>();
            const CODE: u8 = $code;

            fn pack(values: &[Self]) -> Bytes {
                let mut bytes = vec![0; values.len() * Self::WIDTH];
                for (cell, value) in bytes.as_chunks_mut().0.iter_mut().zip(values) {
                    *cell = value.to_ne_bytes();
                }
                bytes.into()
            }

            fn unpack(values: &mut [Self], bytes: &[u8]) {
                for (value, cell) in values.iter_mut().zip(bytes.as_chunks().0) {
                    *value = Self::from_ne_bytes(*cell);
                }
            }

            fn fold(values: &mut [Self], bytes: &[u8], op: ReduceOp) {
                fn each(values: &mut [$type], bytes: &[u8], combine: impl Fn($type, $type) -> $type) {
                    for (value, cell) in values.iter_mut().zip(bytes.as_chunks().0) {
                        *value = combine(*value, <$type>::from_ne_bytes(*cell));
                    }
                }
                match op {
                    ReduceOp::Sum => each(values, bytes, $sum),
                    ReduceOp::Min => each(values, bytes, $min),
                    ReduceOp::Max => each(values, bytes, $max),
                    ReduceOp::Prod => each(values, bytes, $prod),
                }
            }
        }
    };
}

// `a` comes from the lower rank. Comparisons with NaN are false, so it is asked for by name.
macro_rules! float {
    ($type:ty, $code:literal) => {
        number!(
            $type,
            $code,
            |a, b| a + b,
            |a, b| if a.is_nan() || a <= b { a } else { b },
            |a, b| if a.is_nan() || a >= b { a } else { b },
            |a, b| a * b
        );
    };
}

macro_rules! integer {
    ($type:ty, $code:literal) => {
        number!($type, $code, <$type>::wrapping_add, Ord::min, Ord::max, <$type>::wrapping_mul);
    };
}

float!(f32, 0);
float!(f64, 1);
integer!(i32, 2);
integer!(i64, 3);
integer!(u32, 4);
integer!(u64, 5);

#[cfg(test)]
mod tests {
    use super::{Number, ReduceOp, sealed::Bits};

    fn check<T: Number + PartialEq + std::fmt::Debug>(op: ReduceOp, a: &[T], b: &[T], expect: &[T]) {
        let mut values = a.to_vec();
        T::fold(&mut values, &T::pack(b), op);
        assert_eq!(values, expect);
    }

    #[test]
    fn folds_element_by_element() {
        check(ReduceOp::Sum, &[1.5f32, -2.0], &[0.5, 4.0], &[2.0, 2.0]);
        check(ReduceOp::Min, &[3i64, -9], &[2, 7], &[2, -9]);
        check(ReduceOp::Max, &[3u32, 9], &[4, 7], &[4, 9]);
        check(ReduceOp::Prod, &[3u64, 9], &[4, 0], &[12, 0]);
        check(ReduceOp::Sum, &[i32::MAX], &[1], &[i32::MIN]);
    }

    #[test]
    fn a_nan_on_either_side_stays() {
        for op in [ReduceOp::Min, ReduceOp::Max] {
            let mut values = [f64::NAN, 1.0];
            f64::fold(&mut values, &f64::pack(&[1.0, f64::NAN]), op);
            assert!(values.iter().all(|v| v.is_nan()), "{op:?}");
        }
    }
}
