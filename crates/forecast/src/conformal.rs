//! Prediction intervals from past errors, without a model of their distribution (split conformal prediction, Vovk et al. 2005).
//!
//! ```text
//!   calibration windows      |error| of each step        interval of each step
//!   ....[....][hhhh]         s_1                         conformal_error          y_hat -+ quantile(s, 1/2 + level/2)
//!   .....[....][hhhh]   ->   s_2                   ->    conformal_distribution   quantiles of {y_hat - s, y_hat + s}
//! ```
//!
//! NeuralForecast trains another model for the errors; here the calibration windows lie in rows that training did not see (the
//! validation part), so that the trained model itself is calibrated.

use std::collections::HashMap;

use deeprc_loader::{Dataset, Window};

use crate::distribution::quantile;
use crate::loss::suffix;
use crate::task::{Intervals, Method};
use crate::{Error, Result};

/// Absolute errors of past forecasts of every series, and what to make of them.
#[derive(Debug)]
pub(crate) struct Conformal {
    method: Method,
    /// Bounds of the intervals, ascending.
    quantiles: Vec<f64>,
    /// By series, `[horizon * targets]`: sorted errors of each cell.
    scores: HashMap<String, Vec<Vec<f32>>>,
}

impl Conformal {
    /// The last windows of each series, `step_size` rows apart, of all `windows` of the part, which are one row apart.
    ///
    /// # Errors
    /// [`Error::Intervals`] naming a series with fewer than two.
    pub(crate) fn windows(intervals: &Intervals, windows: &[Window], dataset: &Dataset) -> Result<Vec<Window>> {
        let mut chosen = Vec::new();
        for of_series in windows.chunk_by(|a, b| a.series == b.series) {
            let last: Vec<Window> = of_series.iter().rev().step_by(intervals.step_size).take(intervals.n_windows).copied().collect();
            if last.len() < 2 {
                let series = &dataset.series()[of_series[0].series as usize].id;
                let found =
                    format!("series {series} has only one calibration window in its {} part, at least two are needed", intervals.part);
                return Err(Error::Intervals { problem: found });
            }
            chosen.extend(last.into_iter().rev());
        }
        Ok(chosen)
    }

    /// From the forecasts of the calibration `windows` and what happened, both `[windows, cells]` with `cells` for each step and
    /// target of a window; NaN where nothing was observed.
    pub(crate) fn new(
        intervals: &Intervals,
        dataset: &Dataset,
        windows: &[Window],
        forecasts: &[f32],
        actual: &[f32],
        cells: usize,
    ) -> Self {
        let mut scores: HashMap<String, Vec<Vec<f32>>> = HashMap::new();
        for ((window, forecasts), actual) in windows.iter().zip(forecasts.chunks(cells)).zip(actual.chunks(cells)) {
            let of_series = scores.entry(dataset.series()[window.series as usize].id.clone()).or_default();
            of_series.resize_with(cells, Vec::new);
            for (scores, (forecast, actual)) in of_series.iter_mut().zip(forecasts.iter().zip(actual)) {
                scores.extend(Some((forecast - actual).abs()).filter(|score| score.is_finite()));
            }
        }
        scores.values_mut().flatten().for_each(|scores| scores.sort_unstable_by(f32::total_cmp));
        let mut quantiles: Vec<f64> = intervals.level.iter().flat_map(|level| [(100.0 - level) / 200.0, (100.0 + level) / 200.0]).collect();
        quantiles.sort_by(f64::total_cmp);
        quantiles.dedup();
        Self { method: intervals.method, quantiles, scores }
    }

    /// What to append to the name of the forecast column for each bound: `-lo-90`, `-lo-80`, `-hi-80`, `-hi-90`.
    pub(crate) fn suffixes(&self) -> impl Iterator<Item = String> {
        self.quantiles.iter().map(|q| suffix(*q))
    }

    /// The bounds around the `forecast` of a cell of a window, ascending; NaN where nothing was observed to calibrate with.
    pub(crate) fn bounds(&self, series: &str, cell: usize, forecast: f32) -> Vec<f32> {
        let scores = self.scores.get(series).and_then(|cells| cells.get(cell)).map_or(&[][..], Vec::as_slice);
        if scores.is_empty() {
            return vec![f32::NAN; self.quantiles.len()];
        }
        match self.method {
            Method::ConformalDistribution => {
                let below = scores.iter().rev().map(|score| forecast - score);
                let around: Vec<f32> = below.chain(scores.iter().map(|score| forecast + score)).collect();
                self.quantiles.iter().map(|q| quantile(&around, *q)).collect()
            }
            Method::ConformalError => {
                let bound = |q: &f64| if *q < 0.5 { forecast - quantile(scores, 1.0 - q) } else { forecast + quantile(scores, *q) };
                self.quantiles.iter().map(bound).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use deeprc_loader::{Columns, DatasetOptions, Part};
    use deeprc_table::arrow::array::{ArrayRef, Float32Array, RecordBatch, StringArray, TimestampNanosecondArray};
    use std::sync::Arc;

    /// The series a and b of two rows.
    fn dataset() -> Dataset {
        let table: [(&str, ArrayRef); 3] = [
            ("unique_id", Arc::new(StringArray::from(vec!["a", "a", "b", "b"]))),
            ("ds", Arc::new(TimestampNanosecondArray::from(vec![0, 1_000_000_000, 0, 1_000_000_000]))),
            ("y", Arc::new(Float32Array::from(vec![0.0; 4]))),
        ];
        let options = DatasetOptions::new(Columns { series: Some("unique_id".into()), ..Columns::new("ds", ["y"]) });
        Dataset::from_batches(&[RecordBatch::try_from_iter(table).expect("columns of one length")], &options).expect("a whole table")
    }

    /// Bounds of 80 and 90 % for two steps from three windows.
    fn bounds(method: Method) -> Vec<f32> {
        let intervals = Intervals { level: vec![90.0, 80.0], method, n_windows: 3, step_size: 1, part: Part::Validation };
        let windows = [0, 1, 2].map(|offset| Window { series: 1, offset });
        let conformal = Conformal::new(&intervals, &dataset(), &windows, &[0.0; 6], &[1.0, 2.0, -0.5, f32::NAN, 3.0, 0.0], 2);
        assert_eq!(conformal.suffixes().collect::<Vec<_>>(), ["-lo-90", "-lo-80", "-hi-80", "-hi-90"]);
        assert!(conformal.bounds("a", 0, 1.0).iter().all(|bound| bound.is_nan()), "nothing is known of series a");
        [conformal.bounds("b", 0, 10.0), conformal.bounds("b", 1, 20.0)].concat()
    }

    fn check(method: Method, expect: [f32; 8]) {
        let ours = bounds(method);
        assert!(ours.iter().zip(expect).all(|(a, b)| (a - b).abs() < 1e-5), "{method:?}: {ours:?}, expected {expect:?}");
    }

    #[test]
    fn bounds_are_those_of_neuralforecast() {
        // Step 1: NeuralForecast 3.3 with the scores 1, 0.5, 3 and the forecast 10. Step 2: one of three values is missing, which leaves 2 and 0 for 20.
        check(Method::ConformalDistribution, [7.5, 8.0, 12.0, 12.5, 18.3, 18.6, 21.4, 21.7]);
        check(Method::ConformalError, [7.2, 7.4, 12.6, 12.8, 18.1, 18.2, 21.8, 21.9]);
    }
}
