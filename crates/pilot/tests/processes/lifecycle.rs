//! Tasks that go well, and those that are ended by the user or by a deadline.

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use deeprc_pilot::{Cause, Error, Event, Outcome, Pool, Session, TaskDescription, TaskId, journal};
use serde_json::{Value, json};

use crate::{
    bed::{Bed, LONG, check_failure, failure, function, options, shell},
    cases,
    runner::Case,
};

pub const CASES: &[Case] = cases![
    an_executable_sees_the_environment_of_torch_distributed,
    ranks_are_pinned_to_their_cores,
    a_function_gang_runs_in_warm_ranks,
    a_rank_is_clean_after_a_task,
    output_goes_to_a_file_per_rank,
    progress_arrives_in_order,
    times_and_overhead_are_reported,
    higher_priority_goes_first,
    a_running_function_is_canceled,
    a_stubborn_program_is_killed_after_the_grace,
    a_waiting_task_is_canceled,
    a_run_timeout_ends_the_task,
    a_start_timeout_ends_the_task,
    impossible_tasks_are_refused,
    a_second_session_continues_in_the_directory,
    many_tasks_of_many_shapes_are_all_reported,
];

fn an_executable_sees_the_environment_of_torch_distributed() {
    let bed = Bed::new(4);
    let script = "[ -d \"$DEEPRC_RENDEZVOUS\" ] && echo $RANK $WORLD_SIZE $LOCAL_RANK $LOCAL_WORLD_SIZE $MASTER_ADDR \
                  $DEEPRC_TASK $DEEPRC_ATTEMPT $OMP_NUM_THREADS [$CUDA_VISIBLE_DEVICES] $EXTRA $MASTER_PORT $DEEPRC_RENDEZVOUS";
    let mut task = shell(script).ranks(2, 2);
    task.env.insert("EXTRA".into(), "more".into());
    let report = bed.done(task);
    let out = |rank: usize| fs::read_to_string(&report.logs[2 * rank]).unwrap();
    let (zero, one) = (out(0), out(1));
    assert!(zero.starts_with("0 2 0 2 127.0.0.1 shell 1 2 [] more "), "{zero}");
    assert!(one.starts_with("1 2 1 2 127.0.0.1 shell 1 2 [] more "), "{one}");
    let rest = |line: &str| line.split_whitespace().skip(10).map(String::from).collect::<Vec<_>>();
    assert_eq!(rest(&zero), rest(&one));
    assert!(rest(&zero)[0].parse::<u16>().is_ok());
    assert!(!std::path::Path::new(&rest(&zero)[1]).exists(), "the rendezvous directory is removed");
}

fn ranks_are_pinned_to_their_cores() {
    let bed = Bed::new(2);
    let report = bed.done(shell("grep Cpus_allowed_list /proc/self/status").ranks(2, 1));
    for rank in 0..2 {
        let line = fs::read_to_string(&report.logs[2 * rank]).unwrap();
        assert!(line.split_whitespace().nth(1).unwrap().parse::<u32>().is_ok(), "one CPU: {line}");
    }
    let report = bed.done(function("echo", Value::Null));
    assert_eq!(report.results[0]["threads"], 1);
}

fn a_function_gang_runs_in_warm_ranks() {
    let bed = Bed::new(3);
    let task = || function("echo", json!({"x": [1.5, null]})).ranks(3, 1);
    let report = bed.done(task());
    for (rank, result) in report.results.iter().enumerate() {
        assert_eq!(result["arguments"], json!({"x": [1.5, null]}));
        assert_eq!(result["context"], json!(["echo", 1, rank, 3, rank, 1]));
        assert_eq!(result["env"]["RANK"], rank.to_string());
        assert_eq!(result["env"]["WORLD_SIZE"], "3");
        assert_eq!(result["env"]["DEEPRC_RENDEZVOUS"], result["rendezvous"]);
        assert_eq!(result["rendezvous_exists"], true);
        assert_eq!(result["dir"], json!(bed.dir.path().canonicalize().unwrap()));
    }
    let pids = |results: &[Value]| {
        let mut pids: Vec<u64> = results.iter().map(|result| result["pid"].as_u64().unwrap()).collect();
        pids.sort_unstable();
        pids
    };
    assert_eq!(pids(&bed.done(task()).results), pids(&report.results), "the same processes serve again");
}

