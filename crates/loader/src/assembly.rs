//! From the batches of a table, in any order of rows, to the ordered arrays of a [`Dataset`].

use crate::bad::Bad;
use crate::calendar::{format_stamp, stamps_of};
use crate::{Columns, Dataset, DatasetOptions, Error, Frequency, Gaps, Nulls, Result, Series, Skipped};
use deeprc_table::arrow::array::{Array, AsArray, Float32Array, Int64Array, RecordBatch};
use deeprc_table::arrow::compute::cast;
use deeprc_table::arrow::datatypes::{DataType, Float32Type, Int64Type};
use std::collections::HashMap;
use std::sync::Arc;

/// Source of a row that a gap policy inserted.
const INSERTED: usize = usize::MAX;

/// Series of rows that were left out.
const LEFT_OUT: u32 = u32::MAX;

pub(crate) fn assemble(batches: &[RecordBatch], options: &DatasetOptions) -> Result<Dataset> {
    check_columns(batches, &options.columns)?;
    let mut keys = Keys::read(batches, &options.columns)?;
    let mut skipped = Vec::new();
    // Each round looks at one kind of mistake more; rows of series with one are left out of the next.
    loop {
        let mut bad = Bad::new(options.on_bad_series);
        let dataset = lay_out(batches, options, &keys, &mut bad)?;
        if let Some(mut dataset) = dataset {
            skipped.sort_by(|a: &Skipped, b| a.series.cmp(&b.series));
            dataset.skipped = skipped;
            return Ok(dataset);
        }
        let name = |(series, error): &(u32, Error)| Skipped { series: keys.ids[*series as usize].clone(), reason: error.to_string() };
        skipped.extend(bad.found.iter().map(name));
        if bad.found.len() == keys.ids.len() {
            return Err(bad.found.swap_remove(0).1);
        }
        keys.leave_out(bad.found.iter().map(|(series, _)| *series).collect());
    }
}

/// None if there are bad series, which `bad` then names.
fn lay_out(batches: &[RecordBatch], options: &DatasetOptions, keys: &Keys, bad: &mut Bad) -> Result<Option<Dataset>> {
    let columns = &options.columns;
    let order = keys.order();
    let groups = keys.groups(&order);
    let sorted: Vec<i64> = order.iter().map(|&row| keys.times[row]).collect();
    find_duplicates(keys, &order, &sorted, &groups, bad)?;
    if !bad.found.is_empty() {
        return Ok(None);
    }
    let frequency = match options.frequency {
        Some(frequency) => frequency,
        None => Frequency::infer(groups.iter().map(|group| &sorted[group.clone()])).ok_or(Error::NoFrequency)?,
    };
    let grid = Grid::lay(keys, &order, &sorted, &groups, (frequency, options.gaps), bad)?;
    if !bad.found.is_empty() {
        return Ok(None);
    }
    let cells = Cells::read(batches, columns, &grid, keys, options, bad)?;
    let splits = read_split(batches, columns, &grid, keys, bad)?;
    let stat = read_static(batches, columns, keys, options.nulls, bad)?;
    if !bad.found.is_empty() {
        return Ok(None);
    }
    let series = grid.series.iter().enumerate().map(|(at, rows)| Series {
        id: keys.ids[at].clone(),
        start: rows.start,
        len: rows.len(),
        train: splits[at][0],
        validation: splits[at][1],
        test: splits[at][2],
    });
    Ok(Some(Dataset {
        columns: columns.clone(),
        frequency,
        series: series.collect(),
        channels: columns.channels().cloned().collect(),
        fully_observed: cells.mask.iter().all(|&mask| mask > 0.0),
        values: Arc::new(cells.values),
        mask: Arc::new(cells.mask),
        stat: Arc::new(stat),
        times: Arc::new(grid.times),
        on_bad_series: options.on_bad_series,
        constant: options.constant,
        skipped: Vec::new(),
    }))
}

