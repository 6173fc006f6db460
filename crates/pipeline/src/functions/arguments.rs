//! What the table-side stage functions are told, and what they answer.
//!
//! Every function runs on all ranks of its task with the same arguments. Inputs are directories of global tables, `output` is
//! the directory that the result is published to. Relative paths are relative to the task's working directory. All ranks
//! answer; the answer to read is rank 0's.

use deeprc_loader::DatasetOptions;
use deeprc_table::ColumnType;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Arguments of `table.read`: files, or data made from a seed, to a global table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadArguments {
    /// What to read. CSV, Parquet: the files in the order of their rows. CAMELS: one directory, the root of the layout.
    /// Empty: [`ReadArguments::generate`] makes the data.
    #[serde(default)]
    pub files: Vec<PathBuf>,
    /// How to read them.
    #[serde(default)]
    pub format: Format,
    /// Which of the three CAMELS tables; needed for `format = "camels"`.
    #[serde(default)]
    pub part: Option<CamelsPart>,
    /// CAMELS: which forcing product (`nldas`, `daymet`, …); may be left out where there is one
    /// only, and for streamflow and attributes.
    #[serde(default)]
    pub product: Option<String>,
    /// CAMELS: only these gauges, as 8-digit ids or numbers; empty: all.
    #[serde(default)]
    pub basins: Vec<String>,
    /// CSV: the character between two cells; `None`: a comma.
    #[serde(default)]
    pub delimiter: Option<char>,
    /// CSV: a type for some columns (`bool`, `int`, `float`, `date`, `timestamp`, `text`), the others are inferred.
    #[serde(default)]
    pub types: IndexMap<String, ColumnType>,
    /// CSV: texts that stand for a missing value, besides the empty cell.
    #[serde(default)]
    pub nulls: Vec<String>,
    /// Data to make when `files` is empty.
    #[serde(default)]
    pub generate: Option<Generate>,
    /// Where generated files go; `None`: a folder `generated` beside `output`.
    #[serde(default)]
    pub generate_dir: Option<PathBuf>,
    /// Directory of the table to publish.
    pub output: PathBuf,
}

/// Format of the files of a read stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Text with a header row.
    #[default]
    Csv,
    /// Apache Parquet.
    Parquet,
    /// The directory layout of CAMELS-US.
    Camels,
}

/// One of the three tables of a CAMELS directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CamelsPart {
    /// Weather: `gauge, date, dayl, prcp, srad, swe, tmax, tmin, tmean, vp, latitude, elevation, area`.
    Forcing,
    /// Discharge: `gauge, date, flow` (ft3/s)`, q` (mm/d)`, flag`.
    Streamflow,
    /// `gauge` and every column of the attribute files.
    Attributes,
}

/// Data made from a seed, the same for any number of ranks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generate {
    /// Which data.
    pub data: Generator,
    /// Hourly tables: rows. Basins: days of each basin.
    #[serde(default)]
    pub rows: Option<usize>,
    /// Basins: how many.
    #[serde(default)]
    pub basins: Option<usize>,
    /// Tables made with the same seed belong together.
    #[serde(default = "one")]
    pub seed: u64,
}

fn one() -> u64 {
    1
}

/// The generators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Generator {
    /// `date, HUFL, HULL, MUFL, MULL, LUFL, LULL`: hourly loads of a transformer, as CSV.
    HourlyLoads,
    /// `date, OT`: its oil temperature, which follows the loads of the same seed, as CSV.
    HourlyOil,
    /// Weather, snow and streamflow of made-up basins in the layout of CAMELS; `part` says which table is read.
    Basins,
}

/// Arguments of `table.sql`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SqlArguments {
    /// The query.
    pub query: String,
    /// Name in the query, directory of the table.
    pub tables: IndexMap<String, PathBuf>,
    /// Directory of the table to publish.
    pub output: PathBuf,
}

/// Arguments of `table.join`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinArguments {
    /// Directory of the left table.
    pub left: PathBuf,
    /// Directory of the right table.
    pub right: PathBuf,
    /// Columns that both tables have; they appear once in the result.
    pub on: Vec<String>,
    /// Which rows stay.
    #[serde(default)]
    pub how: How,
    /// Directory of the table to publish; its rows are sorted by `on`.
    pub output: PathBuf,
}

/// Which rows a join keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// Rows with a partner.
    #[default]
    Inner,
    /// Every left row.
    Left,
    /// Every right row.
    Right,
    /// Every row of both.
    Full,
    /// Left rows with a partner, left columns only.
    Semi,
    /// Left rows without a partner, left columns only.
    Anti,
}

