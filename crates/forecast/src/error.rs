//! What can go wrong between a table and a forecast.

use std::path::PathBuf;

use crate::config::ModelName;

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a model could not be trained or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The columns do not suit the model.
    #[error("model {} {problem}", model.as_str())]
    Columns {
        /// The model.
        model: ModelName,
        /// What does not fit, as in "forecasts one target, but 3 are given: P, T, Q".
        problem: String,
    },
    /// Several models cannot be used together as asked.
    #[error("the models {problem}")]
    Models {
        /// What does not fit, as in "need the same horizon: ...".
        problem: String,
    },
    /// The table gives no windows.
    #[error(transparent)]
    Data(#[from] deeprc_loader::Error),
    /// The table cannot be read or written.
    #[error(transparent)]
    Table(#[from] deeprc_table::Error),
    /// The other ranks cannot be reached.
    #[error(transparent)]
    Comm(#[from] deeprc_comm::Error),
    /// The forecasts do not make a table.
    #[error("the table of forecasts {problem}")]
    Forecasts {
        /// What is wrong with it.
        problem: String,
    },
    /// A value of the table that a loss or a scaler cannot take.
    #[error("{what} needs {needs}: column {column} has {value} in row {row} of series {series}")]
    Value {
        /// What needs other values.
        what: &'static str,
        /// Which ones.
        needs: &'static str,
        /// The value.
        value: f64,
        /// The column.
        column: String,
        /// The series.
        series: String,
        /// Counted from 1 within the series.
        row: usize,
    },
    /// Prediction intervals cannot be calibrated.
    #[error("conformal intervals: {problem}")]
    Intervals {
        /// Why.
        problem: String,
    },
    /// The loss is not a number any more.
    #[error("the {what} loss is {value} at step {step}: {culprits}")]
    NotFinite {
        /// `training` or `validation`.
        what: &'static str,
        /// The loss.
        value: f64,
        /// Steps done before.
        step: u64,
        /// The windows behind it, by series and last stamp known to the forecast.
        culprits: String,
    },
    /// Training should stop early, but there is nothing to go by.
    #[error("early_stop_patience_steps is {patience}, but no series has validation rows")]
    NothingToMonitor {
        /// `early_stop_patience_steps`.
        patience: i64,
    },
    /// A checkpoint is missing, broken or of another model.
    #[error("checkpoint {}: {problem}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A file of the checkpoint could not be read or written.
    #[error("failed to {action} {}", path.display())]
    Io {
        /// `read`, `write`, ....
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The task's arguments are not what this version understands.
    #[error("cannot read the arguments: {reason}")]
    Arguments {
        /// The parser's reason.
        reason: String,
    },
    /// libtorch failed.
    #[error("libtorch: {message}")]
    Torch {
        /// Its message.
        message: String,
    },
    /// This libtorch cannot use a GPU.
    #[error("no CUDA: {reason}")]
    NoCuda {
        /// The loader's reason.
        reason: String,
    },
    /// The task was canceled.
    #[error("canceled after step {step}; the checkpoint is written")]
    Canceled {
        /// Steps done.
        step: u64,
    },
}

impl Error {
    /// True if this rank failed only because another one did.
    pub fn is_secondary(&self) -> bool {
        use deeprc_comm::Error as Comm;
        matches!(self, Error::Comm(Comm::PeerDead { .. } | Comm::PeerLeft { .. } | Comm::Aborted { .. } | Comm::Timeout { .. }))
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Value { .. } => Some("another `loss`, `distribution` or `local_scaler_type`, or other values".to_owned()),
            Error::Intervals { .. } => {
                Some("give the split more validation rows, fewer `n_windows`, or train with mqloss or a distribution".to_owned())
            }
            Error::Columns { .. } => Some("`deeprc models` lists what each model accepts".to_owned()),
            Error::Data(error) => error.hint(),
            Error::Table(error) => error.hint(),
            Error::NotFinite { .. } => {
                Some("a smaller `learning_rate`, `gradient_clip_val = 1.0` or another `scaler_type` often helps".to_owned())
            }
            Error::NothingToMonitor { .. } => {
                Some("give the validation part some rows in the split stage, or set `monitor = \"train_loss\"`".to_owned())
            }
            Error::Checkpoint { .. } => Some("train without resume to write a new checkpoint".to_owned()),
            _ => None,
        }
    }
}
