//! The client's handle of a session.

use std::{
    collections::{BTreeMap, HashMap},
    path::{self, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::{
    Error, Event, Resources, Result, Stamped, TaskDescription, TaskId, TaskReport, admission,
    core::Core,
    journal::Journal,
    leader::{self, Request, private_dir},
    scratch::Scratch,
};

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
        Self { dir: dir.into(), agent: agent.into_iter().map(Into::into).collect(), pools: Vec::new(), resources: None }
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
        Self { name: name.into(), command: command.into_iter().map(Into::into).collect(), warm: 0, env: BTreeMap::new() }
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
pub struct Session {
    requests: UnboundedSender<Request>,
    shared: Arc<Shared>,
    leader: Option<JoinHandle<Result<()>>>,
    resources: Resources,
    pools: Vec<Pool>,
    /// Number of the last task before this session; later ones are its own.
    first: u64,
    last: AtomicU64,
}

/// Longest time until the leader has either got an agent or given up; it has its own, shorter, deadlines.
const START: Duration = Duration::from_secs(60);

impl Session {
    /// Creates the session directory, starts the agent and waits for its hello.
    ///
    /// # Errors
    /// [`Error::Io`] for the directory, [`Error::Agent`] with the agent's last words when it does not start.
    pub fn start(mut options: SessionOptions) -> Result<Session> {
        options.dir = private_dir(&options.dir)?;
        let resources = options.resources.unwrap_or_else(Resources::detect);
        let pools = options.pools.clone();
        let command = options.agent.join(" ");
        let (journal, first) = Journal::open(&options.dir.join("journal"))?;
        let scratch = Scratch::create()?;
        let core = Core::new(options.dir.clone(), resources);
        let shared = Arc::new(Shared::default());
        let (requests, received) = unbounded_channel();
        let leader = {
            let (shared, dir) = (shared.clone(), options.dir.clone());
            let body = move || {
                let _ended = EndMark(shared.clone());
                leader::run(options, core, journal, scratch, shared, received)
            };
            let thread = thread::Builder::new().name("deeprc-leader".into());
            thread.spawn(body).map_err(Error::io("start the leader of", dir))?
        };
        let last = AtomicU64::new(first);
        let session = Session { requests, shared, leader: Some(leader), resources, pools, first, last };
        let state = session.shared.wait(START, |state| state.agent.is_some() || state.ended);
        match state.agent.clone() {
            Some(Ok(())) => {
                drop(state);
                Ok(session)
            }
            Some(Err(words)) => {
                let (reason, tail) = words.split_once('\n').unwrap_or((&words, ""));
                Err(Error::Agent { command, reason: reason.to_string(), stderr_tail: tail.to_string() })
            }
            None => Err(Error::Agent { command, reason: "no answer".into(), stderr_tail: String::new() }),
        }
    }

    /// Queues a task and returns its number.
    ///
    /// # Errors
    /// [`Error::Resources`] when the task could never start on this session, [`Error::Invalid`] for an unknown pool,
    /// a missing directory or a group without ranks, [`Error::Closed`].
    pub fn submit(&self, mut task: TaskDescription) -> Result<TaskId> {
        admission::check(&task, self.resources, &self.pools)?;
        task.dir = path::absolute(&task.dir).map_err(Error::io("resolve", &task.dir))?;
        let id = TaskId(self.last.fetch_add(1, Ordering::Relaxed) + 1);
        self.requests.send(Request::Submit(id, Box::new(task))).map_err(|_| Error::Closed)?;
        Ok(id)
    }

    /// Waits until the task has ended and returns its report; may be called again.
    ///
    /// # Errors
    /// [`Error::Timeout`], [`Error::UnknownTask`], and [`Error::Closed`] when the session ended before the task.
    pub fn wait(&self, id: TaskId, timeout: Duration) -> Result<TaskReport> {
        if id.0 <= self.first || id.0 > self.last.load(Ordering::Relaxed) {
            return Err(Error::UnknownTask { task: id });
        }
        let state = self.shared.wait(timeout, |state| state.reports.contains_key(&id) || state.ended);
        match state.reports.get(&id) {
            Some(report) => Ok(report.clone()),
            None if state.ended => Err(Error::Closed),
            None => Err(Error::Timeout { task: id, after: timeout }),
        }
    }

    /// Asks for the end of a task: a waiting one ends at once, a running one gets SIGTERM (executables) or sees
    /// [`TaskContext::canceled`](crate::rank::TaskContext::canceled) (functions) and is killed after two seconds.
    pub fn cancel(&self, id: TaskId) {
        // A closed session has canceled everything already.
        let _ = self.requests.send(Request::Cancel(id));
    }

    /// A new subscription to everything that happens from now on. It ends with the session.
    pub fn events(&self) -> mpsc::Receiver<Stamped<Event>> {
        let (subscriber, events) = mpsc::channel();
        let _ = self.requests.send(Request::Subscribe(subscriber));
        events
    }

    /// What the session may use.
    pub fn resources(&self) -> Resources {
        self.resources
    }

    /// Cancels what still runs, ends all processes and waits for their end.
    ///
    /// # Errors
    /// [`Error::Io`] when the journal could not be completed.
    pub fn close(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        let _ = self.requests.send(Request::Close);
        match self.leader.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            // A panic of the leader has been printed; the agent ends when its connection does.
            Some(Err(_)) => Err(Error::Closed),
            None => Ok(()),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// What the leader tells the threads that wait.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Whether an agent could be started; `Err` holds the reason and its last words, by lines.
    agent: Option<Result<(), String>>,
    reports: HashMap<TaskId, TaskReport>,
    ended: bool,
}

impl Shared {
    pub(crate) fn agent_is(&self, agent: Result<(), String>) {
        self.change(|state| state.agent = Some(agent));
    }

    pub(crate) fn report(&self, report: TaskReport) {
        self.change(|state| {
            state.reports.insert(report.id, report);
        });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn wait(&self, timeout: Duration, until: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let deadline = Instant::now().checked_add(timeout);
        let mut state = self.lock();
        while !until(&state) {
            state = match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => return state,
                Some(left) => self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
        state
    }

    /// A panic elsewhere leaves the state whole: every change is one assignment.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes all waiting threads when the leader's thread ends, however it ends.
struct EndMark(Arc<Shared>);

impl Drop for EndMark {
    fn drop(&mut self) {
        self.0.change(|state| state.ended = true);
    }
}
