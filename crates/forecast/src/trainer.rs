//! The training loop: windows of a step, loss, gradients, optimizer; validation, checkpoints, early stop.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use deeprc_comm::{Communicator, ReduceOp};
use deeprc_loader::{Dataset, Part, Random, Sampler, Sequential, Shuffled, Window};
use tch::{Device, Kind, Tensor};

use crate::blocks::{gather, slice};
use crate::checkpoint::{Checkpoint, State};
use crate::config::{ModelConfig, ModelName, TrainConfig};
use crate::forecaster::Forecaster;
use crate::loss::{Loss, Target};
use crate::optimizer::{Adam, learning_rate};
use crate::preparation::has_rows;
use crate::task::{Progress, TrainResult};
use crate::{Error, Result, window_list};

/// What hears of the training's progress and may end it.
pub trait Observer {
    /// A step is done.
    fn step(&mut self, progress: &Progress);
    /// True to stop after this step, with a checkpoint.
    fn canceled(&self) -> bool {
        false
    }
}

/// Hears nothing.
impl Observer for () {
    fn step(&mut self, _: &Progress) {}
}

/// Trains one model on the training part of a data set, alone or with other ranks.
///
/// Which windows a step sees follows from the seed and the number of the step alone, so a resumed training draws what an
/// undisturbed one draws. With several ranks, all draw the same windows, each takes its share, and the gradients are summed in
/// the order of the ranks and weighted by the observed values behind them: the mean over the whole step (for the loss rmse the
/// mean of the ranks' roots).
#[derive(Debug)]
pub struct Trainer {
    dataset: Arc<Dataset>,
    comm: Communicator,
    forecaster: Forecaster,
    adam: Adam,
    state: State,
    loss: Loss,
    valid_loss: Loss,
    windows: Vec<Window>,
    validation: Vec<Window>,
    steps: Steps,
    max_steps: u64,
    device: Device,
}

/// Loss and gradients of one rank's share of a step.
struct Share {
    loss: f64,
    /// Observed values behind the loss.
    weight: f64,
    gradients: Vec<Tensor>,
}

impl Trainer {
    /// A model with random parameters for the columns of `dataset`.
    ///
    /// # Errors
    /// If the model cannot use the columns, or the data set has no training windows for it.
    pub fn new(dataset: Arc<Dataset>, model: &ModelConfig, train: &TrainConfig, comm: Communicator, device: Device) -> Result<Self> {
        let forecaster = Forecaster::new(&dataset, model, train, device)?;
        let frame = forecaster.model.frame();
        let windows = window_list::training(&dataset, frame, train)?;
        let validation = match has_rows(&dataset, Part::Validation) {
            true => window_list::validation(&dataset, frame, train)?,
            false => Vec::new(),
        };
        let steps = Steps::new(windows.len(), model.name(), train);
        Ok(Self {
            adam: Adam::new(forecaster.model.parameters().tensors(), device),
            state: State::new(model, train, dataset.columns()),
            loss: Loss::training(train),
            valid_loss: Loss::validation(train),
            max_steps: if train.epochs > 0 { train.epochs * steps.per_epoch } else { train.max_steps },
            dataset,
            comm,
            forecaster,
            windows,
            validation,
            steps,
            device,
        })
    }

    /// The model as trained so far.
    pub fn forecaster(&self) -> &Forecaster {
        &self.forecaster
    }

    /// Goes on from a checkpoint.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if it is broken or of another training.
    pub fn resume(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        let found = checkpoint.state(crate::task::Weights::Last)?;
        checkpoint.same_training(&found, &self.state.model, &self.state.train, self.dataset.columns())?;
        let mut restored = checkpoint.restore(self.forecaster.model.parameters(), &mut self.adam)?;
        restored.train = self.state.train.clone();
        self.state = restored;
        // A longer training may go on where patience had not run out, a finished one stays finished.
        self.state.stopped_early = self.out_of_patience();
        Ok(())
    }

