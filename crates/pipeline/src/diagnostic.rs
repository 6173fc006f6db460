//! What is wrong with a pipeline file, and where.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Which documented exit code an error leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Exit {
    /// A task failed (exit code 1).
    Task,
    /// Usage or configuration is wrong (exit code 2).
    Config,
    /// The machine or the pilot cannot give what is asked for (exit code 3).
    Resources,
}

/// One fault of a pipeline file. `Display` prints the whole block:
///
/// ```text
/// error: unknown key `epoch` in stage `train`
///   --> pipeline.toml:14:1
///    |
/// 14 | epoch = 400
///    | ^^^^^
///    |
/// hint: did you mean `epochs`? `deeprc models nhits` lists every option
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The pipeline file, as it was given.
    pub file: PathBuf,
    /// Line in the file, from 1; 0 when the fault has no place in the file (it could not be read).
    pub line: usize,
    /// Column in the line, in characters, from 1.
    pub column: usize,
    /// Number of characters that the carets underline, at least 1.
    pub length: usize,
    /// What is wrong: lower case, no full stop.
    pub message: String,
    /// The line itself.
    pub source_line: String,
    /// The way out, where there is one.
    pub hint: Option<String>,
    /// Which exit code this fault leads to.
    pub exit: Exit,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", self.message)?;
        if self.line == 0 {
            write!(f, "  --> {}", self.file.display())?;
        } else {
            let number = self.line.to_string();
            let gutter = " ".repeat(number.len());
            let line = self.source_line.replace('\t', " ");
            writeln!(f, "{gutter}--> {}:{}:{}", self.file.display(), self.line, self.column)?;
            writeln!(f, "{gutter} |")?;
            writeln!(f, "{number} | {}", line.trim_end())?;
            writeln!(f, "{gutter} | {}{}", " ".repeat(self.column.saturating_sub(1)), "^".repeat(self.length.max(1)))?;
            write!(f, "{gutter} |")?;
        }
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Diagnostic {}
