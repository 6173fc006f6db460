//! Data-parallel training: W ranks with a share of each batch do what one rank does with the whole.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::table::Rows;
use crate::training::{options, sines, trainer, weights};
use deeprc_comm::{CommSpec, Communicator, Rendezvous};
use deeprc_forecast::config::{ModelConfig, TrainConfig};
use deeprc_forecast::task::TrainResult;
use deeprc_loader::Dataset;
use serde_json::{Value, json};

type Trained = (Vec<u32>, TrainResult);

fn on(comms: Vec<Communicator>, dataset: &Arc<Dataset>, config: &(ModelConfig, TrainConfig)) -> Vec<Trained> {
    let run = |comm: Communicator| {
        let mut trainer = trainer(dataset, config, comm);
        let result = trainer.fit(None, &mut ()).unwrap();
        (weights(&trainer), result)
    };
    thread::scope(|scope| {
        let ranks: Vec<_> = comms.into_iter().map(|comm| scope.spawn(move || run(comm))).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

/// Ranks that meet as processes do, over shared memory or a network.
fn meeting(spec: CommSpec, size: usize) -> Vec<Communicator> {
    let dir = tempfile::tempdir().unwrap();
    let connect = |rank| Communicator::open(spec, &Rendezvous::new(dir.path(), rank, size)).unwrap().0;
    thread::scope(|scope| {
        let ranks: Vec<_> = (0..size).map(|rank| scope.spawn(move || connect(rank))).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

/// Sines with holes, so that shares have different numbers of observed values.
fn holes() -> Arc<Dataset> {
    let mut rows = Rows::new(&["y"], &[], &[], &[]);
    for (id, hours) in [("a", 90), ("b", 140), ("c", 61)] {
        for hour in 0..hours {
            let value = (hour as f32 * 0.3).sin() * 3.0 + 5.0;
            let observed = (hour * 7 + hours) % 11 > 3;
            rows.push(id, hour, &[observed.then_some(value)], i8::from(hour >= hours - 14));
        }
    }
    rows.dataset()
}

fn check(dataset: &Arc<Dataset>, model: &str, more: Value) {
    let config = options(model, more);
    let alone = on(vec![Communicator::solo()], dataset, &config).remove(0);
    let close = |what: &str, ours: &[(u64, f64)], theirs: &[(u64, f64)]| {
        assert_eq!(ours.len(), theirs.len());
        for ((step, ours), (_, theirs)) in ours.iter().zip(theirs) {
            assert!((ours - theirs).abs() <= 2e-5 * theirs.abs().max(0.1), "{model} {what} of step {step}: {ours}, alone {theirs}");
        }
    };
    for size in 2..=4 {
        let ranks = on(Communicator::threads(size), dataset, &config);
        assert!(ranks.iter().all(|(weights, _)| *weights == ranks[0].0), "every rank has the same weights");
        close("training loss", &ranks[0].1.train_loss, &alone.1.train_loss);
        close("validation loss", &ranks[0].1.valid_loss, &alone.1.valid_loss);
        let floats = |w: &[u32]| w.iter().copied().map(f32::from_bits).collect::<Vec<_>>();
        let (ours, theirs) = (floats(&ranks[0].0), floats(&alone.0));
        let worst = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 5e-4, "{model}: weights on {size} ranks differ by {worst}");
        // Sums in the order of the ranks have the same bits over every transport.
        for spec in [CommSpec::Shm, CommSpec::Gloo].into_iter().filter(|spec| spec.is_built_in()) {
            assert_eq!(on(meeting(spec, size), dataset, &config)[0].0, ranks[0].0, "{spec:?}");
        }
    }
}

#[test]
fn ranks_with_shares_of_a_batch_equal_one_rank() {
    // 16 windows: 6, 5, 5 on three ranks.
    check(&sines(2), "nlinear", json!({"scaler_type": "robust"}));
    check(&sines(2), "nhits", json!({"mlp_units": [[16, 16]], "learning_rate": 1e-3, "gradient_clip_val": 0.1, "optimizer": "adamw"}));
    check(&sines(2), "gru", json!({"encoder_hidden_size": 8, "learning_rate": 1e-3}));
}

#[test]
fn losses_that_are_no_plain_means_are_shared_too() {
    for loss in ["rmse", "mse", "mae", "huber"] {
        check(
            &holes(),
            "nlinear",
            json!({"loss": loss, "scaler_type": "standard", "windows_batch_size": 7, "inference_windows_batch_size": 3}),
        );
    }
}

#[test]
fn some_ranks_may_have_nothing_to_do() {
    check(&holes(), "nlinear", json!({"windows_batch_size": 2, "loss": "rmse"}));
}

#[test]
fn large_models_exchange_while_they_compute() {
    // 2.4 million parameters: three buckets.
    check(
        &sines(2),
        "nhits",
        json!({"max_steps": 4, "learning_rate": 1e-4, "mlp_units": [[512, 512], [512, 512], [512, 512], [512, 512]]}),
    );
}

#[test]
fn a_rank_that_leaves_ends_the_others() {
    let mut comms = Communicator::threads(2);
    let config = options("nhits", json!({"mlp_units": [[512, 512], [512, 512], [512, 512], [512, 512]]}));
    drop(comms.pop());
    let begin = Instant::now();
    let mut trainer = trainer(&sines(1), &config, comms.remove(0));
    let error = trainer.fit(None, &mut ()).unwrap_err();
    assert!(error.is_secondary() && begin.elapsed() < Duration::from_secs(60), "{error}");
}
