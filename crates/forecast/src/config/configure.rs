//! From the keys of a pipeline file to a checked configuration, with all errors at once.

use std::fmt;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{Distribution, LocalScalerType, LossName, ModelConfig, ModelName, OptionEntry, TrainConfig, catalogue};

/// A key or value that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionError {
    /// The key at fault; `model` for an unknown model.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to do instead.
    pub hint: Option<String>,
}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.hint.iter().try_for_each(|hint| write!(f, " (hint: {hint})"))
    }
}

impl std::error::Error for OptionError {}

impl OptionError {
    fn new(key: &str, message: String, hint: Option<String>) -> Self {
        Self { key: key.to_owned(), message, hint }
    }
}

/// Words that other programs use for our options.
const SYNONYMS: [(&str, &str); 15] = [
    ("horizon", "h"),
    ("lookback", "input_size"),
    ("seq_len", "input_size"),
    ("seq_length", "input_size"),
    ("lr", "learning_rate"),
    ("steps", "max_steps"),
    ("max_epochs", "epochs"),
    ("patience", "early_stop_patience_steps"),
    ("random_seed", "seed"),
    ("scaler", "scaler_type"),
    ("clip", "gradient_clip_val"),
    ("lr_scheduler", "scheduler"),
    ("early_stop_metric", "monitor"),
    ("batch_size", "windows_batch_size"),
    ("windows_batch_size", "batch_size"),
];

/// Reads `options` of `model`: hyper-parameters and training options in one table, everything absent at its default.
///
/// # Errors
/// All problems at once: an unknown model, unknown keys with near names, values of the wrong type or out of range.
pub fn configure(model: &str, options: &Map<String, Value>) -> Result<(ModelConfig, TrainConfig), Vec<OptionError>> {
    let Some(name) = ModelName::ALL.iter().copied().find(|n| n.as_str() == model) else {
        let names: Vec<&str> = ModelName::ALL.iter().map(|n| n.as_str()).collect();
        let hint = match near(model, &names) {
            Some(close) => format!("did you mean \"{close}\"?"),
            None => format!("models are {}", names.join(", ")),
        };
        return Err(vec![OptionError::new("model", format!("unknown model \"{model}\""), Some(hint))]);
    };
    let entry = catalogue().swap_remove(name as usize);
    let mut model_keys = json(&ModelConfig::of(name));
    let mut train_keys = json(&TrainConfig::of(name));
    let mut errors = Vec::new();
    let options = &with_distribution(options);
    for (key, value) in options {
        let Some(option) = entry.options.iter().find(|o| o.name == key) else {
            errors.push(unknown(key, name, &entry.options));
            continue;
        };
        let keys = if option.group == "model" { &mut model_keys } else { &mut train_keys };
        let old = keys.insert(key.clone(), value.clone());
        let reason = if option.group == "model" { read::<ModelConfig>(keys).err() } else { read::<TrainConfig>(keys).err() };
        if let Some(reason) = reason {
            let hint = format!("`{key}` is {} {}, for example {}", article(option.kind), option.kind, option.default);
            errors.push(OptionError::new(key, format!("`{key}`: {reason}"), Some(hint)));
            old.and_then(|old| keys.insert(key.clone(), old));
        }
    }
    let (mut model, train) = match (read::<ModelConfig>(&model_keys), read::<TrainConfig>(&train_keys)) {
        (Ok(model), Ok(train)) => (model, train),
        (model, train) => {
            unreachable!("defaults and checked values read back: {model:?} {train:?}")
        }
    };
    model.hyperparameters_mut().follow(&|key| options.contains_key(key));
    errors.extend(ranges(&model, &train));
    if errors.is_empty() { Ok((model, train)) } else { Err(errors) }
}

/// A loss may be given as the name of a distribution: `loss = "studentt"`.
fn with_distribution(options: &Map<String, Value>) -> Map<String, Value> {
    let mut options = options.clone();
    let named = |name: &str| Distribution::ALL.into_iter().find(|d| d.as_str().eq_ignore_ascii_case(name));
    if let Some(distribution) = options.get("loss").and_then(Value::as_str).and_then(named) {
        options.insert("loss".to_owned(), "distributionloss".into());
        options.insert("distribution".to_owned(), distribution.as_str().into());
    }
    options
}

/// `model` and `train` with other values for some options, as a search draws them.
///
/// # Errors
/// As [`configure`].
pub fn vary(
    model: &ModelConfig,
    train: &TrainConfig,
    options: &Map<String, Value>,
) -> Result<(ModelConfig, TrainConfig), Vec<OptionError>> {
    let name = model.name();
    let known = catalogue().swap_remove(name as usize).options;
    let mut all = json(model);
    all.extend(json(train));
    all.retain(|key, _| known.iter().any(|option| option.name == key));
    all.extend(options.clone());
    configure(name.as_str(), &all)
}

