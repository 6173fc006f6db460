//! What a run leaves, and what a resumed run makes of it.

use std::fs;

use deeprc_pipeline::{RunRecord, RunStatus};
use deeprc_table::GlobalTable;

use super::Case;
use super::bed::{Bed, DATA, statuses};

pub const CASES: &[Case] = &[
    ("tables_pass_from_stage_to_stage", tables_pass_from_stage_to_stage),
    ("resume_repeats_what_an_edit_touches", resume_repeats_what_an_edit_touches),
    ("run_without_resume_repeats_everything", run_without_resume_repeats_everything),
];

fn tables_pass_from_stage_to_stage() {
    let bed = Bed::new();
    let (record, heard) = bed.run(&[DATA], false);
    assert_eq!(record.status, RunStatus::Done, "{:?}", record.errors);
    assert_eq!(statuses(&record), ["loads done", "oil done", "joined done", "wide done", "parts done", "wide.csv done", "show done"]);
    assert_eq!(record.stages[4].rows, Some(48));
    let printed: Vec<&String> = heard.iter().filter(|line| line.starts_with("show |")).collect();
    assert_eq!(printed, ["show | date,OT,HUFL,sum", "show | 2024-01-01T00:00:00,0.5,0,0.5", "show | 2024-01-01T01:00:00,1.5,2,3.5"]);

    let table = GlobalTable::map(&record.dir.join("tables/test.parts")).unwrap();
    assert_eq!(table.num_rows(), 48);
    assert!(table.schema().field_with_name("split").is_ok());
    assert!(record.first_task_ms.is_some() && record.overhead_ms.median.is_some());
    assert_eq!(record.tasks.len(), 7);
    assert!(record.tasks.iter().all(|task| task.outcome == "done" && task.logs.iter().all(|log| log.is_file())), "{:?}", record.tasks);
    assert_eq!(RunRecord::read(&record.dir).unwrap().stages, record.stages);
    assert!(bed.path().join("runs/last/run.json").is_file());
}

fn resume_repeats_what_an_edit_touches() {
    let bed = Bed::new();
    bed.run(&[DATA], false);
    let (record, heard) = bed.run(&[DATA], true);
    assert!(statuses(&record).iter().all(|line| line.ends_with("reused")), "{heard:?}");
    assert_eq!(record.stages[4].rows, Some(48));

    let (record, _) = bed.run(&[&DATA.replace("minmax", "standard")], true);
    let again: Vec<String> = statuses(&record).into_iter().filter(|line| line.ends_with("done")).collect();
    assert_eq!(again, ["parts done"]);

    let oil = bed.path().join("oil.csv");
    fs::write(&oil, fs::read_to_string(&oil).unwrap() + "2024-01-03 00:00:00,9\n").unwrap();
    let (record, _) = bed.run(&[DATA], true);
    let kept: Vec<String> = statuses(&record).into_iter().filter(|line| line.ends_with("reused")).collect();
    assert_eq!(kept, ["loads reused"]);
}

fn run_without_resume_repeats_everything() {
    let bed = Bed::new();
    bed.run(&[DATA], false);
    let (record, _) = bed.run(&[DATA], false);
    assert!(statuses(&record).iter().all(|line| line.ends_with("done")), "{:?}", statuses(&record));
}
