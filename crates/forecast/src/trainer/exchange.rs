//! Gradients of all ranks added up while the backward pass still runs.
//!
//! ```text
//!   parameters      p0 p1 p2 p3 p4 p5           the backward pass is done with the last ones first
//!   buckets         [  1  ][   0    ]           each about 4 MiB, one piece of memory
//!
//!   this thread     backward p5 p4 p3 ──► p2 p1 p0 ──► wait ──► optimizer
//!   exchange thread                allreduce 0 ───► allreduce 1
//! ```
//!
//! A hook on each parameter copies its gradient into the bucket. Buckets are exchanged in their fixed order, whatever the order in
//! which their gradients come, so that all ranks agree; sums are in the order of the ranks. With a single bucket there is
//! nothing to overlap and no second thread.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use deeprc_comm::{Communicator, ReduceOp};
use tch::{Device, Kind, Tensor};

use crate::blocks::slice_mut;
use crate::native::GradientHook;
use crate::{Error, Parameters, Result};

/// Values of a bucket, about: large enough that latency does not count, small enough to have several.
const BUCKET: usize = 1 << 20;

/// Sums gradients over the ranks of a communicator.
#[derive(Debug)]
pub(super) struct Exchange {
    comm: Communicator,
    pending: Arc<Mutex<Pending>>,
    /// Sums after [`Exchange::backward`], one per parameter, on the device of the parameters.
    gradients: Vec<Tensor>,
    device: Device,
    /// Before the pending buckets, so that no hook runs without them.
    _hooks: Vec<GradientHook>,
    worker: Option<Worker>,
}

/// What the hooks of one backward pass fill.
#[derive(Debug)]
struct Pending {
    buckets: Vec<Bucket>,
    /// Bucket and view of each parameter.
    places: Vec<(usize, Tensor)>,
    /// Parameters whose gradient is in its bucket.
    arrived: Vec<bool>,
    /// The first bucket that is not on its way yet.
    next: usize,
    /// Where full buckets go; none if they are exchanged in the end.
    outbox: Option<Sender<Tensor>>,
}

#[derive(Debug)]
struct Bucket {
    values: Tensor,
    parameters: usize,
    missing: usize,
}

/// The second thread. It ends when its inbox is dropped.
#[derive(Debug)]
struct Worker {
    done: Receiver<Result<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Exchange {
    /// Puts a hook on each of `parameters`; all ranks have the same ones.
    ///
    /// # Errors
    /// What libtorch reports.
    pub fn new(comm: Communicator, parameters: &[Tensor], device: Device) -> Result<Self> {
        let mut pending = Pending::new(parameters);
        let worker = (pending.buckets.len() > 1).then(|| {
            let (outbox, inbox) = channel();
            pending.outbox = Some(outbox);
            Worker::start(comm.clone(), inbox)
        });
        let views = pending.places.iter().map(|(_, view)| view);
        let gradients = views.map(|view| if device == Device::Cpu { view.shallow_clone() } else { view.to_device(device) }).collect();
        let pending = Arc::new(Mutex::new(pending));
        let hook = |(number, parameter): (usize, &Tensor)| {
            let pending = Arc::clone(&pending);
            GradientHook::new(parameter, move |gradient| lock(&pending).arrive(number, Some(gradient)))
        };
        let hooks = parameters.iter().enumerate().map(hook).collect::<Result<_>>()?;
        Ok(Self { comm, pending, gradients, device, _hooks: hooks, worker })
    }

    /// The sums over all ranks of the gradients of `loss`, or of nothing on a rank without windows; on every rank the same bits.
    ///
    /// # Errors
    /// Those of the communicator.
    pub fn backward(&self, loss: Option<&Tensor>, parameters: &[Tensor]) -> Result<&[Tensor]> {
        lock(&self.pending).begin();
        if let Some(loss) = loss {
            Tensor::run_backward(&[loss], parameters, false, false);
        }
        let mut pending = lock(&self.pending);
        // Parameters that the loss does not depend on have no gradient and their hook does not run.
        (0..parameters.len())
            .filter(|number| !pending.arrived[*number])
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|n| pending.arrive(n, None));
        let outcome = match &self.worker {
            Some(worker) => worker.wait(pending.buckets.len()),
            None => pending.buckets.iter_mut().try_for_each(|bucket| allreduce(&self.comm, &mut bucket.values)),
        };
        outcome?;
        if self.device != Device::Cpu {
            self.gradients.iter().zip(&pending.places).for_each(|(gradient, (_, view))| gradient.shallow_clone().copy_(view));
        }
        Ok(&self.gradients)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        lock(&self.pending).outbox = None;
        if let Some(thread) = self.worker.as_mut().and_then(|worker| worker.thread.take()) {
            // It waits in a collective at most, which has a deadline.
            let _ = thread.join();
        }
    }
}

