//! Follows the columns from the heads of the files through all stages.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use deeprc_table::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use deeprc_table::plan_schema;

use super::{Schemas, derived};
use crate::functions::{Format, How};
use crate::spec::{
    EvaluateStage, Faults, JoinStage, Kind, Names, Pipeline, PredictStage, ReadStage, Spanned, SplitStage, SqlStage, Stage, TrainStage,
    did_you_mean, nearest_or_all,
};

/// Reports absent files and columns and returns the columns of every stage that makes a table.
pub(crate) fn check(pipeline: &Pipeline, faults: &Faults) -> Schemas {
    let mut schemas = Schemas::new();
    for stage in pipeline.in_order() {
        let schema = match &stage.kind {
            Kind::Read(read) => self::read(read, faults),
            Kind::Sql(sql) => self::sql(stage, sql, &schemas, faults),
            Kind::Join(join) => self::join(join, &schemas, faults),
            Kind::Derive(derive) => known(&schemas, &derive.input).and_then(|schema| derived::columns(derive, schema, faults)),
            Kind::Split(split) => known(&schemas, &split.input).map(|schema| self::split(split, &schema, faults)),
            Kind::Train(train) => {
                self::train(stage, train, &schemas, faults);
                None
            }
            Kind::Predict(predict) => self::predict(predict, pipeline, &schemas, faults),
            Kind::Evaluate(evaluate) => self::evaluate(evaluate),
            Kind::Program(_) => None,
        };
        schemas.insert(stage.name.clone(), schema);
    }
    schemas
}

/// The columns of the table that stage `name` makes.
fn known(schemas: &Schemas, name: &Spanned<String>) -> Option<SchemaRef> {
    schemas.get(&name.value).cloned().flatten()
}

/// Reports a column that is not there; returns it when it is.
pub(super) fn need<'s>(schema: &'s Schema, column: &Spanned<String>, of: &str, faults: &Faults) -> Option<&'s Field> {
    let field = schema.field_with_name(&column.value).ok();
    if field.is_none() {
        let names = schema.fields().iter().map(|field| field.name().as_str());
        faults.add(&column.at, format!("no column `{}` in {of}", column.value), nearest_or_all("columns", &column.value, names));
    }
    field
}

/// The files that a read stage's patterns mean, in the order of their names.
pub(crate) fn files(read: &ReadStage, faults: &Faults) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for pattern in &read.files {
        let found = expand(&pattern.value);
        if found.is_empty() {
            let shown = pattern.value.display();
            let message = if is_pattern(&pattern.value) { format!("no file matches {shown}") } else { format!("no file {shown}") };
            faults.add(&pattern.at, message, near_file(&pattern.value));
        }
        files.extend(found);
    }
    files
}

fn is_pattern(path: &Path) -> bool {
    path.to_string_lossy().contains(['*', '?'])
}

fn near_file(path: &Path) -> Option<String> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !is_pattern(folder) && !folder.is_dir() {
        return Some(format!("there is no directory {}", folder.display()));
    }
    let names: Vec<String> = std::fs::read_dir(folder).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    let wanted = path.file_name()?.to_str()?;
    did_you_mean(wanted, names.iter().map(String::as_str))
        .or_else(|| Some("paths are relative to the pipeline file; those typed with --set, to the current directory".into()))
}

/// Paths that match a pattern with `*` and `?` in any of its parts; the path itself where it is no pattern.
pub(crate) fn expand(pattern: &Path) -> Vec<PathBuf> {
    if !is_pattern(pattern) {
        return pattern.exists().then(|| pattern.to_owned()).into_iter().collect();
    }
    let mut found = vec![PathBuf::new()];
    for part in pattern.components() {
        let text = part.as_os_str().to_string_lossy();
        if !text.contains(['*', '?']) {
            found.iter_mut().for_each(|path| path.push(part));
            continue;
        }
        let matching = |folder: &PathBuf| {
            let here = if folder.as_os_str().is_empty() { Path::new(".") } else { folder.as_path() };
            let entries = std::fs::read_dir(here).into_iter().flatten().filter_map(Result::ok);
            let names = entries.map(|entry| entry.file_name()).filter(|name| matches(&text, &name.to_string_lossy()));
            names.map(|name| folder.join(name)).collect::<Vec<_>>()
        };
        found = found.iter().flat_map(matching).collect();
    }
    found.retain(|path| path.exists());
    found.sort();
    found
}

