//! Small hourly tables for tests, and looks into tables of forecasts.

use std::sync::Arc;

use deeprc_loader::{Columns, Dataset, DatasetOptions, Nulls};
use deeprc_table::arrow::array::{ArrayRef, AsArray, Float32Array, Int8Array, RecordBatch, StringArray, TimestampNanosecondArray};
use deeprc_table::arrow::datatypes::{Float32Type, TimestampNanosecondType};
use tch::Tensor;

const HOUR: i64 = 3_600_000_000_000;

/// A long table that grows row by row.
pub struct Rows {
    names: Vec<String>,
    columns: Columns,
    ids: Vec<String>,
    times: Vec<i64>,
    values: Vec<Vec<Option<f32>>>,
    split: Vec<i8>,
}

impl Rows {
    pub fn new(targets: &[&str], hist: &[String], futr: &[String], stat: &[String]) -> Self {
        let mut columns = Columns::new("ds", targets.iter().copied());
        columns.series = Some("unique_id".into());
        columns.split = Some("split".into());
        (columns.hist, columns.futr, columns.stat) = (hist.to_vec(), futr.to_vec(), stat.to_vec());
        let names: Vec<String> = columns.channels().chain(&columns.stat).cloned().collect();
        let values = vec![Vec::new(); names.len()];
        Self { names, columns, ids: Vec::new(), times: Vec::new(), values, split: Vec::new() }
    }

    /// A row at `hour` with the values of targets, hist, futr and stat.
    pub fn push(&mut self, id: &str, hour: usize, values: &[Option<f32>], split: i8) {
        assert_eq!(values.len(), self.names.len());
        self.ids.push(id.to_owned());
        self.times.push(hour as i64 * HOUR);
        self.values.iter_mut().zip(values).for_each(|(column, value)| column.push(*value));
        self.split.push(split);
    }

    /// The last hist column says how much each row counts.
    pub fn weighted(mut self) -> Self {
        self.columns.weight = self.columns.hist.pop();
        self
    }

    pub fn batch(&self) -> RecordBatch {
        let mut table: Vec<(String, ArrayRef)> = vec![
            ("unique_id".into(), Arc::new(StringArray::from(self.ids.clone()))),
            ("ds".into(), Arc::new(TimestampNanosecondArray::from(self.times.clone()))),
            ("split".into(), Arc::new(Int8Array::from(self.split.clone()))),
        ];
        let floats = self.names.iter().zip(&self.values);
        table.extend(floats.map(|(name, values)| (name.clone(), Arc::new(Float32Array::from(values.clone())) as ArrayRef)));
        RecordBatch::try_from_iter(table).unwrap()
    }

    pub fn options(&self) -> DatasetOptions {
        DatasetOptions { nulls: Nulls::Mask, ..DatasetOptions::new(self.columns.clone()) }
    }

    pub fn dataset(&self) -> Arc<Dataset> {
        Arc::new(Dataset::from_batches(&[self.batch()], &self.options()).unwrap())
    }
}

/// All values of a tensor.
pub fn values(tensor: &Tensor) -> Vec<f32> {
    Vec::try_from(tensor.flatten(0, -1)).unwrap()
}

pub fn names(batch: &RecordBatch) -> Vec<String> {
    batch.schema().fields().iter().map(|field| field.name().clone()).collect()
}

/// Values of a column that has no nulls.
pub fn floats(batch: &RecordBatch, column: &str) -> Vec<f32> {
    let column = batch.column_by_name(column).unwrap().as_primitive::<Float32Type>();
    assert_eq!(column.iter().filter(Option::is_none).count(), 0);
    column.values().to_vec()
}

/// Stamps as the hours given to [`Rows::push`].
pub fn hours(batch: &RecordBatch, column: &str) -> Vec<i64> {
    let column = batch.column_by_name(column).unwrap().as_primitive::<TimestampNanosecondType>();
    column.values().iter().map(|stamp| stamp / HOUR).collect()
}

/// Values of a column, nulls included.
pub fn optional(batch: &RecordBatch, column: &str) -> Vec<Option<f32>> {
    batch.column_by_name(column).unwrap().as_primitive::<Float32Type>().iter().collect()
}
