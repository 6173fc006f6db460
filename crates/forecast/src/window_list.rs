//! The windows of a data set that a model is trained on, validated with, or asked to forecast.

use std::collections::HashSet;

use deeprc_loader::{Dataset, Observed, Padding, Part, Skipped, Window, WindowSpec};

use crate::Result;
use crate::config::{Complete, StartPadding, TrainConfig};
use crate::model::Frame;

/// Training windows: the horizon may run over the end of the part, where it does not count. Also the series that are not trained on.
///
/// # Errors
/// As [`Dataset::windows`] and [`Dataset::constant_series`].
pub fn training(dataset: &Dataset, frame: Frame, train: &TrainConfig) -> Result<(Vec<Window>, Vec<Skipped>)> {
    let (constant, why): (HashSet<u32>, Vec<Skipped>) = dataset.constant_series()?.into_iter().unzip();
    let spec = WindowSpec {
        input_size: frame.input,
        horizon: frame.train_horizon,
        step: train.step_size,
        part: Part::Train,
        lead: frame.lead,
        padding: if train.start_padding == StartPadding::None { Padding::End } else { Padding::Both },
        observed: observed(train),
    };
    let index = dataset.windows(&spec)?;
    let windows = index.windows().iter().copied().filter(|window| !constant.contains(&window.series)).collect();
    let mut skipped = [dataset.skipped(), index.skipped(), &why].concat();
    skipped.sort_by(|a, b| a.series.cmp(&b.series));
    skipped.dedup_by(|a, b| a.series == b.series);
    Ok((longest(dataset, windows, train.start_padding), skipped))
}

/// Validation windows: whole ones.
///
/// # Errors
/// As [`Dataset::windows`].
pub fn validation(dataset: &Dataset, frame: Frame, train: &TrainConfig) -> Result<Vec<Window>> {
    whole(dataset, frame, train, Part::Validation, train.step_size, observed(train))
}

/// Windows to forecast, every `step` rows: whole ones, whatever of them was observed.
///
/// # Errors
/// As [`Dataset::windows`].
pub fn forecast(dataset: &Dataset, frame: Frame, train: &TrainConfig, part: Part, step: usize) -> Result<Vec<Window>> {
    whole(dataset, frame, train, part, step, Observed::Any)
}

fn whole(dataset: &Dataset, frame: Frame, train: &TrainConfig, part: Part, step: usize, observed: Observed) -> Result<Vec<Window>> {
    let padding = if train.start_padding == StartPadding::None { Padding::None } else { Padding::Both };
    let (input_size, horizon, lead) = (frame.input, frame.horizon, frame.lead);
    let windows = dataset.windows(&WindowSpec { input_size, horizon, step, part, lead, padding, observed })?;
    let inside = |w: &&Window| {
        let end = i64::from(w.offset) + (frame.horizon_offset() + horizon) as i64;
        let series = &dataset.series()[w.series as usize];
        let rows = match part {
            Part::Train => series.train,
            Part::Validation => series.train + series.validation,
            Part::Test | Part::All => series.len,
        };
        end <= rows as i64
    };
    Ok(windows.windows().iter().filter(inside).copied().collect())
}

fn observed(train: &TrainConfig) -> Observed {
    match train.observed {
        Complete::Any => Observed::Any,
        Complete::All => Observed::All,
    }
}

/// With [`StartPadding::Longest`], series are padded in front to the length of the longest one and no further.
fn longest(dataset: &Dataset, windows: Vec<Window>, padding: StartPadding) -> Vec<Window> {
    if padding != StartPadding::Longest {
        return windows;
    }
    let rows = dataset.series().iter().map(|s| s.len).max().unwrap_or(0);
    let missing = |w: &Window| (rows - dataset.series()[w.series as usize].len) as i64;
    windows.into_iter().filter(|w| i64::from(w.offset) >= -missing(w)).collect()
}
