//! The event loop of the agent: everything that happens becomes a [`Note`] and is handled in one place.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::PathBuf,
    process::ExitStatus,
    time::Duration,
};

use futures::{SinkExt, StreamExt};
use rustix::process::Signal;
use serde_json::Value;
use tokio::{
    net::{UnixListener, UnixStream},
    process::Child,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::{sleep, timeout_at},
};
use tokio_util::codec::{FramedRead, FramedWrite};

use super::{
    gang::{Gang, GangKey, open_log},
    pool::{Pools, Seat, Worker, WorkerState},
    spawn::{Spawn, signal, spawn},
};
use crate::{
    Cause, Pool, TaskKind,
    clock::monotonic,
    resources::Machine,
    tail::{cause, tail},
    wire::{FromAgent, FromRank, GRACE, Launch, PROTOCOL, RankEnd, RankNews, ToAgent, ToRank, codec, decode, encode},
};

/// Something that happened.
enum Note {
    Leader(ToAgent),
    LeaderGone,
    /// A warm rank has connected.
    Hello {
        worker: u64,
        outgoing: UnboundedSender<ToRank>,
    },
    Rank {
        worker: u64,
        message: FromRank,
    },
    RankClosed {
        worker: u64,
    },
    Exited {
        process: Process,
        status: io::Result<ExitStatus>,
    },
    /// The time of a gang to end gently is over.
    Grace(GangKey),
    /// A dead worker's connection should have ended by now.
    Drained {
        worker: u64,
    },
}

/// Whose process.
#[derive(Debug, Clone, Copy)]
enum Process {
    Worker(u64),
    /// Of an executable: gang and local rank.
    Rank(GangKey, usize),
}

/// Time between SIGTERM and SIGKILL when everything ends.
const END_GRACE: Duration = Duration::from_millis(500);

/// Time after which processes that survive SIGKILL (in an uninterruptible system call) are left to the kernel.
const END_LIMIT: Duration = Duration::from_secs(3);

/// Time for reading what a dead rank sent last; its children may hold its connection open.
const DRAIN: Duration = Duration::from_millis(200);

struct Daemon {
    machine: Machine,
    dir: PathBuf,
    scratch: PathBuf,
    socket: PathBuf,
    leader: UnboundedSender<FromAgent>,
    notes: UnboundedSender<Note>,
    gangs: BTreeMap<GangKey, Gang>,
    pools: Pools,
    next_worker: u64,
}

/// Serves the leader at the other end of `stream` until it says so or is gone.
pub(super) async fn run(stream: UnixStream) -> io::Result<()> {
    let (reader, writer) = stream.into_split();
    let mut reader = FramedRead::new(reader, codec());
    let (leader, messages) = unbounded_channel();
    tokio::spawn(forward(messages, FramedWrite::new(writer, codec())));
    let hello = FromAgent::Hello { protocol: PROTOCOL, pid: std::process::id() };
    let _ = leader.send(hello);

    let Some(first) = reader.next().await else { return Ok(()) };
    let ToAgent::Configure { dir, scratch, pools } = decode(&first?)? else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the leader speaks another protocol"));
    };
    let (notes, mut inbox) = unbounded_channel();
    let from_leader = notes.clone();
    tokio::spawn(async move {
        while let Some(Ok(frame)) = reader.next().await {
            let Ok(message) = decode(&frame) else { break };
            let _ = from_leader.send(Note::Leader(message));
        }
        let _ = from_leader.send(Note::LeaderGone);
    });

    let socket = scratch.join(format!("ranks-{}.sock", std::process::id()));
    tokio::spawn(accept(UnixListener::bind(&socket)?, notes.clone()));
    fs::create_dir_all(dir.join("ranks"))?;
    let (machine, pools) = (Machine::detect(), Pools::new(pools));
    let gangs = BTreeMap::new();
    let mut daemon = Daemon { machine, dir, scratch, socket, leader, notes, gangs, pools, next_worker: 1 };
    daemon.start_workers();
    let orphaned = loop {
        match inbox.recv().await {
            Some(Note::Leader(ToAgent::Shutdown)) => break false,
            Some(Note::LeaderGone) | None => break true,
            Some(note) => daemon.note(note),
        }
    };
    daemon.end(inbox, orphaned).await;
    Ok(())
}

