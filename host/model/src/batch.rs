//! Rows in columns: an Arrow record batch with the rows' event times and kinds.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_buffer::{ArrowNativeType, Buffer, ScalarBuffer};
use arrow_schema::{ArrowError, SchemaRef};

use crate::gather::gather;

/// Rows of one schema, as they travel every edge of a job.
///
/// Cloning and slicing copy no rows: the columns are shared buffers.
#[derive(Clone, Debug)]
pub struct Batch {
    rows: RecordBatch,
    event_times: Option<ScalarBuffer<i64>>,
    kinds: Option<ScalarBuffer<u8>>,
}

/// What a row does to the table that its stream describes, in Flink's numbers (RowKind).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RowKind {
    /// A new row.
    Insert = 0,
    /// The old form of a row about to change.
    UpdateBefore = 1,
    /// The new form of a changed row.
    UpdateAfter = 2,
    /// A row that is gone.
    Delete = 3,
}

impl Batch {
    /// Rows without event times, all inserts.
    #[must_use]
    pub fn new(rows: RecordBatch) -> Self {
        Self { rows, event_times: None, kinds: None }
    }

    /// Rows of `schema` made of `columns`.
    ///
    /// # Errors
    /// If the columns do not fit the schema.
    pub fn of(schema: SchemaRef, length: usize, columns: Vec<ArrayRef>) -> Result<Self, ArrowError> {
        let options = RecordBatchOptions::new().with_row_count(Some(length));
        Ok(Self::new(RecordBatch::try_new_with_options(schema, columns, &options)?))
    }

    /// The same rows with these event times, in milliseconds since the epoch.
    ///
    /// # Panics
    /// If there are not as many times as rows.
    #[must_use]
    pub fn with_event_times(mut self, event_times: Option<ScalarBuffer<i64>>) -> Self {
        assert!(event_times.as_ref().is_none_or(|times| times.len() == self.num_rows()));
        self.event_times = event_times;
        self
    }

    /// The same rows with these kinds, numbered as [`RowKind`].
    ///
    /// # Panics
    /// If there are not as many kinds as rows.
    #[must_use]
    pub fn with_kinds(mut self, kinds: Option<ScalarBuffer<u8>>) -> Self {
        assert!(kinds.as_ref().is_none_or(|kinds| kinds.len() == self.num_rows()));
        self.kinds = kinds;
        self
    }

    /// The columns.
    #[must_use]
    pub fn rows(&self) -> &RecordBatch {
        &self.rows
    }

    /// One column.
    #[must_use]
    pub fn column(&self, index: usize) -> &ArrayRef {
        self.rows.column(index)
    }

    /// What the columns mean.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    /// How many rows there are.
    #[must_use]
    pub fn num_rows(&self) -> usize {
        self.rows.num_rows()
    }

    /// The rows' event times, in milliseconds since the epoch.
    #[must_use]
    pub fn event_times(&self) -> Option<&ScalarBuffer<i64>> {
        self.event_times.as_ref()
    }

    /// The rows' kinds; none = all inserts.
    #[must_use]
    pub fn kinds(&self) -> Option<&ScalarBuffer<u8>> {
        self.kinds.as_ref()
    }

    /// Rows `offset .. offset + length`, sharing the buffers.
    #[must_use]
    pub fn slice(&self, offset: usize, length: usize) -> Self {
        Self {
            rows: self.rows.slice(offset, length),
            event_times: self.event_times.as_ref().map(|times| times.slice(offset, length)),
            kinds: self.kinds.as_ref().map(|kinds| kinds.slice(offset, length)),
        }
    }

    /// The rows at these places, in this order, copied.
    ///
    /// # Errors
    /// If a place is out of bounds.
    pub fn take(&self, places: &[u32]) -> Result<Self, ArrowError> {
        let columns =
            self.rows.columns().iter().map(|column| gather(column, places)).collect::<Result<Vec<_>, _>>()?;
        let pick = |i: &u32| i.as_usize();
        Ok(Self {
            rows: RecordBatch::try_new_with_options(
                self.rows.schema(),
                columns,
                &RecordBatchOptions::new().with_row_count(Some(places.len())),
            )?,
            event_times: self
                .event_times
                .as_ref()
                .map(|times| places.iter().map(|i| times[pick(i)]).collect()),
            kinds: self.kinds.as_ref().map(|kinds| places.iter().map(|i| kinds[pick(i)]).collect()),
        })
    }

    /// All rows of `batches`, in their order, copied into one batch (or shared where there is one).
    /// Where some batches have event times or kinds and others have none, the least time and
    /// "insert" stand in.
    ///
    /// # Errors
    /// If the schemas differ.
    ///
    /// # Panics
    /// If `batches` is empty.
    pub fn concat(batches: &[Self]) -> Result<Self, ArrowError> {
        let first = batches.first().expect("at least one batch");
        if batches.len() == 1 {
            return Ok(first.clone());
        }
        let schema = first.rows.schema();
        let length = batches.iter().map(Self::num_rows).sum();
        let columns = (0..schema.fields().len())
            .map(|c| {
                let arrays: Vec<&dyn Array> = batches.iter().map(|b| b.rows.column(c).as_ref()).collect();
                arrow_select::concat::concat(&arrays)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let times = batches.iter().any(|b| b.event_times.is_some()).then(|| {
            let mut all = Vec::with_capacity(length);
            for batch in batches {
                match &batch.event_times {
                    Some(times) => all.extend_from_slice(times),
                    None => all.resize(all.len() + batch.num_rows(), i64::MIN),
                }
            }
            ScalarBuffer::from(all)
        });
        let kinds = batches.iter().any(|b| b.kinds.is_some()).then(|| {
            let mut all: Vec<u8> = Vec::with_capacity(length);
            for batch in batches {
                match &batch.kinds {
                    Some(kinds) => all.extend_from_slice(kinds),
                    None => all.resize(all.len() + batch.num_rows(), RowKind::Insert as u8),
                }
            }
            ScalarBuffer::new(Buffer::from_vec(all), 0, length)
        });
        let options = RecordBatchOptions::new().with_row_count(Some(length));
        let rows = RecordBatch::try_new_with_options(schema, columns, &options)?;
        Ok(Self { rows, event_times: times, kinds })
    }

    /// The same rows under another schema of the same types (other column names).
    ///
    /// # Errors
    /// If the types differ.
    pub fn with_schema(self, schema: SchemaRef) -> Result<Self, ArrowError> {
        if Arc::ptr_eq(&schema, self.rows.schema_ref()) {
            return Ok(self);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows.num_rows()));
        let rows = RecordBatch::try_new_with_options(schema, self.rows.columns().to_vec(), &options)?;
        Ok(Self { rows, ..self })
    }

    /// The bytes that these rows take (their slices, not the whole buffers behind them), about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.rows.columns().iter().map(|column| column_bytes(column.as_ref())).sum()
    }
}

fn column_bytes(column: &dyn Array) -> usize {
    use arrow_array::cast::AsArray;
    use arrow_schema::DataType;
    let rows = column.len();
    match column.data_type() {
        DataType::Utf8 => {
            let offsets = column.as_string::<i32>().value_offsets();
            (offsets[rows] - offsets[0]).as_usize() + 4 * rows
        }
        DataType::Binary => {
            let offsets = column.as_binary::<i32>().value_offsets();
            (offsets[rows] - offsets[0]).as_usize() + 4 * rows
        }
        DataType::Boolean => rows.div_ceil(8),
        other => match other.primitive_width() {
            Some(width) => width * rows,
            None => column.to_data().get_slice_memory_size().unwrap_or(16 * rows),
        },
    }
}
