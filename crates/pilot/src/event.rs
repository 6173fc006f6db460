//! The one stream of facts that feeds journal, progress display, dashboard and report.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Resources, TaskId, TaskReport, json};

/// Something that happened in a session.
///
/// Events are written to the journal: changing this enum or anything inside it means a new
/// `journal::VERSION` and a golden file of the old one. Postcard numbers the variants in this order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// The leader runs.
    SessionStarted {
        /// Version of this crate.
        version: String,
        /// Process that embeds the leader.
        pid: u32,
        /// What the session may use.
        resources: Resources,
    },
    /// An agent runs and has said hello.
    AgentStarted {
        /// Number of the agent, from 1; a restarted agent has a new one.
        agent: u32,
        /// Its process.
        pid: u32,
    },
    /// An agent died or its connection broke.
    AgentLost {
        /// Its number.
        agent: u32,
        /// What was observed.
        reason: String,
    },
    /// A task entered the queue.
    Submitted {
        /// Its number.
        task: TaskId,
        /// Its name.
        name: String,
        /// Its pipeline.
        pipeline: String,
        /// Number of ranks.
        ranks: u32,
        /// Cores of all ranks.
        cores: u32,
    },
    /// A task cannot start now; sent when that is first so and when the reason changes.
    Waiting {
        /// Its number.
        task: TaskId,
        /// For people: `needs 2 cores, 1 is free`.
        why: String,
    },
    /// A task got its slots.
    Placed {
        /// Its number.
        task: TaskId,
        /// Number of the attempt, from 1.
        attempt: u32,
        /// Cores by rank.
        cores: Vec<Vec<u32>>,
        /// GPUs by rank.
        gpus: Vec<Vec<u32>>,
    },
    /// All ranks of a task are up.
    Started {
        /// Its number.
        task: TaskId,
        /// Number of the attempt.
        attempt: u32,
        /// Processes by rank.
        pids: Vec<u32>,
    },
    /// All ranks of a function task have built their communicator.
    Connected {
        /// Its number.
        task: TaskId,
        /// Number of the attempt.
        attempt: u32,
    },
    /// A rank reported progress.
    Progress {
        /// Its task.
        task: TaskId,
        /// Number of the attempt.
        attempt: u32,
        /// Which rank.
        rank: u32,
        /// What it said.
        #[serde(with = "json")]
        value: Value,
    },
    /// An attempt failed and the task was queued again.
    Retried {
        /// The attempt that failed.
        report: Box<TaskReport>,
    },
    /// A task ended; `Session::wait` returns this report.
    Ended {
        /// How.
        report: Box<TaskReport>,
    },
    /// The session was closed.
    SessionEnded,
}

/// A value and when it happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stamped<T> {
    /// Time since the session started.
    pub at: Duration,
    /// What happened.
    pub event: T,
}
