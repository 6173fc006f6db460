//! Files as memory.

use std::fs::File;
use std::path::Path;

use bytes::Bytes;
use datafusion::arrow::buffer::Buffer;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::ipc::convert::fb_to_schema;
use datafusion::arrow::ipc::reader::{FileDecoder, read_footer_length};
use datafusion::arrow::ipc::{Block, root_as_footer};
use datafusion::arrow::record_batch::RecordBatch;
use memmap2::Mmap;

use crate::{Error, Result};

/// The record batches of an Arrow IPC file, pointing into a mapping of it that lives as long as they do.
///
/// Refuses a file whose length is not `bytes`, and one whose buffers would have to be copied because they are not aligned.
pub(crate) fn map(path: &Path, bytes: u64, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
    let file = File::open(path).map_err(|source| Error::io(path, source))?;
    let length = file.metadata().map_err(|source| Error::io(path, source))?.len();
    let wrong = |reason: String| Error::File { file: path.to_path_buf(), reason };
    if length != bytes || length < TRAILER as u64 {
        return Err(wrong(format!("has {length} bytes, its manifest says {bytes}")));
    }
    // SAFETY: the file belongs to a published table. Such files are written once under another name, renamed into place and never
    // changed, so the mapping is not written to while it is read.
    let mapping = unsafe { Mmap::map(&file) }.map_err(|source| Error::io(path, source))?;
    let buffer = Buffer::from(Bytes::from_owner(mapping));
    decode(&buffer, schema).map_err(|error| wrong(error.to_string()))
}

/// Footer length (4 bytes) and magic (6 bytes) at the end of the file.
const TRAILER: usize = 10;

fn decode(buffer: &Buffer, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
    let text = |error: &dyn std::fmt::Display| Error::Argument { message: error.to_string(), hint: None };
    let end = buffer.len() - TRAILER;
    let mut trailer = [0; TRAILER];
    trailer.copy_from_slice(&buffer[end..]);
    let start = end.checked_sub(read_footer_length(trailer)?).ok_or_else(|| text(&"its footer is longer than the file"))?;
    let footer = root_as_footer(&buffer[start..end]).map_err(|e| text(&e))?;
    let written = footer.schema().ok_or_else(|| text(&"no schema"))?;
    if fb_to_schema(written) != **schema {
        return Err(text(&"its columns are not those of the manifest"));
    }
    let decoder = FileDecoder::new(schema.clone(), footer.version()).with_require_alignment(true);
    // SAFETY: the file was written by this crate from valid arrays (the manifest names it and its length); reading every string again to
    // prove it would read the whole table, which mapping is there to avoid.
    let decoder = unsafe { decoder.with_skip_validation(true) };
    let message = |block: &Block| {
        let length = block.metaDataLength() as usize + block.bodyLength() as usize;
        let start = block.offset() as usize;
        if start + length > end { Err(text(&"a batch outside the file")) } else { Ok(buffer.slice_with_length(start, length)) }
    };
    let blocks = footer.recordBatches().into_iter().flatten();
    let batches = blocks.map(|block| Ok(decoder.read_record_batch(block, &message(block)?)?));
    Ok(batches.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}
