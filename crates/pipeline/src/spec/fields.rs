//! Typed access to the keys of a table; what is wrong is collected, not returned.

use std::cell::RefCell;
use std::ops::RangeBounds;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::source::{At, Faults, did_you_mean, nearest_or_all};
use super::tree::{Node, Table, Value};

/// Something that the user wrote, and where.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Spanned<T> {
    pub value: T,
    pub at: At,
}

impl<T> Spanned<T> {
    pub fn new(value: T, at: &At) -> Spanned<T> {
        Spanned { value, at: at.clone() }
    }
}

/// Names of some columns or stages.
pub(crate) type Names = Vec<Spanned<String>>;

/// One table of the file, whose keys are asked for one by one. At the end, keys that nobody asked for are faults.
pub(crate) struct Fields<'a> {
    pub faults: &'a Faults<'a>,
    pub table: &'a Table,
    /// For messages: "stage `fit`".
    pub what: String,
    /// Where the table begins, for messages about what is missing.
    pub at: At,
    known: RefCell<Vec<&'static str>>,
}

impl<'a> Fields<'a> {
    pub fn new(faults: &'a Faults<'a>, table: &'a Table, what: impl Into<String>, at: &At) -> Fields<'a> {
        Fields { faults, table, what: what.into(), at: at.clone(), known: RefCell::default() }
    }

    /// The value of `key`, if it is there.
    pub fn node(&self, key: &'static str) -> Option<&'a Node> {
        let mut known = self.known.borrow_mut();
        if !known.contains(&key) {
            known.push(key);
        }
        self.table.get(key).map(|entry| &entry.node)
    }

    /// Where the value of `key` is, or else the table itself.
    pub fn place(&self, key: &str) -> At {
        self.table.get(key).map_or_else(|| self.at.clone(), |entry| entry.node.at.clone())
    }

    fn wrong(&self, key: &str, node: &Node, wanted: &str) {
        self.faults.add(&node.at, format!("`{key}` of {} is {wanted}, this is {}", self.what, node.kind()), None);
    }

    pub fn string(&self, key: &'static str) -> Option<Spanned<String>> {
        let node = self.node(key)?;
        match &node.value {
            Value::String(text) => Some(Spanned::new(text.clone(), &node.at)),
            _ => {
                self.wrong(key, node, "a string");
                None
            }
        }
    }

    /// A string that must be there; `""`, once reported, when it is not.
    pub fn required(&self, key: &'static str, hint: &str) -> Spanned<String> {
        if self.node(key).is_none() {
            self.missing(key, hint);
        }
        self.string(key).unwrap_or_else(|| Spanned::new(String::new(), &self.at))
    }

    pub fn missing(&self, key: &str, hint: &str) {
        let hint = (!hint.is_empty()).then(|| hint.to_owned());
        // Most often the key is there, but misspelt: then the unknown key says it all.
        let known = self.known.borrow();
        let misspelt = self.table.keys().any(|word| !known.contains(&word.as_str()) && did_you_mean(word, [key]).is_some());
        if !misspelt {
            self.faults.add(&self.at, format!("{} needs `{key}`", self.what), hint);
        }
    }

    /// A string or a list of strings; empty when absent.
    pub fn strings(&self, key: &'static str) -> Names {
        let Some(node) = self.node(key) else { return Vec::new() };
        let one = |node: &Node| match &node.value {
            Value::String(text) => Some(Spanned::new(text.clone(), &node.at)),
            _ => {
                self.wrong(key, node, "a string or a list of strings");
                None
            }
        };
        match &node.value {
            Value::Array(items) => items.iter().filter_map(one).collect(),
            _ => one(node).into_iter().collect(),
        }
    }

    /// A list of texts, in which numbers and `true` or `false` count as their texts.
    pub fn texts(&self, key: &'static str) -> Names {
        let Some(node) = self.node(key) else { return Vec::new() };
        let one = |node: &Node| match &node.value {
            Value::String(text) | Value::Date(text) => Some(Spanned::new(text.clone(), &node.at)),
            Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => Some(Spanned::new(node.json().to_string(), &node.at)),
            Value::Array(_) | Value::Table(_) => {
                self.wrong(key, node, "a list of texts");
                None
            }
        };
        match &node.value {
            Value::Array(items) => items.iter().filter_map(one).collect(),
            _ => one(node).into_iter().collect(),
        }
    }

    /// A path or a list of paths; empty texts are left out. Relative to `base`, or to the current directory where it was typed on the
    /// command line.
    pub fn paths(&self, key: &'static str, base: &Path) -> Vec<Spanned<PathBuf>> {
        let typed = |at: &At| {
            let node = self.table.get(key).map(|entry| &entry.node);
            node.is_some_and(|node| match &node.value {
                Value::Array(items) => items.iter().any(|item| item.at == *at && item.typed),
                _ => node.typed,
            })
        };
        let path = |name: Spanned<String>| {
            let path = if typed(&name.at) { PathBuf::from(&name.value) } else { base.join(&name.value) };
            Spanned { value: path, at: name.at }
        };
        self.strings(key).into_iter().filter(|name| !name.value.is_empty()).map(path).collect()
    }

    /// An integer or a list of integers; empty when absent.
    pub fn integers(&self, key: &'static str) -> Vec<i64> {
        let Some(node) = self.node(key) else { return Vec::new() };
        let one = |node: &Node| match node.value {
            Value::Integer(number) => Some(number),
            _ => {
                self.wrong(key, node, "an integer or a list of integers");
                None
            }
        };
        match &node.value {
            Value::Array(items) => items.iter().filter_map(one).collect(),
            _ => one(node).into_iter().collect(),
        }
    }

    pub fn integer(&self, key: &'static str, range: impl RangeBounds<i64>, rule: &str) -> Option<i64> {
        let node = self.node(key)?;
        match node.value {
            Value::Integer(number) if range.contains(&number) => return Some(number),
            Value::Integer(number) => self.faults.add(&node.at, format!("`{key}` of {} must be {rule}, not {number}", self.what), None),
            _ => self.wrong(key, node, "an integer"),
        }
        None
    }

    pub fn number(&self, key: &'static str, rule: &str, ok: impl Fn(f64) -> bool) -> Option<f64> {
        let node = self.node(key)?;
        let number = match node.value {
            Value::Integer(number) => number as f64,
            Value::Float(number) => number,
            _ => {
                self.wrong(key, node, "a number");
                return None;
            }
        };
        if ok(number) {
            return Some(number);
        }
        self.faults.add(&node.at, format!("`{key}` of {} must be {rule}, not {number}", self.what), None);
        None
    }

    pub fn boolean(&self, key: &'static str) -> Option<bool> {
        let node = self.node(key)?;
        match node.value {
            Value::Boolean(flag) => Some(flag),
            _ => {
                self.wrong(key, node, "true or false");
                None
            }
        }
    }

    /// One word of a list of words, as the enum that serde makes of it.
    pub fn choice<T: DeserializeOwned>(&self, key: &'static str, words: &[&str]) -> Option<T> {
        let word = self.string(key)?;
        self.word(key, &word, words)
    }

    /// Several words of a list of words.
    pub fn choices<T: DeserializeOwned>(&self, key: &'static str, words: &[&str]) -> Vec<T> {
        self.strings(key).iter().filter_map(|word| self.word(key, word, words)).collect()
    }

    fn word<T: DeserializeOwned>(&self, key: &str, word: &Spanned<String>, words: &[&str]) -> Option<T> {
        let value = words.contains(&word.value.as_str()).then(|| serde_json::from_value(word.value.as_str().into()).ok());
        let value = value.flatten();
        if value.is_none() {
            let near = did_you_mean(&word.value, words.iter().copied());
            let hint = near.unwrap_or_else(|| format!("one of {}", words.join(", ")));
            self.faults.add(&word.at, format!("unknown value \"{}\" of `{key}` in {}", word.value, self.what), hint);
        }
        value
    }

    pub fn table(&self, key: &'static str) -> Option<Fields<'a>> {
        let node = self.node(key)?;
        self.inner(key, node)
    }

    fn inner(&self, key: &str, node: &'a Node) -> Option<Fields<'a>> {
        match &node.value {
            Value::Table(table) => Some(Fields::new(self.faults, table, format!("`{key}` of {}", self.what), &node.at)),
            _ => {
                self.wrong(key, node, "a table, as in { … }");
                None
            }
        }
    }

    /// A list of tables; one table alone counts as a list of one.
    pub fn tables(&self, key: &'static str) -> Vec<Fields<'a>> {
        match self.node(key) {
            None => Vec::new(),
            Some(Node { value: Value::Array(items), .. }) => items.iter().filter_map(|item| self.inner(key, item)).collect(),
            Some(node) => self.inner(key, node).into_iter().collect(),
        }
    }

    /// A table of strings under keys of the user's choice.
    pub fn map(&self, key: &'static str) -> Vec<(Spanned<String>, Spanned<String>)> {
        let Some(fields) = self.table(key) else { return Vec::new() };
        let entry = |(name, entry): (&String, &super::tree::Entry)| match &entry.node.value {
            Value::String(text) => Some((Spanned::new(name.clone(), &entry.key), Spanned::new(text.clone(), &entry.node.at))),
            _ => {
                self.faults.add(
                    &entry.node.at,
                    format!("`{name}` in `{key}` of {} is a string, this is {}", self.what, entry.node.kind()),
                    None,
                );
                None
            }
        };
        fields.table.iter().filter_map(entry).collect()
    }

    /// Entries that nobody asked for.
    pub fn rest(&self) -> impl Iterator<Item = (&'a String, &'a super::tree::Entry)> {
        let known = self.known.borrow().clone();
        self.table.iter().filter(move |(key, _)| !known.contains(&key.as_str()))
    }

    /// The keys that were asked for.
    pub fn known(&self) -> Vec<&'static str> {
        self.known.borrow().clone()
    }

    /// Reports the entries that nobody asked for.
    pub fn finish(self) {
        let known = self.known.borrow();
        for (key, entry) in self.rest() {
            let hint = nearest_or_all("keys", key, known.iter().copied().filter(|key| *key != "kind"));
            self.faults.add(&entry.key, format!("unknown key `{key}` in {}", self.what), hint);
        }
    }
}
