//! What a person sees while a run goes on: a tree of stages in a terminal, plain lines elsewhere.
//!
//! ```text
//! forecast
//! ├─ loads          ✓ 4,000 rows in 192 ms
//! ├─ fit[nhits]     ⠹ 120/400 ━━━━━━╸         loss 0.3120, validation 0.3305, 6 s left
//! ├─ fit[gru]       · waits: 1 core free, 2 needed
//! └─ scores         · waits for fit[nhits], fit[gru]
//! ```

use std::collections::{BTreeSet, HashSet};
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use anstyle::Style;
use deeprc_pipeline::{Observer, PlannedStage, RunError, RunEvent};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::printer::{BOLD, ERROR, GOOD, Printer, SOFT, WAIT, seconds, styled};

/// The observer of a run that talks to stderr.
pub struct Progress(Mutex<State>);

struct State {
    printer: Printer,
    show: Show,
    stages: Vec<Stage>,
    /// Names carry their pipeline.
    several: bool,
    /// More stages than lines in the terminal: what has ended scrolls away above the tree.
    compact: bool,
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
    /// A stage that it needs has not ended.
    blocked: bool,
    /// What was last told in plain lines, so that nothing is said twice.
    said: String,
    /// Quarter of the training that was last told in plain lines.
    quarter: u64,
    bar: Option<ProgressBar>,
}

/// What is told of a stage that does not run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sign {
    Waits,
    Done,
    Reused,
    Failed,
    Skipped,
}

impl Sign {
    fn look(self) -> (char, Style) {
        match self {
            Sign::Waits => ('·', WAIT),
            Sign::Done => ('✓', GOOD),
            Sign::Reused => ('↻', GOOD),
            Sign::Failed => ('✗', ERROR),
            Sign::Skipped => ('–', WAIT),
        }
    }

    fn word(self) -> &'static str {
        match self {
            Sign::Waits => "waits",
            Sign::Done => "done",
            Sign::Reused => "reused",
            Sign::Failed => "failed",
            Sign::Skipped => "skipped",
        }
    }
}

impl Progress {
    /// Shows the tree where somebody watches, lines elsewhere, nothing when told to be `silent`. With `several`
    /// pipelines every name carries its pipeline's.
    pub fn new(printer: Printer, silent: bool, several: bool) -> Self {
        let show = match (silent, printer.is_watched()) {
            (true, _) => Show::Nothing,
            (false, true) => Show::Tree(MultiProgress::new()),
            (false, false) => Show::Lines,
        };
        Self(Mutex::new(State { several, ..State::new(printer, show) }))
    }

    /// Ends the display; returns the errors that were already printed.
    pub fn finish(self) -> Vec<RunError> {
        let state = self.0.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        for bar in state.stages.iter().filter_map(|stage| stage.bar.as_ref()) {
            bar.abandon();
        }
        state.told
    }
}

impl Observer for Progress {
    fn event(&self, event: &RunEvent) {
        let mut state = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        state.on_event(event);
    }
}

impl State {
    fn new(printer: Printer, show: Show) -> Self {
        Self { printer, show, stages: Vec::new(), several: false, compact: false, told: Vec::new() }
    }

    fn on_event(&mut self, event: &RunEvent) {
        match event {
            RunEvent::RunStarted { dir, stages } => self.start(dir, stages),
            RunEvent::PipelineRejected { pipeline, diagnostics } => {
                for fault in diagnostics {
                    self.suspended(|| self.printer.rendered(format_args!("{fault}\n\n")));
                    self.told.push(RunError::from_diagnostic(pipeline, fault));
                }
            }
            RunEvent::StageWaiting { pipeline, stage, why } => self.tell(pipeline, stage, Sign::Waits, why),
            RunEvent::StageStarted { pipeline, stage, ranks, attempt } => {
                self.started(pipeline, stage, *ranks, *attempt);
            }
            RunEvent::StageProgress { pipeline, stage, step, max_steps, train_loss, valid_loss } => {
                self.stepped(pipeline, stage, (*step, *max_steps), &losses(*train_loss, *valid_loss));
            }
            RunEvent::StageOutput { pipeline, stage, line } => self.output(pipeline, stage, line),
            RunEvent::StageReused { pipeline, stage } => self.tell(pipeline, stage, Sign::Reused, ""),
            RunEvent::StageEnded { pipeline, stage, seconds: time, rows, error: None } => {
                let rows = rows.map_or(String::new(), |rows| format!("{} rows in ", thousands(rows)));
                self.tell(pipeline, stage, Sign::Done, &format!("{rows}{}", seconds(*time)));
            }
            RunEvent::StageEnded { pipeline, stage, error: Some(error), .. } => {
                self.tell(pipeline, stage, Sign::Failed, error.lines().next().unwrap_or_default());
            }
            RunEvent::StageSkipped { pipeline, stage, reason } => self.tell(pipeline, stage, Sign::Skipped, reason),
            RunEvent::RunEnded { .. } => {}
        }
    }

