//! Trained weights on disk, with everything that is needed to go on as if nothing had happened.
//!
//! ```text
//!   last.safetensors   weights after the last step, optimizer.first.*, optimizer.second.*; metadata `state`
//!   best.safetensors   weights with the lowest validation loss; metadata `state`
//!   state.json         a copy of the last state for people
//! ```
//!
//! Each file is written beside its place and renamed, so that a kill at any time leaves a whole old or a whole new one. The state
//! travels inside the file with the weights it belongs to.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use deeprc_loader::Columns;
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize_to_file};
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use crate::blocks::{bytes, slice};
use crate::config::{ModelConfig, TrainConfig};
use crate::optimizer::Adam;
use crate::task::Weights;
pub use crate::weights::load_weights;
use crate::{Error, Parameters, Result};

/// Version of the layout above.
const VERSION: u32 = 1;

/// Where a training stands. Windows, learning rate and dropout of a step follow from its number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Version of the checkpoint's layout.
    pub version: u32,
    /// The model.
    pub model: ModelConfig,
    /// How it is trained.
    pub train: TrainConfig,
    /// What it was trained on.
    pub columns: Columns,
    /// The options that a resumed training must share, as text: numbers in JSON may come back with another last digit.
    identity: [String; 2],
    /// Steps done.
    pub step: u64,
    /// Step and loss of the best validation.
    pub best: Option<(u64, f64)>,
    /// Validations since the best one.
    pub waits: u64,
    /// True if validation stopped the training.
    pub stopped_early: bool,
    /// Training loss of each step, from 1.
    pub train_loss: Vec<(u64, f64)>,
    /// Validation losses.
    pub valid_loss: Vec<(u64, f64)>,
}

impl State {
    /// Before the first step.
    pub fn new(model: &ModelConfig, train: &TrainConfig, columns: &Columns) -> Self {
        Self {
            version: VERSION,
            model: model.clone(),
            train: train.clone(),
            columns: columns.clone(),
            identity: identity(model, train),
            step: 0,
            best: None,
            waits: 0,
            stopped_early: false,
            train_loss: Vec::new(),
            valid_loss: Vec::new(),
        }
    }

    /// Losses are f32 widened to f64, so that rounding restores what JSON may have changed in the last digit.
    fn exact(mut self) -> Self {
        let losses = self.train_loss.iter_mut().chain(&mut self.valid_loss).chain(&mut self.best);
        losses.for_each(|(_, loss)| *loss = f64::from(*loss as f32));
        self
    }
}

/// Only how long to train and how often to look may differ between a training and its continuation.
fn identity(model: &ModelConfig, train: &TrainConfig) -> [String; 2] {
    let free = TrainConfig::default();
    let bound = TrainConfig {
        max_steps: free.max_steps,
        epochs: free.epochs,
        val_check_steps: free.val_check_steps,
        early_stop_patience_steps: free.early_stop_patience_steps,
        inference_windows_batch_size: free.inference_windows_batch_size,
        checkpoint_every: free.checkpoint_every,
        ..train.clone()
    };
    let model = serde_json::to_string(model).expect("plain data always becomes JSON");
    [model, serde_json::to_string(&bound).expect("plain data always becomes JSON")]
}

/// The first option that differs between two configurations as JSON text, with both values; absent ones are at their default.
/// Both texts are parsed, so that a last digit which parsing changes is changed in both.
fn first_difference(theirs: &str, ours: &str, defaults: &serde_json::Value) -> Option<(String, String, String)> {
    let [theirs, ours] = [theirs, ours].map(|text| serde_json::from_str::<serde_json::Value>(text).unwrap_or_default());
    let keys = ours.as_object()?.keys().chain(theirs.as_object()?.keys());
    let value = |of: &serde_json::Value, key: &str| of.get(key).or_else(|| defaults.get(key)).cloned().unwrap_or_default();
    let mut pairs = keys.map(|key| (key, value(&theirs, key), value(&ours, key)));
    pairs.find(|(_, theirs, ours)| theirs != ours).map(|(key, theirs, ours)| (key.clone(), theirs.to_string(), ours.to_string()))
}

/// A directory with the files of one training.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    dir: PathBuf,
}

impl Checkpoint {
    /// The checkpoint in `dir`, which need not exist yet.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// True if a training can be resumed from here.
    pub fn exists(&self) -> bool {
        self.path(Weights::Last).exists()
    }

    fn path(&self, weights: Weights) -> PathBuf {
        let best = self.dir.join("best.safetensors");
        if weights == Weights::Best { best } else { self.dir.join("last.safetensors") }
    }

    /// The file to read: without validation there are no best weights but the last ones.
    fn present(&self, weights: Weights) -> PathBuf {
        let wanted = self.path(weights);
        if wanted.exists() { wanted } else { self.path(Weights::Last) }
    }

