//! Where the processes of a communicator meet.

use std::{
    env,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{Error, Result, StoreAddress};

/// How long ranks wait for each other unless told otherwise: they are started together, by one agent.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The name of a communicator that has its directory or store for itself.
const NAME: &str = "task";

/// Where launchers put the number of a process and that of all processes, in the order in which they are asked. A shell inside a
/// Slurm allocation has the variables of a task too, but no step.
const LAUNCHERS: [(&str, &str, Option<&str>); 5] = [
    ("RANK", "WORLD_SIZE", None),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", None),
    ("PMI_RANK", "PMI_SIZE", None),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", Some("SLURM_STEP_ID")),
    ("SLURM_PROCID", "SLURM_NTASKS", Some("SLURM_STEP_ID")),
];

/// Where and as whom a process meets the others of its communicator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendezvous {
    /// A directory that belongs to this communicator alone; on a memory file system (`/dev/shm`) unless there is none.
    /// Enough for processes of one host.
    pub dir: Option<PathBuf>,
    /// Whether rank 0 removes the directory when all have met.
    pub temporary: bool,
    /// A key-value store that all processes reach. Needed across hosts.
    pub store: Option<StoreAddress>,
    /// Whether rank 0 serves that store itself, for want of an agent that does.
    pub serve: bool,
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
        Rendezvous { dir: Some(dir.into()), ..Rendezvous::nowhere(rank, size) }
    }

    /// A rendezvous through a key-value store, under a name (`<task>/<epoch>`) that no other communicator has there. It waits
    /// 60 seconds.
    pub fn through(store: StoreAddress, name: impl Into<String>, rank: usize, size: usize) -> Self {
        Rendezvous { store: Some(store), name: name.into(), ..Rendezvous::nowhere(rank, size) }
    }

    fn nowhere(rank: usize, size: usize) -> Self {
        let (dir, store, name, timeout) = (None, None, NAME.to_owned(), TIMEOUT);
        Rendezvous { dir, temporary: false, store, serve: false, name, rank, size, timeout }
    }

    /// What the environment of this process says; `None` when it describes a single rank.
    ///
    /// | what | variables, the first that are set |
    /// |---|---|
    /// | rank and size | `RANK` and `WORLD_SIZE`; those of OpenMPI, MPICH, Slurm |
    /// | place | `DEEPRC_STORE` (`host:port/token`) and `DEEPRC_RENDEZVOUS` (a directory), one or both; `MASTER_ADDR` and `MASTER_PORT`, where rank 0 then serves a store; under `mpirun` or `srun` on one host: a directory below `/dev/shm` named after the job |
    /// | name in the store | `DEEPRC_TASK` and `DEEPRC_ATTEMPT` |
    ///
    /// # Errors
    /// [`Error::Environment`] when a variable is missing or is no number that fits the others.
    pub fn from_env() -> Result<Option<Self>> {
        let here = Here { user: rustix::process::getuid().as_raw(), parent: std::os::unix::process::parent_id() };
        Rendezvous::from_variables(here, |name| env::var_os(name).map(|value| value.to_string_lossy().into_owned()))
    }

    fn from_variables(here: Here, get: impl Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let set = |name: &str| get(name).is_some();
        let launched = || LAUNCHERS.iter().filter(|(rank, size, only)| (set(rank) || set(size)) && only.is_none_or(set));
        // The first that says both; otherwise the first of which something is missing.
        let complete = launched().find(|(rank, size, _)| set(rank) && set(size));
        let Some(&(rank_name, size_name, _)) = complete.or_else(|| launched().next()) else {
            let lost = get("DEEPRC_RENDEZVOUS").map(|_| Error::Environment {
                variable: "WORLD_SIZE",
                value: None,
                expected: "the number of ranks",
            });
            return lost.map_or(Ok(None), Err);
        };
        let size = number(size_name, get(size_name), "the number of ranks")?;
        let rank = number(rank_name, get(rank_name), "a rank below the number of ranks")?;
        let mut at = Rendezvous::nowhere(rank, size);
        at.check()?;
        at.dir = get("DEEPRC_RENDEZVOUS").map(PathBuf::from);
        if size == 1 && at.dir.is_none() {
            return Ok(None);
        }
        if let Some(task) = get("DEEPRC_TASK") {
            at.name = get("DEEPRC_ATTEMPT").map_or(task.clone(), |attempt| format!("{task}/{attempt}"));
        }
        at.store = get("DEEPRC_STORE").map(|text| text.parse()).transpose()?;
        if at.dir.is_none() && at.store.is_none() {
            if let Some(host) = get("MASTER_ADDR") {
                let port = number("MASTER_PORT", get("MASTER_PORT"), "the port at which rank 0 may listen")?;
                let port = u16::try_from(port).map_err(|_| Error::Environment {
                    variable: "MASTER_PORT",
                    value: Some(port.to_string()),
                    expected: "a port below 65536",
                })?;
                at.store = Some(StoreAddress { host, port, token: String::new() });
                at.serve = true;
            } else if let Some(job) = job_of_one_host(here, size, &get) {
                at.dir = Some(Path::new("/dev/shm").join(format!("deeprc-{}-{job}", here.user)));
                at.temporary = true;
            } else if !cfg!(feature = "mpi") || rank_name == "RANK" {
                // What MPI's launcher started finds together without a place.
                return Err(Error::Environment {
                    variable: "DEEPRC_RENDEZVOUS",
                    value: None,
                    expected: "a directory that all ranks share, or DEEPRC_STORE, or MASTER_ADDR and MASTER_PORT",
                });
            }
        }
        Ok(Some(at))
    }

    /// The rank is one of the ranks.
    pub(crate) fn check(&self) -> Result<()> {
        if self.rank < self.size {
            return Ok(());
        }
        Err(Error::NoSuchRank { operation: "connect", rank: self.rank, size: self.size })
    }
}

