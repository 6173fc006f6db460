//! From raw windows to what a network reads and a loss compares.

use deeprc_loader::{Dataset, Part};
use tch::{Kind, Tensor};

use crate::blocks::Windows;
use crate::config::{LossName, ScalerType, TrainConfig};
use crate::loss::Target;
use crate::model::{Frame, Inputs, Widths};
use crate::scaler::{Affine, Scale};
use crate::{Error, Result};

/// A batch of windows, normalised by their own lags.
#[derive(Debug)]
pub struct Prepared {
    /// For the network.
    pub inputs: Inputs,
    /// For the loss, in the network's scale.
    pub target: Target,
    /// For validation, in the scale of the data.
    pub original: Target,
    /// Back to the scale of the data; none if nothing was scaled.
    pub scale: Option<Scale>,
}

/// How windows of one data set are prepared for one model.
#[derive(Debug)]
pub struct Preparation {
    frame: Frame,
    widths: Widths,
    scaler: ScalerType,
    /// `[series, targets]`, for the loss nse.
    spread: Option<Tensor>,
    /// Weight of each step of the horizon; empty: all the same.
    horizon_weight: Vec<f64>,
    /// Channel with the weight of each row.
    row_weight: Option<usize>,
    /// Learned map of the scaler.
    affine: Option<Affine>,
}

impl Preparation {
    /// For windows of `dataset`; looks at its training rows if the loss needs the spread of each series.
    pub fn new(dataset: &Dataset, frame: Frame, widths: Widths, train: &TrainConfig) -> Self {
        let spread = (train.loss == LossName::Nse).then(|| spread(dataset));
        let row_weight = dataset.columns().weight.as_ref().map(|_| dataset.channels().len() - 1);
        let plain = Self::plain(frame, widths, train.scaler_type).weighted(&train.horizon_weight);
        Self { spread, row_weight, ..plain }
    }

    /// Without a data set: no loss that knows the series.
    pub fn plain(frame: Frame, widths: Widths, scaler: ScalerType) -> Self {
        Self { frame, widths, scaler, spread: None, horizon_weight: Vec::new(), row_weight: None, affine: None }
    }

    /// With the learned map of its scaler.
    #[must_use]
    pub fn learned(mut self, affine: Option<Affine>) -> Self {
        self.affine = affine;
        self
    }

    /// With a weight for each row of the raw windows in their channel `channel`: a window counts the mean of its horizon's.
    #[must_use]
    pub fn row_weighted(mut self, channel: usize) -> Self {
        self.row_weight = Some(channel);
        self
    }

    /// With a weight for each step of the horizon.
    #[must_use]
    pub fn weighted(mut self, horizon_weight: &[f64]) -> Self {
        self.horizon_weight = horizon_weight.to_vec();
        self
    }

    /// Splits `windows`, `[batch, input + horizon, targets | hist | futr]`, into inputs and targets.
    pub fn prepare(&self, windows: Windows, horizon: usize) -> Prepared {
        let (input, horizon) = (self.frame.input as i64, horizon as i64);
        let offset = self.frame.horizon_offset() as i64;
        let targets = self.widths.targets as i64;
        let Windows { temporal: raw, mask, stat, series } = windows;
        let channels = (self.widths.targets + self.widths.hist + self.widths.futr) as i64;
        let read = raw.narrow(2, 0, channels);
        let read_mask = mask.as_ref().map(|m| m.narrow(2, 0, channels));
        let scale = Scale::fit(self.scaler, &read, self.statistics_mask(read_mask.as_ref()).as_ref(), input);
        let scale = scale.map(|scale| self.affine.iter().fold(scale, Scale::with));
        let z = scale.as_ref().map_or_else(|| read.shallow_clone(), |s| s.transform(&read)); // [batch, rows, channels]
        let of_targets = |x: &Tensor| x.narrow(2, 0, targets);
        let ahead = |x: &Tensor| of_targets(x).narrow(1, offset, horizon);
        let rows = if self.frame.teacher_forcing { input + horizon - 1 } else { input };
        let past = |x: &Tensor| of_targets(x).narrow(1, 0, rows);
        let spread = self.spread.as_ref().map(|s| {
            let series: Vec<i64> = series.iter().map(|s| i64::from(*s)).collect();
            s.index_select(0, &Tensor::from_slice(&series).to_device(s.device())).unsqueeze(1)
        });
        let weight = self.weight(mask.as_ref().map(ahead), &raw, horizon);
        let target = |x: &Tensor| Target {
            y: ahead(x),
            mask: weight.as_ref().map(Tensor::shallow_clone),
            insample: past(x),
            spread: spread.as_ref().map(Tensor::shallow_clone),
        };
        Prepared {
            target: target(&z),
            original: target(&raw),
            inputs: Inputs { y: past(&z), mask: mask.as_ref().map(past), hist: self.hist(&z, input), futr: self.futr(&z), stat },
            scale,
        }
    }

