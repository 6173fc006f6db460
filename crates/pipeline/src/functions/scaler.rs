//! Parameters of scaled columns: fitted on training rows, kept in the metadata of the table that a split stage publishes, and
//! undone where scores or plots want the original units.

use super::{Error, Result, Scaling, Scope};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Under this name in the metadata of a table.
pub const METADATA_KEY: &str = "scaler";

/// The scaled columns of a table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Scaler {
    /// By column.
    pub columns: IndexMap<String, ColumnScaler>,
}

/// How one column was scaled: scaled = (value - shift) / scale.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ColumnScaler {
    /// What was fitted.
    pub kind: Scaling,
    /// (shift, scale) of all training rows, for series that have no own.
    pub global: [f64; 2],
    /// (shift, scale) by series; empty for a global scope.
    #[serde(default)]
    pub series: BTreeMap<String, [f64; 2]>,
}

impl Scaler {
    /// The scaler in a table's metadata; without one, nothing is scaled.
    ///
    /// # Errors
    /// Metadata of another form.
    pub fn of(metadata: &serde_json::Value) -> Result<Scaler> {
        match metadata.get(METADATA_KEY) {
            None | Some(serde_json::Value::Null) => Ok(Scaler::default()),
            Some(value) => Ok(Scaler::deserialize(value)?),
        }
    }

    /// (shift, scale) of a column in a series; (0, 1) where it is not scaled.
    pub fn parameters(&self, column: &str, series: &str) -> [f64; 2] {
        let Some(scaler) = self.columns.get(column) else { return [0.0, 1.0] };
        scaler.series.get(series).copied().unwrap_or(scaler.global)
    }
}

/// What is known of the training values of one column, of one series or all; merges over ranks.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Summary {
    count: f64,
    mean: f64,
    /// Sum of squared deviations from the mean.
    spread: f64,
    min: f64,
    max: f64,
}

impl Summary {
    pub(super) fn new(value: f64) -> Summary {
        Summary { count: 1.0, mean: value, spread: 0.0, min: value, max: value }
    }

    pub(super) fn merge(&mut self, other: &Summary) {
        let count = self.count + other.count;
        let deviation = other.mean - self.mean;
        self.spread += other.spread + deviation * deviation * self.count * other.count / count;
        self.mean += deviation * other.count / count;
        self.count = count;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    fn parameters(&self, kind: Scaling) -> [f64; 2] {
        let (shift, scale) = match kind {
            Scaling::Standard => (self.mean, (self.spread / self.count).sqrt()),
            Scaling::Minmax => (self.min, self.max - self.min),
            Scaling::None => (0.0, 1.0),
        };
        // A constant column becomes zeros, not NaN.
        [shift, if scale > 0.0 { scale } else { 1.0 }]
    }
}

/// Summaries by column, then series.
pub(super) type Summaries = BTreeMap<String, BTreeMap<String, Summary>>;

/// The scaler of the training values summed up in `summaries`.
pub(super) fn scaler(columns: &IndexMap<String, Scaling>, scope: Scope, summaries: &Summaries) -> Result<Scaler> {
    let mut scaler = Scaler::default();
    for (name, &kind) in columns.iter().filter(|(_, kind)| **kind != Scaling::None) {
        let of_series = summaries.get(name).filter(|series| !series.is_empty());
        let of_series = of_series.ok_or_else(|| Error::NothingToFit { column: name.clone() })?;
        let mut all = of_series.values();
        let mut global = *all.next().expect("checked above that there is one");
        all.for_each(|summary| global.merge(summary));
        let series = match scope {
            Scope::Global => BTreeMap::new(),
            Scope::Series => of_series.iter().map(|(id, summary)| (id.clone(), summary.parameters(kind))).collect(),
        };
        scaler.columns.insert(name.clone(), ColumnScaler { kind, global: global.parameters(kind), series });
    }
    Ok(scaler)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[f64]) -> Summary {
        let mut summary = Summary::new(values[0]);
        values[1..].iter().for_each(|&value| summary.merge(&Summary::new(value)));
        summary
    }

    #[test]
    fn parameters_follow_their_formulas() {
        let summary = of(&[1.0, 2.0, 3.0, 6.0]);
        assert_eq!(summary.parameters(Scaling::Standard), [3.0, 3.5f64.sqrt()]);
        assert_eq!(summary.parameters(Scaling::Minmax), [1.0, 5.0]);
        assert_eq!(of(&[4.0, 4.0]).parameters(Scaling::Standard), [4.0, 1.0]);
    }

    #[test]
    fn series_without_training_rows_take_the_global_parameters() {
        let columns = IndexMap::from([("y".to_string(), Scaling::Minmax), ("x".to_string(), Scaling::None)]);
        let of_series = BTreeMap::from([("a".to_string(), of(&[0.0, 2.0])), ("b".to_string(), of(&[4.0, 8.0]))]);
        let summaries = BTreeMap::from([("y".to_string(), of_series)]);
        let scaler = scaler(&columns, Scope::Series, &summaries).unwrap();
        assert_eq!(scaler.parameters("y", "b"), [4.0, 4.0]);
        assert_eq!(scaler.parameters("y", "elsewhere"), [0.0, 8.0]);
        assert_eq!(scaler.parameters("x", "a"), [0.0, 1.0]);
        let metadata = serde_json::json!({ "scaler": scaler });
        assert_eq!(Scaler::of(&metadata).unwrap(), scaler);
        assert_eq!(Scaler::of(&serde_json::Value::Null).unwrap(), Scaler::default());
    }
}
