//! The two physical optimizer rules that make a DataFusion plan a plan over ranks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{JoinType, Result};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::{
    CrossJoinExec, HashJoinExec, NestedLoopJoinExec, PartitionMode, PiecewiseMergeJoinExec, SortMergeJoinExec,
};
use datafusion::physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::scalar_subquery::{ScalarSubqueryExec, ScalarSubqueryLink};
use datafusion::physical_plan::sorts::partial_sort::PartialSortExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::unnest::UnnestExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};

use super::{ExchangeExec, Owner, RankSubqueryExec, Scheme, placement};
use crate::scan::{RankScanExec, World};

type Plan = Arc<dyn ExecutionPlan>;

/// DataFusion's rules with ours in between: [`LegalJoins`] right after the join sides are chosen, [`OverRanks`] before filters are pushed
/// down for the last time (so that no filter crosses an exchange) and before the sanity check, which then proves our work.
pub(crate) fn rules(world: World) -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let mut rules = PhysicalOptimizer::new().rules;
    let last = rules.len() - 2;
    debug_assert_eq!(rules[last + 1].name(), "SanityCheckPlan");
    rules.insert(last, Arc::new(OverRanks { world }));
    let joins = rules.iter().position(|rule| rule.name() == "join_selection").map_or(0, |place| place + 1);
    rules.insert(joins, Arc::new(LegalJoins));
    rules
}

/// Join types that emit unmatched rows of the left (build) side once *all* probe partitions are done, which no single rank can know.
fn finishes_left(join: JoinType) -> bool {
    matches!(join, JoinType::Left | JoinType::LeftAnti | JoinType::LeftSemi | JoinType::LeftMark | JoinType::Full)
}

fn with_children(plan: &Plan, children: Vec<Plan>) -> Result<Plan> {
    plan.clone().replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
}

/// A build side sent to all ranks must not emit unmatched rows: such joins are partitioned by key instead.
#[derive(Debug)]
struct LegalJoins;

impl PhysicalOptimizerRule for LegalJoins {
    fn name(&self) -> &str {
        "legal_joins"
    }

    fn schema_check(&self) -> bool {
        true
    }

    fn optimize(&self, plan: Plan, _: &ConfigOptions) -> Result<Plan> {
        let partitioned = |plan: Plan| match plan.downcast_ref::<HashJoinExec>() {
            Some(join)
                if *join.partition_mode() == PartitionMode::CollectLeft
                    && finishes_left(*join.join_type())
                    && !join.null_aware
                    && !join.on().is_empty() =>
            {
                Ok(Transformed::yes(join.builder().with_partition_mode(PartitionMode::Partitioned).build_exec()?))
            }
            _ => Ok(Transformed::no(plan)),
        };
        plan.transform_up(partitioned).data()
    }
}

/// Replaces every node that moves rows by an [`ExchangeExec`].
#[derive(Debug)]
struct OverRanks {
    world: World,
}

impl PhysicalOptimizerRule for OverRanks {
    fn name(&self) -> &str {
        "over_ranks"
    }

    fn schema_check(&self) -> bool {
        true
    }

    fn optimize(&self, plan: Plan, _: &ConfigOptions) -> Result<Plan> {
        Rewrite { world: self.world, next: AtomicU32::new(0) }.root(plan)
    }
}

/// What a node needs from the ranks. Nodes that are not listed here run on rank 0 (see [`Rewrite::on_rank_0`]): slow, but right.
enum Need {
    /// Nothing: each output partition is made from the input partition with the same number.
    Nothing,
    /// Rows by key or in turn, on all ranks.
    Split,
    /// All input partitions in one place, merged or one after the other.
    Together,
    /// The left input whole, wherever a partition of the right input is.
    LeftEverywhere(JoinType),
    /// Partition `i` of all inputs in one place.
    SamePlace,
    /// Its subqueries run first.
    SubqueriesFirst,
    /// Not known to us.
    Unknown,
}

