//! The functions that a forecast rank serves, and the preparation of its process.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use deeprc_comm::Communicator;
use deeprc_loader::{Dataset, DatasetOptions, Part, Window};
use deeprc_pilot::rank::{FunctionError, Registry, TaskContext};
use deeprc_table::arrow::array::RecordBatch;
use deeprc_table::{Context, GlobalTable};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use crate::checkpoint::Checkpoint;
use crate::forecaster::Forecaster;
use crate::optimizer::Adam;
use crate::task::{
    CROSS_VALIDATION, CrossValidationResult, CrossValidationTask, Intervals, PREDICT, PredictResult, PredictTask, Progress, Rolling, TRAIN,
    TRIAL, TrainResult, TrainTask, TrialResult, TrialTask, Weights,
};
use crate::trainer::{Observer, Trainer};
use crate::{Error, Result, neural_forecast};

/// At most ten messages a second: a step may take less than a millisecond.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// The functions [`TRAIN`], [`PREDICT`] and [`CROSS_VALIDATION`].
pub fn registry() -> Registry {
    let mut registry = Registry::new();
    registry.register(TRAIN, |task, arguments| serve(task, arguments, train));
    registry.register(TRIAL, |task, arguments| serve(task, arguments, trial));
    registry.register(PREDICT, |task, arguments| serve(task, arguments, predict));
    registry.register(CROSS_VALIDATION, |task, arguments| serve(task, arguments, cross_validation));
    registry
}

/// Runs a step of a tiny model, so that the first real one finds libtorch's threads, kernels and memory in place.
///
/// On one thread: libtorch's other threads start when a task asks for them, and then on the cores of that task.
pub fn warm_up() {
    tch::set_num_threads(1);
    let x = Tensor::ones([64, 64], (Kind::Float, Device::Cpu));
    let weight = x.copy().set_requires_grad(true);
    let loss = x.linear(&weight, None::<&Tensor>).abs().mean(None::<Kind>);
    let gradients = Tensor::run_backward(&[&loss], &[&weight], false, false);
    let parameters = [weight];
    // A failure here would show again, with a task to report it to.
    let _ = Adam::new(&parameters, Device::Cpu).step(&parameters, &gradients, 0.0, 1.0);
}

/// One task on this rank.
struct Run<'a> {
    task: &'a TaskContext,
    comm: Communicator,
    threads: usize,
}

/// Reads the arguments, connects the ranks, runs `function`; an error here ends the other ranks' waits too.
fn serve<A: DeserializeOwned, R: serde::Serialize>(
    task: &TaskContext,
    arguments: Value,
    function: fn(&Run, &A) -> Result<R>,
) -> Result<Value, FunctionError> {
    let arguments: A = serde_json::from_value(arguments).map_err(|e| failure(&Error::Arguments { reason: e.to_string() }))?;
    // What the agent wrote into the environment: the rendezvous, and the transport that the stage asks for.
    let comm = Communicator::from_env().map_err(|e| failure(&Error::from(e)))?;
    task.connected();
    let threads = task.cores.len().max(1);
    tch::set_num_threads(threads as i32);
    let run = Run { task, comm, threads };
    // tch panics where libtorch throws; the message is the user's only clue.
    let outcome = catch_unwind(AssertUnwindSafe(|| function(&run, &arguments)));
    let result = outcome.unwrap_or_else(|panic| Err(Error::Torch { message: message(&*panic) }));
    match result {
        Ok(value) => serde_json::to_value(value).map_err(|e| FunctionError::new(e.to_string())),
        Err(error) => {
            run.comm.abort(&error.to_string());
            Err(failure(&error))
        }
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("panicked").to_owned()
}

fn failure(error: &Error) -> FunctionError {
    let mut detail = match error {
        Error::Table(error) => error.detail(),
        _ => json!({}),
    };
    if let Some(fields) = detail.as_object_mut() {
        if let Some(hint) = error.hint() {
            fields.insert("hint".to_owned(), hint.into());
        }
        if error.is_secondary() {
            fields.insert("secondary".to_owned(), true.into());
        }
    }
    FunctionError::new(with_sources(error)).with_detail(detail)
}

/// The message with its reasons, outermost first.
fn with_sources(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(reason) = source {
        let reason_text = reason.to_string();
        if !text.ends_with(&reason_text) {
            text = format!("{text}: {reason_text}");
        }
        source = reason.source();
    }
    text
}

impl Run<'_> {
    fn device(&self) -> Device {
        match self.task.gpus.is_empty() || !tch::Cuda::is_available() {
            true => Device::Cpu,
            // CUDA_VISIBLE_DEVICES holds this rank's devices only.
            false => Device::Cuda(0),
        }
    }

    fn dataset(&self, table: &Path, options: &DatasetOptions) -> Result<(Dataset, Value)> {
        let table = GlobalTable::map(table)?;
        let dataset = Dataset::from_batches(table.batches(), options)?;
        Ok((dataset, table.metadata().clone()))
    }
}

