//! From stages to tasks: matrix expanded, inputs resolved, every task with a hash of all that its result depends on.

mod fingerprint;
mod search;
mod work;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use deeprc_forecast::task::{PredictTask, TrainTask, Weights};
use indexmap::IndexMap;

pub(crate) use fingerprint::fingerprint;
use search::About;
use search::Trial;
pub(crate) use work::{Call, FORECAST, Inputs, Program, TABLE, Work};

use crate::observe::PlannedStage;
use crate::options::Executables;
use crate::spec::{Cell, EvaluateStage, Kind, Piece, Pipeline, PredictStage, ProgramStage, Resources, Spanned, Stage, TrainStage, pieces};

/// All tasks of all pipelines of a run. A task comes after its inputs.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub tasks: Vec<Planned>,
}

/// One task.
#[derive(Debug)]
pub(crate) struct Planned {
    /// Name of its pipeline.
    pub pipeline: String,
    /// Its stage, with its place in the matrix: `fit[nhits]`.
    pub stage: String,
    /// The word in the file.
    pub kind: &'static str,
    /// Tasks whose results it takes.
    pub needs: Vec<usize>,
    pub work: Work,
    pub resources: Resources,
    /// Of everything that its result depends on, in hex.
    pub hash: String,
    /// Name of the model in metrics and curves, for trainings.
    pub model: Option<String>,
}

impl Planned {
    /// Name of its files in the run directory: `forecast.fit.nhits`.
    pub fn slug(&self) -> String {
        let safe = |letter: char| if letter.is_ascii_alphanumeric() || "._=-".contains(letter) { letter } else { '.' };
        let stage = self.stage.trim_end_matches(']').replace('[', ".");
        format!("{}.{stage}", self.pipeline).chars().map(safe).collect()
    }

    /// The same for observers; `needs` are labels.
    pub fn announce(&self, plan: &Plan) -> PlannedStage {
        PlannedStage {
            pipeline: self.pipeline.clone(),
            stage: self.stage.clone(),
            kind: self.kind.to_owned(),
            needs: self.needs.iter().map(|need| plan.tasks[*need].stage.clone()).collect(),
        }
    }

    /// Whether it goes on with those of its inputs that are finished: scores of two models are better than none.
    pub fn content_with_some(&self) -> bool {
        matches!(self.work, Work::Evaluate { .. } | Work::Trial(_))
    }
}

/// The tasks of one stage by their place in the matrix, and its CSV export where one is asked for.
#[derive(Debug, Default, Clone)]
struct Made {
    cells: Vec<(String, usize)>,
    csv: Option<usize>,
}

impl Plan {
    /// Adds the tasks of a pipeline whose check found nothing.
    pub fn add(&mut self, pipeline: &Pipeline, executables: &Executables) {
        let models = model_names(pipeline);
        let mut made: IndexMap<String, Made> = IndexMap::new();
        for stage in pipeline.in_order() {
            let one = |name: &Spanned<String>| made[&name.value].cells[0].1;
            let cells: Vec<(String, Vec<usize>, Work)> = match &stage.kind {
                Kind::Read(read) => vec![(String::new(), vec![], Work::read(read))],
                Kind::Sql(sql) => {
                    let tables: IndexMap<String, usize> = stage.inputs.iter().map(|input| (input.value.clone(), one(input))).collect();
                    vec![(String::new(), tables.values().copied().collect(), Work::Sql { query: sql.query.value.clone(), tables })]
                }
                Kind::Join(join) => {
                    let (left, right) = (one(&join.left), one(&join.right));
                    let on = join.on.iter().map(|name| name.value.clone()).collect();
                    vec![(String::new(), vec![left, right], Work::Join { left, right, on, how: join.how })]
                }
                Kind::Derive(derive) => {
                    let input = one(&derive.input);
                    vec![(String::new(), vec![input], Work::Derive { input, arguments: derive.arguments.clone() })]
                }
                Kind::Split(split) => {
                    let input = one(&split.input);
                    vec![(String::new(), vec![input], Work::Split { input, arguments: split.arguments.clone() })]
                }
                Kind::Train(train) => {
                    let input = one(&train.input);
                    let searched = train.cells.iter().filter(|cell| cell.search.is_some());
                    let cells = searched.map(|cell| self.search(pipeline, stage, train, cell, input)).collect::<Vec<_>>();
                    if !cells.is_empty() {
                        made.insert(stage.name.clone(), Made { cells, csv: None });
                        continue;
                    }
                    train_cells(train, input)
                }
                Kind::Predict(predict) => predict_cells(predict, pipeline, &made),
                Kind::Evaluate(evaluate) => vec![evaluate_cell(evaluate, pipeline, &made, &models)],
                Kind::Program(program) => vec![self.program_cell(program, stage, pipeline, &mut made, executables)],
            };
            let mut entry = Made::default();
            for (cell, needs, work) in cells {
                let label = if cell.is_empty() { stage.name.clone() } else { format!("{}[{cell}]", stage.name) };
                let model = models.get(&(stage.name.clone(), cell.clone())).cloned();
                let number = self.push(pipeline, label, stage.kind.word(), needs, work, stage.needs.clone(), model);
                entry.cells.push((cell, number));
            }
            made.insert(stage.name.clone(), entry);
        }
    }

