//! The inside of a warm rank process: register functions, then serve them.
//!
//! ```no_run
//! use deeprc_pilot::rank::Registry;
//! use serde_json::json;
//!
//! let mut registry = Registry::new();
//! registry.register("sum", |ctx, arguments| {
//!     ctx.connected(); // a function with a communicator says so when it is built
//!     Ok(json!(arguments["a"].as_i64().unwrap_or(0) + ctx.rank as i64))
//! });
//! registry.serve().expect("started by the agent");
//! ```

mod context;
mod link;
mod process;
mod registry;
mod serve;

pub use context::{FunctionError, TaskContext};
pub use registry::Registry;
