//! Windows by index: a window is named by its series and its first row, its values stay where they are.

use crate::bad::Bad;
use crate::{Dataset, Error, Result, Skipped};
use serde::{Deserialize, Serialize};

/// Which rows of every series the horizons of the windows lie in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// Input and horizon lie in the training rows.
    Train,
    /// The horizon lies in the validation rows, the input may reach back before them.
    Validation,
    /// The horizon lies in the test rows, the input may reach back before them.
    Test,
    /// Input and horizon lie anywhere in the series.
    All,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Part::Train => "training",
            Part::Validation => "validation",
            Part::Test => "test",
            Part::All => "whole-series",
        })
    }
}

/// Whether windows may stick out of the rows of their part; what sticks out is 0 with mask 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Padding {
    /// Whole windows only.
    #[default]
    None,
    /// The horizon may run past the end by up to `horizon - 1` rows (NeuralForecast's training windows).
    End,
    /// As `End`, and the input may begin before the first row of the series by up to `input_size - 1` rows
    /// (NeuralForecast with `start_padding_enabled`).
    Both,
}

/// How many values of a window must be observed (mask 1) for it to count; matters only where something is masked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Observed {
    /// One value of any channel in the input and one target in the horizon (in test windows the horizon may be unobserved:
    /// a forecast is wanted there too).
    #[default]
    Any,
    /// Every value of every channel in the input and every target in the horizon.
    All,
}

/// Which windows are wanted.
///
/// ```text
///   rows of one series   . . . [ input_size rows ][ horizon rows ] . . .        lead 0
///                        . . . [ input_size rows  ]                             lead -1: the horizon begins
///                                          [ horizon rows ] . . .                with the last input row
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowSpec {
    /// Rows of input.
    pub input_size: usize,
    /// Rows to forecast.
    pub horizon: usize,
    /// Rows between the beginnings of two windows.
    #[serde(default = "one")]
    pub step: usize,
    /// Which rows the horizon lies in.
    pub part: Part,
    /// Rows between the end of the input and the horizon; negative: the horizon begins that many rows before the input ends
    /// (hydrology's "simulation" is -1).
    #[serde(default)]
    pub lead: i64,
    /// Whether windows may stick out.
    #[serde(default)]
    pub padding: Padding,
    /// How many values must be observed.
    #[serde(default)]
    pub observed: Observed,
}

fn one() -> usize {
    1
}

impl WindowSpec {
    /// Every whole window of `input_size` + `horizon` rows in `part`: step 1, lead 0.
    pub fn new(input_size: usize, horizon: usize, part: Part) -> Self {
        WindowSpec { input_size, horizon, step: 1, part, lead: 0, padding: Padding::None, observed: Observed::Any }
    }

    /// First row of the horizon, counted from the first row of the input.
    pub fn horizon_offset(&self) -> i64 {
        self.input_size as i64 + self.lead
    }

    /// Rows from the first row of the window to its last one.
    pub fn span(&self) -> usize {
        (self.input_size as i64).max(self.horizon_offset() + self.horizon as i64) as usize
    }

    fn check(&self) -> Result<()> {
        let why = if self.input_size == 0 {
            "input_size must be at least 1"
        } else if self.horizon == 0 {
            "horizon must be at least 1"
        } else if self.step == 0 {
            "step must be at least 1"
        } else if self.horizon_offset() < 0 {
            "lead reaches back before the input"
        } else {
            return Ok(());
        };
        Err(Error::Window { input_size: self.input_size, horizon: self.horizon, step: self.step, lead: self.lead, why })
    }
}

/// One window: its series and the row of its first input, counted from the first row of the series (negative with
/// [`Padding::Both`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    /// Number of the series in [`Dataset::series`].
    pub series: u32,
    /// First input row within the series.
    pub offset: i32,
}

/// Every window of a [`Dataset`] that a [`WindowSpec`] asks for, in order of series and time. Eight bytes per window.
#[derive(Clone, Debug)]
pub struct WindowIndex {
    spec: WindowSpec,
    windows: Vec<Window>,
    dropped: usize,
    skipped: Vec<Skipped>,
}

impl WindowIndex {
    /// What was asked for.
    pub fn spec(&self) -> &WindowSpec {
        &self.spec
    }

    /// The windows, by series, then time.
    pub fn windows(&self) -> &[Window] {
        &self.windows
    }

    /// Number of windows, never 0.
    pub fn len(&self) -> usize {
        self.windows.len()
    }

    /// Never true: an index without windows is an error.
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    /// Windows left out because too little of them was observed.
    pub fn dropped(&self) -> usize {
        self.dropped
    }

    /// Series left out because they are too short, if the data set is to do without bad series.
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// Bytes the index takes.
    pub fn memory(&self) -> usize {
        self.windows.capacity() * size_of::<Window>()
    }
}

