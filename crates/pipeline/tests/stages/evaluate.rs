//! Scores beside baselines, against formulas written out on a table small enough to check by hand.

use crate::stage::{self, Stage, call};
use deeprc_comm::Communicator;
use deeprc_pipeline::functions::{EvaluateResult, Score};
use deeprc_table::Context;
use serde_json::{Value, json};

const SEASON: usize = 4;
const DAYS: usize = 24;
const HORIZON: usize = 4;
/// First test day.
const TEST: usize = 16;

fn observation(series: usize, day: usize) -> f64 {
    (series + 1) as f64 * [1.0, 3.0, -2.0, 0.5][day % SEASON] + day as f64 * 0.25
}

fn forecast(series: usize, day: usize) -> f64 {
    observation(series, day) + if day.is_multiple_of(2) { 0.5 } else { -0.25 }
}

fn date(day: usize) -> String {
    format!("2020-01-{:02}", day + 1)
}

/// Three series, split; and the forecasts of windows of four days that begin on every second test day.
fn tables(stage: &Stage) {
    let mut history = String::from("unique_id,ds,y\n");
    let mut forecasts = String::from("unique_id,ds,cutoff,y,y_hat\n");
    for series in 0..3 {
        (0..DAYS).for_each(|day| history.push_str(&format!("s{series},{},{}\n", date(day), observation(series, day))));
        for begin in (TEST..=DAYS - HORIZON).step_by(2) {
            for day in begin..begin + HORIZON {
                // One observation is missing.
                let y = if (series, day) == (1, 18) { String::new() } else { observation(series, day).to_string() };
                let line = format!("s{series},{},{},{y},{}\n", date(day), date(begin - 1), forecast(series, day));
                forecasts.push_str(&line);
            }
        }
    }
    stage.csv("history", &history);
    stage.csv("forecasts", &forecasts);
    let split = json!({
        "input": stage.path("history"), "output": stage.path("parts"), "time": "ds", "series": "unique_id",
        "train": 12, "validation": 4, "test": 8,
    });
    call(1, "table.split", split).unwrap();
}

fn arguments(stage: &Stage, change: Value) -> Value {
    let mut arguments = json!({
        "forecasts": [{ "model": "nhits", "table": stage.path("forecasts") }],
        "table": stage.path("parts"),
        "dataset": { "columns": { "series": "unique_id", "time": "ds", "targets": ["y"], "split": "split" } },
        "metrics": ["mse", "mae", "rmse", "smape", "mase", "nse", "nnse", "kge"],
        "baselines": ["seasonal-naive", "persistence"],
        "season": SEASON,
        "output": stage.path("scores"),
    });
    arguments.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    arguments
}

fn evaluate(stage: &Stage, ranks: usize, change: Value) -> EvaluateResult {
    serde_json::from_value(call(ranks, "table.evaluate", arguments(stage, change)).unwrap()).unwrap()
}

#[track_caller]
fn check(scores: &[Score], model: &str, series: Option<&str>, metric: &str, expect: f64) {
    let is = |score: &&Score| score.model == model && score.series.as_deref() == series && score.metric == metric;
    let value = scores.iter().find(is).unwrap().value.unwrap();
    assert!((value - expect).abs() < 1e-6, "{model} {metric}: {value} instead of {expect}");
}

/// (series, window begin, day) of every observed stamp.
fn stamps() -> Vec<(usize, usize, usize)> {
    let windows = (0..3).flat_map(|series| (TEST..=DAYS - HORIZON).step_by(2).map(move |begin| (series, begin)));
    let stamps = windows.flat_map(|(series, begin)| (begin..begin + HORIZON).map(move |day| (series, begin, day)));
    stamps.filter(|&(series, _, day)| (series, day) != (1, 18)).collect()
}

fn mean_of(errors: impl Iterator<Item = f64>) -> f64 {
    let errors: Vec<f64> = errors.collect();
    errors.iter().sum::<f64>() / errors.len() as f64
}

#[test]
fn scores_are_those_of_the_formulas_on_the_same_windows() {
    let stage = Stage::new();
    tables(&stage);
    let result = evaluate(&stage, 1, json!({ "per_series": true }));
    let scores = &result.metrics;
    let mse = mean_of(stamps().into_iter().map(|(s, _, day)| (observation(s, day) - forecast(s, day)).powi(2)));
    check(scores, "nhits", None, "mse", mse);
    check(scores, "nhits", None, "rmse", mse.sqrt());
    let seasonal = stamps().into_iter().map(|(s, _, day)| (observation(s, day) - observation(s, day - SEASON)).abs());
    check(scores, "seasonal-naive", None, "mae", mean_of(seasonal));
    let persistence = stamps().into_iter().map(|(s, begin, day)| (observation(s, day) - observation(s, begin - 1)).abs());
    check(scores, "persistence", None, "mae", mean_of(persistence));

    let of = |series: usize| {
        stamps().into_iter().filter(move |stamp| stamp.0 == series).map(|(s, _, day)| (observation(s, day), forecast(s, day)))
    };
    let nse = |series: usize| {
        let mean = mean_of(of(series).map(|(o, _)| o));
        1.0 - of(series).map(|(o, p)| (o - p).powi(2)).sum::<f64>() / of(series).map(|(o, _)| (o - mean).powi(2)).sum::<f64>()
    };
    (0..3).for_each(|series| check(scores, "nhits", Some(&format!("s{series}")), "nse", nse(series)));
    let mut sorted = [nse(0), nse(1), nse(2)];
    sorted.sort_by(f64::total_cmp);
    check(scores, "nhits", None, "nse", sorted[1]);
    check(scores, "nhits", None, "nnse", sorted.iter().map(|nse| 1.0 / (2.0 - nse)).sum::<f64>() / 3.0);
    // Days four apart differ by the trend alone: 1.
    let mae = mean_of(of(1).map(|(o, p)| (o - p).abs()));
    check(scores, "nhits", Some("s1"), "mase", mae / 1.0);
    assert_eq!(result.notes, ["nhits: 2 of 36 forecasts have no observation and are not scored"]);
    assert_eq!(result.rows, scores.len() as u64);
    assert_eq!(stage::rows(&stage.path("scores")).num_rows(), scores.len());
}

