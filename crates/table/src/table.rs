//! A table spread over the ranks, and its operators.

use std::path::Path;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;

use crate::{Aggregate, Context, Function, JoinKind, Result, SortKey};

/// Rows spread over the ranks of a [`Context`]: each rank holds some of them as Arrow record batches.
///
/// A table never changes; operators make new ones. They are **collective** (see [`Context`]). Their result is the same, row for row, every
/// time they run with the same number of ranks and threads. Text columns are always `Utf8`.
#[derive(Debug, Clone)]
pub struct Table {
    context: Context,
    schema: SchemaRef,
    rows: u64,
}

impl Table {
    /// Names and types of the columns.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// Number of rows on all ranks together.
    pub fn num_rows(&self) -> u64 {
        self.rows
    }

    /// The rows of this rank, in order.
    pub fn batches(&self) -> &[RecordBatch] {
        unimplemented!()
    }

    /// The context that made this table.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Joins on equal values of the columns `on`, which must exist on both sides and appear once in the result, first.
    ///
    /// Nulls equal nothing. Then follow the other columns of the left and of the right table; a name that both have gets the suffix
    /// `_right` on the right side. `Semi` and `Anti` give left columns only, in their own order.
    ///
    /// # Errors
    /// [`Error::UnknownColumn`](crate::Error::UnknownColumn), [`Error::Engine`](crate::Error::Engine).
    pub fn join(&self, right: &Table, on: &[&str], how: JoinKind) -> Result<Table> {
        let _ = (right, on, how);
        unimplemented!()
    }

    /// Sorts over all ranks: rank 0 gets the first rows, the last rank the last ones, about equally many each.
    ///
    /// # Errors
    /// [`Error::UnknownColumn`](crate::Error::UnknownColumn).
    pub fn sort(&self, keys: &[SortKey]) -> Result<Table> {
        let _ = keys;
        unimplemented!()
    }

    /// One row per distinct combination of `keys` (nulls are a group), with the keys and one column per aggregate.
    ///
    /// Without keys: one row over everything, on rank 0.
    ///
    /// # Errors
    /// [`Error::UnknownColumn`](crate::Error::UnknownColumn), [`Error::Engine`](crate::Error::Engine).
    pub fn group_by(&self, keys: &[&str], aggregates: &[Aggregate]) -> Result<Table> {
        let _ = (keys, aggregates);
        unimplemented!()
    }

    /// The rows for which an SQL predicate is true (not false, not null).
    ///
    /// # Errors
    /// [`Error::UnknownColumn`](crate::Error::UnknownColumn), [`Error::Engine`](crate::Error::Engine).
    pub fn filter(&self, sql_predicate: &str) -> Result<Table> {
        let _ = sql_predicate;
        unimplemented!()
    }

    /// The columns given as SQL expressions: `"y"`, `"y * 2 as double"`. Names with unusual letters need double quotes inside.
    ///
    /// # Errors
    /// [`Error::UnknownColumn`](crate::Error::UnknownColumn), [`Error::Engine`](crate::Error::Engine).
    pub fn select(&self, exprs: &[&str]) -> Result<Table> {
        let _ = exprs;
        unimplemented!()
    }

    /// All columns, and `(name, SQL expression)` for new ones; a name that exists is replaced in its place.
    ///
    /// # Errors
    /// [`Error::UnknownColumn`](crate::Error::UnknownColumn), [`Error::Engine`](crate::Error::Engine).
    pub fn with_columns(&self, exprs: &[(&str, &str)]) -> Result<Table> {
        let _ = exprs;
        unimplemented!()
    }

    /// Adds column `name`: `column` as it was `steps` rows before, within equal values of `by`, in the order `order`.
    ///
    /// Null where there is no such row; a negative `steps` looks ahead.
    ///
    /// # Errors
    /// [`Error::UnknownColumn`](crate::Error::UnknownColumn).
    pub fn lag(&self, column: &str, by: &[&str], order: &[SortKey], steps: i64, name: &str) -> Result<Table> {
        let _ = (column, by, order, steps, name);
        unimplemented!()
    }

    /// Adds column `aggregate.name`: the function over the last `rows` rows, this one included, within equal values of `by`, in the
    /// order `order`. The first rows of a group see a shorter window.
    ///
    /// # Errors
    /// [`Error::UnknownColumn`](crate::Error::UnknownColumn), [`Error::Argument`](crate::Error::Argument) for `rows` = 0.
    pub fn rolling(&self, aggregate: &Aggregate, by: &[&str], order: &[SortKey], rows: usize) -> Result<Table> {
        let _ = (aggregate, by, order, rows, Function::Mean);
        unimplemented!()
    }

    /// Wide to long: one row per row and column of `columns`, with the column's name in `id` and its value in `value`; the columns not
    /// named are repeated and come first. Numbers of different types become `Float64`.
    ///
    /// # Errors
    /// [`Error::UnknownColumn`](crate::Error::UnknownColumn), [`Error::Argument`](crate::Error::Argument) for columns of types that do
    /// not mix.
    pub fn unpivot(&self, columns: &[&str], id: &str, value: &str) -> Result<Table> {
        let _ = (columns, id, value);
        unimplemented!()
    }

    /// All rows in rank order, on rank 0 (`None` on the others). For small results.
    ///
    /// # Errors
    /// [`Error::Comm`](crate::Error::Comm).
    pub fn gather(&self) -> Result<Option<RecordBatch>> {
        unimplemented!()
    }

    /// Writes a global table to the directory `dir`, which appears complete or not at all and must not exist yet.
    ///
    /// `metadata` is a JSON object for the readers (scalers, provenance); that of rank 0 counts.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io), [`Error::Argument`](crate::Error::Argument) when `dir` exists.
    pub fn publish(&self, dir: &Path, metadata: serde_json::Value) -> Result<()> {
        let _ = (dir, metadata);
        unimplemented!()
    }
}
