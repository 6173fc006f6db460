//! A model in use: forecasts of windows in the scale of the data, and the table made of them.

use std::sync::Arc;

use deeprc_loader::{Columns, Dataset, Part, Window};
use deeprc_table::arrow::array::{Array as _, ArrayRef, Float32Array, RecordBatch, StringArray, TimestampNanosecondArray};
use deeprc_table::arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use crate::blocks::{gather, slice};
use crate::checkpoint::Checkpoint;
use crate::config::{LossName, ModelConfig, ModelName, Precision, ScalerType, TrainConfig};
use crate::conformal::Conformal;
use crate::local_scaler::{LocalScaler, Map};
use crate::loss::{Feedback, Loss};
use crate::model::{Inputs, Model, Widths, build_with};
use crate::native::with_bf16;
use crate::preparation::{Preparation, Prepared};
use crate::scaler::Affine;
use crate::task::{Intervals, Weights};
use crate::{Error, Parameters, Resident, Result, window_list};

/// A network with all that turns windows of a data set into forecasts.
#[derive(Debug)]
pub struct Forecaster {
    pub(crate) model: Box<dyn Model>,
    pub(crate) preparation: Preparation,
    widths: Widths,
    loss: Loss,
    /// Maps of whole series, of those that it was made for.
    local: Option<LocalScaler>,
    conformal: Option<Conformal>,
    train: TrainConfig,
    name: ModelName,
    device: Device,
}

impl Forecaster {
    /// A model with random parameters for the columns of `dataset`.
    ///
    /// # Errors
    /// [`Error::Columns`] if the model cannot use them.
    pub fn new(dataset: &Dataset, model: &ModelConfig, train: &TrainConfig, device: Device) -> Result<Self> {
        let loss = Loss::training(train).with_samples(model.samples().unwrap_or(train.num_samples));
        let columns = dataset.columns();
        let widths = Widths {
            targets: columns.targets.len(),
            hist: columns.hist.len(),
            futr: columns.futr.len(),
            stat: columns.stat.len(),
            outputs: loss.outputs(),
        };
        let name = model.name();
        let mut parameters = Parameters::new(ChaCha8Rng::seed_from_u64(train.seed), device);
        let affine = (train.scaler_type == ScalerType::Revin).then(|| {
            let channels = (widths.targets + widths.hist + widths.futr) as i64;
            match train.loss {
                LossName::DistributionLoss => Some(Affine::new(&mut parameters, channels)),
                _ => {
                    parameters.computed("scaler.revin_bias");
                    parameters.computed("scaler.revin_weight");
                    None
                }
            }
        });
        let local = LocalScaler::fit(train.local_scaler_type, dataset);
        let scaled = local.as_ref().map(|scaler| scaler.transform(dataset));
        let model = build_with(model, widths, parameters)?;
        let preparation = Preparation::new(scaled.as_ref().unwrap_or(dataset), model.frame(), widths, train).learned(affine.flatten());
        Ok(Self { model, preparation, widths, loss, local, conformal: None, train: train.clone(), name, device })
    }

    /// The model of a checkpoint, for data with the same columns.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if there is none or it was trained on other columns.
    pub fn load(checkpoint: &Checkpoint, weights: Weights, dataset: &Dataset, device: Device) -> Result<Self> {
        let state = checkpoint.state(weights)?;
        checkpoint.same_columns(&state, dataset.columns())?;
        let forecaster = Self::new(dataset, &state.model, &state.train, device)?;
        checkpoint.load(weights, forecaster.model.parameters())?;
        Ok(forecaster)
    }

