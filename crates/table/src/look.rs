//! Looks ahead: the columns of a file or of a query, before anything runs.

use std::path::Path;

use datafusion::arrow::datatypes::{Schema, SchemaRef};

use crate::{CsvOptions, Result};

/// Column names and types of a CSV file (by its first rows) or, with the extension `.parquet`, of a Parquet file (by its footer).
///
/// # Errors
/// As [`Context::read_csv`](crate::Context::read_csv).
pub fn infer_schema(file: &Path, options: &CsvOptions) -> Result<Schema> {
    let _ = (file, options);
    unimplemented!()
}

/// The columns that an SQL query would give, from the columns of its tables alone.
///
/// # Errors
/// [`Error::UnknownColumn`](crate::Error::UnknownColumn) and [`Error::UnknownTable`](crate::Error::UnknownTable) with the nearest names
/// as hint, [`Error::Engine`](crate::Error::Engine) for anything else that is wrong with the query.
pub fn plan_schema(query: &str, tables: &[(&str, SchemaRef)]) -> Result<SchemaRef> {
    let _ = (query, tables);
    unimplemented!()
}
