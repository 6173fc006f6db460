//! Pipelines: stages of data engineering, training and evaluation, written in one TOML file and run as tasks of a pilot session.
//!
//! What it is: the *System Bridge* of the Deep RC paper. It reads a pipeline file, says everything that is wrong with it at once
//! (with file, line and column), turns the stages into tasks with private communicators, runs independent stages side by side,
//! and keeps a [`RunRecord`] from which the report, `--json` and `--resume` are made.
//!
//! What it is not: it places no rank (that is `deeprc-pilot`), joins no row (that is `deeprc-table`, called by the stage functions
//! in [`functions`], which run in rank processes) and trains nothing (that is `deeprc-forecast`, in its own rank executable).
//!
//! ```no_run
//! use deeprc_pipeline::{Executables, Pipeline, RunOptions, Silent, run, run_directory};
//! let pipeline = Pipeline::load("pipelines/forecast.toml".as_ref(), &[]).map_err(|all| all[0].to_string()).unwrap();
//! let dir = run_directory("runs".as_ref(), &[pipeline.name()], false).unwrap();
//! let record = run(vec![pipeline], &RunOptions::new(dir, Executables::beside("target/release/deeprc")), &Silent);
//! println!("{:?}: {} tasks", record.status, record.tasks.len());
//! ```
//!
#![doc = include_str!("../FILE.md")]

pub mod camels;
mod check;
mod diagnostic;
mod export;
pub mod functions;
pub mod generate;
pub mod metric;
mod observe;
mod options;
mod plan;
mod record;
mod run;
mod spec;

pub use diagnostic::{Diagnostic, Exit};
pub use observe::{Observer, PlannedStage, RunEvent, Silent};
pub use options::{Cancel, Executables, RunOptions, run_directory};
pub use record::{
    Curve, EnvironmentRecord, ForecastRecord, MetricRecord, OverheadRecord, PipelineRecord, RUN_RECORD_VERSION, RunError, RunRecord,
    RunStatus, StageRecord, StageStatus, TaskRecord, TaskTimesRecord, TrialRecord,
};
pub use run::run;
pub use spec::Pipeline;
