//! What the leader does when something happens: a pure function from state, input and time to effects.
//!
//! ```text
//!            submit              place               all ranks up          all ranks ended
//! (client) ─────────► queued ─────────► starting ─────────────► running ─────────────────► ended
//!                        ▲                  │ cancel, time-out, a rank failed │                │
//!                        │                  └──────► stopping ◄───────────────┘                │
//!                        └──────────────────────── failed, retries left ◄──────────────────────┘
//! ```
//!
//! An attempt is over when all its ranks have ended, never before: only then are its slots free.

mod queue;
#[cfg(test)]
mod tests;
mod verdict;

use std::time::Duration;

use crate::{
    Event, TaskDescription, TaskId,
    core::{Core, Rank, RankEnded, Run, Stop, Task, Why},
    scheduler::{AgentId, Node, release},
    wire::{GRACE, RankEnd, RankNews, ToAgent},
};

/// Something that reached the leader.
#[derive(Debug, Clone)]
pub(crate) enum Input {
    /// The session begins.
    Start {
        version: String,
        pid: u32,
    },
    /// A task that passed [`admission`](crate::admission).
    Submit {
        task: TaskId,
        description: Box<TaskDescription>,
    },
    Cancel {
        task: TaskId,
    },
    /// An agent has said hello.
    AgentUp {
        agent: AgentId,
        pid: u32,
    },
    /// An agent has died, or its connection broke.
    AgentGone {
        agent: AgentId,
        reason: String,
        stderr_tail: String,
    },
    /// News of a rank; `at` is when it happened.
    Rank {
        agent: AgentId,
        task: TaskId,
        attempt: u32,
        rank: u32,
        at: Duration,
        news: RankNews,
    },
    /// A deadline may have passed.
    Tick,
    /// The session ends.
    Close,
}

/// Something that the leader's shell is to do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Effect {
    /// Write it to the journal and to all subscribers; an `Ended` also to those who wait for the task.
    Record(Event),
    StartAgent(AgentId),
    /// It does not answer.
    KillAgent(AgentId),
    Send(AgentId, ToAgent),
    /// Remove what a lost agent could not: process groups and the rendezvous directory of an attempt.
    Sweep {
        pids: Vec<u32>,
        task: TaskId,
        attempt: u32,
    },
}

/// Longest time from starting an agent to its hello.
const AGENT_START: Duration = Duration::from_secs(10);

/// Agents lost in a row, without news of any rank between, after which no further one is started.
const AGENT_FAILURES: u32 = 3;

/// An agent that has not ended its ranks this long after `Stop` is taken for dead.
const STOP_LIMIT: Duration = GRACE.saturating_add(Duration::from_secs(10));

/// Takes one input. The caller performs the effects in order and calls again at [`next_deadline`].
pub(crate) fn on_event(core: &mut Core, input: Input, now: Duration) -> Vec<Effect> {
    let mut effects = Vec::new();
    let fx = &mut effects;
    match input {
        Input::Start { version, pid } => {
            fx.push(Effect::Record(Event::SessionStarted { version, pid, resources: core.resources }));
            start_agent(core, now, fx);
        }
        Input::Submit { task, description } => submit(core, task, *description, now, fx),
        Input::Cancel { task } => cancel(core, task, now, fx),
        Input::AgentUp { agent, pid } => {
            if agent == core.agents.last && core.agents.starting.take().is_some() {
                core.nodes.insert(agent, Node::new(core.resources));
                fx.push(Effect::Record(Event::AgentStarted { agent: agent.0, pid }));
            }
        }
        Input::AgentGone { agent, reason, stderr_tail } => agent_gone(core, agent, reason, &stderr_tail, now, fx),
        Input::Rank { agent, task, attempt, rank, at, news } => {
            rank_news(core, (agent, task, attempt, rank), at.min(now), news, now, fx);
        }
        Input::Tick => deadlines(core, now, fx),
        Input::Close => return close(core, now),
    }
    queue::pass(core, now, fx);
    effects
}

/// When [`Input::Tick`] is due, if at all.
pub(crate) fn next_deadline(core: &Core) -> Option<Duration> {
    let agent = core.agents.starting.map(|since| since + AGENT_START);
    let tasks = core.tasks.values().filter_map(|task| deadline(task, task.run.as_ref()?));
    tasks.chain(agent).min()
}

