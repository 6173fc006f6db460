//! One process's end of all its rings.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;

use super::{
    direct,
    ring::{self, Consumer, Producer},
    segment::{SeatState, Segment},
};
use crate::{
    Error, Result,
    frame::{self, Assembly, Lent},
    mailbox::{Address, Mailbox, Pump},
    spin::Spin,
    transport::{Deadline, Message},
    turn::Turn,
    watch::Watch,
};

/// Sends, receives, and moves bytes meanwhile.
pub(super) struct Link {
    rank: usize,
    segment: Arc<Segment>,
    mailbox: Mailbox,
    /// The pids of the ranks.
    pids: Vec<u32>,
    /// From each of the others. Held only by the thread that pumps.
    inbound: Mutex<Vec<Inbound>>,
    /// To each rank; none to this one.
    lanes: Vec<Option<Turn<Lane>>>,
    /// How many messages are lent on all lanes, as far as this rank knows.
    lent: AtomicU64,
    watch: Watch,
    /// Before a wait sleeps on the doorbell.
    spin: Spin,
}

struct Inbound {
    from: usize,
    consumer: Consumer,
    assembly: Assembly,
    /// The rank left, died or sent garbage, and all that came before was delivered.
    over: bool,
}

/// The way to one rank. Held for a whole message, whose bytes must not mix with another's.
struct Lane {
    producer: Producer,
    /// What the reader has still to copy, oldest first.
    lent: VecDeque<Vec<Bytes>>,
    /// How many messages were lent before those.
    returned: u64,
    /// Set when a message could not be finished: what is in the ring then makes no sense before its rest.
    broken: Option<Error>,
}

impl Link {
    /// For a rank that has just met the others.
    pub(super) fn new(segment: Arc<Segment>, rank: usize) -> Result<Self> {
        let peers = || (0..segment.size()).filter(|&peer| peer != rank);
        let watched = peers().map(|peer| (peer, segment.process(peer))).collect();
        let doorbell = segment.clone();
        let watch = Watch::start(watched, move |_| doorbell.ring_doorbell(rank)).inspect_err(|_| segment.leave(rank))?;
        let inbound = peers().map(|from| {
            // SAFETY: this rank's seat was claimed by this process alone, and a link is made once for it.
            let consumer = unsafe { Consumer::new(segment.clone(), from, rank) };
            consumer.set_can_lend(direct::wanted() && segment.can_read(from));
            Inbound { from, consumer, assembly: Assembly::default(), over: false }
        });
        let lanes = (0..segment.size()).map(|to| {
            (to != rank).then(|| {
                // SAFETY: as above.
                let producer = unsafe { Producer::new(segment.clone(), rank, to) };
                Turn::new(Lane { producer, lent: VecDeque::new(), returned: 0, broken: None })
            })
        });
        let (inbound, lanes) = (Mutex::new(inbound.collect()), lanes.collect());
        let spin = Spin::among(segment.size());
        let pids = (0..segment.size()).map(|rank| segment.process(rank).pid).collect();
        Ok(Link { rank, mailbox: Mailbox::new(segment.size()), pids, inbound, lanes, lent: AtomicU64::new(0), watch, spin, segment })
    }

    /// Whether all ranks are threads of this process.
    pub(super) fn is_one_process(&self) -> bool {
        (0..self.segment.size()).all(|rank| self.segment.process(rank) == self.segment.process(self.rank))
    }

    pub(super) fn recv(&self, address: Address, deadline: Deadline<'_>) -> Result<Message> {
        self.mailbox.take(address, deadline, Some(self))
    }

    pub(super) fn send(&self, to: usize, address: Address, message: Message, deadline: Deadline<'_>) -> Result<()> {
        let Some(lane) = &self.lanes[to] else {
            self.mailbox.put(address, message);
            // Another thread of this rank may sleep on the doorbell for just this message.
            self.segment.ring_doorbell(self.rank);
            return Ok(());
        };
        if let Some(error) = self.closed(to) {
            return Err(error);
        }
        let mut lane = lane.take(to, deadline)?;
        if let Some(error) = &lane.broken {
            return Err(error.clone());
        }
        self.release(&mut lane);
        let long = message.parts.iter().map(Bytes::len).fold(0, usize::saturating_add) >= self.segment.lend();
        let written = if long && lane.producer.can_lend() {
            let head = frame::lent(address.context, address.tag, &message);
            // Before the reader hears of it: whatever happens then, the buffers are kept.
            lane.lent.push_back(message.parts);
            self.lent.fetch_add(1, Ordering::SeqCst);
            self.write(to, &mut lane.producer, std::iter::once(head.as_slice()), deadline)
        } else {
            let head = frame::head(address.context, address.tag, &message);
            let pieces = std::iter::once(head.as_slice()).chain(message.parts.iter().map(|part| &part[..]));
            self.write(to, &mut lane.producer, pieces, deadline)
        };
        written.inspect_err(|error| lane.broken = Some(error.clone()))
    }

