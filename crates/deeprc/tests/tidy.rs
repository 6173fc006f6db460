//! Rules about the sources themselves, read off the files and `cargo metadata`: see "Invariants" in `ARCHITECTURE.md`.

#![expect(clippy::unwrap_used, reason = "a panic is the test's message")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

const LONGEST_FILE: usize = 800;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Every text file that a commit would hold.
fn files() -> Vec<PathBuf> {
    let list = Command::new("git").args(["ls-files", "-co", "--exclude-standard"]).current_dir(root()).output().unwrap();
    assert!(list.status.success(), "git ls-files failed");
    String::from_utf8(list.stdout).unwrap().lines().map(|name| root().join(name)).filter(|file| file.is_file()).collect()
}

fn sources() -> Vec<(PathBuf, String)> {
    let sources: Vec<_> = files()
        .into_iter()
        .filter(|file| file.extension().is_some_and(|e| e == "rs"))
        .map(|file| (file.clone(), std::fs::read_to_string(file).unwrap()))
        .collect();
    assert!(sources.len() > 20, "the sources were not found");
    sources
}

/// Names of the direct dependencies of each crate of the workspace, tests' and builds' ones left out.
fn dependencies() -> BTreeMap<String, Vec<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version=1", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |v: &serde_json::Value| v.as_str().unwrap().to_string();
    metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| {
            let direct =
                package["dependencies"].as_array().unwrap().iter().filter(|d| d["kind"].is_null()).map(|d| text(&d["name"])).collect();
            (text(&package["name"]), direct)
        })
        .collect()
}

#[test]
fn no_file_is_too_long() {
    let long: Vec<String> = sources()
        .iter()
        .filter(|(_, text)| text.lines().count() > LONGEST_FILE)
        .map(|(file, text)| format!("{}: {} lines", file.display(), text.lines().count()))
        .collect();
    assert!(long.is_empty(), "split these (at most {LONGEST_FILE} lines): {long:#?}");
}

#[test]
fn no_file_is_named_after_nothing() {
    let banned = ["utils", "util", "helpers", "helper", "common", "base", "misc", "types", "imp"];
    let bad: Vec<_> = sources()
        .into_iter()
        .map(|(file, _)| file)
        .filter(|file| banned.iter().any(|b| file.file_stem().is_some_and(|s| s == *b)))
        .collect();
    assert!(bad.is_empty(), "name these after the noun in them: {bad:#?}");
}

#[test]
fn nothing_is_left_to_do() {
    // Spelled in two halves so that this file does not find itself.
    let marks = [concat!("todo", "!("), concat!("unimplemented", "!("), concat!("#[ig", "nore"), concat!("FIX", "ME")];
    let bad: Vec<_> =
        sources().into_iter().filter(|(_, text)| marks.iter().any(|mark| text.contains(mark))).map(|(file, _)| file).collect();
    assert!(bad.is_empty(), "finish these: {bad:#?}");
}

#[test]
fn a_safety_comment_stands_before_every_unsafe_block() {
    let bad: Vec<String> = sources()
        .iter()
        .filter(|(file, _)| !file.ends_with("tidy.rs"))
        .flat_map(|(file, text)| {
            let lines: Vec<&str> = text.lines().collect();
            let unexplained = |at: &usize| {
                let above = lines[at.saturating_sub(8)..=*at].iter();
                lines[*at].contains("unsafe {") && !above.clone().any(|line| line.contains("SAFETY:"))
            };
            (0..lines.len()).filter(unexplained).map(|at| format!("{}:{}", file.display(), at + 1)).collect::<Vec<_>>()
        })
        .collect();
    assert!(bad.is_empty(), "say why these are sound (`// SAFETY:`): {bad:#?}");
}

#[test]
fn crates_depend_on_what_the_architecture_allows() {
    let dependencies = dependencies();
    let users = |name: &str| -> Vec<&str> {
        dependencies.iter().filter(|(_, direct)| direct.iter().any(|d| d == name)).map(|(user, _)| user.as_str()).collect()
    };
    assert_eq!(users("datafusion"), ["deeprc-table"]);
    assert_eq!(users("tch"), ["deeprc-forecast"]);
    for (name, direct) in &dependencies {
        let ours: Vec<&str> = direct.iter().map(String::as_str).filter(|d| d.starts_with("deeprc")).collect();
        match name.as_str() {
            "deeprc-comm" | "deeprc-pilot" => assert!(ours.is_empty(), "{name} depends on {ours:?}"),
            "deeprc-table" => assert_eq!(ours, ["deeprc-comm"]),
            "deeprc-loader" => assert_eq!(ours, ["deeprc-table"]),
            _ => {}
        }
    }
    let arrow: Vec<_> =
        dependencies["deeprc-comm"].iter().chain(&dependencies["deeprc-pilot"]).filter(|d| d.starts_with("arrow")).collect();
    assert!(arrow.is_empty(), "comm and pilot know no Arrow: {arrow:?}");
}

#[test]
fn no_file_names_the_machine_it_was_written_on() {
    let marks = [concat!("/wo", "rk/"), concat!("/ro", "ot/")];
    let bad: Vec<_> = files()
        .into_iter()
        .filter(|file| std::fs::read_to_string(file).is_ok_and(|text| marks.iter().any(|mark| text.contains(mark))))
        .collect();
    assert!(bad.is_empty(), "machine paths in: {bad:#?}");
}
