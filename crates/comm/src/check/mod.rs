//! Checks of the protocol that every transport keeps, to be run on any communicator: by the tests of this crate over
//! all transports, and by `deeprc rank-test` on a machine where somebody doubts its network.
//!
//! Each check computes on every rank what should come out (the naive oracle) and compares. They are deterministic and
//! small: the whole suite takes about a second for four ranks of one host.
//!
//! ```
//! use deeprc_comm::{Communicator, check};
//!
//! let comm = Communicator::solo();
//! let outcomes = check::run(&comm, |_| Ok(Communicator::solo()), |_| ());
//! assert!(outcomes.iter().all(|outcome| outcome.verdict.passed()));
//! ```
//!
//! What they are not: tests of what happens when a process dies; those need processes, see `tests/transports`.

mod collectives;
mod endings;
mod expect;
mod groups;
mod messages;
mod numbers;
mod suite;

pub use expect::Failure;
pub use suite::{Check, Outcome, Verdict, checks, run};
