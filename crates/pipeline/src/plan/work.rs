//! What a task does, and how that becomes a call of a function or a program.

use std::path::{Path, PathBuf};

use deeprc_forecast::task::{self, PredictTask, TrainTask};
use deeprc_loader::DatasetOptions;
use indexmap::IndexMap;
use serde::Serialize;
use serde_json::{Value, json};

use super::search::Trial;
use crate::check::{expand, find};
use crate::export::ExportArguments;
use crate::functions::{
    DeriveArguments, EvaluateArguments, ForecastTable, How, JoinArguments, ReadArguments, SplitArguments, SqlArguments,
};
use crate::options::Executables;
use crate::spec::{EvaluateStage, ProgramStage, ReadStage, Spanned};

/// What a task does. Numbers are those of other tasks of the plan; arguments lack only the places in the run directory.
#[derive(Debug, Clone)]
pub(crate) enum Work {
    Read { arguments: Box<ReadArguments> },
    Sql { query: String, tables: IndexMap<String, usize> },
    Join { left: usize, right: usize, on: Vec<String>, how: How },
    Derive { input: usize, arguments: DeriveArguments },
    Split { input: usize, arguments: SplitArguments },
    Export { input: usize },
    Train { input: usize, task: Box<TrainTask> },
    Trial(Box<Trial>),
    Predict { input: usize, model: usize, task: Box<PredictTask> },
    Evaluate { forecasts: Vec<(String, usize)>, table: usize, dataset: DatasetOptions, stage: EvaluateStage },
    Program(Program),
}

/// What is known of other tasks, by their numbers, when one starts.
pub(crate) struct Inputs<'a> {
    /// Where the result is.
    pub place: &'a dyn Fn(usize) -> PathBuf,
    /// Whether it may be used.
    pub finished: &'a dyn Fn(usize) -> bool,
    /// What the task answered, if it is done.
    pub answer: &'a dyn Fn(usize) -> Option<&'a Value>,
}

/// A program of the user.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    program: PathBuf,
    script: Option<PathBuf>,
    arguments: Vec<Vec<Part>>,
    env: Vec<(String, Vec<Part>)>,
    /// Where it runs: the directory of the pipeline file.
    dir: PathBuf,
}

/// Part of an argument of a program.
#[derive(Debug, Clone)]
pub(crate) enum Part {
    Text(String),
    /// Where the result of this task is.
    Place(usize),
}

/// A task as the session takes it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Call {
    Function { pool: &'static str, name: &'static str, arguments: Value },
    Program { program: String, arguments: Vec<String>, env: Vec<(String, String)>, dir: PathBuf },
}

/// Pool of table ranks (`deeprc rank`).
pub(crate) const TABLE: &str = "table";
/// Pool of forecast ranks (`deeprc-forecast rank`).
pub(crate) const FORECAST: &str = "forecast";

impl Work {
    pub fn read(read: &ReadStage) -> Work {
        let mut arguments = read.arguments.clone();
        let files = read.files.iter().flat_map(|file| expand(&file.value));
        arguments.files = files.map(|file| file.canonicalize().unwrap_or(file)).collect();
        Work::Read { arguments: Box::new(arguments) }
    }

    /// Files of the user that the result depends on.
    pub fn files(&self) -> Vec<&Path> {
        match self {
            Work::Read { arguments } => arguments.files.iter().map(PathBuf::as_path).collect(),
            Work::Program(program) => {
                [Some(&program.program), program.script.as_ref()].into_iter().flatten().map(PathBuf::as_path).collect()
            }
            _ => Vec::new(),
        }
    }

    /// One text for equal work, before anything has run.
    pub fn canonical(&self, inputs: &Inputs) -> String {
        match self {
            Work::Trial(trial) => trial.canonical(inputs),
            _ => self.call(inputs, Path::new(""), false).map_or_else(|reason| reason, |call| call.canonical()),
        }
    }

