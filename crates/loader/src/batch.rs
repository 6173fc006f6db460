//! The windows of one step, side by side in memory.

use crate::{Dataset, Window, WindowIndex};
use std::ops::Range;
use std::sync::{Arc, Mutex};

/// The windows of one step. Slabs go back to the loader's pool when the batch is dropped.
///
/// Cells before the beginning or after the end of a series (see [`Padding`](crate::Padding)) are 0 with mask 0. Test and
/// validation inputs hold targets of earlier parts only; training windows never show a row after the training part.
#[derive(Debug, Default)]
pub struct Batch {
    /// `[batch, input_size, channels]`
    pub x: Vec<f32>,
    /// `[batch, input_size, channels]`, 1 = observed
    pub x_mask: Vec<f32>,
    /// `[batch, horizon, targets]`
    pub y: Vec<f32>,
    /// `[batch, horizon, targets]`, 1 = observed
    pub y_mask: Vec<f32>,
    /// `[batch, horizon, futr]`: the known future over the horizon
    pub futr: Vec<f32>,
    /// `[batch, stat]`
    pub stat: Vec<f32>,
    /// `[batch]`: where each window lies
    pub windows: Vec<Window>,
    pool: Option<Pool>,
}

impl Batch {
    /// Number of windows.
    pub fn len(&self) -> usize {
        self.windows.len()
    }

    /// Whether there is no window: possible on a rank that gets no share of a short last step.
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    /// Replaces the content by the windows numbered `numbers` of `index`, which was made from `dataset`.
    pub fn fill(&mut self, dataset: &Dataset, index: &WindowIndex, numbers: &[usize]) {
        self.clear();
        let spec = index.spec();
        let channels = dataset.channels.len();
        let targets = dataset.columns.targets.len();
        let futr = channels - dataset.columns.futr.len()..channels;
        let stat = dataset.columns.stat.len();
        for &number in numbers {
            let window = index.windows()[number];
            let series = &dataset.series[window.series as usize];
            let begin = i64::from(window.offset);
            let horizon = begin + spec.horizon_offset();
            let input = begin..begin + spec.input_size as i64;
            let horizon = horizon..horizon + spec.horizon as i64;
            // A training window that sticks out of its part must not see the validation rows behind it.
            let end = crate::window::part_rows(series, spec.part).end;
            let rows = series.start..series.start + end;
            copy(&mut self.x, &dataset.values, &rows, input.clone(), channels, 0..channels);
            copy(&mut self.x_mask, &dataset.mask, &rows, input, channels, 0..channels);
            copy(&mut self.y, &dataset.values, &rows, horizon.clone(), channels, 0..targets);
            copy(&mut self.y_mask, &dataset.mask, &rows, horizon.clone(), channels, 0..targets);
            // The known future is known beyond the part as well.
            let rows = series.start..series.start + series.len;
            copy(&mut self.futr, &dataset.values, &rows, horizon, channels, futr.clone());
            let at = window.series as usize * stat;
            self.stat.extend_from_slice(&dataset.stat[at..at + stat]);
            self.windows.push(window);
        }
    }

    fn clear(&mut self) {
        for slab in [&mut self.x, &mut self.x_mask, &mut self.y, &mut self.y_mask, &mut self.futr, &mut self.stat] {
            slab.clear();
        }
        self.windows.clear();
    }
}

/// Appends `wanted` rows (counted from the beginning of `rows`) of `columns`, zeros for those outside of `rows`.
fn copy(out: &mut Vec<f32>, from: &[f32], rows: &Range<usize>, wanted: Range<i64>, width: usize, columns: Range<usize>) {
    let len = (rows.end - rows.start) as i64;
    let inside = wanted.start.clamp(0, len)..wanted.end.clamp(0, len);
    let missing = |count: i64| count.max(0) as usize * columns.len();
    let before = missing(inside.start - wanted.start);
    let after = missing(wanted.end - wanted.start) - before - missing(inside.end - inside.start);
    out.resize(out.len() + before, 0.0);
    let cells = (rows.start + inside.start as usize) * width..(rows.start + inside.end as usize) * width;
    if columns.len() == width {
        out.extend_from_slice(&from[cells]);
    } else if !columns.is_empty() {
        for row in from[cells].chunks_exact(width) {
            out.extend_from_slice(&row[columns.clone()]);
        }
    }
    out.resize(out.len() + after, 0.0);
}

impl Drop for Batch {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            pool.give_back(std::mem::take(self));
        }
    }
}

/// Slabs that were used before, so that a step allocates nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pool(Arc<Mutex<Vec<Batch>>>);

impl Pool {
    pub(crate) fn take(&self) -> Batch {
        let mut batch = self.lock().pop().unwrap_or_default();
        batch.pool = Some(self.clone());
        batch
    }

    fn give_back(&self, batch: Batch) {
        let mut free = self.lock();
        // More than a few free ones only pile up when a consumer holds many batches at once.
        if free.len() < 8 {
            free.push(batch);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Batch>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
