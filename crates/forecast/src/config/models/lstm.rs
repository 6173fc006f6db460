//! Options of the hydrology LSTM.

use serde::{Deserialize, Serialize};

use super::{Hyperparameters, LossName, Need, TrainConfig};

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

impl Hyperparameters for LstmConfig {
    fn train_defaults(common: TrainConfig) -> TrainConfig {
        TrainConfig { loss: LossName::Mse, ..common }
    }

    fn exogenous(&self) -> &'static [&'static str] {
        &["hist", "futr", "stat"]
    }

    fn dropout(&self) -> f64 {
        self.dropout
    }

    fn ranges(&self, train: &TrainConfig, need: Need) {
        need(self.hidden_size > 0, "hidden_size", "at least 1");
        need(self.n_layers > 0, "n_layers", "at least 1");
        need((0.0..1.0).contains(&self.dropout), "dropout", "at least 0 and below 1");
        need(train.loss.is_point(), "loss", "a point loss for lstm (not mqloss or distributionloss)");
        need(self.mode == LstmMode::Forecast || self.h == 1, "h", "1 in mode simulation: one target day per window");
    }

    fn lead(&self) -> i64 {
        if self.mode == LstmMode::Simulation { -1 } else { 0 }
    }

    fn multivariate(&self) -> bool {
        true
    }
}