/// Arguments of `table.derive`. Steps are done in the order of the fields: with, lag, rolling, filter, select, drop, unpivot,
/// sort.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeriveArguments {
    /// Directory of the table to start from.
    pub input: PathBuf,
    /// New columns: name, SQL expression; a later one may use an earlier one. An existing name is replaced.
    #[serde(default)]
    pub with: IndexMap<String, String>,
    /// Columns of earlier rows.
    #[serde(default)]
    pub lag: Vec<Lag>,
    /// Statistics over the rows before and including a row.
    #[serde(default)]
    pub rolling: Vec<Rolling>,
    /// SQL predicate of the rows to keep.
    #[serde(default)]
    pub filter: Option<String>,
    /// Columns or SQL expressions (`expr as name`) to keep; empty: all.
    #[serde(default)]
    pub select: Vec<String>,
    /// Columns to leave out.
    #[serde(default)]
    pub drop: Vec<String>,
    /// Wide to long.
    #[serde(default)]
    pub unpivot: Option<Unpivot>,
    /// Columns to sort by; `-name` sorts descending.
    #[serde(default)]
    pub sort: Vec<String>,
    /// Directory of the table to publish.
    pub output: PathBuf,
}

/// The value of `column`, `steps` rows earlier, as a new column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lag {
    /// Column to look at.
    pub column: String,
    /// Columns that keep series apart.
    #[serde(default)]
    pub by: Vec<String>,
    /// Column that orders the rows.
    pub order: String,
    /// Rows back; each gives a column `<column>_lag<steps>`. Negative: rows ahead.
    pub steps: Vec<i64>,
    /// Name of the new column, for a single step.
    #[serde(default)]
    pub name: Option<String>,
}

/// A statistic over the last `rows` rows, this one included; the first rows of a series see fewer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rolling {
    /// Column to look at.
    pub column: String,
    /// Columns that keep series apart.
    #[serde(default)]
    pub by: Vec<String>,
    /// Column that orders the rows.
    pub order: String,
    /// Rows in the window.
    pub rows: usize,
    /// Which statistic.
    #[serde(default)]
    pub function: RollingFunction,
    /// Name of the new column; `None`: `<column>_<function><rows>`.
    #[serde(default)]
    pub name: Option<String>,
}

/// Statistic of a rolling window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RollingFunction {
    /// Mean.
    #[default]
    Mean,
    /// Sum.
    Sum,
    /// Minimum.
    Min,
    /// Maximum.
    Max,
    /// Standard deviation of a sample.
    Std,
}

/// Wide to long: one row per row and column of `columns`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unpivot {
    /// Columns that become rows.
    pub columns: Vec<String>,
    /// New column with the name of the column a value came from.
    #[serde(default = "unique_id")]
    pub id: String,
    /// New column with the value.
    #[serde(default = "y")]
    pub value: String,
}

fn unique_id() -> String {
    "unique_id".into()
}

fn y() -> String {
    "y".into()
}

/// Arguments of `table.split`: the input sorted by (series, time), with an int8 column `split` (0 training, 1 validation, 2
/// test), scaled. Rows after the last part are left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitArguments {
    /// Directory of the table to split.
    pub input: PathBuf,
    /// Column with the stamp.
    pub time: String,
    /// Column with the series; `None`: the table is one series.
    #[serde(default)]
    pub series: Option<String>,
    /// Whether every series is cut in time, or the series are dealt out whole.
    #[serde(default)]
    pub by: SplitBy,
    /// First part; `None`: what the others leave.
    #[serde(default)]
    pub train: Option<PartSize>,
    /// Part after it; `None`: what the others leave if `train` and `test` are given and `test` is no date, else nothing.
    #[serde(default)]
    pub validation: Option<PartSize>,
    /// Last part; `None`: what the others leave if `train` is given, else nothing.
    #[serde(default)]
    pub test: Option<PartSize>,
    /// Columns to scale; parameters come from the training rows only.
    #[serde(default)]
    pub scale: IndexMap<String, Scaling>,
    /// Whether every series has its own parameters. Series without training rows take the global ones.
    #[serde(default)]
    pub scope: Scope,
    /// Deals out the series for `by = "series"`.
    #[serde(default = "one")]
    pub seed: u64,
    /// Directory of the table to publish.
    pub output: PathBuf,
}

/// What a split deals out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SplitBy {
    /// Rows of every series, in order of time.
    #[default]
    Time,
    /// Whole series, in an order given by the seed.
    Series,
}

/// Size of a part of a split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PartSize {
    /// Rows of every series (series, for `by = "series"`).
    Rows(u64),
    /// Fraction of the rows of every series (of the series, for `by = "series"`).
    Fraction(f64),
    /// The part ends before this stamp, for example `2017-01-01` or `2017-01-01 06:00`.
    Before(String),
}

