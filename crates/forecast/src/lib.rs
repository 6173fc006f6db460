//! Forecast models: what they are called, how they are configured and, with the feature `torch`, how they are trained and run.
//!
//! Always there, without libtorch:
//! * [`config`]: hyper-parameters of every model and of training, with NeuralForecast's names and defaults, declared once;
//!   [`config::configure`] reads them from a pipeline file, [`config::catalogue`] lists them for people.
//! * [`task`]: arguments and results of the functions that a forecast rank serves.
//!
//! With the feature `torch` (libtorch 2.11.0): networks, losses, window scalers, trainer, forecaster, checkpoints and the
//! rank executable `deeprc-forecast`. Nothing else in the workspace links libtorch.
//!
//! What this crate is not: it reads no files but its own checkpoints and places no processes.
//!
//! ```
//! use serde_json::json;
//! let options = json!({"h": 24, "input_size": 48, "max_steps": 400});
//! let (model, train) = deeprc_forecast::config::configure("nlinear", options.as_object().unwrap()).unwrap();
//! assert_eq!((model.h(), model.input_size()), (24, 48));
//! assert_eq!((train.max_steps, train.learning_rate), (400, 1e-4));
//! ```

pub mod config;
pub mod search;
pub mod task;

#[cfg(feature = "torch")]
mod blocks;
#[cfg(feature = "torch")]
pub mod checkpoint;
#[cfg(feature = "torch")]
mod conformal;
#[cfg(feature = "torch")]
pub mod distribution;
#[cfg(feature = "torch")]
mod error;
#[cfg(feature = "torch")]
pub mod forecaster;
#[cfg(feature = "torch")]
pub mod kernels;
#[cfg(feature = "torch")]
pub mod local_scaler;
#[cfg(feature = "torch")]
pub mod loss;
#[cfg(feature = "torch")]
pub mod model;
#[cfg(feature = "torch")]
pub mod native;
#[cfg(feature = "torch")]
pub mod networks;
#[cfg(feature = "torch")]
pub mod neural_forecast;
#[cfg(feature = "torch")]
pub mod optimizer;
#[cfg(feature = "torch")]
mod parameters;
#[cfg(feature = "torch")]
pub mod preparation;
#[cfg(feature = "torch")]
mod pytorch;
#[cfg(feature = "torch")]
pub mod rank;
#[cfg(feature = "torch")]
mod resident;
#[cfg(feature = "torch")]
pub mod scaler;
#[cfg(feature = "torch")]
pub mod trainer;
#[cfg(feature = "torch")]
mod weights;
#[cfg(feature = "torch")]
mod window_list;

#[cfg(feature = "torch")]
pub use blocks::{Windows, gather};
#[cfg(feature = "torch")]
pub use error::{Error, Result};
#[cfg(feature = "torch")]
pub use parameters::{LayerNorm, Linear, Parameters, Recurrent};
#[cfg(feature = "torch")]
pub use resident::Resident;
