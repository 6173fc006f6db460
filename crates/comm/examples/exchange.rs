//! Times `all_to_all`, a small `allreduce` and a gradient-sized one, between threads and between processes.
//!
//! `cargo run --release -p deeprc-comm --example exchange -- [ranks] [MB per rank] [rounds]`

use std::{
    env, fs,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use deeprc_comm::{Communicator, ReduceOp, Result};

/// Numbers in a typical gradient of a small forecasting model.
const GRADIENT: usize = 250_000;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let number = |at: usize, default: usize| arguments.get(at).and_then(|text| text.parse().ok()).unwrap_or(default);
    let (size, megabytes, rounds) = (number(0, 2), number(1, 64), number(2, 5).max(1));
    if env::var_os("DEEPRC_RENDEZVOUS").is_some() {
        return measure("processes", &Communicator::from_env()?, megabytes, rounds);
    }
    thread::scope(|scope| {
        let ranks = Communicator::threads(size).into_iter();
        let ranks: Vec<_> = ranks.map(|comm| scope.spawn(move || measure("threads", &comm, megabytes, rounds))).collect();
        ranks.into_iter().try_for_each(|rank| rank.join().expect("no panic"))
    })?;
    let dir = env::temp_dir().join(format!("deeprc-exchange-{}", std::process::id()));
    let shared = std::path::Path::new("/dev/shm");
    let dir = if shared.is_dir() { shared.join(dir.file_name().expect("has a name")) } else { dir };
    let program = env::current_exe().expect("this program has a path");
    let ranks = (0..size).map(|rank| {
        let mut command = Command::new(&program);
        command.args([size, megabytes, rounds].map(|number| number.to_string()));
        command.env("RANK", rank.to_string()).env("WORLD_SIZE", size.to_string()).env("DEEPRC_RENDEZVOUS", &dir);
        command.spawn().expect("this program starts")
    });
    for mut rank in ranks.collect::<Vec<_>>() {
        assert!(rank.wait().expect("a child can be waited for").success());
    }
    // Not there when there was only one rank, which meets nobody.
    let _ = fs::remove_dir(&dir);
    Ok(())
}

/// Prints, on rank 0, the fastest and the slowest of the rounds.
fn measure(kind: &str, comm: &Communicator, megabytes: usize, rounds: usize) -> Result<()> {
    let data = Bytes::from(vec![comm.rank() as u8; (megabytes << 20) / comm.size()]);
    let mut gradient = vec![1f32; GRADIENT];
    report(kind, &format!("all_to_all {megabytes} MB per rank"), comm, rounds, || {
        comm.all_to_all(vec![vec![data.clone()]; comm.size()]).map(drop)
    })?;
    report(kind, "allreduce 1 MB of f32", comm, rounds, || comm.allreduce(&mut gradient, ReduceOp::Max))?;
    report(kind, "allreduce 8 bytes, 1000 times", comm, rounds, || (0..1000).try_for_each(|_| comm.allreduce(&mut [1f64], ReduceOp::Max)))
}

fn report(kind: &str, what: &str, comm: &Communicator, rounds: usize, mut call: impl FnMut() -> Result<()>) -> Result<()> {
    let mut times: Vec<Duration> = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        comm.barrier()?;
        let started = Instant::now();
        call()?;
        comm.barrier()?;
        times.push(started.elapsed());
    }
    times.sort_unstable();
    if comm.rank() == 0 {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        println!("{} {kind}, {what}: {:.2} to {:.2} ms", comm.size(), ms(times[0]), ms(times[rounds - 1]));
    }
    Ok(())
}
