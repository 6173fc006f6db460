//! Starts the processes of a test, listens to them, and ends them whatever happens.

use std::{
    cell::Cell,
    fs::{self, File},
    io::{BufRead, BufReader},
    net::{Ipv4Addr, TcpListener},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use deeprc_comm::{CommSpec, StoreServer};
use rustix::process::{Pid, Signal, kill_process};

use crate::{rank, traces};

/// A transport as a column of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) spec: CommSpec,
    /// The ranks pretend to be on several hosts, some of them on the same.
    pub(crate) is_hybrid: bool,
    /// UCX goes over TCP, as between hosts, instead of shared memory.
    pub(crate) is_tcp: bool,
}

impl Place {
    pub(crate) fn new(spec: CommSpec) -> Self {
        Place { spec, is_hybrid: false, is_tcp: false }
    }

    /// What `auto` does between hosts where Gloo is all there is.
    pub(crate) fn hybrid() -> Self {
        Place { spec: CommSpec::Auto, is_hybrid: true, is_tcp: false }
    }

    /// UCX as it is between hosts.
    pub(crate) fn ucx_over_tcp() -> Self {
        Place { spec: CommSpec::Ucx, is_hybrid: false, is_tcp: true }
    }

    /// The head of its column.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Place { is_hybrid: true, .. } => "hybrid",
            Place { is_tcp: true, .. } => "ucx tcp",
            Place { spec, .. } => spec.name(),
        }
    }

    /// Ranks are started by `mpirun`, which ends all of them when one fails.
    pub(crate) fn is_mpi(self) -> bool {
        self.spec == CommSpec::Mpi
    }
}

/// What all jobs have in common.
#[derive(Debug)]
pub(crate) struct Launcher {
    dir: tempfile::TempDir,
    mark: String,
    jobs: Cell<usize>,
}

impl Launcher {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("deeprc-transports-").tempdir_in("/dev/shm").unwrap();
        let mark = format!("DEEPRC_TRANSPORTS_RUN={}", std::process::id());
        Launcher { dir, mark, jobs: Cell::new(0) }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The variable by which our processes are recognised, with its value.
    pub(crate) fn mark(&self) -> &str {
        &self.mark
    }

    /// A number for a job.
    fn next(&self) -> usize {
        self.jobs.set(self.jobs.get() + 1);
        self.jobs.get()
    }
}

/// Where the ranks of a job meet.
#[derive(Debug)]
pub(crate) enum Meeting {
    /// A directory.
    Directory(PathBuf),
    /// The launcher's store, under a name and a number of the attempt.
    Store { address: String, task: String, attempt: u32 },
    /// At a port of this host, where rank 0 serves a store.
    Port(u16),
    /// Whatever `mpirun` says.
    Launcher,
}

/// What to start.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) launcher: &'a Launcher,
    pub(crate) place: Place,
    pub(crate) role: &'a str,
    /// The ranks to start; for MPI all of them.
    pub(crate) ranks: Vec<usize>,
    pub(crate) size: usize,
    /// The deadline of every call.
    pub(crate) calls: Duration,
    /// The deadline of the meeting.
    pub(crate) meeting: Duration,
    pub(crate) at: Option<Meeting>,
    pub(crate) variables: Vec<(&'static str, String)>,
}

impl<'a> Plan<'a> {
    /// `size` ranks that have half a minute for everything.
    pub(crate) fn new(launcher: &'a Launcher, place: Place, role: &'a str, size: usize) -> Self {
        let half_a_minute = Duration::from_secs(30);
        let ranks = (0..size).collect();
        Plan { launcher, place, role, ranks, size, calls: half_a_minute, meeting: half_a_minute, at: None, variables: Vec::new() }
    }
}

/// What a rank said.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) rank: usize,
    pub(crate) event: String,
    pub(crate) text: String,
    pub(crate) at: Instant,
}

enum News {
    Line(Line),
    /// A process has closed its output.
    End,
}

/// Processes that do not outlive it.
pub(crate) struct Job {
    children: Vec<Child>,
    news: Receiver<News>,
    pub(crate) lines: Vec<Line>,
    ended: usize,
    mark: String,
    errors: PathBuf,
    directory: Option<PathBuf>,
    is_mpi: bool,
    /// Serves as long as the job runs.
    _store: Option<StoreServer>,
}

