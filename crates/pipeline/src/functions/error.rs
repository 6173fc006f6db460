//! What a stage function can end with, and how it reaches the user.

use deeprc_pilot::rank::FunctionError;
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// Result of a stage function.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong in a stage function. File lines count from 1.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the fields are what the messages say they are")]
pub enum Error {
    /// The arguments are no arguments of the function.
    #[error("arguments of `{function}`: {source}")]
    Arguments { function: &'static str, source: serde_json::Error },
    /// A setting that makes no sense, or not with the others.
    #[error("{setting}: {message}")]
    Setting { setting: &'static str, message: String, hint: Option<String> },
    /// A file or directory cannot be used.
    #[error("failed to {action} {}", path.display())]
    File { action: &'static str, path: PathBuf, source: std::io::Error },
    /// A file or directory lacks what should be in it.
    #[error("{}: {message}", path.display())]
    Layout { path: PathBuf, message: String, hint: Option<String> },
    /// A line of a text file cannot be understood.
    #[error("{}:{line}: {message}", path.display())]
    Line { path: PathBuf, line: usize, column: Option<String>, message: String },
    /// A column is not in a table.
    #[error("no column `{column}` in {table} (columns: {})", .available.join(", "))]
    MissingColumn { column: String, table: String, available: Vec<String> },
    /// A column is of a type that does not fit.
    #[error("column `{column}` is {found}, but {needed} is needed")]
    ColumnType { column: String, found: String, needed: &'static str },
    /// A series does not have the rows that a split asks for.
    #[error("series `{series}` has {rows} rows, but the parts of the split need {needed}")]
    TooShort { series: String, rows: usize, needed: u64 },
    /// A column to scale has no training value.
    #[error("column `{column}` has no value in the training rows: it cannot be scaled")]
    NothingToFit { column: String },
    /// Tables.
    #[error(transparent)]
    Table(#[from] deeprc_table::Error),
    /// Messages between ranks.
    #[error(transparent)]
    Comm(#[from] deeprc_comm::Error),
    /// Series and windows.
    #[error(transparent)]
    Loader(#[from] deeprc_loader::Error),
    /// Arrow refused to build a table.
    #[error("failed to build a table")]
    Arrow(#[from] deeprc_table::arrow::error::ArrowError),
    /// A result that cannot be written as JSON.
    #[error("failed to write the result as JSON")]
    Json(#[from] serde_json::Error),
}

impl Error {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Setting { hint, .. } | Error::Layout { hint, .. } => hint.clone(),
            Error::Loader(error) => error.hint(),
            Error::Table(error) => error.hint(),
            Error::TooShort { .. } => Some("make the parts smaller, or leave the series out with a filter".into()),
            Error::MissingColumn { .. } => Some("name one of the columns, or make it in a derive stage".into()),
            Error::ColumnType { .. } => Some("convert it in a derive stage with `cast(… as …)`".into()),
            Error::NothingToFit { .. } => Some("make the training part larger, or leave the column out of `scale`".into()),
            _ => None,
        }
    }

    /// Whether another rank failed first and this one was only told so.
    pub fn secondary(&self) -> bool {
        let of_comm =
            |error: &deeprc_comm::Error| matches!(error, deeprc_comm::Error::Aborted { .. } | deeprc_comm::Error::PeerDead { .. });
        match self {
            Error::Comm(error) => of_comm(error),
            Error::Table(deeprc_table::Error::Comm(error)) => of_comm(error),
            Error::Table(deeprc_table::Error::Rank { .. }) => true,
            _ => false,
        }
    }
}

/// The message with its causes, the fields that the report shows beside it, and the hint.
impl From<Error> for FunctionError {
    fn from(error: Error) -> Self {
        let mut message = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            let text = cause.to_string();
            // Transparent errors repeat their source's message.
            if !message.contains(&text) {
                message = format!("{message}: {text}");
            }
            source = cause.source();
        }
        let mut detail = match &error {
            Error::Table(error) => error.detail().as_object().cloned().unwrap_or_default(),
            _ => Map::new(),
        };
        match &error {
            Error::Line { path, line, column, .. } => {
                detail.insert("file".into(), json!(path));
                detail.insert("line".into(), json!(line));
                if let Some(column) = column {
                    detail.insert("column".into(), json!(column));
                }
            }
            Error::File { path, .. } | Error::Layout { path, .. } => {
                detail.insert("file".into(), json!(path));
            }
            Error::MissingColumn { column, .. } | Error::ColumnType { column, .. } | Error::NothingToFit { column } => {
                detail.insert("column".into(), json!(column));
            }
            Error::TooShort { series, .. } => {
                detail.insert("series".into(), json!(series));
            }
            _ => {}
        }
        if let Some(hint) = error.hint() {
            detail.insert("hint".into(), json!(hint));
        }
        if error.secondary() {
            detail.insert("secondary".into(), json!(true));
        }
        FunctionError::new(message).with_detail(Value::Object(detail))
    }
}
