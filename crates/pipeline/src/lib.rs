//! placeholder

pub mod functions;
