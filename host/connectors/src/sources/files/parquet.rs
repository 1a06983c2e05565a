//! Files of Parquet. Columns are found by name; a file is cut between its row groups, and how far it has been read
//! is counted in rows.
//!
//! Reading is ahead of what is given by one chunk, in the I/O pool, where rows are decoded too.

#[cfg(test)]
mod tests;

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow_cast::cast;
use arrow_schema::{ArrowError, DataType, SchemaRef};
use arrow_select::filter::filter_record_batch;
use model::job_graph::Connection;
use model::{Batch, Diagnostic};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use platform::Inbox;
use platform::faults::Point;

use super::Place;
use super::find::InputFile;
use super::identity::{Identity, STAY, other_head};
use super::progress::{Progress, Restored};
use super::queue::{Next, Queue, Shared};
use super::watched::Cut;
use crate::formats::times::with_offset;
use crate::formats::{Encoding, PARQUET, failure};
use crate::options::Options;
use crate::splits::SplitName;
use crate::{Context, Decoded, Need, RecordFailure, Source, SourceFactory, SourcePoll, Splits, SplitsOf};

/// A chunk is so many batches.
const CHUNK_BATCHES: usize = 4;

/// Files of Parquet to be read.
pub struct ParquetFactory {
    place: Place,
    schema: SchemaRef,
    files: OnceLock<Vec<ParquetFile>>,
    /// What an earlier run has read.
    restored: OnceLock<Arc<Restored>>,
    /// Made when the first subtask opens, which knows how many there are.
    splits: OnceLock<Shared<Split>>,
}

#[derive(Clone, Debug)]
struct ParquetFile {
    path: Arc<Path>,
    bytes: u64,
    /// Where its row groups begin, and where the last ends, in rows.
    bounds: Vec<u64>,
    identity: Arc<Identity>,
}

impl ParquetFile {
    /// A file that has the columns that the job takes.
    fn of(file: InputFile, schema: &SchemaRef) -> Result<Self, Diagnostic> {
        let about = open(&file.path).map_err(|why| cannot_read(&file.path, why))?;
        check(&file.path, about.schema(), schema)?;
        let mut bounds = vec![0];
        for group in about.metadata().row_groups() {
            bounds.push(bounds[bounds.len() - 1] + u64::try_from(group.num_rows()).unwrap_or(0));
        }
        Ok(Self { path: file.path, bytes: file.bytes, bounds, identity: file.identity })
    }

    fn rows(&self) -> u64 {
        self.bounds.last().copied().unwrap_or(0)
    }

    /// What an earlier run has left of it.
    fn cut(&self, restored: &Restored) -> Vec<Split> {
        let mut splits = Vec::new();
        let path = self.path.to_string_lossy();
        let (_, left) = restored.to_read(&path, self.rows());
        self.identity.began(restored.head(&path));
        let each = self.bytes as f64 / self.rows().max(1) as f64;
        for (start, end) in left.iter() {
            for (group, bounds) in self.bounds.windows(2).enumerate() {
                let (start, end) = (start.max(bounds[0]), end.min(bounds[1]));
                if start < end {
                    let bytes = ((end - start) as f64 * each) as u64;
                    let (path, identity) = (Arc::clone(&self.path), Arc::clone(&self.identity));
                    splits.push(Split { path, group, first: bounds[0], start, end, bytes, identity });
                }
            }
        }
        splits
    }
}

/// Rows of a row group.
#[derive(Clone, Debug)]
struct Split {
    path: Arc<Path>,
    group: usize,
    /// Where the group begins.
    first: u64,
    start: u64,
    end: u64,
    /// What the rows are of the file's bytes, about.
    bytes: u64,
    identity: Arc<Identity>,
}

impl ParquetFactory {
    pub(in crate::sources) fn of(connection: &Connection, schema: &SchemaRef) -> Result<Self, Diagnostic> {
        Options::new(PARQUET, &connection.format_options, &[])?;
        Ok(Self {
            place: Place::of(connection)?,
            schema: Arc::clone(schema),
            files: OnceLock::new(),
            restored: OnceLock::new(),
            splits: OnceLock::new(),
        })
    }

    fn found(&self) -> &[ParquetFile] {
        self.files.get().map_or(&[], Vec::as_slice)
    }

    fn restored(&self) -> Arc<Restored> {
        self.restored.get().cloned().unwrap_or_default()
    }

    fn cut(&self, parallelism: u32) -> Shared<Split> {
        let (mut ranges, mut names) = (Vec::new(), Vec::new());
        let restored = self.restored();
        for (sequence, file) in self.found().iter().enumerate() {
            for split in file.cut(&restored) {
                let name = format!("`{}`, rows {} to {}", split.path.display(), split.start, split.end);
                names.push(SplitName { sequence, name });
                ranges.push(split);
            }
        }
        Shared { ranges: ranges.into(), splits: Arc::new(Splits::new(names, parallelism)) }
    }

