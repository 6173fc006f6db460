//! The arguments of the table operators: kinds of join, sort keys, aggregates, window functions.

use datafusion::arrow::datatypes::DataType;
use serde::{Deserialize, Serialize};

/// Which rows a join keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JoinKind {
    /// Rows with a partner on the other side.
    Inner,
    /// Every left row; nulls where the right side has no partner.
    Left,
    /// Every right row; nulls where the left side has no partner.
    Right,
    /// Every row of both sides.
    Full,
    /// Left rows with a partner; only left columns.
    Semi,
    /// Left rows without a partner; only left columns.
    Anti,
}

/// One column to sort by. Ascending with nulls last unless said otherwise; NaN is greater than every number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SortKey {
    /// Column name.
    pub column: String,
    /// Greatest value first.
    #[serde(default)]
    pub descending: bool,
    /// Nulls before all values.
    #[serde(default)]
    pub nulls_first: bool,
}

impl SortKey {
    /// Smallest value first, nulls last.
    pub fn ascending(column: impl Into<String>) -> Self {
        SortKey { column: column.into(), descending: false, nulls_first: false }
    }

    /// Greatest value first, nulls last.
    pub fn descending(column: impl Into<String>) -> Self {
        SortKey { column: column.into(), descending: true, nulls_first: false }
    }

    pub(crate) fn sql(&self) -> String {
        let direction = if self.descending { "desc" } else { "asc" };
        let nulls = if self.nulls_first { "first" } else { "last" };
        format!("{} {direction} nulls {nulls}", quoted(&self.column))
    }
}

impl From<&str> for SortKey {
    fn from(column: &str) -> Self {
        SortKey::ascending(column)
    }
}

/// One output column of a group-by or of a rolling window: a function over the rows of a group.
///
/// Nulls are skipped by every function; [`Function::Count`] counts values that are not null.
/// `Std` and `Var` are the sample kind (divided by n − 1). NaN is a number: it makes sums and means NaN, and is the maximum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aggregate {
    /// What to compute.
    pub function: Function,
    /// Over which column.
    pub column: String,
    /// Name of the output column.
    pub name: String,
}

impl Aggregate {
    /// `function` over `column`, called `name`.
    pub fn new(function: Function, column: impl Into<String>, name: impl Into<String>) -> Self {
        Aggregate { function, column: column.into(), name: name.into() }
    }

    pub(crate) fn sql(&self) -> String {
        format!("{} as {}", self.function.call(&self.column), quoted(&self.name))
    }
}

/// A function over the rows of a group or a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Function {
    /// Number of values that are not null.
    Count,
    /// Sum.
    Sum,
    /// Smallest value.
    Min,
    /// Greatest value.
    Max,
    /// Arithmetic mean.
    Mean,
    /// Sample standard deviation.
    Std,
    /// Sample variance.
    Var,
    /// Median.
    Median,
}

impl Function {
    /// Its name, as in files.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Function::Count => "count",
            Function::Sum => "sum",
            Function::Min => "min",
            Function::Max => "max",
            Function::Mean => "mean",
            Function::Std => "std",
            Function::Var => "var",
            Function::Median => "median",
        }
    }

    /// The call over the rows of a group.
    pub(crate) fn call(self, column: &str) -> String {
        let name = match self {
            Function::Mean => "avg",
            Function::Std => "stddev_samp",
            Function::Var => "var_samp",
            other => other.name(),
        };
        format!("{name}({})", quoted(column))
    }

    /// The call over the rows of a rolling window (see `rolling.rs` for why most of them are ours).
    pub(crate) fn rolling_call(self, column: &str, data_type: &DataType) -> String {
        match self {
            Function::Count | Function::Min | Function::Max => self.call(column),
            Function::Sum if !data_type.is_floating() => self.call(column),
            _ => format!("rolling_{}(cast({} as double))", self.name(), quoted(column)),
        }
    }
}

/// A name as an SQL identifier, whatever letters it has.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
