//! How long a rank that waits looks again and again before it sleeps.
//!
//! To sleep and be woken takes 5 to 20 µs on a virtual core, as much as many a message; to spin takes the core from whoever
//! could use it. So a wait spins for at most [`LONGEST`], and not at all when there are more ranks than cores.

use std::{
    env,
    num::NonZero,
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

/// In microseconds, instead of [`LONGEST`] or nothing; 0 is never.
const VARIABLE: &str = "DEEPRC_COMM_SPIN";
/// Nobody spins longer, unless the environment says so.
const LONGEST: Duration = Duration::from_micros(50);
/// Looks between two looks at the clock.
const LOOKS: u32 = 16;

/// The time to spin at the begin of a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spin(Duration);

impl Spin {
    /// Never.
    pub(crate) const NONE: Spin = Spin(Duration::ZERO);

    /// For one of so many ranks on this host.
    pub(crate) fn among(ranks: usize) -> Self {
        // Asking takes longer than to meet: the system reads files for it.
        static CORES: OnceLock<usize> = OnceLock::new();
        let cores = *CORES.get_or_init(|| thread::available_parallelism().map_or(1, NonZero::get));
        Spin::from(env::var(VARIABLE).ok().as_deref(), ranks, cores)
    }

    fn from(wish: Option<&str>, ranks: usize, cores: usize) -> Self {
        let wish = wish.and_then(|text| text.trim().parse().ok()).map(Duration::from_micros);
        Spin(wish.unwrap_or(if ranks <= cores { LONGEST } else { Duration::ZERO }))
    }

    /// Looks until something happened, but not too long; whether it happened.
    pub(crate) fn until(self, happened: impl Fn() -> bool) -> bool {
        if self == Spin::NONE {
            return false;
        }
        let started = Instant::now();
        loop {
            for _ in 0..LOOKS {
                if happened() {
                    return true;
                }
                std::hint::spin_loop();
            }
            if started.elapsed() >= self.0 {
                return false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{LONGEST, Spin};

    #[test]
    fn only_ranks_with_a_core_each_spin() {
        assert_eq!([Spin::from(None, 2, 2), Spin::from(None, 3, 2)], [Spin(LONGEST), Spin::NONE]);
        assert_eq!([Spin::from(Some("0"), 2, 2), Spin::from(Some("7"), 9, 2)], [Spin::NONE, Spin(Duration::from_micros(7))]);
        assert!(Spin(LONGEST).until(|| true) && !Spin(LONGEST).until(|| false));
    }
}