fn check_columns(batches: &[RecordBatch], columns: &Columns) -> Result<()> {
    let first = batches.first().ok_or(Error::Empty)?;
    if batches.iter().all(|batch| batch.num_rows() == 0) {
        return Err(Error::Empty);
    }
    if columns.targets.is_empty() {
        return Err(Error::NoTarget);
    }
    let schema = first.schema();
    let mut seen: HashMap<&str, &'static str> = HashMap::new();
    let numeric = |kind: &DataType| kind.is_numeric() || *kind == DataType::Boolean;
    let lists = [(&columns.targets, "target"), (&columns.hist, "hist"), (&columns.futr, "futr"), (&columns.stat, "stat")];
    let values = lists.iter().flat_map(|(names, part)| names.iter().map(|name| (name, *part, "a number")));
    let keys = [(&columns.time, "time", "")].into_iter();
    let series = columns.series.iter().map(|name| (name, "series", ""));
    let split = columns.split.iter().map(|name| (name, "split", "a number"));
    let weight = columns.weight.iter().map(|name| (name, "weight", "a number"));
    for (name, part, needed) in keys.chain(series).chain(values).chain(weight).chain(split) {
        let field = schema.field_with_name(name).map_err(|_| Error::MissingColumn {
            column: name.clone(),
            available: schema.fields().iter().map(|field| field.name().clone()).collect(),
        })?;
        if let Some(first) = seen.insert(name, part) {
            return Err(Error::ColumnTwice { column: name.clone(), first, second: part });
        }
        if !needed.is_empty() && !numeric(field.data_type()) {
            return Err(Error::ColumnType { column: name.clone(), found: field.data_type().to_string(), needed });
        }
    }
    Ok(())
}

fn convert(column: &str, array: &dyn Array, to: &DataType) -> Result<deeprc_table::arrow::array::ArrayRef> {
    cast(array, to).map_err(|source| Error::Arrow { column: column.into(), source })
}

/// Calls `each(row, value)` for every row of a numeric column; nulls and NaN are `None`.
pub(crate) fn each_number(batches: &[RecordBatch], column: &str, mut each: impl FnMut(usize, Option<f32>) -> Result<()>) -> Result<()> {
    let mut row = 0;
    for batch in batches {
        let array = column_of(batch, column)?;
        let array = convert(column, array, &DataType::Float32)?;
        let array: &Float32Array = array.as_primitive::<Float32Type>();
        for at in 0..array.len() {
            let value = array.value(at);
            each(row, (array.is_valid(at) && !value.is_nan()).then_some(value))?;
            row += 1;
        }
    }
    Ok(())
}

fn column_of<'a>(batch: &'a RecordBatch, column: &str) -> Result<&'a dyn Array> {
    batch.column_by_name(column).map(AsRef::as_ref).ok_or_else(|| Error::MissingColumn {
        column: column.into(),
        available: batch.schema().fields().iter().map(|field| field.name().clone()).collect(),
    })
}

/// Series and stamp of every row of the table.
pub(crate) struct Keys {
    /// Sorted.
    pub ids: Vec<String>,
    /// `[rows]`: position in `ids`, or [`LEFT_OUT`]
    pub codes: Vec<u32>,
    /// `[rows]`
    pub times: Vec<i64>,
}

impl Keys {
    pub fn read(batches: &[RecordBatch], columns: &Columns) -> Result<Keys> {
        let mut keys = Keys { ids: Vec::new(), codes: Vec::new(), times: Vec::new() };
        let mut known: HashMap<String, u32> = HashMap::new();
        for batch in batches {
            let before = keys.times.len();
            let null = |column: &String, at: usize| Error::NullKey { column: column.clone(), row: before + at + 1 };
            let stamps: Int64Array = stamps_of(&columns.time, column_of(batch, &columns.time)?)?;
            if let Some(at) = (0..stamps.len()).find(|&at| stamps.is_null(at)) {
                return Err(null(&columns.time, at));
            }
            keys.times.extend_from_slice(stamps.values());
            let Some(column) = &columns.series else {
                keys.codes.resize(keys.times.len(), 0);
                continue;
            };
            let ids = convert(column, column_of(batch, column)?, &DataType::LargeUtf8)?;
            let ids = ids.as_string::<i64>();
            for at in 0..ids.len() {
                if ids.is_null(at) {
                    return Err(null(column, at));
                }
                let id = ids.value(at);
                // Rows of a series mostly follow each other: look at the last one before hashing.
                let code = match keys.codes.last() {
                    Some(&last) if keys.ids[last as usize] == id => last,
                    _ => *known.entry(id.into()).or_insert_with(|| {
                        keys.ids.push(id.into());
                        keys.ids.len() as u32 - 1
                    }),
                };
                keys.codes.push(code);
            }
        }
        if columns.series.is_none() {
            keys.ids.push(columns.targets[0].clone());
        }
        keys.sort_ids();
        Ok(keys)
    }

