//! What a test may leave behind: processes and files.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

const PLACES: [&str; 1] = ["/dev/shm"];
/// Foreign libraries end some of their processes shortly after the job.
const PATIENCE: Duration = Duration::from_secs(5);

/// The files where transports put theirs.
pub(crate) fn look() -> BTreeSet<PathBuf> {
    PLACES.iter().filter_map(|place| fs::read_dir(place).ok()).flatten().map(|entry| entry.unwrap().path()).collect()
}

/// Everything that was not there before, and processes with our mark; those are ended.
pub(crate) fn left_behind(before: &BTreeSet<PathBuf>, own: &Path, mark: &str) -> Vec<String> {
    let mut found: Vec<String> = processes_after(mark, PATIENCE).into_iter().map(|(pid, name)| format!("process {pid} ({name})")).collect();
    found.extend(look().into_iter().filter(|path| !before.contains(path) && path != own).map(|path| path.display().to_string()));
    found
}

/// The processes with our mark that are still there after a time; they are ended.
pub(crate) fn processes_after(mark: &str, patience: Duration) -> Vec<(i32, String)> {
    let started = Instant::now();
    let mut found = processes(mark);
    while !found.is_empty() && started.elapsed() < patience {
        std::thread::yield_now();
        found = processes(mark);
    }
    for (pid, _) in &found {
        if let Some(pid) = Pid::from_raw(*pid) {
            // It may have ended by itself in this moment.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    found
}

/// The processes with our mark in their environment, except this one.
fn processes(mark: &str) -> Vec<(i32, String)> {
    let me = std::process::id() as i32;
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let marked = |pid: &i32| {
        // Processes may vanish meanwhile; the environment of a zombie is empty.
        fs::read(format!("/proc/{pid}/environ"))
            .is_ok_and(|environment| environment.split(|&byte| byte == 0).any(|variable| variable == mark.as_bytes()))
    };
    let name = |pid: i32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned();
    pids.filter(|&pid| pid != me).filter(marked).map(|pid| (pid, name(pid))).collect()
}
