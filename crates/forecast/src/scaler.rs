//! Normalisation of each window by its own lags (NeuralForecast's `TemporalNorm`).

use tch::{Device, Kind, Tensor};

use crate::Parameters;
use crate::config::ScalerType;

/// Keeps divisions finite.
const EPSILON: f64 = 1e-6;
/// Standard deviation to median absolute deviation of a normal distribution.
const MAD_OF_STD: f64 = 0.674_489_750_196_081_7;

/// Shift and scale of a batch of windows, `[batch, 1, channels]` each.
#[derive(Debug)]
pub struct Scale {
    scaler: ScalerType,
    /// What is added on the way back, and subtracted before.
    pub shift: Tensor,
    /// What is multiplied by on the way back, and divided by before.
    pub scale: Tensor,
    /// Shift and scale of the way there, where `revin` has others on the way back.
    there: Option<(Tensor, Tensor)>,
}

/// The learned map of `revin` on the way back: the shift grows by `bias` and the scale by the factor `weight`.
///
/// Point losses compare in the network's scale and never see it, so that only distributions have one.
#[derive(Debug)]
pub struct Affine {
    /// `[1, 1, channels, 1]`
    weight: Tensor,
    /// `[1, 1, channels, 1]`
    bias: Tensor,
}

impl Affine {
    /// Parameters `scaler.revin_bias` and `scaler.revin_weight` for the targets, hist and futr columns, at first without effect.
    pub fn new(parameters: &mut Parameters, channels: i64) -> Self {
        let (shape, float) = ([1, 1, channels, 1], (Kind::Float, Device::Cpu));
        let bias = parameters.learned("scaler.revin_bias", &Tensor::zeros(shape, float));
        let weight = parameters.learned("scaler.revin_weight", &Tensor::ones(shape, float));
        Self { weight, bias }
    }
}

impl Scale {
    /// Statistics of the first `lags` rows of `x`, `[batch, time, channels]`, where `mask` (of that shape or
    /// `[batch, time, 1]`) is 1; constant stretches get scale 1, unobserved ones shift 0. Identity needs none of it.
    pub fn fit(scaler: ScalerType, x: &Tensor, mask: Option<&Tensor>, lags: i64) -> Option<Self> {
        let _no_grad = tch::no_grad_guard();
        let x = x.narrow(1, 0, lags);
        let mask = mask.map(|m| m.narrow(1, 0, lags));
        let mask = mask.as_ref();
        let mut there = None;
        let (shift, scale) = match scaler {
            ScalerType::Identity => return None,
            ScalerType::Standard => standard(&x, mask),
            ScalerType::Revin => {
                let (shift, scale) = standard(&x, mask);
                let back = (shift.shallow_clone(), &scale * (1.0 + EPSILON));
                there = Some((shift, scale));
                back
            }
            ScalerType::Robust | ScalerType::Invariant => robust(&x, mask),
            ScalerType::MinMax | ScalerType::MinMax1 => minmax(&x, mask),
        };
        Some(Self { scaler, shift, scale, there })
    }

    /// With a learned map on the way back.
    #[must_use]
    pub fn with(mut self, affine: &Affine) -> Self {
        if let Some((shift, scale)) = &self.there {
            self.shift = shift + affine.bias.squeeze_dim(-1);
            self.scale = scale * (affine.weight.squeeze_dim(-1).relu() + EPSILON);
        }
        self
    }

    /// Location and scale of the `targets` first channels, `[batch, 1, targets]` each.
    pub fn level(&self, targets: i64) -> (Tensor, Tensor) {
        (self.shift.narrow(2, 0, targets), self.scale.narrow(2, 0, targets))
    }

    /// Forecasts of the `targets` first channels as the network reads them again, `[batch, time, targets]`: with a learned map, by
    /// its shift and scale, so that this undoes [`inverse`](Self::inverse).
    pub fn again(&self, y: &Tensor, targets: i64) -> Tensor {
        let (location, scale) = self.level(targets);
        self.bend((y - location) / scale)
    }

