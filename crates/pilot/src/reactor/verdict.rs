//! How an attempt came out, and what follows from it.

use std::time::Duration;

use serde_json::Value;

use super::Effect;
use crate::{
    Cause, Event, Failure, Outcome, TaskId, TaskKind, TaskReport, TaskTimes,
    core::{Core, Rank, RankEnded, Run, Task, Why},
    wire::RankEnd,
};

/// All ranks have ended and the slots are free: reports the attempt, and queues the task again if it may.
pub(super) fn conclude(core: &mut Core, id: TaskId, now: Duration, fx: &mut Vec<Effect>) {
    let Some(mut task) = core.tasks.remove(&id) else { return };
    let Some(run) = task.run.take() else { return };
    let outcome = outcome(&run);
    let again = matches!(outcome, Outcome::Failed(_)) && task.attempt <= task.description.retries;
    let report = Box::new(report(core, id, &task, Some(&run), outcome, now));
    if !again {
        fx.push(Effect::Record(Event::Ended { report }));
        return;
    }
    fx.push(Effect::Record(Event::Retried { report }));
    task.attempt += 1;
    task.queued = now;
    core.queue.insert(task.turn(id));
    core.tasks.insert(id, task);
}

/// Cancels a task without waiting for its ranks.
pub(super) fn drop_waiting(core: &mut Core, id: TaskId, now: Duration, fx: &mut Vec<Effect>) {
    end(core, id, Outcome::Canceled, now, fx);
}

/// Fails a task that no agent will ever run.
pub(super) fn give_up(core: &mut Core, id: TaskId, reason: &str, now: Duration, fx: &mut Vec<Effect>) {
    let failure = Failure { rank: None, cause: Cause::AgentLost, stderr_tail: reason.to_string() };
    end(core, id, Outcome::Failed(failure), now, fx);
}

fn end(core: &mut Core, id: TaskId, outcome: Outcome, now: Duration, fx: &mut Vec<Effect>) {
    let Some(task) = core.tasks.remove(&id) else { return };
    core.queue.remove(&task.turn(id));
    let report = Box::new(report(core, id, &task, task.run.as_ref(), outcome, now));
    fx.push(Effect::Record(Event::Ended { report }));
}

fn outcome(run: &Run) -> Outcome {
    let ends = || run.ranks.iter().enumerate().filter_map(|(rank, state)| Some((rank as u32, state.ended.as_ref()?)));
    let tail = |rank: Option<u32>| {
        let chosen = ends().find(|(number, ended)| rank.map_or(!ended.stderr_tail.is_empty(), |rank| rank == *number));
        chosen.map(|(_, ended)| ended.stderr_tail.clone()).unwrap_or_default()
    };
    let whole = |rank, cause| Outcome::Failed(Failure { rank, cause, stderr_tail: tail(rank) });
    match run.stop.map(|stop| stop.why) {
        Some(Why::Canceled) => return Outcome::Canceled,
        Some(Why::Timeout) => return whole(None, Cause::Timeout),
        Some(Why::StartTimeout) => {
            let missing = run.ranks.iter().position(|rank| rank.started.is_none());
            return whole(missing.map(|rank| rank as u32), Cause::StartTimeout);
        }
        Some(Why::RankFailed) | None => {}
    }
    let failures = ends().filter_map(|(rank, ended)| match &ended.end {
        RankEnd::Failed(cause) => Some((rank, ended, cause)),
        RankEnd::Done(_) | RankEnd::Stopped => None,
    });
    let first = failures.min_by_key(|(rank, ended, cause)| (blame(cause), ended.at, *rank));
    match first {
        Some((_, ended, Cause::AgentLost)) => {
            let RankEnded { stderr_tail, .. } = ended;
            Outcome::Failed(Failure { rank: None, cause: Cause::AgentLost, stderr_tail: stderr_tail.clone() })
        }
        Some((rank, ended, cause)) => {
            let (cause, stderr_tail) = (cause.clone(), ended.stderr_tail.clone());
            Outcome::Failed(Failure { rank: Some(rank), cause, stderr_tail })
        }
        None => Outcome::Done,
    }
}

/// Which of several failed ranks was the cause: lower is likelier.
///
/// A rank that died is likelier the cause than one that returned an error, because the error may say no more than
/// that the other one is gone, and may reach the leader before the death does.
fn blame(cause: &Cause) -> u8 {
    match cause {
        Cause::Signal(_) | Cause::Exit(_) | Cause::NotStarted { .. } => 0,
        Cause::AgentLost | Cause::Timeout | Cause::StartTimeout => 1,
        Cause::Error { detail, .. } if detail.get("secondary") != Some(&Value::Bool(true)) => 2,
        Cause::Error { .. } => 3,
    }
}

fn report(core: &Core, id: TaskId, task: &Task, run: Option<&Run>, outcome: Outcome, now: Duration) -> TaskReport {
    let description = &task.description;
    let mut results = Vec::new();
    if outcome == Outcome::Done && matches!(description.kind, TaskKind::Function { .. }) {
        let result = |rank: &Rank| match &rank.ended {
            Some(RankEnded { end: RankEnd::Done(value), .. }) => value.clone(),
            _ => Value::Null,
        };
        results = run.iter().flat_map(|run| run.ranks.iter().map(result)).collect();
    }
    let logs = core.logs(id, &description.name, task.attempt);
    let files = |rank: usize| [logs.join(format!("rank-{rank}.out")), logs.join(format!("rank-{rank}.err"))];
    TaskReport {
        id,
        name: description.name.clone(),
        pipeline: description.pipeline.clone(),
        attempt: task.attempt,
        outcome,
        times: times(task.queued, run, now),
        results,
        logs: run.iter().flat_map(|run| (0..run.slots.len()).flat_map(files)).collect(),
    }
}

fn times(queued: Duration, run: Option<&Run>, now: Duration) -> TaskTimes {
    let mut times = TaskTimes { submitted: queued.as_secs_f64(), reported: now.as_secs_f64(), ..TaskTimes::default() };
    let Some(run) = run else { return times };
    let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
    // Ranks without a communicator never say so: for them it cost nothing.
    let connected = run.ranks.iter().filter_map(|rank| rank.connected).max();
    times.placed = Some(run.placed.as_secs_f64());
    times.started = seconds(run.started);
    times.connected = seconds(run.started.map(|started| connected.unwrap_or(started).max(started)));
    times.ended = seconds(super::latest(&run.ranks, |rank| rank.ended.as_ref().map(|ended| ended.at)));
    times
}
