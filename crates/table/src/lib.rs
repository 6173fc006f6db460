//! Tables spread over ranks, with the operators of a query engine.

mod agree;
mod context;
mod csv;
mod error;
mod exchange;
mod global;
mod look;
mod mapping;
mod operator;
mod parquet;
mod scan;
mod session;
mod table;

pub use context::Context;
pub use csv::{ColumnType, CsvOptions};
pub use datafusion::arrow;
pub use error::{Error, Result};
pub use global::GlobalTable;
pub use look::{infer_schema, plan_schema};
pub use operator::{Aggregate, Function, JoinKind, SortKey};
pub use table::Table;
