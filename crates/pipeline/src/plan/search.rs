//! The trials of a search as tasks. Their number and order are fixed by the plan; what each one trains follows, when it starts, from
//! what the trials before it answered, so that a resumed search draws what an undisturbed one draws.
//!
//! ```text
//!   rung 0   draw 0   draw 1 │ draw 2   draw 3 │ …        rounds of `parallel` trials; each round has seen the ones before it
//!   rung 1   the best of rung 0   the second best   …     each goes on from its checkpoint
//!   winner   the best of the last rung
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

use deeprc_forecast::config::{ModelConfig, TrainConfig, vary};
use deeprc_forecast::search::{Sampler, Space, survivors};
use deeprc_forecast::task::{TrainTask, TrialResult, TrialTask};
use deeprc_loader::DatasetOptions;
use serde_json::{Map, Value, json};

use super::work::Inputs;
use crate::spec::Search;

/// A task of a search.
#[derive(Debug, Clone)]
pub(crate) struct Trial {
    pub input: usize,
    pub about: Arc<About>,
    pub role: Role,
}

/// What all tasks of a search share.
#[derive(Debug)]
pub(crate) struct About {
    pub search: Search,
    pub space: Space,
    pub model: ModelConfig,
    pub train: TrainConfig,
    pub dataset: DatasetOptions,
}

/// Which task of its search it is.
#[derive(Debug, Clone)]
pub(crate) enum Role {
    /// Trial `number`, with options drawn after the trials `seen` have answered.
    Draw { number: usize, seen: Vec<usize> },
    /// The `place`-th best of the trials `of` goes on.
    Advance { rung: usize, place: usize, of: Vec<usize> },
    /// The best of `of`.
    Winner { of: Vec<usize> },
}

impl About {
    /// The tasks of a search: labels and roles, the winner last. `first` is the number that the first one will have.
    pub fn roles(&self, first: usize) -> Vec<(String, Role)> {
        let mut roles = Vec::new();
        let mut rung_before: Vec<usize> = Vec::new();
        for (rung, count) in self.search.ladder().into_iter().enumerate() {
            let start = first + roles.len();
            for place in 0..count {
                let role = if rung == 0 {
                    let seen = if self.search.sampler == Sampler::Random { 0 } else { place / self.search.parallel * self.search.parallel };
                    (format!("trial={place}"), Role::Draw { number: place, seen: (first..first + seen).collect() })
                } else {
                    (format!("rung={rung},place={place}"), Role::Advance { rung, place, of: rung_before.clone() })
                };
                roles.push(role);
            }
            rung_before = (start..start + count).collect();
        }
        roles.push((String::new(), Role::Winner { of: rung_before }));
        roles
    }
}

impl Role {
    /// The trials whose answers it looks at.
    pub fn needs(&self) -> &[usize] {
        match self {
            Role::Draw { seen, .. } => seen,
            Role::Advance { of, .. } | Role::Winner { of } => of,
        }
    }

    /// The rung on which it trains, for the record.
    pub fn rung(&self) -> Option<usize> {
        match self {
            Role::Draw { .. } => Some(0),
            Role::Advance { rung, .. } => Some(*rung),
            Role::Winner { .. } => None,
        }
    }
}

impl Trial {
    /// The task, once the trials before it have answered; otherwise why there is none.
    pub fn task(&self, inputs: &Inputs, output: &Path, resume: bool) -> Result<TrialTask, String> {
        let About { search, space, model, train, dataset } = &*self.about;
        let (options, from, rung) = match &self.role {
            Role::Draw { number, seen } => {
                let finished: Vec<(Map<String, Value>, f64)> = seen.iter().filter_map(|task| answer(inputs, *task)).collect();
                (space.suggest(search.sampler, search.seed, *number, &finished), None, 0)
            }
            Role::Advance { rung, place, of } => {
                let (options, from) = best(inputs, of, *place).ok_or("fewer trials than that gave a finite loss")?;
                (options, Some(from), *rung)
            }
            Role::Winner { of } => {
                let (options, from) = best(inputs, of, 0).ok_or("no trial of the search gave a finite loss")?;
                (options, Some(from), search.ladder().len() - 1)
            }
        };
        let (model, train) = vary(model, train, &options).map_err(|errors| {
            let all: Vec<String> = errors.iter().map(|error| error.message.clone()).collect();
            format!("the drawn options contradict each other: {}", all.join(", "))
        })?;
        let until = search.until(rung, train.max_steps);
        let table = (inputs.place)(self.input);
        let task = TrainTask { table, dataset: dataset.clone(), model, train, checkpoint: output.to_owned(), resume, init_from: None };
        Ok(TrialTask { train: task, options, until, from })
    }

    /// One text for equal tasks, before anything has run.
    pub fn canonical(&self, inputs: &Inputs) -> String {
        let About { search, space, model, train, dataset } = &*self.about;
        let role = match &self.role {
            Role::Draw { number, .. } => format!("draw {number}"),
            Role::Advance { rung, place, .. } => format!("rung {rung} place {place}"),
            Role::Winner { .. } => "winner".to_owned(),
        };
        let needs: Vec<PathBuf> = [self.input].iter().chain(self.role.needs()).map(|need| (inputs.place)(*need)).collect();
        json!([role, needs, format!("{search:?}"), space, model, train, dataset]).to_string()
    }
}

/// Options and loss of a trial that has answered; a trial that diverged lost by infinity.
fn answer(inputs: &Inputs, task: usize) -> Option<(Map<String, Value>, f64)> {
    let result: TrialResult = serde_json::from_value((inputs.answer)(task)?.clone()).ok()?;
    Some((result.options, result.loss.unwrap_or(f64::INFINITY)))
}

/// Options and checkpoint of the `place`-th best of the trials `of`.
fn best(inputs: &Inputs, of: &[usize], place: usize) -> Option<(Map<String, Value>, PathBuf)> {
    let losses: Vec<(usize, f64)> = of.iter().filter_map(|task| Some((*task, answer(inputs, *task)?.1))).collect();
    let task = *survivors(&losses, place + 1).get(place)?;
    Some((answer(inputs, task)?.0, (inputs.place)(task)))
}
