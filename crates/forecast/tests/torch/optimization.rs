//! Optimizers, schedules, precision, what is monitored; a resumed training equals an undisturbed one, bit by bit.

use crate::training::{StopAt, options, sines, small_nhits, trainer, weights};
use deeprc_comm::Communicator;
use deeprc_forecast::Error;
use deeprc_forecast::checkpoint::Checkpoint;
use deeprc_forecast::config::{ModelConfig, OptimizerName, Precision, Scheduler, TrainConfig};
use deeprc_forecast::optimizer::learning_rate;
use deeprc_forecast::task::Weights;
use serde_json::json;

fn check_resume(config: &(ModelConfig, TrainConfig), stops: impl IntoIterator<Item = u64>) {
    let dataset = sines(1);
    let mut whole = trainer(&dataset, config, Communicator::solo());
    let expect = whole.fit(None, &mut ()).unwrap();
    for stop in stops {
        let dir = tempfile::tempdir().unwrap();
        let checkpoint = Checkpoint::at(dir.path());
        let stopped = trainer(&dataset, config, Communicator::solo()).fit(Some(&checkpoint), &mut StopAt(stop, 0));
        assert!(matches!(stopped, Err(Error::Canceled { step }) if step == stop), "{stopped:?}");
        let mut second = trainer(&dataset, config, Communicator::solo());
        second.resume(&checkpoint).unwrap();
        let result = second.fit(Some(&checkpoint), &mut ()).unwrap();
        assert_eq!(weights(&second), weights(&whole), "stopped after step {stop}: {:?}", config.1);
        assert_eq!((&result.train_loss, &result.valid_loss), (&expect.train_loss, &expect.valid_loss));
        assert_eq!((result.steps, result.best_step, result.resumed_from), (expect.steps, expect.best_step, Some(stop)));
    }
}

#[test]
fn a_resumed_training_equals_an_undisturbed_one() {
    let (mut model, train) = small_nhits();
    // The only test with dropout: all threads of a process share libtorch's generator.
    let ModelConfig::NHits(nhits) = &mut model else { unreachable!() };
    nhits.dropout_prob_theta = 0.2;
    let schedulers = [Scheduler::Step, Scheduler::Cosine, Scheduler::OneCycle, Scheduler::Constant];
    for (number, scheduler) in schedulers.into_iter().enumerate() {
        for optimizer in [OptimizerName::Adam, OptimizerName::AdamW] {
            let clip = if number % 2 == 0 { 0.5 } else { 0.0 };
            let train = TrainConfig {
                optimizer,
                scheduler,
                max_steps: 8,
                gradient_clip_val: clip,
                warmup_steps: 3,
                num_lr_decays: 4,
                ..train.clone()
            };
            check_resume(&(model.clone(), train), 1..8);
        }
    }
    check_resume(&(model, TrainConfig { max_steps: 20, precision: Precision::Bf16, ..train }), [10]);
}

#[test]
fn passes_over_all_windows_resume_too() {
    let more = json!({"h": 2, "hidden_size": 8, "batch_size": 50, "epochs": 2, "max_steps": 1, "exclude_insample_y": false});
    let mut keys = more.as_object().unwrap().clone();
    keys.insert("input_size".into(), json!(8));
    let config = deeprc_forecast::config::configure("lstm", &keys).unwrap();
    check_resume(&config, [1, 5, 6, 7]);
}

#[test]
fn a_finished_training_has_nothing_left_to_do() {
    let (dataset, config, dir) = (sines(1), small_nhits(), tempfile::tempdir().unwrap());
    let checkpoint = Checkpoint::at(dir.path());
    let mut first = trainer(&dataset, &config, Communicator::solo());
    first.fit(Some(&checkpoint), &mut ()).unwrap();
    let mut again = trainer(&dataset, &config, Communicator::solo());
    again.resume(&checkpoint).unwrap();
    assert_eq!(again.fit(None, &mut ()).unwrap().steps, 20);
    assert_eq!(weights(&again), weights(&first));
}

