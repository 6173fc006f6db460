//! Curves that NBEATS blocks combine: trends and seasons over the steps of a window.

use std::f64::consts::TAU;

use tch::{Kind, Tensor};

use crate::config::TrendBasis;

/// `count` curves over `length` steps, `[count, length]`.
pub(super) fn trend(basis: TrendBasis, count: usize, length: usize) -> Tensor {
    let unit = linspace(0.0, 1.0, length);
    let both = linspace(-1.0, 1.0, length);
    let curve = |x: &[f64], f: &dyn Fn(f64) -> f64| -> Vec<f64> { x.iter().map(|x| f(*x)).collect() };
    let rows: Vec<Vec<f64>> = match basis {
        TrendBasis::Polynomial => {
            let x: Vec<f64> = (0..length).map(|step| step as f64 / length as f64).collect();
            (0..count).map(|power| curve(&x, &|x| x.powi(power as i32))).collect()
        }
        TrendBasis::Legendre => recurrence(&both, count, |n, x, [before, last]| ((2.0 * n - 1.0) * x * last - (n - 1.0) * before) / n),
        TrendBasis::Chebyshev => recurrence(&both, count, |_, x, [before, last]| 2.0 * x * last - before),
        TrendBasis::Changepoint => {
            let starts = linspace(0.0, 1.0, count + 1);
            starts[1..].iter().map(|start| curve(&unit, &|x| (x - start).max(0.0))).collect()
        }
        TrendBasis::PiecewiseLinear => {
            let knots = linspace(0.0, 1.0, count + 1);
            let triangle = |n: usize, x: f64| {
                let up = (x - knots[n - 1]) / (knots[n] - knots[n - 1]);
                let down = (knots[n + 1] - x) / (knots[n + 1] - knots[n]);
                up.min(down).max(0.0)
            };
            (0..count).map(|n| curve(&unit, &|x| if n == 0 { 0.0 } else { triangle(n, x) })).collect()
        }
        TrendBasis::LinearHat => {
            let centres = linspace(0.0, 1.0, count);
            let width = 1.0 / (count as f64 - 1.0);
            centres.iter().map(|centre| curve(&unit, &|x| (1.0 - (x - centre).abs() / width).max(0.0))).collect()
        }
        TrendBasis::Spline => {
            let mut knots = vec![0.0; 3];
            knots.extend(linspace(0.0, 1.0, count - 2));
            knots.extend([1.0; 3]);
            (0..count).map(|n| curve(&unit, &|x| cubic_spline(&knots, count, n, x))).collect()
        }
    };
    tensor(&rows, length)
}

/// Cosines, then sines, of the frequencies 0 and `1, 1 + 1 / harmonics, ..` below half the horizon, over `length` steps:
/// `[2 * frequencies, length]`. The backcast runs back in time, `direction` -1. One turn is `horizon` steps in both directions.
pub(super) fn seasonality(harmonics: usize, horizon: usize, length: usize, direction: f64) -> Tensor {
    let end = harmonics as f64 / 2.0 * horizon as f64;
    let numbers = (harmonics..).map(|n| n as f64).take_while(|n| *n < end);
    let frequencies: Vec<f64> = std::iter::once(0.0).chain(numbers.map(|n| n / harmonics as f64)).collect();
    let angle = |frequency: f64, step: usize| direction * TAU * (step as f64 / horizon as f64) * frequency;
    let rows = |wave: fn(f64) -> f64| frequencies.iter().map(move |f| (0..length).map(|step| wave(angle(*f, step))).collect());
    tensor(&rows(f64::cos).chain(rows(f64::sin)).collect::<Vec<Vec<f64>>>(), length)
}

fn tensor(rows: &[Vec<f64>], length: usize) -> Tensor {
    Tensor::from_slice(&rows.concat()).view([-1, length as i64]).to_kind(Kind::Float)
}

fn linspace(from: f64, to: f64, count: usize) -> Vec<f64> {
    let step = (to - from) / (count.max(2) - 1) as f64;
    (0..count).map(|n| if n > 0 && n + 1 == count { to } else { from + n as f64 * step }).collect()
}

/// 1, x, and then `next(n, x, [curve n - 2, curve n - 1])`.
fn recurrence(x: &[f64], count: usize, next: impl Fn(f64, f64, [f64; 2]) -> f64) -> Vec<Vec<f64>> {
    let mut rows: Vec<Vec<f64>> = vec![vec![1.0; x.len()], x.to_vec()];
    for n in 2..count {
        let row = x.iter().enumerate().map(|(step, x)| next(n as f64, *x, [rows[n - 2][step], rows[n - 1][step]]));
        rows.push(row.collect());
    }
    rows.truncate(count);
    rows
}

/// B-spline number `n` of `count` at `x`, by de Boor's recurrence; the last interval includes its end.
fn cubic_spline(knots: &[f64], count: usize, n: usize, x: f64) -> f64 {
    let span = (3..count - 1).find(|span| x < knots[span + 1]).unwrap_or(count - 1);
    let mut values: Vec<f64> = (0..knots.len() - 1).map(|interval| f64::from(u8::from(interval == span))).collect();
    for degree in 1..=3 {
        let part = |numerator: f64, denominator: f64| if denominator > 0.0 { numerator / denominator } else { 0.0 };
        for first in 0..values.len() - degree {
            let up = part(x - knots[first], knots[first + degree] - knots[first]);
            let down = part(knots[first + degree + 1] - x, knots[first + degree + 1] - knots[first + 1]);
            values[first] = up * values[first] + down * values[first + 1];
        }
    }
    values[n]
}
