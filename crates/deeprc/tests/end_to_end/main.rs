//! The binary as a user runs it: real processes, real files, kill -9.
//!
//! What trains a model needs `deeprc-forecast` (beside `deeprc`, or named by `DEEPRC_FORECAST`); where it was not built
//! those tests say so and do nothing. `make test` always builds it.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a panic is the test's message")]

mod bad_input;
mod finished;
mod interrupted;
mod place;
