//! What the user reads when a pipeline file is wrong: every fault at once, each with its place.

use std::fs;
use std::path::Path;

use deeprc_pipeline::{Diagnostic, Pipeline};

fn shown(faults: &[Diagnostic]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n\n")
}

fn faults(file: &str, text: &str, overrides: &[(&str, &str)]) -> Vec<Diagnostic> {
    let overrides: Vec<(String, String)> = overrides.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Pipeline::parse(Path::new(file), text.to_owned(), &overrides).map(|pipeline| pipeline.describe()).expect_err("the file is bad")
}

fn bad(name: &str) {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad").join(format!("{name}.toml")))
        .expect("the file is there");
    insta::assert_snapshot!(name, shown(&faults(&format!("{name}.toml"), &text, &[])));
}

#[test]
fn keys() {
    bad("keys");
}

#[test]
fn models() {
    bad("models");
}

#[test]
fn circle() {
    bad("circle");
}

#[test]
fn values() {
    bad("values");
}

#[test]
fn syntax() {
    bad("syntax");
}

#[test]
fn wiring() {
    bad("wiring");
}

const GOOD: &str = r#"name = "good"
[params]
source = ""
steps = 10
[stage.loads]
kind = "read"
files = "${source}"
generate = { data = "hourly-oil", rows = 500 }
[stage.fit]
kind = "train"
input = "loads"
time = "date"
target = "OT"
model = "nlinear"
max_steps = "${steps}"
"#;

#[test]
fn overrides() {
    let wrong = [("sorce", "x"), ("fit.max_step", "5"), ("fti.h", "2"), ("steps", "many"), ("fit.h", "0")];
    insta::assert_snapshot!("overrides", shown(&faults("good.toml", GOOD, &wrong)));
}

#[test]
fn good_overrides_have_their_type() {
    let overrides = [("steps", "50"), ("fit.h", "12"), ("stage.fit.model", "nhits"), ("source", "2024")];
    let overrides: Vec<(String, String)> = overrides.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
    assert!(Pipeline::parse(Path::new("good.toml"), GOOD.to_owned(), &overrides).is_ok());
}

#[test]
fn absent_file() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("forecast.toml"), "").unwrap();
    let faults = Pipeline::load(&dir.path().join("forcast.toml"), &[]).unwrap_err();
    let text = shown(&faults).replace(&dir.path().display().to_string(), "DIR");
    insta::assert_snapshot!("absent_file", text);
}
