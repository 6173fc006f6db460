//! The training loop: windows of a step, loss, gradients, optimizer; validation, checkpoints, early stop.

mod diagnosis;
mod exchange;
mod steps;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use deeprc_comm::{Communicator, ReduceOp};
use deeprc_loader::{Dataset, Part, Skipped, Window};
use tch::{Device, Tensor};

use crate::checkpoint::{Checkpoint, State};
use crate::config::{ModelConfig, Monitor, Precision, TrainConfig};
use crate::forecaster::Forecaster;
use crate::local_scaler;
use crate::loss::Loss;
use crate::optimizer::{Adam, learning_rate};
use crate::preparation::{check_weights, has_rows};
use crate::task::{Progress, TrainResult, Weights};
use crate::{Error, Resident, Result, native, window_list};
use exchange::{Exchange, share_buffers};
use steps::Steps;

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
/// undisturbed one draws. With several ranks, all draw the same windows and each takes its share. First the sums behind the loss
/// are added up over the ranks, which gives the loss of the whole step (a root is taken after that), then, in the order of the
/// ranks, the gradients: to rounding, the step that one rank would do. Models that look at the whole batch (batch normalisation,
/// TimesNet's periods, Autoformer's delays) see the share of their rank, as with PyTorch's DistributedDataParallel.
#[derive(Debug)]
pub struct Trainer {
    dataset: Arc<Dataset>,
    /// On a GPU, the data there.
    resident: Option<Resident>,
    comm: Communicator,
    forecaster: Forecaster,
    adam: Adam,
    /// None on a single rank.
    exchange: Option<Exchange>,
    state: State,
    loss: Loss,
    valid_loss: Loss,
    windows: Vec<Window>,
    validation: Vec<Window>,
    /// Series that are not trained on.
    skipped: Vec<Skipped>,
    steps: Steps,
    max_steps: u64,
    /// The step after which this run stops: the last one, unless told otherwise.
    until: u64,
}

impl Trainer {
    /// A model with random parameters for the columns of `dataset`.
    ///
    /// # Errors
    /// If the model cannot use the columns, or the data set has no training windows for it.
    pub fn new(dataset: Arc<Dataset>, model: &ModelConfig, train: &TrainConfig, comm: Communicator, device: Device) -> Result<Self> {
        Loss::training(train).check(&dataset)?;
        check_weights(&dataset)?;
        local_scaler::check(train.local_scaler_type, &dataset)?;
        let forecaster = Forecaster::new(&dataset, model, train, device)?;
        let dataset = forecaster.scaled(&dataset).map_or(dataset, Arc::new);
        let frame = forecaster.model.frame();
        let (windows, skipped) = window_list::training(&dataset, frame, train)?;
        let validation = match has_rows(&dataset, Part::Validation) {
            true => window_list::validation(&dataset, frame, train)?,
            false => Vec::new(),
        };
        if train.early_stop_patience_steps > 0 && train.monitor != Monitor::TrainLoss && validation.is_empty() {
            return Err(Error::NothingToMonitor { patience: train.early_stop_patience_steps });
        }
        native::allow_tf32(train.precision == Precision::Tf32)?;
        let steps = Steps::new(windows.len(), model.name(), train);
        let parameters = forecaster.model.parameters().tensors();
        let max_steps = if train.epochs > 0 { train.epochs * steps.per_epoch } else { train.max_steps };
        Ok(Self {
            adam: Adam::configured(parameters, train, device),
            exchange: (comm.size() > 1).then(|| Exchange::new(comm.clone(), parameters, device)).transpose()?,
            state: State::new(model, train, dataset.columns()),
            loss: forecaster.loss().clone(),
            valid_loss: Loss::validation(train),
            max_steps,
            until: max_steps,
            resident: forecaster.resident(&dataset),
            dataset,
            comm,
            forecaster,
            windows,
            validation,
            skipped,
            steps,
        })
    }

    /// The model as trained so far.
    pub fn forecaster(&self) -> &Forecaster {
        &self.forecaster
    }

    /// The model as trained so far, and where the training stands.
    pub fn into_parts(self) -> (Forecaster, State) {
        (self.forecaster, self.state)
    }

