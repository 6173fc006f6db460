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
    let place = |number: usize| Path::new("/run").join(plan.tasks[number].slug());
    let call = show.work.call(&Inputs { place: &place, finished: &|_| true, answer: &|_| None }, Path::new(""), false).unwrap();
    let Call::Program { program, arguments, dir, .. } = call else { panic!("{call:?}") };
    assert!(program.ends_with("/cat"));
    assert_eq!(arguments, ["/run/test.joined.csv", "/run/test.oil"]);
    assert!(dir.is_absolute() && dir.ends_with("pipelines"));
}

const SEARCH: &str = r#"name = "test"
[stage.forecast]
kind = "predict"
model = "fit"
[stage.fit]
kind = "train"
input = "oil"
time = "date"
target = "OT"
model = "nlinear"
max_steps = 90
search = { trials = 4, parallel = 2, halving = 2, seed = 3 }
[stage.oil]
kind = "read"
generate = { data = "hourly-oil", rows = 500 }
"#;

#[test]
fn a_search_is_rounds_rungs_and_a_winner() {
    insta::assert_snapshot!(lines(&plan_of(SEARCH, &[])));
}

#[test]
fn trials_follow_from_what_the_ones_before_answered() {
    let plan = plan_of(SEARCH, &[]);
    let number = |stage: &str| plan.tasks.iter().position(|task| task.stage == stage).unwrap();
    let place = |number: usize| Path::new("/run").join(plan.tasks[number].slug());
    let mut answers: IndexMap<usize, serde_json::Value> = IndexMap::new();
    let arguments = |stage: &str, answers: &IndexMap<usize, serde_json::Value>| {
        let inputs = Inputs { place: &place, finished: &|_| true, answer: &|number| answers.get(&number) };
        match plan.tasks[number(stage)].work.call(&inputs, Path::new("/out"), true) {
            Ok(Call::Function { name: "forecast.trial", arguments, .. }) => Ok(arguments),
            Ok(other) => panic!("{other:?}"),
            Err(reason) => Err(reason),
        }
    };
    for (trial, loss) in [Some(3.0), None, Some(1.0), Some(2.0)].into_iter().enumerate() {
        let task = arguments(&format!("fit[trial={trial}]"), &answers).unwrap();
        assert_eq!((&task["until"], &task["from"]), (&45.into(), &serde_json::Value::Null));
        assert_eq!(task["train"]["train"]["max_steps"], 90, "what the file fixes does not vary");
        answers
            .insert(number(&format!("fit[trial={trial}]")), serde_json::json!({"options": task["options"], "loss": loss, "train": null}));
    }
    let best = arguments("fit[rung=1,place=0]", &answers).unwrap();
    assert_eq!(best["from"], place(number("fit[trial=2]")).to_str().unwrap());
    assert_eq!((&best["options"], &best["until"]), (&answers[&number("fit[trial=2]")]["options"], &serde_json::Value::Null));
    assert_eq!(arguments("fit[rung=1,place=1]", &answers).unwrap()["from"], place(number("fit[trial=3]")).to_str().unwrap());
    let nothing = IndexMap::new();
    assert_eq!(arguments("fit", &nothing).unwrap_err(), "no trial of the search gave a finite loss");
}
