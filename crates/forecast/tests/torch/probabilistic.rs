//! Models under every loss, intervals, weights of rows, scalers of whole series and learned ones.

use std::sync::Arc;

use crate::table::{self, Rows};
use crate::training::{options, sines, trainer};
use deeprc_comm::Communicator;
use deeprc_forecast::config::{ModelConfig, TrainConfig};
use deeprc_forecast::neural_forecast::{FitOptions, NeuralForecast};
use deeprc_forecast::task::{Intervals, Method};
use deeprc_forecast::trainer::Trainer;
use deeprc_loader::{Dataset, Part};
use serde_json::{Value, json};
use tch::Device;

/// Two series, 120 hours: 80 to train, 20 to validate, 20 to test.
fn series(value: impl Fn(usize, usize) -> f32) -> Arc<Dataset> {
    let mut rows = Rows::new(&["y"], &[], &[], &[]);
    for series in 0..2 {
        for hour in 0..120 {
            rows.push(&format!("s{series}"), hour, &[Some(value(series, hour))], i8::from(hour >= 80) + i8::from(hour >= 100));
        }
    }
    rows.dataset()
}

/// Forecasts of the test part after training: `[windows, horizon, columns]` and the names of the columns.
fn forecasts(dataset: &Arc<Dataset>, config: &(ModelConfig, TrainConfig)) -> (Vec<f32>, Vec<String>) {
    let mut trainer = trainer(dataset, config, Communicator::solo());
    trainer.fit(None, &mut ()).unwrap();
    let forecaster = trainer.forecaster();
    let windows = forecaster.windows(dataset, Part::Test, 1).unwrap();
    (forecaster.predict(dataset, Part::Test, &windows, |_| {}), forecaster.columns(dataset.columns()))
}

