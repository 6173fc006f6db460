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
