//! Transformer with full attention and a decoder that forecasts the whole horizon in one pass.

use tch::Tensor;

use super::attention::{Embedding, FeedForward, Projections, drop};
use crate::config::VanillaTransformerConfig;
use crate::model::{Frame, Inputs, Model, Widths};
use crate::parameters::{LayerNorm, Linear, Parameters};

/// Encoder over the input; decoder over the end of the input followed by zeros in the horizon, without a causal mask, as in
/// NeuralForecast.
#[derive(Debug)]
pub struct VanillaTransformer {
    parameters: Parameters,
    config: VanillaTransformerConfig,
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
    norms: [LayerNorm; 2],
}

#[derive(Debug)]
struct DecoderLayer {
    itself: Projections,
    cross: Projections,
    forward: FeedForward,
    norms: [LayerNorm; 3],
}

impl VanillaTransformer {
    /// Parameters are named as NeuralForecast's: `enc_embedding`, `dec_embedding`, `encoder.attn_layers.<i>`, `decoder.layers.<i>`, ...
    pub fn new(config: &VanillaTransformerConfig, widths: Widths, mut parameters: Parameters) -> Self {
        let p = &mut parameters;
        let (width, futr, heads) = (config.hidden_size as i64, widths.futr as i64, config.n_head);
        let sizes = [config.hidden_size, config.conv_hidden_size];
        let steps = [config.input_size, config.label_len() + config.h].map(|n| Some(n as i64));
        let encoder_embedding = Embedding::new("enc_embedding", width, futr, steps[0], config.dropout, p);
        let decoder_embedding = Embedding::new("dec_embedding", width, futr, steps[1], config.dropout, p);
        let mut encoder = Vec::new();
        for layer in 0..config.encoder_layers {
            let name = format!("encoder.attn_layers.{layer}");
            encoder.push(EncoderLayer {
                attention: Projections::new(&format!("{name}.attention"), sizes[0], heads, p),
                forward: FeedForward::new(&name, sizes, true, config.activation, p),
                norms: [1, 2].map(|n| p.layer_norm(&format!("{name}.norm{n}"), width, 1e-5)),
            });
        }
        let encoder_norm = p.layer_norm("encoder.norm", width, 1e-5);
        let mut decoder = Vec::new();
        for layer in 0..config.decoder_layers {
            let name = format!("decoder.layers.{layer}");
            decoder.push(DecoderLayer {
                itself: Projections::new(&format!("{name}.self_attention"), sizes[0], heads, p),
                cross: Projections::new(&format!("{name}.cross_attention"), sizes[0], heads, p),
                forward: FeedForward::new(&name, sizes, true, config.activation, p),
                norms: [1, 2, 3].map(|n| p.layer_norm(&format!("{name}.norm{n}"), width, 1e-5)),
            });
        }
        let decoder_norm = p.layer_norm("decoder.norm", width, 1e-5);
        let projection = p.linear("decoder.projection", width, widths.outputs as i64);
        let config = config.clone();
        Self { parameters, config, encoder_embedding, decoder_embedding, encoder, encoder_norm, decoder, decoder_norm, projection }
    }
}

impl EncoderLayer {
    /// `[batch, steps, width]` to the same.
    fn forward(&self, x: Tensor, dropout: f64, train: bool) -> Tensor {
        let attended = self.attention.attend(self.attention.of_self(&x), dropout, train);
        let x = self.norms[0].forward(&(x + drop(attended, dropout, train)));
        let forwarded = self.forward.forward(&x, dropout, train);
        self.norms[1].forward(&(x + forwarded))
    }
}

impl DecoderLayer {
    /// `[batch, steps, width]` to its steps from `from` on.
    fn forward(&self, x: &Tensor, encoded: &Tensor, from: i64, dropout: f64, train: bool) -> Tensor {
        let attended = self.itself.attend(self.itself.of_last(x, from), dropout, train);
        let x = self.norms[0].forward(&(x.slice(1, from, None, 1) + drop(attended, dropout, train)));
        let [key, value] = self.cross.of_others(encoded);
        let attended = self.cross.attend([self.cross.queries(&x), key, value], dropout, train);
        let x = self.norms[1].forward(&(x + drop(attended, dropout, train)));
        let forwarded = self.forward.forward(&x, dropout, train);
        self.norms[2].forward(&(x + forwarded))
    }
}

impl Model for VanillaTransformer {
    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn frame(&self) -> Frame {
        Frame::direct(self.config.input_size, self.config.h)
    }

    fn forward(&self, inputs: &Inputs, train: bool) -> Tensor {
        let (label, h, dropout) = (self.config.label_len() as i64, self.config.h as i64, self.config.dropout);
        let input = self.config.input_size as i64;
        let futr = inputs.futr.as_ref();
        let mut x = self.encoder_embedding.forward(&inputs.y, futr.map(|f| f.narrow(1, 0, input)).as_ref(), train);
        for layer in &self.encoder {
            x = layer.forward(x, dropout, train);
        }
        let encoded = self.encoder_norm.forward(&x);

        let seen = inputs.y.slice(1, -label, None, 1).constant_pad_nd([0, 0, 0, h]);
        let mut x = self.decoder_embedding.forward(&seen, futr.map(|f| f.slice(1, -(label + h), None, 1)).as_ref(), train);
        for (number, layer) in self.decoder.iter().enumerate() {
            // Only the horizon is read, so the last layer computes nothing else.
            let from = if number + 1 == self.decoder.len() { label } else { 0 };
            x = layer.forward(&x, &encoded, from, dropout, train);
        }
        self.projection.forward(&self.decoder_norm.forward(&x.slice(1, -h, None, 1)))
    }
}
