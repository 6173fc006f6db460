//! Pipelines on a real session: agent and table ranks are processes. This program is the test runner and, by its first
//! argument, also the agent and the rank executable, as `deeprc` is.

#![expect(clippy::unwrap_used, reason = "a panic is the test's message")]

mod bed;
mod ends;
mod reuse;

use std::panic::catch_unwind;
use std::process::ExitCode;

use deeprc_pilot::rank::Registry;

/// Name and body.
type Case = (&'static str, fn());

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("agent") => deeprc_pilot::agent::main(arguments),
        Some("rank") => {
            let mut registry = Registry::new();
            deeprc_pipeline::functions::register(&mut registry);
            registry.serve().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
        }
        first => {
            let filter = first.filter(|text| !text.starts_with('-')).unwrap_or_default().to_owned();
            let list = std::env::args().any(|argument| argument == "--list");
            tests(&filter, list)
        }
    }
}

/// One after the other: each of them uses all cores.
fn tests(filter: &str, list: bool) -> ExitCode {
    let cases: Vec<&Case> = [reuse::CASES, ends::CASES].into_iter().flatten().filter(|(name, _)| name.contains(filter)).collect();
    let mut failed = Vec::new();
    for (name, body) in &cases {
        if list {
            println!("{name}: test");
            continue;
        }
        let passed = catch_unwind(body).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        if !passed {
            failed.push(*name);
        }
    }
    let verdict = if failed.is_empty() { "ok" } else { "FAILED" };
    println!("\ntest result: {verdict}. {} passed; {} failed: {failed:?}", cases.len() - failed.len(), failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
