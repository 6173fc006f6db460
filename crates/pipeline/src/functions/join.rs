//! `table.join`: two tables side by side.

use super::stage::publish;
use super::{Error, How, JoinArguments, Result, TableResult};
use deeprc_table::{Context, JoinKind, SortKey, Table};
use serde_json::Value;

pub(super) fn run(context: &Context, arguments: &JoinArguments) -> Result<TableResult> {
    let (left, right) = (context.open(&arguments.left)?, context.open(&arguments.right)?);
    if arguments.on.is_empty() {
        let hint = Some("name the columns that both tables have, for example on = [\"date\"]".into());
        return Err(Error::Setting { setting: "on", message: "no column to join on".into(), hint });
    }
    for (table, name) in [(&left, "the left table"), (&right, "the right table")] {
        check_columns(table, name, &arguments.on)?;
    }
    let on: Vec<&str> = arguments.on.iter().map(String::as_str).collect();
    let how = match arguments.how {
        How::Inner => JoinKind::Inner,
        How::Left => JoinKind::Left,
        How::Right => JoinKind::Right,
        How::Full => JoinKind::Full,
        How::Semi => JoinKind::Semi,
        How::Anti => JoinKind::Anti,
    };
    let joined = left.join(&right, &on, how)?;
    let mut notes = Vec::new();
    if joined.num_rows() == 0 && left.num_rows() > 0 && right.num_rows() > 0 {
        notes.push(format!("no row of the two tables has the same {}", arguments.on.join(", ")));
    }
    // The order of a hash join depends on the number of ranks; the order of the keys does not.
    let keys: Vec<SortKey> = on.iter().map(|name| SortKey::ascending(*name)).collect();
    publish(&joined.sort(&keys)?, &arguments.output, Value::Null, notes)
}

/// Every column is in the table.
pub(super) fn check_columns<'a>(table: &Table, name: &str, columns: impl IntoIterator<Item = &'a String>) -> Result<()> {
    let schema = table.schema();
    match columns.into_iter().find(|column| schema.field_with_name(column).is_err()) {
        None => Ok(()),
        Some(column) => Err(Error::MissingColumn {
            column: column.clone(),
            table: name.into(),
            available: schema.fields().iter().map(|field| field.name().clone()).collect(),
        }),
    }
}
