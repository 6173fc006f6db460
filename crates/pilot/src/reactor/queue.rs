//! One pass over the queue: who starts now, and who is told why not.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    ops::Bound,
    time::Duration,
};

use super::Effect;
use crate::{
    Event, TaskId,
    core::{Core, Rank, Run, Task},
    scheduler::{Lack, Node, Slot, place, release},
    wire::{Launch, LaunchRank, ToAgent},
};

/// Waiting tasks that one pass looks at; bounds its cost when thousands wait for more than is free.
const LOOKAHEAD: usize = 256;

/// Starts every task that fits, in order of the queue.
///
/// The first one that does not fit is the *head*. Tasks behind it are backfilled only while the head would still fit
/// if everything but its overtakers had ended: so it starts at the latest when the tasks that ran before it came to
/// the head have ended, and no stream of small tasks can starve it. No run times need to be known for this.
pub(super) fn pass(core: &mut Core, now: Duration, fx: &mut Vec<Effect>) {
    let mut head = None;
    let mut too_big = HashSet::new();
    let mut blocked = 0;
    let mut after = Bound::Unbounded;
    while let Some(turn) = core.queue.range((after, Bound::Unbounded)).next().copied() {
        after = Bound::Excluded(turn);
        let id = turn.1;
        if blocked == LOOKAHEAD || (blocked > 0 && core.nodes.values().all(|node| node.free_cores() == 0)) {
            break;
        }
        let Some(task) = core.tasks.get(&id) else { continue };
        let shape: Vec<_> = task.description.groups.iter().map(|g| (g.count, g.cores, g.gpus, g.memory)).collect();
        let slots = if too_big.contains(&shape) { None } else { place(&mut core.nodes, &task.description.groups) };
        match slots {
            Some(slots) if head.is_none_or(|head| leaves_room(core, head, &slots)) => start(core, id, slots, now, fx),
            Some(slots) => {
                release(&mut core.nodes, &slots);
                blocked += 1;
                let why = head.map(|head| format!("task {head} goes first")).unwrap_or_default();
                waits(core, id, why, fx);
            }
            None => {
                too_big.insert(shape);
                head.get_or_insert(id);
                blocked += 1;
                let why = lack(core, id);
                waits(core, id, why, fx);
            }
        }
    }
}

/// Would `head` fit if everything had ended but the tasks that overtook it and the one that now holds `candidate`?
fn leaves_room(core: &Core, head: TaskId, candidate: &[Slot]) -> bool {
    let Some(waiting) = core.tasks.get(&head) else { return true };
    let mut nodes: BTreeMap<_, _> = core.nodes.keys().map(|&agent| (agent, Node::new(core.resources))).collect();
    let overtakers = core.tasks.iter().filter_map(|(&id, task)| {
        let run = task.run.as_ref()?;
        (task.turn(id) > waiting.turn(head) && run.placed >= waiting.queued).then_some(&run.slots)
    });
    for slot in overtakers.flatten().chain(candidate) {
        if let Some(node) = nodes.get_mut(&slot.agent) {
            Node::occupy(node, slot);
        }
    }
    place(&mut nodes, &waiting.description.groups).is_some()
}

fn lack(core: &Core, id: TaskId) -> String {
    if core.nodes.is_empty() {
        return "the agent is being started".to_string();
    }
    let Some(task) = core.tasks.get(&id) else { return String::new() };
    let (need, free) = Lack::find(&core.nodes, &task.description.groups).explain();
    format!("needs {need}, free: {free}")
}

/// Publishes the reason, if it is a new one.
fn waits(core: &mut Core, id: TaskId, why: String, fx: &mut Vec<Effect>) {
    let Some(task) = core.tasks.get_mut(&id) else { return };
    if task.waiting.as_ref() != Some(&why) {
        task.waiting = Some(why.clone());
        fx.push(Effect::Record(Event::Waiting { task: id, why }));
    }
}

/// Sends the ranks to their agents.
fn start(core: &mut Core, id: TaskId, slots: Vec<Slot>, now: Duration, fx: &mut Vec<Effect>) {
    let Some(task) = core.tasks.get(&id) else { return };
    core.queue.remove(&task.turn(id));
    let Task { description, attempt, .. } = task;
    let attempt = *attempt;
    fx.push(Effect::Record(Event::Placed {
        task: id,
        attempt,
        cores: slots.iter().map(|slot| slot.cores.clone()).collect(),
        gpus: slots.iter().map(|slot| slot.gpus.clone()).collect(),
    }));
    let agents: BTreeSet<_> = slots.iter().map(|slot| slot.agent).collect();
    for agent in agents {
        let here = slots.iter().enumerate().filter(|(_, slot)| slot.agent == agent);
        let rank = |(rank, slot): (usize, &Slot)| LaunchRank { rank: rank as u32, cores: slot.cores.clone(), gpus: slot.gpus.clone() };
        let launch = Launch {
            task: id,
            attempt,
            name: description.name.clone(),
            kind: description.kind.clone(),
            env: description.env.clone(),
            dir: description.dir.clone(),
            logs: core.logs(id, &description.name, attempt),
            size: slots.len() as u32,
            ranks: here.map(rank).collect(),
        };
        fx.push(Effect::Send(agent, ToAgent::Launch(Box::new(launch))));
    }
    let ranks = slots.iter().map(|_| Rank::default()).collect();
    let Some(task) = core.tasks.get_mut(&id) else { return };
    task.waiting = None;
    task.run = Some(Run { placed: now, started: None, connected: None, slots, ranks, stop: None });
}
