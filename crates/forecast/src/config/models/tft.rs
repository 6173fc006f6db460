//! Options of TFT.

use serde::{Deserialize, Serialize};

use super::{Hyperparameters, Need, ScalerType, TrainConfig};

/// Non-linearity of TFT's gated residual networks, with PyTorch's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are PyTorch's own")]
pub enum GrnActivation {
    ReLU,
    Softplus,
    Tanh,
    SELU,
    LeakyReLU,
    Sigmoid,
    ELU,
    GELU,
}

/// Recurrent layers of TFT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RnnType {
    /// Long short-term memory.
    Lstm,
    /// Gated recurrent units.
    Gru,
}

options! {
    /// TFT (Lim et al. 2021, "Temporal Fusion Transformers for interpretable multi-horizon time series forecasting").
    pub struct TftConfig {
        /// Steps forecast at once (the horizon).
        h: usize ["integer"] = 24,
        /// Steps of history that the model sees.
        input_size: usize ["integer"] = 48,
        /// Embeddings of the target.
        tgt_size: usize ["integer"] = 1,
        /// Width of embeddings and layers.
        hidden_size: usize ["integer"] = 128,
        /// Heads of the attention.
        n_head: usize ["integer"] = 4,
        /// Dropout of attention weights.
        attn_dropout: f64 ["number"] = 0.0,
        /// Non-linearity of the gated residual networks: ReLU, Softplus, Tanh, SELU, LeakyReLU, Sigmoid, ELU or GELU.
        grn_activation: GrnActivation ["string"] = GrnActivation::ELU,
        /// Recurrent layers of encoder and decoder.
        n_rnn_layers: usize ["integer"] = 1,
        /// Recurrent layers: lstm or gru.
        rnn_type: RnnType ["string"] = RnnType::Lstm,
        /// All recurrent layers start from the same state made of the static columns.
        one_rnn_initial_state: bool ["boolean"] = false,
        /// Dropout of the gated residual networks and behind the attention.
        dropout: f64 ["number"] = 0.1,
    }
}

impl Hyperparameters for TftConfig {
    fn train_defaults(common: TrainConfig) -> TrainConfig {
        TrainConfig { scaler_type: ScalerType::Robust, ..common }
    }

    fn exogenous(&self) -> &'static [&'static str] {
        &["hist", "futr", "stat"]
    }

    fn dropout(&self) -> f64 {
        self.dropout.max(self.attn_dropout)
    }

    fn ranges(&self, _train: &TrainConfig, need: Need) {
        need(self.tgt_size > 0, "tgt_size", "at least 1");
        need(self.n_head > 0, "n_head", "at least 1");
        let heads = self.n_head.max(1);
        need(self.hidden_size > 0 && self.hidden_size.is_multiple_of(heads), "hidden_size", "a positive multiple of `n_head`");
        need(self.n_rnn_layers > 0, "n_rnn_layers", "at least 1");
        need((0.0..1.0).contains(&self.dropout), "dropout", "at least 0 and below 1");
        need((0.0..1.0).contains(&self.attn_dropout), "attn_dropout", "at least 0 and below 1");
    }
}
