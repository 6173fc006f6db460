//! What happens in a run, told while it happens.

use std::path::PathBuf;

use crate::diagnostic::Diagnostic;
use crate::record::RunStatus;

/// Receives the events of a run; called from the thread that called [`run`](crate::run) and never concurrently.
pub trait Observer: Sync {
    /// Something happened.
    fn event(&self, event: &RunEvent);
}

/// An observer that tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {
    fn event(&self, _: &RunEvent) {}
}

/// One stage of the plan, matrix expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedStage {
    /// Name of its pipeline.
    pub pipeline: String,
    /// Its label: `fit`, or `fit[nhits]` for one cell of a matrix.
    pub stage: String,
    /// `read`, `join`, `train`, …
    pub kind: String,
    /// Labels of the stages that it needs.
    pub needs: Vec<String>,
}

/// What happened. `stage` is the label of a [`PlannedStage`].
#[derive(Debug, Clone)]
pub enum RunEvent {
    /// The plan is made; nothing runs yet.
    RunStarted {
        /// The run directory.
        dir: PathBuf,
        /// All stages of all pipelines, in the order of their files.
        stages: Vec<PlannedStage>,
    },
    /// A pipeline will not run, because its check found faults. The others go on.
    PipelineRejected {
        /// Name of the pipeline.
        pipeline: String,
        /// All faults, in the order of the file.
        diagnostics: Vec<Diagnostic>,
    },
    /// The stage could start but does not yet.
    StageWaiting {
        /// Name of its pipeline.
        pipeline: String,
        /// Its label.
        stage: String,
        /// What it waits for, e.g. "1 core free, 2 needed".
        why: String,
    },
    /// The stage's task runs on all its ranks.
    StageStarted {
        /// Name of its pipeline.
        pipeline: String,
        /// Its label.
        stage: String,
        /// Number of ranks.
        ranks: u32,
        /// From 1; more after a retry.
        attempt: u32,
    },
    /// A training went on.
    StageProgress {
        /// Name of its pipeline.
        pipeline: String,
        /// Its label.
        stage: String,
        /// Steps done.
        step: u64,
        /// Steps to do.
        max_steps: u64,
        /// Latest training loss.
        train_loss: Option<f64>,
        /// Latest validation loss.
        valid_loss: Option<f64>,
    },
    /// A line that rank 0 of a `command` or `python` stage wrote to its stdout.
    StageOutput {
        /// Name of its pipeline.
        pipeline: String,
        /// Its label.
        stage: String,
        /// The line, without its end.
        line: String,
    },
    /// The stage was finished in an earlier run in this directory.
    StageReused {
        /// Name of its pipeline.
        pipeline: String,
        /// Its label.
        stage: String,
    },
    /// The stage ended.
    StageEnded {
        /// Name of its pipeline.
        pipeline: String,
        /// Its label.
        stage: String,
        /// From submission to end.
        seconds: f64,
        /// Rows of the table that it made.
        rows: Option<u64>,
        /// Why it failed.
        error: Option<String>,
    },
    /// The stage will not run.
    StageSkipped {
        /// Name of its pipeline.
        pipeline: String,
        /// Its label.
        stage: String,
        /// Which stage failed before it.
        reason: String,
    },
    /// Everything ended.
    RunEnded {
        /// How.
        status: RunStatus,
        /// Duration of the run.
        seconds: f64,
    },
}
