//! A table becomes a data set, or an error that says where and what to do.

#![expect(clippy::unwrap_used, reason = "a panic is the message of a test")]

mod table;

use deeprc_loader::{Columns, Dataset, DatasetOptions, Frequency, Gaps, Nulls};
use table::{Row, batches, options};

fn rows() -> Vec<Row> {
    (0..4).flat_map(|hour| [Row::new("b", hour, hour as f64 + 10.0), Row::new("a", hour, hour as f64)]).collect()
}

fn dataset(rows: &[Row], change: impl Fn(&mut DatasetOptions)) -> Result<Dataset, deeprc_loader::Error> {
    let mut options = options();
    change(&mut options);
    Dataset::from_batches(&batches(rows, 3), &options)
}

#[track_caller]
fn check_error(rows: &[Row], change: impl Fn(&mut DatasetOptions), message: &str) {
    let error = dataset(rows, change).unwrap_err();
    assert_eq!(error.to_string(), message);
    assert!(error.hint().is_some());
}

#[test]
fn rows_in_any_order_are_sorted_by_series_and_time() {
    let mut rows = rows();
    rows.swap(0, 7);
    rows.swap(2, 5);
    let dataset = dataset(&rows, |_| {}).unwrap();
    let series: Vec<(&str, usize, usize)> = dataset.series().iter().map(|s| (s.id.as_str(), s.start, s.len)).collect();
    assert_eq!(series, [("a", 0, 4), ("b", 4, 4)]);
    assert_eq!(dataset.values(), [0.0, 1.0, 2.0, 3.0, 10.0, 11.0, 12.0, 13.0]);
    assert_eq!(dataset.frequency().to_string(), "1h");
    assert!(dataset.fully_observed() && dataset.mask().iter().all(|&mask| mask == 1.0));
    assert_eq!(dataset.times()[5] - dataset.times()[4], 3_600_000_000_000);
}

#[test]
fn duplicates_are_named() {
    let mut rows = rows();
    rows.push(Row::new("a", 2, 0.0));
    check_error(&rows, |_| {}, "series `a` has the stamp 2020-01-01 02:00:00 twice, in rows 6 and 9");
}

#[test]
fn gaps_are_named_filled_or_masked() {
    let rows: Vec<Row> = [0, 1, 2, 5, 6].map(|hour| Row::new("a", hour, hour as f64)).to_vec();
    let message =
        "series `a` has a gap: 2 stamp(s) missing between 2020-01-01 02:00:00 (row 3) and 2020-01-01 05:00:00 (row 4) at a step of 1h";
    check_error(&rows, |_| {}, message);
    let filled = dataset(&rows, |options| options.gaps = Gaps::Fill).unwrap();
    assert_eq!(filled.values(), [0.0, 1.0, 2.0, 2.0, 2.0, 5.0, 6.0]);
    assert!(filled.fully_observed());
    let masked = dataset(&rows, |options| options.gaps = Gaps::Mask).unwrap();
    assert_eq!(masked.values(), [0.0, 1.0, 2.0, 0.0, 0.0, 5.0, 6.0]);
    assert_eq!(masked.mask(), [1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0]);
    assert_eq!(masked.times()[4] - masked.times()[0], 4 * 3_600_000_000_000);
}

#[test]
fn stamps_off_the_grid_are_errors_under_every_policy() {
    let mut rows: Vec<Row> = [0, 1, 2, 3].map(|hour| Row::new("a", hour, 0.0)).to_vec();
    rows[3].stamp += 1_800_000;
    let message = "series `a` is irregular: 2020-01-01 03:30:00 (row 4) does not follow 2020-01-01 02:00:00 (row 3) by a multiple of 1h";
    for gaps in [Gaps::Raise, Gaps::Fill, Gaps::Mask] {
        check_error(&rows, |options| options.gaps = gaps, message);
    }
    let half = |options: &mut DatasetOptions| options.frequency = Some("30min".parse::<Frequency>().unwrap());
    let filled = dataset(&rows, |options| {
        half(options);
        options.gaps = Gaps::Fill;
    });
    assert_eq!(filled.unwrap().rows(), 8);
}

#[test]
fn nulls_are_named_filled_or_masked() {
    let mut rows: Vec<Row> = [0, 1, 2, 3].map(|hour| Row::new("a", hour, hour as f64)).to_vec();
    rows[0].y = None;
    rows[2].y = Some(f64::NAN);
    check_error(&rows, |_| {}, "series `a`: column `y` has no value at 2020-01-01 (row 1)");
    let filled = dataset(&rows, |options| options.nulls = Nulls::Fill).unwrap();
    assert_eq!(filled.values(), [1.0, 1.0, 1.0, 3.0]);
    let masked = dataset(&rows, |options| options.nulls = Nulls::Mask).unwrap();
    assert_eq!((masked.values(), masked.mask()), (&[0.0, 1.0, 0.0, 3.0][..], &[0.0, 1.0, 0.0, 1.0][..]));
    rows.iter_mut().for_each(|row| row.y = None);
    check_error(&rows, |options| options.nulls = Nulls::Fill, "series `a`: column `y` has no value at all");
}

