//! Which column plays which part, and what to do about holes.

use crate::Frequency;
use serde::{Deserialize, Serialize};

/// The parts that the columns of a long table play.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Columns {
    /// Which series a row belongs to; `None`: the whole table is one series, named after its first target.
    #[serde(default)]
    pub series: Option<String>,
    /// The stamp: a timestamp without time zone, or a date.
    pub time: String,
    /// What is forecast; every target is also an input.
    pub targets: Vec<String>,
    /// Inputs known up to the cutoff only.
    #[serde(default)]
    pub hist: Vec<String>,
    /// Inputs known over the horizon as well.
    #[serde(default)]
    pub futr: Vec<String>,
    /// Inputs that are constant in time, one value per series.
    #[serde(default)]
    pub stat: Vec<String>,
    /// How much a row counts in losses, not an input; it must not be negative.
    #[serde(default)]
    pub weight: Option<String>,
    /// Integer column with 0 = training, 1 = validation, 2 = test, never decreasing in time within a series.
    #[serde(default)]
    pub split: Option<String>,
}

impl Columns {
    /// One series with `targets` over `time`; set the other fields as needed.
    pub fn new<T: Into<String>>(time: &str, targets: impl IntoIterator<Item = T>) -> Self {
        Columns {
            series: None,
            time: time.into(),
            targets: targets.into_iter().map(Into::into).collect(),
            hist: Vec::new(),
            futr: Vec::new(),
            stat: Vec::new(),
            weight: None,
            split: None,
        }
    }

    /// The temporal channels in the order of [`Dataset::values`](crate::Dataset::values): targets, then hist, then futr, then
    /// the weight.
    pub fn channels(&self) -> impl Iterator<Item = &String> {
        self.targets.iter().chain(&self.hist).chain(&self.futr).chain(&self.weight)
    }
}

/// What to do where stamps are missing between two stamps of a series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Gaps {
    /// End with an error that names the series and the stamps around the gap.
    #[default]
    Raise,
    /// Insert the missing rows with the values of the row before them.
    Fill,
    /// Insert the missing rows with zeros and mask 0.
    Mask,
}

/// What to do where a value is null or NaN.
///
/// Static columns have no mask: `Fill` and `Mask` both put the mean of the other series there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Nulls {
    /// End with an error that names series, column, stamp and row.
    #[default]
    Raise,
    /// The last value before it; at the start of a series, the first value after it.
    Fill,
    /// Zero with mask 0.
    Mask,
}

/// What to do with a series that cannot be used: duplicate or irregular stamps, gaps, nulls or infinite values that the other
/// policies do not allow, too few rows, a target that never changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BadSeries {
    /// End with an error that names the series and what is wrong with it.
    #[default]
    Raise,
    /// Leave it out and go on with the others; [`Dataset::skipped`](crate::Dataset::skipped) names it.
    Skip,
}

/// What to do with a series whose targets have the same value at all observed training stamps: there is nothing to learn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Constant {
    /// Such a series is bad: see [`BadSeries`].
    #[default]
    Raise,
    /// Train on it like on any other.
    Keep,
}

/// How a table becomes a [`Dataset`](crate::Dataset).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetOptions {
    /// The parts the columns play.
    pub columns: Columns,
    /// The step between two stamps; `None`: the most common one in the table.
    #[serde(default)]
    pub frequency: Option<Frequency>,
    /// Policy for missing stamps.
    #[serde(default)]
    pub gaps: Gaps,
    /// Policy for missing values.
    #[serde(default)]
    pub nulls: Nulls,
    /// Policy for series that cannot be used.
    #[serde(default)]
    pub on_bad_series: BadSeries,
    /// Policy for series whose targets never change.
    #[serde(default)]
    pub constant: Constant,
}

impl DatasetOptions {
    /// `columns`, inferred frequency; gaps, nulls and bad series are errors.
    pub fn new(columns: Columns) -> Self {
        let (gaps, nulls, on_bad_series, constant) = (Gaps::Raise, Nulls::Raise, BadSeries::Raise, Constant::Raise);
        DatasetOptions { columns, frequency: None, gaps, nulls, on_bad_series, constant }
    }
}
