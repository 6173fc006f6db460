//! Runs a rewritten plan: exchanges in post-order, subqueries before what reads them, then the root.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::{Result as EngineResult, ScalarValue, exec_err};
use datafusion::physical_plan::{ExecutionPlan, displayable};
use deeprc_comm::Communicator;

pub(crate) use super::stage::Stage;
use super::{ExchangeExec, RankSubqueryExec, placement};
use crate::agree::agree;
use crate::{Error, Result};

/// Refuses to run plans that differ between ranks: they would exchange different things, or wait for each other for ever.
///
/// Takes this rank's attempt at planning, so that a rank that cannot plan stops the others too.
pub(crate) fn agree_on_plan(comm: &Communicator, plan: Result<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
    let shown = |plan: &Arc<dyn ExecutionPlan>| displayable(plan.as_ref()).set_show_schema(true).indent(true).to_string();
    let (plan, text) = match plan {
        Ok(plan) => {
            let text = shown(&plan);
            (Ok(plan), text)
        }
        Err(error) => (Err(error), String::new()),
    };
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let (plan, hash) = match plan {
        Ok(plan) => (Some(plan), Ok(hasher.finish())),
        Err(error) => (None, Err(error)),
    };
    let hashes = agree(comm, hash)?;
    if let Some(rank) = hashes.iter().position(|hash| *hash != hashes[0]) {
        let mut texts = agree(comm, Ok(text))?;
        return Err(Error::PlansDiffer { rank, other: texts.swap_remove(rank), first: texts.swap_remove(0) });
    }
    Ok(plan.expect("agree returns the error of a rank without a plan"))
}

/// Runs a plan that all ranks agree on. Gives this rank's rows in the order of the partitions.
///
/// A failure in the root's partitions is only this rank's: the caller agrees on it.
pub(crate) fn run(plan: &Arc<dyn ExecutionPlan>, stage: &Stage<'_>) -> Result<Vec<RecordBatch>> {
    exchanges(plan, stage)?;
    let rank = stage.comm.rank();
    let own: Vec<usize> =
        placement(plan).iter().enumerate().filter(|(_, owner)| owner.runs_on(rank)).map(|(partition, _)| partition).collect();
    Ok(stage.collect(plan, &own)?.into_iter().flatten().collect())
}

fn exchanges(plan: &Arc<dyn ExecutionPlan>, stage: &Stage<'_>) -> Result<()> {
    if let Some(node) = plan.downcast_ref::<RankSubqueryExec>() {
        for link in &node.subqueries {
            exchanges(&link.plan, stage)?;
            let value = stage.collect(&link.plan, &[0]).and_then(|batches| Ok(scalar(&batches[0], &link.plan)?));
            let set = value.and_then(|value| Ok(node.results.set(link.index, value)?));
            agree(stage.comm, set)?;
        }
        return exchanges(&node.input, stage);
    }
    for child in plan.children() {
        exchanges(child, stage)?;
    }
    match plan.downcast_ref::<ExchangeExec>() {
        Some(exchange) => stage.run(exchange),
        None => Ok(()),
    }
}

fn scalar(batches: &[RecordBatch], plan: &Arc<dyn ExecutionPlan>) -> EngineResult<ScalarValue> {
    let mut rows = batches.iter().flat_map(|batch| (0..batch.num_rows()).map(move |row| (batch, row)));
    match (rows.next(), rows.next()) {
        (None, _) => ScalarValue::try_from(plan.schema().field(0).data_type()),
        (Some((batch, row)), None) => ScalarValue::try_from_array(batch.column(0), row),
        _ => exec_err!("a scalar subquery gave more than one row"),
    }
}
