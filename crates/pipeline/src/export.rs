//! `table.export`: a global table as one CSV file, for programs that do not read Arrow.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use deeprc_pilot::rank::{FunctionError, Registry};
use deeprc_table::GlobalTable;
use deeprc_table::arrow::csv::WriterBuilder;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Arguments of `table.export`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExportArguments {
    /// Directory of the global table.
    pub input: PathBuf,
    /// The file to write.
    pub output: PathBuf,
}

/// Adds `table.export` to what a table rank can do.
pub(crate) fn register(registry: &mut Registry) {
    registry.register("table.export", |task, arguments| {
        task.connected();
        let arguments: ExportArguments = serde_json::from_value(arguments).map_err(|error| FunctionError::new(error.to_string()))?;
        // The file is one: only one rank writes it.
        if task.rank > 0 {
            return Ok(Value::Null);
        }
        let rows = write(&arguments.input, &arguments.output).map_err(|error| {
            let message = format!("failed to write {}: {error}", arguments.output.display());
            FunctionError::new(message).with_detail(json!({ "file": arguments.output }))
        })?;
        Ok(json!({ "rows": rows }))
    });
}

/// Writes the rows of the table in their order, with a header; whole or not at all.
fn write(input: &Path, output: &Path) -> Result<u64, Box<dyn std::error::Error>> {
    let table = GlobalTable::map(input)?;
    let fresh = output.with_extension("csv.new");
    let mut file = BufWriter::new(File::create(&fresh)?);
    // The header comes from the schema, so that it is there for a table without rows too.
    let schema = table.schema();
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    writeln!(file, "{}", names.join(","))?;
    let mut writer = WriterBuilder::new().with_header(false).build(&mut file);
    for batch in table.batches() {
        writer.write(batch)?;
    }
    drop(writer);
    file.into_inner().map_err(|error| error.into_error())?.sync_all()?;
    fs::rename(fresh, output)?;
    Ok(table.num_rows())
}
