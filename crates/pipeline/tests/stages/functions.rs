//! The stage functions on 1, 2 and 3 ranks: what they publish does not depend on the number of ranks.

use crate::stage::{self, Stage, call};
use deeprc_pipeline::functions::{Error, ReadArguments, SPLIT, Scaler, read_schema};
use deeprc_table::GlobalTable;
use serde_json::{Value, json};

#[test]
fn generated_tables_join_on_their_stamps() {
    let stage = Stage::new();
    let expect = stage.on_ranks(|ranks, name| {
        let generated = stage.path(&format!("generated-{ranks}"));
        for data in ["hourly-loads", "hourly-oil"] {
            let arguments =
                json!({ "generate": { "data": data, "rows": 100 }, "generate_dir": generated, "output": stage.path(&name(data)) });
            let result = call(ranks, "table.read", arguments).unwrap();
            assert_eq!(result["rows"], 100);
        }
        let (left, right) = (stage.path(&name("hourly-loads")), stage.path(&name("hourly-oil")));
        let output = stage.path(&name("joined"));
        let result = call(ranks, "table.join", json!({ "left": left, "right": right, "on": ["date"], "output": output })).unwrap();
        assert_eq!(result["rows"], 100);
        name("joined")
    });
    let columns: Vec<String> = expect.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(columns, ["date", "HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT"]);
    assert!(stage::numbers(&expect, "OT").iter().all(|value| (-20.0..80.0).contains(&value.unwrap())));
}

#[test]
fn a_join_without_a_match_says_so() {
    let stage = Stage::new();
    stage.csv("left", "day,a\n2020-01-01,1\n");
    stage.csv("right", "day,b\n2021-01-01,1\n");
    let arguments = |on: &str| json!({ "left": stage.path("left"), "right": stage.path("right"), "on": [on], "output": stage.path("out") });
    let result = call(2, "table.join", arguments("day")).unwrap();
    assert_eq!(result["rows"], 0);
    assert_eq!(result["notes"], json!(["no row of the two tables has the same day"]));
    let error = call(2, "table.join", arguments("b")).unwrap_err();
    assert_eq!(error.to_string(), "no column `b` in the left table (columns: day, a)");
}

#[test]
fn derive_does_its_steps_in_order() {
    let stage = Stage::new();
    stage.csv("wide", "date,a,b\n2020-01-01,1,10\n2020-01-02,2,20\n2020-01-03,4,40\n2020-01-04,8,80\n");
    let long = stage.on_ranks(|ranks, name| {
        let arguments = json!({
            "input": stage.path("wide"),
            "with": { "twice": "a * 2", "four": "twice * 2" },
            "lag": [{ "column": "a", "order": "date", "steps": [1, 2] }],
            "rolling": [{ "column": "b", "order": "date", "rows": 2, "function": "sum", "name": "sum" }],
            "filter": "a_lag2 is not null",
            "drop": ["twice", "b"],
            "unpivot": { "columns": ["a", "four", "a_lag1", "a_lag2", "sum"] },
            "sort": ["unique_id", "-date"],
            "output": stage.path(&name("long")),
        });
        assert_eq!(call(ranks, "table.derive", arguments).unwrap()["rows"], 10);
        name("long")
    });
    assert_eq!(stage::texts(&long, "unique_id")[..4], ["a", "a", "a_lag1", "a_lag1"]);
    // 4 January before 3 January, for a, a_lag1, a_lag2, four and sum.
    let expect = [8.0, 4.0, 4.0, 2.0, 2.0, 1.0, 32.0, 16.0, 120.0, 60.0];
    assert_eq!(stage::numbers(&long, "y"), expect.map(Some));
}

#[test]
fn sql_reads_several_tables() {
    let stage = Stage::new();
    stage.csv("a", "k,x\n1,1\n2,2\n3,3\n");
    stage.csv("b", "k,y\n2,5\n3,7\n");
    let result = stage.on_ranks(|ranks, name| {
        let query = "select a.k, x + y as z from a join b on a.k = b.k order by a.k";
        let tables = json!({ "a": stage.path("a"), "b": stage.path("b") });
        call(ranks, "table.sql", json!({ "query": query, "tables": tables, "output": stage.path(&name("z")) })).unwrap();
        name("z")
    });
    assert_eq!(stage::numbers(&result, "z"), [Some(7.0), Some(10.0)]);
}

