//! Made-up basins, written in the layout of CAMELS-US ([`crate::camels`] reads it): weather, snow and streamflow of any number
//! of basins in 18 climates, with gaps and ice flags as in the real files.

use super::catchment::Catchment;
use super::climate::{REGIONS, Site, Weather};
use super::stream;
use crate::functions::{Error, Result};
use chrono::{Datelike, Duration, NaiveDate};
use deeprc_table::arrow::datatypes::{DataType, Field, Schema};
use rand::RngExt;
use rand_distr::{Distribution, LogNormal, Poisson, StandardNormal};
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// Days of simulation before the first one written, so that the stores of water have forgotten how they began.
const SPIN_UP: i64 = 365;
/// mm on 1 km2 in a day, in ft3/s.
const CUBIC_FEET_PER_MM_KM2: f64 = 1000.0 / 86_400.0 / 0.028_316_846_592;

/// How many basins, for how long, from which seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Basins {
    /// How many.
    pub basins: usize,
    /// Days of each, from 1 October 1990.
    pub days: usize,
    /// Basin b of a seed is always the same one.
    pub seed: u64,
}

/// Writes the forcing and streamflow files of the basins that `rank` of `size` makes, and returns their lines for the attribute
/// files, in the order of [`attribute_files`].
///
/// # Errors
/// A file that cannot be written.
pub fn write_basins(root: &Path, what: Basins, rank: usize, size: usize) -> Result<Vec<[String; ATTRIBUTE_FILES]>> {
    (0..what.basins).filter(|basin| basin % size == rank).map(|basin| write_basin(root, what, basin as u64)).collect()
}

/// Number of attribute files.
pub const ATTRIBUTE_FILES: usize = 6;
const ATTRIBUTES: [(&str, &str); ATTRIBUTE_FILES] = [
    ("clim", "p_mean;pet_mean;p_seasonality;frac_snow;aridity;high_prec_freq;high_prec_dur;low_prec_freq;low_prec_dur"),
    ("geol", "carbonate_rocks_frac;geol_porostiy;geol_permeability"),
    ("name", "huc_02;gauge_name"),
    ("soil", "soil_depth_pelletier;soil_depth_statsgo;soil_porosity;soil_conductivity;max_water_content;sand_frac;silt_frac;clay_frac"),
    ("topo", "gauge_lat;gauge_lon;elev_mean;slope_mean;area_gages2;area_geospa_fabric"),
    ("vege", "frac_forest;lai_max;lai_diff;gvf_max;gvf_diff"),
];

/// Columns of the attribute table that [`crate::camels`] makes of the files.
pub fn attribute_schema() -> Schema {
    let names = ATTRIBUTES.iter().flat_map(|(_, columns)| columns.split(';'));
    let fields = names.map(|name| {
        let text = matches!(name, "huc_02" | "gauge_name");
        Field::new(name, if text { DataType::Utf8 } else { DataType::Float64 }, true)
    });
    Schema::new(std::iter::once(Field::new("gauge", DataType::Utf8, false)).chain(fields).collect::<Vec<_>>())
}

/// Writes the attribute files from the lines of all basins.
///
/// # Errors
/// A file that cannot be written.
pub fn write_attributes(root: &Path, mut lines: Vec<[String; ATTRIBUTE_FILES]>) -> Result<()> {
    lines.sort();
    let folder = root.join("camels_attributes_v2.0");
    for (at, (topic, columns)) in ATTRIBUTES.iter().enumerate() {
        let mut text = format!("gauge_id;{columns}\n");
        for line in &lines {
            text.push_str(&line[at]);
            text.push('\n');
        }
        write(&folder, &format!("camels_{topic}.txt"), &text)?;
    }
    Ok(())
}

fn write(folder: &Path, name: &str, text: &str) -> Result<()> {
    let path = folder.join(name);
    fs::create_dir_all(folder).and_then(|()| fs::write(&path, text)).map_err(|source| Error::File { action: "write", path, source })
}

