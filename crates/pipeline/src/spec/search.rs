//! The search of a train stage: which options vary, how many trials, when the poor ones stop.

use deeprc_forecast::config::{ModelName, catalogue};
use deeprc_forecast::search::{Range, Sampler, Space};

use super::fields::Fields;
use super::source::nearest_or_all;

/// `search = { … }` of a train stage.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Search {
    /// Trials drawn.
    pub trials: usize,
    pub sampler: Sampler,
    /// Trials that run side by side before the next ones are drawn.
    pub parallel: usize,
    /// Only one of so many trials goes on to the next rung; 1: every trial is trained to its end.
    pub eta: usize,
    /// Rungs of the ladder: trials are first trained for `max_steps / eta^(rungs - 1)` steps.
    pub rungs: u32,
    pub seed: u64,
    /// The ranges that the file gives; none: those of the model.
    space: Option<Space>,
}

impl Search {
    /// How many trials train on each rung.
    pub fn ladder(&self) -> Vec<usize> {
        (0..self.rungs).map(|rung| self.trials.div_ceil(self.eta.pow(rung))).collect()
    }

    /// Steps after which a trial of `max_steps` stops on a rung; none on the last one.
    pub fn until(&self, rung: usize, max_steps: u64) -> Option<u64> {
        let left = self.rungs - 1 - rung as u32;
        (left > 0).then(|| max_steps.div_ceil((self.eta as u64).pow(left)).max(1))
    }

    /// What varies for a model, given the options that the file fixes.
    pub fn space(&self, model: ModelName, h: usize, fixed: &[&str]) -> Space {
        if let Some(space) = &self.space {
            return space.clone();
        }
        let mut space = Space::of(model, h);
        fixed.iter().for_each(|option| space.fix(option));
        space
    }
}

/// Reads the search of a stage that trains `models`.
pub(crate) fn search(fields: &Fields, models: &[ModelName], seed: u64) -> Option<Search> {
    let inner = fields.table("search")?;
    let trials = inner.integer("trials", 1..=100_000, "between 1 and 100000").unwrap_or(10) as usize;
    let eta = inner.integer("halving", 2..=100, "at least 2: of so many trials one goes on");
    let rungs = inner.integer("rungs", 2..=10, "between 2 and 10");
    if let (Some(_), None) = (rungs, eta) {
        inner.faults.add(
            &inner.place("rungs"),
            format!("`rungs` of {} belongs to `halving`", inner.what),
            "for example halving = 3".to_owned(),
        );
    }
    let search = Search {
        trials,
        sampler: inner.choice("sampler", &["tpe", "random"]).unwrap_or_default(),
        parallel: inner.integer("parallel", 1..=100_000, "at least 1").unwrap_or(1) as usize,
        eta: eta.unwrap_or(1) as usize,
        rungs: eta.map_or(1, |_| rungs.unwrap_or(2) as u32),
        seed: inner.integer("seed", 0.., "0 or more").map_or(seed, |seed| seed as u64),
        space: space(&inner, models),
    };
    inner.finish();
    Some(search)
}

fn space(fields: &Fields, models: &[ModelName]) -> Option<Space> {
    let inner = fields.table("space")?;
    let mut space = Space::default();
    let known = catalogue();
    for (name, entry) in inner.table {
        for model in models {
            let options: Vec<&str> = known[*model as usize].options.iter().map(|option| option.name).collect();
            if !options.contains(&name.as_str()) {
                let message = format!("unknown option `{name}` of model {} in {}", model.as_str(), inner.what);
                inner.faults.add(&entry.key, message, nearest_or_all("options", name, options));
            }
        }
        let kinds = "a list of values, or { low = 1e-4, high = 1e-2, log = true }, or { low = 100, high = 500, step = 100 }";
        match serde_json::from_value::<Range>(entry.node.json()) {
            Ok(range) => space.set(name, range),
            Err(_) => inner.faults.add(&entry.node.at, format!("`{name}` in {} is no range", inner.what), format!("give {kinds}")),
        }
    }
    for (name, problem) in space.problems() {
        inner.faults.add(&inner.place(name), format!("`{name}` in {}: {problem}", inner.what), None);
    }
    Some(space)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ladder_narrows_to_its_last_rung() {
        let search = Search { trials: 10, sampler: Sampler::Tpe, parallel: 2, eta: 3, rungs: 3, seed: 1, space: None };
        assert_eq!(search.ladder(), [10, 4, 2]);
        assert_eq!([0, 1, 2].map(|rung| search.until(rung, 900)), [Some(100), Some(300), None]);
        let whole = Search { eta: 1, rungs: 1, ..search };
        assert_eq!((whole.ladder(), whole.until(0, 900)), (vec![10], None));
    }
}
