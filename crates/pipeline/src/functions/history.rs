//! What was known before a forecast: the baselines' source, and the scale of MASE.

use super::{Baseline, Result, Scaler};
use deeprc_loader::{Columns, Dataset, DatasetOptions, Series};
use deeprc_table::arrow::array::RecordBatch;
use std::collections::HashMap;

/// The targets of the table that models were trained on, by series and stamp.
pub(super) struct History {
    dataset: Dataset,
    by_id: HashMap<String, usize>,
    /// (shift, scale) that take a value back to the units of the scores; (0, 1) for those of the table.
    units: Option<Scaler>,
}

impl History {
    pub(super) fn new(batches: &[RecordBatch], options: &DatasetOptions, units: Option<Scaler>) -> Result<History> {
        let columns = Columns { hist: Vec::new(), futr: Vec::new(), stat: Vec::new(), weight: None, ..options.columns.clone() };
        let dataset = Dataset::from_batches(batches, &DatasetOptions { columns, ..options.clone() })?;
        let by_id = dataset.series().iter().enumerate().map(|(at, series)| (series.id.clone(), at)).collect();
        Ok(History { dataset, by_id, units })
    }

    pub(super) fn series(&self, id: &str) -> Option<&Series> {
        self.by_id.get(id).map(|&at| &self.dataset.series()[at])
    }

    /// Row of a stamp, counted from the first row of the series, on the series' grid continued both ways.
    pub(super) fn row(&self, series: &Series, stamp: i64) -> Option<i64> {
        self.dataset.frequency().steps(self.dataset.times()[series.start], stamp)
    }

    /// A value in the units of the scores.
    pub(super) fn unscale(&self, id: &str, target: usize, value: f64) -> f64 {
        let Some(scaler) = &self.units else { return value };
        let [shift, scale] = scaler.parameters(&self.dataset.channels()[target], id);
        value * scale + shift
    }

    /// The observation in a row of the series, in the units of the scores.
    fn observation(&self, series: &Series, row: i64, target: usize) -> Option<f64> {
        let row = usize::try_from(row).ok().filter(|&row| row < series.len)?;
        let at = (series.start + row) * self.dataset.channels().len() + target;
        let observed = self.dataset.mask()[at] > 0.0;
        observed.then(|| self.unscale(&series.id, target, f64::from(self.dataset.values()[at])))
    }

    /// (stamp in ns, observation) of up to `count` rows before `stamp`, in order, in the units of the scores.
    pub(super) fn before(&self, series: &Series, stamp: i64, count: usize, target: usize) -> Vec<(i64, Option<f64>)> {
        let end = self.row(series, stamp).unwrap_or(0).clamp(0, series.len as i64);
        let rows = (end - count as i64).max(0)..end;
        rows.map(|row| (self.dataset.times()[series.start + row as usize], self.observation(series, row, target))).collect()
    }

    /// The baseline's forecast of `row` when rows up to `origin` are known. Unobserved values are passed over: persistence goes
    /// on to the value before, seasonal-naive to the season before.
    pub(super) fn baseline(&self, which: Baseline, season: usize, series: &Series, target: usize, origin: i64, row: i64) -> Option<f64> {
        let (first, step) = match which {
            Baseline::Persistence => (origin, 1),
            Baseline::SeasonalNaive => {
                let season = season as i64;
                let seasons = (row - origin + season - 1).div_euclid(season).max(1);
                (row - season * seasons, season)
            }
        };
        (0..=first).rev().step_by(step as usize).find_map(|row| self.observation(series, row, target))
    }

    /// Mean absolute difference of training observations one season apart; `None` where there are none.
    pub(super) fn seasonal_difference(&self, series: &Series, target: usize, season: usize) -> Option<f64> {
        let differences = (season..series.train).filter_map(|row| {
            let now = self.observation(series, row as i64, target)?;
            let before = self.observation(series, (row - season) as i64, target)?;
            Some((now - before).abs())
        });
        let (sum, count) = differences.fold((0.0, 0u64), |(sum, count), difference| (sum + difference, count + 1));
        (count > 0).then(|| sum / count as f64)
    }
}

impl Baseline {
    /// Its name among the models of the scores.
    pub fn name(self) -> &'static str {
        match self {
            Baseline::SeasonalNaive => "seasonal-naive",
            Baseline::Persistence => "persistence",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use deeprc_table::arrow::array::{ArrayRef, Date32Array, Float64Array, Int8Array};
    use std::sync::Arc;

    /// 0, 1, 2, …, 9 with row 7 unobserved; six training rows.
    fn history() -> History {
        let days: ArrayRef = Arc::new(Date32Array::from_iter_values(0..10));
        let y: ArrayRef = Arc::new((0..10).map(|row| (row != 7).then_some(f64::from(row))).collect::<Float64Array>());
        let split: ArrayRef = Arc::new(Int8Array::from_iter_values((0..10).map(|row| if row < 6 { 0 } else { 2 })));
        let batch = RecordBatch::try_from_iter([("ds", days), ("y", y), ("split", split)]).unwrap();
        let columns = Columns { split: Some("split".into()), ..Columns::new("ds", ["y"]) };
        let options = DatasetOptions { nulls: deeprc_loader::Nulls::Mask, ..DatasetOptions::new(columns) };
        History::new(&[batch], &options, None).unwrap()
    }

    #[track_caller]
    fn check(which: Baseline, season: usize, origin: i64, row: i64, expect: Option<f64>) {
        let history = history();
        let series = history.series("y").unwrap();
        assert_eq!(history.baseline(which, season, series, 0, origin, row), expect);
    }

    #[test]
    fn persistence_is_the_last_observation() {
        check(Baseline::Persistence, 1, 5, 6, Some(5.0));
        check(Baseline::Persistence, 1, 5, 9, Some(5.0));
        check(Baseline::Persistence, 1, 7, 8, Some(6.0));
    }

    #[test]
    fn seasonal_naive_never_looks_past_the_origin() {
        check(Baseline::SeasonalNaive, 3, 5, 6, Some(3.0));
        check(Baseline::SeasonalNaive, 3, 5, 8, Some(5.0));
        check(Baseline::SeasonalNaive, 3, 5, 9, Some(3.0));
        check(Baseline::SeasonalNaive, 2, 8, 9, Some(5.0)); // row 7 is unobserved: the season before
        check(Baseline::SeasonalNaive, 7, 5, 6, None);
        check(Baseline::SeasonalNaive, 1, 5, 8, Some(5.0));
    }

    #[test]
    fn seasonal_difference_takes_training_rows_only() {
        let history = history();
        let series = history.series("y").unwrap();
        assert_eq!(history.seasonal_difference(series, 0, 2), Some(2.0));
        assert_eq!(history.seasonal_difference(series, 0, 6), None);
    }
}