impl Dataset {
    /// Every window that `spec` asks for.
    ///
    /// Series without any row in the part are left out (a split by series is possible); series with some rows there, but too
    /// few for a window, are an error unless bad series are to be left out.
    ///
    /// # Errors
    /// [`Error::Window`] for a spec that nothing satisfies, [`Error::TooShort`] with the first series that is too short,
    /// [`Error::EmptyPart`] without any row in the part, [`Error::NothingObserved`] if every window has too many holes.
    pub fn windows(&self, spec: &WindowSpec) -> Result<WindowIndex> {
        spec.check()?;
        let observed = (!self.fully_observed() || spec.padding != Padding::None).then(|| ObservedCounts::new(self));
        let mut windows = Vec::new();
        let mut dropped = 0;
        let mut rows_in_part = 0;
        let mut bad = Bad::new(self.on_bad_series);
        for (number, series) in self.series().iter().enumerate() {
            let rows = part_rows(series, spec.part);
            if rows.is_empty() {
                continue;
            }
            rows_in_part += rows.len();
            let (first, last) = offsets(series.len, &rows, spec);
            if first > last {
                let history = if spec.part == Part::Train { 0 } else { rows.start };
                let error = Error::TooShort {
                    series: series.id.clone(),
                    part: spec.part,
                    len: history + rows.len(),
                    needed: spec.span().max(if history > 0 { history + spec.horizon } else { 0 }),
                    input_size: spec.input_size,
                    horizon: spec.horizon,
                };
                bad.note(number as u32, error)?;
                continue;
            }
            for offset in (first..=last).step_by(spec.step) {
                if observed.as_ref().is_none_or(|counts| counts.enough(series, &rows, offset, spec)) {
                    windows.push(Window { series: number as u32, offset: offset as i32 });
                } else {
                    dropped += 1;
                }
            }
        }
        if rows_in_part == 0 {
            return Err(Error::EmptyPart { part: spec.part });
        }
        if windows.is_empty() {
            // Where all series are too short, the first one says so.
            return Err(bad.found.into_iter().next().map_or(Error::NothingObserved { part: spec.part, dropped }, |(_, error)| error));
        }
        windows.shrink_to_fit();
        let skipped = self.left_out(bad)?.into_iter().map(|(_, skipped)| skipped).collect();
        Ok(WindowIndex { spec: spec.clone(), windows, dropped, skipped })
    }
}

/// Rows of the part, counted from the first row of the series.
pub(crate) fn part_rows(series: &crate::Series, part: Part) -> std::ops::Range<usize> {
    let (train, validation) = (series.train, series.train + series.validation);
    match part {
        Part::Train => 0..train,
        Part::Validation => train..validation,
        Part::Test => validation..validation + series.test,
        Part::All => 0..series.len,
    }
}

/// First and last offset of the windows of one series (first > last: there is none). The first window of a validation or
/// test part forecasts the first row of the part that has enough history.
fn offsets(len: usize, rows: &std::ops::Range<usize>, spec: &WindowSpec) -> (i64, i64) {
    let to_horizon = spec.horizon_offset();
    let earliest = if spec.padding == Padding::Both { 1 - spec.input_size as i64 } else { 0 };
    let wanted = match spec.part {
        Part::Train | Part::All => earliest,
        Part::Validation | Part::Test => rows.start as i64 - to_horizon,
    };
    // Windows keep their stride from the first wanted one, so that a short history moves none of the later windows.
    let behind = (earliest - wanted).max(0);
    let step = spec.step as i64;
    let first = wanted + (behind + step - 1) / step * step;
    let stick_out = if spec.padding == Padding::None { 0 } else { spec.horizon as i64 - 1 };
    let by_horizon = rows.end as i64 + stick_out - spec.horizon as i64 - to_horizon;
    let input_end = if matches!(spec.part, Part::Train) { rows.end } else { len };
    let by_input = input_end as i64 - spec.input_size as i64;
    (first, by_horizon.min(by_input))
}

/// Sums of masks up to every row, so that any stretch is counted in two look-ups.
struct ObservedCounts {
    all: Vec<u64>,
    targets: Vec<u64>,
    channels: u64,
    width: u64,
}

impl ObservedCounts {
    fn new(dataset: &Dataset) -> Self {
        let (channels, width) = (dataset.channels().len(), dataset.columns().targets.len());
        let (mut all, mut targets) = (vec![0], vec![0]);
        let (mut sum_all, mut sum_targets) = (0, 0);
        for row in dataset.mask().chunks_exact(channels) {
            sum_all += row.iter().filter(|&&m| m > 0.0).count() as u64;
            sum_targets += row[..width].iter().filter(|&&m| m > 0.0).count() as u64;
            all.push(sum_all);
            targets.push(sum_targets);
        }
        ObservedCounts { all, targets, channels: channels as u64, width: width as u64 }
    }

    fn enough(&self, series: &crate::Series, rows: &std::ops::Range<usize>, offset: i64, spec: &WindowSpec) -> bool {
        let count = |sums: &[u64], from: i64, to: i64, end: usize| {
            let row = |at: i64| series.start + at.clamp(0, end as i64) as usize;
            sums[row(to)] - sums[row(from)]
        };
        let horizon = offset + spec.horizon_offset();
        let input = count(&self.all, offset, offset + spec.input_size as i64, series.len);
        let target = count(&self.targets, horizon, horizon + spec.horizon as i64, rows.end);
        match spec.observed {
            Observed::Any => input > 0 && (target > 0 || spec.part == Part::Test),
            Observed::All => input == spec.input_size as u64 * self.channels && target == spec.horizon as u64 * self.width,
        }
    }
}