    /// How a file that a subtask has found is read.
    fn cut_found(&self) -> Cut<Split> {
        let (restored, schema) = (self.restored(), Arc::clone(&self.schema));
        Box::new(move |file| {
            let file = ParquetFile::of(file, &schema)?;
            Ok((file.rows(), file.cut(&restored).into()))
        })
    }
}

fn open(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| error.to_string())
}

fn cannot_read(path: &Path, why: String) -> Diagnostic {
    Diagnostic::user(format!("cannot read `{}` as Parquet", path.display())).detail(why)
}

/// Whether every value of one type has its place in the other, but for those that are too large.
fn fits(from: &DataType, to: &DataType) -> bool {
    use DataType::{
        Binary, BinaryView, Date32, Decimal32, Decimal64, Decimal128, Decimal256, Dictionary,
        FixedSizeBinary, Float16, Float32, Float64, LargeBinary, LargeList, LargeUtf8, List, Struct,
        Timestamp, Utf8, Utf8View,
    };
    match (from, to) {
        (Dictionary(_, values), to) => fits(values, to),
        (from, to) if from.is_integer() && to.is_integer() => true,
        (Float16 | Float32 | Float64, Float32 | Float64) => true,
        (Utf8 | LargeUtf8 | Utf8View, Utf8) => true,
        (Binary | LargeBinary | BinaryView | FixedSizeBinary(_), Binary) => true,
        (Timestamp(..), Timestamp(..)) | (Date32, Date32) => true,
        (
            Decimal32(_, from) | Decimal64(_, from) | Decimal128(_, from) | Decimal256(_, from),
            Decimal128(_, to),
        ) => from <= to,
        (List(from) | LargeList(from), List(to)) => fits(from.data_type(), to.data_type()),
        (Struct(from), Struct(to)) => {
            from.len() == to.len()
                && from
                    .iter()
                    .zip(to)
                    .all(|(from, to)| from.name() == to.name() && fits(from.data_type(), to.data_type()))
        }
        (from, to) => from == to,
    }
}

/// Whether a file has the columns that the job takes.
fn check(path: &Path, has: &SchemaRef, wanted: &SchemaRef) -> Result<(), Diagnostic> {
    for field in wanted.fields() {
        let Ok(found) = has.field_with_name(field.name()) else {
            let names: Vec<&str> = has.fields().iter().map(|field| field.name().as_str()).collect();
            let error = Diagnostic::user(format!("`{}` has no column `{}`", path.display(), field.name()))
                .detail(format!("it has: {}", names.join(", ")));
            return Err(match crate::options::nearest(field.name(), names) {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error,
            });
        };
        if !fits(found.data_type(), field.data_type()) {
            return Err(Diagnostic::user(format!(
                "the column `{}` of `{}` is of another type than the job takes",
                field.name(),
                path.display()
            ))
            .detail(format!(
                "it is {}, and the job takes {}",
                found.data_type(),
                field.data_type()
            )));
        }
    }
    Ok(())
}

impl SourceFactory for ParquetFactory {
    fn needs(&self) -> Vec<Need> {
        vec![Need::Read(self.place.path.clone())]
    }
    fn parallelism_max(&self) -> Option<u32> {
        None
    }
    fn bounded(&self) -> bool {
        self.place.monitor.is_none()
    }
    fn bytes_total(&self) -> Option<u64> {
        if self.place.monitor.is_some() {
            return None;
        }
        self.files.get().map(|files| files.iter().map(|file| file.bytes).sum())
    }
    fn prepare(&self) -> Result<(), Diagnostic> {
        let files = self.place.find()?.into_iter().map(|file| ParquetFile::of(file, &self.schema));
        let files = files.collect::<Result<Vec<_>, _>>()?;
        // Set by the first of a job's preparations; later ones find the same job.
        self.files.get_or_init(|| files);
        Ok(())
    }
    fn can_go_back(&self) -> bool {
        true
    }
    fn restore(&self, positions: &[String]) -> Result<(), Diagnostic> {
        let now = |path: &str| match self.place.monitor {
            None => {
                self.found().iter().find(|file| file.path.to_string_lossy() == path).map(ParquetFile::rows)
            }
            Some(_) => {
                let about = open(Path::new(path)).ok()?;
                u64::try_from(about.metadata().file_metadata().num_rows()).ok()
            }
        };
        let restored = Restored::of(positions, now, |path, (rows, now), head| match now == rows {
            true => other_head(path, u64::MAX, head),
            false => Some(
                Diagnostic::user(format!("`{path}` is another file than it was"))
                    .detail(format!("it had {rows} rows when the job began, and has {now} now"))
                    .hint(STAY),
            ),
        })?;
        // Set by the one restore of a job.
        self.restored.get_or_init(|| Arc::new(restored));
        Ok(())
    }
    fn open(&self, context: Context) -> Result<Box<dyn Source>, Diagnostic> {
        let files = self.found().iter().map(|file| (file.path.to_string_lossy().into(), file.rows()));
        let shared = || self.splits.get_or_init(|| self.cut(context.parallelism)).clone();
        let found = || self.cut_found();
        let (queue, progress) = self.place.queue(&context, &self.restored(), files, shared, found);
        Ok(Box::new(Parquet {
            queue,
            schema: Arc::clone(&self.schema),
            reads: Inbox::new(context.waker.clone()),
            current: None,
            bytes_read: 0,
            progress,
            context,
        }))
    }
}