    /// The call. `output` is where its result goes; `resume` lets a training go on from the checkpoint there.
    ///
    /// # Errors
    /// Why there is nothing to do: a search has no trial left to go on with.
    pub fn call(&self, inputs: &Inputs, output: &Path, resume: bool) -> Result<Call, String> {
        let Inputs { place, finished, .. } = inputs;
        let output = output.to_owned();
        Ok(match self {
            Work::Trial(trial) => forecast(task::TRIAL, &trial.task(inputs, &output, resume)?),
            Work::Read { arguments } => table("table.read", &ReadArguments { output, ..(**arguments).clone() }),
            Work::Sql { query, tables } => {
                let tables = tables.iter().map(|(name, number)| (name.clone(), place(*number))).collect();
                table("table.sql", &SqlArguments { query: query.clone(), tables, output })
            }
            Work::Join { left, right, on, how } => {
                table("table.join", &JoinArguments { left: place(*left), right: place(*right), on: on.clone(), how: *how, output })
            }
            Work::Derive { input, arguments } => {
                table("table.derive", &DeriveArguments { input: place(*input), output, ..arguments.clone() })
            }
            Work::Split { input, arguments } => table("table.split", &SplitArguments { input: place(*input), output, ..arguments.clone() }),
            Work::Export { input } => table("table.export", &ExportArguments { input: place(*input), output }),
            Work::Train { input, task } => {
                forecast(task::TRAIN, &TrainTask { table: place(*input), checkpoint: output, resume, ..(**task).clone() })
            }
            Work::Predict { input, model, task } => {
                forecast(task::PREDICT, &PredictTask { table: place(*input), checkpoint: place(*model), output, ..(**task).clone() })
            }
            Work::Evaluate { forecasts, table: source, dataset, stage } => {
                let forecasts = forecasts.iter().filter(|(_, number)| finished(*number));
                let forecasts = forecasts.map(|(model, number)| ForecastTable { model: model.clone(), table: place(*number) }).collect();
                table(
                    "table.evaluate",
                    &EvaluateArguments {
                        forecasts,
                        table: place(*source),
                        dataset: dataset.clone(),
                        metrics: stage.metrics.clone(),
                        baselines: stage.baselines.clone(),
                        season: stage.season,
                        per_series: stage.per_series,
                        units: stage.units,
                        samples: stage.samples,
                        output,
                    },
                )
            }
            Work::Program(program) => program.call(place),
        })
    }
}

fn table<T: Serialize>(name: &'static str, arguments: &T) -> Call {
    Call::Function { pool: TABLE, name, arguments: plain(arguments) }
}

fn forecast<T: Serialize>(name: &'static str, arguments: &T) -> Call {
    Call::Function { pool: FORECAST, name, arguments: plain(arguments) }
}

fn plain<T: Serialize>(arguments: &T) -> Value {
    serde_json::to_value(arguments).expect("arguments are plain data: paths that came from UTF-8, numbers, texts")
}

impl Program {
    pub fn new(stage: &ProgramStage, file: &Path, executables: &Executables, resolve: impl Fn(&Spanned<String>) -> Vec<Part>) -> Program {
        let base = file.parent().filter(|base| !base.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let named = stage.program.as_ref().map_or_else(|| executables.python.clone(), |program| PathBuf::from(&program.value));
        let whole = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        Program {
            // Not resolved to where links lead: a virtual environment's `python` is a link, and must be started by that name.
            program: find(&named, base).map_or(named, whole),
            script: stage.script.as_ref().map(|script| whole(script.value.clone())),
            arguments: stage.arguments.iter().map(&resolve).collect(),
            env: stage.env.iter().map(|(name, text)| (name.clone(), resolve(text))).collect(),
            dir: whole(base.to_owned()),
        }
    }

    /// The tasks whose places its arguments name.
    pub fn places(&self) -> Vec<usize> {
        let parts = self.arguments.iter().chain(self.env.iter().map(|(_, parts)| parts)).flatten();
        let place = |part: &Part| match part {
            Part::Place(number) => Some(*number),
            Part::Text(_) => None,
        };
        parts.filter_map(place).collect()
    }

    fn call(&self, place: &dyn Fn(usize) -> PathBuf) -> Call {
        let text = |parts: &Vec<Part>| {
            let part = |part: &Part| match part {
                Part::Text(text) => text.clone(),
                Part::Place(number) => place(*number).display().to_string(),
            };
            parts.iter().map(part).collect::<String>()
        };
        let script = self.script.iter().map(|script| script.display().to_string());
        let mut env: Vec<(String, String)> = self.env.iter().map(|(name, parts)| (name.clone(), text(parts))).collect();
        if self.script.is_some() {
            // Otherwise what a script prints is seen only at its end.
            env.push(("PYTHONUNBUFFERED".to_owned(), "1".to_owned()));
        }
        Call::Program {
            program: self.program.display().to_string(),
            arguments: script.chain(self.arguments.iter().map(text)).collect(),
            env,
            dir: self.dir.clone(),
        }
    }
}

impl Call {
    /// One text for equal calls.
    pub fn canonical(&self) -> String {
        match self {
            Call::Function { name, arguments, .. } => json!([name, arguments]).to_string(),
            Call::Program { program, arguments, env, dir } => json!([program, arguments, env, dir]).to_string(),
        }
    }
}
