//! Stages name each other: do the names exist, do the kinds fit, is there no circle.

use indexmap::IndexMap;

use super::fields::Spanned;
use super::source::{Faults, nearest_or_all};
use super::stage::{Kind, Stage};
use super::tree::Table;

/// Checks all references and fills in what stages inherit: the tables of a query, time, series and split column of a training.
/// `written` are all stages of the file, also those that could not be read.
pub(crate) fn check(stages: &mut IndexMap<String, Stage>, written: &Table, faults: &Faults) {
    let names: Vec<String> = written.keys().cloned().collect();
    for stage in stages.values_mut() {
        if let Kind::Sql(sql) = &stage.kind {
            let named = names.iter().filter(|name| **name != stage.name && mentions(&sql.query.value, name));
            stage.inputs = named.map(|name| Spanned::new(name.clone(), &sql.query.at)).collect();
        }
    }
    for stage in stages.values() {
        for input in &stage.inputs {
            if !written.contains_key(&input.value) {
                let others = names.iter().map(String::as_str).filter(|name| *name != stage.name);
                let message = format!("unknown stage `{}` in stage `{}`", input.value, stage.name);
                faults.add(&input.at, message, nearest_or_all("stages", &input.value, others));
            } else if let Some(target) = stages.get(&input.value) {
                fits(stage, target, input, faults, stages);
            }
        }
        if let Kind::Sql(sql) = &stage.kind
            && stage.inputs.is_empty()
            && !sql.query.value.is_empty()
        {
            let hint = nearest_or_all("stages", &sql.query.value, names.iter().map(String::as_str).filter(|name| *name != stage.name));
            faults.add(&sql.query.at, format!("the query of stage `{}` names no stage", stage.name), hint);
        }
    }
    circles(stages, faults);
    inherit(stages);
    one_source(stages, faults);
}

/// Does the query use `name` as a word?
fn mentions(query: &str, name: &str) -> bool {
    let word = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == '-';
    query.match_indices(name).any(|(start, found)| {
        !query[..start].ends_with(word) && !query[start + found.len()..].starts_with(word) && !query[..start].ends_with(['.', '\''])
    })
}

/// Is `target` of a kind that `stage` can use?
fn fits(stage: &Stage, target: &Stage, input: &Spanned<String>, faults: &Faults, stages: &IndexMap<String, Stage>) {
    let (wanted, kind) = match &stage.kind {
        Kind::Predict(predict) if predict.model.at == input.at => ("a train stage", "train"),
        Kind::Evaluate(_) => ("predict stages", "predict"),
        Kind::Program(program)
            if program.arguments.iter().chain(program.env.iter().map(|(_, text)| text)).all(|text| text.at != input.at) =>
        {
            return;
        }
        _ if target.kind.makes_table() => return one_table(stage, target, input, faults, stages),
        _ => ("a stage that makes a table", ""),
    };
    if target.kind.word() == kind {
        return;
    }
    let fitting = |other: &&Stage| if kind.is_empty() { other.kind.makes_table() } else { other.kind.word() == kind };
    let fitting: Vec<&str> = stages.values().filter(fitting).map(|other| other.name.as_str()).filter(|name| *name != stage.name).collect();
    let hint = (!fitting.is_empty()).then(|| format!("for example `{}`", fitting.join("`, `")));
    let message = format!("stage `{}` needs {wanted}, `{}` is of kind {}", stage.name, target.name, target.kind.word());
    faults.add(&input.at, message, hint);
}

/// Forecasts of a matrix are several tables: only `evaluate` takes them all.
fn one_table(stage: &Stage, target: &Stage, input: &Spanned<String>, faults: &Faults, stages: &IndexMap<String, Stage>) {
    let Kind::Predict(predict) = &target.kind else { return };
    if let Some(Kind::Train(train)) = stages.get(&predict.model.value).map(|train| &train.kind)
        && train.cells.len() > 1
    {
        let message =
            format!("stage `{}` needs one table, `{}` makes {} (one per cell of the matrix)", stage.name, target.name, train.cells.len());
        faults.add(&input.at, message, "an evaluate stage takes them all".to_owned());
    }
}

