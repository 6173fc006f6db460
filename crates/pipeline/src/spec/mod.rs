//! The pipeline file: from text to stages, with everything that is wrong in it.

mod fields;
mod models;
mod programs;
mod references;
mod search;
mod source;
mod stage;
mod tables;
mod tree;

use std::fs;
use std::path::Path;
use std::time::Duration;

use deeprc_comm::CommSpec;
use indexmap::IndexMap;

pub(crate) use fields::{Names, Spanned};
pub(crate) use programs::{Piece, pieces};
pub(crate) use search::Search;
pub(crate) use source::{At, Faults, Source, did_you_mean, nearest_or_all};
pub(crate) use stage::{
    Cell, DeriveStage, EvaluateStage, JoinStage, Kind, PredictStage, ProgramStage, ReadStage, Resources, SplitStage, SqlStage, Stage,
    TrainStage,
};

use self::fields::Fields;
use self::tree::{Table, Value};
use crate::diagnostic::{Diagnostic, Exit};

const KINDS: [&str; 10] = ["read", "sql", "join", "derive", "split", "train", "predict", "evaluate", "command", "python"];

/// A pipeline file, read and validated.
#[derive(Debug, Clone)]
pub struct Pipeline {
    name: String,
    pub(crate) source: Source,
    /// In the order of the file.
    pub(crate) stages: IndexMap<String, Stage>,
}

impl Pipeline {
    /// Reads a pipeline file. `overrides` are the `--set key=value` of the command line: `key` is a parameter (`source`) or a path
    /// (`stage.fit.max_steps`, or `fit.max_steps` for short).
    ///
    /// # Errors
    /// Everything that is wrong with the file, in its order.
    pub fn load(file: &Path, overrides: &[(String, String)]) -> Result<Pipeline, Vec<Diagnostic>> {
        let text = fs::read_to_string(file).map_err(|error| vec![unreadable(file, &error)])?;
        Pipeline::parse(file, text, overrides)
    }

    /// The same for a text that would stand in `file`.
    ///
    /// # Errors
    /// Everything that is wrong with the text.
    pub fn parse(file: &Path, text: String, overrides: &[(String, String)]) -> Result<Pipeline, Vec<Diagnostic>> {
        let overrides = overrides.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let source = Source { file: file.to_owned(), text, overrides };
        let faults = Faults::new(&source);
        let root = tree::read(&source, &faults).map_err(|fault| vec![*fault])?;
        let (name, stages) = walk(&root, &faults, file);
        let faults = faults.sorted();
        if faults.is_empty() { Ok(Pipeline { name, stages, source }) } else { Err(faults) }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its file, as it was given.
    pub fn file(&self) -> &Path {
        &self.source.file
    }

    /// The text of its file.
    pub fn text(&self) -> &str {
        &self.source.text
    }
}

fn unreadable(file: &Path, error: &std::io::Error) -> Diagnostic {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let names: Vec<String> =
        fs::read_dir(folder).into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    let wanted = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let near = names.iter().map(String::as_str).filter(|name| name.ends_with(".toml"));
    Diagnostic {
        file: file.to_owned(),
        line: 0,
        column: 0,
        length: 0,
        message: match error.kind() {
            std::io::ErrorKind::NotFound => "there is no such pipeline file".to_owned(),
            _ => format!("cannot read the pipeline file: {}", error.to_string().to_lowercase()),
        },
        source_line: String::new(),
        hint: did_you_mean(wanted, near),
        exit: Exit::Config,
    }
}

fn walk(root: &Table, faults: &Faults, file: &Path) -> (String, IndexMap<String, Stage>) {
    let top = Fields::new(faults, root, "the pipeline", &At::File(0, 0));
    let name = top.required("name", "for example name = \"forecast\"");
    let allowed = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
    if !name.value.chars().all(allowed) {
        let fixed: String = name.value.to_lowercase().chars().map(|letter| if allowed(letter) { letter } else { '-' }).collect();
        faults.add(&name.at, "a name is made of a-z, 0-9 and `-`", format!("for example \"{fixed}\""));
    }
    let seed = top.integer("seed", 0.., "0 or more").unwrap_or(1) as u64;
    top.node("params").filter(|node| !matches!(node.value, Value::Table(_))).inspect(|node| {
        faults.add(&node.at, format!("`params` is a table, this is {}", node.kind()), None);
    });
    let mut stages = IndexMap::new();
    match top.table("stage") {
        Some(table) => {
            for (name, entry) in table.table {
                if let Some(stage) = stage(name, entry, faults, file, seed) {
                    stages.insert(name.clone(), stage);
                }
            }
            if table.table.is_empty() {
                faults.add(&table.at, "the pipeline has no stages", None);
            }
            references::check(&mut stages, table.table, faults);
        }
        None if !root.contains_key("stage") => top.missing("stage", "stages begin with a line such as [stage.loads]"),
        None => {}
    }
    top.finish();
    (name.value, stages)
}

/// Reads `[stage.NAME]`; `None` when its kind is not known.
fn stage(name: &str, entry: &tree::Entry, faults: &Faults, file: &Path, seed: u64) -> Option<Stage> {
    let Value::Table(table) = &entry.node.value else {
        faults.add(&entry.node.at, format!("`stage.{name}` is a table, this is {}", entry.node.kind()), format!("write [stage.{name}]"));
        return None;
    };
    if !name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_' || letter == '-') {
        faults.add(&entry.key, format!("stage name `{name}`: only letters, digits, `_` and `-`"), None);
    }
    let fields = Fields::new(faults, table, format!("stage `{name}`"), &entry.key);
    let word = fields.required("kind", &format!("one of {}", KINDS.join(", ")));
    let needs = resources(&fields);
    let base = file.parent().unwrap_or(Path::new(""));
    let (kind, inputs) = match word.value.as_str() {
        "read" => (Kind::Read(tables::read(&fields, base)), Names::new()),
        // The tables of a query are found by `references`, which knows all stages.
        "sql" => (Kind::Sql(tables::sql(&fields)), Names::new()),
        "join" => {
            let stage = tables::join(&fields);
            let inputs = vec![stage.left.clone(), stage.right.clone()];
            (Kind::Join(stage), inputs)
        }
        "derive" => {
            let stage = tables::derive(&fields);
            let inputs = vec![stage.input.clone()];
            (Kind::Derive(stage), inputs)
        }
        "split" => {
            let stage = tables::split(&fields, seed);
            let inputs = vec![stage.input.clone()];
            (Kind::Split(stage), inputs)
        }
        "train" => {
            let stage = models::train(&fields, seed);
            let inputs = vec![stage.input.clone()];
            (Kind::Train(stage), inputs)
        }
        "predict" => {
            let stage = models::predict(&fields);
            let inputs = [stage.model.clone()].into_iter().chain(stage.input.clone()).collect();
            (Kind::Predict(stage), inputs)
        }
        "evaluate" => {
            let stage = models::evaluate(&fields);
            let inputs = stage.input.clone();
            (Kind::Evaluate(stage), inputs)
        }
        "command" | "python" => {
            let stage = if word.value == "command" { programs::command(&fields) } else { programs::python(&fields, base) };
            let inputs = programs::inputs(&fields, &stage);
            (Kind::Program(stage), inputs)
        }
        unknown => {
            if !unknown.is_empty() {
                faults.add(&word.at, format!("unknown kind \"{unknown}\" of stage `{name}`"), nearest_or_all("kinds", unknown, KINDS));
            }
            return None;
        }
    };
    check_built_in(&fields, &kind, needs.comm);
    // What a train stage does not know is an option of its model, and was reported there.
    if !matches!(kind, Kind::Train(_)) {
        fields.finish();
    }
    let inputs = inputs.into_iter().filter(|input| !input.value.is_empty()).collect();
    Some(Stage { name: name.to_owned(), at: entry.key.clone(), kind, needs, inputs })
}

