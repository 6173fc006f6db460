//! What a person sees while a run goes on: a tree of stages in a terminal, plain lines elsewhere.
//!
//! ```text
//! forecast
//! ├─ loads          ✓ 4,000 rows in 192 ms
//! ├─ fit[nhits]     ⠹ 120/400 ━━━━━━╸         loss 0.3120, validation 0.3305, 6 s left
//! ├─ fit[gru]       · waits: 1 core free, 2 needed
//! └─ scores         · waits for fit[nhits], fit[gru]
//! ```

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use deeprc_pipeline::{Observer, PlannedStage, RunError, RunEvent};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::printer::{BOLD, ERROR, GOOD, Printer, SOFT, WAIT, seconds, styled};

/// The observer of a run that talks to stderr.
pub struct Progress {
    printer: Printer,
    state: Mutex<State>,
}

struct State {
    show: Show,
    stages: Vec<Stage>,
    several: bool,
    told: Vec<RunError>,
}

enum Show {
    Nothing,
    Lines,
    Tree(MultiProgress),
}

struct Stage {
    plan: PlannedStage,
    ended: bool,
    running: bool,
    /// Quarter of the training that was last told in plain lines.
    quarter: u64,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Shows the tree where somebody watches, lines elsewhere, nothing when told to be `silent`.
    pub fn new(printer: Printer, silent: bool) -> Self {
        let show = match (silent, printer.is_watched()) {
            (true, _) => Show::Nothing,
            (false, true) => Show::Tree(MultiProgress::new()),
            (false, false) => Show::Lines,
        };
        let state = State { show, stages: Vec::new(), several: false, told: Vec::new() };
        Self { printer, state: Mutex::new(state) }
    }

    /// Ends the display; returns the errors that were already printed.
    pub fn finish(self) -> Vec<RunError> {
        let state = self.state.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        for bar in state.stages.iter().filter_map(|stage| stage.bar.as_ref()) {
            bar.abandon();
        }
        state.told
    }
}

impl Observer for Progress {
    fn event(&self, event: &RunEvent) {
        let mut state = self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        state.on_event(event, self.printer);
    }
}

impl State {
    fn on_event(&mut self, event: &RunEvent, printer: Printer) {
        match event {
            RunEvent::RunStarted { dir, stages } => self.start(dir, stages, printer),
            RunEvent::PipelineRejected { pipeline, diagnostics } => {
                for fault in diagnostics {
                    self.suspended(|| printer.rendered(format_args!("{fault}\n\n")));
                    self.told.push(RunError::from_diagnostic(pipeline, fault));
                }
            }
            RunEvent::StageWaiting { pipeline, stage, why } => {
                self.end_or(pipeline, stage, printer, false, '·', WAIT, format!("waits: {why}"));
            }
            RunEvent::StageStarted { pipeline, stage, ranks, attempt } => self.started(pipeline, stage, *ranks, *attempt, printer),
            RunEvent::StageProgress { pipeline, stage, step, max_steps, train_loss, valid_loss } => {
                self.stepped(pipeline, stage, *step, *max_steps, losses(*train_loss, *valid_loss), printer);
            }
            RunEvent::StageOutput { pipeline, stage, line } => self.output(pipeline, stage, line, printer),
            RunEvent::StageReused { pipeline, stage } => {
                self.end_or(pipeline, stage, printer, true, '↻', GOOD, "reused".into());
            }
            RunEvent::StageEnded { pipeline, stage, seconds: time, rows, error: None } => {
                let rows = rows.map_or(String::new(), |rows| format!("{} rows in ", thousands(rows)));
                self.end_or(pipeline, stage, printer, true, '✓', GOOD, format!("{rows}{}", seconds(*time)));
            }
            RunEvent::StageEnded { pipeline, stage, seconds: time, error: Some(error), .. } => {
                let first = error.lines().next().unwrap_or_default();
                self.end_or(pipeline, stage, printer, true, '✗', ERROR, format!("failed after {}: {first}", seconds(*time)));
            }
            RunEvent::StageSkipped { pipeline, stage, reason } => {
                self.end_or(pipeline, stage, printer, true, '–', WAIT, format!("skipped: {reason}"));
            }
            RunEvent::RunEnded { .. } => {}
        }
    }

    fn start(&mut self, dir: &std::path::Path, stages: &[PlannedStage], printer: Printer) {
        let pipelines = stages.iter().map(|stage| stage.pipeline.as_str()).collect::<std::collections::BTreeSet<_>>().len();
        self.several = pipelines > 1;
        let plan = |plan: &PlannedStage| Stage { plan: plan.clone(), ended: false, running: false, quarter: 0, bar: None };
        self.stages = stages.iter().map(plan).collect();
        if matches!(self.show, Show::Nothing) {
            return;
        }
        let many = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        printer.talk(format_args!("{}: {} of {}", styled(BOLD, dir.display()), many(stages.len(), "stage"), many(pipelines, "pipeline")));
        let Show::Tree(tree) = &self.show else { return };
        let width = stages.iter().map(|stage| stage.stage.chars().count()).max().unwrap_or(0);
        for at in 0..stages.len() {
            if at == 0 || stages[at].pipeline != stages[at - 1].pipeline {
                let head = tree.add(ProgressBar::new_spinner());
                head.set_style(style("{msg}"));
                head.finish_with_message(styled(BOLD, &stages[at].pipeline));
            }
            let last = stages.get(at + 1).is_none_or(|next| next.pipeline != stages[at].pipeline);
            let bar = tree.add(ProgressBar::new_spinner());
            bar.set_style(style("{prefix} {msg}"));
            bar.set_prefix(format!("{} {:width$}", if last { "└─" } else { "├─" }, stages[at].stage));
            self.stages[at].bar = Some(bar);
        }
        self.tell_waiting();
    }

