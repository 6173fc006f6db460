//! The global table: written once, mapped by everybody.

use std::path::Path;
use std::process::Command;

use deeprc_table::arrow::array::{Array, AsArray, RecordBatch};
use deeprc_table::arrow::datatypes::{Float64Type, Int64Type};
use deeprc_table::{Context, Error, GlobalTable, Result, Table};
use serde_json::json;

use crate::ranks::{all_rows, ranks, rows};

/// Names the directory of a table to the second process of a test.
const TABLE: &str = "DEEPRC_TABLE_TEST_DIR";

/// Numbers, text and nulls; sorted by `i` over the ranks.
fn numbers(context: &Context) -> Table {
    let digits = "(values (0), (1), (2), (3), (4), (5), (6), (7), (8), (9))";
    let query = format!(
        "select a.d * 100 + b.d * 10 + c.d as i, c.d * 0.5 as x, case when b.d > 3 then concat('s', a.d) end as s \
         from {digits} a(d) cross join {digits} b(d) cross join {digits} c(d) order by i"
    );
    context.sql(&query, &[]).unwrap()
}

fn publish(size: usize, dir: &Path) -> Vec<Result<()>> {
    ranks(size, 1, |context| numbers(&context).publish(dir, json!({"scale": {"x": 2.0}})))
}

/// The addresses at which this process has mapped the files of a directory.
fn mappings(dir: &Path) -> Vec<std::ops::Range<usize>> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let address = |text: &str| usize::from_str_radix(text, 16).unwrap();
    let lines = maps.lines().filter(|line| line.contains(dir.to_str().unwrap()));
    let range = |line: &str| line.split_once(' ').unwrap().0.split_once('-').map(|(start, end)| address(start)..address(end)).unwrap();
    lines.map(range).collect()
}

/// Every value, offset and mask buffer lies inside a mapping, at a multiple of 64 bytes.
fn check_zero_copy(batches: &[RecordBatch], dir: &Path, aligned: bool) {
    let mappings = mappings(dir);
    assert!(!mappings.is_empty());
    for column in batches.iter().flat_map(|batch| batch.columns()) {
        let data = column.to_data();
        for buffer in data.buffers().iter().chain(data.nulls().map(|nulls| nulls.buffer())).filter(|buffer| !buffer.is_empty()) {
            let start = buffer.as_ptr() as usize;
            assert!(mappings.iter().any(|range| range.contains(&start)), "{} was copied", column.data_type());
            assert!(!aligned || start.is_multiple_of(64));
        }
    }
}

#[test]
fn what_is_mapped_is_what_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let expected = rows(numbers(&Context::local(1).unwrap()).batches());
    for size in 1..=4 {
        let path = dir.path().join(format!("table-{size}"));
        publish(size, &path).into_iter().for_each(Result::unwrap);
        let mapped = GlobalTable::map(&path).unwrap();
        assert_eq!(rows(mapped.batches()), expected);
        assert_eq!((mapped.num_rows(), mapped.metadata()["scale"]["x"].as_f64()), (1000, Some(2.0)));
        check_zero_copy(mapped.batches(), &path, true);
        let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.iter().all(|name| !name.to_string_lossy().starts_with('.')), "{left:?}");
    }
}

#[test]
fn any_number_of_ranks_opens_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("table");
    publish(3, &path).into_iter().for_each(Result::unwrap);
    let expected = rows(GlobalTable::map(&path).unwrap().batches());
    for size in 1..=4 {
        let tables = ranks(size, 1, |context| {
            let table = context.open(&path).unwrap();
            check_zero_copy(table.batches(), &path, false);
            table
        });
        assert_eq!(all_rows(&tables), expected);
        assert!(tables.iter().all(|table| table.batches().iter().map(RecordBatch::num_rows).sum::<usize>() >= 1000 / size));
    }
}

#[test]
fn a_second_process_maps_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("table");
    publish(2, &path).into_iter().for_each(Result::unwrap);
    let test = ["--exact", "global::the_second_process", "--nocapture"];
    let output = Command::new(std::env::current_exe().unwrap()).args(test).env(TABLE, &path).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("sum of i: 499500, of x: 2250"), "{text}");
}

/// Does something only when [`a_second_process_maps_it`] runs it.
#[test]
fn the_second_process() {
    let Some(dir) = std::env::var_os(TABLE) else { return };
    let table = GlobalTable::map(Path::new(&dir)).unwrap();
    check_zero_copy(table.batches(), Path::new(&dir), true);
    let i: i64 = table.batches().iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).sum();
    let x: f64 = table.batches().iter().flat_map(|batch| batch.column(1).as_primitive::<Float64Type>().values().to_vec()).sum();
    println!("sum of i: {i}, of x: {x}");
}

#[test]
fn an_empty_table_keeps_its_columns() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("empty");
    let tables = ranks(2, 1, |context| {
        numbers(&context).filter("i < 0").unwrap().publish(&path, json!({})).unwrap();
        context.open(&path).unwrap()
    });
    let mapped = GlobalTable::map(&path).unwrap();
    assert_eq!((mapped.num_rows(), mapped.schema(), tables[1].num_rows()), (0, numbers(&Context::local(1).unwrap()).schema(), 0));
}

#[test]
fn a_directory_is_not_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    for error in publish(2, dir.path()) {
        assert!(error.unwrap_err().to_string().ends_with("exists already"));
    }
}

#[test]
fn what_is_no_table_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = |text: &str| std::fs::write(dir.path().join("table.json"), text).unwrap();
    let reason = || GlobalTable::map(dir.path()).unwrap_err().to_string().split("not a global table: ").nth(1).unwrap().to_string();
    assert_eq!(reason(), "no table.json");
    manifest("{\"version\": 7}");
    assert_eq!(reason(), "version 7 where this program reads 1");
    manifest("[");
    assert!(reason().starts_with("EOF"));
}

#[test]
fn a_cut_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("table");
    publish(1, &path).into_iter().for_each(Result::unwrap);
    let file = std::fs::OpenOptions::new().write(true).open(path.join("part-0.arrow")).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(length - 64).unwrap();
    assert!(matches!(GlobalTable::map(&path), Err(Error::File { .. } | Error::Engine { .. })));
}
