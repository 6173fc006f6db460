//! Tasks, ranks and agents that fail: the blame is right and nothing else is touched.

use std::fs;

use deeprc_pilot::{Cause, Error, Event, Outcome, Pool, Session, TaskDescription};
use serde_json::{Value, json};

use crate::{
    bed::{Bed, LONG, check_failure, failure, function, kill, options, shell},
    cases,
    runner::Case,
};

pub const CASES: &[Case] = cases![
    a_killed_rank_fails_its_task_and_nothing_else,
    a_killed_rank_of_an_executable_is_named,
    errors_panics_and_exits_are_told_apart,
    the_last_lines_of_stderr_are_reported,
    what_cannot_be_started_says_why,
    a_pool_that_cannot_start_says_why,
    a_failed_task_is_tried_again,
    a_killed_agent_fails_its_tasks,
    a_killed_agent_is_replaced_and_its_task_retried,
    an_agent_that_cannot_start_is_an_error,
];

fn a_killed_rank_fails_its_task_and_nothing_else() {
    let bed = Bed::new(3);
    let go = json!(bed.file("go"));
    let other = bed.submit(function("until_file", go.clone()));
    let other_pid = bed.started(other)[0];
    let gang = bed.submit(function("until_file", json!(bed.file("never"))).ranks(2, 1));
    kill(bed.started(gang)[1]);
    let report = bed.wait(gang);
    check_failure(&report, Some(1), Cause::Signal(9));
    assert_eq!(failure(&report).to_string(), "rank 1 was killed by signal 9 (SIGKILL)");

    bed.done(function("echo", Value::Null).ranks(2, 1));
    fs::write(bed.file("go"), "").unwrap();
    assert_eq!(bed.wait(other).outcome, Outcome::Done);
    let pids: Vec<Value> = bed.done(function("echo", Value::Null).ranks(3, 1)).results;
    assert!(pids.iter().any(|result| result["pid"] == other_pid), "its process was never touched");
}

fn a_killed_rank_of_an_executable_is_named() {
    let bed = Bed::new(2);
    let id = bed.submit(shell("echo started; exec sleep 1000").ranks(2, 1));
    kill(bed.started(id)[1]);
    check_failure(&bed.wait(id), Some(1), Cause::Signal(9));
    let report = bed.run(shell("exit $((RANK * 3))").ranks(2, 1));
    check_failure(&report, Some(1), Cause::Exit(3));
}

fn errors_panics_and_exits_are_told_apart() {
    let bed = Bed::new(2);
    let error = |message: &str, detail| Cause::Error { message: message.to_string(), detail };
    let report = bed.run(function("fail", Value::Null));
    check_failure(&report, Some(0), error("no column `y` on rank 0", json!({"line": 3})));
    let report = bed.run(function("panic", Value::Null));
    check_failure(&report, Some(0), error("panicked: index 7 of 3", Value::Null));
    assert!(failure(&report).stderr_tail.contains("functions.rs"), "the place of the panic is in stderr");
    check_failure(&bed.run(function("abort", Value::Null)), Some(0), Cause::Signal(6));
    check_failure(&bed.run(function("exit", json!(4))), Some(0), Cause::Exit(4));
    let report = bed.run(function("nope", Value::Null));
    assert!(failure(&report).to_string().contains("function `nope` is not registered; there are: abort, echo"));
    bed.done(function("echo", Value::Null).ranks(2, 1));
}

fn the_last_lines_of_stderr_are_reported() {
    let bed = Bed::new(1);
    let words: Vec<String> = (10..30).map(|line| format!("last words {line}")).collect();
    assert_eq!(failure(&bed.run(function("abort", Value::Null))).stderr_tail, words.join("\n"));
    let script = "i=0; while [ $i -lt 30 ]; do echo last words $i >&2; i=$((i + 1)); done; exit 1";
    assert_eq!(failure(&bed.run(shell(script))).stderr_tail, words.join("\n"));
}

fn what_cannot_be_started_says_why() {
    let bed = Bed::new(2);
    let report = bed.run(TaskDescription::executable("x", "no-such-program", [""; 0]).ranks(2, 1));
    assert_eq!(
        failure(&report).to_string(),
        "rank 0 could not be started: program `no-such-program`: No such file or directory (os error 2)"
    );
}

fn a_pool_that_cannot_start_says_why() {
    let broken = Pool::new("broken", ["sh", "-c", "echo no libtorch >&2; exit 3"]).warm(2);
    let bed = Bed::with(2, vec![broken, Pool::new("absent", ["no-such-program"]).warm(1)]);
    let run = |pool| bed.run(TaskDescription::function("x", pool, "echo", Value::Null).ranks(2, 1));
    let report = run("broken");
    let failure = failure(&report);
    assert!(failure.to_string().ends_with("ended with exit code 3 before it was ready"), "{failure}");
    assert_eq!(failure.stderr_tail, "no libtorch");
    let report = run("absent");
    assert!(crate::bed::failure(&report).to_string().contains("rank executable `no-such-program`: No such file"));
    bed.done(function("echo", Value::Null));
}

fn a_failed_task_is_tried_again() {
    let bed = Bed::new(1);
    let id = bed.submit(TaskDescription { retries: 2, ..shell("echo $DEEPRC_ATTEMPT; [ $DEEPRC_ATTEMPT = 2 ]") });
    let first = bed.event(|event| match event {
        Event::Retried { report } => Some(report.clone()),
        _ => None,
    });
    check_failure(&first, Some(0), Cause::Exit(1));
    let report = bed.wait(id);
    assert_eq!((report.attempt, &report.outcome), (2, &Outcome::Done));
    let texts = [&first, &report].map(|report| fs::read_to_string(&report.logs[0]).unwrap());
    assert_eq!(texts, ["1\n", "2\n"]);
}

fn a_killed_agent_fails_its_tasks() {
    let bed = Bed::new(2);
    let function = bed.submit(function("until_file", json!(bed.file("never"))));
    let program = bed.submit(shell("sleep 1000 & exec sleep 1000"));
    bed.started(function);
    bed.started(program);
    kill(bed.agent_pid());
    for id in [function, program] {
        check_failure(&bed.wait(id), None, Cause::AgentLost);
    }
    bed.done(crate::bed::function("echo", Value::Null));
}

fn a_killed_agent_is_replaced_and_its_task_retried() {
    let bed = Bed::new(2);
    let script = "[ $DEEPRC_ATTEMPT = 2 ] || exec sleep 1000";
    let program = bed.submit(TaskDescription { retries: 1, ..shell(script) });
    bed.started(program);
    kill(bed.agent_pid());
    let report = bed.wait(program);
    assert_eq!((report.attempt, report.outcome), (2, Outcome::Done));
}

fn an_agent_that_cannot_start_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let start = |agent: &[&str]| {
        let agent = agent.iter().map(|word| word.to_string()).collect();
        Session::start(deeprc_pilot::SessionOptions { agent, ..options(dir.path(), 1) }).unwrap_err()
    };
    let error = start(&["no-such-agent"]);
    assert!(error.to_string().contains("`no-such-agent` did not start: No such file or directory"), "{error}");
    let Error::Agent { reason, stderr_tail, .. } = start(&["sh", "-c", "echo no licence >&2; exit 7"]) else { panic!() };
    assert_eq!((&reason[..], &stderr_tail[..]), ("it ended with exit code 7", "no licence"));
    let session = Session::start(options(dir.path(), 1)).unwrap();
    let id = session.submit(shell("true")).unwrap();
    assert_eq!(session.wait(id, LONG).unwrap().outcome, Outcome::Done);
}
