//! `deeprc report`: writes `report.html` again, for example after an update of deeprc.

use std::path::{Path, PathBuf};

use deeprc_pipeline::RunRecord;

use crate::exit::Exit;
use crate::printer::Printer;

/// Arguments of `deeprc report`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run directory, its name, or `last`
    #[arg(default_value = "last")]
    run: String,
    /// Directory of the runs
    #[arg(long, value_name = "DIR", default_value = "runs")]
    dir: PathBuf,
}

/// Writes the report and prints where it is.
pub fn main(args: &Args, printer: Printer) -> Exit {
    let (dir, record) = match open(&args.dir, &args.run, printer) {
        Ok(found) => found,
        Err(exit) => return exit,
    };
    match crate::report::write(&record, &dir) {
        Ok(path) => {
            printer.data(path.display());
            Exit::Done
        }
        Err(error) => {
            printer.error(format_args!("cannot write the report into {}: {error}", dir.display()), None);
            Exit::Resources
        }
    }
}

/// The directory and record of a run named by path, by name under `root`, or as `last`.
pub fn open(root: &Path, run: &str, printer: Printer) -> Result<(PathBuf, RunRecord), Exit> {
    let dir = find(root, run).ok_or_else(|| {
        let hint = format!("give a directory that holds a run.json; `ls {}` shows the runs here", root.display());
        printer.error(format_args!("there is no run `{run}`"), Some(&hint));
        Exit::Usage
    })?;
    match RunRecord::read(&dir) {
        Ok(record) => Ok((dir, record)),
        Err(error) => {
            printer.error(format_args!("cannot read {}: {error}", dir.join("run.json").display()), None);
            Err(Exit::Usage)
        }
    }
}

/// Where a run is that was named by path, by name, or as `last`.
pub fn find(root: &Path, run: &str) -> Option<PathBuf> {
    let holds_record = |dir: &PathBuf| dir.join("run.json").is_file();
    if run == "last" {
        let runs = std::fs::read_dir(root).ok()?.filter_map(Result::ok);
        let real = runs.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path());
        let started = |dir: &PathBuf| std::fs::metadata(dir.join("run.json")).and_then(|data| data.modified()).ok();
        return real.filter(holds_record).max_by_key(started);
    }
    [PathBuf::from(run), root.join(run)].into_iter().find(holds_record)
}
