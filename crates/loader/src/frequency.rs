//! The step of a regular grid of stamps.

use crate::calendar::{civil_from_days, days_from_civil, days_in_month};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

const SECOND: i64 = 1_000_000_000;
const DAY: i64 = 86_400 * SECOND;

/// The step between two stamps of a series. Written as count and unit: `30s`, `15min`, `1h`, `1d`, `1w`, `1mo`, `1y`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Frequency {
    /// A fixed number of nanoseconds, at least 1.
    Fixed(i64),
    /// A number of calendar months, at least 1; a day that a month lacks becomes its last day.
    Months(i64),
}

impl Frequency {
    /// The stamp `steps` steps after `stamp` (both nanoseconds since 1970).
    pub fn advance(self, stamp: i64, steps: i64) -> i64 {
        match self {
            Frequency::Fixed(step) => stamp + steps * step,
            // The last day of a month stays the last day: 31 January, 28 February, 31 March.
            Frequency::Months(months) => shift_months(stamp, steps * months, true),
        }
    }

    /// Steps from `from` to `to`, `None` if `to` is not on the grid that begins at `from`.
    pub fn steps(self, from: i64, to: i64) -> Option<i64> {
        let months = match self {
            Frequency::Fixed(step) => return ((to - from) % step == 0).then(|| (to - from) / step),
            Frequency::Months(months) => months,
        };
        let index = |stamp: i64| {
            let (year, month, _) = civil_from_days(stamp.div_euclid(DAY));
            year * 12 + i64::from(month)
        };
        let steps = (index(to) - index(from)).div_euclid(months);
        // 30 April may be followed by 31 May (month ends) or by 30 May (the 30th of every month).
        [true, false].iter().any(|&ends| shift_months(from, steps * months, ends) == to).then_some(steps)
    }

    /// The most common step between neighbours of `series` (sorted stamps per series); ties go to the shorter step. Steps of
    /// 28 to 31 days are months where calendar months explain them.
    pub fn infer<'a>(series: impl IntoIterator<Item = &'a [i64]>) -> Option<Frequency> {
        let mut counts: HashMap<i64, u64> = HashMap::new();
        let (mut monthly, mut yearly, mut total) = (0u64, 0u64, 0u64);
        for stamps in series {
            for pair in stamps.windows(2).filter(|pair| pair[1] > pair[0]) {
                let step = pair[1] - pair[0];
                *counts.entry(step).or_default() += 1;
                total += 1;
                if (28 * DAY..=31 * DAY).contains(&step) {
                    monthly += u64::from(Frequency::Months(1).steps(pair[0], pair[1]) == Some(1));
                } else if (365 * DAY..=366 * DAY).contains(&step) {
                    yearly += u64::from(Frequency::Months(12).steps(pair[0], pair[1]) == Some(1));
                }
            }
        }
        let (&step, _) = counts.iter().max_by_key(|&(&step, &count)| (count, std::cmp::Reverse(step)))?;
        Some(if monthly * 2 > total {
            Frequency::Months(1)
        } else if yearly * 2 > total {
            Frequency::Months(12)
        } else {
            Frequency::Fixed(step)
        })
    }
}

fn shift_months(stamp: i64, months: i64, keep_month_end: bool) -> i64 {
    let (year, month, day) = civil_from_days(stamp.div_euclid(DAY));
    let at_end = keep_month_end && day == days_in_month(year, month);
    let index = year * 12 + i64::from(month) - 1 + months;
    let (year, month) = (index.div_euclid(12), index.rem_euclid(12) as u32 + 1);
    let length = days_in_month(year, month);
    let day = if at_end { length } else { day.min(length) };
    days_from_civil(year, month, day) * DAY + stamp.rem_euclid(DAY)
}

impl std::fmt::Display for Frequency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let units: [(i64, &str); 8] = match self {
            Frequency::Months(months) if months % 12 == 0 => return write!(f, "{}y", months / 12),
            Frequency::Months(months) => return write!(f, "{months}mo"),
            Frequency::Fixed(_) => [
                (7 * DAY, "w"),
                (DAY, "d"),
                (3600 * SECOND, "h"),
                (60 * SECOND, "min"),
                (SECOND, "s"),
                (1_000_000, "ms"),
                (1_000, "us"),
                (1, "ns"),
            ],
        };
        let Frequency::Fixed(step) = *self else { unreachable!("months returned above") };
        let (size, unit) = units.into_iter().find(|(size, _)| step % size == 0).unwrap_or((1, "ns"));
        write!(f, "{}{unit}", step / size)
    }
}

impl std::str::FromStr for Frequency {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let trimmed = text.trim();
        let split = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
        let (count, unit) = trimmed.split_at(split);
        let count: Option<i64> = if count.is_empty() { Some(1) } else { count.parse().ok() };
        let step = |size: i64| count.and_then(|n| n.checked_mul(size)).filter(|&n| n > 0);
        match unit.trim() {
            "ns" => step(1).map(Frequency::Fixed),
            "us" => step(1_000).map(Frequency::Fixed),
            "ms" => step(1_000_000).map(Frequency::Fixed),
            "s" => step(SECOND).map(Frequency::Fixed),
            "min" | "m" => step(60 * SECOND).map(Frequency::Fixed),
            "h" | "H" => step(3600 * SECOND).map(Frequency::Fixed),
            "d" | "D" => step(DAY).map(Frequency::Fixed),
            "w" | "W" => step(7 * DAY).map(Frequency::Fixed),
            "mo" | "M" => step(1).map(Frequency::Months),
            "y" | "Y" => step(12).map(Frequency::Months),
            _ => None,
        }
        .ok_or_else(|| Error::Frequency { text: text.into() })
    }
}

impl TryFrom<String> for Frequency {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Frequency> for String {
    fn from(frequency: Frequency) -> String {
        frequency.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse_stamp;

    fn at(text: &str) -> i64 {
        parse_stamp(text).unwrap()
    }

    #[test]
    fn text_goes_both_ways() {
        for text in ["30s", "15min", "1h", "1d", "2w", "1mo", "1y", "250ms"] {
            assert_eq!(text.parse::<Frequency>().unwrap().to_string(), text);
        }
        assert_eq!("H".parse::<Frequency>().unwrap().to_string(), "1h");
        assert!("0h".parse::<Frequency>().is_err());
        assert!("hourly".parse::<Frequency>().is_err());
    }

    #[test]
    fn months_keep_the_last_day() {
        let month = Frequency::Months(1);
        assert_eq!(month.advance(at("2024-01-31"), 1), at("2024-02-29"));
        assert_eq!(month.advance(at("2024-01-31"), 2), at("2024-03-31"));
        assert_eq!(month.steps(at("2023-11-01"), at("2024-02-01")), Some(3));
        assert_eq!(month.steps(at("2023-11-01"), at("2024-02-02")), None);
    }

    #[test]
    fn inference_takes_the_most_common_step() {
        let hourly = [0, 1, 2, 5, 6].map(|hour| hour * 3600 * SECOND);
        assert_eq!(Frequency::infer([&hourly[..]]), Some(Frequency::Fixed(3600 * SECOND)));
        let monthly = ["2023-01-01", "2023-02-01", "2023-03-01", "2023-04-01"].map(at);
        assert_eq!(Frequency::infer([&monthly[..]]), Some(Frequency::Months(1)));
        assert_eq!(Frequency::infer([&hourly[..1]]), None);
    }
}
