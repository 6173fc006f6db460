//! Sleeping on a word of shared memory.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use rustix::thread::futex::{self, Flags, Timespec};

/// Sleeps while the word has this value, until it is rung or the time is over. May also return for no reason, so
/// callers look again.
pub(super) fn sleep(word: &AtomicU32, value: u32, left: Duration) {
    let left = Timespec { tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() };
    // Every error (changed meanwhile, interrupted, time over) means the same: look again. Not FUTEX_PRIVATE: the
    // others are other processes.
    let _ = futex::wait(word, Flags::empty(), value, Some(&left));
}

/// Changes the word and wakes all who sleep on it.
pub(super) fn ring(word: &AtomicU32) {
    word.fetch_add(1, Ordering::SeqCst);
    wake(word);
}

/// Wakes all who sleep on a word that has been changed.
pub(super) fn wake(word: &AtomicU32) {
    // Fails only for an address that is not mapped.
    let _ = futex::wake(word, Flags::empty(), i32::MAX as u32);
}
