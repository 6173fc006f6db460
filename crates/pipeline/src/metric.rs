//! Scores of forecasts against observations, from sums that merge over ranks.

use crate::functions::Metric;

/// Everything that the scores of one set of stamps need: running moments (Welford 1962) that merge exactly as far as numbers go
/// (Chan, Golub and LeVeque 1983), so that no rank needs another one's forecasts.
///
/// ```
/// use deeprc_pipeline::functions::Metric;
/// use deeprc_pipeline::metric::Moments;
///
/// let mut moments = Moments::default();
/// for (observed, forecast) in [(1.0, 1.5), (2.0, 2.0), (3.0, 2.5)] {
///     moments.add(observed, forecast);
/// }
/// assert_eq!(moments.score(Metric::Nse), Some(1.0 - 0.5 / 2.0));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moments {
    count: f64,
    mean_observed: f64,
    mean_forecast: f64,
    /// Sums of squared deviations from the means, and of their product.
    spread_observed: f64,
    spread_forecast: f64,
    product: f64,
    squared_error: f64,
    absolute_error: f64,
    /// Sum and number of |error| / |observed|.
    relative_error: f64,
    relative_count: f64,
    symmetric_error: f64,
}

/// Numbers in [`Moments::to_bits`].
pub const MOMENTS: usize = 11;

impl Moments {
    /// Adds one stamp. Unobserved stamps are not to be added.
    pub fn add(&mut self, observed: f64, forecast: f64) {
        let error = (observed - forecast).abs();
        self.count += 1.0;
        let deviation = observed - self.mean_observed;
        self.mean_observed += deviation / self.count;
        self.spread_observed += deviation * (observed - self.mean_observed);
        let deviation = forecast - self.mean_forecast;
        self.mean_forecast += deviation / self.count;
        self.spread_forecast += deviation * (forecast - self.mean_forecast);
        self.product += deviation * (observed - self.mean_observed);
        self.squared_error += error * error;
        self.absolute_error += error;
        if observed != 0.0 {
            self.relative_error += error / observed.abs();
            self.relative_count += 1.0;
        }
        let size = observed.abs() + forecast.abs();
        self.symmetric_error += if size > 0.0 { 2.0 * error / size } else { 0.0 };
    }

    /// Adds the stamps of `other`.
    pub fn merge(&mut self, other: &Moments) {
        let count = self.count + other.count;
        if other.count == 0.0 {
            return;
        }
        let observed = other.mean_observed - self.mean_observed;
        let forecast = other.mean_forecast - self.mean_forecast;
        let weight = self.count * other.count / count;
        self.mean_observed += observed * other.count / count;
        self.mean_forecast += forecast * other.count / count;
        self.spread_observed += other.spread_observed + observed * observed * weight;
        self.spread_forecast += other.spread_forecast + forecast * forecast * weight;
        self.product += other.product + observed * forecast * weight;
        self.squared_error += other.squared_error;
        self.absolute_error += other.absolute_error;
        self.relative_error += other.relative_error;
        self.relative_count += other.relative_count;
        self.symmetric_error += other.symmetric_error;
        self.count = count;
    }

    /// Stamps added.
    pub fn count(&self) -> u64 {
        self.count as u64
    }

    /// The score; `None` where it is undefined: without stamps, `nse` and `kge` of constant observations, `mape` of zeros.
    /// `mase` needs a scale: [`Moments::mase`].
    pub fn score(&self, metric: Metric) -> Option<f64> {
        let mean = |sum: f64| (self.count > 0.0).then(|| sum / self.count);
        match metric {
            Metric::Mse => mean(self.squared_error),
            Metric::Mae => mean(self.absolute_error),
            Metric::Rmse => mean(self.squared_error).map(f64::sqrt),
            Metric::Mape => (self.relative_count > 0.0).then(|| self.relative_error / self.relative_count),
            Metric::Smape => mean(self.symmetric_error),
            Metric::Mase => None,
            Metric::Nse => (self.spread_observed > 0.0).then(|| 1.0 - self.squared_error / self.spread_observed),
            Metric::Nnse => self.score(Metric::Nse).map(|nse| 1.0 / (2.0 - nse)),
            Metric::Kge => self.kling_gupta(),
        }
        .filter(|value| value.is_finite())
    }

    /// Mean absolute error over `scale`, the mean absolute seasonal difference of the training observations.
    pub fn mase(&self, scale: f64) -> Option<f64> {
        self.score(Metric::Mae).filter(|_| scale > 0.0).map(|mae| mae / scale)
    }

    fn kling_gupta(&self) -> Option<f64> {
        if self.spread_observed <= 0.0 || self.spread_forecast <= 0.0 || self.mean_observed == 0.0 {
            return None;
        }
        let correlation = self.product / (self.spread_observed * self.spread_forecast).sqrt();
        let variability = (self.spread_forecast / self.spread_observed).sqrt();
        let bias = self.mean_forecast / self.mean_observed;
        Some(1.0 - ((correlation - 1.0).powi(2) + (variability - 1.0).powi(2) + (bias - 1.0).powi(2)).sqrt())
    }

