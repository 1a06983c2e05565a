//! Files, folders and globs, read in parallel: those that are there, or also those that come.
//!
//! Files that are there are cut into byte ranges (splits), as MapReduce's `TextInputFormat` cuts them: a record
//! belongs to the split in which its first byte lies. The subtasks take splits from one queue, so
//! a slow one holds nobody back. Reading is ahead of decoding by one chunk, in the I/O pool.

mod find;
mod identity;
pub mod parquet;
mod progress;
mod queue;
#[cfg(test)]
mod tests;
mod watched;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arrow_schema::SchemaRef;
use model::Diagnostic;
use model::job_graph::Connection;
use platform::Inbox;
use platform::faults::Point;

use crate::formats::Decoding;
use crate::options::Options;
use crate::records::RecordReader;
use crate::splits::SplitName;
use crate::{Context, Need, Source, SourceFactory, SourcePoll, Splits, SplitsOf};
use find::{InputFile, find, find_wanted};
use identity::{Identity, STAY, other_head, unread};
use progress::{Progress, Ranges, Restored};
use queue::{Next, Queue, Shared};
use watched::{Cut, Watched};

/// Splits for each subtask, so that all end at about the same time.
const SPLITS_EACH: u64 = 4;
/// A chunk is so many batches, at most, and the chunks of all subtasks together.
const CHUNK_BATCHES: usize = 8;
const CHUNK_BATCHES_ALL: usize = 64;

/// What names files, and how often it is looked for new ones.
struct Place {
    path: String,
    /// None = the files are found once, when the job starts.
    monitor: Option<Duration>,
}

impl Place {
    fn of(connection: &Connection) -> Result<Self, Diagnostic> {
        let options = Options::new("files", &connection.options, &["path", "monitor-interval"])?;
        let (path, monitor) = (options.required("path")?.to_owned(), options.duration("monitor-interval")?);
        Ok(Self { path, monitor })
    }

    /// Where a subtask takes its splits, and what it has read: of the files that are there, whose lengths these are, by
    /// path, shared with others; or of those that it finds, each `cut` when it is.
    fn queue<S: Send + 'static>(
        &self,
        context: &Context,
        restored: &Restored,
        files: impl Iterator<Item = (String, u64)>,
        shared: impl FnOnce() -> Shared<S>,
        cut: impl FnOnce() -> Cut<S>,
    ) -> (Queue<S>, Progress) {
        let subtask = context.subtask;
        match self.monitor {
            None => (Queue::Shared(shared(), subtask), Progress::of_shared(subtask, restored, files)),
            Some(interval) => {
                let (progress, finished) = Progress::of_own(subtask, context.parallelism, restored);
                let watched = Watched::new(&self.path, interval, finished, cut(), context);
                (Queue::Watched(Box::new(watched)), progress)
            }
        }
    }

    /// The files that are there, where no new ones are looked for; otherwise whether they can be looked for.
    fn find(&self) -> Result<Vec<InputFile>, Diagnostic> {
        match self.monitor {
            None => find(&self.path),
            Some(_) => find_wanted(&self.path, &mut |_| false).map(|_| Vec::new()),
        }
    }
}

/// Files to be read.
pub struct FilesFactory {
    place: Place,
    decoding: Arc<Decoding>,
    files: OnceLock<Vec<InputFile>>,
    /// What an earlier run has read.
    restored: OnceLock<Arc<Restored>>,
    /// Made when the first subtask opens, which knows how many there are.
    splits: OnceLock<Shared<Split>>,
}

/// A byte range of a file: the records that begin in it.
#[derive(Clone, Debug)]
struct Split {
    /// Its place among the files.
    file: usize,
    path: Arc<Path>,
    start: u64,
    end: u64,
    file_bytes: u64,
    identity: Arc<Identity>,
}

impl FilesFactory {
    pub(super) fn of(connection: &Connection, schema: &SchemaRef) -> Result<Self, Diagnostic> {
        Ok(Self {
            place: Place::of(connection)?,
            decoding: Arc::new(Decoding::of(connection, schema)?),
            files: OnceLock::new(),
            restored: OnceLock::new(),
            splits: OnceLock::new(),
        })
    }

    fn found(&self) -> &[InputFile] {
        self.files.get().map_or(&[], Vec::as_slice)
    }

    fn restored(&self) -> Arc<Restored> {
        self.restored.get().cloned().unwrap_or_default()
    }

    /// The files, as long as they are read: those of an earlier run as long as they were then.
    fn to_read(&self) -> Vec<(InputFile, Ranges)> {
        let restored = self.restored();
        let left = |file: &InputFile| {
            let path = file.path.to_string_lossy();
            let (bytes, left) = restored.to_read(&path, file.bytes);
            file.identity.began(restored.head(&path));
            (InputFile { bytes, ..file.clone() }, left)
        };
        self.found().iter().map(left).collect()
    }