    /// Takes over the files of another training.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn copy(&self, from: &Checkpoint) -> Result<()> {
        std::fs::create_dir_all(&self.dir).map_err(io("create", &self.dir))?;
        self.clear()?;
        // The last weights come last: a copy without them counts as none.
        for (weights, required) in [(Weights::Best, false), (Weights::Last, true)] {
            let (there, here) = (from.path(weights), self.path(weights));
            if required || there.exists() {
                let beside = here.with_extension("new");
                std::fs::copy(&there, &beside).map_err(io("copy", &there))?;
                std::fs::rename(&beside, &here).map_err(io("rename", &beside))?;
            }
        }
        Ok(())
    }

    /// Removes the files of an earlier training.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn clear(&self) -> Result<()> {
        for file in [self.path(Weights::Best), self.path(Weights::Last), self.dir.join("state.json")] {
            match std::fs::remove_file(&file) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => return Err(io("remove", &file)(source)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Writes the weights with the lowest validation loss.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Checkpoint`].
    pub fn save_best(&self, parameters: &Parameters, state: &State) -> Result<()> {
        self.write(Weights::Best, saved(parameters), state)
    }

    /// Writes all that is needed to go on, and `state.json`.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Checkpoint`].
    pub fn save_last(&self, parameters: &Parameters, adam: &Adam, state: &State) -> Result<()> {
        let (first, second) = adam.moments();
        let mut tensors = saved(parameters);
        tensors.extend(named(parameters, first, "optimizer.first."));
        tensors.extend(named(parameters, second, "optimizer.second."));
        self.write(Weights::Last, tensors, state)?;
        let path = self.dir.join("state.json");
        let text = serde_json::to_vec_pretty(state).expect("plain data always becomes JSON");
        let beside = path.with_extension("json.new");
        std::fs::write(&beside, text).map_err(io("write", &beside))?;
        std::fs::rename(&beside, &path).map_err(io("rename", &beside))
    }

    fn write(&self, weights: Weights, tensors: Vec<(String, Tensor)>, state: &State) -> Result<()> {
        std::fs::create_dir_all(&self.dir).map_err(io("create", &self.dir))?;
        let path = self.path(weights);
        let beside = path.with_extension("safetensors.new");
        let failed = |e: safetensors::SafeTensorError| broken(&path, e.to_string());
        let tensors: Vec<(String, Tensor, Vec<u8>)> = tensors.into_iter().map(with_whole_numbers).collect();
        let views = tensors.iter().map(|(name, tensor, whole)| {
            let bytes = if whole.is_empty() { bytes(slice(tensor)) } else { whole };
            let shape = tensor.size().iter().map(|n| *n as usize).collect();
            Ok((name, TensorView::new(dtype(tensor), shape, bytes)?))
        });
        let views = views.collect::<Result<Vec<_>, safetensors::SafeTensorError>>().map_err(failed)?;
        let text = serde_json::to_string(state).expect("plain data always becomes JSON");
        serialize_to_file(views, Some(HashMap::from([("state".to_owned(), text)])), &beside).map_err(failed)?;
        File::open(&beside).and_then(|file| file.sync_data()).map_err(io("write", &beside))?;
        std::fs::rename(&beside, &path).map_err(io("rename", &beside))
    }

    /// The state that belongs to the weights.
    ///
    /// # Errors
    /// [`Error::Io`] without a file, [`Error::Checkpoint`] if it is none of ours.
    pub fn state(&self, weights: Weights) -> Result<State> {
        let path = self.present(weights);
        let data = std::fs::read(&path).map_err(io("read", &path))?;
        let (_, header) = SafeTensors::read_metadata(&data).map_err(|e| broken(&path, e.to_string()))?;
        let text = header.metadata().as_ref().and_then(|m| m.get("state"));
        let text = text.ok_or_else(|| broken(&path, "was not written by deeprc: it has no state".to_owned()))?;
        let state: State = serde_json::from_str(text).map_err(|e| broken(&path, e.to_string()))?;
        match state.version {
            VERSION => Ok(state.exact()),
            other => Err(broken(&path, format!("has version {other}, this program reads version {VERSION}"))),
        }
    }

    /// Puts the weights into `parameters`.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Checkpoint`] if a weight is missing or of another shape.
    pub fn load(&self, weights: Weights, parameters: &Parameters) -> Result<()> {
        let path = self.present(weights);
        fill(&path, parameters, &[])
    }

    /// Puts weights and moments of the last step back.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn restore(&self, parameters: &Parameters, adam: &mut Adam) -> Result<State> {
        let state = self.state(Weights::Last)?;
        let (first, second) = adam.moments();
        fill(&self.path(Weights::Last), parameters, &[("optimizer.first.", first), ("optimizer.second.", second)])?;
        adam.set_steps(state.step);
        Ok(state)
    }

    /// Whether a training with other options could not go on from `state`.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] naming the first difference. Only how long to train and how often to look may differ.
    pub fn same_training(&self, state: &State, model: &ModelConfig, train: &TrainConfig, columns: &Columns) -> Result<()> {
        self.same_model(state, model)?;
        self.same_columns(state, columns)?;
        let [_, theirs] = &state.identity;
        let [_, ours] = identity(model, train);
        match first_difference(theirs, &ours, &serde_json::to_value(TrainConfig::default()).expect("plain data always becomes JSON")) {
            Some((key, theirs, ours)) => Err(broken(&self.path(Weights::Last), format!("was trained with `{key}` {theirs}, not {ours}"))),
            None => Ok(()),
        }
    }

    /// Whether the weights are of `model` with the same options.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] naming the first difference.
    pub fn same_model(&self, state: &State, model: &ModelConfig) -> Result<()> {
        let path = || self.present(Weights::Last);
        if state.model.name() != model.name() {
            return Err(broken(&path(), format!("is of model {}, not {}", state.model.name().as_str(), model.name().as_str())));
        }
        let [ours, _] = identity(model, &state.train);
        let defaults = serde_json::to_value(ModelConfig::of(model.name())).expect("plain data always becomes JSON");
        match first_difference(&state.identity[0], &ours, &defaults) {
            Some((key, theirs, ours)) => Err(broken(&path(), format!("is of a model with `{key}` {theirs}, not {ours}"))),
            None => Ok(()),
        }
    }

    /// Whether the weights fit data with `columns`.
    ///
    /// # Errors
    /// [`Error::Checkpoint`].
    pub fn same_columns(&self, state: &State, columns: &Columns) -> Result<()> {
        let of = |c: &Columns| (c.targets.clone(), c.hist.clone(), c.futr.clone(), c.stat.clone());
        if of(&state.columns) == of(columns) {
            return Ok(());
        }
        Err(broken(&self.path(Weights::Last), "was trained on other columns".to_owned()))
    }
}

