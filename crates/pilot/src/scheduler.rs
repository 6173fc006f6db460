//! Where the ranks of a task go: exact core slots, hundredths of GPUs, memory.
//!
//! Nothing here knows tasks, time or processes.

use std::{cmp::Reverse, collections::BTreeMap};

use crate::{RankGroup, Resources};

/// Number of an agent, and of the node that it serves; a restarted agent has a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct AgentId(pub u32);

/// What is free on one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// `cores[i]`: core slot `i` is free.
    cores: Vec<bool>,
    /// `gpus[i]`: free hundredths of GPU `i`.
    gpus: Vec<u32>,
    /// Free MiB.
    memory: u64,
}

/// What one rank holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Slot {
    pub agent: AgentId,
    pub cores: Vec<u32>,
    pub gpus: Vec<u32>,
    /// Hundredths of each of `gpus`.
    pub share: u32,
    pub memory: u64,
}

impl Node {
    /// A node of which everything is free.
    pub(crate) fn new(all: Resources) -> Node {
        // A remainder below a whole GPU is a GPU of which this session may use a part.
        let gpus = (0..all.gpus.div_ceil(100)).map(|i| (all.gpus - i * 100).min(100)).collect();
        Node { cores: vec![true; all.cores as usize], gpus, memory: all.memory }
    }

    pub(crate) fn free_cores(&self) -> u32 {
        self.cores.iter().filter(|&&free| free).count() as u32
    }

    fn free_gpus(&self) -> u32 {
        self.gpus.iter().sum()
    }

    /// Takes what one rank needs, the lowest numbers first, or changes nothing.
    fn take(&mut self, agent: AgentId, need: &RankGroup) -> Option<Slot> {
        let free = self.cores.iter().enumerate().filter(|(_, free)| **free);
        let cores: Vec<u32> = free.map(|(core, _)| core as u32).take(need.cores as usize).collect();
        let (gpus, share) = self.find_gpus(need.gpus)?;
        if cores.len() < need.cores as usize || self.memory < need.memory {
            return None;
        }
        for &core in &cores {
            self.cores[core as usize] = false;
        }
        for &gpu in &gpus {
            self.gpus[gpu as usize] -= share;
        }
        self.memory -= need.memory;
        Some(Slot { agent, cores, gpus, share, memory: need.memory })
    }

    /// GPUs with room for `need` hundredths, and the share of each.
    fn find_gpus(&self, need: u32) -> Option<(Vec<u32>, u32)> {
        if need == 0 {
            return Some((Vec::new(), 0));
        }
        if need < 100 {
            // The fullest one that still has room: whole GPUs stay whole.
            let fitting = (0..self.gpus.len()).filter(|&gpu| self.gpus[gpu] >= need);
            return fitting.min_by_key(|&gpu| self.gpus[gpu]).map(|gpu| (vec![gpu as u32], need));
        }
        let whole = (0..self.gpus.len()).filter(|&gpu| self.gpus[gpu] == 100);
        let gpus: Vec<u32> = whole.map(|gpu| gpu as u32).take(need as usize / 100).collect();
        (gpus.len() == need as usize / 100).then_some((gpus, 100))
    }

    /// Gives back what a slot holds.
    fn give_back(&mut self, slot: &Slot) {
        for &core in &slot.cores {
            self.cores[core as usize] = true;
        }
        for &gpu in &slot.gpus {
            self.gpus[gpu as usize] += slot.share;
        }
        self.memory += slot.memory;
    }

    /// Removes what a slot holds, wherever it came from.
    pub(crate) fn occupy(&mut self, slot: &Slot) {
        for &core in &slot.cores {
            assert!(self.cores[core as usize], "core {core} is booked twice");
            self.cores[core as usize] = false;
        }
        for &gpu in &slot.gpus {
            assert!(self.gpus[gpu as usize] >= slot.share, "GPU {gpu} is booked twice");
            self.gpus[gpu as usize] -= slot.share;
        }
        assert!(self.memory >= slot.memory, "memory is booked twice");
        self.memory -= slot.memory;
    }
}

