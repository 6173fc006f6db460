//! The stage functions that work on tables: what a rank of the pool `table` runs.

pub mod arguments;
