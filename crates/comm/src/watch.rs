//! Notices the death of other processes of this host.

use std::{
    collections::BTreeSet,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
    thread::{Builder, JoinHandle},
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open},
};

use crate::{Error, Result, process::Process};

/// A thread that sleeps until one of some processes ends, then marks its rank and says so.
pub(crate) struct Watch {
    dead: Arc<Mutex<BTreeSet<usize>>>,
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Watches the processes of these ranks, which must be of this host (see [`HostId`](crate::process::HostId)); ranks that are
    /// threads of this very process are left out. `on_death` is called once for each rank that ends, on the watching
    /// thread, after [`is_dead`](Watch::is_dead) says so; also for those that have ended before.
    pub(crate) fn start(peers: Vec<(usize, Process)>, on_death: impl Fn(usize) + Send + 'static) -> Result<Self> {
        let failed = |source: Errno| Error::io("watch the other ranks", source);
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).map_err(failed)?);
        let own = Process::current().map_err(|error| Error::io("read /proc/self/stat", error))?;
        let mut ended = BTreeSet::new();
        let mut watched = Vec::new();
        for (rank, process) in peers.into_iter().filter(|(_, process)| *process != own) {
            match open(process).map_err(failed)? {
                Some(fd) => watched.push((rank, fd)),
                None => _ = ended.insert(rank),
            }
        }
        let dead = Arc::new(Mutex::new(ended.clone()));
        let thread = Builder::new().name("deeprc-comm-watch".to_owned()).spawn({
            let (dead, stop) = (dead.clone(), stop.clone());
            move || {
                ended.into_iter().for_each(&on_death);
                watch(watched, &stop, |rank| {
                    dead.lock().unwrap_or_else(PoisonError::into_inner).insert(rank);
                    on_death(rank);
                });
            }
        });
        let thread = thread.map_err(|error| Error::io("start the thread that watches the other ranks", error))?;
        Ok(Watch { dead, stop, thread: Some(thread) })
    }

    pub(crate) fn is_dead(&self, rank: usize) -> bool {
        self.dead.lock().unwrap_or_else(PoisonError::into_inner).contains(&rank)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Fails only when the counter is full, and then the thread wakes as well.
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A handle that becomes readable when the process ends; `None` if it has.
fn open(process: Process) -> Result<Option<OwnedFd>, Errno> {
    let Some(pid) = i32::try_from(process.pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
    match pidfd_open(pid, PidfdFlags::empty()) {
        // Looked up after the handle was opened: if the pid means another process by now, ours has ended.
        Ok(fd) => Ok(process.alive().then_some(fd)),
        Err(Errno::SRCH) => Ok(None),
        Err(error) => Err(error),
    }
}

fn watch(mut watched: Vec<(usize, OwnedFd)>, stop: &OwnedFd, died: impl Fn(usize)) {
    loop {
        let mut events: Vec<PollFd<'_>> =
            watched.iter().map(|(_, fd)| fd.as_fd()).chain([stop.as_fd()]).map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        match poll(&mut events, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            // Out of memory: deaths then show as time-outs.
            Err(_) => return,
        }
        let ended: Vec<bool> = events.iter().map(|event| !event.revents().is_empty()).collect();
        if ended.last() == Some(&true) {
            return;
        }
        let mut ended = ended.into_iter();
        watched.retain(|(rank, _)| {
            let ended = ended.next().unwrap_or(false);
            if ended {
                died(*rank);
            }
            !ended
        });
    }
}

#[cfg(test)]
mod tests {
    use std::{
        process::{Command, Stdio},
        sync::mpsc,
        time::Duration,
    };

    use super::Watch;
    use crate::process::Process;

    #[test]
    fn a_death_is_told_once_and_this_process_is_not_watched() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let process = Process::of(child.id()).unwrap();
        let (tell, told) = mpsc::channel();
        let start = || {
            let tell = tell.clone();
            Watch::start(vec![(3, process), (4, Process::current().unwrap())], move |rank| tell.send(rank).unwrap()).unwrap()
        };
        let watch = start();
        assert!(!watch.is_dead(3));
        child.kill().unwrap();
        assert_eq!(told.recv_timeout(Duration::from_secs(60)), Ok(3));
        assert!(watch.is_dead(3) && !watch.is_dead(4));
        drop(watch);
        child.wait().unwrap();
        // One that had ended before.
        let watch = start();
        assert!(watch.is_dead(3));
        assert_eq!(told.recv_timeout(Duration::from_secs(60)), Ok(3));
        drop(watch);
        assert!(told.try_recv().is_err());
    }
}