/// Two series of 20 and 15 days, b first.
fn two_series() -> String {
    let mut text = String::from("ds,unique_id,y,x\n");
    for (id, days) in [("b", 15), ("a", 20)] {
        for day in (1..=days).rev() {
            text.push_str(&format!("2020-01-{day:02},{id},{},{}\n", day * day, if day == 3 { "" } else { "5" }));
        }
    }
    text
}

#[test]
fn split_sorts_scales_by_training_rows_and_keeps_the_scaler() {
    let stage = Stage::new();
    stage.csv("long", &two_series());
    let parts = stage.on_ranks(|ranks, name| {
        let arguments = json!({
            "input": stage.path("long"), "output": stage.path(&name("parts")), "time": "ds", "series": "unique_id",
            "train": 0.6, "validation": 0.2, "test": 0.2, "scale": { "y": "standard", "x": "minmax" },
        });
        assert_eq!(call(ranks, "table.split", arguments).unwrap()["rows"], 35);
        name("parts")
    });
    let split = stage::numbers(&parts, SPLIT);
    let count = |rows: std::ops::Range<usize>, part: f64| split[rows].iter().filter(|&&value| value == Some(part)).count();
    assert_eq!([count(0..20, 0.0), count(0..20, 1.0), count(0..20, 2.0)], [12, 4, 4]);
    assert_eq!([count(20..35, 0.0), count(20..35, 1.0), count(20..35, 2.0)], [9, 3, 3]);
    assert!(split[..20].is_sorted() && split[20..].is_sorted());

    let table = GlobalTable::map(&stage.path("parts-1")).unwrap();
    let scaler = Scaler::of(table.metadata()).unwrap();
    let of_a: Vec<f64> = (1..=12).map(|day| f64::from(day * day)).collect();
    let mean = of_a.iter().sum::<f64>() / 12.0;
    let deviation = (of_a.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / 12.0).sqrt();
    let [shift, scale] = scaler.parameters("y", "a");
    assert!((shift - mean).abs() < 1e-9 && (scale - deviation).abs() < 1e-9);
    let last = stage::numbers(&parts, "y")[19].unwrap();
    assert!((last - (400.0 - mean) / deviation).abs() < 1e-9);
    // Constant, with a hole.
    assert_eq!(scaler.parameters("x", "b"), [5.0, 1.0]);
    assert_eq!(stage::numbers(&parts, "x")[1..3], [Some(0.0), None]);
    assert_eq!(table.metadata()["split"], json!({ "train": 21, "validation": 7, "test": 7, "series": 2 }));
}

#[test]
fn split_leaves_rows_out_and_says_so() {
    let stage = Stage::new();
    stage.csv("long", &two_series());
    for (parts, rows) in [
        (json!({ "train": 5, "validation": 2, "test": 3 }), 20),
        (json!({ "train": "2020-01-06", "validation": "2020-01-10", "test": "2020-01-13" }), 24),
        (json!({ "train": 1, "test": 1, "by": "series" }), 35),
    ] {
        let table = stage.on_ranks(|ranks, name| {
            let mut arguments =
                json!({ "input": stage.path("long"), "output": stage.path(&name("parts")), "time": "ds", "series": "unique_id" });
            arguments.as_object_mut().unwrap().extend(parts.as_object().unwrap().clone());
            let result = call(ranks, "table.split", arguments).unwrap();
            let note = format!("{} rows after the last part were left out", 35 - rows);
            assert_eq!(result["notes"], if rows < 35 { json!([note]) } else { json!([]) });
            name("parts")
        });
        assert_eq!(table.num_rows(), rows);
    }
}

#[test]
fn split_errors_name_series_and_columns() {
    let stage = Stage::new();
    stage.csv("long", &two_series());
    let message = |change: Value| {
        let mut arguments =
            json!({ "input": stage.path("long"), "output": stage.path("out"), "time": "ds", "series": "unique_id", "train": 5 });
        arguments.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        call(2, "table.split", arguments).unwrap_err().to_string()
    };
    assert_eq!(message(json!({ "train": 16 })), "series `b` has 15 rows, but the parts of the split need 16");
    assert_eq!(message(json!({ "time": "day" })), "no column `day` in the table (columns: ds, unique_id, y, x)");
    assert_eq!(message(json!({ "scale": { "unique_id": "standard" } })), "column `unique_id` is Utf8, but a number is needed");
    assert_eq!(
        message(json!({ "train": 0, "test": 5, "scale": { "y": "standard" } })),
        "column `y` has no value in the training rows: it cannot be scaled"
    );
    assert!(message(json!({ "tain": 5 })).starts_with("arguments of `table.split`: unknown field `tain`, expected one of"));
}

