//! The learned tensors of a model, by name, and the layers made of them.

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use tch::{Device, Kind, Tensor};

/// Named learned tensors in a fixed order; layers share their storage.
#[derive(Debug)]
pub struct Parameters {
    names: Vec<String>,
    tensors: Vec<Tensor>,
    device: Device,
    rng: ChaCha8Rng,
}

impl Parameters {
    /// No parameters yet; `rng` draws their first values, `device` holds them.
    pub fn new(rng: ChaCha8Rng, device: Device) -> Self {
        Self { names: Vec::new(), tensors: Vec::new(), device, rng }
    }

    /// Names in order, PyTorch's `state_dict` keys.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Tensors in the order of the names.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// Where they lie.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Number of learned values.
    pub fn count(&self) -> u64 {
        self.tensors.iter().map(|t| t.numel() as u64).sum()
    }

    /// Adds a tensor of uniform random values within `bound` of zero (PyTorch's default for linear and recurrent layers).
    pub fn uniform(&mut self, name: &str, shape: &[i64], bound: f64) -> Tensor {
        let (count, bound) = (shape.iter().product::<i64>() as usize, bound as f32);
        let values: Vec<f32> = (0..count).map(|_| self.rng.random_range(-1.0f32..1.0) * bound).collect();
        let tensor = Tensor::from_slice(&values).view(shape).to_device(self.device).set_requires_grad(true);
        self.names.push(name.to_owned());
        self.tensors.push(tensor.shallow_clone());
        tensor
    }

    /// A linear map `[.., inputs] -> [.., outputs]` with bias: `<name>.weight` and `<name>.bias`.
    pub fn linear(&mut self, name: &str, inputs: i64, outputs: i64) -> Linear {
        let bound = 1.0 / (inputs as f64).sqrt();
        let weight = self.uniform(&format!("{name}.weight"), &[outputs, inputs], bound);
        let bias = self.uniform(&format!("{name}.bias"), &[outputs], bound);
        Linear { weight, bias }
    }

    /// A stack of recurrent layers with `gates` gates: `<name>.weight_ih_l0`, ... in PyTorch's order.
    pub fn recurrent(&mut self, name: &str, gates: i64, inputs: i64, hidden: i64, layers: i64, biases: bool) -> Recurrent {
        let bound = 1.0 / (hidden as f64).sqrt();
        let mut weights = Vec::new();
        for layer in 0..layers {
            let width = if layer == 0 { inputs } else { hidden };
            weights.push(self.uniform(&format!("{name}.weight_ih_l{layer}"), &[gates * hidden, width], bound));
            weights.push(self.uniform(&format!("{name}.weight_hh_l{layer}"), &[gates * hidden, hidden], bound));
            if biases {
                weights.push(self.uniform(&format!("{name}.bias_ih_l{layer}"), &[gates * hidden], bound));
                weights.push(self.uniform(&format!("{name}.bias_hh_l{layer}"), &[gates * hidden], bound));
            }
        }
        Recurrent { weights, hidden, layers, biases }
    }
}

/// `x W' + b`.
#[derive(Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
    /// `[.., inputs] -> [.., outputs]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.linear(&self.weight, Some(&self.bias))
    }

    /// `next` after this, with nothing between them: for large batches the two are multiplied into one map first.
    ///
    /// With `n` rows of `x`, widths `i -> u -> v`, two maps cost `n (i u + u v)`, one costs `n i v + i u v`.
    pub fn then(&self, next: &Linear, x: &Tensor) -> Tensor {
        let (u, i, v) = (self.weight.size()[0], self.weight.size()[1], next.weight.size()[0]);
        let rows = x.size()[0];
        if rows * (i * u + u * v) <= rows * i * v + i * u * v {
            return next.forward(&self.forward(x));
        }
        let weight = next.weight.matmul(&self.weight);
        let bias = next.weight.mv(&self.bias) + &next.bias;
        x.linear(&weight, Some(&bias))
    }

    /// The same map without its first `first` outputs.
    pub fn rows(&self, first: i64) -> Linear {
        Linear { weight: self.weight.slice(0, first, None, 1), bias: self.bias.slice(0, first, None, 1) }
    }
}

/// Weights of a stack of GRU or LSTM layers.
#[derive(Debug)]
pub struct Recurrent {
    weights: Vec<Tensor>,
    hidden: i64,
    layers: i64,
    biases: bool,
}

impl Recurrent {
    /// A state of zeros, `[layers, batch, hidden]`.
    pub fn zeros(&self, x: &Tensor) -> Tensor {
        Tensor::zeros([self.layers, x.size()[0], self.hidden], (Kind::Float, x.device()))
    }

    /// GRU over `[batch, time, inputs]` from `state`: all hidden states `[batch, time, hidden]` and the last state.
    pub fn gru(&self, x: &Tensor, state: &Tensor, dropout: f64, train: bool) -> (Tensor, Tensor) {
        x.gru(state, &self.weights, self.biases, self.layers, dropout, train, false, true)
    }

    /// LSTM over `[batch, time, inputs]` from zero states: all hidden states `[batch, time, hidden]`.
    pub fn lstm(&self, x: &Tensor, train: bool) -> Tensor {
        let zeros = self.zeros(x);
        x.lstm(&[zeros.shallow_clone(), zeros], &self.weights, self.biases, self.layers, 0.0, train, false, true).0
    }

    /// Sets the forget gate's bias of an LSTM (gates in the order input, forget, cell, output) to `value` in every layer.
    pub fn set_forget_bias(&self, value: f64) {
        let _no_grad = tch::no_grad_guard();
        for layer in self.weights.chunks(4) {
            let forget = |bias: &Tensor| bias.narrow(0, self.hidden, self.hidden);
            let _ = forget(&layer[2]).fill_(value);
            let _ = forget(&layer[3]).fill_(0.0);
        }
    }
}