fn a_rank_is_clean_after_a_task() {
    let bed = Bed::new(1);
    let mut first = function("litter", Value::Null);
    first.env.insert("ONLY_FIRST".into(), "1".into());
    let pid = bed.done(first).results[0].clone();
    let result = bed.done(function("echo", Value::Null)).results.remove(0);
    assert_eq!(result["pid"], pid);
    assert_eq!((&result["env"]["RANK"], &result["env"]["ONLY_FIRST"]), (&json!("0"), &Value::Null));
    assert_eq!(result["dir"], json!(bed.dir.path().canonicalize().unwrap()));
}

fn output_goes_to_a_file_per_rank() {
    let bed = Bed::new(2);
    let report = bed.done(TaskDescription { name: "a b/c".into(), ..function("echo", Value::Null).ranks(2, 1) });
    assert!(report.logs[0].ends_with("session/tasks/1-a-b-c/rank-0.out"), "{:?}", report.logs);
    let texts: Vec<String> = report.logs.iter().map(|log| fs::read_to_string(log).unwrap()).collect();
    assert_eq!(texts, ["out of rank 0\n", "err of rank 0\n", "out of rank 1\n", "err of rank 1\n"]);
    let report = bed.done(shell("echo o; echo e >&2"));
    let texts: Vec<String> = report.logs.iter().map(|log| fs::read_to_string(log).unwrap()).collect();
    assert_eq!(texts, ["o\n", "e\n"]);
}

fn progress_arrives_in_order() {
    let bed = Bed::new(1);
    let id = bed.submit(function("progress", json!(50)));
    for step in 0..50 {
        let value = bed.event(|event| match event {
            Event::Progress { task, rank: 0, value, .. } if *task == id => Some(value.clone()),
            _ => None,
        });
        assert_eq!(value, json!({"step": step}));
    }
}

fn times_and_overhead_are_reported() {
    let bed = Bed::new(1);
    let times = bed.done(function("echo", Value::Null)).times;
    let stations = [times.placed, times.started, times.connected, times.ended].map(Option::unwrap);
    assert!(times.submitted <= stations[0] && stations.is_sorted() && stations[3] <= times.reported, "{times:?}");
    assert!(stations[1] < stations[2], "connecting has its own time: {times:?}");
    let sum = times.queue() + times.overhead().unwrap() + times.run();
    assert!((sum - (times.reported - times.submitted)).abs() < 1e-9, "the parts are the whole");
}

fn higher_priority_goes_first() {
    let bed = Bed::new(1);
    let go = bed.file("go");
    let first = bed.submit(function("until_file", json!(go)));
    bed.started(first);
    let submit = |priority| bed.submit(TaskDescription { priority, ..shell("true") });
    let (low, high, middle) = (submit(-1), submit(2), submit(0));
    fs::write(&go, "").unwrap();
    let placed = || {
        bed.event(|event| match event {
            Event::Placed { task, .. } => Some(*task),
            _ => None,
        })
    };
    assert_eq!([placed(), placed(), placed(), placed()], [first, high, middle, low]);
    bed.wait(low);
}

fn a_running_function_is_canceled() {
    let bed = Bed::new(2);
    let id = bed.submit(function("until_file", json!(bed.file("never"))).ranks(2, 1));
    let pids = bed.started(id);
    bed.session.cancel(id);
    assert_eq!(bed.wait(id).outcome, Outcome::Canceled);
    let again = bed.done(function("echo", Value::Null)).results[0]["pid"].as_u64().unwrap();
    assert!(pids.contains(&(again as u32)), "a rank that obeyed is used again");
}

