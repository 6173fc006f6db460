//! Normalisation of whole series before any window is cut from them (NeuralForecast's `local_scaler_type`).

use std::collections::HashMap;

use deeprc_loader::{Dataset, Series};

use crate::config::LocalScalerType;
use crate::{Error, Result};

/// Smallest exponent of a Box-Cox map: the map by the exponent 0, a logarithm, knows no zero.
const LEAST_EXPONENT: f64 = 1e-3;
/// Largest exponent.
const LARGEST_EXPONENT: f64 = 2.0;

/// One map for each channel of each series, fitted to its observed training rows (to all rows of a series without any).
#[derive(Debug)]
pub struct LocalScaler {
    scaler: LocalScalerType,
    /// By series, `[channels]`.
    maps: HashMap<String, Vec<Map>>,
}

/// From values to what a model sees, and back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Map {
    /// `(x - shift) / scale`
    Affine { shift: f64, scale: f64 },
    /// `(sign(x) |x|^exponent - 1) / exponent` (Box and Cox 1964; for negative values Bickel and Doksum 1981).
    BoxCox { exponent: f64 },
}

impl Map {
    fn there(self, x: f64) -> f64 {
        match self {
            Map::Affine { shift, scale } => (x - shift) / scale,
            Map::BoxCox { exponent } => (x.signum() * x.abs().powf(exponent) - 1.0) / exponent,
        }
    }

    pub(crate) fn back(self, z: f64) -> f64 {
        match self {
            Map::Affine { shift, scale } => z * scale + shift,
            Map::BoxCox { exponent } => {
                let power = z * exponent + 1.0;
                power.signum() * power.abs().powf(exponent.recip())
            }
        }
    }

    fn fit(scaler: LocalScalerType, values: &mut [f64]) -> Self {
        values.sort_unstable_by(f64::total_cmp);
        let not_zero = |scale: f64| if scale > 0.0 { scale } else { 1.0 };
        let (shift, scale) = match (scaler, values.is_empty()) {
            (LocalScalerType::Identity, _) | (_, true) => (0.0, 1.0),
            (LocalScalerType::Standard, _) => {
                let count = values.len() as f64;
                let mean = values.iter().sum::<f64>() / count;
                (mean, (values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count).sqrt())
            }
            (LocalScalerType::Robust, _) => {
                let median = quantile(values, 0.5);
                let mut distances: Vec<f64> = values.iter().map(|x| (x - median).abs()).collect();
                distances.sort_unstable_by(f64::total_cmp);
                (median, quantile(&distances, 0.5))
            }
            (LocalScalerType::RobustIqr, _) => (quantile(values, 0.5), quantile(values, 0.75) - quantile(values, 0.25)),
            (LocalScalerType::MinMax, _) => (values[0], values[values.len() - 1] - values[0]),
            (LocalScalerType::BoxCox, _) => return Map::BoxCox { exponent: exponent(values) },
        };
        Map::Affine { shift, scale: not_zero(scale) }
    }
}

impl LocalScaler {
    /// None for the scaler identity, which changes nothing.
    pub fn fit(scaler: LocalScalerType, dataset: &Dataset) -> Option<Self> {
        let maps = || dataset.series().iter().map(|series| (series.id.clone(), fitted(scaler, dataset, series))).collect();
        (scaler != LocalScalerType::Identity).then(|| Self { scaler, maps: maps() })
    }

    /// The maps of each series of `dataset`: those known by its id, for a new series those of its own rows.
    pub(crate) fn of(&self, dataset: &Dataset) -> Vec<Vec<Map>> {
        let maps = |series: &Series| self.maps.get(&series.id).cloned().unwrap_or_else(|| fitted(self.scaler, dataset, series));
        dataset.series().iter().map(maps).collect()
    }

    /// The same rows with every observed value mapped.
    pub fn transform(&self, dataset: &Dataset) -> Dataset {
        let channels = dataset.channels().len();
        let mut values = dataset.values().to_vec();
        for (series, maps) in dataset.series().iter().zip(self.of(dataset)) {
            let cells = series.start * channels..(series.start + series.len) * channels;
            let rows = values[cells.clone()].chunks_mut(channels).zip(dataset.mask()[cells].chunks(channels));
            for (row, mask) in rows {
                for ((x, map), mask) in row.iter_mut().zip(&maps).zip(mask) {
                    *x = if *mask > 0.0 { map.there(f64::from(*x)) as f32 } else { 0.0 };
                }
            }
        }
        dataset.with_values(values)
    }
}

fn fitted(scaler: LocalScalerType, dataset: &Dataset, series: &Series) -> Vec<Map> {
    let channels = dataset.channels().len();
    // The weight of a row is no input.
    let inputs = channels - usize::from(dataset.columns().weight.is_some());
    let observed = observed(dataset, series);
    let fit = |channel: usize| {
        let scaler = if channel < inputs { scaler } else { LocalScalerType::Identity };
        Map::fit(scaler, &mut observed(channel).map(|(_, x)| x).collect::<Vec<_>>())
    };
    (0..channels).map(fit).collect()
}

