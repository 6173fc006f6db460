//! Keeps the record of a run and writes it to `run.json` as it grows.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use deeprc_pilot::{Outcome, TaskReport};

use super::status_of;
use crate::check::available;
use crate::diagnostic::Diagnostic;
use crate::observe::{Observer, RunEvent};
use crate::options::RunOptions;
use crate::plan::{Plan, Planned};
use crate::record::{
    EnvironmentRecord, OverheadRecord, PipelineRecord, RUN_RECORD_VERSION, RunError, RunRecord, RunStatus, StageRecord, StageStatus,
    TaskRecord, TaskTimesRecord,
};
use crate::spec::Pipeline;

/// A run is written to disk at most this often while only trainings go on.
const WRITE_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Ledger {
    pub record: RunRecord,
    started: SystemTime,
    written: Instant,
    overheads: Vec<f64>,
}

impl Ledger {
    pub fn new(pipelines: &[Pipeline], options: &RunOptions) -> Ledger {
        let machine = available(options);
        let dir = std::path::absolute(&options.dir).unwrap_or_else(|_| options.dir.clone());
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let file = |pipeline: &Pipeline| PipelineRecord {
            name: pipeline.name().to_owned(),
            file: pipeline.file().to_owned(),
            toml: pipeline.text().to_owned(),
        };
        let record = RunRecord {
            version: RUN_RECORD_VERSION,
            name: dir.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
            dir: options.dir.clone(),
            status: RunStatus::Running,
            started_unix: options.started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
            seconds: 0.0,
            pipelines: pipelines.iter().map(file).collect(),
            stages: Vec::new(),
            tasks: Vec::new(),
            metrics: Vec::new(),
            curves: Vec::new(),
            forecasts: Vec::new(),
            trials: Vec::new(),
            errors: Vec::new(),
            first_task_ms: None,
            first_step_ms: None,
            overhead_ms: OverheadRecord::default(),
            environment: EnvironmentRecord {
                host: host.trim().to_owned(),
                cores: machine.cores,
                memory: machine.memory,
                deeprc: env!("CARGO_PKG_VERSION").to_owned(),
                command_line: options.command_line.clone(),
                more: Default::default(),
            },
        };
        Ledger { record, started: options.started, written: Instant::now(), overheads: Vec::new() }
    }

    /// Lists the stages as waiting, one record per task of the plan, in its order.
    pub fn planned(&mut self, plan: &Plan) {
        let stage = |task: &Planned| {
            let told = task.announce(plan);
            StageRecord {
                pipeline: told.pipeline,
                stage: told.stage,
                kind: told.kind,
                needs: told.needs,
                status: StageStatus::Waiting,
                seconds: 0.0,
                rows: None,
                reason: None,
                error: None,
            }
        };
        self.record.stages = plan.tasks.iter().map(stage).collect();
        self.write();
    }

    pub fn rejected(&mut self, pipeline: &str, faults: &[Diagnostic]) {
        self.record.errors.extend(faults.iter().map(|fault| RunError::from_diagnostic(pipeline, fault)));
    }

    /// Seconds since the start of the run.
    pub fn now(&self) -> f64 {
        self.started.elapsed().unwrap_or_default().as_secs_f64()
    }

    /// Adds a task. `offset` is when its session started, in seconds since the start of the run.
    pub fn task(&mut self, task: &Planned, report: &TaskReport, offset: f64) {
        let times = &report.times;
        let at = |seconds: f64| seconds + offset;
        let ran = matches!(report.outcome, Outcome::Done);
        let overhead_ms = times.overhead().filter(|_| ran).map(|seconds| seconds * 1000.0);
        self.overheads.extend(overhead_ms);
        self.record.overhead_ms = overhead(&self.overheads);
        if let Some(started) = times.started {
            let first = at(started) * 1000.0;
            self.record.first_task_ms = Some(self.record.first_task_ms.map_or(first, |before| before.min(first)));
        }
        self.record.tasks.push(TaskRecord {
            pipeline: task.pipeline.clone(),
            stage: task.stage.clone(),
            name: report.name.clone(),
            attempt: report.attempt,
            ranks: task.resources.ranks.value,
            cores: task.resources.cores.value,
            times: TaskTimesRecord {
                submitted: Some(at(times.submitted)),
                placed: times.placed.map(at),
                started: times.started.map(at),
                connected: times.connected.map(at),
                ended: times.ended.map(at),
                reported: Some(at(times.reported)),
            },
            overhead_ms,
            outcome: match &report.outcome {
                Outcome::Done => "done",
                Outcome::Failed(_) => "failed",
                Outcome::Canceled => "canceled",
            }
            .to_owned(),
            logs: report.logs.clone(),
        });
    }

    /// The first training step of the run began at this moment (seconds since 1970).
    pub fn first_step(&mut self, unix: f64) {
        let first = (unix - self.record.started_unix) * 1000.0;
        self.record.first_step_ms = Some(self.record.first_step_ms.map_or(first, |before| before.min(first)));
    }

    pub fn end(&mut self, status: RunStatus) {
        self.record.status = if status == RunStatus::Done { status_of(&self.record) } else { status };
        self.write();
    }

    /// Ends a run in which nothing could run.
    pub fn stillborn(mut self, error: RunError, observer: &dyn Observer) -> RunRecord {
        self.record.errors.push(error);
        for stage in &mut self.record.stages {
            stage.status = StageStatus::Skipped;
            stage.reason = Some("the session did not start".to_owned());
        }
        self.end(RunStatus::Failed);
        observer.event(&RunEvent::RunEnded { status: self.record.status, seconds: self.record.seconds });
        self.record
    }

    /// Writes `run.json` if that was long ago.
    pub fn write_now_and_then(&mut self) {
        if self.written.elapsed() > WRITE_EVERY {
            self.write();
        }
    }

    /// Writes `run.json`.
    pub fn write(&mut self) {
        self.record.seconds = self.now();
        self.written = Instant::now();
        if let Err(error) = self.record.write() {
            let place: PathBuf = self.record.dir.join("run.json");
            let message = format!("cannot write {}: {error}", place.display());
            // Said once; the run itself goes on.
            if !self.record.errors.iter().any(|said| said.message == message) {
                self.record.errors.push(super::failure::plain(message, crate::diagnostic::Exit::Resources));
            }
        }
    }
}

fn overhead(all: &[f64]) -> OverheadRecord {
    let mut sorted = all.to_vec();
    sorted.sort_by(f64::total_cmp);
    let median = match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[odd / 2]),
        even => Some((sorted[even / 2 - 1] + sorted[even / 2]) / 2.0),
    };
    OverheadRecord { median, max: sorted.last().copied() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overhead_is_median_and_largest() {
        assert_eq!(overhead(&[]), OverheadRecord { median: None, max: None });
        assert_eq!(overhead(&[3.0, 1.0, 8.0]), OverheadRecord { median: Some(3.0), max: Some(8.0) });
        assert_eq!(overhead(&[3.0, 1.0]), OverheadRecord { median: Some(2.0), max: Some(3.0) });
    }
}
