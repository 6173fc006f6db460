//! The stations of a gang on its node: launch, end of each rank, stop.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tokio::time::sleep;

use super::daemon::{Daemon, Note, Process};
use super::gang::{Gang, GangKey};
use super::pool::{Seat, Worker, WorkerState};
use super::spawn::{Spawn, signal, spawn};
use crate::clock::monotonic;
use crate::tail::{cause, tail};
use crate::wire::{FromAgent, GRACE, Launch, RankEnd, RankNews, ToRank};
use crate::{Cause, TaskKind};

impl Daemon {
    pub(super) fn launch(&mut self, launch: Launch) {
        let taken: BTreeSet<u16> = self.gangs.values().map(|gang| gang.port).collect();
        let (task, attempt) = (launch.task, launch.attempt);
        let ranks: Vec<u32> = launch.ranks.iter().map(|rank| rank.rank).collect();
        let gang = match Gang::prepare(launch, &self.scratch, &taken) {
            Ok(gang) => gang,
            Err(error) => {
                let cause = Cause::NotStarted { message: format!("its directories could not be made: {error}") };
                for rank in ranks {
                    let news = RankNews::Ended { end: RankEnd::Failed(cause.clone()), stderr_tail: String::new() };
                    let _ = self.leader.send(FromAgent::Rank { task, attempt, rank, at: monotonic(), news });
                }
                return;
            }
        };
        let (key, count) = (gang.key(), gang.members.len());
        let pool = self.pool_of(&gang);
        self.gangs.insert(key, gang);
        match pool {
            None => (0..count).for_each(|local| self.execute(key, local)),
            Some(pool) => {
                for local in 0..count {
                    let gpus = self.gangs[&key].launch.ranks[local].gpus.clone();
                    self.pools.request(pool, Seat { gang: key, local, gpus });
                }
                self.serve_waiting();
            }
        }
    }

    /// The pool of a function gang.
    pub(super) fn pool_of(&self, gang: &Gang) -> Option<usize> {
        match &gang.launch.kind {
            TaskKind::Function { pool, .. } => self.pools.index(pool),
            TaskKind::Executable { .. } => None,
        }
    }

    /// Starts one rank of an executable.
    pub(super) fn execute(&mut self, key: GangKey, local: usize) {
        let Some(gang) = self.gangs.get_mut(&key) else { return };
        let TaskKind::Executable { program, arguments } = &gang.launch.kind else { return };
        let started = gang.open_log(local, "out").and_then(|stdout| {
            spawn(Spawn {
                program,
                arguments,
                env: &gang.env(local, &self.machine),
                dir: Some(&gang.launch.dir),
                stdout,
                stderr: gang.open_log(local, "err")?,
                cpus: &self.machine.cpus(&gang.launch.ranks[local].cores),
            })
        });
        match started {
            Ok(child) => {
                let pid = child.id().unwrap_or_default();
                gang.members[local].pid = Some(pid);
                self.watch(child, Process::Rank(key, local));
                self.report(key, local, monotonic(), RankNews::Started { pid });
            }
            Err(error) => {
                let message = format!("program `{program}`: {error}");
                self.rank_ended(key, local, monotonic(), RankEnd::Failed(Cause::NotStarted { message }));
            }
        }
    }

    pub(super) fn rank_exited(&mut self, key: GangKey, local: usize, status: io::Result<ExitStatus>) {
        let Some(member) = self.gangs.get(&key).map(|gang| &gang.members[local]) else { return };
        // What it left running in its process group ends with it.
        member.pid.into_iter().for_each(|pid| signal(pid, Signal::KILL));
        let end = match status {
            Ok(status) if status.success() => RankEnd::Done(Value::Null),
            _ if member.signaled => RankEnd::Stopped,
            Ok(status) => RankEnd::Failed(cause(status)),
            Err(error) => RankEnd::Failed(Cause::NotStarted { message: error.to_string() }),
        };
        self.rank_ended(key, local, monotonic(), end);
    }

    pub(super) fn rank_ended(&mut self, key: GangKey, local: usize, at: Duration, end: RankEnd) {
        let log = self.gangs.get(&key).map(|gang| gang.log(local, "err"));
        let stderr_tail = match (&end, log) {
            (RankEnd::Done(_), _) | (_, None) => String::new(),
            (_, Some(log)) => tail(&log),
        };
        self.rank_ended_with(key, local, at, end, stderr_tail);
    }

    pub(super) fn rank_ended_with(&mut self, key: GangKey, local: usize, at: Duration, end: RankEnd, stderr_tail: String) {
        let Some(gang) = self.gangs.get_mut(&key) else { return };
        gang.members[local].ended = true;
        let over = gang.members.iter().all(|member| member.ended);
        if over {
            let _ = fs::remove_dir_all(&gang.rendezvous);
        }
        self.report(key, local, at, RankNews::Ended { end, stderr_tail });
        if over {
            self.gangs.remove(&key);
        }
    }

    pub(super) fn report(&self, (task, attempt): GangKey, local: usize, at: Duration, news: RankNews) {
        if let Some(gang) = self.gangs.get(&(task, attempt)) {
            let rank = gang.launch.ranks[local].rank;
            // If the leader is gone, a note that says so is in the queue.
            let _ = self.leader.send(FromAgent::Rank { task, attempt, rank, at, news });
        }
    }

    /// Asks what still runs of a gang to end, and ends at once what does not run yet.
    pub(super) fn stop(&mut self, key: GangKey, start_timeout: bool) {
        let Some(gang) = self.gangs.get_mut(&key) else { return };
        if gang.stopping {
            return;
        }
        gang.stopping = true;
        let mut waiting = Vec::new();
        for (local, member) in gang.members.iter_mut().enumerate().filter(|(_, member)| !member.ended) {
            if let Some(pid) = member.pid {
                member.signaled = true;
                signal(pid, Signal::TERM);
                continue;
            }
            match member.worker.and_then(|id| self.pools.workers.get_mut(&id)) {
                Some(Worker { state: WorkerState::Running(..), outgoing: Some(outgoing), .. }) => {
                    let _ = outgoing.send(ToRank::Cancel);
                }
                Some(worker) => {
                    worker.state = WorkerState::Idle;
                    waiting.push(local);
                }
                None => waiting.push(local),
            }
        }
        if let Some(pool) = self.gangs.get(&key).and_then(|gang| self.pool_of(gang)) {
            for id in self.pools.withdraw(pool, key, start_timeout) {
                self.retire(id);
            }
        }
        let notes = self.notes.clone();
        tokio::spawn(async move {
            sleep(GRACE).await;
            let _ = notes.send(Note::Grace(key));
        });
        for local in waiting {
            self.rank_ended(key, local, monotonic(), RankEnd::Stopped);
        }
        self.serve_waiting();
    }

    pub(super) fn kill_gang(&mut self, key: GangKey) {
        let Some(gang) = self.gangs.get_mut(&key) else { return };
        for member in gang.members.iter_mut().filter(|member| !member.ended) {
            let worker = member.worker.and_then(|id| self.pools.workers.get(&id));
            let Some(pid) = member.pid.or(worker.map(|worker| worker.pid)) else { continue };
            member.signaled = true;
            signal(pid, Signal::KILL);
        }
    }
}
