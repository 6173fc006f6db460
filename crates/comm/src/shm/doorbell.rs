//! How a rank sleeps until another has something for it.
//!
//! ```text
//! sleeper                               ringer
//!   ticket = count                        writes a message, makes room, leaves …
//!   looks for what it wants               count += 1
//!   asleep = 1                            ── fence ──
//!   ── fence ──                           asleep ≠ 0? wake
//!   sleeps while count == ticket
//! ```
//! Either the ringer sees that the sleeper sleeps, or the sleeper, for whom the kernel compares once more, sees that it rang
//! (Dekker's argument; the fences make both hold on every processor). Checked by `make test-loom`.

use std::time::Duration;

use super::{
    atomic::{AtomicU32, Ordering, fence},
    futex,
};

/// Of one rank; all zero is its first state.
#[derive(Default)]
#[repr(C)]
pub(super) struct Doorbell {
    /// Changes whenever something happened that the rank may wait for.
    count: AtomicU32,
    /// 1 while the rank sleeps, so that ringing usually needs no system call.
    asleep: AtomicU32,
}

impl Doorbell {
    /// What it shows, for [`sleep`](Doorbell::sleep). What was done before it was rung is seen after this.
    pub(super) fn ticket(&self) -> u32 {
        self.count.load(Ordering::Acquire)
    }

    /// Sleeps until it is rung, unless it was since `ticket` was read. One thread of the rank at a time. May also return for no
    /// reason.
    pub(super) fn sleep(&self, ticket: u32, left: Duration) {
        self.asleep.store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        futex::sleep(&self.count, ticket, left);
        self.asleep.store(0, Ordering::Relaxed);
    }

    pub(super) fn ring(&self) {
        self.count.fetch_add(1, Ordering::Release);
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) != 0 {
            futex::wake(&self.count);
        }
    }
}
