//! TiDE (Das et al. 2023): residual MLPs from lags and exogenous columns to the horizon, plus a linear map of the lags.

use tch::Tensor;

use crate::config::TideConfig;
use crate::model::{Frame, Inputs, Model, Widths};
use crate::parameters::{LayerNorm, Linear, Parameters};

/// Dense encoder and decoder, a decoder that looks at each step of the horizon by itself, and a linear skip connection.
///
/// ```text
///   lags | hist | futr | stat ─► encoder ─► decoder ─► [horizon, values] | futr ─► temporal decoder ─┐
///   lags ─────────────────────────────── linear ─────────────────────────────────────────────────────┴─► forecast
/// ```
///
/// The temporal decoder ends in a layer normalisation over the outputs of one step. With one output that is its bias whatever it
/// reads (google-research issue 2133), so nothing in front of it is computed or trained then; its weights are kept as they are.
#[derive(Debug)]
pub struct Tide {
    parameters: Parameters,
    frame: Frame,
    hist: Option<Residual>,
    futr: Option<Residual>,
    encoder: Vec<Residual>,
    decoder: Vec<Residual>,
    temporal: Temporal,
    skip: Linear,
    outputs: i64,
    dropout: f64,
}

/// What the network adds to the linear map of the lags.
#[derive(Debug)]
enum Temporal {
    Decoder(Residual),
    /// One value for all steps and windows: the bias of a layer normalisation of width one.
    Constant(Tensor),
}

/// `norm(second(relu(first(x))) + skip(x))`.
#[derive(Debug)]
struct Residual {
    first: Linear,
    second: Linear,
    skip: Linear,
    norm: Option<LayerNorm>,
    hidden: i64,
}

impl Tide {
    /// Parameters are named as NeuralForecast's: `hist_exog_projection`, `futr_exog_projection`, `dense_encoder.<i>`,
    /// `dense_decoder.<i>`, `temporal_decoder`, `global_skip`.
    pub fn new(config: &TideConfig, widths: Widths, mut parameters: Parameters) -> Self {
        let p = &mut parameters;
        let (input, h, outputs) = (config.input_size, config.h, widths.outputs);
        let (hidden, width, norm) = (config.hidden_size, config.temporal_width, config.layernorm);
        let (has_hist, has_futr) = (widths.hist > 0, widths.futr > 0);
        // The library makes the projection of hist columns whenever there are futr columns, and does not use it then.
        let hist = (has_hist || has_futr).then(|| Residual::new("hist_exog_projection", [widths.hist, hidden, width], norm, p));
        let futr = has_futr.then(|| Residual::new("futr_exog_projection", [widths.futr, hidden, width], norm, p));
        let columns = usize::from(has_hist) * input * width + usize::from(has_futr) * (input + h) * width + widths.stat;
        let mut encoder = Vec::new();
        for layer in 0..config.num_encoder_layers {
            let from = if layer == 0 { input + columns } else { hidden };
            encoder.push(Residual::new(&format!("dense_encoder.{layer}"), [from, hidden, hidden], norm, p));
        }
        let mut decoder = Vec::new();
        for layer in 0..config.num_decoder_layers {
            let to = if layer + 1 == config.num_decoder_layers { config.decoder_output_dim * h } else { hidden };
            decoder.push(Residual::new(&format!("dense_decoder.{layer}"), [hidden, hidden, to], norm, p));
        }
        let sizes = [config.decoder_output_dim + usize::from(has_futr) * width, config.temporal_decoder_dim, outputs];
        let temporal = Residual::new("temporal_decoder", sizes, norm && config.final_layernorm, p);
        let skip = p.linear("global_skip", input as i64, (h * outputs) as i64);
        if !has_hist {
            p.idle(|name| name.starts_with("hist_exog_projection."));
        }
        let temporal = match &temporal.norm {
            Some(norm) if outputs == 1 => {
                let bias = norm.bias().shallow_clone();
                p.idle(|name| name != "temporal_decoder.norm.bias" && !name.starts_with("global_skip."));
                Temporal::Constant(bias)
            }
            _ => Temporal::Decoder(temporal),
        };
        let frame = Frame::direct(input, h);
        let hist = hist.filter(|_| has_hist);
        Self { parameters, frame, hist, futr, encoder, decoder, temporal, skip, outputs: outputs as i64, dropout: config.dropout }
    }

