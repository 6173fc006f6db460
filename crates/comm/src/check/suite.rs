//! The list of checks, and how the ranks run them together.

use std::{
    fmt,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{Failure, collectives, endings, groups, messages, numbers};
use crate::{Communicator, Result};

/// One named property of a communicator. All ranks run the same checks in the same order.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    /// What has to hold, in a few words.
    pub name: &'static str,
    body: Body,
}

#[derive(Debug, Clone, Copy)]
enum Body {
    /// Leaves the communicator as it was.
    Harmless(fn(&Communicator) -> Result<(), Failure>),
    /// Nobody can use the communicator afterwards: it is aborted, or a rank has left. What is returned is held until
    /// every rank is done.
    Ending(fn(Communicator) -> Result<Option<Communicator>, Failure>),
}

impl Check {
    const fn harmless(name: &'static str, body: fn(&Communicator) -> Result<(), Failure>) -> Self {
        Check { name, body: Body::Harmless(body) }
    }

    const fn ending(name: &'static str, body: fn(Communicator) -> Result<Option<Communicator>, Failure>) -> Self {
        Check { name, body: Body::Ending(body) }
    }

    /// True if the check ends its communicator, so that it needs one of its own.
    pub fn ends(&self) -> bool {
        matches!(self.body, Body::Ending(_))
    }
}

/// All checks, in the order they are run.
pub fn checks() -> &'static [Check] {
    CHECKS
}

const CHECKS: &[Check] = &[
    Check::harmless("ranks are numbered", messages::ranks),
    Check::harmless("tags in any order", messages::tags),
    Check::harmless("order within a tag", messages::order),
    Check::harmless("empty and uneven messages", messages::uneven),
    Check::harmless("all send before they receive", messages::send_first),
    Check::harmless("barrier", collectives::barrier),
    Check::harmless("broadcast", collectives::broadcast),
    Check::harmless("gather, allgather", collectives::gather),
    Check::harmless("scatter", collectives::scatter),
    Check::harmless("all_to_all", collectives::all_to_all),
    Check::harmless("all_to_all, random shapes", collectives::random_shapes),
    Check::harmless("allreduce, integers", numbers::integers),
    Check::harmless("allreduce, floats", numbers::floats),
    Check::harmless("reduce, reduce_scatter", numbers::parts),
    Check::harmless("same bits everywhere and every time", numbers::same_bits),
    Check::harmless("split", groups::split),
    Check::harmless("communicators do not mix", groups::apart),
    Check::harmless("splits at the same time", groups::at_the_same_time),
    Check::harmless("threads of a rank take turns", groups::turns),
    Check::harmless("wrong arguments harm nobody", endings::wrong_arguments),
    Check::harmless("deadline", endings::deadline),
    Check::harmless("a token calls a wait off", endings::cancel),
    Check::ending("mismatch: another collective", endings::other_collective),
    Check::ending("mismatch: another root", endings::other_root),
    Check::ending("mismatch: another type", endings::other_type),
    Check::ending("mismatch: another operation", endings::other_operation),
    Check::ending("mismatch: another length", endings::other_length),
    Check::ending("mismatch: another count", endings::other_count),
    Check::ending("abort wakes everybody", endings::abort),
    Check::ending("who leaves is missed", endings::leave),
];

/// How a check came out, for all ranks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It holds on every rank.
    Passed,
    /// What the rank that failed said, or what another one noticed of that.
    Failed(String),
    /// A check before it failed so that the communicator could not be used any more.
    NotRun,
}

impl Verdict {
    /// True if it holds on every rank.
    pub fn passed(&self) -> bool {
        *self == Verdict::Passed
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Passed => f.write_str("passed"),
            Verdict::Failed(reason) => write!(f, "failed: {reason}"),
            Verdict::NotRun => f.write_str("not run"),
        }
    }
}

/// A check that was run, or not.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The name of the check.
    pub name: &'static str,
    /// How it came out.
    pub verdict: Verdict,
    /// How long this rank took.
    pub took: Duration,
}

/// Runs all checks; every rank of `comm` calls it and gets an outcome for each check. `open` makes a new communicator of
/// the same ranks for a check that [`ends`](Check::ends) it, under a name such as `check-19`, the same on all ranks. `report`
/// hears of every outcome at once.
///
/// Nothing waits longer than the deadline of the communicators; a rank on which a check fails aborts the others with the
/// reason, so that all report it.
pub fn run(comm: &Communicator, mut open: impl FnMut(&str) -> Result<Communicator>, mut report: impl FnMut(&Outcome)) -> Vec<Outcome> {
    let mut usable = true;
    let mut outcomes = Vec::with_capacity(checks().len());
    for (number, check) in checks().iter().enumerate() {
        let started = Instant::now();
        let verdict = if !usable {
            Verdict::NotRun
        } else {
            match check.body {
                Body::Harmless(body) => harmless(comm, check.name, body),
                Body::Ending(body) => ending(comm, || open(&format!("check-{number}")), body),
            }
        };
        // The communicator of an ending check is not the one that the others need.
        usable = usable && comm.healthy().is_ok();
        let outcome = Outcome { name: check.name, verdict, took: started.elapsed() };
        report(&outcome);
        outcomes.push(outcome);
    }
    outcomes
}

fn harmless(comm: &Communicator, name: &str, body: fn(&Communicator) -> Result<(), Failure>) -> Verdict {
    // The barrier makes a failure on one rank the failure of this check on all of them.
    let result = body(comm).and_then(|()| Ok(comm.barrier()?));
    let Err(failure) = result else { return Verdict::Passed };
    // A call that failed may have been told so by the rank where it began; the first reason stays.
    comm.abort(&format!("check `{name}` failed: {failure}"));
    // From here on this rank, too, knows that the communicator is of no use.
    let _ = comm.barrier();
    Verdict::Failed(failure.to_string())
}

fn ending(
    comm: &Communicator,
    open: impl FnOnce() -> Result<Communicator>,
    body: fn(Communicator) -> Result<Option<Communicator>, Failure>,
) -> Verdict {
    let own = open();
    // Where opening takes several steps, a rank that is through would end what others are still opening.
    if let Err(error) = comm.barrier() {
        return Verdict::Failed(error.to_string());
    }
    let result = own.map_err(Failure::from).and_then(body);
    let mine = result.as_ref().err().map(ToString::to_string).unwrap_or_default();
    // `result` holds this rank's end of the new communicator until all have said how it went.
    match comm.allgather(Bytes::from(mine)) {
        Err(error) => Verdict::Failed(error.to_string()),
        Ok(all) => match all.iter().find(|failure| !failure.is_empty()) {
            Some(failure) => Verdict::Failed(String::from_utf8_lossy(failure).into_owned()),
            None => Verdict::Passed,
        },
    }
}
