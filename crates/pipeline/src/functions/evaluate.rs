//! `table.evaluate`: scores of forecasts, beside baselines on the same windows.

use super::forecasts::{Forecasts, Stamp};
use super::history::History;
use super::scaler::Scaler;
use super::score::{Scored, scores};
use super::stage::publish;
use super::{Error, EvaluateArguments, EvaluateResult, ForecastTable, Result, Sample, Score, Units};
use crate::metric::Moments;
use bytes::Bytes;
use deeprc_loader::format_stamp;
use deeprc_table::arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray};
use deeprc_table::arrow::datatypes::{DataType, Field, Schema};
use deeprc_table::{Context, GlobalTable};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

/// One-step forecasts in one plot.
const ONE_STEP_SAMPLE: usize = 365;

pub(super) fn run(context: &Context, arguments: &EvaluateArguments) -> Result<EvaluateResult> {
    if arguments.forecasts.is_empty() || arguments.season == 0 {
        let (setting, message) = match arguments.season {
            0 => ("season", "a season has at least one row"),
            _ => ("forecasts", "there are no forecasts to score"),
        };
        return Err(Error::Setting { setting, message: message.into(), hint: None });
    }
    let table = GlobalTable::map(&arguments.table)?;
    let units = match arguments.units {
        Units::Table => None,
        Units::Original => Some(Scaler::of(table.metadata())?),
    };
    let history = History::new(table.batches(), &arguments.dataset, units)?;
    let comm = context.comm();
    let shares = arguments
        .forecasts
        .iter()
        .map(|model| score_share(model, &history, arguments, comm.rank(), comm.size()))
        .collect::<Result<Vec<Share>>>()?;
    let gathered = comm.gather(0, Bytes::from(serde_json::to_vec(&shares)?))?;
    let mut result = EvaluateResult { rows: 0, metrics: Vec::new(), forecasts: Vec::new(), notes: Vec::new() };
    if let Some(parts) = gathered {
        let mut models: Vec<Share> = arguments.forecasts.iter().map(|_| Share::default()).collect();
        for part in parts {
            let shares: Vec<Share> = serde_json::from_slice(&part)?;
            models.iter_mut().zip(shares).for_each(|(model, share)| model.merge(share));
        }
        summarise(&mut result, models, arguments);
    }
    let table = context.from_batches(score_schema().into(), vec![score_batch(&result.metrics)?])?;
    result.rows = publish(&table, &arguments.output, Value::Null, Vec::new())?.rows;
    Ok(result)
}

/// What one rank finds out about one model.
#[derive(Default, Serialize, Deserialize)]
struct Share {
    /// Sum of hashes of all stamps of all windows: the same for models that forecast the same windows.
    windows: u64,
    stamps: u64,
    unobserved: u64,
    scored: Vec<Scored>,
    samples: Vec<Sample>,
}

impl Share {
    fn merge(&mut self, other: Share) {
        self.windows = self.windows.wrapping_add(other.windows);
        self.stamps += other.stamps;
        self.unobserved += other.unobserved;
        self.scored.extend(other.scored);
        self.samples.extend(other.samples);
    }
}

/// Scores the series that fall to this rank: every series is scored by one rank, in the same order for any number of ranks.
fn score_share(model: &ForecastTable, history: &History, arguments: &EvaluateArguments, rank: usize, size: usize) -> Result<Share> {
    let columns = &arguments.dataset.columns;
    let mine = |place: usize, series: usize| place * size / series == rank;
    let forecasts = Forecasts::read(&model.table, columns, mine)?;
    let mut share = Share::default();
    let windows = forecasts.windows();
    for of_series in windows.chunk_by(|a, b| forecasts.stamps[a.start].series == forecasts.stamps[b.start].series) {
        let place = forecasts.stamps[of_series[0].start].series;
        let id = &forecasts.series[place];
        let series = history.series(id).ok_or_else(|| Error::Setting {
            setting: "table",
            message: format!("series `{id}` of the forecasts is not in the table of the models"),
            hint: None,
        })?;
        let predicted = |target: usize, stamps: &[Stamp]| predict(history, arguments, id, series, target, stamps);
        for target in 0..columns.targets.len() {
            let mut moments = vec![Moments::default(); 1 + arguments.baselines.len()];
            for window in of_series {
                let stamps = &forecasts.stamps[window.clone()];
                let baselines = predicted(target, stamps);
                for (at, stamp) in stamps.iter().enumerate() {
                    if target == 0 {
                        share.windows = share.windows.wrapping_add(hash(id, stamp));
                    }
                    share.stamps += 1;
                    let (observed, forecast) = forecasts.cell(stamp, target);
                    if observed.is_nan() {
                        share.unobserved += 1;
                        continue;
                    }
                    let observed = history.unscale(id, target, observed);
                    if !forecast.is_nan() {
                        moments[0].add(observed, history.unscale(id, target, forecast));
                    }
                    for (moments, baseline) in moments[1..].iter_mut().zip(&baselines) {
                        if let Some(value) = baseline[at] {
                            moments.add(observed, value);
                        }
                    }
                }
            }
            let scale = history.seasonal_difference(series, target, arguments.season);
            share.scored.push(Scored::new(id, target, scale, &moments));
            for stamps in sample_windows(&forecasts, of_series, place, arguments.samples) {
                let mut baseline = Vec::new();
                for window in stamps.chunk_by(|a, b| a.cutoff == b.cutoff) {
                    baseline.extend(predicted(target, window).into_iter().next().unwrap_or_default());
                }
                let value = |value: f64| (!value.is_nan()).then(|| history.unscale(id, target, value));
                // What went before is drawn with observations only, so that an eye can judge the forecast.
                let past = history.before(series, stamps[0].ds, context(&stamps), target);
                let blank = || past.iter().map(|_| None);
                let times = past.iter().map(|&(time, _)| time).chain(stamps.iter().map(|stamp| stamp.ds));
                share.samples.push(Sample {
                    model: model.model.clone(),
                    series: id.clone(),
                    target: columns.targets[target].clone(),
                    ds: times.map(|time| format_stamp(time).replace(' ', "T")).collect(),
                    y: past.iter().map(|&(_, y)| y).chain(stamps.iter().map(|stamp| value(forecasts.cell(stamp, target).0))).collect(),
                    yhat: blank().chain(stamps.iter().map(|stamp| value(forecasts.cell(stamp, target).1))).collect(),
                    baseline: if baseline.is_empty() { baseline } else { blank().chain(baseline).collect() },
                });
            }
        }
    }
    Ok(share)
}

