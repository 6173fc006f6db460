//! Ranks on several hosts: those of one host reach each other one way, all others over a network.
//!
//! ```text
//!  host 0                     host 1
//!  rank 0 ◄─near─► rank 1     rank 2 ◄─near─► rank 3
//!     ▲               ▲          ▲               ▲
//!     └───────────────┴── far ───┴───────────────┘
//! ```
//! A rank that waits on one side looks at the other side now and then, because the near one makes progress only in calls: a
//! rank that sends to this one may wait for it to receive. The far one has to make progress by itself, as Gloo does.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    Error, Result,
    transport::{Deadline, Message, Tag, Transport},
};

/// How long a wait stays on one side before it looks at the other: first short, then longer.
const SLICE: [Duration; 2] = [Duration::from_micros(200), Duration::from_millis(2)];
/// How long such a look takes at most.
const LOOK: Duration = Duration::from_micros(10);
/// Nobody sends to itself with this tag.
const NEVER: Tag = Tag::User(u64::MAX);
/// Between the rank that aborted and its reason, where only the reason travels.
const SEPARATOR: char = '\u{1f}';

/// A rank among ranks on several hosts.
#[derive(Debug)]
pub(crate) struct Hybrid {
    rank: usize,
    /// The host of each rank; they count from 0 in the order of their first ranks.
    hosts: Vec<usize>,
    /// The ranks of this host, as `near` counts them.
    places: Vec<Option<usize>>,
    near: Arc<dyn Transport>,
    far: Arc<dyn Transport>,
    /// The ranks of this host in the first communicator, as `near` counted them there: its errors name those.
    locals: Arc<[usize]>,
    /// The members' ranks in the first communicator.
    members: Vec<usize>,
}

impl Hybrid {
    /// From a transport for the ranks of this host, in their order, and one for all ranks; `hosts` has a number for each rank.
    pub(crate) fn new(near: Arc<dyn Transport>, far: Arc<dyn Transport>, hosts: &[usize]) -> Self {
        let rank = far.rank();
        let locals = (0..hosts.len()).filter(|&other| hosts[other] == hosts[rank]).collect();
        let members = (0..hosts.len()).collect();
        Hybrid { rank, hosts: renumbered(hosts), places: places(hosts, rank), near, far, locals, members }
    }

    /// A near error in the words of the first communicator.
    fn told(&self, error: Error) -> Error {
        let first = |rank: usize| self.locals.get(rank).copied().unwrap_or(rank);
        match error {
            Error::PeerDead { rank } => Error::PeerDead { rank: first(rank) },
            Error::PeerLeft { rank } => Error::PeerLeft { rank: first(rank) },
            Error::Corrupt { rank } => Error::Corrupt { rank: first(rank) },
            Error::Timeout { operation, rank, after } => Error::Timeout { operation, rank: rank.map(first), after },
            Error::Aborted { rank, reason } => match reason.split_once(SEPARATOR) {
                Some((by, reason)) => Error::Aborted { rank: by.parse().unwrap_or(first(rank)), reason: reason.to_owned() },
                None => Error::Aborted { rank: first(rank), reason },
            },
            other => other,
        }
    }

    /// A far error; an abort from another host is passed on to those who wait on the near side.
    fn heard(&self, error: Error) -> Error {
        if let Error::Aborted { rank, reason } = &error {
            self.near.abort(&format!("{rank}{SEPARATOR}{reason}"));
        }
        error
    }

