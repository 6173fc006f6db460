//! Options of Autoformer.

use super::{Hyperparameters, Need, TrainConfig, TransformerActivation};

options! {
    /// Autoformer (Wu et al. 2021, "Decomposition Transformers with Auto-Correlation for Long-Term Series Forecasting").
    #[expect(non_snake_case, reason = "the option's name is NeuralForecast's")]
    pub struct AutoformerConfig {
        /// Steps forecast at once (the horizon).
        h: usize ["integer"] = 24,
        /// Steps of history that the model sees.
        input_size: usize ["integer"] = 48,
        /// Part of the input, from its end, that the decoder sees too; between 0 and 1.
        decoder_input_size_multiplier: f64 ["number"] = 0.5,
        /// Width of the embedding of a step.
        hidden_size: usize ["integer"] = 128,
        /// Dropout of embeddings, attention outputs and feed-forward layers.
        dropout: f64 ["number"] = 0.05,
        /// Delays that the auto-correlation averages, as a multiple of the logarithm of the length.
        factor: usize ["integer"] = 3,
        /// Heads of the attention.
        n_head: usize ["integer"] = 4,
        /// Width of the feed-forward layers.
        conv_hidden_size: usize ["integer"] = 32,
        /// Non-linearity of the feed-forward layers: relu or gelu.
        activation: TransformerActivation ["string"] = TransformerActivation::Gelu,
        /// Layers of the encoder.
        encoder_layers: usize ["integer"] = 2,
        /// Layers of the decoder.
        decoder_layers: usize ["integer"] = 1,
        /// Window of the moving average that separates trend and season; odd.
        MovingAvg_window: usize ["integer"] = 25,
    }
}

impl AutoformerConfig {
    /// Steps of the input that the decoder sees.
    #[cfg(feature = "torch")]
    pub(crate) fn label_len(&self) -> usize {
        (self.input_size as f64 * self.decoder_input_size_multiplier).ceil() as usize
    }
}

impl Hyperparameters for AutoformerConfig {
    fn train_defaults(common: TrainConfig) -> TrainConfig {
        TrainConfig { max_steps: 5000, learning_rate: 1e-4, ..common }
    }

    fn exogenous(&self) -> &'static [&'static str] {
        &["futr"]
    }

    fn dropout(&self) -> f64 {
        self.dropout
    }

    fn ranges(&self, _train: &TrainConfig, need: Need) {
        let label = (self.input_size as f64 * self.decoder_input_size_multiplier).ceil();
        let seen = "above 0 and so far below 1 that the decoder sees less than the input";
        need(label >= 1.0 && label < self.input_size as f64, "decoder_input_size_multiplier", seen);
        need(self.hidden_size > 0, "hidden_size", "at least 1");
        need(self.MovingAvg_window % 2 == 1, "MovingAvg_window", "an odd number");
        need(self.n_head > 0 && self.n_head <= self.hidden_size, "n_head", "between 1 and `hidden_size`");
        need(self.conv_hidden_size > 0, "conv_hidden_size", "at least 1");
        need((0.0..1.0).contains(&self.dropout), "dropout", "at least 0 and below 1");
    }
}