    /// Starts from the weights of another training, of the same model and columns but on any data and with any options of training:
    /// optimizer, learning rate and steps begin anew.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if it is broken, of another model or of other columns.
    pub fn init_from(&mut self, checkpoint: &Checkpoint, weights: Weights) -> Result<()> {
        let found = checkpoint.state(weights)?;
        checkpoint.same_model(&found, &self.state.model)?;
        checkpoint.same_columns(&found, self.dataset.columns())?;
        checkpoint.load(weights, self.forecaster.model.parameters())
    }

    /// Goes on from a checkpoint as if nothing had happened: with the same data, the same bits come out.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if it is broken or of another training.
    pub fn resume(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        let found = checkpoint.state(Weights::Last)?;
        checkpoint.same_training(&found, &self.state.model, &self.state.train, self.dataset.columns())?;
        let mut restored = checkpoint.restore(self.forecaster.model.parameters(), &mut self.adam)?;
        restored.train = self.state.train.clone();
        self.state = restored;
        // A longer training may go on where patience had not run out, a finished one stays finished.
        self.state.stopped_early = self.out_of_patience();
        Ok(())
    }

    /// Stops after this step as if it were the last one, with a look at the validation part and a checkpoint. The learning rate goes
    /// on as planned for the whole training.
    pub fn stop_after(&mut self, step: u64) {
        self.until = step.min(self.max_steps);
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
        while self.state.step < self.until && !self.state.stopped_early {
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
        share_buffers(&self.comm, self.forecaster.model.parameters())?;
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
            best: self.state.best,
            best_step: self.state.best.map(|(step, _)| step),
            resumed_from,
            stopped_early: self.state.stopped_early,
            skipped: self.skipped.clone(),
        })
    }

    fn finished(&self) -> bool {
        self.state.step == self.until || self.state.stopped_early
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
        let loss = if size == 1 { self.loss.clone() } else { self.loss.additive() };
        let share = (!mine.is_empty()).then(|| self.evaluate(mine, &loss, size > 1));
        let (value, factor, canceled) = match &share {
            Some((loss, _)) if size == 1 => (loss.double_value(&[]), 1.0, canceled),
            share => self.agree(share.as_ref(), canceled)?,
        };
        if !value.is_finite() {
            return Err(self.diverged(value, &drawn));
        }
        let parameters = self.forecaster.model.parameters().tensors();
        let own;
        let gradients = match &self.exchange {
            Some(exchange) => exchange.backward(share.map(|(loss, _)| loss * factor).as_ref(), parameters)?,
            None => {
                own = share.map(|(loss, _)| gradients(&loss, parameters)).unwrap_or_default();
                own.as_slice()
            }
        };
        let train = &self.state.train;
        self.adam.step(parameters, gradients, learning_rate(train, self.max_steps, step), train.gradient_clip_val)?;
        self.state.step += 1;
        self.state.train_loss.push((self.state.step, value));
        Ok((value, canceled))
    }

    /// The loss over the windows `numbers`, and what its mean is divided by if that is `wanted`.
    fn evaluate(&self, numbers: &[usize], loss: &Loss, wanted: bool) -> (Tensor, f64) {
        let windows: Vec<Window> = numbers.iter().map(|n| self.windows[*n]).collect();
        let horizon = self.forecaster.model.frame().train_horizon;
        let prepared = self.forecaster.prepare((&self.dataset, self.resident.as_ref()), Part::Train, &windows, horizon);
        let forecast = self.forecaster.forward(&prepared.inputs, true);
        let weight = if wanted { prepared.target.weight() } else { 0.0 };
        (loss.train(&prepared, &forecast), weight)
    }

    /// The loss of the whole step, what to multiply this rank's share with so that the gradients of all ranks add up to the
    /// gradient of that loss, and whether any rank is canceled.
    fn agree(&self, share: Option<&(Tensor, f64)>, canceled: bool) -> Result<(f64, f64, bool)> {
        let (mean, weight) = share.map_or((0.0, 0.0), |(loss, weight)| (loss.double_value(&[]), *weight));
        let mut sums = [mean * weight, weight, f64::from(u8::from(canceled))];
        self.comm.allreduce(&mut sums, ReduceOp::Sum)?;
        let all = sums[1].max(f64::MIN_POSITIVE);
        let (loss, slope) = self.loss.of_mean(sums[0] / all);
        // Losses are f32 on one rank; a checkpoint keeps them as such.
        Ok((f64::from(loss as f32), slope * weight / all, sums[2] > 0.0))
    }

    /// Looks at the validation part if it is time; true if it did.
    fn maybe_validate(&mut self, checkpoint: Option<&Checkpoint>) -> Result<bool> {
        let due = self.state.step.is_multiple_of(self.state.train.val_check_steps) || self.state.step == self.until;
        let by_training = self.state.train.monitor == Monitor::TrainLoss;
        if !due || (self.validation.is_empty() && !by_training) {
            return Ok(false);
        }
        share_buffers(&self.comm, self.forecaster.model.parameters())?;
        let step = self.state.step;
        let mut monitored = self.recent_loss();
        if !self.validation.is_empty() {
            let (loss, errors) = self.validate()?;
            self.state.valid_loss.push((step, loss));
            monitored = match self.state.train.monitor {
                Monitor::ValidLoss => loss,
                Monitor::TrainLoss => monitored,
                Monitor::Mae => errors[0],
                Monitor::Mse => errors[1],
                Monitor::Rmse => errors[1].sqrt(),
            };
        }
        // A checkpoint keeps f32.
        let monitored = f64::from(monitored as f32);
        if self.state.best.is_none_or(|(_, best)| monitored < best) {
            self.state.best = Some((step, monitored));
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

    /// Mean training loss of the last `val_check_steps` steps.
    fn recent_loss(&self) -> f64 {
        let losses = &self.state.train_loss;
        let recent = &losses[losses.len().saturating_sub(self.state.train.val_check_steps as usize)..];
        recent.iter().map(|(_, loss)| loss).sum::<f64>() / recent.len().max(1) as f64
    }

    fn out_of_patience(&self) -> bool {
        let patience = u64::try_from(self.state.train.early_stop_patience_steps).unwrap_or(0);
        patience > 0 && self.state.waits >= patience
    }

    /// Over all observed values of all validation windows, in the scale of the data: the loss, and mean absolute and squared error
    /// of the forecasts. Sums are shared between ranks, so that the answer does not depend on their number.
    fn validate(&self) -> Result<(f64, [f64; 2])> {
        let (rank, size, count) = (self.comm.rank(), self.comm.size(), self.validation.len());
        let mine = &self.validation[rank * count / size..(rank + 1) * count / size];
        let loss = self.valid_loss.additive();
        let mut sums = [0.0; 4];
        for batch in mine.chunks(self.state.train.inference_windows_batch_size) {
            let (prepared, output) = self.forecaster.outputs((&self.dataset, self.resident.as_ref()), Part::Validation, batch);
            let weight = prepared.original.weight();
            let value = loss.validate(&self.loss, &prepared, &output, &self.forecaster.seeds(batch));
            sums[0] += value.double_value(&[]) * weight;
            sums[1] += weight;
            if matches!(self.state.train.monitor, Monitor::Mae | Monitor::Mse | Monitor::Rmse) {
                let point = self.loss.point(prepared.scale.as_ref(), &output, prepared.original.y.size()[2]);
                sums[2] += Loss::Mae.evaluate(&prepared.original, &point).double_value(&[]) * weight;
                sums[3] += Loss::Mse.evaluate(&prepared.original, &point).double_value(&[]) * weight;
            }
        }
        self.comm.allreduce(&mut sums, ReduceOp::Sum)?;
        let all = sums[1].max(f64::MIN_POSITIVE);
        let loss = f64::from(self.valid_loss.of_mean(sums[0] / all).0 as f32);
        if loss.is_finite() { Ok((loss, [sums[2] / all, sums[3] / all])) } else { Err(self.invalid(loss)) }
    }
}

/// Of parameters that the loss does not depend on, zeros.
fn gradients(loss: &Tensor, parameters: &[Tensor]) -> Vec<Tensor> {
    let found = Tensor::run_backward(&[loss], parameters, false, false);
    let present = |(gradient, parameter): (Tensor, &Tensor)| if gradient.defined() { gradient } else { parameter.detach().zeros_like() };
    found.into_iter().zip(parameters).map(present).collect()
}
