//! How ranks find out where the others are, and agree on a transport.
//!
//! Where a store is needed, every rank writes there who it is, rank 0 reads that, decides for all and writes the verdict:
//!
//! ```text
//! <task>/<epoch>/<n>/claims/<rank>     how many processes came as this rank
//!                    rank/<rank>       its size, spec, host, process, transports
//!                    verdict           the transport, or why there is none
//!                    met               how many have connected
//! ```
//! Ranks that share a directory and no store meet in shared memory; for the other transports, rank 0 serves a store on this host
//! and leaves its address in the directory.

use std::{
    collections::HashMap,
    fs::{self, DirBuilder, File},
    io::{self, Read},
    net::{Ipv4Addr, SocketAddr, ToSocketAddrs},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use crate::{
    Choice, CommSpec, Deadline, Error, Rendezvous, Result, Store, StoreAddress, StoreServer, Transport,
    hybrid::Hybrid,
    process::{HostId, Process},
    shm::SharedMemory,
    threads::Threads,
    verdict::{Presence, Verdict, decide},
};

/// The file in the rendezvous directory that says where rank 0 serves a store.
const STORE: &str = "store";
/// Between two looks for that file: first soon, then less often.
const LOOK: [Duration; 2] = [Duration::from_micros(100), Duration::from_millis(5)];

type Connect = fn(&Rendezvous, &Store) -> Result<Arc<dyn Transport>>;

/// The transports between hosts that are built in, in the order in which `auto` prefers them.
const NETWORKS: &[(CommSpec, Connect)] = &[
    #[cfg(feature = "mpi")]
    (CommSpec::Mpi, |at, _| over_mpi(at)),
    #[cfg(feature = "ucx")]
    (CommSpec::Ucx, crate::ucx::connect),
    #[cfg(feature = "gloo")]
    (CommSpec::Gloo, crate::gloo::connect),
];

/// With this variable, `auto` picks only from the transports between hosts that it names, separated by commas.
const ALLOWED: &str = "DEEPRC_COMM_NETWORKS";

/// Those that `auto` may pick on this rank.
fn networks() -> Vec<CommSpec> {
    let allowed = std::env::var(ALLOWED).ok();
    let is_allowed = |spec: &CommSpec| allowed.as_ref().is_none_or(|names| names.split(',').any(|name| name.trim() == spec.name()));
    NETWORKS.iter().map(|(spec, _)| *spec).filter(is_allowed).collect()
}

/// Meets the other ranks and connects with them over what `spec` says.
pub(crate) fn open(spec: CommSpec, at: &Rendezvous) -> Result<(Arc<dyn Transport>, Choice)> {
    at.check()?;
    spec.check_built_in()?;
    if at.size == 1 {
        let reason = "there is a single rank".to_owned();
        return Ok((Arc::new(Threads::group(1).remove(0)), Choice { spec: CommSpec::Threads, reason }));
    }
    #[cfg(feature = "mpi")]
    match (spec, &at.dir, &at.store) {
        // Its launcher has brought the processes together.
        (CommSpec::Mpi, ..) => return Ok((over_mpi(at)?, Choice { spec: CommSpec::Mpi, reason: "asked for".to_owned() })),
        (CommSpec::Auto, None, None) if under_mpirun() => {
            let reason = "started by mpirun on several hosts, without a store or a directory".to_owned();
            return Ok((over_mpi(at)?, Choice { spec: CommSpec::Mpi, reason }));
        }
        _ => {}
    }
    if let (true, Some(dir)) = (at.temporary, &at.dir) {
        private_dir(dir)?;
    }
    let opened = match (spec, &at.dir, &at.store) {
        (CommSpec::Auto | CommSpec::Nccl, Some(_), None) => in_directory(at),
        (CommSpec::Shm, Some(_), _) => {
            let reason = "asked for".to_owned();
            SharedMemory::connect(at).map(|shm| (Arc::new(shm) as Arc<dyn Transport>, Choice { spec, reason }))
        }
        _ => through_store(spec, at),
    };
    if let (true, 0, Some(dir)) = (at.temporary, at.rank, &at.dir) {
        // All have met or nobody will.
        let _ = fs::remove_dir(dir);
    }
    opened
}

#[cfg(feature = "mpi")]
fn over_mpi(at: &Rendezvous) -> Result<Arc<dyn Transport>> {
    Ok(Arc::new(crate::mpi::Mpi::connect(at)?))
}

fn under_mpirun() -> bool {
    std::env::var_os("OMPI_COMM_WORLD_RANK").is_some() || std::env::var_os("PMI_RANK").is_some()
}

/// Over shared memory, or over threads if that shows that all ranks are of one process.
fn in_directory(at: &Rendezvous) -> Result<(Arc<dyn Transport>, Choice)> {
    let dir = at.dir.as_deref().unwrap_or(Path::new("."));
    let shm = SharedMemory::connect(at)?;
    let reason = |what: &str| format!("all {} ranks are {what}", at.size);
    if shm.is_one_process() {
        let threads = Threads::take(&dir.to_string_lossy(), at.rank, at.size).ok_or_else(|| taken(dir.display(), at.rank))?;
        return Ok((Arc::new(threads), Choice { spec: CommSpec::Threads, reason: reason("threads of one process") }));
    }
    Ok((Arc::new(shm), Choice { spec: CommSpec::Shm, reason: reason("processes of one host") }))
}

fn through_store(spec: CommSpec, at: &Rendezvous) -> Result<(Arc<dyn Transport>, Choice)> {
    let deadline = Deadline::new("connect", at.timeout);
    let Reached { store, place, served } = reach(at, deadline)?;
    let claims = store.add(&format!("claims/{}", at.rank), 1)?;
    if claims > 1 {
        return Err(taken(place, at.rank));
    }
    let me = Presence {
        size: at.size,
        spec,
        host: HostId::current().map_err(|error| Error::io("find out which host this is", error))?,
        process: Process::current().map_err(|error| Error::io("read /proc/self/stat", error))?,
        networks: networks(),
        under_mpirun: under_mpirun(),
    };
    store.set(&format!("rank/{}", at.rank), me.to_text().as_bytes())?;
    let verdict = if at.rank == 0 { preside(at, &store, deadline) } else { hear(at, &store, deadline) };
    let verdict = verdict.and_then(|verdict| verdict.map_err(|reason| Error::Rendezvous { place: place.clone(), reason }))?;
    if verdict.size != at.size {
        let reason = format!("this rank is one of {}, rank 0 one of {}", at.size, verdict.size);
        return Err(Error::Rendezvous { place, reason });
    }
    let transport: Arc<dyn Transport> = match verdict.choice.spec {
        CommSpec::Threads => Arc::new(Threads::take(&place, at.rank, at.size).ok_or_else(|| taken(&place, at.rank))?),
        CommSpec::Shm => {
            let shared = SharedMemory::connect(&Rendezvous { dir: verdict.dir.clone(), ..at.clone() })?;
            if let (0, true, Some(dir)) = (at.rank, at.dir.is_none(), &verdict.dir) {
                let _ = fs::remove_dir(dir);
            }
            Arc::new(shared)
        }
        network => {
            let (_, connect) = NETWORKS.iter().find(|(spec, _)| *spec == network).ok_or(Error::NotBuiltIn { spec: network })?;
            let far = connect(at, &store)?;
            if verdict.hosts.is_empty() {
                far
            } else {
                Arc::new(Hybrid::new(near(at, &store, &verdict.hosts, deadline)?, far, &verdict.hosts))
            }
        }
    };
    // Whoever serves the store may end as soon as it is told to, but not before all have what they came for.
    if store.add("met", 1)? == at.size as i64 {
        store.set("all met", b"")?;
    }
    if served {
        store.wait("all met", deadline)?;
    }
    Ok((transport, verdict.choice))
}

/// The transport of the ranks of this host. The first of them makes a place in shared memory and tells the others.
fn near(at: &Rendezvous, store: &Store, hosts: &[usize], deadline: Deadline<'_>) -> Result<Arc<dyn Transport>> {
    let host = hosts[at.rank];
    let here: Vec<usize> = (0..hosts.len()).filter(|&rank| hosts[rank] == host).collect();
    let place = here.iter().position(|&rank| rank == at.rank).unwrap_or(0);
    if here.len() == 1 {
        return Ok(Arc::new(Threads::group(1).remove(0)));
    }
    let key = format!("near/{host}");
    let dir = if place == 0 {
        let dir = fresh_dir()?;
        store.set(&key, dir.to_string_lossy().as_bytes())?;
        dir
    } else {
        let dir = store.wait(&key, deadline).map_err(|error| waiting_for(error, here[0]))?;
        PathBuf::from(String::from_utf8_lossy(&dir).into_owned())
    };
    let met = SharedMemory::connect(&Rendezvous { dir: Some(dir.clone()), rank: place, size: here.len(), ..at.clone() });
    if place == 0 {
        let _ = fs::remove_dir(dir);
    }
    Ok(Arc::new(met?))
}

/// Rank 0: reads who came, decides, and tells.
fn preside(at: &Rendezvous, store: &Store, deadline: Deadline<'_>) -> Result<Result<Verdict, String>> {
    let presences = (0..at.size).map(|rank| {
        let text = store.wait(&format!("rank/{rank}"), deadline).map_err(|error| waiting_for(error, rank))?;
        Presence::from_text(&text).ok_or(Error::Corrupt { rank })
    });
    let presences: Result<Vec<Presence>> = presences.collect();
    let verdict = presences.map(|presences| decide(&presences)).and_then(|verdict| match verdict {
        Ok(verdict) if verdict.choice.spec == CommSpec::Shm => {
            let dir = at.dir.clone().map_or_else(fresh_dir, Ok)?;
            Ok(Ok(Verdict { dir: Some(dir), ..verdict }))
        }
        other => Ok(other),
    });
    let told = match &verdict {
        Ok(verdict) => verdict.clone(),
        Err(error) => Err(error.to_string()),
    };
    store.set("verdict", Verdict::to_text(&told).as_bytes())?;
    verdict
}

/// The other ranks: wait for what rank 0 decided.
fn hear(at: &Rendezvous, store: &Store, deadline: Deadline<'_>) -> Result<Result<Verdict, String>> {
    let text = store.wait("verdict", deadline).map_err(|error| {
        // Rank 0 may itself be waiting for the one that is missing.
        let missing = (0..at.size).find(|rank| matches!(store.get(&format!("rank/{rank}")), Ok(None)));
        waiting_for(error, missing.unwrap_or(0))
    })?;
    Verdict::from_text(&text).ok_or(Error::Corrupt { rank: 0 })
}

fn waiting_for(error: Error, rank: usize) -> Error {
    match error {
        Error::Timeout { operation, after, .. } => Error::Timeout { operation, rank: Some(rank), after },
        other => other,
    }
}

fn taken(place: impl ToString, rank: usize) -> Error {
    let reason = format!("rank {rank} is taken by another process");
    Error::Rendezvous { place: place.to_string(), reason }
}

/// A store that all ranks of the rendezvous reach.
struct Reached {
    /// Below the keys of this meeting.
    store: Store,
    /// For errors, and different for every meeting.
    place: String,
    /// By this process.
    served: bool,
}

fn reach(at: &Rendezvous, deadline: Deadline<'_>) -> Result<Reached> {
    let nowhere = Error::Environment {
        variable: "DEEPRC_STORE",
        value: None,
        expected: "host:port of a store, or a directory in DEEPRC_RENDEZVOUS, or MASTER_ADDR and MASTER_PORT",
    };
    let Some(address) = &at.store else {
        return reach_in_directory(at, at.dir.as_deref().ok_or(nowhere)?, deadline);
    };
    let served = at.serve && at.rank == 0;
    if served {
        serve_at(address)?;
    }
    let store = Store::connect(address, deadline)?;
    let (host, port) = (&address.host, address.port);
    let meeting = next_meeting(format!("{host}:{port}/{}", at.name), at.rank);
    let place = format!("{host}:{port}/{}/{meeting}", at.name);
    Ok(Reached { store: store.within(&at.name).within(&meeting.to_string()), place, served })
}

/// How often this process has met others at a place as a rank: the ranks of a task may open several communicators one
/// after the other.
fn next_meeting(place: String, rank: usize) -> u64 {
    static MEETINGS: Mutex<Option<HashMap<(String, usize), u64>>> = Mutex::new(None);
    let mut meetings = MEETINGS.lock().unwrap_or_else(PoisonError::into_inner);
    let count = meetings.get_or_insert_default().entry((place, rank)).or_default();
    *count += 1;
    *count
}

/// Serves a store at an address of this host until the process ends: ranks may come late, or again.
fn serve_at(address: &StoreAddress) -> Result<()> {
    static SERVERS: Mutex<Vec<(StoreAddress, StoreServer)>> = Mutex::new(Vec::new());
    let mut servers = SERVERS.lock().unwrap_or_else(PoisonError::into_inner);
    if servers.iter().any(|(served, _)| served == address) {
        return Ok(());
    }
    let failed = |reason: &dyn ToString| Error::Store {
        action: "listen".to_owned(),
        address: format!("{}:{}", address.host, address.port),
        reason: reason.to_string(),
    };
    let found = (address.host.as_str(), address.port).to_socket_addrs().map_err(|error| failed(&error))?;
    let mut last = failed(&"the host has no address");
    for place in found {
        match StoreServer::start(place, &address.token) {
            Ok(server) => {
                servers.push((address.clone(), server));
                return Ok(());
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The address of the store that this process serves to others of its host until it ends.
fn serve_here() -> Result<StoreAddress> {
    static SERVER: Mutex<Option<StoreServer>> = Mutex::new(None);
    let mut server = SERVER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(server) = &*server {
        return Ok(server.address().clone());
    }
    let started = StoreServer::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), &random()?)?;
    Ok(server.insert(started).address().clone())
}

/// Rank 0 serves a store and says where in a file, which it removes when all have read it.
fn reach_in_directory(at: &Rendezvous, dir: &Path, deadline: Deadline<'_>) -> Result<Reached> {
    let path = dir.join(STORE);
    let (address, meeting) = if at.rank == 0 { announce(dir, &path)? } else { look_up(&path, deadline)? };
    let store = Store::connect(&address, deadline)?.within(&meeting);
    if store.add("arrived", 1)? == at.size as i64 {
        // Somebody else may have tidied up already.
        let _ = fs::remove_file(&path);
    }
    Ok(Reached { store, place: format!("{} ({meeting})", dir.display()), served: at.rank == 0 })
}

fn announce(dir: &Path, path: &Path) -> Result<(StoreAddress, String)> {
    let (address, meeting) = (serve_here()?, random()?);
    let draft = dir.join(format!("{STORE}.{meeting}"));
    let write = || {
        let me = Process::current()?;
        fs::create_dir_all(dir)?;
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        let text = format!("{address}\n{meeting}\n{} {}", me.pid, me.started);
        io::Write::write_all(&mut file, text.as_bytes())?;
        fs::rename(&draft, path)
    };
    write().map_err(|error| {
        let _ = fs::remove_file(&draft);
        Error::io(format!("create {}", path.display()), error)
    })?;
    Ok((address, meeting))
}

fn look_up(path: &Path, deadline: Deadline<'_>) -> Result<(StoreAddress, String)> {
    let [mut pause, longest] = LOOK;
    loop {
        match fs::read_to_string(path) {
            // A file whose maker is gone is left from an earlier attempt; rank 0 will replace it.
            Ok(text) => {
                if let Some(found) = read_announcement(&text) {
                    return Ok(found);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io(format!("open {}", path.display()), error)),
        }
        thread::sleep(pause.min(deadline.remaining(0)?));
        pause = (pause * 2).min(longest);
    }
}

fn read_announcement(text: &str) -> Option<(StoreAddress, String)> {
    let mut lines = text.lines();
    let (address, meeting, maker) = (lines.next()?, lines.next()?, lines.next()?);
    let (pid, started) = maker.split_once(' ')?;
    let maker = Process { pid: pid.parse().ok()?, started: started.parse().ok()? };
    maker.alive().then_some((address.parse().ok()?, meeting.to_owned()))
}

/// Makes a directory that only this user can enter, or makes sure that it is one.
fn private_dir(dir: &Path) -> Result<()> {
    let failed = |error| Error::io(format!("create {}", dir.display()), error);
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => return other.map_err(failed),
    }
    let found = match fs::symlink_metadata(dir) {
        Ok(found) => found,
        // Rank 0 of an earlier communicator has just removed it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return DirBuilder::new().mode(0o700).create(dir).map_err(failed),
        Err(error) => return Err(failed(error)),
    };
    if found.is_dir() && found.uid() == rustix::process::getuid().as_raw() && found.mode() & 0o077 == 0 {
        return Ok(());
    }
    Err(failed(io::Error::new(
        io::ErrorKind::PermissionDenied,
        "others may write there\nhint: set DEEPRC_RENDEZVOUS to a directory of your own",
    )))
}

/// A new directory for shared memory.
fn fresh_dir() -> Result<PathBuf> {
    let shared = Path::new("/dev/shm");
    let parent = if shared.is_dir() { shared.to_owned() } else { std::env::temp_dir() };
    let dir = parent.join(format!("deeprc-{}", random()?));
    private_dir(&dir).map(|()| dir)
}

/// 32 digits that nobody guesses.
fn random() -> Result<String> {
    let mut bytes = [0; 16];
    let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|error| Error::io("read /dev/urandom", error))?;
    Ok(format!("{:032x}", u128::from_le_bytes(bytes)))
}
