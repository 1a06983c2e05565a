//! Rows of a batch that others have other rows of: what an exchange ships.
//!
//! A batch that is split over many receivers is copied once, in the order of its receivers; each
//! gets a range, which costs one count of references, and joins the ranges that have come from all
//! senders by one more copy.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, BinaryType, ByteArrayType, Float64Type, Int32Type, Int64Type, Utf8Type,
};
use arrow_array::{Array, ArrayRef, PrimitiveArray, RecordBatch, RecordBatchOptions};
use arrow_schema::{ArrowError, DataType};

use crate::Batch;
use crate::whole_rows::WholeRows;

/// A range of a shared batch.
#[derive(Clone, Debug)]
pub struct BatchRange {
    batch: Arc<Batch>,
    offset: usize,
    length: usize,
    bytes: usize,
}

impl From<Batch> for BatchRange {
    fn from(batch: Batch) -> Self {
        let (length, bytes) = (batch.num_rows(), batch.bytes());
        Self { batch: Arc::new(batch), offset: 0, length, bytes }
    }
}

impl BatchRange {
    /// A part of this range: rows `offset .. offset + length` of it.
    #[must_use]
    pub fn part(&self, offset: usize, length: usize) -> Self {
        let bytes = self.bytes * length / self.length.max(1);
        Self { batch: Arc::clone(&self.batch), offset: self.offset + offset, length, bytes }
    }

    /// How many rows.
    #[must_use]
    pub fn num_rows(&self) -> usize {
        self.length
    }

    /// The bytes that the rows take, about: their share of the batch's.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The rows alone, sharing the batch's buffers.
    #[must_use]
    pub fn to_batch(&self) -> Batch {
        if self.length == self.batch.num_rows() {
            return Batch::clone(&self.batch);
        }
        self.batch.slice(self.offset, self.length)
    }

    /// The rows of all ranges in one batch, in their order: copied, or shared where there is one.
    ///
    /// # Errors
    /// If the schemas differ, or a column would become too long (2 GiB of text).
    ///
    /// # Panics
    /// If there is no range.
    pub fn join(ranges: &[Self]) -> Result<Batch, ArrowError> {
        let first = ranges.first().expect("at least one range");
        let timed = first.batch.event_times().is_some();
        let plain =
            |range: &Self| range.batch.event_times().is_some() == timed && range.batch.kinds().is_none();
        if ranges.len() == 1 {
            return Ok(first.to_batch());
        }
        if !ranges.iter().all(plain) {
            return Batch::concat(&ranges.iter().map(Self::to_batch).collect::<Vec<_>>());
        }
        let schema = first.batch.schema();
        let columns = (0..schema.fields().len())
            .map(|column| join_column(ranges, column))
            .collect::<Result<Vec<_>, _>>()?;
        let rows = ranges.iter().map(Self::num_rows).sum();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let times = timed.then(|| {
            let mut all = Vec::with_capacity(rows);
            for range in ranges {
                let times = range.batch.event_times().map_or(&[][..], |times| times);
                all.extend_from_slice(&times[range.offset..range.offset + range.length]);
            }
            all.into()
        });
        Ok(Batch::new(RecordBatch::try_new_with_options(schema, columns, &options)?).with_event_times(times))
    }

    fn column(&self, column: usize) -> &ArrayRef {
        self.batch.column(column)
    }
}

/// One column of all ranges. The kinds that most rows have go without a slice for each range.
fn join_column(ranges: &[BatchRange], column: usize) -> Result<ArrayRef, ArrowError> {
    let data_type = ranges[0].column(column).data_type();
    let simple = ranges
        .iter()
        .all(|range| range.column(column).nulls().is_none() && range.column(column).data_type() == data_type);
    match data_type {
        DataType::Utf8 if simple => join_bytes::<Utf8Type>(ranges, column),
        DataType::Binary if simple => join_bytes::<BinaryType>(ranges, column),
        DataType::Int32 if simple => Ok(join_numbers::<Int32Type>(ranges, column)),
        DataType::Int64 if simple => Ok(join_numbers::<Int64Type>(ranges, column)),
        DataType::Float64 if simple => Ok(join_numbers::<Float64Type>(ranges, column)),
        _ => {
            let slices: Vec<ArrayRef> =
                ranges.iter().map(|range| range.column(column).slice(range.offset, range.length)).collect();
            let slices: Vec<&dyn Array> = slices.iter().map(AsRef::as_ref).collect();
            arrow_select::concat::concat(&slices)
        }
    }
}

