//! Ranks that are real processes, and what the others see when one is killed, stopped or missing.
//!
//! The processes are this test program, started again for the test `rank_process` with a role in its environment.
#![expect(clippy::unwrap_used, reason = "a panic is the test's message")]

use std::{
    env, fs,
    io::{self, Read},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use deeprc_comm::{Communicator, Error, ReduceOp, Rendezvous};
use rustix::process::{Pid, Signal, kill_process};

const ROLE: &str = "DEEPRC_COMM_TEST_ROLE";
const LARGE: usize = 5 << 20;

/// A rank that does not outlive its test.
struct Rank(Child);

impl Rank {
    fn start(role: &str, dir: &Path, rank: usize, size: usize) -> Self {
        Rank::start_with(role, dir, rank, size, &[])
    }

    fn start_with(role: &str, dir: &Path, rank: usize, size: usize, variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "rank_process", "--nocapture"]).stdin(Stdio::piped()).stdout(Stdio::null());
        command.envs(variables.iter().copied()).env(ROLE, role).env("RANK", rank.to_string()).env("WORLD_SIZE", size.to_string());
        Rank(command.env("DEEPRC_RENDEZVOUS", dir).spawn().unwrap())
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

fn connect(dir: &Path, rank: usize, size: usize) -> Communicator {
    Communicator::connect(&Rendezvous::new(dir, rank, size)).unwrap().with_timeout(Duration::from_secs(60))
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
        "receive the first" => {
            assert_eq!(comm.recv(1, 1).unwrap(), ["complete"]);
            comm.send(2, 1, Vec::new()).unwrap();
            io::stdin().read_to_end(&mut Vec::new()).unwrap();
            let error = comm.recv(1, 2).unwrap_err();
            assert!(matches!(error, Error::PeerDead { rank: 1 }), "half a message is none: {error:?}");
        }
        "send without end" => {
            comm.send(0, 1, vec![Bytes::from_static(b"complete")]).unwrap();
            drop(comm.send(0, 2, vec![vec![7; LARGE].into()]));
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
    // Long messages are lent to ranks that may copy them, and go through the rings to the others.
    for (size, lent) in (2..=4).flat_map(|size| [(size, "1"), (size, "0")]) {
        let dir = tempfile::tempdir().unwrap();
        let start = |rank| Rank::start_with("work", dir.path(), rank, size, &[("DEEPRC_COMM_LEND", lent)]);
        let mut others: Vec<Rank> = (1..size).map(start).collect();
        work(&connect(dir.path(), 0, size));
        others.iter_mut().for_each(Rank::succeeds);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "the rendezvous leaves nothing behind");
    }
}

#[test]
fn a_killed_rank_is_reported_to_all_who_need_it() {
    let dir = tempfile::tempdir().unwrap();
    let victim = Rank::start("idle", dir.path(), 1, 3);
    let mut survivor = Rank::start("miss rank 1", dir.path(), 2, 3);
    let comm = connect(dir.path(), 0, 3);
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

#[test]
fn what_a_killed_rank_sent_completely_still_arrives() {
    let dir = tempfile::tempdir().unwrap();
    let mut victim = Rank::start("send without end", dir.path(), 1, 3);
    // Not lent: half of the message is in the ring when its sender dies.
    let mut receiver = Rank::start_with("receive the first", dir.path(), 0, 3, &[("DEEPRC_COMM_LEND", "0")]);
    let comm = connect(dir.path(), 2, 3);
    comm.recv(0, 1).unwrap();
    victim.signal(Signal::KILL);
    victim.0.wait().unwrap();
    // What the receiver waits for before it goes on.
    drop(receiver.0.stdin.take());
    receiver.succeeds();
}

#[test]
fn a_send_to_a_killed_rank_fails() {
    let dir = tempfile::tempdir().unwrap();
    let victim = Rank::start("idle", dir.path(), 1, 2);
    let comm = connect(dir.path(), 0, 2);
    comm.barrier().unwrap();
    victim.signal(Signal::KILL);
    let error = comm.send(1, 9, vec![vec![0; LARGE].into()]).unwrap_err();
    assert!(matches!(error, Error::PeerDead { rank: 1 }), "{error:?}");
}

#[test]
fn a_stopped_rank_is_a_timeout() {
    let dir = tempfile::tempdir().unwrap();
    let stopped = Rank::start("idle", dir.path(), 1, 2);
    let comm = connect(dir.path(), 0, 2);
    comm.barrier().unwrap();
    stopped.signal(Signal::STOP);
    let error = comm.with_timeout(Duration::from_millis(100)).barrier().unwrap_err();
    assert!(matches!(error, Error::Timeout { operation: "barrier", rank: Some(1), .. }), "{error:?}");
}

#[test]
fn a_missing_rank_is_a_timeout() {
    for (rank, missing) in [(0, 1), (1, 0)] {
        let dir = tempfile::tempdir().unwrap();
        let at = Rendezvous { timeout: Duration::from_millis(100), ..Rendezvous::new(dir.path(), rank, 2) };
        let error = Communicator::connect(&at).unwrap_err();
        assert_eq!(error.to_string(), format!("timed out in connect after 0.1 s waiting for rank {missing}"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "the rendezvous leaves nothing behind");
    }
}

#[test]
fn a_rank_killed_before_all_have_met_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let first = Rank::start("idle", dir.path(), 0, 3);
    thread::scope(|scope| {
        let at = Rendezvous { timeout: Duration::from_secs(2), ..Rendezvous::new(dir.path(), 1, 3) };
        let waiting = scope.spawn(move || Communicator::connect(&at).unwrap_err());
        wait_for_file(dir.path());
        first.signal(Signal::KILL);
        let error = waiting.join().unwrap();
        // Rank 1 may not have opened the file yet; then it waits for a rank 0 that lives.
        assert!(matches!(error, Error::PeerDead { rank: 0 } | Error::Timeout { rank: Some(0), .. }), "{error:?}");
    });
}

#[test]
fn a_file_left_behind_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let mut earlier = Rank::start("idle", dir.path(), 0, 2);
    wait_for_file(dir.path());
    earlier.signal(Signal::KILL);
    earlier.0.wait().unwrap();
    thread::scope(|scope| {
        let second = scope.spawn(|| connect(dir.path(), 1, 2).barrier());
        connect(dir.path(), 0, 2).barrier().unwrap();
        second.join().unwrap().unwrap();
    });
}

#[test]
fn a_rank_is_taken_once() {
    let dir = tempfile::tempdir().unwrap();
    let at = |rank| Rendezvous::new(dir.path(), rank, 3);
    let (tell, told) = mpsc::channel();
    thread::scope(|scope| {
        for at in [at(0), at(1), at(1)] {
            let tell = tell.clone();
            scope.spawn(move || tell.send(Communicator::connect(&at)).unwrap());
        }
        // The others are still waiting for rank 2.
        let refused = told.recv().unwrap().unwrap_err().to_string();
        assert!(refused.ends_with("rank 1 is taken by another process"), "{refused}");
        Communicator::connect(&at(2)).unwrap();
        assert!(told.iter().take(2).all(|met| met.is_ok()));
    });
}

#[test]
fn ranks_agree_on_the_size() {
    let dir = tempfile::tempdir().unwrap();
    thread::scope(|scope| {
        let first = scope.spawn(|| connect(dir.path(), 0, 2));
        let error = Communicator::connect(&Rendezvous::new(dir.path(), 1, 3)).unwrap_err();
        assert!(error.to_string().ends_with("the file there is not for 3 ranks of this build"), "{error}");
        connect(dir.path(), 1, 2);
        first.join().unwrap();
    });
}

/// Until rank 0 has put the file in place. There is nothing to block on: the process is not a rank yet.
fn wait_for_file(dir: &Path) {
    let started = Instant::now();
    while !dir.join("segment").exists() {
        assert!(started.elapsed() < Duration::from_secs(60));
        thread::yield_now();
    }
}
