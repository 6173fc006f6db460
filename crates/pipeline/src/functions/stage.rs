//! What all stage functions do before and after their own work.

use super::{DeriveArguments, Error, EvaluateArguments, JoinArguments, ReadArguments, Result, SplitArguments, SqlArguments, TableResult};
use super::{derive, evaluate, join, read, split, sql};
use deeprc_comm::{Communicator, Rendezvous};
use deeprc_pilot::rank::{FunctionError, Registry, TaskContext};
use deeprc_table::{Context, Table};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::Path;

/// Adds `table.read`, `table.sql`, `table.join`, `table.derive`, `table.split` and `table.evaluate`.
pub fn register(registry: &mut Registry) {
    add::<ReadArguments, _>(registry, "table.read", read::run);
    add::<SqlArguments, _>(registry, "table.sql", sql::run);
    add::<JoinArguments, _>(registry, "table.join", join::run);
    add::<DeriveArguments, _>(registry, "table.derive", derive::run);
    add::<SplitArguments, _>(registry, "table.split", split::run);
    add::<EvaluateArguments, _>(registry, "table.evaluate", evaluate::run);
}

fn add<A, R>(registry: &mut Registry, name: &'static str, work: fn(&Context, &A) -> Result<R>)
where
    A: DeserializeOwned + 'static,
    R: Serialize + 'static,
{
    registry.register(name, move |task, arguments| run(task, name, arguments, work).map_err(FunctionError::from));
}

fn run<A: DeserializeOwned, R: Serialize>(
    task: &TaskContext,
    function: &'static str,
    arguments: Value,
    work: fn(&Context, &A) -> Result<R>,
) -> Result<Value> {
    let arguments: A = serde_json::from_value(arguments).map_err(|source| Error::Arguments { function, source })?;
    let comm = Communicator::connect(&Rendezvous::new(&task.rendezvous, task.rank, task.size))?;
    task.connected();
    let result = Context::new(comm.clone(), task.cores.len().max(1))
        .map_err(Error::from)
        .and_then(|context| work(&context, &arguments))
        .and_then(|result| Ok(serde_json::to_value(result)?));
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
