//! Training, prediction and rolling cross-validation as NeuralForecast does them, from its own runs.

use std::collections::HashMap;
use std::sync::Arc;

use crate::fixture::{Case, close, tensors, test_each_model, variants};
use crate::table::{self, Rows};
use deeprc_comm::Communicator;
use deeprc_forecast::checkpoint::load_weights;
use deeprc_forecast::trainer::Trainer;
use deeprc_loader::{Dataset, Part};
use tch::{Device, Tensor};

struct Series {
    case: Case,
    data: HashMap<String, Tensor>,
    lengths: Vec<usize>,
}

impl Series {
    fn load(model: &str, variant: &str) -> Self {
        let case = Case::load(model, variant);
        let data = tensors(&case.file("data.safetensors"));
        let lengths = table::values(&data["train_len"]).into_iter().map(|n| n as usize).collect();
        Self { case, data, lengths }
    }

    /// The series as a table; `ahead` appends the rows to forecast, whose target is unknown. `split` gives the part of a row from
    /// its number and the number of rows.
    fn dataset(&self, ahead: bool, split: impl Fn(usize, usize) -> i8) -> Arc<Dataset> {
        let h = self.case.model.h();
        let column = |name: &str| table::values(&self.data[name]);
        let (futr, hist, stat) = (self.case.exogenous("futr"), self.case.exogenous("hist"), self.case.exogenous("stat"));
        let mut rows = Rows::new(&["y"], &hist, &futr, &stat);
        let mut start = 0;
        for (number, &length) in self.lengths.iter().enumerate() {
            let total = length + if ahead { h } else { 0 };
            let known = |name: &str, row: usize| (row < length).then(|| column(&format!("train_{name}"))[start + row]);
            for row in 0..total {
                let mut values = vec![known("y", row)];
                values.extend(hist.iter().map(|name| known(name, row)));
                let next = |name: &String| column(&format!("futr_{name}"))[number * h + row - length];
                values.extend(futr.iter().map(|name| Some(known(name, row).unwrap_or_else(|| next(name)))));
                values.extend(stat.iter().map(|name| Some(column(&format!("stat_{name}"))[number])));
                rows.push(&format!("u{number}"), row, &values, split(row, length));
            }
            start += length;
        }
        rows.dataset()
    }

    /// Trains on `dataset` from the stored weights.
    fn fit(&self, dataset: &Arc<Dataset>) -> (Trainer, Vec<f64>) {
        let comm = Communicator::solo();
        let mut trainer = Trainer::new(Arc::clone(dataset), &self.case.model, &self.case.train, comm, Device::Cpu).unwrap();
        load_weights(&self.case.file("init.safetensors"), trainer.forecaster().model().parameters()).unwrap();
        let result = trainer.fit(None, &mut ()).unwrap();
        (trainer, result.train_loss.into_iter().map(|(_, loss)| loss).collect())
    }

    fn check_fit(&self) {
        let (h, name) = (self.case.model.h(), &self.case.name);
        let dataset = self.dataset(true, |row, length| if row < length { 0 } else { 2 });
        let (trainer, losses) = self.fit(&dataset);
        let expect: Vec<(u64, f64)> = serde_json::from_value(self.case.config["train_losses"].clone()).unwrap();
        assert_eq!(losses.len(), expect.len());
        for (ours, (step, theirs)) in losses.iter().zip(&expect) {
            assert!((ours - theirs).abs() <= 1e-4 * theirs, "{name} loss of step {step}: {ours}, expected {theirs}");
        }
        self.check_weights(&trainer);
        let forecaster = trainer.forecaster();
        let windows = forecaster.windows(&dataset, Part::Test, 1).unwrap();
        assert_eq!(windows.len(), self.lengths.len(), "{name}: one window of {h} rows per series");
        let forecasts = forecaster.predict(&dataset, Part::Test, &windows, |_| {});
        self.check_forecasts("predictions", &forecasts);
    }

