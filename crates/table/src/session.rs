//! The query planner, set up so that every rank plans the same and no plan hangs.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList, MemorySchemaProvider, SchemaProvider,
    TableProvider,
};
use datafusion::error::DataFusionError;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionConfig;

use crate::error::near_names;
use crate::exchange::rule::rules;
use crate::scan::{RankTable, World};
use crate::{Error, Result, rolling};

/// A planner for tables over `world`. Made once, it plans any number of queries.
pub(crate) fn planner(world: World) -> SessionState {
    let mut config = SessionConfig::new().with_target_partitions(world.partitions()).with_information_schema(false);
    let options = config.options_mut();
    // A join's dynamic filter waits until all partitions have reported their build side; a rank runs only some: this would hang.
    options.optimizer.enable_join_dynamic_filter_pushdown = false;
    // The others filter by what other threads have seen so far, so that which of several equal rows survives a LIMIT depends on timing.
    options.optimizer.enable_topk_dynamic_filter_pushdown = false;
    options.optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    options.optimizer.enable_dynamic_filter_pushdown = false;
    // Rows in turn to all partitions balance threads, at the cost of an exchange.
    options.optimizer.enable_round_robin_repartition = false;
    // An interleaved union starts with a random input.
    options.optimizer.prefer_existing_union = true;
    options.optimizer.prefer_existing_sort = false;
    // Column names of data sets are often in capitals; `HUFL` should not need quotes.
    options.sql_parser.enable_ident_normalization = false;
    options.sql_parser.map_string_types_to_utf8view = false;
    let mut builder = SessionStateBuilder::new()
        .with_config(config)
        .with_default_features()
        .with_catalog_list(Arc::new(MemoryCatalogProviderList::new()))
        .with_physical_optimizer_rules(rules(world));
    builder.window_functions().get_or_insert_default().extend(rolling::functions());
    builder.build()
}

/// A planner for one query, that knows its tables and when it started.
pub(crate) fn for_query(planner: &SessionState, started: DateTime<Utc>, tables: Vec<Arc<RankTable>>) -> Result<SessionState> {
    let mut state = planner.clone();
    // Start time and alias numbers are those of this query, not of the process: they get into the plan.
    let options = state.config_options().clone();
    let properties = state.execution_props_mut();
    properties.mark_start_execution(options);
    properties.query_execution_start_time = Some(started);
    let (list, catalog, names) = (MemoryCatalogProviderList::new(), MemoryCatalogProvider::new(), MemorySchemaProvider::new());
    for table in tables {
        let name = table.name.clone();
        if names.register_table(name.clone(), table as Arc<dyn TableProvider>)?.is_some() {
            return Err(Error::Argument { message: format!("two tables are called \"{name}\""), hint: None });
        }
    }
    catalog.register_schema("public", Arc::new(names))?;
    list.register_catalog("datafusion".to_string(), Arc::new(catalog));
    state.register_catalog_list(Arc::new(list));
    Ok(state)
}

/// The physical plan of a query.
pub(crate) async fn plan(state: &SessionState, query: &str, tables: &[&str]) -> Result<Arc<dyn ExecutionPlan>> {
    let named = |error: DataFusionError| match Error::from(error) {
        Error::UnknownTable { table, .. } => {
            let hint = near_names(&table, tables.iter().copied(), "tables");
            Error::UnknownTable { table, hint }
        }
        other => other,
    };
    let logical = state.create_logical_plan(query).await.map_err(named)?;
    if matches!(logical, LogicalPlan::Ddl(_) | LogicalPlan::Dml(_) | LogicalPlan::Copy(_) | LogicalPlan::Statement(_)) {
        let message = "only queries can be run, not statements that change something".to_string();
        return Err(Error::Argument { message, hint: Some("begin the SQL with `select` or `with`".to_string()) });
    }
    state.create_physical_plan(&logical).await.map_err(named)
}

/// The schema that tables have: without metadata, and with the types that [`plain_type`] names.
pub(crate) fn plain_schema(schema: &Schema) -> SchemaRef {
    let plain = |field: &Arc<Field>| Field::new(field.name(), plain_type(field.data_type()), true);
    Arc::new(Schema::new(schema.fields().iter().map(plain).collect::<Vec<_>>()))
}

/// One type for each kind of thing: text is `Utf8`, bytes are `Binary`, time stamps have no zone (they are UTC), dictionaries are unpacked.
fn plain_type(data_type: &datafusion::arrow::datatypes::DataType) -> datafusion::arrow::datatypes::DataType {
    use datafusion::arrow::datatypes::DataType;
    match data_type {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        DataType::Timestamp(unit, Some(_)) => DataType::Timestamp(*unit, None),
        DataType::Dictionary(_, values) => plain_type(values),
        other => other.clone(),
    }
}
