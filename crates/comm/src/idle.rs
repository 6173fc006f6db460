//! How to wait for something that has to be asked for again and again.

use std::{
    thread,
    time::{Duration, Instant},
};

/// How long a waiting thread may keep its core busy.
const SPIN: Duration = Duration::from_micros(50);
/// For so long after that, it only lets other threads go first.
const YIELD: Duration = Duration::from_micros(150);
/// Then it sleeps, first for so long, then twice as long each time, up to the longest.
const SLEEP: Duration = Duration::from_micros(20);
const LONGEST: Duration = Duration::from_millis(1);

/// The pauses between the looks of one wait: none at first, for answers that come at once, then ever longer ones.
#[derive(Debug, Default)]
pub(crate) struct Idle {
    since: Option<Instant>,
    sleep: Duration,
}

impl Idle {
    /// Waits a little, but not longer than `left`.
    pub(crate) fn pause(&mut self, left: Duration) {
        let now = Instant::now();
        let waited = now - *self.since.get_or_insert(now);
        if waited < SPIN {
            std::hint::spin_loop();
        } else if waited < SPIN + YIELD {
            thread::yield_now();
        } else {
            self.sleep = (self.sleep * 2).clamp(SLEEP, LONGEST);
            thread::sleep(self.sleep.min(left));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Idle, LONGEST, SPIN, YIELD};

    #[test]
    fn pauses_grow_up_to_the_longest() {
        let mut idle = Idle::default();
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(20) {
            idle.pause(Duration::from_secs(1));
        }
        assert_eq!(idle.sleep, LONGEST);
        assert!(SPIN + YIELD < Duration::from_millis(1));
    }

    #[test]
    fn a_pause_ends_with_the_time_left() {
        let mut idle = Idle { since: Instant::now().checked_sub(Duration::from_secs(1)), sleep: Duration::from_secs(3600) };
        idle.pause(Duration::ZERO);
        assert_eq!(idle.sleep, LONGEST);
    }
}
