//! The ordered table that windows are cut from.

use crate::{Columns, DatasetOptions, Frequency, Result};
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
/// numbers as `f32`, every hole filled or masked.
///
/// ```text
///            channels ->  target | hist | futr
///   series a  t0            .       .      .      <- Series { id: "a", start: 0, .. }
///             t1            .       .      .
///   series b  t0            .       .      .      <- Series { id: "b", start: 2, .. }
/// ```
#[derive(Debug)]
pub struct Dataset {
    pub(crate) columns: Columns,
    pub(crate) frequency: Frequency,
    pub(crate) series: Vec<Series>,
    pub(crate) channels: Vec<String>,
    pub(crate) values: Vec<f32>,
    pub(crate) mask: Vec<f32>,
    pub(crate) stat: Vec<f32>,
    pub(crate) times: Vec<i64>,
    pub(crate) fully_observed: bool,
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

    /// Names of the temporal channels: targets, then hist, then futr.
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