    /// Adds the trials of a searched cell; its own task is the winner.
    fn search(&mut self, pipeline: &Pipeline, stage: &Stage, train: &TrainStage, cell: &Cell, input: usize) -> (String, usize) {
        let (search, space) = cell.search.clone().unwrap_or_else(|| unreachable!("only cells with a search come here"));
        let (model, options) = (cell.model.clone(), cell.train.clone());
        let about = Arc::new(About { search, space, model, train: options, dataset: train.dataset.clone() });
        let name = model_names(pipeline).get(&(stage.name.clone(), cell.label.clone())).cloned();
        let mut last = 0;
        for (label, role) in about.roles(self.tasks.len()) {
            let inside: Vec<&str> = [cell.label.as_str(), &label].into_iter().filter(|part| !part.is_empty()).collect();
            let whole = if inside.is_empty() { stage.name.clone() } else { format!("{}[{}]", stage.name, inside.join(",")) };
            let model = if label.is_empty() { name.clone() } else { None };
            let needs = [&[input], role.needs()].concat();
            let work = Work::Trial(Box::new(Trial { input, about: about.clone(), role }));
            last = self.push(pipeline, whole, stage.kind.word(), needs, work, stage.needs.clone(), model);
        }
        (cell.label.clone(), last)
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of a task, once")]
    fn push(
        &mut self,
        pipeline: &Pipeline,
        stage: String,
        kind: &'static str,
        mut needs: Vec<usize>,
        work: Work,
        resources: Resources,
        model: Option<String>,
    ) -> usize {
        needs.sort_unstable();
        needs.dedup();
        let hash = self.hash(kind, &work, resources.ranks.value);
        self.tasks.push(Planned { pipeline: pipeline.name().to_owned(), stage, kind, needs, work, resources, hash, model });
        self.tasks.len() - 1
    }

    /// Hash of kind, resolved options, inputs (by their hashes), files (by [`fingerprint`]), number of ranks and version of deeprc.
    fn hash(&self, kind: &str, work: &Work, ranks: u32) -> String {
        let input = |number: usize| PathBuf::from(format!("hash:{}", self.tasks[number].hash));
        let mut hasher = blake3::Hasher::new();
        let mut part = |text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        };
        part(env!("CARGO_PKG_VERSION"));
        part(kind);
        part(&ranks.to_string());
        part(&work.canonical(&Inputs { place: &input, finished: &|_| true, answer: &|_| None }));
        for file in work.files() {
            part(&fingerprint(file));
        }
        hasher.finalize().to_hex()[..32].to_owned()
    }

    /// A program takes tables; where it wants one as CSV, a task that writes the file comes before it.
    fn program_cell(
        &mut self,
        program: &ProgramStage,
        stage: &Stage,
        pipeline: &Pipeline,
        made: &mut IndexMap<String, Made>,
        executables: &Executables,
    ) -> (String, Vec<usize>, Work) {
        let texts = program.arguments.iter().chain(program.env.iter().map(|(_, text)| text));
        for piece in texts.flat_map(|text| pieces(&text.value)) {
            let Piece::Csv(name) = piece else { continue };
            if made[name].csv.is_none() {
                let input = made[name].cells[0].1;
                let resources = Resources::single(&pipeline.stages[name].at);
                let export = self.push(pipeline, format!("{name}.csv"), "export", vec![input], Work::Export { input }, resources, None);
                made[name].csv = Some(export);
            }
        }
        let resolve = |text: &Spanned<String>| {
            let part = |piece: Piece| match piece {
                Piece::Text(text) => work::Part::Text(text.to_owned()),
                Piece::Table(name) => work::Part::Place(made[name].cells[0].1),
                Piece::Csv(name) => work::Part::Place(made[name].csv.unwrap_or(made[name].cells[0].1)),
            };
            pieces(&text.value).into_iter().map(part).collect::<Vec<_>>()
        };
        let program = Program::new(program, pipeline.file(), executables, resolve);
        // With an export between, the table itself is not waited for.
        let named = program.places();
        let after = stage.inputs.iter().flat_map(|input| made[&input.value].cells.iter().map(|(_, number)| *number));
        (String::new(), named.into_iter().chain(after).collect(), Work::Program(program))
    }
}

