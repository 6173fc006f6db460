//! Batches ahead of their use.

use crate::batch::Pool;
use crate::{Batch, Dataset, Error, Result, Sampler, WindowIndex};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

/// Where a [`DataLoader`] begins and ends, and how far it runs ahead.
#[derive(Clone, Debug)]
pub struct LoaderOptions {
    /// First step, for a training that is resumed.
    pub first_step: usize,
    /// Step to end before; the sampler's own end if that comes first.
    pub end_step: usize,
    /// Batches that may wait filled; at least 1.
    pub prefetch: usize,
}

impl Default for LoaderOptions {
    fn default() -> Self {
        LoaderOptions { first_step: 0, end_step: usize::MAX, prefetch: 2 }
    }
}

/// The batches of a sampler in the order of their steps, filled by a thread of their own while the one before is in use.
#[derive(Debug)]
pub struct DataLoader {
    batches: Option<Receiver<Batch>>,
    worker: Option<JoinHandle<()>>,
    start_error: Option<String>,
}

impl DataLoader {
    /// Starts filling. `windows` must have been made from `dataset`, and `sampler` for its number of windows.
    pub fn new(dataset: Arc<Dataset>, windows: Arc<WindowIndex>, sampler: Box<dyn Sampler>, options: LoaderOptions) -> Self {
        let (sender, receiver) = sync_channel(options.prefetch.max(1));
        let fill = move || {
            let pool = Pool::default();
            let mut numbers = Vec::new();
            for step in options.first_step..options.end_step.min(sampler.steps()) {
                numbers.clear();
                sampler.sample(step, &mut numbers);
                let mut batch = pool.take();
                batch.fill(&dataset, &windows, &numbers);
                // The consumer is gone: nobody wants the rest.
                if sender.send(batch).is_err() {
                    return;
                }
            }
        };
        match std::thread::Builder::new().name("deeprc-batches".into()).spawn(fill) {
            Ok(worker) => DataLoader { batches: Some(receiver), worker: Some(worker), start_error: None },
            Err(error) => DataLoader { batches: None, worker: None, start_error: Some(error.to_string()) },
        }
    }
}

impl Iterator for DataLoader {
    type Item = Result<Batch>;

    /// The next batch; an error if the filling thread could not be started or panicked.
    fn next(&mut self) -> Option<Result<Batch>> {
        if let Some(why) = self.start_error.take() {
            return Some(Err(Error::Worker { why }));
        }
        if let Ok(batch) = self.batches.as_ref()?.recv() {
            return Some(Ok(batch));
        }
        self.batches = None;
        let panic = self.worker.take()?.join().err()?;
        let why = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        Some(Err(Error::Worker { why: why.unwrap_or("it panicked").into() }))
    }
}

impl Drop for DataLoader {
    fn drop(&mut self) {
        // Without its receiver the thread ends at its next batch.
        self.batches = None;
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}
