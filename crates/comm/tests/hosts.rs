//! Ranks on several hosts, some of which share one: the public checks, with threads on pretended hosts, and, where Gloo is
//! built in, with processes.
#![expect(clippy::unwrap_used, reason = "a panic is the test's message")]

use std::{
    collections::HashMap,
    env,
    net::Ipv4Addr,
    process::{Command, Stdio},
    sync::Mutex,
    thread,
    time::Duration,
};

use deeprc_comm::{CommSpec, Communicator, Rendezvous, StoreServer, check};

const TIMEOUT: Duration = Duration::from_secs(60);
const ROLE: &str = "DEEPRC_COMM_TEST_ROLE";

/// All checks, by ranks of which each is a thread.
fn check_hosts(hosts: &[usize]) {
    let made = Mutex::new(HashMap::new());
    let open = |name: &str, rank: usize| {
        let mut made = made.lock().unwrap();
        let ranks: &mut Vec<Option<Communicator>> =
            made.entry(name.to_owned()).or_insert_with(|| Communicator::threads_on_hosts(hosts).into_iter().map(Some).collect());
        Ok(ranks[rank].take().unwrap().with_timeout(TIMEOUT))
    };
    thread::scope(|scope| {
        for rank in 0..hosts.len() {
            let open = &open;
            scope.spawn(move || run(&open("first", rank).unwrap(), |name| open(name, rank)));
        }
    });
}

fn run(comm: &Communicator, open: impl FnMut(&str) -> deeprc_comm::Result<Communicator>) {
    let outcomes = check::run(comm, open, |_| ());
    assert_eq!(outcomes.len(), check::checks().len());
    let failed: Vec<_> = outcomes.iter().filter(|outcome| !outcome.verdict.passed()).collect();
    assert!(failed.is_empty(), "rank {} of {}: {failed:#?}", comm.rank(), comm.size());
}

#[test]
fn every_check_holds_on_hosts_in_blocks() {
    check_hosts(&[0, 0]);
    check_hosts(&[0, 0, 1]);
    check_hosts(&[0, 0, 1, 1]);
    check_hosts(&[2, 0, 0, 0, 1]);
}

#[test]
fn every_check_holds_on_hosts_in_any_order() {
    check_hosts(&[0, 1]);
    check_hosts(&[0, 1, 0]);
    check_hosts(&[0, 1, 1, 0, 2]);
}

/// The body of the processes; as a test of its own it has no role and nothing to do.
#[test]
fn rank_process() {
    if env::var_os(ROLE).is_none() {
        return;
    }
    let at = Rendezvous::from_env().unwrap().unwrap();
    let open = |name: &str| {
        let at = Rendezvous { name: format!("{}/{name}", at.name), ..at.clone() };
        Communicator::open(CommSpec::Auto, &at).map(|(comm, choice)| (comm.with_timeout(TIMEOUT), choice))
    };
    let (comm, choice) = open("first").unwrap();
    assert_eq!((choice.spec, choice.reason.contains("those of one host share memory")), (CommSpec::Gloo, true), "{choice}");
    run(&comm, |name| open(name).map(|(comm, _)| comm));
}

#[test]
fn processes_of_one_host_share_memory_beside_gloo() {
    if !CommSpec::Gloo.is_built_in() {
        return;
    }
    let server = StoreServer::start((Ipv4Addr::LOCALHOST, 0).into(), "secret").unwrap();
    let start = |rank: usize| {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "rank_process", "--nocapture"]).stdout(Stdio::null()).env(ROLE, "check");
        command.env("RANK", rank.to_string()).env("WORLD_SIZE", "4").env("DEEPRC_STORE", server.address().to_string());
        command.env("DEEPRC_COMM_NETWORKS", "gloo");
        command.env("DEEPRC_COMM_HOST", format!("pretended {}", rank / 2)).spawn().unwrap()
    };
    let ranks: Vec<_> = (0..4).map(start).collect();
    for mut rank in ranks {
        assert!(rank.wait().unwrap().success());
    }
}
