//! Batches of the contract as text (JSON), for programs beside the host: the SDKs' test harnesses.
//!
//! As `rows.batch` of the contract has them, but floats as the whole numbers of their bits, so that
//! every value goes both ways unchanged.

use arrow_array::ArrayRef;
use arrow_schema::SchemaRef;
use model::Batch;
use serde::{Deserialize, Serialize};

use crate::bindings::millstream::job::rows::{BatchResult, ColumnResult, ValuesResult, VarlenResult};
use crate::{GuestError, lift, lower};

/// A batch.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct WireBatch {
    /// Rows.
    pub length: u32,
    /// Their event times.
    pub event_times: Option<Vec<i64>>,
    /// What each does to the table that the stream describes.
    pub kinds: Option<Vec<u8>>,
    /// One for each field, depth first.
    pub columns: Vec<WireColumn>,
}

/// A column.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct WireColumn {
    values: WireValues,
    validity: Option<Vec<u8>>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum WireValues {
    Bits(Vec<u8>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Float32(Vec<u32>),
    Float64(Vec<u64>),
    Wide(Vec<u8>),
    Bytes { offsets: Vec<u32>, data: Vec<u8> },
    Offsets(Vec<u32>),
    Nothing,
}

impl WireBatch {
    /// As it is written.
    #[must_use]
    pub fn of(batch: &Batch) -> Self {
        Self {
            // Batches are cut far below 2^32 rows.
            length: batch.num_rows() as u32,
            event_times: batch.event_times().map(|times| times.to_vec()),
            kinds: batch.kinds().map(|kinds| kinds.to_vec()),
            columns: wire_columns(batch.rows().columns()),
        }
    }

    /// The batch, of this schema.
    ///
    /// # Errors
    /// If it is none of the schema.
    pub fn lifted(self, schema: &SchemaRef) -> Result<Batch, GuestError> {
        let columns = self.columns.into_iter().map(WireColumn::result).collect();
        let Self { length, event_times, kinds, .. } = self;
        lift::batch(schema, BatchResult { length, event_times, kinds, columns })
    }
}

/// Columns as they are written, depth first.
#[must_use]
pub fn wire_columns(columns: &[ArrayRef]) -> Vec<WireColumn> {
    lower::owned(columns).into_iter().map(WireColumn::of).collect()
}

impl WireColumn {
    fn of(ColumnResult { values, validity }: ColumnResult) -> Self {
        let values = match values {
            ValuesResult::Bits(bits) => WireValues::Bits(bits),
            ValuesResult::Int32(values) => WireValues::Int32(values),
            ValuesResult::Int64(values) => WireValues::Int64(values),
            ValuesResult::Float32(values) => {
                WireValues::Float32(values.into_iter().map(f32::to_bits).collect())
            }
            ValuesResult::Float64(values) => {
                WireValues::Float64(values.into_iter().map(f64::to_bits).collect())
            }
            ValuesResult::Wide(bytes) => WireValues::Wide(bytes),
            ValuesResult::Bytes(VarlenResult { offsets, data }) => WireValues::Bytes { offsets, data },
            ValuesResult::Offsets(offsets) => WireValues::Offsets(offsets),
            ValuesResult::Nothing => WireValues::Nothing,
        };
        Self { values, validity }
    }

    fn result(self) -> ColumnResult {
        let values = match self.values {
            WireValues::Bits(bits) => ValuesResult::Bits(bits),
            WireValues::Int32(values) => ValuesResult::Int32(values),
            WireValues::Int64(values) => ValuesResult::Int64(values),
            WireValues::Float32(bits) => {
                ValuesResult::Float32(bits.into_iter().map(f32::from_bits).collect())
            }
            WireValues::Float64(bits) => {
                ValuesResult::Float64(bits.into_iter().map(f64::from_bits).collect())
            }
            WireValues::Wide(bytes) => ValuesResult::Wide(bytes),
            WireValues::Bytes { offsets, data } => ValuesResult::Bytes(VarlenResult { offsets, data }),
            WireValues::Offsets(offsets) => ValuesResult::Offsets(offsets),
            WireValues::Nothing => ValuesResult::Nothing,
        };
        ColumnResult { values, validity: self.validity }
    }
}
