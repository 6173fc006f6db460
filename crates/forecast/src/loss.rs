//! What training minimises and validation measures, and what a network's outputs mean under it.
//!
//! A loss says how many values a network forecasts for each target and step ([`Loss::outputs`]), compares them with what happened
//! ([`Loss::train`], [`Loss::validate`]) and turns them into the columns of a forecast ([`Loss::columns`], [`Loss::suffixes`]):
//!
//! ```text
//!   loss                 outputs                    columns
//!   point losses         the forecast               y_hat
//!   mqloss               median, quantiles          y_hat, y_hat-lo-90, y_hat-lo-80, y_hat-hi-80, y_hat-hi-90
//!   distributionloss     arguments of a             y_hat (its mean), y_hat-median, y_hat-lo-90, ...
//!                        distribution
//! ```

use deeprc_loader::Dataset;
use tch::{Kind, Tensor};

use crate::config::{Distribution, LossName, TrainConfig};
use crate::distribution::{Arguments, support};
use crate::preparation::Prepared;
use crate::scaler::Scale;
use crate::{Error, Result};

/// What a forecast is compared with.
#[derive(Debug)]
pub struct Target {
    /// `[batch, horizon, targets]`.
    pub y: Tensor,
    /// Weight of each `y`, of the same shape: 0 where it was not observed; none if all of them count alike.
    pub mask: Option<Tensor>,
    /// `[batch, time, targets]`: what the network saw of the past, for [`Loss::Mase`].
    pub insample: Tensor,
    /// `[batch, 1, targets]`: standard deviation of each window's series, for [`Loss::Nse`].
    pub spread: Option<Tensor>,
}

impl Target {
    /// All of `y` counts, and nothing is known of its past.
    pub fn new(y: Tensor, mask: Option<Tensor>) -> Self {
        let insample = y.narrow(1, 0, 0);
        Self { y, mask, insample, spread: None }
    }
}

/// A loss, averaged over all observed values: `sum(loss * mask) / sum(mask)`, 0 if nothing was observed.
#[derive(Clone, Debug, PartialEq)]
pub enum Loss {
    /// `|y - y_hat|`.
    Mae,
    /// `(y - y_hat)^2`.
    Mse,
    /// Root of the mean of `(y - y_hat)^2`.
    Rmse,
    /// `|y - y_hat| / |y|`, 0 where `y` is 0.
    Mape,
    /// `2 |y - y_hat| / (|y| + |y_hat|)`, 0 where both are 0.
    Smape,
    /// `|y - y_hat|` divided by the mean of `|y_t - y_(t-seasonality)|` over the lags (Hyndman and Koehler 2006), 0 where those
    /// do not change.
    Mase {
        /// Steps in a season.
        seasonality: i64,
        /// As the peer's code does by broadcasting: the error of every window is divided by the means of all windows of the batch,
        /// and the results are added up.
        broadcast: bool,
    },
    /// Squared below `delta`, absolute above (Huber 1964).
    Huber {
        /// Where it turns.
        delta: f64,
    },
    /// `max(q e, (q - 1) e)` with `e = y - y_hat` (Koenker and Bassett 1978).
    Quantile {
        /// The quantile.
        q: f64,
    },
    /// Sum of the quantile losses of several outputs (the peer's code divides by a 1 where its text divides by their number).
    MultiQuantile {
        /// The median first, then ascending.
        quantiles: Vec<f64>,
    },
    /// Negative log-likelihood of a distribution, always in the scale of the data.
    Distribution {
        /// Whose arguments the outputs are.
        distribution: Distribution,
        /// The median first, then ascending.
        quantiles: Vec<f64>,
        /// Draws behind each quantile.
        samples: usize,
    },
    /// `((y - y_hat) / (spread + 0.1))^2` (Kratzert et al. 2019, the basin-averaged NSE).
    Nse,
}

/// Keeps basins with almost constant flow from dominating; in units of the scaled target, as in the paper.
const NSE_EPSILON: f64 = 0.1;

impl Loss {
    /// The loss of training.
    pub fn training(config: &TrainConfig) -> Self {
        Self::of(config.loss, config)
    }

    /// The loss of validation.
    pub fn validation(config: &TrainConfig) -> Self {
        Self::of(config.valid_loss.unwrap_or(config.loss), config)
    }

