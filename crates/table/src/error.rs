//! What can go wrong with a table, and what to do about it.

use std::path::{Path, PathBuf};

use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::parser::ParserError;
use serde_json::{Value, json};

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A table could not be read, planned, computed or written.
///
/// [`Error::hint`] says what to do where there is a way out, [`Error::detail`] gives the fields as JSON (file, line, column, …) so that
/// they survive the way from a rank process to the user.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A cell of a CSV file does not have the type of its column.
    #[error("{}:{line}: column \"{column}\": \"{value}\" is not {expected}", file.display())]
    Cell {
        /// The CSV file.
        file: PathBuf,
        /// Line in the file, from 1.
        line: u64,
        /// Name of the column.
        column: String,
        /// What the cell says.
        value: String,
        /// What it should have been, with its article ("a number (float)").
        expected: &'static str,
    },
    /// A line of a CSV file has too few or too many cells, or is not UTF-8.
    #[error("{}:{line}: {reason}", file.display())]
    Line {
        /// The CSV file.
        file: PathBuf,
        /// Line in the file, from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// A file's content does not fit the rest (no header, other columns than the first file, not a Parquet file).
    #[error("{}: {reason}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file cannot be opened, read or written.
    #[error("{}: {source}", file.display())]
    Io {
        /// The file or directory.
        file: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A directory is not a global table, or one of another version.
    #[error("{}: not a global table: {reason}", dir.display())]
    Manifest {
        /// The directory.
        dir: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A column that no table has.
    #[error("no column \"{column}\"")]
    UnknownColumn {
        /// The name as written.
        column: String,
        /// The nearest names, else all names.
        hint: Option<String>,
    },
    /// A table that was not passed to the query.
    #[error("no table \"{table}\"")]
    UnknownTable {
        /// The name as written.
        table: String,
        /// The nearest names, else all names.
        hint: Option<String>,
    },
    /// The ranks hold different schemas for what should be one table.
    #[error("rank {rank} has other columns than rank 0: {found} instead of {expected}")]
    SchemaMismatch {
        /// The first rank that differs.
        rank: usize,
        /// Its columns.
        found: String,
        /// The columns of rank 0.
        expected: String,
    },
    /// An argument that makes no sense, found before anything ran.
    #[error("{message}")]
    Argument {
        /// What is wrong.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// The ranks planned the same query differently; running it would hang or lie.
    #[error("the ranks planned this query differently\nrank 0:\n{first}\nrank {rank}:\n{other}")]
    PlansDiffer {
        /// The first rank that differs.
        rank: usize,
        /// The plan of rank 0.
        first: String,
        /// The plan of `rank`.
        other: String,
    },
    /// Another rank failed; this rank stopped with it.
    #[error("rank {rank}: {message}")]
    Rank {
        /// The rank on which it happened.
        rank: usize,
        /// Its message.
        message: String,
        /// Its hint.
        hint: Option<String>,
        /// Its [`Error::detail`].
        detail: Box<Value>,
    },
    /// SQL that cannot be planned, or a cast, overflow, … while it ran.
    #[error("{}", engine_message(source))]
    Engine {
        /// DataFusion's error.
        source: Box<DataFusionError>,
    },
    /// Bytes between ranks.
    #[error(transparent)]
    Comm(#[from] deeprc_comm::Error),
}

impl Error {
    /// What to do, where there is a way out.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Cell { column, value, .. } => {
                Some(format!("declare the column as text (types.{column} = \"text\"), add \"{value}\" to `nulls`, or correct the file"))
            }
            Error::UnknownColumn { hint, .. }
            | Error::UnknownTable { hint, .. }
            | Error::Argument { hint, .. }
            | Error::Rank { hint, .. } => hint.clone(),
            _ => None,
        }
    }

    /// The fields of the error as a JSON object (`file`, `line`, `column`, `value`, `table`, `rank`), empty if there are none.
    pub fn detail(&self) -> Value {
        match self {
            Error::Cell { file, line, column, value, .. } => json!({"file": file, "line": line, "column": column, "value": value}),
            Error::Line { file, line, .. } => json!({"file": file, "line": line}),
            Error::File { file, .. } | Error::Io { file, .. } | Error::Manifest { dir: file, .. } => json!({"file": file}),
            Error::UnknownColumn { column, .. } => json!({"column": column}),
            Error::UnknownTable { table, .. } => json!({"table": table}),
            Error::Rank { detail, .. } => Value::clone(detail),
            _ => json!({}),
        }
    }

    pub(crate) fn io(file: &Path, source: std::io::Error) -> Self {
        Error::Io { file: file.to_path_buf(), source }
    }

    /// An unknown column, with the names nearest to it.
    pub(crate) fn unknown_column<'a>(column: &str, columns: impl IntoIterator<Item = &'a str>) -> Self {
        Error::UnknownColumn { column: column.to_string(), hint: near_names(column, columns, "columns") }
    }
}

