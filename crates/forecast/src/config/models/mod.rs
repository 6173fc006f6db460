//! The models: one file each with its hyper-parameters, and the list of all of them.
//!
//! A new model is a file here and a line in `models!`; names and defaults are NeuralForecast's.

mod autoformer;
mod deepar;
mod gru;
mod lstm;
mod nbeats;
mod nhits;
mod nlinear;
mod patchtst;
mod tft;
mod tide;
mod timesnet;
mod vanillatransformer;

use serde::{Deserialize, Serialize};

pub use autoformer::AutoformerConfig;
pub use deepar::DeepArConfig;
pub use gru::GruConfig;
pub use lstm::{LstmConfig, LstmMode};
pub use nbeats::{NBeatsConfig, StackType, TrendBasis};
pub use nhits::{Interpolation, NHitsConfig, Pooling};
pub use nlinear::NLinearConfig;
pub use patchtst::PatchTstConfig;
pub use tft::{GrnActivation, RnnType, TftConfig};
pub use tide::TideConfig;
pub use timesnet::TimesNetConfig;
pub use vanillatransformer::VanillaTransformerConfig;

use super::options::Declared;
use super::train::{LossName, ScalerType, TrainConfig};

/// Notes a rule: whether it holds, the option at fault, and what that must be.
pub(super) type Need<'a> = &'a mut dyn FnMut(bool, &str, &str);

/// What the declaration of a model's options cannot say.
pub(super) trait Hyperparameters {
    /// The options of training with this model's own defaults.
    fn train_defaults(common: TrainConfig) -> TrainConfig
    where
        Self: Sized;

    /// Kinds of exogenous columns that the model can use, of `hist`, `futr`, `stat`.
    fn exogenous(&self) -> &'static [&'static str];

    /// The largest probability with which training drops a value, wherever the model has its dropout.
    fn dropout(&self) -> f64;

    /// Values that have the right type but no meaning.
    fn ranges(&self, train: &TrainConfig, need: Need);

    /// Sets the options whose defaults follow from others; `given` knows which ones the user gave.
    fn follow(&mut self, _given: &dyn Fn(&str) -> bool) {}

    /// Where the horizon starts relative to the end of the input: 0 right after it, -1 on its last step (simulation).
    fn lead(&self) -> i64 {
        0
    }

    /// True if the model forecasts several target columns at once.
    fn multivariate(&self) -> bool {
        false
    }

    /// Draws behind each quantile of a distribution, where the model has its own number of them.
    fn samples(&self) -> Option<usize> {
        None
    }
}

/// Declares [`ModelName`] and [`ModelConfig`] from one list: variant, options, name in pipeline files, a sentence for lists.
macro_rules! models {
    ($($Model:ident($Config:ident) $name:literal $summary:literal,)*) => {
        /// The models, as written in a pipeline file.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "lowercase")]
        pub enum ModelName {
            $(#[doc = concat!("See [`", stringify!($Config), "`].")] $Model,)*
        }

        impl ModelName {
            /// All models in the order in which they are listed.
            pub const ALL: &[ModelName] = &[$(ModelName::$Model),*];

            /// The name in pipeline files.
            pub fn as_str(self) -> &'static str {
                match self { $(ModelName::$Model => $name,)* }
            }

            /// One sentence for lists.
            pub fn summary(self) -> &'static str {
                match self { $(ModelName::$Model => $summary,)* }
            }

            /// The options of training with the defaults of this model.
            pub(super) fn train_defaults(self, common: TrainConfig) -> TrainConfig {
                match self { $(ModelName::$Model => $Config::train_defaults(common),)* }
            }
        }

        /// A model with its hyper-parameters: in JSON an object with `name` and the options.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "name", rename_all = "lowercase")]
        pub enum ModelConfig {
            $(#[doc = concat!("See [`", stringify!($Config), "`].")] $Model($Config),)*
        }

        impl ModelConfig {
            /// The model `name` with all options at their defaults.
            pub fn of(name: ModelName) -> Self {
                match name { $(ModelName::$Model => Self::$Model($Config::default()),)* }
            }

            /// Which model this is.
            pub fn name(&self) -> ModelName {
                match self { $(Self::$Model(_) => ModelName::$Model,)* }
            }

            /// Steps forecast at once.
            pub fn h(&self) -> usize {
                match self { $(Self::$Model(c) => c.h,)* }
            }

            /// Steps of history that the model sees (recurrent models add one internally).
            pub fn input_size(&self) -> usize {
                match self { $(Self::$Model(c) => c.input_size,)* }
            }

            pub(super) fn hyperparameters(&self) -> &dyn Hyperparameters {
                match self { $(Self::$Model(c) => c,)* }
            }

            pub(super) fn hyperparameters_mut(&mut self) -> &mut dyn Hyperparameters {
                match self { $(Self::$Model(c) => c,)* }
            }

            pub(super) fn declared(&self) -> Vec<Declared> {
                match self { $(Self::$Model(c) => c.declared(),)* }
            }
        }
    };
}

