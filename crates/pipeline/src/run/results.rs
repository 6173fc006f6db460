//! Puts what the tasks answer into the record.

use deeprc_forecast::task::{PredictResult, TrainResult, TrialResult};
use serde_json::Value;

use crate::functions::{EvaluateResult, TableResult};
use crate::plan::{Planned, Work};
use crate::record::{Curve, ForecastRecord, MetricRecord, RunRecord, TrialRecord};

/// Points of a learning curve that are kept: more cannot be seen in a plot.
const CURVE_POINTS: usize = 500;

/// What an answer says about the stage itself.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Told {
    pub rows: Option<u64>,
    /// When a training's first step began, in seconds since 1970.
    pub first_step_at: Option<f64>,
    pub notes: Vec<String>,
}

/// Adds metrics, curves and forecasts to the record.
///
/// # Errors
/// The answer is not what this kind of task answers.
pub(crate) fn add(record: &mut RunRecord, task: &Planned, answer: &Value) -> Result<Told, serde_json::Error> {
    let mut told = Told::default();
    match &task.work {
        Work::Read { .. } | Work::Sql { .. } | Work::Join { .. } | Work::Derive { .. } | Work::Split { .. } => {
            let result: TableResult = serde_json::from_value(answer.clone())?;
            told.rows = Some(result.rows);
            told.notes = result.notes;
        }
        Work::Export { .. } => told.rows = answer.get("rows").and_then(Value::as_u64),
        Work::Train { .. } => trained(record, task, serde_json::from_value(answer.clone())?, &mut told),
        Work::Trial(trial) => {
            let result: TrialResult = serde_json::from_value(answer.clone())?;
            told.first_step_at = result.train.as_ref().map(|train| train.first_step_at);
            let options: Vec<String> = result.options.iter().map(|(name, value)| format!("{name} = {value}")).collect();
            match (trial.role.rung(), result.train) {
                (None, Some(train)) => {
                    told.notes.push(format!("best options: {}", options.join(", ")));
                    trained(record, task, train, &mut told);
                }
                (rung, train) => {
                    record.trials.retain(|other| (&other.pipeline, &other.stage) != (&task.pipeline, &task.stage));
                    record.trials.push(TrialRecord {
                        pipeline: task.pipeline.clone(),
                        stage: task.stage.clone(),
                        rung: rung.unwrap_or(0),
                        options: result.options,
                        loss: result.loss,
                        steps: train.map_or(0, |train| train.steps),
                    });
                }
            }
        }
        Work::Predict { .. } => {
            let result: PredictResult = serde_json::from_value(answer.clone())?;
            told.rows = Some(result.rows);
        }
        Work::Evaluate { .. } => {
            let result: EvaluateResult = serde_json::from_value(answer.clone())?;
            told.rows = Some(result.rows);
            told.notes = result.notes;
            record.metrics.extend(result.metrics.into_iter().map(|score| MetricRecord {
                pipeline: task.pipeline.clone(),
                stage: task.stage.clone(),
                model: score.model,
                series: score.series,
                target: score.target,
                metric: score.metric,
                value: score.value,
            }));
            record.forecasts.extend(result.forecasts.into_iter().map(|sample| ForecastRecord {
                pipeline: task.pipeline.clone(),
                model: sample.model,
                series: sample.series,
                target: sample.target,
                ds: sample.ds,
                y: sample.y,
                yhat: sample.yhat,
                baseline: sample.baseline,
            }));
        }
        Work::Program(_) => {}
    }
    Ok(told)
}

/// Adds the curves of a training that came to its end.
fn trained(record: &mut RunRecord, task: &Planned, result: TrainResult, told: &mut Told) {
    told.first_step_at = Some(result.first_step_at);
    told.notes.extend(result.skipped.iter().map(ToString::to_string));
    let model = task.model.clone().unwrap_or_else(|| task.stage.clone());
    record.curves.retain(|curve| curve.pipeline != task.pipeline || curve.model != model);
    record.curves.push(Curve {
        pipeline: task.pipeline.clone(),
        model,
        train: thin(result.train_loss),
        valid: thin(result.valid_loss),
        parameters: Some(result.parameters),
        steps_per_second: Some(result.steps_per_second),
        best_step: result.best_step,
    });
}

/// Every k-th point and the last one.
fn thin(points: Vec<(u64, f64)>) -> Vec<(u64, f64)> {
    let every = points.len().div_ceil(CURVE_POINTS).max(1);
    let last = points.len().saturating_sub(1);
    points.into_iter().enumerate().filter(|(number, _)| number % every == 0 || *number == last).map(|(_, point)| point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_curves_are_thinned_and_keep_their_end() {
        let points: Vec<(u64, f64)> = (1..=1234).map(|step| (step, 0.5)).collect();
        let thinned = thin(points);
        assert!(thinned.len() <= CURVE_POINTS + 1);
        assert_eq!((thinned[0].0, thinned.last().unwrap().0), (1, 1234));
        assert!(thin(Vec::new()).is_empty());
    }
}