/// DataFusion reports a missing column or table in its own words; both become our variants, with near names.
impl From<DataFusionError> for Error {
    fn from(error: DataFusionError) -> Self {
        if let DataFusionError::External(inner) = error {
            return match inner.downcast::<Error>() {
                Ok(ours) => *ours,
                Err(inner) => Error::Engine { source: Box::new(DataFusionError::External(inner)) },
            };
        }
        match error.find_root() {
            DataFusionError::SchemaError(inner, _) => {
                if let SchemaError::FieldNotFound { field, valid_fields } = inner.as_ref() {
                    return Error::unknown_column(field.name(), valid_fields.iter().map(|c| c.name()));
                }
            }
            DataFusionError::Plan(message) => {
                if let Some(table) = message.strip_prefix("table '").and_then(|rest| rest.strip_suffix("' not found")) {
                    let table = table.rsplit('.').next().unwrap_or(table).to_string();
                    return Error::UnknownTable { table, hint: None };
                }
            }
            _ => {}
        }
        Error::Engine { source: Box::new(error) }
    }
}

impl From<datafusion::arrow::error::ArrowError> for Error {
    fn from(error: datafusion::arrow::error::ArrowError) -> Self {
        DataFusionError::from(error).into()
    }
}

/// The first sentence of DataFusion's message: its context chain and back traces help us, not the user.
fn engine_message(error: &DataFusionError) -> String {
    let root = match error.find_root() {
        DataFusionError::SQL(error, _) => match error.as_ref() {
            ParserError::ParserError(message) | ParserError::TokenizerError(message) => message.clone(),
            ParserError::RecursionLimitExceeded => "the query is nested too deeply".to_string(),
        },
        other => other.message().to_string(),
    };
    let mut letters = root.trim_end_matches('.').chars();
    // "Invalid argument" → "invalid argument", but "SQL error" and "COUNT" stay.
    match (letters.next(), letters.clone().next()) {
        (Some(first), Some(second)) if first.is_uppercase() && second.is_lowercase() => first.to_lowercase().chain(letters).collect(),
        (Some(first), _) => std::iter::once(first).chain(letters).collect(),
        (None, _) => "the engine failed without a message".to_string(),
    }
}

/// `did you mean "a" or "b"?`, or the list of all names when none is near and they are few.
pub(crate) fn near_names<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>, what: &str) -> Option<String> {
    let mut names: Vec<&str> = names.into_iter().collect();
    names.dedup();
    let folded = wrong.to_lowercase();
    let mut near: Vec<(usize, &str)> = names
        .iter()
        .map(|name| (strsim::damerau_levenshtein(&folded, &name.to_lowercase()), *name))
        .filter(|(distance, _)| *distance <= 1 + wrong.chars().count() / 4)
        .collect();
    near.sort();
    near.dedup();
    match near.as_slice() {
        [] if names.is_empty() => None,
        [] if names.len() <= 30 => Some(format!("{what}: {}", names.join(", "))),
        [] => Some(format!("{what}: {}, … ({} in all)", names[..30].join(", "), names.len())),
        [(_, one)] => Some(format!("did you mean \"{one}\"?")),
        [(_, one), (_, two), ..] => Some(format!("did you mean \"{one}\" or \"{two}\"?")),
    }
}