/// Whether the scaler can map the values of `dataset`.
///
/// # Errors
/// [`Error::Value`] naming the first zero or negative value of a training part for the scaler boxcox.
pub fn check(scaler: LocalScalerType, dataset: &Dataset) -> Result<()> {
    if scaler != LocalScalerType::BoxCox {
        return Ok(());
    }
    for series in dataset.series() {
        let observed = observed(dataset, series);
        let inputs = dataset.channels().len() - usize::from(dataset.columns().weight.is_some());
        for (channel, name) in dataset.channels()[..inputs].iter().enumerate() {
            if let Some((row, value)) = observed(channel).find(|(_, x)| *x <= 0.0) {
                let (what, column, series) = ("the local scaler boxcox", name.clone(), series.id.clone());
                return Err(Error::Value { what, needs: "positive values", value, column, series, row: row + 1 });
            }
        }
    }
    Ok(())
}

/// Row and value of the observed cells of a channel that a scaler is fitted to.
fn observed<'a>(dataset: &'a Dataset, series: &Series) -> impl Fn(usize) -> Box<dyn Iterator<Item = (usize, f64)> + 'a> + use<'a> {
    let channels = dataset.channels().len();
    let rows = if series.train > 0 { series.train } else { series.len };
    let start = series.start;
    move |channel| {
        let cell = move |row: usize| (start + row) * channels + channel;
        let seen = move |row: &usize| dataset.mask()[cell(*row)] > 0.0;
        Box::new((0..rows).filter(seen).map(move |row| (row, f64::from(dataset.values()[cell(row)]))))
    }
}

/// The exponent of the largest profile likelihood, `-n/2 log var(map(x)) + (exponent - 1) sum log x`, by golden sections.
fn exponent(positive: &[f64]) -> f64 {
    let logs: Vec<f64> = positive.iter().filter(|x| **x > 0.0).map(|x| x.ln()).collect();
    let count = logs.len() as f64;
    let sum: f64 = logs.iter().sum();
    let cost = |exponent: f64| {
        let mapped = |log: &f64| ((exponent * log).exp() - 1.0) / exponent;
        let mean = logs.iter().map(mapped).sum::<f64>() / count;
        let variance = logs.iter().map(|log| (mapped(log) - mean).powi(2)).sum::<f64>() / count;
        count / 2.0 * variance.ln() - (exponent - 1.0) * sum
    };
    let golden = (5f64.sqrt() - 1.0) / 2.0;
    let (mut low, mut high) = (LEAST_EXPONENT, LARGEST_EXPONENT);
    // A constant series has no variance under any exponent: its cost is the same everywhere, and any exponent serves.
    while high - low > 1e-6 {
        let (left, right) = (high - golden * (high - low), low + golden * (high - low));
        if cost(left) < cost(right) { high = right } else { low = left }
    }
    f64::midpoint(low, high)
}

/// The quantile `q` of sorted values, between two of them linearly.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let place = q * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two parameters of the map, from coreforecast 0.0.20.
    fn check(scaler: LocalScalerType, values: &[f64], expect: [f64; 2]) {
        let map = Map::fit(scaler, &mut values.to_vec());
        let ours = match map {
            Map::Affine { shift, scale } => [shift, scale],
            Map::BoxCox { exponent } => [exponent, 0.0],
        };
        let near = ours.iter().zip(expect).all(|(ours, expect)| (ours - expect).abs() < 1e-3);
        assert!(near, "{scaler:?}: {ours:?}, expected {expect:?}");
        for x in values {
            assert!((map.back(map.there(*x)) - x).abs() < 1e-6, "{scaler:?} maps {x} there and back");
        }
    }

    #[test]
    fn maps_are_those_of_coreforecast() {
        let powers = [1.0, 2.0, 4.0, 8.0, 16.0, 31.0];
        check(LocalScalerType::Standard, &powers, [10.333_333, 10.498_677]);
        check(LocalScalerType::Robust, &powers, [6.0, 4.5]);
        check(LocalScalerType::RobustIqr, &powers, [6.0, 11.5]);
        check(LocalScalerType::MinMax, &powers, [1.0, 30.0]);
        check(LocalScalerType::BoxCox, &powers, [0.008_597, 0.0]);
        let skewed =
            [2.894_652_6, 2.544_534_2, 3.744_212_6, 2.864_661_2, 2.079_578_6, 3.256_970_6, 5.217_404_4, 4.364_660_7, 0.850_003, 5.735_733];
        check(LocalScalerType::BoxCox, &skewed, [0.827_217, 0.0]);
        check(LocalScalerType::Standard, &[3.0; 5], [3.0, 1.0]);
        check(LocalScalerType::Robust, &[], [0.0, 1.0]);
    }
}
