//! `deeprc task`: one program as a task, and the tasks of a run.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deeprc_pilot::{Error, Outcome, Session, SessionOptions, TaskDescription, TaskId, TaskReport};
use deeprc_pipeline::TaskRecord;

use crate::exit::Exit;
use crate::printer::{BOLD, Printer, SOFT, columns, seconds, styled};

/// Arguments of `deeprc task`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Run a program as a task of N ranks that find each other as torch.distributed ranks do
    Run(RunArgs),
    /// List the tasks of a run
    List(ListArgs),
    /// Print the logs of a run's tasks
    Log(LogArgs),
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    /// Number of ranks
    #[arg(short = 'n', long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    ranks: u32,
    /// Cores per rank
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    cores: u32,
    /// End it after this many seconds
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<f64>,
    /// The program and its arguments
    #[arg(required = true, last = true, value_name = "PROGRAM")]
    program: Vec<String>,
}

#[derive(Debug, clap::Args)]
struct Which {
    /// Run directory, its name, or `last`
    #[arg(default_value = "last")]
    run: String,
    /// Directory of the runs
    #[arg(long, value_name = "DIR", default_value = "runs")]
    dir: PathBuf,
    /// Only tasks that failed
    #[arg(long)]
    failed: bool,
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    #[command(flatten)]
    which: Which,
    /// Print JSON on stdout
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct LogArgs {
    #[command(flatten)]
    which: Which,
    /// Only tasks of this stage
    #[arg(long, value_name = "STAGE")]
    stage: Option<String>,
}

/// Runs the chosen command.
pub fn main(args: Args, printer: Printer) -> Exit {
    match args.command {
        Command::Run(args) => run(&args, printer).unwrap_or_else(|error| {
            printer.error(&error, error.hint());
            match error {
                Error::Invalid { .. } => Exit::Usage,
                _ => Exit::Resources,
            }
        }),
        Command::List(args) => list(&args, printer).unwrap_or_else(|exit| exit),
        Command::Log(args) => log(&args, printer).unwrap_or_else(|exit| exit),
    }
}

fn run(args: &RunArgs, printer: Printer) -> Result<Exit, Error> {
    let (program, arguments) = args.program.split_first().expect("clap requires a program");
    let here = std::env::current_dir().and_then(|here| Ok((here, crate::executables::deeprc()?)));
    let (here, deeprc) = here.map_err(|source| Error::Io { action: "find", path: ".".into(), source })?;
    let scratch = std::env::temp_dir().join(format!("deeprc-task-{}", std::process::id()));
    let agent = [deeprc.display().to_string(), "agent".into()];
    let session = Session::start(SessionOptions::new(&scratch, agent))?;
    let canceled = Arc::new(AtomicBool::new(false));
    let flag = canceled.clone();
    crate::interrupt::watch(printer, move || flag.store(true, Ordering::SeqCst));

    let mut task = TaskDescription::executable(name_of(program), program, arguments.to_vec()).ranks(args.ranks, args.cores).in_dir(here);
    task.timeout = args.timeout.map(Duration::from_secs_f64);
    let logs = |id: TaskId| Logs::new(&scratch, id, &task.name, args.ranks);
    let done = session.submit(task.clone()).and_then(|id| follow(&session, id, logs(id), &canceled, printer));
    let closed = session.close();
    let report = done?;
    closed?;
    // The logs were printed whole; nobody will look for them in a directory of this process.
    let _ = std::fs::remove_dir_all(&scratch);
    Ok(end(&report, printer))
}

fn name_of(program: &str) -> String {
    Path::new(program).file_name().map_or(program.into(), |name| name.to_string_lossy().into_owned())
}

/// Prints what the ranks write until the task has ended.
fn follow(session: &Session, id: TaskId, mut logs: Logs, canceled: &AtomicBool, printer: Printer) -> Result<TaskReport, Error> {
    let mut asked = false;
    loop {
        match session.wait(id, Duration::from_millis(50)) {
            Err(Error::Timeout { .. }) => logs.print(false, printer),
            Err(error) => return Err(error),
            Ok(report) => {
                logs.print(true, printer);
                return Ok(report);
            }
        }
        if !asked && canceled.load(Ordering::SeqCst) {
            asked = true;
            session.cancel(id);
        }
    }
}

fn end(report: &TaskReport, printer: Printer) -> Exit {
    match &report.outcome {
        Outcome::Done => {
            let overhead = report.times.overhead().map_or(String::new(), |time| format!(", overhead {}", seconds(time)));
            printer.talk(styled(SOFT, format_args!("done in {}{overhead}", seconds(report.times.run()))));
            Exit::Done
        }
        Outcome::Failed(failure) => {
            printer.error(format_args!("{}: {failure}", report.name), None);
            Exit::Task
        }
        Outcome::Canceled => {
            printer.talk("canceled");
            Exit::Interrupted
        }
    }
}

/// The log files of a task's ranks, printed as they grow: stdout to stdout, stderr to stderr, whole lines.
struct Logs {
    files: Vec<LogFile>,
    several: bool,
}

struct LogFile {
    path: PathBuf,
    rank: u32,
    error: bool,
    read: u64,
    /// A line whose end was not written yet.
    rest: Vec<u8>,
}

impl Logs {
    fn new(session: &Path, id: TaskId, name: &str, ranks: u32) -> Self {
        let dir = session.join("tasks").join(format!("{id}-{name}"));
        let file = |rank, error| {
            let end = if error { "err" } else { "out" };
            LogFile { path: dir.join(format!("rank-{rank}.{end}")), rank, error, read: 0, rest: Vec::new() }
        };
        let files = (0..ranks).flat_map(|rank| [file(rank, false), file(rank, true)]).collect();
        Self { files, several: ranks > 1 }
    }