    /// Renumbers the series in the order of their ids.
    fn sort_ids(&mut self) {
        let mut by_id: Vec<u32> = (0..self.ids.len() as u32).collect();
        by_id.sort_by(|&a, &b| self.ids[a as usize].cmp(&self.ids[b as usize]));
        let mut place = vec![0; self.ids.len()];
        for (new, &old) in by_id.iter().enumerate() {
            place[old as usize] = new as u32;
        }
        self.codes.iter_mut().for_each(|code| *code = place[*code as usize]);
        self.ids.sort();
    }

    /// Forgets `series` and their rows.
    fn leave_out(&mut self, series: Vec<u32>) {
        let gone = |code: u32| series.contains(&code);
        let mut next = 0;
        let renumber = |code: u32| {
            let new = if gone(code) { LEFT_OUT } else { next };
            next += u32::from(new != LEFT_OUT);
            new
        };
        let place: Vec<u32> = (0..self.ids.len() as u32).map(renumber).collect();
        self.codes.iter_mut().filter(|code| **code != LEFT_OUT).for_each(|code| *code = place[*code as usize]);
        let mut code = 0..;
        self.ids.retain(|_| code.next().is_some_and(|code| !gone(code)));
    }

    fn left_out(&self, row: usize) -> bool {
        self.codes[row] == LEFT_OUT
    }

    /// Rows of the table by (series, time); rows with equal keys in the order of the table.
    fn order(&self) -> Vec<usize> {
        let key = |&row: &usize| (self.codes[row], self.times[row]);
        let mut order: Vec<usize> = (0..self.times.len()).filter(|row| !self.left_out(*row)).collect();
        if !order.is_sorted_by_key(key) {
            order.sort_by_key(key);
        }
        order
    }

    /// The stretch of every series in `order`.
    fn groups(&self, order: &[usize]) -> Vec<std::ops::Range<usize>> {
        let mut end = 0;
        order
            .chunk_by(|&a, &b| self.codes[a] == self.codes[b])
            .map(|rows| {
                end += rows.len();
                end - rows.len()..end
            })
            .collect()
    }

    fn id(&self, row: usize) -> String {
        self.ids[self.codes[row] as usize].clone()
    }

    fn stamp(&self, row: usize) -> String {
        format_stamp(self.times[row])
    }
}

fn find_duplicates(keys: &Keys, order: &[usize], sorted: &[i64], groups: &[std::ops::Range<usize>], bad: &mut Bad) -> Result<()> {
    for group in groups {
        if let Some(at) = (group.start + 1..group.end).find(|&at| sorted[at] == sorted[at - 1]) {
            let (series, stamp) = (keys.id(order[at]), keys.stamp(order[at]));
            let error = Error::Duplicate { series, stamp, first_row: order[at - 1] + 1, second_row: order[at] + 1 };
            bad.note(keys.codes[order[at]], error)?;
        }
    }
    Ok(())
}

/// The rows of the dataset and where each comes from.
struct Grid {
    /// `[rows]`
    times: Vec<i64>,
    /// `[rows]`: row of the table, or [`INSERTED`]
    source: Vec<usize>,
    /// `[table rows]`: row of the dataset
    place: Vec<usize>,
    /// The rows of every series.
    series: Vec<std::ops::Range<usize>>,
}

