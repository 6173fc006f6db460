//! `run.json`: everything that a run leaves to its readers (report, `--json`, `--resume`).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::diagnostic::{Diagnostic, Exit};

/// Version of the format of `run.json`; raised with every change that an older reader cannot read.
pub const RUN_RECORD_VERSION: u32 = 1;

/// How a run ended, or that it has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunStatus {
    /// It still runs, or was killed.
    Running,
    /// Every stage is done or reused.
    Done,
    /// At least one pipeline was rejected or one stage failed.
    Failed,
    /// It was ended early; `--resume` goes on.
    Interrupted,
}

/// How a stage ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StageStatus {
    /// Not started yet.
    Waiting,
    /// Its task was submitted.
    Running,
    /// Finished in this run.
    Done,
    /// Its task failed.
    Failed,
    /// Finished in an earlier run in the same directory.
    Reused,
    /// Not run, because something before it failed or the run was ended.
    Skipped,
}

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// [`RUN_RECORD_VERSION`].
    pub version: u32,
    /// Name of the run directory, e.g. `ett-3`.
    pub name: String,
    /// The run directory.
    pub dir: PathBuf,
    /// How it ended.
    pub status: RunStatus,
    /// Start, in seconds since 1970.
    pub started_unix: f64,
    /// Duration in seconds.
    pub seconds: f64,
    /// The pipeline files.
    pub pipelines: Vec<PipelineRecord>,
    /// The stages, matrix expanded.
    pub stages: Vec<StageRecord>,
    /// The tasks, one per attempt that was reported.
    pub tasks: Vec<TaskRecord>,
    /// What the `evaluate` stages found.
    pub metrics: Vec<MetricRecord>,
    /// Losses of the `train` stages.
    pub curves: Vec<Curve>,
    /// A readable selection of the forecasts, for the plots.
    pub forecasts: Vec<ForecastRecord>,
    /// Trials of searches, in the order in which they ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trials: Vec<TrialRecord>,
    /// What went wrong.
    pub errors: Vec<RunError>,
    /// From the start of the run to the first running task, in milliseconds.
    pub first_task_ms: Option<f64>,
    /// From the start of the run to the first training step, in milliseconds.
    pub first_step_ms: Option<f64>,
    /// Overhead of the runtime per task.
    pub overhead_ms: OverheadRecord,
    /// Where it ran.
    pub environment: EnvironmentRecord,
}

/// One pipeline file, as it was when the run started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PipelineRecord {
    /// Its name.
    pub name: String,
    /// Its file.
    pub file: PathBuf,
    /// Its text.
    pub toml: String,
}

/// One stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageRecord {
    /// Name of its pipeline.
    pub pipeline: String,
    /// Its label, e.g. `fit[nhits]`.
    pub stage: String,
    /// Its kind, e.g. `train`.
    pub kind: String,
    /// Labels of the stages that it needs.
    pub needs: Vec<String>,
    /// How it ended.
    pub status: StageStatus,
    /// Duration in seconds, from submission to end.
    pub seconds: f64,
    /// Rows of the table that it made.
    pub rows: Option<u64>,
    /// Why it ran again, was reused or was skipped.
    pub reason: Option<String>,
    /// Why it failed.
    pub error: Option<String>,
}

/// Moments of a task in seconds since the start of the run; `None` where it never came to that.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskTimesRecord {
    /// Handed to the session.
    pub submitted: Option<f64>,
    /// Resources assigned.
    pub placed: Option<f64>,
    /// All ranks are up.
    pub started: Option<f64>,
    /// The communicator is built on all ranks.
    pub connected: Option<f64>,
    /// All ranks are finished.
    pub ended: Option<f64>,
    /// The client knows.
    pub reported: Option<f64>,
}

/// One task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskRecord {
    /// Name of its pipeline.
    pub pipeline: String,
    /// Label of its stage.
    pub stage: String,
    /// Its name in the session.
    pub name: String,
    /// From 1.
    pub attempt: u32,
    /// Number of ranks.
    pub ranks: u32,
    /// Cores per rank.
    pub cores: u32,
    /// Its moments.
    pub times: TaskTimesRecord,
    /// Everything but the work itself and the wait for resources: start, communicator, report.
    pub overhead_ms: Option<f64>,
    /// `done`, `failed` or `canceled`.
    pub outcome: String,
    /// Its log files.
    pub logs: Vec<PathBuf>,
}

/// One number that tells how good a model is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricRecord {
    /// Name of its pipeline.
    pub pipeline: String,
    /// Label of the `evaluate` stage.
    pub stage: String,
    /// The model's name, or the label of its training (`fit[nhits]`) where a name occurs twice in a pipeline, or the baseline's.
    pub model: String,
    /// The series; `None` over all of them.
    pub series: Option<String>,
    /// The target column; `None`: the mean over several targets.
    pub target: Option<String>,
    /// Name of the metric, e.g. `mse`; `nse_median`, `nse_mean` summarise series.
    pub metric: String,
    /// Its value; `None` where it is not defined (NSE of constant observations).
    pub value: Option<f64>,
}

