//! The monotonic clock that all processes of one node share.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Time since the node was booted.
pub(crate) fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}
