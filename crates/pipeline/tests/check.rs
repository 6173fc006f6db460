//! What `check` says about columns, files, programs and the machine, before anything runs.

use std::fs;
use std::path::Path;

use deeprc_pipeline::{Diagnostic, Executables, Exit, Pipeline, RunOptions};

const LOADS: &str = "date,HUFL,MUFL,site\n2024-01-01 00:00:00,1.5,2,a\n2024-01-01 01:00:00,2.5,3,a\n";
const OIL: &str = "date,OT,HUFL\n2024-01-01 00:00:00,30.5,1\n2024-01-01 01:00:00,27.5,2\n";

/// A directory with two CSV files and a script.
fn data() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for (name, text) in [("loads.csv", LOADS), ("oil.csv", OIL), ("script.py", "")] {
        fs::write(dir.path().join(name), text).expect("the directory is writable");
    }
    dir
}

fn options(dir: &Path) -> RunOptions {
    let program = dir.join("loads.csv");
    let executables = Executables { deeprc: program.clone(), forecast: program, python: "python3".into() };
    RunOptions { cores: Some(2), ..RunOptions::new(dir.join("run"), executables) }
}

fn load(dir: &Path, text: &str) -> Pipeline {
    let parsed = Pipeline::parse(&dir.join("test.toml"), text.to_owned(), &[]);
    parsed.unwrap_or_else(|faults| panic!("{}", faults[0]))
}

fn check(text: &str) -> (Vec<Diagnostic>, String) {
    let dir = data();
    let faults = load(dir.path(), text).check(&options(dir.path()));
    let shown = faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n\n");
    (faults, shown.replace(&dir.path().display().to_string(), "DIR"))
}

const GOOD: &str = r#"name = "test"
[stage.loads]
kind = "read"
files = "loads.csv"
[stage.oil]
kind = "read"
files = "oil.csv"
[stage.narrow]
kind = "derive"
input = "oil"
drop = ["HUFL"]
[stage.joined]
kind = "join"
left = "narrow"
right = "loads"
on = ["date"]
[stage.wide]
kind = "derive"
input = "joined"
with = { hour = "date_part('hour', date)", twice = "2 * \"OT\"" }
lag = [{ column = "OT", order = "date", steps = [1, 24] }]
rolling = { column = "MUFL", order = "date", rows = 3, function = "max" }
filter = "hour < 12"
[stage.few]
kind = "sql"
query = "select date, hour from wide where hour > 3"
[stage.long]
kind = "derive"
input = "joined"
select = ["date", "\"OT\"", "\"HUFL\" as load"]
unpivot = { columns = ["OT", "load"] }
sort = ["unique_id", "-date"]
[stage.parts]
kind = "split"
input = "long"
time = "date"
series = "unique_id"
train = 0.8
[stage.fit]
kind = "train"
input = "parts"
model = "nlinear"
[stage.forecast]
kind = "predict"
model = "fit"
"#;

#[test]
fn columns_are_followed_through_all_stages() {
    let dir = data();
    let pipeline = load(dir.path(), GOOD);
    assert_eq!(pipeline.check(&options(dir.path())), []);
    insta::assert_snapshot!(pipeline.describe().join("\n"));
}

#[test]
fn wrong_columns_are_found_where_they_are_written() {
    let (_, shown) = check(
        r#"name = "test"
[stage.loads]
kind = "read"
files = "loads.csv"
types = { HUFFL = "float" }
[stage.oil]
kind = "read"
files = "oil.csv"
[stage.joined]
kind = "join"
left = "oil"
right = "loads"
on = ["dat"]
[stage.double]
kind = "join"
left = "oil"
right = "loads"
on = ["date"]
[stage.wide]
kind = "derive"
input = "oil"
with = { hour = "date_part('hour', dat)", broken = "1 +" }
lag = { column = "OTT", order = "date", steps = 1 }
filter = "OTT > 3"
drop = ["HUFFL"]
[stage.few]
kind = "sql"
query = "select dates from loads"
[stage.parts]
kind = "split"
input = "loads"
time = "HUFL"
series = "sites"
train = 0.8
scale = { site = "standard" }
[stage.fit]
kind = "train"
input = "loads"
time = "dates"
targets = ["HUFL", "MUFL"]
futr = ["hour"]
model = "nlinear"
"#,
    );
    insta::assert_snapshot!(shown);
}

#[test]
fn absent_files_are_named() {
    let (_, shown) = check(
        r#"name = "test"
[stage.a]
kind = "read"
files = ["load.csv", "oil.csv"]
[stage.b]
kind = "read"
files = "data/*.csv"
[stage.c]
kind = "read"
files = "*.parquet"
[stage.d]
kind = "read"
files = "*.csv"
"#,
    );
    insta::assert_snapshot!(shown);
}

#[test]
fn machine_must_have_what_is_asked_for() {
    let (faults, shown) = check(
        r#"name = "test"
[stage.loads]
kind = "read"
files = "loads.csv"
ranks = 64
[stage.cat]
kind = "command"
program = "no-such-program"
memory = 900000000
[stage.train]
kind = "python"
script = "scrip.py"
requires = ["json", "no_such_package"]
cores = 3
[stage.other]
kind = "python"
script = "script.py"
interpreter = "bin/python"
"#,
    );
    let resources = faults.iter().filter(|fault| fault.exit == Exit::Resources).count();
    assert_eq!(resources, 3, "{shown}");
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(r"there are \d+\n( --> DIR/test.toml:9)", "there are SOME\n$1");
    settings.add_filter(r"/\S*/python3", "PYTHON");
    settings.bind(|| insta::assert_snapshot!(shown));
}
