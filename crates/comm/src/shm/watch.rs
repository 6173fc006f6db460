//! Notices the death of other processes.

use std::{
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{Builder, JoinHandle},
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open},
};

use super::{process::Process, segment::Segment};
use crate::{Error, Result};

/// A thread that sleeps until a process ends, then marks its rank and rings the doorbell of this one.
pub(super) struct Watch {
    dead: Arc<[AtomicBool]>,
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Watches the processes of all ranks other than `rank`.
    pub(super) fn start(segment: Arc<Segment>, rank: usize) -> Result<Self> {
        let failed = |source: Errno| Error::io("watch the other ranks", source);
        let dead: Arc<[AtomicBool]> = (0..segment.size()).map(|_| AtomicBool::new(false)).collect();
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).map_err(failed)?);
        let own = segment.process(rank);
        let mut watched = Vec::new();
        for peer in 0..segment.size() {
            let process = segment.process(peer);
            if process == own {
                continue;
            }
            match open(process).map_err(failed)? {
                Some(fd) => watched.push((peer, fd)),
                None => dead[peer].store(true, Ordering::SeqCst),
            }
        }
        let thread = Builder::new().name("deeprc-comm-watch".to_owned()).spawn({
            let (dead, stop) = (dead.clone(), stop.clone());
            move || watch(&segment, rank, watched, &dead, &stop)
        });
        let thread = thread.map_err(|error| Error::io("start the thread that watches the other ranks", error))?;
        Ok(Watch { dead, stop, thread: Some(thread) })
    }

    pub(super) fn is_dead(&self, rank: usize) -> bool {
        self.dead[rank].load(Ordering::SeqCst)
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

fn watch(segment: &Segment, rank: usize, mut watched: Vec<(usize, OwnedFd)>, dead: &[AtomicBool], stop: &OwnedFd) {
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
        watched.retain(|(peer, _)| {
            let ended = ended.next().unwrap_or(false);
            if ended {
                dead[*peer].store(true, Ordering::SeqCst);
                segment.ring_doorbell(rank);
            }
            !ended
        });
    }
}
