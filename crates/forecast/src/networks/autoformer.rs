//! Autoformer (Wu et al. 2021): a transformer that separates trend and season, and attends to delays rather than steps.

use tch::Tensor;

use super::attention::{Embedding, FeedForward, Projections, drop};
use crate::config::AutoformerConfig;
use crate::kernels::{self, moving_average, season};
use crate::model::{Frame, Inputs, Model, Widths};
use crate::parameters::{LayerNorm, Linear, Parameters};

/// Encoder over the input, decoder over the season of its end followed by zeros in the horizon; the trends that the decoder takes
/// away add up to the forecast's trend, which starts from the mean of the input.
///
/// ```text
///   season(x) = x - trend(x)          trend = moving average, the ends continued by their last values
///   encoder:  x' = season(x + auto-correlation(x)),  x'' = season(x' + feed-forward(x'))
///   decoder:  the same with a cross auto-correlation between, and trend += projection(all trends taken away)
/// ```
#[derive(Debug)]
pub struct Autoformer {
    parameters: Parameters,
    config: AutoformerConfig,
    encoder_embedding: Embedding,
    decoder_embedding: Embedding,
    encoder: Vec<EncoderLayer>,
    encoder_norm: LayerNorm,
    decoder: Vec<DecoderLayer>,
    decoder_norm: LayerNorm,
    projection: Linear,
}

#[derive(Debug)]
struct EncoderLayer {
    attention: Projections,
    forward: FeedForward,
}

#[derive(Debug)]
struct DecoderLayer {
    itself: Projections,
    cross: Projections,
    forward: FeedForward,
    /// `[outputs, width, 3]`
    projection: Tensor,
}

impl Autoformer {
    /// Parameters are named as NeuralForecast's: `enc_embedding`, `dec_embedding`, `encoder.attn_layers.<i>`, `decoder.layers.<i>`, ...
    pub fn new(config: &AutoformerConfig, widths: Widths, mut parameters: Parameters) -> Self {
        let p = &mut parameters;
        let (width, futr, heads) = (config.hidden_size as i64, widths.futr as i64, config.n_head);
        let sizes = [config.hidden_size, config.conv_hidden_size];
        let encoder_embedding = Embedding::new("enc_embedding", width, futr, None, config.dropout, p);
        let decoder_embedding = Embedding::new("dec_embedding", width, futr, None, config.dropout, p);
        let mut encoder = Vec::new();
        for layer in 0..config.encoder_layers {
            let name = format!("encoder.attn_layers.{layer}");
            encoder.push(EncoderLayer {
                attention: Projections::new(&format!("{name}.attention"), sizes[0], heads, p),
                forward: FeedForward::new(&name, sizes, false, config.activation, p),
            });
        }
        let encoder_norm = p.layer_norm("encoder.norm.layernorm", width, 1e-5);
        let mut decoder = Vec::new();
        let bound = 1.0 / (3.0 * width as f64).sqrt();
        for layer in 0..config.decoder_layers {
            let name = format!("decoder.layers.{layer}");
            decoder.push(DecoderLayer {
                itself: Projections::new(&format!("{name}.self_attention"), sizes[0], heads, p),
                cross: Projections::new(&format!("{name}.cross_attention"), sizes[0], heads, p),
                forward: FeedForward::new(&name, sizes, false, config.activation, p),
                projection: p.uniform(&format!("{name}.projection.weight"), &[widths.outputs as i64, width, 3], bound),
            });
        }
        let decoder_norm = p.layer_norm("decoder.norm.layernorm", width, 1e-5);
        let projection = p.linear("decoder.projection", width, widths.outputs as i64);
        let config = config.clone();
        Self { parameters, config, encoder_embedding, decoder_embedding, encoder, encoder_norm, decoder, decoder_norm, projection }
    }
}

/// Auto-correlation of `[batch, steps, inner]` queries with keys and values, which are cut or continued with zeros to their length.
fn autocorrelate(projections: &Projections, [q, k, v]: [Tensor; 3], factor: usize, train: bool) -> Tensor {
    let (steps, others) = (q.size()[1], k.size()[1]);
    let fit = |x: &Tensor| match steps - others {
        0 => x.shallow_clone(),
        more if more > 0 => x.constant_pad_nd([0, 0, 0, more]),
        _ => x.narrow(1, 0, steps),
    };
    let count = ((factor as f64 * (steps as f64).ln()) as i64).clamp(1, steps);
    projections.out.forward(&kernels::autocorrelation([&q, &fit(&k), &fit(&v)], count, train))
}

