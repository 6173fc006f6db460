//! Several models on one table: fit, predict beyond the last row, cross-validate, save, load, weights of the peer.

use std::path::Path;
use std::sync::Arc;
use std::thread;

use crate::table::{self, Rows};
use crate::training::{options, weights};
use deeprc_comm::Communicator;
use deeprc_forecast::checkpoint::load_weights;
use deeprc_forecast::config::{ModelConfig, TrainConfig, configure};
use deeprc_forecast::forecaster::Forecaster;
use deeprc_forecast::neural_forecast::{CrossValidation, FitOptions, NeuralForecast, Refit};
use deeprc_forecast::trainer::Trainer;
use deeprc_loader::{BadSeries, Dataset, DatasetOptions};
use deeprc_table::arrow::array::{AsArray, RecordBatch};
use serde_json::{Value, json};
use tch::Device;

const SERIES: [(&str, usize); 3] = [("a", 80), ("b", 100), ("c", 60)];

/// Three sines that end at different hours; `known` is their double, known ahead.
fn rows(extra: usize) -> Rows {
    let mut rows = Rows::new(&["y"], &[], &["known".into()], &[]);
    for (number, (id, hours)) in SERIES.into_iter().enumerate() {
        for hour in 0..hours + extra {
            let value = (hour as f32 * 0.4 + number as f32).sin();
            rows.push(id, hour, &[(hour < hours).then_some(value), Some(2.0 * value)], 0);
        }
    }
    rows
}

fn plain() -> Arc<Dataset> {
    let mut rows = Rows::new(&["y"], &[], &[], &[]);
    for (number, (id, hours)) in SERIES.into_iter().enumerate() {
        (0..hours).for_each(|hour| rows.push(id, hour, &[Some((hour as f32 * 0.4 + number as f32).sin())], 0));
    }
    rows.dataset()
}

fn models() -> Vec<(ModelConfig, TrainConfig)> {
    let small = json!({"mlp_units": [[16, 16]], "max_steps": 60, "loss": "mqloss", "level": [80], "scaler_type": "standard"});
    vec![options("nlinear", json!({"max_steps": 200})), options("nhits", small), options("nlinear", json!({"max_steps": 3}))]
}

fn build(models: Vec<(ModelConfig, TrainConfig)>) -> NeuralForecast {
    tch::set_num_threads(1);
    NeuralForecast::new(models, Communicator::solo(), Device::Cpu).unwrap()
}

fn fitted(dataset: &Arc<Dataset>) -> NeuralForecast {
    let mut nf = build(models());
    nf.fit(dataset, &FitOptions::default(), &mut ()).unwrap();
    nf
}

fn ids(batch: &RecordBatch) -> Vec<String> {
    batch.column(0).as_string::<i32>().iter().map(|id| id.unwrap().to_owned()).collect()
}

#[test]
fn models_forecast_what_comes_after_the_table() {
    let dataset = plain();
    let nf = fitted(&dataset);
    let next = nf.predict(&dataset, &[], None).unwrap();
    assert_eq!(table::names(&next), ["unique_id", "ds", "nlinear", "nhits", "nhits-lo-80", "nhits-hi-80", "nlinear1"]);
    let expect: Vec<i64> = SERIES.iter().flat_map(|(_, hours)| *hours as i64..*hours as i64 + 6).collect();
    assert_eq!(table::hours(&next, "ds"), expect);
    assert_eq!(ids(&next)[5..7], ["a", "b"]);
    let truth = SERIES.iter().enumerate().flat_map(|(n, (_, hours))| (*hours..hours + 6).map(move |h| (h as f32 * 0.4 + n as f32).sin()));
    let worst = truth.zip(table::floats(&next, "nlinear")).map(|(y, f)| (y - f).abs()).fold(0.0, f32::max);
    assert!(worst < 0.2, "{worst}");
}

#[test]
fn longer_horizons_go_on_from_forecasts() {
    let dataset = plain();
    let nf = fitted(&dataset);
    let long = nf.predict(&dataset, &[], Some(14)).unwrap();
    assert_eq!(long.num_rows(), 3 * 14);
    let (short, long_values) = (nf.predict(&dataset, &[], None).unwrap(), table::floats(&long, "nlinear"));
    let short_values = table::floats(&short, "nlinear");
    for (short, long) in short_values.chunks(6).zip(long_values.chunks(14)) {
        assert_eq!(short, &long[..6]);
    }
    // As if the first six had been observed.
    let mut rows = Rows::new(&["y"], &[], &[], &[]);
    for (number, (id, hours)) in SERIES.into_iter().enumerate() {
        let value =
            |hour: usize| if hour < hours { (hour as f32 * 0.4 + number as f32).sin() } else { short_values[number * 6 + hour - hours] };
        (0..hours + 6).for_each(|hour| rows.push(id, hour, &[Some(value(hour))], 0));
    }
    let next = table::floats(&nf.predict(&rows.dataset(), &[], None).unwrap(), "nlinear");
    for (next, long) in next.chunks(6).zip(long_values.chunks(14)) {
        assert_eq!(next, &long[6..12]);
    }
    assert_eq!(nf.predict(&dataset, &[], Some(2)).unwrap().num_rows(), 6);
}

