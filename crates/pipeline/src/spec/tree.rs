//! A TOML file as a tree that remembers where everything was written, with `--set` and `${param}` applied.

use indexmap::IndexMap;
use toml_edit::{Document, Item, Value as TomlValue};

use super::source::{At, Faults, Source, did_you_mean, nearest_or_all};
use crate::diagnostic::Diagnostic;

/// A value and where it was written.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub value: Value,
    pub at: At,
    /// It came from the command line: paths in it are relative to the current directory, not to the file's.
    pub typed: bool,
}

#[derive(Debug, Clone)]
pub(crate) enum Value {
    String(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Date(String),
    Array(Vec<Node>),
    Table(Table),
}

/// Entries in the order of the file.
pub(crate) type Table = IndexMap<String, Entry>;

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub key: At,
    pub node: Node,
}

impl Node {
    /// The kind of value in the user's words, with its article.
    pub fn kind(&self) -> &'static str {
        match self.value {
            Value::String(_) => "a string",
            Value::Integer(_) => "an integer",
            Value::Float(_) => "a number",
            Value::Boolean(_) => "true or false",
            Value::Date(_) => "a date",
            Value::Array(_) => "a list",
            Value::Table(_) => "a table",
        }
    }

    /// The same as JSON, for serde.
    pub fn json(&self) -> serde_json::Value {
        match &self.value {
            Value::String(text) | Value::Date(text) => text.as_str().into(),
            Value::Integer(number) => (*number).into(),
            Value::Float(number) => (*number).into(),
            Value::Boolean(flag) => (*flag).into(),
            Value::Array(items) => items.iter().map(Node::json).collect(),
            Value::Table(table) => serde_json::Value::Object(table.iter().map(|(key, entry)| (key.clone(), entry.node.json())).collect()),
        }
    }
}

/// Reads the file and applies the overrides.
///
/// # Errors
/// The file is no TOML. Overrides that fit nowhere are added to `faults`.
pub(crate) fn read(source: &Source, faults: &Faults) -> Result<Table, Box<Diagnostic>> {
    let document = Document::parse(source.text.as_str()).map_err(|error| {
        let span = error.span().unwrap_or(0..0);
        Box::new(source.fault(&At::from(span), first_line(error.message()), None))
    })?;
    let mut table = from_table(document.as_table(), &At::File(0, 0));
    for (number, text) in source.overrides.iter().enumerate() {
        set(&mut table, number, text, faults);
    }
    let params = match table.get("params").map(|entry| &entry.node.value) {
        Some(Value::Table(params)) => params.clone(),
        _ => Table::new(),
    };
    for (key, entry) in &mut table {
        if key != "params" {
            interpolate(&mut entry.node, &params, faults);
        }
    }
    Ok(table)
}

fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or("not valid TOML").to_owned()
}

fn from_table(table: &toml_edit::Table, outer: &At) -> Table {
    let entry = |(key, item): (&str, &Item)| {
        let at = table.key(key).and_then(|key| key.span()).map_or_else(|| outer.clone(), At::from);
        Some((key.to_owned(), Entry { node: from_item(item, &at)?, key: at }))
    };
    table.iter().filter_map(entry).collect()
}

fn from_item(item: &Item, key: &At) -> Option<Node> {
    let at = item.span().map_or_else(|| key.clone(), At::from);
    match item {
        Item::None => None,
        Item::Value(value) => Some(from_value(value, key)),
        // The span of a `[table]` is its header; the key within it is the better place to point at.
        Item::Table(table) => Some(Node { value: Value::Table(from_table(table, key)), at: key.clone(), typed: false }),
        Item::ArrayOfTables(tables) => {
            let items = tables.iter().map(|table| {
                let at = table.span().map_or_else(|| key.clone(), At::from);
                Node { value: Value::Table(from_table(table, &at)), at, typed: false }
            });
            Some(Node { value: Value::Array(items.collect()), at, typed: false })
        }
    }
}

fn from_value(value: &TomlValue, outer: &At) -> Node {
    let at = value.span().map_or_else(|| outer.clone(), At::from);
    let value = match value {
        TomlValue::String(text) => Value::String(text.value().clone()),
        TomlValue::Integer(number) => Value::Integer(*number.value()),
        TomlValue::Float(number) => Value::Float(*number.value()),
        TomlValue::Boolean(flag) => Value::Boolean(*flag.value()),
        TomlValue::Datetime(date) => Value::Date(date.value().to_string()),
        TomlValue::Array(items) => Value::Array(items.iter().map(|item| from_value(item, &at)).collect()),
        TomlValue::InlineTable(table) => {
            let entry = |(key, value): (&str, &TomlValue)| {
                let key_at = table.key(key).and_then(|key| key.span()).map_or_else(|| at.clone(), At::from);
                (key.to_owned(), Entry { node: from_value(value, &key_at), key: key_at })
            };
            Value::Table(table.iter().map(entry).collect())
        }
    };
    Node { value, at, typed: false }
}