/// Reads weights and buffers, and the given groups of tensors that belong to the learned ones, by prefix.
fn fill(path: &Path, parameters: &Parameters, groups: &[(&str, &[Tensor])]) -> Result<()> {
    let _no_grad = tch::no_grad_guard();
    let data = std::fs::read(path).map_err(io("read", path))?;
    let file = SafeTensors::deserialize(&data).map_err(|e| broken(path, e.to_string()))?;
    let mut wanted: Vec<(String, &Tensor)> = parameters.state().into_iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect();
    for (prefix, tensors) in groups {
        wanted.extend(parameters.names().iter().zip(*tensors).map(|(name, tensor)| (format!("{prefix}{name}"), tensor)));
    }
    for (name, tensor) in wanted {
        let view = file.tensor(&name).map_err(|_| broken(path, format!("has no weight {name}")))?;
        let shape: Vec<i64> = view.shape().iter().map(|n| *n as i64).collect();
        let needed = dtype(tensor);
        if view.dtype() != needed || shape != tensor.size() {
            return Err(broken(path, format!("has {name} as {:?} {shape:?}, needed is {needed:?} {:?}", view.dtype(), tensor.size())));
        }
        let values = Tensor::from_data_size(view.data(), &shape, tensor.kind());
        tensor.shallow_clone().copy_(&values);
    }
    Ok(())
}

/// Learned tensors and buffers on the CPU.
fn saved(parameters: &Parameters) -> Vec<(String, Tensor)> {
    parameters.state().into_iter().map(|(name, tensor)| (name.to_owned(), on_cpu(tensor))).collect()
}

/// Weights are f32; only counters are whole numbers.
fn dtype(tensor: &Tensor) -> Dtype {
    if tensor.kind() == tch::Kind::Int64 { Dtype::I64 } else { Dtype::F32 }
}

/// The bytes of a tensor of whole numbers, none for others.
fn with_whole_numbers((name, tensor): (String, Tensor)) -> (String, Tensor, Vec<u8>) {
    let whole = match dtype(&tensor) {
        Dtype::I64 => tensor.flatten(0, -1).iter::<i64>().into_iter().flatten().flat_map(i64::to_le_bytes).collect(),
        _ => Vec::new(),
    };
    (name, tensor, whole)
}

fn on_cpu(tensor: &Tensor) -> Tensor {
    tensor.detach().to_device(Device::Cpu).contiguous()
}

fn named(parameters: &Parameters, tensors: &[Tensor], prefix: &str) -> Vec<(String, Tensor)> {
    parameters.names().iter().zip(tensors).map(|(name, tensor)| (format!("{prefix}{name}"), on_cpu(tensor))).collect()
}

fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> Error + 'a {
    move |source| Error::Io { action, path: path.to_owned(), source }
}

fn broken(path: &Path, problem: String) -> Error {
    Error::Checkpoint { path: path.to_owned(), problem }
}
