//! The collectives that calculate, written once for all transports.
//!
//! Every element is combined in the order of the ranks, `((v0 op v1) op v2) op …`, whichever rank does it and however long the
//! message is, so results have the same bits everywhere and every time.

use std::ops::Range;

use bytes::Bytes;

use crate::{
    Communicator, Error, Number, ReduceOp, Result, Values,
    hierarchy::{self, Hierarchy},
    round::Round,
    signature::{Kind, Signature},
};

/// Up to this many bytes everything is sent to everyone (who needs it) at once; above, each rank reduces one piece, in two
/// rounds that move 2 instead of `size` times the data.
const WHOLE: usize = 16 * 1024;

impl Communicator {
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
    /// [`Error::NoSuchReduction`] for bits of floats; [`Error::Mismatch`] also when types, operations or lengths differ; as
    /// every collective: see [`barrier`](Communicator::barrier). The values are then a mixture.
    pub fn allreduce<T: Number>(&self, values: &mut [T], op: ReduceOp) -> Result<()> {
        op.check(T::TYPE)?;
        self.collective(Signature::new(Kind::Allreduce).number::<T>(op).lengths(&[values.len()]), |round| {
            let mut own = Values { number: T::TYPE, op, bytes: T::bytes_mut(values) };
            if let Some(reduced) = self.shared.transport.allreduce(round.call(), &mut own, round.deadline) {
                return reduced;
            }
            let hierarchy = Hierarchy::new(self.shared.transport.hosts(), self.rank());
            match (hierarchy, size_of_val(values) <= WHOLE) {
                (Some(hosts), true) => return hierarchy::allreduce_whole(round, &hosts, values, op),
                (Some(hosts), false) if hosts.in_blocks() => return hierarchy::allreduce_chain(round, &hosts, values, op),
                _ => {}
            }
            if size_of_val(values) <= WHOLE {
                let all = round.everyone(T::pack(values))?;
                return reduce_whole(round, values, &all, op);
            }
            let pieces = even(values.len(), self.size());
            reduce_pieces(round, values, &pieces, op, Goes::ToAll)
        })
    }

    /// Combines the values of all ranks element by element, in the order of the ranks as [`allreduce`](Communicator::allreduce)
    /// does; the root gets the result in place, the values of the others stay as they are.
    ///
    /// ```text
    /// rank   in       out          (Sum, root 1)
    ///  0     [1, 2]   [1, 2]
    ///  1     [3, 4]   [9, 12]
    ///  2     [5, 6]   [5, 6]
    /// ```
    ///
    /// # Errors
    /// [`Error::NoSuchRank`], and as [`allreduce`](Communicator::allreduce).
    pub fn reduce<T: Number>(&self, root: usize, values: &mut [T], op: ReduceOp) -> Result<()> {
        self.known("reduce", root)?;
        op.check(T::TYPE)?;
        self.collective(Signature::new(Kind::Reduce).root(root).number::<T>(op).lengths(&[values.len()]), |round| {
            if size_of_val(values) > WHOLE {
                let pieces = even(values.len(), self.size());
                if self.rank() == root {
                    return reduce_pieces(round, values, &pieces, op, Goes::To(root));
                }
                // Only this rank's piece is written to, and it must stay what it was.
                let mine = pieces[self.rank()].clone();
                let before = values[mine.clone()].to_vec();
                let reduced = reduce_pieces(round, values, &pieces, op, Goes::To(root));
                values[mine].copy_from_slice(&before);
                return reduced;
            }
            if self.rank() != root {
                return round.send(root, vec![T::pack(values)]);
            }
            let own = T::pack(values);
            let all = (0..self.size()).map(|from| if from == root { Ok(own.clone()) } else { round.recv_one(from) });
            reduce_whole(round, values, &all.collect::<Result<Vec<_>>>()?, op)
        })
    }

