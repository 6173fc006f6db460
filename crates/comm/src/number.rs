//! Numbers that ranks can reduce.

use bytes::Bytes;

use crate::{Error, Result, pool};

/// How [`Communicator::allreduce`](crate::Communicator::allreduce) and its relatives combine the values of the ranks.
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
    /// The bits that all have; integers only.
    And,
    /// The bits that any has; integers only.
    Or,
}

impl ReduceOp {
    /// All of them.
    pub const ALL: [ReduceOp; 6] = [ReduceOp::Sum, ReduceOp::Min, ReduceOp::Max, ReduceOp::Prod, ReduceOp::And, ReduceOp::Or];

    /// Whether numbers of this type can be combined so: everything but [`And`](ReduceOp::And) and [`Or`](ReduceOp::Or) of floats.
    pub fn applies_to(self, number: NumberType) -> bool {
        match self {
            ReduceOp::Sum | ReduceOp::Min | ReduceOp::Max | ReduceOp::Prod => true,
            ReduceOp::And | ReduceOp::Or => !matches!(number, NumberType::F32 | NumberType::F64),
        }
    }

    /// # Errors
    /// [`Error::NoSuchReduction`] when it does not [apply](ReduceOp::applies_to).
    pub(crate) fn check(self, number: NumberType) -> Result<()> {
        if self.applies_to(number) { Ok(()) } else { Err(Error::NoSuchReduction { op: self, number }) }
    }
}

/// The type of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "they are the types of Rust")]
pub enum NumberType {
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
}

impl NumberType {
    /// All of them.
    pub const ALL: [NumberType; 10] = [
        NumberType::F32,
        NumberType::F64,
        NumberType::I8,
        NumberType::I16,
        NumberType::I32,
        NumberType::I64,
        NumberType::U8,
        NumberType::U16,
        NumberType::U32,
        NumberType::U64,
    ];

    /// As Rust writes it.
    pub fn name(self) -> &'static str {
        match self {
            NumberType::F32 => "f32",
            NumberType::F64 => "f64",
            NumberType::I8 => "i8",
            NumberType::I16 => "i16",
            NumberType::I32 => "i32",
            NumberType::I64 => "i64",
            NumberType::U8 => "u8",
            NumberType::U16 => "u16",
            NumberType::U32 => "u32",
            NumberType::U64 => "u64",
        }
    }
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

/// A number that can be reduced: `f32`, `f64`, and the integers of 8 to 64 bits, with and without sign.
pub trait Number: Copy + Send + Sync + sealed::Bits {
    /// Which it is.
    const TYPE: NumberType;
}

pub(crate) mod sealed {
    use super::{Bytes, ReduceOp};

    /// The byte form and the arithmetic of a number. Bytes are in the machine's order; ranks of one communicator run on
    /// machines of one order.
    pub trait Bits: Sized {
        /// Bytes of one value.
        const WIDTH: usize;
        /// The values themselves as bytes.
        fn bytes_mut(values: &mut [Self]) -> &mut [u8];
        /// A copy of the values, one after the other.
        fn pack(values: &[Self]) -> Bytes;
        /// `values[i] = bytes[i]`; both of one length.
        fn unpack(values: &mut [Self], bytes: &[u8]);
        /// `values[i] = op(values[i], bytes[i])`; both of one length.
        fn fold(values: &mut [Self], bytes: &[u8], op: ReduceOp);
        /// `values[i] = op(bytes[i], values[i])`; both of one length.
        fn fold_behind(values: &mut [Self], bytes: &[u8], op: ReduceOp);
    }
}

macro_rules! number {
    ($type:ty, $name:ident, $($op:ident: $combine:expr),*) => {
        impl Number for $type {
            const TYPE: NumberType = NumberType::$name;
        }

        impl sealed::Bits for $type {
            const WIDTH: usize = size_of::<$type>();

            fn bytes_mut(values: &mut [Self]) -> &mut [u8] {
                zerocopy::IntoBytes::as_mut_bytes(values)
            }

            fn pack(values: &[Self]) -> Bytes {
                pool::copy(zerocopy::IntoBytes::as_bytes(values))
            }

            fn unpack(values: &mut [Self], bytes: &[u8]) {
                Self::bytes_mut(values).copy_from_slice(bytes);
            }

            fn fold(values: &mut [Self], bytes: &[u8], op: ReduceOp) {
                fn each(values: &mut [$type], bytes: &[u8], combine: impl Fn($type, $type) -> $type) {
                    for (value, cell) in values.iter_mut().zip(bytes.as_chunks().0) {
                        *value = combine(*value, <$type>::from_ne_bytes(*cell));
                    }
                }
                match op {
                    $(ReduceOp::$op => each(values, bytes, $combine),)*
                }
            }

            fn fold_behind(values: &mut [Self], bytes: &[u8], op: ReduceOp) {
                fn each(values: &mut [$type], bytes: &[u8], combine: impl Fn($type, $type) -> $type) {
                    for (value, cell) in values.iter_mut().zip(bytes.as_chunks().0) {
                        *value = combine(<$type>::from_ne_bytes(*cell), *value);
                    }
                }
                match op {
                    $(ReduceOp::$op => each(values, bytes, $combine),)*
                }
            }
        }
    };
}

