//! Parts that transformers share: projections of queries, keys and values, embeddings of steps, feed-forward layers.

use tch::{Device, Kind, Tensor};

use crate::config::TransformerActivation;
use crate::kernels;
use crate::parameters::{Linear, Parameters};

/// Sets values to zero with `probability` in training and scales the others up for it.
pub(super) fn drop(x: Tensor, probability: f64, train: bool) -> Tensor {
    if train && probability > 0.0 { kernels::dropout(&x, probability) } else { x }
}

/// The feed-forward layers' non-linearity.
pub(super) fn activate(activation: TransformerActivation, x: &Tensor) -> Tensor {
    match activation {
        TransformerActivation::Relu => x.relu(),
        TransformerActivation::Gelu => x.gelu("none"),
    }
}

/// Linear maps in front of and behind an attention over several heads.
#[derive(Debug)]
pub(super) struct Projections {
    query: Linear,
    key: Linear,
    value: Linear,
    pub(super) out: Linear,
    heads: i64,
}

impl Projections {
    /// `<name>.query_projection`, `key_`, `value_`, `out_projection`; heads of `width / heads` values, rounded down.
    pub(super) fn new(name: &str, width: usize, heads: usize, parameters: &mut Parameters) -> Self {
        let (width, inner) = (width as i64, (width / heads * heads) as i64);
        Self {
            query: parameters.linear(&format!("{name}.query_projection"), width, inner),
            key: parameters.linear(&format!("{name}.key_projection"), width, inner),
            value: parameters.linear(&format!("{name}.value_projection"), width, inner),
            out: parameters.linear(&format!("{name}.out_projection"), inner, width),
            heads: heads as i64,
        }
    }

    /// Queries, keys and values of the same steps by one product, each `[batch, steps, inner]`.
    pub(super) fn of_self(&self, x: &Tensor) -> [Tensor; 3] {
        let all = Linear::side_by_side(&[&self.query, &self.key, &self.value]).forward(x);
        three(&all)
    }

    /// Queries of the steps from `from` on, keys and values of all steps.
    pub(super) fn of_last(&self, x: &Tensor, from: i64) -> [Tensor; 3] {
        if from == 0 {
            return self.of_self(x);
        }
        let [key, value] = self.of_others(x);
        [self.query.forward(&x.slice(1, from, None, 1)), key, value]
    }

    /// Keys and values of the steps attended to.
    pub(super) fn of_others(&self, x: &Tensor) -> [Tensor; 2] {
        let both = Linear::side_by_side(&[&self.key, &self.value]).forward(x);
        let mut parts = both.chunk(2, -1).into_iter();
        [0, 1].map(|_| parts.next().expect("two parts were asked for"))
    }

    /// Queries of the attending steps.
    pub(super) fn queries(&self, x: &Tensor) -> Tensor {
        self.query.forward(x)
    }

    /// Attention (Vaswani et al. 2017) without a mask, and the map behind it: `[batch, steps of the queries, width]`.
    pub(super) fn attend(&self, [q, k, v]: [Tensor; 3], dropout: f64, train: bool) -> Tensor {
        self.out.forward(&kernels::attention([&q, &k, &v], self.heads, if train { dropout } else { 0.0 }))
    }
}

fn three(all: &Tensor) -> [Tensor; 3] {
    let mut parts = all.chunk(3, -1).into_iter();
    [0, 1, 2].map(|_| parts.next().expect("three parts were asked for"))
}

/// A step's embedding: a circular convolution over three steps, plus columns known ahead, plus its position.
#[derive(Debug)]
pub(super) struct Embedding {
    /// `[width, 1, 3]`
    value: Tensor,
    /// `[width, futr]`
    temporal: Option<Tensor>,
    /// `[1, steps, width]`
    positions: Option<Tensor>,
    dropout: f64,
}

