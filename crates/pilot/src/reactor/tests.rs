//! The leader's core, driven by hand and by random events; no process, no clock.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Effect, Input, next_deadline, on_event};
use crate::{
    Cause, Event, Outcome, RankGroup, Resources, TaskDescription, TaskId, TaskReport,
    core::Core,
    scheduler::AgentId,
    wire::{Launch, RankEnd, RankNews, ToAgent},
};

/// A core and an agent that records what it is told.
struct Bed {
    core: Core,
    now: Duration,
    agent: AgentId,
    launches: Vec<Launch>,
    stops: Vec<TaskId>,
    reports: Vec<TaskReport>,
    retried: Vec<TaskReport>,
    swept: Vec<u32>,
    others: Vec<Effect>,
}

impl Bed {
    fn new(cores: u32) -> Bed {
        let core = Core::new("/session".into(), Resources { cores, gpus: 200, memory: 1000 });
        let mut bed = Bed {
            core,
            now: Duration::ZERO,
            agent: AgentId(0),
            launches: Vec::new(),
            stops: Vec::new(),
            reports: Vec::new(),
            retried: Vec::new(),
            swept: Vec::new(),
            others: Vec::new(),
        };
        bed.input(Input::Start { version: "0".into(), pid: 1 });
        bed.input(Input::AgentUp { agent: AgentId(1), pid: 2 });
        bed
    }

    fn input(&mut self, input: Input) {
        self.now += Duration::from_millis(1);
        let effects = on_event(&mut self.core, input, self.now);
        self.core.sanity_check();
        for effect in effects {
            match effect {
                Effect::StartAgent(agent) => self.agent = agent,
                Effect::Send(_, ToAgent::Launch(launch)) => self.launches.push(*launch),
                Effect::Send(_, ToAgent::Stop { task, .. }) => self.stops.push(task),
                Effect::Record(Event::Ended { report }) => self.reports.push(*report),
                Effect::Record(Event::Retried { report }) => self.retried.push(*report),
                Effect::Record(_) => {}
                Effect::Sweep { pids, .. } => self.swept.extend(pids),
                other => self.others.push(other),
            }
        }
    }

    fn submit(&mut self, id: u64, task: TaskDescription) {
        self.input(Input::Submit { task: TaskId(id), description: Box::new(task) });
    }

    fn rank(&mut self, id: u64, rank: u32, news: RankNews) {
        let attempt = self.core.tasks.get(&TaskId(id)).map_or(1, |task| task.attempt);
        self.input(Input::Rank { agent: self.agent, task: TaskId(id), attempt, rank, at: self.now, news });
    }

    fn started(&mut self, id: u64, ranks: u32) {
        (0..ranks).for_each(|rank| self.rank(id, rank, RankNews::Started { pid: 100 + rank }));
    }

    fn ended(&mut self, id: u64, rank: u32, end: RankEnd) {
        self.rank(id, rank, RankNews::Ended { end, stderr_tail: format!("tail {rank}") });
    }

    fn running(&self) -> Vec<u64> {
        self.core.tasks.iter().filter(|(_, task)| task.run.is_some()).map(|(id, _)| id.0).collect()
    }
}

fn task(count: u32, cores: u32) -> TaskDescription {
    TaskDescription::function("t", "p", "f", Value::Null).ranks(count, cores)
}

fn done() -> RankEnd {
    RankEnd::Done(json!("ok"))
}

fn killed() -> RankEnd {
    RankEnd::Failed(Cause::Signal(9))
}

fn error(detail: Value) -> RankEnd {
    RankEnd::Failed(Cause::Error { message: "peer is gone".into(), detail })
}

#[test]
fn the_core_knows_no_clock_no_socket_and_no_chance() {
    let sources = [
        include_str!("../core.rs"),
        include_str!("../reactor.rs"),
        include_str!("queue.rs"),
        include_str!("verdict.rs"),
        include_str!("../scheduler.rs"),
    ];
    for source in sources {
        for word in ["tokio", "Instant", "SystemTime", "monotonic", "rand::", "std::net", "std::fs", "std::env"] {
            assert!(!source.contains(word), "`{word}` in the core");
        }
    }
}