/// Writes messages to a peer until it is gone.
async fn forward<T: serde::Serialize>(
    mut messages: UnboundedReceiver<T>,
    mut writer: FramedWrite<tokio::net::unix::OwnedWriteHalf, tokio_util::codec::LengthDelimitedCodec>,
) -> io::Result<()> {
    while let Some(message) = messages.recv().await {
        writer.send(encode(&message)?).await?;
    }
    Ok(())
}

/// Takes the connections of warm ranks.
async fn accept(listener: UnixListener, notes: UnboundedSender<Note>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(hear(stream, notes.clone()));
    }
}

/// Reads from one warm rank.
async fn hear(stream: UnixStream, notes: UnboundedSender<Note>) {
    let (reader, writer) = stream.into_split();
    let mut reader = FramedRead::new(reader, codec());
    let Some(Ok(hello)) = reader.next().await else { return };
    // One that speaks another protocol is dropped: it ends, and its start has failed.
    let Ok(FromRank::Hello { protocol: PROTOCOL, worker }) = decode(&hello) else { return };
    let (outgoing, messages) = unbounded_channel();
    let _ = notes.send(Note::Hello { worker, outgoing });
    tokio::spawn(forward(messages, FramedWrite::new(writer, codec())));
    while let Some(Ok(frame)) = reader.next().await {
        let Ok(message) = decode(&frame) else { break };
        let _ = notes.send(Note::Rank { worker, message });
    }
    let _ = notes.send(Note::RankClosed { worker });
}

impl Daemon {
    fn note(&mut self, note: Note) {
        match note {
            Note::Leader(ToAgent::Launch(launch)) => self.launch(*launch),
            Note::Leader(ToAgent::Stop { task, attempt, start_timeout }) => self.stop((task, attempt), start_timeout),
            Note::Leader(ToAgent::Configure { .. } | ToAgent::Shutdown) | Note::LeaderGone => {}
            Note::Hello { worker, outgoing } => {
                self.pools.ready(worker, outgoing);
                self.serve_waiting();
            }
            Note::Rank { worker, message } => self.rank_says(worker, message),
            Note::RankClosed { worker } | Note::Drained { worker } => {
                if let Some(state) = self.pools.workers.get_mut(&worker) {
                    state.closed = true;
                    self.bury(worker);
                }
            }
            Note::Exited { process: Process::Worker(id), status } => self.worker_exited(id, status),
            Note::Exited { process: Process::Rank(key, local), status } => self.rank_exited(key, local, status),
            Note::Grace(key) => self.kill_gang(key),
        }
    }

