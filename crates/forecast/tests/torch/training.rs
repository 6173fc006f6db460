//! The trainer: resume, ranks, validation, early stop, failures; the hydrology LSTM; forecasts of several targets.

use std::path::Path;
use std::sync::Arc;

use crate::table::{self, Rows};
use deeprc_comm::Communicator;
use deeprc_forecast::Error;
use deeprc_forecast::checkpoint::Checkpoint;
use deeprc_forecast::config::{ModelConfig, TrainConfig, configure};
use deeprc_forecast::forecaster::Forecaster;
use deeprc_forecast::task::{Progress, Weights};
use deeprc_forecast::trainer::{Observer, Trainer};
use deeprc_loader::{Dataset, Part};
use serde_json::{Value, json};
use tch::{Device, Tensor};

/// Two noisy sines, 200 hours: 140 to train, 30 to validate, 30 to test.
pub fn sines(seed: u32) -> Arc<Dataset> {
    let mut rows = Rows::new(&["y"], &[], &[], &[]);
    let mut state = seed;
    for series in 0..2 {
        for hour in 0..200 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let noise = (state >> 8) as f32 / (1 << 24) as f32 - 0.5;
            let value = (hour as f32 * 0.26 + series as f32).sin() + 0.2 * noise;
            let split = i8::from(hour >= 140) + i8::from(hour >= 170);
            rows.push(&format!("s{series}"), hour, &[Some(value)], split);
        }
    }
    rows.dataset()
}

pub fn options(model: &str, more: Value) -> (ModelConfig, TrainConfig) {
    let mut options =
        json!({"h": 6, "input_size": 12, "max_steps": 20, "windows_batch_size": 16, "val_check_steps": 5, "learning_rate": 1e-2});
    options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    configure(model, options.as_object().unwrap()).unwrap()
}

pub fn small_nhits() -> (ModelConfig, TrainConfig) {
    options("nhits", json!({"mlp_units": [[16, 16], [16, 16]], "scaler_type": "standard", "checkpoint_every": 3}))
}

pub fn trainer(dataset: &Arc<Dataset>, (model, train): &(ModelConfig, TrainConfig), comm: Communicator) -> Trainer {
    tch::set_num_threads(1);
    Trainer::new(Arc::clone(dataset), model, train, comm, Device::Cpu).unwrap()
}

/// All weights, bit by bit.
pub fn weights(trainer: &Trainer) -> Vec<u32> {
    let parameters = trainer.forecaster().model().parameters();
    parameters.tensors().iter().flat_map(|t| table::values(&t.detach())).map(f32::to_bits).collect()
}

/// Cancels after a number of steps; the second number counts them.
pub struct StopAt(pub u64, pub u64);

impl Observer for StopAt {
    fn step(&mut self, progress: &Progress) {
        if let Progress::Step { step, .. } = progress {
            self.1 = *step;
        }
    }

    fn canceled(&self) -> bool {
        // Asked before a step and heeded after it.
        self.1 + 1 >= self.0
    }
}

#[test]
fn another_training_is_not_resumed() {
    let (dataset, dir) = (sines(1), tempfile::tempdir().unwrap());
    let checkpoint = Checkpoint::at(dir.path());
    trainer(&dataset, &small_nhits(), Communicator::solo()).fit(Some(&checkpoint), &mut ()).unwrap();
    let refuse = |config: (ModelConfig, TrainConfig), what: &str| {
        let error = trainer(&dataset, &config, Communicator::solo()).resume(&checkpoint).unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
    };
    refuse(options("nlinear", json!({})), "is of model nhits, not nlinear");
    refuse(options("nhits", json!({"mlp_units": [[16, 16]]})), "is of a model with `mlp_units` [[16,16],[16,16]], not [[16,16]]");
    let (model, train) = small_nhits();
    refuse((model, TrainConfig { seed: 7, ..train }), "was trained with `seed` 1, not 7");

    std::fs::write(dir.path().join("last.safetensors"), b"half a file").unwrap();
    assert!(matches!(trainer(&dataset, &small_nhits(), Communicator::solo()).resume(&checkpoint), Err(Error::Checkpoint { .. })));
}