/// `[baseline][stamp]`: what the baselines say about one window, knowing no more than the model knew, and nothing of the
/// horizon even where the model's input overlaps it.
fn predict(
    history: &History,
    arguments: &EvaluateArguments,
    id: &str,
    series: &deeprc_loader::Series,
    target: usize,
    stamps: &[Stamp],
) -> Vec<Vec<Option<f64>>> {
    debug_assert_eq!(series.id, id);
    let first = &stamps[0];
    let origin = history.row(series, first.cutoff).zip(history.row(series, first.ds)).map(|(seen, begin)| seen.min(begin - 1));
    let of_baseline = |&which| {
        let value = |stamp: &Stamp| {
            let row = history.row(series, stamp.ds)?;
            history.baseline(which, arguments.season, series, target, origin?, row)
        };
        stamps.iter().map(value).collect()
    };
    arguments.baselines.iter().map(of_baseline).collect()
}

fn hash(id: &str, stamp: &Stamp) -> u64 {
    let mut hasher = DefaultHasher::new();
    (id, stamp.cutoff, stamp.ds).hash(&mut hasher);
    hasher.finish()
}

/// The stamps of the windows to plot: of `wanted` series in all, or of several windows where there are fewer series.
/// One-step forecasts become one line of many windows.
fn sample_windows(forecasts: &Forecasts, windows: &[Range<usize>], place: usize, wanted: usize) -> Vec<Vec<Stamp>> {
    let series = forecasts.series.len();
    // Series are taken evenly: this one if a multiple of the stride falls on it.
    let chosen = wanted * (place + 1) / series - wanted * place / series;
    if chosen == 0 {
        return Vec::new();
    }
    let stamps = |range: &Range<usize>| forecasts.stamps[range.clone()].to_vec();
    if windows.iter().all(|window| window.len() == 1) {
        let first = windows.len().saturating_sub(ONE_STEP_SAMPLE);
        return vec![windows[first..].iter().flat_map(stamps).collect()];
    }
    let chosen = chosen.min(windows.len());
    (1..=chosen).map(|at| stamps(&windows[(windows.len() * at / chosen) - 1])).collect()
}

/// How many rows before a sample are drawn with it: two horizons of a window, none of a row of one-step forecasts.
fn context(stamps: &[Stamp]) -> usize {
    if stamps.iter().all(|stamp| stamp.cutoff == stamps[0].cutoff) && stamps.len() > 1 { 2 * stamps.len() } else { 0 }
}

/// Scores of all models, then of the baselines; each set of windows has its own baselines.
fn summarise(result: &mut EvaluateResult, models: Vec<Share>, arguments: &EvaluateArguments) {
    let mut seen: Vec<u64> = Vec::new();
    let sets = models.iter().map(|model| model.windows).collect::<std::collections::BTreeSet<_>>().len();
    let mut of_baselines = Vec::new();
    for (model, mut share) in arguments.forecasts.iter().zip(models) {
        share.scored.sort_by(|a, b| (&a.series, a.target).cmp(&(&b.series, b.target)));
        result.metrics.extend(scores(&model.model, 0, &share.scored, arguments));
        if !seen.contains(&share.windows) {
            seen.push(share.windows);
            for (at, baseline) in arguments.baselines.iter().enumerate() {
                let name = match sets {
                    1 => baseline.name().to_string(),
                    _ => format!("{} (windows of {})", baseline.name(), model.model),
                };
                of_baselines.extend(scores(&name, at + 1, &share.scored, arguments));
            }
        }
        if share.unobserved > 0 {
            let Share { unobserved, stamps, .. } = share;
            result.notes.push(format!("{}: {unobserved} of {stamps} forecasts have no observation and are not scored", model.model));
        }
        result.forecasts.extend(share.samples);
    }
    result.metrics.extend(of_baselines);
    if sets > 1 {
        result.notes.push("the models forecast different windows: compare each with the baseline on its own windows".into());
    }
}

fn score_schema() -> Schema {
    let text = |name, null| Field::new(name, DataType::Utf8, null);
    let value = Field::new("value", DataType::Float64, true);
    Schema::new(vec![text("model", false), text("series", true), text("target", true), text("metric", false), value])
}

fn score_batch(scores: &[Score]) -> Result<RecordBatch> {
    let text = |of: fn(&Score) -> Option<&str>| Arc::new(scores.iter().map(of).collect::<StringArray>()) as ArrayRef;
    let columns = vec![
        text(|score| Some(&score.model)),
        text(|score| score.series.as_deref()),
        text(|score| score.target.as_deref()),
        text(|score| Some(&score.metric)),
        Arc::new(scores.iter().map(|score| score.value).collect::<Float64Array>()),
    ];
    Ok(RecordBatch::try_new(score_schema().into(), columns)?)
}
