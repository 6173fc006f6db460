//! The atomics of the ring and the doorbell, under a name that their model (`tests/loom.rs`) can put its own behind.

pub(super) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
