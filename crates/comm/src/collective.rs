//! The collectives, written once for all transports.

use std::fmt;

use bytes::Bytes;

use crate::{
    Communicator, Deadline, Error, Message, Number, ReduceOp, Result, Tag,
    communicator::Shared,
    number::{NAMES, sealed::Bits},
};

/// Below this many bytes an allreduce sends everything to everyone at once; above, each rank reduces one piece, in two
/// rounds that move 2 instead of `size` times the data. Both give the same bits.
const WHOLE: usize = 16 * 1024;

impl Communicator {
    /// Returns on every rank after every rank has called it.
    ///
    /// # Errors
    /// [`Error::Mismatch`] when another rank is in another collective (the others then get [`Error::Aborted`]),
    /// [`Error::PeerDead`], [`Error::PeerLeft`], [`Error::Timeout`], [`Error::Aborted`].
    ///
    /// Source: the dissemination barrier, Hensgen, Finkel and Manber 1988.
    pub fn barrier(&self) -> Result<()> {
        self.collective(Call::new(Kind::Barrier), |round| {
            let (rank, size) = (self.rank(), self.size());
            let mut distance = 1;
            while distance < size {
                round.send((rank + distance) % size, Vec::new())?;
                round.recv((rank + size - distance) % size)?;
                distance *= 2;
            }
            Ok(())
        })
    }

    /// Gives every rank the root's data; what the others pass in is ignored.
    ///
    /// ```text
    /// rank   in  out          (root 1)
    ///  0     a    b
    ///  1     b    b
    ///  2     c    b
    /// ```
    ///
    /// # Errors
    /// [`Error::NoSuchRank`], and as every collective: see [`barrier`](Communicator::barrier).
    pub fn broadcast(&self, root: usize, data: Bytes) -> Result<Bytes> {
        self.known("broadcast", root)?;
        self.collective(Call::new(Kind::Broadcast).root(root), |round| {
            // A binomial tree on the ranks counted from the root: each passes on what it got to ever nearer ranks.
            let size = self.size();
            let place = (self.rank() + size - root) % size;
            let parent = 1usize << place.checked_ilog2().unwrap_or(0);
            let data = if place == 0 { data } else { round.recv_one((place - parent + root) % size)? };
            let mut distance = if place == 0 { 1 } else { 2 * parent };
            while place + distance < size {
                round.send((place + distance + root) % size, vec![data.clone()])?;
                distance *= 2;
            }
            Ok(data)
        })
    }

    /// Gives the root the data of all ranks, by rank; the others get `None`.
    ///
    /// ```text
    /// rank   in  out          (root 1)
    ///  0     a   -
    ///  1     b   [a, b, c]
    ///  2     c   -
    /// ```
    ///
    /// # Errors
    /// [`Error::NoSuchRank`], and as every collective: see [`barrier`](Communicator::barrier).
    pub fn gather(&self, root: usize, data: Bytes) -> Result<Option<Vec<Bytes>>> {
        self.known("gather", root)?;
        self.collective(Call::new(Kind::Gather).root(root), |round| {
            if self.rank() != root {
                return round.send(root, vec![data]).map(|()| None);
            }
            let all = (0..self.size()).map(|from| if from == root { Ok(data.clone()) } else { round.recv_one(from) });
            all.collect::<Result<_>>().map(Some)
        })
    }

    /// Gives every rank the data of all ranks, by rank.
    ///
    /// ```text
    /// rank   in  out
    ///  0     a   [a, b, c]
    ///  1     b   [a, b, c]
    ///  2     c   [a, b, c]
    /// ```
    ///
    /// # Errors
    /// As every collective: see [`barrier`](Communicator::barrier).
    pub fn allgather(&self, data: Bytes) -> Result<Vec<Bytes>> {
        self.collective(Call::new(Kind::Allgather), |round| round.everyone(data))
    }

    /// Gives every rank what each rank has for it: `out[to]` are the buffers for a rank, the result at `[from]` those
    /// from a rank. Any number of buffers of any length, also none. The hot path of a table's exchange.
    ///
    /// ```text
    /// rank   in                 out
    ///  0     [a0, a1, a2]       [a0, b0, c0]
    ///  1     [b0, b1, b2]       [a1, b1, c1]
    ///  2     [c0, c1, c2]       [a2, b2, c2]
    /// ```
    ///
    /// # Errors
    /// [`Error::WrongCount`] when `out` has not one entry for each rank, and as every collective: see
    /// [`barrier`](Communicator::barrier).
    pub fn all_to_all(&self, out: Vec<Vec<Bytes>>) -> Result<Vec<Vec<Bytes>>> {
        if out.len() != self.size() {
            return Err(Error::WrongCount { given: out.len(), size: self.size() });
        }
        self.collective(Call::new(Kind::AllToAll), |round| round.exchange(out))
    }

