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
        close(&format!("{name} predictions"), &Tensor::from_slice(&forecasts), &self.data["predictions"], 1e-3);
    }

    /// Adam turns the rounding noise of a gradient that is zero in truth into whole steps, so only models without such gradients
    /// end with the same weights.
    fn check_weights(&self, trainer: &Trainer) {
        if !["NLinear", "NBEATS", "NHITS", "GRU"].iter().any(|model| self.case.config["model"] == **model) {
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
        close(&format!("{name} cross-validation"), &Tensor::from_slice(&forecasts), &self.data["cv"], 1e-3);

        let batch = forecaster.table(&dataset, Part::Test, &windows, &forecasts).unwrap();
        assert_eq!(table::names(&batch), ["unique_id", "ds", "cutoff", "y", "y_hat"]);
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
}
