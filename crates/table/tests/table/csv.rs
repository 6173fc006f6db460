//! CSV files, whole and split.

use std::fs;
use std::path::{Path, PathBuf};

use deeprc_table::{ColumnType, Context, CsvOptions, Error, Table, infer_schema};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::ranks::{all_rows, ranks, rows, some_cases};

/// Files in a directory that goes away with it.
fn files(texts: &[&str]) -> (TempDir, Vec<PathBuf>) {
    let dir = tempfile::tempdir().unwrap();
    let paths = (0..texts.len()).map(|i| dir.path().join(format!("{i}.csv"))).collect::<Vec<_>>();
    for (path, text) in paths.iter().zip(texts) {
        fs::write(path, text).unwrap();
    }
    (dir, paths)
}

fn whole(files: &[PathBuf], options: &CsvOptions) -> Result<Table, Error> {
    Context::local(1).unwrap().read_csv(files, options)
}

/// Reads at every number of ranks and threads and compares with what one thread of one rank reads; gives that back.
fn check_splits(texts: &[&str], options: &CsvOptions) -> Vec<String> {
    let (_dir, files) = files(texts);
    let expected = rows(whole(&files, options).unwrap().batches());
    for (size, threads) in [(1, 2), (2, 1), (3, 2), (4, 1), (4, 2)] {
        let tables = ranks(size, threads, |context| context.read_csv(&files, options).unwrap());
        assert_eq!(all_rows(&tables), expected, "{size} ranks, {threads} threads");
    }
    expected
}

/// The error of a text, the same on every rank but for the rank's name.
fn error(text: &str, options: &CsvOptions) -> (Error, PathBuf) {
    let (_dir, files) = files(&[text]);
    let error = whole(&files, options).unwrap_err();
    for rank in ranks(3, 1, |context| context.read_csv(&files, options).unwrap_err().to_string()) {
        assert!(rank.ends_with(&error.to_string()), "{rank}");
    }
    (error, files[0].clone())
}

fn lines(count: usize) -> String {
    (0..count).map(|i| format!("{i},2016-07-01 {:02}:00:00,s{},{}.5\n", i % 24, i % 3, i)).collect()
}

#[test]
fn every_split_equals_the_whole() {
    let text = format!("id,date,name,y\n{}", lines(200));
    let rows = check_splits(&[&text], &CsvOptions::default());
    assert_eq!((rows.len(), rows[1].as_str()), (200, "1|2016-07-01T01:00:00|s1|1.5"));
}

#[test]
fn every_split_of_windows_lines_blank_lines_and_comments() {
    let text = format!("# made by hand\r\nid,date,name,y\r\n\r\n{}", lines(40).replace('\n', "\r\n# more\r\n\r\n"));
    let options = CsvOptions { comment: Some('#'), ..CsvOptions::default() };
    assert_eq!(check_splits(&[&text], &options).len(), 40);
}

#[test]
fn several_files_are_one_table() {
    let (a, b) = (format!("id,date,name,y\n{}", lines(30)), format!("id,date,name,y\n{}", lines(3).trim_end()));
    assert_eq!(check_splits(&[&a, &b, "id,date,name,y\n", &a], &CsvOptions::default()).len(), 63);
}

#[test]
fn line_breaks_in_quotes() {
    let row = |i: usize| format!("{i},\"two\nlines, a \"\"quote\"\"\n{}\"\n", "x".repeat(i % 7));
    let text = format!("id,note\n{}", (0..50).map(row).collect::<String>());
    let rows = check_splits(&[&text, &text], &CsvOptions::default());
    assert_eq!((rows.len(), rows[1].as_str()), (100, "1|two\nlines, a \"quote\"\nx"));
}

