//! NLinear (Zeng et al. 2023): the lags relative to the last one, one linear map, plus the last lag.

use tch::Tensor;

use crate::config::NLinearConfig;
use crate::model::{Frame, Inputs, Model, Widths};
use crate::parameters::{Linear, Parameters};

/// `y_hat = W (x - x_last) + b + x_last`.
#[derive(Debug)]
pub struct NLinear {
    parameters: Parameters,
    frame: Frame,
    linear: Linear,
    outputs: i64,
}

impl NLinear {
    /// One output per step and quantile.
    pub fn new(config: &NLinearConfig, widths: Widths, mut parameters: Parameters) -> Self {
        let outputs = widths.outputs as i64;
        let linear = parameters.linear("linear", config.input_size as i64, outputs * config.h as i64);
        Self { parameters, frame: Frame::direct(config.input_size, config.h), linear, outputs }
    }
}

impl Model for NLinear {
    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn frame(&self) -> Frame {
        self.frame
    }

    fn forward(&self, inputs: &Inputs, _train: bool) -> Tensor {
        let lags = inputs.y.squeeze_dim(-1); // [batch, input]
        let last = lags.slice(1, -1, None, 1); // [batch, 1]
        let forecast = self.linear.forward(&(lags - &last)) + last; // [batch, horizon * outputs]
        forecast.view([-1, self.frame.horizon as i64, self.outputs])
    }
}
