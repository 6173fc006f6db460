//! `table.split`: training, validation and test rows, and scaling by what the training rows say.

use super::cut::Cut;
use super::join::check_columns;
use super::scaler::{METADATA_KEY, Scaler, Summaries, Summary, scaler};
use super::stage::publish;
use super::{Error, Result, Scaling, SplitArguments, SplitBy, TableResult};
use bytes::Bytes;
use deeprc_comm::{Communicator, ReduceOp};
use deeprc_loader::stamps_of;
use deeprc_table::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int8Array, LargeStringArray, RecordBatch};
use deeprc_table::arrow::compute::{cast, filter_record_batch};
use deeprc_table::arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef};
use deeprc_table::{Context, SortKey, Table};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Name of the column that says which part a row is in.
pub const SPLIT: &str = "split";
/// The part of rows that are in none.
const NONE: i8 = 3;

pub(super) fn run(context: &Context, arguments: &SplitArguments) -> Result<TableResult> {
    let cut = Cut::check(arguments)?;
    let input = context.open(&arguments.input)?;
    check_input(&input, arguments)?;
    let keys: Vec<SortKey> = arguments.series.iter().chain([&arguments.time]).map(SortKey::ascending).collect();
    let sorted = input.sort(&keys)?;
    let comm = context.comm();

    let runs = runs(&sorted, arguments, &cut)?;
    let totals = totals(&runs, comm)?;
    let ends = ends(&cut, &totals, arguments)?;
    let parts = parts(&runs, &ends, comm)?;
    let summaries = summarise(&sorted, &runs, &parts, arguments)?;
    let scaler = scaler(&arguments.scale, arguments.scope, &merge(&summaries, comm)?)?;
    let counts = count(&parts, comm)?;

    let schema = output_schema(&input.schema(), &scaler);
    let batches = apply(&sorted, &runs, &parts, &scaler, &schema)?;
    let table = context.from_batches(schema, batches)?;
    let mut notes = Vec::new();
    if counts[3] > 0 {
        notes.push(format!("{} rows after the last part were left out", counts[3]));
    }
    let mut metadata = json!({
        "split": { "train": counts[0], "validation": counts[1], "test": counts[2], "series": totals.len() },
    });
    metadata[METADATA_KEY] = if scaler.columns.is_empty() { Value::Null } else { serde_json::to_value(scaler)? };
    publish(&table, &arguments.output, metadata, notes)
}

fn check_input(input: &Table, arguments: &SplitArguments) -> Result<()> {
    let columns = arguments.series.iter().chain([&arguments.time]).chain(arguments.scale.keys());
    check_columns(input, "the table", columns)?;
    let schema = input.schema();
    if schema.field_with_name(SPLIT).is_ok() {
        let hint = Some("drop or rename it in a derive stage".into());
        return Err(Error::Setting { setting: "input", message: format!("the table has a column `{SPLIT}` already"), hint });
    }
    for (name, kind) in &arguments.scale {
        let found = schema.field_with_name(name)?.data_type();
        if *kind != Scaling::None && !found.is_numeric() {
            return Err(Error::ColumnType { column: name.clone(), found: found.to_string(), needed: "a number" });
        }
    }
    Ok(())
}

/// Rows of one series that follow each other on this rank.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Run {
    id: String,
    rows: u64,
    /// Of these, rows before each of the dates of the split.
    before: [u64; 3],
}

/// The series of this rank's rows; rows are sorted, so that every series is one run.
fn runs(table: &Table, arguments: &SplitArguments, cut: &Cut) -> Result<Vec<Run>> {
    let mut runs: Vec<Run> = Vec::new();
    for batch in table.batches() {
        let stamps = stamps_of(&arguments.time, column(batch, &arguments.time)?)?;
        let ids = arguments.series.as_ref().map(|name| texts(batch, name)).transpose()?;
        for row in 0..batch.num_rows() {
            let id = match &ids {
                Some(ids) if ids.is_null(row) => "",
                Some(ids) => ids.value(row),
                None => "(whole table)",
            };
            if runs.last().is_none_or(|run| run.id != id) {
                runs.push(Run { id: id.into(), rows: 0, before: [0; 3] });
            }
            let run = runs.last_mut().expect("one was pushed");
            run.rows += 1;
            for (before, date) in run.before.iter_mut().zip(cut.dates) {
                *before += u64::from(date.is_some_and(|date| stamps.is_valid(row) && stamps.value(row) < date));
            }
        }
    }
    Ok(runs)
}

