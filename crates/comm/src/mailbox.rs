//! The messages that have reached a rank and wait for their `recv`.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use crate::{
    Error, Result,
    spin::Spin,
    transport::{Deadline, Message, Tag},
};

/// Where a message is put and looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Address {
    /// The communicator: 0 is the first, splits have numbers of their own.
    pub(crate) context: u64,
    /// The sender's rank in the first communicator.
    pub(crate) from: usize,
    pub(crate) tag: Tag,
}

/// Something that has to be run by a waiting thread so that messages arrive, for want of a sender in this process.
pub(crate) trait Pump {
    /// Taken before the waiter looks whether it has what it wants.
    fn ticket(&self) -> u32;
    /// Delivers what is there. If that is nothing, sleeps until something happens after `ticket` was taken, or the deadline.
    fn pump(&self, ticket: u32, deadline: Deadline<'_>);
}

/// One per rank. A waiting thread either sleeps until another one delivers, or, with a [`Pump`], one of the waiting
/// threads pumps for all of them and hands the pump on when it has what it came for.
#[derive(Debug)]
pub(crate) struct Mailbox {
    state: Mutex<State>,
    changed: Condvar,
    /// Another one after every change, for those who spin.
    changes: AtomicU32,
    /// Before a wait sleeps here.
    spin: Spin,
}

/// Guarded by the mailbox's lock.
#[derive(Debug)]
pub(crate) struct State {
    queues: HashMap<Address, VecDeque<Message>>,
    aborted: Option<Error>,
    /// Why a rank sends and receives no more, by rank.
    gone: Vec<Option<Error>>,
    sleeping: usize,
    pumping: bool,
}

impl State {
    /// The next message at an address, or why there will be none.
    pub(crate) fn take(&mut self, address: &Address) -> Option<Result<Message>> {
        if let Some(error) = &self.aborted {
            return Some(Err(error.clone()));
        }
        if let Some(queue) = self.queues.get_mut(address) {
            let message = queue.pop_front();
            if queue.is_empty() {
                self.queues.remove(address);
            }
            return message.map(Ok);
        }
        self.gone[address.from].clone().map(Err)
    }

    /// Why nothing can be sent to a rank.
    pub(crate) fn closed(&self, to: usize) -> Option<Error> {
        self.aborted.clone().or_else(|| self.gone[to].clone())
    }
}

impl Mailbox {
    pub(crate) fn new(size: usize) -> Self {
        Mailbox::spinning(size, Spin::NONE)
    }

    /// One whose waits spin before they sleep.
    pub(crate) fn spinning(size: usize, spin: Spin) -> Self {
        let state = State { queues: HashMap::new(), aborted: None, gone: vec![None; size], sleeping: 0, pumping: false };
        Mailbox { state: Mutex::new(state), changed: Condvar::new(), changes: AtomicU32::new(0), spin }
    }

    pub(crate) fn put(&self, address: Address, message: Message) {
        self.change(|state| state.queues.entry(address).or_default().push_back(message));
    }

    /// Ends all waits; the first reason stays.
    pub(crate) fn abort(&self, error: Error) {
        self.change(|state| _ = state.aborted.get_or_insert(error));
    }

    /// Ends the waits for a rank; the first reason stays.
    pub(crate) fn close(&self, rank: usize, error: Error) {
        self.change(|state| _ = state.gone[rank].get_or_insert(error));
    }

    /// Why nothing can be sent to a rank.
    pub(crate) fn closed(&self, to: usize) -> Option<Error> {
        self.lock().closed(to)
    }

    /// Makes all who sleep here look again, also at their deadlines.
    pub(crate) fn wake_all(&self) {
        self.change(|_| ());
    }

    /// Waits for the next message at an address.
    pub(crate) fn take(&self, address: Address, deadline: Deadline<'_>, pump: Option<&dyn Pump>) -> Result<Message> {
        self.wait(address.from, deadline, pump, |state| state.take(&address))
    }

    /// Waits until `ready` answers. It is asked again after every change.
    pub(crate) fn wait<R>(
        &self,
        peer: usize,
        deadline: Deadline<'_>,
        pump: Option<&dyn Pump>,
        mut ready: impl FnMut(&mut State) -> Option<Result<R>>,
    ) -> Result<R> {
        let mut state = self.lock();
        let mut spun = false;
        loop {
            let ticket = pump.map(Pump::ticket);
            if let Some(answer) = ready(&mut state) {
                return answer;
            }
            let left = deadline.remaining(peer)?;
            match (pump, ticket) {
                (Some(pump), Some(ticket)) if !state.pumping => {
                    state.pumping = true;
                    drop(state);
                    pump.pump(ticket, deadline);
                    state = self.lock();
                    state.pumping = false;
                    self.wake(&state);
                }
                _ if !spun => {
                    // With the lock held nothing can happen.
                    let seen = self.changes.load(Ordering::Relaxed);
                    drop(state);
                    spun = !self.spin.until(|| self.changes.load(Ordering::Relaxed) != seen);
                    state = self.lock();
                }
                _ => {
                    spun = false;
                    state.sleeping += 1;
                    state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
                    state.sleeping -= 1;
                }
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        self.changes.fetch_add(1, Ordering::Relaxed);
        self.wake(&state);
    }

    fn wake(&self, state: &State) {
        if state.sleeping > 0 {
            self.changed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
