//! Starting and signalling processes.

use std::{
    fs::File,
    io,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
};

use rustix::{
    process::{Pid, Signal, getpid, getppid, kill_process_group, set_parent_process_death_signal, setsid},
    thread::{CpuSet, sched_setaffinity},
};

/// What a process is started with.
pub(super) struct Spawn<'a> {
    pub program: &'a str,
    pub arguments: &'a [String],
    /// Added to the agent's own environment.
    pub env: &'a [(String, String)],
    pub dir: Option<&'a Path>,
    pub stdout: File,
    pub stderr: File,
    /// CPU numbers.
    pub cpus: &'a [u32],
}

/// Starts it in a session and process group of its own, pinned to its CPUs, to be killed when this thread ends.
pub(super) fn spawn(spawn: Spawn<'_>) -> io::Result<tokio::process::Child> {
    let mut cpus = CpuSet::new();
    spawn.cpus.iter().for_each(|&cpu| cpus.set(cpu as usize));
    let agent = getpid();

    let mut command = Command::new(spawn.program);
    command.args(spawn.arguments).envs(spawn.env.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::null()).stdout(spawn.stdout).stderr(spawn.stderr);
    if let Some(dir) = spawn.dir {
        command.current_dir(dir);
    }
    let prepare = move || {
        setsid()?;
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // If the agent died before the line above, nobody would send the signal.
        if getppid() != Some(agent) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        // A CPU may have been taken from us since the session started: then any will do.
        let _ = sched_setaffinity(None, &cpus);
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe calls are allowed. `prepare` makes four system calls
    // through rustix, which neither allocate nor lock; its error is built from a constant.
    unsafe { command.pre_exec(prepare) };
    tokio::process::Command::from(command).spawn()
}

/// Sends a signal to a process of ours and to everything that it started in its process group.
pub(super) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid as i32) {
        // It may have ended just now.
        let _ = kill_process_group(pid, signal);
    }
}
