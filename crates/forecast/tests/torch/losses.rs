//! Losses and distributions: the values of NeuralForecast, masks and weights, columns of forecasts.

use std::collections::HashMap;
use std::io::Write as _;

use crate::fixture::{close, folder, tensors};
use deeprc_forecast::Windows;
use deeprc_forecast::config::{Distribution, TrainConfig, configure};
use deeprc_forecast::distribution::Arguments;
use deeprc_forecast::loss::{Loss, Target};
use deeprc_forecast::model::{Frame, Widths};
use deeprc_forecast::preparation::{Preparation, Prepared};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

struct Values {
    tensors: HashMap<String, Tensor>,
    expect: Value,
}

impl Values {
    fn load() -> Self {
        let tensors = tensors(&folder().join("common/losses.safetensors"));
        let expect = serde_json::from_slice(&std::fs::read(folder().join("common/losses.json")).unwrap()).unwrap();
        Self { tensors, expect }
    }

    fn get(&self, name: &str) -> Tensor {
        self.tensors[name].shallow_clone()
    }

    fn target(&self) -> Target {
        Target { insample: self.get("y_insample"), ..Target::new(self.get("y"), Some(self.get("mask"))) }
    }

    #[expect(clippy::explicit_write, reason = "written past the test harness, which shows what passing tests print only when asked to")]
    fn near(&self, name: &str, ours: &Tensor) {
        let (ours, theirs) = (ours.double_value(&[]), self.expect[name].as_f64().unwrap());
        assert!((ours - theirs).abs() <= 1e-5 * theirs, "{name}: {ours}, expected {theirs}");
        writeln!(std::io::stdout(), "parity: common/losses {name}").unwrap();
    }
}

fn train(options: Value) -> TrainConfig {
    configure("nlinear", options.as_object().unwrap()).unwrap().1
}

#[test]
fn losses_equal_neuralforecast() {
    let values = Values::load();
    let check = |name: &str, options: Value, y_hat: &str| {
        let loss = Loss::training(&train(options));
        values.near(name, &loss.evaluate(&values.target(), &values.get(y_hat).flatten(2, -1)));
    };
    check("MAE", json!({"loss": "mae"}), "y_hat");
    check("MSE", json!({"loss": "mse"}), "y_hat");
    check("RMSE", json!({"loss": "rmse"}), "y_hat");
    check("MAPE", json!({"loss": "mape"}), "y_hat");
    check("SMAPE", json!({"loss": "smape"}), "y_hat");
    check("MASE_12", json!({"loss": "mase", "seasonality": 12, "mase_broadcast": true}), "y_hat");
    check("HuberLoss_0.5", json!({"loss": "huberloss", "huber_delta": 0.5}), "y_hat");
    check("QuantileLoss_0.9", json!({"loss": "quantile", "quantile": 0.9}), "y_hat");
    check("MQLoss_80_90", json!({"loss": "mqloss", "level": [90, 80, 80]}), "mq.y_hat");
    check("MQLoss_80_90", json!({"loss": "mqloss", "quantiles": [0.95, 0.1, 0.9, 0.05]}), "mq.y_hat");
    let cases = values.expect.as_object().unwrap().iter().filter(|(_, value)| value.is_number()).count();
    assert_eq!(cases, 10 + Distribution::ALL.len(), "every case is checked by a test of this file");
}

#[test]
fn mase_divides_each_window_by_its_own_lags() {
    let column = |values: &[f32]| Tensor::from_slice(values).view([2, -1, 1]);
    let target = Target { insample: column(&[0.0, 1.0, 2.0, 0.0, 4.0, 8.0]), ..Target::new(column(&[1.0, 1.0]), None) };
    let loss = Loss::training(&train(json!({"loss": "mase", "seasonality": 1})));
    // Errors 2 and 1, naive errors 1 and 4.
    assert_eq!(loss.evaluate(&target, &column(&[3.0, 2.0])).double_value(&[]), (2.0 / 1.0 + 1.0 / 4.0) / 2.0);
}

#[test]
fn a_weighted_horizon_equals_neuralforecast() {
    let values = Values::load();
    let (y, mask, y_hat) = (values.get("y"), values.get("mask"), values.get("y_hat"));
    let h = y.size()[1] as usize;
    let prepared = prepared(&y, &mask, &(1..=h).map(|n| n as f64).collect::<Vec<_>>());
    values.near("MAE_horizon_weight", &Loss::Mae.train(&prepared, &y_hat));
}

/// Windows of one lag, 0, before the horizon `y`.
fn prepared(y: &Tensor, mask: &Tensor, horizon_weight: &[f64]) -> Prepared {
    let (batch, h) = (y.size()[0], y.size()[1]);
    let first = Tensor::zeros([batch, 1, 1], (Kind::Float, Device::Cpu));
    let windows = Windows {
        temporal: Tensor::cat(&[&first, y], 1),
        mask: Some(Tensor::cat(&[&first.ones_like(), mask], 1)),
        stat: None,
        series: vec![0; batch as usize],
    };
    let widths = Widths { targets: 1, hist: 0, futr: 0, stat: 0, outputs: 1 };
    let scaler = TrainConfig::default().scaler_type;
    Preparation::plain(Frame::direct(1, h as usize), widths, scaler).weighted(horizon_weight).prepare(windows, h as usize)
}