fn train(run: &Run, task: &TrainTask) -> Result<TrainResult> {
    let (dataset, _) = run.dataset(&task.table, &task.dataset)?;
    fit(run, task, Arc::new(dataset), None)
}

/// A trial whose loss is no number has an answer too: its options are bad.
fn trial(run: &Run, task: &TrialTask) -> Result<TrialResult> {
    let (dataset, _) = run.dataset(&task.train.table, &task.train.dataset)?;
    let mut train = task.train.clone();
    if let Some(from) = &task.from {
        let checkpoint = Checkpoint::at(&train.checkpoint);
        if run.task.rank == 0 && !(train.resume && checkpoint.exists()) {
            checkpoint.copy(&Checkpoint::at(from))?;
        }
        run.comm.barrier()?;
        train.resume = true;
    }
    let train = match fit(run, &train, Arc::new(dataset), task.until) {
        Ok(train) => Some(train),
        Err(Error::NotFinite { .. }) => None,
        Err(error) => return Err(error),
    };
    let losses = |train: &TrainResult| train.valid_loss.last().or(train.train_loss.last()).map(|(_, loss)| *loss);
    Ok(TrialResult { options: task.options.clone(), loss: train.as_ref().and_then(losses), train })
}

fn fit(run: &Run, task: &TrainTask, dataset: Arc<Dataset>, until: Option<u64>) -> Result<TrainResult> {
    let mut trainer = Trainer::new(dataset, &task.model, &task.train, run.comm.clone(), run.device())?;
    let checkpoint = Checkpoint::at(&task.checkpoint);
    if task.resume && checkpoint.exists() {
        trainer.resume(&checkpoint)?;
    } else {
        if let Some(from) = &task.init_from {
            trainer.init_from(&Checkpoint::at(from), Weights::Best)?;
        }
        if run.task.rank == 0 {
            checkpoint.clear()?;
        }
    }
    until.into_iter().for_each(|step| trainer.stop_after(step));
    let mut report = Report::of(run.task);
    trainer.fit(Some(&checkpoint), &mut report)
}

fn predict(run: &Run, task: &PredictTask) -> Result<PredictResult> {
    let begin = Instant::now();
    let (dataset, metadata) = run.dataset(&task.table, &task.dataset)?;
    let forecaster = Forecaster::load(&Checkpoint::at(&task.checkpoint), task.weights, &dataset, run.device())?;
    let forecaster = with_intervals(forecaster, &dataset, task.intervals.as_ref(), task.ahead.is_none().then_some(task.part))?;
    let (batch, windows) = match &task.ahead {
        None => run.forecast(&forecaster, &dataset, task.part, &forecaster.windows(&dataset, task.part, task.step)?)?,
        Some(ahead) => {
            let future = ahead.future.as_ref().map(|table| GlobalTable::map(table)).transpose()?;
            let rows = future.as_ref().map_or(&[][..], GlobalTable::batches);
            let h = ahead.h.unwrap_or(forecaster.model().frame().horizon).max(1);
            neural_forecast::ahead(&forecaster, &dataset, rows, h, &run.comm)?
        }
    };
    let metadata = forecaster.describe(metadata, dataset.columns(), task.part);
    run.publish(&forecaster, &dataset, vec![batch], windows, metadata, &task.output, begin)
}

fn with_intervals(forecaster: Forecaster, dataset: &Dataset, intervals: Option<&Intervals>, part: Option<Part>) -> Result<Forecaster> {
    match intervals {
        Some(intervals) => forecaster.calibrated(dataset, intervals, part),
        None => Ok(forecaster),
    }
}

