//! Arguments and results of the functions that a forecast rank serves: `forecast.train`, `forecast.predict`,
//! `forecast.cross_validation`. All of them travel as JSON.

use std::path::PathBuf;

use deeprc_loader::{DatasetOptions, Part, Skipped};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::{ModelConfig, TrainConfig};

/// Name under which [`TrainTask`] is served.
pub const TRAIN: &str = "forecast.train";
/// Name under which [`TrialTask`] is served.
pub const TRIAL: &str = "forecast.trial";
/// Name under which [`PredictTask`] is served.
pub const PREDICT: &str = "forecast.predict";
/// Name under which [`CrossValidationTask`] is served.
pub const CROSS_VALIDATION: &str = "forecast.cross_validation";

/// Train one model on the training part of a global table. The ranks of the task share the windows of each step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainTask {
    /// Directory of the global table.
    pub table: PathBuf,
    /// Which columns are what, and the policies for gaps and nulls.
    pub dataset: DatasetOptions,
    /// The model.
    pub model: ModelConfig,
    /// How it is trained.
    pub train: TrainConfig,
    /// Directory for `last.safetensors`, `best.safetensors` and `state.json`.
    pub checkpoint: PathBuf,
    /// Go on from the checkpoint if there is one; otherwise start anew.
    #[serde(default)]
    pub resume: bool,
    /// Directory of a checkpoint of the same model to start from: its best weights, with a fresh optimizer. A checkpoint that is
    /// resumed goes before.
    #[serde(default)]
    pub init_from: Option<PathBuf>,
}

/// What rank 0 answers to a [`TrainTask`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TrainResult {
    /// Steps done in all, those before a resume included.
    pub steps: u64,
    /// Wall time of this run, in seconds, from the data in memory to the last checkpoint.
    pub seconds: f64,
    /// Training steps of this run per second of training, validation and checkpoints excluded.
    pub steps_per_second: f64,
    /// When the first step of this run began, in seconds since 1970.
    pub first_step_at: f64,
    /// Training loss of each step: (step, loss), steps counted from 1.
    pub train_loss: Vec<(u64, f64)>,
    /// Validation loss after steps; empty without a validation part.
    pub valid_loss: Vec<(u64, f64)>,
    /// Learned values of the model.
    pub parameters: u64,
    /// Training windows to draw from.
    pub windows: u64,
    /// The step with the lowest monitored value, whose weights are in `best.safetensors`; none without validation.
    pub best_step: Option<u64>,
    /// That step and its monitored value.
    #[serde(default)]
    pub best: Option<(u64, f64)>,
    /// The step of the checkpoint that this run went on from.
    pub resumed_from: Option<u64>,
    /// True if the validation loss stopped improving before the last step.
    pub stopped_early: bool,
    /// Series that were not trained on, and why.
    #[serde(default)]
    pub skipped: Vec<Skipped>,
}

/// Train one trial of a search for good options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrialTask {
    /// The training, with the drawn options in place.
    pub train: TrainTask,
    /// What was drawn, for the answer.
    pub options: Map<String, Value>,
    /// Stop after this step, with a look at the validation part and a checkpoint: the trial may go on later. None: to the end.
    #[serde(default)]
    pub until: Option<u64>,
    /// Go on from the checkpoint there, if the training's own directory has none yet.
    #[serde(default)]
    pub from: Option<PathBuf>,
}

/// What rank 0 answers to a [`TrialTask`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TrialResult {
    /// What was drawn.
    pub options: Map<String, Value>,
    /// The last validation loss (the last training loss, without a validation part); none if the loss became infinite or NaN.
    pub loss: Option<f64>,
    /// Of the training; none if it did not come to its end.
    pub train: Option<TrainResult>,
}

/// Which weights of a checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Weights {
    /// Those with the lowest validation loss (the last ones, without validation).
    #[default]
    Best,
    /// Those after the last step.
    Last,
}

/// How past errors become prediction intervals, with NeuralForecast's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Quantiles of the forecast minus and plus each absolute error.
    #[default]
    ConformalDistribution,
    /// The forecast minus and plus a quantile of the absolute errors: for 80 % the quantile 0.9, as in NeuralForecast, so that more
    /// than 80 % are covered.
    ConformalError,
}

/// Conformal prediction intervals around the point forecasts of a model, calibrated with its errors in rows it was not trained on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intervals {
    /// Shares of the intervals in percent; each gives columns `<..>_hat-lo-90` and `<..>_hat-hi-90`.
    pub level: Vec<f64>,
    /// How.
    #[serde(default)]
    pub method: Method,
    /// The last windows of each series that calibrate, at least 2.
    #[serde(default = "two")]
    pub n_windows: usize,
    /// Rows between two of them.
    #[serde(default = "one")]
    pub step_size: usize,
    /// The part in which their horizons lie.
    #[serde(default = "validation")]
    pub part: Part,
}

