//! Civil dates without time zones: nanoseconds since 1970-01-01 and back.

use crate::{Error, Result};
use deeprc_table::arrow::array::{Array, Int64Array};
use deeprc_table::arrow::compute::cast;
use deeprc_table::arrow::datatypes::{DataType, TimeUnit};

const DAY: i64 = 86_400_000_000_000;

/// Days since 1970-01-01 of a date of the proleptic Gregorian calendar (Hinnant, "chrono-compatible low-level date algorithms").
pub(crate) fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (i64::from(month) + if month > 2 { -3 } else { 9 }) + 2) / 5 + i64::from(day) - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Year, month and day of a number of days since 1970-01-01.
pub(crate) fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = (of_year - (153 * shifted + 2) / 5 + 1) as u32;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 } as u32;
    (year + era * 400 + i64::from(month <= 2), month, day)
}

/// Days of a month.
pub(crate) fn days_in_month(year: i64, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// A stamp as text: `2016-07-01` at midnight, else `2016-07-01 05:00:00`, with the fraction of a second where there is one.
pub fn format_stamp(stamp: i64) -> String {
    let (year, month, day) = civil_from_days(stamp.div_euclid(DAY));
    let rest = stamp.rem_euclid(DAY);
    let date = format!("{year:04}-{month:02}-{day:02}");
    if rest == 0 {
        return date;
    }
    let (seconds, fraction) = (rest / 1_000_000_000, rest % 1_000_000_000);
    let clock = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if fraction == 0 {
        return format!("{date} {clock}");
    }
    format!("{date} {clock}.{}", format!("{fraction:09}").trim_end_matches('0'))
}

/// The stamp of `2016-07-01`, `2016-07-01 05:00`, `2016-07-01T05:00:00.25`, in nanoseconds; `None` for anything else.
pub fn parse_stamp(text: &str) -> Option<i64> {
    let (date, clock) = match text.trim().split_once([' ', 'T']) {
        Some((date, clock)) => (date, clock),
        None => (text.trim(), "00:00:00"),
    };
    let fields: Vec<&str> = date.split('-').collect();
    let [year, month, day] = fields[..] else { return None };
    let (year, month, day): (i64, u32, u32) = (year.parse().ok()?, month.parse().ok()?, day.parse().ok()?);
    if !(1..=12).contains(&month) || day == 0 || day > days_in_month(year, month) || !(1678..=2261).contains(&year) {
        return None;
    }
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut seconds = 0;
    let fields: Vec<&str> = clock.split(':').collect();
    for (at, limit, size) in [(0, 24, 3600), (1, 60, 60), (2, 60, 1)] {
        let value: i64 = fields.get(at).map_or(Some(0), |field| field.parse().ok())?;
        if !(0..limit).contains(&value) {
            return None;
        }
        seconds += value * size;
    }
    if fields.len() > 3 || fields.len() < 2 || fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos: i64 = format!("{fraction:0<9}").parse().ok()?;
    Some(days_from_civil(year, month, day) * DAY + seconds * 1_000_000_000 + nanos)
}

/// The stamps of a timestamp or date array in nanoseconds since 1970-01-01; nulls stay nulls.
///
/// # Errors
/// [`Error::ColumnType`] for any other type, [`Error::Arrow`] for stamps outside of the years 1678 to 2261.
pub fn stamps_of(column: &str, array: &dyn Array) -> Result<Int64Array> {
    let nanos = DataType::Timestamp(TimeUnit::Nanosecond, None);
    if !matches!(array.data_type(), DataType::Timestamp(_, _) | DataType::Date32 | DataType::Date64) {
        return Err(Error::ColumnType { column: column.into(), found: array.data_type().to_string(), needed: "a timestamp or a date" });
    }
    let wrap = |source| Error::Arrow { column: column.into(), source };
    let stamps = cast(array, &nanos).map_err(wrap)?;
    let stamps = cast(&stamps, &DataType::Int64).map_err(wrap)?;
    // A stamp out of range becomes a null in the cast above: it must not pass for a missing one.
    if stamps.null_count() != array.null_count() {
        let source = deeprc_table::arrow::error::ArrowError::CastError("stamps outside of the years 1678 to 2261".into());
        return Err(wrap(source));
    }
    Ok(Int64Array::from(stamps.to_data()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_dates_agree_over_four_centuries() {
        let mut previous = civil_from_days(-100_001);
        for days in -100_000..60_000 {
            let date = civil_from_days(days);
            assert_eq!(days_from_civil(date.0, date.1, date.2), days);
            let next = if previous.2 < days_in_month(previous.0, previous.1) {
                (previous.0, previous.1, previous.2 + 1)
            } else if previous.1 < 12 {
                (previous.0, previous.1 + 1, 1)
            } else {
                (previous.0 + 1, 1, 1)
            };
            assert_eq!(date, next);
            previous = date;
        }
    }

    #[test]
    fn stamps_go_both_ways() {
        for text in ["2016-07-01", "2016-07-01 05:00:00", "1969-12-31 23:59:59.25", "2024-02-29"] {
            assert_eq!(format_stamp(parse_stamp(text).unwrap()), text);
        }
        assert_eq!(parse_stamp("2016-07-01T05:00"), parse_stamp("2016-07-01 05:00:00"));
        for text in ["2023-02-29", "2016-13-01", "2016-07-01 24:00", "noon", "2016-07-01 5"] {
            assert_eq!(parse_stamp(text), None, "{text}");
        }
    }
}