fn deadline(task: &Task, run: &Run) -> Option<Duration> {
    match (run.stop, run.started) {
        (Some(stop), _) => Some(stop.at + STOP_LIMIT),
        (None, None) => Some(run.placed + task.description.start_timeout),
        (None, Some(started)) => task.description.timeout.map(|timeout| started + timeout),
    }
}

fn start_agent(core: &mut Core, now: Duration, fx: &mut Vec<Effect>) {
    core.agents.last.0 += 1;
    core.agents.starting = Some(now);
    fx.push(Effect::StartAgent(core.agents.last));
}

fn submit(core: &mut Core, id: TaskId, description: TaskDescription, now: Duration, fx: &mut Vec<Effect>) {
    fx.push(Effect::Record(Event::Submitted {
        task: id,
        name: description.name.clone(),
        pipeline: description.pipeline.clone(),
        ranks: description.size() as u32,
        cores: description.groups.iter().map(|group| group.count * group.cores).sum(),
    }));
    let task = Task { description, attempt: 1, queued: now, waiting: None, run: None };
    core.queue.insert(task.turn(id));
    core.tasks.insert(id, task);
    if let Some(reason) = core.agents.lost.clone() {
        verdict::give_up(core, id, &reason, now, fx);
    }
}

fn cancel(core: &mut Core, id: TaskId, now: Duration, fx: &mut Vec<Effect>) {
    let Some(task) = core.tasks.get(&id) else { return };
    match task.run {
        None => verdict::drop_waiting(core, id, now, fx),
        Some(_) => stop(core, id, Why::Canceled, now, fx),
    }
}

/// Begins to end an attempt. The first reason counts, except that a cancel also prevents a retry.
fn stop(core: &mut Core, id: TaskId, why: Why, now: Duration, fx: &mut Vec<Effect>) {
    let Some(task) = core.tasks.get_mut(&id) else { return };
    let attempt = task.attempt;
    let Some(run) = &mut task.run else { return };
    match &mut run.stop {
        Some(stop) if why == Why::Canceled => stop.why = why,
        Some(_) => {}
        None => {
            run.stop = Some(Stop { why, at: now });
            let message = ToAgent::Stop { task: id, attempt, start_timeout: why == Why::StartTimeout };
            fx.extend(run.live_agents().into_iter().map(|agent| Effect::Send(agent, message.clone())));
        }
    }
}

fn agent_gone(core: &mut Core, agent: AgentId, reason: String, stderr_tail: &str, now: Duration, fx: &mut Vec<Effect>) {
    if agent != core.agents.last || core.agents.lost.is_some() {
        return;
    }
    core.nodes.remove(&agent);
    core.agents.starting = None;
    core.agents.failures += 1;
    fx.push(Effect::Record(Event::AgentLost { agent: agent.0, reason: reason.clone() }));

    for id in core.tasks.keys().copied().collect::<Vec<_>>() {
        let Some(task) = core.tasks.get_mut(&id) else { continue };
        let Some(run) = task.run.as_mut().filter(|run| run.live_agents().contains(&agent)) else { continue };
        let mut pids = Vec::new();
        for (slot, rank) in run.slots.iter().zip(&mut run.ranks) {
            if slot.agent == agent && rank.ended.is_none() {
                let end = RankEnd::Failed(crate::Cause::AgentLost);
                rank.ended = Some(RankEnded { at: now, end, stderr_tail: stderr_tail.to_string() });
                pids.extend(rank.pid);
            }
        }
        fx.push(Effect::Sweep { pids, task: id, attempt: task.attempt });
        settle(core, id, now, fx);
    }

    if core.agents.failures < AGENT_FAILURES {
        start_agent(core, now, fx);
        return;
    }
    let words = if stderr_tail.trim().is_empty() { reason } else { format!("{reason}\n{}", stderr_tail.trim_end()) };
    core.agents.lost = Some(words.clone());
    for id in core.tasks.keys().copied().collect::<Vec<_>>() {
        verdict::give_up(core, id, &words, now, fx);
    }
}

