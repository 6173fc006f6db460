//! The learned and saved tensors of a model, by name, and the layers made of them.

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use tch::{Device, Kind, Tensor};

/// Named tensors of a model in a fixed order; layers share their storage.
///
/// Learned tensors have gradients and go to the optimizer. Buffers (running statistics, frozen bases and scales) are saved and
/// restored with them under their PyTorch names, but no optimizer changes them. In data-parallel training every rank keeps its
/// own running statistics and those of rank 0 are the model's, as with PyTorch's DistributedDataParallel: a rank validates
/// and ends with rank 0's.
#[derive(Debug)]
pub struct Parameters {
    names: Vec<String>,
    tensors: Vec<Tensor>,
    buffer_names: Vec<String>,
    buffers: Vec<Tensor>,
    /// Whether the n-th saved tensor is learned.
    order: Vec<bool>,
    computed: Vec<String>,
    /// Learned values that no gradient reaches.
    idle_count: u64,
    device: Device,
    rng: ChaCha8Rng,
}

impl Parameters {
    /// No parameters yet; `rng` draws their first values, `device` holds them.
    pub fn new(rng: ChaCha8Rng, device: Device) -> Self {
        let (names, tensors, buffer_names, buffers) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { names, tensors, buffer_names, buffers, order: Vec::new(), computed: Vec::new(), idle_count: 0, device, rng }
    }

    /// Names of the learned tensors in order, PyTorch's `state_dict` keys.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Learned tensors in the order of the names.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// Saved tensors that no optimizer changes, of kind f32 or i64.
    pub fn buffers(&self) -> &[Tensor] {
        &self.buffers
    }

    /// All that is saved, learned tensors and buffers, in PyTorch's `state_dict` order.
    pub fn state(&self) -> Vec<(&str, &Tensor)> {
        let mut learned = self.names.iter().map(String::as_str).zip(&self.tensors);
        let mut buffers = self.buffer_names.iter().map(String::as_str).zip(&self.buffers);
        let next = |is_learned: &bool| if *is_learned { learned.next() } else { buffers.next() };
        self.order.iter().filter_map(next).collect()
    }

    /// Whether NeuralForecast saves a tensor of this `name` that is computed here.
    pub fn is_computed(&self, name: &str) -> bool {
        self.computed.iter().any(|known| known == name)
    }

    /// Where they lie.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Number of learned values, without buffers.
    pub fn count(&self) -> u64 {
        self.idle_count + self.tensors.iter().map(|t| t.numel() as u64).sum::<u64>()
    }

    /// Adds a tensor of uniform random values within `bound` of zero (PyTorch's default for linear and recurrent layers).
    pub fn uniform(&mut self, name: &str, shape: &[i64], bound: f64) -> Tensor {
        let values = self.uniform_values(shape, bound);
        self.learned(name, &values)
    }

    /// As [`uniform`](Self::uniform), but saved and never learned.
    pub fn frozen_uniform(&mut self, name: &str, shape: &[i64], bound: f64) -> Tensor {
        let values = self.uniform_values(shape, bound);
        self.buffer(name, &values)
    }

    fn uniform_values(&mut self, shape: &[i64], bound: f64) -> Tensor {
        let (count, bound) = (shape.iter().product::<i64>() as usize, bound as f32);
        let values: Vec<f32> = (0..count).map(|_| self.rng.random_range(-1.0f32..1.0) * bound).collect();
        Tensor::from_slice(&values).view(shape)
    }

    /// Adds a tensor of normal random values with the standard deviation `deviation`.
    pub fn normal(&mut self, name: &str, shape: &[i64], deviation: f64) -> Tensor {
        let count = shape.iter().product::<i64>() as usize;
        let mut open = || 1.0 - self.rng.random_range(0.0f64..1.0);
        // Box and Muller (1958): two uniform values make one normal value.
        let mut draw = || deviation * (-2.0 * open().ln()).sqrt() * (std::f64::consts::TAU * open()).cos();
        let values: Vec<f32> = (0..count).map(|_| draw() as f32).collect();
        self.learned(name, &Tensor::from_slice(&values).view(shape))
    }

    /// Adds a learned tensor that starts with the values of `start`, f32.
    pub fn learned(&mut self, name: &str, start: &Tensor) -> Tensor {
        let tensor = start.detach().copy().to_device(self.device).set_requires_grad(true);
        self.names.push(name.to_owned());
        self.tensors.push(tensor.shallow_clone());
        self.order.push(true);
        tensor
    }

