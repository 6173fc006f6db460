//! DeepAR: an LSTM that reads the series up to each step and forecasts the arguments of the next value's distribution.

use tch::Tensor;

use super::mlp::Mlp;
use crate::config::DeepArConfig;
use crate::loss::Feedback;
use crate::model::{Frame, Inputs, Model, Widths};
use crate::parameters::{Parameters, Recurrent};

/// Autoregressive recurrent network (Salinas et al. 2020) over y, hist, futr and stat columns.
///
/// ```text
///   y_0 y_1 .... y_(L-1) | y_L ......       trained with the true y of the step before (teacher forcing),
///    |   |          |    |  |               forecasting with the mean of its own distribution for that step
///   LSTM -> LSTM -> LSTM -> LSTM ->
///    |   |          |       |
///   d_1 d_2 ....   d_L     d_(L+1)          distributions: MLP of each state
/// ```
#[derive(Debug)]
pub struct DeepAr {
    parameters: Parameters,
    frame: Frame,
    encoder: Recurrent,
    decoder: Mlp,
    dropout: f64,
}

impl DeepAr {
    /// Parameters are named as NeuralForecast's: `hist_encoder`, `decoder`.
    pub fn new(config: &DeepArConfig, widths: Widths, mut parameters: Parameters) -> Self {
        let hidden = config.lstm_hidden_size as i64;
        let inputs = (1 + widths.hist + widths.futr + widths.stat) as i64;
        let encoder = parameters.recurrent("hist_encoder", 4, inputs, hidden, config.lstm_n_layers as i64, true);
        let shape = [hidden, config.decoder_hidden_size as i64, widths.outputs as i64];
        let decoder = Mlp::new("decoder", shape, config.decoder_hidden_layers + 1, config.decoder_activation, &mut parameters);
        // One row more than the model sees, because the network reads y one row before each forecast.
        let direct = Frame::direct(config.input_size, config.h);
        let frame = Frame { input: config.input_size + 1, train_horizon: config.h_train, teacher_forcing: true, ..direct };
        Self { parameters, frame, encoder, decoder, dropout: config.lstm_dropout }
    }

    /// `[batch, time, 1 + hist + futr + stat]` of the rows from `from` on, as many as `y` has.
    fn encoder_input(&self, y: &Tensor, inputs: &Inputs, from: i64) -> Tensor {
        let rows = y.size()[1];
        let part = |x: &Tensor| x.narrow(1, from, rows);
        let mut parts = vec![y.shallow_clone()];
        parts.extend(inputs.hist.as_ref().map(part));
        parts.extend(inputs.futr.as_ref().map(part));
        parts.extend(inputs.stat.as_ref().map(|s| s.unsqueeze(1).expand([-1, rows, -1], false)));
        if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(&parts, 2) }
    }
}

impl Model for DeepAr {
    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn frame(&self) -> Frame {
        self.frame
    }

    fn forward(&self, inputs: &Inputs, train: bool) -> Tensor {
        let x = self.encoder_input(&inputs.y, inputs, 0);
        let horizon = x.size()[1] - self.frame.input as i64 + 1;
        let (states, _) = self.encoder.lstm_from(&x, None, self.dropout, train); // [batch, time, hidden]
        self.decoder.forward(&states.slice(1, -horizon, None, 1))
    }

    fn forecast(&self, inputs: &Inputs, feedback: &Feedback) -> Tensor {
        let mut y = inputs.y.narrow(1, 0, self.frame.input as i64);
        let mut from = 0;
        let mut state = None;
        let mut steps = Vec::with_capacity(self.frame.horizon);
        for _ in 0..self.frame.horizon {
            let x = self.encoder_input(&y, inputs, from);
            let (states, after) = self.encoder.lstm_from(&x, state, 0.0, false);
            let step = self.decoder.forward(&states.slice(1, -1, None, 1)); // [batch, 1, outputs]
            from += y.size()[1];
            y = feedback.next(&step);
            state = Some(after);
            steps.push(step);
        }
        Tensor::cat(&steps, 1)
    }
}
