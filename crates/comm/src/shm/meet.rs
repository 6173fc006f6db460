//! How the processes find the shared file and each other.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::segment::{SeatState, Segment};
use crate::{
    Error, Rendezvous, Result,
    process::{HostId, Process},
    transport::Deadline,
};

/// The file's name in the rendezvous directory.
const NAME: &str = "segment";
/// How often a rank looks for a file that rank 0 has not made yet: first soon, then less often.
const LOOK: [Duration; 2] = [Duration::from_micros(100), Duration::from_millis(5)];
/// Until then rank 0 has made it, if it came at the same time.
const SOON: Duration = Duration::from_millis(2);
/// How often ranks that wait for others make sure that those which are there still live.
const ROLL_CALL: Duration = Duration::from_millis(100);

/// Takes this rank's seat and waits until all are taken. Rank 0 makes the file under another name and moves it into place
/// complete; when all are there it removes the name, so nothing remains when the last process ends, however it ends.
pub(super) fn meet(dir: &Path, at: &Rendezvous) -> Result<Arc<Segment>> {
    let deadline = Deadline::new("connect", at.timeout);
    let path = dir.join(NAME);
    let me = Process::current().map_err(|error| Error::io("read /proc/self/stat", error))?;
    let segment = if at.rank == 0 { create(dir, at.size, &path, me)? } else { open(at, &path, me, deadline)? };
    let met = roll_call(&segment, deadline);
    if at.rank == 0 {
        // Somebody else may have tidied up the directory already.
        let _ = fs::remove_file(&path);
    }
    if met.is_err() {
        segment.leave(at.rank);
    }
    met.map(|()| Arc::new(segment))
}

/// This host in the segment's short form.
fn host() -> Result<u64> {
    HostId::current().map(|host| host.digest()).map_err(|error| Error::io("find out which host this is", error))
}

fn create(dir: &Path, size: usize, path: &Path, me: Process) -> Result<Segment> {
    let draft: PathBuf = dir.join(format!("{NAME}.{}", me.pid));
    let host = host()?;
    let make = || {
        fs::create_dir_all(dir)?;
        // Left behind by an earlier attempt of this very process.
        let _ = fs::remove_file(&draft);
        let segment = Segment::create(&draft, size, host)?;
        // Before the others can see the file: they ask whether the process of rank 0 lives.
        segment.claim(0, me);
        fs::rename(&draft, path)?;
        Ok(segment)
    };
    make().map_err(|error: io::Error| {
        let _ = fs::remove_file(&draft);
        Error::io(format!("create {}", path.display()), error)
    })
}

fn open(at: &Rendezvous, path: &Path, me: Process, deadline: Deadline<'_>) -> Result<Segment> {
    let refuse = |reason: String| Error::Rendezvous { place: path.display().to_string(), reason };
    let host = host()?;
    let [mut pause, longest] = LOOK;
    loop {
        match Segment::open(path, at.size) {
            // A file whose maker is gone is left from an earlier attempt; rank 0 will replace it.
            Ok(segment) if segment.host() != host => {
                let hint = "hint: set DEEPRC_STORE, or MASTER_ADDR and MASTER_PORT";
                let refusal = refuse(format!("rank 0 is on another host, and a directory is a place for one host only\n{hint}"));
                // If the hosts share this memory after all, rank 0 is told.
                segment.abort(at.rank, &refusal.to_string());
                return Err(refusal);
            }
            Ok(segment) if segment.process(0).alive() => {
                if !segment.claim(at.rank, me) {
                    return Err(refuse(format!("rank {} is taken by another process", at.rank)));
                }
                return Ok(segment);
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(refuse(format!("the file there is not for {} ranks of this build", at.size)));
            }
            Err(error) => return Err(Error::io(format!("open {}", path.display()), error)),
        }
        let left = deadline.left().ok_or_else(|| deadline.expired(0))?;
        thread::sleep(pause.min(left));
        if deadline.after - left >= SOON {
            pause = (pause * 2).min(longest);
        }
    }
}

/// Waits until all seats were taken.
fn roll_call(segment: &Segment, deadline: Deadline<'_>) -> Result<()> {
    let complete = |attached: u32| attached as usize == segment.size();
    let mut called = Instant::now();
    loop {
        let attached = segment.attached();
        if complete(attached) {
            return Ok(());
        }
        if let Some((rank, reason)) = segment.aborted() {
            return Err(Error::Aborted { rank, reason });
        }
        let mut missing = None;
        let due = called.elapsed() >= ROLL_CALL;
        if due {
            called = Instant::now();
        }
        for rank in 0..segment.size() {
            let gone = match segment.state(rank) {
                SeatState::Empty | SeatState::Claimed => {
                    missing = missing.or(Some(rank));
                    continue;
                }
                // Asking the system for all of them takes longer than to meet.
                SeatState::Here if !due || segment.process(rank).alive() => continue,
                SeatState::Here => Error::PeerDead { rank },
                SeatState::Left => Error::PeerLeft { rank },
            };
            // The last one may have come meanwhile, and this one may have gone after that: then all have met.
            return if complete(segment.attached()) { Ok(()) } else { Err(gone) };
        }
        let left = deadline.left().ok_or_else(|| deadline.expired(missing))?;
        segment.sleep_for_attached(attached, left.min(ROLL_CALL));
    }
}