// `a` comes from the lower rank. Comparisons with NaN are false, so it is asked for by name.
macro_rules! float {
    ($type:ty, $name:ident) => {
        number!(
            $type,
            $name,
            Sum: |a, b| a + b,
            Min: |a, b| if a.is_nan() || a <= b { a } else { b },
            Max: |a, b| if a.is_nan() || a >= b { a } else { b },
            Prod: |a, b| a * b,
            // Refused before: see `ReduceOp::check`.
            And: |a, _| a,
            Or: |a, _| a
        );
    };
}

macro_rules! integer {
    ($type:ty, $name:ident) => {
        number!(
            $type,
            $name,
            Sum: <$type>::wrapping_add,
            Min: Ord::min,
            Max: Ord::max,
            Prod: <$type>::wrapping_mul,
            And: |a, b| a & b,
            Or: |a, b| a | b
        );
    };
}

float!(f32, F32);
float!(f64, F64);
integer!(i8, I8);
integer!(i16, I16);
integer!(i32, I32);
integer!(i64, I64);
integer!(u8, U8);
integer!(u16, U16);
integer!(u32, U32);
integer!(u64, U64);

#[cfg(test)]
mod tests {
    use super::{Number, NumberType, ReduceOp, sealed::Bits};

    fn check<T: Number + PartialEq + std::fmt::Debug>(op: ReduceOp, a: &[T], b: &[T], expect: &[T]) {
        let mut values = a.to_vec();
        T::fold(&mut values, &T::pack(b), op);
        assert_eq!(values, expect);
        let mut values = b.to_vec();
        T::fold_behind(&mut values, &T::pack(a), op);
        assert_eq!(values, expect);
    }

    #[test]
    fn folds_element_by_element() {
        check(ReduceOp::Sum, &[1.5f32, -2.0], &[0.5, 4.0], &[2.0, 2.0]);
        check(ReduceOp::Min, &[3i64, -9], &[2, 7], &[2, -9]);
        check(ReduceOp::Max, &[3u32, 9], &[4, 7], &[4, 9]);
        check(ReduceOp::Prod, &[3u64, 9], &[4, 0], &[12, 0]);
        check(ReduceOp::Sum, &[i32::MAX], &[1], &[i32::MIN]);
        check(ReduceOp::Sum, &[200u8, 1], &[100, 2], &[44, 3]);
        check(ReduceOp::Min, &[-3i8], &[2], &[-3]);
        check(ReduceOp::And, &[0b1100u16], &[0b1010], &[0b1000]);
        check(ReduceOp::Or, &[0b1100i16], &[0b1010], &[0b1110]);
    }

    #[test]
    fn a_nan_on_either_side_stays() {
        for op in [ReduceOp::Min, ReduceOp::Max] {
            let mut values = [f64::NAN, 1.0];
            f64::fold(&mut values, &f64::pack(&[1.0, f64::NAN]), op);
            assert!(values.iter().all(|v| v.is_nan()), "{op:?}");
        }
    }

    #[test]
    fn floats_have_no_bits_to_combine() {
        let refused = |number: NumberType| ReduceOp::ALL.into_iter().filter(|op| !op.applies_to(number)).collect::<Vec<_>>();
        assert_eq!(refused(f32::TYPE), [ReduceOp::And, ReduceOp::Or]);
        assert_eq!(refused(i8::TYPE), []);
        let error = ReduceOp::And.check(f64::TYPE).unwrap_err().to_string();
        assert_eq!(error, "there is no And of f64\nhint: combine the bits as integers (f64::to_bits)");
    }
}
