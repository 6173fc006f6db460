//! Small tables for the tests of this crate.

use deeprc_loader::{Columns, DatasetOptions};
use deeprc_table::arrow::array::{ArrayRef, Float64Array, Int8Array, LargeStringArray, RecordBatch, TimestampMillisecondArray};
use std::sync::Arc;

/// One row; `x` is -y, `area` is static.
#[derive(Clone, Debug)]
pub struct Row {
    pub id: &'static str,
    /// ms
    pub stamp: i64,
    pub y: Option<f64>,
    pub area: Option<f64>,
    pub split: i8,
}

impl Row {
    /// An hour of 2020.
    pub fn new(id: &'static str, hour: i64, y: f64) -> Row {
        Row { id, stamp: 1_577_836_800_000 + hour * 3_600_000, y: Some(y), area: Some(1.0), split: 0 }
    }
}

pub fn options() -> DatasetOptions {
    DatasetOptions::new(Columns { series: Some("unique_id".into()), ..Columns::new("ds", ["y"]) })
}

/// The rows as a table in batches of `size` rows.
pub fn batches(rows: &[Row], size: usize) -> Vec<RecordBatch> {
    let chunks = if rows.is_empty() { vec![rows] } else { rows.chunks(size).collect() };
    chunks.into_iter().map(batch).collect()
}

fn batch(rows: &[Row]) -> RecordBatch {
    let columns: [(&str, ArrayRef); 6] = [
        ("unique_id", Arc::new(LargeStringArray::from_iter_values(rows.iter().map(|row| row.id)))),
        ("ds", Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.stamp)))),
        ("y", Arc::new(rows.iter().map(|row| row.y).collect::<Float64Array>())),
        ("x", Arc::new(rows.iter().map(|row| row.y.map(|y| -y)).collect::<Float64Array>())),
        ("area", Arc::new(rows.iter().map(|row| row.area).collect::<Float64Array>())),
        ("split", Arc::new(Int8Array::from_iter_values(rows.iter().map(|row| row.split)))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}
