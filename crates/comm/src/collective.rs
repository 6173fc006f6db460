//! The collectives that move bytes, written once for all transports. Those that calculate are in `reduction.rs`.

use bytes::Bytes;

use crate::{
    Communicator, Error, Result,
    hierarchy::{self, Hierarchy},
    number::sealed::Bits,
    round::Round,
    signature::{Kind, Signature},
};

impl Communicator {
    /// Returns on every rank after every rank has called it.
    ///
    /// # Errors
    /// [`Error::Mismatch`] when another rank is in another collective (the others then get [`Error::Aborted`]),
    /// [`Error::PeerDead`], [`Error::PeerLeft`], [`Error::Timeout`], [`Error::Aborted`].
    ///
    /// Source: the dissemination barrier, Hensgen, Finkel and Manber 1988.
    pub fn barrier(&self) -> Result<()> {
        self.collective(Signature::new(Kind::Barrier), |round| {
            let (rank, size) = (self.rank(), self.size());
            if let Some(hosts) = Hierarchy::new(self.shared.transport.hosts(), rank) {
                return hierarchy::barrier(round, &hosts);
            }
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
        self.collective(Signature::new(Kind::Broadcast).root(root), |round| {
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
        self.collective(Signature::new(Kind::Gather).root(root), |round| {
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
        self.collective(Signature::new(Kind::Allgather), |round| round.everyone(data))
    }

    /// Gives every rank its part of what the root has: `out[to]` is for a rank, of any length. What the others pass in is
    /// ignored.
    ///
    /// ```text
    /// rank   in          out          (root 1)
    ///  0     -           a
    ///  1     [a, b, c]   b
    ///  2     -           c
    /// ```
    ///
    /// # Errors
    /// [`Error::NoSuchRank`], [`Error::WrongCount`] when the root's `out` has not one entry for each rank, and as every
    /// collective: see [`barrier`](Communicator::barrier).
    pub fn scatter(&self, root: usize, mut out: Vec<Bytes>) -> Result<Bytes> {
        self.known("scatter", root)?;
        if self.rank() == root && out.len() != self.size() {
            return Err(Error::WrongCount { operation: "scatter", given: out.len(), size: self.size() });
        }
        self.collective(Signature::new(Kind::Scatter).root(root), |round| {
            if self.rank() != root {
                return round.recv_one(root);
            }
            for distance in 1..self.size() {
                let to = (root + distance) % self.size();
                round.send(to, vec![std::mem::take(&mut out[to])])?;
            }
            Ok(std::mem::take(&mut out[root]))
        })
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
            return Err(Error::WrongCount { operation: "all_to_all", given: out.len(), size: self.size() });
        }
        self.collective(Signature::new(Kind::AllToAll), |round| {
            let own = self.shared.transport.exchange(round.call(), &out, round.deadline);
            own.unwrap_or_else(|| round.exchange(out))
        })
    }

    /// What all ranks wish of a split, (color, key) by rank, and the number of this collective.
    pub(crate) fn split_wishes(&self, color: u64, key: u64) -> Result<(u64, Vec<(u64, u64)>)> {
        self.collective(Signature::new(Kind::Split), |round| {
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
    pub(crate) fn collective<R>(&self, signature: Signature, body: impl FnOnce(&Round<'_>) -> Result<R>) -> Result<R> {
        let deadline = self.deadline(signature.kind.name());
        self.guard(|| {
            let mut sequence = self.shared.sequence.take(None, deadline)?;
            // The call whose turn it was may have failed.
            self.healthy()?;
            *sequence += 1;
            let answer = body(&Round { shared: &self.shared, signature, sequence: *sequence, deadline })?;
            self.shared.transport.flush(deadline).map(|()| answer)
        })
    }
}
