//! One process's end of all its ways to the others.

use std::{
    ops::Not,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use super::{
    desk::{Counts, Desk, FRAME},
    ffi::{Bell, Worker},
};
use crate::{
    Error, Rendezvous, Result, Store,
    mailbox::{Address, Mailbox, Pump},
    network::{Outgoing, abort, hello, leave, meet},
    transport::{Deadline, Message},
    turn::Turn,
    watch::Watch,
};

/// Frames that may be on their way to a rank before a sender waits for some to arrive.
const AHEAD: usize = 256;
/// How long a waiting thread asks the worker again and again before it sleeps.
const SPIN: Duration = Duration::from_micros(50);
/// How long a rank that leaves waits until the others have what it sent: those which wait for something answer at once.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long an abort waits until its news is on the way, which needs no waiting unless the way is crowded.
const NEWS: Duration = Duration::from_millis(20);

/// Sends, receives, and moves bytes meanwhile. The fields are dropped in this order.
pub(super) struct Link {
    rank: usize,
    /// To each rank; held for a whole message, whose frames and bodies must not mix with another's.
    lanes: Vec<Turn<()>>,
    _watch: Watch,
    office: Arc<Office>,
}

/// What the threads of a process share, that of the watch included.
struct Office {
    mailbox: Mailbox,
    /// By rank.
    counts: Vec<Counts>,
    /// Locked before the mailbox.
    desk: Mutex<Desk>,
    bell: Bell,
    /// Changes with everything that happens to the mailbox on other ways than the worker.
    rung: AtomicU32,
    /// A thread is about to wait for the bell.
    sleeping: AtomicBool,
}

impl Link {
    pub(super) fn connect(at: &Rendezvous, store: &Store, deadline: Deadline<'_>) -> Result<Self> {
        let mut worker = Worker::open(at.size).map_err(|reason| failed("start".to_owned(), reason))?;
        let meeting = meet(at, store, &worker.address(), deadline)?;
        let office = Arc::new(Office {
            mailbox: Mailbox::new(at.size),
            counts: (0..at.size).map(|_| Counts::default()).collect(),
            bell: worker.bell(),
            desk: Mutex::new(Desk::new(at.rank, worker, &meeting)),
            rung: AtomicU32::new(0),
            sleeping: AtomicBool::new(false),
        });
        let watch = Watch::start(meeting.near(at.rank), {
            let office = office.clone();
            move |rank| {
                office.counts[rank].dead.store(true, Ordering::SeqCst);
                office.ring();
            }
        })?;
        let link = Link { rank: at.rank, lanes: (0..at.size).map(|_| Turn::new(())).collect(), _watch: watch, office };
        {
            let mut desk = link.office.desk();
            desk.post_all().map_err(|reason| failed("receive".to_owned(), reason))?;
            for rank in link.others() {
                let peer = &meeting.peers[rank];
                let reached = desk.worker().connect(rank, &peer.address, peer.process.is_some());
                let greeted = reached.and_then(|()| desk.send_frame(rank, &hello(meeting.drawn, peer.drawn), &link.office.counts));
                greeted.map_err(|reason| failed(format!("connect to rank {rank}"), reason))?;
            }
        }
        for rank in link.others() {
            // Also this rank's own word has to be on the way: nobody may call for a long time now, and only calls move bytes.
            // An abort is for the calls after this one: a rank that has met all others may have come to it already.
            let counts = &link.office.counts[rank];
            link.office.mailbox.wait(rank, deadline, Some(&*link.office), |state| {
                match (
                    counts.greeted.load(Ordering::SeqCst) && counts.frames.load(Ordering::SeqCst) == 0,
                    counts.dead.load(Ordering::SeqCst),
                ) {
                    (true, _) => Some(Ok(())),
                    (false, true) => Some(Err(state.closed(rank).unwrap_or(Error::PeerDead { rank }))),
                    (false, false) => None,
                }
            })?;
        }
        Ok(link)
    }

    fn others(&self) -> impl Iterator<Item = usize> {
        (0..self.lanes.len()).filter(|rank| *rank != self.rank)
    }

    pub(super) fn recv(&self, address: Address, deadline: Deadline<'_>) -> Result<Message> {
        self.office.mailbox.take(address, deadline, Some(&*self.office))
    }

    /// Returns when the memory of all bytes is free again: short messages have then been copied, long ones received.
    pub(super) fn send(&self, to: usize, address: Address, message: Message, deadline: Deadline<'_>) -> Result<()> {
        let mailbox = &self.office.mailbox;
        if to == self.rank {
            mailbox.put(address, message);
            // Another thread of this rank may wait at the worker for just this message.
            self.office.ring();
            return Ok(());
        }
        if let Some(error) = mailbox.closed(to) {
            return Err(error);
        }
        let _held = self.lanes[to].take(to, deadline)?;
        let Outgoing { frames, bodies } = Outgoing::new(address.context, address.tag, &message, FRAME);
        for frame in frames {
            self.wait(to, deadline, |counts| counts.frames.load(Ordering::SeqCst) < AHEAD)?;
            let sent = self.office.desk().send_frame(to, &frame, &self.office.counts);
            sent.or_else(|_| self.broken(to, deadline))?;
        }
        if bodies.is_empty() {
            return Ok(());
        }
        let last = {
            let mut desk = self.office.desk();
            let sent = bodies.iter().try_for_each(|body| desk.send_body(to, body));
            sent.map(|()| desk.bodies(to))
        };
        let last = last.or_else(|_| self.broken(to, deadline).map(|()| 0))?;
        self.wait(to, deadline, |counts| counts.bodies.load(Ordering::SeqCst) >= last)
    }

    pub(super) fn abort(&self, reason: &str) {
        self.office.mailbox.abort(Error::Aborted { rank: self.rank, reason: reason.to_owned() });
        self.office.ring();
        self.tell_all(&abort(reason, FRAME));
        let sent = || self.others().all(|rank| self.office.counts[rank].frames.load(Ordering::SeqCst) == 0);
        self.linger(NEWS, sent);
    }

    pub(super) fn wake(&self) {
        self.office.mailbox.wake_all();
        self.office.ring();
    }

    /// Waits until something holds of a rank, or the rank is gone.
    fn wait(&self, rank: usize, deadline: Deadline<'_>, holds: impl Fn(&Counts) -> bool) -> Result<()> {
        self.office.mailbox.wait(rank, deadline, Some(&*self.office), |state| match holds(&self.office.counts[rank]) {
            true => Some(Ok(())),
            false => state.closed(rank).map(Err),
        })
    }

    /// The error of a way on which UCX sends nothing more.
    fn broken(&self, rank: usize, deadline: Deadline<'_>) -> Result<()> {
        self.office.counts[rank].dead.store(true, Ordering::SeqCst);
        self.wait(rank, deadline, |_| false)
    }

    /// Moves bytes until something holds, but not for long.
    fn linger(&self, longest: Duration, holds: impl Fn() -> bool) {
        let deadline = Deadline::new("leave", longest);
        // Who cannot be reached in time is stopped, busy, or lost with its network.
        let _ = self.office.mailbox.wait(self.rank, deadline, Some(&*self.office), |_| holds().then_some(Ok(())));
    }

    fn tell_all(&self, frame: &[u8]) {
        for rank in self.others().filter(|rank| self.office.counts[*rank].dead.load(Ordering::SeqCst).not()) {
            // Who cannot be told has gone.
            let _ = self.office.desk().send_frame(rank, frame, &self.office.counts);
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if self.office.desk.is_poisoned() {
            return;
        }
        self.tell_all(&leave());
        let parted = |rank: usize| {
            let counts = &self.office.counts[rank];
            counts.dead.load(Ordering::SeqCst) || counts.parted.load(Ordering::SeqCst) && counts.frames.load(Ordering::SeqCst) == 0
        };
        self.linger(FAREWELL, || self.others().all(parted));
        if self.others().all(parted) && self.office.desk().flush().is_ok() {
            self.linger(FAREWELL, || self.office.counts[self.rank].flushed.load(Ordering::SeqCst));
        }
    }
}

impl Office {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the thread that pumps.
    fn ring(&self) {
        self.rung.fetch_add(1, Ordering::SeqCst);
        if self.sleeping.load(Ordering::SeqCst) {
            self.bell.ring();
        }
    }

    /// Sleeps until the worker has something to do, the bell is rung, or the time is over.
    fn sleep(&self, ticket: u32, left: Duration) {
        self.sleeping.store(true, Ordering::SeqCst);
        // In this order: who rings after this look rings the bell.
        if self.rung.load(Ordering::SeqCst) == ticket && self.desk().worker().arm() {
            let descriptor = self.bell.descriptor();
            let timeout = Timespec::try_from(left).ok();
            match poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                // Out of memory: the worker is asked now and then.
                Err(_) => thread::sleep(left.min(Duration::from_millis(1))),
            }
        }
        self.sleeping.store(false, Ordering::SeqCst);
    }
}

impl Pump for Office {
    fn ticket(&self) -> u32 {
        self.rung.load(Ordering::SeqCst)
    }

    fn pump(&self, ticket: u32, deadline: Deadline<'_>) {
        let started = Instant::now();
        loop {
            if self.desk().turn(&self.mailbox, &self.counts) || self.ticket() != ticket {
                return;
            }
            let Some(left) = deadline.left() else { return };
            if started.elapsed() >= SPIN {
                return self.sleep(ticket, left);
            }
            thread::yield_now();
        }
    }
}

fn failed(action: String, reason: String) -> Error {
    Error::Library { library: "UCX", action, reason }
}
