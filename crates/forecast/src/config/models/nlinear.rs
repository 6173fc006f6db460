//! Options of NLinear.

use super::{Hyperparameters, Need, TrainConfig};

options! {
    /// NLinear (Zeng et al. 2023, "Are Transformers Effective for Time Series Forecasting?").
    pub struct NLinearConfig {
        /// Steps forecast at once (the horizon).
        h: usize ["integer"] = 24,
        /// Steps of history that the model sees.
        input_size: usize ["integer"] = 48,
    }
}

impl Hyperparameters for NLinearConfig {
    fn train_defaults(common: TrainConfig) -> TrainConfig {
        TrainConfig { max_steps: 5000, learning_rate: 1e-4, ..common }
    }

    fn exogenous(&self) -> &'static [&'static str] {
        &[]
    }

    fn dropout(&self) -> f64 {
        0.0
    }

    fn ranges(&self, _train: &TrainConfig, _need: Need) {}
}
