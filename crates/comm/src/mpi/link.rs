//! One process's end of its ways to all others.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    library::Group,
    traffic::{Event, Notice, Outgoing, Traffic},
    world::World,
};
use crate::{
    Error, Result, frame,
    idle::Idle,
    mailbox::{Address, Mailbox, Pump},
    process::{HostId, Process},
    transport::{Deadline, Message},
    watch::Watch,
};

/// How long a rank that aborts or leaves waits until its word is on its way.
const LAST_WORD: Duration = Duration::from_millis(200);

/// Sends, receives, and moves transfers meanwhile.
pub(super) struct Link {
    world: &'static World,
    mailbox: Mailbox,
    traffic: Mutex<Option<Traffic>>,
    /// What MPI has still to read, and for whom.
    unread: Mutex<Vec<(usize, Arc<Outgoing>)>>,
    bell: Arc<Bell>,
    /// Notices the deaths of the ranks on this host.
    watch: Option<Watch>,
    /// The others have been told that this rank leaves.
    left: AtomicBool,
}

/// Ends the pause of the thread that pumps.
#[derive(Default)]
struct Bell {
    count: AtomicU32,
    /// A rank died since this was last looked at.
    death: AtomicBool,
}

impl Bell {
    fn ring(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
    }
}

impl Link {
    /// Meets the others: they are there, and of the same build.
    pub(super) fn meet(world: &'static World, group: Group, deadline: Deadline<'_>) -> Result<Arc<Self>> {
        let (traffic, bell) = (Mutex::new(Some(Traffic::new(group, world.rank, world.size))), Arc::new(Bell::default()));
        let (mailbox, unread, left) = (Mailbox::new(world.size), Mutex::default(), AtomicBool::new(false));
        let mut link = Link { world, mailbox, traffic, unread, bell, watch: None, left };
        let hellos = link.greet(deadline)?;
        link.watch = Some(link.watch(&hellos)?);
        Ok(Arc::new(link))
    }

    /// Tells the others who this is, and hears it from them: rank, host and process.
    fn greet(&self, deadline: Deadline<'_>) -> Result<Vec<(usize, Vec<u8>)>> {
        let (process, host) = identity()?;
        let mine = [process.to_bytes().as_slice(), host.to_bytes()].concat();
        let others = (0..self.world.size).filter(|&rank| rank != self.world.rank);
        for to in others.clone() {
            self.with(|traffic| traffic.tell(to, Notice::Hello(&mine)))?;
        }
        let (mut hellos, mut idle) = (Vec::new(), Idle::default());
        while hellos.len() + 1 < self.world.size {
            let mut garbled = None;
            let any = self.with(|traffic| {
                traffic.poll(&mut |from, event| match event {
                    Event::Hello(process) => hellos.push((from, process)),
                    Event::Garbled => garbled = Some(Error::Corrupt { rank: from }),
                    // Who knows all others sooner goes on sooner, and may even be done: the calls to come will say so.
                    event => self.deliver(from, event),
                })
            })?;
            if let Some(error) = garbled {
                return Err(error);
            }
            if !any {
                let missing = others.clone().find(|rank| hellos.iter().all(|(from, _)| from != rank));
                idle.pause(deadline.remaining(missing)?);
            }
        }
        Ok(hellos)
    }

    fn watch(&self, hellos: &[(usize, Vec<u8>)]) -> Result<Watch> {
        let (own, here) = identity()?;
        let mut peers = Vec::new();
        for (rank, hello) in hellos {
            let (process, host) = hello.split_at_checked(own.to_bytes().len()).ok_or(Error::Corrupt { rank: *rank })?;
            let (process, host) = Process::from_bytes(process).zip(HostId::from_bytes(host)).ok_or(Error::Corrupt { rank: *rank })?;
            if host == here {
                peers.push((*rank, process));
            }
        }
        let bell = self.bell.clone();
        Watch::start(peers, move |_| {
            bell.death.store(true, Ordering::SeqCst);
            bell.ring();
        })
    }

    pub(super) fn recv(&self, address: Address, deadline: Deadline<'_>) -> Result<Message> {
        self.note(self.mailbox.take(address, deadline, Some(self)))
    }

    pub(super) fn send(&self, to: usize, address: Address, message: Message) -> Result<()> {
        if to == self.world.rank {
            self.mailbox.put(address, message);
            // Another thread of this rank may be pumping for just this message.
            self.bell.ring();
            return Ok(());
        }
        // What the others said meanwhile may forbid it.
        self.poll();
        if let Some(error) = self.mailbox.closed(to) {
            return Err(error);
        }
        let head = frame::head(address.context, address.tag, &message);
        let out = self.with(|traffic| traffic.post(to, head, message.parts))?;
        if !out.done() {
            // Not waited for here, so that the next message is under way with this one.
            self.unread().push((to, out));
        }
        Ok(())
    }

