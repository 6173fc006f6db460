//! The stages that make and judge forecasts: train, predict, evaluate.

use deeprc_forecast::config::{self, OptionError};
use deeprc_forecast::task::Intervals;
use deeprc_loader::{Columns, DatasetOptions, Frequency, Part};
use serde_json::{Map, Value as Json};

use super::fields::{Fields, Names, Spanned};
use super::search;
use super::source::At;
use super::stage::{Cell, EvaluateStage, PredictStage, TrainColumns, TrainStage};
use super::tree::{Entry, Node, Value};

/// Reads a train stage. `time` and `series` may be inherited from a split stage later: see `Pipeline`.
pub(crate) fn train(fields: &Fields, seed: u64) -> TrainStage {
    let input = fields.required("input", "the name of a stage");
    let time = fields.string("time").unwrap_or_else(|| Spanned::new("ds".to_owned(), &fields.at));
    let series = fields.string("series");
    let targets = [fields.strings("target"), fields.strings("targets")].concat();
    let targets = if targets.is_empty() { vec![Spanned::new("y".to_owned(), &fields.at)] } else { targets };
    let columns = TrainColumns {
        time,
        series,
        targets,
        hist: fields.strings("hist"),
        futr: fields.strings("futr"),
        stat: fields.strings("stat"),
        weight: fields.string("weight"),
    };
    let plain = |names: &Names| names.iter().map(|name| name.value.clone()).collect();
    let dataset = DatasetOptions {
        columns: Columns {
            series: columns.series.as_ref().map(|name| name.value.clone()),
            time: columns.time.value.clone(),
            targets: plain(&columns.targets),
            hist: plain(&columns.hist),
            futr: plain(&columns.futr),
            stat: plain(&columns.stat),
            weight: columns.weight.as_ref().map(|name| name.value.clone()),
            split: None,
        },
        frequency: fields.string("frequency").and_then(|text| frequency(fields, &text)),
        gaps: fields.choice("gaps", &["raise", "fill", "mask"]).unwrap_or_default(),
        nulls: fields.choice("nulls", &["raise", "fill", "mask"]).unwrap_or_default(),
        on_bad_series: fields.choice("on_bad_series", &["raise", "skip"]).unwrap_or_default(),
        constant: fields.choice("constant", &["raise", "keep"]).unwrap_or_default(),
    };
    let cells = cells(fields, seed);
    TrainStage { input, columns, dataset, cells }
}

fn frequency(fields: &Fields, text: &Spanned<String>) -> Option<Frequency> {
    let frequency = text.value.parse().ok();
    if frequency.is_none() {
        let hint = "a count and a unit: 15min, 1h, 1d, 1w, 1mo, 1y".to_owned();
        fields.faults.add(&text.at, format!("\"{}\" is no frequency", text.value), hint);
    }
    frequency
}

/// One key and value of a cell: which option, what, and where it was written.
type Setting<'a> = (&'a str, &'a Node, At);

