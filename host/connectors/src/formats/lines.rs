//! A line is a row of one text column.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use arrow_buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::SchemaRef;

use super::{Decoded, Record};

pub(super) fn decode(schema: &SchemaRef, records: &[Record<'_>], replace_invalid: bool) -> Decoded {
    // One copy moves the lines together; one pass checks them all.
    let bytes = records.iter().map(|(_, line)| line.len()).sum();
    let mut data = Vec::with_capacity(bytes);
    let mut offsets = Vec::with_capacity(records.len() + 1);
    offsets.push(0);
    for (_, line) in records {
        data.extend_from_slice(line);
        // A batch is far below 2^31 bytes: records are bounded, and cut into batches.
        offsets.push(data.len() as i32);
    }
    let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
    if let Ok(text) = StringArray::try_new(offsets, Buffer::from_vec(data), None) {
        return Decoded { rows: rows(schema, Arc::new(text)), failed: Vec::new() };
    }
    let mut failed = Vec::new();
    let text: StringArray = records
        .iter()
        .enumerate()
        .filter_map(|(i, (_, line))| match std::str::from_utf8(line) {
            Ok(line) => Some(Some(line.into())),
            Err(_) if replace_invalid => Some(Some(String::from_utf8_lossy(line))),
            Err(error) => {
                failed.push((i, format!("invalid UTF-8 at byte {} of the line", error.valid_up_to() + 1)));
                None
            }
        })
        .collect();
    Decoded { rows: rows(schema, Arc::new(text)), failed }
}

fn rows(schema: &SchemaRef, text: ArrayRef) -> Option<RecordBatch> {
    (!text.is_empty()).then(|| RecordBatch::try_new(Arc::clone(schema), vec![text]).ok()).flatten()
}