    /// With prediction intervals around the forecasts of `part` (none: of what comes after the table), from the errors of this model in
    /// other rows of `dataset`.
    ///
    /// # Errors
    /// [`Error::Intervals`] if the loss forecasts intervals of its own, if the rows to calibrate with are those to forecast, or if they
    /// are too few.
    pub fn calibrated(mut self, dataset: &Dataset, intervals: &Intervals, part: Option<Part>) -> Result<Self> {
        let refuse = |problem: &str| Err(Error::Intervals { problem: problem.to_owned() });
        if self.loss.suffixes().len() > 1 {
            return refuse("the loss forecasts quantiles already; its `level` says which");
        }
        if intervals.level.is_empty() || !intervals.level.iter().all(|level| *level > 0.0 && *level < 100.0) {
            return refuse("`level` must be percentages between 0 and 100");
        }
        if intervals.n_windows < 2 || intervals.step_size == 0 {
            return refuse("`n_windows` must be at least 2 and `step_size` at least 1");
        }
        if part == Some(intervals.part) || intervals.part == Part::All || part == Some(Part::All) {
            return refuse("the rows to calibrate with must not be among those to forecast");
        }
        let windows = Conformal::windows(intervals, &self.windows(dataset, intervals.part, 1)?, dataset)?;
        let forecasts = self.predict(dataset, intervals.part, &windows, |_| {});
        let frame = self.model.frame();
        let (h, targets) = (frame.horizon, self.widths.targets);
        let ahead = (frame.horizon_offset() as i64, h);
        let columns: Vec<Float32Array> = (0..targets).map(|target| actual(dataset, intervals.part, &windows, ahead, target)).collect();
        let value = |cell: usize| {
            let (column, row) = (&columns[cell % targets], cell / targets);
            if column.is_valid(row) { column.value(row) } else { f32::NAN }
        };
        let happened: Vec<f32> = (0..forecasts.len()).map(value).collect();
        self.conformal = Some(Conformal::new(intervals, dataset, &windows, &forecasts, &happened, h * targets));
        Ok(self)
    }

    /// The loss it is trained with.
    pub fn loss(&self) -> &Loss {
        &self.loss
    }

    /// The network.
    pub fn model(&self) -> &dyn Model {
        &*self.model
    }

    /// Which model it is.
    pub fn name(&self) -> ModelName {
        self.name
    }

    /// How it was trained.
    pub fn train_config(&self) -> &TrainConfig {
        &self.train
    }

    /// Forecast columns of each target; the first one is the point forecast.
    pub fn columns_per_target(&self) -> usize {
        self.suffixes().len()
    }

    /// The rows of `dataset` as windows are cut from them; none if that is `dataset` itself.
    pub(crate) fn scaled(&self, dataset: &Dataset) -> Option<Dataset> {
        self.local.as_ref().map(|scaler| scaler.transform(dataset))
    }

    /// Every window of `part`, `step` rows apart.
    ///
    /// # Errors
    /// As [`Dataset::windows`].
    pub fn windows(&self, dataset: &Dataset, part: Part, step: usize) -> Result<Vec<Window>> {
        window_list::forecast(dataset, self.model.frame(), &self.train, part, step)
    }

    /// Forecasts in the scale of the data, `[windows, horizon, targets, columns]` end to end; `done` hears how many windows
    /// are done after each batch.
    pub fn predict(&self, dataset: &Dataset, part: Part, windows: &[Window], mut done: impl FnMut(usize)) -> Vec<f32> {
        let per_window = self.model.frame().horizon * self.widths.targets * self.suffixes().len();
        let (original, scaled) = (dataset, self.scaled(dataset));
        let local = self.local.as_ref().map(|scaler| scaler.of(original));
        let dataset = scaled.as_ref().unwrap_or(dataset);
        let mut out = Vec::with_capacity(windows.len() * per_window);
        let resident = self.resident(dataset);
        for batch in windows.chunks(self.train.inference_windows_batch_size) {
            let (prepared, output) = self.outputs((dataset, resident.as_ref()), part, batch);
            let targets = self.widths.targets as i64;
            let forecast = self.loss.columns(prepared.scale.as_ref(), &output, targets, &self.seeds(batch));
            let forecast = forecast.to_device(Device::Cpu).contiguous();
            self.finish(original, local.as_deref(), slice(&forecast), batch, &mut out);
            done(out.len() / per_window);
        }
        out
    }