    fn of(name: LossName, config: &TrainConfig) -> Self {
        match name {
            LossName::Mae => Loss::Mae,
            LossName::Mse => Loss::Mse,
            LossName::Rmse => Loss::Rmse,
            LossName::Mape => Loss::Mape,
            LossName::Smape => Loss::Smape,
            LossName::Mase => Loss::Mase { seasonality: config.seasonality as i64, broadcast: config.mase_broadcast },
            LossName::Huber => Loss::Huber { delta: config.huber_delta },
            LossName::Quantile => Loss::Quantile { q: config.quantile },
            LossName::MqLoss => Loss::MultiQuantile { quantiles: quantiles(config) },
            LossName::DistributionLoss => {
                Loss::Distribution { distribution: config.distribution, quantiles: quantiles(config), samples: config.num_samples }
            }
            LossName::Nse => Loss::Nse,
        }
    }

    /// The quantile loss of the median and both bounds of the intervals `levels`, in percent.
    pub fn intervals(levels: &[f64]) -> Self {
        Loss::MultiQuantile { quantiles: with_median(bounds(levels)) }
    }

    /// Whether the observed training targets of `dataset` are possible under the loss.
    ///
    /// # Errors
    /// [`Error::Value`] naming the first that is not.
    pub fn check(&self, dataset: &Dataset) -> Result<()> {
        let Loss::Distribution { distribution, .. } = self else { return Ok(()) };
        let (needs, possible) = support(*distribution);
        let (channels, targets) = (dataset.channels().len(), dataset.columns().targets.len());
        for series in dataset.series() {
            for (row, target) in (0..series.train).flat_map(|row| (0..targets).map(move |target| (row, target))) {
                let cell = (series.start + row) * channels + target;
                let value = dataset.values()[cell];
                if dataset.mask()[cell] > 0.0 && !possible(value) {
                    let (column, series) = (dataset.channels()[target].clone(), series.id.clone());
                    return Err(Error::Value { what: distribution.as_str(), needs, value: f64::from(value), column, series, row: row + 1 });
                }
            }
        }
        Ok(())
    }

    /// The same loss whose quantiles come from `samples` draws.
    #[must_use]
    pub fn with_samples(mut self, count: usize) -> Self {
        if let Loss::Distribution { samples, .. } = &mut self {
            *samples = count;
        }
        self
    }

    /// Values that a model forecasts for each target and step.
    pub fn outputs(&self) -> usize {
        match self {
            Loss::MultiQuantile { quantiles } => quantiles.len(),
            Loss::Distribution { distribution, .. } => distribution.arguments(),
            _ => 1,
        }
    }

    /// What to append to the name of a forecast column for each column of a target: nothing for the first, the point forecast, then
    /// `-median` after the mean of a distribution, `-lo-80`, `-hi-80`, ....
    pub fn suffixes(&self) -> Vec<String> {
        match self {
            Loss::MultiQuantile { quantiles } => {
                let bounds = quantiles[1..].iter().map(|q| suffix(*q));
                std::iter::once(String::new()).chain(bounds).collect()
            }
            Loss::Distribution { quantiles, .. } => {
                let quantiles = quantiles.iter().map(|q| suffix(*q));
                std::iter::once(String::new()).chain(quantiles).collect()
            }
            _ => vec![String::new()],
        }
    }

    /// The loss of training (a scalar): of the network's `output`, `[batch, horizon, targets * outputs]`, in its own scale.
    pub fn train(&self, prepared: &Prepared, output: &Tensor) -> Tensor {
        match self {
            Loss::Distribution { distribution, .. } => {
                let target = &prepared.original;
                likelihood(&arguments(*distribution, prepared.scale.as_ref(), output, target.y.size()[2]), target)
            }
            _ => self.evaluate(&prepared.target, output),
        }
    }

    /// This loss (a scalar) in the scale of the data, of the `output` of a network trained with the loss `trained`; `seeds`, one
    /// for each window, are those of [`columns`](Self::columns).
    pub fn validate(&self, trained: &Loss, prepared: &Prepared, output: &Tensor, seeds: &[u64]) -> Tensor {
        let (target, scale) = (&prepared.original, prepared.scale.as_ref());
        let targets = target.y.size()[2];
        match (self, trained) {
            (Loss::Distribution { .. }, Loss::Distribution { distribution, .. }) => {
                likelihood(&arguments(*distribution, scale, output, targets), target)
            }
            (Loss::MultiQuantile { .. }, Loss::Distribution { .. }) => {
                let columns = trained.columns(scale, output, targets, seeds).unflatten(2, [targets, -1]);
                self.evaluate(target, &columns.slice(3, 1, None, 1).flatten(2, 3).to_device(output.device()))
            }
            (Loss::MultiQuantile { quantiles }, _) => self.evaluate(target, &inverse(scale, output, targets, quantiles.len() as i64)),
            _ => self.evaluate(target, &trained.point(scale, output, targets)),
        }
    }

