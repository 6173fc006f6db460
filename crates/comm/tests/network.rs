//! Ranks that are real processes, connected by the network libraries that are built in, and what the others see when one is
//! killed or stopped. What shared memory does then is tested in `processes.rs`.
//!
//! The processes are this test program, started again for the test `rank_process` with a role in its environment.
#![cfg(any(feature = "gloo", feature = "ucx"))]
#![expect(clippy::unwrap_used, reason = "a panic is the test's message")]

use std::{
    env, fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use deeprc_comm::{CommSpec, Communicator, Error, ReduceOp, Rendezvous};
use rustix::process::{Pid, Signal, kill_process};

const ROLE: &str = "DEEPRC_COMM_TEST_ROLE";
const LARGE: usize = 5 << 20;
/// Takes long enough to be killed in the middle of it.
const ENDLESS: usize = 300 << 20;

/// Those that are built in and need no launcher.
fn specs() -> impl Iterator<Item = CommSpec> {
    [CommSpec::Gloo, CommSpec::Ucx].into_iter().filter(|spec| spec.is_built_in())
}

/// A rank that does not outlive its test.
struct Rank(Child);

impl Rank {
    fn start(spec: CommSpec, role: &str, dir: &Path, rank: usize, size: usize) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "rank_process", "--nocapture"]).stdout(Stdio::null());
        command.env(ROLE, role).env("RANK", rank.to_string()).env("WORLD_SIZE", size.to_string());
        Rank(command.env("DEEPRC_COMM", spec.name()).env("DEEPRC_RENDEZVOUS", dir).spawn().unwrap())
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    fn succeeds(&mut self) {
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Rank {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn connect(spec: CommSpec, dir: &Path, rank: usize, size: usize) -> Communicator {
    Communicator::open(spec, &Rendezvous::new(dir, rank, size)).unwrap().0.with_timeout(Duration::from_secs(60))
}

/// The body of the processes; as a test of its own it has no role and nothing to do.
#[test]
fn rank_process() {
    let Ok(role) = env::var(ROLE) else { return };
    let comm = Communicator::from_env().unwrap().with_timeout(Duration::from_secs(60));
    match role.as_str() {
        "work" => work(&comm),
        "idle" => {
            comm.barrier().unwrap();
            drop(comm.recv(0, 1));
        }
        "miss rank 1" => {
            comm.barrier().unwrap();
            comm.send(0, 2, Vec::new()).unwrap();
            let error = comm.recv(1, 1).unwrap_err();
            assert!(matches!(error, Error::PeerDead { rank: 1 }), "{error:?}");
        }
        "send without end" => {
            comm.send(0, 1, vec![Bytes::from_static(b"complete")]).unwrap();
            drop(comm.send(0, 2, vec![vec![7; ENDLESS].into()]));
        }
        other => panic!("no role {other}"),
    }
}

/// A bit of everything, with answers that each rank can compute.
fn work(comm: &Communicator) {
    let (rank, size) = (comm.rank(), comm.size());
    let data = |from: usize, to: usize| -> Bytes { vec![(from * 16 + to) as u8; LARGE / (from + 1)].into() };
    let received = comm.all_to_all((0..size).map(|to| vec![data(rank, to)]).collect()).unwrap();
    assert!((0..size).all(|from| received[from] == [data(from, rank)]));
    assert!(received.iter().enumerate().all(|(from, got)| from == rank || got[0].as_ptr().addr().is_multiple_of(64)));
    let mut sum = vec![rank as f64; 10_000];
    comm.allreduce(&mut sum, ReduceOp::Sum).unwrap();
    assert!(sum.iter().all(|&sum| sum == (size * (size - 1) / 2) as f64));
    let part = comm.split((rank % 2) as u64, 0).unwrap();
    let root = part.broadcast(0, vec![rank as u8].into()).unwrap();
    assert_eq!(root, [(rank % 2) as u8].as_slice());
    comm.barrier().unwrap();
}

#[test]
fn processes_work_together() {
    for spec in specs() {
        for size in 2..=4 {
            let dir = tempfile::tempdir().unwrap();
            let mut others: Vec<Rank> = (1..size).map(|rank| Rank::start(spec, "work", dir.path(), rank, size)).collect();
            work(&connect(spec, dir.path(), 0, size));
            others.iter_mut().for_each(Rank::succeeds);
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "the rendezvous leaves nothing behind");
        }
    }
}

#[test]
fn a_killed_rank_is_reported_to_all_who_need_it() {
    for spec in specs() {
        let dir = tempfile::tempdir().unwrap();
        let victim = Rank::start(spec, "idle", dir.path(), 1, 3);
        let mut survivor = Rank::start(spec, "miss rank 1", dir.path(), 2, 3);
        let comm = connect(spec, dir.path(), 0, 3);
        comm.barrier().unwrap();
        // The survivor needs the other one to get through the barrier.
        comm.recv(2, 2).unwrap();
        let started = Instant::now();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| comm.recv(1, 1).unwrap_err());
            victim.signal(Signal::KILL);
            let error = waiting.join().unwrap();
            assert!(matches!(error, Error::PeerDead { rank: 1 }), "{error:?}");
        });
        survivor.succeeds();
        assert!(started.elapsed() < Duration::from_secs(30), "by its death, not by the deadline");
        assert!(matches!(comm.barrier(), Err(Error::PeerDead { rank: 1 })), "poisoned");
    }
}

#[test]
fn what_a_killed_rank_sent_completely_still_arrives() {
    for spec in specs() {
        let dir = tempfile::tempdir().unwrap();
        let mut victim = Rank::start(spec, "send without end", dir.path(), 1, 2);
        let comm = connect(spec, dir.path(), 0, 2);
        assert_eq!(comm.recv(1, 1).unwrap(), ["complete"]);
        victim.signal(Signal::KILL);
        victim.0.wait().unwrap();
        match comm.recv(1, 2) {
            Err(Error::PeerDead { rank: 1 }) => {}
            Ok(parts) => assert_eq!(parts.iter().map(Bytes::len).sum::<usize>(), ENDLESS, "half a message is none"),
            Err(other) => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_send_to_a_killed_rank_fails() {
    for spec in specs() {
        let dir = tempfile::tempdir().unwrap();
        let victim = Rank::start(spec, "idle", dir.path(), 1, 2);
        let comm = connect(spec, dir.path(), 0, 2);
        comm.barrier().unwrap();
        victim.signal(Signal::KILL);
        let error = comm.send(1, 9, vec![vec![0; LARGE].into()]).unwrap_err();
        assert!(matches!(error, Error::PeerDead { rank: 1 }), "{error:?}");
    }
}

#[test]
fn a_stopped_rank_is_a_timeout() {
    for spec in specs() {
        let dir = tempfile::tempdir().unwrap();
        let stopped = Rank::start(spec, "idle", dir.path(), 1, 2);
        let comm = connect(spec, dir.path(), 0, 2);
        comm.barrier().unwrap();
        stopped.signal(Signal::STOP);
        let error = comm.with_timeout(Duration::from_millis(100)).barrier().unwrap_err();
        assert!(matches!(error, Error::Timeout { operation: "barrier", rank: Some(1), .. }), "{error:?}");
    }
}
