//! PatchTST (Nie et al. 2023): a transformer over patches of the window, with a batch norm in each of its layers.

use tch::{Device, Kind, Tensor};

use super::attention::{activate, drop};
use crate::config::PatchTstConfig;
use crate::kernels;
use crate::model::{Frame, Inputs, Model, Widths};
use crate::parameters::{Linear, Parameters};

/// Each window is normalised by itself, cut into patches, and the encoder's output for all patches read by one linear map.
///
/// ```text
///   y ─► normalise ─► patches ─► W_P + positions ─► encoder layers ─► linear map of all patches ─► undo the norm
/// ```
#[derive(Debug)]
pub struct PatchTst {
    parameters: Parameters,
    config: PatchTstConfig,
    outputs: i64,
    patch: i64,
    affine: Option<(Tensor, Tensor)>,
    positions: Tensor,
    embedding: Linear,
    layers: Vec<Layer>,
    head: Linear,
}

#[derive(Debug)]
struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    /// One over the root of a head's width; frozen.
    scale: Tensor,
    out: Linear,
    norm_attention: BatchNorm,
    first: Linear,
    second: Linear,
    norm_forward: BatchNorm,
}

/// Batch normalisation (Ioffe and Szegedy 2015), momentum 0.1, eps 1e-5.
#[derive(Debug)]
struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    batches: Tensor,
}

impl BatchNorm {
    fn new(name: &str, width: i64, parameters: &mut Parameters) -> Self {
        let (ones, zeros) = (Tensor::ones([width], (Kind::Float, Device::Cpu)), Tensor::zeros([width], (Kind::Float, Device::Cpu)));
        Self {
            weight: parameters.learned(&format!("{name}.weight"), &ones),
            bias: parameters.learned(&format!("{name}.bias"), &zeros),
            mean: parameters.buffer(&format!("{name}.running_mean"), &zeros),
            variance: parameters.buffer(&format!("{name}.running_var"), &ones),
            batches: parameters.buffer(&format!("{name}.num_batches_tracked"), &Tensor::from(0i64)),
        }
    }

    /// `[rows, width] -> [rows, width]`: by the statistics of the rows in training, which also move the running ones, else by those.
    fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        if train {
            let _ = self.batches.shallow_clone().g_add_scalar_(1);
        }
        x.batch_norm(Some(&self.weight), Some(&self.bias), Some(&self.mean), Some(&self.variance), train, 0.1, 1e-5, true)
    }
}

impl PatchTst {
    /// Parameters are named as NeuralForecast's: `model.backbone.W_P`, `model.backbone.encoder.layers.<i>`, `model.head.linear`.
    pub fn new(config: &PatchTstConfig, widths: Widths, mut parameters: Parameters) -> Self {
        let (input, stride, width) = (config.input_size as i64, config.stride as i64, config.hidden_size as i64);
        let outputs = widths.outputs as i64;
        let patch = (config.patch_len as i64).min(input + stride);
        let count = (input + stride - patch) / stride + 1;
        let affine = (config.revin && config.revin_affine).then(|| {
            let float = (Kind::Float, Device::Cpu);
            let weight = parameters.learned("model.revin_layer.affine_weight", &Tensor::ones([1], float));
            (weight, parameters.learned("model.revin_layer.affine_bias", &Tensor::zeros([1], float)))
        });
        let positions = match config.learn_pos_embed {
            true => parameters.uniform("model.backbone.W_pos", &[count, width], 0.02),
            false => parameters.frozen_uniform("model.backbone.W_pos", &[count, width], 0.02),
        };
        let embedding = parameters.linear("model.backbone.W_P", patch, width);
        let layers = (0..config.encoder_layers).map(|layer| Layer::new(layer, config, &mut parameters)).collect();
        let head = parameters.linear("model.head.linear", width * count, config.h as i64 * outputs);
        Self { parameters, config: config.clone(), outputs, patch, affine, positions, embedding, layers, head }
    }

    /// What the norm subtracts and divides by, `[batch, 1]`.
    fn statistics(&self, y: &Tensor) -> (Tensor, Tensor) {
        let (variance, mean) = y.var_mean_correction([1i64].as_slice(), 0, true);
        let shift = if self.config.revin_subtract_last { y.slice(1, -1, None, 1) } else { mean };
        (shift, (variance + 1e-5).sqrt())
    }

    /// `[batch, input] -> [batch * patches, width]`.
    fn embed(&self, y: &Tensor, train: bool) -> Tensor {
        let stride = self.config.stride as i64;
        let last = y.slice(1, -1, None, 1).expand([-1, stride], false);
        let patches = Tensor::cat(&[y, &last], 1).unfold(1, self.patch, stride); // [batch, patches, patch]
        let x = self.embedding.forward(&patches) + &self.positions;
        drop(x, self.config.dropout, train).flatten(0, 1)
    }

