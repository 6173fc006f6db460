//! What a model is: a function from windows to forecasts with learned parameters.

use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use tch::{Device, Tensor};

use crate::config::{ModelConfig, ModelName};
use crate::loss::Feedback;
use crate::networks::{Autoformer, DeepAr, Gru, Lstm, NBeats, NHits, NLinear, PatchTst, Tft, Tide, TimesNet, VanillaTransformer};
use crate::{Error, Parameters, Result};

/// Which rows of a window a model sees and forecasts.
///
/// ```text
///   rows of a window   [ input ........... ][ horizon ... ]     lead 0
///                      [ input ........... ]
///                                  [ horizon ]                  lead -1: the horizon begins with the last input row
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Rows of input.
    pub input: usize,
    /// Rows to forecast.
    pub horizon: usize,
    /// Rows to forecast in a training window; fewer for recurrent models.
    pub train_horizon: usize,
    /// Start of the horizon after the end of the input.
    pub lead: i64,
    /// True if the network reads the target up to one row before each forecast: the input is the window without its last
    /// row, and exogenous inputs are shifted by one so that each row knows those of the row it forecasts.
    pub teacher_forcing: bool,
}

impl Frame {
    /// The horizon follows the input and is forecast at once.
    pub fn direct(input: usize, horizon: usize) -> Self {
        Self { input, horizon, train_horizon: horizon, lead: 0, teacher_forcing: false }
    }

    /// First row of the horizon, counted from the first row of the window.
    pub fn horizon_offset(&self) -> usize {
        (self.input as i64 + self.lead) as usize
    }

    /// Rows of a window with a horizon of `horizon` rows.
    pub fn span(&self, horizon: usize) -> usize {
        self.input.max(self.horizon_offset() + horizon)
    }
}

/// Sizes that come from the data rather than from the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Widths {
    /// Target columns.
    pub targets: usize,
    /// Exogenous columns known up to the cutoff.
    pub hist: usize,
    /// Exogenous columns known over the horizon too.
    pub futr: usize,
    /// Columns constant in time.
    pub stat: usize,
    /// Values that the loss needs for each target and step: see [`Loss::outputs`](crate::loss::Loss::outputs).
    pub outputs: usize,
}

/// What a network reads, normalised.
#[derive(Debug)]
pub struct Inputs {
    /// `[batch, input, targets]`; with teacher forcing `[batch, input + horizon - 1, 1]`.
    pub y: Tensor,
    /// 1 where `y` was observed, of the same shape; none if all of it was.
    pub mask: Option<Tensor>,
    /// `[batch, input, hist]`; with teacher forcing one row less than the window, zero in the horizon.
    pub hist: Option<Tensor>,
    /// `[batch, window, futr]`; with teacher forcing without its first row.
    pub futr: Option<Tensor>,
    /// `[batch, stat]`.
    pub stat: Option<Tensor>,
}

/// A network with its learned parameters.
///
/// Forecasts are in the scale of the inputs: the trainer normalises windows before and maps forecasts back after.
pub trait Model: std::fmt::Debug + Send {
    /// The learned parameters.
    fn parameters(&self) -> &Parameters;

    /// Which rows it wants.
    fn frame(&self) -> Frame;

    /// `[batch, horizon in training or forecast, targets * outputs]`; `train` switches dropout on.
    fn forward(&self, inputs: &Inputs, train: bool) -> Tensor;

    /// The whole horizon without knowing any of it: `[batch, horizon, targets * outputs]`. Recurrent models read `feedback` of
    /// their own outputs.
    fn forecast(&self, inputs: &Inputs, _feedback: &Feedback) -> Tensor {
        self.forward(inputs, false)
    }
}

/// Builds a model with random parameters.
///
/// # Errors
/// [`Error::Columns`] if the model cannot use the columns.
pub fn build(config: &ModelConfig, widths: Widths, seed: u64, device: Device) -> Result<Box<dyn Model>> {
    build_with(config, widths, Parameters::new(ChaCha8Rng::seed_from_u64(seed), device))
}

/// Builds a model whose parameters follow those that `parameters` has already, such as those of a learned scaler.
///
/// # Errors
/// As [`build`].
pub fn build_with(config: &ModelConfig, widths: Widths, parameters: Parameters) -> Result<Box<dyn Model>> {
    check_columns(config, widths)?;
    Ok(match config {
        ModelConfig::NLinear(c) => Box::new(NLinear::new(c, widths, parameters)),
        ModelConfig::NBeats(c) => Box::new(NBeats::new(c, widths, parameters)),
        ModelConfig::NHits(c) => Box::new(NHits::new(c, widths, parameters)),
        ModelConfig::Tide(c) => Box::new(Tide::new(c, widths, parameters)),
        ModelConfig::Gru(c) => Box::new(Gru::new(c, widths, parameters)),
        ModelConfig::DeepAr(c) => Box::new(DeepAr::new(c, widths, parameters)),
        ModelConfig::Lstm(c) => Box::new(Lstm::new(c, widths, parameters)),
        ModelConfig::PatchTst(c) => Box::new(PatchTst::new(c, widths, parameters)),
        ModelConfig::VanillaTransformer(c) => Box::new(VanillaTransformer::new(c, widths, parameters)),
        ModelConfig::Autoformer(c) => Box::new(Autoformer::new(c, widths, parameters)),
        ModelConfig::Tft(c) => Box::new(Tft::new(c, widths, parameters)),
        ModelConfig::TimesNet(c) => Box::new(TimesNet::new(c, widths, parameters)),
    })
}

fn check_columns(config: &ModelConfig, widths: Widths) -> Result<()> {
    let problem = |problem: String| Err(Error::Columns { model: config.name(), problem });
    if widths.targets == 0 || (widths.targets > 1 && !config.multivariate()) {
        return problem(format!("forecasts one target, but {} are given", widths.targets));
    }
    for (kind, width) in [("hist", widths.hist), ("futr", widths.futr), ("stat", widths.stat)] {
        if width > 0 && !config.exogenous().contains(&kind) {
            return problem(format!("cannot use {kind} columns, but {width} are given"));
        }
    }
    if config.name() == ModelName::Lstm && Lstm::inputs(config, widths) == 0 {
        return problem("has no inputs: give hist, futr or stat columns, or let it see past targets".to_owned());
    }
    Ok(())
}
