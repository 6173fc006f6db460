//! Runs that come to their end.

use serde_json::{Value, json};

use crate::place::{MODEL, Place, TABLES, can_train};

#[test]
fn tables_are_read_joined_and_split() {
    let place = Place::new();
    place.pipeline("tables", &[TABLES]);
    let ended = place.deeprc(&["run", "tables.toml", "--json"]).expect(0, &["joined: done: 480 rows in", "✓ done in"]);
    let object = ended.json();
    let keys: Vec<&String> = object.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["run", "status", "seconds", "tasks", "overhead_ms", "first_task_ms", "first_step_ms", "metrics", "errors"]);
    assert_eq!((&object["status"], &object["tasks"], &object["errors"]), (&json!("done"), &json!(4), &json!([])));
    assert_eq!(object["run"], "runs/tables-1");
    for number in [&object["seconds"], &object["overhead_ms"]["median"], &object["overhead_ms"]["max"], &object["first_task_ms"]] {
        assert!(number.as_f64().unwrap() > 0.0, "{object}");
    }
    assert_eq!(object["first_step_ms"], Value::Null);
    assert!(place.path().join("runs/tables-1/report.html").is_file());
    assert!(place.path().join("runs/tables-1/run.json").is_file());
}

#[test]
fn a_finished_run_is_reused_and_an_edit_repeats_what_it_touches() {
    let place = Place::new();
    place.pipeline("tables", &[TABLES]);
    place.deeprc(&["run", "tables.toml"]).expect(0, &[]);
    place.deeprc(&["run", "--resume"]).expect(0, &["loads: reused", "joined: reused", "parts: reused", "0 tasks"]);
    let again = place.deeprc(&["run", "tables.toml", "--resume", "--set", "parts.train=0.5"]);
    again.expect(0, &["joined: reused", "parts: done", "1 tasks"]);
    assert!(!place.path().join("runs/tables-2").exists());
}

#[test]
fn a_model_is_trained_and_evaluated_beside_the_baseline() {
    if !can_train() {
        return;
    }
    let place = Place::new();
    place.pipeline("small", &[TABLES, MODEL]);
    let object = place.deeprc(&["run", "small.toml", "--json"]).expect(0, &["fit: step 60 of 60"]).json();
    let found: Vec<(&str, &str)> =
        object["metrics"].as_array().unwrap().iter().map(|m| (m["model"].as_str().unwrap(), m["metric"].as_str().unwrap())).collect();
    for model in ["nlinear", "seasonal-naive"] {
        for metric in ["mse", "mae"] {
            assert!(found.contains(&(model, metric)), "{object}");
        }
    }
    for row in object["metrics"].as_array().unwrap() {
        assert_eq!(row.as_object().unwrap().keys().collect::<Vec<_>>(), ["pipeline", "model", "metric", "value"]);
    }
    assert!(object["first_step_ms"].as_f64().unwrap() > 0.0);
    let table = place.deeprc(&["run", "small.toml", "--no-progress"]);
    assert!(table.stdout.contains("nlinear") && table.stdout.contains("mse"), "{table}");
}

#[test]
fn a_program_gets_the_directory_of_a_table_and_its_ranks() {
    let place = Place::new();
    let program = r#"
[stage.look]
kind = "command"
program = "sh"
arguments = ["-c", "echo rank $RANK of $WORLD_SIZE; test -f $0/table.json", "${stage.joined}"]
ranks = 2
"#;
    place.pipeline("look", &[TABLES, program]);
    place.deeprc(&["run", "look.toml"]).expect(0, &["look | rank 0 of 2"]);
    let log = place.deeprc(&["task", "log", "--stage", "look"]).expect(0, &[]);
    assert!(log.stdout.contains("rank 0 of 2") && log.stdout.contains("rank 1 of 2"), "{log}");
}

#[test]
fn one_program_runs_as_a_task() {
    let place = Place::new();
    let script = "echo I am $RANK of $WORLD_SIZE at $MASTER_ADDR; echo talk >&2";
    let ended = place.deeprc(&["task", "run", "-n", "2", "--", "sh", "-c", script]).expect(0, &["0 | talk", "1 | talk"]);
    assert!(ended.stdout.contains("0 | I am 0 of 2 at 127.0.0.1") && ended.stdout.contains("1 | I am 1 of 2"), "{ended}");
    let failed = place.deeprc(&["task", "run", "--", "sh", "-c", "exit 7"]);
    failed.expect(1, &["rank 0 ended with exit code 7"]);
    place.deeprc(&["task", "run", "-n", "2", "-c", "4096", "--", "true"]).expect(3, &["cores", "hint:"]);
    place.deeprc(&["task", "run", "--", "no-such-program"]).expect(1, &["no-such-program"]);
}

