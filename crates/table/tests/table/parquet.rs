//! Parquet files, whole and split.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use deeprc_table::arrow::array::{ArrayRef, DictionaryArray, Int64Array, RecordBatch, StringViewArray, TimestampNanosecondArray};
use deeprc_table::arrow::datatypes::Int32Type;
use deeprc_table::{Context, CsvOptions, infer_schema};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

use crate::ranks::{all_rows, ranks, rows};

/// Three row groups of different sizes per file.
fn file(dir: &tempfile::TempDir, name: &str, first: i64) -> PathBuf {
    let ids = first..first + 250;
    let columns: [(&str, ArrayRef); 4] = [
        ("id", Arc::new(Int64Array::from_iter_values(ids.clone()))),
        ("s", Arc::new(ids.clone().map(|id| (id % 7 != 0).then(|| format!("s{id}"))).collect::<StringViewArray>())),
        ("c", Arc::new(ids.clone().map(|id| ["a", "b"][id as usize % 2]).collect::<DictionaryArray<Int32Type>>())),
        ("ds", Arc::new(TimestampNanosecondArray::from_iter_values(ids).with_timezone("+00:00"))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let path = dir.path().join(name);
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(100)).build();
    let mut writer = ArrowWriter::try_new(File::create(&path).unwrap(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    path
}

#[test]
fn every_split_equals_the_whole() {
    let dir = tempfile::tempdir().unwrap();
    let files = [file(&dir, "a.parquet", 0), file(&dir, "b.parquet", 250)];
    let table = Context::local(1).unwrap().read_parquet(&files).unwrap();
    let expected = rows(table.batches());
    assert_eq!((expected.len(), expected[7].as_str()), (500, "7|NULL|b|1970-01-01T00:00:00.000000007"));
    let types: Vec<String> = table.schema().fields().iter().map(|field| field.data_type().to_string()).collect();
    assert_eq!(types, ["Int64", "Utf8", "Utf8", "Timestamp(ns)"]);
    assert_eq!(infer_schema(&files[0], &CsvOptions::default()).unwrap(), *table.schema());
    for (size, threads) in [(1, 2), (2, 1), (3, 2), (4, 1)] {
        let tables = ranks(size, threads, |context| context.read_parquet(&files).unwrap());
        assert_eq!(all_rows(&tables), expected);
        assert!(tables.iter().all(|table| table.batches().iter().map(RecordBatch::num_rows).sum::<usize>() >= 500 / size));
    }
}

#[test]
fn a_file_that_is_none_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.parquet");
    std::fs::write(&path, "a,b\n1,2\n").unwrap();
    let error = Context::local(1).unwrap().read_parquet(&[path]).unwrap_err().to_string();
    assert!(error.contains("x.parquet: "), "{error}");
}
