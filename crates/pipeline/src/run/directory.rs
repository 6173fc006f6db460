//! The run directory: what lies where, and what of it is finished.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::plan::{Planned, Work};

/// ```text
/// runs/ett-3/
/// ├── run.json, report.html, pipelines/ett.toml
/// ├── tables/ett.joined/         global tables (and .csv exports)
/// ├── models/ett.fit.nhits/      checkpoints
/// ├── work/ett.report/           what programs leave (DEEPRC_STAGE_DIR)
/// ├── stages/ett.joined.json     marks of finished stages
/// └── session/                   journal and logs of the tasks
/// ```
#[derive(Debug)]
pub(crate) struct RunDirectory {
    root: PathBuf,
    resume: bool,
}

/// Left by a finished task; a task with the same hash need not run again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Finished {
    pub hash: String,
    pub seconds: f64,
    /// Answer of rank 0, `null` for programs.
    pub result: Value,
}

impl RunDirectory {
    /// Creates what is missing and points `last` beside it to it.
    pub fn open(root: &Path, resume: bool) -> io::Result<RunDirectory> {
        for inside in ["tables", "models", "stages", "pipelines", "work"] {
            fs::create_dir_all(root.join(inside))?;
        }
        let root = root.canonicalize()?;
        if let (Some(parent), Some(name)) = (root.parent(), root.file_name()) {
            // Only a convenience: a file system without links must not stop the run.
            let fresh = parent.join(format!(".last.{}", std::process::id()));
            let _ = std::os::unix::fs::symlink(name, &fresh).and_then(|()| fs::rename(&fresh, parent.join("last")));
        }
        Ok(RunDirectory { root, resume })
    }

    pub fn session(&self) -> PathBuf {
        self.root.join("session")
    }

    /// Where the result of a task is.
    pub fn place(&self, task: &Planned) -> PathBuf {
        let folder = match task.work {
            Work::Train { .. } | Work::Trial(_) => "models",
            Work::Program(_) => "work",
            _ => "tables",
        };
        self.root.join(folder).join(task.slug())
    }

    fn mark(&self, task: &Planned) -> PathBuf {
        self.root.join("stages").join(format!("{}.json", task.slug()))
    }

    /// What an earlier run in this directory left of the task, if it may be reused, or else why it may not (for people).
    pub fn finished(&self, task: &Planned) -> Result<Finished, Option<&'static str>> {
        let Ok(text) = fs::read(self.mark(task)) else { return Err(None) };
        if !self.resume {
            return Err(None);
        }
        let finished: Finished = serde_json::from_slice(&text).map_err(|_| Some("its mark cannot be read"))?;
        if finished.hash != task.hash {
            return Err(Some("its options, inputs or files changed"));
        }
        if !self.place(task).exists() {
            return Err(Some("its result is gone"));
        }
        Ok(finished)
    }

    /// Writes the mark: whole or not at all.
    pub fn finish(&self, task: &Planned, finished: &Finished) -> io::Result<()> {
        let fresh = self.root.join("stages").join(format!(".{}.new", task.slug()));
        fs::write(&fresh, serde_json::to_vec(finished)?)?;
        fs::rename(fresh, self.mark(task))
    }

    /// Makes room for the result of a task. Returns whether a training may go on from the checkpoint that is there: it may if
    /// that belongs to the same options and inputs.
    pub fn prepare(&self, task: &Planned) -> io::Result<bool> {
        let place = self.place(task);
        remove(&self.mark(task))?;
        match task.work {
            Work::Train { .. } | Work::Trial(_) => {
                let owner = place.join("hash");
                let continued = self.resume && fs::read_to_string(&owner).is_ok_and(|hash| hash == task.hash);
                if !continued {
                    remove(&place)?;
                    fs::create_dir_all(&place)?;
                    fs::write(owner, &task.hash)?;
                }
                Ok(continued)
            }
            Work::Program(_) => {
                fs::create_dir_all(&place)?;
                Ok(false)
            }
            _ => {
                remove(&place)?;
                Ok(false)
            }
        }
    }

    /// Keeps a copy of a pipeline file.
    pub fn keep(&self, name: &str, text: &str) -> io::Result<()> {
        fs::write(self.root.join("pipelines").join(format!("{name}.toml")), text)
    }
}

fn remove(path: &Path) -> io::Result<()> {
    let gone = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match gone {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
