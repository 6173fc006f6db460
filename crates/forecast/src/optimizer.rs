//! Adam and AdamW, and the learning rate of each step.

use std::f64::consts::PI;

use tch::{Device, Kind, Tensor};

use crate::Result;
use crate::config::{OptimizerName, Scheduler, TrainConfig};
use crate::native::{AdamState, clip_grad_norm, fused_adam};

/// Adam (Kingma and Ba 2015) or AdamW (Loshchilov and Hutter 2019) over all parameters at once: beta 0.9 and 0.999, eps 1e-8.
#[derive(Debug)]
pub struct Adam {
    first: Vec<Tensor>,
    second: Vec<Tensor>,
    step: Tensor,
    lr: Tensor,
    weight_decay: f64,
    decoupled: bool,
}

impl Adam {
    /// Adam without weight decay, with moments of zero for `parameters`.
    pub fn new(parameters: &[Tensor], device: Device) -> Self {
        Self::configured(parameters, &TrainConfig::default(), device)
    }

    /// The optimizer that `train` asks for, with moments of zero for `parameters`.
    pub fn configured(parameters: &[Tensor], train: &TrainConfig, device: Device) -> Self {
        let zeros = || parameters.iter().map(|p| p.detach().zeros_like()).collect();
        let scalar = || Tensor::zeros([0i64; 0].as_slice(), (Kind::Float, device));
        let decoupled = train.optimizer == OptimizerName::AdamW;
        Self { first: zeros(), second: zeros(), step: scalar(), lr: scalar(), weight_decay: train.weight_decay(), decoupled }
    }

    /// Changes `parameters` by one step; clips the gradients to a common norm of `clip` first, unless that is 0.
    ///
    /// # Errors
    /// What libtorch reports, for example tensors of different devices.
    pub fn step(&mut self, parameters: &[Tensor], gradients: &[Tensor], lr: f64, clip: f64) -> Result<()> {
        if clip > 0.0 {
            clip_grad_norm(gradients, clip)?;
        }
        // The kernel reads memory in order; slices of a common gradient do not lie so.
        let gradients: Vec<Tensor> = gradients.iter().map(Tensor::contiguous).collect();
        let _ = self.lr.fill_(lr);
        let (step, lr, weight_decay, decoupled) = (&mut self.step, &mut self.lr, self.weight_decay, self.decoupled);
        fused_adam(parameters, &gradients, AdamState { first: &self.first, second: &self.second, step, lr, weight_decay, decoupled })
    }

    /// First and second moments, in the order of the parameters.
    pub fn moments(&self) -> (&[Tensor], &[Tensor]) {
        (&self.first, &self.second)
    }

    /// Goes on as if `steps` steps had been done; the moments are set through [`moments`](Self::moments).
    pub fn set_steps(&mut self, steps: u64) {
        let _ = self.step.fill_(steps as f64);
    }
}

/// The learning rate of step number `step` (from 0) of `max_steps`: PyTorch's StepLR, CosineAnnealingLR, OneCycleLR (with its
/// defaults) or none, after a linear warm-up over `warmup_steps` steps.
pub fn learning_rate(train: &TrainConfig, max_steps: u64, step: u64) -> f64 {
    let (highest, warmup) = (train.learning_rate, train.warmup_steps.min(max_steps));
    if train.scheduler == Scheduler::OneCycle {
        return one_cycle(highest, if warmup > 0 { warmup as f64 } else { 0.3 * max_steps as f64 }, max_steps as f64, step as f64);
    }
    if step < warmup {
        return highest * (step + 1) as f64 / (warmup + 1) as f64;
    }
    match (train.scheduler, u64::try_from(train.num_lr_decays)) {
        (Scheduler::Step, Ok(decays)) if decays > 0 => highest * 0.5f64.powi((step / (max_steps / decays).max(1)) as i32),
        (Scheduler::Cosine, _) => {
            let share = (step - warmup) as f64 / (max_steps - warmup).max(1) as f64;
            highest * 0.5 * (1.0 + (PI * share).cos())
        }
        _ => highest,
    }
}

/// `rise` steps up from `highest / 25`, the others down to `highest / 25 / 1e4`.
fn one_cycle(highest: f64, rise: f64, max_steps: f64, step: f64) -> f64 {
    let cosine = |from: f64, to: f64, share: f64| to + (from - to) * 0.5 * (1.0 + (PI * share).cos());
    let (first, top) = (highest / 25.0, (rise - 1.0).max(0.0));
    match step <= top {
        true => cosine(first, highest, if top > 0.0 { step / top } else { 1.0 }),
        false => cosine(highest, first / 1e4, ((step - top) / (max_steps - 1.0 - top)).min(1.0)),
    }
}
