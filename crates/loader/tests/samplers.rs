//! What every sampler promises.

use deeprc_loader::{Distributed, Random, Remainder, Sampler, Sequential, Shuffled};
use proptest::prelude::*;

fn step(sampler: &impl Sampler, step: usize) -> Vec<usize> {
    let mut out = Vec::new();
    sampler.sample(step, &mut out);
    out
}

fn all(sampler: &impl Sampler) -> Vec<usize> {
    (0..sampler.steps()).flat_map(|at| step(sampler, at)).collect()
}

proptest! {
    #[test]
    fn sequential_is_every_window_in_order(windows in 0usize..60, batch in 1usize..12) {
        let sampler = Sequential::new(windows, batch);
        prop_assert_eq!(all(&sampler), (0..windows).collect::<Vec<_>>());
        prop_assert_eq!(sampler.steps(), windows.div_ceil(batch));
    }

    #[test]
    fn shuffled_is_every_window_once(windows in 0usize..60, batch in 1usize..12, seed: u64, epoch in 0u64..5) {
        let sampler = Shuffled::new(windows, batch, seed, epoch);
        let mut found = all(&sampler);
        prop_assert_eq!(&found, &all(&Shuffled::new(windows, batch, seed, epoch)));
        found.sort_unstable();
        prop_assert_eq!(found, (0..windows).collect::<Vec<_>>());
    }

    #[test]
    fn random_steps_hold_different_windows(windows in 1usize..60, batch in 1usize..12, seed: u64, at in 0usize..1000) {
        let sampler = Random::new(windows, batch, seed);
        let found = step(&sampler, at);
        prop_assert_eq!(&found, &step(&sampler, at));
        prop_assert_eq!(found.len(), batch);
        prop_assert!(found.iter().all(|&window| window < windows));
        if windows >= batch {
            let different: std::collections::BTreeSet<_> = found.iter().collect();
            prop_assert_eq!(different.len(), batch);
        }
    }

    #[test]
    fn ranks_share_every_step(windows in 0usize..60, batch in 1usize..12, size in 1usize..6, seed: u64) {
        let inner = Shuffled::new(windows, batch, seed, 0);
        let ranks = |remainder| (0..size).map(|rank| Distributed::new(inner.clone(), rank, size, remainder)).collect::<Vec<_>>();
        let (repeat, leave) = (ranks(Remainder::Repeat), ranks(Remainder::Leave));
        for at in 0..inner.steps() {
            let whole = step(&inner, at);
            let shares: Vec<Vec<usize>> = leave.iter().map(|rank| step(rank, at)).collect();
            prop_assert_eq!(&shares.concat(), &whole);
            let shares: Vec<Vec<usize>> = repeat.iter().map(|rank| step(rank, at)).collect();
            prop_assert!(shares.iter().all(|share| share.len() == whole.len().div_ceil(size)));
            prop_assert!(whole.iter().all(|window| shares.iter().any(|share| share.contains(window))));
        }
        prop_assert!(repeat.iter().chain(&leave).all(|rank| rank.steps() == inner.steps()));
    }
}

#[test]
fn seeds_epochs_and_steps_differ() {
    let shuffled = |seed, epoch| all(&Shuffled::new(100, 10, seed, epoch));
    assert_ne!(shuffled(1, 0), shuffled(1, 1));
    assert_ne!(shuffled(1, 0), shuffled(2, 0));
    let random = Random::new(1000, 10, 1);
    assert_ne!(step(&random, 0), step(&random, 1));
}