    /// `[batch * patches, width] -> [batch, horizon * outputs]`.
    fn read(&self, x: &Tensor, batch: i64, train: bool) -> Tensor {
        let width = self.config.hidden_size as i64;
        // NeuralForecast flattens [width, patches]; the weights are turned rather than the larger batch.
        let head = self.head.with_inputs(|weight| {
            let rows = weight.size()[0];
            weight.view([rows, width, -1]).transpose(1, 2).reshape([rows, -1])
        });
        drop(head.forward(&x.view([batch, -1])), self.config.head_dropout, train)
    }
}

impl Layer {
    fn new(number: usize, config: &PatchTstConfig, parameters: &mut Parameters) -> Self {
        let (width, inner) = (config.hidden_size as i64, config.linear_hidden_size as i64);
        let name = format!("model.backbone.encoder.layers.{number}");
        let scale = ((config.hidden_size / config.n_heads) as f64).powf(-0.5) as f32;
        Self {
            query: parameters.linear(&format!("{name}.self_attn.W_Q"), width, width),
            key: parameters.linear(&format!("{name}.self_attn.W_K"), width, width),
            value: parameters.linear(&format!("{name}.self_attn.W_V"), width, width),
            scale: parameters.buffer(&format!("{name}.self_attn.sdp_attn.scale"), &Tensor::from(scale)),
            out: parameters.linear(&format!("{name}.self_attn.to_out.0"), width, width),
            norm_attention: BatchNorm::new(&format!("{name}.norm_attn.1"), width, parameters),
            first: parameters.linear(&format!("{name}.ff.0"), width, inner),
            second: parameters.linear(&format!("{name}.ff.3"), inner, width),
            norm_forward: BatchNorm::new(&format!("{name}.norm_ffn.1"), width, parameters),
        }
    }

    /// `[batch * patches, width]` to the same; `scores` are those of the layer before.
    fn forward(&self, x: Tensor, batch: i64, config: &PatchTstConfig, scores: &mut Option<Tensor>, train: bool) -> Tensor {
        let before = |norm: &BatchNorm, x: Tensor| if config.batch_normalization { norm.forward(&x, train) } else { x };
        let after = |norm: &BatchNorm, x: Tensor| if config.batch_normalization { x } else { norm.forward(&x, train) };
        let x = before(&self.norm_attention, x);
        let attended = self.out.forward(&self.attend(&x, batch, config, scores, train));
        // NeuralForecast drops values twice in a row, which is dropping them once with a higher probability.
        let twice = 1.0 - (1.0 - config.dropout).powi(2);
        let x = after(&self.norm_attention, x + drop(attended, twice, train));
        let x = before(&self.norm_forward, x);
        let hidden = drop(activate(config.activation, &self.first.forward(&x)), config.dropout, train);
        let forwarded = drop(self.second.forward(&hidden), config.dropout, train);
        after(&self.norm_forward, x + forwarded)
    }

    fn attend(&self, x: &Tensor, batch: i64, config: &PatchTstConfig, scores: &mut Option<Tensor>, train: bool) -> Tensor {
        let (heads, width) = (config.n_heads as i64, config.hidden_size as i64);
        let qkv = Linear::side_by_side(&[&self.query.scaled(&self.scale), &self.key, &self.value]).forward(x);
        let dropout = if train { config.attn_dropout } else { 0.0 };
        if !config.res_attention {
            // [3, batch, heads, patches, width / heads]
            let qkv = qkv.view([batch, -1, 3, heads, width / heads]).permute([2, 0, 3, 1, 4]);
            let (q, k, v) = (qkv.get(0), qkv.get(1), qkv.get(2));
            let out = Tensor::scaled_dot_product_attention(&q, &k, &v, None::<&Tensor>, dropout, false, 1.0, false);
            return out.transpose(1, 2).reshape([-1, width]);
        }
        let (out, now) = kernels::residual_attention(&qkv, scores.as_ref(), batch, heads, dropout);
        *scores = Some(now);
        out
    }
}

impl Model for PatchTst {
    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn frame(&self) -> Frame {
        Frame::direct(self.config.input_size, self.config.h)
    }

    fn forward(&self, inputs: &Inputs, train: bool) -> Tensor {
        let y = inputs.y.squeeze_dim(-1); // [batch, input]
        let batch = y.size()[0];
        let norm = self.config.revin.then(|| self.statistics(&y));
        let y = norm.as_ref().map_or(y.shallow_clone(), |(shift, scale)| (&y - shift) / scale);
        let y = self.affine.as_ref().map_or(y.shallow_clone(), |(weight, bias)| y * weight + bias);
        let mut x = self.embed(&y, train);
        let mut scores = None;
        for layer in &self.layers {
            x = layer.forward(x, batch, &self.config, &mut scores, train);
        }
        let z = self.read(&x, batch, train);
        let z = self.affine.as_ref().map_or(z.shallow_clone(), |(weight, bias)| (&z - bias) / (weight + 1e-10));
        let z = norm.as_ref().map_or(z.shallow_clone(), |(shift, scale)| &z * scale + shift);
        z.view([batch, self.config.h as i64, self.outputs])
    }
}
