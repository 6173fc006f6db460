//! The stage functions on threads, with real tables.

#![expect(clippy::unwrap_used, reason = "a panic is the message of a test")]

mod evaluate;
mod functions;
mod real;
mod stage;
