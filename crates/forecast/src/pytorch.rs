//! Weights that `torch.save` wrote: a zip archive with a pickle and one file per storage.
//!
//! ```text
//!   archive/data.pkl    pickle (protocol 2) of {"state_dict": {name: tensor}, ...} or of {name: tensor}
//!   archive/data/0      bytes of the storage "0"
//! ```
//!
//! Only what tensors need is understood; every other object becomes an opaque value. Nothing in the file is ever run, so that files
//! of strangers are safe to read. The formats: `torch/serialization.py` of PyTorch 2.11, Python's `pickletools`, PKWARE's APPNOTE.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use tch::{Kind, Tensor};

/// True for a zip archive.
pub(crate) fn is_archive(data: &[u8]) -> bool {
    data.starts_with(b"PK\x03\x04")
}

/// The tensors of the state dict by name, or what is wrong with the file.
pub(crate) fn state_dict(data: &[u8]) -> Result<Vec<(String, Tensor)>, String> {
    let archive = Archive::read(data)?;
    let pickle = archive.ending("/data.pkl").ok_or("is no file of torch.save: it has no data.pkl")?;
    let root = Machine::new(pickle).run()?;
    let found = root.get("state_dict");
    let Value::Dict(pairs) = found.as_ref().unwrap_or(&root) else {
        return Err("holds no state_dict".to_owned());
    };
    let tensor = |(key, value): &(Value, Value)| match (key, value) {
        (Value::Text(name), Value::Tensor(stored)) => Some(stored.load(&archive).map(|tensor| (name.to_string(), tensor))),
        _ => None,
    };
    pairs.borrow().iter().filter_map(tensor).collect()
}

/// Files of a zip archive, uncompressed ones.
struct Archive<'a> {
    files: HashMap<String, &'a [u8]>,
}

fn number(data: &[u8], at: usize, bytes: usize) -> Result<usize, String> {
    let bytes = at.checked_add(bytes).and_then(|end| data.get(at..end)).ok_or("is cut off")?;
    Ok(bytes.iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
}

fn part(data: &[u8], at: usize, len: usize) -> Result<&[u8], String> {
    at.checked_add(len).and_then(|end| data.get(at..end)).ok_or_else(|| "is cut off".to_owned())
}

impl<'a> Archive<'a> {
    fn read(data: &'a [u8]) -> Result<Self, String> {
        let earliest = data.len().saturating_sub(22 + 65_535);
        let end = (earliest..data.len().saturating_sub(21)).rev().find(|at| data[*at..].starts_with(b"PK\x05\x06"));
        let end = end.ok_or("is a broken archive: it has no directory")?;
        let (count, mut at) = (number(data, end + 10, 2)?, number(data, end + 16, 4)?);
        let mut files = HashMap::new();
        for _ in 0..count {
            if part(data, at, 4)? != b"PK\x01\x02" {
                return Err("is a broken archive: its directory has a hole".to_owned());
            }
            let (method, size) = (number(data, at + 10, 2)?, number(data, at + 24, 4)?);
            let [name_len, extra, comment] = [28, 30, 32].map(|field| number(data, at + field, 2));
            let (name_len, extra, comment) = (name_len?, extra?, comment?);
            let name = String::from_utf8_lossy(part(data, at + 46, name_len)?).into_owned();
            let local = number(data, at + 42, 4)?;
            if method != 0 || size == 0xffff_ffff || local == 0xffff_ffff {
                return Err(format!("has {name} compressed or beyond 4 GiB, which torch.save does not do for models of this size"));
            }
            let start = local + 30 + number(data, local + 26, 2)? + number(data, local + 28, 2)?;
            files.insert(name, part(data, start, size)?);
            at += 46 + name_len + extra + comment;
        }
        Ok(Self { files })
    }

    fn ending(&self, end: &str) -> Option<&'a [u8]> {
        self.files.iter().find(|(name, _)| name.ends_with(end)).map(|(_, data)| *data)
    }
}

/// A Python object, as far as it matters.
#[derive(Clone)]
enum Value {
    Mark,
    Int(i64),
    Text(Rc<str>),
    Tuple(Rc<Vec<Value>>),
    /// Shared, because it is filled after it was remembered.
    Dict(Rc<RefCell<Vec<(Value, Value)>>>),
    /// The name of a class or function.
    Global(Rc<str>),
    Storage {
        key: Rc<str>,
        kind: Kind,
    },
    Tensor(Rc<Stored>),
    /// Anything else.
    Opaque,
}

