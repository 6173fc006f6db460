//! The global table: Arrow IPC files that every process maps and none copies.
//!
//! ```text
//! dir/table.json      version, columns, metadata, partitions: file, rows, bytes
//! dir/part-0.arrow    Arrow IPC file of rank 0, uncompressed, buffers aligned to 64 bytes
//! dir/part-1.arrow    … of rank 1
//! ```

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use datafusion::arrow::compute::BatchCoalescer;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::arrow::ipc::MetadataVersion;
use datafusion::arrow::ipc::reader::FileReader;
use datafusion::arrow::ipc::writer::{FileWriter, IpcWriteOptions};
use datafusion::arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::agree::{agree, from_root};
use crate::context::agree_on;
use crate::{Error, Result, Table, mapping};

/// The version of the layout that this crate writes and reads.
const VERSION: u32 = 1;
const MANIFEST: &str = "table.json";

/// Rows per batch in a file: large enough that a reader loops over few batches, small enough that a batch of some columns fits a cache.
const BATCH_ROWS: usize = 64 * 1024;

/// Buffers start at multiples of this, as Arrow recommends and vector units like.
const ALIGNMENT: usize = 64;

#[derive(Serialize, Deserialize)]
struct Manifest {
    version: u32,
    columns: Vec<ColumnSummary>,
    rows: u64,
    partitions: Vec<Partition>,
    metadata: Value,
}

/// For people; programs read the schema in the files.
#[derive(Serialize, Deserialize)]
struct ColumnSummary {
    name: String,
    r#type: String,
}

#[derive(Serialize, Deserialize, Clone)]
struct Partition {
    file: String,
    rows: u64,
    bytes: u64,
}

/// A table written once by [`Table::publish`] and mapped read-only by any number of processes.
#[derive(Debug, Clone)]
pub struct GlobalTable {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    metadata: Value,
}

impl GlobalTable {
    /// Maps the table in the directory `dir`. Its batches point into the mapping: nothing is copied, nothing is read before it is used.
    ///
    /// # Errors
    /// [`Error::Manifest`] when `dir` is no global table or one of another version, [`Error::File`], [`Error::Io`].
    pub fn map(dir: &Path) -> Result<Self> {
        let (manifest, schema) = open(dir)?;
        let mut batches = Vec::new();
        for partition in &manifest.partitions {
            batches.extend(mapped(dir, partition, &schema)?);
        }
        Ok(GlobalTable { schema, batches, metadata: manifest.metadata })
    }

    /// Names and types of the columns.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// All rows, in rank order.
    pub fn batches(&self) -> &[RecordBatch] {
        &self.batches
    }

    /// Number of rows.
    pub fn num_rows(&self) -> u64 {
        self.batches.iter().map(|batch| batch.num_rows() as u64).sum()
    }

    /// The JSON object that the writer left.
    pub fn metadata(&self) -> &Value {
        &self.metadata
    }
}

/// The rows of a global table that `rank` of `ranks` takes: consecutive, about the same number for everybody.
pub(crate) fn share(dir: &Path, rank: usize, ranks: usize) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let (manifest, schema) = open(dir)?;
    let cut = |rank: usize| manifest.rows * rank as u64 / ranks as u64;
    let (start, end) = (cut(rank), cut(rank + 1));
    let (mut batches, mut first) = (Vec::new(), 0);
    for partition in &manifest.partitions {
        if first < end && first + partition.rows > start {
            batches.extend(rows_between(mapped(dir, partition, &schema)?, first, start, end));
        }
        first += partition.rows;
    }
    Ok((schema, batches))
}

/// The rows from `start` to `end` of consecutive batches, of which the first row has the number `first`.
fn rows_between(batches: Vec<RecordBatch>, mut first: u64, start: u64, end: u64) -> Vec<RecordBatch> {
    let mut taken = Vec::new();
    for batch in batches {
        let last = first + batch.num_rows() as u64;
        let (from, to) = (start.clamp(first, last), end.clamp(first, last));
        if from < to {
            taken.push(batch.slice((from - first) as usize, (to - from) as usize));
        }
        first = last;
    }
    taken
}

fn open(dir: &Path) -> Result<(Manifest, SchemaRef)> {
    let wrong = |reason: String| Error::Manifest { dir: dir.to_path_buf(), reason };
    let path = dir.join(MANIFEST);
    let text = fs::read(&path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => wrong(format!("no {MANIFEST}")),
        _ => Error::io(&path, source),
    })?;
    let manifest: Value = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
    if manifest["version"] != VERSION {
        return Err(wrong(format!("version {} where this program reads {VERSION}", manifest["version"])));
    }
    let manifest: Manifest = serde_json::from_value(manifest).map_err(|error| wrong(error.to_string()))?;
    let first = manifest.partitions.first().ok_or_else(|| wrong("no partitions".to_string()))?;
    let path = dir.join(&first.file);
    let file = File::open(&path).map_err(|source| Error::io(&path, source))?;
    let schema = FileReader::try_new(file, None)?.schema();
    Ok((manifest, schema))
}