models! {
    NLinear(NLinearConfig) "nlinear" "one linear map from the lags, relative to the last one, to the horizon; fast and hard to beat",
    NBeats(NBeatsConfig) "nbeats" "stacked MLPs whose blocks combine trends, seasons or free curves; interpretable",
    NHits(NHitsConfig) "nhits" "stacked MLPs on pooled lags that forecast at several rates and interpolate; long horizons",
    Tide(TideConfig) "tide" "dense encoder and decoder over lags and exogenous columns; fast on long horizons",
    Gru(GruConfig) "gru" "recurrent encoder (GRU) with an MLP decoder, direct or step by step",
    DeepAr(DeepArConfig) "deepar" "recurrent encoder (LSTM) that forecasts a distribution step by step; prediction intervals",
    Lstm(LstmConfig) "lstm" "LSTM over forcings and basin attributes for several targets; rainfall-runoff forecast or simulation",
    PatchTst(PatchTstConfig) "patchtst" "transformer over patches of each window; long inputs, accurate on many benchmarks",
    VanillaTransformer(VanillaTransformerConfig) "vanillatransformer" "full-attention transformer with a one-pass decoder; the baseline of its family",
    Autoformer(AutoformerConfig) "autoformer" "transformer that separates trend and season and attends by auto-correlation",
    Tft(TftConfig) "tft" "recurrent encoder and attention over selected variables; static, historic and future columns",
    TimesNet(TimesNetConfig) "timesnet" "convolutions over windows folded at their strongest periods; several seasons",
}

impl ModelConfig {
    /// Where the horizon starts relative to the end of the input: 0 right after it, -1 on its last step (simulation).
    pub fn lead(&self) -> i64 {
        self.hyperparameters().lead()
    }

    /// The largest probability with which training drops a value, wherever the model has its dropout.
    pub fn dropout(&self) -> f64 {
        self.hyperparameters().dropout()
    }

    /// Kinds of exogenous columns that the model can use, of `hist`, `futr`, `stat`.
    pub fn exogenous(&self) -> &'static [&'static str] {
        self.hyperparameters().exogenous()
    }

    /// True if the model forecasts several target columns at once.
    pub fn multivariate(&self) -> bool {
        self.hyperparameters().multivariate()
    }

    /// Draws behind each quantile of a distribution, where the model has its own number of them.
    pub fn samples(&self) -> Option<usize> {
        self.hyperparameters().samples()
    }

    /// Training options with this model's own defaults.
    pub fn train_defaults(&self) -> TrainConfig {
        TrainConfig::of(self.name())
    }
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
    PReLU,
    Sigmoid,
}

/// What NBEATS and NHITS demand of their blocks.
fn mlp_ranges(units: &[[usize; 2]], dropout: f64, need: Need) {
    let chained = units.windows(2).all(|pair| pair[0][1] == pair[1][0]);
    let wide = !units.is_empty() && units.iter().all(|u| u[0] > 0 && u[1] > 0);
    need(wide && chained, "mlp_units", "pairs of positive widths in which each starts where the one before it ended");
    need((0.0..1.0).contains(&dropout), "dropout_prob_theta", "at least 0 and below 1");
}

/// Non-linearity of a transformer's feed-forward layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransformerActivation {
    /// Rectified linear.
    Relu,
    /// Gaussian error linear, with the error function.
    Gelu,
}
