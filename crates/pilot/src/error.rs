//! What can go wrong when talking to a session. A task that fails is not an error of the session: see [`Outcome`](crate::Outcome).

use std::{io, path::PathBuf, time::Duration};

use crate::TaskId;

/// Result of a call to a session.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the session itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The task asks for more than the session has; it could never start.
    #[error("task `{task}` needs {needs}, this machine has {has}")]
    Resources {
        /// Name of the task.
        task: String,
        /// What it asks for, for example `4 cores`.
        needs: String,
        /// What there is, for example `2`.
        has: String,
        /// The way out.
        hint: String,
    },
    /// The task description contradicts itself or names something that does not exist.
    #[error("task `{task}` cannot be submitted: {reason}")]
    Invalid {
        /// Name of the task.
        task: String,
        /// What is wrong.
        reason: String,
        /// The way out.
        hint: String,
    },
    /// The agent process did not start or did not answer.
    #[error("the agent `{command}` did not start: {reason}")]
    Agent {
        /// Its command line.
        command: String,
        /// What was observed.
        reason: String,
        /// The last lines that it wrote to stderr.
        stderr_tail: String,
    },
    /// A wait came to its end before the task did.
    #[error("task {task} did not end within {after:?}")]
    Timeout {
        /// The task.
        task: TaskId,
        /// The time that was allowed.
        after: Duration,
    },
    /// No such task in this session.
    #[error("session has no task {task}")]
    UnknownTask {
        /// The number that was asked for.
        task: TaskId,
    },
    /// The session has ended.
    #[error("session has ended")]
    Closed,
    /// A message of another version, or no message at all.
    #[error("{peer} does not speak this protocol: {reason}")]
    Protocol {
        /// Who sent it.
        peer: String,
        /// What was wrong with it.
        reason: String,
    },
    /// An environment variable that the pilot should have set is missing or unreadable.
    #[error("environment variable {name} is not set")]
    Environment {
        /// Its name.
        name: &'static str,
        /// The way out.
        hint: &'static str,
    },
    /// A file, directory or socket could not be used.
    #[error("failed to {action} {}", path.display())]
    Io {
        /// What was tried, for example `create`.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
}

impl Error {
    /// The way out, where there is one; shown after the message as `hint: …`.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Error::Resources { hint, .. } | Error::Invalid { hint, .. } => Some(hint),
            Error::Environment { hint, .. } => Some(hint),
            _ => None,
        }
    }

    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io { action, path, source }
    }
}