    /// From the columns of the loss to those of the table: in the scale of the data, with conformal bounds.
    fn finish(&self, dataset: &Dataset, local: Option<&[Vec<Map>]>, columns: &[f32], windows: &[Window], out: &mut Vec<f32>) {
        if local.is_none() && self.conformal.is_none() {
            return out.extend_from_slice(columns);
        }
        let (of_loss, targets) = (self.loss.suffixes().len(), self.widths.targets);
        let cells = self.model.frame().horizon * targets;
        for (window, columns) in windows.iter().zip(columns.chunks(cells * of_loss)) {
            for (cell, columns) in columns.chunks(of_loss).enumerate() {
                let first = out.len();
                let map = local.map(|maps| maps[window.series as usize][cell % targets]);
                out.extend(columns.iter().map(|z| map.map_or(*z, |map| map.back(f64::from(*z)) as f32)));
                if let Some(conformal) = &self.conformal {
                    out.extend(conformal.bounds(&dataset.series()[window.series as usize].id, cell, out[first]));
                }
            }
        }
    }

    /// What to append to the name of each forecast column of a target.
    fn suffixes(&self) -> Vec<String> {
        let bounds = self.conformal.iter().flat_map(Conformal::suffixes);
        self.loss.suffixes().into_iter().chain(bounds).collect()
    }

    /// One batch: what was prepared, and what the network makes of it, `[batch, horizon, targets * outputs]` in its own scale.
    pub(crate) fn outputs(&self, data: (&Dataset, Option<&Resident>), part: Part, windows: &[Window]) -> (Prepared, Tensor) {
        let _no_grad = tch::no_grad_guard();
        let frame = self.model.frame();
        let prepared = self.prepare(data, part, windows, frame.horizon);
        let feedback = Feedback::new(&self.loss, prepared.scale.as_ref());
        let output = self.in_precision(|| self.model.forecast(&prepared.inputs, &feedback));
        (prepared, output)
    }

    /// Starts of the random numbers of each window.
    pub(crate) fn seeds(&self, windows: &[Window]) -> Vec<u64> {
        let seed = |w: &Window| (u64::from(w.series) << 32 | u64::from(w.offset as u32)) ^ self.train.seed.rotate_left(17);
        windows.iter().map(seed).collect()
    }

    /// The data set on the device of the model, if that is not the host, whose memory is as good for the CPU.
    pub(crate) fn resident(&self, dataset: &Dataset) -> Option<Resident> {
        (self.device != Device::Cpu).then(|| Resident::new(dataset, self.device))
    }

    /// Windows as the network reads them, with `horizon` rows ahead.
    pub(crate) fn prepare(&self, data: (&Dataset, Option<&Resident>), part: Part, windows: &[Window], horizon: usize) -> Prepared {
        let rows = self.model.frame().span(horizon);
        let raw = match data {
            (dataset, Some(resident)) => resident.gather(dataset, part, windows, rows),
            (dataset, None) => gather(dataset, part, windows, rows, self.device),
        };
        self.preparation.prepare(raw, horizon)
    }

    /// The network on prepared windows, in the arithmetic that was chosen; f32 comes out.
    pub(crate) fn forward(&self, inputs: &Inputs, train: bool) -> Tensor {
        self.in_precision(|| self.model.forward(inputs, train))
    }

    fn in_precision(&self, network: impl FnOnce() -> Tensor) -> Tensor {
        match self.train.precision {
            Precision::Full | Precision::Tf32 => network(),
            Precision::Bf16 => with_bf16(self.device, network).expect("libtorch 2.11 knows autocast").to_kind(Kind::Float),
        }
    }

    /// Names of the forecast columns: `y_hat` (several targets: `<target>_hat`), with the suffixes of the loss and of
    /// conformal intervals.
    pub fn columns(&self, columns: &Columns) -> Vec<String> {
        let suffixes = self.suffixes();
        let of = |target: String| suffixes.iter().map(move |suffix| format!("{target}_hat{suffix}")).collect::<Vec<_>>();
        target_names(columns).into_iter().flat_map(of).collect()
    }

    /// Metadata of the table of forecasts: that of the table they were made from, and which columns are what.
    pub fn describe(&self, mut metadata: Value, columns: &Columns, part: Part) -> Value {
        let forecast = json!({
            "targets": columns.targets,
            "columns": self.columns(columns),
            "horizon": self.model.frame().horizon,
            "part": part.to_string(),
        });
        if !metadata.is_object() {
            metadata = json!({});
        }
        metadata["forecast"] = forecast;
        metadata
    }

