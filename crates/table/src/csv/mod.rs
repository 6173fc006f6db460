//! CSV files, split over ranks by byte range.
//!
//! ```text
//! file bytes      0 ─────────── header, rows ───────────────── size
//! pieces          │ rank 0, thread 0 │ 0, 1 │ 1, 0 │ 1, 1    │
//! a row belongs to the piece in which it starts
//! ```
//!
//! A piece begins after the first line break before it. That is wrong inside a quoted cell with a line break; the rank that reads such a
//! cell notices (whoever comes before a wrong beginning reads the cell across it), and then every file is read whole, by one thread.

mod cells;
mod head;
mod options;
mod read;
mod records;

pub use options::{ColumnType, CsvOptions};
pub(crate) use read::{read, schema};