impl Job {
    pub(crate) fn start(mut plan: Plan<'_>) -> Self {
        let number = plan.launcher.next();
        let mut store = None;
        let at = plan.at.take().unwrap_or_else(|| match plan.place.spec {
            CommSpec::Mpi => Meeting::Launcher,
            CommSpec::Auto => Meeting::Port(free_port()),
            CommSpec::Shm => Meeting::Directory(plan.launcher.dir().join(format!("meet-{number}"))),
            _ => {
                let server = serve();
                let address = server.address().to_string();
                store = Some(server);
                Meeting::Store { address, task: format!("job-{number}"), attempt: 0 }
            }
        });
        let mark = format!("DEEPRC_TRANSPORTS_JOB={}-{number}", std::process::id());
        let errors = plan.launcher.dir().join(format!("errors-{number}"));
        let temporary = plan.launcher.dir().join("tmp");
        fs::create_dir_all(&temporary).unwrap();
        let (tell, news) = mpsc::channel();
        let program = std::env::current_exe().unwrap();
        let commands: Vec<Command> = if plan.place.is_mpi() {
            let mut command = Command::new("mpirun");
            // What `--oversubscribe --allow-run-as-root` say, in words that MPICH passes over.
            let words = ["OMPI_MCA_rmaps_base_oversubscribe", "OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"];
            command.args(["-n", &plan.size.to_string()]).arg(&program).envs(words.map(|word| (word, "1")));
            vec![command]
        } else {
            let rank = |rank: &usize| {
                let mut command = Command::new(&program);
                command.env("RANK", rank.to_string()).env("WORLD_SIZE", plan.size.to_string());
                if plan.place.is_tcp {
                    command.env("UCX_TLS", "tcp,self");
                }
                if plan.place.is_hybrid {
                    // 0 | 1 2 | 3 4
                    command.env("DEEPRC_COMM_HOST", format!("pretended {}", rank.div_ceil(2))).env("DEEPRC_COMM_NETWORKS", "gloo");
                }
                command
            };
            plan.ranks.iter().map(rank).collect()
        };
        let start = |mut command: Command| {
            for (variable, value) in [plan.launcher.mark(), mark.as_str()].map(|mark| mark.split_once('=').unwrap()) {
                command.env(variable, value);
            }
            match &at {
                Meeting::Directory(dir) => command.env("DEEPRC_RENDEZVOUS", dir),
                Meeting::Port(port) => command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", port.to_string()),
                Meeting::Launcher => &mut command,
                Meeting::Store { address, task, attempt } => {
                    command.env("DEEPRC_STORE", address).env("DEEPRC_TASK", task).env("DEEPRC_ATTEMPT", attempt.to_string())
                }
            };
            command.env("DEEPRC_COMM", plan.place.spec.name()).env(rank::ROLE, plan.role).env("TMPDIR", &temporary);
            command.env(rank::CALLS, plan.calls.as_millis().to_string()).env(rank::MEETING, plan.meeting.as_millis().to_string());
            command.envs(plan.variables.iter().map(|(name, value)| (name, value)));
            let log = File::options().create(true).append(true).open(&errors).unwrap();
            let mut child = command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
            let (said, tell) = (BufReader::new(child.stdout.take().unwrap()), tell.clone());
            thread::spawn(move || {
                for line in said.lines().map_while(Result::ok).filter_map(|line| read_line(&line)) {
                    let _ = tell.send(News::Line(line));
                }
                // Nobody listens any more when the job was dropped.
                let _ = tell.send(News::End);
            });
            child
        };
        let children = commands.into_iter().map(start).collect();
        let directory = match &at {
            Meeting::Directory(dir) => Some(dir.clone()),
            _ => None,
        };
        let is_mpi = plan.place.is_mpi();
        Job { children, news, lines: Vec::new(), ended: 0, mark, errors, directory, is_mpi, _store: store }
    }

