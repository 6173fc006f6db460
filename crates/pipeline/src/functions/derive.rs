//! `table.derive`: new columns, fewer rows, another shape.

use super::join::check_columns;
use super::stage::publish;
use super::{DeriveArguments, Error, Lag, Result, Rolling, RollingFunction, TableResult};
use deeprc_table::{Aggregate, Context, Function, SortKey, Table};
use serde_json::Value;

pub(super) fn run(context: &Context, arguments: &DeriveArguments) -> Result<TableResult> {
    let table = derive(context.open(&arguments.input)?, arguments)?;
    publish(&table, &arguments.output, Value::Null, Vec::new())
}

fn derive(mut table: Table, arguments: &DeriveArguments) -> Result<Table> {
    for (name, expression) in &arguments.with {
        table = table.with_columns(&[(name, expression)])?;
    }
    for lag in &arguments.lag {
        table = add_lags(table, lag)?;
    }
    for rolling in &arguments.rolling {
        table = add_rolling(table, rolling)?;
    }
    if let Some(predicate) = &arguments.filter {
        table = table.filter(predicate)?;
    }
    if !arguments.select.is_empty() {
        let columns: Vec<&str> = arguments.select.iter().map(String::as_str).collect();
        table = table.select(&columns)?;
    }
    if !arguments.drop.is_empty() {
        check_columns(&table, "the table", &arguments.drop)?;
        let schema = table.schema();
        let kept = schema.fields().iter().map(|field| field.name()).filter(|name| !arguments.drop.contains(name));
        let kept: Vec<String> = kept.map(|name| quote(name)).collect();
        table = table.select(&kept.iter().map(String::as_str).collect::<Vec<_>>())?;
    }
    if let Some(unpivot) = &arguments.unpivot {
        check_columns(&table, "the table", &unpivot.columns)?;
        let columns: Vec<&str> = unpivot.columns.iter().map(String::as_str).collect();
        table = table.unpivot(&columns, &unpivot.id, &unpivot.value)?;
    }
    if !arguments.sort.is_empty() {
        let keys: Vec<SortKey> = arguments
            .sort
            .iter()
            .map(|key| match key.strip_prefix('-') {
                Some(name) => SortKey::descending(name),
                None => SortKey::ascending(key),
            })
            .collect();
        table = table.sort(&keys)?;
    }
    Ok(table)
}

fn add_lags(mut table: Table, lag: &Lag) -> Result<Table> {
    if lag.name.is_some() && lag.steps.len() != 1 {
        let message = format!("one name for {} steps of `{}`", lag.steps.len(), lag.column);
        return Err(Error::Setting { setting: "lag", message, hint: Some("leave `name` out, or write one lag per step".into()) });
    }
    let by: Vec<&str> = lag.by.iter().map(String::as_str).collect();
    for &steps in &lag.steps {
        let name = lag.name.clone().unwrap_or_else(|| format!("{}_lag{steps}", lag.column));
        table = table.lag(&lag.column, &by, &[SortKey::ascending(&lag.order)], steps, &name)?;
    }
    Ok(table)
}

fn add_rolling(table: Table, rolling: &Rolling) -> Result<Table> {
    let (function, label) = match rolling.function {
        RollingFunction::Mean => (Function::Mean, "mean"),
        RollingFunction::Sum => (Function::Sum, "sum"),
        RollingFunction::Min => (Function::Min, "min"),
        RollingFunction::Max => (Function::Max, "max"),
        RollingFunction::Std => (Function::Std, "std"),
    };
    let name = rolling.name.clone().unwrap_or_else(|| format!("{}_{label}{}", rolling.column, rolling.rows));
    let by: Vec<&str> = rolling.by.iter().map(String::as_str).collect();
    let aggregate = Aggregate::new(function, &rolling.column, name);
    Ok(table.rolling(&aggregate, &by, &[SortKey::ascending(&rolling.order)], rolling.rows)?)
}

/// A name as SQL takes it whatever is in it.
fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
