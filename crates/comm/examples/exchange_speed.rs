//! Times collectives over a transport and prints a JSON line for each on rank 0: the shortest, the middle and the longest round.
//!
//! ```text
//! cargo run --release -p deeprc-comm --example exchange_speed -- <spec> [ranks] [bytes per rank] [rounds] [what,…]
//! ```
//! `spec` is a `CommSpec`, `what` some of `all_to_all`, `all_to_all_read`, `allreduce`, `allreduce_8`, `barrier`, `build` (all of them).
//! The program starts its own ranks: as threads for `threads`, else as processes. Where a launcher has started them (`mpirun`, `srun`,
//! by hand), each is the rank that its environment says, which MPI needs.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Instant,
};

use bytes::Bytes;
use deeprc_comm::{CommSpec, Communicator, ReduceOp, Rendezvous, Result};

/// Calls that take microseconds are timed together.
const MANY: usize = 1000;

#[derive(Debug, Clone)]
struct Plan {
    spec: CommSpec,
    size: usize,
    bytes: usize,
    rounds: usize,
    what: Vec<String>,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let number = |at: usize, default: usize| arguments.get(at).and_then(|text| text.parse().ok()).unwrap_or(default);
    let all = "all_to_all,all_to_all_read,allreduce,allreduce_8,barrier,build";
    let plan = Plan {
        spec: arguments.first().map_or(Ok(CommSpec::Auto), |name| name.parse())?,
        size: number(1, 2),
        bytes: number(2, 256 << 20),
        rounds: number(3, 5).max(1),
        what: arguments.get(4).map_or(all, String::as_str).split(',').map(str::to_owned).collect(),
    };
    if let Some(at) = Rendezvous::from_env()? {
        return measure(&plan, &at);
    }
    let dir = scratch();
    let at = |rank| Rendezvous::new(&dir, rank, plan.size);
    let done = if plan.spec == CommSpec::Threads || plan.size == 1 {
        let plan = &plan;
        thread::scope(|scope| {
            let ranks: Vec<_> = (0..plan.size).map(at).map(|at| scope.spawn(move || measure(plan, &at))).collect();
            ranks.into_iter().try_for_each(|rank| rank.join().expect("no panic"))
        })
    } else {
        let program = env::current_exe().expect("this program has a path");
        let ranks = (0..plan.size).map(|rank| {
            let mut command = Command::new(&program);
            command.args(&arguments).env("RANK", rank.to_string()).env("WORLD_SIZE", plan.size.to_string());
            command.env("DEEPRC_RENDEZVOUS", &dir).spawn().expect("this program starts")
        });
        let ranks: Vec<_> = ranks.collect();
        for mut rank in ranks {
            assert!(rank.wait().expect("a child can be waited for").success(), "a rank failed");
        }
        Ok(())
    };
    // Not there when there was only one rank, which meets nobody.
    let _ = fs::remove_dir(&dir);
    done
}

fn scratch() -> PathBuf {
    let shared = Path::new("/dev/shm");
    let parent = if shared.is_dir() { shared.to_owned() } else { env::temp_dir() };
    parent.join(format!("deeprc-exchange-speed-{}", std::process::id()))
}

fn measure(plan: &Plan, at: &Rendezvous) -> Result<()> {
    let (comm, choice) = Communicator::open(plan.spec, at)?;
    if comm.rank() == 0 {
        eprintln!("{choice}");
    }
    // Not zeros: the system would give those without memory behind them.
    let data = Bytes::from(vec![comm.rank() as u8 + 1; plan.bytes / comm.size()]);
    let mut numbers = vec![1f32; plan.bytes / 4];
    let out = || vec![vec![data.clone()]; comm.size()];
    for what in &plan.what {
        match what.as_str() {
            "all_to_all" => report(plan, &comm, what, 1, || comm.all_to_all(out()).map(drop))?,
            "all_to_all_read" => report(plan, &comm, what, 1, || {
                let received = comm.all_to_all(out())?;
                std::hint::black_box(received.iter().flatten().map(read).fold(0, u64::wrapping_add));
                Ok(())
            })?,
            "allreduce" => report(plan, &comm, what, 1, || comm.allreduce(&mut numbers, ReduceOp::Sum))?,
            "allreduce_8" => report(plan, &comm, what, MANY, || (0..MANY).try_for_each(|_| comm.allreduce(&mut [1f64], ReduceOp::Max)))?,
            "barrier" => report(plan, &comm, what, MANY, || (0..MANY).try_for_each(|_| comm.barrier()))?,
            // Another name for each, as the tasks of an agent have.
            "build" => {
                let mut round = 0;
                report(plan, &comm, what, 1, || {
                    round += 1;
                    let dir = at.dir.as_ref().map(|dir| dir.join(round.to_string()));
                    let at = Rendezvous { name: format!("{}/{round}", at.name), dir, ..at.clone() };
                    let built = Communicator::open(plan.spec, &at).map(drop);
                    if let (0, Some(dir)) = (at.rank, &at.dir) {
                        let _ = fs::remove_dir(dir);
                    }
                    built
                })?;
            }
            other => panic!("nothing is called {other}"),
        }
    }
    Ok(())
}

/// Reads all bytes.
fn read(bytes: &Bytes) -> u64 {
    bytes.as_chunks().0.iter().fold(0, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)))
}

fn report(plan: &Plan, comm: &Communicator, what: &str, calls: usize, mut call: impl FnMut() -> Result<()>) -> Result<()> {
    let mut times = Vec::with_capacity(plan.rounds);
    // The first round is for the caches and the memory of all.
    for round in 0..=plan.rounds {
        comm.barrier()?;
        let started = Instant::now();
        call()?;
        if calls == 1 {
            comm.barrier()?;
        }
        if round > 0 {
            times.push(started.elapsed().as_secs_f64() * 1e3 / calls as f64);
        }
    }
    times.sort_unstable_by(f64::total_cmp);
    if comm.rank() == 0 {
        let (size, rounds) = (comm.size(), plan.rounds);
        let bytes = match what {
            "allreduce_8" => 8,
            "barrier" | "build" => 0,
            _ => plan.bytes,
        };
        let [min, median, max] = [times[0], times[rounds / 2], times[rounds - 1]].map(|time| format!("{time:.6}"));
        println!(
            r#"{{"spec":"{}","what":"{what}","ranks":{size},"bytes_per_rank":{bytes},"rounds":{rounds},"ms":{{"min":{min},"median":{median},"max":{max}}}}}"#,
            plan.spec
        );
    }
    Ok(())
}
