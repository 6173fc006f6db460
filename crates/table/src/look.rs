//! Looks ahead: the columns of a file or of a query, before anything runs.

use std::path::Path;
use std::sync::Arc;

use chrono::Utc;
use datafusion::arrow::datatypes::{Schema, SchemaRef};

use crate::scan::{RankTable, World};
use crate::session::{self, plain_schema};
use crate::{CsvOptions, Error, Result, csv, parquet};

/// Column names and types of a CSV file (by its first rows) or, with the extension `.parquet`, of a Parquet file (by its footer).
///
/// # Errors
/// As [`Context::read_csv`](crate::Context::read_csv).
pub fn infer_schema(file: &Path, options: &CsvOptions) -> Result<Schema> {
    let is_parquet = file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("parquet"));
    let schema = if is_parquet { parquet::schema(file)? } else { csv::schema(file, options)? };
    Ok(plain_schema(&schema).as_ref().clone())
}

/// The columns that an SQL query would give, from the columns of its tables alone.
///
/// # Errors
/// [`Error::UnknownColumn`] and [`Error::UnknownTable`] with the nearest names as hint, [`Error::Engine`] for anything else that is wrong
/// with the query.
pub fn plan_schema(query: &str, tables: &[(&str, SchemaRef)]) -> Result<SchemaRef> {
    let world = World { rank: 0, ranks: 1, threads: 1 };
    let empty = |(name, schema): &(&str, SchemaRef)| {
        Arc::new(RankTable { name: name.to_string(), schema: schema.clone(), local: Vec::new(), rows: 0, bytes: 0, world })
    };
    let state = session::for_query(&session::planner(world), Utc::now(), tables.iter().map(empty).collect())?;
    let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(|source| Error::io(Path::new("threads"), source))?;
    let names: Vec<&str> = tables.iter().map(|(name, _)| *name).collect();
    let plan = runtime.block_on(session::plan(&state, query, &names))?;
    Ok(plain_schema(&plan.schema()))
}
