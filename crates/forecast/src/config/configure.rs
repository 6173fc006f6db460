//! From the keys of a pipeline file to a checked configuration, with all errors at once.

use std::fmt;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{GruConfig, LossName, LstmConfig, ModelConfig, ModelName, NHitsConfig, OptionEntry, TrainConfig, catalogue};

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
const SYNONYMS: [(&str, &str); 13] = [
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
    ("batch_size", "windows_batch_size"),
    ("windows_batch_size", "batch_size"),
];

/// Reads `options` of `model`: hyper-parameters and training options in one table, everything absent at its default.
///
/// # Errors
/// All problems at once: an unknown model, unknown keys with near names, values of the wrong type or out of range.
pub fn configure(model: &str, options: &Map<String, Value>) -> Result<(ModelConfig, TrainConfig), Vec<OptionError>> {
    let Some(name) = ModelName::ALL.into_iter().find(|n| n.as_str() == model) else {
        let names = ModelName::ALL.map(ModelName::as_str);
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
    if let (ModelConfig::Gru(gru), false) = (&mut model, options.contains_key("input_size")) {
        gru.input_size = 3 * gru.h;
    }
    errors.extend(ranges(&model, &train));
    if errors.is_empty() { Ok((model, train)) } else { Err(errors) }
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
    match model {
        ModelConfig::NLinear(_) => {}
        ModelConfig::NHits(c) => nhits_ranges(c, train.loss, &mut need),
        ModelConfig::Gru(c) => gru_ranges(c, &mut need),
        ModelConfig::Lstm(c) => lstm_ranges(c, train.loss, &mut need),
    }
    need(train.loss != LossName::Nse || model.multivariate(), "loss", "another one than nse, which belongs to lstm");
    need(train.max_steps > 0 || train.epochs > 0, "max_steps", positive);
    need(train.learning_rate > 0.0 && train.learning_rate.is_finite(), "learning_rate", "positive");
    need(train.gradient_clip_val >= 0.0, "gradient_clip_val", "0 or positive");
    need(train.batch_size > 0, "batch_size", positive);
    need(train.inference_windows_batch_size > 0, "inference_windows_batch_size", positive);
    need(train.step_size > 0, "step_size", positive);
    need(train.val_check_steps > 0, "val_check_steps", positive);
    need(train.huber_delta > 0.0, "huber_delta", "positive");
    need(train.quantile > 0.0 && train.quantile < 1.0, "quantile", "between 0 and 1");
    need(!train.level.is_empty() && train.level.iter().all(|l| *l > 0.0 && *l < 100.0), "level", "percentages between 0 and 100");
    let quantiles = |loss: LossName| loss == LossName::MqLoss;
    let same_kind =
        train.valid_loss.is_none_or(|v| quantiles(v) == quantiles(train.loss) && (v == LossName::Nse) == (train.loss == LossName::Nse));
    need(same_kind, "valid_loss", "of the same kind as `loss` (mqloss and nse only with themselves)");
    errors
}

type Need<'a> = &'a mut dyn FnMut(bool, &str, &str);

fn nhits_ranges(c: &NHitsConfig, loss: LossName, need: Need) {
    let stacks = c.n_pool_kernel_size.len();
    need(stacks > 0 && c.n_pool_kernel_size.iter().all(|k| *k > 0), "n_pool_kernel_size", "a list of at least one positive integer");
    need(c.n_blocks.len() == stacks, "n_blocks", "as long as `n_pool_kernel_size`");
    need(c.n_freq_downsample.len() == stacks, "n_freq_downsample", "as long as `n_pool_kernel_size`");
    need(c.n_freq_downsample.iter().all(|k| *k > 0), "n_freq_downsample", "positive integers");
    let chained = c.mlp_units.windows(2).all(|pair| pair[0][1] == pair[1][0]);
    let first = !c.mlp_units.is_empty() && c.mlp_units.iter().all(|u| u[0] > 0 && u[1] > 0);
    need(first && chained, "mlp_units", "pairs of positive widths in which each starts where the one before it ended");
    need((0.0..1.0).contains(&c.dropout_prob_theta), "dropout_prob_theta", "at least 0 and below 1");
    let cubic = c.interpolation_mode == super::Interpolation::Cubic;
    need(!(cubic && loss == LossName::MqLoss), "interpolation_mode", "linear or nearest with the loss mqloss");
}

fn gru_ranges(c: &GruConfig, need: Need) {
    need(c.h_train > 0 && c.h_train <= c.h, "h_train", "between 1 and `h`");
    need(c.encoder_n_layers > 0, "encoder_n_layers", "at least 1");
    need(c.encoder_hidden_size > 0, "encoder_hidden_size", "at least 1");
    need(c.decoder_hidden_size > 0, "decoder_hidden_size", "at least 1");
    need(c.decoder_layers > 0, "decoder_layers", "at least 1");
    need((0.0..1.0).contains(&c.encoder_dropout), "encoder_dropout", "at least 0 and below 1");
}

fn lstm_ranges(c: &LstmConfig, loss: LossName, need: Need) {
    need(c.hidden_size > 0, "hidden_size", "at least 1");
    need(c.n_layers > 0, "n_layers", "at least 1");
    need((0.0..1.0).contains(&c.dropout), "dropout", "at least 0 and below 1");
    need(loss != LossName::MqLoss, "loss", "another one than mqloss for lstm");
    need(c.mode == super::LstmMode::Forecast || c.h == 1, "h", "1 in mode simulation: one target day per window");
}