/// A subtask's reading.
struct Parquet {
    queue: Queue<Split>,
    schema: SchemaRef,
    reads: Inbox<Result<Chunk, Diagnostic>>,
    current: Option<Current>,
    bytes_read: u64,
    /// The splits that it has read to their end.
    progress: Progress,
    context: Context,
}

/// The split that is being read.
struct Current {
    split: Split,
    /// Up to where its rows have been given.
    given: u64,
    /// What has been read and not given, the last first.
    ahead: Vec<Rows>,
    /// None = it is away, reading, or has come to its end.
    reader: Option<Reader>,
    reading: bool,
}

/// Decoded rows, and how many rows of the file they are with the bad ones.
struct Rows {
    count: u64,
    good: RecordBatch,
    failures: Vec<RecordFailure>,
}

struct Chunk {
    rows: Vec<Rows>,
    reader: Reader,
    is_over: bool,
}

/// What reads a file, and the file that it reads.
struct Reader {
    rows: ParquetRecordBatchReader,
    file: File,
}

fn reader(
    split: &Split,
    schema: &SchemaRef,
    rows: usize,
    file: File,
) -> Result<ParquetRecordBatchReader, String> {
    let file = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| error.to_string())?;
    let names = schema.fields().iter().map(|field| field.name().as_str());
    let columns = ProjectionMask::columns(file.parquet_schema(), names);
    file.with_row_groups(vec![split.group])
        .with_projection(columns)
        .with_offset(usize::try_from(split.start - split.first).unwrap_or(usize::MAX))
        .with_limit(usize::try_from(split.end - split.start).unwrap_or(usize::MAX))
        .with_batch_size(rows)
        .build()
        .map_err(|error| error.to_string())
}

/// The job's columns out of a file's; rows that are none of the job's are set apart. The first is row `first` of the
/// file.
fn rows_of(read: &RecordBatch, schema: &SchemaRef, split: &Split, first: u64) -> Result<Rows, ArrowError> {
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    // Of each bad row why it is, by row.
    let mut bad: Vec<(usize, String)> = Vec::new();
    for field in schema.fields() {
        let there = read
            .column_by_name(field.name())
            .ok_or_else(|| ArrowError::SchemaError(format!("the column `{}` has gone", field.name())))?;
        // A time without a zone is taken for UTC.
        let column = cast(&cast(there, &with_offset(field.data_type()))?, field.data_type())?;
        if column.null_count() > there.null_count() || (column.null_count() > 0 && !field.is_nullable()) {
            for row in (0..column.len()).filter(|row| column.is_null(*row)) {
                if there.is_valid(row) {
                    bad.push((row, format!("`{}` does not fit into {}", field.name(), field.data_type())));
                } else if !field.is_nullable() {
                    bad.push((row, format!("`{}` is missing", field.name())));
                }
            }
        }
        columns.push(column);
    }
    let count = read.num_rows();
    if bad.is_empty() {
        let good = RecordBatch::try_new(Arc::clone(schema), columns)?;
        return Ok(Rows { count: count as u64, good, failures: Vec::new() });
    }
    bad.sort_unstable();
    bad.dedup_by_key(|(row, _)| *row);
    let mut is_good = vec![true; count];
    let mut failures = Vec::with_capacity(bad.len());
    for (row, why) in bad {
        is_good[row] = false;
        let place = format!("{}, row {}", split.path.display(), first + row as u64 + 1);
        failures.push(failure(place, &Encoding::row_as_json(&read.slice(row, 1)), why));
    }
    // Nullable as they are read, until the bad rows are out.
    let as_read = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    let as_read = Arc::new(arrow_schema::Schema::new(as_read.collect::<Vec<_>>()));
    let good = filter_record_batch(&RecordBatch::try_new(as_read, columns)?, &BooleanArray::from(is_good))?;
    let good = RecordBatch::try_new(Arc::clone(schema), good.columns().to_vec())?;
    Ok(Rows { count: count as u64, good, failures })
}

