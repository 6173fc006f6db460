//! What all stage functions do before and after their own work.

use super::{Error, Result, TableResult};
use super::{derive, evaluate, join, read, split, sql};
use deeprc_comm::Communicator;
use deeprc_pilot::rank::{FunctionError, Registry, TaskContext};
use deeprc_table::{Context, Table};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::Path;

/// Names of the stage functions that are collective programs; `table.export` is the one besides them.
pub const FUNCTIONS: [&str; 6] = ["table.read", "table.sql", "table.join", "table.derive", "table.split", "table.evaluate"];

/// Adds the stage functions to those of a rank.
pub fn register(registry: &mut Registry) {
    for function in FUNCTIONS {
        registry.register(function, move |task, arguments| run(task, function, arguments).map_err(FunctionError::from));
    }
    crate::export::register(registry);
}

/// Runs a stage function on the ranks of `context`; all of them must call it.
///
/// # Errors
/// Arguments that are none of the function, and whatever the function ends with.
pub fn call(function: &'static str, context: &Context, arguments: Value) -> Result<Value> {
    match function {
        "table.read" => with(read::run, function, context, arguments),
        "table.sql" => with(sql::run, function, context, arguments),
        "table.join" => with(join::run, function, context, arguments),
        "table.derive" => with(derive::run, function, context, arguments),
        "table.split" => with(split::run, function, context, arguments),
        "table.evaluate" => with(evaluate::run, function, context, arguments),
        _ => {
            let hint = Some(format!("one of: {}", FUNCTIONS.join(", ")));
            Err(Error::Setting { setting: "function", message: format!("there is no `{function}`"), hint })
        }
    }
}

fn with<A: DeserializeOwned, R: Serialize>(
    work: fn(&Context, &A) -> Result<R>,
    function: &'static str,
    context: &Context,
    arguments: Value,
) -> Result<Value> {
    let arguments: A = serde_json::from_value(arguments).map_err(|source| Error::Arguments { function, source })?;
    Ok(serde_json::to_value(work(context, &arguments)?)?)
}

fn run(task: &TaskContext, function: &'static str, arguments: Value) -> Result<Value> {
    // What the agent wrote into the environment: the rendezvous, and the transport that the stage asks for.
    let comm = Communicator::from_env()?;
    task.connected();
    let context = Context::new(comm.clone(), task.cores.len().max(1)).map_err(Error::from);
    let result = context.and_then(|context| call(function, &context, arguments));
    if let Err(error) = &result {
        // The others may wait for this rank in a collective.
        comm.abort(&error.to_string());
    }
    result
}

/// Publishes a table and says what it is. A table that an earlier attempt left there is replaced.
pub(super) fn publish(table: &Table, output: &Path, metadata: Value, notes: Vec<String>) -> Result<TableResult> {
    let comm = table.context().comm();
    if comm.rank() == 0 && output.exists() {
        std::fs::remove_dir_all(output).map_err(|source| Error::File { action: "replace", path: output.into(), source })?;
    }
    comm.barrier()?;
    table.publish(output, metadata)?;
    let columns = table.schema().fields().iter().map(|field| (field.name().clone(), field.data_type().to_string())).collect();
    Ok(TableResult { rows: table.num_rows(), columns, notes })
}
