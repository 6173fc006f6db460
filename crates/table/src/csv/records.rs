//! One record of a CSV file after the other, from any offset.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use csv_core::{ReadRecordResult, Reader, ReaderBuilder, Terminator};

use crate::{CsvOptions, Error, Result};

/// Bytes read at a time.
const CHUNK: usize = 1 << 20;

/// Reads records and knows where each of them starts.
pub(crate) struct Records {
    pub path: PathBuf,
    file: File,
    parser: Reader,
    comment: Option<u8>,
    chunk: Vec<u8>,
    /// The unread part of the chunk is `chunk[at..filled]`, and starts at this offset of the file.
    at: usize,
    filled: usize,
    offset: u64,
    /// The cells of the current record, end to end, and where each of them ends.
    text: Vec<u8>,
    ends: Vec<usize>,
    count: usize,
    /// Where the current record starts.
    start: u64,
}

impl Records {
    /// Starts at the first line that begins at `start` or later.
    pub fn open(path: &Path, start: u64, options: &CsvOptions) -> Result<Records> {
        let failed = |source| Error::io(path, source);
        let mut file = File::open(path).map_err(failed)?;
        let parser = ReaderBuilder::new()
            .delimiter(ascii(options.delimiter, "delimiter")?)
            .quote(ascii(options.quote, "quote")?)
            // A carriage return is taken off the last cell instead: csv-core would end the record before the line feed, and whose
            // piece the next record starts in would be off by one.
            .terminator(Terminator::Any(b'\n'))
            .build();
        let comment = options.comment.map(|comment| ascii(comment, "comment")).transpose()?;
        file.seek(SeekFrom::Start(start.saturating_sub(1))).map_err(failed)?;
        let mut records = Records {
            path: path.to_path_buf(),
            file,
            parser,
            comment,
            chunk: vec![0; CHUNK],
            at: 0,
            filled: 0,
            offset: start.saturating_sub(1),
            text: vec![0; 4096],
            ends: vec![0; 64],
            count: 0,
            start: 0,
        };
        if start > 0 {
            records.skip_line()?;
        } else {
            records.skip_byte_order_mark()?;
        }
        Ok(records)
    }

    /// Reads the next record if it starts before `end`.
    pub fn next(&mut self, end: u64) -> Result<bool> {
        loop {
            match self.peek()? {
                Some(b'\n' | b'\r') => self.advance(1),
                Some(byte) if Some(byte) == self.comment => self.skip_line()?,
                Some(_) if self.offset < end => break,
                _ => return Ok(false),
            }
        }
        self.start = self.offset;
        let (mut written, mut fields) = (0, 0);
        loop {
            if self.at == self.filled {
                self.fill()?;
            }
            let input = &self.chunk[self.at..self.filled];
            let (result, read, wrote, ended) = self.parser.read_record(input, &mut self.text[written..], &mut self.ends[fields..]);
            self.advance(read);
            (written, fields) = (written + wrote, fields + ended);
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull => self.text.resize(2 * self.text.len(), 0),
                ReadRecordResult::OutputEndsFull => self.ends.resize(2 * self.ends.len(), 0),
                ReadRecordResult::Record => break,
                ReadRecordResult::End => return Ok(false),
            }
        }
        self.count = fields;
        if fields > 0 && written > 0 && self.text[written - 1] == b'\r' && self.ends[fields - 1] == written {
            self.ends[fields - 1] -= 1;
        }
        Ok(true)
    }

    /// Number of cells of the current record.
    pub fn len(&self) -> usize {
        self.count
    }

    /// A cell of the current record.
    pub fn cell(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.text[start..self.ends[index].max(start)]
    }

    /// Whether a cell of the current record holds a line break.
    pub fn spans_lines(&self) -> bool {
        self.text[..self.ends[..self.count].last().copied().unwrap_or(0)].contains(&b'\n')
    }

    /// The line of the current record, from 1. Reads the file up to there: for messages.
    pub fn line(&self) -> Result<u64> {
        let failed = |source| Error::io(&self.path, source);
        let mut before = File::open(&self.path).map_err(failed)?.take(self.start);
        let (mut chunk, mut lines) = (vec![0; CHUNK], 1);
        loop {
            match before.read(&mut chunk).map_err(failed)? {
                0 => return Ok(lines),
                read => lines += chunk[..read].iter().filter(|byte| **byte == b'\n').count() as u64,
            }
        }
    }

    fn advance(&mut self, bytes: usize) {
        self.at += bytes;
        self.offset += bytes as u64;
    }

    fn fill(&mut self) -> Result<()> {
        self.at = 0;
        self.filled = self.file.read(&mut self.chunk).map_err(|source| Error::io(&self.path, source))?;
        Ok(())
    }

    fn peek(&mut self) -> Result<Option<u8>> {
        if self.at == self.filled {
            self.fill()?;
        }
        Ok(self.chunk[self.at..self.filled].first().copied())
    }

    /// To the beginning of the next line.
    fn skip_line(&mut self) -> Result<()> {
        while self.peek()?.is_some() {
            match self.chunk[self.at..self.filled].iter().position(|byte| *byte == b'\n') {
                Some(place) => {
                    self.advance(place + 1);
                    break;
                }
                None => self.advance(self.filled - self.at),
            }
        }
        Ok(())
    }

    fn skip_byte_order_mark(&mut self) -> Result<()> {
        self.peek()?;
        if self.chunk[..self.filled].starts_with(&[0xef, 0xbb, 0xbf]) {
            self.advance(3);
        }
        Ok(())
    }
}

fn ascii(letter: char, what: &str) -> Result<u8> {
    u8::try_from(letter)
        .ok()
        .filter(u8::is_ascii)
        .ok_or_else(|| Error::Argument { message: format!("the CSV {what} '{letter}' is not an ASCII character"), hint: None })
}