/// Does `name` match `pattern`, in which `*` stands for any letters and `?` for one?
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.chars().next() {
        None => name.is_empty(),
        Some('*') => {
            let rest = &pattern[1..];
            // As in a shell, a leading `*` does not mean hidden files.
            (0..=name.len()).filter(|end| name.is_char_boundary(*end)).any(|end| matches(rest, &name[end..]))
                && !(name.starts_with('.') && rest != name)
        }
        Some(first) => name
            .chars()
            .next()
            .is_some_and(|letter| (first == '?' || first == letter) && matches(&pattern[first.len_utf8()..], &name[letter.len_utf8()..])),
    }
}

fn read(read: &ReadStage, faults: &Faults) -> Option<SchemaRef> {
    let before = faults.count();
    let files = files(read, faults);
    if faults.count() > before {
        return None;
    }
    let at = read.files.first().map(|file| file.at.clone());
    let mut arguments = read.arguments.clone();
    // A declared type of a column that is not there is a fault of the declaration, found below.
    let types = std::mem::take(&mut arguments.types);
    let mut first: Option<Schema> = None;
    // Of very many files, the first ones tell what the others are.
    let looks: Vec<Vec<PathBuf>> = match (arguments.format, files.is_empty()) {
        (_, true) | (Format::Camels, _) => vec![files],
        _ => files.into_iter().take(16).map(|file| vec![file]).collect(),
    };
    for look in looks {
        arguments.files = look;
        match crate::functions::read_schema(&arguments) {
            Ok(schema) => match &first {
                None => first = Some(schema),
                Some(first) => same_columns(first, &schema, &arguments.files[0], at.as_ref(), faults),
            },
            Err(error) => {
                let at = at.as_ref()?;
                faults.add(at, error.to_string(), error.hint());
                return None;
            }
        }
    }
    let schema = first?;
    let declared = |field: &Arc<Field>| match types.get(field.name()) {
        Some(kind) => Arc::new(Field::clone(field).with_data_type(kind.data_type())),
        None => field.clone(),
    };
    for name in &read.types {
        need(&schema, name, "the file", faults);
    }
    Some(Arc::new(Schema::new(schema.fields().iter().map(declared).collect::<Vec<_>>())))
}

fn same_columns(first: &Schema, other: &Schema, file: &Path, at: Option<&crate::spec::At>, faults: &Faults) {
    let names = |schema: &Schema| schema.fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
    if let (Some(at), true) = (at, names(first) != names(other)) {
        let message =
            format!("{} has the columns {}, the first file has {}", file.display(), names(other).join(", "), names(first).join(", "));
        faults.add(at, message, "files of one stage have the same columns; read others in a stage of their own".to_owned());
    }
}

fn sql(stage: &Stage, sql: &SqlStage, schemas: &Schemas, faults: &Faults) -> Option<SchemaRef> {
    let tables: Option<Vec<(&str, SchemaRef)>> =
        stage.inputs.iter().map(|input| Some((input.value.as_str(), known(schemas, input)?))).collect();
    match plan_schema(&sql.query.value, &tables?) {
        Ok(schema) => Some(schema),
        Err(error) => {
            faults.add(&sql.query.at, format!("{} in the query of stage `{}`", spoken(&error), stage.name), error.hint());
            None
        }
    }
}

/// The parser names places in a text that the user did not write like that: the expression is wrapped into a query.
pub(super) fn spoken(error: &deeprc_table::Error) -> String {
    let text = error.to_string();
    match text.split_once(" at Line: ") {
        Some((what, _)) => format!("not SQL: {what}"),
        None => text,
    }
}