/// Places all ranks of a task at once, or changes nothing.
///
/// The returned slots are in rank order. The most demanding ranks choose first, each a node that the task already
/// uses if there is room; ranks without GPUs stay away from nodes with free ones.
pub(crate) fn place(nodes: &mut BTreeMap<AgentId, Node>, groups: &[RankGroup]) -> Option<Vec<Slot>> {
    let ranks: Vec<&RankGroup> = groups.iter().flat_map(|group| (0..group.count).map(move |_| group)).collect();
    let mut order: Vec<usize> = (0..ranks.len()).collect();
    order.sort_by_key(|&rank| Reverse((ranks[rank].gpus, ranks[rank].cores, ranks[rank].memory)));

    let mut slots: Vec<Option<Slot>> = vec![None; ranks.len()];
    for rank in order {
        let need = ranks[rank];
        let used = |id: AgentId| slots.iter().flatten().any(|slot| slot.agent == id);
        let mut candidates: Vec<AgentId> = nodes.keys().copied().collect();
        if candidates.len() > 1 {
            candidates.sort_by_key(|id| (!used(*id), if need.gpus == 0 { nodes[id].free_gpus() } else { 0 }, *id));
        }
        slots[rank] = candidates.into_iter().find_map(|id| nodes.get_mut(&id)?.take(id, need));
        if slots[rank].is_none() {
            release(nodes, slots.iter().flatten());
            return None;
        }
    }
    slots.into_iter().collect()
}

/// Frees slots; those of a node that is gone are gone with it.
pub(crate) fn release<'a>(nodes: &mut BTreeMap<AgentId, Node>, slots: impl IntoIterator<Item = &'a Slot>) {
    for slot in slots {
        if let Some(node) = nodes.get_mut(&slot.agent) {
            node.give_back(slot);
        }
    }
}

/// What a task lacks; [`Lack::explain`] says it to people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lack {
    Cores {
        need: u64,
        free: u64,
    },
    Gpus {
        need: u64,
        free: u64,
    },
    Memory {
        need: u64,
        free: u64,
    },
    /// Enough in sum, but not where it is needed.
    Shape,
}

impl Lack {
    /// Why `groups` do not fit these nodes.
    pub(crate) fn find(nodes: &BTreeMap<AgentId, Node>, groups: &[RankGroup]) -> Lack {
        let need = |of: fn(&RankGroup) -> u64| groups.iter().map(|group| group.count as u64 * of(group)).sum::<u64>();
        let free = |of: fn(&Node) -> u64| nodes.values().map(of).sum::<u64>();
        let cores = (need(|group| group.cores as u64), free(|node| node.free_cores() as u64));
        let gpus = (need(|group| group.gpus as u64), free(|node| node.free_gpus() as u64));
        let memory = (need(|group| group.memory), free(|node| node.memory));
        if cores.0 > cores.1 {
            Lack::Cores { need: cores.0, free: cores.1 }
        } else if gpus.0 > gpus.1 {
            Lack::Gpus { need: gpus.0, free: gpus.1 }
        } else if memory.0 > memory.1 {
            Lack::Memory { need: memory.0, free: memory.1 }
        } else {
            Lack::Shape
        }
    }

    /// What is needed and what there is, each with its unit: `("4 cores", "2")`.
    pub(crate) fn explain(self) -> (String, String) {
        match self {
            Lack::Cores { need: 1, free } => ("1 core".to_string(), free.to_string()),
            Lack::Cores { need, free } => (format!("{need} cores"), free.to_string()),
            Lack::Gpus { need: 100, free } => ("1 GPU".to_string(), gpus(free)),
            Lack::Gpus { need, free } => (format!("{} GPUs", gpus(need)), gpus(free)),
            Lack::Memory { need, free } => (format!("{need} MiB of memory"), format!("{free} MiB")),
            Lack::Shape => ("its ranks side by side".to_string(), "no node with room for them".to_string()),
        }
    }
}

