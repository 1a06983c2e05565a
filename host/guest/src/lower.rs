//! From Arrow to the contract: columns as the lists that a call takes. Whole buffers are lent;
//! only what a slice has moved (offsets, bitmaps) is made anew.

use std::borrow::Cow;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType,
};
use arrow_array::{Array, ArrayRef};
use arrow_buffer::{BooleanBuffer, OffsetBuffer};
use arrow_schema::{DataType, TimeUnit};
use model::Batch;

use crate::bindings::millstream::job::rows::{
    BatchParam, ColumnParam, ColumnResult, ValuesParam, ValuesResult, VarlenParam, VarlenResult,
};

/// Columns in the contract's flattened order, before they are lent to a call.
pub(crate) struct Lowered<'a> {
    columns: Vec<Column<'a>>,
}

struct Column<'a> {
    values: Values<'a>,
    validity: Option<Cow<'a, [u8]>>,
}

enum Values<'a> {
    Bits(Cow<'a, [u8]>),
    Int32(&'a [i32]),
    Int64(&'a [i64]),
    Float32(&'a [f32]),
    Float64(&'a [f64]),
    Wide(&'a [u8]),
    Bytes(Cow<'a, [u32]>, &'a [u8]),
    Offsets(Cow<'a, [u32]>),
    Nothing,
}

impl<'a> Lowered<'a> {
    /// `columns` are [`flat`].
    pub(crate) fn of(columns: &'a [ArrayRef]) -> Self {
        Self { columns: columns.iter().map(|column| lower(column.as_ref())).collect() }
    }

    /// The columns as a call takes them.
    pub(crate) fn lent(&self) -> Vec<ColumnParam<'_>> {
        self.columns
            .iter()
            .map(|column| ColumnParam {
                values: match &column.values {
                    Values::Bits(bits) => ValuesParam::Bits(bits),
                    Values::Int32(values) => ValuesParam::Int32(values),
                    Values::Int64(values) => ValuesParam::Int64(values),
                    Values::Float32(values) => ValuesParam::Float32(values),
                    Values::Float64(values) => ValuesParam::Float64(values),
                    Values::Wide(bytes) => ValuesParam::Wide(bytes),
                    Values::Bytes(offsets, data) => ValuesParam::Bytes(VarlenParam { offsets, data }),
                    Values::Offsets(offsets) => ValuesParam::Offsets(offsets),
                    Values::Nothing => ValuesParam::Nothing,
                },
                validity: column.validity.as_deref(),
            })
            .collect()
    }
}

/// A batch as a call takes it; `columns` are [`Lowered::lent`].
pub(crate) fn batch<'a>(rows: &'a Batch, columns: &'a [ColumnParam<'a>]) -> BatchParam<'a> {
    BatchParam {
        // Batches are cut far below 2^32 rows.
        length: rows.num_rows() as u32,
        event_times: rows.event_times().map(|times| &times[..]),
        kinds: rows.kinds().map(|kinds| &kinds[..]),
        columns,
    }
}

/// Columns as the answer to a guest: copied.
pub(crate) fn owned(columns: &[ArrayRef]) -> Vec<ColumnResult> {
    let flat = flat(columns);
    Lowered::of(&flat)
        .columns
        .iter()
        .map(|column| ColumnResult {
            values: match &column.values {
                Values::Bits(bits) => ValuesResult::Bits(bits.to_vec()),
                Values::Int32(values) => ValuesResult::Int32(values.to_vec()),
                Values::Int64(values) => ValuesResult::Int64(values.to_vec()),
                Values::Float32(values) => ValuesResult::Float32(values.to_vec()),
                Values::Float64(values) => ValuesResult::Float64(values.to_vec()),
                Values::Wide(bytes) => ValuesResult::Wide(bytes.to_vec()),
                Values::Bytes(offsets, data) => {
                    ValuesResult::Bytes(VarlenResult { offsets: offsets.to_vec(), data: data.to_vec() })
                }
                Values::Offsets(offsets) => ValuesResult::Offsets(offsets.to_vec()),
                Values::Nothing => ValuesResult::Nothing,
            },
            validity: column.validity.as_ref().map(|bits| bits.to_vec()),
        })
        .collect()
}

/// Columns and their children, depth first: what [`Lowered::of`] takes.
pub(crate) fn flat(columns: &[ArrayRef]) -> Vec<ArrayRef> {
    let mut all = Vec::with_capacity(columns.len());
    columns.iter().for_each(|column| flatten(column, &mut all));
    all
}

fn flatten(column: &ArrayRef, all: &mut Vec<ArrayRef>) {
    all.push(Arc::clone(column));
    match column.data_type() {
        DataType::List(_) => {
            let list = column.as_list::<i32>();
            let offsets = list.value_offsets();
            let (first, last) = (offsets[0] as usize, offsets[list.len()] as usize);
            flatten(&list.values().slice(first, last - first), all);
        }
        DataType::Struct(_) => column.as_struct().columns().iter().for_each(|member| flatten(member, all)),
        _ => {}
    }
}

fn lower(column: &dyn Array) -> Column<'_> {
    let values = match column.data_type() {
        DataType::Boolean => Values::Bits(bits(column.as_boolean().values())),
        DataType::Int32 => Values::Int32(column.as_primitive::<Int32Type>().values()),
        DataType::Date32 => Values::Int32(column.as_primitive::<Date32Type>().values()),
        DataType::Int64 => Values::Int64(column.as_primitive::<Int64Type>().values()),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            Values::Int64(column.as_primitive::<TimestampMicrosecondType>().values())
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            Values::Int64(column.as_primitive::<TimestampNanosecondType>().values())
        }
        DataType::Timestamp(..) => Values::Int64(column.as_primitive::<TimestampMillisecondType>().values()),
        DataType::Float32 => Values::Float32(column.as_primitive::<Float32Type>().values()),
        DataType::Float64 => Values::Float64(column.as_primitive::<Float64Type>().values()),
        DataType::Decimal128(..) => {
            Values::Wide(column.as_primitive::<Decimal128Type>().values().inner().as_slice())
        }
        DataType::Utf8 => {
            let text = column.as_string::<i32>();
            varlen(text.offsets(), text.values().as_slice())
        }
        DataType::Binary => {
            let binary = column.as_binary::<i32>();
            varlen(binary.offsets(), binary.values().as_slice())
        }
        DataType::List(_) => Values::Offsets(offsets_from_zero(column.as_list::<i32>().offsets())),
        // Structures; schemas with anything else are refused when a job is planned.
        _ => Values::Nothing,
    };
    Column { values, validity: column.nulls().map(|nulls| bits(nulls.inner())) }
}

fn varlen<'a>(offsets: &'a OffsetBuffer<i32>, data: &'a [u8]) -> Values<'a> {
    let (first, last) = (offsets[0] as usize, offsets[offsets.len() - 1] as usize);
    Values::Bytes(offsets_from_zero(offsets), &data[first..last])
}

/// Offsets that begin with 0: as they are, or moved.
fn offsets_from_zero(offsets: &OffsetBuffer<i32>) -> Cow<'_, [u32]> {
    let first = offsets[0];
    if first == 0 {
        // Offsets are never negative, so their bits are the same.
        Cow::Borrowed(offsets.inner().inner().typed_data::<u32>())
    } else {
        Cow::Owned(offsets.iter().map(|offset| (offset - first).cast_unsigned()).collect())
    }
}

/// The bits from the first on, in whole bytes.
fn bits(bits: &BooleanBuffer) -> Cow<'_, [u8]> {
    let bytes = bits.len().div_ceil(8);
    if bits.offset().is_multiple_of(8) {
        let from = bits.offset() / 8;
        Cow::Borrowed(&bits.inner().as_slice()[from..from + bytes])
    } else {
        Cow::Owned(bits.sliced().as_slice()[..bytes].to_vec())
    }
}
