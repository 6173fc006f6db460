//! One collective call on one rank.

use bytes::Bytes;

use crate::{Call, Deadline, Error, Message, Result, Tag, communicator::Shared, signature::Signature};

/// One collective under way: sends and receives carry its signature, so that a rank which called something else is found out.
pub(crate) struct Round<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) signature: Signature,
    pub(crate) sequence: u64,
    pub(crate) deadline: Deadline<'a>,
}

impl Round<'_> {
    pub(crate) fn rank(&self) -> usize {
        self.shared.transport.rank()
    }

    pub(crate) fn size(&self) -> usize {
        self.shared.transport.size()
    }

    /// As a backend that overrides the collective wants to know it.
    pub(crate) fn call(&self) -> Call {
        Call { sequence: self.sequence, signature: self.signature.code() }
    }

    pub(crate) fn send(&self, to: usize, parts: Vec<Bytes>) -> Result<()> {
        let message = Message { sequence: self.sequence, signature: self.signature.code(), parts };
        self.shared.transport.send(to, Tag::Collective, message, self.deadline)
    }

    pub(crate) fn recv(&self, from: usize) -> Result<Vec<Bytes>> {
        let message = self.shared.transport.recv(from, Tag::Collective, self.deadline)?;
        if (message.sequence, message.signature) != (self.sequence, self.signature.code()) {
            let there = match Signature::from_code(message.signature) {
                Some(call) => format!("{call}, its collective number {}", message.sequence),
                None => "an unknown collective".to_owned(),
            };
            let here = format!("{}, its collective number {}", self.signature, self.sequence);
            let there = if here == there { format!("{there}, with other lengths") } else { there };
            return Err(self.mismatch(from, here, there));
        }
        Ok(message.parts)
    }

    /// All ranks but this one, in an order in which everybody sends to another one first.
    pub(crate) fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let (rank, size) = (self.rank(), self.size());
        (1..size).map(move |distance| (rank + distance) % size)
    }

    pub(crate) fn recv_one(&self, from: usize) -> Result<Bytes> {
        self.recv(from).map(only)
    }

    pub(crate) fn exchange(&self, mut out: Vec<Vec<Bytes>>) -> Result<Vec<Vec<Bytes>>> {
        let (rank, size) = (self.rank(), self.size());
        let mut received = vec![Vec::new(); size];
        received[rank] = std::mem::take(&mut out[rank]);
        // Each step is a permutation of the ranks: everybody sends to one and receives from one.
        for distance in 1..size {
            let to = (rank + distance) % size;
            self.send(to, std::mem::take(&mut out[to]))?;
        }
        for distance in 1..size {
            let from = (rank + size - distance) % size;
            received[from] = self.recv(from)?;
        }
        Ok(received)
    }

    pub(crate) fn everyone(&self, data: Bytes) -> Result<Vec<Bytes>> {
        let out = vec![vec![data]; self.size()];
        Ok(self.exchange(out)?.into_iter().map(only).collect())
    }

    /// The error, also for the other ranks: they may be waiting for what this rank will never send.
    pub(crate) fn mismatch(&self, from: usize, here: String, there: String) -> Error {
        let error = Error::Mismatch { rank: self.shared.members[from], here, there };
        self.shared.transport.abort(&error.to_string());
        error
    }
}

/// The single buffer of a message that has one; a collective's signature was checked before.
pub(crate) fn only(mut parts: Vec<Bytes>) -> Bytes {
    parts.pop().unwrap_or_default()
}