/// A view of a storage.
struct Stored {
    key: Rc<str>,
    kind: Kind,
    offset: i64,
    shape: Vec<i64>,
    stride: Vec<i64>,
}

impl Value {
    fn dict() -> Value {
        Value::Dict(Rc::new(RefCell::new(Vec::new())))
    }

    /// The entry of a dict.
    fn get(&self, name: &str) -> Option<Value> {
        let Value::Dict(pairs) = self else { return None };
        let pairs = pairs.borrow();
        pairs.iter().find(|(key, _)| matches!(key, Value::Text(text) if &**text == name)).map(|(_, value)| value.clone())
    }

    fn ints(&self) -> Option<Vec<i64>> {
        let Value::Tuple(items) = self else { return None };
        items.iter().map(|item| if let Value::Int(n) = item { Some(*n) } else { None }).collect()
    }
}

impl Stored {
    fn load(&self, archive: &Archive) -> Result<Tensor, String> {
        let bytes = archive.ending(&format!("/data/{}", self.key)).ok_or_else(|| format!("lacks the storage {}", self.key))?;
        let count = bytes.len() / self.kind.elt_size_in_bytes();
        let steps = self.shape.iter().zip(&self.stride);
        let empty = self.shape.contains(&0);
        let reach = steps.map(|(n, stride)| (n - 1).checked_mul(*stride)).try_fold(self.offset, |sum, step| sum.checked_add(step?));
        let fits = self.shape.len() == self.stride.len() && self.shape.iter().chain(&self.stride).all(|n| *n >= 0) && self.offset >= 0;
        if !fits || !(empty || reach.is_some_and(|last| last < count as i64)) {
            return Err(format!("has a tensor that does not fit its storage {}", self.key));
        }
        let flat = Tensor::from_data_size(&bytes[..count * self.kind.elt_size_in_bytes()], &[count as i64], self.kind);
        Ok(flat.as_strided(self.shape.as_slice(), self.stride.as_slice(), self.offset).contiguous())
    }
}

/// The stack machine that a pickle is a program for.
struct Machine<'a> {
    code: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    memo: HashMap<usize, Value>,
}

impl<'a> Machine<'a> {
    fn new(code: &'a [u8]) -> Self {
        Self { code, at: 0, stack: Vec::new(), memo: HashMap::new() }
    }

    fn number(&mut self, bytes: usize) -> Result<usize, String> {
        let found = number(self.code, self.at, bytes)?;
        self.at += bytes;
        Ok(found)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], String> {
        let found = part(self.code, self.at, len)?;
        self.at += len;
        Ok(found)
    }

    fn text(&mut self, len: usize) -> Result<Value, String> {
        let bytes = self.take(len)?;
        Ok(Value::Text(String::from_utf8_lossy(bytes).into()))
    }

