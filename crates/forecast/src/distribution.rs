//! Probability distributions whose arguments a network forecasts: how they come out of it, their likelihood, mean and quantiles.
//!
//! Maps, floors and the order of the arguments are NeuralForecast's, so that its weights give the same distributions here.

use rand::SeedableRng as _;
use rand::distr::Distribution as _;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Gamma, Poisson, StandardNormal, StudentT};
use tch::Tensor;

use crate::blocks::slice;
use crate::config::Distribution;

/// Keeps the scale of a Student t distribution away from zero, in units of the window's scale.
const STUDENT_FLOOR: f64 = 0.1;
/// The same for a normal distribution.
const NORMAL_FLOOR: f64 = 0.2;
/// Keeps rates, dispersions and probabilities positive.
const TINY: f64 = 1e-8;
/// Smallest rate of a Poisson distribution.
const RATE_FLOOR: f64 = 1e-10;
/// PyTorch keeps probabilities this far from 0 and 1 before it takes their logits.
const PROBABILITY_FLOOR: f64 = f32::EPSILON as f64;

/// Location and scale of the windows' targets, `[batch, 1, targets]` each.
pub type Level<'a> = (&'a Tensor, &'a Tensor);

/// Arguments of one distribution for each window, step and target, in the scale of the data: `[batch, horizon, targets]` each.
///
/// | distribution | arguments |
/// |---|---|
/// | StudentT | degrees of freedom, location, scale |
/// | Normal | mean, standard deviation |
/// | Poisson | rate |
/// | NegativeBinomial | total count, probability |
/// | Bernoulli | probability |
#[derive(Debug)]
pub struct Arguments {
    distribution: Distribution,
    values: Vec<Tensor>,
}

impl Arguments {
    /// From the outputs of a network, `[batch, horizon, targets * arguments]`: what they say is relative to `level`, which is
    /// location 0 and scale 1 where windows are not scaled.
    pub fn of(distribution: Distribution, output: &Tensor, targets: i64, level: Option<Level>) -> Self {
        let size = output.size();
        let raw = output.view([size[0], size[1], targets, distribution.arguments() as i64]).unbind(-1);
        let scaled = |x: Tensor| level.map_or_else(|| x.shallow_clone(), |(_, scale)| &x * scale);
        let placed = |x: Tensor| level.map_or_else(|| x.shallow_clone(), |(location, scale)| &x * scale + location);
        let values = match distribution {
            Distribution::StudentT => {
                let freedom = raw[0].softplus() + 3.0;
                vec![freedom, placed(raw[1].shallow_clone()), scaled(raw[2].softplus() + STUDENT_FLOOR)]
            }
            Distribution::Normal => vec![placed(raw[0].shallow_clone()), scaled(raw[1].softplus() + NORMAL_FLOOR)],
            Distribution::Poisson => vec![placed(raw[0].shallow_clone()).softplus() + RATE_FLOOR],
            Distribution::NegativeBinomial => {
                let mean = placed(raw[0].softplus() + TINY);
                let dispersion = raw[1].softplus() + TINY;
                let dispersion = level.map_or_else(|| &dispersion / 2.0, |(_, scale)| &dispersion / (scale + 1.0));
                let product = &mean * &dispersion;
                vec![dispersion.reciprocal(), &product / (&product + 1.0) + TINY]
            }
            Distribution::Bernoulli => vec![raw[0].sigmoid()],
        };
        Self { distribution, values }
    }

    /// The arguments in their order.
    pub fn values(&self) -> &[Tensor] {
        &self.values
    }

    /// `[batch, horizon, targets]`.
    pub fn mean(&self) -> Tensor {
        match self.distribution {
            Distribution::StudentT => self.values[1].shallow_clone(),
            Distribution::NegativeBinomial => &self.values[0] * logits(&self.values[1]).exp(),
            Distribution::Normal | Distribution::Poisson | Distribution::Bernoulli => self.values[0].shallow_clone(),
        }
    }

    /// Negative logarithm of the likelihood of `y`, `[batch, horizon, targets]`.
    pub fn negative_log_likelihood(&self, y: &Tensor) -> Tensor {
        let x = &self.values;
        match self.distribution {
            Distribution::StudentT => {
                let (freedom, location, scale) = (&x[0], &x[1], &x[2]);
                let z = (y - location) / scale;
                let half = (freedom + 1.0) / 2.0;
                let norm = scale.log() + (freedom * std::f64::consts::PI).log() / 2.0 + (freedom / 2.0).lgamma() - half.lgamma();
                norm + half * (z.square() / freedom).log1p()
            }
            Distribution::Normal => {
                let z = (y - &x[0]) / &x[1];
                z.square() / 2.0 + x[1].log() + (std::f64::consts::TAU.ln() / 2.0)
            }
            Distribution::Poisson => &x[0] - y.xlogy(&x[0]) + (y + 1.0).lgamma(),
            Distribution::NegativeBinomial => {
                let (count, logits) = (&x[0], logits(&x[1]));
                let norm = (y + 1.0).lgamma() + count.lgamma() - (count + y).lgamma();
                norm - count * (-&logits).log_sigmoid() - y * logits.log_sigmoid()
            }
            Distribution::Bernoulli => {
                let logits = logits(&x[0]);
                -(y * logits.log_sigmoid()) - (1.0 - y) * (-logits).log_sigmoid()
            }
        }
    }

