//! What a task is, and what is known of it when it has ended.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::json;

/// Number of a task; unique in a session directory, also over restarted sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskId(pub u64);

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One piece of work: a gang of ranks that starts, fails and is retried as a whole.
///
/// Every rank finds in its environment (functions: also in [`TaskContext`](crate::rank::TaskContext))
///
/// | variable | value |
/// |---|---|
/// | `RANK`, `WORLD_SIZE` | number of the rank, number of ranks of the task |
/// | `LOCAL_RANK`, `LOCAL_WORLD_SIZE` | the same among the ranks on this node |
/// | `MASTER_ADDR`, `MASTER_PORT` | address at which rank 0 may listen; the port was free when the task started |
/// | `DEEPRC_RENDEZVOUS` | empty directory in shared memory, unique to task and attempt, removed afterwards |
/// | `DEEPRC_TASK`, `DEEPRC_ATTEMPT` | name of the task, number of the attempt (from 1) |
/// | `OMP_NUM_THREADS` | cores of the rank |
/// | `CUDA_VISIBLE_DEVICES` | its GPUs; empty for none |
///
/// and is pinned to its cores. Ranks with a communicator also read `DEEPRC_COMM`, the name of its transport, and `DEEPRC_STORE`, a
/// key-value store, where `env` has them. Variables of `env` win over these.
///
/// stdout and stderr go to `<session dir>/tasks/<id>-<name>/rank-<r>.{out,err}`; those of a later attempt to
/// `attempt-<n>/` in that directory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskDescription {
    /// Name, for people; need not be unique.
    pub name: String,
    /// The pipeline it belongs to, for people and reports; may be empty.
    pub pipeline: String,
    /// What its ranks run.
    pub kind: TaskKind,
    /// Its ranks, numbered from 0 through the groups in order.
    pub groups: Vec<RankGroup>,
    /// Additional environment of every rank.
    pub env: BTreeMap<String, String>,
    /// Working directory of every rank.
    pub dir: PathBuf,
    /// Longest time from `started` to the end; `None` for no limit.
    pub timeout: Option<Duration>,
    /// Longest time from `placed` until every rank is up.
    pub start_timeout: Duration,
    /// How often a failed task is queued again.
    pub retries: u32,
    /// Higher goes first; tasks of the same priority go in the order of submission.
    pub priority: i32,
}

impl TaskDescription {
    /// A task that calls function `function` with `arguments` in warm ranks of pool `pool`: one rank with one core.
    pub fn function(name: impl Into<String>, pool: impl Into<String>, function: impl Into<String>, arguments: Value) -> Self {
        Self::new(name.into(), TaskKind::Function { pool: pool.into(), name: function.into(), arguments })
    }

    /// A task that runs `program` with `arguments` in every rank: one rank with one core.
    pub fn executable<A: Into<String>>(
        name: impl Into<String>,
        program: impl Into<String>,
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        let arguments = arguments.into_iter().map(Into::into).collect();
        Self::new(name.into(), TaskKind::Executable { program: program.into(), arguments })
    }

    fn new(name: String, kind: TaskKind) -> Self {
        Self {
            name,
            pipeline: String::new(),
            kind,
            groups: vec![RankGroup::default()],
            env: BTreeMap::new(),
            dir: PathBuf::from("."),
            timeout: None,
            start_timeout: Duration::from_secs(60),
            retries: 0,
            priority: 0,
        }
    }

    /// The same task with `count` equal ranks of `cores` cores each.
    pub fn ranks(mut self, count: u32, cores: u32) -> Self {
        self.groups = vec![RankGroup { count, cores, ..RankGroup::default() }];
        self
    }

    /// The same task in another working directory.
    pub fn in_dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.dir = dir.as_ref().to_path_buf();
        self
    }

    /// Number of ranks of all groups.
    pub fn size(&self) -> usize {
        self.groups.iter().map(|group| group.count as usize).sum()
    }
}

/// What the ranks of a task run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum TaskKind {
    /// A registered function, called in warm rank processes.
    Function {
        /// Which pool's ranks, see [`Pool`](crate::Pool).
        pool: String,
        /// The name under which it was registered.
        name: String,
        /// The same for every rank.
        #[serde(with = "json")]
        arguments: Value,
    },
    /// A program, started once per rank.
    Executable {
        /// Path, or name to be found on `PATH`.
        program: String,
        /// Its arguments.
        arguments: Vec<String>,
    },
}

/// A number of equal ranks and what each of them needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RankGroup {
    /// Number of ranks.
    pub count: u32,
    /// Cores per rank, at least 1.
    pub cores: u32,
    /// Hundredths of a GPU per rank: below 100 a share of one, otherwise whole ones.
    pub gpus: u32,
    /// MiB per rank; 0 when it does not matter.
    pub memory: u64,
}

