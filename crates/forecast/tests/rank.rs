//! The rank executable in a real session: several ranks train, forecast and cross-validate over global tables.
//!
//! This program is its own agent (`--as-agent`), so it brings its own `main`.

#![expect(clippy::unwrap_used, reason = "a panic is the message of a test")]

#[expect(dead_code, reason = "this program needs a part of it")]
#[path = "torch/table.rs"]
mod table;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use deeprc_forecast::config::configure;
use deeprc_forecast::task::{
    Ahead, CROSS_VALIDATION, CrossValidationResult, CrossValidationTask, Intervals, PREDICT, PredictResult, PredictTask, Progress, Rolling,
    TRAIN, TrainResult, TrainTask, Weights,
};
use deeprc_loader::Part;
use deeprc_pilot::{Cause, Event, Outcome, Pool, RankGroup, Resources, Session, SessionOptions, TaskDescription, TaskReport};
use deeprc_table::{Context, GlobalTable};
use serde_json::{Value, json};
use table::Rows;

const PATIENCE: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some("--as-agent") {
        return deeprc_pilot::agent::main(arguments);
    }
    let dir = tempfile::tempdir().unwrap();
    let bed = Bed::start(dir.path());
    bed.ranks_train_and_forecast();
    bed.cross_validation_trains_and_forecasts();
    bed.forecasts_reach_beyond_the_table();
    bed.errors_name_their_reason();
    bed.session.close().unwrap();
    println!("rank: 4 scenarios passed");
    ExitCode::SUCCESS
}

struct Bed<'a> {
    dir: &'a Path,
    session: Session,
    rows: Rows,
}

impl<'a> Bed<'a> {
    /// A session with two warm ranks, and a table of one slow and one fast sine, 120 hours each.
    fn start(dir: &'a Path) -> Self {
        let mut rows = Rows::new(&["y"], &[], &[], &[]);
        for (id, pace) in [("slow", 0.1f32), ("fast", 0.4)] {
            for hour in 0..120 {
                let split = i8::from(hour >= 80) + i8::from(hour >= 100);
                rows.push(id, hour, &[Some((hour as f32 * pace).sin())], split);
            }
        }
        let table = Context::local(1).unwrap().from_batches(rows.batch().schema(), vec![rows.batch()]).unwrap();
        table.publish(&dir.join("parts"), json!({"scale": {"y": "none"}})).unwrap();
        let agent = [std::env::current_exe().unwrap().display().to_string(), "--as-agent".to_owned()];
        let mut options = SessionOptions::new(dir.join("session"), agent);
        options.pools = vec![Pool::new("forecast", [env!("CARGO_BIN_EXE_deeprc-forecast"), "rank"]).warm(2)];
        options.resources = Some(Resources { cores: 2, gpus: 0, memory: 4000 });
        Self { dir, session: Session::start(options).unwrap(), rows }
    }

    fn run(&self, function: &str, ranks: u32, arguments: Value) -> TaskReport {
        let mut task = TaskDescription::function(function, "forecast", function, arguments);
        task.dir = self.dir.to_owned();
        task.groups = vec![RankGroup { count: ranks, cores: 1, gpus: 0, memory: 100 }];
        let id = self.session.submit(task).unwrap();
        self.session.wait(id, PATIENCE).unwrap()
    }

    fn training(&self, name: &str) -> TrainTask {
        let options =
            json!({"h": 5, "input_size": 10, "max_steps": 60, "windows_batch_size": 32, "val_check_steps": 20, "learning_rate": 1e-2});
        let (model, train) = configure("nlinear", options.as_object().unwrap()).unwrap();
        let (table, checkpoint) = (self.dir.join("parts"), self.dir.join(name));
        TrainTask { table, dataset: self.rows.options(), model, train, checkpoint, resume: false, init_from: None }
    }

