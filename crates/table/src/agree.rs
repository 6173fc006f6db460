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
    message: String,
    hint: Option<String>,
    detail: Value,
}

impl From<&Error> for Fault {
    fn from(error: &Error) -> Self {
        Fault { message: error.to_string(), hint: error.hint(), detail: error.detail() }
    }
}

impl Fault {
    pub(crate) fn on(self, rank: usize) -> Error {
        Error::Rank { rank, message: self.message, hint: self.hint, detail: Box::new(self.detail) }
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
            Err(_) if rank == comm.rank() => return mine.map(|_| values),
            Err(fault) => return Err(fault.on(rank)),
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
