//! The stations of a warm rank: start, call, answer, death.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::process::ExitStatus;

use rustix::process::Signal;
use tokio::time::sleep;

use super::daemon::{DRAIN, Daemon, Note, Process};
use super::gang::{GangKey, open_log};
use super::pool::{Seat, Worker, WorkerState};
use super::spawn::{Spawn, signal, spawn};
use crate::clock::monotonic;
use crate::tail::{cause, tail};
use crate::wire::{FromRank, RankEnd, RankNews, ToRank};
use crate::{Cause, Pool};

impl Daemon {
    /// Gives idle workers to those who wait, calls complete gangs, and starts what is missing.
    pub(super) fn serve_waiting(&mut self) {
        let mut gangs = BTreeSet::new();
        for pool in 0..self.pools.len() {
            for (seat, worker) in self.pools.assign(pool) {
                if let Some(gang) = self.gangs.get_mut(&seat.gang) {
                    gang.members[seat.local].worker = Some(worker);
                    gangs.insert(seat.gang);
                }
            }
        }
        gangs.into_iter().for_each(|key| self.call(key));
        self.start_workers();
    }

    /// Calls the function in all ranks of a gang at once, if each has a worker.
    pub(super) fn call(&mut self, key: GangKey) {
        let Some(gang) = self.gangs.get_mut(&key) else { return };
        if gang.running || gang.members.iter().any(|member| member.worker.is_none()) {
            return;
        }
        gang.running = true;
        for (local, member) in gang.members.iter().enumerate() {
            let Some(worker) = member.worker.and_then(|id| self.pools.workers.get_mut(&id)) else { continue };
            worker.state = WorkerState::Running(key, local);
            worker.bound.get_or_insert_with(|| gang.launch.ranks[local].gpus.clone());
            if let Some(outgoing) = &worker.outgoing {
                let _ = outgoing.send(ToRank::Run(Box::new(gang.call(local, &self.machine))));
            }
        }
    }

    pub(super) fn start_workers(&mut self) {
        for (pool, count) in self.pools.to_start() {
            for id in self.pools.misfits(pool, count) {
                self.retire(id);
            }
            for _ in 0..count {
                self.start_worker(pool);
            }
        }
    }

    pub(super) fn start_worker(&mut self, pool: usize) {
        let id = self.next_worker;
        self.next_worker += 1;
        let Pool { name, command, env, .. } = self.pools.get(pool).clone();
        let log = self.dir.join("ranks").join(format!("{name}-{}-{id}.err", std::process::id()));
        let mut variables: Vec<(String, String)> = env.into_iter().collect();
        variables.push(("DEEPRC_RANK_SOCKET".into(), self.socket.display().to_string()));
        variables.push(("DEEPRC_RANK_ID".into(), id.to_string()));
        let program = command.first().map_or("", String::as_str);
        let started = open_log(&log).and_then(|file| {
            spawn(Spawn {
                program,
                arguments: command.get(1..).unwrap_or_default(),
                env: &variables,
                dir: None,
                stdout: file.try_clone()?,
                stderr: file,
                cpus: self.machine.all_cpus(),
            })
        });
        match started {
            Ok(child) => {
                let worker = Worker {
                    pool,
                    pid: child.id().unwrap_or_default(),
                    state: WorkerState::Starting,
                    outgoing: None,
                    bound: None,
                    closed: true,
                    exit: None,
                    log,
                };
                self.pools.workers.insert(id, worker);
                self.watch(child, Process::Worker(id));
            }
            Err(error) => self.start_failed(pool, format!("rank executable `{program}`: {error}"), String::new()),
        }
    }

    /// A worker did not come up: one of the ranks that wait for it fails, and the leader will stop its gang.
    pub(super) fn start_failed(&mut self, pool: usize, message: String, stderr_tail: String) {
        if let Some(seat) = self.pools.start_failed(pool) {
            let end = RankEnd::Failed(Cause::NotStarted { message });
            self.rank_ended_with(seat.gang, seat.local, monotonic(), end, stderr_tail);
        }
    }

    pub(super) fn rank_says(&mut self, id: u64, message: FromRank) {
        let Some(worker) = self.pools.workers.get_mut(&id) else { return };
        let WorkerState::Running(key, local) = worker.state else { return };
        match message {
            FromRank::Hello { .. } => {}
            FromRank::Started { at } => {
                let pid = worker.pid;
                self.report(key, local, at, RankNews::Started { pid });
            }
            FromRank::Connected { at } => self.report(key, local, at, RankNews::Connected),
            FromRank::Progress(value) => self.report(key, local, monotonic(), RankNews::Progress(value)),
            FromRank::Returned { at, value } => {
                worker.state = WorkerState::Idle;
                self.rank_ended(key, local, at, RankEnd::Done(value));
                self.serve_waiting();
            }
            FromRank::Failed { at, message, detail, panicked } => {
                worker.state = WorkerState::Idle;
                if panicked {
                    // Whatever the panic left half done must not meet the next task.
                    self.retire(id);
                }
                self.rank_ended(key, local, at, RankEnd::Failed(Cause::Error { message, detail }));
                self.serve_waiting();
            }
        }
    }

    pub(super) fn retire(&mut self, id: u64) {
        if let Some(worker) = self.pools.workers.get_mut(&id) {
            worker.state = WorkerState::Retired;
            signal(worker.pid, Signal::KILL);
        }
    }

    pub(super) fn worker_exited(&mut self, id: u64, status: io::Result<ExitStatus>) {
        let Some(worker) = self.pools.workers.get_mut(&id) else { return };
        // What it started in its process group ends with it.
        signal(worker.pid, Signal::KILL);
        worker.exit = Some(status.unwrap_or_default());
        if !worker.closed {
            let notes = self.notes.clone();
            tokio::spawn(async move {
                sleep(DRAIN).await;
                let _ = notes.send(Note::Drained { worker: id });
            });
        }
        self.bury(id);
    }

    /// Removes a worker that has exited and whose last message was read.
    pub(super) fn bury(&mut self, id: u64) {
        let exit = match self.pools.workers.get(&id) {
            Some(Worker { closed: true, exit: Some(exit), .. }) => *exit,
            _ => return,
        };
        let Some(worker) = self.pools.workers.remove(&id) else { return };
        match worker.state {
            WorkerState::Starting => {
                let program = self.pools.get(worker.pool).command.join(" ");
                let message = format!("rank executable `{program}` {} before it was ready", cause(exit));
                self.start_failed(worker.pool, message, tail(&worker.log));
            }
            WorkerState::Idle | WorkerState::Retired => {}
            WorkerState::Claimed(key, local) => {
                if let Some(gang) = self.gangs.get_mut(&key) {
                    gang.members[local].worker = None;
                    let gpus = gang.launch.ranks[local].gpus.clone();
                    self.pools.request_again(worker.pool, Seat { gang: key, local, gpus });
                }
            }
            WorkerState::Running(key, local) => {
                let told = self.gangs.get(&key).is_some_and(|gang| gang.members[local].signaled);
                let end = if told { RankEnd::Stopped } else { RankEnd::Failed(cause(exit)) };
                self.rank_ended(key, local, monotonic(), end);
            }
        }
        let _ = fs::remove_file(&worker.log);
        self.serve_waiting();
    }
}
