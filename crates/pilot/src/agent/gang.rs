//! The ranks of one attempt on this node.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io,
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{
    TaskId, TaskKind,
    resources::Machine,
    scratch,
    wire::{Launch, Run},
};

/// Task and attempt.
pub(super) type GangKey = (TaskId, u32);

/// A launch and what has become of it.
pub(super) struct Gang {
    pub launch: Launch,
    /// By local rank.
    pub members: Vec<Member>,
    /// It was told to stop.
    pub stopping: bool,
    /// Its functions were called.
    pub running: bool,
    pub rendezvous: PathBuf,
    pub port: u16,
}

/// One rank.
#[derive(Default)]
pub(super) struct Member {
    /// Of an executable.
    pub pid: Option<u32>,
    /// Of a function.
    pub worker: Option<u64>,
    /// We sent a signal, so dying of it is no failure.
    pub signaled: bool,
    pub ended: bool,
}

impl Gang {
    /// Creates directories and chooses a port that is free and not promised to one of `taken`.
    pub(super) fn prepare(launch: Launch, scratch: &Path, taken: &BTreeSet<u16>) -> io::Result<Gang> {
        fs::create_dir_all(&launch.logs)?;
        let rendezvous = scratch::rendezvous(scratch, launch.task, launch.attempt);
        fs::DirBuilder::new().mode(0o700).create(&rendezvous)?;
        let members = launch.ranks.iter().map(|_| Member::default()).collect();
        Ok(Gang { launch, members, stopping: false, running: false, rendezvous, port: free_port(taken)? })
    }

    pub(super) fn key(&self) -> GangKey {
        (self.launch.task, self.launch.attempt)
    }

    /// A log file of a rank, `stream` is `out` or `err`.
    pub(super) fn log(&self, local: usize, stream: &str) -> PathBuf {
        self.launch.logs.join(format!("rank-{}.{stream}", self.launch.ranks[local].rank))
    }

    /// The same, open.
    pub(super) fn open_log(&self, local: usize, stream: &str) -> io::Result<File> {
        open_log(&self.log(local, stream))
    }

    /// The variables of a rank, see [`TaskDescription`](crate::TaskDescription).
    pub(super) fn env(&self, local: usize, machine: &Machine) -> Vec<(String, String)> {
        let launch = &self.launch;
        let rank = &launch.ranks[local];
        let variables = [
            ("RANK", rank.rank.to_string()),
            ("WORLD_SIZE", launch.size.to_string()),
            ("LOCAL_RANK", local.to_string()),
            ("LOCAL_WORLD_SIZE", launch.ranks.len().to_string()),
            ("MASTER_ADDR", Ipv4Addr::LOCALHOST.to_string()),
            ("MASTER_PORT", self.port.to_string()),
            // Gloo otherwise looks up the host name, which need not resolve, or not to an interface of this machine.
            ("GLOO_SOCKET_IFNAME", "lo".to_string()),
            ("DEEPRC_RENDEZVOUS", self.rendezvous.display().to_string()),
            ("DEEPRC_TASK", launch.name.clone()),
            ("DEEPRC_ATTEMPT", launch.attempt.to_string()),
            ("OMP_NUM_THREADS", rank.cores.len().to_string()),
            ("CUDA_VISIBLE_DEVICES", machine.gpus(&rank.gpus).join(",")),
        ];
        let ours = variables.into_iter().map(|(name, value)| (name.to_string(), value));
        let (wins, env) = (|name: &String| launch.env.contains_key(name), launch.env.clone());
        ours.filter(|(name, _)| !wins(name)).chain(env).collect()
    }

    /// The call of a function rank.
    pub(super) fn call(&self, local: usize, machine: &Machine) -> Run {
        let launch = &self.launch;
        let rank = &launch.ranks[local];
        let (function, arguments) = match &launch.kind {
            TaskKind::Function { name, arguments, .. } => (name.clone(), arguments.clone()),
            TaskKind::Executable { program, .. } => (program.clone(), Value::Null),
        };
        Run {
            task: launch.name.clone(),
            attempt: launch.attempt,
            rank: rank.rank,
            size: launch.size,
            local_rank: local as u32,
            function,
            arguments,
            env: self.env(local, machine),
            dir: launch.dir.clone(),
            rendezvous: self.rendezvous.clone(),
            stdout: self.log(local, "out"),
            stderr: self.log(local, "err"),
            cores: machine.cpus(&rank.cores),
            gpus: machine.gpus(&rank.gpus),
        }
    }
}

/// A log file is private, like the session directory. Several processes may append to it.
pub(super) fn open_log(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// A port on which nobody listens. It can be taken by a stranger before rank 0 listens, but not by another gang.
fn free_port(taken: &BTreeSet<u16>) -> io::Result<u16> {
    let mut held = Vec::new();
    loop {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        if !taken.contains(&port) {
            return Ok(port);
        }
        // Keep it, so that the next one is another.
        held.push(listener);
    }
}
