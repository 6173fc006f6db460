//! Parquet files, spread over ranks by rows.

use std::fs::File;
use std::path::{Path, PathBuf};

use ::parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::arrow::record_batch::RecordBatch;
use deeprc_comm::Communicator;

use crate::context::agree_on;
use crate::session::plain_schema;
use crate::{Error, Result};

/// Rows per batch.
const BATCH_ROWS: usize = 8192;

/// The columns of a file, by its footer.
pub(crate) fn schema(file: &Path) -> Result<Schema> {
    Ok(open(file)?.1.schema().as_ref().clone())
}

/// This rank's share of the rows of all files, in order.
pub(crate) fn read(comm: &Communicator, threads: usize, files: &[PathBuf]) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    agree_on(comm, share(comm.rank(), comm.size(), threads, files))
}

fn share(rank: usize, ranks: usize, threads: usize, files: &[PathBuf]) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let opened = files.iter().map(|file| open(file)).collect::<Result<Vec<_>>>()?;
    let Some((_, first)) = opened.first() else {
        return Err(Error::Argument { message: "no Parquet files to read".to_string(), hint: None });
    };
    let schema = plain_schema(first.schema());
    for (file, (_, metadata)) in files.iter().zip(&opened) {
        if plain_schema(metadata.schema()) != schema {
            let reason = format!("has other columns than {}", files[0].display());
            return Err(Error::File { file: file.clone(), reason });
        }
    }
    // Every thread of every rank reads the same number of rows, wherever they lie.
    let rows: Vec<u64> = opened.iter().map(|(_, metadata)| metadata.metadata().file_metadata().num_rows() as u64).collect();
    let (total, workers) = (rows.iter().sum::<u64>(), (ranks * threads) as u64);
    let cut = |worker: usize| total * worker as u64 / workers;
    let ranges = (rank * threads..(rank + 1) * threads).map(|worker| (cut(worker), cut(worker + 1)));
    let batches = std::thread::scope(|scope| {
        let readers: Vec<_> = ranges
            .map(|(start, end)| {
                scope.spawn({
                    let (opened, rows) = (&opened, &rows);
                    move || rows_between(files, opened, rows, start, end)
                })
            })
            .collect();
        readers.into_iter().map(|reader| reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect::<Result<Vec<_>>>()
    })?;
    Ok((schema, batches.into_iter().flatten().collect()))
}

type Opened = (File, ArrowReaderMetadata);

fn open(path: &Path) -> Result<Opened> {
    let file = File::open(path).map_err(|source| Error::io(path, source))?;
    // The writer's Arrow schema only carries types that the table would convert again.
    let metadata = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new()).map_err(|error| wrong(path, &error))?;
    Ok((file, metadata))
}

fn wrong(path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::File { file: path.to_path_buf(), reason: error.to_string() }
}

/// The rows from `start` to `end`, counted over all files.
fn rows_between(files: &[PathBuf], opened: &[Opened], rows: &[u64], start: u64, end: u64) -> Result<Vec<RecordBatch>> {
    let (mut batches, mut first) = (Vec::new(), 0);
    for ((path, (_, metadata)), rows) in files.iter().zip(opened).zip(rows) {
        let (from, to) = (start.clamp(first, first + rows), end.clamp(first, first + rows));
        if from < to {
            // Opened again: clones of a file share their position, and threads would move it under each other.
            let file = File::open(path).map_err(|source| Error::io(path, source))?;
            batches.extend(rows_of_file(path, file, metadata, from - first, to - first)?);
        }
        first += rows;
    }
    Ok(batches)
}

/// The rows from `start` to `end` of one file; row groups outside are not touched.
fn rows_of_file(path: &Path, file: File, metadata: &ArrowReaderMetadata, start: u64, end: u64) -> Result<Vec<RecordBatch>> {
    let (mut groups, mut skip, mut first) = (Vec::new(), 0, 0);
    for (group, about) in metadata.metadata().row_groups().iter().enumerate() {
        let last = first + about.num_rows() as u64;
        if first < end && last > start {
            if groups.is_empty() {
                skip = start - first.min(start);
            }
            groups.push(group);
        }
        first = last;
    }
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata.clone())
        .with_row_groups(groups)
        .with_offset(skip as usize)
        .with_limit((end - start) as usize)
        .with_batch_size(BATCH_ROWS)
        .build()
        .map_err(|error| wrong(path, &error))?;
    reader.map(|batch| batch.map_err(|error| wrong(path, &error))).collect()
}
