//! The plain hydrology LSTM (Kratzert et al. 2019): one LSTM over forcings and attributes of many basins.

use tch::{Kind, Tensor};

use crate::config::{LstmConfig, LstmMode, ModelConfig};
use crate::model::{Frame, Inputs, Model, Widths};
use crate::parameters::{Linear, Parameters, Recurrent};

/// LSTM over `[targets | hist | futr | stat]` at every step, its last state read by a linear head for all targets: for their change
/// since the last observation where past targets are inputs (`from_last`), else for the targets themselves.
///
/// In mode forecast, columns known ahead (futr) are shifted by the horizon, so that the last step of input knows them up
/// to the last day forecast; in simulation the last step of input is the day to simulate.
#[derive(Debug)]
pub struct Lstm {
    parameters: Parameters,
    frame: Frame,
    encoder: Recurrent,
    head: Linear,
    sees_targets: bool,
    from_last: bool,
    targets: i64,
    dropout: f64,
}

impl Lstm {
    /// Parameters are named `lstm.weight_ih_l0`, ..., `head.weight`, `head.bias`.
    pub fn new(config: &LstmConfig, widths: Widths, mut parameters: Parameters) -> Self {
        let (hidden, layers, h) = (config.hidden_size as i64, config.n_layers as i64, config.h as i64);
        let inputs = width(config, widths) as i64;
        let targets = (widths.targets * widths.outputs) as i64;
        let encoder = parameters.recurrent("lstm", 4, inputs, hidden, layers, true);
        encoder.set_forget_bias(config.initial_forget_bias);
        let head = parameters.linear("head", hidden, h * targets);
        let lead = if config.mode == LstmMode::Simulation { -1 } else { 0 };
        let frame = Frame { lead, ..Frame::direct(config.input_size, config.h) };
        let sees_targets = sees_targets(config);
        let from_last = sees_targets && config.from_last;
        Self { parameters, frame, encoder, head, sees_targets, from_last, targets, dropout: config.dropout }
    }

    /// Columns that it would read at each step (0 for other models).
    pub(crate) fn inputs(config: &ModelConfig, widths: Widths) -> usize {
        match config {
            ModelConfig::Lstm(config) => width(config, widths),
            _ => 0,
        }
    }
}

fn sees_targets(config: &LstmConfig) -> bool {
    config.mode == LstmMode::Forecast && !config.exclude_insample_y
}

fn width(config: &LstmConfig, widths: Widths) -> usize {
    let past = if sees_targets(config) { widths.targets } else { 0 };
    past + widths.hist + widths.futr + widths.stat
}

/// `[batch, 1, targets]`: the last observed value of each target, 0 without any.
fn last_observed(inputs: &Inputs) -> Tensor {
    let Some(mask) = &inputs.mask else {
        return inputs.y.slice(1, -1, None, 1);
    };
    let rows = mask.size()[1];
    let number = Tensor::arange_start(1, rows + 1, (Kind::Float, mask.device())).view([1, rows, 1]);
    let at = (mask * number).argmax(1, true); // the first row where none is observed, and its value is 0
    inputs.y.gather(1, &at, false)
}

impl Model for Lstm {
    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn frame(&self) -> Frame {
        self.frame
    }

    fn forward(&self, inputs: &Inputs, train: bool) -> Tensor {
        let rows = self.frame.input as i64;
        let mut parts = Vec::with_capacity(4);
        if self.sees_targets {
            parts.push(inputs.y.shallow_clone());
        }
        parts.extend(inputs.hist.as_ref().map(Tensor::shallow_clone));
        parts.extend(inputs.futr.as_ref().map(|x| x.slice(1, -rows, None, 1)));
        parts.extend(inputs.stat.as_ref().map(|s| s.unsqueeze(1).expand([-1, rows, -1], false)));
        let x = Tensor::cat(&parts, 2); // [batch, input, columns]
        let last = self.encoder.lstm(&x, train).select(1, -1); // [batch, hidden]
        let last = if train && self.dropout > 0.0 { last.dropout(self.dropout, train) } else { last };
        let forecast = self.head.forward(&last).view([-1, self.frame.horizon as i64, self.targets]);
        if self.from_last { forecast + last_observed(inputs) } else { forecast }
    }
}
