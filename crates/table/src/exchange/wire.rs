//! Record batches as lists of buffers: what an exchange gives to the communicator.
//!
//! Not Arrow IPC: both sides know the schema, so a message is one small header and the arrays' own buffers, handed over by reference.
//! Only what cannot be sent as it lies is copied first: bit masks that start inside a byte, offsets that do not start at 0.
//!
//! ```text
//! part 0   header, little-endian u64 words
//!          batches, then per batch: partition, rows, then per column (depth first):
//!              length, 1 if a null mask follows, number of buffers, number of children
//! part 1…  the buffers in the same order (null mask first)
//! ```

use bytes::Bytes;
use datafusion::arrow::array::{
    Array, ArrayData, ArrayDataBuilder, ArrayRef, AsArray, BinaryViewArray, MutableArrayData, RecordBatch, RecordBatchOptions,
    StringViewArray, make_array,
};
use datafusion::arrow::buffer::{BooleanBuffer, Buffer};
use datafusion::arrow::datatypes::{ArrowNativeType, DataType, SchemaRef};
use datafusion::common::{Result, internal_datafusion_err, internal_err};

/// A batch and the partition that it belongs to.
pub(crate) type Placed = (usize, RecordBatch);

/// The parts of one message.
pub(crate) fn encode(batches: &[Placed]) -> Result<Vec<Bytes>> {
    let mut writer = Writer { words: vec![batches.len() as u64], buffers: vec![Bytes::new()] };
    for (partition, batch) in batches {
        writer.words.extend([*partition as u64, batch.num_rows() as u64]);
        for column in batch.columns() {
            writer.array(column)?;
        }
    }
    writer.buffers[0] = writer.words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>().into();
    Ok(writer.buffers)
}

/// The batches of one message; their buffers are the message's.
pub(crate) fn decode(parts: Vec<Bytes>, schema: &SchemaRef) -> Result<Vec<Placed>> {
    let mut parts = parts.into_iter();
    let header = parts.next().ok_or_else(|| internal_datafusion_err!("a message without a header"))?;
    let words = header.chunks_exact(8).map(|w| u64::from_le_bytes([w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7]])).collect::<Vec<_>>();
    let mut reader = Reader { words: words.into_iter(), buffers: parts };
    let count = reader.word()?;
    let mut batches = Vec::with_capacity(count);
    for _ in 0..count {
        let (partition, rows) = (reader.word()?, reader.word()?);
        let columns = schema.fields().iter().map(|field| Ok(make_array(reader.array(field.data_type())?))).collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        batches.push((partition, RecordBatch::try_new_with_options(schema.clone(), columns, &options)?));
    }
    Ok(batches)
}

struct Writer {
    words: Vec<u64>,
    buffers: Vec<Bytes>,
}

impl Writer {
    fn array(&mut self, array: &ArrayRef) -> Result<()> {
        let array = compact(array)?;
        self.data(&array.to_data())
    }

    fn data(&mut self, data: &ArrayData) -> Result<()> {
        let data = if data.offset() != 0 && !is_sliceable(data.data_type()) { copied(data)? } else { data.clone() };
        let buffers = buffers(&data);
        let (nulls, children) = (data.nulls().filter(|nulls| nulls.null_count() > 0), data.child_data());
        self.words.extend([data.len() as u64, u64::from(nulls.is_some()), buffers.len() as u64, children.len() as u64]);
        self.buffers.extend(nulls.map(|nulls| shared(nulls.inner().sliced())));
        self.buffers.extend(buffers.into_iter().map(shared));
        children.iter().try_for_each(|child| self.data(child))
    }
}

/// An Arrow buffer as bytes, by reference.
fn shared(buffer: Buffer) -> Bytes {
    struct Owned(Buffer);
    impl AsRef<[u8]> for Owned {
        fn as_ref(&self) -> &[u8] {
            self.0.as_slice()
        }
    }
    if buffer.is_empty() { Bytes::new() } else { Bytes::from_owner(Owned(buffer)) }
}

/// Types whose slice is a slice of their buffers.
fn is_sliceable(data_type: &DataType) -> bool {
    data_type.is_primitive()
        || matches!(data_type, DataType::Boolean | DataType::Utf8 | DataType::LargeUtf8 | DataType::Binary | DataType::LargeBinary)
}

