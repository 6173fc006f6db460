//! Cells of one column, from text to Arrow.

use std::sync::Arc;

use chrono::Utc;
use datafusion::arrow::array::{
    ArrayRef, BooleanBuilder, Date32Builder, Float64Builder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder,
};
use datafusion::arrow::compute::kernels::cast_utils::{Parser, string_to_datetime};
use datafusion::arrow::datatypes::{Date32Type, Float64Type};

use super::ColumnType;

/// Collects the cells of a column.
pub(crate) enum Cells {
    Bool(BooleanBuilder),
    Int(Int64Builder),
    Float(Float64Builder),
    Date(Date32Builder),
    Timestamp(TimestampMicrosecondBuilder),
    Text(StringBuilder),
}

impl Cells {
    pub fn new(column: ColumnType) -> Self {
        match column {
            ColumnType::Bool => Cells::Bool(BooleanBuilder::new()),
            ColumnType::Int => Cells::Int(Int64Builder::new()),
            ColumnType::Float => Cells::Float(Float64Builder::new()),
            ColumnType::Date => Cells::Date(Date32Builder::new()),
            ColumnType::Timestamp => Cells::Timestamp(TimestampMicrosecondBuilder::new()),
            ColumnType::Text => Cells::Text(StringBuilder::new()),
        }
    }

    pub fn push_null(&mut self) {
        match self {
            Cells::Bool(cells) => cells.append_null(),
            Cells::Int(cells) => cells.append_null(),
            Cells::Float(cells) => cells.append_null(),
            Cells::Date(cells) => cells.append_null(),
            Cells::Timestamp(cells) => cells.append_null(),
            Cells::Text(cells) => cells.append_null(),
        }
    }

    /// Takes a cell; `false` if it does not have the column's type.
    #[must_use]
    pub fn push(&mut self, cell: &str) -> bool {
        match self {
            Cells::Bool(cells) => bool_of(cell).map(|value| cells.append_value(value)),
            Cells::Int(cells) => int_of(cell).map(|value| cells.append_value(value)),
            Cells::Float(cells) => float_of(cell).map(|value| cells.append_value(value)),
            Cells::Date(cells) => date_of(cell).map(|value| cells.append_value(value)),
            Cells::Timestamp(cells) => timestamp_of(cell).map(|value| cells.append_value(value)),
            Cells::Text(cells) => {
                cells.append_value(cell);
                Some(())
            }
        }
        .is_some()
    }

    /// The array of what was pushed since the last time.
    pub fn finish(&mut self) -> ArrayRef {
        match self {
            Cells::Bool(cells) => Arc::new(cells.finish()),
            Cells::Int(cells) => Arc::new(cells.finish()),
            Cells::Float(cells) => Arc::new(cells.finish()),
            Cells::Date(cells) => Arc::new(cells.finish()),
            Cells::Timestamp(cells) => Arc::new(cells.finish()),
            Cells::Text(cells) => Arc::new(cells.finish()),
        }
    }
}

/// Whether a cell has a type.
pub(crate) fn is(column: ColumnType, cell: &str) -> bool {
    match column {
        ColumnType::Bool => bool_of(cell).is_some(),
        ColumnType::Int => int_of(cell).is_some(),
        ColumnType::Float => float_of(cell).is_some(),
        ColumnType::Date => date_of(cell).is_some(),
        ColumnType::Timestamp => timestamp_of(cell).is_some(),
        ColumnType::Text => true,
    }
}

fn bool_of(cell: &str) -> Option<bool> {
    let cell = cell.trim();
    if cell.eq_ignore_ascii_case("true") {
        Some(true)
    } else if cell.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        None
    }
}

fn int_of(cell: &str) -> Option<i64> {
    cell.trim().parse().ok()
}

fn float_of(cell: &str) -> Option<f64> {
    Float64Type::parse(cell.trim())
}

fn date_of(cell: &str) -> Option<i32> {
    let cell = cell.trim();
    if cell.len() == 10 && begins_with_date(cell) { Date32Type::parse(cell) } else { None }
}

/// Microseconds since 1970, in UTC.
fn timestamp_of(cell: &str) -> Option<i64> {
    let cell = cell.trim();
    if !begins_with_date(cell) {
        return None;
    }
    // `2016-07-01 00:00`: Arrow wants seconds.
    let parsed = if cell.len() == 16 { string_to_datetime(&Utc, &format!("{cell}:00")) } else { string_to_datetime(&Utc, cell) };
    Some(parsed.ok()?.timestamp_micros())
}

/// `dddd-dd-dd…`: Arrow's parsers take much else, which would make dates of version numbers.
fn begins_with_date(cell: &str) -> bool {
    let bytes = cell.as_bytes();
    bytes.len() >= 10 && (0..10).all(|i| if i == 4 || i == 7 { bytes[i] == b'-' } else { bytes[i].is_ascii_digit() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_stamps() {
        let midnight = 1_467_331_200_000_000;
        for cell in ["2016-07-01", "2016-07-01 00:00", "2016-07-01 00:00:00", "2016-07-01T00:00:00Z", "2016-07-01T02:00:00+02:00"] {
            assert_eq!(timestamp_of(cell), Some(midnight), "{cell}");
        }
        assert_eq!(timestamp_of("2016-07-01T00:00:00.25"), Some(midnight + 250_000));
        for cell in ["2016", "2016-7-1", "2016-07-01 25:00:00", "2016-13-01", "20160701", "1.2.3"] {
            assert_eq!(timestamp_of(cell), None, "{cell}");
        }
    }

    #[test]
    fn numbers() {
        assert_eq!(int_of(" -12 "), Some(-12));
        assert_eq!(int_of("1.0"), None);
        assert_eq!(float_of("1e-3"), Some(0.001));
        assert!(float_of("NaN").is_some_and(f64::is_nan));
        assert_eq!(float_of("1,5"), None);
    }
}
