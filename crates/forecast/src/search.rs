//! The search for good hyper-parameters: what may vary, which values to try next, which trials go on.
//!
//! Pure functions of a seed and of what earlier trials gave: who asks again, after a crash or on another machine, gets the same
//! answer. Running the trials is the business of a pipeline.
//!
//! ```
//! use deeprc_forecast::config::ModelName;
//! use deeprc_forecast::search::{Sampler, Space};
//!
//! let space = Space::of(ModelName::NHits, 24);
//! let first = space.suggest(Sampler::Tpe, 1, 0, &[]);
//! assert_eq!(first, space.suggest(Sampler::Tpe, 1, 0, &[]));
//! assert!(first.contains_key("learning_rate"));
//! ```

use indexmap::IndexMap;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::config::ModelName;

/// Trials that TPE draws at random before it looks at what they gave, as Optuna.
const STARTUP: usize = 10;

/// Values that one option may take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum Range {
    /// One of these.
    Choice(Vec<Value>),
    /// A number from `low` to `high`, both included.
    Between {
        /// The least.
        low: f64,
        /// The largest.
        high: f64,
        /// Equally likely in every order of magnitude, rather than in every interval.
        #[serde(default)]
        log: bool,
        /// Whole multiples of this, counted from `low`; whole numbers where `low` and `step` are.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<f64>,
    },
}

/// How values are drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sampler {
    /// Tree-structured Parzen estimator (Bergstra et al. 2011), each option for itself: prefers values near those of good trials.
    #[default]
    Tpe,
    /// Independent of earlier trials.
    Random,
}

/// Options with their ranges, in a fixed order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Space(IndexMap<String, Range>);

impl Range {
    /// Why no value can be drawn.
    fn problem(&self) -> Option<&'static str> {
        match self {
            Range::Choice(values) => values.is_empty().then_some("an empty list has nothing to choose from"),
            Range::Between { low, high, .. } if !(low.is_finite() && high.is_finite() && low <= high) => {
                Some("`low` must not be above `high`")
            }
            Range::Between { low, log: true, .. } if *low <= 0.0 => Some("with `log` the range must be positive"),
            Range::Between { step: Some(step), .. } if !(step.is_finite() && *step > 0.0) => Some("`step` must be positive"),
            Range::Between { log: true, step: Some(_), .. } => Some("`log` and `step` exclude each other"),
            Range::Between { .. } => None,
        }
    }

    /// The interval in which samplers work, `start..end`: places in the list, steps, or (logarithms of) numbers.
    fn interval(&self) -> (f64, f64) {
        match self {
            Range::Choice(values) => (0.0, values.len() as f64),
            Range::Between { low, high, step: Some(step), .. } => (0.0, ((high - low) / step).floor() + 1.0),
            Range::Between { low, high, log: true, .. } => (low.ln(), high.ln()),
            Range::Between { low, high, .. } => (*low, *high),
        }
    }

    fn value(&self, place: f64) -> Value {
        let (_, end) = self.interval();
        match self {
            Range::Choice(values) => values[place.clamp(0.0, end - 1.0) as usize].clone(),
            Range::Between { low, step: Some(step), .. } => {
                let number = low + place.clamp(0.0, end - 1.0).floor() * step;
                if low.fract() == 0.0 && step.fract() == 0.0 { json!(number as i64) } else { json!(number) }
            }
            Range::Between { low, high, log: true, .. } => json!(place.exp().clamp(*low, *high)),
            Range::Between { low, high, .. } => json!(place.clamp(*low, *high)),
        }
    }

    /// Where a value lies in the interval; none for a value that is not of this range.
    fn place(&self, value: &Value) -> Option<f64> {
        match self {
            // The middle of its cell: the histogram of TPE counts cells.
            Range::Choice(values) => values.iter().position(|choice| choice == value).map(|place| place as f64 + 0.5),
            Range::Between { low, step: Some(step), .. } => Some(((value.as_f64()? - low) / step).round() + 0.5),
            Range::Between { log: true, .. } => Some(value.as_f64()?.ln()),
            Range::Between { .. } => value.as_f64(),
        }
    }

    fn draw(&self, sampler: Sampler, rng: &mut ChaCha8Rng, finished: &[(f64, f64)]) -> f64 {
        let (start, end) = self.interval();
        if sampler == Sampler::Random || finished.len() < STARTUP || start == end {
            return start + rng.random::<f64>() * (end - start);
        }
        let told = "the interval is not empty and holds finite places and losses";
        let estimator = if matches!(self, Range::Choice(_)) { tpe::histogram_estimator() } else { tpe::parzen_estimator() };
        let mut optimizer = tpe::TpeOptimizer::new(estimator, tpe::range(start, end).expect(told));
        for (place, loss) in finished {
            optimizer.tell(place.clamp(start, end.next_down()), *loss).expect(told);
        }
        optimizer.ask(rng).expect(told)
    }
}

