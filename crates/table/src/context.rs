//! Where tables come from: a communicator, a number of threads and a planner.

use std::path::{Path, PathBuf};

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use deeprc_comm::Communicator;

use crate::{CsvOptions, Result, Table};

/// A rank's access to tables: its communicator, its threads and its query planner.
///
/// Every method that makes a table is **collective**: all ranks call it, in the same order, with the same arguments (apart from local
/// batches), and all of them get a table or all of them get an error. A context is cheap to clone.
#[derive(Debug, Clone)]
pub struct Context {
    comm: Communicator,
}

impl Context {
    /// Tables over the ranks of `comm`, computed with `threads` threads on each rank (the same number everywhere, at least 1).
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for no threads, [`Error::Io`](crate::Error::Io) when threads cannot be started.
    pub fn new(comm: Communicator, threads: usize) -> Result<Context> {
        let _ = threads;
        Ok(Context { comm })
    }

    /// Tables of this process alone.
    ///
    /// # Errors
    /// As [`Context::new`].
    pub fn local(threads: usize) -> Result<Context> {
        Context::new(Communicator::solo(), threads)
    }

    /// The ranks that share the tables of this context.
    pub fn comm(&self) -> &Communicator {
        &self.comm
    }

    /// Reads CSV files, end to end in the order given, each rank a byte range of about the same length.
    ///
    /// Column types are inferred from the head of every file and agreed over the ranks; see [`CsvOptions::types`] to set them.
    ///
    /// # Errors
    /// [`Error::Cell`](crate::Error::Cell) names file, line, column and value of a cell that does not have the type of its column;
    /// [`Error::Line`](crate::Error::Line), [`Error::File`](crate::Error::File), [`Error::Io`](crate::Error::Io).
    pub fn read_csv(&self, files: &[PathBuf], options: &CsvOptions) -> Result<Table> {
        let _ = (files, options);
        unimplemented!()
    }

    /// Reads Parquet files, end to end in the order given, their row groups spread over the ranks.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File) for a file that is no Parquet file or has other columns than the first one,
    /// [`Error::Io`](crate::Error::Io).
    pub fn read_parquet(&self, files: &[PathBuf]) -> Result<Table> {
        let _ = files;
        unimplemented!()
    }

    /// A table of what each rank has in memory; the batches are kept, not copied.
    ///
    /// # Errors
    /// [`Error::SchemaMismatch`](crate::Error::SchemaMismatch) when the ranks have different schemas.
    pub fn from_batches(&self, schema: SchemaRef, local: Vec<RecordBatch>) -> Result<Table> {
        let _ = (schema, local);
        unimplemented!()
    }

    /// Opens a global table; each rank maps its share of it, nothing is copied.
    ///
    /// # Errors
    /// [`Error::Manifest`](crate::Error::Manifest), [`Error::Io`](crate::Error::Io).
    pub fn open(&self, dir: &Path) -> Result<Table> {
        let _ = dir;
        unimplemented!()
    }

    /// Runs an SQL query (DataFusion's dialect, names are case sensitive) over `tables`; its result stays on the ranks.
    ///
    /// # Errors
    /// [`Error::UnknownColumn`](crate::Error::UnknownColumn), [`Error::UnknownTable`](crate::Error::UnknownTable),
    /// [`Error::Engine`](crate::Error::Engine), [`Error::Rank`](crate::Error::Rank) when another rank failed.
    pub fn sql(&self, query: &str, tables: &[(&str, &Table)]) -> Result<Table> {
        let _ = (query, tables);
        unimplemented!()
    }
}