fn need(plan: &Plan) -> Need {
    if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
        return match join.partition_mode() {
            PartitionMode::CollectLeft => Need::LeftEverywhere(*join.join_type()),
            PartitionMode::Partitioned => Need::SamePlace,
            PartitionMode::Auto => Need::Unknown,
        };
    }
    if let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>() {
        return Need::LeftEverywhere(*join.join_type());
    }
    if let Some(join) = plan.downcast_ref::<PiecewiseMergeJoinExec>() {
        return Need::LeftEverywhere(join.join_type());
    }
    if plan.is::<CrossJoinExec>() {
        return Need::LeftEverywhere(JoinType::Inner);
    }
    if plan.is::<SortMergeJoinExec>() {
        return Need::SamePlace;
    }
    if let Some(repartition) = plan.downcast_ref::<RepartitionExec>() {
        return if repartition.preserve_order() { Need::Unknown } else { Need::Split };
    }
    if plan.is::<CoalescePartitionsExec>() || plan.is::<SortPreservingMergeExec>() {
        return Need::Together;
    }
    if plan.is::<ScalarSubqueryExec>() {
        return Need::SubqueriesFirst;
    }
    let partition_wise = plan.children().is_empty()
        || plan.is::<AggregateExec>()
        || plan.is::<BoundedWindowAggExec>()
        || plan.is::<CooperativeExec>()
        || plan.is::<FilterExec>()
        || plan.is::<GlobalLimitExec>()
        || plan.is::<LocalLimitExec>()
        || plan.is::<PartialSortExec>()
        || plan.is::<ProjectionExec>()
        || plan.is::<SortExec>()
        || plan.is::<UnionExec>()
        || plan.is::<UnnestExec>()
        || plan.is::<WindowAggExec>();
    if partition_wise { Need::Nothing } else { Need::Unknown }
}

/// Whether the partition that happens to end last emits rows for all: the unmatched rows of a left side that several partitions
/// share. Looks at one stage, so not below exchanges.
pub(crate) fn last_partition_finishes(plan: &Plan) -> bool {
    if plan.is::<ExchangeExec>() {
        return false;
    }
    matches!(need(plan), Need::LeftEverywhere(join) if finishes_left(join)) || plan.children().into_iter().any(last_partition_finishes)
}

struct Rewrite {
    world: World,
    next: AtomicU32,
}

impl Rewrite {
    fn exchange(&self, input: Plan, scheme: Scheme, to: Vec<Owner>) -> ExchangeExec {
        let from = placement(&input);
        ExchangeExec::new(self.next.fetch_add(1, Ordering::Relaxed), input, scheme, from, to, self.world.rank)
    }

    /// The same partitions at other places.
    fn moved(&self, input: Plan, to: Vec<Owner>) -> Plan {
        if placement(&input) == to { input } else { Arc::new(self.exchange(input, Scheme::Move, to)) }
    }

    fn moved_to(&self, input: Plan, owner: Owner) -> Plan {
        let count = input.output_partitioning().partition_count();
        self.moved(input, vec![owner; count])
    }

    /// A single-partition input on every rank. A gather below is not done twice: its exchange sends to all at once.
    fn everywhere(&self, input: Plan) -> Plan {
        match input.downcast_ref::<ExchangeExec>() {
            Some(gather) if matches!(gather.scheme, Scheme::Concat) => {
                let (from, to) = (gather.from.clone(), vec![Owner::All]);
                Arc::new(ExchangeExec::new(gather.id, gather.input.clone(), Scheme::Concat, from, to, self.world.rank))
            }
            _ => self.moved_to(input, Owner::All),
        }
    }

    /// The root: a result stays on the ranks, so what gathers it there is left out, and a total order becomes a range exchange.
    fn root(&self, plan: Plan) -> Result<Plan> {
        if let Some(coalesce) = plan.downcast_ref::<CoalescePartitionsExec>()
            && coalesce.fetch().is_none()
        {
            return self.root(coalesce.input().clone());
        }
        if let Some(merge) = plan.downcast_ref::<SortPreservingMergeExec>()
            && merge.fetch().is_none()
        {
            let input = match merge.input().downcast_ref::<SortExec>() {
                Some(sort) if sort.fetch().is_none() => sort.input(),
                _ => merge.input(),
            };
            let count = self.world.partitions();
            let scheme = Scheme::Range(merge.expr().clone(), count);
            let exchange = Arc::new(self.exchange(self.rewritten(input.clone())?, scheme, self.world.spread(count)));
            return Ok(Arc::new(SortExec::new(merge.expr().clone(), exchange).with_preserve_partitioning(true)));
        }
        if plan.is::<ProjectionExec>() || plan.is::<CooperativeExec>() {
            let input = self.root(plan.children()[0].clone())?;
            return with_children(&plan, vec![input]);
        }
        if let Some(subquery) = plan.downcast_ref::<ScalarSubqueryExec>() {
            return self.subqueries_first(subquery, |input| self.root(input));
        }
        self.rewritten(plan)
    }

