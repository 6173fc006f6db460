//! `deeprc run`: pipelines from files to report.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::Parser;
use deeprc_pipeline::{Diagnostic, Executables, MetricRecord, Pipeline, RunError, RunOptions, RunRecord, RunStatus, run, run_directory};
use serde_json::{Value, json};

use crate::executables;
use crate::exit::Exit;
use crate::printer::{BOLD, ERROR, GOOD, Printer, SOFT, WAIT, seconds, styled};
use crate::progress::Progress;

/// Arguments of `deeprc run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Pipeline files; with `--resume` alone, those of the run
    #[arg(value_name = "FILE", required_unless_present = "resume")]
    files: Vec<PathBuf>,
    /// Change a parameter (`source=loads.csv`) or an option (`fit.max_steps=50`) of the files
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = super::assignment)]
    set: Vec<(String, String)>,
    /// Go on with a run: keep what is finished, continue trainings at their last checkpoint
    #[arg(long, value_name = "RUN|last", num_args = 0..=1, default_missing_value = "last")]
    resume: Option<String>,
    #[command(flatten)]
    how: How,
}

/// Where a run goes, what it may use and what it says.
#[derive(Debug, clap::Args)]
pub struct How {
    /// Directory of the runs
    #[arg(long, value_name = "DIR", default_value = "runs")]
    dir: PathBuf,
    /// Print one JSON object on stdout when the run has ended
    #[arg(long)]
    json: bool,
    /// Say nothing while it runs
    #[arg(long)]
    no_progress: bool,
    /// Use this many cores instead of all
    #[arg(long, value_name = "N")]
    cores: Option<u32>,
}

/// Only to read the command line of an earlier run again.
#[derive(Debug, Parser)]
#[command(name = "deeprc")]
struct Earlier {
    #[command(subcommand)]
    command: EarlierCommand,
}

#[derive(Debug, clap::Subcommand)]
enum EarlierCommand {
    Run(Args),
}

/// Runs the pipelines; prints metrics, errors and where the report is.
pub fn main(mut args: Args, printer: Printer) -> Exit {
    // `--resume pipeline.toml`: the file is a pipeline, not the run to go on with.
    if let Some(value) = args.resume.take_if(|value| Path::new(value.as_str()).is_file()) {
        args.files.insert(0, PathBuf::from(value));
        args.resume = Some("last".into());
    }
    match prepare(&mut args, printer) {
        Ok(prepared) => execute(prepared, &args.how, printer),
        Err(exit) => exit,
    }
}

/// Runs a pipeline that no file holds yet: it is written into the directory of its run.
pub fn written(name: &str, text: &str, how: &How, printer: Printer) -> Exit {
    let made = run_directory(&how.dir, &[name], false).and_then(|dir| {
        let file = dir.join("pipeline.toml");
        std::fs::write(&file, text)?;
        Ok((RunOptions::new(dir, executables()?), file))
    });
    let (mut options, file) = match made {
        Ok(made) => made,
        Err(error) => return unusable(&how.dir, &error, printer),
    };
    options.cores = how.cores;
    match Pipeline::load(&file, &[]) {
        Ok(pipeline) => execute(Prepared { pipelines: vec![pipeline], rejected: Vec::new(), options }, how, printer),
        Err(faults) => {
            faults.iter().for_each(|fault| printer.rendered(format_args!("{fault}\n\n")));
            // Nothing ran, so there is no run to keep.
            let _ = std::fs::remove_dir_all(&options.dir);
            super::check::worst(&faults)
        }
    }
}

fn unusable(dir: &Path, error: &std::io::Error, printer: Printer) -> Exit {
    printer.error(format_args!("cannot use the directory {}: {error}", dir.display()), Some("`--dir` names another one"));
    Exit::Resources
}

/// What is known before anything runs.
struct Prepared {
    pipelines: Vec<Pipeline>,
    /// Faults of the files that could not be read as pipelines.
    rejected: Vec<(PathBuf, Vec<Diagnostic>)>,
    options: RunOptions,
}