#[test]
fn training_stops_early_and_keeps_the_best_weights() {
    let (dataset, dir) = (sines(3), tempfile::tempdir().unwrap());
    let more =
        json!({"max_steps": 400, "learning_rate": 0.5, "early_stop_patience_steps": 2, "val_check_steps": 4, "mlp_units": [[16, 16]]});
    let config = options("nhits", more);
    let checkpoint = Checkpoint::at(dir.path());
    let mut trainer = trainer(&dataset, &config, Communicator::solo());
    let result = trainer.fit(Some(&checkpoint), &mut ()).unwrap();
    let best = result.best_step.unwrap();
    assert!(result.stopped_early && result.steps == best + 2 * 4 && result.steps < 400, "{} {best}", result.steps);
    let lowest = result.valid_loss.iter().map(|(_, loss)| *loss).fold(f64::INFINITY, f64::min);

    let validation_loss = |weights| {
        let forecaster = Forecaster::load(&checkpoint, weights, &dataset, Device::Cpu).unwrap();
        let windows = forecaster.windows(&dataset, Part::Validation, 1).unwrap();
        let forecasts = forecaster.predict(&dataset, Part::Validation, &windows, |_| {});
        let batch = forecaster.table(&dataset, Part::Validation, &windows, &forecasts).unwrap();
        let pairs = table::floats(&batch, "y").into_iter().zip(forecasts);
        pairs.map(|(y, f)| f64::from((y - f).abs())).sum::<f64>() / batch.num_rows() as f64
    };
    assert!((validation_loss(Weights::Best) - lowest).abs() < 1e-5 * lowest, "the best file holds the weights of step {best}");
    assert!(validation_loss(Weights::Last) > lowest);
    assert_eq!(checkpoint.state(Weights::Best).unwrap().step, best);
}

#[test]
fn a_loss_that_is_no_number_stops_with_its_step() {
    let config = options("nhits", json!({"learning_rate": 1e30, "mlp_units": [[16, 16]], "loss": "mse"}));
    let error = trainer(&sines(4), &config, Communicator::solo()).fit(None, &mut ()).unwrap_err();
    assert!(matches!(error, Error::NotFinite { what: "training", step: 1..=4, .. }), "{error}");
    assert!(error.to_string().contains("at step") && error.hint().unwrap().contains("learning_rate"), "{error}");
    assert!(error.to_string().contains("the weights went too far in the step before, with series `s"), "{error}");
}

#[test]
fn a_window_that_makes_the_loss_no_number_is_named() {
    let mut rows = Rows::new(&["y"], &[], &[], &[]);
    // Its square is more than f32 holds.
    (0..60).for_each(|hour| rows.push("calm", hour, &[Some((hour as f32).sin())], 0));
    (0..60).for_each(|hour| rows.push("wild", hour, &[Some(if hour == 50 { 3e38 } else { hour as f32 })], 0));
    let config = options("nlinear", json!({"loss": "mse", "windows_batch_size": 0, "learning_rate": 1e-9}));
    let error = trainer(&rows.dataset(), &config, Communicator::solo()).fit(None, &mut ()).unwrap_err().to_string();
    assert!(error.contains("at step 0: series `wild` after 1970-01-02"), "{error}");
    assert!(!error.contains("calm"), "{error}");
}

#[test]
fn what_a_model_cannot_use_is_refused() {
    let check = |rows: Rows, config: (ModelConfig, TrainConfig), expect: &str| {
        let error = Trainer::new(rows.dataset(), &config.0, &config.1, Communicator::solo(), Device::Cpu).unwrap_err();
        assert_eq!(error.to_string(), expect);
    };
    let table = |targets: &[&str], hist: &[String]| {
        let mut rows = Rows::new(targets, hist, &[], &[]);
        (0..30).for_each(|hour| rows.push("a", hour, &vec![Some(hour as f32); targets.len() + hist.len()], 0));
        rows
    };
    check(table(&["P", "Q"], &[]), options("nlinear", json!({})), "model nlinear forecasts one target, but 2 are given");
    check(table(&["y"], &["x".into()]), options("nlinear", json!({})), "model nlinear cannot use hist columns, but 1 are given");
    let simulation = configure("lstm", json!({"mode": "simulation"}).as_object().unwrap()).unwrap();
    check(table(&["Q"], &[]), simulation, "model lstm has no inputs: give hist, futr or stat columns, or let it see past targets");
}

