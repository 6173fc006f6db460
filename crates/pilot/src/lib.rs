//! The pilot: holds the resources of a machine and runs tasks on them.
//!
//! A [`Session`] embeds the *leader* (scheduler, journal) in the calling process and starts one *agent* process per
//! node, which spawns executables and keeps pools of warm *rank* processes for functions:
//!
//! ```text
//!  client process                    agent (own process group)            ranks (own process groups)
//! ┌───────────────────────────┐     ┌──────────────────────────┐ unix    ┌───────────────────────────────┐
//! │ Session ──► leader thread │unix │ executor: spawn, pin,    │ socket  │ warm function rank             │
//! │   pure core + scheduler   ├─────┤   logs, signals          ├─────────┤   rank::Registry::serve        │
//! │   journal, deadlines      │sock.│ rank pools               │         └───────────────────────────────┘
//! └───────────────────────────┘     └──────────────┬───────────┘ fork    ┌───────────────────────────────┐
//!                                                  └─────────────────────┤ executable, e.g. python ddp.py │
//!                                                                        └───────────────────────────────┘
//! ```
//!
//! A task is a gang of ranks that is placed, started, stopped and retried as a whole. A rank that dies fails its own
//! task and nothing else; when the agent or the client dies, everything below it dies with it.
//!
//! What this crate is not: it knows no tables, tensors or communicators. Its contract with the program in a rank is
//! the environment described at [`TaskDescription`], which `torch.distributed` (`env://`) understands unchanged.
//!
//! ```no_run
//! use std::time::Duration;
//! use deeprc_pilot::{Outcome, Pool, Session, SessionOptions, TaskDescription};
//!
//! # fn main() -> Result<(), deeprc_pilot::Error> {
//! let mut options = SessionOptions::new("runs/demo/session", ["deeprc", "agent"]);
//! options.pools.push(Pool::new("table", ["deeprc", "rank"]).warm(2));
//! let session = Session::start(options)?;
//!
//! let arguments = serde_json::json!({ "files": ["a.csv"] });
//! let task = session.submit(TaskDescription::function("loads", "table", "table.read", arguments).ranks(2, 1))?;
//! let report = session.wait(task, Duration::from_secs(60))?;
//! assert_eq!(report.outcome, Outcome::Done);
//! session.close()
//! # }
//! ```

mod admission;
pub mod agent;
mod clock;
mod core;
mod error;
mod event;
pub mod journal;
mod json;
mod leader;
pub mod rank;
mod reactor;
mod resources;
mod scheduler;
mod scratch;
mod session;
mod tail;
mod task;
mod wire;

pub use error::{Error, Result};
pub use event::{Event, Stamped};
pub use resources::Resources;
pub use session::{Pool, Session, SessionOptions};
pub use task::{Cause, Failure, Outcome, RankGroup, TaskDescription, TaskId, TaskKind, TaskReport, TaskTimes};