fn gpus(hundredths: u64) -> String {
    (hundredths as f64 / 100.0).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nodes(all: &[(u32, u32, u64)]) -> BTreeMap<AgentId, Node> {
        let node = |&(cores, gpus, memory): &(u32, u32, u64)| Node::new(Resources { cores, gpus, memory });
        all.iter().enumerate().map(|(i, all)| (AgentId(i as u32), node(all))).collect()
    }

    fn group(count: u32, cores: u32, gpus: u32, memory: u64) -> RankGroup {
        RankGroup { count, cores, gpus, memory }
    }

    #[test]
    fn a_gang_is_placed_whole_or_not_at_all() {
        let mut nodes = nodes(&[(4, 0, 100)]);
        let before = nodes.clone();
        assert_eq!(place(&mut nodes, &[group(3, 2, 0, 0)]), None);
        assert_eq!(nodes, before);
        let slots = place(&mut nodes, &[group(2, 2, 0, 50)]).unwrap();
        assert_eq!(slots[0].cores, [0, 1]);
        assert_eq!(slots[1].cores, [2, 3]);
        assert_eq!(nodes[&AgentId(0)].free_cores(), 0);
        release(&mut nodes, &slots);
        assert_eq!(nodes, before);
    }

    #[test]
    fn shares_of_a_gpu_are_packed_and_whole_gpus_kept_whole() {
        let mut nodes = nodes(&[(8, 200, 0)]);
        let shares = place(&mut nodes, &[group(2, 1, 40, 0)]).unwrap();
        assert_eq!((&shares[0].gpus[..], &shares[1].gpus[..]), (&[0][..], &[0][..]));
        let whole = place(&mut nodes, &[group(1, 1, 100, 0)]).unwrap();
        assert_eq!(whole[0].gpus, [1]);
        assert_eq!(place(&mut nodes, &[group(1, 1, 30, 0)]), None);
        assert_eq!(place(&mut nodes, &[group(1, 1, 20, 0)]).unwrap()[0].gpus, [0]);
    }

    #[test]
    fn cpu_ranks_leave_the_node_with_the_gpu_to_the_gpu_rank() {
        let mut nodes = nodes(&[(2, 100, 0), (2, 0, 0)]);
        let slots = place(&mut nodes, &[group(2, 1, 0, 0), group(1, 1, 100, 0)]).unwrap();
        assert_eq!(slots[2].agent, AgentId(0));
        let mut fresh = self::nodes(&[(2, 100, 0), (2, 0, 0)]);
        assert_eq!(place(&mut fresh, &[group(1, 1, 0, 0)]).unwrap()[0].agent, AgentId(1));
    }

    #[test]
    fn a_lack_is_explained_with_numbers() {
        let nodes = nodes(&[(2, 50, 512)]);
        let explain = |group| Lack::find(&nodes, &[group]).explain();
        assert_eq!(explain(group(4, 1, 0, 0)), ("4 cores".into(), "2".into()));
        assert_eq!(explain(group(1, 1, 100, 0)), ("1 GPU".into(), "0.5".into()));
        assert_eq!(explain(group(1, 1, 0, 1024)), ("1024 MiB of memory".into(), "512 MiB".into()));
    }

    fn groups() -> impl Strategy<Value = Vec<RankGroup>> {
        let gpus = prop_oneof![3 => Just(0u32), 1 => 1..100u32, 1 => Just(100), 1 => Just(200)];
        let group = (1..4u32, 1..4u32, gpus, 0..300u64);
        prop::collection::vec(group.prop_map(|(count, cores, gpus, memory)| RankGroup { count, cores, gpus, memory }), 1..3)
    }

    proptest! {
        /// On several nodes: every rank gets what it asked for, nothing is booked twice, all of it comes back.
        #[test]
        fn placing_and_releasing_is_exact(all in prop::collection::vec((1..9u32, 0..301u32, 0..1000u64), 1..4),
                                          tasks in prop::collection::vec(groups(), 1..20)) {
            let fresh = nodes(&all);
            let mut free = fresh.clone();
            let mut placed: Vec<Vec<Slot>> = Vec::new();
            for (i, groups) in tasks.iter().enumerate() {
                let before = free.clone();
                match place(&mut free, groups) {
                    None => prop_assert_eq!(&free, &before),
                    Some(slots) => {
                        let needs = groups.iter().flat_map(|group| (0..group.count).map(move |_| group));
                        for (slot, need) in slots.iter().zip(needs) {
                            prop_assert_eq!(slot.cores.len() as u32, need.cores);
                            prop_assert_eq!(slot.gpus.len() as u32 * slot.share, need.gpus);
                        }
                        placed.push(slots);
                    }
                }
                if i % 3 == 2 && !placed.is_empty() {
                    release(&mut free, &placed.remove(0));
                }
                let mut booked = fresh.clone();
                placed.iter().flatten().for_each(|slot| booked.get_mut(&slot.agent).unwrap().occupy(slot));
                prop_assert_eq!(&booked, &free);
            }
        }
    }
}
