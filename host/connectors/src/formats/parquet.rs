//! Rows as files: of one record after the other, or of Parquet, which has its own end.

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use model::job_graph::Connection;
use model::{Batch, Diagnostic};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use super::{Encoding, PARQUET, kind_names, with_kind_column};
use crate::options::Options;

/// Rows of a row group, at most: what a reader takes at once, and a writer holds.
const GROUP_ROWS: usize = 128 << 10;

/// How rows lie in files.
#[derive(Clone, Debug)]
pub(crate) enum FileFormat {
    /// One after the other.
    Records(Encoding),
    /// By columns.
    Parquet(Compression),
}

impl FileFormat {
    /// The format of a sink; JSON where the connection names none.
    pub(crate) fn of(connection: &Connection) -> Result<Self, Diagnostic> {
        if connection.format.as_deref() != Some(PARQUET) {
            return Encoding::of(connection, "json").map(Self::Records);
        }
        let options = Options::new(PARQUET, &connection.format_options, &["compression"])?;
        Ok(Self::Parquet(match options.one_of("compression", &["snappy", "zstd", "none"])? {
            Some("zstd") => Compression::ZSTD(ZstdLevel::default()),
            Some("none") => Compression::UNCOMPRESSED,
            _ => Compression::SNAPPY,
        }))
    }

    /// Whether rows of this schema can be written, with their kinds if there is a changelog.
    pub(crate) fn fits(&self, schema: &SchemaRef, kinds: bool) -> Result<(), Diagnostic> {
        match self {
            Self::Records(encoding) => encoding.fits(schema, kinds),
            Self::Parquet(_) => Encoding::Json { text_decimals: true }.fits(schema, kinds),
        }
    }

    /// What a file is called after the dot.
    pub(crate) fn extension(&self) -> &'static str {
        match self {
            Self::Records(encoding) => encoding.extension(),
            Self::Parquet(_) => "parquet",
        }
    }

    /// Begins a file.
    pub(crate) fn begin(&self) -> FileWriter {
        match self {
            Self::Records(encoding) => FileWriter::Records { encoding: encoding.clone(), bytes: 0 },
            Self::Parquet(compression) => FileWriter::Parquet { compression: *compression, writer: None },
        }
    }
}

/// A file that is being written, as bytes that come with its rows.
pub(crate) enum FileWriter {
    Records {
        encoding: Encoding,
        bytes: u64,
    },
    Parquet {
        compression: Compression,
        /// Made for the first rows, which have the schema.
        writer: Option<Box<ArrowWriter<Vec<u8>>>>,
    },
}

fn unwritten(error: &ParquetError) -> Diagnostic {
    Diagnostic::user("a row cannot be written").detail(error.to_string())
}

impl FileWriter {
    /// Adds rows, with their kinds if there is a changelog; appends the bytes that are ready.
    pub(crate) fn add(&mut self, rows: &Batch, kinds: bool, out: &mut Vec<u8>) -> Result<(), Diagnostic> {
        match self {
            Self::Records { encoding, bytes } => {
                let before = out.len();
                encoding.encode(rows, kinds, "", *bytes == 0, out)?;
                *bytes += (out.len() - before) as u64;
                Ok(())
            }
            Self::Parquet { compression, writer } => {
                let with_kinds;
                let rows: &RecordBatch = match kinds {
                    true => {
                        with_kinds = with_kind_column(rows.rows(), &kind_names(rows))
                            .map_err(|error| unwritten(&error.into()))?;
                        &with_kinds
                    }
                    false => rows.rows(),
                };
                let writer = match writer {
                    Some(writer) => writer,
                    None => {
                        let properties = WriterProperties::builder()
                            .set_compression(*compression)
                            .set_max_row_group_row_count(Some(GROUP_ROWS))
                            .build();
                        let new = ArrowWriter::try_new(Vec::new(), rows.schema(), Some(properties))
                            .map_err(|error| unwritten(&error))?;
                        writer.insert(Box::new(new))
                    }
                };
                writer.write(rows).map_err(|error| unwritten(&error))?;
                out.append(writer.inner_mut());
                Ok(())
            }
        }
    }

    /// How long the file is, about.
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Self::Records { bytes, .. } => *bytes,
            Self::Parquet { writer, .. } => writer
                .as_ref()
                .map_or(0, |writer| (writer.bytes_written() + writer.in_progress_size()) as u64),
        }
    }

    /// Ends the file: appends the last of its bytes.
    pub(crate) fn finish(self, out: &mut Vec<u8>) -> Result<(), Diagnostic> {
        if let Self::Parquet { writer: Some(writer), .. } = self {
            out.append(&mut writer.into_inner().map_err(|error| unwritten(&error))?);
        }
        Ok(())
    }
}

/// A file of rows of one batch each, for tests.
#[cfg(test)]
pub(crate) fn file_of(schema: &SchemaRef, batches: &[RecordBatch], group_rows: usize) -> Vec<u8> {
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(group_rows)).build();
    let mut writer =
        ArrowWriter::try_new(Vec::new(), std::sync::Arc::clone(schema), Some(properties)).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.into_inner().unwrap()
}
