//! Small collective agreements: everybody's value or everybody's error.

use bytes::Bytes;
use deeprc_comm::Communicator;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Error, Result};

/// An error on its way to the other ranks.
#[derive(Serialize, Deserialize)]
pub(crate) struct Fault {
    /// Where it happened, if not on the rank that sends it.
    rank: Option<usize>,
    message: String,
    hint: Option<String>,
    detail: Value,
}

impl From<&Error> for Fault {
    fn from(error: &Error) -> Self {
        let (rank, message) = match error {
            Error::Rank { rank, message, .. } => (Some(*rank), message.clone()),
            other => (None, other.to_string()),
        };
        Fault { rank, message, hint: error.hint(), detail: error.detail() }
    }
}

impl Fault {
    /// The error that rank `me` returns for a fault that came from rank `from`: its own one if it is that.
    pub(crate) fn returned<T>(self, from: usize, me: usize, mine: Result<T>) -> Error {
        let rank = self.rank.unwrap_or(from);
        match mine {
            Err(error) if rank == me => error,
            _ => Error::Rank { rank, message: self.message, hint: self.hint, detail: Box::new(self.detail) },
        }
    }
}

/// What every rank has, by rank, or on every rank the error of the first rank that failed.
///
/// Collective; this is how a failure on one rank becomes an error on all of them instead of a hang.
pub(crate) fn agree<T: Serialize + DeserializeOwned>(comm: &Communicator, mine: Result<T>) -> Result<Vec<T>> {
    if comm.size() == 1 {
        return Ok(vec![mine?]);
    }
    // A broken communicator cannot be used to tell about itself; the other ranks learn it the same way as this one.
    if let Err(Error::Comm(error)) = mine {
        return Err(Error::Comm(error));
    }
    let message = mine.as_ref().map_err(Fault::from);
    let all = comm.allgather(Bytes::from(serde_json::to_vec(&message).map_err(|e| internal(&e))?))?;
    let mut values = Vec::with_capacity(all.len());
    for (rank, bytes) in all.iter().enumerate() {
        match serde_json::from_slice::<Result<T, Fault>>(bytes).map_err(|e| internal(&e))? {
            Ok(value) => values.push(value),
            Err(fault) => return Err(fault.returned(rank, comm.rank(), mine)),
        }
    }
    Ok(values)
}

/// Rank 0's value on every rank; `value` is called there only.
pub(crate) fn from_root<T: Serialize + DeserializeOwned>(comm: &Communicator, value: impl FnOnce() -> Result<T>) -> Result<T> {
    let mine = if comm.rank() == 0 { value().map(Some) } else { Ok(None) };
    let first = agree(comm, mine)?.swap_remove(0);
    Ok(first.expect("rank 0 always has a value"))
}

pub(crate) fn internal(error: &dyn std::error::Error) -> Error {
    Error::Engine { source: Box::new(datafusion::common::internal_datafusion_err!("{error}")) }
}
