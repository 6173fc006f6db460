//! Which process a pid means, and on which host: pids are used again, a pid with its start time is not.

use std::{env, fs, io, sync::OnceLock};

/// Pretends that a process runs on a host of its own, for tests of what happens across hosts.
const PRETEND: &str = "DEEPRC_COMM_HOST";

/// A process of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// Clock ticks from the start of the machine to that of the process.
    pub(crate) started: u64,
}

impl Process {
    pub(crate) fn current() -> io::Result<Self> {
        Process::of(std::process::id())
    }

    /// The process that has this pid now.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let (_, started) = stat(pid)?;
        Ok(Process { pid, started })
    }

    /// Whether it runs. One that ended but was not waited for yet does not.
    pub(crate) fn alive(&self) -> bool {
        stat(self.pid).is_ok_and(|(state, started)| started == self.started && !matches!(state, 'Z' | 'X'))
    }
}

#[cfg_attr(not(any(feature = "gloo", feature = "mpi", feature = "ucx", test)), expect(dead_code, reason = "for network transports"))]
impl Process {
    /// For a store; [`from_bytes`](Process::from_bytes) reads it.
    pub(crate) fn to_bytes(self) -> [u8; 12] {
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&self.pid.to_le_bytes());
        bytes[4..].copy_from_slice(&self.started.to_le_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (pid, started) = bytes.split_at_checked(4)?;
        Some(Process { pid: u32::from_le_bytes(pid.try_into().ok()?), started: u64::from_le_bytes(started.try_into().ok()?) })
    }
}

/// A host as far as its processes can watch each other and share memory: a boot of a machine, and in it a namespace
/// of pids and one of networks. The last is there because containers that share pids but no network have been told apart for
/// a reason; a host too many costs time, a host too few would mistake a stranger's pid for a rank's.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct HostId(String);

impl HostId {
    pub(crate) fn current() -> io::Result<Self> {
        static CURRENT: OnceLock<HostId> = OnceLock::new();
        if let Some(current) = CURRENT.get() {
            return Ok(current.clone());
        }
        HostId::ask().map(|host| CURRENT.get_or_init(|| host).clone())
    }

    /// Whether this host is pretended: then the loopback of another one is as good as any network.
    #[cfg_attr(not(feature = "gloo"), expect(dead_code, reason = "for network transports"))]
    pub(crate) fn is_pretended() -> bool {
        env::var_os(PRETEND).is_some()
    }

    fn ask() -> io::Result<Self> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let space = |name: &str| fs::read_link(format!("/proc/self/ns/{name}")).map(|link| link.to_string_lossy().into_owned());
        let pretended = env::var(PRETEND).unwrap_or_default();
        Ok(HostId(format!("{} {} {} {pretended}", boot.trim(), space("pid")?, space("net")?)))
    }

    /// A number that two hosts have in common only by an unlikely accident (FNV-1a, Fowler, Noll and Vo).
    pub(crate) fn digest(&self) -> u64 {
        self.0.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    }

    /// For a store; [`from_bytes`](HostId::from_bytes) reads it.
    pub(crate) fn to_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        String::from_utf8(bytes.to_vec()).ok().map(HostId)
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

    use super::{HostId, Process};

    #[test]
    fn a_killed_child_is_dead_before_it_is_waited_for() {
        assert!(Process::current().unwrap().alive());
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let process = Process::of(child.id()).unwrap();
        assert_eq!(Process::from_bytes(&process.to_bytes()), Some(process));
        assert!(process.alive());
        assert!(!Process { started: process.started + 1, ..process }.alive());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!process.alive());
    }

    #[test]
    fn a_host_is_known_again() {
        let host = HostId::current().unwrap();
        assert_eq!(HostId::from_bytes(host.to_bytes()).as_ref(), Some(&host));
        assert_eq!(host, HostId::current().unwrap());
    }
}
