//! Follows what a program prints while it runs.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

/// A growing text file, read line by line.
#[derive(Debug)]
pub(crate) struct Tail {
    file: PathBuf,
    /// Bytes handed out, up to the end of a line.
    done: u64,
}

impl Tail {
    pub fn new(file: PathBuf) -> Tail {
        Tail { file, done: 0 }
    }

    /// The whole lines that were added since the last call; with `last`, also what follows the last line end.
    pub fn lines(&mut self, last: bool) -> Vec<String> {
        let mut text = Vec::new();
        let read = File::open(&self.file).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.done))?;
            file.read_to_end(&mut text)
        });
        // The file may not be there yet.
        if read.is_err() {
            return Vec::new();
        }
        if !last {
            let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            text.truncate(whole);
        }
        self.done += text.len() as u64;
        String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn lines_come_whole_and_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let mut tail = Tail::new(path.clone());
        assert!(tail.lines(false).is_empty());
        let mut file = File::create(path).unwrap();
        file.write_all(b"one\ntw").unwrap();
        assert_eq!(tail.lines(false), ["one"]);
        file.write_all(b"o\nthree").unwrap();
        assert_eq!(tail.lines(false), ["two"]);
        assert_eq!(tail.lines(true), ["three"]);
        assert!(tail.lines(true).is_empty());
    }
}
