//! Series that cannot be used are left out when the policy says so, and parts and rows can be changed afterwards.

#![expect(clippy::unwrap_used, reason = "a panic is the message of a test")]

mod table;

use deeprc_loader::{BadSeries, Constant, Dataset, DatasetOptions, Error, Nulls, Part, WindowSpec, parse_stamp};
use deeprc_table::arrow::array::RecordBatch;
use table::{Row, batches, options};

/// Five series of ten hours, `bad` spoiled by `spoil`.
fn rows(spoil: impl Fn(&mut Vec<Row>)) -> Vec<Row> {
    let mut rows = Vec::new();
    for id in ["a", "b", "bad", "c", "d"] {
        let mut series: Vec<Row> = (0..10).map(|hour| Row::new(id, hour, (hour * 3 % 7) as f64)).collect();
        if id == "bad" {
            spoil(&mut series);
        }
        rows.extend(series);
    }
    rows
}

fn ids(dataset: &Dataset) -> Vec<&str> {
    dataset.series().iter().map(|s| s.id.as_str()).collect()
}

/// An error that says `message` unless bad series are skipped; then only `bad` is missing, and the others are as ever.
#[track_caller]
fn check(spoil: impl Fn(&mut Vec<Row>), change: impl Fn(&mut DatasetOptions), message: &str) {
    let mut options = options();
    options.columns.stat = vec!["area".into()];
    change(&mut options);
    let rows = rows(spoil);
    let error = Dataset::from_batches(&batches(&rows, 7), &options).unwrap_err();
    assert!(error.to_string().contains(message) && error.to_string().contains("`bad`"), "{error}");

    options.on_bad_series = BadSeries::Skip;
    let dataset = Dataset::from_batches(&batches(&rows, 7), &options).unwrap();
    assert_eq!(ids(&dataset), ["a", "b", "c", "d"]);
    let [skipped] = dataset.skipped() else { panic!("{:?}", dataset.skipped()) };
    assert!(skipped.series == "bad" && skipped.reason == error.to_string(), "{skipped}");
    let good: Vec<Row> = rows.into_iter().filter(|row| row.id != "bad").collect();
    let expect = Dataset::from_batches(&batches(&good, 3), &options).unwrap();
    assert_eq!((dataset.values(), dataset.times(), dataset.stat()), (expect.values(), expect.times(), expect.stat()));
    assert_eq!(dataset.series(), expect.series());
}

#[test]
fn a_bad_series_does_not_lose_the_others() {
    check(|rows| rows[3] = rows[2].clone(), |_| {}, "has the stamp 2020-01-01 02:00:00 twice, in rows 23 and 24");
    check(|rows| rows[3].stamp += 60_000, |_| {}, "is irregular: 2020-01-01 03:01:00 (row 24)");
    check(|rows| _ = rows.remove(4), |_| {}, "has a gap: 1 stamp(s) missing between 2020-01-01 03:00:00 (row 24)");
    check(|rows| rows[5].y = None, |_| {}, "column `y` has no value at 2020-01-01 05:00:00 (row 26)");
    check(|rows| rows[5].y = Some(f64::INFINITY), |_| {}, "column `y` is infinite at 2020-01-01 05:00:00 (row 26)");
    check(|rows| rows[5].area = Some(2.0), |_| {}, "static column `area` changes from 1 to 2 in row 26");
    check(|rows| rows.iter_mut().for_each(|row| row.y = None), |o| o.nulls = Nulls::Fill, "column `y` has no value at all");
    let split = |rows: &mut Vec<Row>| rows[3].split = 2;
    check(split, |o| o.columns.split = Some("split".into()), "split column `split` is 0 at 2020-01-01 04:00:00 (row 25)");
}

#[test]
fn several_mistakes_are_all_named() {
    let mut rows = rows(|rows| rows[3] = rows[2].clone());
    rows[2].y = Some(f64::NEG_INFINITY);
    rows[13].stamp += 1;
    let options = DatasetOptions { on_bad_series: BadSeries::Skip, ..options() };
    let dataset = Dataset::from_batches(&batches(&rows, 9), &options).unwrap();
    assert_eq!(ids(&dataset), ["c", "d"]);
    let found: Vec<String> = dataset.skipped().iter().map(ToString::to_string).collect();
    assert!(found[0].starts_with("left out series `a`: series `a`: column `y` is infinite"), "{found:?}");
    assert!(found[1].contains("`b` is irregular") && found[2].contains("twice"), "{found:?}");
    rows.retain(|row| ["a", "b"].contains(&row.id));
    let error = Dataset::from_batches(&batches(&rows, 9), &options).unwrap_err();
    assert!(matches!(error, Error::Irregular { .. } | Error::Infinite { .. }), "none is left: {error}");
}