fn cross_validation(run: &Run, task: &CrossValidationTask) -> Result<CrossValidationResult> {
    let (dataset, metadata) = run.dataset(&task.train.table, &task.train.dataset)?;
    // Each of these parts is fitted on and forecast in turn: its first window only, unless the model is fitted once.
    let rolling = task.rolling.clone().unwrap_or(Rolling { n_windows: 1, ..Rolling::default() });
    let (test, count) = match &task.rolling {
        None => (0, 1),
        Some(rolling) => rolling.sizes(task.train.model.h(), task.step)?,
    };
    let mut begin = Instant::now();
    let (mut batches, mut windows) = (Vec::new(), 0);
    let mut fitted: Option<(Forecaster, TrainResult)> = None;
    let mut described = None;
    for window in 0..if rolling.refit == 0 { 1 } else { count } {
        let parts =
            Arc::new(if task.rolling.is_some() { dataset.resplit(rolling.val_size, test - window * task.step)? } else { dataset.clone() });
        if window % rolling.refit.max(1) == 0 {
            // A checkpoint of another window is none of this one.
            let resume = task.train.resume && rolling.refit == 0;
            let result = fit(run, &TrainTask { resume, ..task.train.clone() }, Arc::clone(&parts), None)?;
            // Rank 0 has written the weights when all have come here.
            run.comm.barrier()?;
            let checkpoint = Checkpoint::at(&task.train.checkpoint);
            let forecaster = Forecaster::load(&checkpoint, task.weights, &parts, run.device())?;
            let part = if task.rolling.is_some() { Part::Test } else { task.part };
            fitted = Some((with_intervals(forecaster, &parts, task.intervals.as_ref(), Some(part))?, result));
            // No rank writes the next weights before all have read these.
            run.comm.barrier()?;
            begin = Instant::now();
        }
        let Some((forecaster, _)) = &fitted else { continue };
        let part = if task.rolling.is_some() { Part::Test } else { task.part };
        let mut wanted = forecaster.windows(&parts, part, task.step)?;
        if rolling.refit > 0 {
            let offset = forecaster.model().frame().horizon_offset() as i64;
            let first = |w: &Window| parts.series()[w.series as usize].train + parts.series()[w.series as usize].validation;
            wanted.retain(|w| i64::from(w.offset) + offset == first(w) as i64);
        }
        let (batch, count) = run.forecast(forecaster, &parts, part, &wanted)?;
        batches.push(batch);
        windows += count;
        described = Some(forecaster.describe(metadata.clone(), dataset.columns(), part));
    }
    let (forecaster, train) = fitted.expect("there is a first window");
    let predict = run.publish(&forecaster, &dataset, batches, windows, described.unwrap_or(metadata), &task.output, begin)?;
    Ok(CrossValidationResult { train, predict })
}

impl Run<'_> {
    /// The rows of this rank's share of `windows`, and the number of all of them.
    fn forecast(&self, forecaster: &Forecaster, dataset: &Dataset, part: Part, windows: &[Window]) -> Result<(RecordBatch, u64)> {
        let (rank, size) = (self.comm.rank(), self.comm.size());
        let mine = &windows[rank * windows.len() / size..(rank + 1) * windows.len() / size];
        let mut report = Report::of(self.task);
        let of = mine.len() as u64;
        let values =
            forecaster.predict(dataset, part, mine, |done| report.send(&Progress::Predict { windows: done as u64, of }, done as u64 == of));
        Ok((forecaster.table(dataset, part, mine, &values)?, windows.len() as u64))
    }

    /// Writes the rows of all ranks as a global table.
    #[expect(clippy::too_many_arguments, reason = "each is another part of the answer")]
    fn publish(
        &self,
        forecaster: &Forecaster,
        dataset: &Dataset,
        batches: Vec<RecordBatch>,
        windows: u64,
        metadata: Value,
        output: &Path,
        begin: Instant,
    ) -> Result<PredictResult> {
        let table = Context::new(self.comm.clone(), self.threads)?.from_batches(batches[0].schema(), batches)?;
        table.publish(output, metadata)?;
        let (rows, seconds) = (table.num_rows(), begin.elapsed().as_secs_f64());
        Ok(PredictResult { windows, rows, seconds, columns: forecaster.columns(dataset.columns()) })
    }
}

/// Tells the session, but not at every step.
struct Report<'a> {
    task: &'a TaskContext,
    last: Option<Instant>,
}

impl<'a> Report<'a> {
    fn of(task: &'a TaskContext) -> Self {
        Self { task, last: None }
    }

    fn send(&mut self, progress: &Progress, always: bool) {
        let due = always || self.last.is_none_or(|last| last.elapsed() >= PROGRESS_EVERY);
        if due && self.task.rank == 0 {
            self.last = Some(Instant::now());
            self.task.progress(serde_json::to_value(progress).expect("plain data always becomes JSON"));
        }
    }
}

impl Observer for Report<'_> {
    fn step(&mut self, progress: &Progress) {
        let last = matches!(progress, Progress::Step { step, max_steps, .. } if step == max_steps);
        self.send(progress, last);
    }

    fn canceled(&self) -> bool {
        self.task.canceled()
    }
}
