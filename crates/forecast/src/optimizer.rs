//! Adam with a step-wise decaying learning rate.

use tch::{Device, Kind, Tensor};

use crate::Result;
use crate::native::{AdamState, clip_grad_norm, fused_adam};

/// Adam (Kingma and Ba 2015, beta 0.9 and 0.999, eps 1e-8) over all parameters at once.
#[derive(Debug)]
pub struct Adam {
    first: Vec<Tensor>,
    second: Vec<Tensor>,
    step: Tensor,
    lr: Tensor,
}

impl Adam {
    /// Moments of zero for `parameters`.
    pub fn new(parameters: &[Tensor], device: Device) -> Self {
        let zeros = || parameters.iter().map(|p| p.detach().zeros_like()).collect();
        let scalar = || Tensor::zeros([0i64; 0].as_slice(), (Kind::Float, device));
        Self { first: zeros(), second: zeros(), step: scalar(), lr: scalar() }
    }

    /// Changes `parameters` by one step; clips the gradients to a common norm of `clip` first, unless that is 0.
    ///
    /// # Errors
    /// What libtorch reports, for example tensors of different devices.
    pub fn step(&mut self, parameters: &[Tensor], gradients: &[Tensor], lr: f64, clip: f64) -> Result<()> {
        if clip > 0.0 {
            clip_grad_norm(gradients, clip)?;
        }
        let _ = self.lr.fill_(lr);
        let (step, lr) = (&mut self.step, &mut self.lr);
        fused_adam(parameters, gradients, AdamState { first: &self.first, second: &self.second, step, lr })
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

/// PyTorch's StepLR: the rate of step number `step` (from 0) halves `decays` times over `max_steps`.
pub fn learning_rate(initial: f64, decays: i64, max_steps: u64, step: u64) -> f64 {
    match u64::try_from(decays) {
        Ok(decays) if decays > 0 => initial * 0.5f64.powi((step / (max_steps / decays).max(1)) as i32),
        _ => initial,
    }
}
