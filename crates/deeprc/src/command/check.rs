//! `deeprc check`: everything that is wrong with pipeline files, before anything runs.

use std::path::PathBuf;

use deeprc_pipeline::{Diagnostic, Pipeline, RunOptions};
use serde_json::{Value, json};

use crate::exit::Exit;
use crate::printer::{GOOD, Printer, styled};

/// Arguments of `deeprc check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Pipeline files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Change a parameter (`source=loads.csv`) or an option (`fit.max_steps=50`) of the files
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = super::assignment)]
    set: Vec<(String, String)>,
    /// Number of cores to check against, instead of all of this machine
    #[arg(long, value_name = "N")]
    cores: Option<u32>,
    /// Print the faults as one JSON array on stdout
    #[arg(long)]
    json: bool,
}

/// Prints the plan of what is right and the faults of what is not.
pub fn main(args: &Args, printer: Printer) -> Exit {
    let executables = match super::run::executables() {
        Ok(executables) => executables,
        Err(error) => {
            printer.error(error, None);
            return Exit::Resources;
        }
    };
    let mut options = RunOptions::new(PathBuf::from("runs"), executables);
    options.cores = args.cores;
    let mut faults = Vec::new();
    for file in &args.files {
        let found = match Pipeline::load(file, &args.set) {
            Err(found) => found,
            Ok(pipeline) => {
                let found = pipeline.check(&options);
                if found.is_empty() && !args.json {
                    describe(&pipeline, file, printer);
                }
                found
            }
        };
        faults.extend(found);
    }
    if args.json {
        printer.json(&faults.iter().map(fault).collect::<Vec<_>>());
    } else {
        faults.iter().for_each(|fault| printer.rendered(format_args!("{fault}\n\n")));
    }
    worst(&faults)
}

fn describe(pipeline: &Pipeline, file: &std::path::Path, printer: Printer) {
    printer.data(format_args!("{} {} ({})", styled(GOOD, "✓"), pipeline.name(), file.display()));
    pipeline.describe().iter().for_each(|line| printer.data(format_args!("  {line}")));
}

/// The exit code that the faults lead to.
pub fn worst(faults: &[Diagnostic]) -> Exit {
    let resources = |fault: &Diagnostic| fault.exit == deeprc_pipeline::Exit::Resources;
    match faults {
        [] => Exit::Done,
        faults if faults.iter().all(resources) => Exit::Resources,
        _ => Exit::Usage,
    }
}

fn fault(fault: &Diagnostic) -> Value {
    json!({
        "file": fault.file, "line": fault.line, "column": fault.column, "length": fault.length,
        "message": fault.message, "hint": fault.hint, "exit": fault.exit,
    })
}
