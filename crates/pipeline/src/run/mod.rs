//! Runs pipelines on a session.
//!
//! ```text
//!  Pipeline ─check─► Plan ─► Driver ──submit──► Session (pilot)
//!                              ▲  │ events ◄────────┘
//!                    markers ──┘  └─► Observer, RunRecord, stages/<task>.json
//! ```

mod directory;
mod driver;
mod failure;
mod ledger;
mod results;
mod tail;

use std::thread;

use deeprc_pilot::{Pool, Session, SessionOptions};

use self::directory::RunDirectory;
use self::driver::Driver;
use self::ledger::Ledger;
use crate::check::available;
use crate::diagnostic::{Diagnostic, Exit};
use crate::observe::{Observer, RunEvent};
use crate::options::RunOptions;
use crate::plan::{FORECAST, Plan, TABLE};
use crate::record::{RunError, RunRecord, RunStatus};
use crate::spec::{At, Kind, Pipeline};

/// Checks and runs pipelines side by side in one session. A pipeline with faults is rejected and a stage that fails stops what
/// depends on it; everything else goes on. Everything is told to `observer` and kept in `run.json`.
pub fn run(pipelines: Vec<Pipeline>, options: &RunOptions, observer: &dyn Observer) -> RunRecord {
    let mut ledger = Ledger::new(&pipelines, options);
    let directory = match RunDirectory::open(&options.dir, options.resume) {
        Ok(directory) => directory,
        Err(error) => {
            let message = format!("cannot use the run directory {}: {error}", options.dir.display());
            return ledger
                .stillborn(RunError { hint: Some("name another directory".into()), ..failure::plain(message, Exit::Resources) }, observer);
        }
    };
    // The session starts its ranks while the check reads the heads of the files.
    let (session, faults) = thread::scope(|scope| {
        let session = scope.spawn(|| Session::start(session_options(&pipelines, options, &directory)));
        let faults: Vec<Vec<Diagnostic>> = (0..pipelines.len()).map(|number| faults_of(number, &pipelines, options)).collect();
        (session.join(), faults)
    });
    let mut plan = Plan::default();
    for (pipeline, faults) in pipelines.iter().zip(&faults) {
        if faults.is_empty() {
            plan.add(pipeline, &options.executables);
        }
    }
    ledger.planned(&plan);
    let stages = plan.tasks.iter().map(|task| task.announce(&plan)).collect();
    observer.event(&RunEvent::RunStarted { dir: options.dir.clone(), stages });
    for (pipeline, faults) in pipelines.iter().zip(faults) {
        if !faults.is_empty() {
            ledger.rejected(pipeline.name(), &faults);
            observer.event(&RunEvent::PipelineRejected { pipeline: pipeline.name().to_owned(), diagnostics: faults });
        }
    }
    let session = match session {
        Ok(Ok(session)) => session,
        Ok(Err(error)) => return ledger.stillborn(failure::of_session(&error), observer),
        Err(panic) => std::panic::resume_unwind(panic),
    };
    let status = Driver::new(&plan, &session, &directory, options, observer, &mut ledger).drive();
    if let Err(error) = session.close() {
        ledger.record.errors.push(failure::of_session(&error));
    }
    ledger.end(status);
    observer.event(&RunEvent::RunEnded { status: ledger.record.status, seconds: ledger.record.seconds });
    ledger.record
}

/// What the check finds, and whether an earlier pipeline has the same name: its files in the run directory would be the same.
fn faults_of(number: usize, pipelines: &[Pipeline], options: &RunOptions) -> Vec<Diagnostic> {
    let pipeline = &pipelines[number];
    match pipelines[..number].iter().find(|other| other.name() == pipeline.name()) {
        Some(other) => {
            let message = format!("{} in this run is called `{}` too", other.file().display(), pipeline.name());
            vec![pipeline.source.fault(
                &At::File(0, 0),
                message,
                Some("give one of them another name, for example with `--set name=other`".to_owned()),
            )]
        }
        None => pipeline.check(options),
    }
}

fn session_options(pipelines: &[Pipeline], options: &RunOptions, directory: &RunDirectory) -> SessionOptions {
    let machine = available(options);
    let deeprc = options.executables.deeprc.display().to_string();
    let forecast = options.executables.forecast.display().to_string();
    let ranks = |wanted: fn(&Kind) -> u32| {
        let stages = pipelines.iter().flat_map(|pipeline| pipeline.stages.values());
        stages.map(|stage| stage.needs.ranks.value * wanted(&stage.kind)).sum::<u32>().min(machine.cores) as usize
    };
    let learns = |kind: &Kind| match kind {
        Kind::Train(train) => train.cells.iter().map(|cell| cell.search.as_ref().map_or(1, |(search, _)| search.parallel as u32)).sum(),
        Kind::Predict(_) => 1,
        _ => 0,
    };
    let works = |kind: &Kind| u32::from(!matches!(kind, Kind::Train(_) | Kind::Predict(_) | Kind::Program(_)));
    let mut session = SessionOptions::new(directory.session(), [deeprc.clone(), "agent".into()]);
    session.pools.push(Pool::new(TABLE, [deeprc, "rank".into()]).warm(ranks(works)));
    if ranks(learns) > 0 && options.executables.forecast.is_file() {
        let mut pool = Pool::new(FORECAST, [forecast, "rank".into()]).warm(ranks(learns));
        // OpenMP's threads wait for each other by spinning unless told otherwise: with two threads on two busy cores, training ran
        // 7 to 17 times slower than with sleeping ones. A short spin before sleeping gave NHITS on two free cores about 8 % more
        // steps per second (two readings each); two runs side by side on two cores did not collapse, no finer cost was measured.
        pool.env.insert("OMP_WAIT_POLICY".into(), "passive".into());
        pool.env.insert("GOMP_SPINCOUNT".into(), "20000".into());
        session.pools.push(pool);
    }
    session.resources = Some(machine);
    session
}

/// How a run ends whose stages all came to an end.
fn status_of(record: &RunRecord) -> RunStatus {
    if record.errors.is_empty() { RunStatus::Done } else { RunStatus::Failed }
}