    /// What each value of the horizon counts, `[batch, horizon, targets]`; weights are those of a whole horizon only, not of the few
    /// steps on which a recurrent model may be trained.
    fn weight(&self, mask: Option<Tensor>, raw: &Tensor, horizon: i64) -> Option<Tensor> {
        let shape = [raw.size()[0], horizon, self.widths.targets as i64];
        let times = |mask: Option<Tensor>, weight: Tensor| Some(mask.map_or_else(|| weight.expand(shape, false), |mask| mask * &weight));
        let mask = match self.horizon_weight.len() as i64 == horizon {
            true => {
                let weight = Tensor::from_slice(&self.horizon_weight).to_kind(Kind::Float).to_device(raw.device());
                times(mask, weight.view([1, horizon, 1]))
            }
            false => mask,
        };
        let Some(channel) = self.row_weight else { return mask };
        let rows = raw.narrow(2, channel as i64, 1).narrow(1, self.frame.horizon_offset() as i64, horizon);
        times(mask, rows.mean_dim([1i64].as_slice(), true, None::<Kind>))
    }

    /// A row counts for the statistics of a channel where the channel was observed and, with one target, the target too.
    fn statistics_mask(&self, mask: Option<&Tensor>) -> Option<Tensor> {
        let alone = self.widths.targets == 1;
        mask.map(|m| if alone { m * m.narrow(2, 0, 1) } else { m.shallow_clone() })
    }

    fn hist(&self, z: &Tensor, input: i64) -> Option<Tensor> {
        if self.widths.hist == 0 {
            return None;
        }
        let all = z.narrow(2, self.widths.targets as i64, self.widths.hist as i64);
        let past = all.narrow(1, 0, input);
        if !self.frame.teacher_forcing {
            return Some(past);
        }
        let ahead = all.slice(1, input, None, 1).zeros_like();
        Some(Tensor::cat(&[past.slice(1, 1, None, 1), ahead], 1))
    }

    fn futr(&self, z: &Tensor) -> Option<Tensor> {
        let first = (self.widths.targets + self.widths.hist) as i64;
        let from = i64::from(self.frame.teacher_forcing);
        (self.widths.futr > 0).then(|| z.narrow(2, first, self.widths.futr as i64).slice(1, from, None, 1))
    }
}

/// Standard deviation of each target over the observed training rows of each series, `[series, targets]`.
fn spread(dataset: &Dataset) -> Tensor {
    let (channels, targets) = (dataset.channels().len(), dataset.columns().targets.len());
    let mut out = Vec::with_capacity(dataset.series().len() * targets);
    for series in dataset.series() {
        let cells = series.start * channels..(series.start + series.train) * channels;
        for target in 0..targets {
            let of = |x: &[f32]| x[cells.clone()].iter().skip(target).step_by(channels).copied().map(f64::from).collect();
            let (values, mask): (Vec<f64>, Vec<f64>) = (of(dataset.values()), of(dataset.mask()));
            let weighted = |f: &dyn Fn(f64) -> f64| values.iter().zip(&mask).map(|(v, m)| f(*v) * m).sum::<f64>();
            let count = mask.iter().sum::<f64>().max(1.0);
            let mean = weighted(&|v| v) / count;
            out.push((weighted(&|v| (v - mean).powi(2)) / count).sqrt() as f32);
        }
    }
    Tensor::from_slice(&out).view([-1, targets as i64]).to_kind(Kind::Float)
}

/// Whether the weights of the rows can be used.
///
/// # Errors
/// [`Error::Value`] naming the first negative one.
pub(crate) fn check_weights(dataset: &Dataset) -> Result<()> {
    let Some(column) = &dataset.columns().weight else { return Ok(()) };
    let channels = dataset.channels().len();
    for series in dataset.series() {
        for row in 0..series.len {
            let value = dataset.values()[(series.start + row + 1) * channels - 1];
            if value < 0.0 {
                let (what, needs, column) = ("the weight of rows", "values that are 0 or positive", column.clone());
                return Err(Error::Value { what, needs, value: f64::from(value), column, series: series.id.clone(), row: row + 1 });
            }
        }
    }
    Ok(())
}

/// Parts of a data set that a model may be trained on or evaluated with.
pub(crate) fn has_rows(dataset: &Dataset, part: Part) -> bool {
    dataset.series().iter().any(|s| match part {
        Part::Train => s.train > 0,
        Part::Validation => s.validation > 0,
        Part::Test => s.test > 0,
        Part::All => s.len > 0,
    })
}