fn mapped(dir: &Path, partition: &Partition, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
    if partition.rows == 0 { Ok(Vec::new()) } else { mapping::map(&dir.join(&partition.file), partition.bytes, schema) }
}

/// Writes a table: each rank its file, into a directory with another name that rank 0 renames when all is there.
pub(crate) fn publish(table: &Table, dir: &Path, metadata: Value) -> Result<()> {
    let comm = table.context().comm();
    let partial: PathBuf = from_root(comm, || prepare(dir))?;
    let written = write(&partial, comm.rank(), &table.schema(), table.batches());
    let finished = agree(comm, written).and_then(|partitions| {
        let finish = || finish(&partial, dir, &table.schema(), partitions, metadata);
        agree_on(comm, if comm.rank() == 0 { finish() } else { Ok(()) })
    });
    if finished.is_err() && comm.rank() == 0 {
        // What it would say has been said by the error that led here.
        let _ = fs::remove_dir_all(&partial);
    }
    finished
}

/// Makes the directory in which the table is written, beside the final one so that the rename stays within a file system.
fn prepare(dir: &Path) -> Result<PathBuf> {
    let name = dir.file_name().map(|name| name.to_string_lossy().into_owned());
    let Some(name) = name.filter(|_| !dir.exists()) else {
        let message = format!("{}: exists already", dir.display());
        return Err(Error::Argument { message, hint: Some("publish to a new directory, or remove this one".to_string()) });
    };
    let partial = dir.with_file_name(format!(".{name}.partial-{}", std::process::id()));
    if partial.exists() {
        fs::remove_dir_all(&partial).map_err(|source| Error::io(&partial, source))?;
    }
    fs::create_dir_all(&partial).map_err(|source| Error::io(&partial, source))?;
    Ok(partial)
}

fn write(dir: &Path, rank: usize, schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Partition> {
    let name = format!("part-{rank}.arrow");
    let path = dir.join(&name);
    let failed = |source| Error::io(&path, source);
    let options = IpcWriteOptions::try_new(ALIGNMENT, false, MetadataVersion::V5)?;
    let file = BufWriter::with_capacity(1 << 20, File::create(&path).map_err(failed)?);
    let mut writer = FileWriter::try_new_with_options(file, schema, options)?;
    let mut coalescer = BatchCoalescer::new(schema.clone(), BATCH_ROWS).with_biggest_coalesce_batch_size(Some(BATCH_ROWS));
    for batch in batches {
        coalescer.push_batch(batch.clone())?;
        while let Some(batch) = coalescer.next_completed_batch() {
            writer.write(&batch)?;
        }
    }
    coalescer.finish_buffered_batch()?;
    while let Some(batch) = coalescer.next_completed_batch() {
        writer.write(&batch)?;
    }
    writer.finish()?;
    writer.get_mut().flush().map_err(failed)?;
    let bytes = fs::metadata(&path).map_err(failed)?.len();
    Ok(Partition { file: name, rows: batches.iter().map(|batch| batch.num_rows() as u64).sum(), bytes })
}

fn finish(partial: &Path, dir: &Path, schema: &Schema, partitions: Vec<Partition>, metadata: Value) -> Result<()> {
    let columns = schema.fields().iter().map(|field| ColumnSummary { name: field.name().clone(), r#type: field.data_type().to_string() });
    let rows = partitions.iter().map(|partition| partition.rows).sum();
    let manifest = Manifest { version: VERSION, columns: columns.collect(), rows, partitions, metadata };
    let path = partial.join(MANIFEST);
    let text = serde_json::to_vec_pretty(&manifest).map_err(|error| crate::agree::internal(&error))?;
    fs::write(&path, text).map_err(|source| Error::io(&path, source))?;
    fs::rename(partial, dir).map_err(|source| Error::io(dir, source))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{AsArray, Int64Array};
    use datafusion::arrow::datatypes::Int64Type;

    use super::*;

    #[test]
    fn shares_are_consecutive_and_even() {
        let batch = |from: i64, to: i64| {
            let column = Arc::new(Int64Array::from_iter_values(from..to));
            RecordBatch::try_from_iter([("i", column as datafusion::arrow::array::ArrayRef)]).unwrap()
        };
        let batches = vec![batch(0, 4), batch(4, 5), batch(5, 9)];
        let rows: Vec<Vec<i64>> = rows_between(batches, 100, 103, 107)
            .iter()
            .map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec())
            .collect();
        assert_eq!(rows, [vec![3], vec![4], vec![5, 6]]);
    }
}