    /// The numbers as bits, for messages that must not round.
    pub fn to_bits(&self) -> [u64; MOMENTS] {
        [
            self.count,
            self.mean_observed,
            self.mean_forecast,
            self.spread_observed,
            self.spread_forecast,
            self.product,
            self.squared_error,
            self.absolute_error,
            self.relative_error,
            self.relative_count,
            self.symmetric_error,
        ]
        .map(f64::to_bits)
    }

    /// The reverse of [`Moments::to_bits`].
    pub fn from_bits(bits: [u64; MOMENTS]) -> Moments {
        let [
            count,
            mean_observed,
            mean_forecast,
            spread_observed,
            spread_forecast,
            product,
            squared_error,
            absolute_error,
            relative_error,
            relative_count,
            symmetric_error,
        ] = bits.map(f64::from_bits);
        Moments {
            count,
            mean_observed,
            mean_forecast,
            spread_observed,
            spread_forecast,
            product,
            squared_error,
            absolute_error,
            relative_error,
            relative_count,
            symmetric_error,
        }
    }
}

impl Metric {
    /// Its name in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Metric::Mse => "mse",
            Metric::Mae => "mae",
            Metric::Rmse => "rmse",
            Metric::Mape => "mape",
            Metric::Smape => "smape",
            Metric::Mase => "mase",
            Metric::Nse => "nse",
            Metric::Nnse => "nnse",
            Metric::Kge => "kge",
        }
    }
}

/// Mean of the defined scores.
pub fn mean(scores: &[f64]) -> Option<f64> {
    (!scores.is_empty()).then(|| scores.iter().sum::<f64>() / scores.len() as f64)
}

/// Median of the defined scores.
pub fn median(scores: &[f64]) -> Option<f64> {
    let mut sorted = scores.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        len if len % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(f64, f64)]) -> Moments {
        let mut moments = Moments::default();
        pairs.iter().for_each(|&(o, p)| moments.add(o, p));
        moments
    }

    #[track_caller]
    fn check(pairs: &[(f64, f64)], metric: Metric, expect: Option<f64>) {
        let found = of(pairs).score(metric);
        match (found, expect) {
            (Some(found), Some(expect)) => assert!((found - expect).abs() < 1e-12, "{found} instead of {expect}"),
            _ => assert_eq!(found, expect),
        }
    }

    const PAIRS: [(f64, f64); 4] = [(2.0, 1.0), (4.0, 5.0), (-1.0, -1.0), (0.0, 2.0)];

    #[test]
    fn scores_follow_their_formulas() {
        check(&PAIRS, Metric::Mse, Some(6.0 / 4.0));
        check(&PAIRS, Metric::Mae, Some(1.0));
        check(&PAIRS, Metric::Rmse, Some(1.5f64.sqrt()));
        check(&PAIRS, Metric::Mape, Some((0.5 + 0.25 + 0.0) / 3.0));
        check(&PAIRS, Metric::Smape, Some((2.0 / 3.0 + 2.0 / 9.0 + 0.0 + 2.0) / 4.0));
        // mean 1.25, squared deviations 0.5625 + 7.5625 + 5.0625 + 1.5625
        let nse = 1.0 - 6.0 / 14.75;
        check(&PAIRS, Metric::Nse, Some(nse));
        check(&PAIRS, Metric::Nnse, Some(1.0 / (2.0 - nse)));
        assert_eq!(of(&PAIRS).mase(0.5), Some(2.0));
        assert_eq!(of(&PAIRS).mase(0.0), None);
    }

    #[test]
    fn kling_gupta_of_known_parts() {
        // A forecast of twice the observation: r = 1, both ratios 2.
        check(&[(1.0, 2.0), (2.0, 4.0), (3.0, 6.0)], Metric::Kge, Some(1.0 - 2f64.sqrt()));
        check(&[(1.0, 1.0), (2.0, 2.0), (3.0, 3.0)], Metric::Kge, Some(1.0));
    }

    #[test]
    fn undefined_scores_are_none() {
        check(&[(3.0, 1.0), (3.0, 2.0)], Metric::Nse, None);
        check(&[(3.0, 1.0), (3.0, 2.0)], Metric::Nnse, None);
        check(&[(3.0, 1.0), (3.0, 2.0)], Metric::Kge, None);
        check(&[(0.0, 1.0)], Metric::Mape, None);
        check(&[], Metric::Mse, None);
        check(&[(-1.0, 1.0), (1.0, -1.0)], Metric::Kge, None);
    }

    #[test]
    fn parts_merge_to_the_whole() {
        let pairs: Vec<(f64, f64)> = (0..40).map(|i| (1e6 + f64::from(i * i % 17), 1e6 + f64::from(i % 5))).collect();
        for cut in [0, 1, 13, 40] {
            let mut merged = of(&pairs[..cut]);
            merged.merge(&of(&pairs[cut..]));
            for metric in [Metric::Mse, Metric::Nse, Metric::Kge, Metric::Smape] {
                let (found, expect) = (merged.score(metric).unwrap(), of(&pairs).score(metric).unwrap());
                assert!((found - expect).abs() < 1e-9 * expect.abs().max(1.0), "{metric:?} cut at {cut}");
            }
            assert_eq!(Moments::from_bits(merged.to_bits()), merged);
        }
    }

    #[test]
    fn medians() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }
}