/// Losses of one training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// Name of its pipeline.
    pub pipeline: String,
    /// Model as in [`MetricRecord`].
    pub model: String,
    /// (step, loss) of training.
    pub train: Vec<(u64, f64)>,
    /// (step, loss) of validation.
    pub valid: Vec<(u64, f64)>,
    /// Trained numbers of the network.
    #[serde(default)]
    pub parameters: Option<u64>,
    /// Steps taken, those before a resume left out, per second of stepping: validation and checkpoints left out.
    #[serde(default)]
    pub steps_per_second: Option<f64>,
    /// Step of the lowest validation loss.
    #[serde(default)]
    pub best_step: Option<u64>,
}

/// Forecasts of one series beside the observations, all four columns of one length.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ForecastRecord {
    /// Name of its pipeline.
    pub pipeline: String,
    /// Model as in [`MetricRecord`].
    pub model: String,
    /// The series.
    pub series: String,
    /// The target column.
    pub target: String,
    /// Stamps, ISO 8601.
    pub ds: Vec<String>,
    /// Observations.
    pub y: Vec<Option<f64>>,
    /// Forecasts.
    pub yhat: Vec<Option<f64>>,
    /// The baseline's forecasts; empty without baseline.
    pub baseline: Vec<Option<f64>>,
}

/// One trial of a search for good options.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrialRecord {
    /// Name of its pipeline.
    pub pipeline: String,
    /// Label of its task: `fit[trial=3]`, or `fit[rung=1,place=0]` for one that went on.
    pub stage: String,
    /// The rung of the ladder: 0 for a fresh trial.
    pub rung: usize,
    /// What was drawn.
    pub options: Map<String, Value>,
    /// Its last validation loss; `None` if it diverged.
    pub loss: Option<f64>,
    /// Steps trained in all.
    pub steps: u64,
}

/// One thing that went wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunError {
    /// Name of the pipeline.
    pub pipeline: String,
    /// Label of the stage, where one is to blame.
    pub stage: Option<String>,
    /// What went wrong.
    pub message: String,
    /// The way out.
    pub hint: Option<String>,
    /// The rank that failed.
    pub rank: Option<u32>,
    /// The last lines of its stderr.
    pub stderr_tail: Option<String>,
    /// Where in which file: `file:line:column` of a pipeline file or of data.
    pub at: Option<String>,
    /// Which exit code it leads to.
    pub exit: Exit,
}

impl RunError {
    /// A fault of the pipeline file as an error of the run.
    pub fn from_diagnostic(pipeline: &str, fault: &Diagnostic) -> RunError {
        RunError {
            pipeline: pipeline.to_owned(),
            stage: None,
            message: fault.message.clone(),
            hint: fault.hint.clone(),
            rank: None,
            stderr_tail: None,
            at: Some(format!("{}:{}:{}", fault.file.display(), fault.line, fault.column)),
            exit: fault.exit,
        }
    }
}

/// Overhead per task over all tasks of the run, in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OverheadRecord {
    /// Median.
    pub median: Option<f64>,
    /// Largest.
    pub max: Option<f64>,
}

/// Where a run took place.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EnvironmentRecord {
    /// Host name.
    pub host: String,
    /// Cores that the run may use.
    pub cores: u32,
    /// Memory in MiB.
    pub memory: u64,
    /// Version of deeprc.
    pub deeprc: String,
    /// The command line.
    pub command_line: Vec<String>,
    /// Further facts, e.g. versions.
    #[serde(default)]
    pub more: BTreeMap<String, String>,
}

impl RunRecord {
    /// Reads `run.json` of a run directory.
    ///
    /// # Errors
    /// The file is absent or not a record of this version.
    pub fn read(dir: &Path) -> io::Result<RunRecord> {
        let record: RunRecord = serde_json::from_slice(&fs::read(dir.join("run.json"))?)?;
        if record.version != RUN_RECORD_VERSION {
            let message = format!("run.json of {} has version {}, this deeprc reads {RUN_RECORD_VERSION}", dir.display(), record.version);
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(record)
    }

    /// Writes `run.json` into the run directory: whole or not at all.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn write(&self) -> io::Result<()> {
        let fresh = self.dir.join(".run.json.new");
        fs::write(&fresh, serde_json::to_vec(self)?)?;
        fs::rename(fresh, self.dir.join("run.json"))
    }

    /// The worst exit code that the errors ask for: 0 done, 1 a task failed, 2 configuration, 3 resources, 130 interrupted.
    pub fn exit_code(&self) -> u8 {
        let code = |error: &RunError| match error.exit {
            Exit::Task => 1,
            Exit::Config => 2,
            Exit::Resources => 3,
        };
        match self.status {
            RunStatus::Interrupted => 130,
            RunStatus::Done => 0,
            RunStatus::Running | RunStatus::Failed => self.errors.iter().map(code).max().unwrap_or(1),
        }
    }
}
