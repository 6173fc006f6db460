//! `deeprc agent` (hidden): the agent of one node.

use std::process::ExitCode;

/// Arguments of `deeprc agent`, read by the pilot.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Passed on to the pilot
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Serves until the leader is gone.
pub fn main(args: Args) -> ExitCode {
    deeprc_pilot::agent::main(args.rest)
}
