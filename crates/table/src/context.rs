//! Where tables come from: a communicator, a number of threads and a planner.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::execution::session_state::SessionState;
use deeprc_comm::Communicator;
use serde::{Deserialize, Serialize};
use tokio::runtime::{Handle, Runtime};

use crate::agree::{agree, from_root};
use crate::exchange::driver::{Stage, agree_on_plan, run};
use crate::scan::World;
use crate::session::{self, plain_schema};
use crate::{CsvOptions, Error, Result, Table, csv, global, parquet};

/// A rank's access to tables: its communicator, its threads and its query planner.
///
/// Every method that makes a table is **collective**: all ranks call it, in the same order, with the same arguments (apart from local
/// batches), and all of them get a table or all of them get an error. A context is cheap to clone. Its methods block; they must not be
/// called from asynchronous code.
#[derive(Clone)]
pub struct Context {
    shared: Arc<Shared>,
}

struct Shared {
    comm: Communicator,
    world: World,
    planner: SessionState,
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
}

impl Context {
    /// Tables over the ranks of `comm`, computed with `threads` threads on each rank (the same number everywhere, at least 1).
    ///
    /// # Errors
    /// [`Error::Argument`] for no threads or numbers that differ between ranks, [`Error::Io`] when threads cannot be started.
    pub fn new(comm: Communicator, threads: usize) -> Result<Context> {
        let everywhere = agree(&comm, Ok(threads))?;
        if threads == 0 || everywhere.iter().any(|other| *other != threads) {
            let message = format!("every rank needs the same number of threads, at least 1, not {everywhere:?}");
            return Err(Error::Argument { message, hint: None });
        }
        let world = World { rank: comm.rank(), ranks: comm.size(), threads };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).thread_name("table").build();
        let runtime = Some(agree_on(&comm, runtime.map_err(|source| Error::io(Path::new("threads"), source)))?);
        Ok(Context { shared: Arc::new(Shared { comm, world, planner: session::planner(world), runtime }) })
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
        &self.shared.comm
    }

    /// Threads per rank.
    pub fn threads(&self) -> usize {
        self.shared.world.threads
    }

    /// Reads CSV files, end to end in the order given, each rank a byte range of about the same length.
    ///
    /// Column types are inferred from the head of every file and agreed over the ranks; see [`CsvOptions::types`] to set them.
    ///
    /// # Errors
    /// [`Error::Cell`] names file, line, column and value of a cell that does not have the type of its column; [`Error::Line`],
    /// [`Error::File`], [`Error::Io`].
    pub fn read_csv(&self, files: &[PathBuf], options: &CsvOptions) -> Result<Table> {
        let (schema, local) = csv::read(self.comm(), self.threads(), files, options)?;
        self.table(schema, Ok(local))
    }

    /// Reads Parquet files, end to end in the order given, each rank about the same number of rows.
    ///
    /// # Errors
    /// [`Error::File`] for a file that is no Parquet file or has other columns than the first one, [`Error::Io`].
    pub fn read_parquet(&self, files: &[PathBuf]) -> Result<Table> {
        let (schema, local) = parquet::read(self.comm(), self.threads(), files)?;
        self.table(schema, Ok(local))
    }

    /// A table of what each rank has in memory; the batches are kept, not copied.
    ///
    /// # Errors
    /// [`Error::SchemaMismatch`] when the ranks have different schemas.
    pub fn from_batches(&self, schema: SchemaRef, local: Vec<RecordBatch>) -> Result<Table> {
        self.table(schema, Ok(local))
    }

    /// Opens a global table; each rank maps its share of it (about the same number of rows), nothing is copied.
    ///
    /// # Errors
    /// [`Error::Manifest`], [`Error::Io`].
    pub fn open(&self, dir: &Path) -> Result<Table> {
        let share = global::share(dir, self.comm().rank(), self.comm().size());
        let (schema, local) = agree_on(self.comm(), share)?;
        self.table(schema, Ok(local))
    }

    /// Runs an SQL query (DataFusion's dialect, names are case sensitive) over `tables`; its result stays on the ranks.
    ///
    /// With a final `order by` rank 0 has the first rows and the last rank the last ones; with a `limit` rank 0 has all.
    ///
    /// # Errors
    /// [`Error::UnknownColumn`], [`Error::UnknownTable`], [`Error::Engine`], [`Error::Rank`] when another rank failed.
    pub fn sql(&self, query: &str, tables: &[(&str, &Table)]) -> Result<Table> {
        let comm = self.comm();
        // `now()` is folded into the plan, so all ranks take rank 0's clock.
        let started: DateTime<Utc> = from_root(comm, || Ok(Utc::now()))?;
        let planned = self.plan(query, tables, started);
        let context = planned.as_ref().map(|(state, _)| state.task_ctx()).ok();
        let plan = agree_on_plan(comm, planned.map(|(_, plan)| plan))?;
        let context = context.expect("a plan comes from a state");
        let local = run(&plan, &Stage { comm, runtime: self.runtime(), context: &context });
        self.table(plan.schema(), local)
    }

    fn plan(
        &self,
        query: &str,
        tables: &[(&str, &Table)],
        started: DateTime<Utc>,
    ) -> Result<(SessionState, Arc<dyn datafusion::physical_plan::ExecutionPlan>)> {
        let names: Vec<&str> = tables.iter().map(|(name, _)| *name).collect();
        let providers = tables.iter().map(|(name, table)| Arc::new(table.provider(name, self.shared.world))).collect();
        let state = session::for_query(&self.shared.planner, started, providers)?;
        let plan = self.runtime().block_on(session::plan(&state, query, &names))?;
        Ok((state, plan))
    }

    /// Makes a table of every rank's rows, or gives every rank the error of the first one that failed. Collective.
    pub(crate) fn table(&self, schema: SchemaRef, local: Result<Vec<RecordBatch>>) -> Result<Table> {
        let schema = plain_schema(&schema);
        let local = local.and_then(|batches| plain(batches, &schema));
        let size = local.map(|batches| {
            let rows: u64 = batches.iter().map(|batch| batch.num_rows() as u64).sum();
            let columns: Vec<String> = schema.fields().iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect();
            (Size { rows, bytes: bytes(&batches), columns: columns.join(", ") }, batches)
        });
        let (size, local) = match size {
            Ok((size, batches)) => (Ok(size), batches),
            Err(error) => (Err(error), Vec::new()),
        };
        let sizes = agree(self.comm(), size)?;
        if let Some(rank) = sizes.iter().position(|size| size.columns != sizes[0].columns) {
            let (found, expected) = (sizes[rank].columns.clone(), sizes[0].columns.clone());
            return Err(Error::SchemaMismatch { rank, found, expected });
        }
        let (rows, bytes) = (sizes.iter().map(|size| size.rows).sum(), sizes.iter().map(|size| size.bytes).sum());
        Ok(Table::new(self.clone(), schema, local, rows, bytes))
    }

    fn runtime(&self) -> &Handle {
        self.shared.runtime.as_ref().expect("the runtime lives as long as the context").handle()
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Context({:?}, {} threads)", self.shared.comm, self.shared.world.threads)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Queries have ended (they borrow the context), so there is nothing to wait for; waiting would also panic in asynchronous code.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// What a rank has of a table.
#[derive(Serialize, Deserialize)]
struct Size {
    rows: u64,
    bytes: u64,
    columns: String,
}

/// This rank's value if no rank failed.
pub(crate) fn agree_on<T>(comm: &Communicator, mine: Result<T>) -> Result<T> {
    let (value, status) = match mine {
        Ok(value) => (Some(value), Ok(())),
        Err(error) => (None, Err(error)),
    };
    agree(comm, status)?;
    Ok(value.expect("agree returns the error of a rank without a value"))
}

/// Batches with the table's plain types; untouched where they have them already.
fn plain(batches: Vec<RecordBatch>, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
    let converted = batches.into_iter().filter(|batch| batch.num_rows() > 0).map(|batch| {
        if batch.num_columns() != schema.fields().len() {
            let message = format!("a batch has {} columns, its table {}", batch.num_columns(), schema.fields().len());
            return Err(Error::Argument { message, hint: None });
        }
        let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| {
            if column.data_type() == field.data_type() { Ok(column.clone()) } else { cast(column, field.data_type()) }
        });
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(schema.clone(), columns.collect::<Result<_, _>>()?, &options)?)
    });
    converted.collect()
}

/// Bytes of the rows, not of the buffers that they are slices of.
fn bytes(batches: &[RecordBatch]) -> u64 {
    let columns = batches.iter().flat_map(|batch| batch.columns());
    columns.map(|column| column.to_data().get_slice_memory_size().unwrap_or(0) as u64).sum()
}