/// Exactly the bytes of the array's rows, where the type allows it.
fn buffers(data: &ArrayData) -> Vec<Buffer> {
    let (start, len) = (data.offset(), data.len());
    match data.data_type() {
        DataType::Boolean => vec![BooleanBuffer::new(data.buffers()[0].clone(), start, len).sliced()],
        DataType::Utf8 | DataType::Binary => rebased::<i32>(data),
        DataType::LargeUtf8 | DataType::LargeBinary => rebased::<i64>(data),
        other => match other.primitive_width() {
            Some(width) => vec![data.buffers()[0].slice_with_length(start * width, len * width)],
            None => data.buffers().to_vec(),
        },
    }
}

/// Offsets that start at 0, and the bytes between the first and the last of them.
fn rebased<O: ArrowNativeType + std::ops::Sub<Output = O>>(data: &ArrayData) -> Vec<Buffer> {
    if data.is_empty() {
        return vec![Buffer::from_slice_ref([O::default()]), Buffer::from_vec(Vec::<u8>::new())];
    }
    let width = size_of::<O>();
    let offsets = &data.buffers()[0].typed_data::<O>()[data.offset()..=data.offset() + data.len()];
    let (first, last) = (offsets[0].as_usize(), offsets[data.len()].as_usize());
    let values = data.buffers()[1].slice_with_length(first, last - first);
    let offsets = match first {
        0 => data.buffers()[0].slice_with_length(data.offset() * width, (data.len() + 1) * width),
        _ => offsets.iter().map(|offset| *offset - offsets[0]).collect::<Vec<O>>().into(),
    };
    vec![offsets, values]
}

fn copied(data: &ArrayData) -> Result<ArrayData> {
    let mut copy = MutableArrayData::new(vec![data], false, data.len());
    copy.try_extend(0, 0, data.len())?;
    Ok(copy.freeze())
}

/// Views and lists keep the whole of what they were sliced from; they are sent without it.
fn compact(array: &ArrayRef) -> Result<ArrayRef> {
    let wasteful = |used: usize, held: usize| held > 2 * used + 4096;
    Ok(match array.data_type() {
        DataType::Utf8View => {
            let views: &StringViewArray = array.as_string_view();
            let held = views.data_buffers().iter().map(Buffer::len).sum();
            if wasteful(views.total_buffer_bytes_used(), held) { std::sync::Arc::new(views.gc()) } else { array.clone() }
        }
        DataType::BinaryView => {
            let views: &BinaryViewArray = array.as_binary_view();
            let held = views.data_buffers().iter().map(Buffer::len).sum();
            if wasteful(views.total_buffer_bytes_used(), held) { std::sync::Arc::new(views.gc()) } else { array.clone() }
        }
        DataType::List(_) => {
            let (list, len) = (array.as_list::<i32>(), array.len());
            let used = (list.value_offsets()[len] - list.value_offsets()[0]) as usize;
            if wasteful(used, list.values().len()) { make_array(copied(&array.to_data())?) } else { array.clone() }
        }
        _ => array.clone(),
    })
}

struct Reader<W, B> {
    words: W,
    buffers: B,
}

impl<W: Iterator<Item = u64>, B: Iterator<Item = Bytes>> Reader<W, B> {
    fn word(&mut self) -> Result<usize> {
        self.words.next().map(|word| word as usize).ok_or_else(|| internal_datafusion_err!("a message with a short header"))
    }

    fn buffer(&mut self) -> Result<Buffer> {
        self.buffers.next().map(Buffer::from).ok_or_else(|| internal_datafusion_err!("a message with too few buffers"))
    }

