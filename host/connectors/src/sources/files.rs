//! Files, folders and globs, read in parallel.
//!
//! Files are cut into byte ranges (splits), as MapReduce's `TextInputFormat` cuts them: a record
//! belongs to the split in which its first byte lies. The subtasks take splits from one queue, so
//! a slow one holds nobody back. Reading is ahead of decoding by one chunk, in the I/O pool.

pub mod parquet;
mod progress;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use arrow_schema::SchemaRef;
use model::Diagnostic;
use model::job_graph::Connection;
use platform::Inbox;
use platform::faults::Point;

use crate::formats::Decoding;
use crate::options::Options;
use crate::records::RecordReader;
use crate::splits::SplitName;
use crate::{Context, Need, Source, SourceFactory, SourcePoll, Splits};
use progress::{Progress, Ranges};

/// Splits for each subtask, so that all end at about the same time.
const SPLITS_EACH: u64 = 4;
/// A chunk is so many batches, at most, and the chunks of all subtasks together.
const CHUNK_BATCHES: usize = 8;
const CHUNK_BATCHES_ALL: usize = 64;

/// Files to be read, found once when the job starts.
pub struct FilesFactory {
    path: String,
    decoding: Arc<Decoding>,
    files: OnceLock<Vec<InputFile>>,
    /// What an earlier run has read.
    restored: OnceLock<Progress>,
    /// Made when the first subtask opens, which knows how many there are.
    splits: OnceLock<FileSplits>,
}

#[derive(Clone, Debug)]
struct InputFile {
    path: Arc<Path>,
    bytes: u64,
}

/// The splits, and who reads which.
#[derive(Clone)]
struct FileSplits {
    ranges: Arc<[Split]>,
    splits: Arc<Splits>,
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
}

impl FilesFactory {
    pub(super) fn of(connection: &Connection, schema: &SchemaRef) -> Result<Self, Diagnostic> {
        let options = Options::new("files", &connection.options, &["path"])?;
        Ok(Self {
            path: options.required("path")?.to_owned(),
            decoding: Arc::new(Decoding::of(connection, schema)?),
            files: OnceLock::new(),
            restored: OnceLock::new(),
            splits: OnceLock::new(),
        })
    }

    fn found(&self) -> &[InputFile] {
        self.files.get().map_or(&[], Vec::as_slice)
    }

    /// The files, as long as they are read: those of an earlier run as long as they were then.
    fn to_read(&self) -> impl Iterator<Item = (InputFile, Ranges)> {
        self.found().iter().map(|file| {
            let path = file.path.to_string_lossy();
            let (bytes, left) = Progress::to_read(self.restored.get(), &path, file.bytes);
            (InputFile { bytes, ..file.clone() }, left)
        })
    }

    /// Cuts what is to be read for so many subtasks; no split below `bytes_min`.
    fn cut(&self, parallelism: u32, bytes_min: u64) -> FileSplits {
        let total: u64 = self.to_read().map(|(_, left)| left.bytes()).sum();
        let size = match parallelism {
            1 => u64::MAX,
            p => (total / (SPLITS_EACH * u64::from(p))).max(bytes_min).max(1),
        };
        let mut ranges = Vec::new();
        for (number, (file, left)) in self.to_read().enumerate() {
            let size = if self.decoding.splittable() { size } else { u64::MAX };
            for (mut start, range_end) in left.iter() {
                while start < range_end {
                    let end = start.saturating_add(size).min(range_end);
                    let (path, file_bytes) = (Arc::clone(&file.path), file.bytes);
                    ranges.push(Split { file: number, path, start, end, file_bytes });
                    start = end;
                }
            }
        }
        // The ranges of a file are in its order, so they are one sequence.
        let named = ranges.iter().map(|split| SplitName { sequence: split.file, name: split.name() });
        let splits = Arc::new(Splits::new(named.collect(), parallelism));
        FileSplits { ranges: ranges.into(), splits }
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
        vec![Need::Read(self.path.clone())]
    }
    fn parallelism_max(&self) -> Option<u32> {
        None
    }
    fn bounded(&self) -> bool {
        true
    }
    fn bytes_total(&self) -> Option<u64> {
        self.files.get().map(|files| files.iter().map(|file| file.bytes).sum())
    }
    fn prepare(&self) -> Result<(), Diagnostic> {
        let files = find(&self.path)?;
        // Set by the first of a job's preparations; later ones find the same job.
        self.files.get_or_init(|| files);
        Ok(())
    }
    fn can_go_back(&self) -> bool {
        true
    }
    fn restore(&self, positions: &[String]) -> Result<(), Diagnostic> {
        let now = |path: &str| {
            let file = self.found().iter().find(|file| file.path.to_string_lossy() == path)?;
            Some(file.bytes)
        };
        let progress = Progress::restored(positions, now, |path, bytes, now| {
            (now < bytes).then(|| {
                Diagnostic::user(format!("`{path}` is shorter than it was"))
                    .detail(format!("it had {bytes} bytes when the job began, and has {now} now"))
                    .hint("an input file must stay as it is until the job has read it")
            })
        })?;
        // Set by the one restore of a job.
        self.restored.get_or_init(|| progress);
        Ok(())
    }
    fn open(&self, context: Context) -> Result<Box<dyn Source>, Diagnostic> {
        let splits = self.splits.get_or_init(|| self.cut(context.parallelism, context.batch_bytes as u64));
        let files = self.found().iter().map(|file| (file.path.to_string_lossy().into_owned(), file.bytes));
        Ok(Box::new(Files {
            splits: splits.clone(),
            decoding: Arc::clone(&self.decoding),
            reads: Inbox::new(context.waker.clone()),
            current: None,
            bytes_read: 0,
            progress: Progress::nothing_read(context.subtask, self.restored.get(), files),
            context,
        }))
    }
}