impl Grid {
    fn lay(
        keys: &Keys,
        order: &[usize],
        sorted: &[i64],
        groups: &[std::ops::Range<usize>],
        (frequency, gaps): (Frequency, Gaps),
        bad: &mut Bad,
    ) -> Result<Grid> {
        let mut grid = Grid {
            times: Vec::with_capacity(sorted.len()),
            source: Vec::with_capacity(sorted.len()),
            place: vec![0; keys.times.len()],
            series: Vec::new(),
        };
        for group in groups {
            let start = grid.times.len();
            for at in group.clone() {
                if at > group.start {
                    let missing = match missing_steps(keys, order[at - 1], order[at], frequency, gaps) {
                        Ok(missing) => missing,
                        Err(error) => {
                            bad.note(keys.codes[order[at]], error)?;
                            break;
                        }
                    };
                    for step in 1..=missing {
                        grid.times.push(frequency.advance(sorted[at - 1], step));
                        grid.source.push(INSERTED);
                    }
                }
                grid.place[order[at]] = grid.times.len();
                grid.times.push(sorted[at]);
                grid.source.push(order[at]);
            }
            grid.series.push(start..grid.times.len());
        }
        Ok(grid)
    }
}

/// Stamps missing between two neighbouring rows.
fn missing_steps(keys: &Keys, before: usize, after: usize, frequency: Frequency, gaps: Gaps) -> Result<i64> {
    let Some(steps) = frequency.steps(keys.times[before], keys.times[after]) else {
        return Err(Error::Irregular {
            series: keys.id(after),
            stamp: keys.stamp(after),
            row: after + 1,
            previous: keys.stamp(before),
            previous_row: before + 1,
            frequency,
        });
    };
    if steps > 1 && gaps == Gaps::Raise {
        return Err(Error::Gap {
            series: keys.id(after),
            before: keys.stamp(before),
            before_row: before + 1,
            after: keys.stamp(after),
            after_row: after + 1,
            missing: steps as u64 - 1,
            frequency,
        });
    }
    Ok(steps - 1)
}

/// `[rows, channels]` values and mask.
struct Cells {
    values: Vec<f32>,
    mask: Vec<f32>,
}

impl Cells {
    fn read(
        batches: &[RecordBatch],
        columns: &Columns,
        grid: &Grid,
        keys: &Keys,
        options: &DatasetOptions,
        bad: &mut Bad,
    ) -> Result<Cells> {
        let names: Vec<&String> = columns.channels().collect();
        let width = names.len();
        let size = grid.times.len() * width;
        let mut cells = Cells { values: vec![0.0; size], mask: vec![0.0; size] };
        for (channel, name) in names.iter().enumerate() {
            each_number(batches, name, |row, value| {
                let Some(value) = value.filter(|_| !keys.left_out(row)) else { return Ok(()) };
                if value.is_infinite() {
                    let (series, stamp) = (keys.id(row), keys.stamp(row));
                    return bad.note(keys.codes[row], Error::Infinite { series, column: name.to_string(), stamp, row: row + 1 });
                }
                let at = grid.place[row] * width + channel;
                cells.values[at] = value;
                cells.mask[at] = 1.0;
                Ok(())
            })?;
        }
        if cells.mask.contains(&0.0) {
            for (series, rows) in grid.series.iter().enumerate() {
                if let Err(error) = cells.apply_policies(rows.clone(), &names, grid, keys, options) {
                    bad.note(series as u32, error)?;
                }
            }
        }
        Ok(cells)
    }

    fn apply_policies(
        &mut self,
        rows: std::ops::Range<usize>,
        names: &[&String],
        grid: &Grid,
        keys: &Keys,
        options: &DatasetOptions,
    ) -> Result<()> {
        let width = names.len();
        // Last observed value of every channel so far.
        let mut last: Vec<Option<f32>> = vec![None; width];
        for row in rows.clone() {
            for channel in 0..width {
                let at = row * width + channel;
                let source = grid.source[row];
                if self.mask[at] > 0.0 {
                    last[channel] = Some(self.values[at]);
                } else if source == INSERTED {
                    if options.gaps == Gaps::Fill {
                        (self.values[at], self.mask[at]) = (self.values[at - width], self.mask[at - width]);
                    }
                } else if options.nulls == Nulls::Raise {
                    let (series, stamp) = (keys.id(source), keys.stamp(source));
                    return Err(Error::Null { series, column: names[channel].clone(), stamp, row: source + 1 });
                } else if options.nulls == Nulls::Fill {
                    let value = last[channel].or_else(|| self.first_after(row, &rows, channel, width));
                    let value = value.ok_or_else(|| Error::AllNull { series: keys.id(source), column: names[channel].clone() })?;
                    (self.values[at], self.mask[at]) = (value, 1.0);
                    last[channel] = Some(value);
                }
            }
        }
        Ok(())
    }

