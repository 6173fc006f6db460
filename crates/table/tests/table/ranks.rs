//! Ranks as threads, and tables as text.

use std::time::Duration;

use deeprc_comm::Communicator;
use deeprc_table::arrow::array::RecordBatch;
use deeprc_table::arrow::util::display::{ArrayFormatter, FormatOptions};
use deeprc_table::{Context, Table};
use proptest::prelude::ProptestConfig;
use proptest::test_runner::RngSeed;

/// A wait that ends the test rather than hanging it.
const DEADLINE: Duration = Duration::from_secs(60);

/// Runs `work` on every rank; the results by rank.
pub fn ranks<T: Send>(size: usize, threads: usize, work: impl Fn(Context) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let ranks: Vec<_> = Communicator::threads(size)
            .into_iter()
            .map(|comm| {
                let work = &work;
                scope.spawn(move || work(Context::new(comm.with_timeout(DEADLINE), threads).unwrap()))
            })
            .collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

/// The rows of one rank as text.
pub fn rows(batches: &[RecordBatch]) -> Vec<String> {
    let options = FormatOptions::new().with_null("NULL");
    let mut rows = Vec::new();
    for batch in batches {
        let columns: Vec<_> = batch.columns().iter().map(|c| ArrayFormatter::try_new(c.as_ref(), &options).unwrap()).collect();
        for row in 0..batch.num_rows() {
            let cells: Vec<String> = columns.iter().map(|column| column.value(row).to_string()).collect();
            rows.push(cells.join("|"));
        }
    }
    rows
}

/// The rows of all ranks, in rank order. Checks that the table knows how many they are, and that every rank says the same.
pub fn all_rows(tables: &[Table]) -> Vec<String> {
    let rows: Vec<String> = tables.iter().flat_map(|table| rows(table.batches())).collect();
    for table in tables {
        assert_eq!((table.num_rows(), table.schema()), (rows.len() as u64, tables[0].schema()));
        assert!(table.batches().iter().all(|batch| batch.schema() == table.schema()));
    }
    rows
}

pub fn sorted(mut rows: Vec<String>) -> Vec<String> {
    rows.sort();
    rows
}

/// Cuts batches over `ranks` ranks in turn; with more than one rank the second one gets nothing.
pub fn dealt(batches: &[RecordBatch], ranks: usize, rank: usize) -> Vec<RecordBatch> {
    let takers: Vec<usize> = (0..ranks).filter(|rank| ranks == 1 || *rank != 1).collect();
    let own = batches.iter().enumerate().filter(|(place, _)| takers[place % takers.len()] == rank);
    own.map(|(_, batch)| batch.clone()).collect()
}

/// How property tests run: the same cases every time, others with `PROPTEST_RNG_SEED`.
pub fn some_cases() -> ProptestConfig {
    let mut config = ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() };
    if config.rng_seed == RngSeed::Random {
        config.rng_seed = RngSeed::Fixed(2016);
    }
    config
}
