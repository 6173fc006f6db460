//! Collectives on the memory of GPUs.

use std::fmt::Debug;

use crate::{Deadline, ReduceOp, Result};

/// A piece of a GPU's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceMemory {
    address: u64,
    bytes: usize,
}

impl DeviceMemory {
    /// The piece that begins at a device pointer.
    ///
    /// # Safety
    /// The memory belongs to the GPU of every communicator that it is given to. It stays allocated, and outside the stream nobody
    /// writes it or reads what is written to it, until the work that was enqueued with it is done.
    pub unsafe fn new(address: u64, bytes: usize) -> Self {
        DeviceMemory { address, bytes }
    }

    /// The device pointer.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Its length in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// A stream of CUDA (`cudaStream_t`): what is enqueued there is done in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceStream(u64);

impl DeviceStream {
    /// The default stream.
    pub const DEFAULT: DeviceStream = DeviceStream(0);

    /// The stream with this handle.
    ///
    /// # Safety
    /// It belongs to the GPU of every communicator that it is given to, and exists until the work enqueued there is done.
    pub unsafe fn new(handle: u64) -> Self {
        DeviceStream(handle)
    }

    /// Its handle.
    pub fn handle(&self) -> u64 {
        self.0
    }
}

/// The type of the numbers in a GPU's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "they are the types of Rust, and bf16")]
pub enum DeviceNumber {
    I8,
    U8,
    I32,
    U32,
    I64,
    U64,
    F16,
    F32,
    F64,
    Bf16,
}

impl DeviceNumber {
    /// Bytes of one number.
    pub fn width(self) -> usize {
        match self {
            DeviceNumber::I8 | DeviceNumber::U8 => 1,
            DeviceNumber::F16 | DeviceNumber::Bf16 => 2,
            DeviceNumber::I32 | DeviceNumber::U32 | DeviceNumber::F32 => 4,
            DeviceNumber::I64 | DeviceNumber::U64 | DeviceNumber::F64 => 8,
        }
    }
}

/// A group of ranks, each with a GPU of its own, that exchange what lies there.
///
/// The collectives only enqueue work on a stream and return; input and output may be the same memory. Every rank calls the same
/// ones in the same order. [`wait`](DeviceCommunicator::wait) tells how they came out. After the first error the communicator is of no
/// use any more, on any rank: the others learn of it at their deadlines.
///
/// All collectives fail with [`Error::DeviceMemory`](crate::Error::DeviceMemory) when the memory is shorter than what is asked for, and with
/// [`Error::Library`](crate::Error::Library) when the library fails, also at an earlier call.
pub trait DeviceCommunicator: Send + Sync + Debug {
    /// This rank, below [`size`](DeviceCommunicator::size).
    fn rank(&self) -> usize;

    /// Number of ranks.
    fn size(&self) -> usize;

    /// Combines `count` numbers of every rank element by element; every rank gets the result.
    ///
    /// # Errors
    /// See [`DeviceCommunicator`].
    fn allreduce(
        &self,
        input: DeviceMemory,
        output: DeviceMemory,
        count: usize,
        number: DeviceNumber,
        op: ReduceOp,
        stream: DeviceStream,
    ) -> Result<()>;

    /// Gives every rank the `count` numbers of the root.
    ///
    /// # Errors
    /// See [`DeviceCommunicator`]; [`Error::NoSuchRank`](crate::Error::NoSuchRank).
    fn broadcast(
        &self,
        root: usize,
        input: DeviceMemory,
        output: DeviceMemory,
        count: usize,
        number: DeviceNumber,
        stream: DeviceStream,
    ) -> Result<()>;

    /// Gives every rank the `count` numbers of each rank, by rank: `size * count` of them.
    ///
    /// # Errors
    /// See [`DeviceCommunicator`].
    fn allgather(&self, input: DeviceMemory, output: DeviceMemory, count: usize, number: DeviceNumber, stream: DeviceStream) -> Result<()>;

    /// Combines `size * count` numbers of every rank element by element; each rank gets its `count` of the result, by rank.
    ///
    /// # Errors
    /// See [`DeviceCommunicator`].
    fn reduce_scatter(
        &self,
        input: DeviceMemory,
        output: DeviceMemory,
        count: usize,
        number: DeviceNumber,
        op: ReduceOp,
        stream: DeviceStream,
    ) -> Result<()>;

    /// Waits until everything on a stream is done. At the deadline, as after any error, the communicator is aborted, so that nothing on
    /// the GPU waits for other ranks any more.
    ///
    /// # Errors
    /// [`Error::Timeout`](crate::Error::Timeout), [`Error::Cancelled`](crate::Error::Cancelled), [`Error::Library`](crate::Error::Library).
    fn wait(&self, stream: DeviceStream, deadline: Deadline<'_>) -> Result<()>;

    /// Ends what is under way on this rank. All later calls fail. The other ranks are not told.
    fn abort(&self);
}