/// What a process knows of itself without its environment.
#[derive(Debug, Clone, Copy)]
struct Here {
    user: u32,
    /// The process that started this one: with MPICH, its launcher's on this host.
    parent: u32,
}

/// The name of the launcher's job when all its processes are on this host.
fn job_of_one_host(of: Here, size: usize, get: &impl Fn(&str) -> Option<String>) -> Option<String> {
    let here = |name: &str| get(name).and_then(|value| value.parse().ok()) == Some(size);
    let open_mpi = || here("OMPI_COMM_WORLD_LOCAL_SIZE").then(|| get("PMIX_NAMESPACE").or_else(|| get("OMPI_MCA_ess_base_jobid")))?;
    let mpich = || here("MPI_LOCALNRANKS").then(|| format!("mpich-{}", of.parent));
    let slurm = || {
        let one = get("SLURM_STEP_NUM_NODES").or_else(|| get("SLURM_NNODES"))? == "1";
        one.then_some(())?;
        Some(format!("slurm-{}-{}", get("SLURM_JOB_ID")?, get("SLURM_STEP_ID")?))
    };
    let job = open_mpi().or_else(mpich).or_else(slurm)?;
    Some(job.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect())
}

fn number(variable: &'static str, value: Option<String>, expected: &'static str) -> Result<usize> {
    let number = value.as_deref().and_then(|value| value.trim().parse().ok());
    number.ok_or(Error::Environment { variable, value, expected })
}

#[cfg(test)]
mod tests {
    use super::{Here, Rendezvous};