fn join(join: &JoinStage, schemas: &Schemas, faults: &Faults) -> Option<SchemaRef> {
    let (left, right) = (known(schemas, &join.left), known(schemas, &join.right));
    let before = faults.count();
    for column in &join.on {
        let side = |schema: &Option<SchemaRef>, name: &Spanned<String>| {
            schema.as_ref().and_then(|schema| need(schema, column, &format!("the table of stage `{}`", name.value), faults).cloned())
        };
        if let (Some(a), Some(b)) = (side(&left, &join.left), side(&right, &join.right))
            && is_text(a.data_type()) != is_text(b.data_type())
        {
            let message =
                format!("`{}` is {} in `{}` and {} in `{}`", column.value, a.data_type(), join.left.value, b.data_type(), join.right.value);
            faults.add(
                &column.at,
                message,
                format!("make them equal in a derive stage, e.g. with = {{ {} = \"cast({} as varchar)\" }}", column.value, column.value),
            );
        }
    }
    let (left, right) = (left?, right?);
    if faults.count() > before {
        return None;
    }
    if matches!(join.how, How::Semi | How::Anti) {
        return Some(left);
    }
    let is_key = |field: &Arc<Field>| join.on.iter().any(|column| column.value == *field.name());
    // As `Table::join`: keys, the left columns, the right columns; a name that both have gets a suffix on the right.
    let mut fields: Vec<Arc<Field>> =
        join.on.iter().filter_map(|key| left.field_with_name(&key.value).ok()).cloned().map(Arc::new).collect();
    fields.extend(left.fields().iter().filter(|field| !is_key(field)).cloned());
    for field in right.fields().iter().filter(|field| !is_key(field)) {
        let mut name = field.name().clone();
        if left.field_with_name(&name).is_ok() {
            name += "_right";
            if left.field_with_name(&name).is_ok() || right.field_with_name(&name).is_ok() {
                let message = format!("both tables have a column `{}`, and `{name}` is taken too", field.name());
                faults.add(&join.right.at, message, "rename or drop it on one side in a derive stage".to_owned());
                return None;
            }
        }
        fields.push(Arc::new(Field::clone(field).with_name(name)));
    }
    Some(Arc::new(Schema::new(fields)))
}