    /// The columns of a forecast in the scale of the data, `[batch, horizon, targets * columns]`, of the network's `output`,
    /// `[batch, horizon, targets * outputs]`. Quantiles of a distribution are drawn: `seeds` has one for each window.
    pub fn columns(&self, scale: Option<&Scale>, output: &Tensor, targets: i64, seeds: &[u64]) -> Tensor {
        match self {
            Loss::Distribution { distribution, quantiles, samples } => {
                arguments(*distribution, scale, output, targets).columns(quantiles, *samples, seeds).flatten(2, 3)
            }
            _ => inverse(scale, output, targets, self.outputs() as i64),
        }
    }

    /// The point forecast in the scale of the data, `[batch, horizon, targets]`, of the network's `output`: the forecast, the median
    /// of several quantiles, the mean of a distribution.
    pub fn point(&self, scale: Option<&Scale>, output: &Tensor, targets: i64) -> Tensor {
        match self {
            Loss::Distribution { distribution, .. } => arguments(*distribution, scale, output, targets).mean(),
            _ => inverse(scale, output, targets, self.outputs() as i64).slice(2, 0, None, self.outputs() as i64),
        }
    }

    /// The loss (a scalar) of `y_hat`, `[batch, horizon, targets * outputs]`, in the scale of `target`.
    ///
    /// # Panics
    /// For [`Loss::Distribution`], whose outputs are no forecasts: see [`train`](Self::train) and [`validate`](Self::validate).
    pub fn evaluate(&self, target: &Target, y_hat: &Tensor) -> Tensor {
        let (y, mask) = (&target.y, target.mask.as_ref());
        match self {
            Loss::Mae => mean((y - y_hat).abs(), mask),
            Loss::Mse => mean((y - y_hat).square(), mask),
            Loss::Rmse => mean((y - y_hat).square(), mask).sqrt(),
            Loss::Mape => mean(ratio(&(y - y_hat).abs(), &y.abs()), mask),
            Loss::Smape => mean(ratio(&(y - y_hat).abs(), &(y.abs() + y_hat.abs())), mask) * 2.0,
            Loss::Mase { seasonality, broadcast } => {
                let past = &target.insample;
                let seasons = past.slice(1, *seasonality, None, 1) - past.slice(1, 0, -*seasonality, 1);
                let naive = seasons.abs().mean_dim([1i64].as_slice(), true, None::<Kind>); // [batch, 1, targets]
                let error = (y - y_hat).abs();
                match broadcast {
                    false => mean(ratio(&error, &naive), mask),
                    true => mean(error * ratio(&naive.ones_like(), &naive).sum_dim_intlist([0i64].as_slice(), true, None::<Kind>), mask),
                }
            }
            Loss::Huber { delta } => mean(y.huber_loss(y_hat, tch::Reduction::None, *delta), mask),
            Loss::Quantile { q } => {
                let error = y - y_hat;
                mean((&error * *q).maximum(&(&error * (*q - 1.0))), mask)
            }
            Loss::MultiQuantile { quantiles } => multi_quantile(y, y_hat, quantiles, mask),
            Loss::Distribution { .. } => panic!("a distribution has a likelihood, not an error"),
            Loss::Nse => {
                let error = y - y_hat;
                let scaled = target.spread.iter().fold(error, |error, spread| error / (spread + NSE_EPSILON));
                mean(scaled.square(), mask)
            }
        }
    }
}

/// Losses over windows that several ranks, or several batches, share.
impl Loss {
    /// The loss whose means over parts, weighted with [`Target::weight`], give its mean over the whole: this one unless it is a root.
    pub fn additive(&self) -> Loss {
        if *self == Loss::Rmse { Loss::Mse } else { self.clone() }
    }

    /// This loss, and its derivative, where the mean of the [additive](Self::additive) one is `mean`.
    pub fn of_mean(&self, mean: f64) -> (f64, f64) {
        match self {
            Loss::Rmse if mean > 0.0 => (mean.sqrt(), 0.5 / mean.sqrt()),
            _ => (mean, 1.0),
        }
    }
}

impl Target {
    /// What a mean over this target is divided by: its observed values.
    pub fn weight(&self) -> f64 {
        match &self.mask {
            None => self.y.numel() as f64,
            Some(mask) => mask.sum(None::<Kind>).double_value(&[]),
        }
    }
}

/// What a recurrent model reads in place of the targets that it forecasts itself.
#[derive(Clone, Copy, Debug)]
pub struct Feedback<'a> {
    loss: &'a Loss,
    scale: Option<&'a Scale>,
}