#[test]
fn basins_are_joined_on_gauge_and_date() {
    let stage = Stage::new();
    let table = stage.on_ranks(|ranks, name| {
        for part in ["forcing", "streamflow", "attributes"] {
            let generate = json!({ "data": "basins", "basins": 5, "rows": 40 });
            let generated = stage.path(&format!("generated-{ranks}"));
            let arguments = json!({ "generate": generate, "part": part, "generate_dir": generated, "output": stage.path(&name(part)) });
            call(ranks, "table.read", arguments).unwrap();
        }
        let join = |left: &str, right: &str, on: Value, output: &str| {
            let arguments = json!({
                "left": stage.path(&name(left)), "right": stage.path(&name(right)), "on": on, "how": "left", "output": stage.path(&name(output)),
            });
            call(ranks, "table.join", arguments).unwrap()
        };
        assert_eq!(join("forcing", "streamflow", json!(["gauge", "date"]), "days")["rows"], 200);
        assert_eq!(join("days", "attributes", json!(["gauge"]), "basins")["rows"], 200);
        name("days")
    });
    assert!(stage::numbers(&table, "q").iter().flatten().all(|&q| (0.0..500.0).contains(&q)));
}

#[test]
fn the_schema_is_known_before_anything_is_read() {
    let stage = Stage::new();
    std::fs::write(stage.path("a.csv"), "date,x\n2020-01-01 00:00:00,1.5\n").unwrap();
    let generate = |data: &str| json!({ "data": data, "rows": 10, "basins": 1 });
    let cases = [
        json!({ "files": [stage.path("a.csv")] }),
        json!({ "generate": generate("hourly-loads") }),
        json!({ "generate": generate("hourly-oil") }),
        json!({ "generate": generate("basins"), "part": "forcing" }),
        json!({ "generate": generate("basins"), "part": "streamflow" }),
        json!({ "generate": generate("basins"), "part": "attributes" }),
    ];
    for (at, mut arguments) in cases.into_iter().enumerate() {
        let output = stage.path(&format!("table-{at}"));
        arguments["output"] = json!(output);
        let expect = read_schema(&serde_json::from_value::<ReadArguments>(arguments.clone()).unwrap()).unwrap();
        call(1, "table.read", arguments).unwrap();
        let found = GlobalTable::map(&output).unwrap().schema();
        let fields = |schema: &deeprc_table::arrow::datatypes::Schema| {
            schema.fields().iter().map(|field| (field.name().clone(), field.data_type().clone())).collect::<Vec<_>>()
        };
        assert_eq!(fields(&found), fields(&expect), "case {at}");
    }
}

#[test]
fn errors_carry_what_the_user_needs() {
    let stage = Stage::new();
    std::fs::write(stage.path("bad.csv"), "date,x\n2020-01-01,1\n2020-01-02,oops\n").unwrap();
    let arguments = json!({ "files": [stage.path("bad.csv")], "types": { "x": "float" }, "output": stage.path("out") });
    let error = deeprc_pilot::rank::FunctionError::from(call(2, "table.read", arguments).unwrap_err());
    assert_eq!((&error.detail["line"], &error.detail["column"]), (&json!(3), &json!("x")));
    assert!(error.detail["hint"].as_str().unwrap().contains("nulls"));
    assert!(!stage.path("out").exists());
    let error = call(1, "table.read", json!({ "output": stage.path("out") })).unwrap_err();
    assert!(matches!(error, Error::Setting { setting: "files", .. }));
    assert!(deeprc_pilot::rank::FunctionError::from(error).detail["hint"].is_string());
}

#[test]
fn a_table_of_an_earlier_attempt_is_replaced() {
    let stage = Stage::new();
    for rows in [10, 20] {
        let arguments = json!({ "generate": { "data": "hourly-oil", "rows": rows }, "output": stage.path("out") });
        assert_eq!(call(2, "table.read", arguments).unwrap()["rows"], rows);
        assert_eq!(GlobalTable::map(&stage.path("out")).unwrap().num_rows(), rows);
    }
}
