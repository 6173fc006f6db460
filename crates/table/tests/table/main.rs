//! Tables over ranks: whatever their number, the answer is that of one process.

mod csv;
mod failures;
mod global;
mod operators;
mod parquet;
mod queries;
mod ranks;
