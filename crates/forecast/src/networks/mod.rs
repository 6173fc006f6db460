//! The networks, one file each.

mod deepar;
mod gru;
mod lstm;
mod mlp;
mod nhits;
mod nlinear;

pub use deepar::DeepAr;
pub use gru::Gru;
pub use lstm::Lstm;
pub use nhits::NHits;
pub use nlinear::NLinear;
