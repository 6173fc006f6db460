//! Several models on one table, with the methods that NeuralForecast has: fit, predict, cross-validate, save, load.

mod ahead;
mod cross_validation;
mod output;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use deeprc_comm::Communicator;
use deeprc_loader::{Dataset, Frequency, Part};
use deeprc_table::arrow::array::RecordBatch;
use serde::{Deserialize, Serialize};
use tch::Device;

pub(crate) use ahead::of_one as ahead;
pub use cross_validation::{CrossValidation, Refit};

use crate::checkpoint::{Checkpoint, State};
use crate::config::{ModelConfig, TrainConfig};
use crate::forecaster::Forecaster;
use crate::task::{TrainResult, Weights};
use crate::trainer::{Observer, Trainer};
use crate::{Error, Result};

/// File with the names of the models and the frequency, beside a folder for each model.
const INDEX: &str = "models.json";

/// Several models with the same horizon, trained on the same tables one after another.
///
/// With several ranks, each call is made on all of them; training shares the windows of each step, and each rank gets the rows of
/// its share of the forecasts (all of them together are the table, in the order of the ranks).
///
/// ```no_run
/// # use std::sync::Arc;
/// # use deeprc_forecast::{config::configure, neural_forecast::{CrossValidation, FitOptions, NeuralForecast}};
/// # fn example(dataset: Arc<deeprc_loader::Dataset>) -> deeprc_forecast::Result<()> {
/// let options = serde_json::json!({"h": 24, "input_size": 48});
/// let models = ["nlinear", "nhits"].map(|name| configure(name, options.as_object().unwrap()).unwrap());
/// let mut nf = NeuralForecast::new(models, deeprc_comm::Communicator::solo(), tch::Device::Cpu)?;
/// nf.fit(&dataset, &FitOptions::default(), &mut ())?;
/// let next_day = nf.predict(&dataset, &[], None)?; // unique_id, ds, nlinear, nhits
/// let rolled = nf.cross_validation(&dataset, &CrossValidation { n_windows: 5, ..CrossValidation::default() }, &mut ())?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct NeuralForecast {
    entries: Vec<Entry>,
    comm: Communicator,
    device: Device,
    frequency: Option<Frequency>,
}

/// One model: what it is, and what it has become.
#[derive(Debug)]
struct Entry {
    name: String,
    model: ModelConfig,
    train: TrainConfig,
    fitted: Option<(Forecaster, State)>,
}

/// How to fit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FitOptions {
    /// Rows at the end of each series that are validated on rather than trained on; 0 with `keep_parts` false trains on all rows.
    pub val_size: usize,
    /// Leave the parts of the data set (its split column) as they are.
    pub keep_parts: bool,
    /// Directory for a checkpoint of each model, in a folder of its name.
    pub checkpoints: Option<PathBuf>,
    /// Go on from those checkpoints where there are any.
    pub resume: bool,
    /// Which weights to go on with: the best ones need `checkpoints`; without, and as NeuralForecast does, the last ones.
    pub weights: Weights,
}

#[derive(Serialize, Deserialize)]
struct Index {
    version: u32,
    models: Vec<String>,
    frequency: Option<Frequency>,
}

impl NeuralForecast {
    /// Untrained models, named after their kind: `nhits`, a second one `nhits1`.
    ///
    /// # Errors
    /// [`Error::Models`] without a model, or if their horizons differ.
    pub fn new(models: impl IntoIterator<Item = (ModelConfig, TrainConfig)>, comm: Communicator, device: Device) -> Result<Self> {
        let mut entries: Vec<Entry> = Vec::new();
        for (model, train) in models {
            let kind = model.name().as_str();
            let name = match entries.iter().filter(|entry| entry.model.name() == model.name()).count() {
                0 => kind.to_owned(),
                before => format!("{kind}{before}"),
            };
            entries.push(Entry { name, model, train, fitted: None });
        }
        let nf = Self { entries, comm, device, frequency: None };
        nf.same_horizon()?;
        Ok(nf)
    }

