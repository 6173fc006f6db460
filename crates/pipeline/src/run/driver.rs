//! Submits tasks when their inputs are there and follows them to their end.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use deeprc_forecast::task::Progress;
use deeprc_pilot::{Event, Outcome, RankGroup, Session, Stamped, TaskDescription, TaskId, TaskReport};
use serde_json::Value;

use super::directory::{Finished, RunDirectory};
use super::ledger::Ledger;
use super::tail::Tail;
use super::{failure, results};
use crate::diagnostic::Exit;
use crate::observe::{Observer, RunEvent};
use crate::options::RunOptions;
use crate::plan::{Call, Inputs, Plan, Planned, Work};
use crate::record::{RunError, RunStatus, StageStatus};

/// How often programs' output and the wish to end are looked at while nothing happens.
const TICK: Duration = Duration::from_millis(50);
/// How long cancelled tasks may take to end: the pilot kills them after 2 s.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Why a task did not start.
enum NotSubmitted {
    /// There is nothing for it to do.
    Idle(String),
    /// The session or the disk refused it.
    Refused(Box<RunError>),
}

pub(crate) struct Driver<'a> {
    plan: &'a Plan,
    session: &'a Session,
    directory: &'a RunDirectory,
    options: &'a RunOptions,
    observer: &'a dyn Observer,
    ledger: &'a mut Ledger,
    events: Receiver<Stamped<Event>>,
    /// Tasks in the session, by number; the value is the place in the plan.
    running: BTreeMap<TaskId, usize>,
    tails: BTreeMap<TaskId, Tail>,
    /// When the session started, in seconds since the start of the run: the least that any event allows.
    offset: f64,
    /// What tasks have answered, by their place in the plan.
    answers: BTreeMap<usize, Value>,
    /// Set when the run was asked to end.
    ending: Option<Instant>,
}