/// The trainings of the stage: the product of the lists of `matrix`, each with the options of the stage, of
/// `options.<model>` and of its place in the matrix, in that order of precedence from low to high.
fn cells(fields: &Fields, seed: u64) -> Vec<Cell> {
    let model = fields.string("model");
    let axes = axes(fields);
    let per_model = fields.table("options");
    let varied = axes.iter().any(|(name, _)| *name == "model");
    if let (Some(model), true) = (&model, varied) {
        let hint = "leave out `model`, the matrix names them".to_owned();
        fields.faults.add(&model.at, format!("{} has a model and a matrix over models", fields.what), hint);
    } else if model.is_none() && !varied && !fields.table.contains_key("model") {
        let hint = "for example model = \"nhits\"; `deeprc models` lists them";
        fields.missing("model", hint);
    }
    if let Some(per_model) = &per_model {
        for (name, entry) in per_model.table {
            if !config::ModelName::ALL.iter().any(|model| model.as_str() == name) {
                let names: Vec<&str> = config::ModelName::ALL.iter().map(|model| model.as_str()).collect();
                let hint = super::source::nearest_or_all("models", name, names);
                fields.faults.add(&entry.key, format!("unknown model `{name}` in {}", per_model.what), hint);
            }
        }
    }
    let names = model
        .iter()
        .map(|model| model.value.clone())
        .chain(axes.iter().filter(|(name, _)| *name == "model").flat_map(|(_, nodes)| nodes.iter().map(text)));
    let known: Vec<config::ModelName> =
        names.filter_map(|name| config::ModelName::ALL.iter().copied().find(|model| model.as_str() == name)).collect();
    let search = search::search(fields, &known, seed);
    let shared: Vec<(&String, &Entry)> = fields.rest().collect();
    let mut result = Vec::new();
    for place in product(&axes) {
        let chosen = place.iter().find(|(name, ..)| *name == "model").map(|(_, node, at)| (text(node), at.clone()));
        let Some((name, name_at)) = chosen.or_else(|| model.as_ref().map(|model| (model.value.clone(), model.at.clone()))) else {
            continue;
        };
        let own = per_model.as_ref().and_then(|inner| inner.table.get(&name)).and_then(|entry| match &entry.node.value {
            Value::Table(table) => Some(table),
            _ => None,
        });
        let settings = shared.iter().map(|(key, entry)| (key.as_str(), &entry.node, entry.key.clone()));
        let settings =
            settings.chain(own.into_iter().flatten().map(|(key, entry): (&String, &Entry)| (key.as_str(), &entry.node, entry.key.clone())));
        let settings: Vec<Setting> = settings.chain(place.iter().filter(|(name, ..)| *name != "model").cloned()).collect();
        if let Some((model, train)) = configure(fields, (&name, &name_at), &settings, seed) {
            let axes: Vec<Setting> = place.iter().filter(|(name, ..)| *name != "model").cloned().collect();
            let fixed: Vec<&str> = settings.iter().map(|(key, ..)| *key).collect();
            let search = search.clone().map(|search| {
                let space = search.space(model.name(), model.h(), &fixed);
                (search, space)
            });
            result.push(Cell { label: label(&place), axes: label(&axes), model, train, search });
        }
    }
    result
}

fn configure(
    fields: &Fields,
    (name, at): (&str, &At),
    settings: &[Setting],
    seed: u64,
) -> Option<(config::ModelConfig, config::TrainConfig)> {
    let mut options = Map::new();
    options.insert("seed".into(), seed.into());
    for (key, node, _) in settings {
        options.insert((*key).to_owned(), node.json());
    }
    match config::configure(name, &options) {
        Ok(configured) => Some(configured),
        Err(errors) => {
            for error in errors {
                report(fields, name, at, settings, &error);
            }
            None
        }
    }
}

fn report(fields: &Fields, model: &str, model_at: &At, settings: &[Setting], error: &OptionError) {
    let setting = settings.iter().rev().find(|(key, ..)| *key == error.key);
    let unknown = error.message.starts_with("unknown");
    let at = match setting {
        Some((_, _, key)) if unknown => key,
        Some((_, node, _)) => &node.at,
        None => model_at,
    };
    let mut hint = error.hint.clone();
    if let (Some(_), true) = (setting, unknown) {
        // The key may also be one of ours, misspelt.
        if let Some(near) = super::source::did_you_mean(&error.key, fields.known().into_iter().filter(|key| *key != "kind"))
            && !hint.as_deref().is_some_and(|hint| hint.starts_with("did you mean"))
        {
            hint = Some(near);
        }
        if let Some(text) = hint.as_mut().filter(|hint| !hint.contains("deeprc models")) {
            *text += &format!(" `deeprc models {model}` lists every option");
        }
    }
    if let (Some((key, node, _)), Some(kind)) =
        (setting, hint.as_deref().and_then(|hint| hint.strip_prefix(&format!("`{}` is ", error.key))))
        && error.message.contains("invalid type")
    {
        let kind = kind.split_once(',').map_or(kind, |(kind, _)| kind).to_owned();
        return fields.faults.add(at, format!("`{key}` of {} is {kind}, this is {}", fields.what, node.kind()), hint);
    }
    let place = if setting.is_some() { format!("{} in {}", error.message, fields.what) } else { error.message.clone() };
    fields.faults.add(at, place, hint);
}

