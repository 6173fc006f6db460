//! The ordered table that windows are cut from.

use std::sync::Arc;

use crate::bad::Bad;
use crate::{BadSeries, Columns, Constant, DatasetOptions, Error, Frequency, Result, Skipped, format_stamp};
use deeprc_table::arrow::array::RecordBatch;

/// One series of a [`Dataset`]: where its rows lie and how they are split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    /// The id in the table's series column.
    pub id: String,
    /// Its first row in [`Dataset::values`].
    pub start: usize,
    /// Its rows.
    pub len: usize,
    /// Training rows: the first ones. All rows, without a split column.
    pub train: usize,
    /// Validation rows: after the training rows.
    pub validation: usize,
    /// Test rows: the last ones.
    pub test: usize,
}

/// A long table in the order and the form that models want: sorted by (series, time), one row per stamp of a regular grid,
/// numbers as `f32`, every hole filled or masked. A clone shares the numbers.
///
/// ```text
///            channels ->  target | hist | futr
///   series a  t0            .       .      .      <- Series { id: "a", start: 0, .. }
///             t1            .       .      .
///   series b  t0            .       .      .      <- Series { id: "b", start: 2, .. }
/// ```
#[derive(Clone, Debug)]
pub struct Dataset {
    pub(crate) columns: Columns,
    pub(crate) frequency: Frequency,
    pub(crate) series: Vec<Series>,
    pub(crate) channels: Vec<String>,
    pub(crate) values: Arc<Vec<f32>>,
    pub(crate) mask: Arc<Vec<f32>>,
    pub(crate) stat: Arc<Vec<f32>>,
    pub(crate) times: Arc<Vec<i64>>,
    pub(crate) fully_observed: bool,
    pub(crate) on_bad_series: BadSeries,
    pub(crate) constant: Constant,
    pub(crate) skipped: Vec<Skipped>,
}

impl Dataset {
    /// Puts the rows of `batches` in order. The batches are only read: mapped tables stay mapped.
    ///
    /// # Errors
    /// Missing or unfit columns, null keys, duplicate stamps, and whatever the policies of `options` do not allow: gaps,
    /// nulls. Stamps off the grid are always an error. Every error names series, stamp, row and column, and
    /// [`Error::hint`](crate::Error::hint) says what to do.
    pub fn from_batches(batches: &[RecordBatch], options: &DatasetOptions) -> Result<Dataset> {
        crate::assembly::assemble(batches, options)
    }

    /// The same rows with other `values`, laid out as [`values`](Self::values).
    ///
    /// # Panics
    /// If there are not as many.
    #[must_use]
    pub fn with_values(&self, values: Vec<f32>) -> Dataset {
        assert_eq!(values.len(), self.values.len(), "one value for each cell");
        Dataset { values: Arc::new(values), ..self.clone() }
    }

    /// The columns and their parts.
    pub fn columns(&self) -> &Columns {
        &self.columns
    }

    /// Step between two stamps, as given or as inferred.
    pub fn frequency(&self) -> Frequency {
        self.frequency
    }

    /// The series, sorted by id.
    pub fn series(&self) -> &[Series] {
        &self.series
    }

    /// Names of the temporal channels: targets, then hist, then futr, then the weight of a row, if there is one.
    pub fn channels(&self) -> &[String] {
        &self.channels
    }

    /// Rows of all series together.
    pub fn rows(&self) -> usize {
        self.times.len()
    }

    /// `[rows, channels]`, all series end to end, row-major; masked cells are 0.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// `[rows, channels]`, 1 where the value was observed, 0 where a `Mask` policy put a zero; all ones otherwise.
    pub fn mask(&self) -> &[f32] {
        &self.mask
    }

    /// Whether the mask is 1 everywhere.
    pub fn fully_observed(&self) -> bool {
        self.fully_observed
    }

    /// `[series, stat]`.
    pub fn stat(&self) -> &[f32] {
        &self.stat
    }

    /// `[rows]`: stamps in nanoseconds since 1970-01-01, civil time.
    pub fn times(&self) -> &[i64] {
        &self.times
    }

