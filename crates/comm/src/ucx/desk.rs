//! What a process knows of its worker and the other ranks: where everything that ends is sorted.

use std::{
    collections::{BTreeMap, HashMap},
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use bytes::Bytes;

use super::ffi::{Event, Worker};
use crate::{
    Error,
    mailbox::Mailbox,
    network::{Heard, Inbound, Meeting, acknowledge},
};

/// What is received for a frame has at most so many bytes: UCX sends them at once, without a handshake, over every transport it has.
const ROOM: usize = 8 << 10;
/// Sender and number, in front of a frame. They are in the tag as well, but UCX 1.13 does not tell the tag of every message that had
/// come before its receive was posted.
const LABEL: usize = 16;
/// The longest frame.
pub(super) const FRAME: usize = ROOM - LABEL;
/// Receives that are posted for frames, of all ranks together. UCX keeps those that come while all are taken.
const POSTED: usize = 32;

/// The highest bits of a tag.
const FRAMES: u64 = 1 << 62;
const BODIES: u64 = 2 << 62;
/// Below them, 16 bits of what the ranks drew when they met: nobody receives what a rank of another run sends.
const RUN: u32 = 46;
/// Then 16 bits of the sender's rank.
const FROM: u32 = 30;
/// Then the number of the frame or body, from this sender to this receiver.
const NUMBER: u64 = (1 << FROM) - 1;
/// What tells the frames of this run from everything else.
const ANY_FRAME: u64 = !((1 << RUN) - 1);

/// What the threads of a process may look at without the desk.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Frames to a rank that are on their way.
    pub(super) frames: AtomicUsize,
    /// Bodies to a rank that are no more.
    pub(super) bodies: AtomicU64,
    /// The rank has said who it is.
    pub(super) greeted: AtomicBool,
    /// It got everything that this rank sent before it left, or has left itself.
    pub(super) parted: AtomicBool,
    /// Its process has ended, or the connection has.
    pub(super) dead: AtomicBool,
    /// The last flush is over.
    pub(super) flushed: AtomicBool,
}

pub(super) struct Desk {
    rank: usize,
    run: u64,
    /// Dropped before the memory that it writes to.
    worker: Worker,
    posted: Vec<Vec<u8>>,
    /// By ticket.
    jobs: HashMap<u64, Job>,
    tickets: u64,
    /// By rank.
    others: Vec<Other>,
}

