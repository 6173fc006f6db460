//! Everything that can be wrong with a table on its way to a model.

use crate::{Frequency, Part};

/// Result of the loader.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, with the series, stamp, row and column it went wrong at. Rows count from 1 in the order of the table.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the fields are what the messages say they are")]
pub enum Error {
    /// A named column is not in the table.
    #[error("no column `{column}` in the table (columns: {})", .available.join(", "))]
    MissingColumn { column: String, available: Vec<String> },
    /// A column is of a type that cannot play its part.
    #[error("column `{column}` is {found}, but {needed} is needed")]
    ColumnType { column: String, found: String, needed: &'static str },
    /// One column named for two parts.
    #[error("column `{column}` is named twice (as {first} and as {second})")]
    ColumnTwice { column: String, first: &'static str, second: &'static str },
    /// No target column was named.
    #[error("no target column is named")]
    NoTarget,
    /// The table has no rows.
    #[error("the table has no rows")]
    Empty,
    /// A series id or stamp is null.
    #[error("row {row}: column `{column}` is null, but every row needs its series and stamp")]
    NullKey { column: String, row: usize },
    /// The same stamp twice in one series.
    #[error("series `{series}` has the stamp {stamp} twice, in rows {first_row} and {second_row}")]
    Duplicate { series: String, stamp: String, first_row: usize, second_row: usize },
    /// Stamps are missing.
    #[error(
        "series `{series}` has a gap: {missing} stamp(s) missing between {before} (row {before_row}) and {after} (row {after_row}) at a step of {frequency}"
    )]
    Gap { series: String, before: String, before_row: usize, after: String, after_row: usize, missing: u64, frequency: Frequency },
    /// A stamp that is not on the grid of the series.
    #[error(
        "series `{series}` is irregular: {stamp} (row {row}) does not follow {previous} (row {previous_row}) by a multiple of {frequency}"
    )]
    Irregular { series: String, stamp: String, row: usize, previous: String, previous_row: usize, frequency: Frequency },
    /// No step can be inferred because no series has two stamps.
    #[error("no step between stamps can be inferred: no series has two rows")]
    NoFrequency,
    /// A null or NaN.
    #[error("series `{series}`: column `{column}` has no value at {stamp} (row {row})")]
    Null { series: String, column: String, stamp: String, row: usize },
    /// A column that has no value at all in one series.
    #[error("series `{series}`: column `{column}` has no value at all")]
    AllNull { series: String, column: String },
    /// An infinite value.
    #[error("series `{series}`: column `{column}` is infinite at {stamp} (row {row})")]
    Infinite { series: String, column: String, stamp: String, row: usize },
    /// A static column that changes in time.
    #[error("series `{series}`: static column `{column}` changes from {before} to {after} in row {row}")]
    StaticVaries { series: String, column: String, before: f32, after: f32, row: usize },
    /// The split column goes back in time or holds something else than 0, 1, 2.
    #[error("series `{series}`: split column `{column}` is {found} at {stamp} (row {row}), expected 0, 1 or 2 in this order in time")]
    Split { series: String, column: String, found: i64, stamp: String, row: usize },
    /// A series too short for one window.
    #[error("series `{series}` is too short: {len} rows for the {part} windows, {needed} needed ({input_size} input + {horizon} horizon)")]
    TooShort { series: String, part: Part, len: usize, needed: usize, input_size: usize, horizon: usize },
    /// Targets that have the same value at all training stamps.
    #[error("series `{series}` is constant: column `{column}` is {value} at all {rows} observed training stamps from {first} on")]
    Constant { series: String, column: String, value: f32, rows: usize, first: String },
    /// A series too short for the validation and test rows asked for.
    #[error("series `{series}` has {len} rows, too few for {validation} validation and {test} test rows and some to train on")]
    Parts { series: String, len: usize, validation: usize, test: usize },
    /// An exogenous value that a forecast needs and the table of future rows lacks.
    #[error("series `{series}`: column `{column}` has no value at {stamp} in the table of future rows")]
    Future { series: String, column: String, stamp: String },
    /// No series has rows in the part asked for.
    #[error("no series has rows in the {part} part")]
    EmptyPart { part: Part },
    /// Every window of the part has a hole in it.
    #[error("none of the {dropped} {part} windows has enough observed values")]
    NothingObserved { part: Part, dropped: usize },
    /// A window description that no table can satisfy.
    #[error("window of input_size {input_size}, horizon {horizon}, step {step}, lead {lead}: {why}")]
    Window { input_size: usize, horizon: usize, step: usize, lead: i64, why: &'static str },
    /// A frequency that cannot be read.
    #[error("`{text}` is no frequency")]
    Frequency { text: String },
    /// The prefetch thread could not be started or died.
    #[error("the thread that fills batches stopped: {why}")]
    Worker { why: String },
    /// Arrow refused a conversion.
    #[error("column `{column}` could not be converted")]
    Arrow { column: String, source: deeprc_table::arrow::error::ArrowError },
}

impl Error {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Error::MissingColumn { .. } => "name one of the table's columns, or make the column in a derive stage",
            Error::ColumnType { .. } => "convert it in a derive stage with `cast(… as …)`",
            Error::ColumnTwice { .. } => "name it once; a target is an input already",
            Error::NoTarget => "set `target` to the column to forecast",
            Error::Empty => "look at the filter and the join that made the table",
            Error::NullKey { .. } => "drop such rows with a filter, for example `ds is not null`",
            Error::Duplicate { .. } => "remove one of the rows, or set `series` if the table holds several series",
            Error::Gap { .. } => "set `gaps = \"fill\"` to repeat the last row or `gaps = \"mask\"` to leave the stamps out of the loss",
            Error::Irregular { .. } => "set `frequency` if the inferred step is wrong, or resample the table",
            Error::NoFrequency => "set `frequency`, for example \"1h\" or \"1d\"",
            Error::Null { .. } => "set `nulls = \"fill\"` to repeat the last value or `nulls = \"mask\"` to leave it out of the loss",
            Error::AllNull { .. } => "leave the series or the column out, or set `nulls = \"mask\"`",
            Error::Infinite { .. } => "turn it into a null with `nullif(…)` in a derive stage",
            Error::StaticVaries { .. } => "name it in `hist` or `futr` instead of `stat`",
            Error::Split { .. } => "make the column with a split stage",
            Error::TooShort { .. } => {
                "use a smaller input_size or horizon, a larger part, or leave the series out with `on_bad_series = \"skip\"`"
            }
            Error::Constant { .. } => "leave the series out with `on_bad_series = \"skip\"`, or set `constant = \"keep\"`",
            Error::Parts { .. } => "ask for fewer validation or test rows, or set `on_bad_series = \"skip\"`",
            Error::Future { .. } => "give one row per series and stamp of the horizon, with every column named in `futr`",
            Error::EmptyPart { .. } => "give the part some rows in the split stage",
            Error::NothingObserved { .. } => "fill the holes with `nulls = \"fill\"`, or ask for fewer observed values",
            Error::Frequency { .. } => "write a count and a unit: 30s, 15min, 1h, 1d, 1w, 1mo, 1y",
            Error::Window { .. } | Error::Worker { .. } | Error::Arrow { .. } => return None,
        };
        Some(text.into())
    }
}
