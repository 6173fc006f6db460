//! Which windows make up which step.
//!
//! A sampler answers for any step without having gone through the ones before it: what a step holds depends on the seed and the
//! step alone, so a resumed training needs to remember nothing but its step.

use rand::seq::SliceRandom;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The windows of every step, by their number in the [`WindowIndex`](crate::WindowIndex).
pub trait Sampler: Send + Sync + std::fmt::Debug {
    /// Steps on this rank; `usize::MAX` for a sampler without an end.
    fn steps(&self) -> usize;

    /// Appends the windows of `step` (below [`Sampler::steps`]) to `out`. The same answer on every call.
    fn sample(&self, step: usize, out: &mut Vec<usize>);
}

impl Sampler for Box<dyn Sampler> {
    fn steps(&self) -> usize {
        (**self).steps()
    }

    fn sample(&self, step: usize, out: &mut Vec<usize>) {
        (**self).sample(step, out);
    }
}

/// All windows once, in order, `batch` per step, the last step with what is left.
#[derive(Clone, Debug)]
pub struct Sequential {
    windows: usize,
    batch: usize,
}

impl Sequential {
    /// # Panics
    /// If `batch` is 0.
    pub fn new(windows: usize, batch: usize) -> Self {
        assert!(batch > 0, "a batch holds at least one window");
        Sequential { windows, batch }
    }
}

impl Sampler for Sequential {
    fn steps(&self) -> usize {
        self.windows.div_ceil(self.batch)
    }

    fn sample(&self, step: usize, out: &mut Vec<usize>) {
        out.extend(share(self.windows, self.batch, step));
    }
}

/// All windows once, in an order given by (seed, epoch), `batch` per step, the last step with what is left.
#[derive(Clone, Debug)]
pub struct Shuffled {
    order: Vec<u32>,
    batch: usize,
}

impl Shuffled {
    /// # Panics
    /// If `batch` is 0 or there are more than 2^32 windows.
    pub fn new(windows: usize, batch: usize, seed: u64, epoch: u64) -> Self {
        assert!(batch > 0, "a batch holds at least one window");
        let windows = u32::try_from(windows).expect("fewer than 2^32 windows");
        let mut order: Vec<u32> = (0..windows).collect();
        order.shuffle(&mut rng(seed, epoch));
        Shuffled { order, batch }
    }
}

impl Sampler for Shuffled {
    fn steps(&self) -> usize {
        self.order.len().div_ceil(self.batch)
    }

    fn sample(&self, step: usize, out: &mut Vec<usize>) {
        out.extend(share(self.order.len(), self.batch, step).map(|at| self.order[at] as usize));
    }
}

/// At every step `batch` different windows out of all, given by (seed, step) alone; with repetitions if there are fewer windows
/// than that (NeuralForecast's `windows_batch_size`). Without an end.
#[derive(Clone, Debug)]
pub struct Random {
    windows: usize,
    batch: usize,
    seed: u64,
}

impl Random {
    /// # Panics
    /// If `windows` or `batch` is 0.
    pub fn new(windows: usize, batch: usize, seed: u64) -> Self {
        assert!(windows > 0 && batch > 0, "there is at least one window, and a batch holds at least one");
        Random { windows, batch, seed }
    }
}

impl Sampler for Random {
    fn steps(&self) -> usize {
        usize::MAX
    }

    fn sample(&self, step: usize, out: &mut Vec<usize>) {
        let mut rng = rng(self.seed, step as u64);
        if self.windows < self.batch {
            out.extend((0..self.batch).map(|_| rng.random_range(0..self.windows)));
        } else {
            out.extend(rand::seq::index::sample(&mut rng, self.windows, self.batch));
        }
    }
}

/// What becomes of the windows that do not divide by the number of ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remainder {
    /// Windows of the same step are repeated, so that every rank has equally many: for training, where a mean over ranks is a
    /// mean over windows only then.
    Repeat,
    /// Some ranks have one window less, perhaps none: for prediction and scores, where every window counts once.
    Leave,
}

/// The share of one rank in every step of `inner`: all ranks together do what one process does with `inner` alone.
///
/// Every rank has the same number of steps, so that none waits in a collective for a rank that has finished.
///
/// ```text
///   inner, step s    w0 w1 w2 w3 w4 w5 w6
///   rank 0 of 3      w0 w1 [w2]                 Repeat: the windows in brackets are on two ranks,
///   rank 1 of 3        [w1] w2 w3               Leave: they are not
///   rank 2 of 3                   w4 w5 w6
/// ```
#[derive(Clone, Debug)]
pub struct Distributed<S> {
    inner: S,
    rank: usize,
    size: usize,
    remainder: Remainder,
}

impl<S: Sampler> Distributed<S> {
    /// # Panics
    /// If `rank` is not below `size`.
    pub fn new(inner: S, rank: usize, size: usize, remainder: Remainder) -> Self {
        assert!(rank < size, "rank {rank} is not below the size {size}");
        Distributed { inner, rank, size, remainder }
    }
}

impl<S: Sampler> Sampler for Distributed<S> {
    fn steps(&self) -> usize {
        self.inner.steps()
    }

    fn sample(&self, step: usize, out: &mut Vec<usize>) {
        let begin = out.len();
        self.inner.sample(step, out);
        let all = out.len() - begin;
        let (from, to) = rank_share(all, self.rank, self.size, self.remainder);
        out.drain(begin + to..);
        out.drain(begin..begin + from);
    }
}

/// The stretch of a step's `all` windows that `rank` works on.
fn rank_share(all: usize, rank: usize, size: usize, remainder: Remainder) -> (usize, usize) {
    let (from, to) = (rank * all / size, (rank + 1) * all / size);
    match remainder {
        Remainder::Leave => (from, to),
        // Equal lengths: a stretch that is one short begins one window earlier, or ends one later at the front.
        Remainder::Repeat => {
            let length = all.div_ceil(size);
            let to = to.max(length).min(all);
            (to - length, to)
        }
    }
}

fn share(windows: usize, batch: usize, step: usize) -> std::ops::Range<usize> {
    let from = step.saturating_mul(batch).min(windows);
    from..from.saturating_add(batch).min(windows)
}

/// A generator for one (seed, counter): ChaCha's stream number is the counter, so that no two of them overlap.
fn rng(seed: u64, counter: u64) -> impl Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(counter);
    rng
}