    fn start(&mut self, dir: &Path, stages: &[PlannedStage]) {
        let pipelines = stages.iter().map(|stage| &stage.pipeline).collect::<BTreeSet<_>>().len();
        self.stages = stages.iter().map(Stage::new).collect();
        if matches!(self.show, Show::Nothing) {
            return;
        }
        let many = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        let of = format!("{} of {}", many(stages.len(), "stage"), many(pipelines, "pipeline"));
        self.printer.talk(format_args!("{}: {of}", styled(BOLD, dir.display())));
        let Show::Tree(tree) = &self.show else { return };
        let lines = rustix::termios::tcgetwinsize(std::io::stderr()).map_or(24, |size| size.ws_row.into());
        self.compact = stages.len() + pipelines + 2 > lines;
        let width = stages.iter().map(|stage| stage.stage.chars().count()).max().unwrap_or(0);
        for (at, stage) in self.stages.iter_mut().enumerate() {
            if at == 0 || stages[at].pipeline != stages[at - 1].pipeline {
                let head = tree.add(ProgressBar::new_spinner());
                head.set_style(style("{msg}"));
                head.finish_with_message(styled(BOLD, &stages[at].pipeline));
            }
            let last = stages.get(at + 1).is_none_or(|next| next.pipeline != stages[at].pipeline);
            let bar = tree.add(ProgressBar::new_spinner());
            bar.set_style(style("{prefix} {msg}"));
            bar.set_prefix(format!("{} {:width$}", if last { "└─" } else { "├─" }, stages[at].stage));
            stage.bar = Some(bar);
        }
        self.tell_waiting();
    }