#[test]
fn short_and_constant_series_are_found_before_training() {
    let mut rows = rows(|rows| rows.truncate(4));
    rows.iter_mut().filter(|row| row.id == "c").for_each(|row| row.y = Some(2.5));
    let build = |on_bad_series, constant| {
        Dataset::from_batches(&batches(&rows, 9), &DatasetOptions { on_bad_series, constant, ..options() }).unwrap()
    };
    let strict = build(BadSeries::Raise, Constant::Raise);
    let error = strict.constant_series().unwrap_err().to_string();
    assert_eq!(error, "series `c` is constant: column `y` is 2.5 at all 10 observed training stamps from 2020-01-01 on");
    let spec = WindowSpec::new(4, 2, Part::Train);
    assert!(matches!(strict.windows(&spec), Err(Error::TooShort { .. })));
    let skipping = build(BadSeries::Skip, Constant::Raise);
    let constant = skipping.constant_series().unwrap();
    assert_eq!((constant.len(), constant[0].0, &constant[0].1.reason), (1, 3, &error));
    let windows = skipping.windows(&spec).unwrap();
    assert_eq!((windows.len(), windows.skipped().len(), windows.skipped()[0].series.as_str()), (4 * 5, 1, "bad"));
    assert!(matches!(skipping.windows(&WindowSpec::new(40, 2, Part::Train)), Err(Error::TooShort { .. })), "all are too short");
    assert!(build(BadSeries::Raise, Constant::Keep).constant_series().unwrap().is_empty());
}

#[test]
fn parts_can_be_counted_from_the_end() {
    let rows = rows(|rows| rows.truncate(5));
    let dataset = Dataset::from_batches(&batches(&rows, 9), &options()).unwrap();
    let error = dataset.resplit(2, 3).unwrap_err().to_string();
    assert_eq!(error, "series `bad` has 5 rows, too few for 2 validation and 3 test rows and some to train on");
    let split = dataset.resplit(2, 2).unwrap();
    let parts: Vec<[usize; 3]> = split.series().iter().map(|s| [s.train, s.validation, s.test]).collect();
    assert_eq!(parts, [[6, 2, 2], [6, 2, 2], [1, 2, 2], [6, 2, 2], [6, 2, 2]]);
    let skipping = Dataset::from_batches(&batches(&rows, 9), &DatasetOptions { on_bad_series: BadSeries::Skip, ..options() }).unwrap();
    let split_without = skipping.resplit(2, 3).unwrap();
    assert_eq!((split_without.series()[2].train, split_without.series()[3].train, split_without.skipped().len()), (0, 5, 1));
    assert!(std::ptr::eq(split.values(), dataset.values()), "no number is copied");
}

fn with_future() -> DatasetOptions {
    let mut options = options();
    options.columns.futr = vec!["x".into()];
    options
}

#[test]
fn rows_ahead_go_on_by_the_frequency() {
    let dataset = Dataset::from_batches(&batches(&rows(|_| {}), 9), &with_future()).unwrap();
    let future: Vec<Row> =
        ["a", "b", "bad", "c", "d", "other"].iter().flat_map(|id| (9..13).map(|h| Row::new(id, h, -100.0 - h as f64))).collect();
    let ahead = dataset.ahead(4, 2, &batches(&future, 5)).unwrap();
    assert_eq!(ids(&ahead), ids(&dataset));
    let first = &ahead.series()[0];
    assert_eq!((first.len, first.train, first.test), (6, 4, 2));
    assert_eq!(ahead.times()[4], parse_stamp("2020-01-01 10:00:00").unwrap());
    // y, x of the hours 8 to 11: the future's x, not the table's.
    assert_eq!(ahead.values()[4..12], [3.0, -3.0, 6.0, -6.0, 0.0, 110.0, 0.0, 111.0]);
    assert_eq!(ahead.mask()[4..12], [1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 0.0, 1.0]);
    let mut known = ahead.clone();
    known.observe(0, 4, &[42.0]);
    assert_eq!((known.values()[8], known.mask()[8], ahead.values()[8]), (42.0, 1.0, 0.0));
    assert_eq!(dataset.ahead(400, 2, &batches(&future, 5)).unwrap().series()[0].len, 12, "no more than there is");
}

#[test]
fn what_a_forecast_lacks_is_named() {
    let dataset = Dataset::from_batches(&batches(&rows(|_| {}), 9), &with_future()).unwrap();
    let full = |id: &'static str| (10..12).map(move |h| Row::new(id, h, 1.0));
    let message = |future: Vec<RecordBatch>| dataset.ahead(4, 2, &future).unwrap_err().to_string();
    let expect = "series `a`: column `x` has no value at 2020-01-01 10:00:00 in the table of future rows";
    assert_eq!(message(Vec::new()), expect);
    let mut rows: Vec<Row> = ["a", "b", "bad", "c", "d"].into_iter().flat_map(full).collect();
    let removed = rows.remove(3);
    let expect = "series `b`: column `x` has no value at 2020-01-01 11:00:00 in the table of future rows";
    assert_eq!(message(batches(&rows, 4)), expect);
    rows.push(Row { y: None, ..removed });
    assert_eq!(message(batches(&rows, 4)), expect, "a null is no value");
    rows[9].y = Some(f64::INFINITY);
    assert!(message(batches(&rows, 4)).contains("series `b`: column `x` is infinite at 2020-01-01 11:00:00 (row 10)"));
    let narrow: Vec<RecordBatch> = batches(&rows, 4).iter().map(|b| b.project(&[0, 1, 2]).unwrap()).collect();
    assert!(message(narrow).contains("no column `x` in the table"));
}
