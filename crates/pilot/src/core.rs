//! What the leader knows: tasks, queue, nodes. Changed only by [`on_event`](crate::reactor::on_event).

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use crate::{
    Resources, TaskDescription, TaskId,
    scheduler::{AgentId, Node, Slot},
    wire::RankEnd,
};

/// The state of a session. Times are since its start.
#[derive(Debug)]
pub(crate) struct Core {
    pub dir: PathBuf,
    /// What a fresh node has.
    pub resources: Resources,
    pub agents: Agents,
    /// What is free on the nodes whose agents are up.
    pub nodes: BTreeMap<AgentId, Node>,
    /// All tasks that have not ended.
    pub tasks: BTreeMap<TaskId, Task>,
    /// Those of them that wait for slots, in the order in which they are to get them.
    pub queue: BTreeSet<Turn>,
}

/// Order of the queue: higher priority first, then earlier submission.
pub(crate) type Turn = (Reverse<i32>, TaskId);

/// The agent of this machine.
#[derive(Debug)]
pub(crate) struct Agents {
    /// The last number that was given out.
    pub last: AgentId,
    /// Since when it is being started; `None` once it is up.
    pub starting: Option<Duration>,
    /// Starts in a row that came to nothing.
    pub failures: u32,
    /// Set when starting it was given up.
    pub lost: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Task {
    pub description: TaskDescription,
    pub attempt: u32,
    /// When it was queued for this attempt.
    pub queued: Duration,
    /// The reason that was last published for its waiting.
    pub waiting: Option<String>,
    /// Set while it holds slots.
    pub run: Option<Run>,
}

/// An attempt that holds slots.
#[derive(Debug)]
pub(crate) struct Run {
    pub placed: Duration,
    pub started: Option<Duration>,
    pub connected: Option<Duration>,
    /// By rank.
    pub slots: Vec<Slot>,
    /// By rank.
    pub ranks: Vec<Rank>,
    /// Set when the attempt is to end before its ranks end by themselves.
    pub stop: Option<Stop>,
}

#[derive(Debug, Default)]
pub(crate) struct Rank {
    pub pid: Option<u32>,
    pub started: Option<Duration>,
    pub connected: Option<Duration>,
    pub ended: Option<RankEnded>,
}

#[derive(Debug)]
pub(crate) struct RankEnded {
    pub at: Duration,
    pub end: RankEnd,
    pub stderr_tail: String,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Stop {
    pub why: Why,
    pub at: Duration,
}

/// Why an attempt is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    RankFailed,
    Canceled,
    Timeout,
    StartTimeout,
}

impl Core {
    pub(crate) fn new(dir: PathBuf, resources: Resources) -> Core {
        let agents = Agents { last: AgentId(0), starting: None, failures: 0, lost: None };
        Core { dir, resources, agents, nodes: BTreeMap::new(), tasks: BTreeMap::new(), queue: BTreeSet::new() }
    }

    /// Directory of the logs of an attempt.
    pub(crate) fn logs(&self, id: TaskId, name: &str, attempt: u32) -> PathBuf {
        let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
        let name: String = name.chars().map(plain).take(100).collect();
        let dir = self.dir.join("tasks").join(format!("{id}-{name}"));
        if attempt == 1 { dir } else { dir.join(format!("attempt-{attempt}")) }
    }

    /// Checks everything that must hold between two events.
    #[cfg(test)]
    pub(crate) fn sanity_check(&self) {
        let fresh = |(&id, _): (&AgentId, &Node)| (id, Node::new(self.resources));
        let mut nodes: BTreeMap<AgentId, Node> = self.nodes.iter().map(fresh).collect();
        for (id, task) in &self.tasks {
            let queued = self.queue.contains(&task.turn(*id));
            assert_ne!(queued, task.run.is_some(), "task {id} is either queued or runs");
            let Some(run) = &task.run else { continue };
            assert_eq!(run.slots.len(), task.description.size(), "task {id} is placed as a whole");
            assert_eq!(run.ranks.len(), run.slots.len());
            assert!(run.ranks.iter().any(|rank| rank.ended.is_none()), "task {id} has ended but is kept");
            for slot in &run.slots {
                // The slots of a lost node are gone; the task waits for its ranks elsewhere.
                if let Some(node) = nodes.get_mut(&slot.agent) {
                    node.occupy(slot);
                }
            }
        }
        assert_eq!(nodes, self.nodes, "what is free is what no task holds");
        assert!(self.queue.iter().all(|(_, id)| self.tasks.contains_key(id)));
    }
}

impl Task {
    pub(crate) fn turn(&self, id: TaskId) -> Turn {
        (Reverse(self.description.priority), id)
    }
}

impl Run {
    /// The agents on which ranks have not ended.
    pub(crate) fn live_agents(&self) -> BTreeSet<AgentId> {
        let live = self.slots.iter().zip(&self.ranks).filter(|(_, rank)| rank.ended.is_none());
        live.map(|(slot, _)| slot.agent).collect()
    }
}