    fn launch(&mut self, launch: Launch) {
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
    fn pool_of(&self, gang: &Gang) -> Option<usize> {
        match &gang.launch.kind {
            TaskKind::Function { pool, .. } => self.pools.index(pool),
            TaskKind::Executable { .. } => None,
        }
    }

    /// Starts one rank of an executable.
    fn execute(&mut self, key: GangKey, local: usize) {
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

    fn watch(&self, mut child: Child, process: Process) {
        let notes = self.notes.clone();
        tokio::spawn(async move {
            let status = child.wait().await;
            let _ = notes.send(Note::Exited { process, status });
        });
    }

    /// Gives idle workers to those who wait, calls complete gangs, and starts what is missing.
    fn serve_waiting(&mut self) {
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
    fn call(&mut self, key: GangKey) {
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

    fn start_workers(&mut self) {
        for (pool, count) in self.pools.to_start() {
            for id in self.pools.misfits(pool, count) {
                self.retire(id);
            }
            for _ in 0..count {
                self.start_worker(pool);
            }
        }
    }

    fn start_worker(&mut self, pool: usize) {
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
    fn start_failed(&mut self, pool: usize, message: String, stderr_tail: String) {
        if let Some(seat) = self.pools.start_failed(pool) {
            let end = RankEnd::Failed(Cause::NotStarted { message });
            self.rank_ended_with(seat.gang, seat.local, monotonic(), end, stderr_tail);
        }
    }

    fn rank_says(&mut self, id: u64, message: FromRank) {
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

    fn retire(&mut self, id: u64) {
        if let Some(worker) = self.pools.workers.get_mut(&id) {
            worker.state = WorkerState::Retired;
            signal(worker.pid, Signal::KILL);
        }
    }

    fn worker_exited(&mut self, id: u64, status: io::Result<ExitStatus>) {
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
    fn bury(&mut self, id: u64) {
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

    fn rank_exited(&mut self, key: GangKey, local: usize, status: io::Result<ExitStatus>) {
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

    fn rank_ended(&mut self, key: GangKey, local: usize, at: Duration, end: RankEnd) {
        let log = self.gangs.get(&key).map(|gang| gang.log(local, "err"));
        let stderr_tail = match (&end, log) {
            (RankEnd::Done(_), _) | (_, None) => String::new(),
            (_, Some(log)) => tail(&log),
        };
        self.rank_ended_with(key, local, at, end, stderr_tail);
    }

    fn rank_ended_with(&mut self, key: GangKey, local: usize, at: Duration, end: RankEnd, stderr_tail: String) {
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

    fn report(&self, (task, attempt): GangKey, local: usize, at: Duration, news: RankNews) {
        if let Some(gang) = self.gangs.get(&(task, attempt)) {
            let rank = gang.launch.ranks[local].rank;
            // If the leader is gone, a note that says so is in the queue.
            let _ = self.leader.send(FromAgent::Rank { task, attempt, rank, at, news });
        }
    }

    /// Asks what still runs of a gang to end, and ends at once what does not run yet.
    fn stop(&mut self, key: GangKey, start_timeout: bool) {
        let Some(gang) = self.gangs.get_mut(&key) else { return };
        if gang.stopping {
            return;
        }
        gang.stopping = true;
        let pool = match &gang.launch.kind {
            TaskKind::Function { pool, .. } => self.pools.index(pool),
            TaskKind::Executable { .. } => None,
        };
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
        if let Some(pool) = pool {
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

    fn kill_gang(&mut self, key: GangKey) {
        let Some(gang) = self.gangs.get_mut(&key) else { return };
        for member in gang.members.iter_mut().filter(|member| !member.ended) {
            let worker = member.worker.and_then(|id| self.pools.workers.get(&id));
            let Some(pid) = member.pid.or(worker.map(|worker| worker.pid)) else { continue };
            member.signaled = true;
            signal(pid, Signal::KILL);
        }
    }

    /// Ends everything: warm ranks at once, executables after a moment for their own farewell.
    async fn end(mut self, mut inbox: UnboundedReceiver<Note>, orphaned: bool) {
        let mut workers: BTreeMap<u64, u32> =
            self.pools.workers.iter().filter(|(_, w)| w.exit.is_none()).map(|(&id, worker)| (id, worker.pid)).collect();
        let live = |gang: &Gang| {
            let pids = gang.members.iter().enumerate().filter(|(_, member)| !member.ended);
            pids.filter_map(|(local, member)| Some((local, member.pid?))).collect::<Vec<_>>()
        };
        let mut ranks: BTreeMap<(GangKey, usize), u32> = BTreeMap::new();
        for (&key, gang) in &self.gangs {
            ranks.extend(live(gang).into_iter().map(|(local, pid)| ((key, local), pid)));
        }
        workers.values().for_each(|&pid| signal(pid, Signal::KILL));
        ranks.values().for_each(|&pid| signal(pid, Signal::TERM));
        let begin = tokio::time::Instant::now();
        for limit in [END_GRACE, END_LIMIT] {
            while !(workers.is_empty() && ranks.is_empty()) {
                match timeout_at(begin + limit, inbox.recv()).await {
                    Ok(Some(Note::Exited { process: Process::Worker(id), .. })) => {
                        workers.remove(&id).into_iter().for_each(|pid| signal(pid, Signal::KILL));
                    }
                    Ok(Some(Note::Exited { process: Process::Rank(key, local), .. })) => {
                        ranks.remove(&(key, local)).into_iter().for_each(|pid| signal(pid, Signal::KILL));
                    }
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => break,
                }
            }
            ranks.values().for_each(|&pid| signal(pid, Signal::KILL));
        }
        self.gangs.values().for_each(|gang| drop(fs::remove_dir_all(&gang.rendezvous)));
        let _ = fs::remove_file(&self.socket);
        if orphaned {
            let _ = fs::remove_dir_all(&self.scratch);
        }
        self.gangs.clear();
    }
}