impl Pending {
    fn new(parameters: &[Tensor]) -> Self {
        let mut groups: Vec<Vec<usize>> = vec![Vec::new()];
        let mut size = 0;
        for number in (0..parameters.len()).rev() {
            if size >= BUCKET {
                groups.push(Vec::new());
                size = 0;
            }
            size += parameters[number].numel();
            groups.last_mut().expect("there is a first group").push(number);
        }
        let mut places: Vec<Option<(usize, Tensor)>> = parameters.iter().map(|_| None).collect();
        let mut buckets = Vec::new();
        for (at, group) in groups.into_iter().enumerate() {
            let count: usize = group.iter().map(|n| parameters[*n].numel()).sum();
            let values = Tensor::zeros([count as i64], (Kind::Float, Device::Cpu));
            let mut first = 0;
            for number in &group {
                let count = parameters[*number].numel() as i64;
                places[*number] = Some((at, values.narrow(0, first, count).view(parameters[*number].size().as_slice())));
                first += count;
            }
            buckets.push(Bucket { values, parameters: group.len(), missing: 0 });
        }
        let places = places.into_iter().flatten().collect();
        Self { buckets, places, arrived: vec![false; parameters.len()], next: 0, outbox: None }
    }

    fn begin(&mut self) {
        self.next = 0;
        self.arrived.fill(false);
        self.buckets.iter_mut().for_each(|bucket| bucket.missing = bucket.parameters);
    }

    /// The gradient of a parameter, none for zero, goes to its bucket; full buckets go on their way in order.
    fn arrive(&mut self, number: usize, gradient: Option<&Tensor>) {
        let _no_grad = tch::no_grad_guard();
        let (bucket, view) = &mut self.places[number];
        match gradient {
            Some(gradient) => view.copy_(gradient),
            None => drop(view.zero_()),
        }
        self.arrived[number] = true;
        self.buckets[*bucket].missing -= 1;
        while self.buckets.get(self.next).is_some_and(|bucket| bucket.missing == 0) {
            if let Some(outbox) = &self.outbox {
                // A worker that has stopped is found out by the one who waits for it.
                let _ = outbox.send(self.buckets[self.next].values.shallow_clone());
            }
            self.next += 1;
        }
    }
}

impl Worker {
    fn start(comm: Communicator, inbox: Receiver<Tensor>) -> Self {
        let (report, done) = channel();
        let work = move || {
            for mut bucket in inbox {
                if report.send(allreduce(&comm, &mut bucket)).is_err() {
                    return;
                }
            }
        };
        Self { done, thread: Some(std::thread::spawn(work)) }
    }

    /// Every bucket's outcome is taken, so that none is left for the next step.
    fn wait(&self, buckets: usize) -> Result<()> {
        let stopped = || Err(Error::Torch { message: "the thread that exchanges gradients stopped".to_owned() });
        let outcomes: Vec<Result<()>> = (0..buckets).map(|_| self.done.recv().unwrap_or_else(|_| stopped())).collect();
        outcomes.into_iter().collect()
    }
}

/// Rank 0's running statistics on every rank: training does not read them, so before validation and at the end is enough.
pub(super) fn share_buffers(comm: &Communicator, parameters: &Parameters) -> Result<()> {
    let buffers = parameters.buffers();
    if comm.size() == 1 || buffers.is_empty() {
        return Ok(());
    }
    let _no_grad = tch::no_grad_guard();
    // f64 holds every f32 and every count of batches.
    let flat = Tensor::cat(&buffers.iter().map(|b| b.to_kind(Kind::Double).flatten(0, -1)).collect::<Vec<_>>(), 0);
    let mut values = vec![0.0f64; flat.numel()];
    if comm.rank() == 0 {
        flat.to_device(Device::Cpu).copy_data(&mut values, flat.numel());
    }
    comm.allreduce(&mut values, ReduceOp::Sum)?;
    let sizes: Vec<i64> = buffers.iter().map(|b| b.numel() as i64).collect();
    for (buffer, values) in buffers.iter().zip(Tensor::from_slice(&values).split_with_sizes(&sizes, 0)) {
        buffer.shallow_clone().copy_(&values.view_as(buffer));
    }
    Ok(())
}

fn allreduce(comm: &Communicator, bucket: &mut Tensor) -> Result<()> {
    Ok(comm.allreduce(slice_mut(bucket), ReduceOp::Sum)?)
}

fn lock(pending: &Mutex<Pending>) -> std::sync::MutexGuard<'_, Pending> {
    // A panic in a hook is libtorch's error of the backward pass; what the hook left is overwritten by the next one.
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}