impl Default for RankGroup {
    fn default() -> Self {
        Self { count: 1, cores: 1, gpus: 0, memory: 0 }
    }
}

/// What is known of a task when it has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskReport {
    /// Number of the task.
    pub id: TaskId,
    /// Its name.
    pub name: String,
    /// Its pipeline.
    pub pipeline: String,
    /// The attempt that this reports, from 1.
    pub attempt: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// When it did what.
    pub times: TaskTimes,
    /// What the function returned, by rank; empty for executables and for tasks that are not done.
    #[serde(with = "json::list")]
    pub results: Vec<Value>,
    /// Files of stdout and stderr: `rank-0.out, rank-0.err, rank-1.out, …`; empty when it was never placed.
    pub logs: Vec<PathBuf>,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// Every rank ended well.
    Done,
    /// A rank, or what carried it, failed; the other ranks were stopped.
    Failed(Failure),
    /// It was canceled, or the session was closed.
    Canceled,
}

/// Why a task failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// The rank that failed first; `None` when it was no single rank's fault.
    pub rank: Option<u32>,
    /// What happened to it.
    pub cause: Cause,
    /// The last 20 lines of its stderr (of the agent's, if the agent was lost).
    pub stderr_tail: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rank {
            Some(rank) => write!(f, "rank {rank} {}", self.cause),
            None => write!(f, "the task {}", self.cause),
        }
    }
}

/// What made a task fail. Displayed as a predicate: `was killed by signal 9 (SIGKILL)`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Cause {
    /// The process ended with this exit code; for a function rank, in the middle of its function.
    Exit(i32),
    /// The process was ended by this signal.
    Signal(i32),
    /// The function returned an error, panicked or is not registered.
    Error {
        /// What it said.
        message: String,
        /// Further fields of the function's own choice; `null` without.
        #[serde(with = "json")]
        detail: Value,
    },
    /// The process could not be started.
    NotStarted {
        /// Why.
        message: String,
    },
    /// It ran longer than [`TaskDescription::timeout`].
    Timeout,
    /// Not every rank was up within [`TaskDescription::start_timeout`].
    StartTimeout,
    /// The agent that ran it died.
    AgentLost,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Exit(code) => write!(f, "ended with exit code {code}"),
            Cause::Signal(number) => match signal_name(*number) {
                Some(name) => write!(f, "was killed by signal {number} ({name})"),
                None => write!(f, "was killed by signal {number}"),
            },
            Cause::Error { message, .. } => write!(f, "failed: {message}"),
            Cause::NotStarted { message } => write!(f, "could not be started: {message}"),
            Cause::Timeout => write!(f, "ran longer than its timeout"),
            Cause::StartTimeout => write!(f, "did not start within its start timeout"),
            Cause::AgentLost => write!(f, "lost its agent"),
        }
    }
}

fn signal_name(number: i32) -> Option<&'static str> {
    Some(match number {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGTERM => "SIGTERM",
        libc::SIGXCPU => "SIGXCPU",
        _ => return None,
    })
}

/// When a task passed its stations, in seconds since the session started. Of a retried task: those of this attempt.
///
/// ```text
/// submitted ──queue──► placed ──start──► started ──communicator──► connected ──run──► ended ──report──► reported
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct TaskTimes {
    /// It was submitted (or queued again).
    pub submitted: f64,
    /// The scheduler gave it its slots.
    pub placed: Option<f64>,
    /// Its last rank was up: process spawned, or function about to be called.
    pub started: Option<f64>,
    /// Its last rank had built its communicator; equals `started` when no rank says so.
    pub connected: Option<f64>,
    /// Its last rank ended.
    pub ended: Option<f64>,
    /// The report was handed out.
    pub reported: f64,
}

impl TaskTimes {
    /// Seconds that it waited for resources.
    pub fn queue(&self) -> f64 {
        self.placed.unwrap_or(self.reported) - self.submitted
    }

    /// Seconds in the function or program itself; 0 if it never ran.
    pub fn run(&self) -> f64 {
        match (self.connected, self.ended) {
            (Some(connected), Some(ended)) => ended - connected,
            _ => 0.0,
        }
    }

    /// Seconds that the runtime cost: starting, building the communicator, reporting. `None` if it never ran.
    pub fn overhead(&self) -> Option<f64> {
        let (placed, started) = (self.placed?, self.started?);
        let (connected, ended) = (self.connected?, self.ended?);
        Some((started - placed) + (connected - started) + (self.reported - ended))
    }
}
