//! Hyper-parameters of the models and of training: names, defaults, documentation, all declared once.

#[macro_use]
mod options;

mod catalogue;
mod configure;
mod models;
mod optimization;
mod train;

pub use catalogue::{ModelEntry, OptionEntry, catalogue};
pub use configure::{OptionError, configure, vary};
pub use models::{
    Activation, AutoformerConfig, DeepArConfig, GrnActivation, GruConfig, Interpolation, LstmConfig, LstmMode, ModelConfig, ModelName,
    NBeatsConfig, NHitsConfig, NLinearConfig, PatchTstConfig, Pooling, RnnType, StackType, TftConfig, TideConfig, TimesNetConfig,
    TransformerActivation, TrendBasis, VanillaTransformerConfig,
};
pub use optimization::{Monitor, OptimizerName, Precision, Scheduler};
pub use train::{Complete, Distribution, LocalScalerType, LossName, ScalerType, StartPadding, TrainConfig};
