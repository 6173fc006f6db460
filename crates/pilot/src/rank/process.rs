//! What a task changes in the process that runs it, and puts back: environment, directory, output, affinity.
//!
//! One task runs at a time in a rank; that is what makes these process-wide changes sound.

use std::{
    env,
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rustix::{
    process::Pid,
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};

use crate::wire::Run;

/// The process as it was before a task; dropping it puts it back.
pub(super) struct Changed {
    env: Vec<(String, Option<OsString>)>,
    dir: Option<PathBuf>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    affinity: Option<CpuSet>,
}

impl Changed {
    /// Makes the process that of a task.
    pub(super) fn by(run: &Run) -> io::Result<Changed> {
        let mut changed = Changed { env: Vec::new(), dir: None, stdout: None, stderr: None, affinity: None };
        changed.stdout = Some(redirect(libc::STDOUT_FILENO, &log(&run.stdout)?)?);
        changed.stderr = Some(redirect(libc::STDERR_FILENO, &log(&run.stderr)?)?);
        changed.dir = env::current_dir().ok();
        env::set_current_dir(&run.dir)?;
        changed.affinity = sched_getaffinity(None).ok();
        let mut cores = CpuSet::new();
        run.cores.iter().for_each(|&core| cores.set(core as usize));
        pin(&cores);
        for (name, value) in &run.env {
            changed.env.push((name.clone(), env::var_os(name)));
            set_env(name, Some(value.into()));
        }
        Ok(changed)
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        for (name, value) in self.env.drain(..).rev() {
            set_env(&name, value);
        }
        if let Some(affinity) = &self.affinity {
            pin(affinity);
        }
        // The directory of a rank may have been removed; the next task brings its own.
        let _ = self.dir.take().map(env::set_current_dir);
        for (old, fd) in [(self.stdout.take(), libc::STDOUT_FILENO), (self.stderr.take(), libc::STDERR_FILENO)] {
            let _ = old.map(|old| replace(fd, &old));
        }
    }
}

fn log(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// Lets `fd` (1 or 2) write to `file` and returns what it wrote to before.
fn redirect(fd: RawFd, file: &File) -> io::Result<OwnedFd> {
    let old = match fd {
        libc::STDOUT_FILENO => io::stdout().as_fd().try_clone_to_owned(),
        _ => io::stderr().as_fd().try_clone_to_owned(),
    }?;
    replace(fd, file)?;
    Ok(old)
}

/// Makes `fd` a copy of `new`, with everything written so far in the old one.
fn replace(fd: RawFd, new: &impl AsRawFd) -> io::Result<()> {
    io::stdout().flush()?;
    // SAFETY: a null pointer means all output streams of the C library; libraries in this process may use them.
    unsafe { libc::fflush(std::ptr::null_mut()) };
    // SAFETY: `new` is open, and `fd` is 1 or 2, which nobody in this process owns or closes.
    match unsafe { libc::dup2(new.as_raw_fd(), fd) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn set_env(name: &str, value: Option<OsString>) {
    // SAFETY: the environment may not be read by another thread at the same time. This runs between two tasks: the
    // only other thread of ours waits for messages and reads no environment, and a function that left threads behind
    // which do would have broken its contract.
    unsafe {
        match value {
            Some(value) => env::set_var(name, value),
            None => env::remove_var(name),
        }
    }
}

/// Pins every thread of the process: libraries keep theirs from one task to the next.
fn pin(cores: &CpuSet) {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    for id in threads.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter_map(Pid::from_raw) {
        // A thread may have ended meanwhile, a CPU may have been taken from us: then any will do.
        let _ = sched_setaffinity(Some(id), cores);
    }
}

/// Ends the process at once, without running destructors under the feet of a running function.
pub(super) fn exit_now() -> ! {
    // SAFETY: `_exit` has no preconditions; it does not return and touches no memory of ours.
    unsafe { libc::_exit(1) }
}
