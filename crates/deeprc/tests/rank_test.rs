//! `deeprc rank-test` as a user starts it: by hand, as threads, with a rank missing.

#![expect(clippy::unwrap_used, reason = "a panic is the test's message")]

use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

fn rank_test(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_deeprc"));
    command.arg("rank-test").args(arguments).env("NO_COLOR", "1").stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Some ranks of a job of `size`, started by hand.
fn by_hand(ranks: &[usize], size: usize, arguments: &[&str]) -> Vec<Output> {
    // Free a moment ago; another process would have to take it just now.
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let start = |rank: &usize| {
        let variables = [("RANK", rank.to_string()), ("WORLD_SIZE", size.to_string()), ("MASTER_PORT", port.to_string())];
        rank_test(arguments).envs(variables).env("MASTER_ADDR", "127.0.0.1").spawn().unwrap()
    };
    let started: Vec<Child> = ranks.iter().map(start).collect();
    started.into_iter().map(|rank| rank.wait_with_output().unwrap()).collect()
}

#[test]
fn processes_started_by_hand_reach_each_other() {
    let outputs = by_hand(&[0, 1, 2], 3, &["--json"]);
    assert!(outputs.iter().all(|output| output.status.success()), "{outputs:?}");
    let report: serde_json::Value = serde_json::from_slice(&outputs[0].stdout).unwrap();
    assert_eq!((&report["transport"], &report["ranks"], &report["passed"]), (&"shm".into(), &3.into(), &true.into()));
    assert!(report["checks"].as_array().unwrap().iter().all(|check| check["result"] == "passed"));
    assert!(outputs[1..].iter().all(|output| output.stdout.is_empty()), "only rank 0 reports");
}

#[test]
fn threads_are_started_by_the_command() {
    let output = rank_test(&["--comm", "threads", "--ranks", "2"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.contains("checks hold on 2 ranks over threads"), "{text}");
}

#[test]
fn a_missing_rank_is_an_error_on_all_within_the_deadline() {
    let started = Instant::now();
    for output in by_hand(&[0, 2], 3, &["--timeout", "1"]) {
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("timed out in connect after 1 s waiting for rank 1"), "{text}");
    }
    assert!(started.elapsed() < Duration::from_secs(20));
}