    /// Trains to the last step; rank 0 writes `checkpoint`.
    ///
    /// # Errors
    /// [`Error::NotFinite`] with the step, [`Error::Canceled`] after the observer said so, errors of files and of other ranks.
    pub fn fit(&mut self, checkpoint: Option<&Checkpoint>, observer: &mut dyn Observer) -> Result<TrainResult> {
        let begin = Instant::now();
        let resumed_from = (self.state.step > 0).then_some(self.state.step);
        let first_step_at = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs_f64();
        let checkpoint = checkpoint.filter(|_| self.comm.rank() == 0);
        let mut training = Duration::ZERO;
        while self.state.step < self.max_steps && !self.state.stopped_early {
            let started = Instant::now();
            let (loss, canceled) = self.step(observer.canceled())?;
            training += started.elapsed();
            let validated = self.maybe_validate(checkpoint)?;
            observer.step(&self.progress(loss));
            let every = self.state.train.checkpoint_every;
            let due = validated || canceled || self.finished() || (every > 0 && self.state.step.is_multiple_of(every));
            if let Some(checkpoint) = checkpoint.filter(|_| due) {
                checkpoint.save_last(self.forecaster.model.parameters(), &self.adam, &self.state)?;
            }
            if canceled && !self.finished() {
                return Err(Error::Canceled { step: self.state.step });
            }
        }
        self.share_buffers()?;
        let done = self.state.step - resumed_from.unwrap_or(0);
        Ok(TrainResult {
            steps: self.state.step,
            seconds: begin.elapsed().as_secs_f64(),
            steps_per_second: done as f64 / training.as_secs_f64().max(1e-9),
            first_step_at,
            train_loss: self.state.train_loss.clone(),
            valid_loss: self.state.valid_loss.clone(),
            parameters: self.forecaster.model.parameters().count(),
            windows: self.windows.len() as u64,
            best_step: self.state.best.map(|(step, _)| step),
            resumed_from,
            stopped_early: self.state.stopped_early,
        })
    }

    fn finished(&self) -> bool {
        self.state.step == self.max_steps || self.state.stopped_early
    }

    fn progress(&self, train_loss: f64) -> Progress {
        let valid_loss = self.state.valid_loss.last().map(|(_, loss)| *loss);
        Progress::Step { step: self.state.step, max_steps: self.max_steps, train_loss, valid_loss }
    }

    /// One step of the optimizer; the loss before it, and whether any rank is canceled.
    fn step(&mut self, canceled: bool) -> Result<(f64, bool)> {
        let step = self.state.step;
        let (rank, size) = (self.comm.rank(), self.comm.size());
        if self.state.model.dropout() > 0.0 {
            // Follows from the step too, and differs between ranks.
            tch::manual_seed((self.state.train.seed ^ (step << 20) ^ ((rank as u64) << 52)) as i64);
        }
        let drawn = self.steps.draw(step);
        let mine = &drawn[rank * drawn.len() / size..(rank + 1) * drawn.len() / size];
        let share = self.share(mine);
        let (share, canceled) = if size == 1 { (share, canceled) } else { self.reduce(share, canceled)? };
        if !share.loss.is_finite() {
            return Err(Error::NotFinite { what: "training", value: share.loss, step });
        }
        let train = &self.state.train;
        let lr = learning_rate(train.learning_rate, train.num_lr_decays, self.max_steps, step);
        let parameters = self.forecaster.model.parameters().tensors();
        self.adam.step(parameters, &share.gradients, lr, train.gradient_clip_val)?;
        self.state.step += 1;
        self.state.train_loss.push((self.state.step, share.loss));
        Ok((share.loss, canceled))
    }

    fn share(&self, numbers: &[usize]) -> Share {
        let parameters = self.forecaster.model.parameters().tensors();
        if numbers.is_empty() {
            return Share { loss: 0.0, weight: 0.0, gradients: parameters.iter().map(|p| p.detach().zeros_like()).collect() };
        }
        let frame = self.forecaster.model.frame();
        let windows: Vec<Window> = numbers.iter().map(|n| self.windows[*n]).collect();
        let raw = gather(&self.dataset, Part::Train, &windows, frame.span(frame.train_horizon), self.device);
        let prepared = self.forecaster.preparation.prepare(raw, frame.train_horizon);
        let forecast = self.forecaster.model.forward(&prepared.inputs, true);
        let loss = self.loss.evaluate(&prepared.target, &forecast);
        let value = loss.double_value(&[]);
        let gradients = Tensor::run_backward(&[&loss], parameters, false, false);
        Share { loss: value, weight: weight(&prepared.target), gradients }
    }

    /// Mean over the ranks, weighted; on every rank the same bits.
    fn reduce(&self, share: Share, canceled: bool) -> Result<(Share, bool)> {
        let parameters = self.forecaster.model.parameters();
        let mut flat = Vec::with_capacity(parameters.count() as usize + 3);
        for gradient in &share.gradients {
            let gradient = gradient.to_device(Device::Cpu).contiguous();
            flat.extend(slice(&gradient).iter().map(|g| g * share.weight as f32));
        }
        flat.extend([(share.loss * share.weight) as f32, share.weight as f32, f32::from(canceled)]);
        self.comm.allreduce(&mut flat, ReduceOp::Sum)?;
        let tail = flat.split_off(flat.len() - 3);
        let weight = tail[1].max(f32::MIN_POSITIVE);
        flat.iter_mut().for_each(|g| *g /= weight);
        let mut rest = flat.as_slice();
        let mut take = |shape: Vec<i64>| {
            let (mine, others) = rest.split_at(shape.iter().product::<i64>() as usize);
            rest = others;
            Tensor::from_slice(mine).view(shape.as_slice()).to_device(self.device)
        };
        let gradients = parameters.tensors().iter().map(|p| take(p.size())).collect();
        let share = Share { loss: f64::from(tail[0] / weight), weight: f64::from(weight), gradients };
        Ok((share, tail[2] > 0.0))
    }

