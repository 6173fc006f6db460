//! Runs one exchange: produce, one collective, take in.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::arrow::compute::BatchCoalescer;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::metrics::Time;
use datafusion::physical_plan::repartition::BatchPartitioner;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, Partitioning};
use deeprc_comm::Communicator;
use futures::TryStreamExt;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::range::{Keys, bounds};
use super::rule::last_partition_finishes;
use super::wire::{self, Placed};
use super::{ExchangeExec, Owner, Scheme};
use crate::agree::{Fault, agree, internal};
use crate::{Error, Result};

/// Rows per batch that an exchange sends and hands on.
const BATCH_ROWS: usize = 8192;

/// A partition's place among those that run, and what it produced.
type Produced = (usize, Vec<Placed>);

/// What a stage needs to run.
pub(crate) struct Stage<'a> {
    pub comm: &'a Communicator,
    pub runtime: &'a Handle,
    pub context: &'a Arc<TaskContext>,
}

impl Stage<'_> {
    /// Runs partitions of a plan side by side on this rank's threads; their batches in the order of `partitions`.
    pub fn collect(&self, plan: &Arc<dyn ExecutionPlan>, partitions: &[usize]) -> Result<Vec<Vec<RecordBatch>>> {
        let produced = self.each(plan, partitions, |_| Ok(Sink::Keep(0, Vec::new())))?;
        Ok(produced.into_iter().map(|batches| batches.into_iter().map(|(_, batch)| batch).collect()).collect())
    }

    /// Runs partitions side by side, each into the sink that `open` makes for it; one after the other where the last to end has
    /// more to emit, so that it is the same one every time.
    fn each(
        &self,
        plan: &Arc<dyn ExecutionPlan>,
        partitions: &[usize],
        open: impl Fn(usize) -> Result<Sink, DataFusionError>,
    ) -> Result<Vec<Vec<Placed>>> {
        let in_turn = last_partition_finishes(plan);
        let (mut tasks, mut done) = (JoinSet::new(), Vec::with_capacity(partitions.len()));
        for (place, partition) in partitions.iter().copied().enumerate() {
            let (plan, context, mut sink) = (plan.clone(), self.context.clone(), open(partition)?);
            let task = async move {
                let mut batches = plan.execute(partition, context)?;
                while let Some(batch) = batches.try_next().await? {
                    sink.push(batch)?;
                }
                Ok::<_, DataFusionError>((place, sink.finish()?))
            };
            tasks.spawn_on(task, self.runtime);
            if in_turn {
                self.join(&mut tasks, &mut done)?;
            }
        }
        self.join(&mut tasks, &mut done)?;
        done.sort_by_key(|(place, _)| *place);
        Ok(done.into_iter().map(|(_, batches)| batches).collect())
    }

    /// Waits for the tasks. A panic in an operator becomes this rank's error, so that the other ranks hear of it.
    fn join(&self, tasks: &mut JoinSet<Result<Produced, DataFusionError>>, done: &mut Vec<Produced>) -> Result<()> {
        self.runtime.block_on(async {
            while let Some(task) = tasks.join_next().await {
                done.push(task.map_err(|e| internal(&e))?.map_err(Error::from)?);
            }
            Ok(())
        })
    }

    /// Runs an exchange to its end. Every rank returns an error if one rank failed.
    pub fn run(&self, exchange: &ExchangeExec) -> Result<()> {
        let rank = self.comm.rank();
        let produced = self.produce(exchange);
        if let Err(Error::Comm(_)) = &produced {
            return produced.map(drop);
        }
        let (messages, own) = match &produced {
            Ok(batches) => self.address(exchange, batches)?,
            Err(error) => (vec![vec![fault(error)?]; self.comm.size()], Vec::new()),
        };
        let received = if self.comm.size() == 1 { messages } else { self.comm.all_to_all(messages)? };
        let mut arrived: HashMap<usize, Vec<RecordBatch>> =
            (0..exchange.to.len()).filter(|partition| exchange.to[*partition].is_on(rank)).map(|partition| (partition, vec![])).collect();
        let mut own = Some(own);
        for (from, mut parts) in received.into_iter().enumerate() {
            let status = if parts.is_empty() { Bytes::new() } else { parts.remove(0) };
            if !status.is_empty() {
                let fault: Fault = serde_json::from_slice(&status).map_err(|e| internal(&e))?;
                return Err(fault.returned(from, rank, produced));
            }
            let batches = match own.take_if(|_| from == rank) {
                Some(own) => own,
                None => wire::decode(parts, &exchange.schema())?,
            };
            for (partition, batch) in batches {
                arrived.entry(partition).or_default().push(batch);
            }
        }
        for batches in arrived.values_mut() {
            *batches = coalesced(std::mem::take(batches), &exchange.schema())?;
        }
        exchange.fill(arrived);
        Ok(())
    }

    /// This rank's rows with the partition that each goes to, in the order of the input partitions.
    fn produce(&self, exchange: &ExchangeExec) -> Result<Vec<Placed>> {
        let (input, sources, schema) = (&exchange.input, exchange.sources(), exchange.schema());
        let produced = match &exchange.scheme {
            Scheme::Move => self.each(input, &sources, |partition| Ok(Sink::Keep(partition, Vec::new())))?,
            Scheme::Concat => self.each(input, &sources, |_| Ok(Sink::Keep(0, Vec::new())))?,
            Scheme::Split(partitioning) => {
                let inputs = input.output_partitioning().partition_count();
                self.each(input, &sources, |source| Sink::split(partitioning, source, inputs, &schema))?
            }
            Scheme::Range(ordering, count) => {
                let keys = Keys::new(ordering, &schema)?;
                // All ranks take part in the agreement about the samples, also one that has failed.
                let sampled = self.collect(input, &sources).and_then(|runs| Ok((keys.sample(runs.iter().flatten())?, runs)));
                let (sample, runs) = match sampled {
                    Ok((sample, runs)) => (Ok(sample), runs),
                    Err(error) => (Err(error), Vec::new()),
                };
                let bounds = bounds(agree(self.comm, sample)?, *count);
                ranges(&keys, &bounds, *count, runs, &schema)?
            }
        };
        Ok(produced.into_iter().flatten().filter(|(_, batch)| batch.num_rows() > 0).collect())
    }

    /// One message per rank (a status, empty if all is well, then the batches), and what stays here.
    fn address(&self, exchange: &ExchangeExec, batches: &[Placed]) -> Result<(Vec<Vec<Bytes>>, Vec<Placed>)> {
        let mine = |rank: usize| batches.iter().filter(move |(partition, _)| exchange.to[*partition].is_on(rank)).cloned();
        let own = mine(self.comm.rank()).collect();
        let to_all = exchange.to.iter().all(|owner| *owner == Owner::All) && self.comm.size() > 1;
        let broadcast = if to_all { Some(wire::encode(batches)?) } else { None };
        let messages = (0..self.comm.size()).map(|rank| {
            let mut message = vec![Bytes::new()];
            if rank != self.comm.rank() {
                message.extend(match &broadcast {
                    Some(parts) => parts.clone(),
                    None => wire::encode(&mine(rank).collect::<Vec<_>>())?,
                });
            }
            Ok(message)
        });
        Ok((messages.collect::<Result<_>>()?, own))
    }
}

