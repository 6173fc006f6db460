//! A directory with data, pipelines in it, and an observer that remembers.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use deeprc_pipeline::{Cancel, Executables, Observer, Pipeline, RunEvent, RunOptions, RunRecord, StageStatus, run};

pub struct Bed {
    pub dir: tempfile::TempDir,
}

impl Bed {
    /// 48 hours of two tables as CSV.
    pub fn new() -> Bed {
        let dir = tempfile::tempdir().unwrap();
        let row = |hour: i32| format!("2024-01-{:02} {:02}:00:00", 1 + hour / 24, hour % 24);
        let loads: String = (0..48).map(|hour| format!("{},{}\n", row(hour), hour * 2)).collect();
        let oil: String = (0..48).rev().map(|hour| format!("{},{}.5\n", row(hour), hour)).collect();
        fs::write(dir.path().join("loads.csv"), format!("date,HUFL\n{loads}")).unwrap();
        fs::write(dir.path().join("oil.csv"), format!("date,OT\n{oil}")).unwrap();
        Bed { dir }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn pipeline(&self, text: &str) -> Pipeline {
        let parsed = Pipeline::parse(&self.path().join("test.toml"), text.to_owned(), &[]);
        parsed.unwrap_or_else(|faults| panic!("{}", faults[0]))
    }

    pub fn options(&self, resume: bool) -> RunOptions {
        let this = std::env::current_exe().unwrap();
        let executables = Executables { forecast: this.with_file_name("deeprc-forecast"), deeprc: this, python: PathBuf::from("python3") };
        RunOptions { cores: Some(2), resume, ..RunOptions::new(self.path().join("runs/test-1"), executables) }
    }

    pub fn run(&self, texts: &[&str], resume: bool) -> (RunRecord, Vec<String>) {
        let heard = Heard::default();
        let pipelines = texts.iter().map(|text| self.pipeline(text)).collect();
        let record = run(pipelines, &self.options(resume), &heard);
        (record, heard.lines.into_inner().unwrap())
    }
}

/// Remembers events as lines; may end the run when a stage starts.
#[derive(Default)]
pub struct Heard {
    pub lines: Mutex<Vec<String>>,
    pub end_at: Option<(String, Cancel)>,
}

impl Observer for Heard {
    fn event(&self, event: &RunEvent) {
        let line = match event {
            RunEvent::StageOutput { stage, line, .. } => format!("{stage} | {line}"),
            RunEvent::StageReused { stage, .. } => format!("{stage} reused"),
            RunEvent::StageSkipped { stage, reason, .. } => format!("{stage} skipped: {reason}"),
            RunEvent::StageEnded { stage, error, .. } => format!("{stage} ended {}", error.as_deref().unwrap_or("well")),
            RunEvent::StageStarted { stage, .. } => {
                if let Some((_, cancel)) = self.end_at.as_ref().filter(|(at, _)| at == stage) {
                    cancel.cancel();
                }
                return;
            }
            _ => return,
        };
        self.lines.lock().unwrap().push(line);
    }
}

/// `stage status` for every stage.
pub fn statuses(record: &RunRecord) -> Vec<String> {
    let word = |status: StageStatus| format!("{status:?}").to_lowercase();
    record.stages.iter().map(|stage| format!("{} {}", stage.stage, word(stage.status))).collect()
}

pub const DATA: &str = r#"name = "test"
[stage.loads]
kind = "read"
files = "loads.csv"
[stage.oil]
kind = "read"
files = "oil.csv"
[stage.joined]
kind = "join"
left = "oil"
right = "loads"
on = ["date"]
ranks = 2
[stage.wide]
kind = "derive"
input = "joined"
with = { sum = "\"OT\" + \"HUFL\"" }
ranks = 2
[stage.parts]
kind = "split"
input = "wide"
time = "date"
train = 0.5
test = 0.5
scale = { OT = "minmax" }
[stage.show]
kind = "command"
program = "head"
arguments = ["-n", 3, "${stage.wide.csv}"]
"#;
