//! Wrong files, wrong data, missing resources: the message names the place and the way out, the exit code is the documented one.
//! What the check before the run can see is a configuration error; what a task finds in the data fails that task.

use crate::place::{MODEL, Place, TABLES, can_train, row, stamp};

/// Runs `bad` beside a pipeline that is right; `bad` fails with `code` and says `texts`, the other one is unharmed.
#[track_caller]
fn check(place: &Place, stages: &[&str], code: i32, texts: &[&str]) {
    place.pipeline("bad", stages);
    place.pipeline("good", &[TABLES]);
    place.write("good.toml", &std::fs::read_to_string(place.path().join("good.toml")).unwrap().replace(".csv", "-good.csv"));
    for name in ["loads", "oil"] {
        let to = place.path().join(format!("{name}-good.csv"));
        if !to.exists() {
            std::fs::copy(Place::new().path().join(format!("{name}.csv")), to).unwrap();
        }
    }
    let ended = place.deeprc(&["run", "bad.toml", "good.toml", "--json"]);
    let ended = ended.expect(code, texts);
    let object = ended.json();
    assert_eq!(object["status"], "failed", "{ended}");
    assert!(object["errors"].as_array().unwrap().iter().all(|error| error["pipeline"] == "bad"), "{ended}");
    assert!(ended.stderr.contains("good/parts: done"), "{ended}");
}

#[test]
fn every_fault_of_a_file_is_told_at_once() {
    let place = Place::new();
    let faults = TABLES.replace("ranks = 2\n\n[stage.oil]", "rank = 2\n\n[stage.oil]").replace("right = \"oil\"", "right = \"oill\"");
    check(&place, &[&faults], 2, &["bad.toml:7:1", "unknown key `rank`", "did you mean `ranks`?", "`oill`", "did you mean `oil`?"]);
}

#[test]
fn a_file_that_is_no_toml() {
    let place = Place::new();
    place.write("broken.toml", "name = \"broken\n");
    place.deeprc(&["run", "broken.toml"]).expect(2, &["error:", "broken.toml:1"]);
    place.deeprc(&["run", "absent.toml"]).expect(2, &["absent.toml"]);
    place.deeprc(&["check", "absent.toml"]).expect(2, &["absent.toml"]);
}

#[test]
fn an_unknown_model() {
    let place = Place::new();
    check(&place, &[TABLES, &MODEL.replace("nlinear", "nlinaer")], 2, &["nlinaer", "did you mean \"nlinear\"?", "bad.toml:"]);
}

#[test]
fn a_missing_file() {
    let place = Place::new();
    check(&place, &[&TABLES.replace("oil.csv", "oill.csv")], 2, &["oill.csv", "bad.toml:11:"]);
}

#[test]
fn a_missing_column() {
    let place = Place::new();
    check(&place, &[&TABLES.replace("{ y =", "{ yy =")], 2, &["`yy`", "bad.toml:", "hint:"]);
}

#[test]
fn a_word_among_the_numbers() {
    let place = Place::new();
    let text = std::fs::read_to_string(place.path().join("oil.csv")).unwrap();
    // Beyond the 1,000 rows from which the types are inferred.
    let hours: String = (480..1500).map(|hour| row(hour, 7)).collect();
    place.write("oil.csv", &format!("{}{}{},broken,1.0\n", text, hours, stamp(0)));
    check(&place, &[TABLES], 1, &["oil.csv", "oil.csv:1502", "`oil`", "broken"]);
}

#[test]
fn a_stamp_twice() {
    if !can_train() {
        return;
    }
    let place = Place::new();
    let text = std::fs::read_to_string(place.path().join("loads.csv")).unwrap();
    place.write("loads.csv", &format!("{text}{}", row(100, 0)));
    check(&place, &[TABLES, MODEL], 1, &["2024-01-05 04:00:00", "hint:"]);
}

#[test]
fn a_missing_hour() {
    if !can_train() {
        return;
    }
    let place = Place::new();
    let text = std::fs::read_to_string(place.path().join("loads.csv")).unwrap();
    place.write("loads.csv", &text.replace(&row(100, 0), ""));
    check(&place, &[TABLES, MODEL], 1, &["2024-01-05", "gaps", "hint:"]);
}

#[test]
fn a_series_that_is_too_short() {
    if !can_train() {
        return;
    }
    let place = Place::new();
    check(&place, &[TABLES, &MODEL.replace("input_size = 24", "input_size = 2400")], 1, &["2400", "hint:"]);
}

#[test]
fn more_cores_than_there_are() {
    let place = Place::new();
    check(&place, &[&TABLES.replace("ranks = 2\n\n[stage.oil]", "ranks = 4096\n\n[stage.oil]")], 3, &["4096", "cores", "bad.toml:7:"]);
}

#[test]
fn a_python_package_that_is_absent() {
    let place = Place::new();
    place.write("script.py", "print('never')\n");
    let python = "[stage.py]\nkind = \"python\"\nscript = \"script.py\"\nrequires = [\"no_such_package\"]\n";
    check(&place, &[TABLES, python], 2, &["no_such_package", "bad.toml:", "pip install"]);
}

#[test]
fn a_program_that_fails() {
    let place = Place::new();
    let program = "[stage.bad]\nkind = \"command\"\nprogram = \"sh\"\narguments = [\"-c\", \"echo last words >&2; exit 3\"]\n";
    check(&place, &[TABLES, program], 1, &["bad/bad", "exit code 3", "last words"]);
}
