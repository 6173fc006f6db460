//! What rank 0 knows of the ranks when it picks their transport, and what it picks.

use std::{collections::BTreeSet, path::PathBuf};

use crate::{
    Choice, CommSpec,
    process::{HostId, Process},
};

/// What a rank says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Presence {
    pub(crate) size: usize,
    pub(crate) spec: CommSpec,
    pub(crate) host: HostId,
    pub(crate) process: Process,
    /// The transports between hosts that its program has, best first.
    pub(crate) networks: Vec<CommSpec>,
    pub(crate) under_mpirun: bool,
}

/// What all ranks do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) size: usize,
    pub(crate) choice: Choice,
    /// Where they meet in shared memory.
    pub(crate) dir: Option<PathBuf>,
    /// A number for the host of each rank, when ranks of one host do not use the network among themselves; else none.
    pub(crate) hosts: Vec<usize>,
}

impl Presence {
    pub(crate) fn to_text(&self) -> String {
        let networks: Vec<&str> = self.networks.iter().map(|spec| spec.name()).collect();
        let host = String::from_utf8_lossy(self.host.to_bytes());
        let Process { pid, started } = self.process;
        format!("{}\n{}\n{host}\n{pid}\n{started}\n{}\n{}", self.size, self.spec, networks.join(" "), self.under_mpirun)
    }

    pub(crate) fn from_text(text: &[u8]) -> Option<Self> {
        let mut lines = std::str::from_utf8(text).ok()?.split('\n');
        Some(Presence {
            size: lines.next()?.parse().ok()?,
            spec: lines.next()?.parse().ok()?,
            host: HostId::from_bytes(lines.next()?.as_bytes())?,
            process: Process { pid: lines.next()?.parse().ok()?, started: lines.next()?.parse().ok()? },
            networks: lines.next()?.split_whitespace().map(|name| name.parse().ok()).collect::<Option<_>>()?,
            under_mpirun: lines.next()?.parse().ok()?,
        })
    }
}

impl Verdict {
    pub(crate) fn to_text(verdict: &Result<Verdict, String>) -> String {
        match verdict {
            Ok(Verdict { size, choice, dir, hosts }) => {
                let hosts: Vec<String> = hosts.iter().map(usize::to_string).collect();
                let hosts = hosts.join(" ");
                let dir = dir.as_ref().map(|dir| dir.to_string_lossy().into_owned()).unwrap_or_default();
                format!("ok\n{size}\n{}\n{dir}\n{hosts}\n{}", choice.spec, choice.reason)
            }
            Err(reason) => format!("no\n{reason}"),
        }
    }

    pub(crate) fn from_text(text: &[u8]) -> Option<Result<Verdict, String>> {
        let (status, rest) = std::str::from_utf8(text).ok()?.split_once('\n')?;
        if status != "ok" {
            return Some(Err(rest.to_owned()));
        }
        let mut lines = rest.splitn(5, '\n');
        let (size, spec) = (lines.next()?.parse().ok()?, lines.next()?.parse().ok()?);
        let dir = Some(lines.next()?).filter(|dir| !dir.is_empty()).map(PathBuf::from);
        let hosts = lines.next()?.split_whitespace().map(|host| host.parse().ok()).collect::<Option<_>>()?;
        Some(Ok(Verdict { size, choice: Choice { spec, reason: lines.next()?.to_owned() }, dir, hosts }))
    }
}

/// Picks the transport of ranks, given in their order; or says why there is none.
pub(crate) fn decide(ranks: &[Presence]) -> Result<Verdict, String> {
    let (size, spec) = (ranks.len(), ranks[0].spec);
    for (rank, other) in ranks.iter().enumerate() {
        if other.size != size {
            return Err(format!("rank {rank} is one of {}, rank 0 one of {size}", other.size));
        }
        if other.spec != spec {
            return Err(format!("rank {rank} wants the transport {}, rank 0 {spec}\nhint: give all ranks the same", other.spec));
        }
    }
    let away = ranks.iter().position(|other| other.host != ranks[0].host);
    let apart = ranks.iter().position(|other| other.process != ranks[0].process || other.host != ranks[0].host);
    let chosen = |spec, reason: String| Ok(Verdict { size, choice: Choice { spec, reason }, dir: None, hosts: Vec::new() });
    match (spec, apart, away) {
        (CommSpec::Auto | CommSpec::Nccl, None, _) => chosen(CommSpec::Threads, format!("all {size} ranks are threads of one process")),
        (CommSpec::Auto | CommSpec::Nccl, _, None) => chosen(CommSpec::Shm, format!("all {size} ranks are processes of one host")),
        (CommSpec::Auto | CommSpec::Nccl, ..) => network(ranks),
        (CommSpec::Threads, Some(rank), _) => {
            Err(format!("rank {rank} is not a thread of rank 0's process\nhint: processes of one host use shm, or auto"))
        }
        (CommSpec::Shm, _, Some(rank)) => {
            Err(format!("rank {rank} is on another host than rank 0\nhint: shared memory is for one host; use auto, gloo, mpi or ucx"))
        }
        _ => chosen(spec, "asked for".to_owned()),
    }
}

