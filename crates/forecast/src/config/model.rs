//! One struct per model with its hyper-parameters; names and defaults are NeuralForecast's.

use serde::{Deserialize, Serialize};

use super::TrainConfig;

/// The models, as written in a pipeline file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelName {
    /// Linear map of the lags relative to the last one.
    NLinear,
    /// Multi-rate pooling and hierarchical interpolation.
    NHits,
    /// Gated recurrent units with an MLP decoder.
    Gru,
    /// Long short-term memory of hydrology, many basins and attributes.
    Lstm,
}

impl ModelName {
    /// All models in the order in which they are listed.
    pub const ALL: [ModelName; 4] = [ModelName::NLinear, ModelName::NHits, ModelName::Gru, ModelName::Lstm];

    /// The name in pipeline files.
    pub fn as_str(self) -> &'static str {
        match self {
            ModelName::NLinear => "nlinear",
            ModelName::NHits => "nhits",
            ModelName::Gru => "gru",
            ModelName::Lstm => "lstm",
        }
    }

    /// One sentence for lists.
    pub fn summary(self) -> &'static str {
        match self {
            ModelName::NLinear => "one linear map from the lags, relative to the last one, to the horizon; fast and hard to beat",
            ModelName::NHits => "stacked MLPs on pooled lags that forecast at several rates and interpolate; long horizons",
            ModelName::Gru => "recurrent encoder (GRU) with an MLP decoder, direct or step by step",
            ModelName::Lstm => "LSTM over forcings and basin attributes for several targets; rainfall-runoff forecast or simulation",
        }
    }
}

/// A model with its hyper-parameters: in JSON an object with `name` and the options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase")]
pub enum ModelConfig {
    /// See [`NLinearConfig`].
    NLinear(NLinearConfig),
    /// See [`NHitsConfig`].
    NHits(NHitsConfig),
    /// See [`GruConfig`].
    Gru(GruConfig),
    /// See [`LstmConfig`].
    Lstm(LstmConfig),
}

impl ModelConfig {
    /// The model `name` with all options at their defaults.
    pub fn of(name: ModelName) -> Self {
        match name {
            ModelName::NLinear => Self::NLinear(NLinearConfig::default()),
            ModelName::NHits => Self::NHits(NHitsConfig::default()),
            ModelName::Gru => Self::Gru(GruConfig::default()),
            ModelName::Lstm => Self::Lstm(LstmConfig::default()),
        }
    }

    /// Which model this is.
    pub fn name(&self) -> ModelName {
        match self {
            Self::NLinear(_) => ModelName::NLinear,
            Self::NHits(_) => ModelName::NHits,
            Self::Gru(_) => ModelName::Gru,
            Self::Lstm(_) => ModelName::Lstm,
        }
    }

    /// Steps forecast at once.
    pub fn h(&self) -> usize {
        match self {
            Self::NLinear(c) => c.h,
            Self::NHits(c) => c.h,
            Self::Gru(c) => c.h,
            Self::Lstm(c) => c.h,
        }
    }

    /// Steps of history that the model sees (for a recurrent `gru` the library adds one internally).
    pub fn input_size(&self) -> usize {
        match self {
            Self::NLinear(c) => c.input_size,
            Self::NHits(c) => c.input_size,
            Self::Gru(c) => c.input_size,
            Self::Lstm(c) => c.input_size,
        }
    }

    /// Where the horizon starts relative to the end of the input: 0 right after it, -1 on its last step (simulation).
    pub fn lead(&self) -> i64 {
        match self {
            Self::Lstm(LstmConfig { mode: LstmMode::Simulation, .. }) => -1,
            _ => 0,
        }
    }

    /// Probability with which training drops a value, wherever the model has its dropout.
    pub fn dropout(&self) -> f64 {
        match self {
            Self::NLinear(_) => 0.0,
            Self::NHits(c) => c.dropout_prob_theta,
            Self::Gru(c) => c.encoder_dropout,
            Self::Lstm(c) => c.dropout,
        }
    }

    /// Kinds of exogenous columns that the model can use, of `hist`, `futr`, `stat`.
    pub fn exogenous(&self) -> &'static [&'static str] {
        match self {
            Self::NLinear(_) => &[],
            _ => &["hist", "futr", "stat"],
        }
    }

    /// True if the model forecasts several target columns at once.
    pub fn multivariate(&self) -> bool {
        matches!(self, Self::Lstm(_))
    }

    /// Training options with this model's own defaults.
    pub fn train_defaults(&self) -> TrainConfig {
        TrainConfig::of(self.name())
    }
}

/// Pooling of the lags in front of an NHITS block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pooling {
    /// Largest value of each kernel.
    MaxPool1d,
    /// Mean of each kernel.
    AvgPool1d,
}

