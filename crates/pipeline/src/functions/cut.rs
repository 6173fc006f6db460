//! Where the parts of a split end.

use super::{Error, PartSize, Result, SplitArguments, SplitBy};
use deeprc_loader::parse_stamp;

const NAMES: [&str; 3] = ["train", "validation", "test"];

/// The sizes of training, validation and test part, checked.
///
/// ```text
///   train given:   |-- train --|-- validation --|-- test --|  (rows left out)
///   train left out:     rest --|-- validation --|-- test --|
/// ```
#[derive(Debug)]
pub(super) struct Cut<'a> {
    sizes: [Option<&'a PartSize>; 3],
    /// Stamp that each part ends before, where it is given by one.
    pub dates: [Option<i64>; 3],
}

impl<'a> Cut<'a> {
    pub(super) fn check(arguments: &'a SplitArguments) -> Result<Cut<'a>> {
        let sizes = [arguments.train.as_ref(), arguments.validation.as_ref(), arguments.test.as_ref()];
        let wrong = |setting, message: String, hint: &str| Err(Error::Setting { setting, message, hint: Some(hint.into()) });
        let mut dates = [None; 3];
        let mut sum = 0.0;
        for (at, size) in sizes.iter().enumerate() {
            match size {
                Some(PartSize::Fraction(fraction)) => {
                    if !(0.0..=1.0).contains(fraction) {
                        return wrong(NAMES[at], format!("{fraction} is no fraction"), "give a fraction from 0.0 to 1.0, or whole rows");
                    }
                    sum += fraction;
                }
                Some(PartSize::Before(text)) => {
                    if arguments.by == SplitBy::Series {
                        return wrong(NAMES[at], format!("`{text}` cannot divide series"), "give a number of series or a fraction");
                    }
                    dates[at] = parse_stamp(text);
                    if dates[at].is_none() {
                        return wrong(NAMES[at], format!("`{text}` is no date"), "write it as 2017-01-01 or 2017-01-01 06:00:00");
                    }
                }
                Some(PartSize::Rows(_)) | None => {}
            }
        }
        let given: Vec<i64> = dates.iter().flatten().copied().collect();
        if !given.is_sorted_by(|a, b| a < b) {
            let hint = "each part ends before its date: train, then validation, then test";
            return wrong("train", "the dates of the parts do not ascend".into(), hint);
        }
        if sum > 1.0 + 1e-9 {
            return wrong("train", format!("the fractions add up to {sum}"), "they may add up to 1.0 at most");
        }
        if sizes.iter().all(Option::is_none) {
            return wrong("train", "no part has a size".into(), "give at least one of train, validation, test");
        }
        if sizes[0].is_none() && !given.is_empty() {
            return wrong("train", "where training ends is not said".into(), "give `train` a date, a number of rows or a fraction too");
        }
        Ok(Cut { sizes, dates })
    }

    /// Ends of the three parts in `rows` rows (or series), of which `before` lie before each of the dates.
    pub(super) fn ends(&self, series: &str, rows: u64, before: &[u64; 3]) -> Result<[u64; 3]> {
        let ends = if self.sizes[0].is_some() { self.forward(rows, before) } else { self.backward(rows) };
        match ends {
            Some(ends) if ends[2] <= rows => Ok(ends),
            _ => {
                let count = |size: &Option<&PartSize>| if let Some(PartSize::Rows(count)) = size { *count } else { 0 };
                let needed = self.sizes.iter().map(count).sum::<u64>().max(rows + 1);
                Err(Error::TooShort { series: series.into(), rows: rows as usize, needed })
            }
        }
    }

    /// From the first row on; `None`: too few rows.
    fn forward(&self, rows: u64, before: &[u64; 3]) -> Option<[u64; 3]> {
        // Fractions are rounded where they end, so that fractions that add up to 1 leave no row over.
        let mut fraction = Some(0.0);
        let mut end = 0;
        let mut ends = [0; 3];
        for at in 0..3 {
            fraction = match self.sizes[at] {
                Some(PartSize::Fraction(more)) => fraction.map(|so_far| so_far + more),
                None => fraction,
                _ => None,
            };
            let next = match (self.sizes[at], at) {
                (Some(PartSize::Rows(count)), _) => end + count,
                (Some(PartSize::Fraction(size)), _) => match fraction {
                    Some(so_far) => round(so_far, rows),
                    None => end + round(*size, rows),
                },
                (Some(PartSize::Before(_)), _) => before[at],
                (None, 1) => self.left_by_test(rows, end)?,
                (None, _) => rows,
            };
            end = next.max(end);
            ends[at] = end;
        }
        Some(ends)
    }

    /// End of a validation part without a size.
    fn left_by_test(&self, rows: u64, end: u64) -> Option<u64> {
        match self.sizes[2] {
            Some(PartSize::Rows(count)) => rows.checked_sub(*count),
            Some(PartSize::Fraction(fraction)) => Some(rows - round(*fraction, rows)),
            Some(PartSize::Before(_)) | None => Some(end),
        }
    }

    /// From the last row back; `None`: too few rows.
    fn backward(&self, rows: u64) -> Option<[u64; 3]> {
        let size = |at: usize| match self.sizes[at] {
            Some(PartSize::Rows(count)) => *count,
            Some(PartSize::Fraction(fraction)) => round(*fraction, rows),
            Some(PartSize::Before(_)) | None => 0,
        };
        let test_start = rows.checked_sub(size(2))?;
        Some([test_start.checked_sub(size(1))?, test_start, rows])
    }
}

fn round(fraction: f64, rows: u64) -> u64 {
    ((fraction * rows as f64).round() as u64).min(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn arguments(parts: Value) -> SplitArguments {
        let mut all = json!({ "input": "in", "output": "out", "time": "ds" });
        all.as_object_mut().unwrap().extend(parts.as_object().unwrap().clone());
        serde_json::from_value(all).unwrap()
    }

    #[track_caller]
    fn check(parts: Value, rows: u64, expect: [u64; 3]) {
        let arguments = arguments(parts);
        assert_eq!(Cut::check(&arguments).unwrap().ends("a", rows, &[30, 50, 80]).unwrap(), expect);
    }

    #[test]
    fn sizes_in_rows_leave_the_rest_out() {
        check(json!({ "train": 60, "validation": 20, "test": 10 }), 100, [60, 80, 90]);
        check(json!({ "train": 60, "test": 10 }), 100, [60, 90, 100]);
        check(json!({ "train": 60, "validation": 20 }), 100, [60, 80, 100]);
        check(json!({ "train": 60 }), 100, [60, 60, 100]);
    }

    #[test]
    fn without_train_the_others_come_from_the_end() {
        check(json!({ "test": 10 }), 100, [90, 90, 100]);
        check(json!({ "validation": 0.2, "test": 10 }), 100, [70, 90, 100]);
        check(json!({ "validation": 20 }), 100, [80, 100, 100]);
    }

    #[test]
    fn fractions_leave_no_row_over() {
        for rows in [7, 10, 101, 999] {
            for parts in [json!({ "train": 0.7, "validation": 0.1, "test": 0.2 }), json!({ "train": 0.8, "test": 0.2 })] {
                let arguments = arguments(parts);
                let ends = Cut::check(&arguments).unwrap().ends("a", rows, &[0; 3]).unwrap();
                assert_eq!(ends[2], rows);
                assert!(arguments.validation.is_some() || ends[0] == ends[1], "{rows} {ends:?}");
            }
        }
    }

    #[test]
    fn dates_end_a_part() {
        check(json!({ "train": "2000-01-01", "validation": "2001-01-01", "test": "2002-01-01" }), 100, [30, 50, 80]);
        check(json!({ "train": "2000-01-01", "validation": "2001-01-01" }), 100, [30, 50, 100]);
        check(json!({ "train": "2000-01-01", "test": 20 }), 100, [30, 80, 100]);
    }

    #[test]
    fn wrong_sizes_are_named() {
        let message = |parts| Cut::check(&arguments(parts)).unwrap_err().to_string();
        assert_eq!(message(json!({ "train": 1.5 })), "train: 1.5 is no fraction");
        assert_eq!(message(json!({ "train": 0.8, "test": 0.5 })), "train: the fractions add up to 1.3");
        assert_eq!(message(json!({ "test": "soon" })), "test: `soon` is no date");
        assert_eq!(message(json!({ "train": "2001-01-01", "validation": "2000-01-01" })), "train: the dates of the parts do not ascend");
        assert_eq!(message(json!({})), "train: no part has a size");
        assert_eq!(message(json!({ "by": "series", "train": "2000-01-01" })), "train: `2000-01-01` cannot divide series");
        let arguments = arguments(json!({ "train": 60, "test": 41 }));
        let error = Cut::check(&arguments).unwrap().ends("a", 100, &[0; 3]).unwrap_err();
        assert_eq!(error.to_string(), "series `a` has 100 rows, but the parts of the split need 101");
    }
}