#[test]
fn a_gang_starts_runs_and_is_reported_with_its_times() {
    let mut bed = Bed::new(2);
    bed.submit(1, task(2, 1));
    assert_eq!(bed.launches[0].ranks.iter().map(|rank| rank.cores[0]).collect::<Vec<_>>(), [0, 1]);
    bed.started(1, 2);
    bed.rank(1, 0, RankNews::Connected);
    bed.rank(1, 1, RankNews::Connected);
    bed.ended(1, 1, done());
    assert!(bed.reports.is_empty());
    bed.ended(1, 0, done());
    let report = bed.reports.pop().unwrap();
    assert_eq!((report.outcome, report.results), (Outcome::Done, vec![json!("ok"), json!("ok")]));
    let times = report.times;
    let order = [times.placed.unwrap(), times.started.unwrap(), times.connected.unwrap(), times.ended.unwrap()];
    assert!(times.submitted <= order[0] && order.is_sorted() && order[3] <= times.reported, "{times:?}");
    assert_eq!(report.logs[1].to_str(), Some("/session/tasks/1-t/rank-0.err"));
    assert!(bed.core.tasks.is_empty() && bed.others.is_empty() && bed.stops.is_empty());
}

#[test]
fn higher_priority_first_then_in_order() {
    let mut bed = Bed::new(1);
    bed.submit(1, task(1, 1));
    bed.submit(2, task(1, 1));
    bed.submit(3, task(1, 1));
    bed.submit(4, TaskDescription { priority: 1, ..task(1, 1) });
    for id in [1, 4, 2, 3] {
        assert_eq!(bed.running(), [id]);
        bed.started(id, 1);
        bed.ended(id, 0, done());
    }
}

#[test]
fn small_tasks_overtake_the_head_only_where_it_does_not_wait_for_them() {
    let mut bed = Bed::new(4);
    bed.submit(1, task(1, 2));
    bed.submit(2, task(1, 3)); // the head: needs 3 of 4, one core can never be in its way
    bed.submit(3, task(1, 1));
    bed.submit(4, task(1, 1));
    assert_eq!(bed.running(), [1, 3]);
    bed.ended(1, 0, done());
    assert_eq!(bed.running(), [2, 3]);
}

#[test]
fn a_death_stops_the_gang_and_is_blamed_even_if_an_error_was_faster() {
    let mut bed = Bed::new(2);
    bed.submit(1, task(2, 1));
    bed.started(1, 2);
    bed.ended(1, 0, error(Value::Null));
    assert_eq!(bed.stops, [TaskId(1)]);
    bed.ended(1, 1, killed());
    let Outcome::Failed(failure) = &bed.reports[0].outcome else { panic!() };
    assert_eq!((failure.rank, &failure.cause, &failure.stderr_tail[..]), (Some(1), &Cause::Signal(9), "tail 1"));
    assert_eq!(failure.to_string(), "rank 1 was killed by signal 9 (SIGKILL)");
}

#[test]
fn an_error_that_only_echoes_another_is_not_blamed() {
    let mut bed = Bed::new(2);
    bed.submit(1, task(2, 1));
    bed.ended(1, 0, error(json!({"secondary": true})));
    bed.ended(1, 1, error(json!({"line": 3})));
    let Outcome::Failed(failure) = &bed.reports[0].outcome else { panic!() };
    assert_eq!(failure.rank, Some(1));
}

#[test]
fn a_failed_task_is_retried_as_often_as_allowed() {
    let mut bed = Bed::new(1);
    bed.submit(1, TaskDescription { retries: 1, ..task(1, 1) });
    bed.ended(1, 0, killed());
    assert_eq!((bed.retried[0].attempt, bed.launches[1].attempt), (1, 2));
    assert!(bed.launches[1].logs.ends_with("1-t/attempt-2"));
    bed.ended(1, 0, killed());
    assert_eq!((bed.reports[0].attempt, bed.launches.len()), (2, 2));
}

#[test]
fn news_of_an_earlier_attempt_is_ignored() {
    let mut bed = Bed::new(1);
    bed.submit(1, TaskDescription { retries: 1, ..task(1, 1) });
    bed.ended(1, 0, killed());
    let news = RankNews::Ended { end: done(), stderr_tail: String::new() };
    bed.input(Input::Rank { agent: bed.agent, task: TaskId(1), attempt: 1, rank: 0, at: bed.now, news });
    assert_eq!(bed.running(), [1]);
}

