//! Options of training, common to all models; some defaults differ per model.

use serde::{Deserialize, Serialize};

use super::{ModelName, Monitor, OptimizerName, Precision, Scheduler};

/// What training minimises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LossName {
    /// Mean absolute error.
    Mae,
    /// Mean squared error.
    Mse,
    /// Root of the mean squared error.
    Rmse,
    /// Mean absolute error as a share of the observed value; observed zeros do not count.
    Mape,
    /// Twice the mean of `|y - y_hat| / (|y| + |y_hat|)`.
    Smape,
    /// Mean absolute error as a multiple of that of the naive forecast with `seasonality` in the window's lags.
    Mase,
    /// Huber loss with `huber_delta`.
    #[serde(alias = "huberloss")]
    Huber,
    /// Pinball loss of one `quantile`.
    #[serde(alias = "quantileloss")]
    Quantile,
    /// Sum of the pinball losses of the median and the bounds of the prediction intervals `level` (or of `quantiles`).
    MqLoss,
    /// Negative log-likelihood of the `distribution` whose arguments the network forecasts.
    DistributionLoss,
    /// Squared error divided by the variance of the series (Kratzert et al. 2019), so that small basins count.
    Nse,
}

impl LossName {
    /// True for losses of one forecast value.
    pub fn is_point(self) -> bool {
        !matches!(self, LossName::MqLoss | LossName::DistributionLoss)
    }
}

/// The distribution of the loss distributionloss, with PyTorch's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Distribution {
    /// Student t with at least 3 degrees of freedom: heavy tails.
    #[serde(alias = "studentt")]
    StudentT,
    /// Normal.
    #[serde(alias = "normal")]
    Normal,
    /// Poisson: counts with variance equal to the mean.
    #[serde(alias = "poisson")]
    Poisson,
    /// Negative binomial: counts with a variance above the mean.
    #[serde(alias = "negativebinomial")]
    NegativeBinomial,
    /// Bernoulli: zeros and ones.
    #[serde(alias = "bernoulli")]
    Bernoulli,
}

impl Distribution {
    /// All of them.
    pub const ALL: [Distribution; 5] =
        [Distribution::StudentT, Distribution::Normal, Distribution::Poisson, Distribution::NegativeBinomial, Distribution::Bernoulli];

    /// Arguments that a network forecasts for each target and step.
    pub fn arguments(self) -> usize {
        match self {
            Distribution::StudentT => 3,
            Distribution::Normal | Distribution::NegativeBinomial => 2,
            Distribution::Poisson | Distribution::Bernoulli => 1,
        }
    }

    /// The name, as PyTorch writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Distribution::StudentT => "StudentT",
            Distribution::Normal => "Normal",
            Distribution::Poisson => "Poisson",
            Distribution::NegativeBinomial => "NegativeBinomial",
            Distribution::Bernoulli => "Bernoulli",
        }
    }

    /// True for distributions of counts and of zeros and ones, whose targets cannot be rescaled.
    pub fn is_discrete(self) -> bool {
        matches!(self, Distribution::Poisson | Distribution::NegativeBinomial | Distribution::Bernoulli)
    }
}

/// Normalisation of each window by its own lags (NeuralForecast's TemporalNorm).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScalerType {
    /// None.
    Identity,
    /// Mean and standard deviation.
    Standard,
    /// Median and median absolute deviation.
    Robust,
    /// To 0..1.
    MinMax,
    /// To -1..1.
    MinMax1,
    /// asinh of robust.
    Invariant,
    /// Standard with a learned affine map back.
    Revin,
}

/// Normalisation of whole series before windows are cut from them (NeuralForecast's `local_scaler_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LocalScalerType {
    /// None.
    #[serde(rename = "identity")]
    Identity,
    /// Mean and standard deviation.
    #[serde(rename = "standard")]
    Standard,
    /// Median and median absolute deviation.
    #[serde(rename = "robust")]
    Robust,
    /// Median and distance between the quartiles.
    #[serde(rename = "robust-iqr")]
    RobustIqr,
    /// To 0..1.
    #[serde(rename = "minmax")]
    MinMax,
    /// The Box-Cox map of the largest likelihood; for positive values.
    #[serde(rename = "boxcox")]
    BoxCox,
}

/// Windows that begin before the first row of their series; what is missing is zero with mask 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StartPadding {
    /// None: a series that is too short for a window is an error.
    None,
    /// As many as the longest series has more rows (NeuralForecast's default).
    Longest,
    /// All with at least one row of input (NeuralForecast's `start_padding_enabled`).
    Full,
}

/// How many values of a training or validation window must be observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Complete {
    /// One in the input and one target in the horizon.
    Any,
    /// All.
    All,
}

