//! The command line: one file per command.

mod agent;
mod bug;
mod check;
mod doctor;
mod models;
mod rank;
mod rank_test;
mod report;
mod run;
mod task;
mod train;
mod tune;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::exit::Exit;
use crate::printer::Printer;

/// From raw tables to evaluated forecasts: joins tables, trains models, evaluates them and writes a report.
#[derive(Debug, Parser)]
#[command(name = "deeprc", version, max_term_width = 100, disable_help_subcommand = true, after_help = Exit::table())]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run pipelines and write a report
    Run(run::Args),
    /// Train models on a table and evaluate them, without a pipeline file
    Train(train::Args),
    /// Search for good options of models on a table, then train and evaluate the best
    Tune(tune::Args),
    /// Check pipeline files against the data and the machine, without running anything
    Check(check::Args),
    /// List the models, or all options of one
    Models(models::Args),
    /// Run a program as a task, or look at the tasks of a run
    Task(task::Args),
    /// Look at this machine: what is there, what is missing and how to get it
    Doctor(doctor::Args),
    /// Test whether ranks reach each other, and how fast; started as every rank
    RankTest(rank_test::Args),
    /// Write the report of a finished run again
    Report(report::Args),
    /// Starts and watches the ranks of one node; started by deeprc itself
    #[command(hide = true)]
    Agent(agent::Args),
    /// Serves the table functions of tasks; started by the agent
    #[command(hide = true)]
    Rank,
}

/// Runs the command line of this process; the body of the `deeprc` binary.
pub fn main() -> ExitCode {
    let printer = Printer;
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() };
        }
    };
    match cli.command {
        // These two speak to deeprc, not to people: their panics belong into their logs.
        Command::Agent(args) => return agent::main(args),
        Command::Rank => return rank::main(printer).into(),
        _ => {}
    }
    bug::guard(printer, || match cli.command {
        Command::Run(args) => run::main(args, printer),
        Command::Train(args) => train::main(&args, printer),
        Command::Tune(args) => tune::main(&args, printer),
        Command::Check(args) => check::main(&args, printer),
        Command::Models(args) => models::main(&args, printer),
        Command::Task(args) => task::main(args, printer),
        Command::Doctor(args) => doctor::main(&args, printer),
        Command::RankTest(args) => rank_test::main(&args, printer),
        Command::Report(args) => report::main(&args, printer),
        Command::Agent(_) | Command::Rank => Exit::Done,
    })
    .into()
}

/// `key=value` of `--set`.
fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().into(), value.into())),
        _ => Err("give it as key=value, for example `fit.max_steps=50`".into()),
    }
}
