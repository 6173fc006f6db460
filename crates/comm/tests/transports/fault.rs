//! The tests: what is done to the ranks, and which error has to come on whom until when.

use std::{
    collections::HashMap,
    fs,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use deeprc_comm::{CommSpec, Communicator, check};
use rustix::process::Signal;

use crate::{
    SLACK,
    job::{Job, Launcher, Meeting, Place, Plan, free_port, serve},
    rank::{self, VICTIM},
    table::Cell,
};

type Test = fn(&Launcher, Place) -> Cell;

/// Every fault, as a row of the table.
pub(crate) const ALL: [(&str, Test); 9] = [
    ("killed (SIGKILL)", killed),
    ("stopped (SIGSTOP)", stopped),
    ("lost connections", lost_connections),
    ("refused connect", refused),
    ("wrong rank count", wrong_count),
    ("late rank", late),
    ("stale epoch", stale),
    ("half-sent message", half_sent),
    ("mismatched call", mismatch),
];

const IN_PROCESS: Cell = Cell::Absent("its ranks are threads of one process");
/// Until the ranks are at work.
const START: Duration = Duration::from_secs(60);
/// How long `mpirun` takes to end a job: it first asks its ranks to end.
const MPI_ENDS: Duration = Duration::from_secs(12);

/// All public checks on `size` ranks.
pub(crate) fn checks(launcher: &Launcher, place: Place, size: usize) -> Cell {
    if place.spec == CommSpec::Threads {
        return on_threads(size).into();
    }
    let mut job = Job::start(Plan::new(launcher, place, "checks", size));
    let listened = job.listen(Instant::now() + 2 * START, |job| job.said("done").count() == size || job.said("error").count() > 0);
    let result = listened.and_then(|()| {
        if job.said("check").count() + job.said("error").count() > 0 {
            return Err(job.describe("not every check holds"));
        }
        // `auto` has to find out whether all are on one host.
        let expect = match place.spec {
            _ if size == 1 => "threads",
            CommSpec::Auto if place.is_hybrid => "gloo",
            CommSpec::Auto => "shm",
            spec => spec.name(),
        };
        if job.said("open").count() < size || !job.said("open").all(|line| line.text.starts_with(expect)) {
            return Err(job.describe("another transport was picked"));
        }
        succeeds(job)
    });
    result.into()
}

fn on_threads(size: usize) -> Result<(), String> {
    let groups: Mutex<HashMap<String, Vec<Option<Communicator>>>> = Mutex::new(HashMap::new());
    let open = |rank: usize, name: &str| {
        let mut groups = groups.lock().unwrap();
        let group = groups.entry(name.to_owned()).or_insert_with(|| Communicator::threads(size).into_iter().map(Some).collect());
        group[rank].take().unwrap().with_timeout(START)
    };
    let rank = |rank: usize| -> Result<(), String> {
        let outcomes = check::run(&open(rank, "all"), |name| Ok(open(rank, name)), |_| ());
        match outcomes.iter().find(|outcome| !outcome.verdict.passed()) {
            Some(outcome) => Err(format!("rank {rank}: `{}` {}", outcome.name, outcome.verdict)),
            None => Ok(()),
        }
    };
    thread::scope(|scope| {
        let rank = &rank;
        let ranks: Vec<_> = (0..size).map(|number| scope.spawn(move || rank(number))).collect();
        let results: Vec<_> = ranks.into_iter().map(|rank| rank.join().unwrap()).collect();
        results.into_iter().collect()
    })
}

/// A message longer than any count of 32 bits, between the first two of two ranks.
pub(crate) fn large(launcher: &Launcher, place: Place, length: usize) -> Cell {
    match place.spec {
        CommSpec::Threads => return IN_PROCESS,
        CommSpec::Auto => return Cell::Absent("the same as shm or gloo"),
        _ => {}
    }
    // Both ends, and as much again for pages of the transport.
    if available_memory() < 3 * length {
        return Cell::Absent("this machine has too little free memory");
    }
    let mut plan = Plan::new(launcher, place, "large", 2);
    plan.calls = Duration::from_secs(300);
    plan.variables.push((rank::LENGTH, (length + 3).to_string()));
    let mut job = Job::start(plan);
    let done = job.listen(Instant::now() + Duration::from_secs(300), |job| job.said("done").count() == 2 || job.said("error").count() > 0);
    done.and_then(|()| if job.said("error").count() > 0 { Err(job.describe("a rank failed")) } else { succeeds(job) }).into()
}

fn available_memory() -> usize {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

fn killed(launcher: &Launcher, place: Place) -> Cell {
    if place.spec == CommSpec::Threads {
        return IN_PROCESS;
    }
    hurt(Plan::new(launcher, place, "loop", 3), Signal::KILL, Duration::ZERO, "PeerDead(1)", &["PeerLeft", "Aborted"]).into()
}

fn stopped(launcher: &Launcher, place: Place) -> Cell {
    if place.spec == CommSpec::Threads {
        return IN_PROCESS;
    }
    let mut plan = Plan::new(launcher, place, "loop", 3);
    plan.calls = Duration::from_secs(3);
    hurt(plan, Signal::STOP, Duration::from_secs(3), "Timeout(1)", &["Timeout", "PeerLeft", "Aborted"]).into()
}

/// Three ranks at work, one of which gets a signal. The others end with an error soon after the deadline has passed since: at
/// least one with the kind `expect`, the others possibly with a consequence of that.
fn hurt(plan: Plan<'_>, signal: Signal, deadline: Duration, expect: &str, others: &[&str]) -> Result<(), String> {
    let is_mpi = plan.place.is_mpi();
    let mut job = Job::start(plan);
    job.all_say("ready", 3, START)?;
    let since = Instant::now();
    job.signal(VICTIM, signal)?;
    if is_mpi {
        return job_ends(job, since + deadline + SLACK + MPI_ENDS);
    }
    let result = ends_with_errors(&mut job, &[0, 2], since + deadline + SLACK, expect, others);
    let _ = job.signal(VICTIM, Signal::KILL);
    result.and_then(|()| job.end(Instant::now() + SLACK).map(drop))
}

/// Each of these ranks reports an error in time: one of them the kind `expect`, the others that or one of `others`.
fn ends_with_errors(job: &mut Job, ranks: &[usize], until: Instant, expect: &str, others: &[&str]) -> Result<(), String> {
    let of = |job: &Job, rank: usize| job.said("error").find(|line| line.rank == rank).cloned();
    job.listen(until, |job| ranks.iter().all(|&rank| of(job, rank).is_some()))?;
    let errors: Vec<_> = ranks.iter().filter_map(|&rank| of(job, rank)).collect();
    if errors.iter().any(|line| line.at > until) {
        return Err(job.describe("an error came too late"));
    }
    let known = |text: &str| text.starts_with(expect) || others.iter().any(|other| text.starts_with(other));
    if !errors.iter().all(|line| known(&line.text)) || !errors.iter().any(|line| line.text.starts_with(expect)) {
        return Err(job.describe(&format!("expected {expect} on one rank, and that or one of {others:?} on the others")));
    }
    Ok(())
}

/// Every error that was reported is one of those known, and the job ends.
fn all_are(job: Job, known: impl Fn(&str) -> bool, otherwise: &str) -> Result<(), String> {
    if !job.said("error").all(|line| known(&line.text)) {
        return Err(job.describe(otherwise));
    }
    job.end(Instant::now() + SLACK).map(drop)
}

/// What MPI has instead of an error on every rank: `mpirun` ends the job, with a failure.
fn job_ends(job: Job, until: Instant) -> Result<(), String> {
    match job.end(until)? {
        false => Ok(()),
        true => Err("the job succeeded".to_owned()),
    }
}

fn succeeds(job: Job) -> Result<(), String> {
    match job.end(Instant::now() + SLACK + MPI_ENDS)? {
        true => Ok(()),
        false => Err("a process failed after it had done its work".to_owned()),
    }
}

/// One rank loses all its connections, as when a firewall forgets them. It gets an error, too.
fn lost_connections(launcher: &Launcher, place: Place) -> Cell {
    let mut plan = Plan::new(launcher, place, "lose sockets", 3);
    plan.calls = Duration::from_secs(3);
    match place.spec {
        CommSpec::Threads => return IN_PROCESS,
        CommSpec::Auto if place.is_hybrid => {}
        CommSpec::Shm | CommSpec::Auto => return Cell::Absent("there are no connections"),
        // On one host they would use shared memory.
        CommSpec::Ucx => plan.variables.push(("UCX_TLS", "tcp,self".to_owned())),
        CommSpec::Mpi => plan.variables.push(("OMPI_MCA_btl", "tcp,self".to_owned())),
        CommSpec::Gloo | CommSpec::Nccl => {}
    }
    let calls = plan.calls;
    let mut job = Job::start(plan);
    let result = job.all_say("lost", 1, START).and_then(|()| {
        if job.said("lost").any(|line| line.text == "0") {
            return Err(job.describe("there was no connection to lose"));
        }
        let until = Instant::now() + calls + SLACK;
        if place.is_mpi() {
            return job_ends(job, until + MPI_ENDS);
        }
        // Whether it looks like a death or like silence depends on which end notices.
        ends_with_errors(&mut job, &[0, 1, 2], until, "", &[])?;
        let named = |text: &str| ["PeerDead", "PeerLeft", "Timeout", "Aborted", "Io"].iter().any(|kind| text.starts_with(kind));
        all_are(job, named, "an error without a name")
    });
    result.into()
}

/// Nobody listens where the ranks are told to meet.
fn refused(launcher: &Launcher, place: Place) -> Cell {
    let mut plan = Plan::new(launcher, place, "work", 2);
    plan.meeting = Duration::from_secs(1);
    let port = free_port();
    match place.spec {
        CommSpec::Threads => return IN_PROCESS,
        CommSpec::Mpi => return Cell::Absent("`mpirun` brings its ranks together"),
        // Rank 0 would serve the store: it is the one that is missing.
        CommSpec::Auto => (plan.at, plan.ranks) = (Some(Meeting::Port(port)), vec![1]),
        _ => plan.at = Some(Meeting::Store { address: format!("127.0.0.1:{port}/x"), task: "t".to_owned(), attempt: 0 }),
    }
    let (ranks, until) = (plan.ranks.clone(), Instant::now() + plan.meeting + SLACK);
    let mut job = Job::start(plan);
    let result = ends_with_errors(&mut job, &ranks, until, "", &[]).and_then(|()| {
        let named = |text: &str| (text.starts_with("Store") || text.starts_with("Timeout")) && text.contains(&port.to_string());
        all_are(job, named, "the error does not name the address")
    });
    result.into()
}

/// Rank 1 believes that there are more ranks than the others do.
fn wrong_count(launcher: &Launcher, place: Place) -> Cell {
    if place.spec == CommSpec::Threads {
        return IN_PROCESS;
    }
    let mut plan = Plan::new(launcher, place, "wrong size", 2);
    plan.meeting = Duration::from_secs(3);
    let until = Instant::now() + plan.meeting + SLACK;
    let mut job = Job::start(plan);
    if place.is_mpi() {
        return job_ends(job, until + MPI_ENDS).into();
    }
    let result = ends_with_errors(&mut job, &[0, 1], until, "Rendezvous", &["Timeout", "PeerDead", "PeerLeft", "Store"]);
    result.and_then(|()| job.end(Instant::now() + SLACK).map(drop)).into()
}

/// A rank comes when the others have given up; it gives up as well. Under `mpirun` the others wait for it.
fn late(launcher: &Launcher, place: Place) -> Cell {
    if place.spec == CommSpec::Threads {
        return IN_PROCESS;
    }
    let meeting = Duration::from_secs(1);
    if place.is_mpi() {
        let mut plan = Plan::new(launcher, place, "late", 3);
        plan.meeting = meeting;
        // `MPI_Init` waits for it as long as it takes; there is no deadline that could be tested.
        return succeeds(Job::start(plan)).into();
    }
    let server = serve();
    let at = || match place.spec {
        CommSpec::Shm => Meeting::Directory(launcher.dir().join("late")),
        _ => Meeting::Store { address: server.address().to_string(), task: "late".to_owned(), attempt: 0 },
    };
    let some = |ranks: &[usize], at: Meeting| {
        let mut plan = Plan::new(launcher, place, "work", 3);
        (plan.ranks, plan.meeting, plan.at) = (ranks.to_vec(), meeting, Some(at));
        (Job::start(plan), Instant::now() + meeting + SLACK)
    };
    let (mut early, until) = some(&[0, 2], at());
    let result = ends_with_errors(&mut early, &[0, 2], until, "Timeout(1)", &["Timeout", "Rendezvous", "PeerLeft"]).and_then(|()| {
        early.end(Instant::now() + SLACK)?;
        let (mut late, until) = some(&[1], at());
        ends_with_errors(&mut late, &[1], until, "", &[])?;
        let named = ["Timeout", "Rendezvous", "PeerDead", "PeerLeft"];
        all_are(late, |text| named.iter().any(|kind| text.starts_with(kind)), "an error that does not say it")
    });
    result.into()
}

/// A rank of an earlier attempt is still waiting while all ranks of the next one come.
fn stale(launcher: &Launcher, place: Place) -> Cell {
    match place.spec {
        CommSpec::Threads => return IN_PROCESS,
        CommSpec::Mpi => return Cell::Absent("every `mpirun` is an epoch of its own"),
        _ => {}
    }
    let server = serve();
    let attempt = |ranks: &[usize], attempt: u32, meeting: Duration| {
        let mut plan = Plan::new(launcher, place, "work", 3);
        (plan.ranks, plan.meeting) = (ranks.to_vec(), meeting);
        plan.at = Some(Meeting::Store { address: server.address().to_string(), task: "stale".to_owned(), attempt });
        Job::start(plan)
    };
    let meeting = Duration::from_secs(4);
    let mut old = attempt(&[VICTIM], 1, meeting);
    let until = Instant::now() + meeting + SLACK;
    let result = old.all_say("start", 1, START).and_then(|()| {
        let mut new = attempt(&[0, 1, 2], 2, Duration::from_secs(30));
        new.all_say("done", 3, START)?;
        if old.said("open").count() > 0 {
            return Err(old.describe("the rank of the earlier attempt met somebody"));
        }
        succeeds(new)?;
        ends_with_errors(&mut old, &[VICTIM], until, "Timeout", &[])?;
        old.end(Instant::now() + SLACK).map(drop)
    });
    result.into()
}

/// A rank is killed while it sends one message after the other: what had arrived whole is handed out, a part never.
fn half_sent(launcher: &Launcher, place: Place) -> Cell {
    if place.spec == CommSpec::Threads {
        return IN_PROCESS;
    }
    let mut job = Job::start(Plan::new(launcher, place, "stream", 3));
    let result = job.all_say("ready", 2, START).and_then(|()| {
        let since = Instant::now();
        job.signal(VICTIM, Signal::KILL)?;
        if place.is_mpi() {
            return job_ends(job, since + SLACK + MPI_ENDS);
        }
        ends_with_errors(&mut job, &[0, 2], since + SLACK, "PeerDead(1)", &["PeerLeft"])?;
        job.end(Instant::now() + SLACK).map(drop)
    });
    result.into()
}

/// One rank calls another collective than the others.
fn mismatch(launcher: &Launcher, place: Place) -> Cell {
    if place.spec == CommSpec::Threads {
        return Cell::Absent("among the checks");
    }
    let mut job = Job::start(Plan::new(launcher, place, "mismatch", 3));
    let result = job.all_say("open", 3, START).and_then(|()| {
        let until = Instant::now() + SLACK;
        if place.is_mpi() {
            return job_ends(job, until + MPI_ENDS);
        }
        ends_with_errors(&mut job, &[0, 1, 2], until, "Mismatch", &["Aborted", "PeerLeft"])?;
        job.end(Instant::now() + SLACK).map(drop)
    });
    result.into()
}