    /// Says for every stage that cannot start which stages it needs.
    fn tell_waiting(&mut self) {
        let open = self.stages.iter().filter(|stage| !stage.ended);
        let open: HashSet<(String, String)> = open.map(|s| (s.plan.pipeline.clone(), s.plan.stage.clone())).collect();
        for stage in self.stages.iter_mut().filter(|stage| !stage.ended && !stage.running) {
            let is_open = |need: &&String| open.contains(&(stage.plan.pipeline.clone(), need.to_string()));
            let missing: Vec<&str> = stage.plan.needs.iter().filter(is_open).map(String::as_str).collect();
            let blocked = std::mem::replace(&mut stage.blocked, !missing.is_empty());
            match &stage.bar {
                Some(bar) if stage.blocked => bar.set_message(styled(SOFT, format_args!("· waits for {}", missing.join(", ")))),
                Some(bar) if blocked => bar.set_message(styled(SOFT, "· ready")),
                _ => {}
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

    /// A plain line, where there is no tree; the same one only once.
    fn line(&mut self, pipeline: &str, label: &str, text: String) {
        if !matches!(self.show, Show::Lines) {
            return;
        }
        let (name, printer) = (self.name(pipeline, label), self.printer);
        let said = self.find(pipeline, label).map(|stage| std::mem::replace(&mut stage.said, text.clone()));
        if said.as_ref() != Some(&text) {
            printer.talk(format_args!("{name}: {text}"));
        }
    }

    /// A stage came to its end, or says why it does not start.
    fn tell(&mut self, pipeline: &str, label: &str, sign: Sign, text: &str) {
        let separator = if text.is_empty() { "" } else { ": " };
        self.line(pipeline, label, format!("{}{separator}{text}", sign.word()));
        let (compact, name) = (self.compact, self.name(pipeline, label));
        let Some(stage) = self.find(pipeline, label) else { return };
        stage.ended = sign != Sign::Waits;
        stage.running = false;
        let (mark, look) = sign.look();
        let text = match sign {
            Sign::Done => text.to_string(),
            _ => format!("{}{separator}{text}", sign.word()),
        };
        if let Some(bar) = &stage.bar {
            bar.disable_steady_tick();
            bar.set_style(style("{prefix} {msg}"));
            bar.set_message(format!("{} {text}", styled(look, mark)));
        }
        if stage.ended
            && compact
            && let Some(bar) = stage.bar.take()
        {
            bar.finish_and_clear();
            self.suspended(|| self.printer.talk(format_args!("{} {name}: {text}", styled(look, mark))));
        }
        self.tell_waiting();
    }

    fn started(&mut self, pipeline: &str, label: &str, ranks: u32, attempt: u32) {
        let again = if attempt > 1 { format!(", attempt {attempt}") } else { String::new() };
        let ranks = if ranks == 1 { "1 rank".to_string() } else { format!("{ranks} ranks") };
        self.line(pipeline, label, format!("runs on {ranks}{again}"));
        let Some(stage) = self.find(pipeline, label) else { return };
        stage.running = true;
        if let Some(bar) = &stage.bar {
            bar.set_style(style("{prefix} {spinner} {msg}"));
            bar.set_message(format!("{}, {ranks}{again}", stage.plan.kind));
            bar.enable_steady_tick(Duration::from_millis(120));
        }
    }

    fn stepped(&mut self, pipeline: &str, label: &str, (step, max_steps): (u64, u64), losses: &str) {
        let quarter = step * 4 / max_steps.max(1);
        let Some(stage) = self.find(pipeline, label) else { return };
        let told = std::mem::replace(&mut stage.quarter, quarter);
        if let Some(bar) = &stage.bar {
            if bar.length() != Some(max_steps) {
                // A resumed training starts in the middle: the estimate must not count the steps of the earlier run.
                bar.set_length(max_steps);
                bar.set_position(step);
                bar.reset_eta();
                bar.set_style(style("{prefix} {spinner} {pos}/{len} {bar:20}  {msg}, {eta} left"));
            }
            bar.set_position(step);
            bar.set_message(losses.to_string());
        } else if quarter > told {
            self.line(pipeline, label, format!("step {step} of {max_steps}, {losses}"));
        }
    }

    fn output(&self, pipeline: &str, stage: &str, text: &str) {
        if !matches!(self.show, Show::Nothing) {
            let name = styled(SOFT, format_args!("{} |", self.name(pipeline, stage)));
            self.suspended(|| self.printer.talk(format_args!("{name} {text}")));
        }
    }
}

impl Stage {
    fn new(plan: &PlannedStage) -> Self {
        Self { plan: plan.clone(), ended: false, running: false, blocked: false, said: String::new(), quarter: 0, bar: None }
    }
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).expect("the templates of this file are valid");
    style.progress_chars("━╸ ").tick_strings(&["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏", " "])
}

fn losses(train: Option<f64>, valid: Option<f64>) -> String {
    let part = |name, loss: Option<f64>| loss.map(|loss| format!("{name} {loss:.4}"));
    let parts: Vec<String> = [part("loss", train), part("validation", valid)].into_iter().flatten().collect();
    if parts.is_empty() { "no loss yet".into() } else { parts.join(", ") }
}

/// `28000` as `28,000`.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let (head, rest) = digits.split_at(digits.len() % 3);
    let groups = std::iter::once(head).chain((0..rest.len() / 3).map(|k| &rest[3 * k..3 * k + 3]));
    groups.filter(|group| !group.is_empty()).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use indicatif::ProgressDrawTarget;

    use super::*;

    #[test]
    fn thousands_are_grouped() {
        assert_eq!([7, 4000, 28000, 123456, 1234567].map(thousands), ["7", "4,000", "28,000", "123,456", "1,234,567"]);
    }

    fn plan(stage: &str, needs: &[&str]) -> PlannedStage {
        let needs = needs.iter().map(|need| need.to_string()).collect();
        PlannedStage { pipeline: "p".into(), stage: stage.into(), kind: "train".into(), needs }
    }

    fn messages(state: &State) -> Vec<String> {
        let bars = state.stages.iter().filter_map(|stage| stage.bar.as_ref());
        bars.map(|bar| anstream::adapter::strip_str(&bar.message()).to_string()).collect()
    }

    #[test]
    fn the_tree_says_what_runs_and_what_waits() {
        let tree = MultiProgress::with_draw_target(ProgressDrawTarget::hidden());
        let mut state = State::new(Printer, Show::Tree(tree));
        let (pipeline, stage) = ("p".to_string(), "fit".to_string());
        let stages = vec![plan("fit", &[]), plan("forecast", &["fit"]), plan("scores", &["forecast"])];
        state.on_event(&RunEvent::RunStarted { dir: "runs/p-1".into(), stages });
        assert_eq!(messages(&state), ["", "· waits for fit", "· waits for forecast"]);
        state.on_event(&RunEvent::StageWaiting { pipeline: pipeline.clone(), stage: stage.clone(), why: "1 core free, 2 needed".into() });
        assert_eq!(messages(&state)[0], "· waits: 1 core free, 2 needed");
        state.on_event(&RunEvent::StageStarted { pipeline: pipeline.clone(), stage: stage.clone(), ranks: 2, attempt: 1 });
        assert_eq!(messages(&state)[0], "train, 2 ranks");
        let (step, max_steps) = (100, 400);
        state.on_event(&RunEvent::StageProgress {
            pipeline: pipeline.clone(),
            stage: stage.clone(),
            step,
            max_steps,
            train_loss: Some(0.5),
            valid_loss: None,
        });
        assert_eq!(messages(&state)[0], "loss 0.5000");
        state.on_event(&RunEvent::StageEnded { pipeline, stage, seconds: 1.5, rows: Some(4000), error: None });
        assert_eq!(messages(&state), ["✓ 4,000 rows in 1.50 s", "· ready", "· waits for forecast"]);
    }
}
