//! Which collective call a message belongs to.

use std::fmt;

use crate::{Number, NumberType, ReduceOp, communicator::mix};

/// Which collective.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Barrier,
    Broadcast,
    Gather,
    Allgather,
    Scatter,
    AllToAll,
    Allreduce,
    Reduce,
    ReduceScatter,
    Split,
}

impl Kind {
    const ALL: [Kind; 10] = [
        Kind::Barrier,
        Kind::Broadcast,
        Kind::Gather,
        Kind::Allgather,
        Kind::Scatter,
        Kind::AllToAll,
        Kind::Allreduce,
        Kind::Reduce,
        Kind::ReduceScatter,
        Kind::Split,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Barrier => "barrier",
            Kind::Broadcast => "broadcast",
            Kind::Gather => "gather",
            Kind::Allgather => "allgather",
            Kind::Scatter => "scatter",
            Kind::AllToAll => "all_to_all",
            Kind::Allreduce => "allreduce",
            Kind::Reduce => "reduce",
            Kind::ReduceScatter => "reduce_scatter",
            Kind::Split => "split",
        }
    }
}

/// What all ranks of a collective have to agree on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Signature {
    pub(crate) kind: Kind,
    /// The number type (below 16) and the reduction, for collectives that calculate.
    detail: u8,
    /// The root, of collectives that have one.
    root: u8,
    /// The rest of the root, or a digest of the lengths where they have to be the same.
    mark: u8,
}

impl Signature {
    pub(crate) fn new(kind: Kind) -> Self {
        Signature { kind, detail: 0, root: 0, mark: 0 }
    }

    pub(crate) fn root(self, root: usize) -> Self {
        // More than 65,536 ranks would only weaken the check.
        let [low, high] = (root as u16).to_le_bytes();
        Signature { root: low, mark: high, ..self }
    }

    /// Without this a rank could take the chunks of a longer message for those of its own: their number is the only difference.
    pub(crate) fn lengths(self, lengths: &[usize]) -> Self {
        let digest = lengths.iter().fold(0, |digest, length| mix(digest, *length as u64));
        let root = if self.kind == Kind::Reduce { self.root } else { (digest >> 8) as u8 };
        Signature { root, mark: digest as u8, ..self }
    }

    pub(crate) fn number<T: Number>(self, op: ReduceOp) -> Self {
        Signature { detail: T::TYPE as u8 | (op as u8) << 4, ..self }
    }

    /// `kind + 1` in the lowest byte (0 is for user messages), then the detail, the root, the mark.
    pub(crate) fn code(self) -> u32 {
        u32::from(self.kind as u8 + 1) | u32::from(self.detail) << 8 | u32::from(self.root) << 16 | u32::from(self.mark) << 24
    }

    pub(crate) fn from_code(code: u32) -> Option<Self> {
        let [kind, detail, root, mark] = code.to_le_bytes();
        let kind = *Kind::ALL.get(usize::from(kind).checked_sub(1)?)?;
        Some(Signature { kind, detail, root, mark })
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = NumberType::ALL.get(usize::from(self.detail & 15)).map_or("?", |number| number.name());
        let op = ReduceOp::ALL.get(usize::from(self.detail >> 4)).copied().unwrap_or(ReduceOp::Sum);
        let root = u16::from_le_bytes([self.root, self.mark]);
        match self.kind {
            Kind::Broadcast => write!(f, "broadcast from {root}"),
            Kind::Gather => write!(f, "gather to {root}"),
            Kind::Scatter => write!(f, "scatter from {root}"),
            Kind::Allreduce => write!(f, "allreduce ({op:?} of {number})"),
            Kind::Reduce => write!(f, "reduce to {} ({op:?} of {number})", self.root),
            Kind::ReduceScatter => write!(f, "reduce_scatter ({op:?} of {number})"),
            Kind::Barrier | Kind::Allgather | Kind::AllToAll | Kind::Split => f.write_str(self.kind.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, Signature};
    use crate::ReduceOp;

    #[test]
    fn a_signature_says_which_call_it_was() {
        for kind in Kind::ALL {
            let call = Signature::new(kind).root(513);
            assert_eq!(Signature::from_code(call.code()), Some(call));
        }
        for op in ReduceOp::ALL {
            let call = Signature::new(Kind::Allreduce).number::<u64>(op);
            let text = Signature::from_code(call.code()).unwrap().to_string();
            assert_eq!(text, format!("allreduce ({op:?} of u64)"));
        }
        let reduce = |root, length| Signature::new(Kind::Reduce).root(root).number::<u8>(ReduceOp::Or).lengths(&[length]);
        assert_eq!(reduce(3, 7).to_string(), "reduce to 3 (Or of u8)");
        assert_ne!(reduce(3, 7).code(), reduce(3, 8).code());
        assert_eq!(Signature::from_code(0), None);
        assert_eq!(Signature::from_code(99), None);
    }
}