    /// Adds a tensor that is saved but not learned; it starts with the values of `start`, f32 or i64.
    pub fn buffer(&mut self, name: &str, start: &Tensor) -> Tensor {
        let tensor = start.detach().copy().to_device(self.device);
        self.buffer_names.push(name.to_owned());
        self.buffers.push(tensor.shallow_clone());
        self.order.push(false);
        tensor
    }

    /// Notes that NeuralForecast saves a tensor of this name, which is computed here: weight files may have it, and it is ignored.
    pub fn computed(&mut self, name: &str) {
        self.computed.push(name.to_owned());
    }

    /// Notes that NeuralForecast saves all tensors of the prefix `known` once more under the prefix `again`.
    pub fn repeats(&mut self, known: &str, again: &str) {
        let names = self.names.iter().chain(&self.buffer_names).chain(&self.computed);
        let repeated: Vec<String> = names.filter_map(|name| Some(format!("{again}{}", name.strip_prefix(known)?))).collect();
        self.computed.extend(repeated);
    }

    /// Takes learned tensors out of training whose gradient is zero whatever the data: they are saved and counted, but cost nothing.
    pub fn idle(&mut self, unread: impl Fn(&str) -> bool) {
        let (names, tensors) = (std::mem::take(&mut self.names), std::mem::take(&mut self.tensors));
        let (buffer_names, buffers) = (std::mem::take(&mut self.buffer_names), std::mem::take(&mut self.buffers));
        let (mut learned, mut saved) = (names.into_iter().zip(tensors), buffer_names.into_iter().zip(buffers));
        for is_learned in std::mem::take(&mut self.order) {
            let Some((name, tensor)) = (if is_learned { learned.next() } else { saved.next() }) else { break };
            let stays = is_learned && !unread(&name);
            self.order.push(stays);
            if stays {
                self.names.push(name);
                self.tensors.push(tensor);
                continue;
            }
            if is_learned {
                self.idle_count += tensor.numel() as u64;
            }
            self.buffer_names.push(name);
            self.buffers.push(tensor.set_requires_grad(false));
        }
    }

    /// A linear map `[.., inputs] -> [.., outputs]` with bias: `<name>.weight` and `<name>.bias`.
    pub fn linear(&mut self, name: &str, inputs: i64, outputs: i64) -> Linear {
        let bound = if inputs == 0 { 0.0 } else { 1.0 / (inputs as f64).sqrt() };
        let weight = self.uniform(&format!("{name}.weight"), &[outputs, inputs], bound);
        let bias = self.uniform(&format!("{name}.bias"), &[outputs], bound);
        Linear { weight, bias: Some(bias) }
    }

    /// A linear map that PyTorch keeps as a convolution over one step: `<name>.weight` of `[outputs, inputs, 1]`, with or without bias.
    pub fn convolution(&mut self, name: &str, inputs: i64, outputs: i64, bias: bool) -> Linear {
        let bound = 1.0 / (inputs as f64).sqrt();
        let weight = self.uniform(&format!("{name}.weight"), &[outputs, inputs, 1], bound);
        let bias = bias.then(|| self.uniform(&format!("{name}.bias"), &[outputs], bound));
        Linear { weight: weight.squeeze_dim(-1), bias }
    }

    /// Normalises the last dimension, of `width` values: `<name>.weight` of ones and `<name>.bias` of zeros.
    pub fn layer_norm(&mut self, name: &str, width: i64, eps: f64) -> LayerNorm {
        let float = (Kind::Float, Device::Cpu);
        let weight = self.learned(&format!("{name}.weight"), &Tensor::ones([width], float));
        let bias = self.learned(&format!("{name}.bias"), &Tensor::zeros([width], float));
        LayerNorm { weight, bias, eps }
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

/// `x W' + b`, or without the `b`.
#[derive(Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// `[.., inputs] -> [.., outputs]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.linear(&self.weight, self.bias.as_ref())
    }

