//! Weather of a made-up basin: temperature, rain and what follows from them.
//!
//! Temperature: yearly cycle + AR(1). Rain: two-state Markov chain with gamma amounts. Neighbouring basins (same region) share
//! most of their noise. Potential evaporation after Oudin et al. 2005.

use super::stream;
use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Gamma, Normal, StandardNormal};
use std::f64::consts::{PI, TAU};

/// Climates that basins are drawn from; CAMELS-US has as many hydrologic regions.
pub(super) const REGIONS: u64 = 18;
/// Share of the variance of wetness that a region has in common.
const SHARED_RAIN: f64 = 0.65;
/// The same for temperature.
const SHARED_WARMTH: f64 = 0.8;
/// Memory of the temperature from day to day.
const MEMORY: f64 = 0.72;

fn normal(rng: &mut impl Rng) -> f64 {
    StandardNormal.sample(rng)
}

/// The fixed properties of a basin: what the attribute files say and what the simulation works with.
#[derive(Clone, Debug)]
pub(super) struct Site {
    /// 0..REGIONS
    pub region: u64,
    /// degrees
    pub latitude: f64,
    /// degrees
    pub longitude: f64,
    /// m
    pub elevation: f64,
    /// km2
    pub area: f64,
    /// m/km
    pub slope: f64,
    /// 0..1
    pub forest: f64,
    /// 0..1: depth and capacity of the soil
    pub soil: f64,
    /// 0..0.6
    pub clay: f64,
    /// log10 m2
    pub permeability: f64,
    /// Amplitude of the rain's yearly cycle.
    pub season: f64,
    /// Day of the year with most rain.
    pub season_day: f64,
    mean_temperature: f64,
    amplitude: f64,
    spread: f64,
    wet_after_dry: f64,
    persistence: f64,
    amount: f64,
    shape: f64,
}

impl Site {
    /// Basin `number` of `seed`; `own` is its stream of random numbers.
    pub(super) fn draw(seed: u64, number: u64, own: &mut ChaCha8Rng) -> Site {
        let region = number % REGIONS;
        let mut shared = stream(seed, region);
        let climate: [f64; 5] = std::array::from_fn(|_| shared.random());
        let jitter = |own: &mut ChaCha8Rng, sd: f64| sd * normal(own);
        let latitude = 28.0 + 20.0 * (climate[0] + jitter(own, 0.05)).clamp(0.0, 1.0);
        let elevation = (150f64.ln() + 2.6 * climate[4] + jitter(own, 0.5)).exp().clamp(5.0, 3500.0);
        let wetness = (climate[1] + jitter(own, 0.07)).clamp(0.0, 1.0);
        Site {
            region,
            latitude,
            longitude: -122.0 + 50.0 * region as f64 / REGIONS as f64 + own.random::<f64>(),
            elevation,
            area: (340f64.ln() + jitter(own, 1.1)).exp().clamp(4.0, 25_000.0),
            slope: (elevation / 15.0 * jitter(own, 0.4).exp()).clamp(0.8, 250.0),
            forest: (0.15 + 0.8 * wetness + jitter(own, 0.12)).clamp(0.0, 1.0),
            soil: beta(own, 2.0, 2.0).clamp(0.02, 0.98),
            clay: beta(own, 2.0, 4.0).clamp(0.02, 0.6),
            permeability: -13.9 + jitter(own, 1.0),
            season: 0.6 * climate[2],
            season_day: 365.0 * climate[3],
            mean_temperature: 26.5 - 0.75 * (latitude - 25.0) - 5.0 * elevation / 1000.0 + jitter(own, 0.8),
            amplitude: 4.0 + 0.35 * (latitude - 20.0) + jitter(own, 0.7),
            spread: 1.6 + 0.10 * (latitude - 25.0),
            wet_after_dry: 0.10 + 0.30 * wetness,
            persistence: own.random_range(0.22..0.38),
            amount: (3.5 + 7.5 * wetness) * jitter(own, 0.12).exp(),
            shape: own.random_range(0.6..0.9),
        }
    }
}

/// Beta variate from two gamma variates.
fn beta(rng: &mut ChaCha8Rng, a: f64, b: f64) -> f64 {
    let mut gamma = |shape: f64| Gamma::new(shape, 1.0).expect("a positive shape").sample(rng);
    let (x, y): (f64, f64) = (gamma(a), gamma(b));
    x / (x + y)
}

/// One day of weather.
#[derive(Clone, Copy, Debug)]
pub(super) struct Day {
    /// mm/d
    pub rain: f64,
    /// Mean, C
    pub temperature: f64,
    /// C
    pub warmest: f64,
    /// C
    pub coldest: f64,
    /// mm/d
    pub evaporation: f64,
    /// Mean over the daylight, W/m2 (the Daymet convention)
    pub radiation: f64,
    /// s
    pub daylight: f64,
    /// Pa
    pub vapour_pressure: f64,
}