    /// Combines the values of all ranks element by element, in the order of the ranks as [`allreduce`](Communicator::allreduce)
    /// does, and gives each rank its part: rank `r` the next `counts[r]` elements. The counts are the same on all ranks.
    ///
    /// ```text
    /// rank   in          out          (Sum, counts [1, 0, 2])
    ///  0     [1, 2, 3]   [12]
    ///  1     [4, 5, 6]   []
    ///  2     [7, 8, 9]   [15, 18]
    /// ```
    ///
    /// # Errors
    /// [`Error::WrongCount`] when there is not one count for each rank, [`Error::WrongSum`] when they do not add up to the number of
    /// values, and as [`allreduce`](Communicator::allreduce).
    pub fn reduce_scatter<T: Number>(&self, values: &[T], counts: &[usize], op: ReduceOp) -> Result<Vec<T>> {
        if counts.len() != self.size() {
            return Err(Error::WrongCount { operation: "reduce_scatter", given: counts.len(), size: self.size() });
        }
        let sum = counts.iter().fold(0usize, |sum, count| sum.saturating_add(*count));
        if sum != values.len() {
            return Err(Error::WrongSum { counts: sum, values: values.len() });
        }
        op.check(T::TYPE)?;
        self.collective(Signature::new(Kind::ReduceScatter).number::<T>(op).lengths(counts), |round| {
            let mut start = 0;
            let pieces: Vec<Range<usize>> = counts
                .iter()
                .map(|count| {
                    start += count;
                    start - count..start
                })
                .collect();
            let mut mine = values[pieces[self.rank()].clone()].to_vec();
            let out = |to: usize, part: Range<usize>| T::pack(&values[pieces[to].start + part.start..pieces[to].start + part.end]);
            let steps = steps::<T>(&pieces, self.shared.transport.chunk());
            for step in 0..=steps {
                if step < steps {
                    round.others().try_for_each(|to| round.send(to, vec![out(to, part(pieces[to].len(), step, steps))]))?;
                }
                if let Some(step) = step.checked_sub(1) {
                    let part = part(mine.len(), step, steps);
                    reduce_part(round, &mut mine[part], op)?;
                }
            }
            Ok(mine)
        })
    }
}

/// Who gets a reduced piece from the rank that reduced it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goes {
    ToAll,
    To(usize),
}

/// The pieces of so many values, one for each rank, of about one length.
pub(crate) fn even(length: usize, size: usize) -> Vec<Range<usize>> {
    // Not `rank * length / size`, which overflows for the longest slices.
    let start = |rank: usize| rank * (length / size) + rank.min(length % size);
    (0..size).map(|rank| start(rank)..start(rank + 1)).collect()
}

/// In how many chunks the pieces travel: the same on all ranks, at least one, so that lengths are always compared.
fn steps<T: Number>(pieces: &[Range<usize>], chunk: usize) -> usize {
    let longest = pieces.iter().map(Range::len).max().unwrap_or(0);
    longest.saturating_mul(T::WIDTH).div_ceil(chunk.max(1)).max(1)
}

/// The part of a piece of this length that travels in a step.
fn part(length: usize, step: usize, steps: usize) -> Range<usize> {
    even(length, steps)[step].clone()
}

/// Reduces in two rounds that overlap, chunk by chunk:
///
/// ```text
/// step           0        1            2                    3
/// send           c0       c1           c2                   c3       of the others' pieces
/// receive        -        c0           c1                   c2       of my piece, and combine
/// pass on        -        c0           c1                   c2       of my piece, combined
/// receive        -        -            c0                   c1       of the others' pieces, combined
/// ```
/// Each pair of ranks exchanges its messages in the same order, so no two of a pair are confused.
fn reduce_pieces<T: Number>(round: &Round<'_>, values: &mut [T], pieces: &[Range<usize>], op: ReduceOp, goes: Goes) -> Result<()> {
    let (me, steps) = (round.rank(), steps::<T>(pieces, round.shared.transport.chunk()));
    let place = |rank: usize, step: usize| {
        let part = part(pieces[rank].len(), step, steps);
        pieces[rank].start + part.start..pieces[rank].start + part.end
    };
    let receives = goes == Goes::ToAll || goes == Goes::To(me);
    for step in 0..steps + 2 {
        if step < steps {
            round.others().try_for_each(|to| round.send(to, vec![T::pack(&values[place(to, step)])]))?;
        }
        if let Some(step) = step.checked_sub(1).filter(|step| *step < steps) {
            let mine = &mut values[place(me, step)];
            reduce_part(round, mine, op)?;
            let receivers = round.others().filter(|to| goes == Goes::ToAll || goes == Goes::To(*to));
            let mut reduced: Option<Bytes> = None;
            for to in receivers {
                let reduced = reduced.get_or_insert_with(|| T::pack(mine));
                round.send(to, vec![reduced.clone()])?;
            }
        }
        if let (true, Some(step)) = (receives, step.checked_sub(2)) {
            for from in round.others() {
                let bytes = round.recv_one(from)?;
                let values = &mut values[place(from, step)];
                same_length::<T>(round, from, values.len(), &bytes)?;
                T::unpack(values, &bytes);
            }
        }
    }
    Ok(())
}