    /// Says for every stage that cannot start which stages it needs.
    fn tell_waiting(&self) {
        let ended: HashMap<(&str, &str), bool> =
            self.stages.iter().map(|s| ((s.plan.pipeline.as_str(), s.plan.stage.as_str()), s.ended)).collect();
        for stage in self.stages.iter().filter(|stage| !stage.ended && !stage.running) {
            let needs = stage.plan.needs.iter().map(String::as_str);
            let missing: Vec<&str> = needs.filter(|need| ended.get(&(stage.plan.pipeline.as_str(), *need)) == Some(&false)).collect();
            if let (Some(bar), false) = (&stage.bar, missing.is_empty()) {
                bar.set_message(styled(SOFT, format_args!("· waits for {}", missing.join(", "))));
            }
        }
    }

    fn find(&mut self, pipeline: &str, label: &str) -> Option<&mut Stage> {
        self.stages.iter_mut().find(|stage| stage.plan.pipeline == pipeline && stage.plan.stage == label)
    }

    fn name(&self, pipeline: &str, stage: &str) -> String {
        if self.several { format!("{pipeline}/{stage}") } else { stage.to_string() }
    }

    fn suspended(&self, print: impl FnOnce()) {
        match &self.show {
            Show::Tree(tree) => tree.suspend(print),
            Show::Lines | Show::Nothing => print(),
        }
    }

    fn line(&self, pipeline: &str, stage: &str, text: &str, printer: Printer) {
        if matches!(self.show, Show::Lines) {
            printer.talk(format_args!("{}: {text}", self.name(pipeline, stage)));
        }
    }

    /// A stage came to its end (`ended`), or says why it does not start.
    #[expect(clippy::too_many_arguments, reason = "one row of the display has this many parts")]
    fn end_or(&mut self, pipeline: &str, label: &str, printer: Printer, ended: bool, sign: char, look: anstyle::Style, text: String) {
        self.line(pipeline, label, &if sign == '✓' { format!("done: {text}") } else { text.clone() }, printer);
        let Some(stage) = self.find(pipeline, label) else { return };
        stage.ended = ended;
        stage.running = false;
        if let Some(bar) = &stage.bar {
            bar.disable_steady_tick();
            bar.set_style(style("{prefix} {msg}"));
            bar.set_message(format!("{} {text}", styled(look, sign)));
        }
        if ended {
            self.tell_waiting();
        }
    }

    fn started(&mut self, pipeline: &str, label: &str, ranks: u32, attempt: u32, printer: Printer) {
        let again = if attempt > 1 { format!(", attempt {attempt}") } else { String::new() };
        let ranks = if ranks == 1 { "1 rank".to_string() } else { format!("{ranks} ranks") };
        self.line(pipeline, label, &format!("runs on {ranks}{again}"), printer);
        let Some(stage) = self.find(pipeline, label) else { return };
        stage.running = true;
        if let Some(bar) = &stage.bar {
            bar.set_style(style("{prefix} {spinner} {msg}"));
            bar.set_message(format!("{ranks}{again}, {}", stage.plan.kind));
            bar.enable_steady_tick(Duration::from_millis(120));
        }
    }

    fn stepped(&mut self, pipeline: &str, label: &str, step: u64, max_steps: u64, losses: String, printer: Printer) {
        let quarter = step * 4 / max_steps.max(1);
        let Some(stage) = self.find(pipeline, label) else { return };
        let told = std::mem::replace(&mut stage.quarter, quarter);
        if let Some(bar) = &stage.bar {
            if bar.length() != Some(max_steps) {
                // A resumed training starts in the middle: the estimate must not count the steps of the earlier run.
                bar.set_length(max_steps);
                bar.set_position(step);
                bar.reset_eta();
                bar.set_style(style("{prefix} {spinner} {pos}/{len} {bar:20}  {msg}, {eta} left").progress_chars("━╸ "));
            }
            bar.set_position(step);
            bar.set_message(losses);
        } else if quarter > told || step == max_steps {
            self.line(pipeline, label, &format!("step {step} of {max_steps}, {losses}"), printer);
        }
    }

    fn output(&self, pipeline: &str, stage: &str, text: &str, printer: Printer) {
        if !matches!(self.show, Show::Nothing) {
            let name = self.name(pipeline, stage);
            self.suspended(|| printer.talk(format_args!("{} {text}", styled(SOFT, format_args!("{name} |")))));
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .expect("the templates of this file are valid")
        .tick_strings(&["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏", " "])
}

fn losses(train: Option<f64>, valid: Option<f64>) -> String {
    let part = |name, loss: Option<f64>| loss.map(|loss| format!("{name} {loss:.4}"));
    let parts: Vec<String> = [part("loss", train), part("validation", valid)].into_iter().flatten().collect();
    if parts.is_empty() { "no loss yet".into() } else { parts.join(", ") }
}

/// `28000` as `28,000`.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let head = digits.len() % 3;
    let mut groups: Vec<&str> = Vec::new();
    if head > 0 {
        groups.push(&digits[..head]);
    }
    groups.extend((head..digits.len()).step_by(3).map(|at| &digits[at..at + 3]));
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        assert_eq!([7, 4000, 28000, 1234567].map(thousands), ["7", "4,000", "28,000", "1,234,567"]);
    }
}
