//! One table from the forecasts of several models.

use std::collections::HashSet;
use std::sync::Arc;

use deeprc_comm::Communicator;
use deeprc_loader::{Columns, Dataset, Part, Window};
use deeprc_table::arrow::array::{ArrayRef, RecordBatch};
use deeprc_table::arrow::datatypes::{Field, Schema};

use crate::forecaster::{Forecaster, target_names};
use crate::{Error, Result};

/// The share of one rank of `count` things.
pub(super) fn share(count: usize, comm: &Communicator) -> std::ops::Range<usize> {
    comm.rank() * count / comm.size()..(comm.rank() + 1) * count / comm.size()
}

/// Every window of `part` that all models have, of this rank's share: key, cutoff, truth, forecasts.
pub(super) fn rolled(
    models: &[(&str, &Forecaster)],
    dataset: &Dataset,
    part: Part,
    step: usize,
    comm: &Communicator,
) -> Result<RecordBatch> {
    chosen(models, dataset, part, step, comm, |_| true)
}

/// As [`rolled`], of the windows whose first row of the horizon (series, row) is `wanted`.
pub(super) fn chosen(
    models: &[(&str, &Forecaster)],
    dataset: &Dataset,
    part: Part,
    step: usize,
    comm: &Communicator,
    wanted: impl Fn((u32, i64)) -> bool,
) -> Result<RecordBatch> {
    let start = |forecaster: &Forecaster, window: &Window| {
        (window.series, i64::from(window.offset) + forecaster.model().frame().horizon_offset() as i64)
    };
    let mut windows = Vec::with_capacity(models.len());
    for (_, forecaster) in models {
        let all = forecaster.windows(dataset, part, step)?;
        windows.push(all.into_iter().filter(|window| wanted(start(forecaster, window))).collect::<Vec<_>>());
    }
    // A model with a longer input has fewer windows at the start of a series.
    for (model, (_, forecaster)) in models.iter().enumerate() {
        let known: HashSet<_> = windows[model].iter().map(|window| start(forecaster, window)).collect();
        for (other, (_, theirs)) in models.iter().enumerate() {
            windows[other].retain(|window| known.contains(&start(theirs, window)));
        }
    }
    let mut table: Vec<(Field, ArrayRef)> = Vec::new();
    for ((name, forecaster), windows) in models.iter().zip(&windows) {
        let mine = &windows[share(windows.len(), comm)];
        let forecasts = forecaster.predict(dataset, part, mine, |_| {});
        let batch = forecaster.table(dataset, part, mine, &forecasts)?;
        append(&mut table, &batch, name, forecaster, dataset.columns(), true);
    }
    assemble(table)
}

/// Adds the forecast columns of a model, before the first model's the key columns and, if `rolled`, cutoff and truth.
pub(super) fn append(
    table: &mut Vec<(Field, ArrayRef)>,
    batch: &RecordBatch,
    model: &str,
    forecaster: &Forecaster,
    columns: &Columns,
    rolled: bool,
) {
    let forecasts = forecaster.columns(columns);
    let schema = batch.schema();
    let first = table.is_empty();
    for (at, (field, values)) in schema.fields().iter().zip(batch.columns()).enumerate() {
        if forecasts.contains(field.name()) {
            table.push((field.as_ref().clone().with_name(renamed(field.name(), model, columns)), Arc::clone(values)));
        } else if first && (at < 2 || rolled) {
            table.push((field.as_ref().clone(), Arc::clone(values)));
        }
    }
}

/// `y_hat-lo-80` of nhits becomes `nhits-lo-80`; with several targets `Q_hat` becomes `Q_nhits`.
fn renamed(column: &str, model: &str, columns: &Columns) -> String {
    let targets = target_names(columns);
    let suffix = targets.iter().find_map(|target| Some((target, column.strip_prefix(&format!("{target}_hat"))?)));
    match suffix {
        Some((_, suffix)) if targets.len() == 1 => format!("{model}{suffix}"),
        Some((target, suffix)) => format!("{target}_{model}{suffix}"),
        None => column.to_owned(),
    }
}

pub(super) fn assemble(table: Vec<(Field, ArrayRef)>) -> Result<RecordBatch> {
    let (fields, values): (Vec<_>, Vec<_>) = table.into_iter().unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), values).map_err(|e| Error::Forecasts { problem: e.to_string() })
}