    /// The mean and the `quantiles` of `samples` draws, `[batch, horizon, targets, 1 + quantiles]`, in order.
    ///
    /// Each window draws from its own stream of random numbers, which starts at its seed: what is forecast for it does not
    /// depend on the windows beside it. Quantiles between two draws are interpolated linearly.
    pub fn columns(&self, quantiles: &[f64], samples: usize, seeds: &[u64]) -> Tensor {
        let _no_grad = tch::no_grad_guard();
        let size = self.values[0].size();
        let of_cpu = |x: &Tensor| x.to_device(tch::Device::Cpu).contiguous();
        let (mean, arguments) = (of_cpu(&self.mean()), self.values.iter().map(of_cpu).collect::<Vec<_>>());
        let (mean, arguments) = (slice(&mean), arguments.iter().map(slice).collect::<Vec<_>>());
        let (distribution, width) = (self.distribution, 1 + quantiles.len());
        let cells = mean.len() / seeds.len().max(1);
        let mut out = vec![0.0f32; mean.len() * width];
        let threads = (tch::get_num_threads().max(1) as usize).min(seeds.len().max(1));
        let share = seeds.len().div_ceil(threads).max(1);
        let draw = |first: usize, seeds: &[u64], out: &mut [f32]| {
            let mut drawn = vec![0.0f32; samples];
            for (window, seed) in seeds.iter().enumerate() {
                let mut rng = ChaCha8Rng::seed_from_u64(*seed);
                for cell in 0..cells {
                    let at = (first + window) * cells + cell;
                    sample(distribution, &mut rng, |argument| f64::from(arguments[argument][at]), &mut drawn);
                    drawn.sort_unstable_by(f32::total_cmp);
                    let out = &mut out[(window * cells + cell) * width..][..width];
                    out[0] = mean[at];
                    out[1..].iter_mut().zip(quantiles).for_each(|(out, q)| *out = quantile(&drawn, *q));
                }
            }
        };
        std::thread::scope(|scope| {
            let parts = seeds.chunks(share).zip(out.chunks_mut((share * cells * width).max(1)));
            for (part, (seeds, out)) in parts.enumerate() {
                let draw = &draw;
                scope.spawn(move || draw(part * share, seeds, out));
            }
        });
        Tensor::from_slice(&out).view([size[0], size[1], size[2], width as i64])
    }
}

/// Independent draws; NaN where an argument is no number or out of its range.
fn sample(distribution: Distribution, rng: &mut ChaCha8Rng, argument: impl Fn(usize) -> f64, out: &mut [f32]) {
    let mut fill = |draw: &mut dyn FnMut(&mut ChaCha8Rng) -> f64| out.iter_mut().for_each(|x| *x = draw(rng) as f32);
    match distribution {
        Distribution::StudentT => match StudentT::new(argument(0)) {
            Ok(t) => fill(&mut |rng| argument(1) + argument(2) * t.sample(rng)),
            Err(_) => out.fill(f32::NAN),
        },
        Distribution::Normal => fill(&mut |rng| {
            let z: f64 = StandardNormal.sample(rng);
            argument(0) + argument(1) * z
        }),
        Distribution::Poisson => {
            let rate = argument(0);
            fill(&mut |rng| count(rate, rng));
        }
        Distribution::NegativeBinomial => {
            let p = argument(1).clamp(PROBABILITY_FLOOR, 1.0 - PROBABILITY_FLOOR);
            match Gamma::new(argument(0), p / (1.0 - p)) {
                Ok(rate) => fill(&mut |rng| {
                    let rate = rate.sample(rng);
                    count(rate, rng)
                }),
                Err(_) => out.fill(f32::NAN),
            }
        }
        Distribution::Bernoulli => {
            let p = argument(0);
            fill(&mut |rng| if p.is_nan() { f64::NAN } else { f64::from(u8::from(rand::RngExt::random::<f64>(rng) < p)) });
        }
    }
}

fn logits(probability: &Tensor) -> Tensor {
    probability.logit(PROBABILITY_FLOOR)
}

/// A Poisson draw; a rate that rounds to zero gives zero.
fn count(rate: f64, rng: &mut ChaCha8Rng) -> f64 {
    match Poisson::new(rate) {
        Ok(poisson) => poisson.sample(rng),
        Err(_) if rate == 0.0 => 0.0,
        Err(_) => f64::NAN,
    }
}

/// What values a distribution can have produced, in words, and whether it can have produced `y`.
pub(crate) fn support(distribution: Distribution) -> (&'static str, fn(f32) -> bool) {
    match distribution {
        Distribution::StudentT | Distribution::Normal => ("numbers", |y| y.is_finite()),
        Distribution::Poisson | Distribution::NegativeBinomial => ("values that are 0 or positive", |y| y >= 0.0),
        Distribution::Bernoulli => ("zeros and ones", |y| y == 0.0 || y == 1.0),
    }
}

/// The quantile `q` of sorted values, between two of them linearly.
pub(crate) fn quantile(sorted: &[f32], q: f64) -> f32 {
    let place = q * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * (place - place.floor()) as f32
}