fn resources(fields: &Fields) -> Resources {
    let count = |key, default: i64, least: i64, rule| {
        let value = fields.integer(key, least..=1_000_000_000, rule).unwrap_or(default);
        (value as u64, fields.place(key))
    };
    let small = |(value, at): (u64, At)| Spanned { value: value as u32, at };
    let gpus = fields.number("gpus", "0 or more: whole GPUs, or a share such as 0.5", |gpus| (0.0..=1024.0).contains(&gpus));
    let timeout = fields.number("timeout", "a positive number of seconds", |seconds| seconds > 0.0 && seconds < 1e9);
    Resources {
        ranks: small(count("ranks", 1, 1, "at least 1")),
        cores: small(count("cores", 1, 1, "at least 1")),
        gpus: Spanned { value: gpus.map_or(0, |gpus| (gpus * 100.0).round() as u32), at: fields.place("gpus") },
        memory: {
            let (value, at) = count("memory", 0, 0, "MiB per rank");
            Spanned { value, at }
        },
        timeout: timeout.map(Duration::from_secs_f64),
        retries: count("retries", 0, 0, "0 or more").0 as u32,
        priority: fields.integer("priority", -1000..=1000, "between -1000 and 1000").unwrap_or(0) as i32,
        comm: comm(fields),
    }
}

/// How the ranks of a stage talk to each other: they are processes that an agent starts.
fn comm(fields: &Fields) -> Option<CommSpec> {
    let name = fields.string("comm")?;
    let wrong = |message: String, hint: String| fields.faults.add(&name.at, message, Some(hint));
    match name.value.parse() {
        Ok(CommSpec::Threads) => {
            wrong(format!("the ranks of {} are processes, not threads", fields.what), "use \"shm\" or \"auto\"".to_owned());
        }
        Ok(CommSpec::Mpi) => wrong(
            format!("the ranks of {} are not started by mpirun", fields.what),
            "use \"auto\", \"shm\", \"gloo\" or \"ucx\", or run a program of your own with mpirun in a stage of kind \"command\""
                .to_owned(),
        ),
        Ok(spec) => return Some(spec),
        Err(error) => {
            let text = error.to_string();
            let (message, hint) = text.split_once("\nhint: ").unwrap_or((&text, "leave it out"));
            wrong(message.to_owned(), hint.to_owned());
        }
    }
    None
}

/// The rank program of table stages is this one; what it lacks is said before anything runs.
fn check_built_in(fields: &Fields, kind: &Kind, comm: Option<CommSpec>) {
    let tables = !matches!(kind, Kind::Train(_) | Kind::Predict(_) | Kind::Program(_));
    if let (true, Some(Err(error))) = (tables, comm.map(CommSpec::check_built_in)) {
        let text = error.to_string();
        let (message, hint) = text.split_once("\nhint: ").unwrap_or((&text, ""));
        fields.faults.add(&fields.place("comm"), message.to_owned(), Some(hint.to_owned()));
    }
}
