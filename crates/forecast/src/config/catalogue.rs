//! The reference of models and options, generated from their declarations.

use serde::Serialize;
use serde_json::Value;

use super::options::Declared;
use super::{ModelConfig, ModelName, TrainConfig};

/// A model with all its options.
#[derive(Clone, Debug, Serialize)]
pub struct ModelEntry {
    /// Name in pipeline files.
    pub name: &'static str,
    /// What it is, in one sentence.
    pub summary: &'static str,
    /// Kinds of exogenous columns that it can use, of `hist`, `futr`, `stat`.
    pub exogenous: &'static [&'static str],
    /// True if it forecasts several targets at once.
    pub multivariate: bool,
    /// Options of the model, then options of training.
    pub options: Vec<OptionEntry>,
}

/// One option with the default that it has for its model.
#[derive(Clone, Debug, Serialize)]
pub struct OptionEntry {
    /// Key in pipeline files.
    pub name: &'static str,
    /// `model` or `training`.
    pub group: &'static str,
    /// Type in the user's words.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Default value.
    pub default: Value,
    /// What it does.
    pub doc: String,
}

/// Every model with every option, for `deeprc models`.
pub fn catalogue() -> Vec<ModelEntry> {
    ModelName::ALL.iter().map(|name| entry(*name)).collect()
}

fn entry(name: ModelName) -> ModelEntry {
    let config = ModelConfig::of(name);
    let training = config.train_defaults().declared().into_iter().filter(|d| TrainConfig::applies(name, d.name));
    let model = config.declared().into_iter().map(|d| option(d, "model"));
    ModelEntry {
        name: name.as_str(),
        summary: name.summary(),
        exogenous: config.exogenous(),
        multivariate: config.multivariate(),
        options: model.chain(training.map(|d| option(d, "training"))).collect(),
    }
}

fn option(d: Declared, group: &'static str) -> OptionEntry {
    OptionEntry { name: d.name, group, kind: d.kind, default: d.default, doc: d.doc }
}