fn prepare(args: &mut Args, printer: Printer) -> Result<Prepared, Exit> {
    let earlier = match args.resume.clone() {
        Some(run) if run != "last" || args.files.is_empty() => Some(earlier_run(args, &run, printer)?),
        _ => None,
    };
    let (mut pipelines, mut rejected) = (Vec::new(), Vec::new());
    for file in &args.files {
        match Pipeline::load(file, &args.set) {
            Ok(pipeline) => pipelines.push(pipeline),
            Err(faults) => rejected.push((file.clone(), faults)),
        }
    }
    for fault in rejected.iter().flat_map(|(_, faults)| faults) {
        printer.rendered(format_args!("{fault}\n\n"));
    }
    if pipelines.is_empty() {
        let faults: Vec<Diagnostic> = rejected.into_iter().flat_map(|(_, faults)| faults).collect();
        if args.how.json {
            let errors: Vec<RunError> = faults.iter().map(|fault| RunError::from_diagnostic(&name_of(&fault.file), fault)).collect();
            printer.json(&json!({
                "run": null, "status": "failed", "seconds": 0.0, "tasks": 0, "overhead_ms": {"median": null, "max": null},
                "first_task_ms": null, "first_step_ms": null, "metrics": [], "errors": errors,
            }));
        }
        return Err(super::check::worst(&faults));
    }
    let directory = match earlier {
        Some(dir) => Ok(dir),
        None => {
            let names: Vec<&str> = pipelines.iter().map(Pipeline::name).collect();
            run_directory(&args.how.dir, &names, args.resume.is_some())
        }
    };
    let options = directory.and_then(|dir| Ok(RunOptions::new(dir, executables()?)));
    let mut options = options.map_err(|error| unusable(&args.how.dir, &error, printer))?;
    options.resume = args.resume.is_some();
    options.cores = args.how.cores;
    if options.resume {
        options.command_line = command_line(args);
    }
    Ok(Prepared { pipelines, rejected, options })
}

/// The directory to go on in; files and options that the command line leaves out are those of that run.
fn earlier_run(args: &mut Args, run: &str, printer: Printer) -> Result<PathBuf, Exit> {
    let (dir, record) = super::report::open(&args.how.dir, run, printer)?;
    if !args.files.is_empty() {
        return Ok(dir);
    }
    // The record of a run that was started from Rust or Python holds another command line.
    if let Ok(Earlier { command: EarlierCommand::Run(earlier) }) = Earlier::try_parse_from(&record.environment.command_line) {
        args.files = earlier.files;
        args.set.splice(0..0, earlier.set);
        args.how.cores = args.how.cores.or(earlier.how.cores);
    }
    if args.files.is_empty() {
        args.files = record.pipelines.into_iter().map(|pipeline| pipeline.file).collect();
    }
    Ok(dir)
}

/// The command line with what a resumed run took over, so that it can be resumed again.
fn command_line(args: &Args) -> Vec<String> {
    let given = std::env::args().next().unwrap_or_else(|| "deeprc".into());
    let mut words = vec![given, "run".into()];
    words.extend(args.files.iter().map(|file| file.display().to_string()));
    words.extend(args.set.iter().flat_map(|(key, value)| ["--set".into(), format!("{key}={value}")]));
    words.extend(args.how.cores.iter().flat_map(|cores| ["--cores".into(), cores.to_string()]));
    words.extend(args.resume.iter().flat_map(|run| ["--resume".into(), run.clone()]));
    words
}

/// The programs that a run starts.
pub fn executables() -> std::io::Result<Executables> {
    let deeprc = executables::deeprc()?;
    Ok(Executables { forecast: executables::forecast(&deeprc), python: executables::python(), deeprc })
}

fn name_of(file: &Path) -> String {
    file.file_stem().unwrap_or(file.as_os_str()).to_string_lossy().into_owned()
}

