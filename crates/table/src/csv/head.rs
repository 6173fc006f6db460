//! The head of a CSV file: column names, and the types that its first rows allow.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::cells;
use super::records::Records;
use crate::{ColumnType, CsvOptions, Error, Result};

/// From the narrowest to the widest: a column gets the first type that all its cells have.
const TYPES: [ColumnType; 6] =
    [ColumnType::Bool, ColumnType::Int, ColumnType::Float, ColumnType::Date, ColumnType::Timestamp, ColumnType::Text];

/// What the head of a file says.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
pub(crate) struct Head {
    pub names: Vec<String>,
    /// Per column, one bit per entry of [`TYPES`] that all cells have; all bits while no cell was seen that is not null.
    types: Vec<u8>,
    /// Bytes of the file.
    pub size: u64,
}

impl Head {
    pub fn read(path: &Path, options: &CsvOptions) -> Result<Head> {
        let size = std::fs::metadata(path).map_err(|source| Error::io(path, source))?.len();
        let mut records = Records::open(path, 0, options)?;
        let wrong = |reason: &str| Error::File { file: path.to_path_buf(), reason: reason.to_string() };
        if !records.next(size)? {
            return Err(wrong("is empty"));
        }
        let names = names(&records, options).map_err(|reason| wrong(&reason))?;
        let mut types = vec![0b11_1111; names.len()];
        let mut more = !options.header || records.next(size)?;
        for _ in 0..options.infer_rows {
            if !more {
                break;
            }
            for (column, possible) in types.iter_mut().enumerate().take(records.len()) {
                let cell = String::from_utf8_lossy(records.cell(column));
                if !options.nulls.iter().any(|null| *null == cell) {
                    *possible &= types_of(&cell, *possible);
                }
            }
            more = records.next(size)?;
        }
        Ok(Head { names, types, size })
    }

    /// The types that the columns of all files have.
    pub fn merged(heads: &[Head], options: &CsvOptions) -> Result<Vec<ColumnType>> {
        let names = &heads[0].names;
        if let Some(column) = options.types.keys().find(|column| !names.contains(column)) {
            return Err(Error::unknown_column(column, names.iter().map(String::as_str)));
        }
        let inferred = (0..names.len()).map(|column| heads.iter().fold(0b11_1111, |all, head| all & head.types[column]));
        let types = names.iter().zip(inferred).map(|(name, possible)| {
            let narrowest = if possible == 0b11_1111 { ColumnType::Text } else { TYPES[possible.trailing_zeros() as usize] };
            options.types.get(name).copied().unwrap_or(narrowest)
        });
        Ok(types.collect())
    }
}

/// Which of the types in `among` a cell has; text is always among them.
fn types_of(cell: &str, among: u8) -> u8 {
    let bits = TYPES.iter().enumerate().filter(|(bit, column)| among & (1 << bit) != 0 && cells::is(**column, cell));
    bits.fold(0, |bits, (bit, _)| bits | (1 << bit))
}

fn names(first: &Records, options: &CsvOptions) -> Result<Vec<String>, String> {
    let numbered = |column: usize| format!("column_{}", column + 1);
    let names: Vec<String> = (0..first.len())
        .map(|column| match (options.header, options.names.get(column)) {
            (true, _) => match String::from_utf8_lossy(first.cell(column)).trim() {
                "" => numbered(column),
                name => name.to_string(),
            },
            (false, Some(name)) => name.clone(),
            (false, None) => numbered(column),
        })
        .collect();
    if !options.header && options.names.len() > names.len() {
        return Err(format!("has {} columns, `names` has {}", names.len(), options.names.len()));
    }
    match names.iter().enumerate().find(|(column, name)| names[..*column].contains(name)) {
        Some((_, twice)) => Err(format!("column \"{twice}\" appears twice")),
        None => Ok(names),
    }
}
