//! Which windows a loss that is no number came from. Runs once, when training has failed already.

use deeprc_loader::{Part, Window, format_stamp};

use super::Trainer;
use crate::Error;
use crate::loss::Loss;

/// Windows that a message names.
const NAMED: usize = 3;

impl Trainer {
    /// The error for a training loss of `value`, from the windows `numbers`.
    pub(super) fn diverged(&mut self, value: f64, numbers: &[usize]) -> Error {
        let step = self.state.step;
        let windows: Vec<Window> = numbers.iter().map(|n| self.windows[*n]).collect();
        let culprits = self.windows_behind(Part::Train, &windows);
        let culprits = match step {
            // Where no window is well, the weights are to blame, and with them the windows of the step before.
            1.. if culprits.is_empty() => {
                let before: Vec<Window> = self.steps.draw(step - 1).iter().map(|n| self.windows[*n]).collect();
                format!("the weights went too far in the step before, with {}", self.names(&before))
            }
            _ => self.names(if culprits.is_empty() { &windows } else { &culprits }),
        };
        Error::NotFinite { what: "training", value, step, culprits }
    }

    /// The error for a validation loss of `value`.
    pub(super) fn invalid(&self, value: f64) -> Error {
        let culprits = self.windows_behind(Part::Validation, &self.validation);
        let culprits = self.names(if culprits.is_empty() { &self.validation } else { &culprits });
        Error::NotFinite { what: "validation", value, step: self.state.step, culprits }
    }

    /// Some of `windows` whose own loss is no number; none if that holds for all of them, or for none.
    fn windows_behind(&self, part: Part, windows: &[Window]) -> Vec<Window> {
        let _no_grad = tch::no_grad_guard();
        let loss = self.loss.additive();
        let mut guilty = Vec::new();
        let mut innocent = false;
        for window in windows {
            if self.alone(part, *window, &loss).is_finite() {
                innocent = true;
            } else {
                guilty.push(*window);
            }
            if innocent && guilty.len() > NAMED {
                break;
            }
        }
        if innocent { guilty } else { Vec::new() }
    }

    fn alone(&self, part: Part, window: Window, loss: &Loss) -> f64 {
        let horizon = self.forecaster.model.frame().train_horizon;
        let prepared = self.forecaster.prepare((&self.dataset, self.resident.as_ref()), part, &[window], horizon);
        let forecast = self.forecaster.forward(&prepared.inputs, false);
        loss.train(&prepared, &forecast).double_value(&[])
    }

    /// "series `a` after 2020-01-01, ..."
    fn names(&self, windows: &[Window]) -> String {
        let offset = self.forecaster.model.frame().horizon_offset() as i64;
        let name = |window: &Window| {
            let series = &self.dataset.series()[window.series as usize].id;
            let cutoff = self.dataset.stamps(window.series, i64::from(window.offset) + offset - 1, 1)[0];
            format!("series `{series}` after {}", format_stamp(cutoff))
        };
        let mut text = windows.iter().take(NAMED).map(name).collect::<Vec<_>>().join(", ");
        if windows.len() > NAMED {
            text.push_str(", ...");
        }
        text
    }
}
