//! Runs pipelines on a session.

use crate::observe::Observer;
use crate::options::RunOptions;
use crate::record::RunRecord;
use crate::spec::Pipeline;

/// Checks and runs pipelines side by side in one session. A pipeline with faults is rejected and a stage that fails stops what
/// depends on it; everything else goes on. Everything is told to `observer` and kept in `run.json`.
pub fn run(
    _pipelines: Vec<Pipeline>,
    _options: &RunOptions,
    _observer: &dyn Observer,
) -> RunRecord {
    unimplemented!()
}