    fn print(&mut self, ended: bool, printer: Printer) {
        for file in &mut self.files {
            let prefix = if self.several { format!("{} | ", file.rank) } else { String::new() };
            file.print(&prefix, ended, printer);
        }
    }
}

impl LogFile {
    fn print(&mut self, prefix: &str, ended: bool, printer: Printer) {
        let grown = File::open(&self.path).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.read))?;
            file.read_to_end(&mut self.rest)
        });
        self.read += grown.unwrap_or(0) as u64;
        let whole = match self.rest.iter().rposition(|&byte| byte == b'\n') {
            _ if ended => self.rest.len(),
            Some(at) => at + 1,
            None => 0,
        };
        for line in self.rest[..whole].split_inclusive(|&byte| byte == b'\n') {
            let mut text = prefix.as_bytes().to_vec();
            text.extend_from_slice(line);
            printer.raw(&text, self.error);
        }
        self.rest.drain(..whole);
    }
}

/// Directory and chosen tasks of a run.
fn tasks(which: &Which, printer: Printer) -> Result<(PathBuf, Vec<TaskRecord>), Exit> {
    let (dir, record) = super::report::open(&which.dir, &which.run, printer)?;
    let chosen = record.tasks.into_iter().filter(|task| !which.failed || task.outcome == "failed");
    Ok((dir, chosen.collect()))
}

fn list(args: &ListArgs, printer: Printer) -> Result<Exit, Exit> {
    let (_, tasks) = tasks(&args.which, printer)?;
    if args.json {
        printer.json(&tasks);
        return Ok(Exit::Done);
    }
    let head = ["pipeline", "stage", "attempt", "ranks", "run", "overhead", "outcome"];
    let mut rows = vec![head.map(String::from).to_vec()];
    rows.extend(tasks.iter().map(row));
    let lines = columns(&rows);
    printer.data(styled(BOLD, &lines[0]));
    lines[1..].iter().for_each(|line| printer.data(line));
    Ok(Exit::Done)
}

fn row(task: &TaskRecord) -> Vec<String> {
    let run = task.times.connected.zip(task.times.ended).map(|(from, to)| seconds(to - from));
    let overhead = task.overhead_ms.map(|ms| format!("{ms:.1} ms"));
    let absent = || "-".to_string();
    vec![
        task.pipeline.clone(),
        task.stage.clone(),
        task.attempt.to_string(),
        task.ranks.to_string(),
        run.unwrap_or_else(absent),
        overhead.unwrap_or_else(absent),
        task.outcome.clone(),
    ]
}

fn log(args: &LogArgs, printer: Printer) -> Result<Exit, Exit> {
    let (dir, tasks) = tasks(&args.which, printer)?;
    // `--stage fit` means all cells of its matrix, `--stage fit[nhits]` one of them.
    let wanted =
        |task: &TaskRecord| args.stage.as_ref().is_none_or(|stage| task.stage == *stage || task.stage.split('[').next() == Some(stage));
    let mut printed = 0;
    for log in tasks.iter().filter(|task| wanted(task)).flat_map(|task| &task.logs) {
        let Ok(bytes) = std::fs::read(dir.join(log)) else { continue };
        if !bytes.is_empty() {
            printer.talk(styled(SOFT, format_args!("==> {}", log.display())));
            printer.raw(&bytes, false);
            printed += 1;
        }
    }
    if printed == 0 {
        printer.talk("these tasks wrote nothing");
    }
    Ok(Exit::Done)
}