fn a_stubborn_program_is_killed_after_the_grace() {
    let bed = Bed::new(2);
    let ready = bed.file("ready");
    let id = bed.submit(shell("trap '' TERM; touch ready; while :; do sleep 1000; done"));
    bed.done(function("until_file", json!(ready)));
    bed.session.cancel(id);
    let report = bed.wait(id);
    assert_eq!(report.outcome, Outcome::Canceled);
}

fn a_waiting_task_is_canceled() {
    let bed = Bed::new(1);
    let running = bed.submit(function("until_file", json!(bed.file("go"))));
    let waiting = bed.submit(shell("true"));
    bed.session.cancel(waiting);
    let report = bed.wait(waiting);
    assert_eq!((report.outcome, report.times.placed), (Outcome::Canceled, None));
    fs::write(bed.file("go"), "").unwrap();
    assert_eq!(bed.wait(running).outcome, Outcome::Done);
}

fn a_run_timeout_ends_the_task() {
    let bed = Bed::new(2);
    let timeout = Some(Duration::from_millis(50));
    let report = bed.run(TaskDescription { timeout, ..shell("exec sleep 1000") });
    check_failure(&report, None, Cause::Timeout);
    let report = bed.run(TaskDescription { timeout, ..function("stubborn", Value::Null).ranks(2, 1) });
    check_failure(&report, None, Cause::Timeout);
    bed.done(function("echo", Value::Null).ranks(2, 1));
}

fn a_start_timeout_ends_the_task() {
    let bed = Bed::with(1, vec![Pool::new("hung", ["sleep", "1000"])]);
    let task = TaskDescription::function("late", "hung", "echo", Value::Null);
    let report = bed.run(TaskDescription { start_timeout: Duration::from_millis(100), ..task });
    check_failure(&report, Some(0), Cause::StartTimeout);
    assert_eq!(failure(&report).to_string(), "rank 0 did not start within its start timeout");
}

fn impossible_tasks_are_refused() {
    let bed = Bed::new(2);
    let refuse = |task: TaskDescription| bed.session.submit(task).unwrap_err();
    let error = refuse(shell("true").ranks(4, 1));
    assert_eq!(error.to_string(), "task `shell` needs 4 cores, this machine has 2");
    assert!(error.hint().is_some());
    assert!(matches!(refuse(shell("true").in_dir("/nonexistent")), Error::Invalid { .. }));
    assert!(matches!(bed.session.wait(TaskId(99), LONG), Err(Error::UnknownTask { .. })));
    let id = bed.submit(function("until_file", json!(bed.file("never"))));
    assert!(matches!(bed.session.wait(id, Duration::ZERO), Err(Error::Timeout { .. })));
}

fn a_second_session_continues_in_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/session");
    for round in 1..=2 {
        let session = Session::start(options(&path, 1)).unwrap();
        let id = session.submit(shell("true")).unwrap();
        assert_eq!((id, session.wait(id, LONG).unwrap().outcome), (TaskId(round), Outcome::Done));
        session.close().unwrap();
    }
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    let events = journal::read(&path.join("journal")).unwrap();
    assert_eq!(events.iter().filter(|event| matches!(event.event, Event::Ended { .. })).count(), 2);
    assert_eq!(events.last().map(|event| &event.event), Some(&Event::SessionEnded));
}

fn many_tasks_of_many_shapes_are_all_reported() {
    let bed = Bed::new(4);
    let task = |i: u32| match i % 3 {
        0 => shell("true").ranks(1 + i % 4, 1),
        1 => function("echo", json!(i)).ranks(1 + i % 2, 1 + i % 2),
        _ => function("progress", json!(2)),
    };
    let ids: Vec<TaskId> = (0..120).map(|i| bed.submit(task(i))).collect();
    assert!(ids.into_iter().all(|id| bed.wait(id).outcome == Outcome::Done));
}
