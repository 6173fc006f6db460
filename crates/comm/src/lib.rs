//! Bytes between ranks: point-to-point messages and collectives for threads and for processes of one host.
//!
//! A [`Communicator`] is a group of ranks. It is made by [`Communicator::threads`] (messages pass by reference), by
//! [`Communicator::connect`] or [`Communicator::from_env`] (processes that share memory), and is used the same way
//! whichever it is: the collectives are written once on the small trait [`Transport`], where another way of moving bytes
//! plugs in.
//!
//! This crate knows no tables and no tensors: payloads are [`bytes::Bytes`]. It does not start processes and does not
//! restart them; a rank that dies, leaves or hangs makes the calls that need it fail within their deadline, and what
//! happens next is the caller's decision.
//!
//! | variable | for |
//! |---|---|
//! | `DEEPRC_COMM` | the transport of [`Communicator::from_env`], see [`CommSpec`] |
//! | `DEEPRC_COMM_SPIN` | µs that a wait over threads or shared memory spins before it sleeps; 50, or 0 when there are more ranks than cores |
//! | `DEEPRC_COMM_LEND` | 0: processes of one host do not read each other's memory, long messages go through shared memory too |
//!
//! Where ranks meet is said by the variables of [`Rendezvous::from_env`].
//!
//! ```
//! use deeprc_comm::{Communicator, ReduceOp};
//!
//! let ranks: Vec<_> = Communicator::threads(3)
//!     .into_iter()
//!     .map(|comm| {
//!         std::thread::spawn(move || {
//!             // Everybody sends its rank to everybody.
//!             let out = vec![vec![vec![comm.rank() as u8].into()]; comm.size()];
//!             let received = comm.all_to_all(out)?;
//!             assert_eq!(received[2][0], [2u8].as_slice());
//!
//!             let mut sum = [comm.rank() as f64, 1.0];
//!             comm.allreduce(&mut sum, ReduceOp::Sum)?;
//!             assert_eq!(sum, [3.0, 3.0]);
//!             comm.barrier()
//!         })
//!     })
//!     .collect();
//! for rank in ranks {
//!     rank.join().expect("no panic")?;
//! }
//! # Ok::<(), deeprc_comm::Error>(())
//! ```

#![deny(unsafe_code)]

mod buffer;
mod cancel;
pub mod check;
mod collective;
mod communicator;
#[cfg(feature = "nccl")]
#[expect(unsafe_code, reason = "device pointers are promises")]
mod device;
mod error;
mod frame;
#[cfg(feature = "gloo")]
#[expect(unsafe_code, reason = "libgloo speaks C++")]
mod gloo;
mod hierarchy;
mod hybrid;
#[cfg(any(feature = "mpi", feature = "nccl"))]
mod idle;
mod mailbox;
mod meeting;
#[cfg(feature = "mpi")]
#[expect(unsafe_code, reason = "MPI is a library of C")]
mod mpi;
#[cfg(feature = "nccl")]
#[expect(unsafe_code, reason = "NCCL and CUDA are libraries of C")]
mod nccl;
#[cfg(any(feature = "gloo", feature = "ucx"))]
mod network;
mod number;
mod pool;
mod process;
mod reduction;
mod rendezvous;
mod round;
#[expect(unsafe_code, reason = "memory that other processes change has no safe form")]
mod shm;
mod signature;
mod spec;
mod spin;
mod store;
mod threads;
mod transport;
mod turn;
#[cfg(feature = "ucx")]
#[expect(unsafe_code, reason = "libucp speaks C")]
mod ucx;
mod verdict;
mod watch;

pub use cancel::CancelToken;
pub use communicator::Communicator;
#[cfg(feature = "nccl")]
pub use device::{DeviceCommunicator, DeviceMemory, DeviceNumber, DeviceStream};
pub use error::{Error, Result};
#[cfg(feature = "nccl")]
pub use nccl::{Nccl, NcclLibrary};
pub use number::{Number, NumberType, ReduceOp, Values};
pub use rendezvous::Rendezvous;
pub use spec::{Choice, CommSpec};
pub use store::{Store, StoreAddress, StoreServer};
pub use transport::{Call, Deadline, Message, Tag, Transport};