/// Splits the rows of this rank's partitions by value, side by side.
fn ranges(keys: &Keys<'_>, bounds: &[Vec<u8>], count: usize, runs: Vec<Vec<RecordBatch>>, schema: &SchemaRef) -> Result<Vec<Vec<Placed>>> {
    let split = |batches: Vec<RecordBatch>| {
        let mut outputs = Outputs::new(count, schema);
        for batch in batches {
            for (partition, rows) in keys.split(&batch, bounds)?.iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
                outputs.0[partition].push_batch_with_indices(batch.clone(), rows)?;
            }
        }
        outputs.finish()
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = runs.into_iter().map(|batches| scope.spawn(|| split(batches))).collect();
        let joined = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        joined.map(|placed| placed.map_err(Error::from)).collect()
    })
}

fn fault(error: &Error) -> Result<Bytes> {
    Ok(serde_json::to_vec(&Fault::from(error)).map_err(|e| internal(&e))?.into())
}

/// One coalescer per output partition: splitting a batch over many partitions leaves slivers, which would cost a message part each.
struct Outputs(Vec<BatchCoalescer>);

impl Outputs {
    fn new(count: usize, schema: &SchemaRef) -> Self {
        let coalescer = || BatchCoalescer::new(schema.clone(), BATCH_ROWS).with_biggest_coalesce_batch_size(Some(BATCH_ROWS / 2));
        Outputs((0..count).map(|_| coalescer()).collect())
    }

    fn finish(self) -> Result<Vec<Placed>, DataFusionError> {
        let mut placed = Vec::new();
        for (partition, mut coalescer) in self.0.into_iter().enumerate() {
            coalescer.finish_buffered_batch()?;
            placed.extend(std::iter::from_fn(|| coalescer.next_completed_batch()).map(|batch| (partition, batch)));
        }
        Ok(placed)
    }
}

/// Where the rows of an input partition go.
enum Sink {
    /// All to one partition, as they are.
    Keep(usize, Vec<Placed>),
    /// Each to the partition that DataFusion's partitioner says.
    Split(BatchPartitioner, Outputs),
}

impl Sink {
    fn split(partitioning: &Partitioning, source: usize, inputs: usize, schema: &SchemaRef) -> Result<Sink, DataFusionError> {
        let partitioner = BatchPartitioner::try_new(partitioning.clone(), Time::default(), source, inputs)?;
        Ok(Sink::Split(partitioner, Outputs::new(partitioning.partition_count(), schema)))
    }

    fn push(&mut self, batch: RecordBatch) -> Result<(), DataFusionError> {
        match self {
            _ if batch.num_rows() == 0 => Ok(()),
            Sink::Keep(partition, batches) => {
                batches.push((*partition, batch));
                Ok(())
            }
            Sink::Split(partitioner, outputs) => partitioner.partition(batch, |partition, rows| Ok(outputs.0[partition].push_batch(rows)?)),
        }
    }

    fn finish(self) -> Result<Vec<Placed>, DataFusionError> {
        match self {
            Sink::Keep(_, batches) => Ok(batches),
            Sink::Split(_, outputs) => outputs.finish(),
        }
    }
}

/// The same rows in the same order, small batches put together.
fn coalesced(batches: Vec<RecordBatch>, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    if batches.len() < 2 || rows / batches.len() >= BATCH_ROWS / 2 || schema.fields().is_empty() {
        return Ok(batches);
    }
    let mut coalescer = BatchCoalescer::new(schema.clone(), BATCH_ROWS).with_biggest_coalesce_batch_size(Some(BATCH_ROWS / 2));
    for batch in batches {
        coalescer.push_batch(batch)?;
    }
    coalescer.finish_buffered_batch()?;
    Ok(std::iter::from_fn(|| coalescer.next_completed_batch()).collect())
}
