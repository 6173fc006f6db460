//! The agent process: one per node, starts and watches the ranks.
//!
//! It decides nothing about tasks: it starts the ranks that the leader sends, reports what becomes of them, and stops
//! them when told. When its connection to the leader ends, for whatever reason, it ends everything.
//!
//! | file | what |
//! |---|---|
//! | `daemon.rs` | the event loop, and the end of everything |
//! | `launch.rs` | the stations of a gang: launch, end of each rank, stop |
//! | `gang.rs` | its ranks: environment, log files, rendezvous |
//! | `warm.rs` | the stations of a warm rank: start, call, answer, death |
//! | `pool.rs` | which warm ranks are idle, which must be started |
//! | `spawn.rs` | starting and signalling processes; the only `unsafe` of the agent |

mod daemon;
mod gang;
mod launch;
mod pool;
mod spawn;
mod warm;

use std::{io, path::PathBuf, process::ExitCode};

use tokio::net::UnixStream;

/// The body of `deeprc agent`: `args` are the arguments after the sub-command, that is `--socket <path>`.
///
/// Returns when the leader says so or is gone; every process that it started is dead then. What goes wrong is
/// written to stderr, which is a file in the session directory.
pub fn main(args: impl IntoIterator<Item = String>) -> ExitCode {
    let mut args = args.into_iter();
    let socket = match (args.next().as_deref(), args.next(), args.next()) {
        (Some("--socket"), Some(socket), None) => PathBuf::from(socket),
        _ => {
            eprintln!("error: expected `--socket <path>`\nhint: an agent is started by a session, not by hand");
            return ExitCode::from(2);
        }
    };
    match serve(socket) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: agent failed: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One thread for everything: ranks are its children, and they die with the thread that started them.
fn serve(socket: PathBuf) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { daemon::run(UnixStream::connect(socket).await?).await })
}