/// The series of all ranks.
fn totals(runs: &[Run], comm: &Communicator) -> Result<BTreeMap<String, Run>> {
    let mut totals: BTreeMap<String, Run> = BTreeMap::new();
    for part in comm.allgather(Bytes::from(serde_json::to_vec(runs)?))? {
        for run in serde_json::from_slice::<Vec<Run>>(&part)? {
            match totals.get_mut(&run.id) {
                Some(total) => {
                    total.rows += run.rows;
                    total.before.iter_mut().zip(run.before).for_each(|(sum, count)| *sum += count);
                }
                None => drop(totals.insert(run.id.clone(), run)),
            }
        }
    }
    Ok(totals)
}

/// Where the parts of every series end.
fn ends(cut: &Cut, totals: &BTreeMap<String, Run>, arguments: &SplitArguments) -> Result<BTreeMap<String, [u64; 3]>> {
    if arguments.by == SplitBy::Time {
        return totals.values().map(|run| Ok((run.id.clone(), cut.ends(&run.id, run.rows, &run.before)?))).collect();
    }
    let mut ids: Vec<&String> = totals.keys().collect();
    ids.shuffle(&mut rand_chacha::ChaCha8Rng::seed_from_u64(arguments.seed));
    let ends = cut.ends("(number of series)", ids.len() as u64, &[0; 3])?;
    let of_series = |(place, id): (usize, &String)| {
        let part = ends.iter().position(|&end| (place as u64) < end).unwrap_or(3);
        (id.clone(), std::array::from_fn(|at| if at >= part { totals[id].rows } else { 0 }))
    };
    Ok(ids.into_iter().enumerate().map(of_series).collect())
}

/// The part of every row of this rank.
fn parts(runs: &[Run], ends: &BTreeMap<String, [u64; 3]>, comm: &Communicator) -> Result<Vec<i8>> {
    // The first series of this rank may have begun on ranks before it.
    let boundary = (runs.last(), runs.len());
    let mut carried: Option<Run> = None;
    for part in &comm.allgather(Bytes::from(serde_json::to_vec(&boundary)?))?[..comm.rank()] {
        let (last, count): (Option<Run>, usize) = serde_json::from_slice(part)?;
        if let Some(mut last) = last {
            match &carried {
                Some(before) if count == 1 && before.id == last.id => last.rows += before.rows,
                _ => {}
            }
            carried = Some(last);
        }
    }
    let mut parts = Vec::new();
    for (at, run) in runs.iter().enumerate() {
        let first = carried.as_ref().filter(|before| at == 0 && before.id == run.id).map_or(0, |before| before.rows);
        let ends = &ends[&run.id];
        let part = |row: u64| ends.iter().position(|&end| row < end).map_or(NONE, |part| part as i8);
        parts.extend((first..first + run.rows).map(part));
    }
    Ok(parts)
}

/// Series of every row of this rank.
fn ids(runs: &[Run]) -> impl Iterator<Item = &str> {
    runs.iter().flat_map(|run| std::iter::repeat_n(run.id.as_str(), run.rows as usize))
}

