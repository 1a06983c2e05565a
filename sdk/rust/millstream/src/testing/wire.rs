//! Batches as `streamctl drive` reads and writes them: as in the contract, but floats as their bits.

use millstream_sys::bindings::millstream::job::rows::{Batch, Column, Values, Varlen};
use serde::{Deserialize, Serialize};

#[derive(Deserialize, Serialize)]
pub(super) struct WireBatch {
    length: u32,
    event_times: Option<Vec<i64>>,
    kinds: Option<Vec<u8>>,
    columns: Vec<WireColumn>,
}

#[derive(Deserialize, Serialize)]
pub(super) struct WireColumn {
    values: WireValues,
    validity: Option<Vec<u8>>,
}

#[derive(Deserialize, Serialize)]
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
    pub(super) fn of(batch: Batch) -> WireBatch {
        let columns = batch.columns.into_iter().map(WireColumn::of).collect();
        WireBatch { length: batch.length, event_times: batch.event_times, kinds: batch.kinds, columns }
    }

    pub(super) fn batch(self) -> Batch {
        let WireBatch { length, event_times, kinds, columns } = self;
        Batch { length, event_times, kinds, columns: self::columns(columns) }
    }
}

pub(super) fn columns(columns: Vec<WireColumn>) -> Vec<Column> {
    columns.into_iter().map(WireColumn::column).collect()
}

impl WireColumn {
    fn of(column: Column) -> WireColumn {
        let values = match column.values {
            Values::Bits(bits) => WireValues::Bits(bits),
            Values::Int32(values) => WireValues::Int32(values),
            Values::Int64(values) => WireValues::Int64(values),
            Values::Float32(values) => WireValues::Float32(values.into_iter().map(f32::to_bits).collect()),
            Values::Float64(values) => WireValues::Float64(values.into_iter().map(f64::to_bits).collect()),
            Values::Wide(bytes) => WireValues::Wide(bytes),
            Values::Bytes(Varlen { offsets, data }) => WireValues::Bytes { offsets, data },
            Values::Offsets(offsets) => WireValues::Offsets(offsets),
            Values::Nothing => WireValues::Nothing,
        };
        WireColumn { values, validity: column.validity }
    }

    fn column(self) -> Column {
        let values = match self.values {
            WireValues::Bits(bits) => Values::Bits(bits),
            WireValues::Int32(values) => Values::Int32(values),
            WireValues::Int64(values) => Values::Int64(values),
            WireValues::Float32(bits) => Values::Float32(bits.into_iter().map(f32::from_bits).collect()),
            WireValues::Float64(bits) => Values::Float64(bits.into_iter().map(f64::from_bits).collect()),
            WireValues::Wide(bytes) => Values::Wide(bytes),
            WireValues::Bytes { offsets, data } => Values::Bytes(Varlen { offsets, data }),
            WireValues::Offsets(offsets) => Values::Offsets(offsets),
            WireValues::Nothing => Values::Nothing,
        };
        Column { values, validity: self.validity }
    }
}
