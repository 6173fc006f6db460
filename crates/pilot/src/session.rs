//! The client's handle of a session.

use std::{collections::BTreeMap, path::PathBuf, sync::mpsc, time::Duration};

use crate::{Event, Resources, Result, Stamped, TaskDescription, TaskId, TaskReport};

/// What a session is started with.
#[derive(Debug, Clone)]
pub struct SessionOptions {
    /// Its directory, created with mode 0700: journal and logs. A later session may use it again.
    pub dir: PathBuf,
    /// Command line of the agent, for example `[deeprc, agent]`; `--socket <path>` is appended.
    pub agent: Vec<String>,
    /// Pools of warm ranks, in the order in which they are warmed up.
    pub pools: Vec<Pool>,
    /// What it may use; `None` for all of this machine, see [`Resources::detect`].
    pub resources: Option<Resources>,
}

impl SessionOptions {
    /// A session in `dir` with this agent, without pools, on all of this machine.
    pub fn new<A: Into<String>>(dir: impl Into<PathBuf>, agent: impl IntoIterator<Item = A>) -> Self {
        Self {
            dir: dir.into(),
            agent: agent.into_iter().map(Into::into).collect(),
            pools: Vec::new(),
            resources: None,
        }
    }
}

/// A pool of equal rank processes that are started ahead and reused by function tasks.
///
/// The pool grows when a task needs more ranks than are idle. A rank that dies, or whose function panicked, is replaced.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Pool {
    /// The name that [`TaskKind::Function`](crate::TaskKind::Function) refers to.
    pub name: String,
    /// Command line of the rank executable; it calls [`rank::Registry::serve`](crate::rank::Registry::serve).
    pub command: Vec<String>,
    /// How many are started ahead and kept.
    pub warm: usize,
    /// Additional environment of the process.
    pub env: BTreeMap<String, String>,
}

impl Pool {
    /// A pool of this command that starts no ranks ahead.
    pub fn new<A: Into<String>>(name: impl Into<String>, command: impl IntoIterator<Item = A>) -> Self {
        Self {
            name: name.into(),
            command: command.into_iter().map(Into::into).collect(),
            warm: 0,
            env: BTreeMap::new(),
        }
    }

    /// The same pool with `warm` ranks kept ready.
    pub fn warm(mut self, warm: usize) -> Self {
        self.warm = warm;
        self
    }
}

/// A running session. All methods may be called from several threads.
///
/// Dropping it ends everything that it started, as [`Session::close`] does.
#[derive(Debug)]
pub struct Session {}

impl Session {
    /// Creates the session directory, starts the agent and waits for its hello.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) for the directory, [`Error::Agent`](crate::Error::Agent) with the agent's
    /// last words when it does not start.
    pub fn start(options: SessionOptions) -> Result<Session> {
        let _ = options;
        unimplemented!()
    }

    /// Queues a task and returns its number.
    ///
    /// # Errors
    /// [`Error::Resources`](crate::Error::Resources) when the task could never start on this session,
    /// [`Error::Invalid`](crate::Error::Invalid) for an unknown pool, a missing directory or a group without ranks.
    pub fn submit(&self, task: TaskDescription) -> Result<TaskId> {
        let _ = task;
        unimplemented!()
    }

    /// Waits until the task has ended and returns its report; may be called again.
    ///
    /// # Errors
    /// [`Error::Timeout`](crate::Error::Timeout), [`Error::UnknownTask`](crate::Error::UnknownTask), and
    /// [`Error::Closed`](crate::Error::Closed) when the session ended before the task.
    pub fn wait(&self, id: TaskId, timeout: Duration) -> Result<TaskReport> {
        let _ = (id, timeout);
        unimplemented!()
    }

    /// Asks for the end of a task: a waiting one ends at once, a running one gets SIGTERM (executables) or sees
    /// [`TaskContext::canceled`](crate::rank::TaskContext::canceled) (functions) and is killed after two seconds.
    pub fn cancel(&self, id: TaskId) {
        let _ = id;
        unimplemented!()
    }

    /// A new subscription to everything that happens from now on. It ends with the session.
    pub fn events(&self) -> mpsc::Receiver<Stamped<Event>> {
        unimplemented!()
    }

    /// What the session may use.
    pub fn resources(&self) -> Resources {
        unimplemented!()
    }

    /// Cancels what still runs, ends all processes and waits for their end.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) when the journal could not be completed.
    pub fn close(self) -> Result<()> {
        unimplemented!()
    }
}