fn execute(prepared: Prepared, how: &How, printer: Printer) -> Exit {
    let Prepared { pipelines, rejected, options } = prepared;
    let cancel = options.cancel.clone();
    crate::interrupt::watch(printer, move || cancel.cancel());
    let progress = Progress::new(printer, how.no_progress, pipelines.len() + rejected.len() > 1);
    let mut record = run(pipelines, &options, &progress);
    let told = progress.finish();
    if !rejected.is_empty() {
        let errors = rejected.iter().flat_map(|(file, faults)| faults.iter().map(|fault| RunError::from_diagnostic(&name_of(file), fault)));
        record.errors.extend(errors);
        if record.status == RunStatus::Done {
            record.status = RunStatus::Failed;
        }
        if let Err(error) = record.write() {
            printer.error(format_args!("cannot write {}: {error}", options.dir.join("run.json").display()), None);
        }
    }
    let report = crate::report::write(&record, &options.dir);
    for error in record.errors.iter().filter(|error| !told.contains(error) && !rejected_here(error, &rejected)) {
        print_error(error, printer);
    }
    match how.json {
        true => printer.json(&summary(&record)),
        false => print_metrics(&record, printer),
    }
    print_end(&record, &options.dir, report, printer);
    exit_of(&record)
}

fn rejected_here(error: &RunError, rejected: &[(PathBuf, Vec<Diagnostic>)]) -> bool {
    let same = |file: &Path, fault: &Diagnostic| *error == RunError::from_diagnostic(&name_of(file), fault);
    rejected.iter().any(|(file, faults)| faults.iter().any(|fault| same(file, fault)))
}

/// The object of `--json`. Metrics over all series are in `metrics`; where every series was scored, each one's are in
/// `metrics_by_series`. A row says its `stage` or `target` only where there are several.
pub fn summary(record: &RunRecord) -> Value {
    let rows = |each: bool| -> Vec<Value> {
        record.metrics.iter().filter(|metric| metric.series.is_some() == each).map(|metric| metric_row(record, metric)).collect()
    };
    let mut object = json!({
        "run": record.dir,
        "status": match record.status { RunStatus::Done => "done", _ => "failed" },
        "seconds": record.seconds,
        "tasks": record.tasks.len(),
        "overhead_ms": { "median": record.overhead_ms.median, "max": record.overhead_ms.max },
        "first_task_ms": record.first_task_ms,
        "first_step_ms": record.first_step_ms,
        "metrics": rows(false),
        "errors": record.errors,
    });
    let each = rows(true);
    if !each.is_empty() {
        object["metrics_by_series"] = each.into();
    }
    object
}

fn metric_row(record: &RunRecord, metric: &MetricRecord) -> Value {
    let mut row = json!({"pipeline": metric.pipeline, "model": metric.model, "metric": metric.metric, "value": metric.value});
    if let Some(series) = &metric.series {
        row["series"] = series.as_str().into();
    }
    let (stage, target) = (stages_of(record, metric).len() > 1, targets_of(record, metric).len() > 1);
    if stage {
        row["stage"] = metric.stage.as_str().into();
    }
    if let (true, Some(name)) = (target, &metric.target) {
        row["target"] = name.as_str().into();
    }
    row
}

/// The evaluations of the pipeline that the metric is of.
fn stages_of<'a>(record: &'a RunRecord, metric: &MetricRecord) -> BTreeSet<&'a str> {
    record.metrics.iter().filter(|other| other.pipeline == metric.pipeline).map(|other| other.stage.as_str()).collect()
}

/// The targets of the evaluation that the metric is of; `None` is the mean over them.
fn targets_of<'a>(record: &'a RunRecord, metric: &MetricRecord) -> BTreeSet<Option<&'a str>> {
    let same = |other: &&MetricRecord| (&other.pipeline, &other.stage) == (&metric.pipeline, &metric.stage);
    record.metrics.iter().filter(same).map(|other| other.target.as_deref()).collect()
}

