//! What can go wrong between ranks.

use std::{io, sync::Arc, time::Duration};

use crate::{CommSpec, NumberType, ReduceOp};

/// The result of a call on a communicator.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call on a communicator failed.
///
/// Ranks are those of the communicator that the process started with, also when the call was made on a part of it
/// (see [`Communicator::split`](crate::Communicator::split)): they are the ranks that the user started.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The process of a rank ended without leaving the communicator.
    #[error("rank {rank} died")]
    PeerDead {
        /// The rank that died.
        rank: usize,
    },
    /// A rank dropped its communicator while this one still needed it: its part of the work ended early.
    #[error("rank {rank} left the communicator")]
    PeerLeft {
        /// The rank that left.
        rank: usize,
    },
    /// The call's deadline passed.
    #[error("timed out in {operation} after {} s{}", after.as_secs_f64(), waiting_for(*rank))]
    Timeout {
        /// The call, for example `barrier` or `connect`.
        operation: &'static str,
        /// The rank that was waited for, where there is one.
        rank: Option<usize>,
        /// How long the call was allowed to take.
        after: Duration,
    },
    /// The call was called off with a [`CancelToken`](crate::CancelToken).
    #[error("{operation} was cancelled")]
    Cancelled {
        /// The call.
        operation: &'static str,
    },
    /// A rank called [`Communicator::abort`](crate::Communicator::abort).
    #[error("aborted by rank {rank}: {reason}")]
    Aborted {
        /// The rank that aborted.
        rank: usize,
        /// What it said.
        reason: String,
    },
    /// Two ranks made different collective calls where the same one is required.
    #[error("mismatched collective calls: this rank is in {here}, rank {rank} in {there}")]
    Mismatch {
        /// The other rank.
        rank: usize,
        /// This rank's call.
        here: String,
        /// The other rank's call.
        there: String,
    },
    /// A rank number is not below the communicator's size.
    #[error("no rank {rank} in a communicator of {size} in {operation}")]
    NoSuchRank {
        /// The call.
        operation: &'static str,
        /// The rank that was asked for.
        rank: usize,
        /// The communicator's size.
        size: usize,
    },
    /// The call needs one entry for each rank.
    #[error("{operation} got entries for {given} ranks in a communicator of {size}")]
    WrongCount {
        /// The call, for example `all_to_all`.
        operation: &'static str,
        /// Entries given.
        given: usize,
        /// The communicator's size.
        size: usize,
    },
    /// The counts of a `reduce_scatter` do not add up.
    #[error("the counts of reduce_scatter add up to {counts}, but there are {values} values")]
    WrongSum {
        /// The sum of the counts.
        counts: usize,
        /// The number of values.
        values: usize,
    },
    /// Numbers of this type cannot be combined in this way.
    #[error("there is no {op:?} of {}\nhint: combine the bits as integers ({}::to_bits)", number.name(), number.name())]
    NoSuchReduction {
        /// The operation.
        op: ReduceOp,
        /// The type.
        number: NumberType,
    },
    /// There is no transport of this name.
    #[error("there is no transport `{name}`\nhint: {}one of: {}", near.map(|near| format!("did you mean `{near}`? ")).unwrap_or_default(), CommSpec::ALL.map(CommSpec::name).join(", "))]
    UnknownTransport {
        /// The name.
        name: String,
        /// What it may mean.
        near: Option<CommSpec>,
    },
    /// The program was built without this transport.
    #[error("the transport {spec} is not built into this program\nhint: {}", spec.way_in())]
    NotBuiltIn {
        /// The transport.
        spec: CommSpec,
    },
    /// The environment of the process describes no communicator.
    #[error("{variable} is {}, expected {expected}", value.as_deref().unwrap_or("not set"))]
    Environment {
        /// The variable.
        variable: &'static str,
        /// Its value, if any.
        value: Option<String>,
        /// What would be right.
        expected: &'static str,
    },
    /// The ranks do not agree about where or as what they meet.
    #[error("failed to meet at {place}: {reason}")]
    Rendezvous {
        /// The rendezvous file, or the place in the store.
        place: String,
        /// What does not fit.
        reason: String,
    },
    /// A peer's bytes are not what this version of the crate writes.
    #[error("rank {rank} sent bytes that are no message\nhint: start all ranks from the same build")]
    Corrupt {
        /// The sender.
        rank: usize,
    },
    /// The key-value store through which ranks find each other cannot be used.
    #[error("failed to {action} in the store at {address}: {reason}")]
    Store {
        /// What was tried, for example `set key t1/0/rank3`.
        action: String,
        /// Host and port.
        address: String,
        /// What went wrong, with a hint where there is a way out.
        reason: String,
    },
    /// A piece of a GPU's memory is shorter than what is asked for.
    #[error("the device memory has {given} bytes, {needed} are needed")]
    DeviceMemory {
        /// Bytes that the call reads or writes.
        needed: usize,
        /// Bytes there.
        given: usize,
    },
    /// The library below a transport refused or failed.
    #[error("{library} failed to {action}: {reason}")]
    Library {
        /// Its name, for example `MPI`.
        library: &'static str,
        /// What was tried.
        action: String,
        /// What it answered, with a hint where there is a way out.
        reason: String,
    },
    /// The operating system refused.
    #[error("failed to {action}: {source}")]
    Io {
        /// What was tried, for example `create /dev/shm/t1/segment`.
        action: String,
        /// The cause.
        source: Arc<io::Error>,
    },
}

impl Error {
    /// An [`Error::Io`] from what the operating system answered.
    pub(crate) fn io(action: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Error::Io { action: action.into(), source: Arc::new(source.into()) }
    }

    /// A wrong argument harms nobody else; everything else leaves messages behind that no later call could trust.
    pub(crate) fn poisons(&self) -> bool {
        use Error::{NoSuchRank, NoSuchReduction, WrongCount, WrongSum};
        !matches!(self, NoSuchRank { .. } | WrongCount { .. } | WrongSum { .. } | NoSuchReduction { .. })
    }
}

fn waiting_for(rank: Option<usize>) -> String {
    rank.map(|rank| format!(" waiting for rank {rank}")).unwrap_or_default()
}
