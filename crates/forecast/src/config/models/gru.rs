//! Options of GRU.

use super::{Activation, Hyperparameters, Need, ScalerType, TrainConfig};

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
        /// Activation of the MLP decoder.
        decoder_activation: Activation ["string"] = Activation::ReLU,
        /// Forecast step by step, feeding back each forecast, instead of the whole horizon at once.
        recurrent: bool ["boolean"] = false,
    }
}

impl Hyperparameters for GruConfig {
    fn train_defaults(common: TrainConfig) -> TrainConfig {
        TrainConfig { windows_batch_size: 128, scaler_type: ScalerType::Robust, ..common }
    }

    fn exogenous(&self) -> &'static [&'static str] {
        &["hist", "futr", "stat"]
    }

    fn dropout(&self) -> f64 {
        self.encoder_dropout
    }

    fn ranges(&self, train: &TrainConfig, need: Need) {
        need(self.h_train > 0 && self.h_train <= self.h, "h_train", "between 1 and `h`");
        let weighted = self.recurrent && !train.horizon_weight.is_empty();
        need(!weighted || self.h_train == self.h, "h_train", "equal to `h` where there is a `horizon_weight`");
        need(self.encoder_n_layers > 0, "encoder_n_layers", "at least 1");
        need(self.encoder_hidden_size > 0, "encoder_hidden_size", "at least 1");
        need(self.decoder_hidden_size > 0, "decoder_hidden_size", "at least 1");
        need(self.decoder_layers > 0, "decoder_layers", "at least 1");
        need((0.0..1.0).contains(&self.encoder_dropout), "encoder_dropout", "at least 0 and below 1");
    }

    fn follow(&mut self, given: &dyn Fn(&str) -> bool) {
        if !given("input_size") {
            self.input_size = 3 * self.h;
        }
    }
}