/// The lists of `matrix`.
fn axes<'a>(fields: &Fields<'a>) -> Vec<(&'a str, &'a [Node])> {
    let Some(matrix) = fields.table("matrix") else { return Vec::new() };
    let axis = |(name, entry): (&'a String, &'a Entry)| match &entry.node.value {
        Value::Array(items) if !items.is_empty() => Some((name.as_str(), items.as_slice())),
        _ => {
            fields.faults.add(&entry.node.at, format!("`{name}` in the matrix of {} is a list of values to try", fields.what), None);
            None
        }
    };
    matrix.table.iter().filter_map(axis).collect()
}

fn product<'a>(axes: &[(&'a str, &'a [Node])]) -> Vec<Vec<Setting<'a>>> {
    axes.iter().fold(vec![Vec::new()], |places, (name, values)| {
        let extended =
            places.iter().flat_map(|place| values.iter().map(move |node| [place.as_slice(), &[(*name, node, node.at.clone())]].concat()));
        extended.collect()
    })
}

fn label(place: &[Setting]) -> String {
    let part = |(name, node, _): &Setting| if *name == "model" { text(node) } else { format!("{name}={}", text(node)) };
    place.iter().map(part).collect::<Vec<_>>().join(",")
}

fn text(node: &Node) -> String {
    match node.json() {
        Json::String(text) => text,
        other => other.to_string(),
    }
}

pub(crate) fn predict(fields: &Fields) -> PredictStage {
    PredictStage {
        model: fields.required("model", "the name of a train stage"),
        input: fields.string("input"),
        part: fields.choice("part", &["train", "validation", "test", "all"]).unwrap_or(Part::Test),
        step: fields.integer("step", 1.., "at least 1").unwrap_or(1) as usize,
        intervals: intervals(fields),
        best: fields.choice::<String>("weights", &["best", "last"]).is_none_or(|word| word == "best"),
    }
}

/// Conformal intervals: `level = [80, 90]` asks for them, the other keys say how.
fn intervals(fields: &Fields) -> Option<Intervals> {
    let level = fields.integers("level");
    let method = fields.choice("method", &["conformal_distribution", "conformal_error"]).unwrap_or_default();
    let n_windows = fields.integer("n_windows", 2.., "at least 2").unwrap_or(2) as usize;
    let step_size = fields.integer("step_size", 1.., "at least 1").unwrap_or(1) as usize;
    if level.iter().any(|level| !(1..100).contains(level)) {
        let hint = "for example level = [80, 90]".to_owned();
        fields.faults.add(&fields.at, format!("`level` of {} must be percentages between 1 and 99", fields.what), hint);
        return None;
    }
    let level: Vec<f64> = level.into_iter().map(|level| level as f64).collect();
    (!level.is_empty()).then(|| Intervals { method, n_windows, step_size, ..Intervals::new(&level) })
}

pub(crate) fn evaluate(fields: &Fields) -> EvaluateStage {
    let input = fields.strings("input");
    if input.is_empty() {
        fields.missing("input", "the name of a predict stage, or a list of them");
    }
    let metrics = fields.choices("metrics", &["mse", "mae", "rmse", "mape", "smape", "mase", "nse", "nnse", "kge"]);
    let metrics = if fields.table.contains_key("metrics") {
        metrics
    } else {
        serde_json::from_value(serde_json::json!(["mse", "mae"])).unwrap_or(metrics)
    };
    EvaluateStage {
        input,
        metrics,
        baselines: fields.choices("baseline", &["seasonal-naive", "persistence"]),
        season: fields.integer("season", 1.., "at least 1").unwrap_or(1) as usize,
        per_series: fields.boolean("per_series").unwrap_or(false),
        units: fields.choice("units", &["table", "original"]).unwrap_or_default(),
        samples: fields.integer("samples", 0.., "0 or more").unwrap_or(4) as usize,
    }
}
