//! Ranks that `mpirun` starts: this program again, with a role in its environment.
#![expect(clippy::unwrap_used, reason = "a panic is the test's message")]

use std::{
    env, fs,
    io::Read,
    path::Path,
    process::{Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use bytes::Bytes;
use deeprc_comm::{CommSpec, Communicator, Error, Rendezvous, check};
use rustix::process::{Signal, getpid, kill_process};

const ROLE: &str = "DEEPRC_COMM_TEST_ROLE";
/// A job that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(120);
/// Longer than anything that MPI sends without asking the receiver.
const LARGE: usize = 5 << 20;

fn main() {
    if let Ok(role) = env::var(ROLE) {
        return rank(&role);
    }
    let tests: [(&str, fn()); 9] = [
        ("every check holds for 1 to 5 ranks", checks_hold),
        ("a killed rank ends the job", a_killed_rank_ends_the_job),
        ("a stopped rank is a timeout and ends the job", a_stopped_rank_is_a_timeout),
        ("a rank that exits has left", a_rank_that_exits_has_left),
        ("what nobody receives does not keep MPI from ending", unreceived_messages_do_not_keep_mpi_from_ending),
        ("a rank that fails ends the job with its status", a_rank_that_fails_ends_the_job),
        ("an idle rank sleeps", an_idle_rank_sleeps),
        ("auto on one host is shared memory", auto_is_shared_memory),
        ("without mpirun the error says so", without_mpirun_the_error_says_so),
    ];
    for (name, test) in tests {
        test();
        println!("{name}: ok");
    }
}

/// What a job came to.
struct Job {
    status: ExitStatus,
    output: String,
}

impl Job {
    /// Runs `size` ranks; none of their processes is left when it returns.
    fn run(role: &str, size: usize) -> Job {
        Job::with(role, size, &[])
    }

    fn with(role: &str, size: usize, variables: &[(&str, &str)]) -> Job {
        let mut command = Command::new("mpirun");
        command.args(["--allow-run-as-root", "--oversubscribe", "-n", &size.to_string()]).arg(env::current_exe().unwrap());
        command.env(ROLE, role).envs(variables.iter().copied()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut mpirun = command.spawn().expect("mpirun starts; on Debian it is in the package openmpi-bin");
        let output = read(mpirun.stdout.take().unwrap());
        let complaints = read(mpirun.stderr.take().unwrap());
        let Ok(mut output) = output.recv_timeout(PATIENCE) else {
            mpirun.kill().unwrap();
            panic!("{role} with {size} ranks did not end: {:?}", mpirun.wait());
        };
        output.push_str(&complaints.recv_timeout(PATIENCE).unwrap());
        let status = mpirun.wait().unwrap();
        let pids: Vec<&str> = output.lines().filter_map(|line| line.strip_prefix("pid ")).collect();
        assert_eq!(pids.len(), size, "{role}: {output}");
        assert!(!pids.iter().any(|pid| runs(pid)), "{role}: a rank is left");
        Job { status, output }
    }

    fn says(&self, line: &str) -> usize {
        self.output.lines().filter(|said| *said == line).count()
    }
}

/// All that comes out of a pipe.
fn read(mut pipe: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let mut text = Vec::new();
        pipe.read_to_end(&mut text).unwrap();
        tell.send(String::from_utf8_lossy(&text).into_owned())
    });
    told
}

/// Whether a process is there and has not ended: whoever inherits it may take long to ask for its status.
fn runs(pid: &str) -> bool {
    let status = fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
    status.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

fn checks_hold() {
    for size in 1..=5 {
        let job = Job::run("checks", size);
        assert!(job.status.success(), "{size} ranks: {}", job.output);
        assert_eq!(job.says("all passed"), size, "{}", job.output);
    }
}

fn a_killed_rank_ends_the_job() {
    let job = Job::run("killed", 3);
    assert!(!job.status.success());
    assert_eq!(job.says("not reached"), 0);
}

fn a_stopped_rank_is_a_timeout() {
    let job = Job::run("stopped", 3);
    assert!(!job.status.success());
    assert_eq!(job.says("timeout"), 2, "{}", job.output);
}

fn a_rank_that_exits_has_left() {
    let job = Job::run("exits", 3);
    assert!(job.status.success(), "{}", job.output);
    assert_eq!(job.says("rank 1 left"), 2, "{}", job.output);
}

fn unreceived_messages_do_not_keep_mpi_from_ending() {
    let job = Job::run("unreceived", 3);
    assert!(job.status.success(), "{}", job.output);
    assert_eq!(job.says("rank 1 left"), 2, "{}", job.output);
}

fn a_rank_that_fails_ends_the_job() {
    let job = Job::run("fails", 3);
    assert_eq!(job.status.code(), Some(7), "{}", job.output);
    assert_eq!(job.says("rank 1 left"), 2, "{}", job.output);
}

fn an_idle_rank_sleeps() {
    let job = Job::run("idle", 2);
    assert!(job.status.success(), "{}", job.output);
    assert_eq!(job.says("slept"), 1, "{}", job.output);
}

fn auto_is_shared_memory() {
    let job = Job::run("auto", 2);
    assert!(job.status.success(), "{}", job.output);
    assert_eq!(job.says("shm: all 2 ranks are processes of one host"), 2, "{}", job.output);
}

fn without_mpirun_the_error_says_so() {
    let refused = Communicator::open(CommSpec::Mpi, &Rendezvous::new("unused", 1, 2)).unwrap_err().to_string();
    assert_eq!(
        refused,
        "OMPI_COMM_WORLD_SIZE is not set, expected what mpirun sets\nhint: start the ranks with `mpirun -n <ranks> <program>`"
    );
    let job = Job::with("counted otherwise", 2, &[("WORLD_SIZE", "5"), ("RANK", "1"), ("DEEPRC_RENDEZVOUS", "unused")]);
    assert!(job.status.success(), "{}", job.output);
    assert_eq!(job.says("refused"), 2, "{}", job.output);
}

/// The body of the processes.
fn rank(role: &str) {
    let say = |line: &str| println!("{line}");
    say(&format!("pid {}", getpid()));
    let at = Rendezvous::from_env().unwrap();
    let open = || {
        // The environment of a single rank describes no rendezvous.
        let Some(at) = &at else { return Ok(Communicator::solo()) };
        Communicator::open(CommSpec::Mpi, at).map(|(comm, _)| comm.with_timeout(PATIENCE / 2))
    };
    if role == "auto" {
        return say(&Communicator::open(CommSpec::Auto, &at.unwrap()).unwrap().1.to_string());
    }
    if role == "counted otherwise" {
        let error = open().unwrap_err().to_string();
        let which = "for mpirun and rank 1 of 5 in its rendezvous\nhint: unset RANK and WORLD_SIZE, or start 5 ranks with mpirun";
        assert!(error.ends_with(which), "{error}");
        return say("refused");
    }
    let comm = open().unwrap();
    if role == "checks" {
        let outcomes = check::run(&comm, |_| open(), |_| ());
        let failed: Vec<_> = outcomes.iter().filter(|outcome| !outcome.verdict.passed()).collect();
        assert!(failed.is_empty(), "{failed:?}");
        return say("all passed");
    }
    comm.barrier().unwrap();
    let first = comm.rank() == 1;
    match role {
        "killed" => {
            if first {
                kill_process(getpid(), Signal::KILL).unwrap();
            }
            // Or `mpirun` is faster.
            let error = comm.recv(1, 1).unwrap_err();
            assert!(matches!(error, Error::PeerDead { rank: 1 }), "{error:?}");
            // Until then.
            comm.recv(1, 1).unwrap_err();
            thread::park_timeout(PATIENCE / 2);
            say("not reached");
        }
        "stopped" => {
            if first {
                kill_process(getpid(), Signal::STOP).unwrap();
                // `mpirun` lets it continue before it ends it.
                return thread::park_timeout(PATIENCE / 2);
            }
            let error = comm.with_timeout(Duration::from_millis(200)).recv(1, 1).unwrap_err();
            assert!(matches!(error, Error::Timeout { operation: "recv", rank: Some(1), .. }), "{error:?}");
            say("timeout");
        }
        "exits" | "fails" => {
            if first {
                std::process::exit(if role == "fails" { 7 } else { 0 });
            }
            say(&comm.recv(1, 1).unwrap_err().to_string().replace(" the communicator", ""));
        }
        "unreceived" => {
            if first {
                return comm.send(0, 1, vec![Bytes::from_static(b"received")]).unwrap();
            }
            if comm.rank() == 0 {
                assert_eq!(comm.recv(1, 1).unwrap(), ["received"]);
            }
            // The first may still have found rank 1 in a call.
            let send = || comm.send(1, 1, vec![vec![7; LARGE].into(), vec![8; 3].into()]);
            let error = std::iter::repeat_with(send).find_map(Result::err).unwrap();
            say(&error.to_string().replace(" the communicator", ""));
        }
        "idle" => {
            if first {
                thread::park_timeout(Duration::from_secs(1));
                return comm.send(0, 1, Vec::new()).unwrap();
            }
            let before = cpu_ticks();
            comm.recv(1, 1).unwrap();
            // Ticks are 10 ms: at most a tenth of the second that it waited.
            assert!(cpu_ticks() - before <= 10, "{} ticks", cpu_ticks() - before);
            say("slept");
        }
        other => panic!("no role {other}"),
    }
}

/// What this process has computed so far, in and out of the kernel: fields 14 and 15 of `/proc/self/stat` (proc(5)).
fn cpu_ticks() -> u64 {
    let text = fs::read_to_string("/proc/self/stat").unwrap();
    let fields = text.rsplit_once(')').unwrap().1.split_ascii_whitespace();
    fields.skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum()
}