#[test]
fn distributions_equal_neuralforecast() {
    let values = Values::load();
    for distribution in Distribution::ALL {
        let name = distribution.as_str();
        let of = |part: &str| values.get(&format!("dist.{name}.{part}"));
        let level = (&values.get("dist.loc"), &values.get("dist.scale"));
        let arguments = Arguments::of(distribution, &of("params"), 1, Some(level));
        assert_eq!(arguments.values().len(), values.expect[format!("DistributionLoss_{name}.param_names")].as_array().unwrap().len());
        for (n, ours) in arguments.values().iter().enumerate() {
            close(&format!("{name} argument {n}"), ours, &of(&format!("arg{n}")), 1e-5);
        }
        let mask = values.get("mask");
        let losses = arguments.negative_log_likelihood(&of("y")) * &mask;
        values.near(&format!("DistributionLoss_{name}"), &(losses.sum(None::<Kind>) / mask.sum(None::<Kind>)));
    }
}

#[test]
fn an_impossible_value_that_was_not_observed_costs_nothing() {
    // A window of zeros and ones whose hidden value, a zero, has the probability 0 in the end.
    let (y, mask) = (Tensor::from_slice(&[1.0f32, 0.0]).view([1, 2, 1]), Tensor::from_slice(&[1.0f32, 0.0]).view([1, 2, 1]));
    let output = Tensor::from_slice(&[0.0f32, 1e4]).view([1, 2, 1]).set_requires_grad(true);
    let loss = Loss::training(&train(json!({"loss": "bernoulli"})));
    let value = loss.train(&prepared(&y, &mask, &[]), &output);
    let gradient = Tensor::run_backward(&[&value], &[&output], false, false).remove(0);
    assert!((value.double_value(&[]) - 2f64.ln()).abs() < 1e-6);
    assert!((gradient.double_value(&[0, 0, 0]) + 0.5).abs() < 1e-6 && gradient.double_value(&[0, 1, 0]) == 0.0);
}

#[test]
fn nothing_observed_costs_nothing() {
    let ones = || Tensor::ones([2, 3, 1], (Kind::Float, Device::Cpu));
    let target = Target::new(ones(), Some(ones().zeros_like()));
    let y_hat = ones().zeros_like().set_requires_grad(true);
    let loss = Loss::Mae.evaluate(&target, &y_hat);
    let gradient = Tensor::run_backward(&[&loss], &[&y_hat], false, false).remove(0);
    assert_eq!((loss.double_value(&[]), gradient.abs().max().double_value(&[])), (0.0, 0.0));
}

/// Mean and quantiles of `samples` draws of a distribution with these raw arguments, at location 5 and scale 2.
fn columns(distribution: &str, raw: &[f32], samples: usize, seeds: &[u64]) -> Vec<f32> {
    let distribution = Distribution::ALL.into_iter().find(|d| d.as_str() == distribution).unwrap();
    let count = seeds.len() as i64;
    let raw = Tensor::from_slice(raw).view([1, 1, -1]).repeat([count, 1, 1]);
    let level =
        (&Tensor::full([count, 1, 1], 5.0, (Kind::Float, Device::Cpu)), &Tensor::full([count, 1, 1], 2.0, (Kind::Float, Device::Cpu)));
    let columns = Arguments::of(distribution, &raw, 1, Some(level)).columns(&[0.5, 0.1, 0.9], samples, seeds);
    Vec::try_from(columns.flatten(0, -1)).unwrap()
}

#[test]
fn drawn_quantiles_are_those_of_the_distribution() {
    let check = |distribution: &str, raw: &[f32], expect: [f32; 4], tolerance: f32| {
        let ours = columns(distribution, raw, 200_000, &[7]);
        let near = ours.iter().zip(expect).all(|(ours, expect)| (ours - expect).abs() <= tolerance);
        assert!(near, "{distribution}: mean, median, 10 %, 90 %: {ours:?}, expected {expect:?}");
    };
    // From scipy.stats with the arguments that the raw values map to.
    check("Normal", &[0.5, 0.3], [6.0, 6.0, 3.297_6, 8.702_4], 0.04);
    check("StudentT", &[0.5, 0.5, 0.3], [6.0, 6.0, 3.069_9, 8.930_1], 0.04);
    check("Poisson", &[0.5], [6.002_48, 6.0, 3.0, 9.0], 1e-4);
    check("NegativeBinomial", &[0.3, 0.2], [6.708_71, 6.0, 2.0, 13.0], 1e-4);
    check("Bernoulli", &[0.5], [0.622_46, 1.0, 0.0, 1.0], 1e-4);
}

#[test]
fn draws_do_not_depend_on_the_windows_beside_them() {
    for (distribution, raw) in [("StudentT", &[0.1f32, 0.2, 0.3][..]), ("NegativeBinomial", &[0.1, 0.2]), ("Poisson", &[0.1])] {
        let together = columns(distribution, raw, 50, &[3, 4, 5]);
        let alone = columns(distribution, raw, 50, &[4]);
        assert_eq!(together[4..8], alone, "{distribution}");
        assert_ne!(together[..4], together[4..8], "each window has its own stream");
    }
}

#[test]
fn columns_are_named_after_the_intervals() {
    let check = |options: Value, outputs: usize, suffixes: &[&str]| {
        let loss = Loss::training(&train(options));
        assert_eq!((loss.outputs(), loss.suffixes()), (outputs, suffixes.iter().map(|s| (*s).to_owned()).collect()));
    };
    check(json!({"loss": "mase"}), 1, &[""]);
    check(json!({"loss": "mqloss", "level": [80, 99.5]}), 5, &["", "-lo-99.5", "-lo-80", "-hi-80", "-hi-99.5"]);
    check(json!({"loss": "mqloss", "quantiles": [0.9, 0.5, 0.1]}), 3, &["", "-lo-80", "-hi-80"]);
    check(json!({"loss": "StudentT", "level": [90]}), 3, &["", "-median", "-lo-90", "-hi-90"]);
    check(json!({"loss": "distributionloss", "distribution": "Poisson", "level": [80]}), 1, &["", "-median", "-lo-80", "-hi-80"]);
}