    /// What the variables mean, in short: rank, size, directory, store, name.
    fn check(variables: &[(&str, &str)], expect: Result<Option<&str>, &str>) {
        let get = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| value.to_string());
        let found = Rendezvous::from_variables(Here { user: 7, parent: 9 }, get).map_err(|error| error.to_string());
        let short = |at: Rendezvous| {
            let dir = at.dir.map_or("-".to_owned(), |dir| dir.display().to_string());
            let store = at.store.map_or("-".to_owned(), |store| store.to_string());
            format!("{} of {} {dir} {store} {}{}", at.rank, at.size, at.name, if at.serve { " serves" } else { "" })
        };
        assert_eq!(found.map(|at| at.map(short)), expect.map(|at| at.map(str::to_owned)).map_err(str::to_owned));
    }

    const DIR: (&str, &str) = ("DEEPRC_RENDEZVOUS", "/dev/shm/t");
    const SECOND: [(&str, &str); 2] = [("RANK", "1"), ("WORLD_SIZE", "2")];

    #[test]
    fn a_rank_is_described_by_its_agent_or_by_hand() {
        check(&[], Ok(None));
        check(&[("RANK", "0"), ("WORLD_SIZE", "1")], Ok(None));
        check(&[&SECOND[..], &[DIR]].concat(), Ok(Some("1 of 2 /dev/shm/t - task")));
        let agent = [DIR, ("DEEPRC_STORE", "h:5/x"), ("DEEPRC_TASK", "t"), ("DEEPRC_ATTEMPT", "3"), ("MASTER_ADDR", "unused")];
        check(&[&SECOND[..], &agent].concat(), Ok(Some("1 of 2 /dev/shm/t h:5/x t/3")));
        check(&[&SECOND[..], &[("MASTER_ADDR", "h"), ("MASTER_PORT", "29500")]].concat(), Ok(Some("1 of 2 - h:29500 task serves")));
    }

    #[test]
    fn launchers_have_words_of_their_own() {
        let open_mpi = [("OMPI_COMM_WORLD_RANK", "0"), ("OMPI_COMM_WORLD_SIZE", "3"), ("PMIX_NAMESPACE", "12@x")];
        check(&[&open_mpi[..], &[("OMPI_COMM_WORLD_LOCAL_SIZE", "3")]].concat(), Ok(Some("0 of 3 /dev/shm/deeprc-7-12-x - task")));
        let nowhere = "DEEPRC_RENDEZVOUS is not set, expected a directory that all ranks share, or DEEPRC_STORE, \
                       or MASTER_ADDR and MASTER_PORT";
        let hosts = if cfg!(feature = "mpi") { Ok(Some("0 of 3 - - task")) } else { Err(nowhere) };
        check(&[&open_mpi[..], &[("OMPI_COMM_WORLD_LOCAL_SIZE", "2")]].concat(), hosts);
        let slurm = [("SLURM_PROCID", "1"), ("SLURM_NTASKS", "2"), ("SLURM_NNODES", "1"), ("SLURM_JOB_ID", "8")];
        check(&slurm, Ok(None));
        check(&[&slurm[..], &[("SLURM_STEP_ID", "0")]].concat(), Ok(Some("1 of 2 /dev/shm/deeprc-7-slurm-8-0 - task")));
        let mpich = [("PMI_RANK", "1"), ("PMI_SIZE", "2"), ("MPI_LOCALNRANKS", "2")];
        check(&mpich, Ok(Some("1 of 2 /dev/shm/deeprc-7-mpich-9 - task")));
        check(&[&mpich[..], &[DIR]].concat(), Ok(Some("1 of 2 /dev/shm/t - task")));
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        check(&[("RANK", "1"), DIR], Err("WORLD_SIZE is not set, expected the number of ranks"));
        check(&[("WORLD_SIZE", "2"), DIR], Err("RANK is not set, expected a rank below the number of ranks"));
        check(&[DIR], Err("WORLD_SIZE is not set, expected the number of ranks"));
        check(&[("RANK", "x"), ("WORLD_SIZE", "2"), DIR], Err("RANK is x, expected a rank below the number of ranks"));
        check(&[("RANK", "2"), ("WORLD_SIZE", "2"), DIR], Err("no rank 2 in a communicator of 2 in connect"));
        let no_port = "MASTER_PORT is not set, expected the port at which rank 0 may listen";
        check(&[&SECOND[..], &[("MASTER_ADDR", "h")]].concat(), Err(no_port));
        check(
            &[&SECOND[..], &[("MASTER_ADDR", "h"), ("MASTER_PORT", "70000")]].concat(),
            Err("MASTER_PORT is 70000, expected a port below 65536"),
        );
    }
}
