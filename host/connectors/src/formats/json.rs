//! JSON lines: an object a line, typed by the schema. Unknown members are ignored; a missing one
//! is null, and a failure where null may not be.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_json::ReaderBuilder;
use arrow_json::writer::{LineDelimited, WriterBuilder};
use arrow_schema::{ArrowError, DataType, FieldRef, Schema, SchemaRef};

use super::{Record, prefix_lines, times};

/// Deeper nesting is no row.
const DEPTH_MAX: usize = 128;

pub(super) fn decode(schema: &SchemaRef, records: &[Record<'_>]) -> Result<Option<RecordBatch>, String> {
    let mut decoder = ReaderBuilder::new(times::schema_with_offset(schema))
        .with_batch_size(records.len() + 1)
        .build_decoder()
        .map_err(|error| error.to_string())?;
    let mut expected = 0;
    for (_, record) in records {
        let trimmed = record.trim_ascii();
        if trimmed.is_empty() {
            continue;
        }
        if trimmed[0] != b'{' {
            return Err("not a JSON object".into());
        }
        if too_deep(trimmed) {
            return Err(format!("nested deeper than {DEPTH_MAX} levels"));
        }
        expected += 1;
        let taken = decoder.decode(trimmed).map_err(message)?;
        // Looked at after each line: half an object here and one and a half there would be two.
        if taken != trimmed.len() || decoder.has_partial_record() || decoder.len() != expected {
            return Err("not one JSON object on one line".into());
        }
    }
    let rows = decoder.flush().map_err(message)?;
    match rows.iter().flat_map(RecordBatch::columns).any(has_infinity) {
        true => Err("a number is too large for a float".into()),
        false => rows.map(|rows| times::retyped(rows, schema).map_err(message)).transpose(),
    }
}

/// JSON has no infinity: it comes of a number that a float cannot hold.
fn has_infinity(column: &ArrayRef) -> bool {
    match column.data_type() {
        DataType::Float64 => column.as_primitive::<Float64Type>().values().iter().any(|v| v.is_infinite()),
        DataType::Float32 => column.as_primitive::<Float32Type>().values().iter().any(|v| v.is_infinite()),
        DataType::Struct(_) => column.as_struct().columns().iter().any(has_infinity),
        DataType::List(_) => has_infinity(column.as_list::<i32>().values()),
        _ => false,
    }
}

fn message(error: ArrowError) -> String {
    match error {
        ArrowError::JsonError(message) | ArrowError::ParseError(message) => message,
        other => other.to_string(),
    }
}

fn too_deep(record: &[u8]) -> bool {
    if record.len() <= DEPTH_MAX {
        return false;
    }
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for byte in record {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return true;
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// The schema with texts in the place of decimals.
fn with_text_decimals(schema: &SchemaRef) -> SchemaRef {
    fn texts(field: &FieldRef) -> FieldRef {
        let of_type = match field.data_type() {
            DataType::Decimal128(..) => DataType::Utf8,
            DataType::List(item) => DataType::List(texts(item)),
            DataType::Struct(members) => DataType::Struct(members.iter().map(texts).collect()),
            _ => return Arc::clone(field),
        };
        Arc::new(field.as_ref().clone().with_data_type(of_type))
    }
    Arc::new(Schema::new(schema.fields().iter().map(texts).collect::<Vec<_>>()))
}

pub(super) fn encode(
    rows: &RecordBatch,
    times: &str,
    text_decimals: bool,
    prefix: &str,
    out: &mut Vec<u8>,
) -> Result<(), ArrowError> {
    let start = out.len();
    let rows = match text_decimals {
        true => &times::retyped(rows.clone(), &with_text_decimals(rows.schema_ref()))?,
        false => rows,
    };
    let mut writer = WriterBuilder::new()
        .with_explicit_nulls(true)
        .with_timestamp_format(times.to_owned())
        .with_timestamp_tz_format(times.to_owned())
        .build::<_, LineDelimited>(&mut *out);
    writer.write(rows)?;
    writer.finish()?;
    drop(writer);
    prefix_lines(out, start, prefix);
    Ok(())
}
