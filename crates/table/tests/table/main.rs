//! Tables over ranks: whatever their number, the answer is that of one process.
#![expect(clippy::unwrap_used, reason = "a panic in a test is its message")]

mod csv;
mod failures;
mod global;
mod operators;
mod parquet;
mod processes;
mod queries;
mod ranks;
