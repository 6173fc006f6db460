//! Rolling evaluation, with the models fitted once or again and again.

use std::sync::Arc;

use deeprc_loader::{Dataset, Part};
use deeprc_table::arrow::array::{Array, RecordBatch, UInt32Array};
use deeprc_table::arrow::compute::{SortColumn, concat_batches, lexsort_to_indices, take};

use super::output::{chosen, rolled};
use super::{FitOptions, NeuralForecast};
use crate::task::Rolling;
use crate::trainer::Observer;
use crate::{Error, Result};

/// Which windows at the end of each series are forecast, and how often the models are fitted.
///
/// ```text
///   n_windows 3, step_size 2, h 4      [ train ................. | val ][ test ......... ]
///                                                                       [ h     ]
///                                                                           [ h     ]
///                                                                               [ h     ]
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct CrossValidation {
    /// Windows per series, unless `test_size` says how many.
    pub n_windows: usize,
    /// Rows between two windows.
    pub step_size: usize,
    /// Rows before the test rows to validate on.
    pub val_size: usize,
    /// Test rows; `h + step_size * (n_windows - 1)` unless given.
    pub test_size: Option<usize>,
    /// How often the models are fitted.
    pub refit: Refit,
}

impl Rolling {
    /// Test rows and windows per series.
    pub(crate) fn sizes(&self, h: usize, step_size: usize) -> Result<(usize, usize)> {
        let (n_windows, test_size) = (self.n_windows, self.test_size);
        CrossValidation { n_windows, step_size, test_size, ..CrossValidation::default() }.sizes(h)
    }
}

/// How often cross-validation fits the models anew, from random weights, on all rows up to the cutoff.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Refit {
    /// Once, on the rows before the first window.
    #[default]
    Never,
    /// For every window.
    Always,
    /// For every n-th window, from the first one on.
    Every(usize),
}

impl Default for CrossValidation {
    fn default() -> Self {
        Self { n_windows: 1, step_size: 1, val_size: 0, test_size: None, refit: Refit::Never }
    }
}

impl CrossValidation {
    /// Test rows and windows per series.
    fn sizes(&self, h: usize) -> Result<(usize, usize)> {
        let problem = |problem: String| Err(Error::Models { problem });
        if self.step_size == 0 || (self.test_size.is_none() && self.n_windows == 0) {
            return problem("need a step_size and n_windows of at least 1".to_owned());
        }
        let test = self.test_size.unwrap_or(h + self.step_size * (self.n_windows - 1));
        match test.checked_sub(h) {
            Some(rest) if rest.is_multiple_of(self.step_size) => Ok((test, rest / self.step_size + 1)),
            Some(_) => problem(format!("need a test_size of {h} plus a multiple of the step_size {}, not {test}", self.step_size)),
            None => problem(format!("need at least {h} test rows, one horizon, not {test}")),
        }
    }
}

pub(super) fn run(
    nf: &mut NeuralForecast,
    dataset: &Arc<Dataset>,
    options: &CrossValidation,
    observer: &mut dyn Observer,
) -> Result<RecordBatch> {
    let (test, count) = options.sizes(nf.h())?;
    let fit = FitOptions { keep_parts: true, ..FitOptions::default() };
    let every = match options.refit {
        Refit::Never => {
            let parts = Arc::new(dataset.resplit(options.val_size, test)?);
            nf.fit(&parts, &fit, observer)?;
            return rolled(&nf.fitted()?, &parts, Part::Test, options.step_size, &nf.comm);
        }
        Refit::Always => 1,
        Refit::Every(windows) => windows.max(1),
    };
    let mut tables = Vec::with_capacity(count);
    for window in 0..count {
        let parts = Arc::new(dataset.resplit(options.val_size, test - window * options.step_size)?);
        if window % every == 0 {
            nf.fit(&parts, &fit, observer)?;
        }
        let series = parts.series();
        let first = |(number, row): (u32, i64)| row == (series[number as usize].train + series[number as usize].validation) as i64;
        tables.push(chosen(&nf.fitted()?, &parts, Part::Test, options.step_size, &nf.comm, first)?);
    }
    by_series(&tables)
}

/// All rows by series, cutoff and time.
fn by_series(tables: &[RecordBatch]) -> Result<RecordBatch> {
    let sort = || {
        let all = concat_batches(&tables[0].schema(), tables)?;
        let key = |at: usize| SortColumn { values: Arc::clone(all.column(at)), options: None };
        let order: UInt32Array = lexsort_to_indices(&[key(0), key(2), key(1)], None)?;
        let columns = all.columns().iter().map(|column: &Arc<dyn Array>| take(column, &order, None)).collect::<Result<Vec<_>, _>>()?;
        RecordBatch::try_new(all.schema(), columns)
    };
    sort().map_err(|e| Error::Forecasts { problem: e.to_string() })
}