    fn same_horizon(&self) -> Result<()> {
        let Some(first) = self.entries.first() else {
            return Err(Error::Models { problem: "need at least one model".to_owned() });
        };
        match self.entries.iter().find(|entry| entry.model.h() != first.model.h()) {
            Some(other) => {
                let problem =
                    format!("need the same horizon: {} has {}, {} has {}", first.name, first.model.h(), other.name, other.model.h());
                Err(Error::Models { problem })
            }
            None => Ok(()),
        }
    }

    /// Names of the models, which are those of their forecast columns.
    pub fn names(&self) -> Vec<&str> {
        self.entries.iter().map(|entry| entry.name.as_str()).collect()
    }

    /// Steps that the models forecast at once.
    pub fn h(&self) -> usize {
        self.entries[0].model.h()
    }

    /// The trained models with their names; none before they are fitted.
    pub fn forecasters(&self) -> impl Iterator<Item = (&str, &Forecaster)> {
        self.entries.iter().filter_map(|entry| Some((entry.name.as_str(), &entry.fitted.as_ref()?.0)))
    }

    /// Trains every model anew on all rows but the last `val_size` of each series.
    ///
    /// # Errors
    /// Those of [`Trainer::new`], [`Trainer::resume`] and [`Trainer::fit`].
    pub fn fit(&mut self, dataset: &Arc<Dataset>, options: &FitOptions, observer: &mut dyn Observer) -> Result<Vec<TrainResult>> {
        let parts = if options.keep_parts { Arc::clone(dataset) } else { Arc::new(dataset.resplit(options.val_size, 0)?) };
        self.frequency = Some(dataset.frequency());
        let (comm, device) = (self.comm.clone(), self.device);
        let mut results = Vec::with_capacity(self.entries.len());
        for entry in &mut self.entries {
            let mut trainer = Trainer::new(Arc::clone(&parts), &entry.model, &entry.train, comm.clone(), device)?;
            let checkpoint = options.checkpoints.as_ref().map(|dir| Checkpoint::at(dir.join(&entry.name)));
            match &checkpoint {
                Some(checkpoint) if options.resume && checkpoint.exists() => trainer.resume(checkpoint)?,
                Some(checkpoint) if comm.rank() == 0 => checkpoint.clear()?,
                _ => {}
            }
            results.push(trainer.fit(checkpoint.as_ref(), observer)?);
            if let Some(checkpoint) = checkpoint.filter(|_| options.weights == Weights::Best) {
                // Rank 0 has written them when all have come here.
                comm.barrier()?;
                checkpoint.load(Weights::Best, trainer.forecaster().model().parameters())?;
            }
            entry.fitted = Some(trainer.into_parts());
        }
        Ok(results)
    }

    /// Forecasts the `h` steps (`None`: the trained horizon) after the last row of each series: `unique_id`, `ds`, and for each
    /// model the columns of its forecasts, named after it (with several targets `<target>_<model>`; intervals add `-lo-80`, ...).
    ///
    /// `future` is a table of the rows to come with every column known ahead (`futr`). Beyond the trained horizon forecasts are
    /// taken for observations and the models go on from there.
    ///
    /// # Errors
    /// [`Error::Models`] before the models are fitted; [`deeprc_loader::Error::Future`] with the series, column and stamp that
    /// `future` lacks; [`deeprc_loader::Error::TooShort`] for a series without the input rows; [`Error::Columns`] for more than
    /// the trained horizon with columns that are unknown after it.
    pub fn predict(&self, dataset: &Dataset, future: &[RecordBatch], h: Option<usize>) -> Result<RecordBatch> {
        self.same_frequency(dataset)?;
        ahead::predict(&self.fitted()?, dataset, future, h.unwrap_or(self.h()).max(1), &self.comm)
    }

    /// Forecasts windows that the models have been trained on, `step` rows apart: all whole windows of every series. Columns as of
    /// [`cross_validation`](Self::cross_validation).
    ///
    /// # Errors
    /// [`Error::Models`] before the models are fitted, and those of making windows.
    pub fn predict_insample(&self, dataset: &Dataset, step: usize) -> Result<RecordBatch> {
        self.same_frequency(dataset)?;
        output::rolled(&self.fitted()?, dataset, Part::All, step, &self.comm)
    }