#[test]
fn a_lost_agent_fails_its_tasks_and_is_replaced() {
    let mut bed = Bed::new(2);
    bed.submit(1, task(1, 1));
    bed.submit(2, TaskDescription { retries: 1, ..task(1, 1) });
    bed.started(1, 1);
    bed.input(Input::AgentGone { agent: bed.agent, reason: "killed".into(), stderr_tail: "bye".into() });
    assert_eq!((bed.agent, &bed.swept[..]), (AgentId(2), &[100][..]));
    let Outcome::Failed(failure) = &bed.reports[0].outcome else { panic!() };
    assert_eq!((failure.rank, &failure.cause, &failure.stderr_tail[..]), (None, &Cause::AgentLost, "bye"));
    assert!(bed.running().is_empty());
    bed.input(Input::AgentUp { agent: AgentId(2), pid: 3 });
    assert_eq!(bed.running(), [2]);
    bed.started(2, 1);
    bed.ended(2, 0, done());
    assert_eq!(bed.reports[1].outcome, Outcome::Done);
}

#[test]
fn an_agent_that_cannot_start_is_given_up_with_its_words() {
    let mut bed = Bed::new(1);
    bed.submit(1, task(1, 1));
    for _ in 0..3 {
        bed.input(Input::AgentGone { agent: bed.agent, reason: "exit code 1".into(), stderr_tail: "no\n".into() });
    }
    bed.submit(2, task(1, 1));
    assert_eq!(bed.reports.len(), 2);
    let Outcome::Failed(failure) = &bed.reports[1].outcome else { panic!() };
    assert_eq!((&failure.cause, &failure.stderr_tail[..]), (&Cause::AgentLost, "exit code 1\nno"));
    assert!(next_deadline(&bed.core).is_none());
}

#[test]
fn time_outs_stop_and_name_the_missing_rank() {
    let mut bed = Bed::new(2);
    let limit = Duration::from_secs(5);
    bed.submit(1, TaskDescription { start_timeout: limit, timeout: Some(limit), ..task(2, 1) });
    bed.rank(1, 0, RankNews::Started { pid: 1 });
    bed.now = next_deadline(&bed.core).unwrap();
    bed.input(Input::Tick);
    assert_eq!(bed.stops, [TaskId(1)]);
    bed.ended(1, 0, RankEnd::Stopped);
    bed.ended(1, 1, RankEnd::Stopped);
    let Outcome::Failed(failure) = &bed.reports[0].outcome else { panic!() };
    assert_eq!((failure.rank, &failure.cause), (Some(1), &Cause::StartTimeout));

    bed.submit(2, TaskDescription { timeout: Some(limit), ..task(1, 1) });
    bed.started(2, 1);
    bed.now = next_deadline(&bed.core).unwrap();
    bed.input(Input::Tick);
    bed.ended(2, 0, RankEnd::Stopped);
    let Outcome::Failed(failure) = &bed.reports[1].outcome else { panic!() };
    assert_eq!(failure.cause, Cause::Timeout);
}

#[test]
fn an_agent_that_does_not_stop_a_task_is_killed() {
    let mut bed = Bed::new(1);
    bed.submit(1, task(1, 1));
    bed.input(Input::Cancel { task: TaskId(1) });
    bed.now = next_deadline(&bed.core).unwrap();
    bed.input(Input::Tick);
    assert_eq!(bed.others, [Effect::KillAgent(bed.agent)]);
    bed.input(Input::AgentGone { agent: bed.agent, reason: "killed".into(), stderr_tail: String::new() });
    assert_eq!(bed.reports[0].outcome, Outcome::Canceled);
}

#[test]
fn cancel_of_a_waiting_task_is_immediate_and_beats_a_retry() {
    let mut bed = Bed::new(1);
    bed.submit(1, TaskDescription { retries: 5, ..task(1, 1) });
    bed.submit(2, task(1, 1));
    bed.input(Input::Cancel { task: TaskId(2) });
    assert_eq!(bed.reports[0].id, TaskId(2));
    bed.input(Input::Cancel { task: TaskId(1) });
    bed.ended(1, 0, killed());
    assert_eq!((bed.reports[1].id, &bed.reports[1].outcome), (TaskId(1), &Outcome::Canceled));
}

#[test]
fn closing_cancels_everything() {
    let mut bed = Bed::new(1);
    bed.submit(1, task(1, 1));
    bed.submit(2, task(1, 1));
    bed.input(Input::Close);
    assert_eq!(bed.reports.iter().map(|report| &report.outcome).collect::<Vec<_>>(), [&Outcome::Canceled; 2]);
    assert_eq!(bed.others, [Effect::Send(bed.agent, ToAgent::Shutdown)]);
}

