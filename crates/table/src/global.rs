//! The global table: Arrow IPC files that every process maps and none copies.

use std::path::Path;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;

use crate::Result;

/// A table written once by [`Table::publish`](crate::Table::publish) and mapped read-only by any number of processes.
#[derive(Debug, Clone)]
pub struct GlobalTable {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    metadata: serde_json::Value,
}

impl GlobalTable {
    /// Maps the table in the directory `dir`. Its batches point into the mapping: nothing is copied, nothing is read before it is used.
    ///
    /// # Errors
    /// [`Error::Manifest`](crate::Error::Manifest), [`Error::Io`](crate::Error::Io).
    pub fn map(dir: &Path) -> Result<Self> {
        let _ = dir;
        unimplemented!()
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
        self.batches.iter().map(|b| b.num_rows() as u64).sum()
    }

    /// The JSON object that the writer left.
    pub fn metadata(&self) -> &serde_json::Value {
        &self.metadata
    }
}
