//! `deeprc rank-test`: whether ranks reach each other here, over what, and how fast.

use std::collections::HashMap;
use std::process;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use deeprc_comm::check::{self, Outcome, Verdict};
use deeprc_comm::{Choice, CommSpec, Communicator, Error, ReduceOp, Rendezvous, Result};
use serde::Serialize;

use crate::exit::Exit;
use crate::printer::{BOLD, ERROR, GOOD, Printer, WAIT, columns, styled};

/// Ranks of `--comm threads` unless `--ranks` says otherwise.
const THREADS: usize = 4;
/// What goes from each rank to each: a message that is all latency, and one that is all bandwidth.
const SMALL: (usize, usize) = (8, 200);
const LARGE: (usize, usize) = (16 << 20, 5);

/// Arguments of `deeprc rank-test`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How the ranks talk: auto, threads, shm, gloo, mpi, ucx [default: DEEPRC_COMM, else auto]
    #[arg(long, value_name = "TRANSPORT")]
    comm: Option<CommSpec>,
    /// Ranks to start, as threads of this process; only with `--comm threads`
    #[arg(long, value_name = "N")]
    ranks: Option<usize>,
    /// Longest time in seconds that a rank waits for another
    #[arg(long, value_name = "S", default_value_t = 60.0, value_parser = positive)]
    timeout: f64,
    /// How often to run the checks
    #[arg(long, value_name = "N", default_value_t = 1)]
    rounds: u32,
    /// Print JSON on stdout (rank 0)
    #[arg(long)]
    json: bool,
}

fn positive(text: &str) -> Result<f64, String> {
    let value = text.parse().ok().filter(|&value: &f64| value > 0.0 && value < 1e6);
    value.ok_or_else(|| "give it in seconds, for example 30 or 0.5".to_owned())
}

/// What rank 0 has to say.
#[derive(Debug, Serialize)]
struct Report {
    transport: &'static str,
    reason: String,
    ranks: usize,
    passed: bool,
    checks: Vec<Line>,
    exchanges: Vec<Exchange>,
}

#[derive(Debug, Serialize)]
struct Line {
    check: &'static str,
    result: String,
    seconds: f64,
}

/// An all-to-all of so many bytes from each rank to each.
#[derive(Debug, Serialize)]
struct Exchange {
    bytes_per_pair: usize,
    rounds: usize,
    median_seconds: f64,
    fastest_seconds: f64,
    /// What a rank sends to others, by the fastest round.
    bytes_per_second_and_rank: f64,
}

/// Runs the checks on this rank, or on as many threads as asked for.
pub fn main(args: &Args, printer: Printer) -> Exit {
    let patience = Duration::from_secs_f64(args.timeout);
    match start(args, patience, printer) {
        Ok(true) => Exit::Done,
        Ok(false) => Exit::Task,
        Err(error) => {
            printer.rendered(format_args!("error: {error}"));
            match error {
                Error::Environment { .. } | Error::UnknownTransport { .. } | Error::NotBuiltIn { .. } | Error::NoSuchRank { .. } => {
                    Exit::Usage
                }
                _ => Exit::Task,
            }
        }
    }
}

fn start(args: &Args, patience: Duration, printer: Printer) -> Result<bool> {
    let spec = args.comm.map_or_else(CommSpec::from_env, Ok)?;
    let watchdog = Watchdog::start(patience, printer);
    if spec == CommSpec::Threads {
        return Ok(on_threads(args, args.ranks.unwrap_or(THREADS).max(1), patience, &watchdog, printer));
    }
    if args.ranks.is_some() {
        printer.talk(format_args!("{} `--ranks` is for `--comm threads`; here RANK and WORLD_SIZE count", styled(WAIT, "note:")));
    }
    let at = match Rendezvous::from_env()? {
        Some(at) => Rendezvous { timeout: patience, ..at },
        None => {
            spec.check_built_in()?;
            printer.talk(format_args!(
                "{} this is the only rank: set RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, or start it with `mpirun` or `srun`",
                styled(WAIT, "note:")
            ));
            Rendezvous { timeout: patience, ..Rendezvous::new(".", 0, 1) }
        }
    };
    let (comm, choice) = Communicator::open(spec, &at)?;
    watchdog.alive();
    let open = |_: &str| Communicator::open(spec, &at).map(|(comm, _)| comm.with_timeout(patience));
    Ok(examine(args, &comm.with_timeout(patience), &choice, open, &watchdog, printer))
}

