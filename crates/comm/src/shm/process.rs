//! Which process a pid means: pids are used again, a pid with its start time is not.

use std::{fs, io};

/// A process of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: u32,
    /// Clock ticks from the start of the machine to that of the process.
    pub(super) started: u64,
}

impl Process {
    pub(super) fn current() -> io::Result<Self> {
        let pid = std::process::id();
        let (_, started) = stat(pid)?;
        Ok(Process { pid, started })
    }

    /// Whether it runs. One that ended but was not waited for yet does not.
    pub(super) fn alive(&self) -> bool {
        stat(self.pid).is_ok_and(|(state, started)| started == self.started && !matches!(state, 'Z' | 'X'))
    }
}

/// State and start time from `/proc/<pid>/stat`: fields 3 and 22 (proc(5)).
fn stat(pid: u32) -> io::Result<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Field 2 is the command's name in parentheses and may itself contain both blanks and parentheses.
    let fields: Vec<&str> = text.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace().collect();
    let state = fields.first().and_then(|field| field.chars().next());
    let started = fields.get(19).and_then(|field| field.parse().ok());
    state.zip(started).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::{Process, stat};

    #[test]
    fn a_killed_child_is_dead_before_it_is_waited_for() {
        assert!(Process::current().unwrap().alive());
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let process = Process { pid: child.id(), started: stat(child.id()).unwrap().1 };
        assert!(process.alive());
        assert!(!Process { started: process.started + 1, ..process }.alive());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!process.alive());
    }
}
