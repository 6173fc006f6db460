//! The table of a predict stage, window by window.

use super::{Error, Result};
use deeprc_loader::{Columns, stamps_of};
use deeprc_table::GlobalTable;
use deeprc_table::arrow::array::{Array, AsArray, Float64Array, LargeStringArray, RecordBatch};
use deeprc_table::arrow::compute::cast;
use deeprc_table::arrow::datatypes::{DataType, Float64Type};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

/// One stamp of one window.
#[derive(Clone, Debug)]
pub(super) struct Stamp {
    /// Position in [`Forecasts::series`].
    pub series: usize,
    /// Last stamp that the model saw, ns.
    pub cutoff: i64,
    /// The stamp, ns.
    pub ds: i64,
    /// First of its cells in [`Forecasts::cells`].
    cells: usize,
}

/// The forecasts of some series, sorted by (series, cutoff, stamp).
pub(super) struct Forecasts {
    /// All series of the table, sorted.
    pub series: Vec<String>,
    pub stamps: Vec<Stamp>,
    /// (observation, forecast) of every target; NaN: none.
    cells: Vec<(f64, f64)>,
    targets: usize,
}

impl Forecasts {
    /// Reads the series that `mine` (position and number of series) says.
    pub(super) fn read(dir: &Path, columns: &Columns, mine: impl Fn(usize, usize) -> bool) -> Result<Forecasts> {
        let table = GlobalTable::map(dir)?;
        let names = Names::find(&table, dir, columns)?;
        let mut places: BTreeMap<String, usize> = BTreeMap::new();
        for batch in table.batches() {
            let ids = names.ids(batch, columns)?;
            let mut last: Option<&str> = None;
            for id in ids.iter().flatten() {
                if last != Some(id) {
                    places.entry(id.into()).or_default();
                    last = Some(id);
                }
            }
        }
        places.values_mut().enumerate().for_each(|(place, value)| *value = place);
        let mut forecasts =
            Forecasts { stamps: Vec::new(), cells: Vec::new(), targets: columns.targets.len(), series: places.keys().cloned().collect() };
        for batch in table.batches() {
            forecasts.add(batch, &names, columns, &|id: &str| places.get(id).copied().filter(|&place| mine(place, places.len())))?;
        }
        forecasts.stamps.sort_by_key(|stamp| (stamp.series, stamp.cutoff, stamp.ds));
        Ok(forecasts)
    }

    fn add(&mut self, batch: &RecordBatch, names: &Names, columns: &Columns, place: &dyn Fn(&str) -> Option<usize>) -> Result<()> {
        let ids = names.ids(batch, columns)?;
        let of = |name: &str| batch.column_by_name(name).expect("found in the schema by Names::find");
        let (ds, cutoff) = (stamps_of(&names.ds, of(&names.ds))?, stamps_of("cutoff", of("cutoff"))?);
        let numbers =
            |name: &String| -> Result<Float64Array> { Ok(cast(of(name), &DataType::Float64)?.as_primitive::<Float64Type>().clone()) };
        let pairs = names.targets.iter().map(|(observed, forecast)| Ok((numbers(observed)?, numbers(forecast)?)));
        let pairs: Vec<_> = pairs.collect::<Result<_>>()?;
        for row in 0..batch.num_rows() {
            let Some(series) = place(ids.value(row)) else { continue };
            let (cutoff, ds) = (cutoff.value(row), ds.value(row));
            self.stamps.push(Stamp { series, cutoff, ds, cells: self.cells.len() });
            self.cells.extend(pairs.iter().map(|(observed, forecast)| {
                let value = |array: &Float64Array| {
                    if array.is_null(row) { f64::NAN } else { array.value(row) }
                };
                (value(observed), value(forecast))
            }));
        }
        Ok(())
    }

    /// Observation and forecast of a target; NaN: none.
    pub(super) fn cell(&self, stamp: &Stamp, target: usize) -> (f64, f64) {
        debug_assert!(target < self.targets);
        self.cells[stamp.cells + target]
    }

    /// The stamps of every window, in order.
    pub(super) fn windows(&self) -> Vec<Range<usize>> {
        let mut end = 0;
        self.stamps
            .chunk_by(|a, b| (a.series, a.cutoff) == (b.series, b.cutoff))
            .map(|window| {
                end += window.len();
                end - window.len()..end
            })
            .collect()
    }
}

/// Names of the columns: those of the predict stage, or those of the table that the models were trained on.
struct Names {
    series: Option<String>,
    ds: String,
    /// Observation and forecast.
    targets: Vec<(String, String)>,
}

impl Names {
    fn find(table: &GlobalTable, dir: &Path, columns: &Columns) -> Result<Names> {
        let schema = table.schema();
        let find = |candidates: &[&str]| {
            let found = candidates.iter().find(|name| schema.field_with_name(name).is_ok());
            found.map(|name| name.to_string()).ok_or_else(|| Error::MissingColumn {
                column: candidates[0].into(),
                table: format!("the forecasts {}", dir.display()),
                available: schema.fields().iter().map(|field| field.name().clone()).collect(),
            })
        };
        find(&["cutoff"])?;
        let series = match &columns.series {
            Some(name) => Some(find(&["unique_id", name])?),
            None => find(&["unique_id"]).ok(),
        };
        let single = columns.targets.len() == 1;
        let targets = columns.targets.iter().map(|target| {
            let hat = format!("{target}_hat");
            match single {
                true => Ok((find(&["y", target])?, find(&["y_hat", &hat])?)),
                false => Ok((find(&[target])?, find(&[&hat])?)),
            }
        });
        Ok(Names { series, ds: find(&["ds", &columns.time])?, targets: targets.collect::<Result<_>>()? })
    }

    fn ids(&self, batch: &RecordBatch, columns: &Columns) -> Result<LargeStringArray> {
        match &self.series {
            Some(name) => {
                let ids = batch.column_by_name(name).expect("found in the schema by Names::find");
                Ok(cast(ids, &DataType::LargeUtf8)?.as_string::<i64>().clone())
            }
            // As the loader names a table of one series.
            None => Ok(LargeStringArray::from_iter_values(std::iter::repeat_n(&columns.targets[0], batch.num_rows()))),
        }
    }
}
