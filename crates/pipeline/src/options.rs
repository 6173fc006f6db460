//! Where a run happens and with what.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

/// The programs that a run starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executables {
    /// `deeprc`: started as `deeprc agent` and `deeprc rank`.
    pub deeprc: PathBuf,
    /// `deeprc-forecast`: the rank executable that links libtorch, started as `deeprc-forecast rank`.
    pub forecast: PathBuf,
    /// The user's Python, for stages of kind `python` that name no interpreter.
    pub python: PathBuf,
}

impl Executables {
    /// `deeprc-forecast` beside `deeprc`, and the first `python3` of the search path.
    pub fn beside(deeprc: impl Into<PathBuf>) -> Executables {
        let deeprc = deeprc.into();
        let forecast = deeprc.with_file_name("deeprc-forecast");
        Executables { deeprc, forecast, python: PathBuf::from("python3") }
    }
}

/// Ends a run early from another thread or a signal handler; clones share one flag.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// A flag that nobody raised yet.
    pub fn new() -> Cancel {
        Cancel::default()
    }

    /// Asks the run to end: its tasks are cancelled, its record is written with status `interrupted`. Safe in a signal handler.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether the run was asked to end.
    pub fn canceled(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// How to run.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The run directory, see [`run_directory`]; created when absent.
    pub dir: PathBuf,
    /// Reuse what is finished in `dir`.
    pub resume: bool,
    /// Use this many cores; all of the machine's by default.
    pub cores: Option<u32>,
    /// The programs to start.
    pub executables: Executables,
    /// Raised to end the run early.
    pub cancel: Cancel,
    /// The command line, for the record.
    pub command_line: Vec<String>,
    /// When the program was started: `first_task_ms` and `first_step_ms` count from here.
    pub started: SystemTime,
}

impl RunOptions {
    /// A run in `dir` that reuses nothing and may use the whole machine.
    pub fn new(dir: PathBuf, executables: Executables) -> RunOptions {
        RunOptions {
            dir,
            resume: false,
            cores: None,
            executables,
            cancel: Cancel::new(),
            command_line: std::env::args().collect(),
            started: SystemTime::now(),
        }
    }
}

/// The directory of a run of the pipelines `names` under `root`: the next free `root/<name>-<n>`, which is created, or, with `resume`,
/// the latest one where there is one. Names of several pipelines are joined by `+`.
///
/// # Errors
/// `root` cannot be read or written.
pub fn run_directory(root: &Path, names: &[&str], resume: bool) -> io::Result<PathBuf> {
    fs::create_dir_all(root)?;
    let name = names.join("+");
    let number = |entry: &fs::DirEntry| entry.file_name().to_str()?.strip_prefix(&name)?.strip_prefix('-')?.parse::<u32>().ok();
    let last = fs::read_dir(root)?.filter_map(Result::ok).filter_map(|entry| number(&entry)).max();
    if let (true, Some(last)) = (resume, last) {
        return Ok(root.join(format!("{name}-{last}")));
    }
    // Another run may take the same number at this moment: `create_dir` decides who has it.
    let mut next = last.unwrap_or(0) + 1;
    loop {
        let dir = root.join(format!("{name}-{next}"));
        match fs::create_dir(&dir) {
            Ok(()) => return Ok(dir),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => next += 1,
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_numbered_and_resume_takes_the_latest() {
        let root = tempfile::tempdir().unwrap();
        let dir = |resume| run_directory(root.path(), &["ett"], resume).unwrap().file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!([dir(true), dir(false), dir(true), dir(false)], ["ett-1", "ett-2", "ett-2", "ett-3"]);
        assert!(run_directory(root.path(), &["ett", "ddp"], false).unwrap().ends_with("ett+ddp-1"));
    }
}
