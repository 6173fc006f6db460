//! Layers with an activation between them, as read-out of recurrent encoders.

use tch::{Device, Kind, Tensor};

use crate::config::Activation;
use crate::parameters::{Linear, Parameters};

/// Linear layers with an activation after each but the last.
#[derive(Debug)]
pub(super) struct Mlp {
    layers: Vec<Linear>,
    activation: Activation,
    slope: Slope,
}

impl Mlp {
    /// `layers` maps from `widths[0]` over `widths[1]` to `widths[2]`: `<name>.layers.0.weight`, then 3, 6, ..., because in PyTorch
    /// each hidden layer is followed by its activation and a dropout.
    pub(super) fn new(name: &str, widths: [i64; 3], layers: usize, activation: Activation, parameters: &mut Parameters) -> Self {
        let [mut from, hidden, outputs] = widths;
        let mut slope = Slope::default();
        (1..layers).for_each(|layer| slope.used(activation, &format!("{name}.layers.{}", 3 * layer - 2), parameters));
        let layers = (0..layers).map(|layer| {
            let to = if layer + 1 == layers { outputs } else { hidden };
            let linear = parameters.linear(&format!("{name}.layers.{}", 3 * layer), from, to);
            from = to;
            linear
        });
        Self { layers: layers.collect(), activation, slope }
    }

    /// `[.., inputs] -> [.., outputs]`.
    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        let mut x = self.layers[0].forward(x);
        for layer in &self.layers[1..] {
            x = layer.forward(&activate(self.activation, &self.slope, x));
        }
        x
    }
}

/// The slope below zero of PReLU, learned, one for all layers of a network.
#[derive(Debug, Default)]
pub(super) struct Slope(Option<Tensor>);

impl Slope {
    /// Adds it as `<name>.weight` if `activation` needs it; PyTorch names the one tensor after each place where it is used.
    pub(super) fn used(&mut self, activation: Activation, name: &str, parameters: &mut Parameters) {
        let name = format!("{name}.weight");
        match (&self.0, activation) {
            (None, Activation::PReLU) => self.0 = Some(parameters.learned(&name, &Tensor::full([1], 0.25, (Kind::Float, Device::Cpu)))),
            (Some(_), _) => parameters.computed(&name),
            (None, _) => {}
        }
    }
}

/// The activation of each value.
pub(super) fn activate(activation: Activation, slope: &Slope, x: Tensor) -> Tensor {
    match activation {
        Activation::ReLU => x.relu(),
        Activation::Softplus => x.softplus(),
        Activation::Tanh => x.tanh(),
        Activation::SELU => x.selu(),
        Activation::LeakyReLU => x.leaky_relu(),
        Activation::PReLU => x.prelu(slope.0.as_ref().expect("made with the layers")),
        Activation::Sigmoid => x.sigmoid(),
    }
}