/// Expected values are PyTorch 2.11's for a learning rate of 1 over 10 steps.
#[test]
fn schedules_are_those_of_pytorch() {
    let rates = |train: TrainConfig| -> Vec<f64> { (0..10).map(|step| learning_rate(&train, 10, step)).collect() };
    let check = |train: TrainConfig, expect: [f64; 10]| {
        let found = rates(train);
        assert!(found.iter().zip(expect).all(|(a, b)| (a - b).abs() < 1e-8), "{found:?}");
    };
    let train = |scheduler| TrainConfig { learning_rate: 1.0, scheduler, ..TrainConfig::default() };
    let cosine = [1.0, 0.97552826, 0.9045085, 0.79389263, 0.6545085, 0.5, 0.3454915, 0.20610737, 0.0954915, 0.02447174];
    check(train(Scheduler::Cosine), cosine);
    let one_cycle = [0.04, 0.52, 1.0, 0.95048443, 0.81174530, 0.61126047, 0.38874353, 0.18825870, 0.04951957, 4e-6];
    let found = rates(train(Scheduler::OneCycle));
    assert!(found.iter().zip(one_cycle).all(|(a, b)| (a - b).abs() < 2e-6), "{found:?}");
    check(train(Scheduler::Constant), [1.0; 10]);
    check(TrainConfig { num_lr_decays: 2, ..train(Scheduler::Step) }, [1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.5]);
    check(TrainConfig { warmup_steps: 4, ..train(Scheduler::Constant) }, [0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
}

#[test]
fn adamw_takes_its_decay_from_the_weights() {
    // Without gradients (everything is clipped away) only the decay acts: w (1 - lr * decay)^steps.
    let norm = |more| {
        let config = options("nlinear", more);
        let mut trainer = trainer(&sines(1), &config, Communicator::solo());
        let of = |trainer: &deeprc_forecast::trainer::Trainer| {
            weights(trainer).into_iter().map(f32::from_bits).map(|w| w.powi(2)).sum::<f32>().sqrt()
        };
        let before = of(&trainer);
        trainer.fit(None, &mut ()).unwrap();
        of(&trainer) / before
    };
    let clipped = json!({"gradient_clip_val": 1e-30, "optimizer": "adamw", "weight_decay": 0.5});
    assert!((norm(clipped) - 0.995f32.powi(20)).abs() < 1e-5);
    assert_eq!(norm(json!({"gradient_clip_val": 1e-30, "optimizer": "adamw", "weight_decay": 0.0})), 1.0);
}

#[test]
fn bf16_trains_nearly_as_well() {
    for (model, more) in [("nhits", json!({"mlp_units": [[16, 16]]})), ("nlinear", json!({})), ("gru", json!({"encoder_hidden_size": 8}))] {
        let loss = |precision: &str| {
            let mut more = more.clone();
            more.as_object_mut().unwrap().insert("precision".into(), json!(precision));
            let mut trainer = trainer(&sines(1), &options(model, more), Communicator::solo());
            trainer.fit(None, &mut ()).unwrap().train_loss.last().unwrap().1
        };
        let (full, half) = (loss("32"), loss("bf16"));
        assert!(full != half && (full - half).abs() < 0.1 * full, "{model}: {full} {half}");
        assert_eq!(loss("tf32"), full, "no effect on a CPU");
    }
}

#[test]
fn the_monitored_metric_decides() {
    let run = |monitor: &str, dir: Option<&Checkpoint>| {
        let more = json!({"learning_rate": 0.3, "max_steps": 60, "val_check_steps": 3, "monitor": monitor, "mlp_units": [[16, 16]], "loss": "mse"});
        trainer(&sines(3), &options("nhits", more), Communicator::solo()).fit(dir, &mut ()).unwrap()
    };
    let result = run("valid_loss", None);
    let lowest = |losses: &[(u64, f64)]| losses.iter().copied().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    assert_eq!(result.best, Some(lowest(&result.valid_loss)));
    assert_eq!(run("mse", None).best, result.best, "the loss is mse");
    assert!((run("rmse", None).best.unwrap().1 - result.best.unwrap().1.sqrt()).abs() < 1e-5);
    let mae = run("mae", None).best.unwrap().1;
    assert!(mae > 0.0 && mae < result.best.unwrap().1.sqrt(), "never above the root of the mse");
    let by_training = run("train_loss", None);
    let means: Vec<(u64, f64)> = by_training.train_loss.chunks(3).map(|c| (c[2].0, c.iter().map(|(_, l)| l).sum::<f64>() / 3.0)).collect();
    let (step, loss) = by_training.best.unwrap();
    assert!(step == lowest(&means).0 && (loss - lowest(&means).1).abs() < 1e-6);
}

#[test]
fn patience_needs_something_to_go_by() {
    let mut rows = crate::table::Rows::new(&["y"], &[], &[], &[]);
    (0..60).for_each(|hour| rows.push("a", hour, &[Some((hour as f32).sin())], 0));
    let build = |more| {
        let (model, train) = options("nlinear", more);
        deeprc_forecast::trainer::Trainer::new(rows.dataset(), &model, &train, Communicator::solo(), tch::Device::Cpu)
    };
    let error = build(json!({"early_stop_patience_steps": 2})).unwrap_err();
    assert_eq!(error.to_string(), "early_stop_patience_steps is 2, but no series has validation rows");
    assert!(build(json!({"early_stop_patience_steps": 2, "monitor": "train_loss"})).is_ok());
}

#[test]
fn training_continues_on_new_data() {
    let (config, dir) = (small_nhits(), tempfile::tempdir().unwrap());
    let checkpoint = Checkpoint::at(dir.path());
    let mut first = trainer(&sines(1), &config, Communicator::solo());
    first.fit(Some(&checkpoint), &mut ()).unwrap();
    let other = (config.0.clone(), TrainConfig { learning_rate: 1e-4, seed: 9, ..config.1.clone() });
    let mut second = trainer(&sines(8), &other, Communicator::solo());
    assert_ne!(weights(&second), weights(&first));
    second.init_from(&checkpoint, Weights::Last).unwrap();
    assert_eq!(weights(&second), weights(&first));
    let result = second.fit(None, &mut ()).unwrap();
    assert_eq!((result.steps, result.resumed_from), (20, None));
    let error = trainer(&sines(1), &options("nlinear", json!({})), Communicator::solo()).init_from(&checkpoint, Weights::Best).unwrap_err();
    assert!(error.to_string().contains("is of model nhits, not nlinear"), "{error}");
}
