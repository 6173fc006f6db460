//! `table.read`: files to a table. Made-up data are written as files first and then read like any others.

use super::stage::publish;
use super::{CamelsPart, Error, Format, Generate, Generator, ReadArguments, Result, TableResult};
use crate::camels::{self, Layout, Product};
use crate::generate::{self, ATTRIBUTE_FILES, Basins, write_attributes, write_basins, write_loads, write_oil};
use bytes::Bytes;
use deeprc_comm::Communicator;
use deeprc_table::arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use deeprc_table::{Context, CsvOptions, Table};
use serde_json::json;
use std::path::{Path, PathBuf};

pub(super) fn run(context: &Context, arguments: &ReadArguments) -> Result<TableResult> {
    let made;
    let (files, format) = match (&arguments.generate, &arguments.files[..]) {
        (Some(generate), []) => {
            made = vec![make(context.comm(), generate, &generated_dir(arguments))?];
            (&made[..], if generate.data == Generator::Basins { Format::Camels } else { Format::Csv })
        }
        (None, []) => return Err(no_files()),
        (_, files) => (files, arguments.format),
    };
    let mut notes = Vec::new();
    let table = match format {
        Format::Csv => context.read_csv(files, &csv_options(arguments))?,
        Format::Parquet => context.read_parquet(files)?,
        Format::Camels => read_camels(context, arguments, files, &mut notes)?,
    };
    let metadata = json!({ "files": files });
    publish(&table, &arguments.output, metadata, notes)
}

/// Columns of the table that [`ReadArguments`] describe, from the heads of the files: for checks before anything runs.
///
/// # Errors
/// As reading them, as far as the heads tell.
pub fn schema(arguments: &ReadArguments) -> Result<Schema> {
    match (&arguments.generate, &arguments.files[..], arguments.format) {
        (Some(generate), [], _) => generated_schema(generate.data, arguments),
        (_, [root, ..], Format::Camels) => Ok(Schema::clone(&*layout(arguments, root)?.schema(part(arguments)?)?)),
        (_, [file, ..], _) => Ok(deeprc_table::infer_schema(file, &csv_options(arguments))?),
        (None, [], _) => Err(no_files()),
    }
}

fn no_files() -> Error {
    let hint = Some("set `files`, or `generate` to make data".into());
    Error::Setting { setting: "files", message: "no file to read".into(), hint }
}

fn generated_schema(data: Generator, arguments: &ReadArguments) -> Result<Schema> {
    let hourly = |names: &[&str]| {
        let stamp = Field::new("date", DataType::Timestamp(TimeUnit::Microsecond, None), true);
        let values = names.iter().map(|name| Field::new(*name, DataType::Float64, true));
        Schema::new(std::iter::once(stamp).chain(values).collect::<Vec<_>>())
    };
    Ok(match data {
        Generator::HourlyLoads => hourly(&["HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL"]),
        Generator::HourlyOil => hourly(&["OT"]),
        Generator::Basins => match part(arguments)? {
            CamelsPart::Forcing => Schema::clone(&camels::forcing_schema()),
            CamelsPart::Streamflow => Schema::clone(&camels::streamflow_schema()),
            CamelsPart::Attributes => generate::attribute_schema(),
        },
    })
}

fn csv_options(arguments: &ReadArguments) -> CsvOptions {
    let mut options = CsvOptions::default();
    options.delimiter = arguments.delimiter.unwrap_or(options.delimiter);
    options.nulls.extend(arguments.nulls.iter().cloned());
    options.types.extend(arguments.types.iter().map(|(name, kind)| (name.clone(), *kind)));
    options
}

fn part(arguments: &ReadArguments) -> Result<CamelsPart> {
    arguments.part.ok_or_else(|| Error::Setting {
        setting: "part",
        message: "which of the CAMELS tables is not said".into(),
        hint: Some("set `part` to \"forcing\", \"streamflow\" or \"attributes\"".into()),
    })
}

