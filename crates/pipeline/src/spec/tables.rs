//! The stages that make tables: read, sql, join, derive, split.

use std::path::Path;

use deeprc_table::ColumnType;
use indexmap::IndexMap;
use serde::de::DeserializeOwned;

use super::fields::{Fields, Spanned};
use super::source::{At, did_you_mean};
use super::stage::{DerivePlaces, DeriveStage, JoinStage, ReadStage, SplitStage, SqlStage};
use super::tree::{Node, Value};
use crate::functions::{DeriveArguments, Format, Generate, Lag, PartSize, ReadArguments, Rolling, Scaling, SplitArguments, Unpivot};

const GENERATORS: [&str; 3] = ["hourly-loads", "hourly-oil", "basins"];

pub(crate) fn read(fields: &Fields, base: &Path) -> ReadStage {
    let files = fields.paths("files", base);
    let types = types(fields);
    let generate = fields.table("generate").map(generate);
    let format = fields.choice("format", &["csv", "parquet", "camels"]).unwrap_or_else(|| match files.first() {
        Some(file) if file.value.extension().is_some_and(|end| end == "parquet") => Format::Parquet,
        None if generate.as_ref().is_some_and(|made| made.data == crate::functions::Generator::Basins) => Format::Camels,
        _ => Format::Csv,
    });
    let part = fields.choice("part", &["forcing", "streamflow", "attributes"]);
    if files.is_empty() && generate.is_none() {
        let hint = "name a file, a pattern such as \"data/*.csv\", or data to make: generate = { data = \"hourly-loads\", rows = 4000 }";
        match fields.node("files") {
            Some(node) => fields.faults.add(&node.at, format!("`files` of {} is empty", fields.what), hint.to_owned()),
            None => fields.missing("files", hint),
        }
    }
    if format == Format::Camels && part.is_none() {
        fields.missing("part", "CAMELS has three tables: forcing, streamflow, attributes");
    }
    let delimiter = fields.string("delimiter").and_then(|text| {
        let mut letters = text.value.chars();
        match (letters.next(), letters.next()) {
            (Some(letter), None) if letter.is_ascii() => Some(letter),
            _ => {
                fields.faults.add(&text.at, format!("`delimiter` of {} is one character", fields.what), None);
                None
            }
        }
    });
    let basins = fields.strings("basins").into_iter().map(|name| name.value).collect();
    let nulls = fields.strings("nulls").into_iter().map(|text| text.value).collect();
    let arguments = ReadArguments {
        files: Vec::new(),
        format,
        part,
        product: fields.string("product").map(|name| name.value).filter(|name| !name.is_empty()),
        basins,
        delimiter,
        types: types.iter().map(|(name, kind)| (name.value.clone(), *kind)).collect(),
        nulls,
        generate,
        generate_dir: None,
        output: Default::default(),
    };
    ReadStage { files, arguments, types: types.into_iter().map(|(name, _)| name).collect() }
}

fn types(fields: &Fields) -> Vec<(Spanned<String>, ColumnType)> {
    let words = ["bool", "int", "float", "date", "timestamp", "text"];
    fields.map("types").into_iter().filter_map(|(name, word)| Some((name, enumerated("type", fields, &word, &words)?))).collect()
}

/// The enum that serde makes of one of `words`.
fn enumerated<T: DeserializeOwned>(what: &str, fields: &Fields, word: &Spanned<String>, words: &[&str]) -> Option<T> {
    let value = words.contains(&word.value.as_str()).then(|| serde_json::from_value(word.value.as_str().into()).ok()).flatten();
    if value.is_none() {
        let hint = did_you_mean(&word.value, words.iter().copied()).unwrap_or_else(|| format!("one of {}", words.join(", ")));
        fields.faults.add(&word.at, format!("unknown {what} \"{}\" in {}", word.value, fields.what), hint);
    }
    value
}

