//! The event loop of the agent: everything that happens becomes a [`Note`] and is handled in one place.

use std::{collections::BTreeMap, fs, io, path::PathBuf, process::ExitStatus, time::Duration};

use futures::{SinkExt, StreamExt};
use rustix::process::Signal;
use tokio::{
    net::{UnixListener, UnixStream},
    process::Child,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::timeout_at,
};
use tokio_util::codec::{FramedRead, FramedWrite};

use super::{
    gang::{Gang, GangKey},
    pool::Pools,
    spawn::signal,
};
use crate::{
    resources::Machine,
    wire::{FromAgent, FromRank, PROTOCOL, ToAgent, ToRank, codec, decode, encode},
};

/// Something that happened.
pub(super) enum Note {
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
pub(super) enum Process {
    Worker(u64),
    /// Of an executable: gang and local rank.
    Rank(GangKey, usize),
}

/// Time between SIGTERM and SIGKILL when everything ends.
const END_GRACE: Duration = Duration::from_millis(500);

/// Time after which processes that survive SIGKILL (in an uninterruptible system call) are left to the kernel.
const END_LIMIT: Duration = Duration::from_secs(3);

/// Time for reading what a dead rank sent last; its children may hold its connection open.
pub(super) const DRAIN: Duration = Duration::from_millis(200);

/// What the agent knows. Its methods are in `launch.rs` (gangs) and `warm.rs` (workers).
pub(super) struct Daemon {
    pub(super) machine: Machine,
    pub(super) dir: PathBuf,
    pub(super) scratch: PathBuf,
    pub(super) socket: PathBuf,
    pub(super) leader: UnboundedSender<FromAgent>,
    pub(super) notes: UnboundedSender<Note>,
    pub(super) gangs: BTreeMap<GangKey, Gang>,
    pub(super) pools: Pools,
    pub(super) next_worker: u64,
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

    pub(super) fn watch(&self, mut child: Child, process: Process) {
        let notes = self.notes.clone();
        tokio::spawn(async move {
            let status = child.wait().await;
            let _ = notes.send(Note::Exited { process, status });
        });
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
