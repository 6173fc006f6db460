//! A table as a leaf of a query plan: it declares the partitions of all ranks and holds those of its own.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, Statistics, internal_err};
use datafusion::datasource::TableType;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::Expr;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, ReplaceChildrenOptions};
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};

use crate::exchange::Owner;

/// Rows per batch that a scan gives out at most; DataFusion's own default.
const BATCH_ROWS: usize = 8192;

/// The shape of a distributed table: how many ranks there are, which of them this is, and how many partitions each of them has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct World {
    pub rank: usize,
    pub ranks: usize,
    pub threads: usize,
}

impl World {
    /// Number of partitions on all ranks together.
    pub fn partitions(self) -> usize {
        self.ranks * self.threads
    }

    /// Consecutive partitions on consecutive ranks: the owner of each of `count` partitions.
    pub fn spread(self, count: usize) -> Vec<Owner> {
        (0..count).map(|partition| Owner::Rank(partition * self.ranks / count)).collect()
    }
}

/// A table that queries can name. Its statistics are those of all ranks together, so that every rank plans the same.
#[derive(Debug)]
pub(crate) struct RankTable {
    pub name: String,
    pub schema: SchemaRef,
    /// This rank's rows.
    pub local: Vec<RecordBatch>,
    /// Rows and bytes on all ranks together.
    pub rows: u64,
    pub bytes: u64,
    pub world: World,
}

#[async_trait]
impl TableProvider for RankTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(&self, _: &dyn Session, projection: Option<&Vec<usize>>, _: &[Expr], _: Option<usize>) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = datafusion::physical_plan::project_schema(&self.schema, projection)?;
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema.clone()),
            Partitioning::UnknownPartitioning(self.world.partitions()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        let mut batches = Vec::with_capacity(self.local.len());
        for batch in &self.local {
            let batch = projection.map_or_else(|| Ok(batch.clone()), |columns| batch.project(columns))?;
            batches.push(batch.with_schema(schema.clone())?);
        }
        let (rows, bytes, world) = (self.rows, self.bytes, self.world);
        let local = partitions(&batches, world.threads);
        Ok(Arc::new(RankScanExec { name: self.name.clone(), local, rows, bytes, world, properties: Arc::new(properties) }))
    }
}

/// Cuts the rows into `count` runs of about the same length, in batches of at most [`BATCH_ROWS`]. Nothing is copied.
fn partitions(batches: &[RecordBatch], count: usize) -> Vec<Vec<RecordBatch>> {
    let total: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let mut runs = vec![Vec::new(); count];
    let (mut run, mut done) = (0, 0);
    for batch in batches {
        let mut start = 0;
        while start < batch.num_rows() {
            while done >= total * (run + 1) / count {
                run += 1;
            }
            let rows = (total * (run + 1) / count - done).min(batch.num_rows() - start).min(BATCH_ROWS);
            runs[run].push(batch.slice(start, rows));
            (start, done) = (start + rows, done + rows);
        }
    }
    runs
}

/// The leaf: partitions `[rank * threads, (rank + 1) * threads)` are here, the others on other ranks.
#[derive(Debug, Clone)]
pub(crate) struct RankScanExec {
    name: String,
    local: Vec<Vec<RecordBatch>>,
    rows: u64,
    bytes: u64,
    world: World,
    properties: Arc<PlanProperties>,
}

impl RankScanExec {
    pub fn owners(&self) -> Vec<Owner> {
        self.world.spread(self.world.partitions())
    }
}

impl DisplayAs for RankScanExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RankScanExec: {} rows={} bytes={} partitions={}", self.name, self.rows, self.bytes, self.world.partitions())
    }
}

impl ExecutionPlan for RankScanExec {
    fn name(&self) -> &str {
        "RankScanExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![]
    }

    fn apply_expressions(&self, _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>, _: ReplaceChildrenOptions) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn statistics_from_inputs(&self, _: &[Arc<Statistics>], args: &StatisticsArgs) -> Result<Arc<Statistics>> {
        let mut statistics = Statistics::new_unknown(&self.schema());
        if args.partition().is_none() {
            statistics.num_rows = Precision::Exact(self.rows as usize);
            statistics.total_byte_size = Precision::Inexact(self.bytes as usize);
        }
        Ok(Arc::new(statistics))
    }

    fn execute(&self, partition: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let first = self.world.rank * self.world.threads;
        let Some(batches) = partition.checked_sub(first).and_then(|own| self.local.get(own)) else {
            return internal_err!("partition {partition} of table {} is not on rank {}", self.name, self.world.rank);
        };
        let batches = futures::stream::iter(batches.clone().into_iter().map(Ok));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
    }
}
