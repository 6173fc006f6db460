//! Runs that do not end well: what is said, what is kept, what goes on.

use std::fs;
use std::time::Instant;

use deeprc_comm::CommSpec;
use deeprc_pipeline::{Exit, Pipeline, RunStatus, run};

use super::Case;
use super::bed::{Bed, DATA, Heard, statuses};

pub const CASES: &[Case] = &[
    ("bad_cell_is_named_and_others_go_on", bad_cell_is_named_and_others_go_on),
    ("killed_rank_fails_its_stage_only", killed_rank_fails_its_stage_only),
    ("retry_gives_a_second_chance", retry_gives_a_second_chance),
    ("rejected_pipeline_does_not_harm_others", rejected_pipeline_does_not_harm_others),
    ("run_can_be_ended_and_resumed", run_can_be_ended_and_resumed),
    ("absent_executable_is_said", absent_executable_is_said),
    ("stage_chooses_its_transport", stage_chooses_its_transport),
];

/// A pipeline that depends on nothing.
const OTHER: &str = r#"name = "other"
[stage.oil]
kind = "read"
generate = { data = "hourly-oil", rows = 200 }
"#;

fn bad_cell_is_named_and_others_go_on() {
    let bed = Bed::new();
    // Far behind the rows from which types are inferred.
    let rows: String =
        (0..3000).map(|row| format!("2024-01-01 00:00:00,{}\n", if row == 2500 { "n/a".to_owned() } else { row.to_string() })).collect();
    fs::write(bed.path().join("loads.csv"), format!("date,HUFL\n{rows}")).unwrap();
    let (record, heard) = bed.run(&[DATA, OTHER], false);
    assert_eq!(record.status, RunStatus::Failed);
    assert_eq!(
        statuses(&record),
        ["loads failed", "oil done", "joined skipped", "wide skipped", "parts skipped", "wide.csv skipped", "show skipped", "oil done"]
    );
    let [error] = &record.errors[..] else { panic!("{:?}", record.errors) };
    assert!(error.message.contains("loads.csv:2502") && error.message.contains("HUFL") && error.message.contains("n/a"), "{error:?}");
    assert!(error.hint.is_some() && error.exit == Exit::Task);
    assert_eq!((record.exit_code(), error.stage.as_deref()), (1, Some("loads")));
    assert!(heard.contains(&"joined skipped: `loads` failed".to_owned()), "{heard:?}");

    let (record, _) = bed.run(&[DATA, OTHER], true);
    assert_eq!(statuses(&record)[1], "oil reused");
}

fn killed_rank_fails_its_stage_only() {
    let bed = Bed::new();
    let text =
        format!("{DATA}[stage.victim]\nkind = \"command\"\nprogram = \"sh\"\narguments = [\"-c\", \"echo last words >&2; kill -9 $$\"]\n");
    let (record, _) = bed.run(&[&text], false);
    assert!(statuses(&record).contains(&"show done".to_owned()));
    let [error] = &record.errors[..] else { panic!("{:?}", record.errors) };
    assert!(error.message.contains("signal 9") && error.stage.as_deref() == Some("victim"), "{error:?}");
    assert_eq!(error.rank, Some(0));
    assert!(error.stderr_tail.as_deref().is_some_and(|tail| tail.contains("last words")), "{error:?}");
}

fn retry_gives_a_second_chance() {
    let bed = Bed::new();
    let text = r#"name = "retry"
[stage.again]
kind = "command"
program = "sh"
arguments = ["-c", "echo attempt $DEEPRC_ATTEMPT; test $DEEPRC_ATTEMPT = 2"]
retries = 1
"#;
    let (record, heard) = bed.run(&[text], false);
    assert_eq!(record.status, RunStatus::Done, "{:?}", record.errors);
    let outcomes: Vec<(&str, u32)> = record.tasks.iter().map(|task| (task.outcome.as_str(), task.attempt)).collect();
    assert_eq!(outcomes, [("failed", 1), ("done", 2)]);
    assert_eq!(heard, ["again | attempt 1", "again | attempt 2", "again ended well"]);
}

fn rejected_pipeline_does_not_harm_others() {
    let bed = Bed::new();
    let (record, _) = bed.run(&[OTHER, &DATA.replace("on = [\"date\"]", "on = [\"dat\"]").replace("oil.csv", "oli.csv")], false);
    assert_eq!((record.status, record.exit_code()), (RunStatus::Failed, 2));
    assert_eq!(statuses(&record), ["oil done"]);
    assert_eq!(record.errors.len(), 2, "{:?}", record.errors);
}

fn run_can_be_ended_and_resumed() {
    let bed = Bed::new();
    let text = format!(
        "{DATA}[stage.slow]\nkind = \"command\"\nprogram = \"sh\"\narguments = [\"-c\", \"test -e ${{stage.wide}}/go || sleep 60\"]\n"
    );
    let options = bed.options(false);
    let heard = Heard { end_at: Some(("slow".to_owned(), options.cancel.clone())), ..Heard::default() };
    let begin = Instant::now();
    let record = run(vec![bed.pipeline(&text)], &options, &heard);
    assert_eq!((record.status, record.exit_code()), (RunStatus::Interrupted, 130));
    assert!(begin.elapsed().as_secs() < 30);
    assert!(statuses(&record).contains(&"slow skipped".to_owned()), "{:?}", statuses(&record));

    fs::write(record.dir.join("tables/test.wide/go"), "").unwrap();
    let (record, _) = bed.run(&[&text], true);
    assert_eq!(record.status, RunStatus::Done, "{:?}", record.errors);
    assert!(statuses(&record).contains(&"wide reused".to_owned()));
}

fn absent_executable_is_said() {
    let bed = Bed::new();
    let mut options = bed.options(false);
    options.executables.deeprc = bed.path().join("no-deeprc");
    let record = run(vec![bed.pipeline(OTHER)], &options, &Heard::default());
    assert_eq!((record.status, record.exit_code()), (RunStatus::Failed, 3));
    assert!(record.errors[0].message.contains("no-deeprc"), "{:?}", record.errors);
    assert_eq!(statuses(&record), ["oil skipped"]);
}

fn stage_chooses_its_transport() {
    let bed = Bed::new();
    let text = |comm: &str| DATA.replace("ranks = 2", &format!("ranks = 2\ncomm = \"{comm}\""));
    let networks = [CommSpec::Gloo, CommSpec::Ucx].into_iter().filter(|spec| spec.is_built_in());
    for spec in [CommSpec::Shm].into_iter().chain(networks) {
        let (record, heard) = bed.run(&[&text(spec.name())], false);
        assert_eq!(record.status, RunStatus::Done, "{spec}: {heard:?}");
    }
    let check = |comm: &str, expect: &str| {
        let faults = Pipeline::parse(&bed.path().join("test.toml"), text(comm), &[]).unwrap_err();
        assert!(faults[0].to_string().contains(expect), "{}", faults[0]);
    };
    check("glo", "there is no transport `glo`");
    check("threads", "the ranks of stage `joined` are processes, not threads");
    check("mpi", "the ranks of stage `joined` are not started by mpirun");
    for spec in [CommSpec::Gloo, CommSpec::Ucx, CommSpec::Nccl].into_iter().filter(|spec| !spec.is_built_in()) {
        check(spec.name(), &format!("the transport {spec} is not built into this program"));
    }
}
