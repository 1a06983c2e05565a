//! Formats: how records lie in bytes, and how they become rows and come from them.

mod csv;
mod json;
mod lines;
pub(crate) mod parquet;
#[cfg(test)]
mod tests;
mod text;
pub(crate) mod times;

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use model::batch::RowKind;
use model::job_graph::Connection;
use model::{Batch, Diagnostic};

pub(crate) use csv::Scan;

use crate::RecordFailure;
use crate::options::{Options, unknown};

/// Decodes the records of a source.
#[derive(Clone, Debug)]
pub(crate) struct Decoding {
    pub(crate) schema: SchemaRef,
    pub(crate) kind: DecodingKind,
    /// A longer record fails.
    pub(crate) record_bytes_max: usize,
}

#[derive(Clone, Debug)]
pub(crate) enum DecodingKind {
    Lines { replace_invalid: bool },
    Json,
    Csv(csv::Dialect),
}

/// Encodes the rows of a sink.
#[derive(Clone, Debug)]
pub(crate) enum Encoding {
    Json {
        /// Decimals are texts: a reader that takes numbers for floats keeps their digits.
        text_decimals: bool,
    },
    Csv(csv::Dialect),
    Text,
}

/// A record may be so long unless told otherwise.
const RECORD_BYTES_MAX: usize = 16 << 20;
/// And never longer: three times as much, where each byte is replaced, must fit into a column.
const RECORD_BYTES_BOUND: usize = 512 << 20;
/// The formats that a source can have.
pub(crate) const OF_SOURCES: [&str; 3] = ["lines", "json", "csv"];
/// The format of files that are no records one after the other.
pub(crate) const PARQUET: &str = "parquet";
/// The formats that a sink can have.
pub(crate) const OF_SINKS: [&str; 3] = ["json", "csv", "text"];

/// A record: where it begins in the source, and its bytes without the line's end.
pub(crate) type Record<'a> = (u64, &'a [u8]);

/// What became of records.
pub(crate) struct Decoded {
    pub(crate) rows: Option<RecordBatch>,
    /// The records that are no rows: their place in the list, and why.
    pub(crate) failed: Vec<(usize, String)>,
}

impl Decoding {
    pub(crate) fn of(connection: &Connection, schema: &SchemaRef) -> Result<Self, Diagnostic> {
        let format = connection.format.as_deref().unwrap_or("lines");
        let options = |known: &[&str]| Options::new(format, &connection.format_options, known);
        let (kind, options) = match format {
            "lines" => {
                let options = options(&["invalid-utf8", "max-record-bytes"])?;
                if schema.fields().len() != 1 || *schema.field(0).data_type() != DataType::Utf8 {
                    return Err(Diagnostic::user("the format `lines` gives one text column")
                        .hint("for typed columns use the format json or csv"));
                }
                let replace = options.one_of("invalid-utf8", &["fail", "replace"])? == Some("replace");
                (DecodingKind::Lines { replace_invalid: replace }, options)
            }
            "json" => (DecodingKind::Json, options(&["max-record-bytes"])?),
            "csv" => {
                let options = options(&["delimiter", "header", "max-record-bytes"])?;
                csv::can_read(schema)?;
                (DecodingKind::Csv(csv::Dialect::of(&options, false)?), options)
            }
            PARQUET => return Err(Diagnostic::user("the format `parquet` is for the connector `files`")),
            other => return Err(unknown("format of sources", other, &OF_SOURCES)),
        };
        let record_bytes_max = options.parsed("max-record-bytes")?.unwrap_or(RECORD_BYTES_MAX);
        if record_bytes_max > RECORD_BYTES_BOUND {
            return Err(Diagnostic::user(format!(
                "a record of {record_bytes_max} bytes is too long for a row"
            ))
            .hint(format!("`max-record-bytes` is at most {RECORD_BYTES_BOUND}")));
        }
        Ok(Self { schema: SchemaRef::clone(schema), kind, record_bytes_max })
    }

    /// Whether records can hold line ends, so that a file cannot be entered in its middle.
    pub(crate) fn splittable(&self) -> bool {
        !matches!(self.kind, DecodingKind::Csv(_))
    }