impl Space {
    /// The space in which NeuralForecast's `Auto` models search (3.3.0), for a horizon of `h`; seeds left out.
    pub fn of(model: ModelName, h: usize) -> Space {
        let list = |values: &[Value]| Range::Choice(values.to_vec());
        let between = |low: f64, high: f64, log: bool| Range::Between { low, high, log, step: None };
        let inputs = |multiples: &[usize]| Range::Choice(multiples.iter().map(|multiple| json!(multiple * h)).collect());
        let numbers = |values: &[i64]| Range::Choice(values.iter().map(|value| json!(value)).collect());
        let steps = || Range::Between { low: 500.0, high: 1500.0, log: false, step: Some(100.0) };
        let windows = || numbers(&[128, 256, 512, 1024]);
        let scalers = || list(&[json!("identity"), json!("robust"), json!("standard")]);
        let rate = || between(1e-4, 1e-1, true);
        let heads = || vec![("hidden_size", numbers(&[64, 128, 256])), ("n_head", numbers(&[4, 8]))];
        let common = |max_steps: Range| {
            vec![
                ("input_size", inputs(&[1, 2, 3, 4, 5])),
                ("learning_rate", rate()),
                ("scaler_type", scalers()),
                ("max_steps", max_steps),
                ("windows_batch_size", windows()),
            ]
        };
        let own: Vec<(&str, Range)> = match model.as_str() {
            "nlinear" => common(steps()),
            "nbeats" => common(numbers(&[500, 1000])),
            "nhits" => {
                let pools = [json!([2, 2, 1]), json!([1, 1, 1]), json!([2, 2, 2]), json!([4, 4, 4]), json!([8, 4, 1]), json!([16, 8, 1])];
                let rates =
                    [[168, 24, 1], [24, 12, 1], [180, 60, 1], [60, 8, 1], [40, 20, 1], [1, 1, 1]].map(|knots: [i64; 3]| json!(knots));
                [
                    common(steps()),
                    vec![("n_pool_kernel_size", list(&pools)), ("n_freq_downsample", list(&rates)), ("step_size", numbers(&[1, h as i64]))],
                ]
                .concat()
            }
            "tide" => {
                let sizes = vec![
                    ("hidden_size", numbers(&[256, 512, 1024])),
                    ("decoder_output_dim", numbers(&[8, 16, 32])),
                    ("temporal_decoder_dim", numbers(&[32, 64, 128])),
                    ("num_encoder_layers", numbers(&[1, 2, 3])),
                    ("num_decoder_layers", numbers(&[1, 2, 3])),
                    ("temporal_width", numbers(&[4, 8, 16])),
                    ("dropout", list(&[json!(0.0), json!(0.1), json!(0.2), json!(0.3), json!(0.5)])),
                    ("layernorm", list(&[json!(true), json!(false)])),
                ];
                let slower = common(steps())
                    .into_iter()
                    .map(|(name, range)| (name, if name == "learning_rate" { between(1e-5, 1e-2, true) } else { range }));
                slower.chain(sizes).collect()
            }
            "gru" => vec![
                ("input_size", inputs(&[4, 16, 64])),
                ("encoder_hidden_size", numbers(&[16, 32, 64, 128])),
                ("encoder_n_layers", numbers(&[1, 2, 3])),
                ("decoder_hidden_size", numbers(&[16, 32, 64, 128])),
                ("learning_rate", rate()),
                ("max_steps", numbers(&[500, 1000])),
            ],
            "deepar" => {
                let sizes = vec![
                    ("lstm_hidden_size", numbers(&[32, 64, 128, 256])),
                    ("lstm_n_layers", numbers(&[1, 2, 3])),
                    ("lstm_dropout", between(0.0, 0.5, false)),
                ];
                let scaled = common(numbers(&[500, 1000, 2000])).into_iter();
                let scaled = scaled
                    .map(|(name, range)| (name, if name == "scaler_type" { list(&[json!("robust"), json!("minmax1")]) } else { range }));
                scaled.chain(sizes).collect()
            }
            "patchtst" => {
                let sizes = vec![
                    ("hidden_size", numbers(&[16, 128, 256])),
                    ("n_heads", numbers(&[4, 16])),
                    ("patch_len", numbers(&[16, 24])),
                    ("revin", list(&[json!(false), json!(true)])),
                ];
                let shorter = common(numbers(&[500, 1000, 5000]))
                    .into_iter()
                    .map(|(name, range)| (name, if name == "input_size" { inputs(&[1, 2, 3]) } else { range }));
                shorter.chain(sizes).collect()
            }
            "timesnet" => vec![
                ("input_size", inputs(&[1, 2, 3, 4, 5])),
                ("hidden_size", numbers(&[32, 64, 128])),
                ("conv_hidden_size", numbers(&[32, 64, 128])),
                ("learning_rate", rate()),
                ("scaler_type", list(&[json!("robust"), json!("standard")])),
                ("max_steps", numbers(&[500, 1000, 2000])),
                ("windows_batch_size", numbers(&[32, 64, 128, 256])),
            ],
            "tft" | "vanillatransformer" | "autoformer" => [common(numbers(&[500, 1000, 2000])), heads()].concat(),
            // The reference has no LSTM of hydrology; these are what its authors vary (Kratzert et al. 2019).
            _ => vec![
                ("learning_rate", between(1e-4, 1e-2, true)),
                ("hidden_size", numbers(&[32, 64, 128])),
                ("dropout", between(0.0, 0.5, false)),
            ],
        };
        Space(own.into_iter().map(|(name, range)| (name.to_owned(), range)).collect())
    }

