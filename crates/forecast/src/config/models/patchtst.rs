//! Options of PatchTST.

use super::{Hyperparameters, Need, TrainConfig, TransformerActivation};

options! {
    /// PatchTST (Nie et al. 2023, "A Time Series is Worth 64 Words: Long-term Forecasting with Transformers").
    pub struct PatchTstConfig {
        /// Steps forecast at once (the horizon).
        h: usize ["integer"] = 24,
        /// Steps of history that the model sees.
        input_size: usize ["integer"] = 48,
        /// Layers of the encoder.
        encoder_layers: usize ["integer"] = 3,
        /// Heads of the attention; divides `hidden_size`.
        n_heads: usize ["integer"] = 16,
        /// Width of a patch's embedding.
        hidden_size: usize ["integer"] = 128,
        /// Width of the feed-forward layers.
        linear_hidden_size: usize ["integer"] = 256,
        /// Dropout of the residual connections and feed-forward layers.
        dropout: f64 ["number"] = 0.2,
        /// Accepted for compatibility and without effect, as in NeuralForecast.
        fc_dropout: f64 ["number"] = 0.2,
        /// Dropout of the forecasts.
        head_dropout: f64 ["number"] = 0.0,
        /// Dropout of the attention weights, in training only.
        attn_dropout: f64 ["number"] = 0.0,
        /// Steps of a patch; at most `input_size + stride` are used.
        patch_len: usize ["integer"] = 16,
        /// Steps between the starts of two patches; the input is continued by as many copies of its last value.
        stride: usize ["integer"] = 8,
        /// Normalise each window and undo it after the forecast (reversible instance normalisation).
        revin: bool ["boolean"] = true,
        /// Learn a scale and a shift of the normalised window.
        revin_affine: bool ["boolean"] = false,
        /// Subtract the last value of the window rather than its mean.
        revin_subtract_last: bool ["boolean"] = true,
        /// Non-linearity of the feed-forward layers: relu or gelu.
        activation: TransformerActivation ["string"] = TransformerActivation::Gelu,
        /// Add the attention scores of the layer before.
        res_attention: bool ["boolean"] = true,
        /// Normalise before instead of after attention and feed-forward layers; the norm is always a batch norm, as in NeuralForecast.
        batch_normalization: bool ["boolean"] = false,
        /// Learn the positions' embedding instead of keeping its random start.
        learn_pos_embed: bool ["boolean"] = true,
    }
}

impl Hyperparameters for PatchTstConfig {
    fn train_defaults(common: TrainConfig) -> TrainConfig {
        TrainConfig { max_steps: 5000, learning_rate: 1e-4, ..common }
    }

    fn exogenous(&self) -> &'static [&'static str] {
        &[]
    }

    fn dropout(&self) -> f64 {
        self.dropout.max(self.head_dropout).max(self.attn_dropout)
    }

    fn ranges(&self, _train: &TrainConfig, need: Need) {
        let divides = self.n_heads > 0 && self.hidden_size > 0 && self.hidden_size.is_multiple_of(self.n_heads);
        need(divides, "n_heads", "a positive divisor of `hidden_size`");
        need(self.linear_hidden_size > 0, "linear_hidden_size", "at least 1");
        need(self.patch_len > 0, "patch_len", "at least 1");
        need(self.stride > 0, "stride", "at least 1");
        for (key, value) in [
            ("dropout", self.dropout),
            ("fc_dropout", self.fc_dropout),
            ("head_dropout", self.head_dropout),
            ("attn_dropout", self.attn_dropout),
        ] {
            need((0.0..1.0).contains(&value), key, "at least 0 and below 1");
        }
    }
}