    /// Cuts what is to be read for so many subtasks; no split below `bytes_min`.
    fn cut(&self, parallelism: u32, bytes_min: u64) -> Shared<Split> {
        let files = self.to_read();
        let total: u64 = files.iter().map(|(_, left)| left.bytes()).sum();
        let size = match parallelism {
            1 => u64::MAX,
            p => (total / (SPLITS_EACH * u64::from(p))).max(bytes_min).max(1),
        };
        let mut ranges = Vec::new();
        for (number, (file, left)) in files.iter().enumerate() {
            let size = if self.decoding.splittable() { size } else { u64::MAX };
            for (mut start, range_end) in left.iter() {
                while start < range_end {
                    let end = start.saturating_add(size).min(range_end);
                    let (path, identity) = (Arc::clone(&file.path), Arc::clone(&file.identity));
                    let file_bytes = file.bytes;
                    ranges.push(Split { file: number, path, start, end, file_bytes, identity });
                    start = end;
                }
            }
        }
        // The ranges of a file are in its order, so they are one sequence.
        let named = ranges.iter().map(|split| SplitName { sequence: split.file, name: split.name() });
        let splits = Arc::new(Splits::new(named.collect(), parallelism));
        Shared { ranges: ranges.into(), splits }
    }

    /// How a file that a subtask has found is read: what an earlier run has left of it, by nobody else.
    fn cut_found(&self) -> Cut<Split> {
        let restored = self.restored();
        Box::new(move |file: InputFile| {
            let path = file.path.to_string_lossy();
            let (file_bytes, left) = restored.to_read(&path, file.bytes);
            file.identity.began(restored.head(&path));
            let split = |(start, end)| {
                let (path, identity) = (Arc::clone(&file.path), Arc::clone(&file.identity));
                Split { file: 0, path, start, end, file_bytes, identity }
            };
            Ok((file_bytes, left.iter().map(split).collect()))
        })
    }
}

impl Split {
    /// As messages say it: the file's path, and the bytes where it is cut.
    fn name(&self) -> String {
        let path = self.path.display();
        match (self.start, self.end) {
            (0, end) if end == self.file_bytes => format!("`{path}`"),
            (start, end) => format!("`{path}`, bytes {start} to {end}"),
        }
    }
}

impl SourceFactory for FilesFactory {
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
        let files = self.place.find()?;
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
                self.found().iter().find(|file| file.path.to_string_lossy() == path).map(|file| file.bytes)
            }
            Some(_) => fs::metadata(path).ok().map(|about| about.len()),
        };
        let restored = Restored::of(positions, now, |path, (bytes, now), head| match now < bytes {
            true => Some(
                Diagnostic::user(format!("`{path}` is shorter than it was"))
                    .detail(format!("it had {bytes} bytes when the job began, and has {now} now"))
                    .hint(STAY),
            ),
            false => other_head(path, bytes, head),
        })?;
        // Set by the one restore of a job.
        self.restored.get_or_init(|| Arc::new(restored));
        Ok(())
    }
    fn open(&self, context: Context) -> Result<Box<dyn Source>, Diagnostic> {
        let files = self.found().iter().map(|file| (file.path.to_string_lossy().into(), file.bytes));
        let cut = || self.cut(context.parallelism, context.batch_bytes as u64);
        let shared = || self.splits.get_or_init(cut).clone();
        let found = || self.cut_found();
        let (queue, progress) = self.place.queue(&context, &self.restored(), files, shared, found);
        Ok(Box::new(Files {
            queue,
            decoding: Arc::clone(&self.decoding),
            reads: Inbox::new(context.waker.clone()),
            current: None,
            bytes_read: 0,
            progress,
            context,
        }))
    }
}

