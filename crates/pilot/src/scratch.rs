//! The session's private directory in shared memory: sockets and the rendezvous directories of its tasks.
//!
//! ```text
//! /dev/shm/deeprc-<16 hex digits>/     mode 0700
//! ├── lock                             held by the client as long as it lives
//! ├── leader-<agent>.sock, ranks-<agent pid>.sock
//! └── <task>-<attempt>/                DEEPRC_RENDEZVOUS
//! ```
//!
//! The short path matters: the address of a Unix socket has at most 107 bytes, a session directory may be longer.

use std::{
    env,
    fs::{self, DirBuilder, File},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    fs::{FlockOperation, flock},
    process::geteuid,
};

use crate::{Error, Result, TaskId};

const PREFIX: &str = "deeprc-";

/// An abandoned directory younger than this may be one that is just being made.
const YOUNG: Duration = Duration::from_secs(60);

/// Removed with everything in it when dropped.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    _lock: File,
}

impl Scratch {
    /// Makes a new one and removes those whose client was killed together with its agent.
    pub(crate) fn create() -> Result<Scratch> {
        let shm = PathBuf::from("/dev/shm");
        sweep(&shm);
        Scratch::create_in(&shm).or_else(|_| Scratch::create_in(&env::temp_dir()))
    }

    fn create_in(base: &Path) -> Result<Scratch> {
        let path = base.join(format!("{PREFIX}{:016x}", rand::random::<u64>()));
        DirBuilder::new().mode(0o700).create(&path).map_err(Error::io("create", &path))?;
        let file = path.join("lock");
        let lock = File::create(&file).map_err(Error::io("create", &file))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| Error::io("lock", &file)(error.into()))?;
        Ok(Scratch { path, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The agent, if it outlives a killed client, removes the directory as well.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Where the ranks of an attempt find each other.
pub(crate) fn rendezvous(scratch: &Path, task: TaskId, attempt: u32) -> PathBuf {
    scratch.join(format!("{task}-{attempt}"))
}

/// Removes this user's scratch directories whose lock nobody holds.
fn sweep(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let ours = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        if !ours.is_some_and(|digits| digits.len() == 16 && digits.bytes().all(|digit| digit.is_ascii_hexdigit())) {
            continue;
        }
        let Ok(metadata) = fs::symlink_metadata(entry.path()) else { continue };
        let old = metadata.modified().ok().and_then(|time| time.elapsed().ok()).is_some_and(|age| age > YOUNG);
        if metadata.is_dir() && metadata.uid() == geteuid().as_raw() && old && abandoned(&entry.path()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn abandoned(dir: &Path) -> bool {
    match File::open(dir.join("lock")) {
        Ok(lock) => flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::FileTimes, time::SystemTime};

    use super::*;

    fn age(dir: &Path) {
        let past = SystemTime::now() - YOUNG * 2;
        File::open(dir).unwrap().set_times(FileTimes::new().set_modified(past)).unwrap();
    }

    #[test]
    fn only_abandoned_directories_are_swept() {
        let base = tempfile::tempdir().unwrap();
        let held = Scratch::create_in(base.path()).unwrap();
        let young = base.path().join("deeprc-0123456789abcdef");
        let abandoned = base.path().join("deeprc-0123456789abcde0");
        let foreign = base.path().join("deeprc-notes");
        for dir in [&young, &abandoned, &foreign] {
            fs::create_dir(dir).unwrap();
        }
        for dir in [held.path(), &abandoned, &foreign] {
            age(dir);
        }
        sweep(base.path());
        assert!(held.path().exists() && young.exists() && foreign.exists());
        assert!(!abandoned.exists());
        let path = held.path().to_path_buf();
        drop(held);
        assert!(!path.exists());
    }
}
