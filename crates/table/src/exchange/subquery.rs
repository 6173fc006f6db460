//! Scalar subqueries over ranks.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::physical_planning_context::ScalarSubqueryResults;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::scalar_subquery::ScalarSubqueryLink;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};

/// Passes its input through; the driver runs the subqueries as stages and sets their results before any exchange below the input starts,
/// since those run before this node's `execute` and would read results that are not there yet.
#[derive(Debug)]
pub(crate) struct RankSubqueryExec {
    pub input: Arc<dyn ExecutionPlan>,
    pub subqueries: Vec<ScalarSubqueryLink>,
    pub results: ScalarSubqueryResults,
}

impl DisplayAs for RankSubqueryExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RankSubqueryExec: {}", self.subqueries.len())
    }
}

impl ExecutionPlan for RankSubqueryExec {
    fn name(&self) -> &str {
        "RankSubqueryExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        std::iter::once(&self.input).chain(self.subqueries.iter().map(|subquery| &subquery.plan)).collect()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        (0..=self.subqueries.len()).map(|child| child == 0).collect()
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false; self.subqueries.len() + 1]
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
        let links = self.subqueries.iter().zip(children);
        let subqueries = links.map(|(link, plan)| ScalarSubqueryLink { plan, index: link.index }).collect();
        Ok(Arc::new(RankSubqueryExec { input, subqueries, results: self.results.clone() }))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.input.execute(partition, context)
    }
}