fn json<T: serde::Serialize>(config: &T) -> Map<String, Value> {
    match serde_json::to_value(config) {
        Ok(Value::Object(map)) => map,
        other => unreachable!("a configuration is a JSON object: {other:?}"),
    }
}

fn read<T: DeserializeOwned>(keys: &Map<String, Value>) -> Result<T, String> {
    serde_json::from_value(Value::Object(keys.clone())).map_err(|e| e.to_string())
}

fn article(kind: &str) -> &'static str {
    if kind.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" }
}

fn unknown(key: &str, model: ModelName, options: &[OptionEntry]) -> OptionError {
    let names: Vec<&str> = options.iter().map(|o| o.name).collect();
    let synonym = SYNONYMS.iter().find(|(word, ours)| *word == key && names.contains(ours)).map(|(_, ours)| *ours);
    let hint = match synonym.or_else(|| near(key, &names)) {
        Some(close) => format!("did you mean `{close}`?"),
        None => format!("`deeprc models {}` lists its options", model.as_str()),
    };
    OptionError::new(key, format!("unknown option `{key}` of model {}", model.as_str()), Some(hint))
}

fn near<'a>(word: &str, names: &[&'a str]) -> Option<&'a str> {
    let best = names.iter().map(|n| (strsim::jaro_winkler(word, n), *n)).max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 >= 0.82).then_some(best.1)
}

/// Values that have the right type but no meaning.
fn ranges(model: &ModelConfig, train: &TrainConfig) -> Vec<OptionError> {
    let mut errors = Vec::new();
    let mut need = |ok: bool, key: &str, rule: &str| {
        if !ok {
            errors.push(OptionError::new(key, format!("`{key}` must be {rule}"), None));
        }
    };
    let positive = "at least 1";
    need(model.h() > 0, "h", positive);
    need(model.input_size() > 0, "input_size", positive);
    model.hyperparameters().ranges(train, &mut need);
    need(train.loss != LossName::Nse || model.multivariate(), "loss", "another one than nse, which belongs to lstm");
    need(train.max_steps > 0 || train.epochs > 0, "max_steps", positive);
    need(train.learning_rate > 0.0 && train.learning_rate.is_finite(), "learning_rate", "positive");
    need(train.weight_decay.is_none_or(|decay| decay >= 0.0 && decay.is_finite()), "weight_decay", "0 or positive");
    need(train.epochs > 0 || train.warmup_steps <= train.max_steps, "warmup_steps", "at most `max_steps`");
    need(train.gradient_clip_val >= 0.0, "gradient_clip_val", "0 or positive");
    need(train.batch_size > 0, "batch_size", positive);
    need(train.inference_windows_batch_size > 0, "inference_windows_batch_size", positive);
    need(train.step_size > 0, "step_size", positive);
    need(train.val_check_steps > 0, "val_check_steps", positive);
    need(train.huber_delta > 0.0, "huber_delta", "positive");
    need(train.quantile > 0.0 && train.quantile < 1.0, "quantile", "between 0 and 1");
    need(!train.level.is_empty() && train.level.iter().all(|l| *l > 0.0 && *l < 100.0), "level", "percentages between 0 and 100");
    need(train.quantiles.iter().all(|q| *q > 0.0 && *q < 1.0), "quantiles", "between 0 and 1");
    need(train.num_samples > 0, "num_samples", positive);
    let losses = [train.loss, train.valid_loss.unwrap_or(train.loss)];
    let seasons = train.seasonality > 0 && (!losses.contains(&LossName::Mase) || train.seasonality < model.input_size());
    need(seasons, "seasonality", "at least 1 and, for mase, below `input_size`");
    let weights = train.horizon_weight.iter().all(|w| *w >= 0.0 && w.is_finite()) && train.horizon_weight.iter().sum::<f64>() > 0.0;
    let fits = train.horizon_weight.len() == model.h() && weights;
    need(train.horizon_weight.is_empty() || fits, "horizon_weight", "`h` numbers that are 0 or positive, and not all 0");
    let discrete = train.loss == LossName::DistributionLoss && train.distribution.is_discrete();
    let plain = train.local_scaler_type == LocalScalerType::Identity;
    need(!discrete || plain, "local_scaler_type", "identity for distributions of counts");
    let [loss, valid_loss] = losses;
    let same_kind = match valid_loss {
        LossName::MqLoss => !loss.is_point(),
        LossName::DistributionLoss => loss == LossName::DistributionLoss,
        _ => (valid_loss == LossName::Nse) == (loss == LossName::Nse),
    };
    need(
        same_kind,
        "valid_loss",
        "a loss of what `loss` forecasts (mqloss needs quantiles, distributionloss a distribution, nse only itself)",
    );
    errors
}
