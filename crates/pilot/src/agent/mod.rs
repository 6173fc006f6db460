//! The agent process: one per node, starts and watches the ranks.

use std::process::ExitCode;

/// The body of `deeprc agent`: `args` are the arguments after the sub-command, that is `--socket <path>`.
///
/// Returns when the leader says so or is gone; every process that it started is dead then.
pub fn main(args: impl IntoIterator<Item = String>) -> ExitCode {
    let _ = args.into_iter();
    unimplemented!()
}