/// Layer norm without its mean over time.
fn norm(norm: &LayerNorm, x: &Tensor) -> Tensor {
    let x = norm.forward(x);
    &x - x.mean_dim([1i64].as_slice(), true, None)
}

impl EncoderLayer {
    fn forward(&self, x: Tensor, config: &AutoformerConfig, train: bool) -> Tensor {
        let window = config.MovingAvg_window as i64;
        let attended = autocorrelate(&self.attention, self.attention.of_self(&x), config.factor, train);
        let x = season(&(x + drop(attended, config.dropout, train)), window);
        let forwarded = self.forward.forward(&x, config.dropout, train);
        season(&(x + forwarded), window)
    }
}

impl DecoderLayer {
    /// The season `[batch, steps, width]` and the trend `[batch, steps, outputs]` taken away from it.
    fn forward(&self, x: Tensor, encoded: &Tensor, config: &AutoformerConfig, train: bool) -> (Tensor, Tensor) {
        let window = config.MovingAvg_window as i64;
        let attended = autocorrelate(&self.itself, self.itself.of_self(&x), config.factor, train);
        let first = x + drop(attended, config.dropout, train);
        let x = season(&first, window);
        let [key, value] = self.cross.of_others(encoded);
        let attended = autocorrelate(&self.cross, [self.cross.queries(&x), key, value], config.factor, train);
        let second = x + drop(attended, config.dropout, train);
        let x = season(&second, window);
        let forwarded = self.forward.forward(&x, config.dropout, train);
        let third = x + forwarded;
        (season(&third, window), self.project(&[first, second, third], window))
    }

    /// Trends and their circular convolution over three steps are linear: first to few columns, then the moving average of those.
    fn project(&self, parts: &[Tensor; 3], window: i64) -> Tensor {
        let outputs = self.projection.size()[0];
        let weight = self.projection.permute([2, 0, 1]).flatten(0, 1); // [3 * outputs, width]
        let columns = parts.iter().map(|x| x.linear(&weight, None::<&Tensor>)).reduce(|a, b| a + b).expect("three parts");
        let trend = moving_average(&columns, window);
        let of = |tap: i64| trend.narrow(2, tap * outputs, outputs).roll([1 - tap], [1]);
        of(0) + of(1) + of(2)
    }
}

impl Model for Autoformer {
    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn frame(&self) -> Frame {
        Frame::direct(self.config.input_size, self.config.h)
    }

    fn forward(&self, inputs: &Inputs, train: bool) -> Tensor {
        let (label, h, input) = (self.config.label_len() as i64, self.config.h as i64, self.config.input_size as i64);
        let futr = inputs.futr.as_ref();
        let mut x = self.encoder_embedding.forward(&inputs.y, futr.map(|f| f.narrow(1, 0, input)).as_ref(), train);
        for layer in &self.encoder {
            x = layer.forward(x, &self.config, train);
        }
        let encoded = norm(&self.encoder_norm, &x);

        let seen = season(&inputs.y, self.config.MovingAvg_window as i64).slice(1, -label, None, 1).constant_pad_nd([0, 0, 0, h]);
        let mut x = self.decoder_embedding.forward(&seen, futr.map(|f| f.slice(1, -(label + h), None, 1)).as_ref(), train);
        let mut trend = inputs.y.mean_dim([1i64].as_slice(), true, None); // [batch, 1, 1]
        for layer in &self.decoder {
            let (season, taken) = layer.forward(x, &encoded, &self.config, train);
            trend = &trend + taken.slice(1, -h, None, 1);
            x = season;
        }
        let (scores, bias) = self.projection.apart(&self.decoder_norm.forward(&x));
        let season = &scores - scores.mean_dim([1i64].as_slice(), true, None);
        season.slice(1, -h, None, 1) + bias + trend
    }
}