/// All forecasts of an evaluate stage belong to one table, from which the baselines come.
fn one_source(stages: &IndexMap<String, Stage>, faults: &Faults) {
    for stage in stages.values() {
        let Kind::Evaluate(evaluate) = &stage.kind else { continue };
        let source = |input: &Spanned<String>| match &stages.get(&input.value)?.kind {
            Kind::Predict(predict) => match &stages.get(&predict.model.value)?.kind {
                Kind::Train(train) => Some((predict.input.as_ref().map_or(&train.input.value, |name| &name.value), &train.dataset)),
                _ => None,
            },
            _ => None,
        };
        let Some(first) = evaluate.input.first().and_then(source) else { continue };
        for input in &evaluate.input[1..] {
            if source(input).is_some_and(|other| other != first) {
                let message = format!("stage `{}` compares forecasts of different tables or columns", stage.name);
                faults.add(&input.at, message, format!("evaluate `{}` in a stage of its own", input.value));
            }
        }
    }
}

/// Reports every circle once, at the first of its stages in the file.
fn circles(stages: &IndexMap<String, Stage>, faults: &Faults) {
    for (number, start) in stages.values().enumerate() {
        if let Some(path) = way_back(stages, &start.name)
            && path.iter().all(|name| stages.get_index_of(name).is_some_and(|other| other >= number))
        {
            let shown = path.iter().chain([&start.name]).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" needs ");
            faults.add(&start.at, format!("stages need each other in a circle: {shown}"), None);
        }
    }
}

/// The shortest way from a stage over its inputs back to itself.
fn way_back(stages: &IndexMap<String, Stage>, start: &str) -> Option<Vec<String>> {
    let mut paths = vec![vec![start.to_owned()]];
    let mut seen = std::collections::HashSet::new();
    while !paths.is_empty() {
        let mut longer = Vec::new();
        for path in paths {
            let last = path.last().and_then(|name| stages.get(name));
            for input in last.into_iter().flat_map(|stage| &stage.inputs) {
                if input.value == start {
                    return Some(path);
                }
                if seen.insert(input.value.clone()) {
                    longer.push([path.as_slice(), std::slice::from_ref(&input.value)].concat());
                }
            }
        }
        paths = longer;
    }
    None
}

/// A training takes time and series from the split stage before it unless it names them, and uses its column `split`.
fn inherit(stages: &mut IndexMap<String, Stage>) {
    let splits: Vec<(String, Option<SplitColumns>)> =
        stages.values().map(|stage| (stage.name.clone(), split_before(stages, stage, 0))).collect();
    for (name, split) in splits {
        let Some(stage) = stages.get_mut(&name) else { continue };
        let (Kind::Train(train), Some(split)) = (&mut stage.kind, split) else { continue };
        let columns = &mut train.columns;
        if columns.time.at == stage.at {
            columns.time.value.clone_from(&split.time);
            train.dataset.columns.time = split.time;
        }
        if columns.series.is_none() && split.series.is_some() {
            columns.series = split.series.as_ref().map(|series| Spanned::new(series.clone(), &stage.at));
            train.dataset.columns.series = split.series;
        }
        train.dataset.columns.split = Some("split".to_owned());
    }
}

struct SplitColumns {
    time: String,
    series: Option<String>,
}

/// The nearest split stage that a stage's table comes from.
fn split_before(stages: &IndexMap<String, Stage>, stage: &Stage, depth: usize) -> Option<SplitColumns> {
    // A circle was reported already; here it only must not run for ever.
    if depth > stages.len() {
        return None;
    }
    stage.inputs.iter().find_map(|input| {
        let before = stages.get(&input.value)?;
        match &before.kind {
            Kind::Split(split) => {
                Some(SplitColumns { time: split.time.value.clone(), series: split.series.as_ref().map(|name| name.value.clone()) })
            }
            Kind::Sql(_) | Kind::Join(_) | Kind::Derive(_) => split_before(stages, before, depth + 1),
            _ => None,
        }
    })
}
