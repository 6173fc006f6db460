//! `table.sql`: a query over tables.

use super::stage::publish;
use super::{Result, SqlArguments, TableResult};
use deeprc_table::{Context, Table};
use serde_json::Value;

pub(super) fn run(context: &Context, arguments: &SqlArguments) -> Result<TableResult> {
    let tables: Vec<(&str, Table)> =
        arguments.tables.iter().map(|(name, dir)| Ok((name.as_str(), context.open(dir)?))).collect::<Result<_>>()?;
    let tables: Vec<(&str, &Table)> = tables.iter().map(|(name, table)| (*name, table)).collect();
    let result = context.sql(&arguments.query, &tables)?;
    publish(&result, &arguments.output, Value::Null, Vec::new())
}