    /// What the network adds to the linear map of the lags, `[batch, horizon, outputs]`.
    fn network(&self, last: &Residual, lags: &Tensor, inputs: &Inputs, train: bool) -> Tensor {
        let project = |residual: &Option<Residual>, x: &Option<Tensor>| {
            residual.as_ref().zip(x.as_ref()).map(|(residual, x)| residual.forward(x, self.dropout, train))
        };
        let (hist, futr) = (project(&self.hist, &inputs.hist), project(&self.futr, &inputs.futr)); // [batch, rows, width]
        let mut parts = vec![lags.shallow_clone()];
        parts.extend(hist.iter().chain(&futr).map(|x| x.flatten(1, -1)));
        parts.extend(inputs.stat.iter().map(Tensor::shallow_clone));
        let mut x = if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(&parts, 1) };
        for residual in self.encoder.iter().chain(&self.decoder) {
            x = residual.forward(&x, self.dropout, train);
        }
        let x = x.view([x.size()[0], self.frame.horizon as i64, -1]); // [batch, horizon, values]
        let ahead = futr.map(|futr| futr.slice(1, self.frame.input as i64, None, 1));
        let x = ahead.iter().fold(x, |x, ahead| Tensor::cat(&[&x, ahead], 2));
        last.forward(&x, self.dropout, train)
    }
}

impl Residual {
    /// `<name>.norm`, `.lin1`, `.lin2`, `.skip` with inputs, hidden values and outputs of the given `sizes`.
    fn new(name: &str, sizes: [usize; 3], norm: bool, parameters: &mut Parameters) -> Self {
        let [inputs, hidden, outputs] = sizes.map(|size| size as i64);
        Self {
            norm: norm.then(|| parameters.layer_norm(&format!("{name}.norm"), outputs, 1e-5)),
            first: parameters.linear(&format!("{name}.lin1"), inputs, hidden),
            second: parameters.linear(&format!("{name}.lin2"), hidden, outputs),
            skip: parameters.linear(&format!("{name}.skip"), inputs, outputs),
            hidden,
        }
    }

    /// `[.., inputs] -> [.., outputs]`.
    fn forward(&self, x: &Tensor, dropout: f64, train: bool) -> Tensor {
        let (inner, skip) = if self.skip.outputs() <= self.hidden {
            // Both maps of x are one product.
            let both = Linear::side_by_side(&[&self.first, &self.skip]).forward(x);
            (both.slice(-1, None, self.hidden, 1).relu(), both.slice(-1, self.hidden, None, 1))
        } else {
            (self.first.forward(x).relu(), self.skip.forward(x))
        };
        let inner = self.second.forward(&inner);
        let x = skip + if train && dropout > 0.0 { inner.dropout(dropout, true) } else { inner };
        self.norm.as_ref().map_or_else(|| x.shallow_clone(), |norm| norm.forward(&x))
    }
}

impl Model for Tide {
    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn frame(&self) -> Frame {
        self.frame
    }

    fn forward(&self, inputs: &Inputs, train: bool) -> Tensor {
        let lags = inputs.y.squeeze_dim(-1); // [batch, input]
        let linear = self.skip.forward(&lags).view([-1, self.frame.horizon as i64, self.outputs]);
        linear
            + match &self.temporal {
                Temporal::Constant(value) => value.shallow_clone(),
                Temporal::Decoder(last) => self.network(last, &lags, inputs, train),
            }
    }
}