    fn rewritten(&self, plan: Plan) -> Result<Plan> {
        let need = need(&plan);
        if let Need::Unknown = need {
            return self.on_rank_0(plan);
        }
        if let Some(subquery) = plan.downcast_ref::<ScalarSubqueryExec>() {
            return self.subqueries_first(subquery, |input| self.rewritten(input));
        }
        let children = plan.children().into_iter().map(|child| self.rewritten(child.clone())).collect::<Result<Vec<_>>>()?;
        match need {
            Need::Nothing if children.is_empty() => Ok(plan),
            Need::Nothing | Need::Unknown | Need::SubqueriesFirst => with_children(&plan, children),
            Need::Split => {
                let partitioning = plan.output_partitioning().clone();
                let to = self.world.spread(partitioning.partition_count());
                Ok(Arc::new(self.exchange(first(children), Scheme::Split(partitioning), to)))
            }
            Need::Together => self.together(&plan, first(children)),
            Need::LeftEverywhere(join) => {
                let [left, right] = pair(children)?;
                let inputs = if finishes_left(join) {
                    vec![self.moved_to(left, Owner::Rank(0)), self.moved_to(right, Owner::Rank(0))]
                } else {
                    vec![self.everywhere(left), right]
                };
                with_children(&plan, inputs)
            }
            Need::SamePlace => {
                let [left, right] = pair(children)?;
                let to = placement(&right);
                if placement(&left).len() != to.len() {
                    return self.on_rank_0(plan);
                }
                with_children(&plan, vec![self.moved(left, to), right])
            }
        }
    }

    fn together(&self, plan: &Plan, input: Plan) -> Result<Plan> {
        if let Some(merge) = plan.downcast_ref::<SortPreservingMergeExec>() {
            let input = self.moved_to(input, Owner::Rank(0));
            let merged = SortPreservingMergeExec::new(merge.expr().clone(), input).with_fetch(merge.fetch());
            // Its default breaks ties in turn, by who was polled how often: the order of equal rows would depend on timing.
            return Ok(Arc::new(merged.with_round_robin_repartition(false)));
        }
        let gathered: Plan = Arc::new(self.exchange(input, Scheme::Concat, vec![Owner::Rank(0)]));
        Ok(match plan.fetch() {
            Some(fetch) => Arc::new(GlobalLimitExec::new(gathered, 0, Some(fetch))),
            None => gathered,
        })
    }

    fn subqueries_first(&self, plan: &ScalarSubqueryExec, below: impl Fn(Plan) -> Result<Plan>) -> Result<Plan> {
        let links = plan.subqueries().iter().map(|link| {
            let mut subquery = self.rewritten(link.plan.clone())?;
            if subquery.output_partitioning().partition_count() > 1 {
                subquery = Arc::new(self.exchange(subquery, Scheme::Concat, vec![Owner::Rank(0)]));
            }
            Ok(ScalarSubqueryLink { plan: self.everywhere(subquery), index: link.index })
        });
        let subqueries = links.collect::<Result<Vec<_>>>()?;
        Ok(Arc::new(RankSubqueryExec { input: below(plan.input().clone())?, subqueries, results: plan.results().clone() }))
    }

    /// The fallback for nodes that we do not know (recursive queries, say): their tables come to rank 0 and DataFusion's plan runs there
    /// unchanged. The exchanges can be read again, as a recursion does.
    fn on_rank_0(&self, plan: Plan) -> Result<Plan> {
        let gathered = |node: Plan| {
            if !node.is::<RankScanExec>() {
                return Ok(Transformed::no(node));
            }
            let to = vec![Owner::Rank(0); node.output_partitioning().partition_count()];
            Ok(Transformed::yes(Arc::new(self.exchange(node, Scheme::Move, to).with_replay()) as Plan))
        };
        plan.transform_up(gathered).data()
    }
}

fn first(mut children: Vec<Plan>) -> Plan {
    children.swap_remove(0)
}

fn pair(children: Vec<Plan>) -> Result<[Plan; 2]> {
    children.try_into().map_err(|_| datafusion::common::internal_datafusion_err!("a join without two inputs"))
}
