//! CSV (RFC 4180), typed by the schema, columns by their place.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{ArrayRef, RecordBatch, StringArray};
use arrow_cast::cast;
use arrow_csv::{ReaderBuilder, WriterBuilder};
use arrow_schema::{ArrowError, DataType, FieldRef, Schema, SchemaRef};
use model::Diagnostic;

use super::{Record, prefix_lines, times};
use crate::options::Options;

/// How a CSV file is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dialect {
    pub(crate) delimiter: u8,
    pub(crate) header: bool,
}

impl Dialect {
    pub(super) fn of(options: &Options<'_>, header: bool) -> Result<Self, Diagnostic> {
        let delimiter = match options.text("delimiter") {
            None => b',',
            Some("\\t" | "tab") => b'\t',
            Some(one) if one.len() == 1 && one.is_ascii() && !["\"", "\r", "\n"].contains(&one) => {
                one.as_bytes()[0]
            }
            Some(other) => {
                return Err(Diagnostic::user(format!("the delimiter of `csv` cannot be `{other}`"))
                    .hint("it is one ASCII character, or `tab`"));
            }
        };
        Ok(Self { delimiter, header: options.parsed("header")?.unwrap_or(header) })
    }
}

/// Whether columns of these types can be written.
pub(super) fn no_nested(schema: &SchemaRef) -> Result<(), Diagnostic> {
    let nested = |field: &&FieldRef| matches!(field.data_type(), DataType::Struct(_) | DataType::List(_));
    match schema.fields().iter().find(nested) {
        Some(field) => Err(Diagnostic::user("csv cannot hold nested columns")
            .detail(format!("`{}` is {}", field.name(), field.data_type()))
            .hint("use json")),
        None => Ok(()),
    }
}

/// Whether columns of these types can be read.
pub(super) fn can_read(schema: &SchemaRef) -> Result<(), Diagnostic> {
    no_nested(schema)?;
    match schema.fields().iter().find(|field| *field.data_type() == DataType::Binary) {
        Some(field) => Err(Diagnostic::user("csv cannot be read into binary columns")
            .detail(format!("`{}` is one", field.name()))
            .hint("read text, or use json")),
        None => Ok(()),
    }
}

/// How far the scanning of a record has come: it may be given in parts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scan {
    /// Within quotes.
    quoted: bool,
    before: Before,
}

/// What the last byte was that has been scanned: a quote means something only at these places.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Before {
    /// A delimiter, or the record begins: a quote opens.
    #[default]
    FieldBegins,
    /// A quote that closed: another one makes them both a character.
    Closed,
    /// Anything else: a quote is a character.
    Other,
}

impl Scan {
    /// The line feed in `bytes`, the next of the record, that ends it; those in quotes do not.
    pub(super) fn end(&mut self, bytes: &[u8], delimiter: u8) -> Option<usize> {
        let mut at = 0;
        while at < bytes.len() {
            let found = match self.quoted {
                true => memchr::memchr(b'"', &bytes[at..]),
                false => memchr::memchr2(b'\n', b'"', &bytes[at..]),
            };
            let next = found.map_or(bytes.len(), |found| at + found);
            if next > at && !self.quoted {
                let last = bytes[next - 1];
                self.before = if last == delimiter { Before::FieldBegins } else { Before::Other };
            }
            match bytes.get(next) {
                None => {}
                Some(b'\n') => return Some(next),
                Some(_) => self.quote(),
            }
            at = next + 1;
        }
        None
    }

    fn quote(&mut self) {
        (self.quoted, self.before) = match self.before {
            _ if self.quoted => (false, Before::Closed),
            Before::FieldBegins | Before::Closed => (true, Before::Other),
            Before::Other => (false, Before::Other),
        };
    }
}

pub(super) fn decode(
    schema: &SchemaRef,
    records: &[Record<'_>],
    dialect: Dialect,
) -> Result<Option<RecordBatch>, String> {
    let mut decoder = ReaderBuilder::new(all_nullable(&times::schema_with_offset(schema)))
        .with_delimiter(dialect.delimiter)
        // A carriage return alone would end a record; the line's own has been cut off.
        .with_terminator(b'\n')
        .with_header(false)
        .with_batch_size(records.len() + 1)
        .build_decoder();
    let mut expected = 0;
    for (_, record) in records {
        if record.is_empty() {
            continue;
        }
        // Two fields with half a character each are valid together: the decoder would not see it.
        std::str::from_utf8(record)
            .map_err(|error| format!("invalid UTF-8 at byte {} of the record", error.valid_up_to() + 1))?;
        expected += 1;
        for part in [record, &b"\n"[..]] {
            let mut left = part;
            while !left.is_empty() {
                let taken = decoder.decode(left).map_err(message)?;
                if taken == 0 {
                    return Err("not one CSV record".into());
                }
                left = &left[taken..];
            }
        }
    }
    let rows = decoder.flush().map_err(message)?;
    if rows.as_ref().map_or(0, RecordBatch::num_rows) != expected {
        return Err("not one CSV record".into());
    }
    rows.map(|rows| as_declared(schema, &rows).map_err(message)).transpose()
}

fn all_nullable(schema: &SchemaRef) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// The rows with the schema that they shall have. The decoder takes an empty field for a null; where
/// a text may not be null, it is an empty text.
fn as_declared(schema: &SchemaRef, rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let columns = schema.fields().iter().zip(rows.columns()).map(|(field, column)| {
        match column.as_string_opt::<i32>() {
            Some(texts) if !field.is_nullable() => {
                Ok(Arc::new(StringArray::new(texts.offsets().clone(), texts.values().clone(), None))
                    as ArrayRef)
            }
            _ if column.data_type() == field.data_type() => Ok(Arc::clone(column)),
            _ => cast(column, field.data_type()),
        }
    });
    RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<_, _>>()?)
}

/// What is wrong with a record that is decoded alone: its number there says nothing.
fn message(error: ArrowError) -> String {
    match error {
        ArrowError::CsvError(message)
        | ArrowError::ParseError(message)
        | ArrowError::InvalidArgumentError(message) => {
            message.replace(" for line 1", "").replace(" at line 0", "")
        }
        other => other.to_string(),
    }
}

pub(super) fn encode(
    rows: &RecordBatch,
    times: &str,
    prefix: &str,
    dialect: Dialect,
    first: bool,
    out: &mut Vec<u8>,
) -> Result<(), ArrowError> {
    let start = out.len();
    let mut writer = WriterBuilder::new()
        .with_delimiter(dialect.delimiter)
        .with_header(dialect.header && first)
        .with_timestamp_format(times.to_owned())
        .with_timestamp_tz_format(times.to_owned())
        .build(&mut *out);
    writer.write(rows)?;
    drop(writer);
    prefix_lines(out, start, prefix);
    Ok(())
}
