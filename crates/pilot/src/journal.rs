//! The journal: every [`Event`] of a session directory, append-only.
//!
//! ```text
//! "deeprcj" version:u8 │ length:u32 crc32:u32 payload │ length:u32 crc32:u32 payload │ …     (little-endian)
//! ```
//!
//! A payload is a postcard `Stamped<Event>`. A torn tail (the machine went down in the middle of a write) is ignored
//! when reading and cut off when appending. Each session starts with [`Event::SessionStarted`]; times count from there.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use crate::{Error, Event, Result, Stamped, TaskId};

/// Version of the format, including everything inside [`Event`].
pub const VERSION: u8 = 1;

const MAGIC: &[u8; 7] = b"deeprcj";
const HEADER: usize = MAGIC.len() + 1;

/// All events of a journal file, in order; a torn tail is left out.
///
/// # Errors
/// [`Error::Io`] when the file cannot be read, [`Error::Protocol`] when it is no journal of this version.
pub fn read(path: &Path) -> Result<Vec<Stamped<Event>>> {
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
    Ok(parse(path, &bytes)?.0)
}

/// The events and the length of the sound part.
fn parse(path: &Path, bytes: &[u8]) -> Result<(Vec<Stamped<Event>>, usize)> {
    let refuse = |reason: String| Error::Protocol { peer: path.display().to_string(), reason };
    if bytes.len() < HEADER || &bytes[..MAGIC.len()] != MAGIC {
        return Err(refuse("not a journal".into()));
    }
    if bytes[MAGIC.len()] != VERSION {
        return Err(refuse(format!("journal version {}, expected {VERSION}", bytes[MAGIC.len()])));
    }
    let mut events = Vec::new();
    let mut at = HEADER;
    while let Some((event, length)) = frame(&bytes[at..]) {
        events.push(event);
        at += length;
    }
    Ok((events, at))
}

/// The first frame of `bytes` and its length; `None` if it is not whole and sound.
fn frame(bytes: &[u8]) -> Option<(Stamped<Event>, usize)> {
    let number = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
    let (length, crc) = (number(0)? as usize, number(4)?);
    let payload = bytes.get(8..)?.get(..length)?;
    if crc32fast::hash(payload) != crc {
        return None;
    }
    Some((postcard::from_bytes(payload).ok()?, 8 + length))
}

/// An open journal.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    path: PathBuf,
    /// The first failure; nothing is written after it.
    failed: Option<io::Error>,
}

impl Journal {
    /// Opens or creates; returns also the highest task number in it. A file of another version is moved aside.
    pub(crate) fn open(path: &Path) -> Result<(Journal, u64)> {
        let options = || OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = options().map_err(Error::io("open", path))?;
        let bytes = fs::read(path).map_err(Error::io("read", path))?;
        let (events, sound) = match parse(path, &bytes) {
            Ok(found) => found,
            Err(_) => {
                if !bytes.is_empty() {
                    fs::rename(path, path.with_extension("old")).map_err(Error::io("rename", path))?;
                    file = options().map_err(Error::io("create", path))?;
                }
                file.write_all(MAGIC).and_then(|()| file.write_all(&[VERSION])).map_err(Error::io("write", path))?;
                (Vec::new(), HEADER)
            }
        };
        let cut = file.set_len(sound as u64).and_then(|()| file.seek(SeekFrom::End(0)));
        cut.map_err(Error::io("write", path))?;
        let number = |event: &Stamped<Event>| match &event.event {
            Event::Submitted { task: TaskId(number), .. } => *number,
            _ => 0,
        };
        let last = events.iter().map(number).max().unwrap_or(0);
        Ok((Journal { file, path: path.to_path_buf(), failed: None }, last))
    }

    /// Appends one event. A failure is remembered until [`Journal::close`]: tasks go on without their journal.
    pub(crate) fn append(&mut self, event: &Stamped<Event>) {
        if self.failed.is_some() {
            return;
        }
        let written = postcard::to_stdvec(event).map_err(io::Error::other).and_then(|payload| {
            let mut frame = Vec::with_capacity(8 + payload.len());
            frame.extend_from_slice(&(payload.len() as u32).to_le_bytes());
            frame.extend_from_slice(&crc32fast::hash(&payload).to_le_bytes());
            frame.extend_from_slice(&payload);
            self.file.write_all(&frame)
        });
        self.failed = written.err();
    }