impl<'a> Driver<'a> {
    pub fn new(
        plan: &'a Plan,
        session: &'a Session,
        directory: &'a RunDirectory,
        options: &'a RunOptions,
        observer: &'a dyn Observer,
        ledger: &'a mut Ledger,
    ) -> Driver<'a> {
        let events = session.events();
        let offset = ledger.now();
        Driver {
            plan,
            session,
            directory,
            options,
            observer,
            ledger,
            events,
            running: BTreeMap::new(),
            tails: BTreeMap::new(),
            offset,
            answers: BTreeMap::new(),
            ending: None,
        }
    }

    /// Runs everything to its end. Returns `Done` also when stages failed: the record says so.
    pub fn drive(mut self) -> RunStatus {
        let pipelines: Vec<(String, String)> =
            self.ledger.record.pipelines.iter().map(|file| (file.name.clone(), file.toml.clone())).collect();
        for (name, text) in pipelines {
            // A copy for the reader of the run; `run.json` has the text too.
            let _ = self.directory.keep(&name, &text);
        }
        loop {
            self.start_what_can();
            if self.running.is_empty() {
                break;
            }
            match self.events.recv_timeout(TICK) {
                Ok(event) => self.on_event(event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    self.lost();
                    break;
                }
            }
            self.follow_output();
            self.ledger.write_now_and_then();
            if !self.end_when_asked() {
                break;
            }
        }
        self.skip_the_rest();
        if self.ending.is_some() || self.options.cancel.canceled() { RunStatus::Interrupted } else { RunStatus::Done }
    }

    fn status(&self, task: usize) -> StageStatus {
        self.ledger.record.stages[task].status
    }

    fn is_finished(&self, task: usize) -> bool {
        matches!(self.status(task), StageStatus::Done | StageStatus::Reused)
    }

    /// Reuses, skips or submits every waiting task whose inputs have ended.
    fn start_what_can(&mut self) {
        if self.options.cancel.canceled() {
            return;
        }
        // In the order of the plan inputs come first, so that one pass finds everything.
        for number in 0..self.plan.tasks.len() {
            if self.status(number) != StageStatus::Waiting {
                continue;
            }
            let task = &self.plan.tasks[number];
            let ended = |need: &&usize| !matches!(self.status(**need), StageStatus::Waiting | StageStatus::Running);
            if !task.needs.iter().all(|need| ended(&need)) {
                // A task that another one's failure stops is skipped as soon as that is known.
                if let Some(failed) = self.stopped_by(number) {
                    self.skip(number, failed);
                }
                continue;
            }
            match self.stopped_by(number) {
                Some(reason) => self.skip(number, reason),
                None => self.start(number),
            }
        }
    }

    /// Why a task can never run.
    fn stopped_by(&self, number: usize) -> Option<String> {
        let task = &self.plan.tasks[number];
        let failed = |need: &&usize| matches!(self.status(**need), StageStatus::Failed | StageStatus::Skipped);
        let mut stopped = task.needs.iter().filter(failed);
        let reason = |need: usize| {
            format!("`{}` {}", self.plan.tasks[need].stage, if self.status(need) == StageStatus::Failed { "failed" } else { "was skipped" })
        };
        match &task.work {
            Work::Evaluate { forecasts, .. } => {
                let all = forecasts.iter().all(|(_, need)| failed(&need));
                if all { stopped.next().map(|need| reason(*need)) } else { None }
            }
            // Trials go on with those that did not fail; without the table there is nothing to train on.
            Work::Trial(trial) => {
                let all = !trial.role.needs().is_empty() && trial.role.needs().iter().all(|need| failed(&need));
                if all || failed(&&trial.input) { stopped.next().map(|need| reason(*need)) } else { None }
            }
            _ => stopped.next().map(|need| reason(*need)),
        }
    }

    fn start(&mut self, number: usize) {
        let task = &self.plan.tasks[number];
        // With an input less, the hash of the plan would promise more than there is.
        let complete = task.needs.iter().all(|need| self.is_finished(*need));
        if complete {
            match self.directory.finished(task) {
                Ok(finished) => return self.reuse(number, &finished),
                Err(reason) => self.ledger.record.stages[number].reason = reason.map(str::to_owned),
            }
        } else if !task.content_with_some() {
            return;
        }
        match self.submit(number) {
            Ok(id) => {
                self.running.insert(id, number);
                self.ledger.record.stages[number].status = StageStatus::Running;
            }
            Err(NotSubmitted::Idle(reason)) => self.skip(number, reason),
            Err(NotSubmitted::Refused(error)) => self.fail(number, *error),
        }
    }

    fn submit(&self, number: usize) -> Result<TaskId, NotSubmitted> {
        let task = &self.plan.tasks[number];
        let io = |error: std::io::Error| {
            let message = format!("cannot make room for stage `{}` in the run directory: {error}", task.stage);
            NotSubmitted::Refused(Box::new(failure::named(task, failure::plain(message, Exit::Resources))))
        };
        self.directory.prepare(task).map_err(io)?;
        let place = |number: usize| self.directory.place(&self.plan.tasks[number]);
        let output = self.directory.place(task);
        // Always: a retried attempt goes on from the checkpoint of the one before; `prepare` removed what is not its own.
        let inputs = Inputs { place: &place, finished: &|number| self.is_finished(number), answer: &|number| self.answers.get(&number) };
        let call = task.work.call(&inputs, &output, true).map_err(NotSubmitted::Idle)?;
        let refused = |error| NotSubmitted::Refused(Box::new(failure::of_submission(task, &error)));
        self.session.submit(self.describe(task, call)).map_err(refused)
    }

    fn describe(&self, task: &Planned, call: Call) -> TaskDescription {
        let resources = &task.resources;
        let mut description = match call {
            Call::Function { pool, name, arguments } => {
                TaskDescription::function(&task.stage, pool, name, arguments).in_dir(self.directory.session())
            }
            Call::Program { program, arguments, env, dir } => {
                let mut description = TaskDescription::executable(&task.stage, program, arguments).in_dir(dir);
                description.env.extend(env);
                description.env.insert("DEEPRC_STAGE_DIR".to_owned(), self.directory.place(task).display().to_string());
                description
            }
        };
        if let Some(comm) = resources.comm {
            description.env.insert("DEEPRC_COMM".to_owned(), comm.to_string());
        }
        description.pipeline.clone_from(&task.pipeline);
        description.groups = vec![RankGroup {
            count: resources.ranks.value,
            cores: resources.cores.value,
            gpus: resources.gpus.value,
            memory: resources.memory.value,
        }];
        description.timeout = resources.timeout;
        description.retries = resources.retries;
        description.priority = resources.priority;
        description
    }

    fn on_event(&mut self, stamped: Stamped<Event>) {
        self.offset = self.offset.min(self.ledger.now() - stamped.at.as_secs_f64());
        let stage = |number: &usize| (self.plan.tasks[*number].pipeline.clone(), self.plan.tasks[*number].stage.clone());
        match stamped.event {
            Event::Waiting { task, why } => {
                if let Some((pipeline, stage)) = self.running.get(&task).map(stage) {
                    self.observer.event(&RunEvent::StageWaiting { pipeline, stage, why });
                }
            }
            Event::Started { task, attempt, .. } => {
                let Some(&number) = self.running.get(&task) else { return };
                let planned = &self.plan.tasks[number];
                if matches!(planned.work, Work::Program(_)) {
                    self.tails.insert(task, Tail::new(self.stdout(task, planned, attempt)));
                }
                let (pipeline, stage) = stage(&number);
                self.observer.event(&RunEvent::StageStarted { pipeline, stage, ranks: planned.resources.ranks.value, attempt });
            }
            Event::Progress { task, rank: 0, value, .. } => {
                let Some((pipeline, stage)) = self.running.get(&task).map(stage) else { return };
                if let Ok(Progress::Step { step, max_steps, train_loss, valid_loss }) = serde_json::from_value(value) {
                    let train_loss = Some(train_loss);
                    self.observer.event(&RunEvent::StageProgress { pipeline, stage, step, max_steps, train_loss, valid_loss });
                }
            }
            Event::Retried { report } => {
                if let Some(&number) = self.running.get(&report.id) {
                    self.follow(report.id, true);
                    self.tails.remove(&report.id);
                    self.ledger.task(&self.plan.tasks[number], &report, self.offset);
                }
            }
            Event::Ended { report } => {
                if let Some(number) = self.running.remove(&report.id) {
                    self.follow_ended(&report, number);
                    self.ended(number, &report);
                }
            }
            _ => {}
        }
    }

    /// As the pilot documents it: `<session>/tasks/<id>-<name>/[attempt-<n>/]rank-0.out`.
    fn stdout(&self, id: TaskId, task: &Planned, attempt: u32) -> std::path::PathBuf {
        let folder = self.directory.session().join("tasks").join(format!("{id}-{}", task.stage));
        let folder = if attempt > 1 { folder.join(format!("attempt-{attempt}")) } else { folder };
        folder.join("rank-0.out")
    }

    fn follow_output(&mut self) {
        let ids: Vec<TaskId> = self.tails.keys().copied().collect();
        ids.into_iter().for_each(|id| self.follow(id, false));
    }

    fn follow(&mut self, id: TaskId, last: bool) {
        let Some(&number) = self.running.get(&id) else { return };
        let Some(tail) = self.tails.get_mut(&id) else { return };
        let lines = tail.lines(last);
        self.tell_lines(number, lines);
    }

    fn follow_ended(&mut self, report: &TaskReport, number: usize) {
        if let Some(mut tail) = self.tails.remove(&report.id) {
            let lines = tail.lines(true);
            self.tell_lines(number, lines);
        }
    }

    fn tell_lines(&self, number: usize, lines: Vec<String>) {
        let task = &self.plan.tasks[number];
        for line in lines {
            self.observer.event(&RunEvent::StageOutput { pipeline: task.pipeline.clone(), stage: task.stage.clone(), line });
        }
    }

    fn ended(&mut self, number: usize, report: &TaskReport) {
        let task = &self.plan.tasks[number];
        self.ledger.task(task, report, self.offset);
        // Whole microseconds read back from JSON as the number that was written.
        let seconds = ((report.times.reported - report.times.submitted) * 1e6).round() / 1e6;
        self.ledger.record.stages[number].seconds = seconds;
        match &report.outcome {
            Outcome::Done => self.done(number, report, seconds),
            Outcome::Failed(failed) => {
                let log = failed.rank.unwrap_or(0) as usize * 2 + 1;
                self.fail(number, failure::of_task(task, failed, report.logs.get(log).map(|log| log.as_path())));
            }
            Outcome::Canceled => self.skip(number, "the run was ended".to_owned()),
        }
    }

    fn done(&mut self, number: usize, report: &TaskReport, seconds: f64) {
        let task = &self.plan.tasks[number];
        let answer = report.results.first().cloned().unwrap_or(Value::Null);
        let told = match results::add(&mut self.ledger.record, task, &answer) {
            Ok(told) => told,
            Err(error) => {
                let message = format!("stage `{}` answered what nobody understands: {error}", task.stage);
                return self.fail(number, failure::named(task, failure::plain(message, Exit::Task)));
            }
        };
        if let Some(first) = told.first_step_at {
            self.ledger.first_step(first);
        }
        let complete = task.needs.iter().all(|need| self.is_finished(*need));
        if complete && let Err(error) = self.directory.finish(task, &Finished { hash: task.hash.clone(), seconds, result: answer.clone() })
        {
            let message = format!("cannot mark stage `{}` as finished: {error}", task.stage);
            self.ledger.record.errors.push(failure::named(task, failure::plain(message, Exit::Resources)));
        }
        self.answers.insert(number, answer);
        let stage = &mut self.ledger.record.stages[number];
        stage.status = StageStatus::Done;
        stage.rows = told.rows;
        if !told.notes.is_empty() {
            stage.reason = Some(told.notes.join("; "));
        }
        self.tell_end(number, None);
    }

    fn reuse(&mut self, number: usize, finished: &Finished) {
        let task = &self.plan.tasks[number];
        // The mark's hash is the task's: what it holds was understood once.
        let told = results::add(&mut self.ledger.record, task, &finished.result).unwrap_or_default();
        self.answers.insert(number, finished.result.clone());
        let stage = &mut self.ledger.record.stages[number];
        stage.status = StageStatus::Reused;
        stage.rows = told.rows;
        stage.reason = Some(format!("finished before in {:.1} s, nothing changed", finished.seconds));
        self.observer.event(&RunEvent::StageReused { pipeline: task.pipeline.clone(), stage: task.stage.clone() });
    }

    fn fail(&mut self, number: usize, error: RunError) {
        let stage = &mut self.ledger.record.stages[number];
        stage.status = StageStatus::Failed;
        stage.error = Some(error.message.clone());
        let message = error.message.clone();
        self.ledger.record.errors.push(error);
        self.tell_end(number, Some(message));
    }

    fn tell_end(&mut self, number: usize, error: Option<String>) {
        let stage = &self.ledger.record.stages[number];
        self.observer.event(&RunEvent::StageEnded {
            pipeline: stage.pipeline.clone(),
            stage: stage.stage.clone(),
            seconds: stage.seconds,
            rows: stage.rows,
            error,
        });
        self.ledger.write();
    }

    fn skip(&mut self, number: usize, reason: String) {
        let stage = &mut self.ledger.record.stages[number];
        stage.status = StageStatus::Skipped;
        stage.reason = Some(reason.clone());
        let event = RunEvent::StageSkipped { pipeline: stage.pipeline.clone(), stage: stage.stage.clone(), reason };
        self.observer.event(&event);
    }

    fn skip_the_rest(&mut self) {
        let reason = if self.options.cancel.canceled() { "the run was ended" } else { "the session ended" };
        for number in 0..self.plan.tasks.len() {
            if matches!(self.status(number), StageStatus::Waiting | StageStatus::Running) {
                self.skip(number, reason.to_owned());
            }
        }
    }

    /// Cancels everything when the run was asked to end; `false` when the tasks' time for that is over.
    fn end_when_asked(&mut self) -> bool {
        if self.ending.is_none() && self.options.cancel.canceled() {
            self.ending = Some(Instant::now());
            self.running.keys().for_each(|id| self.session.cancel(*id));
        }
        self.ending.is_none_or(|since| since.elapsed() < LAST_WORDS)
    }

    /// The session ended under our feet.
    fn lost(&mut self) {
        let running: Vec<usize> = std::mem::take(&mut self.running).into_values().collect();
        for number in running {
            let task = &self.plan.tasks[number];
            let message = "the session ended while the task ran".to_owned();
            self.fail(number, failure::named(task, failure::plain(message, Exit::Resources)));
        }
    }
}