/// How NHITS turns its few knots into the whole horizon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interpolation {
    /// Piecewise linear.
    Linear,
    /// Piecewise constant.
    Nearest,
    /// Bicubic; one output only.
    Cubic,
}

/// Non-linearity of the MLPs, with PyTorch's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are PyTorch's own")]
pub enum Activation {
    ReLU,
    Softplus,
    Tanh,
    SELU,
    LeakyReLU,
    Sigmoid,
}

/// What the hydrology LSTM is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LstmMode {
    /// Inputs up to day t, targets from day t+1: the operational question.
    Forecast,
    /// Forcings of the target day are known and flow is never an input: the rainfall-runoff benchmark.
    Simulation,
}

options! {
    /// NLinear (Zeng et al. 2023, "Are Transformers Effective for Time Series Forecasting?").
    pub struct NLinearConfig {
        /// Steps forecast at once (the horizon).
        h: usize ["integer"] = 24,
        /// Steps of history that the model sees.
        input_size: usize ["integer"] = 48,
    }
}

options! {
    /// NHITS (Challu et al. 2023, "Neural Hierarchical Interpolation for Time Series Forecasting").
    pub struct NHitsConfig {
        /// Steps forecast at once (the horizon).
        h: usize ["integer"] = 24,
        /// Steps of history that the model sees.
        input_size: usize ["integer"] = 48,
        /// Blocks of each stack; all lists per stack have the same length.
        n_blocks: Vec<usize> ["list of integers"] = vec![1, 1, 1],
        /// Hidden layers of every block, as pairs of input and output width.
        mlp_units: Vec<[usize; 2]> ["list of pairs"] = vec![[512, 512]; 3],
        /// Kernel of the input pooling of each stack.
        n_pool_kernel_size: Vec<usize> ["list of integers"] = vec![2, 2, 1],
        /// Steps of the horizon per forecast knot of each stack.
        n_freq_downsample: Vec<usize> ["list of integers"] = vec![4, 2, 1],
        /// Input pooling: MaxPool1d or AvgPool1d.
        pooling_mode: Pooling ["string"] = Pooling::MaxPool1d,
        /// From knots to the horizon: linear, nearest or cubic.
        interpolation_mode: Interpolation ["string"] = Interpolation::Linear,
        /// Dropout inside the blocks.
        dropout_prob_theta: f64 ["number"] = 0.0,
        /// Non-linearity: ReLU, Softplus, Tanh, SELU, LeakyReLU or Sigmoid.
        activation: Activation ["string"] = Activation::ReLU,
    }
}

options! {
    /// GRU encoder with an MLP decoder (direct) or a linear read-out fed back step by step (recurrent).
    pub struct GruConfig {
        /// Steps forecast at once (the horizon).
        h: usize ["integer"] = 24,
        /// Steps of history that the model sees; three times `h` unless given.
        input_size: usize ["integer"] = 72,
        /// Steps in the loss of a training window when recurrent.
        h_train: usize ["integer"] = 1,
        /// Recurrent layers.
        encoder_n_layers: usize ["integer"] = 2,
        /// Width of the recurrent state.
        encoder_hidden_size: usize ["integer"] = 200,
        /// Biases in the recurrent layers.
        encoder_bias: bool ["boolean"] = true,
        /// Dropout between recurrent layers.
        encoder_dropout: f64 ["number"] = 0.0,
        /// Width of the MLP decoder.
        decoder_hidden_size: usize ["integer"] = 128,
        /// Layers of the MLP decoder.
        decoder_layers: usize ["integer"] = 2,
        /// Forecast step by step, feeding back each forecast, instead of the whole horizon at once.
        recurrent: bool ["boolean"] = false,
    }
}

options! {
    /// Plain hydrology LSTM (Kratzert et al. 2019): forcings and attributes at every step, linear head on all targets.
    pub struct LstmConfig {
        /// Days forecast at once (the horizon).
        h: usize ["integer"] = 1,
        /// Days of history that the model sees.
        input_size: usize ["integer"] = 21,
        /// forecast: inputs up to day t, targets after it; simulation: forcings of the target day are known.
        mode: LstmMode ["string"] = LstmMode::Forecast,
        /// Width of the recurrent state.
        hidden_size: usize ["integer"] = 64,
        /// Recurrent layers.
        n_layers: usize ["integer"] = 1,
        /// Dropout in front of the linear head.
        dropout: f64 ["number"] = 0.0,
        /// Bias of the forget gate at the start of training, so that the state is kept at first.
        initial_forget_bias: f64 ["number"] = 3.0,
        /// Leave past targets out of the inputs (always so in simulation).
        exclude_insample_y: bool ["boolean"] = false,
        /// Forecast the change since the last observed target, where past targets are inputs: untrained, it is persistence.
        from_last: bool ["boolean"] = true,
    }
}