    /// Sets or adds the range of an option.
    pub fn set(&mut self, option: &str, range: Range) {
        self.0.insert(option.to_owned(), range);
    }

    /// Leaves an option as it is configured.
    pub fn fix(&mut self, option: &str) {
        self.0.shift_remove(option);
    }

    /// The options that vary, with their ranges.
    pub fn ranges(&self) -> impl Iterator<Item = (&str, &Range)> {
        self.0.iter().map(|(name, range)| (name.as_str(), range))
    }

    /// Options whose ranges hold no value, and why.
    pub fn problems(&self) -> Vec<(&str, &'static str)> {
        self.ranges().filter_map(|(name, range)| Some((name, range.problem()?))).collect()
    }

    /// The options of trial `number`, given the options and losses of finished ones (in the order of their numbers).
    ///
    /// # Panics
    /// If the space has [`problems`](Space::problems).
    pub fn suggest(&self, sampler: Sampler, seed: u64, number: usize, finished: &[(Map<String, Value>, f64)]) -> Map<String, Value> {
        // A trial's draws do not depend on how many draws the trials before it needed.
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(number as u64);
        let draw = |(name, range): (&str, &Range)| {
            let seen: Vec<(f64, f64)> =
                finished.iter().filter_map(|(options, loss)| Some((range.place(options.get(name)?)?, loss.min(f64::MAX)))).collect();
            (name.to_owned(), range.value(range.draw(sampler, &mut rng, &seen)))
        };
        self.ranges().map(draw).collect()
    }
}