/// A step of a random history.
#[derive(Debug, Clone)]
enum Step {
    Submit { count: u32, cores: u32, gpus: u32, memory: u64, priority: i32, retries: u32 },
    Start(usize),
    End(usize, u8),
    Cancel(usize),
    Lose,
    Up,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let gpus = prop_oneof![3 => Just(0u32), 1 => Just(30), 1 => Just(100)];
    let submit = (1..4u32, 1..3u32, gpus, 0..400u64, -1..2i32, 0..2u32);
    prop_oneof![
        4 => submit.prop_map(|(count, cores, gpus, memory, priority, retries)| {
            Step::Submit { count, cores, gpus, memory, priority, retries }
        }),
        4 => any::<usize>().prop_map(Step::Start),
        8 => (any::<usize>(), 0..4u8).prop_map(|(rank, how)| Step::End(rank, how)),
        1 => any::<usize>().prop_map(Step::Cancel),
        1 => Just(Step::Lose),
        1 => Just(Step::Up),
        1 => (0..100u64).prop_map(Step::Wait),
    ]
}

/// Ranks that run, as (task, rank).
fn live(bed: &Bed) -> Vec<(u64, u32)> {
    let runs = bed.core.tasks.iter().filter_map(|(id, task)| Some((id.0, task.run.as_ref()?)));
    let ranks = runs.flat_map(|(id, run)| run.ranks.iter().enumerate().map(move |(i, rank)| (id, i as u32, rank)));
    ranks.filter(|(_, _, rank)| rank.ended.is_none()).map(|(id, rank, _)| (id, rank)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Whatever happens: no slot is booked twice and gangs are whole (checked after every event), and in the end
    /// every task is reported exactly once.
    #[test]
    fn nothing_is_double_booked_or_lost(steps in prop::collection::vec(step(), 1..150)) {
        let mut bed = Bed::new(6);
        let mut submitted = 0;
        for step in steps {
            let ranks = live(&bed);
            match step {
                Step::Submit { count, cores, gpus, memory, priority, retries } => {
                    let groups = vec![RankGroup { count: 1, cores, gpus, memory }, RankGroup { count, ..RankGroup::default() }];
                    submitted += 1;
                    bed.submit(submitted, TaskDescription { groups, priority, retries, ..task(1, 1) });
                }
                Step::Start(at) if !ranks.is_empty() => {
                    let (id, rank) = ranks[at % ranks.len()];
                    bed.rank(id, rank, RankNews::Started { pid: rank });
                }
                Step::End(at, how) if !ranks.is_empty() => {
                    let (id, rank) = ranks[at % ranks.len()];
                    bed.ended(id, rank, [done(), done(), killed(), RankEnd::Stopped][how as usize].clone());
                }
                Step::Cancel(at) if submitted > 0 => bed.input(Input::Cancel { task: TaskId(1 + at as u64 % submitted) }),
                Step::Lose if bed.core.agents.failures < 2 => {
                    bed.input(Input::AgentGone { agent: bed.agent, reason: "x".into(), stderr_tail: String::new() });
                }
                Step::Up => bed.input(Input::AgentUp { agent: bed.agent, pid: 1 }),
                Step::Wait(seconds) => {
                    bed.now += Duration::from_secs(seconds);
                    bed.input(Input::Tick);
                }
                _ => {}
            }
        }
        bed.input(Input::AgentUp { agent: bed.agent, pid: 1 });
        while let Some(&(id, rank)) = live(&bed).first() {
            bed.ended(id, rank, done());
        }
        prop_assert!(bed.core.tasks.is_empty(), "left: {:?}", bed.core.tasks);
        let mut ids: Vec<u64> = bed.reports.iter().map(|report| report.id.0).collect();
        ids.sort_unstable();
        prop_assert_eq!(ids, (1..=submitted).collect::<Vec<_>>());
    }

    /// A stream of small tasks never keeps a big one waiting for more than the tasks that were there before it.
    #[test]
    fn the_head_is_not_starved(big in 2..5u32, small in prop::collection::vec(1..3u32, 30)) {
        let mut bed = Bed::new(4);
        bed.submit(1, task(1, 1));
        bed.submit(2, task(1, big));
        let mut id = 2;
        for cores in small {
            id += 1;
            bed.submit(id, task(1, cores));
        }
        bed.ended(1, 0, done());
        prop_assert!(bed.running().contains(&2), "{:?}", bed.running());
    }
}
