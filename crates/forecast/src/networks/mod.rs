//! The networks, one file each.

mod attention;
mod autoformer;
mod deepar;
mod gru;
mod lstm;
mod mlp;
mod nhits;
mod nlinear;
mod patchtst;
mod vanillatransformer;

pub use autoformer::Autoformer;
pub use deepar::DeepAr;
pub use gru::Gru;
pub use lstm::Lstm;
pub use nhits::NHits;
pub use nlinear::NLinear;
pub use patchtst::PatchTst;
pub use vanillatransformer::VanillaTransformer;
