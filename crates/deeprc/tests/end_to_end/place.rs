//! A directory with two small tables in it, and `deeprc` started there.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

/// No run of these tests may take longer; on two busy cores the longest takes a few seconds.
pub const DEADLINE: Duration = Duration::from_secs(180);

/// Two tables joined by time, split and scaled: what the other pipelines begin with.
pub const TABLES: &str = r#"
[stage.loads]
kind = "read"
files = "loads.csv"
ranks = 2

[stage.oil]
kind = "read"
files = "oil.csv"

[stage.joined]
kind = "join"
left = "loads"
right = "oil"
on = ["ds"]
ranks = 2

[stage.parts]
kind = "split"
input = "joined"
time = "ds"
train = 0.6
validation = 0.2
test = 0.2
scale = { y = "standard" }
"#;

/// A training, its forecast and its scores.
pub const MODEL: &str = r#"
[stage.fit]
kind = "train"
input = "parts"
time = "ds"
model = "nlinear"
h = 12
input_size = 24
max_steps = 60
val_check_steps = 20

[stage.forecast]
kind = "predict"
model = "fit"
step = 12

[stage.scores]
kind = "evaluate"
input = "forecast"
metrics = ["mse", "mae"]
baseline = "seasonal-naive"
season = 24
"#;

pub struct Place(tempfile::TempDir);

/// What a finished `deeprc` left.
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self}"))
    }

    #[track_caller]
    pub fn expect(self, code: i32, texts: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{self}");
        for text in texts {
            assert!(self.stderr.contains(text), "`{text}` is not in\n{self}");
        }
        self
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit {:?}\n{}\n--- stderr\n{}", self.code, self.stdout, self.stderr)
    }
}

/// A `deeprc` that runs, with the lines of its stderr as they come.
pub struct Running {
    child: Child,
    lines: Receiver<String>,
    seen: String,
}

impl Place {
    pub fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        place.write("loads.csv", &table("y,load", 0));
        place.write("oil.csv", &table("oil,ot", 7));
        place
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A pipeline file of this name, `<name>.toml`.
    pub fn pipeline(&self, name: &str, stages: &[&str]) {
        self.write(&format!("{name}.toml"), &format!("name = \"{name}\"\nseed = 1\n{}", stages.concat()));
    }

    pub fn fifo(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        path
    }

    pub fn start(&self, arguments: &[&str]) -> Running {
        let mut child = Command::new(env!("CARGO_BIN_EXE_deeprc"))
            .args(arguments)
            .current_dir(self.path())
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (send, lines) = channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        Running { child, lines, seen: String::new() }
    }

    pub fn deeprc(&self, arguments: &[&str]) -> Ended {
        self.start(arguments).end()
    }
}

impl Running {
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line of stderr that contains `text`.
    pub fn until(&mut self, text: &str) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    let _ = writeln!(self.seen, "{line}");
                    if line.contains(text) {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("no `{text}` within the deadline:\n{}", self.seen),
                Err(RecvTimeoutError::Disconnected) => panic!("ended before `{text}`:\n{}", self.seen),
            }
        }
    }

    pub fn signal(&self, name: &str) {
        signal(self.id(), name);
    }

    /// Processes below this one whose command line contains all words.
    pub fn below(&self, words: &[&str]) -> Vec<u32> {
        let parent = |id: u32| -> Option<u32> {
            let text = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
            text.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
        };
        let is_below = |id: u32| std::iter::successors(Some(id), |&id| parent(id)).any(|above| above == self.id());
        let matches = |id: u32| {
            let line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            words.iter().all(|word| line.contains(word))
        };
        let ids = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        ids.filter(|&id| id != self.id() && matches(id) && is_below(id)).collect()
    }

    pub fn end(mut self) -> Ended {
        // Both streams end when the process does, so waiting for stderr's end with a deadline is waiting for the process.
        let mut stdout = self.child.stdout.take().unwrap();
        let (send, whole) = channel();
        std::thread::spawn(move || {
            let mut text = String::new();
            let _ = stdout.read_to_string(&mut text);
            send.send(text)
        });
        let Ok(stdout) = whole.recv_timeout(DEADLINE) else {
            let _ = self.child.kill();
            panic!("did not end within the deadline:\n{}", self.seen);
        };
        let mut stderr = std::mem::take(&mut self.seen);
        while let Ok(line) = self.lines.recv_timeout(DEADLINE) {
            let _ = writeln!(stderr, "{line}");
        }
        Ended { code: self.child.wait().unwrap().code(), stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn signal(id: u32, name: &str) {
    let done = Command::new("kill").args([&format!("-{name}"), &id.to_string()]).status().unwrap();
    assert!(done.success(), "kill -{name} {id}");
}

/// What somebody writes into a FIFO, within the deadline.
pub fn read(fifo: &Path) -> String {
    let (send, text) = channel();
    let fifo = fifo.to_path_buf();
    std::thread::spawn(move || send.send(std::fs::read_to_string(fifo)));
    text.recv_timeout(DEADLINE).expect("nobody wrote within the deadline").unwrap()
}

/// True if models can be trained here.
pub fn can_train() -> bool {
    let beside = Path::new(env!("CARGO_BIN_EXE_deeprc")).with_file_name("deeprc-forecast");
    let path = std::env::var_os("DEEPRC_FORECAST").map_or(beside, PathBuf::from);
    if !path.is_file() {
        println!("skipped: {} was not built (`make build` does)", path.display());
    }
    path.is_file()
}

/// 480 hours of two columns with a daily course.
fn table(columns: &str, shift: u32) -> String {
    let mut text = format!("ds,{columns}\n");
    for hour in 0..480 {
        text += &row(hour, shift);
    }
    text
}

pub fn row(hour: u32, shift: u32) -> String {
    let phase = f64::from(hour + shift) / 24.0 * std::f64::consts::TAU;
    let noise = f64::from((hour * 7919 + shift * 104_729) % 1000) / 2500.0;
    format!("{},{:.4},{:.4}\n", stamp(hour), 10.0 + 3.0 * phase.sin() + noise, 5.0 + phase.cos() + noise)
}

/// Hours since the start of 2024.
pub fn stamp(hour: u32) -> String {
    let mut day = hour / 24;
    let mut month = 1;
    for length in [31, 29, 31, 30] {
        if day >= length {
            day -= length;
            month += 1;
        } else {
            break;
        }
    }
    format!("2024-{month:02}-{:02} {:02}:00:00", day + 1, hour % 24)
}