fn join_numbers<T: ArrowPrimitiveType>(ranges: &[BatchRange], column: usize) -> ArrayRef {
    let mut all = Vec::with_capacity(ranges.iter().map(BatchRange::num_rows).sum());
    for range in ranges {
        let values = range.column(column).as_primitive::<T>().values();
        all.extend_from_slice(&values[range.offset..range.offset + range.length]);
    }
    Arc::new(PrimitiveArray::<T>::new(all.into(), None))
}

fn join_bytes<T: ByteArrayType<Offset = i32>>(
    ranges: &[BatchRange],
    column: usize,
) -> Result<ArrayRef, ArrowError> {
    let rows = ranges.iter().map(BatchRange::num_rows).sum();
    let mut joined = WholeRows::with_capacity(rows, ranges.iter().map(BatchRange::bytes).sum());
    for range in ranges {
        joined.append(range.column(column).as_bytes::<T>(), range.offset, range.length)?;
    }
    Ok(Arc::new(joined.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::{BinaryArray, BooleanArray, Float64Array, Int32Array, Int64Array, StringArray};
    use proptest::prelude::*;

    /// Rows of columns of every kind of path; with nulls where `nulls` says so.
    fn batch(rows: &[(i64, String)], nulls: bool, times: bool) -> Batch {
        let null = |i: i64| !(nulls && i % 3 == 0);
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("i", Arc::new(rows.iter().map(|(i, _)| null(*i).then_some(*i)).collect::<Int64Array>())),
            ("n", Arc::new(rows.iter().map(|(i, _)| Some(*i as i32)).collect::<Int32Array>())),
            ("f", Arc::new(rows.iter().map(|(i, _)| Some(*i as f64)).collect::<Float64Array>())),
            (
                "t",
                Arc::new(rows.iter().map(|(i, t)| null(*i).then_some(t.as_str())).collect::<StringArray>()),
            ),
            ("x", Arc::new(rows.iter().map(|(_, t)| Some(t.as_bytes())).collect::<BinaryArray>())),
            ("b", Arc::new(rows.iter().map(|(i, _)| Some(i % 2 == 0)).collect::<BooleanArray>())),
        ];
        let times = times.then(|| rows.iter().map(|(i, _)| *i).collect());
        Batch::new(
            RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap(),
        )
        .with_event_times(times)
    }

    proptest! {
        #[test]
        fn joined_ranges_are_the_concatenated_slices(
            batches in proptest::collection::vec(
                (proptest::collection::vec((any::<i64>(), ".{0,12}"), 1..30), any::<bool>(), any::<bool>()), 1..6),
            cuts in proptest::collection::vec((any::<proptest::sample::Index>(), any::<proptest::sample::Index>()), 6),
            times in any::<bool>(),
        ) {
            let mut ranges = Vec::new();
            let mut slices = Vec::new();
            for ((rows, nulls, timed), (from, to)) in batches.iter().zip(&cuts) {
                let batch = batch(rows, *nulls, times && *timed);
                let from = from.index(rows.len());
                let length = 1 + to.index(rows.len() - from);
                slices.push(batch.slice(from, length));
                let range = BatchRange::from(batch).part(from, length);
                prop_assert_eq!(range.num_rows(), length);
                ranges.push(range);
            }
            let (joined, expected) = (BatchRange::join(&ranges).unwrap(), Batch::concat(&slices).unwrap());
            prop_assert_eq!(joined.rows(), expected.rows());
            prop_assert_eq!(joined.event_times(), expected.event_times());
        }
    }
}
