//! GRU encoder with an MLP decoder over the horizon, or a recurrent read-out that feeds its forecasts back.

use tch::Tensor;

use super::mlp::Mlp;
use crate::config::GruConfig;
use crate::loss::Feedback;
use crate::model::{Frame, Inputs, Model, Widths};
use crate::parameters::{Linear, Parameters, Recurrent};

/// Gated recurrent units (Cho et al. 2014) over y, hist, stat and futr columns.
#[derive(Debug)]
pub struct Gru {
    parameters: Parameters,
    frame: Frame,
    encoder: Recurrent,
    decoder: Decoder,
    dropout: f64,
}

#[derive(Debug)]
enum Decoder {
    /// Reads the states of the last `horizon` rows, or of a learned map over time if the input is shorter than that.
    Direct { upsample: Option<Linear>, mlp: Mlp },
    /// Reads each state for the next row.
    Recurrent { proj: Linear },
}

impl Gru {
    /// Parameters are named as NeuralForecast's: `hist_encoder`, `mlp_decoder`, `upsample_sequence`, `proj`.
    pub fn new(config: &GruConfig, widths: Widths, mut parameters: Parameters) -> Self {
        let (hidden, outputs) = (config.encoder_hidden_size as i64, widths.outputs as i64);
        let inputs = (1 + widths.hist + widths.stat + widths.futr) as i64;
        let layers = config.encoder_n_layers as i64;
        let encoder = parameters.recurrent("hist_encoder", 3, inputs, hidden, layers, config.encoder_bias);
        let decoder = if config.recurrent {
            Decoder::Recurrent { proj: parameters.linear("proj", hidden, outputs) }
        } else {
            let shape = [hidden + widths.futr as i64, config.decoder_hidden_size as i64, outputs];
            let mlp = Mlp::new("mlp_decoder", shape, config.decoder_layers, config.decoder_activation, &mut parameters);
            let short = config.h > config.input_size;
            let upsample = short.then(|| parameters.linear("upsample_sequence", config.input_size as i64, config.h as i64));
            Decoder::Direct { upsample, mlp }
        };
        Self { parameters, frame: frame(config), encoder, decoder, dropout: config.encoder_dropout }
    }

    /// `[batch, time, 1 + hist + stat + futr]` of the rows `from..from + rows`.
    fn encoder_input(&self, y: &Tensor, inputs: &Inputs, from: i64) -> Tensor {
        let rows = y.size()[1];
        let part = |x: &Tensor| x.narrow(1, from, rows);
        let mut parts = vec![y.shallow_clone()];
        parts.extend(inputs.hist.as_ref().map(part));
        parts.extend(inputs.stat.as_ref().map(|s| s.unsqueeze(1).expand([-1, rows, -1], false)));
        parts.extend(inputs.futr.as_ref().map(part));
        if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(&parts, 2) }
    }
}

fn frame(config: &GruConfig) -> Frame {
    let direct = Frame::direct(config.input_size, config.h);
    match config.recurrent {
        false => direct,
        // One row more, because the network reads y one row before each forecast.
        true => Frame { input: config.input_size + 1, train_horizon: config.h_train, teacher_forcing: true, ..direct },
    }
}

impl Model for Gru {
    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn frame(&self) -> Frame {
        self.frame
    }

    fn forward(&self, inputs: &Inputs, train: bool) -> Tensor {
        let x = self.encoder_input(&inputs.y, inputs, 0);
        let (states, _) = self.encoder.gru(&x, &self.encoder.zeros(&x), self.dropout, train); // [batch, time, hidden]
        match &self.decoder {
            Decoder::Recurrent { proj } => {
                let horizon = x.size()[1] - self.frame.input as i64 + 1;
                proj.forward(&states.slice(1, -horizon, None, 1))
            }
            Decoder::Direct { upsample, mlp } => {
                let h = self.frame.horizon as i64;
                let mut x = match upsample {
                    Some(over_time) => over_time.forward(&states.transpose(1, 2)).transpose(1, 2),
                    None => states.slice(1, -h, None, 1),
                }; // [batch, horizon, hidden]
                if let Some(futr) = &inputs.futr {
                    x = Tensor::cat(&[x, futr.slice(1, -h, None, 1)], 2);
                }
                mlp.forward(&x)
            }
        }
    }

    fn forecast(&self, inputs: &Inputs, feedback: &Feedback) -> Tensor {
        let Decoder::Recurrent { proj } = &self.decoder else {
            return self.forward(inputs, false);
        };
        let input = self.frame.input as i64;
        let mut y = inputs.y.narrow(1, 0, input);
        let mut from = 0;
        let mut state = None;
        let mut steps = Vec::with_capacity(self.frame.horizon);
        for _ in 0..self.frame.horizon {
            let x = self.encoder_input(&y, inputs, from);
            let before = state.unwrap_or_else(|| self.encoder.zeros(&x));
            let (states, after) = self.encoder.gru(&x, &before, 0.0, false);
            let step = proj.forward(&states.slice(1, -1, None, 1)); // [batch, 1, outputs]
            from += y.size()[1];
            y = feedback.next(&step);
            state = Some(after);
            steps.push(step);
        }
        Tensor::cat(&steps, 1)
    }
}