fn is_text(kind: &DataType) -> bool {
    matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn stamp(schema: &Schema, time: &Spanned<String>, of: &str, faults: &Faults) {
    if let Some(field) = need(schema, time, of, faults)
        && !field.data_type().is_temporal()
    {
        let hint = "declare its type where it is read (types = { … = \"timestamp\" }) or convert it in a derive stage with to_timestamp(…)"
            .to_owned();
        faults.add(&time.at, format!("column `{}` is {}, not a time or date", time.value, field.data_type()), hint);
    }
}

fn numeric(schema: &Schema, names: &Names, of: &str, faults: &Faults) {
    for name in names {
        if let Some(field) = need(schema, name, of, faults)
            && !field.data_type().is_numeric()
            && *field.data_type() != DataType::Boolean
        {
            let hint = format!("convert it in a derive stage: with = {{ {0} = \"cast({0} as double)\" }}", name.value);
            faults.add(&name.at, format!("column `{}` is {}, not a number", name.value, field.data_type()), hint);
        }
    }
}

fn split(split: &SplitStage, schema: &SchemaRef, faults: &Faults) -> SchemaRef {
    let of = format!("the table of stage `{}`", split.input.value);
    stamp(schema, &split.time, &of, faults);
    if let Some(series) = &split.series {
        need(schema, series, &of, faults);
    }
    numeric(schema, &split.scale, &of, faults);
    let mut fields: Vec<Arc<Field>> = schema.fields().iter().filter(|field| field.name() != "split").cloned().collect();
    fields.push(Arc::new(Field::new("split", DataType::Int8, false)));
    Arc::new(Schema::new(fields))
}

fn train(stage: &Stage, train: &TrainStage, schemas: &Schemas, faults: &Faults) {
    let columns = &train.columns;
    if let Some(schema) = known(schemas, &train.input) {
        let of = format!("the table of stage `{}`", train.input.value);
        stamp(&schema, &columns.time, &of, faults);
        if let Some(series) = &columns.series {
            need(&schema, series, &of, faults);
        }
        for names in [&columns.targets, &columns.hist, &columns.futr, &columns.stat] {
            numeric(&schema, names, &of, faults);
        }
        numeric(&schema, &columns.weight.iter().cloned().collect(), &of, faults);
    }
    for cell in &train.cells {
        let model = cell.model.name().as_str();
        for (kind, names) in [("hist", &columns.hist), ("futr", &columns.futr), ("stat", &columns.stat)] {
            if let (Some(first), false) = (names.first(), cell.model.exogenous().contains(&kind)) {
                let hint = format!("leave it out, or train {model} in a stage of its own");
                faults.add(&first.at, format!("model {model} of stage `{}` cannot use `{kind}` columns", stage.name), hint);
            }
        }
        if let (Some(second), false) = (columns.targets.get(1), cell.model.multivariate()) {
            let hint = "make one series of each with `unpivot` in a derive stage".to_owned();
            faults.add(&second.at, format!("model {model} of stage `{}` forecasts one target", stage.name), hint);
        }
    }
}

/// As `deeprc_forecast::task::PredictResult` describes it.
fn predict(predict: &PredictStage, pipeline: &Pipeline, schemas: &Schemas, faults: &Faults) -> Option<SchemaRef> {
    let Kind::Train(train) = &pipeline.stages.get(&predict.model.value)?.kind else { return None };
    let columns = &train.columns;
    let source = known(schemas, predict.input.as_ref().unwrap_or(&train.input))?;
    if let Some(input) = &predict.input {
        let of = format!("the table of stage `{}`", input.value);
        let place = |name: &Spanned<String>| Spanned::new(name.value.clone(), &input.at);
        for name in [&columns.targets, &columns.hist, &columns.futr, &columns.stat].into_iter().flatten().chain(&columns.weight) {
            need(&source, &place(name), &of, faults);
        }
    }
    if predict.intervals.is_some() || train.cells.iter().any(|cell| !cell.train.loss.is_point()) {
        // Columns of quantiles follow, other ones in each cell of a matrix over losses.
        return None;
    }
    let time = source.field_with_name(&columns.time.value).ok()?;
    let series = columns.series.as_ref().map_or("unique_id", |name| name.value.as_str());
    let mut fields = vec![Field::new(series, DataType::Utf8, false), time.clone(), time.clone().with_name("cutoff")];
    for target in &columns.targets {
        let name = if columns.targets.len() == 1 { "y" } else { target.value.as_str() };
        fields.push(Field::new(name, DataType::Float32, true));
        fields.push(Field::new(format!("{name}_hat"), DataType::Float32, true));
    }
    Some(Arc::new(Schema::new(fields)))
}

fn evaluate(_: &EvaluateStage) -> Option<SchemaRef> {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    Some(Arc::new(Schema::new(vec![
        text("model"),
        text("series"),
        text("target"),
        text("metric"),
        Field::new("value", DataType::Float64, true),
    ])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_a_shell() {
        assert!(matches("*.csv", "a.csv") && matches("a?.csv", "ab.csv") && matches("*", "x"));
        assert!(!matches("*.csv", "a.csv.gz") && !matches("a?.csv", "a.csv") && !matches("*.csv", ".a.csv"));
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.csv", "a.csv", "a.txt"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(expand(&dir.path().join("*.csv")), [dir.path().join("a.csv"), dir.path().join("b.csv")]);
        assert!(expand(&dir.path().join("c.csv")).is_empty());
    }
}
