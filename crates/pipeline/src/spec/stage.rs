//! What a stage is once its file is understood.

use std::path::PathBuf;
use std::time::Duration;

use deeprc_comm::CommSpec;
use deeprc_forecast::config::{ModelConfig, TrainConfig};
use deeprc_forecast::search::Space;
use deeprc_forecast::task::Intervals;
use deeprc_loader::{DatasetOptions, Part};

use super::fields::{Names, Spanned};
use super::search::Search;
use super::source::At;
use crate::functions::{Baseline, DeriveArguments, How, Metric, ReadArguments, SplitArguments, Units};

/// One `[stage.NAME]`.
#[derive(Debug, Clone)]
pub(crate) struct Stage {
    pub name: String,
    /// Where its name is written.
    pub at: At,
    pub kind: Kind,
    pub needs: Resources,
    /// The stages it takes something from, in the order of its keys.
    pub inputs: Names,
}

/// What every stage may say about its task.
#[derive(Debug, Clone)]
pub(crate) struct Resources {
    pub ranks: Spanned<u32>,
    /// Per rank.
    pub cores: Spanned<u32>,
    /// Hundredths of a GPU per rank.
    pub gpus: Spanned<u32>,
    /// MiB per rank.
    pub memory: Spanned<u64>,
    pub timeout: Option<Duration>,
    pub retries: u32,
    pub priority: i32,
    /// The transport of its communicator; `None` leaves it to the ranks, which take `auto`.
    pub comm: Option<CommSpec>,
}

impl Resources {
    /// One rank with one core.
    pub fn single(at: &At) -> Resources {
        let small = |value| Spanned::new(value, at);
        Resources {
            ranks: small(1),
            cores: small(1),
            gpus: small(0),
            memory: Spanned::new(0, at),
            timeout: None,
            retries: 0,
            priority: 0,
            comm: None,
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Read(ReadStage),
    Sql(SqlStage),
    Join(JoinStage),
    Derive(DeriveStage),
    Split(SplitStage),
    Train(TrainStage),
    Predict(PredictStage),
    Evaluate(EvaluateStage),
    Program(ProgramStage),
}

impl Kind {
    /// The word in the file.
    pub fn word(&self) -> &'static str {
        match self {
            Kind::Read(_) => "read",
            Kind::Sql(_) => "sql",
            Kind::Join(_) => "join",
            Kind::Derive(_) => "derive",
            Kind::Split(_) => "split",
            Kind::Train(_) => "train",
            Kind::Predict(_) => "predict",
            Kind::Evaluate(_) => "evaluate",
            Kind::Program(ProgramStage { script: Some(_), .. }) => "python",
            Kind::Program(_) => "command",
        }
    }

    /// Whether others can take a table from it.
    pub fn makes_table(&self) -> bool {
        !matches!(self, Kind::Train(_) | Kind::Program(_))
    }
}

#[derive(Debug, Clone)]
pub(crate) struct ReadStage {
    /// Paths and patterns, absolute or relative to the current directory.
    pub files: Vec<Spanned<PathBuf>>,
    /// Without `files` and `output`, which are filled in when it runs.
    pub arguments: ReadArguments,
    /// Declared types and where, to be checked against the file.
    pub types: Names,
}

#[derive(Debug, Clone)]
pub(crate) struct SqlStage {
    pub query: Spanned<String>,
}

#[derive(Debug, Clone)]
pub(crate) struct JoinStage {
    pub left: Spanned<String>,
    pub right: Spanned<String>,
    pub on: Names,
    pub how: How,
}

#[derive(Debug, Clone)]
pub(crate) struct DeriveStage {
    pub input: Spanned<String>,
    /// Without `input` and `output`.
    pub arguments: DeriveArguments,
    pub places: DerivePlaces,
}

/// Where the parts of a derive stage are written, for the check of its columns.
#[derive(Debug, Clone, Default)]
pub(crate) struct DerivePlaces {
    pub with: Vec<At>,
    pub filter: Option<At>,
    pub select: Vec<At>,
    pub drop: Vec<At>,
    pub sort: Vec<At>,
    /// Per lag: column, by, order, in that order.
    pub lag: Vec<Names>,
    pub rolling: Vec<Names>,
    pub unpivot: Vec<At>,
}

#[derive(Debug, Clone)]
pub(crate) struct SplitStage {
    pub input: Spanned<String>,
    pub time: Spanned<String>,
    pub series: Option<Spanned<String>>,
    pub scale: Names,
    /// Without `input` and `output`.
    pub arguments: SplitArguments,
}

#[derive(Debug, Clone)]
pub(crate) struct TrainStage {
    pub input: Spanned<String>,
    /// The parts that columns play, and where each is written.
    pub columns: TrainColumns,
    pub dataset: DatasetOptions,
    /// One without a matrix.
    pub cells: Vec<Cell>,
}

/// Columns of a train stage as they are written.
#[derive(Debug, Clone)]
pub(crate) struct TrainColumns {
    pub time: Spanned<String>,
    pub series: Option<Spanned<String>>,
    pub targets: Names,
    pub hist: Names,
    pub futr: Names,
    pub stat: Names,
    pub weight: Option<Spanned<String>>,
}

/// One training of a matrix.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    /// `nhits`, or `nhits,learning_rate=0.001`; empty without a matrix.
    pub label: String,
    /// The place in the matrix without the model; empty without other axes.
    pub axes: String,
    pub model: ModelConfig,
    pub train: TrainConfig,
    /// Its options are the best of a search, in this space.
    pub search: Option<(Search, Space)>,
}

#[derive(Debug, Clone)]
pub(crate) struct PredictStage {
    /// The train stage.
    pub model: Spanned<String>,
    /// Another table than that of the training.
    pub input: Option<Spanned<String>>,
    pub part: Part,
    pub step: usize,
    /// Around point forecasts.
    pub intervals: Option<Intervals>,
    pub best: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct EvaluateStage {
    /// Predict stages.
    pub input: Names,
    pub metrics: Vec<Metric>,
    pub baselines: Vec<Baseline>,
    pub season: usize,
    pub per_series: bool,
    pub units: Units,
    pub samples: usize,
}

#[derive(Debug, Clone)]
pub(crate) struct ProgramStage {
    /// `command`: a path, or a name on the search path. `python`: the interpreter, `None` for the user's own.
    pub program: Option<Spanned<String>>,
    /// `python`: the file.
    pub script: Option<Spanned<PathBuf>>,
    pub arguments: Names,
    pub env: Vec<(String, Spanned<String>)>,
    /// Python packages that must be there.
    pub requires: Names,
}