    /// Series of the table that were left out because [`DatasetOptions::on_bad_series`] says so, sorted by id.
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// The same rows with other parts: in each series the last `test` rows are test rows, the `validation` rows before them
    /// validation rows, the others training rows. No number is copied.
    ///
    /// # Errors
    /// [`Error::Parts`] for a series without training rows; if bad series are to be left out, such a one is in no part.
    pub fn resplit(&self, validation: usize, test: usize) -> Result<Dataset> {
        let mut bad = Bad::new(self.on_bad_series);
        let mut dataset = self.clone();
        for (number, series) in dataset.series.iter_mut().enumerate() {
            let (id, len) = (series.id.clone(), series.len);
            (series.train, series.validation, series.test) = match len.checked_sub(validation + test).filter(|train| *train > 0) {
                Some(train) => (train, validation, test),
                None => {
                    bad.note(number as u32, Error::Parts { series: id, len, validation, test })?;
                    (0, 0, 0)
                }
            };
        }
        let skipped = self.left_out(bad)?;
        dataset.skipped.extend(skipped.into_iter().map(|(_, skipped)| skipped));
        Ok(dataset)
    }

    /// Series whose targets never change in their training rows, to be left out of training: number and reason.
    ///
    /// # Errors
    /// [`Error::Constant`] for such a series, unless they are to be left out or kept.
    pub fn constant_series(&self) -> Result<Vec<(u32, Skipped)>> {
        let mut bad = Bad::new(self.on_bad_series);
        for (number, series) in self.series.iter().enumerate().filter(|_| self.constant == Constant::Raise) {
            if let Some((column, value, rows)) = self.constant_target(series) {
                let (series, first) = (series.id.clone(), format_stamp(self.times[series.start]));
                bad.note(number as u32, Error::Constant { series, column, value, rows, first })?;
            }
        }
        self.left_out(bad)
    }

    /// Number and reason of the series that `bad` names; its first error, if these are all.
    pub(crate) fn left_out(&self, mut bad: Bad) -> Result<Vec<(u32, Skipped)>> {
        if bad.found.len() == self.series.len() {
            return Err(bad.found.swap_remove(0).1);
        }
        let name = |(number, error): (u32, Error)| {
            let skipped = Skipped { series: self.series[number as usize].id.clone(), reason: error.to_string() };
            (number, skipped)
        };
        Ok(bad.found.into_iter().map(name).collect())
    }

    /// What to do with series that cannot be used.
    pub fn on_bad_series(&self) -> BadSeries {
        self.on_bad_series
    }

    /// The first target, its value and its observed training rows, if no target of the series changes in them.
    fn constant_target(&self, series: &Series) -> Option<(String, f32, usize)> {
        let (channels, targets) = (self.channels.len(), self.columns.targets.len());
        let mut first = None;
        for target in 0..targets {
            let cells = (series.start..series.start + series.train).map(|row| row * channels + target);
            let mut observed = cells.filter(|cell| self.mask[*cell] > 0.0).map(|cell| self.values[cell]);
            let value = observed.next()?;
            let mut rows = 1;
            for other in observed {
                if other != value {
                    return None;
                }
                rows += 1;
            }
            // One value alone says nothing.
            first = first.or((rows > 1).then(|| (self.columns.targets[target].clone(), value, rows)));
        }
        first
    }

    /// Writes the forecast `values`, one per target, into a row as if they had been observed: forecasts beyond a trained
    /// horizon go on from there.
    ///
    /// # Panics
    /// If the series has no such row, or `values` are not one per target.
    pub fn observe(&mut self, series: u32, row: usize, values: &[f32]) {
        let series = &self.series[series as usize];
        assert!(row < series.len && values.len() == self.columns.targets.len(), "one value per target in a row of the series");
        let cell = (series.start + row) * self.channels.len();
        Arc::make_mut(&mut self.values)[cell..cell + values.len()].copy_from_slice(values);
        Arc::make_mut(&mut self.mask)[cell..cell + values.len()].fill(1.0);
    }

    /// The stamps `count` rows from row `first` of the series on, continued over its ends by the frequency.
    pub fn stamps(&self, series: u32, first: i64, count: usize) -> Vec<i64> {
        let series = &self.series[series as usize];
        let origin = self.times[series.start];
        (first..first + count as i64)
            .map(|row| match usize::try_from(row) {
                Ok(row) if row < series.len => self.times[series.start + row],
                _ => self.frequency.advance(origin, row),
            })
            .collect()
    }
}
