//! Everything that `deeprc` says goes through here: data to stdout, talk to stderr.
//!
//! Colours are dropped without a terminal and with `NO_COLOR`; the words and signs carry the meaning alone.

use std::fmt::Display;
use std::io::{IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use serde::Serialize;

/// Style of `error:`.
pub const ERROR: Style = AnsiColor::Red.on_default().bold();
/// Style of `hint:`.
pub const HINT: Style = AnsiColor::Cyan.on_default().bold();
/// Style of what went well.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// Style of what waits or was left out.
pub const WAIT: Style = AnsiColor::Yellow.on_default();
/// Style of heads.
pub const BOLD: Style = Style::new().bold();
/// Style of side remarks.
pub const SOFT: Style = Style::new().dimmed();

/// `text` in `style`.
pub fn styled(style: Style, text: impl Display) -> String {
    format!("{style}{text}{style:#}")
}

/// The only way to stdout and stderr.
#[derive(Clone, Copy, Debug, Default)]
pub struct Printer;

impl Printer {
    /// A line of data. A closed pipe (`deeprc models | head`) is no error.
    pub fn data(self, line: impl Display) {
        let _ = writeln!(anstream::stdout().lock(), "{line}");
    }

    /// One JSON value on one line, for programs.
    pub fn json(self, value: &impl Serialize) {
        let text = serde_json::to_string(value).expect("records hold plain data");
        self.data(text);
    }

    /// Bytes as they are: the output of a task.
    pub fn raw(self, bytes: &[u8], error: bool) {
        let _ = match error {
            true => std::io::stderr().lock().write_all(bytes),
            false => std::io::stdout().lock().write_all(bytes),
        };
    }

    /// A line of talk.
    pub fn talk(self, line: impl Display) {
        let _ = writeln!(anstream::stderr().lock(), "{line}");
    }

    /// `error: …`, then `hint: …` where there is a way out.
    pub fn error(self, message: impl Display, hint: Option<&str>) {
        self.talk(format_args!("{} {message}", styled(ERROR, "error:")));
        if let Some(hint) = hint {
            self.hint(hint);
        }
    }

    /// `hint: …`.
    pub fn hint(self, hint: impl Display) {
        self.talk(format_args!("{} {hint}", styled(HINT, "hint:")));
    }

    /// A message that already has the form of [`Printer::error`], with its first words coloured.
    pub fn rendered(self, block: impl Display) {
        for line in block.to_string().lines() {
            match line.split_once(' ') {
                Some(("error:", rest)) => self.talk(format_args!("{} {rest}", styled(ERROR, "error:"))),
                Some(("hint:", rest)) => self.hint(rest),
                _ => self.talk(line),
            }
        }
    }

    /// True if somebody watches stderr.
    pub fn is_watched(self) -> bool {
        std::io::stderr().is_terminal()
    }
}

/// Columns padded to their widest cell; the last one is not padded. Styles go around, not into, the cells.
pub fn columns(rows: &[Vec<String>]) -> Vec<String> {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |k: usize| rows.iter().filter_map(|row| row.get(k)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count).map(width).collect();
    let line = |row: &Vec<String>| {
        let padded = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_string()
    };
    rows.iter().map(line).collect()
}

/// Seconds for people: `38 ms`, `1.92 s`, `2 min 5 s`.
pub fn seconds(value: f64) -> String {
    match value {
        v if v < 0.9995 => format!("{:.0} ms", v * 1e3),
        v if v < 60.0 => format!("{v:.2} s"),
        v => format!("{:.0} min {:.0} s", (v / 60.0).floor(), v % 60.0),
    }
}