    /// Looks at the validation part if it is time; true if it did.
    fn maybe_validate(&mut self, checkpoint: Option<&Checkpoint>) -> Result<bool> {
        let due = self.state.step.is_multiple_of(self.state.train.val_check_steps) || self.state.step == self.max_steps;
        if self.validation.is_empty() || !due {
            return Ok(false);
        }
        self.share_buffers()?;
        let loss = self.validate()?;
        let step = self.state.step;
        self.state.valid_loss.push((step, loss));
        if self.state.best.is_none_or(|(_, best)| loss < best) {
            self.state.best = Some((step, loss));
            self.state.waits = 0;
            if let Some(checkpoint) = checkpoint {
                checkpoint.save_best(self.forecaster.model.parameters(), &self.state)?;
            }
        } else {
            self.state.waits += 1;
            self.state.stopped_early = self.out_of_patience();
        }
        Ok(true)
    }

    /// Rank 0's running statistics on every rank: training does not read them, so before validation and at the end is enough.
    fn share_buffers(&self) -> Result<()> {
        let buffers = self.forecaster.model.parameters().buffers();
        if self.comm.size() == 1 || buffers.is_empty() {
            return Ok(());
        }
        let _no_grad = tch::no_grad_guard();
        // f64 holds every f32 and every count of batches.
        let flat = Tensor::cat(&buffers.iter().map(|b| b.to_kind(Kind::Double).flatten(0, -1)).collect::<Vec<_>>(), 0);
        let mut values = vec![0.0f64; flat.numel()];
        if self.comm.rank() == 0 {
            flat.to_device(Device::Cpu).copy_data(&mut values, flat.numel());
        }
        self.comm.allreduce(&mut values, ReduceOp::Sum)?;
        let sizes: Vec<i64> = buffers.iter().map(|b| b.numel() as i64).collect();
        for (buffer, values) in buffers.iter().zip(Tensor::from_slice(&values).split_with_sizes(&sizes, 0)) {
            buffer.shallow_clone().copy_(&values.view_as(buffer));
        }
        Ok(())
    }

    fn out_of_patience(&self) -> bool {
        let patience = u64::try_from(self.state.train.early_stop_patience_steps).unwrap_or(0);
        patience > 0 && self.state.waits >= patience
    }

    /// Mean loss over all validation windows, in the scale of the data, batches weighted by their windows.
    fn validate(&self) -> Result<f64> {
        let (rank, size, count) = (self.comm.rank(), self.comm.size(), self.validation.len());
        let mine = &self.validation[rank * count / size..(rank + 1) * count / size];
        let mut sum = [0.0, mine.len() as f64];
        for batch in mine.chunks(self.state.train.inference_windows_batch_size) {
            let (prepared, forecast) = self.forecaster.forecast(&self.dataset, Part::Validation, batch);
            sum[0] += self.valid_loss.evaluate(&prepared.original, &forecast).double_value(&[]) * batch.len() as f64;
        }
        self.comm.allreduce(&mut sum, ReduceOp::Sum)?;
        let loss = f64::from((sum[0] / sum[1]) as f32);
        match loss.is_finite() {
            true => Ok(loss),
            false => Err(Error::NotFinite { what: "validation", value: loss, step: self.state.step }),
        }
    }
}

fn weight(target: &Target) -> f64 {
    match &target.mask {
        None => target.y.numel() as f64,
        Some(mask) => mask.sum(None::<Kind>).double_value(&[]),
    }
}

/// Which windows each step sees.
#[derive(Debug)]
struct Steps {
    windows: usize,
    batch: usize,
    seed: u64,
    passes: bool,
    per_epoch: u64,
    epoch: Option<(u64, Shuffled)>,
}

impl Steps {
    fn new(windows: usize, model: ModelName, train: &TrainConfig) -> Self {
        let passes = model == ModelName::Lstm;
        let batch = match if passes { train.batch_size } else { train.windows_batch_size } {
            0 => windows,
            batch => batch,
        };
        let all = !passes && train.windows_batch_size == 0;
        let per_epoch = windows.div_ceil(batch).max(1) as u64;
        Self { windows, batch: if all { 0 } else { batch }, seed: train.seed, passes, per_epoch, epoch: None }
    }

    fn draw(&mut self, step: u64) -> Vec<usize> {
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