    /// Receives on one side, with looks at the other one.
    fn alternate(
        &self,
        rank: usize,
        deadline: Deadline<'_>,
        receive: impl Fn(Deadline<'_>) -> Result<Message>,
        look: impl Fn(Deadline<'_>) -> Result<()>,
    ) -> Result<Message> {
        let [mut slice, longest] = SLICE;
        loop {
            let left = deadline.remaining(rank)?;
            match receive(Deadline { at: Instant::now() + left.min(slice), ..deadline }) {
                Err(Error::Timeout { .. }) if left > slice => look(Deadline { at: Instant::now() + LOOK, ..deadline })?,
                other => return other,
            }
            slice = (slice * 2).min(longest);
        }
    }
}

/// What a look in vain found out.
fn only_aborts(answer: Result<Message>) -> Result<()> {
    match answer {
        Err(error @ (Error::Aborted { .. } | Error::Cancelled { .. })) => Err(error),
        _ => Ok(()),
    }
}

/// The hosts counted from 0 in the order of their first ranks.
fn renumbered(hosts: &[usize]) -> Vec<usize> {
    let mut known: Vec<usize> = Vec::new();
    let number = |host: &usize| {
        known.iter().position(|other| other == host).unwrap_or_else(|| {
            known.push(*host);
            known.len() - 1
        })
    };
    hosts.iter().map(number).collect()
}

/// How the ranks on the host of `rank` count among themselves.
fn places(hosts: &[usize], rank: usize) -> Vec<Option<usize>> {
    let mut count = 0;
    let place = |host: &usize| {
        (*host == hosts[rank]).then(|| {
            count += 1;
            count - 1
        })
    };
    hosts.iter().map(place).collect()
}

impl Transport for Hybrid {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.hosts.len()
    }

    fn send(&self, to: usize, tag: Tag, message: Message, deadline: Deadline<'_>) -> Result<()> {
        match self.places[to] {
            Some(place) => self.near.send(place, tag, message, deadline).map_err(|error| self.told(error)),
            None => self.far.send(to, tag, message, deadline).map_err(|error| self.heard(error)),
        }
    }

    fn flush(&self, deadline: Deadline<'_>) -> Result<()> {
        self.near.flush(deadline).map_err(|error| self.told(error))?;
        self.far.flush(deadline).map_err(|error| self.heard(error))
    }

    fn recv(&self, from: usize, tag: Tag, deadline: Deadline<'_>) -> Result<Message> {
        let near = |deadline: Deadline<'_>| self.near.recv(self.near.rank(), NEVER, deadline);
        let far = |deadline: Deadline<'_>| self.far.recv(self.rank, NEVER, deadline);
        match self.places[from] {
            Some(place) => self.alternate(
                self.members[from],
                deadline,
                |deadline| self.near.recv(place, tag, deadline).map_err(|error| self.told(error)),
                |deadline| only_aborts(far(deadline)).map_err(|error| self.heard(error)),
            ),
            None => self.alternate(
                self.members[from],
                deadline,
                |deadline| self.far.recv(from, tag, deadline).map_err(|error| self.heard(error)),
                |deadline| only_aborts(near(deadline)).map_err(|error| self.told(error)),
            ),
        }
    }

    fn subgroup(&self, ranks: &[usize], context: u64, deadline: Deadline<'_>) -> Result<Arc<dyn Transport>> {
        let rank = ranks.iter().position(|&rank| rank == self.rank).expect("only members make a subgroup");
        let hosts: Vec<usize> = ranks.iter().map(|&rank| self.hosts[rank]).collect();
        let here: Vec<usize> = ranks.iter().filter_map(|&rank| self.places[rank]).collect();
        let near = self.near.subgroup(&here, context, deadline).map_err(|error| self.told(error))?;
        let far = self.far.subgroup(ranks, context, deadline).map_err(|error| self.heard(error))?;
        let members = ranks.iter().map(|&rank| self.members[rank]).collect();
        let (places, hosts) = (places(&hosts, rank), renumbered(&hosts));
        Ok(Arc::new(Hybrid { rank, hosts, places, near, far, locals: self.locals.clone(), members }))
    }

    fn abort(&self, reason: &str) {
        self.near.abort(&format!("{}{SEPARATOR}{reason}", self.members[self.rank]));
        self.far.abort(reason);
    }

    fn wake(&self) {
        self.near.wake();
        self.far.wake();
    }

    fn hosts(&self) -> Option<&[usize]> {
        Some(&self.hosts)
    }
}

#[cfg(test)]
mod tests {
    use super::{places, renumbered};

    #[test]
    fn hosts_count_by_their_first_ranks() {
        assert_eq!(renumbered(&[7, 3, 7, 0, 3]), [0, 1, 0, 2, 1]);
        assert_eq!(places(&[7, 3, 7, 0, 3], 4), [None, Some(0), None, None, Some(1)]);
    }
}