#[test]
fn a_masked_value_stays_masked_in_the_gap_behind_it() {
    let mut rows: Vec<Row> = [0, 1, 2, 4].map(|hour| Row::new("a", hour, hour as f64)).to_vec();
    rows[2].y = None;
    let dataset = dataset(&rows, |options| (options.gaps, options.nulls) = (Gaps::Fill, Nulls::Mask)).unwrap();
    assert_eq!(dataset.mask(), [1.0, 1.0, 0.0, 0.0, 1.0]);
}

#[test]
fn infinities_are_errors() {
    let mut rows = rows();
    rows[3].y = Some(f64::INFINITY);
    let message = "series `a`: column `y` is infinite at 2020-01-01 01:00:00 (row 4)";
    check_error(&rows, |options| options.nulls = Nulls::Mask, message);
}

#[test]
fn columns_are_checked() {
    let with = |change: fn(&mut Columns)| move |options: &mut DatasetOptions| change(&mut options.columns);
    let available = "columns: unique_id, ds, y, x, area, split";
    let missing = format!("no column `Y` in the table ({available})");
    check_error(&rows(), with(|columns| columns.targets = vec!["Y".into()]), &missing);
    check_error(&rows(), with(|columns| columns.targets.clear()), "no target column is named");
    let text = "column `unique_id` is LargeUtf8, but a number is needed";
    let text_target = |columns: &mut Columns| {
        columns.series = None;
        columns.targets = vec!["unique_id".into()];
    };
    check_error(&rows(), with(text_target), text);
    check_error(&rows(), with(|columns| columns.time = "x".into()), "column `x` is Float64, but a timestamp or a date is needed");
    check_error(&rows(), with(|columns| columns.futr = vec!["y".into()]), "column `y` is named twice (as target and as futr)");
    check_error(&[], |_| {}, "the table has no rows");
    check_error(&rows()[..2], |_| {}, "no step between stamps can be inferred: no series has two rows");
}

#[test]
fn channels_are_targets_then_hist_then_futr() {
    let dataset = dataset(&rows()[..4], |options| {
        options.columns.hist = vec!["x".into()];
        options.columns.stat = vec!["area".into()];
    });
    let dataset = dataset.unwrap();
    assert_eq!(dataset.channels(), ["y", "x"]);
    assert_eq!(dataset.values(), [0.0, -0.0, 1.0, -1.0, 10.0, -10.0, 11.0, -11.0]);
    assert_eq!(dataset.stat(), [1.0, 1.0]);
}

#[test]
fn static_columns_are_constant_and_averaged_where_missing() {
    let mut rows = rows();
    let stat = |options: &mut DatasetOptions| options.columns.stat = vec!["area".into()];
    rows[7].area = Some(2.0);
    check_error(&rows, stat, "series `a`: static column `area` changes from 1 to 2 in row 8");
    rows.iter_mut().filter(|row| row.id == "a").for_each(|row| row.area = None);
    check_error(&rows, stat, "series `a`: column `area` has no value at 2020-01-01 (row 2)");
    rows.iter_mut().filter(|row| row.id == "b").for_each(|row| row.area = Some(5.0));
    let filled = dataset(&rows, |options| {
        stat(options);
        options.nulls = Nulls::Fill;
    });
    assert_eq!(filled.unwrap().stat(), [5.0, 5.0]);
}

#[test]
fn parts_are_counted_and_in_order() {
    let mut rows: Vec<Row> = [0, 1, 2, 4, 5, 6].map(|hour| Row::new("a", hour, 0.0)).to_vec();
    for (row, part) in rows.iter_mut().zip([0, 0, 0, 1, 1, 2]) {
        row.split = part;
    }
    let split = |options: &mut DatasetOptions| {
        options.columns.split = Some("split".into());
        options.gaps = Gaps::Fill;
    };
    let dataset = dataset(&rows, split).unwrap();
    let series = &dataset.series()[0];
    assert_eq!((series.train, series.validation, series.test), (4, 2, 1));
    rows[5].split = 0;
    let message = "series `a`: split column `split` is 0 at 2020-01-01 06:00:00 (row 6), expected 0, 1 or 2 in this order in time";
    check_error(&rows, split, message);
}

#[test]
fn months_and_days_are_grids() {
    let months = ["2023-01-31", "2023-02-28", "2023-03-31", "2023-05-31"];
    let rows: Vec<Row> =
        months.iter().map(|month| Row { stamp: deeprc_loader::parse_stamp(month).unwrap() / 1_000_000, ..Row::new("a", 0, 1.0) }).collect();
    let dataset = dataset(&rows, |options| options.gaps = Gaps::Mask).unwrap();
    assert_eq!(dataset.frequency().to_string(), "1mo");
    assert_eq!(deeprc_loader::format_stamp(dataset.times()[3]), "2023-04-30");
    assert_eq!(dataset.stamps(0, 4, 2).into_iter().map(deeprc_loader::format_stamp).collect::<Vec<_>>(), ["2023-05-31", "2023-06-30"]);
}
