//! Options of NHITS.

use serde::{Deserialize, Serialize};

use super::{Activation, Hyperparameters, Need, TrainConfig};

/// Pooling of the lags in front of an NHITS block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pooling {
    /// Largest value of each kernel.
    MaxPool1d,
    /// Mean of each kernel.
    AvgPool1d,
}

/// How NHITS turns its few knots into the whole horizon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interpolation {
    /// Piecewise linear.
    Linear,
    /// Piecewise constant.
    Nearest,
    /// Bicubic; one output only.
    Cubic,
}

options! {
    /// NHITS (Challu et al. 2023, "Neural Hierarchical Interpolation for Time Series Forecasting").
    pub struct NHitsConfig {
        /// Steps forecast at once (the horizon).
        h: usize ["integer"] = 24,
        /// Steps of history that the model sees.
        input_size: usize ["integer"] = 48,
        /// Blocks of each stack; all lists per stack have the same length.
        n_blocks: Vec<usize> ["list of integers"] = vec![1, 1, 1],
        /// Hidden layers of every block, as pairs of input and output width.
        mlp_units: Vec<[usize; 2]> ["list of pairs"] = vec![[512, 512]; 3],
        /// Kernel of the input pooling of each stack.
        n_pool_kernel_size: Vec<usize> ["list of integers"] = vec![2, 2, 1],
        /// Steps of the horizon per forecast knot of each stack.
        n_freq_downsample: Vec<usize> ["list of integers"] = vec![4, 2, 1],
        /// Input pooling: MaxPool1d or AvgPool1d.
        pooling_mode: Pooling ["string"] = Pooling::MaxPool1d,
        /// From knots to the horizon: linear, nearest or cubic.
        interpolation_mode: Interpolation ["string"] = Interpolation::Linear,
        /// Dropout inside the blocks.
        dropout_prob_theta: f64 ["number"] = 0.0,
        /// Non-linearity: ReLU, Softplus, Tanh, SELU, LeakyReLU, PReLU or Sigmoid.
        activation: Activation ["string"] = Activation::ReLU,
    }
}

impl Hyperparameters for NHitsConfig {
    fn train_defaults(common: TrainConfig) -> TrainConfig {
        TrainConfig { num_lr_decays: 3, ..common }
    }

    fn exogenous(&self) -> &'static [&'static str] {
        &["hist", "futr", "stat"]
    }

    fn dropout(&self) -> f64 {
        self.dropout_prob_theta
    }

    fn ranges(&self, train: &TrainConfig, need: Need) {
        let stacks = self.n_pool_kernel_size.len();
        need(stacks > 0 && self.n_pool_kernel_size.iter().all(|k| *k > 0), "n_pool_kernel_size", "a list of at least one positive integer");
        need(self.n_blocks.len() == stacks, "n_blocks", "as long as `n_pool_kernel_size`");
        need(self.n_freq_downsample.len() == stacks, "n_freq_downsample", "as long as `n_pool_kernel_size`");
        need(self.n_freq_downsample.iter().all(|k| *k > 0), "n_freq_downsample", "positive integers");
        super::mlp_ranges(&self.mlp_units, self.dropout_prob_theta, need);
        let cubic = self.interpolation_mode == Interpolation::Cubic;
        need(!cubic || train.loss.is_point(), "interpolation_mode", "linear or nearest with the losses mqloss and distributionloss");
    }
}
