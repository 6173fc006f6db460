//! The text that the user wrote, and places in it.

use std::cell::RefCell;
use std::ops::Range;
use std::path::PathBuf;

use crate::diagnostic::{Diagnostic, Exit};

/// A place: bytes of the pipeline file, or of one `--set` of the command line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum At {
    /// Bytes start..end of the file.
    File(usize, usize),
    /// Bytes start..end of the override with this number.
    Set(usize, usize, usize),
}

impl From<Range<usize>> for At {
    fn from(range: Range<usize>) -> At {
        At::File(range.start, range.end)
    }
}

/// The pipeline file and the overrides of the command line.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub file: PathBuf,
    pub text: String,
    /// `key=value`, as typed after `--set`.
    pub overrides: Vec<String>,
}

impl Source {
    /// A fault at a place.
    pub fn fault(&self, at: &At, message: impl Into<String>, hint: Option<String>) -> Diagnostic {
        let (file, text, start, end) = match at {
            At::File(start, end) => (self.file.clone(), self.text.as_str(), *start, *end),
            At::Set(number, start, end) => (PathBuf::from("--set"), self.overrides[*number].as_str(), *start, *end),
        };
        let start = start.min(text.len());
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |newline| start + newline);
        let end = end.clamp(start, line_end);
        Diagnostic {
            file,
            line: text[..start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            length: text[start..end].chars().count().max(1),
            message: message.into(),
            source_line: text[line_start..line_end].trim_end().to_owned(),
            hint,
            exit: Exit::Config,
        }
    }

    /// Where a fault was found, for sorting: the order of the file, then of the command line.
    pub fn order(fault: &Diagnostic) -> (bool, usize, usize) {
        (fault.file.as_os_str() == "--set", fault.line, fault.column)
    }
}

/// Collects faults while a tree is walked.
#[derive(Debug)]
pub(crate) struct Faults<'a> {
    pub source: &'a Source,
    found: RefCell<Vec<Diagnostic>>,
}

impl<'a> Faults<'a> {
    pub fn new(source: &'a Source) -> Faults<'a> {
        Faults { source, found: RefCell::default() }
    }

    pub fn add(&self, at: &At, message: impl Into<String>, hint: impl Into<Option<String>>) {
        self.push(self.source.fault(at, message, hint.into()));
    }

    pub fn push(&self, fault: Diagnostic) {
        let mut found = self.found.borrow_mut();
        // The same words may be reached on several ways, e.g. by every cell of a matrix.
        if !found.contains(&fault) {
            found.push(fault);
        }
    }

    pub fn count(&self) -> usize {
        self.found.borrow().len()
    }

    /// All faults in the order of the file.
    pub fn sorted(self) -> Vec<Diagnostic> {
        let mut found = self.found.into_inner();
        found.sort_by_key(Source::order);
        found
    }
}

/// `did you mean …?` for the nearest of `names`, if one is near.
pub(crate) fn did_you_mean<'n>(word: &str, names: impl IntoIterator<Item = &'n str>) -> Option<String> {
    let lower = word.to_lowercase();
    let score = |name: &str| {
        let name = name.to_lowercase();
        // In a short word one slip is much: `cvs` for `csv`.
        let slip = if strsim::osa_distance(&lower, &name) == 1 && lower.len() >= 2 { 0.85 } else { 0.0 };
        let contained = lower.len() >= 3 && (name.contains(&lower) || lower.contains(&name) && name.len() >= 3);
        strsim::jaro_winkler(&lower, &name).max(strsim::normalized_damerau_levenshtein(&lower, &name)).max(if contained {
            0.8
        } else {
            slip
        })
    };
    let best = names.into_iter().map(|name| (score(name), name)).max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 >= 0.77).then(|| format!("did you mean `{}`?", best.1))
}

/// `did you mean …?`, or else the list of what there is.
pub(crate) fn nearest_or_all<'n>(what: &str, word: &str, names: impl IntoIterator<Item = &'n str>) -> Option<String> {
    let names: Vec<&str> = names.into_iter().collect();
    did_you_mean(word, names.iter().copied()).or_else(|| (!names.is_empty()).then(|| format!("{what}: {}", names.join(", "))))
}