    /// Waits until the others have copied what was lent to them.
    pub(super) fn flush(&self, deadline: Deadline<'_>) -> Result<()> {
        if self.lent.load(Ordering::SeqCst) == 0 {
            return Ok(());
        }
        for (to, lane) in self.lanes.iter().enumerate().filter_map(|(to, lane)| Some((to, lane.as_ref()?))) {
            let mut lane = lane.take(to, deadline)?;
            self.release(&mut lane);
            if lane.lent.is_empty() {
                continue;
            }
            let all = lane.returned + lane.lent.len() as u64;
            let taken = || lane.producer.taken() >= all;
            self.mailbox.wait(to, deadline, Some(self), |state| match (taken(), state.closed(to)) {
                (true, _) => Some(Ok(())),
                (false, Some(error)) => Some(Err(error)),
                (false, None) => None,
            })?;
            self.release(&mut lane);
        }
        Ok(())
    }

    /// Gives up what the reader of a lane has copied.
    fn release(&self, lane: &mut Lane) {
        self.lent.fetch_sub(lane.release(), Ordering::SeqCst);
    }

    pub(super) fn abort(&self, reason: &str) {
        self.segment.abort(self.rank, reason);
    }

    /// Makes the threads of this rank that wait look at their deadlines again.
    pub(super) fn wake(&self) {
        self.segment.ring_doorbell(self.rank);
        self.mailbox.wake_all();
    }

    /// Why nothing can be sent to a rank, also when nobody has pumped since that came about.
    fn closed(&self, to: usize) -> Option<Error> {
        self.mailbox.closed(to).or_else(|| self.aborted()).or_else(|| self.ended(to))
    }

    fn aborted(&self) -> Option<Error> {
        self.segment.aborted().map(|(rank, reason)| Error::Aborted { rank, reason })
    }

    fn ended(&self, rank: usize) -> Option<Error> {
        // In this order: who leaves and then ends has left.
        let dead = self.watch.is_dead(rank);
        match self.segment.state(rank) {
            SeatState::Left => Some(Error::PeerLeft { rank }),
            _ => dead.then_some(Error::PeerDead { rank }),
        }
    }

    fn write<'a>(&self, to: usize, producer: &mut Producer, pieces: impl Iterator<Item = &'a [u8]>, deadline: Deadline<'_>) -> Result<()> {
        for mut rest in pieces {
            while !rest.is_empty() {
                let count = producer.write(rest);
                rest = &rest[count..];
                // The reader is told of a large piece at once, so that both work at the same time; of small ones at the end.
                if count >= EARLY || count == 0 {
                    self.segment.ring_doorbell(to);
                }
                if count == 0 {
                    self.mailbox.wait(to, deadline, Some(self), |state| match state.closed(to) {
                        Some(error) => Some(Err(error)),
                        None => producer.has_room().then_some(Ok(())),
                    })?;
                }
            }
        }
        self.segment.ring_doorbell(to);
        Ok(())
    }

    /// Delivers what a rank sent, then, if so, that there will be no more; whether anything happened.
    fn drain(&self, inbound: &mut Inbound) -> bool {
        if inbound.over {
            return false;
        }
        // Asked before the ring is emptied: what the rank wrote before its end is then in the ring.
        let mut end = self.ended(inbound.from);
        let Inbound { from, consumer, assembly, over } = inbound;
        let (mut garbled, mut lost) = (false, false);
        let any = consumer.read(&mut |bytes| {
            let mut deliver = |context, tag, message| self.mailbox.put(Address { context, from: *from, tag }, message);
            let mut fetch = |into: &mut [u8], pieces: &[Lent]| {
                lost = direct::read(self.pids[*from], into, pieces).is_err() || !ring::take(&self.segment, *from, self.rank);
                !lost
            };
            garbled = garbled || assembly.feed_lent(bytes, &mut fetch, &mut deliver).is_err();
        });
        if lost {
            // The sender ended, or gave up before this rank came to read: either way there is no such message.
            end = end.or_else(|| self.ended(*from)).or(Some(Error::PeerDead { rank: *from }));
        } else if garbled {
            end = Some(Error::Corrupt { rank: *from });
        }
        *over = end.is_some();
        if let Some(error) = end {
            self.mailbox.close(*from, error);
        }
        any || *over
    }
}

impl Lane {
    /// Gives up what the reader has copied; how many messages.
    fn release(&mut self) -> u64 {
        let taken = self.producer.taken().saturating_sub(self.returned).min(self.lent.len() as u64);
        self.lent.drain(..taken as usize);
        self.returned += taken;
        taken
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.release();
        if !self.lent.is_empty() {
            self.producer.revoke();
        }
    }
}

/// How many bytes are worth a wake-up of their own.
const EARLY: usize = 4096;

impl Pump for Link {
    fn ticket(&self) -> u32 {
        self.segment.doorbell(self.rank)
    }

    fn pump(&self, ticket: u32, deadline: Deadline<'_>) {
        let mut inbound = self.inbound.lock().unwrap_or_else(PoisonError::into_inner);
        let mut happened = false;
        for inbound in inbound.iter_mut() {
            happened |= self.drain(inbound);
        }
        if let Some(error) = self.aborted() {
            self.mailbox.abort(error);
            happened = true;
        }
        if let (false, Some(left)) = (happened, deadline.left())
            && !self.spin.until(|| self.segment.doorbell(self.rank) != ticket)
        {
            self.segment.sleep(self.rank, ticket, left);
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.segment.leave(self.rank);
    }
}
