//! Reads CSV files together.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::arrow::record_batch::RecordBatch;
use deeprc_comm::Communicator;

use super::cells::Cells;
use super::head::Head;
use super::records::Records;
use crate::agree::agree;
use crate::context::agree_on;
use crate::{ColumnType, CsvOptions, Error, Result};

/// Rows per batch.
const BATCH_ROWS: usize = 8192;

/// The columns of one file, by its head.
pub(crate) fn schema(path: &Path, options: &CsvOptions) -> Result<Schema> {
    let heads = [Head::read(path, options)?];
    Ok(schema_of(&heads[0].names, &Head::merged(&heads, options)?))
}

fn schema_of(names: &[String], types: &[ColumnType]) -> Schema {
    let field = |(name, column): (&String, &ColumnType)| Field::new(name, column.data_type(), true);
    Schema::new(names.iter().zip(types).map(field).collect::<Vec<_>>())
}

/// This rank's share of the rows of all files. Collective.
pub(crate) fn read(comm: &Communicator, threads: usize, files: &[PathBuf], options: &CsvOptions) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let (rank, ranks) = (comm.rank(), comm.size());
    if files.is_empty() {
        return Err(Error::Argument { message: "no CSV files to read".to_string(), hint: None });
    }
    // Ranks share the work of looking at the heads, and all of them learn all heads.
    let own = files.iter().skip(rank).step_by(ranks).map(|file| Head::read(file, options)).collect::<Result<Vec<_>>>();
    let heads = agree(comm, own)?;
    let heads: Vec<Head> = (0..files.len()).map(|file| heads[file % ranks][file / ranks].clone()).collect();
    if let Some(file) = heads.iter().position(|head| head.names != heads[0].names) {
        return Err(other_columns(&files[file], &files[0], &heads[file].names, &heads[0].names));
    }
    let types = Head::merged(&heads, options)?;
    let schema = Arc::new(schema_of(&heads[0].names, &types));
    let plan = Plan { files, heads: &heads, types: &types, schema: &schema, options };

    let workers = rank * threads..(rank + 1) * threads;
    let pieces = workers.clone().map(|worker| plan.pieces(worker, ranks * threads)).collect();
    let split = plan.run(pieces);
    // A wrong beginning of a piece makes wrong errors, so whether the split was right is settled before them.
    let spans = matches!(split, Ok(Outcome::SpansLines));
    if agree(comm, Ok(spans))?.contains(&true) {
        let pieces = workers.map(|worker| plan.whole_files(worker, ranks * threads)).collect();
        return rows(agree_on(comm, plan.run(pieces))?, schema);
    }
    rows(agree_on(comm, split)?, schema)
}

fn rows(outcome: Outcome, schema: SchemaRef) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    match outcome {
        Outcome::Rows(batches) => Ok((schema, batches)),
        Outcome::SpansLines => Err(Error::Argument { message: "a CSV file changed while it was read".to_string(), hint: None }),
    }
}

fn other_columns(file: &Path, first: &Path, names: &[String], expected: &[String]) -> Error {
    let missing = expected.iter().find(|name| !names.contains(name));
    let extra = names.iter().find(|name| !expected.contains(name));
    let difference = match (missing, extra) {
        (Some(missing), _) => format!("has no column \"{missing}\""),
        (None, Some(extra)) => format!("has a column \"{extra}\""),
        (None, None) => "has its columns in another order".to_string(),
    };
    Error::File { file: file.to_path_buf(), reason: format!("{difference}, unlike {}", first.display()) }
}

/// Rows of one file that start at `start` or later, and before `end`.
struct Piece {
    file: usize,
    start: u64,
    end: u64,
    /// Whether a cell with a line break is in order.
    whole: bool,
}

enum Outcome {
    Rows(Vec<RecordBatch>),
    /// A cell holds a line break, so that pieces may have begun inside a cell.
    SpansLines,
}

struct Plan<'a> {
    files: &'a [PathBuf],
    heads: &'a [Head],
    types: &'a [ColumnType],
    schema: &'a SchemaRef,
    options: &'a CsvOptions,
}