fn layout(arguments: &ReadArguments, root: &Path) -> Result<Layout> {
    let product = match (arguments.product.as_deref().filter(|name| !name.is_empty()), part(arguments)?) {
        (Some(product), _) => Product::Named(product),
        (None, CamelsPart::Forcing) => Product::Only,
        (None, CamelsPart::Streamflow | CamelsPart::Attributes) => Product::Any,
    };
    Layout::discover(root, product, &arguments.basins)
}

fn read_camels(context: &Context, arguments: &ReadArguments, files: &[PathBuf], notes: &mut Vec<String>) -> Result<Table> {
    let [root] = files else {
        let hint = Some("give the one directory that holds basin_mean_forcing, usgs_streamflow and camels_attributes_v2.0".into());
        return Err(Error::Setting { setting: "files", message: format!("{} paths for a CAMELS data set", files.len()), hint });
    };
    let comm = context.comm();
    let (schema, batches, found) = layout(arguments, root)?.read(part(arguments)?, comm.rank(), comm.size())?;
    notes.extend(found);
    Ok(context.from_batches(schema, batches)?)
}

fn generated_dir(arguments: &ReadArguments) -> PathBuf {
    let beside = || arguments.output.parent().unwrap_or(Path::new(".")).join("generated");
    arguments.generate_dir.clone().unwrap_or_else(beside)
}

/// Makes the data unless they are there already; returns the file, or the directory for basins. Stages that ask for the same
/// data at the same time do not disturb each other: each writes under a name of its own, the first to finish gives its files
/// the final name.
fn make(comm: &Communicator, generate: &Generate, dir: &Path) -> Result<PathBuf> {
    let rows = generate.rows.unwrap_or(if generate.data == Generator::Basins { 3653 } else { 4000 });
    let basins = generate.basins.unwrap_or(12);
    let (name, least) = match generate.data {
        Generator::HourlyLoads => (format!("hourly-loads-{rows}-{}.csv", generate.seed), rows),
        Generator::HourlyOil => (format!("hourly-oil-{rows}-{}.csv", generate.seed), rows),
        Generator::Basins => (format!("basins-{basins}-{rows}-{}", generate.seed), rows.min(basins)),
    };
    if least == 0 {
        let message = "`rows` and `basins` must be at least 1".into();
        return Err(Error::Setting { setting: "generate", message, hint: None });
    }
    let target = dir.join(&name);
    // Rank 0 says whether there is anything to do, and under which name.
    let draft = match (comm.rank(), target.exists()) {
        (0, false) => format!(".{name}.{}", std::process::id()),
        _ => String::new(),
    };
    let draft = comm.broadcast(0, Bytes::from(draft))?;
    if draft.is_empty() {
        return Ok(target);
    }
    let draft = dir.join(String::from_utf8_lossy(&draft).as_ref());
    let wrap = |action, path: &Path| {
        let path = path.to_path_buf();
        move |source| Error::File { action, path, source }
    };
    std::fs::create_dir_all(dir).map_err(wrap("create", dir))?;
    match generate.data {
        Generator::HourlyLoads if comm.rank() == 0 => write_loads(&draft, generate.seed, rows)?,
        Generator::HourlyOil if comm.rank() == 0 => write_oil(&draft, generate.seed, rows)?,
        Generator::HourlyLoads | Generator::HourlyOil => {}
        Generator::Basins => {
            let what = Basins { basins, days: rows, seed: generate.seed };
            let lines = write_basins(&draft, what, comm.rank(), comm.size())?;
            if let Some(parts) = comm.gather(0, Bytes::from(serde_json::to_vec(&lines)?))? {
                let mut lines: Vec<[String; ATTRIBUTE_FILES]> = Vec::new();
                for part in parts {
                    lines.extend(serde_json::from_slice::<Vec<_>>(&part)?);
                }
                write_attributes(&draft, lines)?;
            }
        }
    }
    if comm.rank() == 0 {
        let renamed = std::fs::rename(&draft, &target);
        // Another stage was faster: its files are the same.
        if renamed.is_err() && target.exists() {
            std::fs::remove_dir_all(&draft).map_err(wrap("remove", &draft))?;
        } else {
            renamed.map_err(wrap("rename", &draft))?;
        }
    }
    comm.barrier()?;
    Ok(target)
}
