//! Sample sort: the bounds of the ranges, and the range of every row.
//!
//! Keys are compared in Arrow's row format, whose bytes sort like the rows (nulls, descending order and NaN as `SortExec` has them).
//! Source: Blelloch et al., "A comparison of sorting algorithms for the Connection Machine CM-2", 1991, section 4 (sample sort).

use datafusion::arrow::array::{ArrayRef, RecordBatch, UInt64Array};
use datafusion::arrow::compute::take;
use datafusion::arrow::row::{RowConverter, Rows, SortField};
use datafusion::common::Result;
use datafusion::physical_expr::LexOrdering;
use serde::{Deserialize, Serialize};

/// Samples per rank: with 256 of them the largest of 8 ranges exceeds the mean by a few percent, and an exchange of samples stays at
/// some kilobytes per rank.
const SAMPLES: usize = 256;

/// Keys drawn at equal distances from a rank's rows.
#[derive(Serialize, Deserialize, Default)]
pub(crate) struct Sample {
    /// In row format.
    keys: Vec<Vec<u8>>,
    /// How many of the rank's rows one key stands for.
    weight: f64,
}

/// Sort keys as comparable bytes.
pub(crate) struct Keys<'a> {
    ordering: &'a LexOrdering,
    converter: RowConverter,
}

impl<'a> Keys<'a> {
    pub fn new(ordering: &'a LexOrdering, input: &datafusion::arrow::datatypes::Schema) -> Result<Self> {
        let fields = ordering.iter().map(|key| Ok(SortField::new_with_options(key.expr.data_type(input)?, key.options)));
        let converter = RowConverter::new(fields.collect::<Result<_>>()?)?;
        Ok(Keys { ordering, converter })
    }

    fn columns(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        self.ordering.iter().map(|key| key.expr.evaluate(batch)?.into_array(batch.num_rows())).collect()
    }

    fn rows(&self, columns: &[ArrayRef]) -> Result<Rows> {
        Ok(self.converter.convert_columns(columns)?)
    }

    /// This rank's sample.
    pub fn sample<'b>(&self, batches: impl Iterator<Item = &'b RecordBatch> + Clone) -> Result<Sample> {
        let total: usize = batches.clone().map(RecordBatch::num_rows).sum();
        let step = total.div_ceil(SAMPLES).max(1);
        let (mut keys, mut first) = (Vec::new(), 0);
        for batch in batches {
            let rows = batch.num_rows();
            let drawn = UInt64Array::from_iter_values((0..rows).filter(|row| (first + row) % step == step / 2).map(|row| row as u64));
            first += rows;
            let columns = self.columns(batch)?.iter().map(|column| Ok(take(column, &drawn, None)?)).collect::<Result<Vec<_>>>()?;
            keys.extend(self.rows(&columns)?.iter().map(|row| row.as_ref().to_vec()));
        }
        let weight = if keys.is_empty() { 0.0 } else { total as f64 / keys.len() as f64 };
        Ok(Sample { keys, weight })
    }

    /// For each range the rows of `batch` that lie in it.
    pub fn split(&self, batch: &RecordBatch, bounds: &[Vec<u8>]) -> Result<Vec<UInt64Array>> {
        let mut ranges = vec![Vec::new(); bounds.len() + 1];
        for (row, key) in self.rows(&self.columns(batch)?)?.iter().enumerate() {
            let range = bounds.partition_point(|bound| bound.as_slice() <= key.as_ref());
            ranges[range].push(row as u64);
        }
        Ok(ranges.into_iter().map(UInt64Array::from).collect())
    }
}

/// At most `count - 1` bounds that cut the sampled rows into parts of about the same weight. Equal keys always lie in one range.
pub(crate) fn bounds(samples: Vec<Sample>, count: usize) -> Vec<Vec<u8>> {
    let mut keys: Vec<(Vec<u8>, f64)> =
        samples.into_iter().flat_map(|sample| sample.keys.into_iter().map(move |key| (key, sample.weight))).collect();
    keys.sort_by(|a, b| a.0.cmp(&b.0));
    let total: f64 = keys.iter().map(|key| key.1).sum();
    let (mut bounds, mut before): (Vec<Vec<u8>>, f64) = (Vec::new(), 0.0);
    for (key, weight) in keys {
        if bounds.len() + 1 < count && before >= total * (bounds.len() + 1) as f64 / count as f64 && bounds.last() != Some(&key) {
            bounds.push(key);
        }
        before += weight;
    }
    bounds
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(keys: impl IntoIterator<Item = u8>, weight: f64) -> Sample {
        Sample { keys: keys.into_iter().map(|key| vec![key]).collect(), weight }
    }

    #[test]
    fn equal_weights_cut_evenly() {
        assert_eq!(bounds(vec![sample(0..100, 1.0), sample(100..200, 1.0)], 4), [[50], [100], [150]]);
    }

    #[test]
    fn a_small_rank_counts_little() {
        assert_eq!(bounds(vec![sample(0..100, 0.01), sample(100..200, 10.0)], 2), [[150]]);
    }

    #[test]
    fn one_key_needs_one_range() {
        assert_eq!(bounds(vec![sample([7; 50], 1.0)], 4), [[7]]);
        assert!(bounds(vec![Sample::default()], 4).is_empty());
    }
}