/// Day after day of one site.
pub(super) struct Weather {
    /// The region's noise: the same sequence for all its basins.
    shared: ChaCha8Rng,
    wet: bool,
    anomaly: f64,
}

impl Weather {
    pub(super) fn new(seed: u64, site: &Site) -> Weather {
        // Streams below REGIONS are the climates, those from there to 2 REGIONS the regions' daily noise.
        Weather { shared: stream(seed, REGIONS + site.region), wet: false, anomaly: 0.0 }
    }

    /// The weather of the day `of_year` (0 = 1 January).
    pub(super) fn day(&mut self, site: &Site, of_year: f64, own: &mut ChaCha8Rng) -> Day {
        let shared: [f64; 3] = std::array::from_fn(|_| normal(&mut self.shared));
        let season = 1.0 + site.season * (TAU * (of_year - site.season_day) / 365.25).cos();
        let chance = normal_distribution(SHARED_RAIN.sqrt() * shared[0] + (1.0 - SHARED_RAIN).sqrt() * normal(own));
        let wet_probability = site.wet_after_dry * season + if self.wet { site.persistence } else { 0.0 };
        self.wet = chance < wet_probability.clamp(0.01, 0.95);
        let mean = site.amount * season.sqrt();
        let amount = Gamma::new(site.shape, mean / site.shape).map_or(0.0, |gamma| gamma.sample(own));
        let rain = if self.wet { amount * (0.35 * shared[1] - 0.06).exp() } else { 0.0 };
        let noise = SHARED_WARMTH.sqrt() * shared[2] + (1.0 - SHARED_WARMTH).sqrt() * normal(own);
        self.anomaly = MEMORY * self.anomaly + site.spread * (1.0 - MEMORY * MEMORY).sqrt() * noise;
        let cycle = (TAU * (of_year - 201.0) / 365.25).cos();
        let cloud = if self.wet { cycle } else { 0.0 };
        let temperature = site.mean_temperature + site.amplitude * cycle + self.anomaly - cloud;
        let range = Normal::new(10.0, 1.5).expect("a positive spread").sample(own) - if rain > 0.0 { 3.0 } else { 0.0 };
        let (warmest, coldest) = (temperature + range / 2.0, temperature - range / 2.0);
        let (energy, sunset) = extraterrestrial(site.latitude.to_radians(), of_year);
        let daylight = 86_400.0 * sunset / PI;
        let clear = if self.wet { 0.30 } else { 0.55 };
        Day {
            rain,
            temperature,
            warmest,
            coldest,
            evaporation: (energy / 2.45 * (temperature + 5.0) / 100.0).max(0.0),
            radiation: energy * clear * 1e6 / daylight.max(1.0),
            daylight,
            vapour_pressure: 611.0 * (17.27 * coldest / (coldest + 237.3)).exp(),
        }
    }
}

/// Radiation above the air in MJ/m2/d, and the hour angle of the sunset (Allen et al. 1998, equations 21 to 25).
fn extraterrestrial(latitude: f64, of_year: f64) -> (f64, f64) {
    let declination = 0.409 * (TAU * of_year / 365.25 - 1.39).sin();
    let sunset = (-latitude.tan() * declination.tan()).clamp(-1.0, 1.0).acos();
    let distance = 1.0 + 0.033 * (TAU * of_year / 365.25).cos();
    let sun = sunset * latitude.sin() * declination.sin() + latitude.cos() * declination.cos() * sunset.sin();
    (37.6 * distance * sun, sunset)
}

/// Standard normal distribution function; Zelen and Severo 1964 (Abramowitz and Stegun 26.2.17), error below 7.5e-8.
fn normal_distribution(x: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * x.abs());
    let series = [0.319_381_530, -0.356_563_782, 1.781_477_937, -1.821_255_978, 1.330_274_429];
    let sum = series.iter().rev().fold(0.0, |sum, c| (sum + c) * t);
    let tail = sum * (-x * x / 2.0).exp() / TAU.sqrt();
    if x < 0.0 { tail } else { 1.0 - tail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_distribution_has_its_known_values() {
        for (x, p) in [(0.0, 0.5), (1.0, 0.841_344_746), (-1.959_963_985, 0.025), (3.0, 0.998_650_102)] {
            assert!((normal_distribution(x) - p).abs() < 1e-7, "{x}");
        }
    }

    #[test]
    fn days_are_long_in_summer() {
        let (_, june) = extraterrestrial(45f64.to_radians(), 172.0);
        let (_, december) = extraterrestrial(45f64.to_radians(), 355.0);
        assert!((24.0 * june / PI - 15.4).abs() < 0.2 && (24.0 * december / PI - 8.6).abs() < 0.2);
    }
}
