//! From the moments of every series to the list of scores.

use super::{EvaluateArguments, Metric, Score};
use crate::metric::{MOMENTS, Moments, mean, median};
use serde::{Deserialize, Serialize};

/// The moments of one series and target. Numbers travel as bits: no score depends on which rank computed it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Scored {
    pub series: String,
    pub target: usize,
    /// Scale of MASE.
    scale: Option<u64>,
    /// Of the model, then of the baselines.
    moments: Vec<[u64; MOMENTS]>,
}

impl Scored {
    pub(super) fn new(series: &str, target: usize, scale: Option<f64>, moments: &[Moments]) -> Scored {
        let moments = moments.iter().map(Moments::to_bits).collect();
        Scored { series: series.into(), target, scale: scale.map(f64::to_bits), moments }
    }

    fn moments(&self, who: usize) -> Moments {
        Moments::from_bits(self.moments[who])
    }

    fn score(&self, who: usize, metric: Metric) -> Option<f64> {
        match metric {
            Metric::Mase => self.scale.map(f64::from_bits).and_then(|scale| self.moments(who).mase(scale)),
            _ => self.moments(who).score(metric),
        }
    }
}

/// The scores of one model (`who` = 0) or baseline, of all series first, then of each. `scored` is sorted by series and target.
pub(super) fn scores(model: &str, who: usize, scored: &[Scored], arguments: &EvaluateArguments) -> Vec<Score> {
    let targets = &arguments.dataset.columns.targets;
    let score = |series: Option<&str>, target: Option<usize>, metric: String, value| Score {
        model: model.into(),
        series: series.map(Into::into),
        target: target.map(|at| targets[at].clone()),
        metric,
        value,
    };
    let mut all = Vec::new();
    for &metric in &arguments.metrics {
        let name = metric.name();
        let mut of_targets = Vec::new();
        let first = all.len();
        for target in 0..targets.len() {
            let of_target: Vec<&Scored> = scored.iter().filter(|scored| scored.target == target).collect();
            let of_series: Vec<f64> = of_target.iter().filter_map(|scored| scored.score(who, metric)).collect();
            let overall = match metric {
                Metric::Mase | Metric::Nnse => mean(&of_series),
                Metric::Nse | Metric::Kge => median(&of_series),
                _ => {
                    let mut moments = Moments::default();
                    of_target.iter().for_each(|scored| moments.merge(&scored.moments(who)));
                    moments.score(metric)
                }
            };
            of_targets.push(overall);
            all.push(score(None, Some(target), name.into(), overall));
            if of_target.len() > 1 {
                all.push(score(None, Some(target), format!("{name}_mean"), mean(&of_series)));
                all.push(score(None, Some(target), format!("{name}_median"), median(&of_series)));
            }
        }
        if targets.len() > 1 {
            let defined: Option<Vec<f64>> = of_targets.into_iter().collect();
            all.insert(first, score(None, None, name.into(), defined.and_then(|values| mean(&values))));
        }
    }
    if arguments.per_series {
        for scored in scored {
            for &metric in &arguments.metrics {
                let value = scored.score(who, metric);
                all.push(score(Some(&scored.series), Some(scored.target), metric.name().into(), value));
            }
        }
    }
    all
}
