//! Options of TimesNet.

use super::{Hyperparameters, Need, ScalerType, TrainConfig};

options! {
    /// TimesNet (Wu et al. 2023, "TimesNet: Temporal 2D-Variation Modeling for General Time Series Analysis").
    pub struct TimesNetConfig {
        /// Steps forecast at once (the horizon).
        h: usize ["integer"] = 24,
        /// Steps of history that the model sees.
        input_size: usize ["integer"] = 48,
        /// Width of the embedding of a step; even.
        hidden_size: usize ["integer"] = 64,
        /// Dropout of the embedding.
        dropout: f64 ["number"] = 0.1,
        /// Channels inside the convolutions of a block.
        conv_hidden_size: usize ["integer"] = 64,
        /// Periods that each block looks at, the strongest of the batch.
        top_k: usize ["integer"] = 5,
        /// Sizes of convolution kernels: 1, 3, .., 2 `num_kernels` - 1.
        num_kernels: usize ["integer"] = 6,
        /// Blocks of convolutions, one behind the other.
        encoder_layers: usize ["integer"] = 2,
    }
}

impl Hyperparameters for TimesNetConfig {
    fn train_defaults(common: TrainConfig) -> TrainConfig {
        let windows = TrainConfig { windows_batch_size: 64, inference_windows_batch_size: 256, ..common };
        TrainConfig { learning_rate: 1e-4, scaler_type: ScalerType::Standard, ..windows }
    }

    fn exogenous(&self) -> &'static [&'static str] {
        &["futr"]
    }

    fn dropout(&self) -> f64 {
        self.dropout
    }

    fn ranges(&self, _train: &TrainConfig, need: Need) {
        need(self.hidden_size > 0 && self.hidden_size.is_multiple_of(2), "hidden_size", "a positive even number");
        need(self.conv_hidden_size > 0, "conv_hidden_size", "at least 1");
        let periods = (self.input_size + self.h) / 2;
        need(self.top_k > 0 && self.top_k <= periods, "top_k", "between 1 and half of `input_size + h`");
        need(self.num_kernels > 0, "num_kernels", "at least 1");
        need((0.0..1.0).contains(&self.dropout), "dropout", "at least 0 and below 1");
    }
}
