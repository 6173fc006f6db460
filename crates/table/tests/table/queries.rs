//! The query list, over all numbers of ranks and threads.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};
use deeprc_table::{Context, Result, Table};

use crate::ranks::{all_rows, dealt, ranks, rows, sorted};

/// A small generator of numbers that are the same everywhere (xorshift64, Marsaglia 2003).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }

    fn ints(&mut self, rows: usize, end: u64, nulls: u64) -> ArrayRef {
        let cell = |_| if self.below(100) < nulls { None } else { Some(self.below(end) as i64) };
        Arc::new((0..rows).map(cell).collect::<Int64Array>())
    }

    fn words(&mut self, rows: usize, end: u64) -> ArrayRef {
        let cell = |_| if self.below(100) < 7 { None } else { Some(format!("s{:03}", self.below(end))) };
        Arc::new((0..rows).map(cell).collect::<StringArray>())
    }
}

/// f and h: facts with nulls in every column but id; d: a dimension; e: empty; s1: one key only; nn: no nulls.
fn tables() -> Vec<(&'static str, Vec<RecordBatch>)> {
    let (f, h, d, keys) = (4000, 3000, 300, 450);
    let mut n = Numbers(88_172_645_463_325_252);
    let id = |rows: usize| Arc::new(Int64Array::from_iter_values(0..rows as i64)) as ArrayRef;
    let table = |columns: Vec<(&str, ArrayRef)>| {
        let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, cells)| (name, cells, true))).unwrap();
        let starts = (0..batch.num_rows().max(1)).step_by(100);
        starts.map(|start| batch.slice(start, 100.min(batch.num_rows() - start))).collect()
    };
    vec![
        (
            "f",
            table(vec![
                ("id", id(f)),
                ("k", n.ints(f, keys, 5)),
                ("g", n.words(f, 40)),
                ("v", n.ints(f, 1000, 10)),
                ("x", n.ints(f, 100_000, 0)),
            ]),
        ),
        ("h", table(vec![("id", id(h)), ("k", n.ints(h, keys, 5)), ("u", n.ints(h, 1000, 10))])),
        ("d", table(vec![("k", n.ints(d, d as u64, 5)), ("name", n.words(d, 100)), ("w", n.ints(d, 50, 5))])),
        ("e", table(vec![("k", n.ints(0, 9, 0)), ("y", n.ints(0, 9, 0))])),
        ("s1", table(vec![("id", id(2000)), ("one", n.ints(2000, 1, 0)), ("v", n.ints(2000, 100, 5))])),
        ("nn", table(vec![("k", n.ints(40, 30, 0))])),
    ]
}

struct Query {
    compare: &'static str,
    name: &'static str,
    sql: &'static str,
}

fn queries() -> Vec<Query> {
    let blocks = include_str!("queries.sql").split("\n\n").filter(|block| block.contains(';'));
    let query = |block: &'static str| {
        let (head, sql) = block.trim().strip_prefix("-- ").unwrap().split_once('\n').unwrap();
        let (compare, name) = head.split_once(": ").unwrap();
        Query { compare, name, sql: sql.trim_end_matches(';') }
    };
    blocks.map(query).collect()
}

/// DataFusion by itself.
fn expected(queries: &[Query]) -> Vec<Option<Vec<String>>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
    for (name, batches) in tables() {
        let table = MemTable::try_new(batches[0].schema(), vec![batches]).unwrap();
        context.register_table(name, Arc::new(table)).unwrap();
    }
    let run = |query: &Query| runtime.block_on(async { context.sql(query.sql).await?.collect().await });
    queries.iter().map(|query| run(query).ok().map(|batches| rows(&batches))).collect()
}

fn on_ranks(context: &Context, queries: &[Query]) -> Vec<Result<Table>> {
    let share = |batches: &[RecordBatch]| dealt(batches, context.comm().size(), context.comm().rank());
    let tables: Vec<(&str, Table)> =
        tables().into_iter().map(|(name, batches)| (name, context.from_batches(batches[0].schema(), share(&batches)).unwrap())).collect();
    let named: Vec<(&str, &Table)> = tables.iter().map(|(name, table)| (*name, table)).collect();
    queries.iter().map(|query| context.sql(query.sql, &named)).collect()
}

/// Compares one query's tables (by rank) with what DataFusion said.
fn check(query: &Query, results: Vec<&Result<Table>>, expected: &Option<Vec<String>>) -> Result<(), String> {
    let failed = results.iter().filter(|result| result.is_err()).count();
    let Some(expected) = expected else {
        return if failed == results.len() { Ok(()) } else { Err(format!("fails on {failed} ranks")) };
    };
    if let Some(Err(error)) = results.iter().find(|result| result.is_err()) {
        return Err(error.to_string());
    }
    let tables: Vec<Table> = results.into_iter().filter_map(|result| result.as_ref().ok().cloned()).collect();
    let rows = all_rows(&tables);
    let equal = match query.compare {
        "rows" => sorted(rows.clone()) == sorted(expected.clone()),
        "order" => rows == *expected,
        _ => rows.len() == expected.len(),
    };
    if equal { Ok(()) } else { Err(format!("{} rows, DataFusion has {}, or other ones", rows.len(), expected.len())) }
}

fn check_shape(size: usize, threads: usize) {
    let queries = queries();
    let expected = expected(&queries);
    let by_rank = ranks(size, threads, |context| on_ranks(&context, &queries));
    let mut wrong = Vec::new();
    for (place, query) in queries.iter().enumerate() {
        assert_eq!(query.compare == "error", expected[place].is_none(), "{}", query.name);
        if let Err(reason) = check(query, by_rank.iter().map(|results| &results[place]).collect(), &expected[place]) {
            wrong.push(format!("{}: {reason}", query.name));
        }
    }
    assert!(wrong.is_empty(), "{size} ranks, {threads} threads:\n{}", wrong.join("\n"));
}

#[test]
fn one_rank() {
    check_shape(1, 1);
    check_shape(1, 2);
}

#[test]
fn two_ranks() {
    check_shape(2, 1);
    check_shape(2, 2);
}

#[test]
fn three_ranks() {
    check_shape(3, 1);
    check_shape(3, 2);
}

#[test]
fn four_ranks() {
    check_shape(4, 1);
    check_shape(4, 2);
}

#[test]
fn the_same_rows_in_the_same_order_every_time() {
    let queries: Vec<Query> =
        queries().into_iter().filter(|query| query.compare != "error" && !query.name.starts_with("recursive")).collect();
    let queries: Vec<Query> = queries.into_iter().filter(|query| !query.sql.contains("now()")).collect();
    let run = || {
        let by_rank = ranks(2, 2, |context| on_ranks(&context, &queries));
        let text = |result: &Result<Table>| rows(result.as_ref().unwrap().batches());
        by_rank.iter().map(|results| results.iter().map(text).collect::<Vec<_>>()).collect::<Vec<_>>()
    };
    let first = run();
    for _ in 0..3 {
        for (rank, results) in run().into_iter().enumerate() {
            for (place, rows) in results.into_iter().enumerate() {
                assert_eq!(rows, first[rank][place], "rank {rank}: {}", queries[place].name);
            }
        }
    }
}

#[test]
fn now_is_the_same_on_all_ranks() {
    let by_rank = ranks(3, 1, |context| {
        let table = context.sql("select 1 as a union all select 2 union all select 3", &[]).unwrap().sort(&["a".into()]).unwrap();
        table.with_columns(&[("at", "now()")]).unwrap().group_by(&["at"], &[]).unwrap()
    });
    assert_eq!(by_rank[0].num_rows(), 1);
}