/// Flow that follows yesterday's rain with a memory, on three basins of different size; every 17th observation is missing.
fn basins() -> Rows {
    let mut rows = Rows::new(&["P", "Q"], &["T".into()], &[], &["area".into()]);
    let mut state = 7u32;
    for (number, area) in [0.5f32, 1.0, 2.0].into_iter().enumerate() {
        let mut storage = 0.0;
        for day in 0..400 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let rain = ((state >> 8) as f32 / (1 << 24) as f32 - 0.6).max(0.0) * 2.5;
            let flow = storage * 0.3 * area;
            storage = storage * 0.7 + rain;
            let observed = (day % 17 != 0).then_some(flow);
            let split = i8::from(day >= 300) + i8::from(day >= 350);
            rows.push(&format!("b{number}"), day, &[Some(rain), observed, Some((day as f32 * 0.017).sin()), Some(area)], split);
        }
    }
    rows
}

fn lstm(more: Value) -> (ModelConfig, TrainConfig) {
    let mut options =
        json!({"input_size": 10, "hidden_size": 12, "batch_size": 64, "epochs": 12, "learning_rate": 1e-2, "observed": "any"});
    options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    configure("lstm", options.as_object().unwrap()).unwrap()
}

/// Nash-Sutcliffe efficiency of the forecasts of Q over the test part.
fn efficiency(config: &(ModelConfig, TrainConfig)) -> f64 {
    let dataset = basins().dataset();
    let mut trainer = trainer(&dataset, config, Communicator::solo());
    let result = trainer.fit(None, &mut ()).unwrap();
    assert_eq!(result.steps, 12 * result.windows.div_ceil(64), "twelve passes over all windows");
    let forecaster = trainer.forecaster();
    let windows = forecaster.windows(&dataset, Part::Test, 1).unwrap();
    let forecasts = forecaster.predict(&dataset, Part::Test, &windows, |_| {});
    let batch = forecaster.table(&dataset, Part::Test, &windows, &forecasts).unwrap();
    assert_eq!(table::names(&batch), ["unique_id", "ds", "cutoff", "P", "P_hat", "Q", "Q_hat"]);
    let q: Vec<Option<f32>> = table::optional(&batch, "Q");
    let pairs: Vec<(f64, f64)> =
        q.iter().zip(table::floats(&batch, "Q_hat")).filter_map(|(q, f)| Some((f64::from((*q)?), f64::from(f)))).collect();
    assert!(pairs.len() < windows.len(), "missing observations stay missing");
    let mean = pairs.iter().map(|(q, _)| q).sum::<f64>() / pairs.len() as f64;
    1.0 - pairs.iter().map(|(q, f)| (q - f).powi(2)).sum::<f64>() / pairs.iter().map(|(q, _)| (q - mean).powi(2)).sum::<f64>()
}

#[test]
fn the_hydrology_lstm_learns_flow_of_many_basins() {
    let forecast = efficiency(&lstm(json!({"loss": "nse"})));
    assert!(forecast > 0.8, "{forecast}");
    let masked = efficiency(&lstm(json!({"loss": "mse", "exclude_insample_y": false})));
    assert!(masked > 0.8, "{masked}");
}

