//! The networks, one file each.

mod attention;
mod autoformer;
mod basis;
mod block_mlp;
mod deepar;
mod gated;
mod gru;
mod lstm;
mod mlp;
mod nbeats;
mod nhits;
mod nlinear;
mod patchtst;
mod tft;
mod tide;
mod timesnet;
mod vanillatransformer;

pub use autoformer::Autoformer;
pub use deepar::DeepAr;
pub use gru::Gru;
pub use lstm::Lstm;
pub use nbeats::NBeats;
pub use nhits::NHits;
pub use nlinear::NLinear;
pub use patchtst::PatchTst;
pub use tft::Tft;
pub use tide::Tide;
pub use timesnet::TimesNet;
pub use vanillatransformer::VanillaTransformer;
