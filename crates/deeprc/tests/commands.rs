//! What every command prints, whole: a reader at 3 a.m. on a login node sees exactly this.

#![expect(clippy::unwrap_used, reason = "a panic is the test's message")]

use std::path::Path;
use std::process::Command;

const GOLDEN: &str = include_str!("fixtures/run.json");

/// A directory with one finished run, `runs/demo`.
fn workplace() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("runs/demo/session/tasks/14-fit");
    std::fs::create_dir_all(&log).unwrap();
    std::fs::write(dir.path().join("runs/demo/run.json"), GOLDEN).unwrap();
    std::fs::write(log.join("rank-1.err"), "RuntimeError: column \"HUFL\" has 3 nulls\n").unwrap();
    dir
}

/// Command, exit code, stdout and stderr as one text.
fn transcript(dir: &Path, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_deeprc"))
        .args(arguments)
        .current_dir(dir)
        .env("NO_COLOR", "1")
        .env("COLUMNS", "100")
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(&dir.display().to_string(), "[dir]");
    let mut all = format!("$ deeprc {}\n", arguments.join(" "));
    for (name, bytes) in [("", &output.stdout), ("--- stderr ---\n", &output.stderr)] {
        if !bytes.is_empty() {
            all += &format!("{name}{}", text(bytes));
        }
    }
    all + &format!("--- exit {} ---\n", output.status.code().unwrap_or(-1))
}

fn check(name: &str, commands: &[&[&str]]) {
    let dir = workplace();
    let all: Vec<String> = commands.iter().map(|arguments| transcript(dir.path(), arguments)).collect();
    insta::assert_snapshot!(name, all.join("\n"));
}

#[test]
fn help() {
    let commands = ["run", "train", "tune", "check", "models", "task", "doctor", "rank-test", "report"];
    let dir = workplace();
    let mut all = vec![transcript(dir.path(), &["--help"])];
    all.extend(commands.map(|command| transcript(dir.path(), &[command, "--help"])));
    all.extend(["run", "list", "log"].map(|command| transcript(dir.path(), &["task", command, "--help"])));
    insta::assert_snapshot!("help", all.join("\n"));
}

#[test]
fn wrong_usage() {
    check("wrong_usage", &[&[], &["rum"], &["run"], &["run", "a.toml", "--set", "max_steps"], &["task", "run", "-n", "0", "--", "true"]]);
}

#[test]
fn models() {
    check("models", &[&["models"], &["models", "nhits"], &["models", "transformer"]]);
}

#[test]
fn tasks_of_a_run() {
    check(
        "tasks",
        &[
            &["task", "list"],
            &["task", "list", "demo", "--failed"],
            &["task", "list", "runs/demo", "--failed", "--json"],
            &["task", "log", "--stage", "fit"],
            &["task", "log", "nothing"],
        ],
    );
}

#[test]
fn report_again() {
    check("report", &[&["report"], &["report", "nothing"]]);
}

#[test]
fn doctor_says_what_it_looked_at() {
    let dir = workplace();
    let output = Command::new(env!("CARGO_BIN_EXE_deeprc"))
        .args(["doctor", "--json"])
        .current_dir(dir.path())
        .env("DEEPRC_FORECAST", "/nowhere/deeprc-forecast")
        .env("DEEPRC_PYTHON", "/nowhere/python")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    let checks: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let verdict = |name: &str| {
        let check = checks.as_array().unwrap().iter().find(|check| check["name"] == name).unwrap();
        (check["verdict"].as_str().unwrap().to_string(), check["hint"].is_string())
    };
    assert!(!verdict("cores").0.is_empty());
    assert_eq!(verdict("model executable"), ("missing".into(), true));
    assert_eq!(verdict("python"), ("absent".into(), true));
    assert_eq!(verdict("python torch"), ("absent".into(), true));
}
