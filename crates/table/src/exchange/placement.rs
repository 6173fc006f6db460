//! Who runs which partition.

use std::sync::Arc;

use datafusion::physical_plan::ExecutionPlanProperties;
use datafusion::physical_plan::{ExecutionPlan, union::UnionExec};

use super::{ExchangeExec, RankSubqueryExec};
use crate::scan::RankScanExec;

/// Where a partition of a plan is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Owner {
    /// On one rank.
    Rank(usize),
    /// The same on every rank.
    All,
}

impl Owner {
    /// Whether this rank is the one that runs such a partition where it must run once.
    pub fn runs_on(self, rank: usize) -> bool {
        match self {
            Owner::Rank(owner) => owner == rank,
            Owner::All => rank == 0,
        }
    }

    /// Whether this rank can read such a partition.
    pub fn is_on(self, rank: usize) -> bool {
        match self {
            Owner::Rank(owner) => owner == rank,
            Owner::All => true,
        }
    }
}

/// `0 0 1 1` as `0x2 1x2`, for plans.
pub(crate) fn shown(owners: &[Owner]) -> String {
    let runs = owners.chunk_by(|a, b| a == b).map(|run| match run[0] {
        Owner::Rank(rank) => format!("{rank}x{}", run.len()),
        Owner::All => format!("*x{}", run.len()),
    });
    runs.collect::<Vec<_>>().join(" ")
}

/// The owner of every output partition of a rewritten plan, computed from the leaves up.
///
/// "Partitions `[r * t, (r + 1) * t)` are on rank `r`" holds for leaves, but not above a union (its inputs' partitions one after the
/// other) nor for nodes with a single partition.
pub(crate) fn placement(plan: &Arc<dyn ExecutionPlan>) -> Vec<Owner> {
    let count = plan.output_partitioning().partition_count();
    if let Some(exchange) = plan.downcast_ref::<ExchangeExec>() {
        return exchange.to.clone();
    }
    if let Some(scan) = plan.downcast_ref::<RankScanExec>() {
        return scan.owners();
    }
    let children = plan.children();
    if children.is_empty() {
        // Constants (`values`, an empty relation) are produced once.
        return vec![Owner::Rank(0); count];
    }
    if plan.is::<UnionExec>() {
        return children.into_iter().flat_map(placement).collect();
    }
    if plan.is::<RankSubqueryExec>() {
        return placement(children[0]);
    }
    // The last input of a join is the probe side, which the output follows.
    let owners = placement(children[children.len() - 1]);
    if owners.len() == count { owners } else { vec![owners.first().copied().unwrap_or(Owner::Rank(0)); count] }
}
