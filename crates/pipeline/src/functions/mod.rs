//! The stage functions that work on tables: what a rank of the pool `table` runs.
//!
//! Every function is one collective program: all ranks of the task build a communicator, each works on its share of the tables,
//! and together they publish one global table. A rank that fails aborts the communicator, so that none waits for it.

pub mod arguments;
mod cut;
mod derive;
mod error;
mod evaluate;
mod forecasts;
mod history;
mod join;
mod read;
mod scaler;
mod score;
mod split;
mod sql;
mod stage;

pub use arguments::*;
pub use error::{Error, Result};
pub use read::schema as read_schema;
pub use scaler::{ColumnScaler, METADATA_KEY as SCALER_KEY, Scaler};
pub use split::SPLIT;
pub use stage::{FUNCTIONS, call, register};
