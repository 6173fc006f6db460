//! What a check says when it fails, and the comparisons that all checks use.

use std::fmt::Debug;

use bytes::Bytes;

use crate::{Communicator, Error, Result};

/// Longest form of a value in a message.
const LONGEST: usize = 80;

/// Why a check failed on a rank.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// A call failed that had to succeed.
    #[error("{0}")]
    Call(#[from] Error),
    /// A call gave another answer than the oracle.
    #[error("rank {rank}: {what} is {got}, expected {expect}")]
    Wrong {
        /// The rank that got it.
        rank: usize,
        /// What was compared, for example `the buffer from 2`.
        what: String,
        /// What came, shortened.
        got: String,
        /// What should have come, shortened.
        expect: String,
    },
    /// A call succeeded, or failed in another way, where a certain error had to come.
    #[error("rank {rank}: {what} gave {got}, expected {expect}")]
    WrongError {
        /// The rank that made the call.
        rank: usize,
        /// The call.
        what: String,
        /// The error that came, or `no error`.
        got: String,
        /// The error that had to come.
        expect: &'static str,
    },
}

/// Fails unless both are the same.
pub(super) fn equal<T: PartialEq + Debug>(comm: &Communicator, what: &str, got: &T, expect: &T) -> Result<(), Failure> {
    if got == expect {
        return Ok(());
    }
    let show = |value: &T| shorten(format!("{value:?}"));
    Err(Failure::Wrong { rank: comm.rank(), what: what.to_owned(), got: show(got), expect: show(expect) })
}

/// Fails unless both lists hold the same buffers; says where the first difference is.
pub(super) fn same_buffers(comm: &Communicator, what: &str, got: &[Bytes], expect: &[Bytes]) -> Result<(), Failure> {
    let wrong = |what: String, got: String, expect: String| Failure::Wrong { rank: comm.rank(), what, got, expect };
    if got.len() != expect.len() {
        return Err(wrong(format!("the number of buffers of {what}"), got.len().to_string(), expect.len().to_string()));
    }
    for (number, (got, expect)) in got.iter().zip(expect).enumerate() {
        if got.len() != expect.len() {
            return Err(wrong(format!("the length of buffer {number} of {what}"), got.len().to_string(), expect.len().to_string()));
        }
        // Equality first: it compares whole words.
        if got != expect {
            let at = got.iter().zip(expect).position(|(a, b)| a != b).unwrap_or(0);
            return Err(wrong(format!("byte {at} of buffer {number} of {what}"), got[at].to_string(), expect[at].to_string()));
        }
    }
    Ok(())
}

/// Fails unless the call failed with an error that `known` accepts; `expect` describes such errors.
pub(super) fn fails<T>(
    comm: &Communicator,
    what: &str,
    answer: Result<T>,
    expect: &'static str,
    known: impl FnOnce(&Error) -> bool,
) -> Result<(), Failure> {
    let got = match &answer {
        Err(error) if known(error) => return Ok(()),
        Err(error) => shorten(error.to_string()),
        Ok(_) => "no error".to_owned(),
    };
    Err(Failure::WrongError { rank: comm.rank(), what: what.to_owned(), got, expect })
}

fn shorten(text: String) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Bytes that differ for every pair of ranks, and from place to place.
pub(super) fn bytes(from: usize, to: usize, length: usize) -> Bytes {
    (0..length).map(|i| (i * 31 + from * 7 + to * 13) as u8).collect::<Vec<_>>().into()
}
