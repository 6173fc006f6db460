//! Options of NBEATS.

use serde::{Deserialize, Serialize};

use super::{Activation, Hyperparameters, Need, TrainConfig};

/// What the blocks of an NBEATS stack turn their coefficients into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StackType {
    /// The coefficients are the steps themselves.
    Identity,
    /// Slowly changing curves, see [`TrendBasis`].
    Trend,
    /// Sines and cosines.
    Seasonality,
}

/// Curves of a trend stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrendBasis {
    /// Powers of time.
    Polynomial,
    /// Legendre polynomials.
    Legendre,
    /// Chebyshev polynomials of the first kind.
    Chebyshev,
    /// Ramps that begin at evenly spaced times.
    Changepoint,
    /// Triangles between evenly spaced knots; the first curve is zero.
    PiecewiseLinear,
    /// Triangles centred on evenly spaced knots, the ends included.
    LinearHat,
    /// Cubic B-splines on evenly spaced knots.
    Spline,
}

options! {
    /// NBEATS (Oreshkin et al. 2020, "N-BEATS: Neural basis expansion analysis for interpretable time series forecasting").
    pub struct NBeatsConfig {
        /// Steps forecast at once (the horizon).
        h: usize ["integer"] = 24,
        /// Steps of history that the model sees.
        input_size: usize ["integer"] = 48,
        /// Harmonics per step of the horizon of seasonality stacks.
        n_harmonics: usize ["integer"] = 2,
        /// Degree of the trend stacks: they have one curve more.
        n_basis: usize ["integer"] = 2,
        /// Curves of trend stacks: polynomial, legendre, chebyshev, changepoint, piecewise_linear, linear_hat or spline.
        basis: TrendBasis ["string"] = TrendBasis::Polynomial,
        /// Stacks in order: identity, trend or seasonality.
        stack_types: Vec<StackType> ["list of strings"] = vec![StackType::Identity, StackType::Trend, StackType::Seasonality],
        /// Blocks of each stack.
        n_blocks: Vec<usize> ["list of integers"] = vec![1, 1, 1],
        /// Hidden layers of every block, as pairs of input and output width.
        mlp_units: Vec<[usize; 2]> ["list of pairs"] = vec![[512, 512]; 3],
        /// Dropout inside the blocks (NeuralForecast accepts only 0 here).
        dropout_prob_theta: f64 ["number"] = 0.0,
        /// Non-linearity: ReLU, Softplus, Tanh, SELU, LeakyReLU, PReLU or Sigmoid.
        activation: Activation ["string"] = Activation::ReLU,
        /// One block's weights for all blocks of a stack.
        shared_weights: bool ["boolean"] = false,
    }
}

impl Hyperparameters for NBeatsConfig {
    fn train_defaults(common: TrainConfig) -> TrainConfig {
        TrainConfig { num_lr_decays: 3, ..common }
    }

    fn exogenous(&self) -> &'static [&'static str] {
        &[]
    }

    fn dropout(&self) -> f64 {
        self.dropout_prob_theta
    }

    fn ranges(&self, _train: &TrainConfig, need: Need) {
        let has = |kind: StackType| self.stack_types.contains(&kind);
        need(!self.stack_types.is_empty(), "stack_types", "a list of at least one stack");
        need(self.n_blocks.len() == self.stack_types.len(), "n_blocks", "as long as `stack_types`");
        need(self.n_blocks.iter().sum::<usize>() > 0, "n_blocks", "positive for at least one stack");
        need(self.h != 1 || !(has(StackType::Trend) || has(StackType::Seasonality)), "h", "at least 2 with trend or seasonality stacks");
        need(self.n_harmonics > 0, "n_harmonics", "at least 1");
        let least = match self.basis {
            TrendBasis::Spline => 3,
            TrendBasis::LinearHat => 1,
            _ => 0,
        };
        need(!has(StackType::Trend) || self.n_basis >= least, "n_basis", "at least 3 for spline and 1 for linear_hat");
        super::mlp_ranges(&self.mlp_units, self.dropout_prob_theta, need);
    }
}