#[test]
fn columns_known_ahead_come_from_a_table_of_future_rows() {
    let dataset = rows(0).dataset();
    let mut nf = build(vec![options("nhits", json!({"mlp_units": [[16, 16]], "max_steps": 5})), options("gru", json!({"max_steps": 2}))]);
    nf.fit(&dataset, &FitOptions::default(), &mut ()).unwrap();
    let missing = nf.predict(&dataset, &[], None).unwrap_err();
    let expect = "series `a`: column `known` has no value at 1970-01-04 08:00:00 in the table of future rows";
    assert!(missing.to_string() == expect && missing.hint().is_some(), "{missing}");
    let future = rows(12).batch();
    let next = nf.predict(&dataset, std::slice::from_ref(&future), None).unwrap();
    // The same window made by hand: the table with six more rows whose target is unknown, which are the test part.
    let ahead = dataset.ahead(20, 6, std::slice::from_ref(&future)).unwrap();
    let (_, forecaster) = nf.forecasters().next().unwrap();
    let windows = forecaster.windows(&ahead, deeprc_loader::Part::Test, 1).unwrap();
    let expect = forecaster.predict(&ahead, deeprc_loader::Part::Test, &windows, |_| {});
    assert_eq!(table::floats(&next, "nhits"), expect);
    assert_eq!(nf.predict(&dataset, &[future], Some(12)).unwrap().num_rows(), 36);
}

#[test]
fn short_series_are_an_error_or_left_out() {
    let mut rows = Rows::new(&["y"], &[], &[], &[]);
    for (id, hours) in [("long", 60), ("short", 7), ("flat", 60)] {
        (0..hours).for_each(|hour| rows.push(id, hour, &[Some(if id == "flat" { 1.0 } else { (hour as f32).sin() })], 0));
    }
    let build_dataset = |on_bad_series| {
        let options = DatasetOptions { on_bad_series, ..rows.options() };
        Arc::new(Dataset::from_batches(&[rows.batch()], &options).unwrap())
    };
    let mut nf = build(vec![options("nlinear", json!({"max_steps": 2}))]);
    let error = nf.fit(&build_dataset(BadSeries::Raise), &FitOptions::default(), &mut ()).unwrap_err().to_string();
    assert!(error.contains("series `flat` is constant: column `y` is 1"), "{error}");
    let dataset = build_dataset(BadSeries::Skip);
    let results = nf.fit(&dataset, &FitOptions::default(), &mut ()).unwrap();
    let skipped: Vec<&str> = results[0].skipped.iter().map(|s| s.series.as_str()).collect();
    assert_eq!(skipped, ["flat", "short"]);
    let next = nf.predict(&dataset, &[], None).unwrap();
    assert_eq!(ids(&next).iter().filter(|id| *id == "short").count(), 0);
    assert_eq!(next.num_rows(), 12, "a constant series can be forecast");
    let error = nf.predict(&build_dataset(BadSeries::Raise), &[], None).unwrap_err().to_string();
    assert!(error.contains("series `short` is too short: 7 rows"), "{error}");
}

#[test]
fn cross_validation_fits_once_or_for_every_window() {
    let dataset = plain();
    let mut nf = build(vec![options("nlinear", json!({"max_steps": 30}))]);
    let options = CrossValidation { n_windows: 3, step_size: 2, val_size: 6, ..CrossValidation::default() };
    let once = nf.cross_validation(&dataset, &options, &mut ()).unwrap();
    assert_eq!(table::names(&once), ["unique_id", "ds", "cutoff", "y", "nlinear"]);
    assert_eq!(once.num_rows(), 3 * 3 * 6);
    assert_eq!(table::hours(&once, "cutoff")[..18].iter().step_by(6).copied().collect::<Vec<_>>(), [69, 71, 73]);
    assert_eq!(table::hours(&once, "ds")[..6], [70, 71, 72, 73, 74, 75]);
    let same = nf.cross_validation(&dataset, &CrossValidation { test_size: Some(10), n_windows: 9, ..options.clone() }, &mut ()).unwrap();
    assert_eq!(same, once, "test_size decides");

    let refit =
        |nf: &mut NeuralForecast, refit| nf.cross_validation(&dataset, &CrossValidation { refit, ..options.clone() }, &mut ()).unwrap();
    let always = refit(&mut nf, Refit::Always);
    assert_eq!((always.column(1), always.column(2)), (once.column(1), once.column(2)));
    let values = |batch: &RecordBatch, window: usize| table::floats(batch, "nlinear")[window * 6..window * 6 + 6].to_vec();
    assert_eq!(values(&always, 0), values(&once, 0), "the first window is fitted on the same rows");
    assert_ne!(values(&always, 1), values(&once, 1));
    let second = refit(&mut nf, Refit::Every(2));
    assert_eq!((values(&second, 0), values(&second, 1), values(&second, 2)), (values(&once, 0), values(&once, 1), values(&always, 2)));

    let error = nf.cross_validation(&dataset, &CrossValidation { test_size: Some(11), step_size: 2, ..options }, &mut ()).unwrap_err();
    assert_eq!(error.to_string(), "the models need a test_size of 6 plus a multiple of the step_size 2, not 11");
}

