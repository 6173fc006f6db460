//! Tables to batches: what stands between a joined table and a model.
//!
//! A [`Dataset`] is a long table (one row per series and stamp) put in order: sorted by series and time, on a regular grid of
//! stamps, without nulls or with a mask, as `f32`. A [`WindowIndex`] names every window of it (eight bytes per window, whatever
//! the length of a window). A [`Sampler`] says which windows make up which step, on which rank. A [`DataLoader`] fills
//! [`Batch`]es from the three ahead of their use.
//!
//! It is **not** a reader (see `deeprc-table`) and names no tensor framework: batches are plain `Vec<f32>` with documented shapes.
//!
//! ```
//! use deeprc_loader::{Columns, DataLoader, Dataset, DatasetOptions, LoaderOptions, Part, Sequential, WindowSpec};
//! use deeprc_table::arrow::array::{ArrayRef, Float32Array, RecordBatch, TimestampMillisecondArray};
//! use std::sync::Arc;
//!
//! let hours = TimestampMillisecondArray::from_iter_values((0..48).map(|hour| hour * 3_600_000));
//! let load = Float32Array::from_iter_values((0..48).map(|hour| hour as f32));
//! let table = RecordBatch::try_from_iter([("ds", Arc::new(hours) as ArrayRef), ("y", Arc::new(load) as ArrayRef)])?;
//!
//! let options = DatasetOptions::new(Columns::new("ds", ["y"]));
//! let dataset = Arc::new(Dataset::from_batches(&[table], &options)?);
//! let windows = Arc::new(dataset.windows(&WindowSpec::new(24, 6, Part::All))?);
//! assert_eq!(windows.len(), 48 - 30 + 1);
//!
//! let sampler = Sequential::new(windows.len(), 8);
//! for batch in DataLoader::new(dataset, windows, Box::new(sampler), LoaderOptions::default()) {
//!     let batch = batch?;
//!     assert_eq!(batch.x.len(), batch.len() * 24); // [batch, time, channels]
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod ahead;
mod assembly;
mod bad;
mod batch;
mod calendar;
mod columns;
mod data_loader;
mod dataset;
mod error;
mod frequency;
mod sampler;
mod window;

pub use bad::Skipped;
pub use batch::Batch;
pub use calendar::{format_stamp, parse_stamp, stamps_of};
pub use columns::{BadSeries, Columns, Constant, DatasetOptions, Gaps, Nulls};
pub use data_loader::{DataLoader, LoaderOptions};
pub use dataset::{Dataset, Series};
pub use error::{Error, Result};
pub use frequency::Frequency;
pub use sampler::{Distributed, Random, Remainder, Sampler, Sequential, Shuffled};
pub use window::{Observed, Padding, Part, Window, WindowIndex, WindowSpec};
