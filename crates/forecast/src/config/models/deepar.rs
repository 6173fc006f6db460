//! Options of DeepAR.

use super::{Activation, Hyperparameters, LossName, Need, TrainConfig};

options! {
    /// DeepAR (Salinas et al. 2020, "DeepAR: Probabilistic forecasting with autoregressive recurrent networks").
    pub struct DeepArConfig {
        /// Steps forecast at once (the horizon).
        h: usize ["integer"] = 24,
        /// Steps of history that the model sees; three times `h` unless given.
        input_size: usize ["integer"] = 72,
        /// Steps in the loss of a training window: the last ones before its end.
        h_train: usize ["integer"] = 1,
        /// LSTM layers.
        lstm_n_layers: usize ["integer"] = 2,
        /// Width of the LSTM's state.
        lstm_hidden_size: usize ["integer"] = 128,
        /// Dropout between LSTM layers.
        lstm_dropout: f64 ["number"] = 0.1,
        /// Hidden layers of the MLP that reads the states; 0 for one linear map.
        decoder_hidden_layers: usize ["integer"] = 0,
        /// Width of these hidden layers.
        decoder_hidden_size: usize ["integer"] = 0,
        /// Activation of these hidden layers.
        decoder_activation: Activation ["string"] = Activation::ReLU,
        /// Draws from the distribution of each step behind its quantiles (in place of `num_samples`).
        trajectory_samples: usize ["integer"] = 100,
    }
}

impl Hyperparameters for DeepArConfig {
    fn train_defaults(common: TrainConfig) -> TrainConfig {
        let (loss, valid_loss) = (LossName::DistributionLoss, Some(LossName::Mae));
        TrainConfig { num_lr_decays: 3, loss, valid_loss, ..common }
    }

    fn exogenous(&self) -> &'static [&'static str] {
        &["hist", "futr", "stat"]
    }

    fn dropout(&self) -> f64 {
        self.lstm_dropout
    }

    fn ranges(&self, train: &TrainConfig, need: Need) {
        need(self.h_train > 0 && self.h_train <= self.h, "h_train", "between 1 and `h`");
        need(train.horizon_weight.is_empty() || self.h_train == self.h, "h_train", "equal to `h` where there is a `horizon_weight`");
        need(self.lstm_n_layers > 0, "lstm_n_layers", "at least 1");
        need(self.lstm_hidden_size > 0, "lstm_hidden_size", "at least 1");
        need((0.0..1.0).contains(&self.lstm_dropout), "lstm_dropout", "at least 0 and below 1");
        let decoder = self.decoder_hidden_layers == 0 || self.decoder_hidden_size > 0;
        need(decoder, "decoder_hidden_size", "at least 1 where there are `decoder_hidden_layers`");
        need(self.trajectory_samples > 0, "trajectory_samples", "at least 1");
    }

    fn samples(&self) -> Option<usize> {
        Some(self.trajectory_samples)
    }

    fn follow(&mut self, given: &dyn Fn(&str) -> bool) {
        if !given("input_size") {
            self.input_size = 3 * self.h;
        }
    }
}