    /// Waits until MPI has read all that was sent.
    pub(super) fn flush(&self, deadline: Deadline<'_>) -> Result<()> {
        loop {
            let mut unread = self.unread();
            unread.retain(|(_, out)| !out.done());
            let Some((to, out)) = unread.first().cloned() else { return Ok(()) };
            drop(unread);
            let flushed = self.mailbox.wait(to, deadline, Some(self), |state| {
                // In this order: what MPI has taken was sent, whatever became of the receiver.
                if out.done() { Some(Ok(())) } else { state.closed(to).map(Err) }
            });
            if flushed.is_err() {
                // The next flush is not about this message any more; its traffic keeps it.
                self.unread().retain(|(_, other)| !Arc::ptr_eq(other, &out));
            }
            self.note(flushed)?;
        }
    }

    fn unread(&self) -> MutexGuard<'_, Vec<(usize, Arc<Outgoing>)>> {
        self.unread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn abort(&self, reason: &str) {
        if matches!(self.mailbox.closed(self.world.rank), Some(Error::Aborted { .. })) {
            return;
        }
        self.mailbox.abort(Error::Aborted { rank: self.world.rank, reason: reason.to_owned() });
        self.bell.ring();
        self.world.failed();
        self.tell_all(Notice::Abort(reason));
    }

    /// Tells the others that this rank leaves; they go on to receive what it sent before.
    pub(super) fn leave(&self) {
        if !self.left.swap(true, Ordering::SeqCst) {
            self.tell_all(Notice::Left);
        }
    }

    /// Whether the others have left, too. What they send until then is dropped.
    pub(super) fn is_settled(&self) -> bool {
        self.with(Traffic::settle).unwrap_or(false)
    }

    /// Makes the waiting threads look at their deadlines.
    pub(super) fn wake(&self) {
        self.bell.ring();
        self.mailbox.wake_all();
    }

    /// Sends a notice to all who may still be there, and waits a little until it is on its way.
    fn tell_all(&self, notice: Notice<'_>) {
        let others = (0..self.world.size).filter(|&rank| rank != self.world.rank);
        let post = |to| self.with(|traffic| traffic.tell(to, notice)).ok();
        let told: Vec<Arc<Outgoing>> = others.filter_map(post).collect();
        let (started, mut idle) = (Instant::now(), Idle::default());
        while !told.iter().all(|out| out.done())
            && let Some(left) = LAST_WORD.checked_sub(started.elapsed())
        {
            if !self.poll() {
                idle.pause(left);
            }
        }
    }

    /// Delivers what came in; whether anything happened.
    fn poll(&self) -> bool {
        // Asked before: what a rank sent before its death is then among what comes in.
        let death = self.bell.death.swap(false, Ordering::SeqCst);
        let any = self.with(|traffic| traffic.poll(&mut |from, event| self.deliver(from, event)));
        match any {
            Ok(true) => {
                if death {
                    self.bell.death.store(true, Ordering::SeqCst);
                }
                true
            }
            Ok(false) => {
                if let (true, Some(watch)) = (death, &self.watch) {
                    let dead = (0..self.world.size).filter(|&rank| watch.is_dead(rank));
                    dead.for_each(|rank| self.mailbox.close(rank, Error::PeerDead { rank }));
                    self.world.failed();
                }
                death
            }
            Err(error) => {
                self.world.failed();
                self.mailbox.abort(error);
                true
            }
        }
    }

    /// Puts an event where the waiting threads look.
    fn deliver(&self, from: usize, event: Event) {
        match event {
            Event::Message { context, tag, message } => self.mailbox.put(Address { context, from, tag }, message),
            Event::Left => self.mailbox.close(from, Error::PeerLeft { rank: from }),
            Event::Garbled | Event::Hello(_) => self.mailbox.close(from, Error::Corrupt { rank: from }),
            Event::Abort(reason) => {
                self.world.failed();
                self.mailbox.abort(Error::Aborted { rank: from, reason });
            }
        }
    }

    /// A call that failed leaves the ranks in different states; then the process does not wait long for the others at its end.
    fn note<R>(&self, result: Result<R>) -> Result<R> {
        result.inspect_err(|_| self.world.failed())
    }

    fn with<R>(&self, call: impl FnOnce(&mut Traffic) -> Result<R>) -> Result<R> {
        call(self.traffic().as_mut().expect("only the end of the link takes it"))
    }

    fn traffic(&self) -> MutexGuard<'_, Option<Traffic>> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// This process and its host.
fn identity() -> Result<(Process, HostId)> {
    let process = Process::current().map_err(|error| Error::io("read /proc/self/stat", error))?;
    let host = HostId::current().map_err(|error| Error::io("read /proc/sys/kernel/random/boot_id and /proc/self/ns", error))?;
    Ok((process, host))
}

impl Pump for Link {
    fn ticket(&self) -> u32 {
        self.bell.count.load(Ordering::SeqCst)
    }

    fn pump(&self, ticket: u32, deadline: Deadline<'_>) {
        let mut idle = Idle::default();
        while !self.poll() && self.ticket() == ticket {
            let Ok(left) = deadline.remaining(None) else { return };
            idle.pause(left);
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.leave();
        if let Some(traffic) = self.traffic().take() {
            self.world.settle(traffic);
        }
    }
}