/// The `keep` trials with the lowest losses, best first; equal losses in the order of their numbers (successive halving, Jamieson and
/// Talwalkar 2016).
pub fn survivors(losses: &[(usize, f64)], keep: usize) -> Vec<usize> {
    let mut order: Vec<(usize, f64)> = losses.iter().copied().filter(|(_, loss)| loss.is_finite()).collect();
    order.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
    order.into_iter().take(keep).map(|(number, _)| number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{catalogue, configure};

    fn space(text: &str) -> Space {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn every_space_holds_only_what_its_model_accepts() {
        for (model, entry) in ModelName::ALL.iter().zip(catalogue()) {
            let space = Space::of(*model, 24);
            assert_eq!(space.problems(), []);
            for number in 0..50 {
                let mut options = space.suggest(Sampler::Random, 7, number, &[]);
                assert!(options.keys().all(|name| entry.options.iter().any(|option| option.name == name)), "{}: {options:?}", entry.name);
                options.insert("h".to_owned(), json!(24));
                configure(entry.name, &options).unwrap_or_else(|errors| panic!("{}: {errors:?}", entry.name));
            }
        }
    }

    #[test]
    fn ranges_keep_their_bounds_and_kinds() {
        let space =
            space(r#"{"a": {"low": 1e-4, "high": 1e-1, "log": true}, "b": {"low": 500, "high": 1500, "step": 100}, "c": ["x", [2, 1]]}"#);
        let all: Vec<_> = (0..300).map(|number| space.suggest(Sampler::Random, 3, number, &[])).collect();
        let small = all.iter().filter(|options| options["a"].as_f64().unwrap() < 1e-3).count();
        assert!((60..140).contains(&small), "a third of the draws lies in each order of magnitude: {small}");
        assert!(all.iter().all(|o| (1e-4..=1e-1).contains(&o["a"].as_f64().unwrap())));
        assert!(all.iter().all(|o| o["b"].as_i64().is_some_and(|b| (500..=1500).contains(&b) && b % 100 == 0)));
        assert!(all.iter().any(|o| o["b"] == 1500) && all.iter().any(|o| o["c"] == json!([2, 1])) && all.iter().any(|o| o["c"] == "x"));
    }

    #[test]
    fn ranges_without_values_are_found() {
        let space = space(r#"{"a": [], "b": {"low": 2.0, "high": 1.0}, "c": {"low": 0.0, "high": 1.0, "log": true}, "d": [1]}"#);
        assert_eq!(space.problems().iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["a", "b", "c"]);
    }

    #[test]
    fn tpe_comes_closer_than_chance() {
        let space = space(r#"{"x": {"low": -10.0, "high": 10.0}, "k": [0, 1, 2, 3]}"#);
        let loss = |options: &Map<String, Value>| {
            (options["x"].as_f64().unwrap() - 2.0).powi(2) + 4.0 * (options["k"].as_f64().unwrap() - 1.0).abs()
        };
        let search = |sampler| {
            let mut finished: Vec<(Map<String, Value>, f64)> = Vec::new();
            for number in 0..60 {
                let options = space.suggest(sampler, 5, number, &finished);
                let value = loss(&options);
                finished.push((options, value));
            }
            let late = finished[30..].iter().map(|(_, loss)| loss).sum::<f64>() / 30.0;
            assert_eq!(space.suggest(sampler, 5, 60, &finished), space.suggest(sampler, 5, 60, &finished));
            late
        };
        let (tpe, random) = (search(Sampler::Tpe), search(Sampler::Random));
        assert!(tpe < random / 2.0, "mean loss of the later trials: tpe {tpe}, random {random}");
    }

    #[test]
    fn the_best_survive() {
        assert_eq!(survivors(&[(0, 3.0), (1, 1.0), (2, f64::INFINITY), (3, 1.0), (4, 2.0)], 3), [1, 3, 4]);
        assert_eq!(survivors(&[(0, f64::NAN)], 1), [0usize; 0]);
    }
}
