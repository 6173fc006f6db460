//! How ranks meet: through a directory, a store, or the variables of a launcher; and who does not.
#![expect(clippy::unwrap_used, reason = "a panic is the test's message")]

use std::{
    env, fs,
    net::Ipv4Addr,
    process::{Command, Output, Stdio},
    thread,
    time::Duration,
};

use deeprc_comm::{Choice, CommSpec, Communicator, Error, ReduceOp, Rendezvous, Result, StoreAddress, StoreServer};

const ROLE: &str = "DEEPRC_COMM_TEST_ROLE";

fn serve() -> StoreServer {
    StoreServer::start((Ipv4Addr::LOCALHOST, 0).into(), "secret").unwrap()
}

/// What each of `size` threads of this process gets, by rank; those that meet do a bit of work.
fn open_all(spec: CommSpec, ranks: impl IntoIterator<Item = Rendezvous>) -> Vec<Result<Choice>> {
    thread::scope(|scope| {
        let open = |at: Rendezvous| {
            let (comm, choice) = Communicator::open(spec, &at)?;
            work(&comm.with_timeout(Duration::from_secs(60)));
            Ok(choice)
        };
        let ranks: Vec<_> = ranks.into_iter().map(|at| scope.spawn(move || open(at))).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

fn work(comm: &Communicator) {
    let mut sum = [comm.rank() as u64];
    comm.allreduce(&mut sum, ReduceOp::Sum).unwrap();
    assert_eq!(sum[0] as usize, comm.size() * (comm.size() - 1) / 2);
    comm.barrier().unwrap();
}

fn check(spec: CommSpec, ranks: impl IntoIterator<Item = Rendezvous>, expect: &str) {
    for choice in open_all(spec, ranks) {
        assert_eq!(choice.unwrap().to_string(), expect);
    }
}

#[test]
fn a_directory_is_enough_on_one_host() {
    let dir = tempfile::tempdir().unwrap();
    let ranks = |size| (0..size).map(move |rank| Rendezvous::new(dir.path(), rank, size)).collect::<Vec<_>>();
    let at = ranks(3);
    for _ in 0..2 {
        check(CommSpec::Auto, at.clone(), "threads: all 3 ranks are threads of one process");
        check(CommSpec::Threads, at.clone(), "threads: asked for");
        check(CommSpec::Shm, at.clone(), "shm: asked for");
    }
    check(CommSpec::Shm, at[..1].iter().map(|at| Rendezvous { size: 1, ..at.clone() }), "threads: there is a single rank");
    assert_eq!(fs::read_dir(at[0].dir.as_ref().unwrap()).unwrap().count(), 0, "the rendezvous leaves nothing behind");
}

#[test]
fn a_store_is_enough() {
    let server = serve();
    let ranks = (0..4).map(|rank| Rendezvous::through(server.address().clone(), "t/0", rank, 4));
    for _ in 0..2 {
        check(CommSpec::Auto, ranks.clone(), "threads: all 4 ranks are threads of one process");
        check(CommSpec::Shm, ranks.clone(), "shm: asked for");
    }
}

#[test]
fn rank_0_can_serve_the_store() {
    // Free a moment ago; another process would have to take it just now.
    let StoreAddress { host, port, .. } = serve().address().clone();
    let at = StoreAddress { host, port, token: String::new() };
    let ranks = (0..2).rev().map(|rank| Rendezvous { serve: true, ..Rendezvous::through(at.clone(), "t/0", rank, 2) });
    check(CommSpec::Auto, ranks.clone(), "threads: all 2 ranks are threads of one process");
    check(CommSpec::Shm, ranks, "shm: asked for");
}

/// Every rank gets the same short answer.
fn check_refused(spec: CommSpec, ranks: impl IntoIterator<Item = Rendezvous>, expect: &str) {
    let ranks = ranks.into_iter().map(|at| Rendezvous { timeout: Duration::from_millis(300), ..at });
    for error in open_all(spec, ranks).into_iter().map(Result::unwrap_err) {
        assert!(error.to_string().contains(expect), "{error}");
    }
}

#[test]
fn ranks_that_do_not_fit_are_told() {
    let server = serve();
    let at = |name: &str, rank, size| Rendezvous::through(server.address().clone(), name, rank, size);
    check_refused(CommSpec::Auto, [at("count", 0, 2), at("count", 1, 3)], "rank 1 is one of 3, rank 0 one of 2");
    check_refused(CommSpec::Auto, [at("late", 0, 3), at("late", 2, 3)], "timed out in connect after 0.3 s waiting for rank 1");
    check_refused(CommSpec::Auto, [at("late 0", 1, 2)], "timed out in connect after 0.3 s waiting for rank 0");
    // A rank of an earlier attempt meets nobody of this one.
    check_refused(CommSpec::Auto, [at("stale/0", 1, 2), at("stale/1", 0, 2)], "timed out in connect after 0.3 s waiting for rank");
    let token = StoreAddress { token: "guess".to_owned(), ..server.address().clone() };
    check_refused(CommSpec::Auto, [Rendezvous::through(token, "t", 0, 2)], "the token is wrong");
    check_refused(CommSpec::Auto, [Rendezvous { store: None, ..at("", 0, 2) }], "DEEPRC_STORE is not set, expected host:port of a store");
    for spec in CommSpec::ALL.into_iter().filter(|spec| !spec.is_built_in()) {
        check_refused(spec, [at("", 0, 2)], &format!("the transport {spec} is not built into this program\nhint: build it with"));
    }
}

#[test]
fn ranks_that_want_different_transports_are_told() {
    let server = serve();
    let at = |rank| Rendezvous::through(server.address().clone(), "differ", rank, 2);
    thread::scope(|scope| {
        let first = scope.spawn(|| Communicator::open(CommSpec::Auto, &at(0)).unwrap_err().to_string());
        let second = Communicator::open(CommSpec::Shm, &at(1)).unwrap_err().to_string();
        assert!(second.ends_with("rank 1 wants the transport shm, rank 0 auto\nhint: give all ranks the same"), "{second}");
        assert_eq!(first.join().unwrap(), second);
    });
}

/// The body of the processes; as a test of its own it has no role and nothing to do.
#[test]
fn rank_process() {
    if env::var_os(ROLE).is_none() {
        return;
    }
    let at = Rendezvous::from_env().unwrap().unwrap();
    match Communicator::open(CommSpec::from_env().unwrap(), &at) {
        Ok((comm, choice)) => {
            work(&comm);
            eprintln!("[{choice}]");
        }
        Err(error) => eprintln!("[{error}]"),
    }
}

/// What processes with these variables say between brackets.
fn say(ranks: impl IntoIterator<Item = Vec<(&'static str, String)>>) -> Vec<String> {
    let start = |variables: Vec<(&str, String)>| {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "rank_process", "--nocapture"]).env(ROLE, "open").envs(variables);
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let ranks: Vec<_> = ranks.into_iter().map(start).collect();
    let said = |output: Output| {
        let text = String::from_utf8(output.stderr).unwrap();
        let (_, rest) = text.split_once('[').unwrap_or_else(|| panic!("nothing said: {text}"));
        rest.rsplit_once(']').unwrap().0.to_owned()
    };
    ranks.into_iter().map(|rank| said(rank.wait_with_output().unwrap())).collect()
}

#[test]
fn processes_started_by_hand_or_by_mpirun_meet() {
    let port = serve().address().port.to_string();
    let by_hand = |rank: usize| {
        let place = [("MASTER_ADDR", "127.0.0.1".to_owned()), ("MASTER_PORT", port.clone())];
        [&[("RANK", rank.to_string()), ("WORLD_SIZE", "2".to_owned())], &place[..]].concat()
    };
    assert_eq!(say((0..2).map(by_hand)), ["shm: all 2 ranks are processes of one host"; 2]);
    let job = format!("test-{}", std::process::id());
    let by_mpirun = |rank: usize| {
        let count = |name| (name, "3".to_owned());
        let own = [("OMPI_COMM_WORLD_RANK", rank.to_string()), ("PMIX_NAMESPACE", job.clone())];
        [&own[..], &[count("OMPI_COMM_WORLD_SIZE"), count("OMPI_COMM_WORLD_LOCAL_SIZE")]].concat()
    };
    assert_eq!(say((0..3).map(by_mpirun)), ["shm: all 3 ranks are processes of one host"; 3]);
    let left = fs::read_dir("/dev/shm").unwrap().filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains(&job));
    assert_eq!(left.count(), 0, "the rendezvous leaves nothing behind");
}

#[test]
fn shared_memory_across_hosts_is_refused_on_all_ranks() {
    let (server, dir) = (serve(), tempfile::tempdir().unwrap());
    let rank = |rank: usize, place: (&'static str, String)| {
        let own = [("RANK", rank.to_string()), ("WORLD_SIZE", "2".to_owned()), ("DEEPRC_COMM", "shm".to_owned())];
        [&own[..], &[place, ("DEEPRC_COMM_HOST", format!("pretended {rank}"))]].concat()
    };
    for said in say((0..2).map(|r| rank(r, ("DEEPRC_STORE", server.address().to_string())))) {
        assert!(said.contains("rank 1 is on another host than rank 0\nhint: shared memory is for one host"), "{said}");
    }
    let said = say((0..2).map(|r| rank(r, ("DEEPRC_RENDEZVOUS", dir.path().display().to_string()))));
    let reason = "rank 0 is on another host, and a directory is a place for one host only\nhint: ";
    assert!(said[0].starts_with("aborted by rank 1: ") && said.iter().all(|said| said.contains(reason)), "{said:?}");
}

#[test]
fn a_rank_is_taken_once_in_a_store() {
    let server = serve();
    let address = server.address().to_string();
    let twice = |_| vec![("RANK", "1".to_owned()), ("WORLD_SIZE", "3".to_owned()), ("DEEPRC_STORE", address.clone())];
    let second = || {
        let at = Rendezvous::through(server.address().clone(), "task", 0, 3);
        let at = Rendezvous { timeout: Duration::from_secs(2), ..at };
        assert!(matches!(Communicator::open(CommSpec::Auto, &at), Err(Error::Timeout { rank: Some(2), .. })));
    };
    let said = thread::scope(|scope| {
        scope.spawn(second);
        say((0..2).map(twice))
    });
    assert!(said.iter().any(|said| said.ends_with("rank 1 is taken by another process")), "{said:?}");
}
