//! The plan node that moves rows between ranks.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{LexOrdering, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties};

use super::Owner;
use super::placement::shown;

/// How an exchange moves rows.
#[derive(Clone, Debug)]
pub(crate) enum Scheme {
    /// Row by row to the partition that DataFusion's partitioner says (hash of key columns, round robin).
    Split(Partitioning),
    /// Partition `i` stays partition `i`, only its owner changes: gather on one rank, or broadcast to all. Keeps the order.
    Move,
    /// All partitions one after the other as a single one: gather or broadcast, in an order that does not depend on timing.
    Concat,
    /// By value into this many sorted ranges, whose bounds are found from samples while the query runs (a sample sort).
    Range(LexOrdering, usize),
}

/// Moves rows from the partitions of its input (owned by `from`) to its own (owned by `to`).
///
/// ```text
/// Split (hash of k)        Move, to = rank 0         Move, to = all            Range
/// rank 0      rank 1       rank 0      rank 1        rank 0      rank 1        rank 0      rank 1
/// k: 1 2 3    k: 2 1 4     a           b             a           b             5 1 9       2 8 3
///    │ └─┼──┐ ┌──┼─┘ │     │           │             │ ╲       ╱ │             │  ╲        ╱  │
///    │ ┌─┼──┼─┘  │   │     │ ┌─────────┘             │   ╲   ╱   │             │    ╲    ╱    │
/// k: 1 1 3   k: 2 2 4      a b         -             a b         a b           1 2 3       5 8 9
/// ```
///
/// The driver runs an exchange (see [`super::stage`]) before anything above it starts; [`execute`](ExecutionPlan::execute) only gives
/// out what has arrived. It accepts no filter from above: a filter made on one rank would drop other ranks' rows.
pub(crate) struct ExchangeExec {
    /// Number in the plan, for messages.
    pub id: u32,
    pub input: Arc<dyn ExecutionPlan>,
    pub scheme: Scheme,
    pub from: Vec<Owner>,
    pub to: Vec<Owner>,
    rank: usize,
    properties: Arc<PlanProperties>,
    /// Whether partitions may be read several times (recursive queries do).
    replay: bool,
    arrived: Arc<Mutex<HashMap<usize, Vec<RecordBatch>>>>,
}

impl ExchangeExec {
    pub fn new(id: u32, input: Arc<dyn ExecutionPlan>, scheme: Scheme, from: Vec<Owner>, to: Vec<Owner>, rank: usize) -> Self {
        let mut equivalences = input.properties().eq_properties.clone();
        if !matches!(scheme, Scheme::Move) {
            equivalences.clear_orderings();
            equivalences.clear_per_partition_constants();
        }
        let partitioning = match &scheme {
            Scheme::Split(partitioning) => partitioning.clone(),
            Scheme::Move => input.output_partitioning().clone(),
            Scheme::Concat => Partitioning::UnknownPartitioning(1),
            Scheme::Range(_, count) => Partitioning::UnknownPartitioning(*count),
        };
        let properties = PlanProperties::new(equivalences, partitioning, input.pipeline_behavior(), input.boundedness());
        let properties = Arc::new(properties);
        ExchangeExec { id, input, scheme, from, to, rank, properties, replay: false, arrived: Arc::default() }
    }

    pub fn with_replay(mut self) -> Self {
        self.replay = true;
        self
    }

    /// The input partitions that this rank runs.
    pub fn sources(&self) -> Vec<usize> {
        (0..self.from.len()).filter(|partition| self.from[*partition].runs_on(self.rank)).collect()
    }

    /// Hands over what has arrived for the partitions that this rank can read.
    pub fn fill(&self, arrived: HashMap<usize, Vec<RecordBatch>>) {
        *self.arrived.lock().unwrap_or_else(PoisonError::into_inner) = arrived;
    }
}

impl fmt::Debug for ExchangeExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExchangeExec#{}", self.id)
    }
}

impl DisplayAs for ExchangeExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExchangeExec#{}: ", self.id)?;
        match &self.scheme {
            Scheme::Split(partitioning) => write!(f, "{partitioning}")?,
            Scheme::Move => write!(f, "Move")?,
            Scheme::Concat => write!(f, "Concat")?,
            Scheme::Range(ordering, count) => write!(f, "Range([{ordering}], {count})")?,
        }
        write!(f, ", {} -> {}", shown(&self.from), shown(&self.to))
    }
}

impl ExecutionPlan for ExchangeExec {
    fn name(&self) -> &str {
        "ExchangeExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![matches!(self.scheme, Scheme::Move)]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn apply_expressions(&self, _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.remove(0);
        let mut exchange = ExchangeExec::new(self.id, input, self.scheme.clone(), self.from.clone(), self.to.clone(), self.rank);
        (exchange.replay, exchange.arrived) = (self.replay, self.arrived.clone());
        Ok(Arc::new(exchange))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let mut arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        let batches = if self.replay { arrived.get(&partition).cloned() } else { arrived.remove(&partition) };
        let Some(batches) = batches else {
            return internal_err!(
                "partition {partition} of exchange {} is not on rank {} or was read twice ({})",
                self.id,
                self.rank,
                shown(&self.to)
            );
        };
        let batches = futures::stream::iter(batches.into_iter().map(Ok));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
    }
}
