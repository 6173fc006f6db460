//! What training minimises and validation measures.

use tch::{Kind, Tensor};

use crate::config::{LossName, TrainConfig};

/// What a forecast is compared with.
#[derive(Debug)]
pub struct Target {
    /// `[batch, horizon, targets]`.
    pub y: Tensor,
    /// 1 where `y` was observed, of the same shape; none if all of it was.
    pub mask: Option<Tensor>,
    /// `[batch, 1, targets]`: standard deviation of each window's series, for [`Loss::Nse`].
    pub spread: Option<Tensor>,
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
        /// Percent of the interval that each one bounds, for names; the median's is 0.
        levels: Vec<f64>,
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
            LossName::Huber => Loss::Huber { delta: config.huber_delta },
            LossName::Quantile => Loss::Quantile { q: config.quantile },
            LossName::MqLoss => Loss::intervals(&config.level),
            LossName::Nse => Loss::Nse,
        }
    }

    /// The median and both bounds of the intervals `levels`, in percent.
    pub fn intervals(levels: &[f64]) -> Self {
        let mut levels = levels.to_vec();
        levels.sort_by(f64::total_cmp);
        levels.dedup();
        let lower = levels.iter().rev().map(|l| (0.5 - l / 200.0, *l));
        let upper = levels.iter().map(|l| (0.5 + l / 200.0, *l));
        let (quantiles, levels) = [(0.5, 0.0)].into_iter().chain(lower).chain(upper).unzip();
        Loss::MultiQuantile { quantiles, levels }
    }

    /// Values that a model forecasts for each target and step.
    pub fn outputs(&self) -> usize {
        match self {
            Loss::MultiQuantile { quantiles, .. } => quantiles.len(),
            _ => 1,
        }
    }

    /// What to append to the name of a forecast column for each output: nothing for the first, `-lo-80`, `-hi-80`, ....
    pub fn suffixes(&self) -> Vec<String> {
        let Loss::MultiQuantile { quantiles, levels } = self else {
            return vec![String::new()];
        };
        let name = |(q, level): (&f64, &f64)| match q.total_cmp(&0.5) {
            std::cmp::Ordering::Less => format!("-lo-{level}"),
            std::cmp::Ordering::Equal => String::new(),
            std::cmp::Ordering::Greater => format!("-hi-{level}"),
        };
        quantiles.iter().zip(levels).map(name).collect()
    }

    /// The loss (a scalar) of `y_hat`, `[batch, horizon, targets * outputs]`.
    pub fn evaluate(&self, target: &Target, y_hat: &Tensor) -> Tensor {
        let (y, mask) = (&target.y, target.mask.as_ref());
        match self {
            Loss::Mae => mean((y - y_hat).abs(), mask),
            Loss::Mse => mean((y - y_hat).square(), mask),
            Loss::Rmse => mean((y - y_hat).square(), mask).sqrt(),
            Loss::Huber { delta } => mean(y.huber_loss(y_hat, tch::Reduction::None, *delta), mask),
            Loss::Quantile { q } => {
                let error = y - y_hat;
                mean((&error * *q).maximum(&(&error * (*q - 1.0))), mask)
            }
            Loss::MultiQuantile { quantiles, .. } => multi_quantile(y, y_hat, quantiles, mask),
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