#[test]
fn the_lstm_starts_from_the_last_observation() {
    let (dataset, config) = (basins().dataset(), lstm(json!({})));
    let trainer = trainer(&dataset, &config, Communicator::solo());
    let forecaster = trainer.forecaster();
    let parameters = forecaster.model().parameters();
    let _no_grad = tch::no_grad_guard();
    parameters.names().iter().zip(parameters.tensors()).filter(|(name, _)| name.starts_with("head")).for_each(|(_, head)| {
        let _ = head.shallow_clone().zero_();
    });
    let windows = forecaster.windows(&dataset, Part::Test, 1).unwrap();
    let forecasts = forecaster.predict(&dataset, Part::Test, &windows, |_| {});
    for (window, forecast) in windows.iter().zip(forecasts.chunks(2)) {
        let day = window.offset as usize + 9;
        let first = dataset.series()[window.series as usize].start;
        let value = |channel: usize, day: usize| dataset.values()[(first + day) * 3 + channel];
        // Flow is missing every 17th day: then the day before counts.
        let known = if day.is_multiple_of(17) { day - 1 } else { day };
        assert_eq!(forecast, [value(0, day), value(1, known)], "day {day}");
    }
}

#[test]
fn in_simulation_the_horizon_is_the_last_day_of_the_input() {
    let dataset = basins().dataset();
    let config = lstm(json!({"mode": "simulation", "epochs": 0, "max_steps": 2}));
    let trainer = trainer(&dataset, &config, Communicator::solo());
    let forecaster = trainer.forecaster();
    let windows = forecaster.windows(&dataset, Part::Test, 1).unwrap();
    assert_eq!((windows.len(), windows[0].offset), (150, 350 - 10 + 1));
    let forecasts = vec![0.0; windows.len() * 2];
    let batch = forecaster.table(&dataset, Part::Test, &windows, &forecasts).unwrap();
    assert_eq!((table::hours(&batch, "ds")[0], table::hours(&batch, "cutoff")[0]), (350, 349));
}

#[test]
fn quantiles_have_their_columns() {
    let dataset = sines(5);
    let config =
        options("nhits", json!({"loss": "mqloss", "level": [80], "max_steps": 150, "mlp_units": [[16, 16]], "scaler_type": "standard"}));
    let mut trainer = trainer(&dataset, &config, Communicator::solo());
    trainer.fit(None, &mut ()).unwrap();
    let forecaster = trainer.forecaster();
    let windows = forecaster.windows(&dataset, Part::Test, 3).unwrap();
    let forecasts = forecaster.predict(&dataset, Part::Test, &windows, |_| {});
    let batch = forecaster.table(&dataset, Part::Test, &windows, &forecasts).unwrap();
    assert_eq!(table::names(&batch), ["unique_id", "ds", "cutoff", "y", "y_hat", "y_hat-lo-80", "y_hat-hi-80"]);
    let (low, high) = (table::floats(&batch, "y_hat-lo-80"), table::floats(&batch, "y_hat-hi-80"));
    let ordered = low.iter().zip(&high).filter(|(low, high)| low < high).count();
    assert!(ordered * 10 > low.len() * 9, "{ordered} of {}", low.len());
}

#[test]
fn the_checkpoint_is_readable_by_others() {
    let (dataset, dir) = (sines(6), tempfile::tempdir().unwrap());
    let checkpoint = Checkpoint::at(dir.path());
    trainer(&dataset, &options("nlinear", json!({})), Communicator::solo()).fit(Some(&checkpoint), &mut ()).unwrap();
    let shapes = |file: &Path| -> Vec<(String, Vec<i64>)> {
        let mut all: Vec<_> = Tensor::read_safetensors(file).unwrap().into_iter().map(|(name, t)| (name, t.size())).collect();
        all.sort();
        all
    };
    let plain = [("linear.bias".to_owned(), vec![6]), ("linear.weight".to_owned(), vec![6, 12])];
    assert_eq!(shapes(&dir.path().join("best.safetensors")), plain);
    assert_eq!(shapes(&dir.path().join("last.safetensors")).len(), 6);
    let state: Value = serde_json::from_slice(&std::fs::read(dir.path().join("state.json")).unwrap()).unwrap();
    assert_eq!((&state["step"], &state["model"]["name"]), (&json!(20), &json!("nlinear")));
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(left.len(), 3, "no half-written files stay");
}