    fn line(&mut self) -> Result<&'a str, String> {
        let len = self.code[self.at..].iter().position(|byte| *byte == b'\n').ok_or("is cut off")?;
        let line = self.take(len + 1)?;
        std::str::from_utf8(&line[..len]).map_err(|e| e.to_string())
    }

    fn pop(&mut self) -> Result<Value, String> {
        self.stack.pop().ok_or_else(|| "has a broken pickle".to_owned())
    }

    /// What lies above the last mark.
    fn above_mark(&mut self) -> Result<Vec<Value>, String> {
        let mark = self.stack.iter().rposition(|value| matches!(value, Value::Mark)).ok_or("has a broken pickle")?;
        let items = self.stack.split_off(mark + 1);
        self.stack.pop();
        Ok(items)
    }

    fn remember(&mut self, place: usize) -> Result<(), String> {
        let top = self.stack.last().ok_or("has a broken pickle")?.clone();
        self.memo.insert(place, top);
        Ok(())
    }

    fn set_items(&mut self, items: Vec<Value>) {
        if let Some(Value::Dict(pairs)) = self.stack.last() {
            let mut items = items.into_iter();
            while let (Some(key), Some(value)) = (items.next(), items.next()) {
                pairs.borrow_mut().push((key, value));
            }
        }
    }

    fn run(mut self) -> Result<Value, String> {
        loop {
            let code = self.number(1)? as u8;
            let value = match code {
                b'.' => return self.pop(),
                0x80 => {
                    self.number(1)?;
                    continue;
                }
                0x95 => {
                    self.number(8)?;
                    continue;
                }
                b'(' => Value::Mark,
                b'}' => Value::dict(),
                b')' => Value::Tuple(Rc::default()),
                b']' | 0x8f | b'N' | 0x88 | 0x89 => Value::Opaque,
                b'K' => Value::Int(self.number(1)? as i64),
                b'M' => Value::Int(self.number(2)? as i64),
                b'J' => Value::Int(i64::from(self.number(4)? as u32 as i32)),
                0x8a => {
                    let bytes = self.number(1)?;
                    let long = self.take(bytes)?;
                    // Sign-extended to eight bytes; longer numbers are no sizes.
                    let fill = if long.last().is_some_and(|byte| *byte >= 0x80) { 0xff } else { 0 };
                    let mut whole = [fill; 8];
                    long.iter().take(8).zip(&mut whole).for_each(|(from, to)| *to = *from);
                    Value::Int(i64::from_le_bytes(whole))
                }
                b'G' => {
                    self.take(8)?;
                    Value::Opaque
                }
                b'X' => {
                    let len = self.number(4)?;
                    self.text(len)?
                }
                0x8c | b'U' | b'C' => {
                    let len = self.number(1)?;
                    self.text(len)?
                }
                b'T' | b'B' => {
                    let len = self.number(4)?;
                    self.text(len)?
                }
                0x8d | 0x8e => {
                    let len = self.number(8)?;
                    self.text(len)?
                }
                b'q' | b'r' | 0x94 => {
                    let place = match code {
                        b'q' => self.number(1)?,
                        b'r' => self.number(4)?,
                        _ => self.memo.len(),
                    };
                    self.remember(place)?;
                    continue;
                }
                b'h' | b'j' => {
                    let place = self.number(if code == b'h' { 1 } else { 4 })?;
                    self.memo.get(&place).cloned().ok_or("has a broken pickle")?
                }
                b't' => Value::Tuple(Rc::new(self.above_mark()?)),
                0x85..=0x87 => {
                    let from = self.stack.len().checked_sub(usize::from(code - 0x84)).ok_or("has a broken pickle")?;
                    Value::Tuple(Rc::new(self.stack.split_off(from)))
                }
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    Value::Global(format!("{module}.{name}").into())
                }
                0x93 => match (self.pop()?, self.pop()?) {
                    (Value::Text(name), Value::Text(module)) => Value::Global(format!("{module}.{name}").into()),
                    _ => return Err("has a broken pickle".to_owned()),
                },
                b'R' | 0x81 => {
                    let (arguments, function) = (self.pop()?, self.pop()?);
                    call(&function, &arguments)
                }
                b'Q' => storage(&self.pop()?)?,
                b'b' | b'a' => {
                    self.pop()?;
                    continue;
                }
                b'e' | 0x90 => {
                    self.above_mark()?;
                    continue;
                }
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.set_items(vec![key, value]);
                    continue;
                }
                b'u' => {
                    let items = self.above_mark()?;
                    self.set_items(items);
                    continue;
                }
                other => return Err(format!("has a pickle with the instruction {other:#04x}, which torch.save does not use")),
            };
            self.stack.push(value);
        }
    }
}

/// What a function makes of its arguments, if it is one that tensors need.
fn call(function: &Value, arguments: &Value) -> Value {
    let (Value::Global(name), Value::Tuple(arguments)) = (function, arguments) else { return Value::Opaque };
    match (&**name, arguments.as_slice()) {
        ("collections.OrderedDict", []) => Value::dict(),
        ("torch._utils._rebuild_parameter", [tensor, ..]) => tensor.clone(),
        ("torch._utils._rebuild_tensor_v2", [Value::Storage { key, kind }, Value::Int(offset), shape, stride, ..]) => {
            match (shape.ints(), stride.ints()) {
                (Some(shape), Some(stride)) => {
                    Value::Tensor(Rc::new(Stored { key: Rc::clone(key), kind: *kind, offset: *offset, shape, stride }))
                }
                _ => Value::Opaque,
            }
        }
        _ => Value::Opaque,
    }
}

/// `("storage", torch.FloatStorage, key, location, count)`
fn storage(id: &Value) -> Result<Value, String> {
    let Value::Tuple(items) = id else { return Ok(Value::Opaque) };
    let [_, Value::Global(class), Value::Text(key), ..] = items.as_slice() else { return Ok(Value::Opaque) };
    let kind = match class.trim_start_matches("torch.") {
        "FloatStorage" => Kind::Float,
        "DoubleStorage" => Kind::Double,
        "HalfStorage" => Kind::Half,
        "BFloat16Storage" => Kind::BFloat16,
        "LongStorage" => Kind::Int64,
        "IntStorage" => Kind::Int,
        "BoolStorage" => Kind::Bool,
        other => return Err(format!("has a tensor of {other}")),
    };
    Ok(Value::Storage { key: Rc::clone(key), kind })
}