    /// Brings it to the disk.
    pub(crate) fn close(mut self) -> Result<()> {
        let result = match self.failed.take() {
            Some(error) => Err(error),
            None => self.file.sync_data(),
        };
        result.map_err(Error::io("write", self.path))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::{Cause, Failure, Outcome, Resources, TaskReport, TaskTimes};

    /// One of every variant.
    fn events() -> Vec<Stamped<Event>> {
        let task = TaskId(3);
        let report = |outcome| {
            Box::new(TaskReport {
                id: task,
                name: "fit".into(),
                pipeline: "loads".into(),
                attempt: 1,
                outcome,
                times: TaskTimes { submitted: 0.5, placed: Some(1.0), reported: 2.0, ..TaskTimes::default() },
                results: vec![json!({"steps": 10}), json!(null)],
                logs: vec!["tasks/3-fit/rank-0.out".into()],
            })
        };
        let failure = |cause| Outcome::Failed(Failure { rank: Some(1), cause, stderr_tail: "boom\n".into() });
        let error = Cause::Error { message: "no column `y`".into(), detail: json!({"line": 3}) };
        let events = vec![
            Event::SessionStarted { version: "0.1.0".into(), pid: 42, resources: Resources { cores: 2, gpus: 100, memory: 2048 } },
            Event::AgentStarted { agent: 1, pid: 43 },
            Event::AgentLost { agent: 1, reason: "killed".into() },
            Event::Submitted { task, name: "fit".into(), pipeline: "loads".into(), ranks: 2, cores: 2 },
            Event::Waiting { task, why: "needs 2 cores, 1 is free".into() },
            Event::Placed { task, attempt: 1, cores: vec![vec![0], vec![1]], gpus: vec![vec![], vec![0]] },
            Event::Started { task, attempt: 1, pids: vec![50, 51] },
            Event::Connected { task, attempt: 1 },
            Event::Progress { task, attempt: 1, rank: 0, value: json!({"kind": "step", "step": 1}) },
            Event::Retried { report: report(failure(Cause::Signal(9))) },
            Event::Ended { report: report(failure(error)) },
            Event::Ended { report: report(Outcome::Done) },
            Event::SessionEnded,
        ];
        let stamp = |(i, event)| Stamped { at: Duration::from_millis(i as u64 * 10), event };
        events.into_iter().enumerate().map(stamp).collect()
    }

    fn write(path: &Path, events: &[Stamped<Event>]) {
        let (mut journal, _) = Journal::open(path).unwrap();
        events.iter().for_each(|event| journal.append(event));
        journal.close().unwrap();
    }

    /// Journals of version 1 stay readable. After a deliberate change: new VERSION, new file, old file kept.
    #[test]
    fn golden_file_of_version_1() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/journal-1");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        write(&path, &events());
        if std::env::var_os("DEEPRC_BLESS").is_some() {
            fs::create_dir_all(golden.parent().unwrap()).unwrap();
            fs::copy(&path, &golden).unwrap();
        }
        assert_eq!(read(&golden).unwrap(), events());
        assert_eq!(fs::read(&path).unwrap(), fs::read(&golden).unwrap());
    }

    #[test]
    fn a_torn_tail_is_ignored_and_then_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        write(&path, &events());
        let whole = fs::read(&path).unwrap();
        let last = postcard::to_stdvec(events().last().unwrap()).unwrap().len() + 8;
        for torn in [1, 5, last - 1, last] {
            fs::write(&path, &whole[..whole.len() - torn]).unwrap();
            assert_eq!(read(&path).unwrap(), events()[..events().len() - 1], "{torn} bytes torn off");
            write(&path, &events()[events().len() - 1..]);
            assert_eq!(fs::read(&path).unwrap(), whole);
        }
    }

    #[test]
    fn a_flipped_bit_ends_the_sound_part() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        write(&path, &events());
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
        let sound = read(&path).unwrap();
        assert!(sound.len() < events().len());
        assert_eq!(sound, events()[..sound.len()]);
    }

    #[test]
    fn a_second_session_continues_the_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        write(&path, &events());
        assert_eq!(Journal::open(&path).unwrap().1, 3);
    }

    #[test]
    fn another_file_is_refused_and_moved_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        fs::write(&path, b"deeprcj\xffxyz").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("journal version 255"));
        write(&path, &events());
        assert_eq!(read(&path).unwrap(), events());
        assert!(path.with_extension("old").exists());
    }
}
