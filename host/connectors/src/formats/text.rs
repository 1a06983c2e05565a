//! Flink's print form: a row as `(word,7)`; a single column as it is. With its kind: `+U(word,7)`.

use std::io::Write;

use arrow_array::RecordBatch;
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::ArrowError;

pub(super) fn encode(
    rows: &RecordBatch,
    kinds: Option<&[&str]>,
    times: &str,
    prefix: &str,
    out: &mut Vec<u8>,
) -> Result<(), ArrowError> {
    let options = FormatOptions::default()
        .with_null("null")
        .with_timestamp_format(Some(times))
        .with_timestamp_tz_format(Some(times));
    let columns = rows
        .columns()
        .iter()
        .map(|column| ArrayFormatter::try_new(column.as_ref(), &options))
        .collect::<Result<Vec<_>, _>>()?;
    let tuple = columns.len() != 1 || kinds.is_some();
    for row in 0..rows.num_rows() {
        out.extend_from_slice(prefix.as_bytes());
        if let Some(kinds) = kinds {
            out.extend_from_slice(kinds[row].as_bytes());
        }
        if tuple {
            out.push(b'(');
        }
        for (i, column) in columns.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            write!(out, "{}", column.value(row))?;
        }
        if tuple {
            out.push(b')');
        }
        out.push(b'\n');
    }
    Ok(())
}