fn write_basin(root: &Path, what: Basins, number: u64) -> Result<[String; ATTRIBUTE_FILES]> {
    // Streams below 2 REGIONS belong to the regions.
    let mut own = stream(what.seed, 2 * REGIONS + number);
    let site = Site::draw(what.seed, number, &mut own);
    let mut catchment = Catchment::new(&site, &mut own);
    let mut weather = Weather::new(what.seed, &site);
    let gauge = format!("{:02}{:06}", site.region + 1, 500 + number);
    let missing = gaps(what.days, &mut own);

    let area = (site.area * 1e6).round();
    let mut forcing = format!("{:7.2}\n{:8.2}\n{:10.0}\n", site.latitude, site.elevation, area);
    forcing.push_str("Year Mnth Day Hr\tDayl(s)\tPRCP(mm/day)\tSRAD(W/m2)\tSWE(mm)\tTmax(C)\tTmin(C)\tVp(Pa)\n");
    let mut streamflow = String::new();
    let mut climate = Climate::default();
    let start = NaiveDate::from_ymd_opt(1990, 10, 1).expect("a date that exists");
    let mut warmth = [0.0; 5];
    for at in -SPIN_UP..what.days as i64 {
        let date = start + Duration::days(at);
        let day = weather.day(&site, f64::from(date.ordinal0()), &mut own);
        let flow = catchment.step(&day);
        let noise: f64 = StandardNormal.sample(&mut own);
        warmth[at.rem_euclid(5) as usize] = day.temperature;
        let Ok(row) = usize::try_from(at) else { continue };
        climate.add(&day);
        let stamp = date.format("%Y %m %d");
        // A String takes any text.
        let _ = writeln!(
            forcing,
            "{stamp} 12\t{:.2}\t{:.2}\t{:.2}\t{:.2}\t{:.2}\t{:.2}\t{:.2}",
            day.daylight,
            day.rain,
            day.radiation,
            catchment.snow(),
            day.warmest,
            day.coldest,
            day.vapour_pressure
        );
        // Gauges under ice are estimated: five cold days.
        let ice = warmth.iter().sum::<f64>() / 5.0 < -3.0;
        let (flow, flag) = match missing[row] {
            true => (-999.0, "M"),
            false => (flow * (0.07 * noise).exp() * site.area * CUBIC_FEET_PER_MM_KM2, if ice { "A:e" } else { "A" }),
        };
        let _ = writeln!(streamflow, "{gauge} {stamp} {flow:8.2} {flag}");
    }
    let region = format!("{:02}", site.region + 1);
    let folder = root.join("basin_mean_forcing").join("synthetic").join(&region);
    write(&folder, &format!("{gauge}_lump_synthetic_forcing_leap.txt"), &forcing)?;
    write(&root.join("usgs_streamflow").join(&region), &format!("{gauge}_streamflow_qc.txt"), &streamflow)?;
    Ok(attributes(&gauge, &region, number, &site, &climate, catchment.field_capacity()))
}

/// Days without a measurement: a few gaps of a few weeks in ten years.
fn gaps(days: usize, own: &mut impl rand::Rng) -> Vec<bool> {
    let mut missing = vec![false; days];
    let count: f64 = Poisson::new(0.15 * days as f64 / 365.25).map_or(0.0, |poisson| poisson.sample(own));
    for _ in 0..count as usize {
        let from = own.random_range(0..days);
        let length: f64 = LogNormal::new(2.5, 1.0).expect("a positive spread").sample(own);
        let to = (from + 1 + length as usize).min(days);
        missing[from..to].fill(true);
    }
    missing
}

/// Sums over the days of a basin for its climate indices (Addor et al. 2017, table 2).
#[derive(Default)]
struct Climate {
    days: f64,
    rain: f64,
    snow: f64,
    evaporation: f64,
    rains: Vec<f64>,
}

impl Climate {
    fn add(&mut self, day: &super::climate::Day) {
        self.days += 1.0;
        self.rain += day.rain;
        self.snow += if day.temperature < 0.0 { day.rain } else { 0.0 };
        self.evaporation += day.evaporation;
        self.rains.push(day.rain);
    }

    /// Days per year on which `is` holds, and how many follow each other on average.
    fn spells(&self, is: impl Fn(f64) -> bool) -> (f64, f64) {
        let days = self.rains.iter().filter(|&&rain| is(rain)).count() as f64;
        let spells = self.rains.chunk_by(|&a, &b| is(a) == is(b)).filter(|spell| is(spell[0])).count() as f64;
        (days * 365.25 / self.days, if spells > 0.0 { days / spells } else { 0.0 })
    }
}

/// The basin's line in every attribute file. What the simulation does not have follows from what it has.
fn attributes(gauge: &str, region: &str, number: u64, site: &Site, climate: &Climate, capacity: f64) -> [String; ATTRIBUTE_FILES] {
    let line = |values: &[f64]| {
        let cells: Vec<String> = values.iter().map(|value| format!("{value:.5}")).collect();
        format!("{gauge};{}", cells.join(";"))
    };
    let mean = climate.rain / climate.days;
    let (high, high_duration) = climate.spells(|rain| rain >= 5.0 * mean);
    let (low, low_duration) = climate.spells(|rain| rain < 1.0);
    let seasonality = site.season * (std::f64::consts::TAU * (site.season_day - 201.0) / 365.25).cos();
    let evaporation = climate.evaporation / climate.days;
    let snow = climate.snow / climate.rain.max(1e-9);
    let sand = (1.0 - site.clay) * 0.6;
    [
        line(&[mean, evaporation, seasonality, snow, evaporation / mean.max(1e-9), high, high_duration, low, low_duration]),
        line(&[0.05 * (1.0 - site.soil), 0.05 + 0.2 * site.soil, site.permeability]),
        format!("{gauge};{region};Basin {number}"),
        line(&[
            0.5 + 20.0 * site.soil,
            0.3 + 1.2 * site.soil,
            0.38 + 0.12 * site.clay,
            0.3 + 4.0 * (1.0 - site.clay / 0.6),
            capacity / 1000.0,
            100.0 * sand,
            100.0 * (1.0 - site.clay - sand),
            100.0 * site.clay,
        ]),
        line(&[site.latitude, site.longitude, site.elevation, site.slope, site.area, 1.01 * site.area]),
        line(&[site.forest, 0.8 + 4.4 * site.forest, 0.4 + 2.6 * site.forest, 0.35 + 0.5 * site.forest, 0.1 + 0.3 * site.forest]),
    ]
}