fn on_threads(args: &Args, size: usize, patience: Duration, watchdog: &Watchdog, printer: Printer) -> bool {
    let choice = Choice { spec: CommSpec::Threads, reason: "asked for".to_owned() };
    // The groups that the checks need, each taken apart by the ranks as they come.
    let groups: Mutex<HashMap<String, Vec<Option<Communicator>>>> = Mutex::new(HashMap::new());
    let open = |rank: usize, name: &str| {
        let mut groups = groups.lock().unwrap_or_else(PoisonError::into_inner);
        let group = groups.entry(name.to_owned()).or_insert_with(|| Communicator::threads(size).into_iter().map(Some).collect());
        group[rank].take().expect("each rank opens each name once").with_timeout(patience)
    };
    let rank = |rank: usize| {
        let mut round = 0;
        let again = |name: &str| {
            round += 1;
            Ok(open(rank, &format!("{name}, {round}")))
        };
        examine(args, &open(rank, "all"), &choice, again, watchdog, printer)
    };
    thread::scope(|scope| {
        let ranks: Vec<_> = (0..size).map(|number| scope.spawn(move || rank(number))).collect();
        // All are waited for, also when the first has failed.
        let passed: Vec<bool> = ranks.into_iter().map(|rank| rank.join().expect("a rank reports, it does not panic")).collect();
        passed.into_iter().all(|passed| passed)
    })
}

/// The whole test on one rank; true if everything passed on every rank.
fn examine(
    args: &Args,
    comm: &Communicator,
    choice: &Choice,
    mut open: impl FnMut(&str) -> Result<Communicator>,
    watchdog: &Watchdog,
    printer: Printer,
) -> bool {
    let first = comm.rank() == 0;
    let started = Instant::now();
    if first {
        printer.talk(format_args!("{} {} over {choice}", styled(BOLD, "rank-test:"), ranks(comm.size())));
    }
    let mut outcomes: Vec<Outcome> = Vec::new();
    for round in 1..=args.rounds.max(1) {
        outcomes = check::run(comm, &mut open, |outcome| {
            watchdog.alive();
            if let (false, Verdict::Failed(reason)) = (first, &outcome.verdict) {
                printer.talk(format_args!("rank {}: `{}` {}: {reason}", comm.rank(), outcome.name, styled(ERROR, "failed")));
            }
        });
        if first && args.rounds > 1 {
            printer.talk(format_args!("round {round} of {} after {}", args.rounds, short(started.elapsed())));
        }
        if outcomes.iter().any(|outcome| !outcome.verdict.passed()) {
            break;
        }
    }
    let passed = outcomes.iter().all(|outcome| outcome.verdict.passed());
    let exchanges = if passed && comm.size() > 1 {
        [SMALL, LARGE].map(|(bytes, rounds)| exchange(comm, bytes, rounds, watchdog)).into_iter().collect()
    } else {
        Ok(Vec::new())
    };
    // A rank may have failed where the others did not look.
    let mut failed = [u32::from(!passed || exchanges.is_err())];
    let agreed = comm.allreduce(&mut failed, ReduceOp::Max);
    let passed = agreed.is_ok() && failed == [0];
    if let Some(error) = exchanges.as_ref().err().or(agreed.as_ref().err().filter(|_| !outcomes.iter().any(failed_itself))) {
        printer.rendered(format_args!("error: rank {}: {error}", comm.rank()));
    }
    if first {
        let line =
            |outcome: &Outcome| Line { check: outcome.name, result: outcome.verdict.to_string(), seconds: outcome.took.as_secs_f64() };
        let report = Report {
            transport: choice.spec.name(),
            reason: choice.reason.clone(),
            ranks: comm.size(),
            passed,
            checks: outcomes.iter().map(line).collect(),
            exchanges: exchanges.unwrap_or_default(),
        };
        match args.json {
            true => printer.json(&report),
            false => print(&report, &outcomes, started.elapsed(), printer),
        }
    }
    passed
}

fn failed_itself(outcome: &Outcome) -> bool {
    matches!(outcome.verdict, Verdict::Failed(_))
}

