//! The multi-layer perceptron of NBEATS and NHITS blocks.

use tch::Tensor;

use super::mlp::{Slope, activate};
use crate::config::Activation;
use crate::parameters::{Linear, Parameters};

/// A linear layer without activation, hidden layers with one (and dropout), a linear layer.
#[derive(Debug)]
pub(super) struct BlockMlp {
    layers: Vec<Linear>,
    activation: Activation,
    slope: Slope,
    dropout: f64,
}

impl BlockMlp {
    /// Parameters are named `<name>.<position>.weight` with PyTorch's positions: each hidden layer is followed by its activation and,
    /// if there is one, its dropout, which `has_dropout` says.
    pub(super) fn new(
        name: &str,
        [inputs, outputs]: [usize; 2],
        units: &[[usize; 2]],
        activation: Activation,
        dropout: f64,
        has_dropout: bool,
        parameters: &mut Parameters,
    ) -> Self {
        let stride = if has_dropout { 3 } else { 2 };
        let sizes = [&[[inputs, units[0][0]]], units, &[[units[units.len() - 1][1], outputs]]].concat();
        let mut layers = Vec::new();
        let mut slope = Slope::default();
        for (layer, [inputs, outputs]) in sizes.iter().enumerate() {
            let position = if layer == 0 { 0 } else { 1 + (layer - 1) * stride };
            layers.push(parameters.linear(&format!("{name}.{position}"), *inputs as i64, *outputs as i64));
            let hidden = layer > 0 && layer + 1 < sizes.len();
            if hidden {
                slope.used(activation, &format!("{name}.{}", position + 1), parameters);
            }
        }
        Self { layers, activation, slope, dropout }
    }

    /// `[batch, inputs]` to the last hidden layer's values, `[batch, hidden]`.
    pub(super) fn hidden(&self, x: &Tensor, train: bool) -> Tensor {
        let [first, second, hidden @ .., _] = self.layers.as_slice() else {
            unreachable!("an input layer, at least one hidden one and an output layer")
        };
        let mut x = self.activate(first.then(second, x), train);
        for layer in hidden {
            x = self.activate(layer.forward(&x), train);
        }
        x
    }

    /// The last layer.
    pub(super) fn out(&self) -> &Linear {
        &self.layers[self.layers.len() - 1]
    }

    fn activate(&self, x: Tensor, train: bool) -> Tensor {
        let x = activate(self.activation, &self.slope, x);
        if train && self.dropout > 0.0 { x.dropout(self.dropout, train) } else { x }
    }
}
