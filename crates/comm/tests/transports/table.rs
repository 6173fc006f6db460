//! The table that is printed.

use std::{collections::BTreeMap, fmt, time::Duration};

/// How a test came out over a transport.
#[derive(Debug, Clone)]
pub(crate) enum Cell {
    Passed(Duration),
    Failed(String),
    /// Does not exist there.
    Absent(&'static str),
}

impl Cell {
    /// With the time it took.
    pub(crate) fn after(self, took: Duration) -> Self {
        match self {
            Cell::Passed(_) => Cell::Passed(took),
            other => other,
        }
    }

    fn short(&self) -> String {
        match self {
            Cell::Passed(took) => format!("{:.2} s", took.as_secs_f64()),
            Cell::Failed(_) => "FAILED".to_owned(),
            Cell::Absent(_) => "-".to_owned(),
        }
    }
}

impl From<Result<(), String>> for Cell {
    fn from(result: Result<(), String>) -> Self {
        result.map_or_else(Cell::Failed, |()| Cell::Passed(Duration::ZERO))
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cell::Passed(took) => write!(f, "passed in {:.2} s", took.as_secs_f64()),
            Cell::Failed(reason) => write!(f, "FAILED: {reason}"),
            Cell::Absent(reason) => write!(f, "- ({reason})"),
        }
    }
}

/// Rows are tests, columns transports, both in the order they came.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<String>,
    columns: Vec<&'static str>,
    cells: BTreeMap<(String, &'static str), Cell>,
}

impl Table {
    /// A failure stays, also when a repetition passes.
    pub(crate) fn set(&mut self, row: &str, column: &'static str, cell: Cell) {
        if !self.rows.iter().any(|known| known == row) {
            self.rows.push(row.to_owned());
        }
        if !self.columns.contains(&column) {
            self.columns.push(column);
        }
        let slot = self.cells.entry((row.to_owned(), column));
        slot.and_modify(|old| {
            if !matches!(old, Cell::Failed(_)) {
                *old = cell.clone()
            }
        })
        .or_insert(cell);
    }

    pub(crate) fn passed(&self) -> bool {
        !self.cells.is_empty() && !self.cells.values().any(|cell| matches!(cell, Cell::Failed(_)))
    }

    pub(crate) fn print(&self, took: Duration) {
        let width = self.rows.iter().map(String::len).max().unwrap_or(0);
        println!("\n{:width$}  {}", "", self.columns.iter().map(|name| format!("{name:>8}")).collect::<String>());
        for row in &self.rows {
            let cells = self.columns.iter().map(|column| self.cells.get(&(row.clone(), column)).map_or_else(String::new, Cell::short));
            println!("{row:width$}  {}", cells.map(|cell| format!("{cell:>8}")).collect::<String>());
        }
        for ((row, column), cell) in &self.cells {
            if let Cell::Failed(reason) = cell {
                println!("\n{column}, {row}: {reason}");
            }
        }
        println!("\ntimes of whole tests, processes included; \"-\" does not exist there; {:.0} s in all", took.as_secs_f64());
    }
}