impl Plan<'_> {
    /// The bytes of all files, end to end, cut evenly: the part of one worker of `workers`.
    fn pieces(&self, worker: usize, workers: usize) -> Vec<Piece> {
        let total: u64 = self.heads.iter().map(|head| head.size).sum();
        let cut = |worker: usize| (u128::from(total) * worker as u128 / workers as u128) as u64;
        let (start, end) = (cut(worker), cut(worker + 1));
        let (mut pieces, mut first) = (Vec::new(), 0);
        for (file, head) in self.heads.iter().enumerate() {
            let last = first + head.size;
            let (from, to) = (start.clamp(first, last), end.clamp(first, last));
            if from < to {
                pieces.push(Piece { file, start: from - first, end: to - first, whole: false });
            }
            first = last;
        }
        pieces
    }

    /// Consecutive whole files for consecutive workers.
    fn whole_files(&self, worker: usize, workers: usize) -> Vec<Piece> {
        let count = self.files.len();
        let files = (0..count).filter(|file| file * workers / count == worker);
        files.map(|file| Piece { file, start: 0, end: self.heads[file].size, whole: true }).collect()
    }

    /// Reads the pieces of this rank's workers side by side.
    fn run(&self, workers: Vec<Vec<Piece>>) -> Result<Outcome> {
        let outcomes = std::thread::scope(|scope| {
            let workers: Vec<_> = workers.into_iter().map(|pieces| scope.spawn(move || self.worker(&pieces))).collect();
            let joined = workers.into_iter().map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            joined.collect::<Vec<_>>()
        });
        if outcomes.iter().any(|outcome| matches!(outcome, Ok(Outcome::SpansLines))) {
            return Ok(Outcome::SpansLines);
        }
        let mut all = Vec::new();
        for outcome in outcomes {
            if let Outcome::Rows(batches) = outcome? {
                all.extend(batches);
            }
        }
        Ok(Outcome::Rows(all))
    }

    fn worker(&self, pieces: &[Piece]) -> Result<Outcome> {
        let mut batches = Vec::new();
        for piece in pieces {
            match self.piece(piece)? {
                Outcome::Rows(rows) => batches.extend(rows),
                Outcome::SpansLines => return Ok(Outcome::SpansLines),
            }
        }
        Ok(Outcome::Rows(batches))
    }

    fn piece(&self, piece: &Piece) -> Result<Outcome> {
        let mut records = Records::open(&self.files[piece.file], piece.start, self.options)?;
        if piece.start == 0 && self.options.header {
            records.next(piece.end)?;
            if records.spans_lines() && !piece.whole {
                return Ok(Outcome::SpansLines);
            }
        }
        let mut columns: Vec<Cells> = self.types.iter().map(|column| Cells::new(*column)).collect();
        let (mut batches, mut rows) = (Vec::new(), 0);
        while records.next(piece.end)? {
            if !piece.whole && records.spans_lines() {
                return Ok(Outcome::SpansLines);
            }
            self.record(&records, &mut columns)?;
            rows += 1;
            if rows == BATCH_ROWS {
                batches.push(self.batch(&mut columns)?);
                rows = 0;
            }
        }
        if rows > 0 {
            batches.push(self.batch(&mut columns)?);
        }
        Ok(Outcome::Rows(batches))
    }

    fn record(&self, records: &Records, columns: &mut [Cells]) -> Result<()> {
        if records.len() != columns.len() {
            let reason = format!("{} cells where the header has {}", records.len(), columns.len());
            return Err(Error::Line { file: records.path.clone(), line: records.line()?, reason });
        }
        for (index, cells) in columns.iter_mut().enumerate() {
            let cell = records.cell(index);
            if self.options.nulls.iter().any(|null| null.as_bytes() == cell) {
                cells.push_null();
                continue;
            }
            let taken = match str::from_utf8(cell) {
                Ok(cell) => cells.push(cell),
                Err(_) if self.types[index] == ColumnType::Text => {
                    let reason = format!("column \"{}\" is not UTF-8", self.schema.field(index).name());
                    return Err(Error::Line { file: records.path.clone(), line: records.line()?, reason });
                }
                Err(_) => false,
            };
            if !taken {
                return Err(Error::Cell {
                    file: records.path.clone(),
                    line: records.line()?,
                    column: self.schema.field(index).name().clone(),
                    value: String::from_utf8_lossy(cell).into_owned(),
                    expected: self.types[index].described(),
                });
            }
        }
        Ok(())
    }

    fn batch(&self, columns: &mut [Cells]) -> Result<RecordBatch> {
        Ok(RecordBatch::try_new(self.schema.clone(), columns.iter_mut().map(Cells::finish).collect())?)
    }
}