fn train_cells(train: &TrainStage, input: usize) -> Vec<(String, Vec<usize>, Work)> {
    let cell = |cell: &crate::spec::Cell| {
        let task = TrainTask {
            table: PathBuf::new(),
            dataset: train.dataset.clone(),
            model: cell.model.clone(),
            train: cell.train.clone(),
            checkpoint: PathBuf::new(),
            resume: false,
            init_from: None,
        };
        (cell.label.clone(), vec![input], Work::Train { input, task: Box::new(task) })
    };
    train.cells.iter().map(cell).collect()
}

fn predict_cells(predict: &PredictStage, pipeline: &Pipeline, made: &IndexMap<String, Made>) -> Vec<(String, Vec<usize>, Work)> {
    let Kind::Train(train) = &pipeline.stages[&predict.model.value].kind else { return Vec::new() };
    let table = predict.input.as_ref().unwrap_or(&train.input);
    let input = made[&table.value].cells[0].1;
    let cell = |(label, model): &(String, usize)| {
        let task = PredictTask {
            table: PathBuf::new(),
            dataset: train.dataset.clone(),
            checkpoint: PathBuf::new(),
            weights: if predict.best { Weights::Best } else { Weights::Last },
            part: predict.part,
            step: predict.step,
            ahead: None,
            intervals: predict.intervals.clone(),
            output: PathBuf::new(),
        };
        (label.clone(), vec![input, *model], Work::Predict { input, model: *model, task: Box::new(task) })
    };
    made[&predict.model.value].cells.iter().map(cell).collect()
}

fn evaluate_cell(
    evaluate: &EvaluateStage,
    pipeline: &Pipeline,
    made: &IndexMap<String, Made>,
    models: &IndexMap<(String, String), String>,
) -> (String, Vec<usize>, Work) {
    let mut forecasts = Vec::new();
    let mut source = None;
    for input in &evaluate.input {
        let Kind::Predict(predict) = &pipeline.stages[&input.value].kind else { continue };
        let Kind::Train(train) = &pipeline.stages[&predict.model.value].kind else { continue };
        let table = predict.input.as_ref().unwrap_or(&train.input);
        source.get_or_insert((made[&table.value].cells[0].1, train.dataset.clone()));
        for (cell, number) in &made[&input.value].cells {
            let mut name = models[&(predict.model.value.clone(), cell.clone())].clone();
            // The same model may be judged on two parts or with two sets of weights.
            if forecasts.iter().any(|(other, _)| *other == name) {
                name = format!("{}/{name}", input.value);
            }
            forecasts.push((name, *number));
        }
    }
    let (table, dataset) = source.unwrap_or_else(|| unreachable!("an evaluate stage without forecasts is refused when the file is read"));
    let needs = forecasts.iter().map(|(_, number)| *number).chain([table]).collect();
    (String::new(), needs, Work::Evaluate { forecasts, table, dataset, stage: evaluate.clone() })
}

/// Names of all trainings of a pipeline, by stage and cell: the model's name with further axes of the matrix, and with the stage
/// before it where two stages train the same.
fn model_names(pipeline: &Pipeline) -> IndexMap<(String, String), String> {
    let mut names = IndexMap::new();
    for stage in pipeline.stages.values() {
        let Kind::Train(train) = &stage.kind else { continue };
        for cell in &train.cells {
            let model = cell.model.name().as_str();
            let name = if cell.axes.is_empty() { model.to_owned() } else { format!("{model}[{}]", cell.axes) };
            names.insert((stage.name.clone(), cell.label.clone()), name);
        }
    }
    let all: Vec<String> = names.values().cloned().collect();
    for ((stage, _), name) in &mut names {
        if all.iter().filter(|other| *other == name).count() > 1 {
            *name = format!("{stage}/{name}");
        }
    }
    names
}
