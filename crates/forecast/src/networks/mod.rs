//! The networks, one file each.

mod gru;
mod lstm;
mod nhits;
mod nlinear;

pub use gru::Gru;
pub use lstm::Lstm;
pub use nhits::NHits;
pub use nlinear::NLinear;
