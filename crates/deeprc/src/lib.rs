//! Deep RC: from raw tables to evaluated forecasts in one program.
//!
//! The `deeprc` binary is this crate's [`main`]; Rust programs use the parts through this façade:
//!
//! | module | what it is |
//! |---|---|
//! | [`comm`] | bytes between the ranks of a task: collectives over threads or shared memory |
//! | [`table`] | Arrow tables over ranks: readers, joins, SQL, the global table |
//! | [`loader`] | tables to windows and batches |
//! | [`forecast`] | model configurations and the tasks that train and predict |
//! | [`pilot`] | resources and tasks of a machine: sessions, agents, warm ranks |
//! | [`pipeline`] | pipeline files, checked, planned and run |
//! | [`report`] | `report.html` from the record of a run |
//!
//! What it is not: it never links libtorch. Models are trained by `deeprc-forecast`, which `deeprc` starts, so that a
//! user's own PyTorch of any version lives beside it.
//!
//! ```no_run
//! use deeprc::pipeline::{Executables, Pipeline, RunOptions, Silent, run, run_directory};
//! # fn main() -> std::io::Result<()> {
//! let pipeline = Pipeline::load("pipelines/forecast.toml".as_ref(), &[]).expect("a valid file");
//! let dir = run_directory("runs".as_ref(), &[pipeline.name()], false)?;
//! let record = run(vec![pipeline], &RunOptions::new(dir.clone(), Executables::beside("deeprc")), &Silent);
//! deeprc::report::write(&record, &dir)?;
//! # Ok(())
//! # }
//! ```

mod command;
mod executables;
mod exit;
mod interrupt;
mod printer;
mod progress;
mod recipe;
pub mod report;

pub use command::main;
pub use deeprc_comm as comm;
pub use deeprc_forecast as forecast;
pub use deeprc_loader as loader;
pub use deeprc_pilot as pilot;
pub use deeprc_pipeline as pipeline;
pub use deeprc_table as table;
