//! Names of what changes the weights: optimizer, learning-rate schedule, arithmetic, and what is watched meanwhile.

use serde::{Deserialize, Serialize};

/// How gradients change the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerName {
    /// Kingma and Ba 2015; weight decay is added to the gradient.
    Adam,
    /// Loshchilov and Hutter 2019; weight decay is taken from the weights.
    AdamW,
}

/// The learning rate over the steps, after `warmup_steps` steps that lead up to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheduler {
    /// Halved `num_lr_decays` times (PyTorch's StepLR as NeuralForecast uses it).
    Step,
    /// Half a cosine down to 0 (Loshchilov and Hutter 2017, without restarts; PyTorch's CosineAnnealingLR).
    Cosine,
    /// From 1/25 up to the learning rate and down to nearly 0, both in half cosines (Smith and Topin 2018; PyTorch's OneCycleLR).
    OneCycle,
    /// The same at every step.
    Constant,
}

/// What decides which weights are the best ones, and when training stops early. Smaller is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Monitor {
    /// The validation loss.
    ValidLoss,
    /// The mean training loss since the last look; needs no validation part.
    TrainLoss,
    /// Mean absolute error of the validation forecasts, in the scale of the data.
    Mae,
    /// Mean squared error of the validation forecasts.
    Mse,
    /// Root of the mean squared error of the validation forecasts.
    Rmse,
}

/// Arithmetic of the network. Weights, optimizer and loss are always 32-bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Precision {
    /// 32-bit floats.
    #[serde(rename = "32")]
    Full,
    /// Matrix products with 10 bits of mantissa, on GPUs that have them; elsewhere 32-bit floats.
    #[serde(rename = "tf32")]
    Tf32,
    /// Matrix products and convolutions in bfloat16 (PyTorch's autocast, Lightning's `bf16-mixed`).
    #[serde(rename = "bf16")]
    Bf16,
}
