//! Snow, soil and streamflow of a made-up basin: an HBV model (Bergström 1992) with parameters tied to the basin's attributes,
//! so that the attributes tell a network something.

use super::climate::{Day, Site};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use std::collections::VecDeque;

/// Refreezing and water holding capacity of snow.
const REFREEZE: f64 = 0.05;
const HOLD: f64 = 0.1;

/// The model's parameters.
struct Parameters {
    field_capacity: f64,
    beta: f64,
    evaporation_limit: f64,
    /// Recession of the fast, the middle and the slow flow, 1/d.
    recession: [f64; 3],
    upper_limit: f64,
    percolation: f64,
    melt_temperature: f64,
    degree_day: f64,
    /// Unit hydrograph: share of today's runoff that leaves after 0, 1, … days.
    routing: Vec<f64>,
}

impl Parameters {
    fn draw(site: &Site, own: &mut ChaCha8Rng) -> Parameters {
        let base = (1.0 + 1.1 * (site.area / 340.0).powf(0.35)).clamp(1.0, 8.0);
        let noise: f64 = StandardNormal.sample(own);
        Parameters {
            field_capacity: 90.0 + 420.0 * site.soil * (0.6 + 0.4 * site.forest),
            beta: (1.2 + 3.2 * (1.0 - site.clay / 0.6) * own.random_range(0.6..1.0)).clamp(1.0, 5.0),
            evaporation_limit: own.random_range(0.5..0.95),
            recession: [
                own.random_range(0.15..0.5),
                (0.04 + 0.12 * site.slope.ln_1p() / 5.0 + 0.02 * noise).clamp(0.03, 0.3),
                10f64.powf(-2.1 + 0.25 * (site.permeability + 13.9)).clamp(0.003, 0.08),
            ],
            upper_limit: own.random_range(8.0..50.0),
            percolation: (0.4 + 2.2 * (site.permeability + 16.0) / 4.0).clamp(0.3, 4.0),
            melt_temperature: own.random_range(-0.8..0.8),
            degree_day: 2.0 + 3.0 * (1.0 - site.forest) + own.random::<f64>(),
            routing: triangle(base),
        }
    }
}

/// Weights of a triangle of `base` days, sampled at the middle of each day.
fn triangle(base: f64) -> Vec<f64> {
    let half = base / 2.0;
    let weights = (0..base.ceil() as usize).map(|day| (1.0 - (day as f64 + 0.5 - half).abs() / half).max(0.0));
    let weights: Vec<f64> = weights.collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / sum).collect()
}

/// The stores of water, in mm.
pub(super) struct Catchment {
    parameters: Parameters,
    snow: f64,
    snow_water: f64,
    soil: f64,
    upper: f64,
    lower: f64,
    /// Runoff on its way: what leaves today, tomorrow, …
    river: VecDeque<f64>,
}

impl Catchment {
    pub(super) fn new(site: &Site, own: &mut ChaCha8Rng) -> Catchment {
        let parameters = Parameters::draw(site, own);
        let river = VecDeque::from(vec![0.0; parameters.routing.len()]);
        let soil = 0.6 * parameters.field_capacity;
        Catchment { parameters, snow: 0.0, snow_water: 0.0, soil, upper: 0.0, lower: 20.0, river }
    }

    /// mm that the soil can hold.
    pub(super) fn field_capacity(&self) -> f64 {
        self.parameters.field_capacity
    }

    /// Snow and the water in it, mm.
    pub(super) fn snow(&self) -> f64 {
        self.snow + self.snow_water
    }

    /// One day; returns the streamflow in mm/d.
    pub(super) fn step(&mut self, day: &Day) -> f64 {
        let p = &self.parameters;
        let warmth = day.temperature - p.melt_temperature;
        let snowfall = ((1.5 - warmth) / 3.0).clamp(0.0, 1.0);
        self.snow += day.rain * snowfall;
        let melt = self.snow.min(p.degree_day * warmth.max(0.0));
        self.snow -= melt;
        self.snow_water += melt + day.rain * (1.0 - snowfall);
        let refrozen = self.snow_water.min(REFREEZE * p.degree_day * (-warmth).max(0.0));
        self.snow += refrozen;
        self.snow_water -= refrozen;
        let input = (self.snow_water - HOLD * self.snow).max(0.0);
        self.snow_water -= input;

        let mut recharge = input * (self.soil / p.field_capacity).clamp(0.0, 1.0).powf(p.beta);
        self.soil += input - recharge;
        let spill = (self.soil - p.field_capacity).max(0.0);
        self.soil -= spill;
        recharge += spill;
        let thirst = (self.soil / (p.evaporation_limit * p.field_capacity)).clamp(0.0, 1.0);
        self.soil -= (day.evaporation * thirst).min(self.soil);

        self.upper += recharge;
        let percolation = p.percolation.min(self.upper);
        self.upper -= percolation;
        self.lower += percolation;
        let fast = p.recession[0] * (self.upper - p.upper_limit).max(0.0);
        self.upper -= fast;
        let middle = p.recession[1] * self.upper;
        self.upper -= middle;
        let slow = p.recession[2] * self.lower;
        self.lower -= slow;

        for (later, weight) in self.river.iter_mut().zip(&p.routing) {
            *later += weight * (fast + middle + slow);
        }
        let flow = self.river.pop_front().unwrap_or_default();
        self.river.push_back(0.0);
        flow
    }
}