fn print_error(error: &RunError, printer: Printer) {
    let place = match &error.stage {
        Some(stage) => format!("{}/{stage}", error.pipeline),
        None => error.pipeline.clone(),
    };
    printer.error(format_args!("{}: {}", styled(BOLD, place), error.message), None);
    if let Some(at) = &error.at {
        printer.talk(format_args!("  --> {at}"));
    }
    if let Some(tail) = error.stderr_tail.as_deref().filter(|tail| !tail.trim().is_empty()) {
        let rank = error.rank.map_or(String::new(), |rank| format!(" of rank {rank}"));
        printer.talk(styled(SOFT, format_args!("   | last lines{rank}:")));
        tail.lines().for_each(|line| printer.talk(format_args!("   | {line}")));
    }
    if let Some(hint) = &error.hint {
        printer.hint(hint);
    }
    printer.talk("");
}

/// Models as rows, metrics as columns, a table for everything that may be compared.
fn print_metrics(record: &RunRecord, printer: Printer) {
    let mut groups: Groups = Vec::new();
    for metric in record.metrics.iter().filter(|metric| metric.series.is_none()) {
        let key = (&*metric.pipeline, &*metric.stage, metric.target.as_deref());
        match groups.iter_mut().find(|(known, _)| *known == key) {
            Some((_, rows)) => rows.push(metric),
            None => groups.push((key, vec![metric])),
        }
    }
    for ((pipeline, stage, target), rows) in groups {
        let mut title = pipeline.to_string();
        if stages_of(record, rows[0]).len() > 1 {
            title += &format!("/{stage}");
        }
        if targets_of(record, rows[0]).len() > 1 {
            title += &format!(" {}", target.unwrap_or("mean over the targets"));
        }
        print_table(title, &rows, printer);
    }
}

/// Pipeline, stage and target with their metrics, in the order of the record.
type Groups<'a> = Vec<((&'a str, &'a str, Option<&'a str>), Vec<&'a MetricRecord>)>;

fn print_table(title: String, rows: &[&MetricRecord], printer: Printer) {
    let (mut models, mut metrics): (Vec<&str>, Vec<&str>) = Default::default();
    for row in rows {
        if !models.contains(&&*row.model) {
            models.push(&row.model);
        }
        if !metrics.contains(&&*row.metric) {
            metrics.push(&row.metric);
        }
    }
    let value = |model: &str, metric: &str| {
        let found = rows.iter().find(|m| m.model == model && m.metric == metric).and_then(|m| m.value);
        found.map_or("-".to_string(), |value| format!("{value:.4}"))
    };
    let head = std::iter::once(title).chain(metrics.iter().map(|metric| metric.to_string()));
    let mut cells: Vec<Vec<String>> = vec![head.collect()];
    cells.extend(
        models.iter().map(|model| std::iter::once(model.to_string()).chain(metrics.iter().map(|metric| value(model, metric))).collect()),
    );
    let lines = crate::printer::columns(&cells);
    printer.data(styled(BOLD, &lines[0]));
    lines[1..].iter().for_each(|line| printer.data(line));
    printer.data("");
}

fn print_end(record: &RunRecord, dir: &Path, report: std::io::Result<PathBuf>, printer: Printer) {
    let sign = match record.status {
        RunStatus::Done => styled(GOOD, "✓ done"),
        RunStatus::Interrupted => styled(WAIT, "◼ interrupted"),
        RunStatus::Failed | RunStatus::Running => styled(ERROR, "✗ failed"),
    };
    let overhead = record.overhead_ms.median.map_or(String::new(), |ms| format!(", overhead per task {ms:.1} ms"));
    printer.talk(format_args!("{sign} in {}: {} tasks{overhead}", seconds(record.seconds), record.tasks.len()));
    match report {
        Ok(path) => printer.talk(format_args!("report: {}", path.display())),
        Err(error) => printer.error(format_args!("cannot write the report into {}: {error}", dir.display()), None),
    }
    if record.status != RunStatus::Done {
        printer.talk(format_args!("resume: deeprc run --resume {}", dir.display()));
    }
}

fn exit_of(record: &RunRecord) -> Exit {
    let code = record.exit_code();
    Exit::ALL.into_iter().find(|exit| exit.code() == code).unwrap_or(Exit::Task)
}
