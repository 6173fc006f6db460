//! Forecasts of what comes after the last row of each series.

use deeprc_comm::Communicator;
use deeprc_loader::{BadSeries, Dataset, Part, Window};
use deeprc_table::arrow::array::RecordBatch;

use super::output::{append, assemble, share};
use crate::config::StartPadding;
use crate::forecaster::Forecaster;
use crate::{Error, Result};

/// Rows of this rank's series, `h` per series.
pub(super) fn predict(
    models: &[(&str, &Forecaster)],
    dataset: &Dataset,
    future: &[RecordBatch],
    h: usize,
    comm: &Communicator,
) -> Result<RecordBatch> {
    let series = with_history(models, dataset, h)?;
    let mine = &series[share(series.len(), comm)];
    let history = models.iter().map(|(_, forecaster)| forecaster.model().frame().input).max().unwrap_or(1);
    let ahead = dataset.ahead(history, h, future)?;
    let mut table = Vec::new();
    for (name, forecaster) in models {
        let (windows, forecasts) = recursive(forecaster, &ahead, mine, h)?;
        let batch = forecaster.rows(&ahead, Part::Test, &windows, &forecasts, h)?;
        append(&mut table, &batch, name, forecaster, dataset.columns(), false);
    }
    assemble(table)
}

/// As [`predict`] with one model, in the form of [`Forecaster::table`], and the number of series over all ranks.
pub(crate) fn of_one(
    forecaster: &Forecaster,
    dataset: &Dataset,
    future: &[RecordBatch],
    h: usize,
    comm: &Communicator,
) -> Result<(RecordBatch, u64)> {
    let series = with_history(&[("", forecaster)], dataset, h)?;
    let ahead = dataset.ahead(forecaster.model().frame().input, h, future)?;
    let (windows, forecasts) = recursive(forecaster, &ahead, &series[share(series.len(), comm)], h)?;
    Ok((forecaster.rows(&ahead, Part::Test, &windows, &forecasts, h)?, series.len() as u64))
}

/// The series that are long enough for every model.
fn with_history(models: &[(&str, &Forecaster)], dataset: &Dataset, h: usize) -> Result<Vec<u32>> {
    let mut out = Vec::with_capacity(dataset.series().len());
    for (number, series) in dataset.series().iter().enumerate() {
        let short = models.iter().map(|(_, forecaster)| *forecaster).find(|forecaster| {
            let frame = forecaster.model().frame();
            forecaster.train_config().start_padding == StartPadding::None && series.len < frame.horizon_offset()
        });
        match short.map(|forecaster| forecaster.model().frame().horizon_offset()) {
            None => out.push(number as u32),
            Some(_) if dataset.on_bad_series() == BadSeries::Skip => {}
            Some(input_size) => {
                let (series, len) = (series.id.clone(), series.len);
                return Err(
                    deeprc_loader::Error::TooShort { series, part: Part::Test, len, needed: input_size, input_size, horizon: h }.into()
                );
            }
        }
    }
    Ok(out)
}

/// The first window of each series, and forecasts `[series, h, targets * outputs]` from it on; past the trained horizon from
/// forecasts taken for observations.
fn recursive(forecaster: &Forecaster, ahead: &Dataset, series: &[u32], h: usize) -> Result<(Vec<Window>, Vec<f32>)> {
    let frame = forecaster.model().frame();
    let columns = ahead.columns();
    if h > frame.horizon && !columns.hist.is_empty() {
        let hist = columns.hist.join(", ");
        let problem = format!("cannot forecast {h} steps: beyond {} of them {hist} would have to be known", frame.horizon);
        return Err(Error::Columns { model: forecaster.name(), problem });
    }
    let mut known = ahead.clone();
    let first = |number: &u32| {
        let rows = known.series()[*number as usize].train as i64;
        Window { series: *number, offset: (rows - frame.horizon_offset() as i64) as i32 }
    };
    let windows: Vec<Window> = series.iter().map(first).collect();
    let width = columns.targets.len() * forecaster.columns_per_target();
    let mut forecasts = vec![0.0; series.len() * h * width];
    for done in (0..h).step_by(frame.horizon) {
        let moved: Vec<Window> = windows.iter().map(|w| Window { offset: w.offset + done as i32, ..*w }).collect();
        let block = forecaster.predict(&known, Part::Test, &moved, |_| {});
        let rows = frame.horizon.min(h - done);
        for (at, (window, values)) in windows.iter().zip(block.chunks(frame.horizon * width)).enumerate() {
            let place = (at * h + done) * width;
            forecasts[place..place + rows * width].copy_from_slice(&values[..rows * width]);
            // The last block is not looked back at.
            for row in (0..rows).filter(|_| done + rows < h) {
                let points: Vec<f32> =
                    values[row * width..(row + 1) * width].iter().copied().step_by(forecaster.columns_per_target()).collect();
                known.observe(window.series, (i64::from(window.offset) + (frame.horizon_offset() + done + row) as i64) as usize, &points);
            }
        }
    }
    Ok((windows, forecasts))
}