    /// Combines the values of all ranks element by element; every rank gets the result in place.
    ///
    /// ```text
    /// rank   in       out          (Sum)
    ///  0     [1, 2]   [9, 12]
    ///  1     [3, 4]   [9, 12]
    ///  2     [5, 6]   [9, 12]
    /// ```
    ///
    /// Element `i` is `((v0[i] op v1[i]) op v2[i]) op …` in the order of the ranks, on every rank and for every length,
    /// so floats come out with the same bits everywhere and every time.
    ///
    /// # Errors
    /// [`Error::Mismatch`] also when types, operations or lengths differ; as every collective: see
    /// [`barrier`](Communicator::barrier).
    pub fn allreduce<T: Number>(&self, values: &mut [T], op: ReduceOp) -> Result<()> {
        self.collective(Call::new(Kind::Allreduce).number::<T>(op), |round| {
            if size_of_val(values) <= WHOLE {
                let all = round.everyone(T::pack(values))?;
                return round.reduce(values, &all, op);
            }
            let size = self.size();
            let bounds = |rank: usize| rank * values.len() / size..(rank + 1) * values.len() / size;
            let mine = bounds(self.rank());
            let out = (0..size).map(|to| vec![T::pack(&values[bounds(to)])]).collect();
            let pieces: Vec<Bytes> = round.exchange(out)?.into_iter().map(only).collect();
            round.reduce(&mut values[mine.clone()], &pieces, op)?;
            for (from, piece) in round.everyone(T::pack(&values[mine]))?.into_iter().enumerate() {
                let start = from * values.len() / size;
                let end = (from + 1) * values.len() / size;
                T::unpack(&mut values[start..end], &piece);
            }
            Ok(())
        })
    }

    /// What all ranks wish of a split, (color, key) by rank, and the number of this collective.
    pub(crate) fn split_wishes(&self, color: u64, key: u64) -> Result<(u64, Vec<(u64, u64)>)> {
        self.collective(Call::new(Kind::Split), |round| {
            let all = round.everyone(u64::pack(&[color, key]))?;
            let wish = |bytes: &Bytes| {
                let mut pair = [0; 2];
                u64::unpack(&mut pair, bytes);
                (pair[0], pair[1])
            };
            Ok((round.sequence, all.iter().map(wish).collect()))
        })
    }

    /// Runs the body of a collective as the next one of this communicator.
    fn collective<R>(&self, call: Call, body: impl FnOnce(&Round<'_>) -> Result<R>) -> Result<R> {
        let deadline = self.deadline(call.kind.name());
        self.guard(|| {
            let mut sequence = self.shared.sequence.take(None, deadline)?;
            // The call whose turn it was may have failed.
            self.healthy()?;
            *sequence += 1;
            body(&Round { shared: &self.shared, call, sequence: *sequence, deadline })
        })
    }
}

/// One collective under way: sends and receives carry its signature, so that a rank which called something else is found out.
struct Round<'a> {
    shared: &'a Shared,
    call: Call,
    sequence: u64,
    deadline: Deadline<'a>,
}

