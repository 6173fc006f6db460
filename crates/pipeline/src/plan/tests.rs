//! Plans of small pipelines: which tasks, in which order, with which hashes.

use std::path::Path;

use super::*;

fn plan_of(text: &str, overrides: &[(&str, &str)]) -> Plan {
    let overrides: Vec<(String, String)> = overrides.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let pipeline =
        Pipeline::parse(Path::new("pipelines/test.toml"), text.to_owned(), &overrides).unwrap_or_else(|faults| panic!("{}", faults[0]));
    let mut plan = Plan::default();
    plan.add(&pipeline, &Executables::beside("deeprc"));
    plan
}

const FORECAST: &str = r#"name = "test"
[stage.scores]
kind = "evaluate"
input = "forecast"
[stage.forecast]
kind = "predict"
model = "fit"
[stage.fit]
kind = "train"
input = "joined"
time = "date"
target = "OT"
matrix = { model = ["nlinear", "nhits"], learning_rate = [1e-3, 1e-2] }
[stage.joined]
kind = "join"
left = "oil"
right = "loads"
on = ["date"]
ranks = 2
[stage.loads]
kind = "read"
generate = { data = "hourly-loads", rows = 500 }
[stage.oil]
kind = "read"
generate = { data = "hourly-oil", rows = 500 }
[stage.show]
kind = "command"
program = "cat"
arguments = ["${stage.joined.csv}", "${stage.oil}"]
"#;

fn lines(plan: &Plan) -> String {
    let line = |task: &Planned| {
        let told = task.announce(plan);
        let model = task.model.as_ref().map_or(String::new(), |model| format!(" ({model})"));
        format!("{} {}{model} <- {} @ {}", told.stage, told.kind, told.needs.join(" "), task.slug())
    };
    plan.tasks.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn matrix_is_expanded_and_inputs_come_first() {
    insta::assert_snapshot!(lines(&plan_of(FORECAST, &[])));
}

/// Labels of the tasks whose hash differs between two plans of the same tasks.
fn changed(a: &Plan, b: &Plan) -> Vec<String> {
    let pairs = a.tasks.iter().zip(&b.tasks);
    pairs.filter(|(a, b)| a.hash != b.hash).map(|(a, _)| a.stage.clone()).collect()
}

#[test]
fn hash_changes_with_the_option_and_all_that_follows() {
    let before = plan_of(FORECAST, &[]);
    assert!(changed(&before, &plan_of(FORECAST, &[])).is_empty());
    assert_eq!(changed(&before, &plan_of(FORECAST, &[("scores.season", "24")])), ["scores"]);
    let models: Vec<String> = changed(&before, &plan_of(FORECAST, &[("fit.max_steps", "7")]));
    assert!(models.iter().all(|stage| ["fit", "forecast", "scores"].iter().any(|name| stage.starts_with(name))), "{models:?}");
    assert_eq!(models.len(), 4 + 4 + 1);
    let all = changed(&before, &plan_of(FORECAST, &[("oil.generate.seed", "2")]));
    assert!(!all.contains(&"loads".to_owned()) && all.contains(&"show".to_owned()) && all.contains(&"joined.csv".to_owned()), "{all:?}");
}

#[test]
fn hash_does_not_depend_on_priority_or_retries() {
    let before = plan_of(FORECAST, &[]);
    assert!(changed(&before, &plan_of(FORECAST, &[("fit.priority", "3"), ("joined.retries", "2"), ("fit.timeout", "60")])).is_empty());
}

#[test]
fn hash_changes_with_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.csv");
    let text = format!("name = \"test\"\n[stage.a]\nkind = \"read\"\nfiles = \"{}\"\n", file.display());
    std::fs::write(&file, "x\n1\n").unwrap();
    let before = plan_of(&text, &[]);
    std::fs::write(&file, "x\n12\n").unwrap();
    assert_eq!(changed(&before, &plan_of(&text, &[])), ["a"]);
}

#[test]
fn two_trainings_of_one_model_have_different_names() {
    let text = FORECAST
        .replace(
            "[stage.joined]",
            "[stage.again]\nkind = \"train\"\ninput = \"oil\"\ntime = \"date\"\ntarget = \"OT\"\nmodel = \"nhits\"\n[stage.joined]",
        )
        .replace(", learning_rate = [1e-3, 1e-2]", "");
    let plan = plan_of(&text, &[]);
    let names: Vec<&str> = plan.tasks.iter().filter_map(|task| task.model.as_deref()).collect();
    assert_eq!(names, ["again/nhits", "nlinear", "fit/nhits"]);
}

#[test]
fn program_gets_places_and_its_own_directory() {
    let plan = plan_of(FORECAST, &[]);
    let show = plan.tasks.last().unwrap();
    let call = show.work.call(&|number| Path::new("/run").join(plan.tasks[number].slug()), &|_| true, Path::new(""), false);
    let Call::Program { program, arguments, dir, .. } = call else { panic!("{call:?}") };
    assert!(program.ends_with("/cat"));
    assert_eq!(arguments, ["/run/test.joined.csv", "/run/test.oil"]);
    assert!(dir.is_absolute() && dir.ends_with("pipelines"));
}
