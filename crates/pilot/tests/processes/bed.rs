//! A session for a test, and what tests ask of it.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::mpsc::Receiver,
    time::{Duration, Instant},
};

use deeprc_pilot::{
    Cause, Event, Failure, Outcome, Pool, Resources, Session, SessionOptions, Stamped, TaskDescription, TaskId, TaskReport, journal,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
};
use serde_json::Value;

/// Long enough for a busy machine; nothing waits this long when all is well.
pub const LONG: Duration = Duration::from_secs(60);

pub struct Bed {
    pub session: Session,
    pub events: Receiver<Stamped<Event>>,
    /// Events that came while another was waited for.
    passed: RefCell<Vec<Event>>,
    pub dir: tempfile::TempDir,
}

/// Command line that makes this program play a role.
pub fn role(name: &str) -> Vec<String> {
    vec![std::env::current_exe().unwrap().display().to_string(), name.to_string()]
}

pub fn options(dir: &Path, cores: u32) -> SessionOptions {
    let mut options = SessionOptions::new(dir, role("--as-agent"));
    options.pools = vec![Pool::new("test", role("--as-rank")).warm(1)];
    options.resources = Some(Resources { cores, gpus: 0, memory: 1000 });
    options
}

impl Bed {
    pub fn new(cores: u32) -> Bed {
        Bed::with(cores, Vec::new())
    }

    /// With further pools.
    pub fn with(cores: u32, pools: Vec<Pool>) -> Bed {
        let dir = tempfile::tempdir().unwrap();
        let mut options = options(&dir.path().join("session"), cores);
        options.pools.extend(pools);
        let session = Session::start(options).unwrap();
        Bed { events: session.events(), passed: RefCell::default(), session, dir }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn submit(&self, task: TaskDescription) -> TaskId {
        self.session.submit(task.in_dir(self.dir.path())).unwrap()
    }

    pub fn wait(&self, id: TaskId) -> TaskReport {
        self.session.wait(id, LONG).unwrap()
    }

    pub fn run(&self, task: TaskDescription) -> TaskReport {
        self.wait(self.submit(task))
    }

    /// Runs a task that must not fail.
    pub fn done(&self, task: TaskDescription) -> TaskReport {
        let report = self.run(task);
        assert_eq!(report.outcome, Outcome::Done, "{report:?}");
        report
    }

    /// The next event for which `pick` has an answer; the others are kept.
    pub fn event<T>(&self, pick: impl Fn(&Event) -> Option<T>) -> T {
        let mut passed = self.passed.borrow_mut();
        if let Some(at) = passed.iter().position(|event| pick(event).is_some()) {
            return pick(&passed.remove(at)).unwrap();
        }
        let deadline = Instant::now() + LONG;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = self.events.recv_timeout(left).expect("the event comes before the deadline");
            if let Some(found) = pick(&event.event) {
                return found;
            }
            passed.push(event.event);
        }
    }

    /// Waits until all ranks of a task are up; returns their processes.
    pub fn started(&self, id: TaskId) -> Vec<u32> {
        self.event(|event| match event {
            Event::Started { task, pids, .. } if *task == id => Some(pids.clone()),
            _ => None,
        })
    }

    pub fn agent_pid(&self) -> u32 {
        let events = journal::read(&self.file("session/journal")).unwrap();
        let agent = |event: &Stamped<Event>| match event.event {
            Event::AgentStarted { pid, .. } => Some(pid),
            _ => None,
        };
        events.iter().rev().find_map(agent).unwrap()
    }
}

pub fn function(name: &str, arguments: Value) -> TaskDescription {
    TaskDescription::function(name, "test", name, arguments)
}

pub fn shell(script: &str) -> TaskDescription {
    TaskDescription::executable("shell", "sh", ["-c", script])
}

pub fn failure(report: &TaskReport) -> &Failure {
    match &report.outcome {
        Outcome::Failed(failure) => failure,
        other => panic!("expected a failure, found {other:?}"),
    }
}

/// Checks which rank failed and why.
pub fn check_failure(report: &TaskReport, rank: Option<u32>, cause: Cause) {
    let found = failure(report);
    assert_eq!((found.rank, &found.cause), (rank, &cause), "{report:?}");
}

pub fn kill(pid: u32) {
    kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL).unwrap();
}

/// Processes with `mark` in their environment or command line, and their command lines.
pub fn processes(mark: &str) -> BTreeMap<u32, String> {
    let contains = |file: PathBuf| {
        let bytes = fs::read(file).unwrap_or_default();
        bytes.windows(mark.len()).any(|window| window == mark.as_bytes())
    };
    let ids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let proc = |id: u32| Path::new("/proc").join(id.to_string());
    let ids = ids.filter(|&id| id != std::process::id() && (contains(proc(id).join("environ")) || contains(proc(id).join("cmdline"))));
    ids.map(|id| (id, fs::read_to_string(proc(id).join("cmdline")).unwrap_or_default())).collect()
}

/// Waits for the end of a process that is not our child; one that is gone already has ended.
pub fn wait_for_end(pid: u32) {
    let Ok(fd) = pidfd_open(Pid::from_raw(pid as i32).unwrap(), PidfdFlags::empty()) else { return };
    let limit = Timespec { tv_sec: LONG.as_secs() as i64, tv_nsec: 0 };
    assert_eq!(poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&limit)).unwrap(), 1, "process {pid} does not end");
}
