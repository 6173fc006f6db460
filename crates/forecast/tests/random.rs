//! What is random follows from the seed: dropout, and whole trainings of every model. A program of its own, because all threads of a
//! process share libtorch's generator and number of threads; its tests take turns.

#![expect(clippy::unwrap_used, reason = "a panic is the message of a test")]

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use deeprc_comm::Communicator;
use deeprc_forecast::config::{ModelName, configure};
use deeprc_forecast::kernels::{attention, dropout};
use deeprc_forecast::trainer::Trainer;
use deeprc_loader::{Columns, Dataset, DatasetOptions};
use deeprc_table::arrow::array::{ArrayRef, Float32Array, RecordBatch, TimestampMillisecondArray};
use serde_json::json;
use tch::{Device, Kind, Tensor};

const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);
static GENERATOR: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    GENERATOR.lock().unwrap_or_else(PoisonError::into_inner)
}

fn random(shape: &[i64]) -> Tensor {
    Tensor::randn(shape, FLOAT).set_requires_grad(true)
}

/// One series of 200 hours.
fn dataset() -> Arc<Dataset> {
    let hours = TimestampMillisecondArray::from_iter_values((0..200).map(|hour| hour * 3_600_000));
    let values = Float32Array::from_iter_values((0..200).map(|hour| (hour as f32 * 0.26).sin() + (hour as f32 * 1.7).cos()));
    let batch = RecordBatch::try_from_iter([("ds", Arc::new(hours) as ArrayRef), ("y", Arc::new(values) as ArrayRef)]).unwrap();
    Arc::new(Dataset::from_batches(&[batch], &DatasetOptions::new(Columns::new("ds", ["y"]))).unwrap())
}

/// The weights after three steps on two threads, bit by bit.
fn trained(model: ModelName, dataset: &Arc<Dataset>) -> Vec<Vec<u32>> {
    let options = json!({"h": 6, "input_size": 12, "max_steps": 3, "windows_batch_size": 16, "scaler_type": "standard"});
    let mut options = options.as_object().unwrap().clone();
    if model == ModelName::Lstm {
        options.remove("windows_batch_size");
    }
    let (config, train) = configure(model.as_str(), &options).unwrap();
    let mut trainer = Trainer::new(Arc::clone(dataset), &config, &train, Communicator::solo(), Device::Cpu).unwrap();
    trainer.fit(None, &mut ()).unwrap();
    let bits = |t: &Tensor| {
        let mut values = vec![0f32; t.numel()];
        t.detach().to_kind(Kind::Float).copy_data(&mut values, t.numel());
        values.into_iter().map(f32::to_bits).collect()
    };
    trainer.forecaster().model().parameters().state().into_iter().map(|(_, tensor)| bits(tensor)).collect()
}

#[test]
fn the_same_seed_trains_the_same_bits() {
    let _turn = alone();
    tch::set_num_threads(2);
    let dataset = dataset();
    for &model in ModelName::ALL {
        assert!(trained(model, &dataset) == trained(model, &dataset), "{} differs between two trainings", model.as_str());
    }
}

#[test]
fn the_gradient_of_attention_knows_which_weights_were_dropped() {
    let _turn = alone();
    let (k, v) = (random(&[2, 9, 8]), random(&[2, 9, 8]));
    let loss = |q: &Tensor| {
        tch::manual_seed(5);
        attention([q, &k, &v], 2, 0.4).sin().sum(Kind::Double)
    };
    let (q, step) = (random(&[2, 6, 8]), Tensor::randn([2, 6, 8], FLOAT));
    let gradient = Tensor::run_backward(&[loss(&q)], &[&q], false, false).remove(0);
    let slope = |by: f64| loss(&(&q + &step * by)).double_value(&[]);
    let (ours, expect) = ((gradient * &step).sum(Kind::Double).double_value(&[]), (slope(1e-2) - slope(-1e-2)) / 2e-2);
    assert!((ours - expect).abs() < 1e-2 * expect.abs().max(1.0), "{ours}, expected {expect}");
}

#[test]
fn dropout_keeps_the_mean_and_passes_gradients_where_it_passed_values() {
    let _turn = alone();
    let x = Tensor::ones([1_000_003], FLOAT).set_requires_grad(true);
    let out = dropout(&x, 0.2);
    let kept = out.gt(0.0).to_kind(Kind::Float).mean(Kind::Double).double_value(&[]);
    assert!((kept - 0.8).abs() < 2e-3, "{kept}");
    assert!((out.max().double_value(&[]) - 1.25).abs() < 1e-6);
    assert_eq!(Tensor::run_backward(&[out.sum(Kind::Float)], &[&x], false, false).remove(0), out.detach());
    assert_ne!(dropout(&x, 0.2), out, "each call draws anew");
}