    fn array(&mut self, data_type: &DataType) -> Result<ArrayData> {
        let (len, has_nulls, buffers, children) = (self.word()?, self.word()?, self.word()?, self.word()?);
        let nulls = (has_nulls == 1).then(|| self.buffer()).transpose()?;
        let buffers = (0..buffers).map(|_| self.buffer()).collect::<Result<Vec<_>>>()?;
        let types = child_types(data_type);
        if types.len() != children {
            return internal_err!("{children} children for {data_type}");
        }
        let children = types.into_iter().map(|child| self.array(child)).collect::<Result<Vec<_>>>()?;
        let data = ArrayDataBuilder::new(data_type.clone()).len(len).null_bit_buffer(nulls).buffers(buffers).child_data(children);
        // SAFETY: `encode` wrote these buffers on a rank of the same program, from a valid array of the same type (the plans are
        // compared before anything runs); re-reading every string to prove it again would cost as much as the join. Counts, lengths
        // and alignment, which a mix-up of messages would break, are checked: `build_unchecked` is followed by `validate`.
        let mut data = unsafe { data.build_unchecked() };
        data.align_buffers();
        data.validate()?;
        Ok(data)
    }
}

fn child_types(data_type: &DataType) -> Vec<&DataType> {
    match data_type {
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => vec![field.data_type()],
        DataType::Struct(fields) => fields.iter().map(|field| field.data_type()).collect(),
        DataType::Union(fields, _) => fields.iter().map(|(_, field)| field.data_type()).collect(),
        DataType::Dictionary(_, values) => vec![values],
        DataType::RunEndEncoded(ends, values) => vec![ends.data_type(), values.data_type()],
        _ => vec![],
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::*;
    use datafusion::arrow::datatypes::{Int32Type, Schema};

    use super::*;

    /// Whole, sliced and empty arrays arrive as they were.
    fn check(array: ArrayRef) {
        let len = array.len();
        for (start, rows) in [(0, len), (1, len - 1), (3, len - 5), (len, 0)] {
            let batch = RecordBatch::try_from_iter_with_nullable([("a", array.slice(start, rows), true)]).unwrap();
            let parts = encode(&[(7, batch.clone())]).unwrap();
            let got = decode(parts, &batch.schema()).unwrap();
            assert_eq!(got, [(7, batch)]);
        }
    }

    #[test]
    fn primitives() {
        check(Arc::new((0..20).map(|i| (i % 3 != 0).then_some(i)).collect::<Int32Array>()));
        check(Arc::new(Float64Array::from_iter_values((0..20).map(f64::from))));
        check(Arc::new((0..20).map(|i| (i % 4 != 0).then_some(i % 2 == 0)).collect::<BooleanArray>()));
        check(Arc::new(NullArray::new(20)));
    }

    #[test]
    fn strings() {
        let words: Vec<_> = (0..20).map(|i| (i % 5 != 0).then(|| "x".repeat(i))).collect();
        check(Arc::new(words.iter().map(Option::as_deref).collect::<StringArray>()));
        check(Arc::new(words.iter().map(Option::as_deref).collect::<LargeStringArray>()));
        check(Arc::new(words.iter().map(Option::as_deref).collect::<StringViewArray>()));
    }

    #[test]
    fn nested() {
        let lists = (0..20).map(|i| (i % 4 != 0).then(|| (0..i).map(Some)));
        check(Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(lists)));
        let words = ["a", "b", "a", "c", "b", "a", "a", "c", "c", "a"];
        check(Arc::new(words.into_iter().collect::<DictionaryArray<Int32Type>>()));
        let (a, b): (ArrayRef, ArrayRef) = (Arc::new(Int32Array::from_iter_values(0..20)), Arc::new(BooleanArray::from(vec![true; 20])));
        check(Arc::new(StructArray::try_from(vec![("a", a), ("b", b)]).unwrap()));
    }

    #[test]
    fn rows_without_columns() {
        let options = RecordBatchOptions::new().with_row_count(Some(5));
        let batch = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options).unwrap();
        let got = decode(encode(&[(0, batch.clone())]).unwrap(), &batch.schema()).unwrap();
        assert_eq!(got, [(0, batch)]);
    }

    #[test]
    fn values_pass_by_reference() {
        let values = Float64Array::from_iter_values((0..100).map(f64::from));
        let batch = RecordBatch::try_from_iter([("a", Arc::new(values.clone()) as ArrayRef)]).unwrap();
        let got = decode(encode(&[(0, batch.clone())]).unwrap(), &batch.schema()).unwrap();
        let column = got[0].1.column(0).as_primitive::<datafusion::arrow::datatypes::Float64Type>();
        assert_eq!(column.values().as_ptr(), values.values().as_ptr());
    }
}