#[test]
fn the_answer_does_not_depend_on_the_number_of_ranks() {
    let stage = Stage::new();
    tables(&stage);
    let result = |ranks| evaluate(&stage, ranks, json!({ "per_series": true, "samples": 3 }));
    let one = result(1);
    assert!(one == result(2) && one == result(3) && one == result(5));
}

#[test]
fn samples_are_whole_windows_with_the_baseline() {
    let stage = Stage::new();
    tables(&stage);
    let samples = evaluate(&stage, 1, json!({ "samples": 3 })).forecasts;
    let series: Vec<&str> = samples.iter().map(|sample| sample.series.as_str()).collect();
    assert_eq!(series, ["s0", "s1", "s2"]);
    let last = &samples[0];
    let past = 8; // two horizons of observations go before the forecast
    assert_eq!(last.ds, (12..24).map(date).collect::<Vec<_>>());
    assert_eq!(last.y, (12..24).map(|day| Some(observation(0, day))).collect::<Vec<_>>());
    assert!(last.yhat[..past].iter().chain(&last.baseline[..past]).all(Option::is_none) && last.yhat[past..].iter().all(Option::is_some));
    assert_eq!(last.baseline[past..], [16, 17, 18, 19].map(|day| Some(observation(0, day))));
    assert_eq!(evaluate(&stage, 1, json!({ "samples": 6 })).forecasts.len(), 6);
    assert_eq!(evaluate(&stage, 1, json!({ "samples": 1, "baselines": [] })).forecasts[0].baseline, []);
}

#[test]
fn scores_can_be_in_original_units() {
    let stage = Stage::new();
    tables(&stage);
    let split = json!({
        "input": stage.path("history"), "output": stage.path("scaled"), "time": "ds", "series": "unique_id",
        "train": 12, "validation": 4, "test": 8, "scale": { "y": "standard" },
    });
    call(1, "table.split", split).unwrap();
    // Forecasts in the units of the scaled table, as a predict stage writes them.
    let context = Context::new(Communicator::solo(), 1).unwrap();
    let scaled = context.open(&stage.path("scaled")).unwrap();
    let forecasts = context.open(&stage.path("forecasts")).unwrap();
    let query = "select f.unique_id, f.ds, f.cutoff, case when f.y is null then null else s.y end as y, s.y as y_hat \
                 from f join s on f.unique_id = s.unique_id and f.ds = s.ds";
    let table = context.sql(query, &[("f", &forecasts), ("s", &scaled)]).unwrap();
    table.publish(&stage.path("perfect"), Value::Null).unwrap();
    let model = json!([{ "model": "perfect", "table": stage.path("perfect") }]);
    let change = json!({ "forecasts": model, "table": stage.path("scaled"), "units": "original", "metrics": ["mae"] });
    let scores = evaluate(&stage, 2, change).metrics;
    check(&scores, "perfect", None, "mae", 0.0);
    let seasonal = stamps().into_iter().map(|(s, _, day)| (observation(s, day) - observation(s, day - SEASON)).abs());
    check(&scores, "seasonal-naive", None, "mae", mean_of(seasonal));
}

#[test]
fn models_with_other_windows_have_their_own_baselines() {
    let stage = Stage::new();
    tables(&stage);
    let filter = json!({ "input": stage.path("forecasts"), "filter": "cutoff > '2020-01-18'", "output": stage.path("later") });
    call(1, "table.derive", filter).unwrap();
    let table = |model: &str, name: &str| json!({ "model": model, "table": stage.path(name) });
    let models = json!([table("a", "forecasts"), table("b", "forecasts"), table("c", "later")]);
    let result = evaluate(&stage, 2, json!({ "forecasts": models, "baselines": ["persistence"], "metrics": ["mse"] }));
    let mut names: Vec<&str> = result.metrics.iter().map(|score| score.model.as_str()).collect();
    names.dedup();
    assert_eq!(names, ["a", "b", "c", "persistence (windows of a)", "persistence (windows of c)"]);
    assert!(result.notes.last().unwrap().starts_with("the models forecast different windows"));
}

#[test]
fn what_is_missing_is_named() {
    let stage = Stage::new();
    tables(&stage);
    let message = |change| call(1, "table.evaluate", arguments(&stage, change)).unwrap_err().to_string();
    let model = json!([{ "model": "x", "table": stage.path("history") }]);
    assert!(message(json!({ "forecasts": model })).starts_with("no column `cutoff` in the forecasts "));
    assert_eq!(message(json!({ "forecasts": [] })), "forecasts: there are no forecasts to score");
    assert!(message(json!({ "metrics": ["mes"] })).contains("unknown variant `mes`, expected one of `mse`"));
}