#[test]
fn types_are_inferred_from_all_heads() {
    let (_dir, files) = files(&["a,b,c,d,e,f\n1,1,true,2016-07-01,,x\n", "a,b,c,d,e,f\n2,NA,false,2016-07-01 01:00,,1\n3,2.5,,,,\n"]);
    let table = whole(&files, &CsvOptions::default()).unwrap();
    let types: Vec<String> = table.schema().fields().iter().map(|field| field.data_type().to_string()).collect();
    assert_eq!(types, ["Int64", "Float64", "Boolean", "Timestamp(µs)", "Utf8", "Utf8"]);
    assert_eq!(rows(table.batches())[2], "3|2.5|NULL|NULL|NULL|NULL");
    let schema = infer_schema(&files[0], &CsvOptions::default()).unwrap();
    assert_eq!(schema.field(3).data_type().to_string(), "Date32");
}

#[test]
fn options() {
    let (_dir, files) = files(&["1;-9;0012\n2;3;0013\n"]);
    let options: CsvOptions = serde_json::from_value(serde_json::json!({
        "delimiter": ";", "header": false, "names": ["a", "b"], "nulls": ["-9"], "types": {"column_3": "text"}
    }))
    .unwrap();
    let table = whole(&files, &options).unwrap();
    assert_eq!(rows(table.batches()), ["1|NULL|0012", "2|3|0013"]);
    assert_eq!(table.schema().field(2).name(), "column_3");
}

#[test]
fn a_wrong_cell_is_named() {
    let text = format!("id,date,name,y\n{}7,2016-07-01,s,oops\n", lines(1500));
    let (error, file) = error(&text, &CsvOptions::default());
    assert_eq!(error.to_string(), format!("{}:1502: column \"y\": \"oops\" is not a number (float)", file.display()));
    assert!(error.hint().unwrap().contains("types.y = \"text\""));
    assert_eq!(error.detail()["line"], 1502);
}

#[test]
fn a_short_line_is_named() {
    let (error, file) = error("a,b\n1,2\n\n3\n", &CsvOptions::default());
    assert_eq!(error.to_string(), format!("{}:4: 1 cells where the header has 2", file.display()));
}

#[test]
fn wrong_files_are_named() {
    assert!(error("", &CsvOptions::default()).0.to_string().ends_with("0.csv: is empty"));
    assert!(error("a,a\n", &CsvOptions::default()).0.to_string().ends_with("column \"a\" appears twice"));
    let options = CsvOptions { types: [("temprature".to_string(), ColumnType::Float)].into(), ..CsvOptions::default() };
    let (error, _) = error("temperature\n1\n", &options);
    assert_eq!((error.to_string().as_str(), error.hint().as_deref()), ("no column \"temprature\"", Some("did you mean \"temperature\"?")));
    let missing = whole(&[Path::new("/no/such.csv").to_path_buf()], &CsvOptions::default()).unwrap_err();
    assert!(missing.to_string().starts_with("/no/such.csv: No such file"), "{missing}");
    let (_dir, files) = files(&["a,b\n1,2\n", "a,c\n1,2\n"]);
    let error = whole(&files, &CsvOptions::default()).unwrap_err();
    assert_eq!(error.to_string(), format!("{}: has no column \"b\", unlike {}", files[1].display(), files[0].display()));
}

proptest! {
    #![proptest_config(some_cases())]

    /// Quotes, delimiters, line breaks and blanks anywhere in a cell.
    #[test]
    fn any_text_survives(cells in proptest::collection::vec("[ab \",\n]{0,6}", 1..40)) {
        let quoted = |cell: &String| format!("\"{}\"", cell.replace('"', "\"\""));
        let text: String = cells.iter().enumerate().map(|(i, cell)| format!("{i},{}\n", quoted(cell))).collect();
        let options = CsvOptions { nulls: vec!["NULL".into()], types: [("note".into(), ColumnType::Text)].into(), ..CsvOptions::default() };
        let rows = check_splits(&[&format!("id,note\n{text}")], &options);
        let expected: Vec<String> = cells.iter().enumerate().map(|(i, cell)| format!("{i}|{cell}")).collect();
        prop_assert_eq!(rows, expected);
    }
}
