//! Data for demonstrations and tests, made from a seed and written as the files that real data come in, so that the same
//! readers read them. The same seed gives the same bytes for any number of ranks.

mod basins;
mod catchment;
mod climate;
mod hourly;

pub use basins::{ATTRIBUTE_FILES, Basins, attribute_schema, write_attributes, write_basins};
pub use hourly::{write_loads, write_oil};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// An independent stream of random numbers for every (seed, number): ChaCha's stream number is the counter.
fn stream(seed: u64, number: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(number);
    rng
}