#[test]
fn windows_of_the_training_are_forecast_too() {
    let dataset = plain();
    let nf = fitted(&dataset);
    let rows = nf.predict_insample(&dataset, 6).unwrap();
    let windows: usize = SERIES.iter().map(|(_, hours)| (hours - 18) / 6 + 1).sum();
    assert_eq!(rows.num_rows(), windows * 6);
    assert_eq!(table::hours(&rows, "cutoff")[0], 11);
    let errors = table::floats(&rows, "y").into_iter().zip(table::floats(&rows, "nlinear")).map(|(y, f)| (y - f).abs());
    assert!(errors.sum::<f32>() / (rows.num_rows() as f32) < 0.2);
}

#[test]
fn saved_models_forecast_the_same() {
    let (dataset, dir) = (plain(), tempfile::tempdir().unwrap());
    let nf = fitted(&dataset);
    nf.save(dir.path()).unwrap();
    let loaded = NeuralForecast::load(dir.path(), &dataset, Communicator::solo(), Device::Cpu).unwrap();
    assert_eq!(loaded.names(), ["nlinear", "nhits", "nlinear1"]);
    assert_eq!(loaded.predict(&dataset, &[], None).unwrap(), nf.predict(&dataset, &[], None).unwrap());
    let other = rows(0).dataset();
    let error = NeuralForecast::load(dir.path(), &other, Communicator::solo(), Device::Cpu).unwrap_err();
    assert!(error.to_string().contains("was trained on other columns"), "{error}");
    let untrained = build(models()).predict(&dataset, &[], None).unwrap_err();
    assert_eq!(untrained.to_string(), "the models have to be fitted before they forecast");
    let mut rows = Rows::new(&["y"], &[], &[], &[]);
    (0..40).for_each(|hour| rows.push("a", 2 * hour, &[Some((hour as f32).sin())], 0));
    let error = nf.predict(&rows.dataset(), &[], None).unwrap_err();
    assert_eq!(error.to_string(), "the models were trained on steps of 1h, the table has steps of 2h");
}

#[test]
fn checkpoints_resume_and_give_the_best_weights() {
    let (dataset, dir) = (plain(), tempfile::tempdir().unwrap());
    let fit = FitOptions { val_size: 12, checkpoints: Some(dir.path().to_owned()), resume: true, ..FitOptions::default() };
    let wild =
        || build(vec![options("nlinear", json!({"learning_rate": 0.5, "max_steps": 40, "val_check_steps": 1, "windows_batch_size": 4}))]);
    let mut nf = wild();
    let first = nf.fit(&dataset, &fit, &mut ()).unwrap();
    assert!(first[0].best_step.unwrap() < 40);
    let best = nf.predict(&dataset, &[], None).unwrap();
    let mut again = wild();
    assert_eq!(again.fit(&dataset, &fit, &mut ()).unwrap()[0].resumed_from, Some(40));
    assert_eq!(again.predict(&dataset, &[], None).unwrap(), best);
    let mut last = wild();
    last.fit(&dataset, &FitOptions { weights: deeprc_forecast::task::Weights::Last, ..fit }, &mut ()).unwrap();
    assert_ne!(last.predict(&dataset, &[], None).unwrap(), best);
}