    /// Forecasts windows at the end of the table as if what comes after their cutoff were unknown: `unique_id`, `ds`, `cutoff` (the
    /// last stamp known), the true values, and the forecast columns of [`predict`](Self::predict). The models are fitted for it.
    ///
    /// # Errors
    /// [`Error::Models`] for sizes that do not divide, and those of [`fit`](Self::fit).
    pub fn cross_validation(
        &mut self,
        dataset: &Arc<Dataset>,
        options: &CrossValidation,
        observer: &mut dyn Observer,
    ) -> Result<RecordBatch> {
        cross_validation::run(self, dataset, options, observer)
    }

    /// Writes every model as a checkpoint to a folder of `dir`, and `models.json`. Only rank 0 writes.
    ///
    /// # Errors
    /// [`Error::Models`] before the models are fitted; [`Error::Io`].
    pub fn save(&self, dir: &Path) -> Result<()> {
        let fitted = self.fitted()?;
        if self.comm.rank() > 0 {
            return Ok(());
        }
        for (entry, (_, forecaster)) in self.entries.iter().zip(fitted) {
            if let Some((_, state)) = &entry.fitted {
                let checkpoint = Checkpoint::at(dir.join(&entry.name));
                checkpoint.clear()?;
                checkpoint.save_best(forecaster.model().parameters(), state)?;
            }
        }
        let index = Index { version: 1, models: self.names().into_iter().map(str::to_owned).collect(), frequency: self.frequency };
        let path = dir.join(INDEX);
        let text = serde_json::to_vec_pretty(&index).expect("plain data always becomes JSON");
        std::fs::write(&path, text).map_err(|source| Error::Io { action: "write", path, source })
    }

    /// What [`save`](Self::save) wrote, for forecasts from data with the same columns as `dataset`.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Checkpoint`] if a file is broken, of another version or for other columns; [`Error::Models`] if the
    /// stamps of `dataset` have another step.
    pub fn load(dir: &Path, dataset: &Dataset, comm: Communicator, device: Device) -> Result<Self> {
        let path = dir.join(INDEX);
        let text = std::fs::read(&path).map_err(|source| Error::Io { action: "read", path: path.clone(), source })?;
        let broken = |problem: String| Error::Checkpoint { path: path.clone(), problem };
        let index: Index = serde_json::from_slice(&text).map_err(|e| broken(e.to_string()))?;
        if index.version != 1 {
            return Err(broken(format!("has version {}, this program reads version 1", index.version)));
        }
        let entry = |name: &String| {
            let checkpoint = Checkpoint::at(dir.join(name));
            let state = checkpoint.state(Weights::Best)?;
            let forecaster = Forecaster::load(&checkpoint, Weights::Best, dataset, device)?;
            let (model, train) = (state.model.clone(), state.train.clone());
            Ok(Entry { name: name.clone(), model, train, fitted: Some((forecaster, state)) })
        };
        let entries = index.models.iter().map(entry).collect::<Result<Vec<_>>>()?;
        let nf = Self { entries, comm, device, frequency: index.frequency };
        nf.same_horizon()?;
        nf.same_frequency(dataset)?;
        Ok(nf)
    }

    fn fitted(&self) -> Result<Vec<(&str, &Forecaster)>> {
        let fitted: Vec<_> = self.forecasters().collect();
        match fitted.len() == self.entries.len() {
            true => Ok(fitted),
            false => Err(Error::Models { problem: "have to be fitted before they forecast".to_owned() }),
        }
    }

    fn same_frequency(&self, dataset: &Dataset) -> Result<()> {
        match self.frequency {
            Some(trained) if trained != dataset.frequency() => {
                let problem = format!("were trained on steps of {trained}, the table has steps of {}", dataset.frequency());
                Err(Error::Models { problem })
            }
            _ => Ok(()),
        }
    }
}
