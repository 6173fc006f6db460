//! A test runner of the usual interface: filters, `--exact`, `--list`, `--test-threads`.

use std::{
    panic::catch_unwind,
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

/// Name and body.
pub type Case = (&'static str, fn());

/// Makes a case of a function; its name is that of the function.
#[macro_export]
macro_rules! cases {
    ($($name:ident),* $(,)?) => { &[$((stringify!($name), $name as fn())),*] };
}

pub fn run(groups: &[&[Case]], arguments: impl Iterator<Item = String>) -> ExitCode {
    let (mut filters, mut exact, mut list, mut threads) = (Vec::new(), false, false, 4);
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--exact" => exact = true,
            "--list" => list = true,
            "--ignored" => return ExitCode::SUCCESS,
            "--test-threads" | "--format" | "--color" => {
                let value = arguments.next();
                threads = value.and_then(|value| value.parse().ok()).unwrap_or(threads);
            }
            flag if flag.starts_with('-') => {}
            _ => filters.push(argument),
        }
    }
    let chosen = |name: &str| filters.is_empty() || filters.iter().any(|filter| if exact { name == filter } else { name.contains(filter) });
    let cases: Vec<Case> = groups.iter().flat_map(|group| group.iter().copied()).filter(|case| chosen(case.0)).collect();
    if list {
        cases.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", cases.len());
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((name, body)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let begin = Instant::now();
                    let passed = catch_unwind(body).is_ok();
                    println!("test {name} ... {} ({:.2?})", if passed { "ok" } else { "FAILED" }, begin.elapsed());
                    if !passed {
                        failed.lock().unwrap().push(*name);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    let verdict = if failed.is_empty() { "ok" } else { "FAILED" };
    println!("\ntest result: {verdict}. {} passed; {} failed: {failed:?}", cases.len() - failed.len(), failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