    /// Point forecasts exactly; the quantiles of a distribution, which are drawn here and there, on average.
    fn check_forecasts(&self, what: &str, forecasts: &[f32]) {
        let (name, expect) = (&self.case.name, &self.data[what]);
        let ours = Tensor::from_slice(forecasts).view_as(expect);
        if self.case.config["stochastic_predictions"] != true {
            return close(&format!("{name} {what}"), &ours, expect, 1e-3);
        }
        close(&format!("{name} {what}: mean"), &ours.select(1, 0), &expect.select(1, 0), 1e-3);
        // Columns: mean, median, 5 %, 10 %, 90 %, 95 %. With 100 draws each has an error of 0.06 of the 90 % interval at most,
        // their mean over the rows (18 or 54) one of 0.02.
        let width = expect.select(1, 5) - expect.select(1, 2);
        let off = (ours - expect) / width.unsqueeze(1);
        let (mean, largest) = (off.mean_dim([0i64].as_slice(), false, None), off.abs().max().double_value(&[]));
        assert!(mean.abs().max().double_value(&[]) < 0.08 && largest < 0.45, "{name} {what}: {mean:?}, at most {largest}");
    }

    /// Adam turns the rounding noise of a gradient that is zero in truth into whole steps, so only models without such gradients
    /// end with the same weights.
    fn check_weights(&self, trainer: &Trainer) {
        if !["NLinear", "NBEATS", "NHITS", "GRU", "DeepAR"].iter().any(|model| self.case.config["model"] == **model) {
            return;
        }
        let last = tensors(&self.case.file("final.safetensors"));
        let parameters = trainer.forecaster().model().parameters();
        for (weight, ours) in parameters.names().iter().zip(parameters.tensors()) {
            close(&format!("{} {weight}", self.case.name), ours, &last[weight], 1e-3);
        }
    }

    fn check_cross_validation(&self) {
        let (h, name) = (self.case.model.h(), &self.case.name);
        let test = h + 2 * 2;
        let part = |row: usize, length: usize| i8::from(row >= length - test - h) + i8::from(row >= length - test);
        let dataset = self.dataset(false, part);
        let (trainer, _) = self.fit(&dataset);
        let forecaster = trainer.forecaster();
        let windows = forecaster.windows(&dataset, Part::Test, 2).unwrap();
        assert_eq!(windows.len(), 3 * self.lengths.len(), "{name}");
        let forecasts = forecaster.predict(&dataset, Part::Test, &windows, |_| {});
        self.check_forecasts("cv", &forecasts);

        let batch = forecaster.table(&dataset, Part::Test, &windows, &forecasts).unwrap();
        let columns = self.case.config["cv_columns"].as_array().unwrap().iter().map(|c| c.as_str().unwrap());
        let model = self.case.config["model"].as_str().unwrap();
        let forecasts = columns.map(|column| column.replacen(model, "y_hat", 1));
        let expect: Vec<String> = ["unique_id", "ds", "cutoff", "y"].map(String::from).into_iter().chain(forecasts).collect();
        assert_eq!(table::names(&batch), expect);
        assert_eq!(table::floats(&batch, "y"), table::values(&self.data["cv_y"]), "{name}");
        for column in ["ds", "cutoff"] {
            let expect: Vec<i64> = table::values(&self.data[&format!("cv_{column}")]).into_iter().map(|n| n as i64).collect();
            assert_eq!(table::hours(&batch, column), expect, "{name} {column}");
        }
    }
}

fn check_model(model: &str) {
    for variant in variants(model, true) {
        let series = Series::load(model, &variant);
        series.check_fit();
        series.check_cross_validation();
    }
}

test_each_model! { check_model:
    nlinear_trains_and_forecasts_as_neuralforecast "NLinear",
    nhits_trains_and_forecasts_as_neuralforecast "NHITS",
    gru_trains_and_forecasts_as_neuralforecast "GRU",
    deepar_trains_and_forecasts_as_neuralforecast "DeepAR",
    patchtst_trains_and_forecasts_as_neuralforecast "PatchTST",
    vanillatransformer_trains_and_forecasts_as_neuralforecast "VanillaTransformer",
    autoformer_trains_and_forecasts_as_neuralforecast "Autoformer",
    nbeats_trains_and_forecasts_as_neuralforecast "NBEATS",
    tide_trains_and_forecasts_as_neuralforecast "TiDE",
    tft_trains_and_forecasts_as_neuralforecast "TFT",
    timesnet_trains_and_forecasts_as_neuralforecast "TimesNet",
}