fn rank_news(
    core: &mut Core,
    (agent, id, attempt, rank): (AgentId, TaskId, u32, u32),
    at: Duration,
    news: RankNews,
    now: Duration,
    fx: &mut Vec<Effect>,
) {
    // Late news of an attempt that is over, or from an agent that was given up, is no news.
    let Some(task) = core.tasks.get_mut(&id).filter(|task| task.attempt == attempt) else { return };
    let Some(run) = &mut task.run else { return };
    if run.slots.get(rank as usize).is_none_or(|slot| slot.agent != agent) {
        return;
    }
    let state = &mut run.ranks[rank as usize];
    if state.ended.is_some() {
        return;
    }
    core.agents.failures = 0;
    let at = at.max(run.placed);
    match news {
        RankNews::Started { pid } => {
            (state.pid, state.started) = (Some(pid), Some(at));
            run.started = latest(&run.ranks, |rank| rank.started);
            if run.started.is_some() {
                let pids = run.ranks.iter().filter_map(|rank| rank.pid).collect();
                fx.push(Effect::Record(Event::Started { task: id, attempt, pids }));
            }
        }
        RankNews::Connected => {
            state.connected = Some(at);
            run.connected = latest(&run.ranks, |rank| rank.connected);
            if run.connected.is_some() {
                fx.push(Effect::Record(Event::Connected { task: id, attempt }));
            }
        }
        RankNews::Progress(value) => fx.push(Effect::Record(Event::Progress { task: id, attempt, rank, value })),
        RankNews::Ended { end, stderr_tail } => {
            let failed = matches!(end, RankEnd::Failed(_));
            state.ended = Some(RankEnded { at, end, stderr_tail });
            if failed {
                stop(core, id, Why::RankFailed, now, fx);
            }
            settle(core, id, now, fx);
        }
    }
}

/// The latest of all ranks' times, once every rank has one.
fn latest(ranks: &[Rank], of: fn(&Rank) -> Option<Duration>) -> Option<Duration> {
    ranks.iter().map(of).try_fold(Duration::ZERO, |latest, time| Some(latest.max(time?)))
}

/// Ends the attempt if its last rank has ended; if only some were lost, ends the others.
fn settle(core: &mut Core, id: TaskId, now: Duration, fx: &mut Vec<Effect>) {
    let Some(run) = core.tasks.get_mut(&id).and_then(|task| task.run.as_mut()) else { return };
    if run.ranks.iter().all(|rank| rank.ended.is_some()) {
        release(&mut core.nodes, &run.slots);
        verdict::conclude(core, id, now, fx);
    } else if run.ranks.iter().any(|rank| matches!(&rank.ended, Some(ended) if ended.end.is_failure())) {
        stop(core, id, Why::RankFailed, now, fx);
    }
}

impl RankEnd {
    fn is_failure(&self) -> bool {
        matches!(self, RankEnd::Failed(_))
    }
}

fn deadlines(core: &mut Core, now: Duration, fx: &mut Vec<Effect>) {
    if core.agents.starting.is_some_and(|since| since + AGENT_START <= now) {
        fx.push(Effect::KillAgent(core.agents.last));
        // Its death is reported as `AgentGone`; until then there is nothing to wait for.
        core.agents.starting = Some(now);
    }
    for id in core.tasks.keys().copied().collect::<Vec<_>>() {
        let Some(task) = core.tasks.get_mut(&id) else { continue };
        let Some(run) = &mut task.run else { continue };
        match (run.stop, run.started) {
            (Some(since), _) if since.at + STOP_LIMIT <= now => {
                fx.extend(run.live_agents().into_iter().map(Effect::KillAgent));
                run.stop = Some(Stop { at: now, ..since });
            }
            (None, None) if run.placed + task.description.start_timeout <= now => {
                stop(core, id, Why::StartTimeout, now, fx);
            }
            (None, Some(started)) if task.description.timeout.is_some_and(|timeout| started + timeout <= now) => {
                stop(core, id, Why::Timeout, now, fx);
            }
            _ => {}
        }
    }
}

/// Everything that has not ended is canceled; the agents end their processes themselves.
fn close(core: &mut Core, now: Duration) -> Vec<Effect> {
    let mut fx: Vec<Effect> = core.nodes.keys().map(|&agent| Effect::Send(agent, ToAgent::Shutdown)).collect();
    for id in core.tasks.keys().copied().collect::<Vec<_>>() {
        verdict::drop_waiting(core, id, now, &mut fx);
    }
    core.queue.clear();
    core.nodes.clear();
    fx.push(Effect::Record(Event::SessionEnded));
    fx
}