fn generate(fields: Fields) -> Generate {
    let data = fields.choice("data", &GENERATORS);
    if data.is_none() && !fields.table.contains_key("data") {
        fields.missing("data", &format!("one of {}", GENERATORS.join(", ")));
    }
    let size = |key, fields: &Fields| fields.integer(key, 1.., "at least 1").map(|number| number as usize);
    let generate = Generate {
        data: data.unwrap_or(crate::functions::Generator::HourlyLoads),
        rows: size("rows", &fields),
        basins: size("basins", &fields),
        seed: fields.integer("seed", 0.., "0 or more").unwrap_or(1) as u64,
    };
    fields.finish();
    generate
}

pub(crate) fn sql(fields: &Fields) -> SqlStage {
    SqlStage { query: fields.required("query", "SELECT … FROM the names of other stages") }
}

pub(crate) fn join(fields: &Fields) -> JoinStage {
    let stage = JoinStage {
        left: fields.required("left", "the name of a stage"),
        right: fields.required("right", "the name of a stage"),
        on: fields.strings("on"),
        how: fields.choice("how", &["inner", "left", "right", "full", "semi", "anti"]).unwrap_or_default(),
    };
    if stage.on.is_empty() {
        fields.missing("on", "the columns that both tables have, for example on = [\"date\"]");
    }
    stage
}

pub(crate) fn derive(fields: &Fields) -> DeriveStage {
    let input = fields.required("input", "the name of a stage");
    let mut places = DerivePlaces::default();
    let with = fields.map("with");
    places.with = with.iter().map(|(_, expression)| expression.at.clone()).collect();
    let lag = fields.tables("lag").into_iter().map(|one| lag(one, &mut places)).collect();
    let rolling = fields.tables("rolling").into_iter().map(|one| rolling(one, &mut places)).collect();
    let filter = fields.string("filter");
    places.filter = filter.as_ref().map(|filter| filter.at.clone());
    let mut list = |key, into: fn(&mut DerivePlaces) -> &mut Vec<At>| {
        let names = fields.strings(key);
        *into(&mut places) = names.iter().map(|name| name.at.clone()).collect();
        names.into_iter().map(|name| name.value).collect::<Vec<_>>()
    };
    let select = list("select", |places| &mut places.select);
    let drop = list("drop", |places| &mut places.drop);
    let sort = list("sort", |places| &mut places.sort);
    let unpivot = fields.table("unpivot").map(|inner| {
        let columns = inner.strings("columns");
        if columns.is_empty() {
            inner.missing("columns", "the columns that become rows");
        }
        places.unpivot = columns.iter().map(|name| name.at.clone()).collect();
        let name = |key, default: &str| inner.string(key).map_or(default.to_owned(), |name| name.value);
        let unpivot = Unpivot {
            columns: columns.iter().map(|name| name.value.clone()).collect(),
            id: name("id", "unique_id"),
            value: name("value", "y"),
        };
        inner.finish();
        unpivot
    });
    let arguments = DeriveArguments {
        input: Default::default(),
        with: with.into_iter().map(|(name, expression)| (name.value, expression.value)).collect(),
        lag,
        rolling,
        filter: filter.map(|filter| filter.value),
        select,
        drop,
        unpivot,
        sort,
        output: Default::default(),
    };
    DeriveStage { input, arguments, places }
}

fn lag(fields: Fields, places: &mut DerivePlaces) -> Lag {
    let column = fields.required("column", "the column to look at");
    let by = fields.strings("by");
    let order = fields.required("order", "the column that orders the rows, most often the stamp");
    let steps = fields.integers("steps");
    if steps.is_empty() {
        fields.missing("steps", "rows back, for example steps = [1, 2, 3]");
    }
    let name = fields.string("name");
    if let (Some(name), true) = (&name, steps.len() > 1) {
        fields.faults.add(&name.at, format!("`name` of {} is for a single step", fields.what), None);
    }
    let lag = Lag {
        column: column.value.clone(),
        by: by.iter().map(|name| name.value.clone()).collect(),
        order: order.value.clone(),
        steps,
        name: name.map(|name| name.value),
    };
    places.lag.push([vec![column], by, vec![order]].concat());
    fields.finish();
    lag
}