    /// Listens until `enough` says so, or all have ended.
    pub(crate) fn listen(&mut self, until: Instant, enough: impl Fn(&Job) -> bool) -> Result<(), String> {
        while !enough(self) {
            if self.ended == self.children.len() {
                return Err(self.describe("all have ended"));
            }
            match self.news.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(News::Line(line)) => self.lines.push(line),
                Ok(News::End) => self.ended += 1,
                Err(RecvTimeoutError::Timeout) => return Err(self.describe("it took too long")),
                Err(RecvTimeoutError::Disconnected) => unreachable!("every process tells its end before"),
            }
        }
        Ok(())
    }

    /// The lines with an event.
    pub(crate) fn said(&self, event: &str) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(move |line| line.event == event)
    }

    /// Listens until so many ranks have said it.
    pub(crate) fn all_say(&mut self, event: &str, count: usize, within: Duration) -> Result<(), String> {
        self.listen(Instant::now() + within, |job| job.said(event).count() >= count)
    }

    /// Sends a signal to a rank.
    pub(crate) fn signal(&self, rank: usize, signal: Signal) -> Result<(), String> {
        let started = self.said("start").find(|line| line.rank == rank).ok_or_else(|| self.describe("the rank has not started"))?;
        let pid = Pid::from_raw(started.text.parse().unwrap()).unwrap();
        kill_process(pid, signal).map_err(|error| format!("signal to rank {rank}: {error}"))
    }

    /// Waits for the end of all processes; true if all succeeded. Then nothing of them may be left.
    pub(crate) fn end(mut self, until: Instant) -> Result<bool, String> {
        let all = self.children.len();
        self.listen(until, |job| job.ended == all)?;
        let mut good = true;
        for child in &mut self.children {
            good &= child.wait().unwrap().success();
        }
        let left = traces::processes_after(&self.mark, Duration::from_secs(5));
        if !left.is_empty() {
            return Err(self.describe(&format!("left behind: processes {left:?}")));
        }
        match &self.directory {
            // Nobody may have come so far as to make it.
            Some(dir) if dir.exists() => match fs::read_dir(dir).unwrap().next() {
                Some(file) => Err(format!("left behind: {}", file.unwrap().path().display())),
                None => Ok(good),
            },
            _ => Ok(good),
        }
    }

    /// A reason with what is known: the errors, or else the last lines.
    pub(crate) fn describe(&self, reason: &str) -> String {
        let said = |line: &&Line| format!("\n    rank {}: {} {}", line.rank as isize, line.event, line.text);
        let telling: Vec<&Line> = self.lines.iter().filter(|line| line.event == "error" || line.event == "check").collect();
        let lines = if telling.is_empty() { self.lines.iter().collect() } else { telling };
        let lines = &lines[lines.len().saturating_sub(20)..];
        let errors = fs::read_to_string(&self.errors).unwrap_or_default();
        let skip = errors.lines().count().saturating_sub(20);
        let errors: String = errors.lines().skip(skip).map(|line| format!("\n    stderr: {line}")).collect();
        format!("{reason}; the ranks said:{}{errors}", lines.iter().map(said).collect::<String>())
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        for child in &mut self.children {
            // Most have ended. `mpirun` gets the chance to end its ranks, the others are ended at once.
            if self.is_mpi
                && let Ok(None) = child.try_wait()
            {
                let _ = kill_process(Pid::from_child(child), Signal::TERM);
                traces::processes_after(&self.mark, Duration::from_secs(5));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        traces::processes_after(&self.mark, Duration::ZERO);
        if let Some(dir) = &self.directory {
            let _ = fs::remove_dir_all(dir);
        }
    }
}

fn read_line(line: &str) -> Option<Line> {
    let mut cells = line.splitn(3, '\t');
    let (rank, event, text) = (cells.next()?.parse().ok()?, cells.next()?.to_owned(), cells.next()?.to_owned());
    Some(Line { rank, event, text, at: Instant::now() })
}

/// A store on a port of its own.
pub(crate) fn serve() -> StoreServer {
    StoreServer::start((Ipv4Addr::LOCALHOST, 0).into(), "transports").unwrap()
}

/// A port where nobody listens: it was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}
