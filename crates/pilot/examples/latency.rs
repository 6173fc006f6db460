//! What the pilot costs on this machine: `cargo run --release -p deeprc-pilot --example latency`.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use deeprc_pilot::{Error, Pool, Session, SessionOptions, TaskDescription, TaskId, rank::Registry};
use serde_json::Value;

const LONG: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let result = match arguments.next().as_deref() {
        Some("agent") => return deeprc_pilot::agent::main(arguments),
        Some("rank") => serve(),
        _ => measure(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<(), Error> {
    let mut registry = Registry::new();
    registry.register("nothing", |ctx, _| {
        ctx.connected();
        Ok(Value::Null)
    });
    registry.serve()
}

fn measure() -> Result<(), Error> {
    let program = std::env::current_exe().map(|path| path.display().to_string()).unwrap_or_default();
    let dir = std::env::temp_dir().join(format!("deeprc-latency-{}", std::process::id()));
    let mut options = SessionOptions::new(&dir, [&program[..], "agent"]);
    options.pools.push(Pool::new("rank", [&program[..], "rank"]).warm(2));
    let function = || TaskDescription::function("nothing", "rank", "nothing", Value::Null);
    let executable = || TaskDescription::executable("true", "true", [""; 0]);

    let begin = Instant::now();
    let session = Session::start(options)?;
    println!("session ready                {:>9.1?}", begin.elapsed());
    let first = session.submit(function())?;
    session.wait(first, LONG)?;
    println!("first function done          {:>9.1?}", begin.elapsed());

    for (name, task) in [("warm function", function()), ("executable", executable())] {
        let mut times = Vec::new();
        let mut overheads = Vec::new();
        for _ in 0..100 {
            let begin = Instant::now();
            let id = session.submit(task.clone())?;
            overheads.extend(session.wait(id, LONG)?.times.overhead());
            times.push(begin.elapsed());
        }
        times.sort_unstable();
        overheads.sort_by(f64::total_cmp);
        println!("{name:<16} round trip  {:>9.2?} median, {:.2?} 99 %", times[50], times[98]);
        println!("{name:<16} overhead    {:>7.2}ms median", overheads[50] * 1e3);
        let count = 1000;
        let begin = Instant::now();
        let ids = (0..count).map(|_| session.submit(task.clone())).collect::<Result<Vec<TaskId>, Error>>()?;
        for id in ids {
            session.wait(id, LONG)?;
        }
        println!("{name:<16} throughput  {:>9.0}/s", f64::from(count) / begin.elapsed().as_secs_f64());
    }
    session.close()?;
    let _ = std::fs::remove_dir_all(dir);
    Ok(())
}