fn rolling(fields: Fields, places: &mut DerivePlaces) -> Rolling {
    let column = fields.required("column", "the column to look at");
    let by = fields.strings("by");
    let order = fields.required("order", "the column that orders the rows, most often the stamp");
    let rows = fields.integer("rows", 1.., "at least 1");
    if rows.is_none() && !fields.table.contains_key("rows") {
        fields.missing("rows", "rows in the window, this one included");
    }
    let rolling = Rolling {
        column: column.value.clone(),
        by: by.iter().map(|name| name.value.clone()).collect(),
        order: order.value.clone(),
        rows: rows.unwrap_or(1) as usize,
        function: fields.choice("function", &["mean", "sum", "min", "max", "std"]).unwrap_or_default(),
        name: fields.string("name").map(|name| name.value),
    };
    places.rolling.push([vec![column], by, vec![order]].concat());
    fields.finish();
    rolling
}

pub(crate) fn split(fields: &Fields, seed: u64) -> SplitStage {
    let input = fields.required("input", "the name of a stage");
    let time = fields.string("time").unwrap_or_else(|| Spanned::new("ds".to_owned(), &fields.at));
    let series = fields.string("series");
    let size = |key| fields.node(key).and_then(|node| part_size(fields, key, node));
    let (train, validation, test) = (size("train"), size("validation"), size("test"));
    let fractions: f64 = [&train, &validation, &test]
        .into_iter()
        .flatten()
        .filter_map(|part| match part {
            PartSize::Fraction(fraction) => Some(*fraction),
            _ => None,
        })
        .sum();
    if fractions > 1.0 + 1e-9 {
        fields.faults.add(
            &fields.place("train"),
            format!("the parts of {} are {fractions:.3} of the rows together, more than all", fields.what),
            None,
        );
    }
    if train.is_none()
        && validation.is_none()
        && test.is_none()
        && !["train", "validation", "test"].iter().any(|key| fields.table.contains_key(*key))
    {
        fields.missing("train", "rows per series (8640), a fraction (0.8) or the date at which the part ends (\"2017-01-01\")");
    }
    let scale = scale(fields);
    let arguments = SplitArguments {
        input: Default::default(),
        time: time.value.clone(),
        series: series.as_ref().map(|name| name.value.clone()),
        by: fields.choice("by", &["time", "series"]).unwrap_or_default(),
        train,
        validation,
        test,
        scale: scale.iter().map(|(name, scaling)| (name.value.clone(), *scaling)).collect::<IndexMap<_, _>>(),
        scope: fields.choice("scope", &["series", "global"]).unwrap_or_default(),
        seed: fields.integer("seed", 0.., "0 or more").map_or(seed, |seed| seed as u64),
        output: Default::default(),
    };
    SplitStage { input, time, series, scale: scale.into_iter().map(|(name, _)| name).collect(), arguments }
}

fn scale(fields: &Fields) -> Vec<(Spanned<String>, Scaling)> {
    let words = ["standard", "minmax", "none"];
    fields.map("scale").into_iter().filter_map(|(name, word)| Some((name, enumerated("scaling", fields, &word, &words)?))).collect()
}

fn part_size(fields: &Fields, key: &str, node: &Node) -> Option<PartSize> {
    let rule = "rows per series (8640), a fraction (0.8) or the date at which the part ends (\"2017-01-01\")";
    match &node.value {
        Value::Integer(rows) if *rows >= 0 => return Some(PartSize::Rows(*rows as u64)),
        Value::Float(fraction) if (0.0..=1.0).contains(fraction) => return Some(PartSize::Fraction(*fraction)),
        Value::String(date) | Value::Date(date) if deeprc_loader::parse_stamp(date).is_some() => {
            return Some(PartSize::Before(date.clone()));
        }
        Value::String(date) => fields.faults.add(&node.at, format!("`{key}` of {}: \"{date}\" is no date", fields.what), rule.to_owned()),
        Value::Integer(_) | Value::Float(_) => {
            fields.faults.add(&node.at, format!("`{key}` of {} is out of range", fields.what), rule.to_owned());
        }
        _ => fields.faults.add(&node.at, format!("`{key}` of {} is no size", fields.what), rule.to_owned()),
    }
    None
}
