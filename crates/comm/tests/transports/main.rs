//! Every transport that is built in, with real processes: all checks with 1 to 5 ranks, and what the others see when a rank is
//! killed, stopped, cut off, late, or of another opinion. Prints a table test × transport.
//!
//! `cargo test -p deeprc-comm --test transports --features gloo,ucx,mpi -- [--large] [--only TRANSPORT] [--test WORDS] [--repeat N]`
//! (`DEEPRC_TRANSPORTS_LARGE=1` says the same as `--large`, where other tests get the arguments, too)
//!
//! The program starts itself as the ranks (`mpirun` does for MPI), with a role in the environment; see `rank.rs`.
#![expect(clippy::unwrap_used, reason = "a panic is the test's message")]

mod fault;
mod job;
mod rank;
mod sockets;
mod table;
mod traces;

use std::{
    env,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use deeprc_comm::CommSpec;
use job::{Launcher, Place};
use table::{Cell, Table};

/// Set once the program runs in a mount namespace with a `/dev/shm` of its own.
const PRIVATE: &str = "DEEPRC_TRANSPORTS_PRIVATE";

/// What the command line asks for.
struct Wish {
    large: bool,
    only: Option<String>,
    test: Option<String>,
    repeat: usize,
}

fn main() -> ExitCode {
    if let Ok(role) = env::var(rank::ROLE) {
        return rank::main(&role);
    }
    let Some(wish) = read_arguments() else { return ExitCode::SUCCESS };
    if env::var_os(PRIVATE).is_none()
        && let Some(code) = run_privately()
    {
        return code;
    }
    let started = Instant::now();
    let before = traces::look();
    let launcher = Launcher::new();
    let mut table = Table::default();
    for _ in 0..wish.repeat {
        for place in places().into_iter().filter(|place| wish.only.as_ref().is_none_or(|only| place.name() == only)) {
            fill(&mut table, &launcher, place, &wish);
        }
    }
    let left = traces::left_behind(&before, launcher.dir(), launcher.mark());
    drop(launcher);
    table.print(started.elapsed());
    left.iter().for_each(|trace| println!("left behind: {trace}"));
    let passed = table.passed() && left.is_empty();
    println!("{}", if passed { "all passed" } else { "FAILED" });
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One column of the table for each.
fn places() -> Vec<Place> {
    let specs = [CommSpec::Threads, CommSpec::Shm, CommSpec::Gloo, CommSpec::Ucx, CommSpec::Mpi, CommSpec::Auto];
    let over_tcp = CommSpec::Ucx.is_built_in().then(Place::ucx_over_tcp);
    let hybrid = CommSpec::Gloo.is_built_in().then(Place::hybrid);
    specs.into_iter().filter(|spec| spec.is_built_in()).map(Place::new).chain(over_tcp).chain(hybrid).collect()
}

fn fill(table: &mut Table, launcher: &Launcher, place: Place, wish: &Wish) {
    let wanted = |name: &str| wish.test.as_ref().is_none_or(|words| name.contains(words));
    let mut cell = |name: &str, test: &dyn Fn() -> Cell| {
        if wanted(name) {
            let started = Instant::now();
            let cell = test().after(started.elapsed());
            let text = cell.to_string();
            eprintln!("{:<8} {name}: {}", place.name(), text.lines().next().unwrap_or_default());
            table.set(name, place.name(), cell);
        }
    };
    for size in 1..=5 {
        cell(&format!("all checks, {size} ranks"), &|| fault::checks(launcher, place, size));
    }
    for (name, test) in fault::ALL {
        cell(name, &|| test(launcher, place));
    }
    if wish.large {
        cell("a message of 3 GiB", &|| fault::large(launcher, place, 3 << 30));
    }
}

/// Understands its own options and passes over those of `cargo test`; `None` when another test is asked for.
fn read_arguments() -> Option<Wish> {
    let mut wish = Wish { large: env::var_os("DEEPRC_TRANSPORTS_LARGE").is_some(), only: None, test: None, repeat: 1 };
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--large" => wish.large = true,
            "--only" => wish.only = arguments.next(),
            "--test" => wish.test = arguments.next(),
            "--repeat" => wish.repeat = arguments.next().unwrap().parse().unwrap(),
            "--list" => {
                println!("transports: test");
                return None;
            }
            option if option.starts_with("--") => {}
            filter if "transports".contains(filter) => {}
            _ => return None,
        }
    }
    Some(wish)
}

/// Runs this program again where `/dev/shm` is its own, so that every file which a transport leaves there is seen and nobody
/// else's. `None` where that is not allowed.
fn run_privately() -> Option<ExitCode> {
    let unshare = |command: &str| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "sh", "-ec", &format!("mount -t tmpfs -o size=90% tmpfs /dev/shm; {command}"), "sh"]);
        unshare
    };
    let allowed = unshare("true").stderr(std::process::Stdio::null()).status().is_ok_and(|status| status.success());
    if !allowed {
        return None;
    }
    let program = env::current_exe().unwrap();
    let status = unshare("exec \"$@\"").arg(program).args(env::args_os().skip(1)).env(PRIVATE, "1").status().unwrap();
    Some(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// How much longer than its deadline a call may take here: the machine may be busy with other tests.
const SLACK: Duration = Duration::from_secs(6);
