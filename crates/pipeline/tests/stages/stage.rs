//! Stage functions on threads, and tables to look at.

use deeprc_comm::Communicator;
use deeprc_pipeline::functions::{self, Error};
use deeprc_table::arrow::array::{AsArray, RecordBatch};
use deeprc_table::arrow::compute::{cast, concat_batches};
use deeprc_table::arrow::datatypes::{DataType, Float64Type};
use deeprc_table::{Context, GlobalTable};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A directory for the tables of one test.
pub struct Stage(TempDir);

impl Stage {
    pub fn new() -> Stage {
        Stage(TempDir::new().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A table from CSV text.
    pub fn csv(&self, name: &str, text: &str) {
        let file = self.path(&format!("{name}.csv"));
        std::fs::write(&file, text).unwrap();
        call(1, "table.read", json!({ "files": [file], "output": self.path(name) })).unwrap();
    }

    /// Runs `work(ranks, names)` on 1, 2 and 3 ranks; the tables it returns the names of must be equal. `names` makes a name
    /// that belongs to the number of ranks.
    pub fn on_ranks(&self, work: impl Fn(usize, &dyn Fn(&str) -> String) -> String) -> RecordBatch {
        let tables: Vec<RecordBatch> = (1..=3).map(|ranks| rows(&self.path(&work(ranks, &|name| format!("{name}-{ranks}"))))).collect();
        // A second run may write to the same names.
        for ranks in [2, 3] {
            assert_eq!(tables[0], tables[ranks - 1], "{ranks} ranks publish something else than one");
        }
        tables[0].clone()
    }
}

/// Calls a stage function on `ranks` threads; the answer of rank 0, or the first error that is not the echo of another rank's.
pub fn call(ranks: usize, function: &'static str, arguments: Value) -> Result<Value, Error> {
    let run = |comm: Communicator| {
        let result = Context::new(comm.clone(), 1).map_err(Error::from);
        let result = result.and_then(|context| functions::call(function, &context, arguments.clone()));
        if let Err(error) = &result {
            comm.abort(&error.to_string());
        }
        result
    };
    let mut results: Vec<Result<Value, Error>> = std::thread::scope(|scope| {
        let threads: Vec<_> = Communicator::threads(ranks).into_iter().map(|comm| scope.spawn(|| run(comm))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let first_error = results.iter().position(|result| result.as_ref().is_err_and(|error| !error.secondary()));
    results.swap_remove(first_error.unwrap_or(0))
}

/// All rows of a published table.
pub fn rows(dir: &Path) -> RecordBatch {
    let table = GlobalTable::map(dir).unwrap();
    concat_batches(&table.schema(), table.batches()).unwrap()
}

pub fn numbers(batch: &RecordBatch, column: &str) -> Vec<Option<f64>> {
    let values = cast(batch.column_by_name(column).unwrap(), &DataType::Float64).unwrap();
    values.as_primitive::<Float64Type>().iter().collect()
}

pub fn texts(batch: &RecordBatch, column: &str) -> Vec<String> {
    let values = cast(batch.column_by_name(column).unwrap(), &DataType::LargeUtf8).unwrap();
    values.as_string::<i64>().iter().map(|text| text.unwrap_or_default().to_string()).collect()
}

/// A directory of shared data: named by the environment, or beside the workspace; absent on most machines.
pub fn shared(name: &str) -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let root = std::env::var_os("DEEPRC_SHARED").map_or(beside, PathBuf::from);
    Some(root.join(name)).filter(|path| path.is_dir())
}
