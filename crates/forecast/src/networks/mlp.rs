//! Layers with an activation between them, as read-out of recurrent encoders.

use tch::Tensor;

use crate::config::Activation;
use crate::parameters::{Linear, Parameters};

/// Linear layers with an activation after each but the last.
#[derive(Debug)]
pub(super) struct Mlp {
    layers: Vec<Linear>,
    activation: Activation,
}

impl Mlp {
    /// `layers` maps from `widths[0]` over `widths[1]` to `widths[2]`: `<name>.layers.0.weight`, then 3, 6, ..., because in PyTorch
    /// each hidden layer is followed by its activation and a dropout.
    pub(super) fn new(name: &str, widths: [i64; 3], layers: usize, activation: Activation, parameters: &mut Parameters) -> Self {
        let [mut from, hidden, outputs] = widths;
        let layers = (0..layers).map(|layer| {
            let to = if layer + 1 == layers { outputs } else { hidden };
            let linear = parameters.linear(&format!("{name}.layers.{}", 3 * layer), from, to);
            from = to;
            linear
        });
        Self { layers: layers.collect(), activation }
    }

    /// `[.., inputs] -> [.., outputs]`.
    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        let mut x = self.layers[0].forward(x);
        for layer in &self.layers[1..] {
            x = layer.forward(&activate(self.activation, x));
        }
        x
    }
}

/// The activation of each value.
pub(super) fn activate(activation: Activation, x: Tensor) -> Tensor {
    match activation {
        Activation::ReLU => x.relu(),
        Activation::Softplus => x.softplus(),
        Activation::Tanh => x.tanh(),
        Activation::SELU => x.selu(),
        Activation::LeakyReLU => x.leaky_relu(),
        Activation::Sigmoid => x.sigmoid(),
    }
}
