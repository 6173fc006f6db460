//! Ranks that are threads of one process: messages pass by reference.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    Error, Result,
    mailbox::{Address, Mailbox},
    spin::Spin,
    transport::{Deadline, Message, Tag, Transport},
};

/// A rank among threads.
#[derive(Debug)]
pub(crate) struct Threads {
    /// This rank in `members`.
    rank: usize,
    /// The ranks of the first communicator that belong to this one.
    members: Arc<[usize]>,
    context: u64,
    seat: Arc<Seat>,
}

/// A rank's place in the first communicator, shared by all its subgroups.
#[derive(Debug)]
struct Seat {
    rank: usize,
    mailboxes: Arc<[Mailbox]>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        for mailbox in self.mailboxes.iter() {
            mailbox.close(self.rank, Error::PeerLeft { rank: self.rank });
        }
    }
}

impl Threads {
    /// One transport for each of `size` threads.
    pub(crate) fn group(size: usize) -> Vec<Threads> {
        let spin = Spin::among(size);
        let mailboxes: Arc<[Mailbox]> = (0..size).map(|_| Mailbox::spinning(size, spin)).collect();
        let members: Arc<[usize]> = (0..size).collect();
        (0..size)
            .map(|rank| Threads { rank, members: members.clone(), context: 0, seat: Arc::new(Seat { rank, mailboxes: mailboxes.clone() }) })
            .collect()
    }

    /// The transport of one of `size` threads that meet at a place; `None` when somebody has taken that rank there before. When
    /// all have taken theirs the place is free again.
    pub(crate) fn take(place: &str, rank: usize, size: usize) -> Option<Threads> {
        static PLACES: Mutex<Option<HashMap<String, Vec<Option<Threads>>>>> = Mutex::new(None);
        let mut places = PLACES.lock().unwrap_or_else(PoisonError::into_inner);
        let places = places.get_or_insert_default();
        let seats = places.entry(place.to_owned()).or_insert_with(|| Threads::group(size).into_iter().map(Some).collect());
        let taken = seats.get_mut(rank)?.take();
        if seats.iter().all(Option::is_none) {
            places.remove(place);
        }
        taken
    }

    fn mailbox(&self) -> &Mailbox {
        &self.seat.mailboxes[self.seat.rank]
    }
}

impl Transport for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.members.len()
    }

    fn send(&self, to: usize, tag: Tag, message: Message, _deadline: Deadline<'_>) -> Result<()> {
        let to = self.members[to];
        if let Some(error) = self.mailbox().closed(to) {
            return Err(error);
        }
        self.seat.mailboxes[to].put(Address { context: self.context, from: self.seat.rank, tag }, message);
        Ok(())
    }

    fn recv(&self, from: usize, tag: Tag, deadline: Deadline<'_>) -> Result<Message> {
        let address = Address { context: self.context, from: self.members[from], tag };
        self.mailbox().take(address, deadline, None)
    }

    fn subgroup(&self, ranks: &[usize], context: u64, _deadline: Deadline<'_>) -> Result<Arc<dyn Transport>> {
        let rank = ranks.iter().position(|&rank| rank == self.rank).expect("only members make a subgroup");
        let members = ranks.iter().map(|&rank| self.members[rank]).collect();
        Ok(Arc::new(Threads { rank, members, context, seat: self.seat.clone() }))
    }

    fn abort(&self, reason: &str) {
        for mailbox in self.seat.mailboxes.iter() {
            mailbox.abort(Error::Aborted { rank: self.seat.rank, reason: reason.to_owned() });
        }
    }

    fn wake(&self) {
        self.mailbox().wake_all();
    }
}
