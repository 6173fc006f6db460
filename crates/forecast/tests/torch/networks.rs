//! Networks beyond their fixtures: curves of every trend basis, learned slopes, shared weights, TiDE without its last normalisation.

use deeprc_forecast::config::configure;
use deeprc_forecast::model::{Inputs, Model, Widths, build};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use crate::fixture::close;

fn nbeats(more: Value) -> Box<dyn Model> {
    let mut options = json!({"mlp_units": [[4, 4]], "stack_types": ["trend"], "n_blocks": [1], "n_basis": 3});
    options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    model("nbeats", options)
}

/// Of five lags and six steps of horizon.
fn model(name: &str, mut options: Value) -> Box<dyn Model> {
    options.as_object_mut().unwrap().extend([("h".to_owned(), json!(6)), ("input_size".to_owned(), json!(5))]);
    let (config, _) = configure(name, options.as_object().unwrap()).unwrap();
    build(&config, Widths { targets: 1, hist: 0, futr: 0, stat: 0, outputs: 1 }, 1, Device::Cpu).unwrap()
}

fn inputs() -> Inputs {
    let lags = Tensor::arange(15, (Kind::Float, Device::Cpu)).view([3, 5, 1]);
    Inputs { y: lags, mask: None, hist: None, futr: None, stat: None }
}

/// The curves of a basis over five steps; the expected values are those of `get_basis(5, 3, basis)` in NeuralForecast 3.3.0.
fn check(basis: &str, expect: [[f64; 5]; 4]) {
    let model = nbeats(json!({"basis": basis}));
    let state = model.parameters().state();
    let (_, ours) = state.iter().find(|(name, _)| *name == "blocks.0.basis.backcast_basis").unwrap();
    close(basis, ours, &Tensor::from_slice(&expect.concat()).to_kind(Kind::Float).view([4, 5]), 2e-6);
}

#[test]
fn every_trend_basis_is_that_of_neuralforecast() {
    check(
        "polynomial",
        [[1.0, 1.0, 1.0, 1.0, 1.0], [0.0, 0.2, 0.4, 0.6, 0.8], [0.0, 0.04, 0.16, 0.36, 0.64], [0.0, 0.008, 0.064, 0.216, 0.512]],
    );
    check(
        "legendre",
        [[1.0, 1.0, 1.0, 1.0, 1.0], [-1.0, -0.5, 0.0, 0.5, 1.0], [1.0, -0.125, -0.5, -0.125, 1.0], [-1.0, 0.4375, 0.0, -0.4375, 1.0]],
    );
    check("chebyshev", [[1.0, 1.0, 1.0, 1.0, 1.0], [-1.0, -0.5, 0.0, 0.5, 1.0], [1.0, -0.5, -1.0, -0.5, 1.0], [-1.0, 1.0, 0.0, -1.0, 1.0]]);
    check("changepoint", [[0.0, 0.0, 0.25, 0.5, 0.75], [0.0, 0.0, 0.0, 0.25, 0.5], [0.0, 0.0, 0.0, 0.0, 0.25], [0.0, 0.0, 0.0, 0.0, 0.0]]);
    check("piecewise_linear", [[0.0, 0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0, 0.0]]);
    check("linear_hat", [[1.0, 0.25, 0.0, 0.0, 0.0], [0.0, 0.75, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.75, 0.0], [0.0, 0.0, 0.0, 0.25, 1.0]]);
    check(
        "spline",
        [
            [1.0, 0.421875, 0.125, 0.015625, 0.0],
            [0.0, 0.421875, 0.375, 0.140625, 0.0],
            [0.0, 0.140625, 0.375, 0.421875, 0.0],
            [0.0, 0.015625, 0.125, 0.421875, 1.0],
        ],
    );
}

#[test]
fn prelu_learns_one_slope_per_block() {
    let model = nbeats(json!({"activation": "PReLU", "mlp_units": [[4, 4], [4, 4]]}));
    let names: Vec<&String> = model.parameters().names().iter().filter(|name| *name == "blocks.0.layers.2.weight").collect();
    assert_eq!(names.len(), 1);
    assert!(model.parameters().is_computed("blocks.0.layers.4.weight"), "weight files have it under each place");
    assert_eq!(model.forward(&inputs(), true).size(), [3, 6, 1]);
}

#[test]
fn shared_weights_are_one_block_under_several_names() {
    let alone = nbeats(json!({"n_blocks": [1]}));
    let shared = nbeats(json!({"n_blocks": [3], "shared_weights": true}));
    assert_eq!(shared.parameters().count(), alone.parameters().count());
    assert!(shared.parameters().is_computed("blocks.2.basis.forecast_basis"));
}

#[test]
fn tide_is_a_linear_map_unless_its_last_normalisation_is_left_out() {
    let linear = model("tide", json!({"hidden_size": 8}));
    assert_eq!(linear.parameters().names(), ["temporal_decoder.norm.bias", "global_skip.weight", "global_skip.bias"]);
    let deep = model("tide", json!({"hidden_size": 8, "final_layernorm": false, "dropout": 0.0}));
    let parameters = deep.parameters();
    let loss = deep.forward(&inputs(), true).square().sum(Kind::Float);
    let gradients = Tensor::run_backward(&[&loss], parameters.tensors(), false, false);
    let first = parameters.names().iter().position(|name| name == "dense_encoder.0.lin1.weight").unwrap();
    assert!(gradients[first].norm().double_value(&[]) > 0.0);
    assert!(!parameters.names().iter().any(|name| name.starts_with("temporal_decoder.norm")));
}