    /// What a record is called where it is counted.
    pub(crate) fn record_name(&self) -> &'static str {
        if self.splittable() { "line" } else { "record" }
    }

    /// Whether the first record of a file is no row.
    pub(crate) fn has_header(&self) -> bool {
        matches!(self.kind, DecodingKind::Csv(dialect) if dialect.header)
    }

    /// The end of the record that begins at `from`: the place of its line feed.
    #[inline]
    pub(crate) fn record_end(&self, bytes: &[u8], from: usize) -> Option<usize> {
        self.end_in(&mut Scan::default(), &bytes[from..]).map(|at| from + at)
    }

    /// The line feed in `bytes` that ends the record of which so much has been scanned.
    #[inline]
    pub(crate) fn end_in(&self, scan: &mut Scan, bytes: &[u8]) -> Option<usize> {
        match self.kind {
            DecodingKind::Csv(dialect) => scan.end(bytes, dialect.delimiter),
            _ => memchr::memchr(b'\n', bytes),
        }
    }

    /// How far the records that begin at `from` are whole; what follows is scanned.
    pub(crate) fn whole(&self, scan: &mut Scan, bytes: &[u8], from: usize) -> usize {
        if self.splittable() {
            return memchr::memrchr(b'\n', &bytes[from..]).map_or(from, |last| from + last + 1);
        }
        let mut whole = from;
        while let Some(end) = self.end_in(scan, &bytes[whole..]) {
            whole += end + 1;
            *scan = Scan::default();
        }
        whole
    }

    /// Decodes records, each on its own: one that fails takes no other with it.
    pub(crate) fn decode(&self, records: &[Record<'_>]) -> Decoded {
        match self.kind {
            DecodingKind::Lines { replace_invalid } => lines::decode(&self.schema, records, replace_invalid),
            DecodingKind::Json => each_on_its_own(records, |records| json::decode(&self.schema, records)),
            DecodingKind::Csv(dialect) => {
                each_on_its_own(records, |records| csv::decode(&self.schema, records, dialect))
            }
        }
    }
}

