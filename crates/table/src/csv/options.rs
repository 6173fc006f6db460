//! How a CSV file is to be understood.

use std::collections::BTreeMap;

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use serde::{Deserialize, Serialize};

/// How a CSV file is to be understood. The default suits what pandas writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CsvOptions {
    /// Between two cells; an ASCII character.
    pub delimiter: char,
    /// Around a cell that holds a delimiter, a quote (doubled) or a line break; an ASCII character.
    pub quote: char,
    /// Lines that begin with it are skipped; an ASCII character.
    pub comment: Option<char>,
    /// The first line holds the column names. Without it they are `names`, else `column_1`, `column_2`, …
    pub header: bool,
    /// Column names of files without a header.
    pub names: Vec<String>,
    /// Cells with one of these texts are null.
    pub nulls: Vec<String>,
    /// Types of columns that should not be inferred, by column name.
    pub types: BTreeMap<String, ColumnType>,
    /// How many rows at the head of each file decide about the types.
    pub infer_rows: usize,
}

impl Default for CsvOptions {
    fn default() -> Self {
        CsvOptions {
            delimiter: ',',
            quote: '"',
            comment: None,
            header: true,
            names: Vec::new(),
            nulls: ["", "NA", "N/A", "NULL", "null", "None"].map(String::from).to_vec(),
            types: BTreeMap::new(),
            infer_rows: 1000,
        }
    }
}

/// The type of a CSV column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColumnType {
    /// `true`, `false` in any case.
    Bool,
    /// 64-bit integer.
    Int,
    /// 64-bit float; `NaN`, `inf` are numbers.
    Float,
    /// `2016-07-01`.
    Date,
    /// `2016-07-01 00:00:00`, `2016-07-01T00:00:00.123`, `2016-07-01 00:00`, `2016-07-01`; an offset (`+02:00`, `Z`) is converted to UTC.
    Timestamp,
    /// UTF-8 text.
    Text,
}

impl ColumnType {
    /// The Arrow type: `Boolean`, `Int64`, `Float64`, `Date32`, `Timestamp(µs)` without time zone, `Utf8`.
    pub fn data_type(self) -> DataType {
        match self {
            ColumnType::Bool => DataType::Boolean,
            ColumnType::Int => DataType::Int64,
            ColumnType::Float => DataType::Float64,
            ColumnType::Date => DataType::Date32,
            ColumnType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            ColumnType::Text => DataType::Utf8,
        }
    }

    /// For messages: "`x` is not …".
    pub(crate) fn described(self) -> &'static str {
        match self {
            ColumnType::Bool => "true or false (bool)",
            ColumnType::Int => "a whole number (int)",
            ColumnType::Float => "a number (float)",
            ColumnType::Date => "a date (YYYY-MM-DD)",
            ColumnType::Timestamp => "a time stamp (YYYY-MM-DD hh:mm:ss)",
            ColumnType::Text => "text",
        }
    }
}