/// What this rank's training rows say about the columns to scale. Nulls, NaN and infinities say nothing.
fn summarise(table: &Table, runs: &[Run], parts: &[i8], arguments: &SplitArguments) -> Result<Summaries> {
    let mut summaries = Summaries::new();
    for (name, _) in arguments.scale.iter().filter(|(_, kind)| **kind != Scaling::None) {
        let of_series = summaries.entry(name.clone()).or_default();
        let mut rows = ids(runs).zip(parts);
        for batch in table.batches() {
            let values = numbers(batch, name)?;
            for (value, (id, &part)) in values.iter().zip(rows.by_ref()) {
                let Some(value) = value.filter(|value| part == 0 && value.is_finite()) else { continue };
                match of_series.get_mut(id) {
                    Some(summary) => summary.merge(&Summary::new(value)),
                    None => drop(of_series.insert(id.into(), Summary::new(value))),
                }
            }
        }
    }
    Ok(summaries)
}

/// The summaries of all ranks, in the order of the ranks.
fn merge(summaries: &Summaries, comm: &Communicator) -> Result<Summaries> {
    let mut merged = Summaries::new();
    for part in comm.allgather(Bytes::from(serde_json::to_vec(summaries)?))? {
        for (name, of_series) in serde_json::from_slice::<Summaries>(&part)? {
            let known = merged.entry(name).or_default();
            for (id, summary) in of_series {
                match known.get_mut(&id) {
                    Some(before) => before.merge(&summary),
                    None => drop(known.insert(id, summary)),
                }
            }
        }
    }
    Ok(merged)
}

/// Rows of the parts, and of none, on all ranks.
fn count(parts: &[i8], comm: &Communicator) -> Result<[u64; 4]> {
    let mut counts = [0; 4];
    parts.iter().for_each(|&part| counts[part as usize] += 1);
    comm.allreduce(&mut counts, ReduceOp::Sum)?;
    Ok(counts)
}

/// Scaled columns are `Float64`, `split` comes last.
fn output_schema(input: &Schema, scaler: &Scaler) -> SchemaRef {
    let scaled = |field: &Arc<Field>| {
        if scaler.columns.contains_key(field.name()) { Arc::new(Field::new(field.name(), DataType::Float64, true)) } else { field.clone() }
    };
    let split = Arc::new(Field::new(SPLIT, DataType::Int8, false));
    Arc::new(Schema::new(input.fields().iter().map(scaled).chain([split]).collect::<Vec<_>>()))
}

fn apply(table: &Table, runs: &[Run], parts: &[i8], scaler: &Scaler, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
    let mut rows = ids(runs).zip(parts);
    let mut batches = Vec::new();
    for batch in table.batches() {
        let (ids, parts): (Vec<&str>, Vec<i8>) = rows.by_ref().take(batch.num_rows()).map(|(id, &part)| (id, part)).unzip();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
        for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
            if !scaler.columns.contains_key(field.name()) {
                columns.push(column.clone());
                continue;
            }
            let mut last: (&str, [f64; 2]) = ("", scaler.parameters(field.name(), ""));
            let values = numbers(batch, field.name())?;
            let scaled = values.iter().zip(&ids).map(|(value, id)| {
                if last.0 != *id {
                    last = (id, scaler.parameters(field.name(), id));
                }
                let [shift, scale] = last.1;
                value.map(|value| (value - shift) / scale)
            });
            columns.push(Arc::new(scaled.collect::<Float64Array>()));
        }
        let keep: BooleanArray = parts.iter().map(|&part| Some(part != NONE)).collect();
        columns.push(Arc::new(Int8Array::from(parts)));
        batches.push(filter_record_batch(&RecordBatch::try_new(schema.clone(), columns)?, &keep)?);
    }
    Ok(batches)
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
    batch.column_by_name(name).ok_or_else(|| Error::MissingColumn {
        column: name.into(),
        table: "the table".into(),
        available: batch.schema().fields().iter().map(|field| field.name().clone()).collect(),
    })
}

fn texts(batch: &RecordBatch, name: &str) -> Result<LargeStringArray> {
    Ok(cast(column(batch, name)?, &DataType::LargeUtf8)?.as_string::<i64>().clone())
}

fn numbers(batch: &RecordBatch, name: &str) -> Result<Float64Array> {
    Ok(cast(column(batch, name)?, &DataType::Float64)?.as_primitive::<Float64Type>().clone())
}
