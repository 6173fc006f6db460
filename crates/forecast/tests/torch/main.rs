//! Tests that need libtorch, in one program because linking it takes longer than running them.

#![expect(clippy::unwrap_used, reason = "a panic is the message of a test")]

mod end_to_end;
mod fixture;
mod kernels;
mod losses;
mod networks;
mod neural_forecast;
mod optimization;
mod parity;
mod probabilistic;
mod ranks;
mod table;
mod training;
mod windows;