/// How a column is scaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scaling {
    /// (x - mean) / standard deviation (of the population).
    Standard,
    /// (x - min) / (max - min).
    Minmax,
    /// As it is.
    None,
}

/// Whose parameters a scaler has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// One pair per series and column.
    #[default]
    Series,
    /// One pair per column.
    Global,
}

/// Arguments of `table.evaluate`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluateArguments {
    /// The forecasts of every model.
    pub forecasts: Vec<ForecastTable>,
    /// Directory of the table that the models were trained on: history for baselines and MASE, scaler for `units`.
    pub table: PathBuf,
    /// The parts its columns play, as in training.
    pub dataset: DatasetOptions,
    /// Which scores.
    pub metrics: Vec<Metric>,
    /// Forecasts to compare with, on the same windows.
    #[serde(default)]
    pub baselines: Vec<Baseline>,
    /// Rows of a season, for seasonal-naive and MASE; 1 where there is none.
    #[serde(default = "one_row")]
    pub season: usize,
    /// Whether to score every series as well.
    #[serde(default)]
    pub per_series: bool,
    /// Whether scaled columns are scored as they are or scaled back.
    #[serde(default)]
    pub units: Units,
    /// Forecasts to hand back for plots: this many windows, from as many series as possible.
    #[serde(default = "samples")]
    pub samples: usize,
    /// Directory of the table of scores to publish: `model, series, target, metric, value`.
    pub output: PathBuf,
}

fn one_row() -> usize {
    1
}

fn samples() -> usize {
    4
}

/// The forecasts of one model: `unique_id, ds, cutoff`, and for every target `t` the observation `t` and the forecast `t_hat`
/// (`y` and `y_hat` where there is one target).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForecastTable {
    /// Name of the model in the scores.
    pub model: String,
    /// Directory of the table.
    pub table: PathBuf,
}

/// The scores. `o` observations, `p` forecasts; unobserved stamps are skipped; undefined scores are null.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// Mean of (o - p)^2.
    Mse,
    /// Mean of |o - p|.
    Mae,
    /// Root of `mse`.
    Rmse,
    /// Mean of |o - p| / |o|, where o is not 0.
    Mape,
    /// Mean of 2 |o - p| / (|o| + |p|), 0 where both are 0.
    Smape,
    /// `mae` over the mean absolute difference of training observations one season apart (Hyndman and Koehler 2006).
    Mase,
    /// Nash-Sutcliffe efficiency 1 - sum (o - p)^2 / sum (o - mean o)^2 (1970).
    Nse,
    /// 1 / (2 - nse).
    Nnse,
    /// Kling-Gupta efficiency (2009): 1 - |(r - 1, sd p / sd o - 1, mean p / mean o - 1)|.
    Kge,
}

/// Forecasts that need no model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Baseline {
    /// The last observation at the same point of the season.
    SeasonalNaive,
    /// The last observation.
    Persistence,
}

/// Units of the scores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Units {
    /// Those of the table: scaled columns stay scaled.
    #[default]
    Table,
    /// Those before the split stage scaled them.
    Original,
}

/// Answer of the functions that make a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TableResult {
    /// Rows of the whole table.
    pub rows: u64,
    /// Its columns: name and Arrow type.
    pub columns: IndexMap<String, String>,
    /// What the user should know although it stops nothing.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// Answer of `table.evaluate`. Ranks other than 0 answer with empty lists.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvaluateResult {
    /// Rows of the table of scores.
    pub rows: u64,
    /// The scores.
    pub metrics: Vec<Score>,
    /// Forecasts for plots.
    pub forecasts: Vec<Sample>,
    /// What the user should know although it stops nothing.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// One score.
///
/// Without a series it is about all of them. `mse`, `mae`, `rmse`, `mape`, `smape`: over all stamps of all series; `mase`,
/// `nnse`: the mean over series; `nse`, `kge`: the median over series, as hydrologists print them. With several series
/// `<metric>_mean` and `<metric>_median` follow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Model or baseline.
    pub model: String,
    /// One series, or all.
    pub series: Option<String>,
    /// One target; `None`: the mean over several targets.
    pub target: Option<String>,
    /// Name of the metric.
    pub metric: String,
    /// Its value; `None` where it is undefined.
    pub value: Option<f64>,
}

/// One window of one model, for a plot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Model.
    pub model: String,
    /// Series.
    pub series: String,
    /// Target.
    pub target: String,
    /// Stamps, ISO 8601: the two horizons before the forecast and its own (or those of many one-step windows in a row).
    pub ds: Vec<String>,
    /// Observations.
    pub y: Vec<Option<f64>>,
    /// Forecasts; `None` before the first.
    pub yhat: Vec<Option<f64>>,
    /// Forecasts of the first baseline; empty without one.
    pub baseline: Vec<Option<f64>>,
}