options! {
    /// How a model is trained.
    pub struct TrainConfig {
        /// Steps of the optimizer.
        max_steps: u64 ["integer"] = 1000,
        /// Passes over all training windows; when positive it replaces `max_steps`.
        epochs: u64 ["integer"] = 0,
        /// Optimizer: adam or adamw.
        optimizer: OptimizerName ["string"] = OptimizerName::Adam,
        /// Pull of the weights towards 0; unless given 0 for adam and 0.01 for adamw, as in PyTorch.
        weight_decay: Option<f64> ["number"] = None,
        /// Step size of the optimizer; with a scheduler the largest one.
        learning_rate: f64 ["number"] = 1e-3,
        /// The learning rate over the steps: step (halved `num_lr_decays` times), cosine (down to 0), onecycle (up and down) or constant.
        scheduler: Scheduler ["string"] = Scheduler::Step,
        /// How many times the scheduler step halves the learning rate, evenly spread over the steps; -1 keeps it constant.
        num_lr_decays: i64 ["integer"] = -1,
        /// Steps over which the learning rate first rises to its value; onecycle takes 30 % of all steps unless this is positive.
        warmup_steps: u64 ["integer"] = 0,
        /// Largest norm of the gradient, 0 for no limit.
        gradient_clip_val: f64 ["number"] = 0.0,
        /// Windows drawn at each step, from all series; 0 takes all of them at every step.
        windows_batch_size: usize ["integer"] = 1024,
        /// Windows of a step when training goes through all of them in shuffled passes.
        batch_size: usize ["integer"] = 256,
        /// Windows run at once when nothing is learned: validation and prediction.
        inference_windows_batch_size: usize ["integer"] = 1024,
        /// Steps of time between the starts of two training or validation windows.
        step_size: usize ["integer"] = 1,
        /// Windows that begin before their series: none, longest or full.
        start_padding: StartPadding ["string"] = StartPadding::None,
        /// Values of a window that must be observed: any (one of the input, one target) or all.
        observed: Complete ["string"] = Complete::Any,
        /// Loss: mae, mse, rmse, mape, smape, mase, huber, quantile, mqloss, distributionloss or nse; the name of a distribution
        /// stands for distributionloss with it.
        loss: LossName ["string"] = LossName::Mae,
        /// Loss of the validation, the same as `loss` unless given; a point loss looks at the median of mqloss and at the mean of a
        /// distribution.
        valid_loss: Option<LossName> ["string"] = None,
        /// Distribution of distributionloss: StudentT, Normal, Poisson, NegativeBinomial or Bernoulli.
        distribution: Distribution ["string"] = Distribution::StudentT,
        /// Draws from the forecast distribution behind each quantile.
        num_samples: usize ["integer"] = 1000,
        /// Where the Huber loss turns from squared to absolute.
        huber_delta: f64 ["number"] = 1.0,
        /// The quantile of the quantile loss.
        quantile: f64 ["number"] = 0.5,
        /// Prediction intervals of mqloss and distributionloss, in percent.
        level: Vec<f64> ["list of numbers"] = vec![80.0, 90.0],
        /// Quantiles of mqloss and distributionloss in place of `level`; the median is always among them.
        quantiles: Vec<f64> ["list of numbers"] = Vec::new(),
        /// Steps in a season, for mase: 24 for hourly, 7 for daily, 12 for monthly data.
        seasonality: usize ["integer"] = 1,
        /// Compute mase as NeuralForecast 3.3 does: the error of every window is divided by the naive errors of all windows of a batch,
        /// which are added up; otherwise by that of its own lags.
        mase_broadcast: bool ["boolean"] = false,
        /// Weight of each step of the horizon in training and validation; empty: all the same.
        horizon_weight: Vec<f64> ["list of numbers"] = Vec::new(),
        /// Normalisation of each window: identity, standard, robust, minmax, minmax1, invariant or revin.
        scaler_type: ScalerType ["string"] = ScalerType::Identity,
        /// Normalisation of each series by its training rows before any window is cut, undone in the forecasts: identity, standard,
        /// robust, robust-iqr, minmax or boxcox.
        local_scaler_type: LocalScalerType ["string"] = LocalScalerType::Identity,
        /// Steps between two looks at the validation part.
        val_check_steps: u64 ["integer"] = 100,
        /// Validations without improvement before training stops; -1 never stops early.
        early_stop_patience_steps: i64 ["integer"] = -1,
        /// What early stopping and the best weights go by: valid_loss, train_loss, mae, mse or rmse (of the validation part).
        monitor: Monitor ["string"] = Monitor::ValidLoss,
        /// Arithmetic of the network: 32, tf32 (on GPUs) or bf16; weights and loss stay 32-bit.
        precision: Precision ["string"] = Precision::Full,
        /// Steps between two checkpoints; 0 writes one only at validations and at the end.
        checkpoint_every: u64 ["integer"] = 100,
        /// Start of all random numbers.
        seed: u64 ["integer"] = 1,
    }
}

impl TrainConfig {
    /// The defaults of training `model`.
    pub fn of(model: ModelName) -> Self {
        model.train_defaults(Self::default())
    }

    /// `weight_decay`, or the optimizer's default.
    pub fn weight_decay(&self) -> f64 {
        let default = if self.optimizer == OptimizerName::AdamW { 0.01 } else { 0.0 };
        self.weight_decay.unwrap_or(default)
    }

    /// False for options that mean nothing to `model`: windows are either drawn anew at each step or taken in passes.
    pub(super) fn applies(model: ModelName, option: &str) -> bool {
        match option {
            "batch_size" => model == ModelName::Lstm,
            "windows_batch_size" => model != ModelName::Lstm,
            _ => true,
        }
    }
}