    /// Normalised `x`.
    pub fn transform(&self, x: &Tensor) -> Tensor {
        let (shift, scale) = self.there.as_ref().map_or((&self.shift, &self.scale), |(shift, scale)| (shift, scale));
        self.bend((x - shift) / scale)
    }

    fn bend(&self, z: Tensor) -> Tensor {
        match self.scaler {
            ScalerType::Invariant => z.arcsinh(),
            ScalerType::MinMax1 => z * 2.0 - 1.0,
            _ => z,
        }
    }

    /// Back to the scale of the data: of all channels, or of the `targets` first ones with `outputs` values for each.
    pub fn inverse(&self, z: &Tensor, targets: i64, outputs: i64) -> Tensor {
        let of = |x: &Tensor| x.narrow(2, 0, targets).repeat_interleave_self_int(outputs, 2, None);
        let z = match self.scaler {
            ScalerType::Invariant => z.sinh(),
            ScalerType::MinMax1 => (z + 1.0) / 2.0,
            _ => z.shallow_clone(),
        };
        z * of(&self.scale) + of(&self.shift)
    }
}

/// NaN where nothing was observed.
fn hidden(x: &Tensor, mask: Option<&Tensor>) -> Tensor {
    match mask {
        None => x.shallow_clone(),
        Some(mask) => x.masked_fill(&mask.lt(1.0), f64::NAN),
    }
}

fn mean(x: &Tensor, mask: Option<&Tensor>) -> Tensor {
    match mask {
        None => x.mean_dim([1i64].as_slice(), true, None::<Kind>),
        Some(_) => hidden(x, mask).nanmean([1i64].as_slice(), true, None::<Kind>).nan_to_num(0.0, None, None),
    }
}

/// The lower of the two middle values, as PyTorch's.
fn median(x: &Tensor, mask: Option<&Tensor>) -> Tensor {
    hidden(x, mask).nanmedian_dim(1, true).0.nan_to_num(0.0, None, None)
}

fn without_zeros(scale: Tensor) -> Tensor {
    let zeros = scale.eq(0.0);
    scale.masked_fill(&zeros, 1.0)
}

fn standard(x: &Tensor, mask: Option<&Tensor>) -> (Tensor, Tensor) {
    let shift = mean(x, mask);
    let deviation = mean(&(x - &shift).square(), mask).sqrt();
    (shift, without_zeros(deviation) + EPSILON)
}

fn robust(x: &Tensor, mask: Option<&Tensor>) -> (Tensor, Tensor) {
    let shift = median(x, mask);
    let mad = median(&(x - &shift).abs(), mask);
    let zero = mad.eq(0.0);
    if !bool::try_from(zero.any()).unwrap_or(true) {
        return (shift, mad + EPSILON);
    }
    let center = mean(x, mask);
    let instead = mean(&(x - center).square(), mask).sqrt() * MAD_OF_STD;
    (shift, without_zeros(instead.where_self(&zero, &mad)) + EPSILON)
}

fn minmax(x: &Tensor, mask: Option<&Tensor>) -> (Tensor, Tensor) {
    let (low, high) = match mask {
        None => (x.amin([1i64].as_slice(), true), x.amax([1i64].as_slice(), true)),
        Some(mask) => {
            let hidden = mask.lt(1.0);
            // Where nothing is observed the peer's nan_to_num leaves the largest and the smallest finite number.
            let largest = f64::from(f32::MAX);
            let low = x.masked_fill(&hidden, f64::INFINITY).nan_to_num(f64::INFINITY, largest, -largest);
            let high = x.masked_fill(&hidden, f64::NEG_INFINITY).nan_to_num(f64::NEG_INFINITY, largest, -largest);
            (low.amin([1i64].as_slice(), true), high.amax([1i64].as_slice(), true))
        }
    };
    let range = without_zeros(&high - &low) + EPSILON;
    (low, range)
}