    /// One row per window and step of the horizon: series, time, cutoff, then each target with its forecasts.
    ///
    /// # Errors
    /// [`Error::Columns`] if two columns of the table would have the same name.
    pub fn table(&self, dataset: &Dataset, part: Part, windows: &[Window], forecasts: &[f32]) -> Result<RecordBatch> {
        self.rows(dataset, part, windows, forecasts, self.model.frame().horizon)
    }

    /// As [`table`](Self::table), with `h` rows per window.
    pub(crate) fn rows(&self, dataset: &Dataset, part: Part, windows: &[Window], forecasts: &[f32], h: usize) -> Result<RecordBatch> {
        let offset = self.model.frame().horizon_offset() as i64;
        let rows = windows.len() * h;
        let mut ids = Vec::with_capacity(rows);
        let mut times = Vec::with_capacity(rows);
        let mut cutoffs = Vec::with_capacity(rows);
        for window in windows {
            let id = dataset.series()[window.series as usize].id.as_str();
            let stamps = dataset.stamps(window.series, i64::from(window.offset) + offset - 1, h + 1);
            ids.extend(std::iter::repeat_n(id, h));
            cutoffs.extend(std::iter::repeat_n(stamps[0], h));
            times.extend_from_slice(&stamps[1..]);
        }
        let columns = dataset.columns();
        let stamp = |values: Vec<i64>| Arc::new(TimestampNanosecondArray::from(values)) as ArrayRef;
        let id_name = columns.series.clone().unwrap_or_else(|| "unique_id".to_owned());
        let mut table: Vec<(String, ArrayRef)> = vec![
            (id_name, Arc::new(StringArray::from(ids)) as ArrayRef),
            (columns.time.clone(), stamp(times)),
            ("cutoff".to_owned(), stamp(cutoffs)),
        ];
        let mut names = self.columns(columns).into_iter();
        let (targets, outputs) = (self.widths.targets, self.suffixes().len());
        for (target, name) in target_names(columns).into_iter().enumerate() {
            table.push((name, Arc::new(actual(dataset, part, windows, (offset, h), target)) as ArrayRef));
            for (output, name) in (0..outputs).zip(names.by_ref()) {
                let values = forecasts.iter().skip(target * outputs + output).step_by(targets * outputs);
                table.push((name, Arc::new(Float32Array::from_iter_values(values.copied())) as ArrayRef));
            }
        }
        self.assemble(table)
    }

    fn assemble(&self, table: Vec<(String, ArrayRef)>) -> Result<RecordBatch> {
        let field = |(name, values): &(String, ArrayRef)| {
            let nullable = *values.data_type() == DataType::Float32;
            Field::new(name, values.data_type().clone(), nullable)
        };
        let schema = Schema::new(table.iter().map(field).collect::<Vec<_>>());
        debug_assert_eq!(schema.field(2).data_type(), &DataType::Timestamp(TimeUnit::Nanosecond, None));
        let mut names: Vec<&str> = table.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            let problem = format!("would write two columns named `{}`; rename the one in the table", twice[0]);
            return Err(Error::Forecasts { problem });
        }
        let values = table.into_iter().map(|(_, values)| values).collect();
        RecordBatch::try_new(Arc::new(schema), values).map_err(|e| Error::Forecasts { problem: e.to_string() })
    }
}

/// A single target is called `y`, as everywhere in this field; several keep their names.
pub(crate) fn target_names(columns: &Columns) -> Vec<String> {
    match columns.targets.as_slice() {
        [_] => vec!["y".to_owned()],
        several => several.to_vec(),
    }
}

/// What really happened, null where it is unknown.
fn actual(dataset: &Dataset, part: Part, windows: &[Window], ahead: (i64, usize), target: usize) -> Float32Array {
    let channels = dataset.channels().len();
    let (offset, h) = ahead;
    let value = |window: &Window, step: usize| {
        let series = &dataset.series()[window.series as usize];
        let row = usize::try_from(i64::from(window.offset) + offset).ok()? + step;
        let end = if part == Part::Train { series.train } else { series.len };
        let cell = (series.start + row) * channels + target;
        (row < end && dataset.mask()[cell] > 0.0).then(|| dataset.values()[cell])
    };
    windows.iter().flat_map(|window| (0..h).map(move |step| value(window, step))).collect()
}