impl Round<'_> {
    fn send(&self, to: usize, parts: Vec<Bytes>) -> Result<()> {
        let message = Message { sequence: self.sequence, signature: self.call.signature(), parts };
        self.shared.transport.send(to, Tag::Collective, message, self.deadline)
    }

    fn recv(&self, from: usize) -> Result<Vec<Bytes>> {
        let message = self.shared.transport.recv(from, Tag::Collective, self.deadline)?;
        if (message.sequence, message.signature) != (self.sequence, self.call.signature()) {
            let there = match Call::from_signature(message.signature) {
                Some(call) => format!("{call}, its collective number {}", message.sequence),
                None => "an unknown collective".to_owned(),
            };
            return Err(self.mismatch(from, format!("{}, its collective number {}", self.call, self.sequence), there));
        }
        Ok(message.parts)
    }

    fn recv_one(&self, from: usize) -> Result<Bytes> {
        self.recv(from).map(only)
    }

    fn exchange(&self, mut out: Vec<Vec<Bytes>>) -> Result<Vec<Vec<Bytes>>> {
        let (rank, size) = (self.shared.transport.rank(), out.len());
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

    fn everyone(&self, data: Bytes) -> Result<Vec<Bytes>> {
        let out = vec![vec![data]; self.shared.transport.size()];
        Ok(self.exchange(out)?.into_iter().map(only).collect())
    }

    /// `values = all[0] op all[1] op …`, in that order.
    fn reduce<T: Number>(&self, values: &mut [T], all: &[Bytes], op: ReduceOp) -> Result<()> {
        let length = values.len() * T::WIDTH;
        if let Some(rank) = all.iter().position(|bytes| bytes.len() != length) {
            let say = |bytes: usize| format!("{} in pieces of {}", self.call, bytes / T::WIDTH);
            return Err(self.mismatch(rank, say(length), say(all[rank].len())));
        }
        T::unpack(values, &all[0]);
        for bytes in &all[1..] {
            T::fold(values, bytes, op);
        }
        Ok(())
    }

    /// The error, also for the other ranks: they may be waiting for what this rank will never send.
    fn mismatch(&self, from: usize, here: String, there: String) -> Error {
        let error = Error::Mismatch { rank: self.shared.members[from], here, there };
        self.shared.transport.abort(&error.to_string());
        error
    }
}

/// The single buffer of a message that has one; a collective's signature was checked before.
fn only(mut parts: Vec<Bytes>) -> Bytes {
    parts.pop().unwrap_or_default()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Barrier,
    Broadcast,
    Gather,
    Allgather,
    AllToAll,
    Allreduce,
    Split,
}

impl Kind {
    const ALL: [Kind; 7] = [Kind::Barrier, Kind::Broadcast, Kind::Gather, Kind::Allgather, Kind::AllToAll, Kind::Allreduce, Kind::Split];

    fn name(self) -> &'static str {
        match self {
            Kind::Barrier => "barrier",
            Kind::Broadcast => "broadcast",
            Kind::Gather => "gather",
            Kind::Allgather => "allgather",
            Kind::AllToAll => "all_to_all",
            Kind::Allreduce => "allreduce",
            Kind::Split => "split",
        }
    }
}

/// What all ranks of a collective have to agree on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Call {
    kind: Kind,
    /// The number type (below 16) and the reduction, for allreduce.
    detail: u8,
    root: u16,
}

impl Call {
    fn new(kind: Kind) -> Self {
        Call { kind, detail: 0, root: 0 }
    }

    fn root(self, root: usize) -> Self {
        // More than 65,536 ranks would only weaken the check.
        Call { root: root as u16, ..self }
    }

    fn number<T: Number>(self, op: ReduceOp) -> Self {
        Call { detail: T::CODE | (op as u8) << 4, ..self }
    }

    /// `kind + 1` in the lowest byte (0 is for user messages), then the detail, then the root.
    fn signature(self) -> u32 {
        u32::from(self.kind as u8 + 1) | u32::from(self.detail) << 8 | u32::from(self.root) << 16
    }

    fn from_signature(signature: u32) -> Option<Self> {
        let [kind, detail, low, high] = signature.to_le_bytes();
        let kind = *Kind::ALL.get(usize::from(kind).checked_sub(1)?)?;
        Some(Call { kind, detail, root: u16::from_le_bytes([low, high]) })
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Broadcast => write!(f, "broadcast from {}", self.root),
            Kind::Gather => write!(f, "gather to {}", self.root),
            Kind::Allreduce => {
                let number = NAMES.get(usize::from(self.detail & 15)).unwrap_or(&"?");
                let op = ReduceOp::ALL.get(usize::from(self.detail >> 4)).copied().unwrap_or(ReduceOp::Sum);
                write!(f, "allreduce ({op:?} of {number})")
            }
            Kind::Barrier | Kind::Allgather | Kind::AllToAll | Kind::Split => f.write_str(self.kind.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Call, Kind};
    use crate::ReduceOp;

    #[test]
    fn a_signature_says_which_call_it_was() {
        for kind in Kind::ALL {
            let call = Call::new(kind).root(513);
            assert_eq!(Call::from_signature(call.signature()), Some(call));
        }
        for op in ReduceOp::ALL {
            let call = Call::new(Kind::Allreduce).number::<u64>(op);
            let text = Call::from_signature(call.signature()).unwrap().to_string();
            assert_eq!(text, format!("allreduce ({op:?} of u64)"));
        }
        assert_eq!(Call::from_signature(0), None);
        assert_eq!(Call::from_signature(99), None);
    }
}