fn exchange(comm: &Communicator, bytes: usize, rounds: usize, watchdog: &Watchdog) -> Result<Exchange> {
    let data = bytes::Bytes::from(vec![comm.rank() as u8; bytes]);
    let mut times = Vec::with_capacity(rounds);
    // The first round warms up: connections are made, pages touched.
    for round in 0..=rounds {
        let out = vec![vec![data.clone()]; comm.size()];
        comm.barrier()?;
        let started = Instant::now();
        drop(comm.all_to_all(out)?);
        if round > 0 {
            times.push(started.elapsed().as_secs_f64());
        }
    }
    watchdog.alive();
    times.sort_unstable_by(f64::total_cmp);
    let (median, fastest) = (times[rounds / 2], times[0]);
    let sent = (bytes * (comm.size() - 1)) as f64;
    Ok(Exchange {
        bytes_per_pair: bytes,
        rounds,
        median_seconds: median,
        fastest_seconds: fastest,
        bytes_per_second_and_rank: sent / fastest,
    })
}

fn print(report: &Report, outcomes: &[Outcome], took: Duration, printer: Printer) {
    let head = ["check", "time", "result"].map(str::to_owned).to_vec();
    let row = |outcome: &Outcome| vec![outcome.name.to_owned(), short(outcome.took), outcome.verdict.to_string()];
    let rows: Vec<Vec<String>> = [head].into_iter().chain(outcomes.iter().map(row)).collect();
    let style = |number: usize| match number.checked_sub(1).map(|number| &outcomes[number].verdict) {
        None => BOLD,
        Some(Verdict::Passed) => GOOD,
        Some(Verdict::Failed(_)) => ERROR,
        Some(Verdict::NotRun) => WAIT,
    };
    columns(&rows).iter().enumerate().for_each(|(number, line)| printer.data(styled(style(number), line)));
    for exchange in &report.exchanges {
        let time = short(Duration::from_secs_f64(exchange.median_seconds));
        let speed = format!("{:.2} GB/s from each rank", exchange.bytes_per_second_and_rank / 1e9);
        let (bytes, unit) =
            if exchange.bytes_per_pair >= 1 << 20 { (exchange.bytes_per_pair >> 20, "MiB") } else { (exchange.bytes_per_pair, "bytes") };
        let speed = if unit == "MiB" && report.ranks > 1 { format!(", {speed}") } else { String::new() };
        printer.data(format_args!("exchange of {bytes} {unit} between each two ranks: {time}{speed}"));
    }
    let passed = outcomes.iter().filter(|outcome| outcome.verdict.passed()).count();
    let verdict = if report.passed { styled(GOOD, "passed") } else { styled(ERROR, "failed") };
    printer.data(format_args!(
        "{verdict}: {passed} of {} checks hold on {} over {}, in {}",
        outcomes.len(),
        ranks(report.ranks),
        report.transport,
        short(took)
    ));
}

fn ranks(count: usize) -> String {
    format!("{count} rank{}", if count == 1 { "" } else { "s" })
}

/// A time with three digits: `38.1 ms`, `640 µs`.
fn short(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let (value, unit) = match seconds {
        s if s < 1e-3 => (s * 1e6, "µs"),
        s if s < 1.0 => (s * 1e3, "ms"),
        s => (s, "s"),
    };
    let decimals = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.decimals$} {unit}")
}

/// Ends the process when nothing has moved for longer than any call may take: a foreign library can hang where no deadline of
/// ours reaches, for example in `MPI_Init`.
struct Watchdog(Sender<()>);

impl Watchdog {
    fn start(patience: Duration, printer: Printer) -> Self {
        let (alive, heard) = mpsc::channel();
        // A check makes several calls; only one of them can run into its deadline.
        let longest = 3 * patience + Duration::from_secs(10);
        thread::spawn(move || {
            loop {
                match heard.recv_timeout(longest) {
                    Ok(()) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => {
                        printer.error(format_args!("nothing has moved for {}: giving up", short(longest)), None);
                        process::exit(i32::from(Exit::Task.code()));
                    }
                }
            }
        });
        Watchdog(alive)
    }

    fn alive(&self) {
        // Nobody hears it when the thread could not be started; then there is no watchdog.
        let _ = self.0.send(());
    }
}
