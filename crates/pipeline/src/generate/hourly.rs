//! Two hourly tables that belong together: the loads of a transformer and its oil temperature.
//!
//! The loads have daily, weekly and yearly cycles and noise that lasts for hours. The oil warms with the square of the load
//! (as copper losses do), slowly, on top of the weather: so it can be forecast from its own past and from the loads.

use super::stream;
use crate::functions::{Error, Result};
use chrono::{Duration, NaiveDate, NaiveDateTime, Timelike};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use std::f64::consts::TAU;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Names, mean, daily share, weekly share and noise of the six loads.
const LOADS: [(&str, f64, f64, f64, f64); 6] = [
    ("HUFL", 9.0, 0.45, 0.15, 0.9),
    ("HULL", 2.6, 0.35, 0.10, 0.4),
    ("MUFL", 6.5, 0.55, 0.18, 0.8),
    ("MULL", 1.1, 0.40, 0.12, 0.25),
    ("LUFL", 3.2, 0.25, 0.08, 0.3),
    ("LULL", 0.9, 0.20, 0.06, 0.12),
];

/// One hour of both tables.
struct Hour {
    stamp: NaiveDateTime,
    loads: [f64; LOADS.len()],
    oil: f64,
}

/// Hour after hour; random numbers are drawn in the same order whichever table is written.
struct Hours {
    rng: ChaCha8Rng,
    stamp: NaiveDateTime,
    noise: [f64; LOADS.len()],
    weather: f64,
    warmth: f64,
    jitter: f64,
}

impl Hours {
    fn new(seed: u64) -> Hours {
        let start = NaiveDate::from_ymd_opt(2016, 7, 1).and_then(|day| day.and_hms_opt(0, 0, 0));
        Hours {
            rng: stream(seed, 0),
            stamp: start.expect("a date that exists"),
            noise: [0.0; LOADS.len()],
            weather: 0.0,
            warmth: 10.0,
            jitter: 0.0,
        }
    }

    fn normal(&mut self) -> f64 {
        StandardNormal.sample(&mut self.rng)
    }
}

impl Iterator for Hours {
    type Item = Hour;

    fn next(&mut self) -> Option<Hour> {
        use chrono::Datelike;
        let hour = f64::from(self.stamp.hour());
        let weekend = self.stamp.weekday().num_days_from_monday() >= 5;
        let year = TAU * (f64::from(self.stamp.ordinal0()) + hour / 24.0) / 365.25;
        // Two peaks a day, the evening one higher; heating in winter.
        let day = 0.7 * (TAU * (hour - 19.0) / 24.0).cos() + 0.3 * (2.0 * TAU * (hour - 20.0) / 24.0).cos();
        let mut loads = [0.0; LOADS.len()];
        for (at, &(_, mean, daily, weekly, noise)) in LOADS.iter().enumerate() {
            self.noise[at] = 0.85 * self.noise[at] + noise * (1.0 - 0.85f64.powi(2)).sqrt() * self.normal();
            let week = if weekend { -weekly } else { 0.4 * weekly };
            let season = 0.15 * (year - TAU * 15.0 / 365.25).cos();
            loads[at] = (mean * (1.0 + daily * day + week + season) + self.noise[at]).max(0.0);
        }
        self.weather = 0.99 * self.weather + 2.5 * (1.0f64 - 0.99 * 0.99).sqrt() * self.normal();
        let ambient = 14.0 - 9.0 * (year - TAU * 20.0 / 365.25).cos() + 3.0 * (TAU * (hour - 15.0) / 24.0).cos() + self.weather;
        let losses = (loads[0] + loads[2]).powi(2) / 18.0;
        self.warmth = 0.88 * self.warmth + 0.12 * losses;
        self.jitter = 0.6 * self.jitter + 0.5 * self.normal();
        let hour = Hour { stamp: self.stamp, loads, oil: ambient + self.warmth + self.jitter };
        self.stamp += Duration::hours(1);
        Some(hour)
    }
}

fn write(path: &Path, header: &str, seed: u64, rows: usize, cells: impl Fn(&Hour) -> String) -> Result<()> {
    let go = || -> std::io::Result<()> {
        let mut file = BufWriter::new(std::fs::File::create(path)?);
        writeln!(file, "{header}")?;
        for hour in Hours::new(seed).take(rows) {
            writeln!(file, "{},{}", hour.stamp.format("%Y-%m-%d %H:%M:%S"), cells(&hour))?;
        }
        file.flush()
    };
    go().map_err(|source| Error::File { action: "write", path: path.into(), source })
}

/// Writes `date, HUFL, HULL, MUFL, MULL, LUFL, LULL` as CSV.
///
/// # Errors
/// A file that cannot be written.
pub fn write_loads(path: &Path, seed: u64, rows: usize) -> Result<()> {
    let names: Vec<&str> = LOADS.iter().map(|load| load.0).collect();
    let header = format!("date,{}", names.join(","));
    write(path, &header, seed, rows, |hour| hour.loads.map(|load| format!("{load:.4}")).join(","))
}

/// Writes `date, OT` as CSV: the oil temperature that goes with the loads of the same seed.
///
/// # Errors
/// A file that cannot be written.
pub fn write_oil(path: &Path, seed: u64, rows: usize) -> Result<()> {
    write(path, "date,OT", seed, rows, |hour| format!("{:.4}", hour.oil))
}