/// Reads so many bytes of a file, from this one on; fewer where it ends before.
fn fill(bytes: &mut Vec<u8>, length: usize, file: &File, at: u64) -> io::Result<()> {
    bytes.resize(length, 0);
    let mut filled = 0;
    while filled < length {
        match file.read_at(&mut bytes[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(())
}

/// A subtask's reading.
struct Files {
    queue: Queue<Split>,
    decoding: Arc<Decoding>,
    reads: Inbox<Result<Chunk, Diagnostic>>,
    current: Option<Current>,
    bytes_read: u64,
    /// The splits that it has read to their end.
    progress: Progress,
    context: Context,
}

struct Chunk {
    file: Arc<File>,
    bytes: Vec<u8>,
}

/// The split that is being read.
struct Current {
    split: Split,
    records: RecordReader,
    /// The next byte to be read.
    at: u64,
    /// A read is under way.
    reading: bool,
    /// Something of it has been given.
    has_given: bool,
    file: Option<Arc<File>>,
}

impl Current {
    /// Up to where it has been read.
    fn position(&self) -> u64 {
        match self.has_given {
            true => self.records.position().clamp(self.split.start, self.split.end),
            false => self.split.start,
        }
    }
}

impl Files {
    /// Starts reading the next chunk, if there is one.
    fn read_on(&mut self) {
        // Many subtasks share the memory that few have for themselves.
        let batches = (CHUNK_BATCHES_ALL / self.context.parallelism.max(1) as usize).clamp(1, CHUNK_BATCHES);
        let chunk_bytes = self.context.batch_bytes.saturating_mul(batches).max(1);
        let Some(current) = &mut self.current else { return };
        if current.reading || current.at >= current.split.file_bytes {
            return;
        }
        // A record that begins in the split may end behind it.
        let wanted = match current.split.end.saturating_sub(current.at) {
            0 => chunk_bytes / 8 + 1,
            left => {
                usize::try_from(left).unwrap_or(usize::MAX).saturating_add(chunk_bytes / 64).min(chunk_bytes)
            }
        };
        let left = usize::try_from(current.split.file_bytes - current.at).unwrap_or(usize::MAX);
        let (at, length) = (current.at, wanted.min(left));
        let (file, path) = (current.file.clone(), Arc::clone(&current.split.path));
        let (identity, file_bytes) = (Arc::clone(&current.split.identity), current.split.file_bytes);
        current.reading = true;
        let mut bytes = current.records.spare();
        let faults = self.context.platform.faults.clone();
        self.context.platform.io.submit(&self.reads, move || {
            let read = |bytes: &mut Vec<u8>| -> io::Result<Arc<File>> {
                let file = match file {
                    Some(file) => file,
                    None => Arc::new(File::open(&path)?),
                };
                faults.pass(Point::SourceRead)?;
                fill(bytes, length, &file, at)?;
                Ok(file)
            };
            let file = read(&mut bytes).map_err(|error| unread(&path, &error))?;
            identity.check(&path, &file, file_bytes)?;
            Ok(Chunk { file, bytes })
        });
    }

    fn on_chunk(&mut self, read: Result<Chunk, Diagnostic>) -> Result<(), Diagnostic> {
        let Some(current) = &mut self.current else { return Ok(()) };
        let chunk = read?;
        let Split { path, file_bytes, identity, .. } = &current.split;
        if chunk.bytes.is_empty() {
            return Err(Diagnostic::external(format!(
                "`{}` became shorter while it was read",
                path.display()
            ))
            .detail(format!("it had {file_bytes} bytes, now it ends at {}", current.at))
            .hint(STAY));
        }
        if let Some(head) = identity.head().filter(|_| current.file.is_none()) {
            self.progress.began(&path.to_string_lossy(), head);
        }
        // The bytes behind the split are counted where their records belong.
        let counted = current.at.max(current.split.start);
        current.at += chunk.bytes.len() as u64;
        self.bytes_read += current.at.min(current.split.end).saturating_sub(counted);
        current.file = Some(chunk.file);
        current.reading = false;
        current.records.feed(chunk.bytes);
        if current.at >= current.split.file_bytes {
            current.records.finish();
        }
        Ok(())
    }
}

impl Source for Files {
    fn poll(&mut self) -> Result<SourcePoll, Diagnostic> {
        self.queue.look(&self.context.platform)?;
        loop {
            let Some(current) = &mut self.current else {
                let split = match self.queue.take(&mut self.progress) {
                    Next::Split(split) => split,
                    Next::Later => return Ok(SourcePoll::Pending),
                    Next::None => return Ok(SourcePoll::End),
                };
                let name = split.path.display().to_string();
                let records = RecordReader::new(Arc::clone(&self.decoding), name, split.start, split.end);
                let at = split.start.saturating_sub(1);
                self.current =
                    Some(Current { split, records, at, reading: false, has_given: false, file: None });
                self.read_on();
                continue;
            };
            if let Some(decoded) = current.records.next(self.context.batch_rows, self.context.batch_bytes) {
                current.has_given = true;
                return Ok(SourcePoll::Rows(decoded));
            }
            if current.records.is_done() && !current.reading {
                let Split { path, start, end, .. } = &current.split;
                self.progress.done(&path.to_string_lossy(), *start, *end);
                self.current = None;
                continue;
            }
            match self.reads.take() {
                Some(read) => {
                    self.on_chunk(read)?;
                    if self.current.as_ref().is_some_and(|current| !current.records.is_covered()) {
                        self.read_on();
                    }
                }
                None => return Ok(SourcePoll::Pending),
            }
        }
    }
    fn bytes_read(&self) -> u64 {
        self.bytes_read
    }
    fn position(&self) -> Option<String> {
        let current = self.current.as_ref();
        let current = current.map(|current| (&*current.split.path, current.split.start, current.position()));
        Some(self.progress.position(current))
    }
    fn splits(&self) -> Option<SplitsOf> {
        Some(self.queue.splits())
    }
    fn wakes_at(&self) -> Option<Duration> {
        self.queue.wakes_at()
    }
}