/// The files that a path, folder or glob names, in the order of their names.
fn find(pattern: &str) -> Result<Vec<InputFile>, Diagnostic> {
    let mut files = Vec::new();
    let path = Path::new(pattern);
    match fs::metadata(path) {
        Ok(about) if about.is_dir() => {
            walk(path, &mut files)?;
            if files.is_empty() {
                return Err(Diagnostic::user(format!("there is no file in the folder `{pattern}`"))
                    .detail("names that begin with a dot or an underscore do not count"));
            }
        }
        Ok(_) => files.push(input_file(path.to_owned())?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if !pattern.contains(['*', '?', '[']) {
                return Err(Diagnostic::user(format!("there is no file `{pattern}`")).hint(near(path)));
            }
            let paths = glob::glob(pattern).map_err(|error| {
                Diagnostic::user(format!("`{pattern}` is no glob")).detail(error.to_string())
            })?;
            for path in paths {
                let path = path.map_err(|error| cannot_read(error.path(), error.error()))?;
                if !is_hidden(&path) && !path.is_dir() {
                    files.push(input_file(path)?);
                }
            }
            if files.is_empty() {
                return Err(Diagnostic::user(format!("no file matches `{pattern}`")));
            }
        }
        Err(error) => return Err(cannot_read(path, &error)),
    }
    Ok(files)
}

fn walk(folder: &Path, files: &mut Vec<InputFile>) -> Result<(), Diagnostic> {
    let entries = fs::read_dir(folder).map_err(|error| cannot_read(folder, &error))?;
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| cannot_read(folder, &error))?;
    paths.sort();
    for path in paths.into_iter().filter(|path| !is_hidden(path)) {
        // Links to folders are not followed: they could lead round in a circle.
        let about = fs::symlink_metadata(&path).map_err(|error| cannot_read(&path, &error))?;
        if about.is_dir() {
            walk(&path, files)?;
        } else if !path.is_dir() {
            files.push(input_file(path)?);
        }
    }
    Ok(())
}

/// As in Flink and Hadoop, such names are of files under way and of markers.
fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| {
        name.as_encoded_bytes().starts_with(b".") || name.as_encoded_bytes().starts_with(b"_")
    })
}

fn input_file(path: PathBuf) -> Result<InputFile, Diagnostic> {
    let about = fs::metadata(&path).map_err(|error| cannot_read(&path, &error))?;
    if !about.is_file() {
        return Err(Diagnostic::user(format!("`{}` is not a file", path.display()))
            .detail("pipes and devices cannot be read in parts")
            .hint("standard input is read with `--input -`"));
    }
    // What cannot be opened is better told now than in the middle of the job.
    File::open(&path).map_err(|error| cannot_read(&path, &error))?;
    Ok(InputFile { path: path.into(), bytes: about.len() })
}

fn cannot_read(path: &Path, error: &io::Error) -> Diagnostic {
    Diagnostic::user(format!("cannot read `{}`", path.display())).detail(error.to_string())
}

/// What is there instead.
fn near(path: &Path) -> String {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        return format!("there is no folder `{}` either", folder.display());
    }
    let wanted = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let names: Vec<String> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .collect();
    match crate::options::nearest(&wanted, names.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{}`?", path.with_file_name(near).display()),
        None => "paths are relative to the folder in which streamctl runs".to_owned(),
    }
}

/// A subtask's reading.
struct Files {
    splits: FileSplits,
    decoding: Arc<Decoding>,
    reads: Inbox<io::Result<Chunk>>,
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
    fn take_split(&self) -> Option<Split> {
        let split = self.splits.splits.take(self.context.subtask)?;
        Some(self.splits.ranges[split].clone())
    }

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
        current.reading = true;
        let mut bytes = current.records.spare();
        let faults = self.context.platform.faults.clone();
        self.context.platform.io.submit(&self.reads, move || {
            let file = match file {
                Some(file) => file,
                None => Arc::new(File::open(path)?),
            };
            faults.pass(Point::SourceRead)?;
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
            Ok(Chunk { file, bytes })
        });
    }

    fn on_chunk(&mut self, read: io::Result<Chunk>) -> Result<(), Diagnostic> {
        let Some(current) = &mut self.current else { return Ok(()) };
        let path = &current.split.path;
        let chunk = read.map_err(|error| {
            Diagnostic::external(format!("cannot read `{}`", path.display())).detail(error.to_string())
        })?;
        if chunk.bytes.is_empty() {
            return Err(Diagnostic::external(format!(
                "`{}` became shorter while it was read",
                path.display()
            ))
            .detail(format!("it had {} bytes, now it ends at {}", current.split.file_bytes, current.at)));
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
        loop {
            let Some(current) = &mut self.current else {
                let Some(split) = self.take_split() else { return Ok(SourcePoll::End) };
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
        let mut progress = self.progress.clone();
        if let Some(current) = &self.current {
            progress.done(&current.split.path.to_string_lossy(), current.split.start, current.position());
        }
        Some(progress.to_text())
    }
    fn splits(&self) -> Option<Arc<Splits>> {
        Some(Arc::clone(&self.splits.splits))
    }
}
