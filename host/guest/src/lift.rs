//! From the contract to Arrow: what a guest returns, checked before it is used.
//!
//! A guest is hostile: lengths, offsets, bitmaps, text, ports and groups may all be lies. wasmtime
//! has checked that lists lie in the guest's memory and that their sum is within the output limit;
//! everything else is checked here. Buffers are moved, not copied.

use std::sync::Arc;

use arrow_array::types::{
    ArrowPrimitiveType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
};
use arrow_array::{ArrayRef, BinaryArray, BooleanArray, ListArray, PrimitiveArray, StringArray, StructArray};
use arrow_buffer::{ArrowNativeType, BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{DataType, Field, SchemaRef, TimeUnit};
use model::Batch;
use model::job_graph::State;

use crate::GuestError;
use crate::bindings::millstream::job::rows::{BatchResult, ColumnResult, ValuesResult};

pub(crate) fn lied(what: impl Into<String>) -> GuestError {
    GuestError::Lied(what.into())
}

/// A batch of this schema.
pub(crate) fn batch(schema: &SchemaRef, batch: BatchResult) -> Result<Batch, GuestError> {
    let length = batch.length as usize;
    let columns = columns(schema.fields(), length, batch.columns)?;
    let times = match batch.event_times {
        Some(times) if times.len() != length => {
            return Err(lied(format!("{} event times for {length} rows", times.len())));
        }
        times => times.map(ScalarBuffer::from),
    };
    let kinds = match batch.kinds {
        Some(kinds) if kinds.len() != length || kinds.iter().any(|kind| *kind > 3) => {
            return Err(lied(format!("kinds that are none, or not {length} of them")));
        }
        kinds => kinds.map(|kinds| ScalarBuffer::new(Buffer::from_vec(kinds), 0, length)),
    };
    let batch = Batch::of(Arc::clone(schema), length, columns).map_err(|error| lied(error.to_string()))?;
    Ok(batch.with_event_times(times).with_kinds(kinds))
}

/// The one column of a state's entries. Null removes one, whatever the schema says.
pub(crate) fn value(state: &State, length: usize, given: Vec<ColumnResult>) -> Result<ArrayRef, GuestError> {
    nullable(state.value.fields(), length, given)?.pop().ok_or_else(|| lied("a state without a column"))
}

/// As [`columns`], of fields that may be null, whatever they say.
pub(crate) fn nullable(
    fields: &[Arc<Field>],
    length: usize,
    given: Vec<ColumnResult>,
) -> Result<Vec<ArrayRef>, GuestError> {
    let nullable: Vec<_> =
        fields.iter().map(|field| Arc::new(field.as_ref().clone().with_nullable(true))).collect();
    columns(&nullable, length, given)
}

/// Columns of these fields, of `length` rows each.
pub(crate) fn columns(
    fields: &[Arc<Field>],
    length: usize,
    columns: Vec<ColumnResult>,
) -> Result<Vec<ArrayRef>, GuestError> {
    let mut given = columns.into_iter();
    let lifted = fields.iter().map(|field| column(field, length, &mut given)).collect::<Result<_, _>>()?;
    match given.len() {
        0 => Ok(lifted),
        more => Err(lied(format!("{more} columns more than the schema has"))),
    }
}

fn column(
    field: &Field,
    length: usize,
    given: &mut impl Iterator<Item = ColumnResult>,
) -> Result<ArrayRef, GuestError> {
    let name = field.name();
    let ColumnResult { values, validity } =
        given.next().ok_or_else(|| lied(format!("column `{name}` is missing")))?;
    let nulls = nulls(field, length, validity)?;
    let wrong = |what: String| lied(format!("column `{name}`: {what}"));
    let array: ArrayRef = match (field.data_type(), values) {
        (DataType::Boolean, ValuesResult::Bits(bits)) => {
            let bits = bitmap(bits, length).ok_or_else(|| wrong(format!("no bits for {length} rows")))?;
            Arc::new(BooleanArray::new(bits, nulls))
        }
        (DataType::Int32, ValuesResult::Int32(values)) => {
            primitive::<Int32Type>(name, length, values, nulls)?
        }
        (DataType::Date32, ValuesResult::Int32(values)) => {
            primitive::<Date32Type>(name, length, values, nulls)?
        }
        (DataType::Int64, ValuesResult::Int64(values)) => {
            primitive::<Int64Type>(name, length, values, nulls)?
        }
        (DataType::Timestamp(unit, zone), ValuesResult::Int64(values)) => {
            let values = sized(name, length, values)?;
            match unit {
                TimeUnit::Microsecond => Arc::new(
                    PrimitiveArray::<TimestampMicrosecondType>::new(values, nulls)
                        .with_timezone_opt(zone.clone()),
                ),
                TimeUnit::Nanosecond => Arc::new(
                    PrimitiveArray::<TimestampNanosecondType>::new(values, nulls)
                        .with_timezone_opt(zone.clone()),
                ),
                _ => Arc::new(
                    PrimitiveArray::<TimestampMillisecondType>::new(values, nulls)
                        .with_timezone_opt(zone.clone()),
                ),
            }
        }
        (DataType::Float32, ValuesResult::Float32(values)) => {
            primitive::<Float32Type>(name, length, values, nulls)?
        }
        (DataType::Float64, ValuesResult::Float64(values)) => {
            primitive::<Float64Type>(name, length, values, nulls)?
        }
        (DataType::Decimal128(precision, scale), ValuesResult::Wide(bytes)) => {
            if Some(bytes.len()) != length.checked_mul(16) {
                return Err(wrong(format!("{} bytes for {length} decimals", bytes.len())));
            }
            let values: Vec<i128> = bytes
                .chunks_exact(16)
                .map(|wide| i128::from_le_bytes(wide.try_into().unwrap_or_default()))
                .collect();
            let array = PrimitiveArray::<Decimal128Type>::new(values.into(), nulls)
                .with_precision_and_scale(*precision, *scale)
                .map_err(|error| wrong(error.to_string()))?;
            array.validate_decimal_precision(*precision).map_err(|error| wrong(error.to_string()))?;
            Arc::new(array)
        }
        (DataType::Utf8, ValuesResult::Bytes(varlen)) => {
            let offsets = offsets(name, length, varlen.offsets, varlen.data.len())?;
            let text = StringArray::try_new(offsets, Buffer::from_vec(varlen.data), nulls);
            Arc::new(text.map_err(|error| wrong(error.to_string()))?)
        }
        (DataType::Binary, ValuesResult::Bytes(varlen)) => {
            let offsets = offsets(name, length, varlen.offsets, varlen.data.len())?;
            let binary = BinaryArray::try_new(offsets, Buffer::from_vec(varlen.data), nulls);
            Arc::new(binary.map_err(|error| wrong(error.to_string()))?)
        }
        (DataType::List(child), ValuesResult::Offsets(list)) => {
            let last = list.last().copied().unwrap_or(0) as usize;
            let offsets = offsets(name, length, list, last)?;
            let values = column(child, last, given)?;
            let list = ListArray::try_new(Arc::clone(child), offsets, values, nulls);
            Arc::new(list.map_err(|error| wrong(error.to_string()))?)
        }
        (DataType::Struct(members), ValuesResult::Nothing) => {
            // A null structure has null members, whatever their fields say; arrow checks that only
            // those have.
            let columns: Vec<ArrayRef> = members
                .iter()
                .map(|member| column(&member.as_ref().clone().with_nullable(true), length, given))
                .collect::<Result<_, _>>()?;
            let structure = StructArray::try_new_with_length(members.clone(), columns, nulls, length);
            Arc::new(structure.map_err(|error| wrong(error.to_string()))?)
        }
        (expected, _) => return Err(wrong(format!("values of another kind than {expected}"))),
    };
    Ok(array)
}

fn nulls(field: &Field, length: usize, validity: Option<Vec<u8>>) -> Result<Option<NullBuffer>, GuestError> {
    let Some(validity) = validity else { return Ok(None) };
    let name = field.name();
    let bits = bitmap(validity, length)
        .ok_or_else(|| lied(format!("column `{name}`: no validity for {length} rows")))?;
    let nulls = NullBuffer::new(bits);
    match nulls.null_count() {
        0 => Ok(None),
        n if !field.is_nullable() => Err(lied(format!("column `{name}`: {n} nulls where none may be"))),
        _ => Ok(Some(nulls)),
    }
}

/// A bitmap of exactly so many bits.
pub(crate) fn bitmap(bytes: Vec<u8>, length: usize) -> Option<BooleanBuffer> {
    (bytes.len() == length.div_ceil(8)).then(|| BooleanBuffer::new(Buffer::from_vec(bytes), 0, length))
}

fn sized<T: ArrowNativeType>(
    name: &str,
    length: usize,
    values: Vec<T>,
) -> Result<ScalarBuffer<T>, GuestError> {
    if values.len() != length {
        return Err(lied(format!("column `{name}`: {} values for {length} rows", values.len())));
    }
    Ok(ScalarBuffer::from(values))
}

fn primitive<P: ArrowPrimitiveType>(
    name: &str,
    length: usize,
    values: Vec<P::Native>,
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef, GuestError> {
    Ok(Arc::new(PrimitiveArray::<P>::new(sized(name, length, values)?, nulls)))
}

/// Offsets that begin with 0, never fall, and end with `last`, below 2^31.
fn offsets(
    name: &str,
    length: usize,
    offsets: Vec<u32>,
    last: usize,
) -> Result<OffsetBuffer<i32>, GuestError> {
    let wrong = |what: &str| Err(lied(format!("column `{name}`: offsets {what}")));
    if offsets.len() != length + 1 {
        return wrong(&format!("are {} for {length} rows", offsets.len()));
    }
    if offsets[0] != 0 || offsets[length] as usize != last {
        return wrong("do not begin with 0 and end with the length of the data");
    }
    if last > i32::MAX as usize {
        return wrong("end above 2^31");
    }
    if !offsets.is_sorted() {
        return wrong("fall");
    }
    // Rising from 0 to below 2^31: the same bits are i32s.
    let offsets = ScalarBuffer::<i32>::new(Buffer::from_vec(offsets), 0, length + 1);
    Ok(OffsetBuffer::new(offsets))
}
