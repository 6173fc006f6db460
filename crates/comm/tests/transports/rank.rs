//! What the processes do. Everything they say is one line on stdout: rank, event, text, separated by tabs.

use std::{
    env,
    io::Write,
    process::{self, ExitCode},
    thread,
    time::Duration,
};

use bytes::Bytes;
use deeprc_comm::{CommSpec, Communicator, Error, ReduceOp, Rendezvous, Result, check};

use crate::sockets;

/// The variable with the role of a process; without it the program is the launcher.
pub(crate) const ROLE: &str = "DEEPRC_TRANSPORTS_ROLE";
/// The deadline of every call, and of the meeting, in milliseconds.
pub(crate) const CALLS: &str = "DEEPRC_TRANSPORTS_CALLS_MS";
pub(crate) const MEETING: &str = "DEEPRC_TRANSPORTS_MEETING_MS";
/// Bytes of the large message.
pub(crate) const LENGTH: &str = "DEEPRC_TRANSPORTS_LENGTH";
/// The rank that things happen to.
pub(crate) const VICTIM: usize = 1;

/// Runs a role; a failure if the rank got an error.
pub(crate) fn main(role: &str) -> ExitCode {
    let mut at = match Rendezvous::from_env() {
        Ok(at) => at.unwrap_or_else(|| Rendezvous::new(".", 0, 1)),
        Err(error) => return report(usize::MAX, Err(error)),
    };
    let rank = at.rank;
    say(rank, "start", &process::id().to_string());
    at.timeout = milliseconds(MEETING);
    match role {
        "wrong size" if rank == VICTIM => at.size += 1,
        // Later than the others are willing to wait.
        "late" if rank == VICTIM => thread::park_timeout(2 * at.timeout),
        _ => {}
    }
    report(rank, open(&at).and_then(|comm| run(role, &at, &comm)))
}

fn open(at: &Rendezvous) -> Result<Communicator> {
    let (comm, choice) = Communicator::open(CommSpec::from_env()?, at)?;
    say(at.rank, "open", &choice.to_string());
    Ok(comm.with_timeout(milliseconds(CALLS)))
}

fn run(role: &str, at: &Rendezvous, comm: &Communicator) -> Result<()> {
    match role {
        "checks" => checks(at, comm),
        "work" | "wrong size" | "late" => work(comm),
        "loop" | "lose sockets" => work_forever(role, comm),
        "stream" => stream(comm),
        "mismatch" => {
            comm.barrier()?;
            if comm.rank() == VICTIM {
                comm.allreduce(&mut [1f32], ReduceOp::Sum)?
            } else {
                comm.barrier()?
            }
            comm.barrier()
        }
        "large" => large(comm),
        other => panic!("no role {other}"),
    }
}

fn checks(at: &Rendezvous, comm: &Communicator) -> Result<()> {
    check::run(
        comm,
        |_| open(at),
        |outcome| {
            if !outcome.verdict.passed() {
                say(comm.rank(), "check", &format!("`{}` {}", outcome.name, outcome.verdict));
            }
        },
    );
    Ok(())
}

fn work(comm: &Communicator) -> Result<()> {
    let mut sum = [comm.rank() as u64];
    comm.allreduce(&mut sum, ReduceOp::Sum)?;
    assert_eq!(sum[0] as usize, comm.size() * (comm.size() - 1) / 2);
    let received = comm.all_to_all((0..comm.size()).map(|to| vec![vec![to as u8; 100_000].into()]).collect())?;
    assert!(received.iter().all(|from| *from == [vec![comm.rank() as u8; 100_000]]));
    comm.barrier()
}

/// Until something happens. A rank that has lost its connections goes on as if it had not noticed.
fn work_forever(role: &str, comm: &Communicator) -> Result<()> {
    work(comm)?;
    say(comm.rank(), "ready", "");
    for round in 0u64.. {
        work(comm)?;
        if role == "lose sockets" && comm.rank() == VICTIM && round == 20 {
            let served = env::var("DEEPRC_STORE").ok().and_then(|store| store.split(['/', ':']).nth(1)?.parse().ok());
            let store = served.or_else(|| env::var("MASTER_PORT").ok()?.parse().ok());
            say(comm.rank(), "lost", &sockets::drop_all(store).to_string());
        }
    }
    Ok(())
}

/// The victim sends one message after the other to rank 0, which looks whether they are whole; the others wait for the victim.
fn stream(comm: &Communicator) -> Result<()> {
    const LENGTH: usize = 64 << 20;
    comm.barrier()?;
    for number in 1u8..=u8::MAX {
        match comm.rank() {
            VICTIM => comm.send(0, 2, vec![vec![number; LENGTH].into()])?,
            0 => {
                let message = comm.recv(VICTIM, 2)?;
                assert_eq!(message.iter().map(Bytes::len).collect::<Vec<_>>(), [LENGTH]);
                assert!(message[0].iter().all(|&byte| byte == number), "message {number} is not what was sent");
                say(0, "ready", "");
            }
            _ => drop(comm.recv(VICTIM, 2)?),
        }
    }
    Ok(())
}

/// From rank 0 to the last one.
fn large(comm: &Communicator) -> Result<()> {
    let length: usize = env::var(LENGTH).unwrap().parse().unwrap();
    // Words with their own number, so that a lost or doubled piece is found; the last ones are cut off.
    let word = |at: usize| (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    comm.barrier()?;
    if comm.rank() == 0 {
        let mut data = vec![0u8; length];
        data.chunks_mut(8).enumerate().for_each(|(at, cell)| cell.copy_from_slice(&word(at)[..cell.len()]));
        comm.send(comm.size() - 1, 1, vec![Bytes::from_static(b"before"), data.into(), Bytes::from_static(b"after")])?;
    }
    if comm.rank() + 1 == comm.size() {
        let received = comm.recv(0, 1)?;
        assert_eq!(received.iter().map(Bytes::len).collect::<Vec<_>>(), [6, length, 5]);
        assert!(received[1].chunks(8).enumerate().all(|(at, cell)| *cell == word(at)[..cell.len()]), "not what was sent");
    }
    comm.barrier()
}

fn report(rank: usize, result: Result<()>) -> ExitCode {
    let Err(error) = result else {
        say(rank, "done", "");
        return ExitCode::SUCCESS;
    };
    say(rank, "error", &format!("{} {error}", kind(&error)));
    ExitCode::FAILURE
}

/// The name of the variant, with the rank where it names one.
fn kind(error: &Error) -> String {
    let name: String = format!("{error:?}").chars().take_while(char::is_ascii_alphanumeric).collect();
    match error {
        Error::PeerDead { rank } | Error::PeerLeft { rank } | Error::Timeout { rank: Some(rank), .. } => format!("{name}({rank})"),
        _ => name,
    }
}

fn say(rank: usize, event: &str, text: &str) {
    let line = format!("{rank}\t{event}\t{}\n", text.replace('\n', " / "));
    // In one piece: several ranks may share the pipe. Nobody listens when the launcher was stopped.
    let _ = std::io::stdout().lock().write_all(line.as_bytes());
    let _ = std::io::stdout().flush();
}

fn milliseconds(variable: &str) -> Duration {
    Duration::from_millis(env::var(variable).unwrap().parse().unwrap())
}