    /// `next` after this, with nothing between them: for large batches the two are multiplied into one map first.
    ///
    /// With `n` rows of `x`, widths `i -> u -> v`, two maps cost `n (i u + u v)`, one costs `n i v + i u v`.
    pub fn then(&self, next: &Linear, x: &Tensor) -> Tensor {
        let (u, i, v) = (self.weight.size()[0], self.weight.size()[1], next.weight.size()[0]);
        let rows = x.numel() as i64 / i.max(1);
        if rows * (i * u + u * v) <= rows * i * v + i * u * v {
            return next.forward(&self.forward(x));
        }
        let weight = next.weight.matmul(&self.weight);
        let bias = match (&self.bias, &next.bias) {
            (Some(mine), Some(then)) => Some(next.weight.mv(mine) + then),
            (Some(mine), None) => Some(next.weight.mv(mine)),
            (None, then) => then.as_ref().map(Tensor::shallow_clone),
        };
        x.linear(&weight, bias.as_ref())
    }

    /// Number of outputs.
    pub fn outputs(&self) -> i64 {
        self.weight.size()[0]
    }

    /// This map and then combinations of the fixed `curves`, `[outputs, steps]`: `[rows, inputs] -> [rows, steps]`, by the cheaper order.
    pub fn onto(&self, curves: &Tensor, x: &Tensor) -> Tensor {
        self.then(&Linear { weight: curves.tr(), bias: None }, x)
    }

    /// The same map of embedded values `x * vector + offset`, from `x`: `[.., 1] -> [.., outputs]`.
    pub fn of_embedding(&self, x: &Tensor, vector: &Tensor, offset: &Tensor) -> Tensor {
        let constant = self.weight.mv(offset);
        let constant = self.bias.iter().fold(constant, |sum, bias| sum + bias);
        constant.addcmul(x, &self.weight.mv(vector))
    }

    /// The same map with only `count` of its outputs, from number `first` on.
    pub fn part(&self, first: i64, count: i64) -> Linear {
        let part = |x: &Tensor| x.narrow(0, first, count);
        Linear { weight: part(&self.weight), bias: self.bias.as_ref().map(part) }
    }

    /// The same map without its first `first` outputs.
    pub fn rows(&self, first: i64) -> Linear {
        let rest = |x: &Tensor| x.slice(0, first, None, 1);
        Linear { weight: rest(&self.weight), bias: self.bias.as_ref().map(rest) }
    }

    /// The product without the bias, and the bias (zero without one).
    pub fn apart(&self, x: &Tensor) -> (Tensor, Tensor) {
        let bias = self.bias.as_ref().map_or_else(|| Tensor::zeros([1], (x.kind(), x.device())), Tensor::shallow_clone);
        (x.linear(&self.weight, None::<&Tensor>), bias)
    }

    /// The same map times `factor`.
    pub fn scaled(&self, factor: &Tensor) -> Linear {
        Linear { weight: &self.weight * factor, bias: self.bias.as_ref().map(|b| b * factor) }
    }

    /// The same map of inputs in another order: `reorder` turns the weights `[outputs, inputs]`.
    pub fn with_inputs(&self, reorder: impl FnOnce(&Tensor) -> Tensor) -> Linear {
        Linear { weight: reorder(&self.weight), bias: self.bias.as_ref().map(Tensor::shallow_clone) }
    }

    /// Several maps of the same inputs as one whose outputs are theirs, end to end; all with a bias or all without.
    pub fn side_by_side(maps: &[&Linear]) -> Linear {
        let weights: Vec<&Tensor> = maps.iter().map(|m| &m.weight).collect();
        let biases: Vec<&Tensor> = maps.iter().filter_map(|m| m.bias.as_ref()).collect();
        Linear { weight: Tensor::cat(&weights, 0), bias: (biases.len() == maps.len()).then(|| Tensor::cat(&biases, 0)) }
    }
}

/// Layer normalisation (Ba et al. 2016) over the last dimension, with a learned scale and shift.
#[derive(Debug)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    /// What is added last.
    pub fn bias(&self) -> &Tensor {
        &self.bias
    }

    /// `[.., width] -> [.., width]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.layer_norm(self.weight.size(), Some(&self.weight), Some(&self.bias), self.eps, true)
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

    /// LSTM over `[batch, time, inputs]` from `state`, the hidden states and the cells (zeros without any): all hidden states
    /// `[batch, time, hidden]` and the last state.
    pub fn lstm_from(&self, x: &Tensor, state: Option<(Tensor, Tensor)>, dropout: f64, train: bool) -> (Tensor, (Tensor, Tensor)) {
        let (hidden, cells) = state.unwrap_or_else(|| {
            let zeros = self.zeros(x);
            (zeros.shallow_clone(), zeros)
        });
        let (all, hidden, cells) = x.lstm(&[hidden, cells], &self.weights, self.biases, self.layers, dropout, train, false, true);
        (all, (hidden, cells))
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