/// What an operation was for, and what it needs.
enum Job {
    /// The posted memory.
    ReceiveFrame(usize),
    /// A piece of a message of a rank, with the message's number.
    ReceiveBody(usize, u64),
    SendFrame(usize, #[expect(dead_code, reason = "kept while the worker reads it")] Vec<u8>),
    SendBody(usize, #[expect(dead_code, reason = "kept while the worker reads it")] Bytes),
    Flush,
}

struct Other {
    inbound: Inbound,
    /// The number of the next frame from it, and those that came before their turn.
    next: u64,
    early: BTreeMap<u64, Vec<u8>>,
    /// The number of the next body from it.
    body: u64,
    /// The numbers of the next frame and body to it.
    frames: u64,
    bodies: u64,
    hello: Heard,
    /// Its death was told.
    buried: bool,
}

impl Desk {
    pub(super) fn new(rank: usize, worker: Worker, meeting: &Meeting) -> Self {
        let drawn = meeting.peers.iter().fold(0u64, |all, peer| all.wrapping_mul(31).wrapping_add(peer.drawn));
        let other = |(from, peer): (usize, &crate::network::Peer)| Other {
            inbound: Inbound::new(from),
            next: 0,
            early: BTreeMap::new(),
            body: 0,
            frames: 0,
            bodies: 0,
            hello: Heard::Hello { theirs: peer.drawn, mine: meeting.drawn },
            buried: false,
        };
        let others = meeting.peers.iter().enumerate().map(other).collect();
        let posted = vec![vec![0; ROOM]; POSTED];
        Desk { rank, run: drawn >> 48, worker, posted, jobs: HashMap::new(), tickets: 0, others }
    }

    pub(super) fn worker(&mut self) -> &mut Worker {
        &mut self.worker
    }

    fn tag(&self, kind: u64, from: usize, number: u64) -> u64 {
        kind | self.run << RUN | (from as u64) << FROM | number & NUMBER
    }

    fn ticket(&mut self, job: Job) -> u64 {
        self.tickets += 1;
        self.jobs.insert(self.tickets, job);
        self.tickets
    }

    /// Makes room for all frames.
    pub(super) fn post_all(&mut self) -> Result<(), String> {
        (0..POSTED).try_for_each(|slot| self.post(slot))
    }

    fn post(&mut self, slot: usize) -> Result<(), String> {
        let tag = self.tag(FRAMES, 0, 0);
        let ticket = self.ticket(Job::ReceiveFrame(slot));
        let memory = &mut self.posted[slot];
        // SAFETY: the memory is the desk's, which drops it after the worker and looks at it only when the event has come.
        unsafe { self.worker.receive(tag, ANY_FRAME, memory.as_mut_ptr(), memory.len(), ticket) }
    }

    pub(super) fn send_frame(&mut self, to: usize, frame: &[u8], counts: &[Counts]) -> Result<(), String> {
        let number = self.others[to].frames;
        let frame = [&(self.rank as u64).to_le_bytes(), &number.to_le_bytes(), frame].concat();
        let tag = self.tag(FRAMES, self.rank, number);
        self.others[to].frames += 1;
        counts[to].frames.fetch_add(1, Ordering::SeqCst);
        let bytes = std::ptr::from_ref(frame.as_slice());
        let ticket = self.ticket(Job::SendFrame(to, frame));
        // SAFETY: the job keeps the bytes, in the same place, until the event has come or the worker was dropped.
        unsafe { self.worker.send(to, tag, &*bytes, ticket) }
    }

    pub(super) fn send_body(&mut self, to: usize, body: &Bytes) -> Result<(), String> {
        let tag = self.tag(BODIES, self.rank, self.others[to].bodies);
        self.others[to].bodies += 1;
        let ticket = self.ticket(Job::SendBody(to, body.clone()));
        // SAFETY: the job keeps the bytes until the event has come or the worker was dropped.
        unsafe { self.worker.send(to, tag, body, ticket) }
    }

    /// How many bodies were ever sent to a rank.
    pub(super) fn bodies(&self, to: usize) -> u64 {
        self.others[to].bodies
    }

    pub(super) fn flush(&mut self) -> Result<(), String> {
        let ticket = self.ticket(Job::Flush);
        self.worker.flush(ticket)
    }

    /// Moves bytes and delivers what has come; whether anything happened.
    pub(super) fn turn(&mut self, mailbox: &Mailbox, counts: &[Counts]) -> bool {
        // Looked at before: what a rank sent before its death is then within reach of the worker.
        let dead = |rank: &usize| counts[*rank].dead.load(Ordering::SeqCst) && !self.others[*rank].buried;
        let dead: Vec<usize> = (0..self.others.len()).filter(dead).collect();
        let mut happened = !dead.is_empty();
        while self.worker.progress() {
            happened = true;
            while let Some(event) = self.worker.event() {
                self.sort(event, mailbox, counts);
            }
        }
        for rank in dead {
            self.others[rank].buried = true;
            // Does nothing when the rank has left.
            mailbox.close(rank, Error::PeerDead { rank });
        }
        happened
    }

    fn sort(&mut self, event: Event, mailbox: &Mailbox, counts: &[Counts]) {
        let (ticket, done) = match event {
            Event::Done { ticket } => (ticket, true),
            Event::Failed { ticket } => (ticket, false),
            Event::Ended { rank } => return counts[rank].dead.store(true, Ordering::SeqCst),
        };
        let failed = |rank: usize| counts[rank].dead.store(true, Ordering::SeqCst);
        match self.jobs.remove(&ticket) {
            Some(Job::ReceiveFrame(slot)) => {
                if done {
                    self.frame(slot, mailbox, counts);
                }
                // Fails only when memory is short; the other slots are still there then.
                let _ = self.post(slot);
            }
            Some(Job::ReceiveBody(from, number)) => match done {
                true => {
                    self.others[from].inbound.landed(number);
                    self.deliver(from, mailbox, counts);
                }
                false => failed(from),
            },
            Some(Job::SendFrame(to, _)) => {
                counts[to].frames.fetch_sub(1, Ordering::SeqCst);
                if !done {
                    failed(to);
                }
            }
            Some(Job::SendBody(to, _)) => match done {
                true => _ = counts[to].bodies.fetch_add(1, Ordering::SeqCst),
                false => failed(to),
            },
            Some(Job::Flush) => counts[self.rank].flushed.store(true, Ordering::SeqCst),
            None => {}
        }
    }

    /// A frame has come, perhaps before its turn: UCX keeps the order of small messages only.
    fn frame(&mut self, slot: usize, mailbox: &Mailbox, counts: &[Counts]) {
        // Back in its place before it is posted again.
        let memory = std::mem::take(&mut self.posted[slot]);
        let (label, frame) = memory.split_at(LABEL);
        let [from, number] = [&label[..8], &label[8..]].map(|word| u64::from_le_bytes(word.try_into().expect("half a label")));
        let from = from as usize;
        match self.others.get_mut(from).filter(|_| from != self.rank) {
            Some(other) if other.next == number => {
                other.next += 1;
                self.read(from, frame, mailbox, counts);
            }
            // The frame says itself where it ends.
            Some(other) => _ = other.early.insert(number, frame.to_vec()),
            None => {}
        }
        self.posted[slot] = memory;
        while let Some(other) = self.others.get_mut(from) {
            let Some(frame) = other.early.remove(&other.next) else { return };
            other.next += 1;
            self.read(from, &frame, mailbox, counts);
        }
    }

    fn read(&mut self, from: usize, frame: &[u8], mailbox: &Mailbox, counts: &[Counts]) {
        let other = &mut self.others[from];
        let mut posts = Vec::new();
        let heard = other.inbound.frame(frame, &mut |number, memory| posts.push((number, memory.as_mut_ptr(), memory.len())));
        let first = other.body;
        other.body += posts.len() as u64;
        for (body, (number, memory, length)) in (first..).zip(posts) {
            let tag = self.tag(BODIES, from, body);
            let ticket = self.ticket(Job::ReceiveBody(from, number));
            // SAFETY: `inbound` keeps the memory of a message until all its bodies have landed, and is dropped after the worker.
            if unsafe { self.worker.receive(tag, u64::MAX, memory, length, ticket) }.is_err() {
                counts[from].dead.store(true, Ordering::SeqCst);
            }
        }
        let greeted = counts[from].greeted.load(Ordering::SeqCst);
        match heard {
            Ok(hello @ Heard::Hello { .. }) if !greeted && hello == self.others[from].hello => {
                counts[from].greeted.store(true, Ordering::SeqCst);
            }
            Ok(Heard::Nothing) if greeted => self.deliver(from, mailbox, counts),
            Ok(Heard::Acknowledged) if greeted => counts[from].parted.store(true, Ordering::SeqCst),
            Ok(Heard::Aborted(reason)) if greeted => mailbox.abort(Error::Aborted { rank: from, reason }),
            _ => {
                mailbox.close(from, Error::Corrupt { rank: from });
                counts[from].dead.store(true, Ordering::SeqCst);
            }
        }
    }

    fn deliver(&mut self, from: usize, mailbox: &Mailbox, counts: &[Counts]) {
        if self.others[from].inbound.deliver(mailbox) {
            mailbox.close(from, Error::PeerLeft { rank: from });
            counts[from].parted.store(true, Ordering::SeqCst);
            // A rank that does not get the answer has gone, or waits until its patience ends.
            let _ = self.send_frame(from, &acknowledge(), counts);
        }
    }
}
