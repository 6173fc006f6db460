//! What the transports over a network library have in common: how ranks find each other, and how messages are cut.
//!
//! ```text
//! small    frame [kind, length, head, buffers]
//! large    frame … frame [kind, length, head], then one body for each piece of the buffers' memory
//! other    frame [kind, length, …]: hello, leave, acknowledge, abort
//! ```
//! Frames have a bounded length, so a receiver always has room for the next one; bodies go straight from the sender's
//! buffers into the receiver's, which it makes when the frame tells their lengths. Frames keep their order, and so do bodies, but a
//! frame may overtake a body: [`Inbound`] delivers in the order of the frames.

mod meet;
mod pieces;
mod stream;

pub(crate) use meet::{Meeting, Peer, meet};
pub(crate) use stream::{Heard, Inbound, Outgoing, abort, acknowledge, hello, leave};
