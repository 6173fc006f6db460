//! Options of TiDE.

use super::{Hyperparameters, Need, TrainConfig};

options! {
    /// TiDE (Das et al. 2023, "Long-term Forecasting with TiDE: Time-series Dense Encoder").
    pub struct TideConfig {
        /// Steps forecast at once (the horizon).
        h: usize ["integer"] = 24,
        /// Steps of history that the model sees.
        input_size: usize ["integer"] = 48,
        /// Width of the dense layers.
        hidden_size: usize ["integer"] = 512,
        /// Values per step of the horizon that the dense decoder gives to the temporal decoder.
        decoder_output_dim: usize ["integer"] = 32,
        /// Hidden width of the temporal decoder.
        temporal_decoder_dim: usize ["integer"] = 128,
        /// Dropout in the residual blocks.
        dropout: f64 ["number"] = 0.3,
        /// Layer normalisation behind the residual blocks.
        layernorm: bool ["boolean"] = true,
        /// Residual blocks of the encoder.
        num_encoder_layers: usize ["integer"] = 1,
        /// Residual blocks of the decoder.
        num_decoder_layers: usize ["integer"] = 1,
        /// Width to which the exogenous columns of each step are projected.
        temporal_width: usize ["integer"] = 4,
        /// Layer normalisation behind the temporal decoder too. NeuralForecast and the authors' code have it: with one output per step it
        /// leaves of the whole network one number, and the model is a linear map of the lags. False trains the network.
        final_layernorm: bool ["boolean"] = true,
    }
}

impl Hyperparameters for TideConfig {
    fn train_defaults(common: TrainConfig) -> TrainConfig {
        common
    }

    fn exogenous(&self) -> &'static [&'static str] {
        &["hist", "futr", "stat"]
    }

    fn dropout(&self) -> f64 {
        self.dropout
    }

    fn ranges(&self, _train: &TrainConfig, need: Need) {
        need(self.hidden_size > 0, "hidden_size", "at least 1");
        need(self.decoder_output_dim > 0, "decoder_output_dim", "at least 1");
        need(self.temporal_decoder_dim > 0, "temporal_decoder_dim", "at least 1");
        need(self.num_encoder_layers > 0, "num_encoder_layers", "at least 1");
        need(self.num_decoder_layers > 0, "num_decoder_layers", "at least 1");
        need(self.temporal_width > 0, "temporal_width", "at least 1");
        need((0.0..1.0).contains(&self.dropout), "dropout", "at least 0 and below 1");
    }
}