impl Intervals {
    /// Of these shares in percent, from the last two windows of the validation part.
    pub fn new(level: &[f64]) -> Self {
        let (method, n_windows, step_size, part) = (Method::default(), two(), one(), validation());
        Self { level: level.to_vec(), method, n_windows, step_size, part }
    }
}

fn one() -> usize {
    1
}

fn two() -> usize {
    2
}

fn validation() -> Part {
    Part::Validation
}

/// Forecast every window of a part with a trained model: a rolling evaluation without refitting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PredictTask {
    /// Directory of the global table.
    pub table: PathBuf,
    /// As in training.
    pub dataset: DatasetOptions,
    /// Directory that training filled.
    pub checkpoint: PathBuf,
    /// Which weights.
    #[serde(default)]
    pub weights: Weights,
    /// The part in which the horizons lie.
    pub part: Part,
    /// Steps of time between two windows.
    pub step: usize,
    /// Forecast what comes after the last row of each series, instead of windows of the table.
    #[serde(default)]
    pub ahead: Option<Ahead>,
    /// Intervals around point forecasts; losses that forecast quantiles have their own.
    #[serde(default)]
    pub intervals: Option<Intervals>,
    /// Directory of the global table to write: see [`PredictResult`].
    pub output: PathBuf,
}

/// What comes after the last row of each series.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ahead {
    /// Steps; the trained horizon unless given. Beyond that, forecasts are taken for observations.
    #[serde(default)]
    pub h: Option<usize>,
    /// Directory of a global table of the rows to come, with every column known ahead (`futr`).
    #[serde(default)]
    pub future: Option<PathBuf>,
}

/// What rank 0 answers to a [`PredictTask`]; the table has one row per window and step of the horizon.
///
/// Columns: the series' name (`unique_id` unless the dataset names it otherwise), the time, `cutoff` (the last stamp known
/// to the forecast), then for each target its value and its forecast. With one target these are `y` and `y_hat`,
/// with several `<target>` and `<target>_hat`. With the loss `mqloss`, `_hat` is the median and the bounds follow as
/// `<..>_hat-lo-90`, ...; with `distributionloss` it is the mean, followed by `<..>_hat-median` and the bounds; with
/// [`Intervals`] it is followed by theirs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PredictResult {
    /// Windows forecast.
    pub windows: u64,
    /// Rows written, over all ranks.
    pub rows: u64,
    /// Wall time in seconds.
    pub seconds: f64,
    /// Forecast columns.
    pub columns: Vec<String>,
}

/// Train once, then forecast every window of a part: `cross_validation(refit=False)`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CrossValidationTask {
    /// The training.
    pub train: TrainTask,
    /// Which of its weights forecast.
    #[serde(default)]
    pub weights: Weights,
    /// The part in which the horizons lie.
    pub part: Part,
    /// Steps of time between two windows.
    pub step: usize,
    /// Windows counted from the end of each series, instead of `part`, and how often the model is fitted for them.
    #[serde(default)]
    pub rolling: Option<Rolling>,
    /// Intervals around point forecasts; losses that forecast quantiles have their own.
    #[serde(default)]
    pub intervals: Option<Intervals>,
    /// Directory of the global table to write.
    pub output: PathBuf,
}

/// Windows at the end of each series: `n_windows` of them, `step` rows apart, or as many as `test_size` rows hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rolling {
    /// Windows per series, at least 1.
    pub n_windows: usize,
    /// Rows before the test rows to validate on.
    #[serde(default)]
    pub val_size: usize,
    /// Test rows, which replace `n_windows`.
    #[serde(default)]
    pub test_size: Option<usize>,
    /// Fit anew, from random weights, for every window (1) or every n-th one; 0 fits once. Only the last model's checkpoint stays.
    #[serde(default)]
    pub refit: usize,
}

/// What rank 0 answers to a [`CrossValidationTask`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CrossValidationResult {
    /// Of the training.
    pub train: TrainResult,
    /// Of the forecasts.
    pub predict: PredictResult,
}

/// What a rank tells while it works.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Progress {
    /// Training went on.
    Step {
        /// Steps done.
        step: u64,
        /// Steps to do.
        max_steps: u64,
        /// Loss of this step.
        train_loss: f64,
        /// Last validation loss, if any.
        valid_loss: Option<f64>,
    },
    /// Forecasting went on.
    Predict {
        /// Windows done by this rank.
        windows: u64,
        /// Windows of this rank.
        of: u64,
    },
}