#[test]
fn ranks_share_the_forecasts() {
    let dataset = plain();
    let run = |comm: Communicator| {
        tch::set_num_threads(1);
        let mut nf = NeuralForecast::new(vec![options("nlinear", json!({"loss": "mse"}))], comm, Device::Cpu).unwrap();
        nf.fit(&dataset, &FitOptions { val_size: 6, ..FitOptions::default() }, &mut ()).unwrap();
        let rolled = nf.predict_insample(&dataset, 5).unwrap();
        (nf.predict(&dataset, &[], None).unwrap(), rolled)
    };
    let of = |batches: Vec<&RecordBatch>| batches.iter().flat_map(|b| table::floats(b, "nlinear")).collect::<Vec<f32>>();
    let alone = run(Communicator::solo());
    let ranks: Vec<_> = thread::scope(|scope| {
        let ranks: Vec<_> = Communicator::threads(2).into_iter().map(|comm| scope.spawn(|| run(comm))).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    });
    let close = |ours: Vec<f32>, theirs: Vec<f32>| {
        assert!(ours.len() == theirs.len() && ours.iter().zip(&theirs).all(|(a, b)| (a - b).abs() < 1e-3), "{ours:?} {theirs:?}");
    };
    close(of(ranks.iter().map(|(next, _)| next).collect()), of(vec![&alone.0]));
    close(of(ranks.iter().map(|(_, rolled)| rolled).collect()), of(vec![&alone.1]));
    assert_eq!((ranks[0].0.num_rows(), ranks[1].0.num_rows()), (6, 12), "one and two of three series");
}

/// What NeuralForecast 3.3 saved, and the same models as its versions before 3.3 saved them (`torch.save` of hyper-parameters and
/// state dict); `expect.json` has the series it was trained on and its forecasts.
#[test]
fn weights_of_neuralforecast_are_read_and_forecast_the_same() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/neuralforecast");
    let expect: Value = serde_json::from_slice(&std::fs::read(dir.join("expect.json")).unwrap()).unwrap();
    let values = |name: &str| serde_json::from_value::<Vec<f32>>(expect[name].clone()).unwrap();
    let mut rows = Rows::new(&["y"], &[], &[], &[]);
    values("y").into_iter().enumerate().for_each(|(hour, y)| rows.push("a", hour, &[Some(y)], 0));
    let dataset = rows.dataset();
    for (model, ckpt, tensors) in [("nlinear", "nlinear.ckpt", "NLinear_0.safetensors"), ("nhits", "nhits.ckpt", "NHITS_0.safetensors")] {
        let mut keys = json!({"h": 4, "input_size": 8}).as_object().unwrap().clone();
        if model == "nhits" {
            keys.insert("mlp_units".into(), json!([[8, 8], [8, 8], [8, 8]]));
        }
        let (config, train) = configure(model, &keys).unwrap();
        for file in [ckpt, tensors] {
            let forecaster = Forecaster::new(&dataset, &config, &train, Device::Cpu).unwrap();
            load_weights(&dir.join(file), forecaster.model().parameters()).unwrap();
            let ahead = dataset.ahead(8, 4, &[]).unwrap();
            let windows = forecaster.windows(&ahead, deeprc_loader::Part::Test, 1).unwrap();
            let forecasts = forecaster.predict(&ahead, deeprc_loader::Part::Test, &windows, |_| {});
            let theirs = values(model);
            assert!(forecasts.iter().zip(&theirs).all(|(a, b)| (a - b).abs() < 1e-5), "{file}: {forecasts:?} {theirs:?}");
        }
        let other =
            configure(if model == "nhits" { "nlinear" } else { "nhits" }, json!({"h": 4, "input_size": 8}).as_object().unwrap()).unwrap();
        let forecaster = Forecaster::new(&dataset, &other.0, &other.1, Device::Cpu).unwrap();
        let error = load_weights(&dir.join(ckpt), forecaster.model().parameters()).unwrap_err().to_string();
        assert!(error.contains("which the model has not"), "{error}");
    }
}

#[test]
fn broken_weight_files_are_errors() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/neuralforecast");
    let whole = std::fs::read(dir.join("nlinear.ckpt")).unwrap();
    let (config, train) = configure("nlinear", json!({"h": 4, "input_size": 8}).as_object().unwrap()).unwrap();
    let trainer = Trainer::new(plain(), &config, &train, Communicator::solo(), Device::Cpu).unwrap();
    let before = weights(&trainer);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("broken.ckpt");
    let parameters = trainer.forecaster().model().parameters();
    for cut in [4, 100, whole.len() / 2, whole.len() - 30] {
        std::fs::write(&file, &whole[..cut]).unwrap();
        assert!(load_weights(&file, parameters).is_err(), "cut at {cut}");
    }
    // Whatever a byte becomes, the answer is weights or an error.
    for at in (0..whole.len()).step_by(7) {
        let mut changed = whole.clone();
        changed[at] ^= 0x55;
        std::fs::write(&file, &changed).unwrap();
        let _ = load_weights(&file, parameters);
    }
    load_weights(&dir.join("nlinear.ckpt"), parameters).unwrap();
    assert_ne!(weights(&trainer), before);
}