#[test]
fn models_are_trained_on_a_table_without_a_pipeline_file() {
    if !can_train() {
        return;
    }
    let place = Place::new();
    let command = ["train", "--table", "loads.csv", "--model", "nlinear,nhits", "--target", "y,load", "--h", "12", "--set", "max_steps=5"];
    let small = ["--set", "nhits.mlp_units=[[8,8],[8,8],[8,8]]", "--scale", "standard"];
    let ended = place.deeprc(&[&command[..], &small, &["--json"]].concat()).expect(0, &["fit[nhits]: step 5 of 5", "✓ done in"]);
    let object = ended.json();
    let models: Vec<&str> = object["metrics"].as_array().unwrap().iter().map(|metric| metric["model"].as_str().unwrap()).collect();
    for model in ["nlinear", "nhits", "seasonal-naive"] {
        assert!(models.contains(&model), "{object}");
    }
    // What was run is a file like any other.
    let again = place.deeprc(&["run", "runs/train-nlinear-nhits-1/pipeline.toml", "--json"]).expect(0, &[]).json();
    assert_eq!(again["metrics"], object["metrics"]);
}

#[test]
fn train_asks_for_what_it_cannot_know() {
    let place = Place::new();
    place.write("other.csv", "when,load\n2024-01-01,1\n");
    let refuse = |arguments: &[&str], texts: &[&str]| {
        place.deeprc(&[&["train", "--table"], arguments].concat()).expect(2, texts);
    };
    refuse(&["oil.csv", "--model", "nhits"], &["oil.csv has no column `y`", "--target; there are oil, ot"]);
    refuse(&["other.csv", "--model", "nhits"], &["which column of other.csv holds the time stamps?", "--time; there are when, load"]);
    refuse(&["loads.csv", "--model", "nhit"], &["unknown model \"nhit\"", "did you mean \"nhits\"?"]);
    refuse(&["loads.csv", "--model", "nhits", "--set", "lr=1"], &["unknown option `lr`", "did you mean `learning_rate`?"]);
    refuse(&["nothing.csv", "--model", "nhits"], &["nothing.csv"]);
    assert_eq!(std::fs::read_dir(place.path().join("runs")).map_or(0, Iterator::count), 0, "what was refused leaves no run");
}

#[test]
fn a_search_trains_trials_and_goes_on_with_the_best() {
    if !can_train() {
        return;
    }
    let place = Place::new();
    let command =
        ["tune", "--table", "loads.csv", "--model", "nlinear", "--h", "12", "--input-size", "24", "--trials", "4", "--parallel", "2"];
    let ladder = ["--halving", "2", "--vary", "learning_rate=1e-4..1e-1:log", "--vary", "max_steps=[8,12]", "--json"];
    let ended =
        place.deeprc(&[&command[..], &ladder].concat()).expect(0, &["fit[trial=3]: done", "fit[rung=1,place=1]: done", "fit: done"]);
    assert!(ended.json()["metrics"].as_array().unwrap().iter().any(|metric| metric["model"] == "nlinear"));
    let record = |run: &str| -> Value { serde_json::from_slice(&std::fs::read(place.path().join(run).join("run.json")).unwrap()).unwrap() };
    let first = record("runs/tune-nlinear-1");
    let trials = first["trials"].as_array().unwrap();
    assert_eq!(trials.iter().filter(|trial| trial["rung"] == 0).count(), 4);
    let steps = |trial: &Value| trial["steps"].as_u64().unwrap() * if trial["rung"] == 0 { 2 } else { 1 };
    assert!(trials.iter().all(|trial| trial["options"]["max_steps"] == steps(trial)), "{trials:?}");
    // The best of the last rung is the model; its curve is that of its trial.
    let last = trials.iter().filter(|trial| trial["rung"] == 1).map(|trial| trial["loss"].as_f64().unwrap());
    let valid = first["curves"][0]["valid"].as_array().unwrap().last().unwrap()[1].as_f64().unwrap();
    assert_eq!(valid, last.fold(f64::INFINITY, f64::min));
    // A finished search is reused as a whole, and another one draws the same trials.
    place.deeprc(&["run", "--resume", "runs/tune-nlinear-1"]).expect(0, &["fit[trial=0]: reused", "fit: reused", "0 tasks"]);
    place.deeprc(&["run", "runs/tune-nlinear-1/pipeline.toml", "--json"]).expect(0, &[]);
    let drawn = |record: &Value| {
        let mut all: Vec<(String, Value)> =
            record["trials"].as_array().unwrap().iter().map(|trial| (trial["stage"].to_string(), trial["options"].clone())).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    };
    assert_eq!(drawn(&first), drawn(&record("runs/tune-nlinear-2")));
}