/// A transport between hosts that every rank has.
fn network(ranks: &[Presence]) -> Result<Verdict, String> {
    let names: Vec<&HostId> = ranks.iter().map(|rank| &rank.host).collect::<BTreeSet<_>>().into_iter().collect();
    let hosts = names.len();
    let everywhere = |spec: &CommSpec| ranks.iter().all(|rank| rank.networks.contains(spec));
    let choice = |spec, why: &str| {
        let mut reason = format!("the {} ranks are on {hosts} hosts, {why}", ranks.len());
        let mut numbers = Vec::new();
        // MPI and UCX share memory within a host by themselves.
        if spec == CommSpec::Gloo && hosts < ranks.len() {
            reason += "; those of one host share memory";
            numbers = ranks.iter().map(|rank| names.binary_search(&&rank.host).unwrap_or(0)).collect();
        }
        Ok(Verdict { size: ranks.len(), choice: Choice { spec, reason }, dir: None, hosts: numbers })
    };
    if ranks.iter().all(|rank| rank.under_mpirun) && everywhere(&CommSpec::Mpi) {
        return choice(CommSpec::Mpi, "started by mpirun");
    }
    // Without its launcher MPI has no other ranks.
    let first = ranks[0].networks.iter().copied().filter(|spec| *spec != CommSpec::Mpi).find(everywhere);
    match first {
        Some(spec) => choice(spec, "and this is the fastest transport that all have"),
        None => Err(format!(
            "the {} ranks are on {hosts} hosts, and they have no transport between hosts in common\nhint: {}",
            ranks.len(),
            CommSpec::Gloo.way_in()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::{Presence, Verdict, decide};
    use crate::{
        CommSpec,
        process::{HostId, Process},
    };

    const ALL: [CommSpec; 3] = [CommSpec::Mpi, CommSpec::Ucx, CommSpec::Gloo];

    fn rank(spec: CommSpec, host: &str, pid: u32, networks: &[CommSpec]) -> Presence {
        let (host, process) = (HostId::from_bytes(host.as_bytes()).unwrap(), Process { pid, started: 1 });
        Presence { size: 2, spec, host, process, networks: networks.to_vec(), under_mpirun: false }
    }

    fn check<const N: usize>(ranks: [Presence; N], expect: Result<&str, &str>) {
        let verdict = decide(&ranks);
        assert_eq!(Verdict::from_text(Verdict::to_text(&verdict).as_bytes()).as_ref(), Some(&verdict));
        assert!(ranks.iter().all(|rank| Presence::from_text(rank.to_text().as_bytes()).as_ref() == Some(rank)));
        assert_eq!(verdict.map(|verdict| verdict.choice.to_string()), expect.map(str::to_owned).map_err(str::to_owned));
    }

    #[test]
    fn auto_takes_the_nearest_way() {
        let auto = |host, pid, networks: &[CommSpec]| rank(CommSpec::Auto, host, pid, networks);
        check([auto("a", 1, &ALL), auto("a", 1, &ALL)], Ok("threads: all 2 ranks are threads of one process"));
        check([auto("a", 1, &ALL), auto("a", 2, &ALL)], Ok("shm: all 2 ranks are processes of one host"));
        let why = "the 2 ranks are on 2 hosts, and this is the fastest transport that all have";
        check([auto("a", 1, &ALL), auto("b", 1, &ALL)], Ok(&format!("ucx: {why}")));
        check([auto("a", 1, &ALL), auto("b", 1, &[CommSpec::Gloo])], Ok(&format!("gloo: {why}")));
        let mpirun = |host| Presence { under_mpirun: true, ..auto(host, 1, &ALL) };
        check([mpirun("a"), mpirun("b")], Ok("mpi: the 2 ranks are on 2 hosts, started by mpirun"));
        check(
            [auto("a", 1, &[CommSpec::Mpi]), auto("b", 1, &ALL)],
            Err("the 2 ranks are on 2 hosts, and they have no transport between hosts in common\nhint: build it with \
                 `cargo build --release --features gloo`; on Debian `apt-get install libgloo-dev`"),
        );
    }

    #[test]
    fn ranks_of_one_host_do_not_use_gloo_among_themselves() {
        let auto = |host| Presence { size: 3, ..rank(CommSpec::Auto, host, 1, &[CommSpec::Gloo]) };
        let ranks = [auto("b"), auto("a"), auto("b")];
        assert_eq!(decide(&ranks).unwrap().hosts, [1, 0, 1]);
        let why = "and this is the fastest transport that all have; those of one host share memory";
        check(ranks, Ok(&format!("gloo: the 3 ranks are on 2 hosts, {why}")));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let shm = |host| rank(CommSpec::Shm, host, 1, &[]);
        let hint = "hint: shared memory is for one host; use auto, gloo, mpi or ucx";
        check([shm("a"), shm("b")], Err(&format!("rank 1 is on another host than rank 0\n{hint}")));
        let threads = |pid| rank(CommSpec::Threads, "a", pid, &[]);
        check([threads(1), threads(1)], Ok("threads: asked for"));
        let hint = "hint: processes of one host use shm, or auto";
        check([threads(1), threads(2)], Err(&format!("rank 1 is not a thread of rank 0's process\n{hint}")));
        check([shm("a"), threads(1)], Err("rank 1 wants the transport threads, rank 0 shm\nhint: give all ranks the same"));
        check([shm("a"), Presence { size: 3, ..shm("a") }], Err("rank 1 is one of 3, rank 0 one of 2"));
    }
}