impl Embedding {
    /// `<name>.value_embedding`, `<name>.temporal_embedding` with `futr` columns; with sinusoidal positions of up to `positions` steps.
    pub(super) fn new(name: &str, width: i64, futr: i64, positions: Option<i64>, dropout: f64, parameters: &mut Parameters) -> Self {
        // Kaiming's normal values for a leaky rectifier of slope 0.01 and three inputs.
        let deviation = (2.0 / (1.0 + 0.01f64.powi(2)) / 3.0).sqrt();
        let value = parameters.normal(&format!("{name}.value_embedding.tokenConv.weight"), &[width, 1, 3], deviation);
        let positions = positions.map(|steps| {
            parameters.computed(&format!("{name}.position_embedding.pe"));
            sinusoids(steps, width).to_device(parameters.device())
        });
        let bound = 1.0 / (futr as f64).sqrt();
        let temporal = (futr > 0).then(|| parameters.uniform(&format!("{name}.temporal_embedding.embed.weight"), &[width, futr], bound));
        Self { value, temporal, positions, dropout }
    }

    /// `y` of `[batch, steps, 1]` and `futr` of the same steps, to `[batch, steps, width]`.
    pub(super) fn forward(&self, y: &Tensor, futr: Option<&Tensor>, train: bool) -> Tensor {
        let (last, first) = (y.slice(1, -1, None, 1), y.slice(1, 0, 1, 1));
        let before = Tensor::cat(&[&last, &y.slice(1, 0, -1, 1)], 1);
        let after = Tensor::cat(&[&y.slice(1, 1, None, 1), &first], 1);
        let mut columns = vec![before, y.shallow_clone(), after];
        let mut weights = vec![self.value.squeeze_dim(1)];
        if let (Some(futr), Some(temporal)) = (futr, &self.temporal) {
            columns.push(futr.shallow_clone());
            weights.push(temporal.shallow_clone());
        }
        let mut x = Tensor::cat(&columns, 2).linear(&Tensor::cat(&weights, 1), None::<&Tensor>);
        if let Some(positions) = &self.positions {
            x = x.g_add_(&positions.slice(1, 0, y.size()[1], 1));
        }
        drop(x, self.dropout, train)
    }
}

/// `[1, steps, width]`: sine in even, cosine in odd columns, of wavelengths from 2 pi to 10 000 * 2 pi.
fn sinusoids(steps: i64, width: i64) -> Tensor {
    let float = (Kind::Float, Device::Cpu);
    let rates = (Tensor::arange_start_step(0, width, 2, float) * (-(10_000f64.ln()) / width as f64)).exp();
    let angles = Tensor::arange(steps, float).unsqueeze(1) * rates; // [steps, width / 2]
    Tensor::stack(&[angles.sin(), angles.cos()], 2).view([1, steps, width])
}

/// Two linear maps with a non-linearity between them, applied to every step.
#[derive(Debug)]
pub(super) struct FeedForward {
    first: Linear,
    second: Linear,
    activation: TransformerActivation,
}

impl FeedForward {
    /// `<name>.conv1` and `<name>.conv2`, which NeuralForecast keeps as convolutions over one step.
    pub(super) fn new(
        name: &str,
        [width, inner]: [usize; 2],
        bias: bool,
        activation: TransformerActivation,
        parameters: &mut Parameters,
    ) -> Self {
        let (width, inner) = (width as i64, inner as i64);
        let first = parameters.convolution(&format!("{name}.conv1"), width, inner, bias);
        let second = parameters.convolution(&format!("{name}.conv2"), inner, width, bias);
        Self { first, second, activation }
    }

    /// `[batch, steps, width] -> [batch, steps, width]`.
    pub(super) fn forward(&self, x: &Tensor, dropout: f64, train: bool) -> Tensor {
        let hidden = drop(activate(self.activation, &self.first.forward(x)), dropout, train);
        drop(self.second.forward(&hidden), dropout, train)
    }
}
