//! Which transport a communicator runs over: what the user wishes, and what was picked.

use std::{env, fmt, str::FromStr};

use crate::{Error, Result};

/// How the ranks of a communicator reach each other. Written in lower case: `auto`, `threads`, `shm`, `gloo`, `mpi`, `ucx`, `nccl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum CommSpec {
    /// Threads within a process, shared memory within a host, else what is built in: MPI under `mpirun`, UCX, Gloo.
    #[default]
    Auto,
    /// Ranks are threads of one process; messages pass by reference.
    Threads,
    /// Ranks are processes of one host that share memory.
    Shm,
    /// Gloo over TCP (feature `gloo`).
    Gloo,
    /// MPI (feature `mpi`); the processes are started by `mpirun` or `srun`.
    Mpi,
    /// UCX: InfiniBand where present, shared memory, TCP (feature `ucx`).
    Ucx,
    /// NCCL for buffers on GPUs (feature `nccl`); those of the host travel as with `auto`.
    Nccl,
}

/// What a communicator runs over and why, for logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Never [`CommSpec::Auto`].
    pub spec: CommSpec,
    /// A phrase, for example `all 4 ranks are processes of one host`.
    pub reason: String,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.spec, self.reason)
    }
}

impl CommSpec {
    /// All of them.
    pub const ALL: [CommSpec; 7] =
        [CommSpec::Auto, CommSpec::Threads, CommSpec::Shm, CommSpec::Gloo, CommSpec::Mpi, CommSpec::Ucx, CommSpec::Nccl];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            CommSpec::Auto => "auto",
            CommSpec::Threads => "threads",
            CommSpec::Shm => "shm",
            CommSpec::Gloo => "gloo",
            CommSpec::Mpi => "mpi",
            CommSpec::Ucx => "ucx",
            CommSpec::Nccl => "nccl",
        }
    }

    /// Whether this program was built with it.
    pub fn is_built_in(self) -> bool {
        match self {
            CommSpec::Auto | CommSpec::Threads | CommSpec::Shm => true,
            CommSpec::Gloo => cfg!(feature = "gloo"),
            CommSpec::Mpi => cfg!(feature = "mpi"),
            CommSpec::Ucx => cfg!(feature = "ucx"),
            CommSpec::Nccl => cfg!(feature = "nccl"),
        }
    }

    /// What the environment (`DEEPRC_COMM`) asks for; `auto` when it does not.
    ///
    /// # Errors
    /// [`Error::UnknownTransport`].
    pub fn from_env() -> Result<Self> {
        env::var("DEEPRC_COMM").map_or(Ok(CommSpec::Auto), |name| name.trim().parse())
    }

    /// # Errors
    /// [`Error::NotBuiltIn`] when [`is_built_in`](CommSpec::is_built_in) says no.
    pub fn check_built_in(self) -> Result<()> {
        if self.is_built_in() { Ok(()) } else { Err(Error::NotBuiltIn { spec: self }) }
    }

    /// How to get a program with it, for an error.
    pub(crate) fn way_in(self) -> String {
        let package = match self {
            CommSpec::Auto | CommSpec::Threads | CommSpec::Shm => return "every build has it".to_owned(),
            CommSpec::Gloo => "on Debian `apt-get install libgloo-dev`",
            CommSpec::Mpi => "on Debian `apt-get install libopenmpi-dev openmpi-bin libclang-dev`",
            CommSpec::Ucx => "on Debian `apt-get install libucx-dev`",
            CommSpec::Nccl => "the library is looked for when the program runs",
        };
        format!("build it with `cargo build --release --features {self}`; {package}")
    }
}

impl fmt::Display for CommSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for CommSpec {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let known = CommSpec::ALL.into_iter().find(|spec| spec.name() == name);
        known.ok_or_else(|| Error::UnknownTransport { name: name.to_owned(), near: near(name) })
    }
}

/// The transport that a name which is none most likely means.
fn near(name: &str) -> Option<CommSpec> {
    let name = name.to_lowercase();
    let called = match name.as_str() {
        "sharedmemory" | "shared_memory" | "shared-memory" | "memory" => Some(CommSpec::Shm),
        "openmpi" | "mpich" => Some(CommSpec::Mpi),
        "local" | "inproc" => Some(CommSpec::Threads),
        "tcp" => Some(CommSpec::Gloo),
        "cuda" | "gpu" => Some(CommSpec::Nccl),
        _ => None,
    };
    called.or_else(|| {
        let distance = |spec: &CommSpec| strsim::damerau_levenshtein(&name, spec.name());
        // Half of the letters may be wrong, but not all.
        CommSpec::ALL.into_iter().min_by_key(distance).filter(|spec| 2 * distance(spec) <= spec.name().len().max(2))
    })
}

#[cfg(test)]
mod tests {
    use super::CommSpec;

    fn check(name: &str, expect: Result<CommSpec, &str>) {
        assert_eq!(name.parse::<CommSpec>().map_err(|error| error.to_string()), expect.map_err(str::to_owned));
    }

    #[test]
    fn names_are_read_as_written_and_near_ones_recognised() {
        for spec in CommSpec::ALL {
            check(spec.name(), Ok(spec));
        }
        let all = "one of: auto, threads, shm, gloo, mpi, ucx, nccl";
        for (name, near) in [("GLOO", "gloo"), ("glo", "gloo"), ("openmpi", "mpi"), ("thread", "threads"), ("shmm", "shm")] {
            check(name, Err(&format!("there is no transport `{name}`\nhint: did you mean `{near}`? {all}")));
        }
        check("carrier pigeon", Err(&format!("there is no transport `carrier pigeon`\nhint: {all}")));
    }

    #[test]
    fn one_that_is_not_built_in_names_the_way_in() {
        for spec in CommSpec::ALL.into_iter().filter(|spec| !spec.is_built_in()) {
            let error = spec.check_built_in().unwrap_err().to_string();
            let start = format!(
                "the transport {spec} is not built into this program\nhint: build it with `cargo build --release --features {spec}`; "
            );
            assert!(error.starts_with(&start), "{error}");
        }
    }
}
