//! How the ranks of a communicator find each other in a store.

use std::{
    hash::{BuildHasher, RandomState},
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{
    Deadline, Error, Rendezvous, Result, Store,
    process::{HostId, Process},
};

/// How often a rank that waits for another one makes sure that those which have come still live.
const ROLL_CALL: Duration = Duration::from_millis(100);

/// What a rank knows when it has found the others.
#[derive(Debug)]
pub(crate) struct Meeting {
    /// What this rank drew: a number that no other rank of any run has, for practical purposes.
    pub(crate) drawn: u64,
    /// By rank, this one too.
    pub(crate) peers: Vec<Peer>,
}

/// What a rank tells the others.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Where to reach it, in the words of the library.
    pub(crate) address: Bytes,
    /// The number that it drew.
    pub(crate) drawn: u64,
    /// Its process, when that is of this host and so can be watched.
    pub(crate) process: Option<Process>,
}

impl Meeting {
    /// The other ranks whose processes are of this host.
    pub(crate) fn near(&self, rank: usize) -> Vec<(usize, Process)> {
        let others = self.peers.iter().enumerate().filter(|(other, _)| *other != rank);
        others.filter_map(|(other, peer)| Some((other, peer.process?))).collect()
    }
}

/// Tells the others, below keys that are of this meeting alone, where this rank is reached, and waits until all have done so.
///
/// # Errors
/// [`Error::Timeout`] names a rank that did not come, [`Error::PeerDead`] one that came and died; those of the store.
pub(crate) fn meet(at: &Rendezvous, store: &Store, address: &[u8], deadline: Deadline<'_>) -> Result<Meeting> {
    let failed = |error| Error::io("read what identifies this process below /proc", error);
    let (process, host) = (Process::current().map_err(failed)?, HostId::current().map_err(failed)?);
    let drawn = draw(process);
    let mine = Record { drawn, process, host: host.clone(), address: Bytes::copy_from_slice(address) };
    store.set(&key(at.rank), &mine.to_bytes())?;
    let mut meeting = Meeting { drawn, peers: Vec::with_capacity(at.size) };
    for rank in 0..at.size {
        let record = wait(store, rank, &meeting, deadline)?;
        let record = Record::from_bytes(&record).ok_or(Error::Corrupt { rank })?;
        let process = (record.host == host).then_some(record.process);
        meeting.peers.push(Peer { address: record.address, drawn: record.drawn, process });
    }
    Ok(meeting)
}

fn key(rank: usize) -> String {
    format!("address/{rank}")
}

/// The record of a rank; looks now and then whether those which came before it still live.
fn wait(store: &Store, rank: usize, meeting: &Meeting, deadline: Deadline<'_>) -> Result<Bytes> {
    loop {
        let left = deadline.remaining(rank)?;
        let slice = Deadline { at: Instant::now() + left.min(ROLL_CALL), ..deadline };
        match store.wait(&key(rank), slice) {
            Err(Error::Timeout { .. }) => {}
            answer => return answer,
        }
        let mut peers = meeting.peers.iter().map(|peer| peer.process).enumerate();
        if let Some((rank, _)) = peers.find(|(_, process)| process.is_some_and(|process| !process.alive())) {
            return Err(Error::PeerDead { rank });
        }
    }
}

/// A number that differs for every process and every call.
fn draw(process: Process) -> u64 {
    // The standard library's hasher has keys from the operating system's source of randomness.
    RandomState::new().hash_one((process.pid, process.started))
}

/// What a rank writes into the store.
#[derive(Debug, PartialEq, Eq)]
struct Record {
    drawn: u64,
    process: Process,
    host: HostId,
    address: Bytes,
}

impl Record {
    /// `drawn u64 | process … | length of host u32 | host … | address …`
    fn to_bytes(&self) -> Vec<u8> {
        let host = self.host.to_bytes();
        let mut bytes = self.drawn.to_le_bytes().to_vec();
        bytes.extend_from_slice(&self.process.to_bytes());
        bytes.extend_from_slice(&(host.len() as u32).to_le_bytes());
        bytes.extend_from_slice(host);
        bytes.extend_from_slice(&self.address);
        bytes
    }

    fn from_bytes(bytes: &Bytes) -> Option<Self> {
        let (drawn, rest) = bytes.split_first_chunk()?;
        let (process, rest) = rest.split_at_checked(12)?;
        let (length, rest) = rest.split_first_chunk()?;
        let (host, address) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        Some(Record {
            drawn: u64::from_le_bytes(*drawn),
            process: Process::from_bytes(process)?,
            host: HostId::from_bytes(host)?,
            address: bytes.slice_ref(address),
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{Record, draw};
    use crate::process::{HostId, Process};

    #[test]
    fn records_are_read_as_they_were_written() {
        let process = Process::current().unwrap();
        let host = HostId::current().unwrap();
        for address in ["", "10.0.0.1:4711"] {
            let record = Record { drawn: draw(process), process, host: host.clone(), address: Bytes::from(address) };
            let bytes = Bytes::from(record.to_bytes());
            assert_eq!(Record::from_bytes(&bytes), Some(record));
            assert_eq!(Record::from_bytes(&bytes.slice(..20)), None);
        }
        assert_ne!(draw(process), draw(process));
    }
}