/// Decodes all records at once; where that fails, halves them until the bad ones are found.
fn each_on_its_own(
    records: &[Record<'_>],
    decode: impl Fn(&[Record<'_>]) -> Result<Option<RecordBatch>, String>,
) -> Decoded {
    let (mut parts, mut failed) = (Vec::new(), Vec::new());
    halve(records, 0, &decode, &mut parts, &mut failed);
    let rows = match parts.len() {
        0 => None,
        1 => parts.pop(),
        _ => arrow_select::concat::concat_batches(&parts[0].schema(), &parts).ok(),
    };
    Decoded { rows, failed }
}

fn halve(
    records: &[Record<'_>],
    first: usize,
    decode: &impl Fn(&[Record<'_>]) -> Result<Option<RecordBatch>, String>,
    parts: &mut Vec<RecordBatch>,
    failed: &mut Vec<(usize, String)>,
) {
    if records.is_empty() {
        return;
    }
    match decode(records) {
        Ok(rows) => parts.extend(rows.filter(|rows| rows.num_rows() > 0)),
        Err(message) if records.len() == 1 => failed.push((first, message)),
        Err(_) => {
            let half = records.len() / 2;
            halve(&records[..half], first, decode, parts, failed);
            halve(&records[half..], first + half, decode, parts, failed);
        }
    }
}

impl Encoding {
    /// The format of a sink; `default` where the connection names none.
    pub(crate) fn of(connection: &Connection, default: &str) -> Result<Self, Diagnostic> {
        let format = connection.format.as_deref().unwrap_or(default);
        let options = |known: &[&str]| Options::new(format, &connection.format_options, known);
        match format {
            "json" => {
                let as_number =
                    options(&["decimals"])?.one_of("decimals", &["text", "number"])? == Some("number");
                Ok(Self::Json { text_decimals: !as_number })
            }
            "text" => options(&[]).map(|_| Self::Text),
            "csv" => Ok(Self::Csv(csv::Dialect::of(&options(&["delimiter", "header"])?, true)?)),
            PARQUET => Err(Diagnostic::user("the format `parquet` is for the connector `files`")),
            other => Err(unknown("format of sinks", other, &OF_SINKS)),
        }
    }

    /// Whether rows of this schema can be written, with their kinds if there is a changelog.
    pub(crate) fn fits(&self, schema: &SchemaRef, kinds: bool) -> Result<(), Diagnostic> {
        if kinds && !matches!(self, Self::Text) && schema.index_of(KIND_COLUMN).is_ok() {
            return Err(Diagnostic::user(format!(
                "a column is called `{KIND_COLUMN}`, as that of the kinds of changes"
            ))
            .hint("give it another name, or use the format text"));
        }
        match self {
            Self::Csv(_) => csv::no_nested(schema),
            _ => Ok(()),
        }
    }

    /// What a file of this format is called after the dot.
    pub(crate) fn extension(&self) -> &'static str {
        match self {
            Self::Json { .. } => "json",
            Self::Csv(_) => "csv",
            Self::Text => "text",
        }
    }

    /// A row as JSON, for messages and for bad records.
    pub(crate) fn row_as_json(row: &RecordBatch) -> Vec<u8> {
        let mut out = Vec::new();
        let written = Self::Json { text_decimals: true }.encode_rows(row, None, "", true, &mut out);
        // What cannot be shown is not.
        written.map(|()| out.trim_ascii_end().to_vec()).unwrap_or_default()
    }

    /// Appends the bytes of rows, with their kinds if there is a changelog. `first`: nothing has been
    /// written to this file before.
    pub(crate) fn encode(
        &self,
        rows: &Batch,
        kinds: bool,
        prefix: &str,
        first: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), Diagnostic> {
        let kinds = kinds.then(|| kind_names(rows));
        let encoded = self.encode_rows(rows.rows(), kinds.as_deref(), prefix, first, out);
        encoded.map_err(|error| Diagnostic::user("a row cannot be written").detail(error.to_string()))
    }

    fn encode_rows(
        &self,
        rows: &RecordBatch,
        kinds: Option<&[&str]>,
        prefix: &str,
        first: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), ArrowError> {
        let times = times::format(rows.schema_ref());
        let rows = times::retyped(rows.clone(), &times::schema_with_offset(rows.schema_ref()))?;
        let rows = match (self, kinds) {
            (Self::Json { .. } | Self::Csv(_), Some(kinds)) => with_kind_column(&rows, kinds)?,
            _ => rows,
        };
        match self {
            Self::Json { text_decimals } => json::encode(&rows, times, *text_decimals, prefix, out),
            Self::Csv(dialect) => csv::encode(&rows, times, prefix, *dialect, first, out),
            Self::Text => text::encode(&rows, kinds, times, prefix, out),
        }
    }
}

/// What the column of kinds is called.
const KIND_COLUMN: &str = "op";

/// The kinds of rows in Flink's short form.
fn kind_names(rows: &Batch) -> Vec<&'static str> {
    const NAMES: [&str; 4] = ["+I", "-U", "+U", "-D"];
    match rows.kinds() {
        None => vec![NAMES[RowKind::Insert as usize]; rows.num_rows()],
        Some(kinds) => kinds.iter().map(|kind| NAMES[usize::from(*kind) % NAMES.len()]).collect(),
    }
}

/// The rows with their kinds as their first column.
fn with_kind_column(rows: &RecordBatch, kinds: &[&str]) -> Result<RecordBatch, ArrowError> {
    let mut fields = vec![Arc::new(Field::new(KIND_COLUMN, DataType::Utf8, false))];
    fields.extend(rows.schema_ref().fields().iter().cloned());
    let mut columns: Vec<ArrayRef> = vec![Arc::new(StringArray::from(kinds.to_vec()))];
    columns.extend(rows.columns().iter().cloned());
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

/// Each row as JSON.
#[cfg(test)]
pub(crate) fn as_json_lines(rows: &Batch) -> Vec<String> {
    let mut out = Vec::new();
    Encoding::Json { text_decimals: true }.encode_rows(rows.rows(), None, "", true, &mut out).unwrap();
    String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
}

/// Puts `prefix` before each line from `start` on.
fn prefix_lines(out: &mut Vec<u8>, start: usize, prefix: &str) {
    if prefix.is_empty() {
        return;
    }
    let lines = out.split_off(start);
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        out.extend_from_slice(prefix.as_bytes());
        out.extend_from_slice(line);
    }
}

/// A record that failed, as the source reports it.
pub(crate) fn failure(place: String, record: &[u8], message: String) -> RecordFailure {
    const KEPT: usize = 64 << 10;
    RecordFailure { place, record: record[..record.len().min(KEPT)].to_vec(), message }
}