/// Applies one `--set key=value`.
fn set(root: &mut Table, number: usize, text: &str, faults: &Faults) {
    let (path, value) = text.split_once('=').unwrap_or((text, ""));
    let key = At::Set(number, 0, path.len());
    let at = At::Set(number, path.len() + 1, text.len());
    let mut parts: Vec<&str> = path.trim().split('.').map(str::trim).collect();
    let params: Vec<String> = keys_of(root, "params");
    let stages: Vec<String> = keys_of(root, "stage");
    if parts.len() == 1 && !["name", "seed"].contains(&parts[0]) {
        if !params.iter().any(|name| name == parts[0]) {
            let names = params.iter().map(String::as_str);
            let hint = nearest_or_all("parameters of this pipeline", parts[0], names);
            let hint = hint.or_else(|| Some("options of a stage are set as `stage.NAME.OPTION=value`".into()));
            return faults.add(&key, format!("this pipeline has no parameter `{}`", parts[0]), hint);
        }
        parts.insert(0, "params");
    } else if parts.len() > 1 && !["params", "stage"].contains(&parts[0]) {
        parts.insert(0, "stage");
    }
    if parts.len() > 1 && parts[0] == "stage" && !stages.iter().any(|name| name == parts[1]) {
        let hint = nearest_or_all("stages", parts[1], stages.iter().map(String::as_str));
        return faults.add(&key, format!("this pipeline has no stage `{}`", parts[1]), hint);
    }
    let mut table = root;
    let (leaf, inner) = parts.split_last().expect("a split has at least one part");
    for part in inner {
        let fresh = || Entry { key: key.clone(), node: Node { value: Value::Table(Table::new()), at: key.clone(), typed: true } };
        let entry = table.entry((*part).to_owned()).or_insert_with(fresh);
        let kind = entry.node.kind();
        match &mut entry.node.value {
            Value::Table(inner) => table = inner,
            _ => return faults.add(&key, format!("`{part}` is {kind}, not a table"), None),
        }
    }
    let was_string = matches!(table.get(*leaf).map(|entry| &entry.node.value), Some(Value::String(_)));
    let parsed = if was_string { None } else { value.trim().parse::<TomlValue>().ok() };
    let value = parsed.map_or_else(|| Value::String(value.to_owned()), |value| from_value(&value, &at).value);
    let key = table.get(*leaf).map_or(key, |entry| entry.key.clone());
    table.insert((*leaf).to_owned(), Entry { key, node: moved(Node { value, at: at.clone(), typed: true }, &at) });
}

/// Spans of a value parsed from the command line mean nothing in the file: all of it lies at `at`.
fn moved(mut node: Node, at: &At) -> Node {
    node.at = at.clone();
    node.typed = true;
    node.value = match node.value {
        Value::Array(items) => Value::Array(items.into_iter().map(|item| moved(item, at)).collect()),
        Value::Table(table) => {
            let entry = |(name, entry): (String, Entry)| (name, Entry { key: at.clone(), node: moved(entry.node, at) });
            Value::Table(table.into_iter().map(entry).collect())
        }
        value => value,
    };
    node
}

fn keys_of(root: &Table, name: &str) -> Vec<String> {
    match root.get(name).map(|entry| &entry.node.value) {
        Some(Value::Table(table)) => table.keys().cloned().collect(),
        _ => Vec::new(),
    }
}

/// Replaces `${param}` in all strings of `node`. A string that is nothing but one parameter takes its value and type;
/// `${stage.…}` stays for the run; `$${` is a plain `${`.
fn interpolate(node: &mut Node, params: &Table, faults: &Faults) {
    match &mut node.value {
        Value::Array(items) => items.iter_mut().for_each(|item| interpolate(item, params, faults)),
        Value::Table(table) => table.values_mut().for_each(|entry| interpolate(&mut entry.node, params, faults)),
        Value::String(text) if text.contains("${") => {
            let whole = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')).and_then(|name| params.get(name));
            if let Some(param) = whole {
                (node.value, node.typed) = (param.node.value.clone(), param.node.typed);
                return;
            }
            let mut result = String::new();
            let mut rest = text.as_str();
            while let Some(start) = rest.find("${") {
                if rest[..start].ends_with('$') {
                    result += &rest[..start - 1];
                    result += "${";
                    rest = &rest[start + 2..];
                    continue;
                }
                let Some(length) = rest[start..].find('}') else {
                    faults.add(&node.at, "`${` without `}`", Some("a plain `${` is written `$${`".to_owned()));
                    return;
                };
                let name = &rest[start + 2..start + length];
                result += &rest[..start];
                match params.get(name).map(|entry| &entry.node) {
                    Some(param) => {
                        node.typed |= result.is_empty() && param.typed;
                        result += &match &param.value {
                            Value::String(text) | Value::Date(text) => text.clone(),
                            _ => param.json().to_string(),
                        };
                    }
                    None if name.starts_with("stage.") => result += &rest[start..=start + length],
                    None => {
                        let hint = did_you_mean(name, params.keys().map(String::as_str));
                        let hint = hint.unwrap_or_else(|| "parameters are declared in `[params]`".into());
                        faults.add(&node.at, format!("unknown parameter `{name}`"), hint);
                        return;
                    }
                }
                rest = &rest[start + length + 1..];
            }
            result += rest;
            *text = result;
        }
        _ => {}
    }
}