impl Parquet {
    /// Starts reading the next chunk of the current split.
    fn read_on(&mut self) {
        let Some(current) = &mut self.current else { return };
        let split = current.split.clone();
        let (reader_there, schema, batch_rows) =
            (current.reader.take(), Arc::clone(&self.schema), self.context.batch_rows.max(1));
        let mut first = current.given + current.ahead.iter().map(|rows| rows.count).sum::<u64>();
        current.reading = true;
        let faults = self.context.platform.faults.clone();
        self.context.platform.io.submit(&self.reads, move || {
            let failed = |why: String| {
                Diagnostic::external(format!("cannot read `{}`", split.path.display())).detail(why)
            };
            faults.pass(Point::SourceRead).map_err(|error| failed(error.to_string()))?;
            let opened = reader_there.map_or_else(
                || File::open(&split.path).and_then(|file| Ok((file.try_clone()?, file, None))),
                |Reader { rows, file }| Ok((file.try_clone()?, file, Some(rows))),
            );
            let (read_from, file, rows_there) = opened.map_err(|error| failed(error.to_string()))?;
            let read = || -> Result<(Vec<Rows>, ParquetRecordBatchReader, bool), String> {
                let mut reader = match rows_there {
                    Some(rows) => rows,
                    None => reader(&split, &schema, batch_rows, read_from)?,
                };
                let (mut rows, mut is_over) = (Vec::new(), false);
                while rows.len() < CHUNK_BATCHES {
                    let Some(read) = reader.next() else {
                        is_over = true;
                        break;
                    };
                    let read = read.map_err(|error| error.to_string())?;
                    rows.push(rows_of(&read, &schema, &split, first).map_err(|error| error.to_string())?);
                    first += read.num_rows() as u64;
                }
                Ok((rows, reader, is_over))
            };
            let read = read();
            // Of a file that was changed nothing is believed, nor why it cannot be read.
            split.identity.check_whole(&split.path, &file)?;
            let (rows, reader, is_over) = read.map_err(failed)?;
            Ok(Chunk { rows, reader: Reader { rows: reader, file }, is_over })
        });
    }
}

impl Source for Parquet {
    fn poll(&mut self) -> Result<SourcePoll, Diagnostic> {
        self.queue.look(&self.context.platform)?;
        loop {
            let Some(current) = &mut self.current else {
                let split = match self.queue.take(&mut self.progress) {
                    Next::Split(split) => split,
                    Next::Later => return Ok(SourcePoll::Pending),
                    Next::None => return Ok(SourcePoll::End),
                };
                let given = split.start;
                self.current =
                    Some(Current { split, given, ahead: Vec::new(), reader: None, reading: false });
                self.read_on();
                continue;
            };
            if let Some(Rows { count, good, failures }) = current.ahead.pop() {
                let rows = current.split.end - current.split.start;
                current.given += count;
                self.bytes_read += (current.split.bytes as f64 * count as f64 / rows as f64) as u64;
                if current.ahead.is_empty() && current.reader.is_some() {
                    self.read_on();
                }
                return Ok(SourcePoll::Rows(Decoded { port: 0, batch: Batch::new(good), failures }));
            }
            if current.reading {
                let Some(chunk) = self.reads.take() else { return Ok(SourcePoll::Pending) };
                let Chunk { mut rows, reader, is_over } = chunk?;
                let Split { path, identity, start, .. } = &current.split;
                if let Some(head) = identity.head().filter(|_| current.given == *start) {
                    self.progress.began(&path.to_string_lossy(), head);
                }
                rows.reverse();
                current.reading = false;
                current.ahead = rows;
                current.reader = (!is_over).then_some(reader);
                continue;
            }
            if current.reader.is_some() {
                self.read_on();
                continue;
            }
            let Split { path, start, end, .. } = &current.split;
            if current.given < *end {
                return Err(Diagnostic::external(format!(
                    "`{}` became shorter while it was read",
                    path.display()
                ))
                .detail(format!("it ends at row {}, and had {end}", current.given)));
            }
            self.progress.done(&path.to_string_lossy(), *start, *end);
            self.current = None;
        }
    }
    fn bytes_read(&self) -> u64 {
        self.bytes_read
    }
    fn position(&self) -> Option<String> {
        let current = self.current.as_ref();
        let current = current.map(|current| (&*current.split.path, current.split.start, current.given));
        Some(self.progress.position(current))
    }
    fn splits(&self) -> Option<SplitsOf> {
        Some(self.queue.splits())
    }
    fn wakes_at(&self) -> Option<Duration> {
        self.queue.wakes_at()
    }
}
