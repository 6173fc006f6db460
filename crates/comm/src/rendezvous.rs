//! Where the processes of a communicator meet.

use std::{env, path::PathBuf, time::Duration};

use crate::{Error, Result, StoreAddress};

/// How long ranks wait for each other unless told otherwise: they are started together, by one agent.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The name of a communicator that has its directory or store for itself.
const NAME: &str = "task/0";

/// Where and as whom a process meets the others of its communicator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendezvous {
    /// A directory that belongs to this communicator alone; on a memory file system (`/dev/shm`) unless there is none.
    /// Needed for shared memory.
    pub dir: Option<PathBuf>,
    /// A key-value store that all processes reach. Needed across hosts.
    pub store: Option<StoreAddress>,
    /// Tells this communicator from all others that ever use the store: `<task>/<epoch>`.
    pub name: String,
    /// This process, below `size`.
    pub rank: usize,
    /// Number of processes.
    pub size: usize,
    /// How long to wait until all are there.
    pub timeout: Duration,
}

impl Rendezvous {
    /// A rendezvous in a directory, for processes of one host. It waits 60 seconds.
    pub fn new(dir: impl Into<PathBuf>, rank: usize, size: usize) -> Self {
        Rendezvous { dir: Some(dir.into()), store: None, name: NAME.to_owned(), rank, size, timeout: TIMEOUT }
    }

    /// A rendezvous through a key-value store, under a name (`<task>/<epoch>`) that no other communicator has there. It waits
    /// 60 seconds.
    pub fn through(store: StoreAddress, name: impl Into<String>, rank: usize, size: usize) -> Self {
        Rendezvous { dir: None, store: Some(store), name: name.into(), rank, size, timeout: TIMEOUT }
    }

    /// What `RANK`, `WORLD_SIZE` and `DEEPRC_RENDEZVOUS` (the directory) say; `None` when none of them is set, or for
    /// a single rank without a directory.
    ///
    /// # Errors
    /// [`Error::Environment`] when a variable is missing or is no number that fits the others.
    pub fn from_env() -> Result<Option<Self>> {
        Rendezvous::from_variables(|name| env::var_os(name).map(|value| value.to_string_lossy().into_owned()))
    }

    fn from_variables(get: impl Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let (rank, size, dir) = (get("RANK"), get("WORLD_SIZE"), get("DEEPRC_RENDEZVOUS"));
        if rank.is_none() && size.is_none() && dir.is_none() {
            return Ok(None);
        }
        let size = number("WORLD_SIZE", size, "the number of ranks")?;
        let rank = number("RANK", rank, "a rank below WORLD_SIZE")?;
        if size == 1 && dir.is_none() {
            return Ok(None);
        }
        let missing = Error::Environment { variable: "DEEPRC_RENDEZVOUS", value: None, expected: "a directory that all ranks share" };
        let at = Rendezvous::new(dir.ok_or(missing)?, rank, size);
        at.check().map(|()| Some(at))
    }

    /// The rank is one of the ranks.
    pub(crate) fn check(&self) -> Result<()> {
        if self.rank < self.size {
            return Ok(());
        }
        Err(Error::NoSuchRank { operation: "connect", rank: self.rank, size: self.size })
    }
}

fn number(variable: &'static str, value: Option<String>, expected: &'static str) -> Result<usize> {
    let number = value.as_deref().and_then(|value| value.trim().parse().ok());
    number.ok_or(Error::Environment { variable, value, expected })
}

#[cfg(test)]
mod tests {
    use super::Rendezvous;

    fn check(variables: &[(&str, &str)], expect: Result<Option<(usize, usize)>, &str>) {
        let get = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| value.to_string());
        let found = Rendezvous::from_variables(get).map(|at| at.map(|at| (at.rank, at.size))).map_err(|e| e.to_string());
        assert_eq!(found, expect.map_err(str::to_owned));
    }

    #[test]
    fn the_environment_describes_a_rank() {
        let dir = ("DEEPRC_RENDEZVOUS", "/dev/shm/t");
        check(&[], Ok(None));
        check(&[("RANK", "0"), ("WORLD_SIZE", "1")], Ok(None));
        check(&[("RANK", "1"), ("WORLD_SIZE", "2"), dir], Ok(Some((1, 2))));
        check(&[("RANK", "1"), dir], Err("WORLD_SIZE is not set, expected the number of ranks"));
        check(&[("RANK", "x"), ("WORLD_SIZE", "2"), dir], Err("RANK is x, expected a rank below WORLD_SIZE"));
        check(&[("RANK", "2"), ("WORLD_SIZE", "2"), dir], Err("no rank 2 in a communicator of 2 in connect"));
        check(&[("RANK", "1"), ("WORLD_SIZE", "2")], Err("DEEPRC_RENDEZVOUS is not set, expected a directory that all ranks share"));
    }
}
