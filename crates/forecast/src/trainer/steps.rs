//! Which windows each step sees: a function of the seed and the number of the step.

use deeprc_loader::{Random, Sampler, Sequential, Shuffled};

use crate::config::{ModelName, TrainConfig};

/// Which windows each step sees.
#[derive(Debug)]
pub(super) struct Steps {
    windows: usize,
    batch: usize,
    seed: u64,
    passes: bool,
    /// Steps of one pass over all windows.
    pub per_epoch: u64,
    epoch: Option<(u64, Shuffled)>,
}

impl Steps {
    pub fn new(windows: usize, model: ModelName, train: &TrainConfig) -> Self {
        let passes = model == ModelName::Lstm;
        let batch = match if passes { train.batch_size } else { train.windows_batch_size } {
            0 => windows,
            batch => batch,
        };
        let all = !passes && train.windows_batch_size == 0;
        let per_epoch = windows.div_ceil(batch).max(1) as u64;
        Self { windows, batch: if all { 0 } else { batch }, seed: train.seed, passes, per_epoch, epoch: None }
    }

    /// Numbers of the windows of `step`, on every rank the same.
    pub fn draw(&mut self, step: u64) -> Vec<usize> {
        let mut out = Vec::with_capacity(self.batch);
        if self.batch == 0 {
            Sequential::new(self.windows, self.windows).sample(0, &mut out);
        } else if self.passes {
            let (epoch, step) = (step / self.per_epoch, step % self.per_epoch);
            if self.epoch.as_ref().is_none_or(|(cached, _)| *cached != epoch) {
                self.epoch = Some((epoch, Shuffled::new(self.windows, self.batch, self.seed, epoch)));
            }
            self.epoch.iter().for_each(|(_, sampler)| sampler.sample(step as usize, &mut out));
        } else {
            Random::new(self.windows, self.batch, self.seed).sample(step as usize, &mut out);
        }
        out
    }
}