const MODELS: [(&str, &str); 12] = [
    ("nlinear", "{}"),
    ("nhits", r#"{"mlp_units": [[8, 8]]}"#),
    ("gru", r#"{"encoder_hidden_size": 6, "decoder_hidden_size": 6}"#),
    ("gru", r#"{"encoder_hidden_size": 6, "recurrent": true}"#),
    ("deepar", r#"{"lstm_hidden_size": 6, "lstm_dropout": 0, "trajectory_samples": 50}"#),
    ("nbeats", r#"{"mlp_units": [[8, 8], [8, 8], [8, 8]]}"#),
    ("tide", r#"{"hidden_size": 8, "decoder_output_dim": 4, "temporal_decoder_dim": 4, "dropout": 0}"#),
    ("tft", r#"{"hidden_size": 8, "n_head": 2, "dropout": 0}"#),
    ("timesnet", r#"{"hidden_size": 4, "conv_hidden_size": 4, "top_k": 2, "num_kernels": 2, "dropout": 0}"#),
    (
        "patchtst",
        r#"{"encoder_layers": 1, "n_heads": 2, "hidden_size": 8, "linear_hidden_size": 8, "dropout": 0, "fc_dropout": 0, "patch_len": 6, "stride": 3}"#,
    ),
    ("vanillatransformer", r#"{"hidden_size": 8, "n_head": 2, "conv_hidden_size": 8, "dropout": 0}"#),
    ("autoformer", r#"{"hidden_size": 8, "n_head": 2, "conv_hidden_size": 8, "factor": 1, "MovingAvg_window": 5, "dropout": 0}"#),
];

#[test]
fn every_model_trains_and_forecasts_under_every_loss() {
    let counts = series(|series, hour| ((series + hour) % 4) as f32);
    let switches = series(|series, hour| ((series + hour / 3) % 2) as f32);
    let points = ["mae", "mse", "rmse", "mape", "smape", "mase", "huber", "quantile"].map(|loss| (loss, 1, &counts));
    let others = [("mqloss", 3, &counts), ("StudentT", 4, &counts), ("Normal", 4, &counts), ("Poisson", 4, &counts)];
    let discrete = [("NegativeBinomial", 4, &counts), ("Bernoulli", 4, &switches)];
    for (loss, columns, dataset) in points.into_iter().chain(others).chain(discrete) {
        for (model, sizes) in MODELS {
            let mut more = json!({"loss": loss, "level": [80], "num_samples": 50, "max_steps": 3, "valid_loss": null});
            more.as_object_mut().unwrap().extend(serde_json::from_str::<Value>(sizes).unwrap().as_object().unwrap().clone());
            let (values, names) = forecasts(dataset, &options(model, more));
            assert_eq!(names.len(), columns, "{model} {loss}: {names:?}");
            assert!(values.iter().all(|value| value.is_finite()), "{model} {loss}");
            if columns == 4 {
                let ordered = values.chunks(4).all(|c| c[2] <= c[1] && c[1] <= c[3]);
                assert!(ordered, "{model} {loss}: median between its bounds");
            }
        }
    }
}

// No test here trains with dropout: it draws from libtorch's one generator, which tests side by side would share.
#[test]
fn drawn_forecasts_do_not_depend_on_the_batch() {
    let dataset = sines(9);
    let of = |batch: usize| {
        forecasts(&dataset, &options("deepar", json!({"inference_windows_batch_size": batch, "lstm_hidden_size": 6, "lstm_dropout": 0}))).0
    };
    let (alone, together) = (of(1), of(1000));
    let far = alone.iter().zip(&together).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(far < 1e-3, "quantiles differ by {far}");
}

#[test]
fn impossible_targets_are_named_before_training() {
    let check = |dataset: &Arc<Dataset>, more: Value, expect: &str| {
        let (model, train) = options("nlinear", more);
        let error = Trainer::new(Arc::clone(dataset), &model, &train, Communicator::solo(), Device::Cpu).unwrap_err();
        assert_eq!(error.to_string(), expect);
        assert!(error.hint().is_some());
    };
    let dataset = series(|series, hour| if (series, hour) == (1, 7) { -2.0 } else { 3.0 });
    let of = |what: &str, needs: &str| format!("{what} needs {needs}: column y has -2 in row 8 of series s1");
    check(&dataset, json!({"loss": "poisson"}), &of("Poisson", "values that are 0 or positive"));
    check(&dataset, json!({"local_scaler_type": "boxcox"}), &of("the local scaler boxcox", "positive values"));
    let other = series(|_, hour| (hour % 2) as f32 + 1.0);
    check(&other, json!({"loss": "bernoulli"}), "Bernoulli needs zeros and ones: column y has 2 in row 2 of series s0");
}

#[test]
fn conformal_intervals_cover_what_happens() {
    let dataset = sines(3);
    let mut trainer = trainer(&dataset, &options("nlinear", json!({"max_steps": 150, "input_size": 24})), Communicator::solo());
    trainer.fit(None, &mut ()).unwrap();
    let forecaster = trainer.into_parts().0;
    let point = |part| forecaster.predict(&dataset, part, &forecaster.windows(&dataset, part, 1).unwrap(), |_| {});
    let points = point(Part::Test);
    let intervals = Intervals { n_windows: 20, method: Method::ConformalDistribution, ..Intervals::new(&[50.0, 90.0]) };
    let forecaster = forecaster.calibrated(&dataset, &intervals, Some(Part::Test)).unwrap();
    let windows = forecaster.windows(&dataset, Part::Test, 1).unwrap();
    let values = forecaster.predict(&dataset, Part::Test, &windows, |_| {});
    let batch = forecaster.table(&dataset, Part::Test, &windows, &values).unwrap();
    let names = ["unique_id", "ds", "cutoff", "y", "y_hat", "y_hat-lo-90", "y_hat-lo-50", "y_hat-hi-50", "y_hat-hi-90"];
    assert_eq!(table::names(&batch), names);
    assert_eq!(table::floats(&batch, "y_hat"), points, "point forecasts stay as they are");
    let covered = |level: usize| {
        let [y, low, high] =
            ["y".to_owned(), format!("y_hat-lo-{level}"), format!("y_hat-hi-{level}")].map(|name| table::floats(&batch, &name));
        let inside = y.iter().zip(low.iter().zip(&high)).filter(|(y, (low, high))| low <= y && y <= high).count();
        inside as f64 / y.len() as f64
    };
    let (half, most) = (covered(50), covered(90));
    assert!((0.3..0.7).contains(&half) && most > 0.75, "{half} and {most} of the observations are inside");
}

#[test]
fn intervals_that_cannot_be_calibrated_are_refused() {
    let check = |loss: &str, intervals: Intervals, part: Part, expect: &str| {
        let dataset = series(|_, hour| hour as f32);
        let forecaster = trainer(&dataset, &options("nlinear", json!({"loss": loss})), Communicator::solo()).into_parts().0;
        let error = forecaster.calibrated(&dataset, &intervals, Some(part)).unwrap_err();
        assert!(error.to_string().contains(expect), "{error}, expected {expect}");
    };
    let of = Intervals::new(&[80.0]);
    check("mqloss", of.clone(), Part::Test, "the loss forecasts quantiles already");
    check("mae", of.clone(), Part::Validation, "must not be among those to forecast");
    check("mae", Intervals::new(&[180.0]), Part::Test, "percentages");
    check("mae", Intervals { n_windows: 1, ..of.clone() }, Part::Test, "`n_windows` must be at least 2");
    check("mae", Intervals { step_size: 50, ..of }, Part::Test, "series s0 has only one calibration window");
}

#[test]
fn a_local_scaler_is_the_same_as_scaled_data() {
    let raw = |series: usize, hour: usize| (hour as f32 * 0.4).sin() * 30.0 + 1000.0 * series as f32 + hour as f32 * 0.1;
    let dataset = series(raw);
    let bounds = |series: usize| {
        let values = (0..80).map(|hour| raw(series, hour));
        (values.clone().fold(f32::MAX, f32::min), values.fold(f32::MIN, f32::max))
    };
    let scaled = series(|series, hour| (raw(series, hour) - bounds(series).0) / (bounds(series).1 - bounds(series).0));
    let (ours, _) = forecasts(&dataset, &options("nlinear", json!({"local_scaler_type": "minmax"})));
    let (expect, _) = forecasts(&scaled, &options("nlinear", json!({})));
    for (number, (ours, z)) in ours.iter().zip(&expect).enumerate() {
        let (low, high) = bounds(usize::from(number >= expect.len() / 2));
        assert!((ours - (z * (high - low) + low)).abs() < 1e-2, "{number}: {ours}");
    }
    // Beyond the table, where only the last rows of each series are at hand, the maps are still those of the training rows.
    let beyond = |dataset: &Arc<Dataset>, more: Value| {
        let mut nf = NeuralForecast::new([options("nlinear", more)], Communicator::solo(), Device::Cpu).unwrap();
        nf.fit(dataset, &FitOptions { keep_parts: true, ..FitOptions::default() }, &mut ()).unwrap();
        table::floats(&nf.predict(dataset, &[], Some(9)).unwrap(), "nlinear")
    };
    let (ours, expect) = (beyond(&dataset, json!({"local_scaler_type": "minmax"})), beyond(&scaled, json!({})));
    for (number, (ours, z)) in ours.iter().zip(&expect).enumerate() {
        let (low, high) = bounds(number / 9);
        assert!((ours - (z * (high - low) + low)).abs() < 1e-2, "{number} beyond the table: {ours}");
    }
}

#[test]
fn revin_learns_its_map_with_a_distribution() {
    let check = |loss: &str, learned: bool| {
        let dataset = sines(4);
        let mut trainer = trainer(&dataset, &options("nlinear", json!({"loss": loss, "scaler_type": "revin"})), Communicator::solo());
        trainer.fit(None, &mut ()).unwrap();
        let parameters = trainer.forecaster().model().parameters();
        let find =
            |name: &str| parameters.names().iter().position(|n| n == name).map(|n| parameters.tensors()[n].double_value(&[0, 0, 0, 0]));
        let moved = [("scaler.revin_weight", 1.0), ("scaler.revin_bias", 0.0)].map(|(name, start)| find(name).map(|value| value != start));
        assert_eq!(moved, if learned { [Some(true); 2] } else { [None; 2] }, "{loss}");
    };
    check("normal", true);
    check("mae", false);
}

#[test]
fn rows_of_weight_zero_do_not_train() {
    let rows = |all: bool| {
        let mut rows = Rows::new(&["y"], &["w".to_owned()], &[], &[]);
        for (series, weight) in [("a", 2.0f32), ("b", 0.0)].into_iter().take(if all { 2 } else { 1 }) {
            for hour in 0..60 {
                let wild = if weight == 0.0 { hour as f32 * 100.0 } else { 0.0 };
                rows.push(series, hour, &[Some((hour as f32 * 0.3).sin() + wild), Some(weight)], 2 * i8::from(hour >= 50));
            }
        }
        rows.weighted().dataset()
    };
    let weights = |all: bool| {
        let config = options("nlinear", json!({"windows_batch_size": 0, "scaler_type": "standard"}));
        let mut trainer = trainer(&rows(all), &config, Communicator::solo());
        trainer.fit(None, &mut ()).unwrap();
        let tensors = trainer.forecaster().model().parameters().tensors().iter().map(|t| table::values(&t.detach()));
        tensors.collect::<Vec<_>>().concat()
    };
    let (with, without) = (weights(true), weights(false));
    assert!(with.iter().zip(&without).all(|(a, b)| (a - b).abs() < 1e-5), "the series of weight 0 changes nothing");
}
