//! CSV files, split over ranks by byte range.

mod options;

pub use options::{ColumnType, CsvOptions};
