//! What a session refuses before it queues a task.

use std::{collections::BTreeMap, path::Path};

use crate::{
    Error, Pool, Resources, Result, TaskDescription, TaskKind,
    scheduler::{AgentId, Lack, Node, place},
    wire::{MAX_DESCRIPTION, encode},
};

/// Refuses tasks that contradict themselves or could never start.
pub(crate) fn check(task: &TaskDescription, resources: Resources, pools: &[Pool]) -> Result<()> {
    let invalid = |reason: String, hint: &str| Err(Error::Invalid { task: task.name.clone(), reason, hint: hint.to_string() });
    if task.size() == 0 {
        return invalid("it has no ranks".into(), "give it a rank group with a count of at least 1");
    }
    for group in &task.groups {
        if group.cores == 0 {
            return invalid("a rank has no cores".into(), "give every rank at least one core");
        }
        if group.gpus > 100 && group.gpus % 100 != 0 {
            let reason = format!("a rank asks for {} hundredths of GPUs", group.gpus);
            return invalid(reason, "ask for a share of one GPU (below 100) or for whole ones (100, 200, …)");
        }
    }
    if let TaskKind::Function { pool, .. } = &task.kind
        && !pools.iter().any(|known| known.name == *pool)
    {
        let names: Vec<&str> = pools.iter().map(|pool| pool.name.as_str()).collect();
        return invalid(format!("there is no pool `{pool}`"), &format!("pools are: {}", names.join(", ")));
    }
    if !Path::new(&task.dir).is_dir() {
        let reason = format!("its working directory {} does not exist", task.dir.display());
        return invalid(reason, "create the directory first");
    }
    let length = encode(task).map_or(usize::MAX, |bytes| bytes.len());
    if length > MAX_DESCRIPTION {
        let reason = format!("its description has {} MiB", length >> 20);
        return invalid(reason, "write large arguments to a file and name the file");
    }
    let mut machine = BTreeMap::from([(AgentId(0), Node::new(resources))]);
    if place(&mut machine, &task.groups).is_some() {
        return Ok(());
    }
    let (needs, has) = Lack::find(&machine, &task.groups).explain();
    let hint = "lower `ranks`, `cores`, `gpus` or `memory` of this task, or run it on a larger machine".to_string();
    Err(Error::Resources { task: task.name.clone(), needs, has, hint })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RankGroup;

    fn check_message(task: TaskDescription, expect: &str) {
        let machine = Resources { cores: 2, gpus: 100, memory: 1000 };
        let result = check(&task, machine, &[Pool::new("table", ["rank"])]);
        match result {
            Ok(()) => assert_eq!(expect, ""),
            Err(error) => {
                assert!(error.hint().is_some());
                assert_eq!(error.to_string(), expect);
            }
        }
    }

    fn task() -> TaskDescription {
        TaskDescription::executable("x", "true", [""; 0])
    }

    #[test]
    fn impossible_requests_are_refused_with_numbers() {
        check_message(task().ranks(2, 1), "");
        check_message(task().ranks(2, 2), "task `x` needs 4 cores, this machine has 2");
        let memory = RankGroup { memory: 600, count: 2, ..RankGroup::default() };
        let task = TaskDescription { groups: vec![memory], ..task() };
        check_message(task, "task `x` needs 1200 MiB of memory, this machine has 1000 MiB");
    }

    #[test]
    fn contradictions_are_refused() {
        check_message(task().ranks(0, 1), "task `x` cannot be submitted: it has no ranks");
        check_message(task().ranks(1, 0), "task `x` cannot be submitted: a rank has no cores");
        let pool = TaskDescription::function("x", "tabel", "f", serde_json::Value::Null);
        check_message(pool, "task `x` cannot be submitted: there is no pool `tabel`");
        let group = RankGroup { gpus: 150, ..RankGroup::default() };
        let gpus = TaskDescription { groups: vec![group], ..task() };
        check_message(gpus, "task `x` cannot be submitted: a rank asks for 150 hundredths of GPUs");
        let long = TaskDescription::function("x", "table", "f", "x".repeat(MAX_DESCRIPTION).into());
        check_message(long, "task `x` cannot be submitted: its description has 64 MiB");
        let dir = task().in_dir("/nonexistent");
        check_message(dir, "task `x` cannot be submitted: its working directory /nonexistent does not exist");
    }
}
