//! Tables spread over ranks: readers, operators, SQL, and global tables that other processes map.
//!
//! A [`Context`] belongs to one rank of a [`Communicator`](deeprc_comm::Communicator). It reads a [`Table`] (each rank its share of CSV or
//! Parquet files), the table's operators and [`Context::sql`] make new tables whose rows stay on the ranks, and [`Table::publish`] writes
//! one as a [`GlobalTable`] that every process of the host maps and none copies. With any number of ranks the answer is that of one.
//!
//! The operators are DataFusion's; this crate adds the one plan node that moves rows between ranks, the rule that puts it in, and the
//! driver that runs a plan as a sequence of collectives (module `exchange`). All of it is synchronous: calls block until they are done, on
//! all ranks together, and an error on one rank is returned on every rank.
//!
//! It is no data loader (no windows, no tensors), keeps nothing on disk except what is published, and does not start processes. A query's
//! intermediate results have to fit into memory.
//!
//! Nulls and NaN: nulls equal nothing in joins, are a group of their own in [`Table::group_by`], are skipped by aggregates and sort last.
//! NaN is a number greater than all others, equal to itself.
//!
//! ```
//! use deeprc_comm::Communicator;
//! use deeprc_table::{Aggregate, Context, CsvOptions, Function, GlobalTable, JoinKind};
//!
//! let dir = tempfile::tempdir()?;
//! let (loads, oil, out) = (dir.path().join("loads.csv"), dir.path().join("oil.csv"), dir.path().join("joined"));
//! std::fs::write(&loads, "date,load\n2016-07-01 00:00:00,5.5\n2016-07-01 01:00:00,6.5\n")?;
//! std::fs::write(&oil, "date,OT\n2016-07-01 01:00:00,27.5\n2016-07-01 02:00:00,28\n")?;
//!
//! // Two ranks, here threads of one process.
//! std::thread::scope(|scope| {
//!     for comm in Communicator::threads(2) {
//!         scope.spawn(|| {
//!             let context = Context::new(comm, 1)?;
//!             let loads = context.read_csv(&[loads.clone()], &CsvOptions::default())?;
//!             let oil = context.read_csv(&[oil.clone()], &CsvOptions::default())?;
//!             let joined = loads.join(&oil, &["date"], JoinKind::Inner)?.with_columns(&[("unique_id", "'ETT'")])?;
//!             assert_eq!(joined.num_rows(), 1);
//!             let mean = joined.group_by(&["unique_id"], &[Aggregate::new(Function::Mean, "OT", "mean")])?;
//!             assert_eq!(mean.num_rows(), 1);
//!             joined.publish(&out, serde_json::json!({"source": "example"}))
//!         });
//!     }
//! });
//!
//! // Any other process.
//! let table = GlobalTable::map(&out)?;
//! assert_eq!((table.num_rows(), table.schema().field(2).name().as_str()), (1, "OT"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod agree;
mod context;
mod csv;
mod error;
mod exchange;
mod global;
mod look;
mod mapping;
mod operator;
mod parquet;
mod rolling;
mod scan;
mod session;
mod table;

pub use context::Context;
pub use csv::{ColumnType, CsvOptions};
pub use datafusion::arrow;
pub use error::{Error, Result};
pub use global::GlobalTable;
pub use look::{infer_schema, plan_schema};
pub use operator::{Aggregate, Function, JoinKind, SortKey};
pub use table::Table;