impl<'a> Feedback<'a> {
    /// Under `loss`, with windows scaled by `scale`.
    pub fn new(loss: &'a Loss, scale: Option<&'a Scale>) -> Self {
        Self { loss, scale }
    }

    /// `[batch, 1, 1]` of the network's output at one step, `[batch, 1, outputs]`, both in its own scale: the forecast, the mean of
    /// several quantiles, the mean of a distribution.
    pub fn next(&self, output: &Tensor) -> Tensor {
        match self.loss {
            Loss::Distribution { distribution, .. } => {
                let mean = arguments(*distribution, self.scale, output, 1).mean();
                self.scale.map_or_else(|| mean.shallow_clone(), |scale| scale.again(&mean, 1))
            }
            Loss::MultiQuantile { .. } => output.mean_dim([-1i64].as_slice(), true, None::<Kind>),
            _ => output.shallow_clone(),
        }
    }
}

fn arguments(distribution: Distribution, scale: Option<&Scale>, output: &Tensor, targets: i64) -> Arguments {
    let level = scale.map(|scale| scale.level(targets));
    Arguments::of(distribution, output, targets, level.as_ref().map(|(location, scale)| (location, scale)))
}

fn likelihood(arguments: &Arguments, target: &Target) -> Tensor {
    let losses = arguments.negative_log_likelihood(&target.y);
    match &target.mask {
        None => mean(losses, None),
        // What was not observed is a zero, which may be impossible under the distribution.
        Some(mask) => mean(losses.where_self(&mask.ne(0.0), &losses.zeros_like()), Some(mask)),
    }
}

fn inverse(scale: Option<&Scale>, output: &Tensor, targets: i64, outputs: i64) -> Tensor {
    scale.map_or_else(|| output.shallow_clone(), |scale| scale.inverse(output, targets, outputs))
}

/// The quantiles of a configuration: the median first, then ascending.
fn quantiles(config: &TrainConfig) -> Vec<f64> {
    with_median(if config.quantiles.is_empty() { bounds(&config.level) } else { config.quantiles.clone() })
}

/// Both bounds of each interval.
fn bounds(levels: &[f64]) -> Vec<f64> {
    levels.iter().flat_map(|level| [(100.0 - level) / 200.0, (100.0 + level) / 200.0]).collect()
}

fn with_median(mut quantiles: Vec<f64>) -> Vec<f64> {
    quantiles.retain(|q| *q != 0.5);
    quantiles.sort_by(f64::total_cmp);
    quantiles.dedup();
    quantiles.insert(0, 0.5);
    quantiles
}

/// `-lo-80` for the quantile 0.1.
pub(crate) fn suffix(q: f64) -> String {
    let percent = |level: f64| (level * 1e6).round() / 1e6;
    match q.total_cmp(&0.5) {
        std::cmp::Ordering::Less => format!("-lo-{}", percent(100.0 - 200.0 * q)),
        std::cmp::Ordering::Equal => "-median".to_owned(),
        std::cmp::Ordering::Greater => format!("-hi-{}", percent(200.0 * q - 100.0)),
    }
}

/// `a / b`, 0 where `b` is 0.
fn ratio(a: &Tensor, b: &Tensor) -> Tensor {
    let zero = b.eq(0.0);
    (a / b.masked_fill(&zero, 1.0)).masked_fill(&zero, 0.0)
}

/// `sum over q of max(q e, (q - 1) e)`: `[batch, horizon, targets]` against `[batch, horizon, targets * quantiles]`.
fn multi_quantile(y: &Tensor, y_hat: &Tensor, quantiles: &[f64], mask: Option<&Tensor>) -> Tensor {
    let count = quantiles.len() as i64;
    let size = y.size();
    let error = y_hat.reshape([size[0], size[1], size[2], count]) - y.unsqueeze(-1);
    let q = Tensor::from_slice(quantiles).to_kind(Kind::Float).to_device(y.device());
    let below: Tensor = error.clamp_max(0.0) * &q; // <= 0
    let above: Tensor = error.clamp_min(0.0) * (1.0 - &q);
    mean((above - below).sum_dim_intlist([-1i64].as_slice(), false, None::<Kind>), mask)
}

fn mean(losses: Tensor, mask: Option<&Tensor>) -> Tensor {
    match mask {
        None => losses.mean(None::<Kind>),
        // Nothing observed: 0 / 0 becomes 0, with zero gradients.
        Some(mask) => (losses * mask).sum(None::<Kind>) / mask.sum(None::<Kind>).clamp_min(f64::from(f32::MIN_POSITIVE)),
    }
}
