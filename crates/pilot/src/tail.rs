//! The end of a log file.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
    process::ExitStatus,
};

use std::os::unix::process::ExitStatusExt;

use crate::Cause;

/// Lines of stderr that go into a failure.
const LINES: usize = 20;

/// They are looked for in this many bytes.
const BYTES: u64 = 16 << 10;

/// The last 20 lines of a file; empty if there is none.
pub(crate) fn tail(path: &Path) -> String {
    let read = || {
        let mut file = File::open(path)?;
        let length = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(length.saturating_sub(BYTES)))?;
        let mut bytes = Vec::new();
        file.take(BYTES).read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>(bytes)
    };
    let text = String::from_utf8_lossy(&read().unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

/// How a process ended, as a cause of failure; also when it ended well.
pub(crate) fn cause(status: ExitStatus) -> Cause {
    match status.signal() {
        Some(signal) => Cause::Signal(signal),
        None => Cause::Exit(status.code().unwrap_or(-1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_twenty_lines_of_a_long_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("err");
        assert_eq!(tail(&path), "");
        std::fs::write(&path, "a\nb\n").unwrap();
        assert_eq!(tail(&path), "a\nb");
        let lines: Vec<String> = (0..10_000).map(|i| format!("line {i}")).collect();
        std::fs::write(&path, lines.join("\n")).unwrap();
        assert_eq!(tail(&path), lines[9_980..].join("\n"));
    }
}
