//! End-to-end tests with real processes. This program is the test runner and, by its first argument, every other
//! role of a session: agent, rank executable, and a client that is killed.

#![expect(clippy::unwrap_used, reason = "a panic is the test's message")]

mod bed;
mod failures;
mod functions;
mod leftovers;
mod lifecycle;
mod runner;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).peekable();
    let role = arguments.peek().cloned().unwrap_or_default();
    match role.as_str() {
        "--as-agent" => deeprc_pilot::agent::main(arguments.skip(1)),
        "--as-rank" => functions::registry().serve().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS),
        "--as-client" => leftovers::client(arguments.skip(1)),
        _ => runner::run(&[lifecycle::CASES, failures::CASES, leftovers::CASES], arguments),
    }
}
