//! What a function learns about its task, and how it speaks to it.

use std::{
    fmt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use serde_json::Value;

use super::link::Link;
use crate::{clock::monotonic, wire::FromRank};

/// The task in which a function runs.
#[derive(Debug)]
pub struct TaskContext {
    /// Name of the task.
    pub task: String,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// Number of this rank.
    pub rank: usize,
    /// Number of ranks of the task.
    pub size: usize,
    /// Number of this rank among those on this node.
    pub local_rank: usize,
    /// Directory in which the ranks find each other (`DEEPRC_RENDEZVOUS`).
    pub rendezvous: PathBuf,
    /// Working directory of the task; the process is in it.
    pub dir: PathBuf,
    /// CPU numbers to which the process is pinned.
    pub cores: Vec<usize>,
    /// GPUs as in `CUDA_VISIBLE_DEVICES`.
    pub gpus: Vec<String>,
    pub(super) link: Arc<Link>,
    pub(super) canceled: Arc<AtomicBool>,
    pub(super) connected: AtomicBool,
}

impl TaskContext {
    /// Says that the communicator of this rank is built: its time is part of the report. Later calls do nothing.
    pub fn connected(&self) {
        if !self.connected.swap(true, Ordering::Relaxed) {
            self.link.send(&FromRank::Connected { at: monotonic() });
        }
    }

    /// Sends a progress value to the session's event stream.
    pub fn progress(&self, value: Value) {
        self.link.send(&FromRank::Progress(value));
    }

    /// True once the task is to end (canceled, timed out, or another rank failed): return soon, after two seconds the
    /// process is killed.
    pub fn canceled(&self) -> bool {
        self.canceled.load(Ordering::Relaxed)
    }
}

/// An error that a function returns.
///
/// A rank that fails only because another one did marks its error with `"secondary": true` in an object `detail`;
/// the report then names the other rank.
#[derive(Debug, Clone, PartialEq)]
pub struct FunctionError {
    /// What went wrong; lower case, no full stop.
    pub message: String,
    /// Further fields, for example file, line, column, hint; `null` without.
    pub detail: Value,
}

impl FunctionError {
    /// An error without detail.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), detail: Value::Null }
    }

    /// The same error with detail.
    pub fn with_detail(mut self, detail: Value) -> Self {
        self.detail = detail;
        self
    }
}

impl fmt::Display for FunctionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for FunctionError {}
