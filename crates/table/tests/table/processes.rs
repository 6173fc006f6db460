//! Ranks as processes, over shared memory.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use deeprc_comm::Communicator;
use deeprc_table::{Aggregate, Context, CsvOptions, Function, GlobalTable, JoinKind, Table};
use serde_json::json;

use crate::ranks::{rows, sorted};

/// Names the directory of a test to its rank processes.
const DIR: &str = "DEEPRC_TABLE_TEST_RANKS";

/// Text and numbers with nulls, more than a megabyte.
fn write_inputs(dir: &Path) {
    let load =
        |i: usize| format!("{},site-{:04},{}\n", i, i * 7 % 997, if i.is_multiple_of(11) { String::new() } else { format!("{}.25", i) });
    let site = |i: usize| format!("site-{i:04},{}\n", "long name ".repeat(i % 9));
    std::fs::write(dir.join("loads.csv"), format!("t,site,y\n{}", (0..40_000).map(load).collect::<String>())).unwrap();
    std::fs::write(dir.join("sites.csv"), format!("site,name\n{}", (0..900).map(site).collect::<String>())).unwrap();
}

fn work(context: &Context, dir: &Path) -> Table {
    let read = |name: &str| context.read_csv(&[dir.join(name)], &CsvOptions::default()).unwrap();
    let joined = read("loads.csv").join(&read("sites.csv"), &["site"], JoinKind::Left).unwrap();
    let sums = joined.group_by(&["site"], &[Aggregate::new(Function::Sum, "y", "total")]).unwrap();
    let lagged = joined.lag("y", &["site"], &["t".into()], 2, "before").unwrap();
    lagged.join(&sums, &["site"], JoinKind::Inner).unwrap().sort(&["t".into()]).unwrap()
}

fn rank(dir: &Path, rank: usize, size: usize) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "processes::one_rank_of_them", "--nocapture"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env(DIR, dir).env("RANK", rank.to_string()).env("WORLD_SIZE", size.to_string());
    command.env("DEEPRC_RENDEZVOUS", dir.join(format!("rendezvous-{size}"))).spawn().unwrap()
}

#[test]
fn processes_give_the_answer_of_one() {
    let dir = tempfile::tempdir().unwrap();
    write_inputs(dir.path());
    let expected = rows(work(&Context::local(1).unwrap(), dir.path()).batches());
    for size in [2, 3] {
        std::fs::create_dir(dir.path().join(format!("rendezvous-{size}"))).unwrap();
        let ranks: Vec<Child> = (0..size).map(|number| rank(dir.path(), number, size)).collect();
        for rank in ranks {
            let output = rank.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        let table = GlobalTable::map(&dir.path().join(format!("out-{size}"))).unwrap();
        let got = rows(table.batches());
        assert!(got == expected, "{} rows, sorted equal: {}", got.len(), sorted(got.clone()) == sorted(expected.clone()));
    }
}

/// Does something only when [`processes_give_the_answer_of_one`] runs it.
#[test]
fn one_rank_of_them() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let comm = Communicator::from_env().unwrap().with_timeout(Duration::from_secs(60));
    let out = Path::new(&dir).join(format!("out-{}", comm.size()));
    let context = Context::new(comm, 2).unwrap();
    work(&context, Path::new(&dir)).publish(&out, json!({})).unwrap();
}