    fn ranks_train_and_forecast(&self) {
        let events = self.session.events();
        let report = self.run(TRAIN, 2, serde_json::to_value(self.training("model")).unwrap());
        assert!(matches!(report.outcome, Outcome::Done), "{:?}", report.outcome);
        let result: TrainResult = serde_json::from_value(report.results[0].clone()).unwrap();
        assert_eq!((result.steps, result.train_loss.len(), result.valid_loss.len()), (60, 60, 3));
        assert!(result.train_loss[59].1 < 0.5 * result.train_loss[0].1, "{:?}", result.train_loss);
        let progress = events.try_iter().filter_map(|stamped| match stamped.event {
            Event::Progress { value, .. } => serde_json::from_value::<Progress>(value).ok(),
            _ => None,
        });
        assert!(progress.last().is_some_and(|last| matches!(last, Progress::Step { step: 60, max_steps: 60, .. })));

        let task = PredictTask {
            table: self.dir.join("parts"),
            dataset: self.rows.options(),
            checkpoint: self.dir.join("model"),
            weights: Weights::Best,
            part: Part::Test,
            step: 5,
            ahead: None,
            intervals: None,
            output: self.dir.join("forecasts"),
        };
        let report = self.run(PREDICT, 2, serde_json::to_value(task).unwrap());
        let result: PredictResult = serde_json::from_value(report.results[0].clone()).unwrap();
        assert_eq!((result.windows, result.rows, result.columns), (8, 40, vec!["y_hat".to_owned()]));
        let written = GlobalTable::map(&self.dir.join("forecasts")).unwrap();
        assert_eq!((written.num_rows(), &written.metadata()["scale"]["y"]), (40, &json!("none")));
        let errors: Vec<f32> = written
            .batches()
            .iter()
            .flat_map(|batch| {
                let pairs = table::floats(batch, "y").into_iter().zip(table::floats(batch, "y_hat"));
                pairs.map(|(y, y_hat)| (y - y_hat).abs()).collect::<Vec<_>>()
            })
            .collect();
        assert!(errors.iter().sum::<f32>() / 40.0 < 0.3, "{errors:?}");
    }

    fn cross_validation_trains_and_forecasts(&self) {
        let output = self.dir.join("rolling");
        let task = CrossValidationTask {
            train: self.training("rolled"),
            weights: Weights::Last,
            part: Part::Test,
            step: 1,
            rolling: None,
            intervals: Some(Intervals::new(&[80.0])),
            output,
        };
        let report = self.run(CROSS_VALIDATION, 2, serde_json::to_value(task).unwrap());
        let result: CrossValidationResult = serde_json::from_value(report.results[0].clone()).unwrap();
        assert_eq!((result.train.steps, result.predict.windows, result.predict.rows), (60, 32, 160));
        assert_eq!(result.predict.columns, ["y_hat", "y_hat-lo-80", "y_hat-hi-80"]);

        let rolling = Some(Rolling { n_windows: 3, val_size: 5, refit: 2, ..Rolling::default() });
        let output = self.dir.join("refitted");
        let train = self.training("refitted-model");
        let task = CrossValidationTask { train, weights: Weights::Last, part: Part::Test, step: 2, rolling, intervals: None, output };
        let report = self.run(CROSS_VALIDATION, 2, serde_json::to_value(task).unwrap());
        assert!(matches!(report.outcome, Outcome::Done), "{:?}", report.outcome);
        let result: CrossValidationResult = serde_json::from_value(report.results[0].clone()).unwrap();
        assert_eq!((result.predict.windows, result.predict.rows), (6, 30), "three windows of two series");
    }

    fn forecasts_reach_beyond_the_table(&self) {
        let task = PredictTask {
            table: self.dir.join("parts"),
            dataset: self.rows.options(),
            checkpoint: self.dir.join("model"),
            weights: Weights::Best,
            part: Part::Test,
            step: 1,
            ahead: Some(Ahead { h: Some(12), future: None }),
            intervals: Some(Intervals::new(&[80.0])),
            output: self.dir.join("ahead"),
        };
        let report = self.run(PREDICT, 2, serde_json::to_value(task).unwrap());
        assert!(matches!(report.outcome, Outcome::Done), "{:?}", report.outcome);
        let result: PredictResult = serde_json::from_value(report.results[0].clone()).unwrap();
        assert_eq!((result.windows, result.rows, result.columns.len()), (2, 24, 3));
        let written = GlobalTable::map(&self.dir.join("ahead")).unwrap();
        let hours: Vec<i64> = written.batches().iter().flat_map(|batch| table::hours(batch, "ds")).collect();
        assert_eq!(hours, (120..132).chain(120..132).collect::<Vec<_>>());
    }

    fn errors_name_their_reason(&self) {
        let check = |task: Value, message: &str, hint: &str| {
            let report = self.run(TRAIN, 2, task);
            let Outcome::Failed(failure) = report.outcome else { panic!("{:?}", report.outcome) };
            let Cause::Error { message: found, detail } = failure.cause else { panic!("{:?}", failure.cause) };
            assert!(found.contains(message) && detail["hint"].as_str().unwrap_or("").contains(hint), "{found} {detail}");
        };
        let mut short = self.training("short");
        short.train.max_steps = 0;
        (short.model, _) = configure("nlinear", json!({"h": 5, "input_size": 200}).as_object().unwrap()).unwrap();
        check(serde_json::to_value(&short).unwrap(), "series", "smaller input_size");
        let mut diverging = self.training("diverging");
        diverging.train.learning_rate = 1e38;
        check(serde_json::to_value(&diverging).unwrap(), "the training loss is", "learning_rate");
        check(json!({"model": 3}), "cannot read the arguments", "");
    }
}