    fn first_after(&self, row: usize, rows: &std::ops::Range<usize>, channel: usize, width: usize) -> Option<f32> {
        (row..rows.end).map(|row| row * width + channel).find(|&at| self.mask[at] > 0.0).map(|at| self.values[at])
    }
}

/// `[series][3]`: training, validation and test rows. A row that was inserted belongs to the part of the row before it.
fn read_split(batches: &[RecordBatch], columns: &Columns, grid: &Grid, keys: &Keys, bad: &mut Bad) -> Result<Vec<[usize; 3]>> {
    let Some(column) = &columns.split else {
        return Ok(grid.series.iter().map(|rows| [rows.len(), 0, 0]).collect());
    };
    let mut parts = Vec::with_capacity(keys.times.len());
    for batch in batches {
        let array = convert(column, column_of(batch, column)?, &DataType::Int64)?;
        let array = array.as_primitive::<Int64Type>();
        parts.extend((0..array.len()).map(|at| if array.is_null(at) { -1 } else { array.value(at) }));
    }
    let count = |rows: &std::ops::Range<usize>| {
        let mut counts = [0; 3];
        let mut current = 0;
        for &source in &grid.source[rows.clone()] {
            if source != INSERTED {
                let found = parts[source];
                if !(current as i64..=2).contains(&found) {
                    let (series, stamp) = (keys.id(source), keys.stamp(source));
                    return Err(Error::Split { series, column: column.clone(), found, stamp, row: source + 1 });
                }
                current = found as usize;
            }
            counts[current] += 1;
        }
        Ok(counts)
    };
    let noted = |(series, rows)| count(rows).or_else(|error| bad.note(series as u32, error).map(|()| [0; 3]));
    grid.series.iter().enumerate().map(noted).collect()
}

/// `[series, stat]`
fn read_static(batches: &[RecordBatch], columns: &Columns, keys: &Keys, nulls: Nulls, bad: &mut Bad) -> Result<Vec<f32>> {
    let (series, width) = (keys.ids.len(), columns.stat.len());
    let mut stat = vec![f32::NAN; series * width];
    for (at, column) in columns.stat.iter().enumerate() {
        let mut nulls_at: Vec<usize> = Vec::new();
        each_number(batches, column, |row, value| {
            if keys.left_out(row) {
                return Ok(());
            }
            let cell = &mut stat[keys.codes[row] as usize * width + at];
            match value {
                None => nulls_at.push(row),
                Some(value) if value.is_infinite() => {
                    let (series, stamp) = (keys.id(row), keys.stamp(row));
                    return bad.note(keys.codes[row], Error::Infinite { series, column: column.clone(), stamp, row: row + 1 });
                }
                Some(value) if cell.is_nan() => *cell = value,
                Some(value) if value != *cell => {
                    let (series, before) = (keys.id(row), *cell);
                    let error = Error::StaticVaries { series, column: column.clone(), before, after: value, row: row + 1 };
                    return bad.note(keys.codes[row], error);
                }
                Some(_) => {}
            }
            Ok(())
        })?;
        for row in nulls_at.into_iter().filter(|_| nulls == Nulls::Raise) {
            let (series, stamp) = (keys.id(row), keys.stamp(row));
            bad.note(keys.codes[row], Error::Null { series, column: column.clone(), stamp, row: row + 1 })?;
        }
        let known = || stat.iter().skip(at).step_by(width).filter(|value| !value.is_nan()).map(|&value| f64::from(value));
        let count = known().count();
        if count == 0 {
            return Err(Error::AllNull { series: keys.ids[0].clone(), column: column.clone() });
        }
        let mean = (known().sum::<f64>() / count as f64) as f32;
        stat.iter_mut().skip(at).step_by(width).filter(|value| value.is_nan()).for_each(|value| *value = mean);
    }
    Ok(stat)
}