/// `mine = v0 op v1 op …`, in the order of the ranks, where `mine` is this rank's `v` and the others' come next.
fn reduce_part<T: Number>(round: &Round<'_>, mine: &mut [T], op: ReduceOp) -> Result<()> {
    let (me, size) = (round.rank(), round.size());
    let receive = |from: usize| {
        let bytes = round.recv_one(from)?;
        same_length::<T>(round, from, mine.len(), &bytes).map(|()| bytes)
    };
    let all: Vec<Option<Bytes>> =
        (0..size).map(|from| if from == me { Ok(None) } else { receive(from).map(Some) }).collect::<Result<_>>()?;
    let (lower, higher) = (&all[..me], &all[me + 1..]);
    match lower {
        [] => {}
        [Some(only)] => T::fold_behind(mine, only, op),
        [first, between @ ..] => {
            let mut sum = mine.to_vec();
            first.iter().for_each(|first| T::unpack(&mut sum, first));
            between.iter().flatten().for_each(|bytes| T::fold(&mut sum, bytes, op));
            T::fold_behind(mine, T::bytes_mut(&mut sum), op);
        }
    }
    higher.iter().flatten().for_each(|bytes| T::fold(mine, bytes, op));
    Ok(())
}

/// `values = all[0] op all[1] op …`, in that order.
pub(crate) fn reduce_whole<T: Number>(round: &Round<'_>, values: &mut [T], all: &[Bytes], op: ReduceOp) -> Result<()> {
    for (rank, bytes) in all.iter().enumerate() {
        same_length::<T>(round, rank, values.len(), bytes)?;
    }
    T::unpack(values, &all[0]);
    all[1..].iter().for_each(|bytes| T::fold(values, bytes, op));
    Ok(())
}

/// A rank with more or fewer values than this one sends them in other pieces.
pub(crate) fn same_length<T: Number>(round: &Round<'_>, from: usize, here: usize, bytes: &[u8]) -> Result<()> {
    if bytes.len() == here * T::WIDTH {
        return Ok(());
    }
    let say = |count: usize| format!("{} in pieces of {count}", round.signature);
    Err(round.mismatch(from, say(here), say(bytes.len() / T::WIDTH)))
}

#[cfg(test)]
mod tests {
    use super::{even, part, steps};

    const CHUNK: usize = 256 << 10;

    #[test]
    fn pieces_and_their_parts_cover_everything_once() {
        for (length, size) in [(0, 1), (7, 3), (100_000_003, 5), (2, 4)] {
            let pieces = even(length, size);
            assert_eq!((pieces.len(), pieces[0].start, pieces[size - 1].end), (size, 0, length));
            assert!(pieces.windows(2).all(|pair| pair[0].end == pair[1].start));
            let steps = steps::<f64>(&pieces, CHUNK);
            for piece in &pieces {
                let parts: Vec<_> = (0..steps).map(|step| part(piece.len(), step, steps)).collect();
                assert_eq!(parts.iter().map(|part| part.len()).sum::<usize>(), piece.len());
                assert!(parts.iter().all(|part| part.len() * 8 <= CHUNK));
            }
        }
    }
}
