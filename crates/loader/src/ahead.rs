//! Rows after the last one: where the horizon of a forecast lies.

use std::collections::HashMap;
use std::sync::Arc;

use crate::assembly::{Keys, each_number};
use crate::{Dataset, Error, Result, Series, format_stamp};
use deeprc_table::arrow::array::RecordBatch;

impl Dataset {
    /// The last `history` rows of each series (all, if it has fewer) and `horizon` rows after them, which are the test part.
    ///
    /// Stamps go on by the frequency. Targets and historic columns are unobserved there; columns known ahead (`futr`) come from the
    /// rows of `future`, a long table with the same key columns; rows of other series or stamps in it do not matter.
    ///
    /// ```text
    ///   series a   . . . [ history ............ ][ horizon ]
    ///   targets          1 2 3 4 5 6 7 8 9 10 11  - - - - -
    ///   futr             1 2 3 4 5 6 7 8 9 10 11  1 2 3 4 5      from `future`
    /// ```
    ///
    /// # Errors
    /// [`Error::Future`] with the series, column and stamp that have no value; [`Error::MissingColumn`], [`Error::Infinite`], and
    /// those of reading the keys.
    pub fn ahead(&self, history: usize, horizon: usize, future: &[RecordBatch]) -> Result<Dataset> {
        let channels = self.channels.len();
        let (mut values, mut mask, mut times) = (Vec::new(), Vec::new(), Vec::new());
        let mut series = Vec::with_capacity(self.series.len());
        for (number, old) in self.series.iter().enumerate() {
            let kept = old.len.min(history);
            let (from, to) = (old.start + old.len - kept, old.start + old.len);
            let start = times.len();
            let ahead = self.stamps(number as u32, old.len as i64, horizon);
            times.extend(self.times[from..to].iter().chain(&ahead));
            values.extend_from_slice(&self.values[from * channels..to * channels]);
            mask.extend_from_slice(&self.mask[from * channels..to * channels]);
            values.resize(times.len() * channels, 0.0);
            mask.resize(times.len() * channels, 0.0);
            series.push(Series { id: old.id.clone(), start, len: kept + horizon, train: kept, validation: 0, test: horizon });
        }
        let mut dataset = Dataset {
            series,
            values: Arc::new(values),
            mask: Arc::new(mask),
            times: Arc::new(times),
            fully_observed: false,
            ..self.clone()
        };
        if !self.columns.futr.is_empty() {
            dataset.fill_ahead(future)?;
        }
        Ok(dataset)
    }

    /// Puts the known columns of the test rows in place.
    fn fill_ahead(&mut self, future: &[RecordBatch]) -> Result<()> {
        let channels = self.channels.len();
        let first = self.columns.targets.len() + self.columns.hist.len();
        let mut wanted: HashMap<(&str, i64), usize> = HashMap::new();
        for series in &self.series {
            let rows = series.start + series.len - series.test..series.start + series.len;
            wanted.extend(rows.map(|row| ((series.id.as_str(), self.times[row]), row)));
        }
        let (values, mask) = (Arc::make_mut(&mut self.values), Arc::make_mut(&mut self.mask));
        if future.iter().any(|batch| batch.num_rows() > 0) {
            let keys = Keys::read(future, &self.columns)?;
            for (at, column) in self.columns.futr.iter().enumerate() {
                each_number(future, column, |row, value| {
                    let id = keys.ids[keys.codes[row] as usize].as_str();
                    let (Some(place), Some(value)) = (wanted.get(&(id, keys.times[row])), value) else { return Ok(()) };
                    if value.is_infinite() {
                        let stamp = format_stamp(keys.times[row]);
                        return Err(Error::Infinite { series: id.to_owned(), column: column.clone(), stamp, row: row + 1 });
                    }
                    let cell = place * channels + first + at;
                    (values[cell], mask[cell]) = (value, 1.0);
                    Ok(())
                })?;
            }
        }
        for series in &self.series {
            for row in series.start + series.len - series.test..series.start + series.len {
                if let Some(at) = (0..self.columns.futr.len()).find(|at| mask[row * channels + first + at] == 0.0) {
                    let (column, stamp) = (self.columns.futr[at].clone(), format_stamp(self.times[row]));
                    return Err(Error::Future { series: series.id.clone(), column, stamp });
                }
            }
        }
        Ok(())
    }
}
