//! Files in a folder: `part-<subtask>-<number>.<format>`.
//!
//! A file under way has a dot in front; it is given its name when it is whole and on the disk. Where
//! checkpoints are made, also the checkpoint is to be complete in which it was whole.

mod kept;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::{self, Write};
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

use model::job_graph::Connection;
use model::{Batch, Diagnostic};
use platform::faults::Point;
use platform::{Faults, Inbox};

use self::kept::Kept;
use super::changelog::{self, Arriving, Changelog};
use crate::formats::parquet::{FileFormat, FileWriter};
use crate::options::Options;
use crate::{Context, Need, Sink, SinkFactory};

/// A folder, with the format of its files.
pub struct FilesFactory {
    path: String,
    rolling: Rolling,
    format: FileFormat,
    changelog: Changelog,
    /// What an earlier run has left.
    restored: OnceLock<Kept>,
}

/// When a file is finished, and the next begun.
///
/// Source: Flink, `DefaultRollingPolicy`; the defaults are those of `sink.rolling-policy.*`.
#[derive(Clone, Copy, Debug)]
struct Rolling {
    /// When it has become so long.
    bytes: u64,
    /// When its first row has been in it for so long.
    interval: Duration,
    /// When it has had no row for so long.
    inactivity: Duration,
}

impl Rolling {
    fn of(options: &Options<'_>) -> Result<Self, Diagnostic> {
        Ok(Self {
            bytes: options.parsed("roll-bytes")?.unwrap_or(128 << 20).max(1),
            interval: options.duration("roll-interval")?.unwrap_or(HALF_AN_HOUR),
            inactivity: options.duration("roll-inactivity")?.unwrap_or(HALF_AN_HOUR),
        })
    }
}

const HALF_AN_HOUR: Duration = Duration::from_secs(30 * 60);
/// How long the end of a failed job waits for a write that is under way.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes that are held back for a larger write.
const HELD_BYTES: usize = 256 << 10;

impl FilesFactory {
    pub(super) fn of(connection: &Connection, arriving: &Arriving) -> Result<Self, Diagnostic> {
        let known =
            [&["path", "roll-bytes", "roll-interval", "roll-inactivity"], &changelog::OPTIONS[..]].concat();
        let options = Options::new("files", &connection.options, &known)?;
        let changelog = Changelog::of("files", &options, arriving)?;
        let format = FileFormat::of(connection)?;
        format.fits(&arriving.schema, changelog.has_kinds())?;
        Ok(Self {
            path: options.required("path")?.to_owned(),
            rolling: Rolling::of(&options)?,
            format,
            changelog,
            restored: OnceLock::new(),
        })
    }

    /// Makes the folder, and tries to write in it.
    fn make_folder(&self) -> Result<(), Diagnostic> {
        let folder = Path::new(&self.path);
        if folder.exists() && !folder.is_dir() {
            return Err(Diagnostic::user(format!("the output `{}` is not a folder", self.path)));
        }
        let probe = folder.join(".millstream-probe");
        fs::create_dir_all(folder)
            .and_then(|()| File::create(&probe))
            .and_then(|_| fs::remove_file(&probe))
            .map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &io::Error) -> Diagnostic {
        Diagnostic::user(format!("cannot write to the folder `{}`", self.path)).detail(error.to_string())
    }
}

impl SinkFactory for FilesFactory {
    fn needs(&self) -> Vec<Need> {
        vec![Need::Write(self.path.clone())]
    }
    fn can_hold_back(&self) -> bool {
        true
    }
    fn prepare(&self) -> Result<(), Diagnostic> {
        self.make_folder()?;
        for entry in fs::read_dir(&self.path).map_err(|error| self.failed(&error))? {
            let name = entry.map_err(|error| self.failed(&error))?.file_name();
            // Names with a dot in front are left over from a job that did not end.
            if !name.as_encoded_bytes().starts_with(b".") {
                return Err(Diagnostic::user(format!("the output folder `{}` is not empty", self.path))
                    .detail(format!("`{}` is in it", name.to_string_lossy()))
                    .hint("name another folder, or empty this one"));
            }
        }
        Ok(())
    }
    fn restore(&self, states: &[String], faults: &Faults) -> Result<(), Diagnostic> {
        let kept = Kept::read(states)?;
        self.make_folder()?;
        kept.bring_back(Path::new(&self.path), faults)?;
        // Set by the one restore of a job.
        self.restored.get_or_init(|| kept);
        Ok(())
    }
    fn open(&self, context: Context) -> Result<Box<dyn Sink>, Diagnostic> {
        let restored = self.restored.get();
        let number = restored.and_then(|kept| kept.numbers.get(&context.subtask)).copied().unwrap_or(0);
        // Subtasks that are not there now may be there again.
        let absent = restored.into_iter().flat_map(|kept| &kept.numbers);
        let absent = absent.filter(|(subtask, _)| context.subtask == 0 && **subtask >= context.parallelism);
        Ok(Box::new(Files {
            absent: absent.map(|(subtask, number)| (*subtask, *number)).collect(),
            closed: Vec::new(),
            prepared: VecDeque::new(),
            committed: Inbox::new(context.waker.clone()),
            committing: BTreeMap::new(),
            next_commit: 0,
            folder: Path::new(&self.path).into(),
            writer: self.format.begin(),
            is_ending: false,
            format: self.format.clone(),
            changelog: self.changelog.clone(),
            rolling: self.rolling,
            rows: None,
            number,
            file: None,
            held: Vec::new(),
            done: Inbox::new(context.waker.clone()),
            working: false,
            context,
        }))
    }
}

struct Files {
    folder: Arc<Path>,
    format: FileFormat,
    changelog: Changelog,
    rolling: Rolling,
    /// When the file under way had its first row, and its last.
    rows: Option<(Duration, Duration)>,
    /// Of the file under way, or of the next.
    number: u64,
    file: Option<Arc<File>>,
    /// Makes the bytes of the file under way.
    writer: FileWriter,
    /// A file is on its way to its end.
    is_ending: bool,
    /// Bytes of the file under way, or of the next, not yet on their way.
    held: Vec<u8>,
    done: Inbox<io::Result<Option<Arc<File>>>>,
    /// Something is under way in the I/O pool.
    working: bool,
    /// Where checkpoints are made: files that are whole, since the last barrier.
    closed: Vec<String>,
    /// Those of each barrier that is not committed, the oldest first.
    prepared: VecDeque<Vec<String>>,
    committed: Inbox<(u64, io::Result<()>)>,
    /// Those of commits that are under way, by number: until they are done a checkpoint keeps them.
    committing: BTreeMap<u64, Vec<String>>,
    next_commit: u64,
    /// The numbers of the files of subtasks that an earlier run had more.
    absent: Vec<(u32, u64)>,
    context: Context,
}

impl Files {
    fn name(&self) -> String {
        format!("part-{}-{}.{}", self.context.subtask, self.number, self.format.extension())
    }

    fn in_progress(&self) -> PathBuf {
        self.folder.join(kept::hidden(&self.name()))
    }

    fn settle(&mut self) -> Result<(), Diagnostic> {
        while let Some((commit, committed)) = self.committed.take() {
            self.committing.remove(&commit);
            committed.map_err(|error| {
                Diagnostic::external(format!("cannot show what is written in `{}`", self.folder.display()))
                    .detail(error.to_string())
            })?;
        }
        let Some(done) = self.done.take() else { return Ok(()) };
        self.working = false;
        self.file = done.map_err(|error| {
            Diagnostic::external(format!("cannot write `{}`", self.folder.join(self.name()).display()))
                .detail(error.to_string())
        })?;
        if self.file.is_none() {
            // It was finished: the next file has the next number.
            if self.context.checkpoints {
                self.closed.push(self.name());
            }
            self.number += 1;
            self.is_ending = false;
        }
        Ok(())
    }

    /// Ends the file: its last bytes go, and it gets its name.
    fn end(&mut self) -> Result<(), Diagnostic> {
        let writer = mem::replace(&mut self.writer, self.format.begin());
        writer.finish(&mut self.held)?;
        self.rows = None;
        self.is_ending = true;
        self.send(true);
        Ok(())
    }

    /// Sends on what is held back; with `finish` the file gets its name.
    fn send(&mut self, finish: bool) {
        let bytes = mem::take(&mut self.held);
        let (file, path) = (self.file.take(), self.in_progress());
        let named = finish.then(|| self.folder.join(self.name()));
        let (folder, checkpoints) = (Arc::clone(&self.folder), self.context.checkpoints);
        let faults = self.context.platform.faults.clone();
        self.working = true;
        self.context.platform.io.submit(&self.done, move || {
            let file = match file {
                Some(file) => file,
                None => Arc::new(File::create(&path)?),
            };
            faults.pass(Point::SinkWrite)?;
            (&*file).write_all(&bytes)?;
            let Some(named) = named else { return Ok(Some(file)) };
            faults.pass(Point::SinkSync)?;
            file.sync_all()?;
            faults.pass(Point::SinkEnd)?;
            // Another sink of the same folder would be overwritten without a word.
            if named.exists() {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    "another sink has written this file",
                ));
            }
            if !checkpoints {
                fs::rename(&path, named)?;
            }
            File::open(folder)?.sync_all()?;
            faults.pass(Point::SinkEnded)?;
            Ok(None)
        });
    }

    /// No file is under way, but for one that is being ended.
    fn is_empty(&self) -> bool {
        self.writer.bytes() == 0 && self.held.is_empty() && self.file.is_none()
    }

    fn is_full(&self) -> bool {
        self.writer.bytes() >= self.rolling.bytes
    }

    /// When the file under way is finished, by the clock.
    fn rolls_at(&self) -> Option<Duration> {
        let (first, last) = self.rows?;
        Some(first.saturating_add(self.rolling.interval).min(last.saturating_add(self.rolling.inactivity)))
    }

    fn is_due(&self) -> bool {
        self.rolls_at().is_some_and(|at| at <= self.context.platform.clock.now())
    }
}

impl Sink for Files {
    fn poll_ready(&mut self) -> Poll<Result<(), Diagnostic>> {
        if let Err(error) = self.settle() {
            return Poll::Ready(Err(error));
        }
        if !self.working && (self.is_full() || self.is_due()) {
            if let Err(error) = self.end() {
                return Poll::Ready(Err(error));
            }
        } else if !self.working && self.held.len() >= HELD_BYTES {
            self.send(false);
        }
        // A full file is finished before its next row is taken.
        if self.held.len() >= HELD_BYTES || self.is_full() { Poll::Pending } else { Poll::Ready(Ok(())) }
    }
    fn write(&mut self, batch: &Batch) -> Result<(), Diagnostic> {
        let (rows, kinds) = (self.changelog.rows(batch)?, self.changelog.has_kinds());
        if rows.num_rows() > 0 {
            let now = self.context.platform.clock.now();
            self.rows = Some((self.rows.map_or(now, |(first, _)| first), now));
        }
        self.writer.add(&rows, kinds, &mut self.held)
    }
    fn poll_flush(&mut self) -> Poll<Result<(), Diagnostic>> {
        if let Err(error) = self.settle() {
            return Poll::Ready(Err(error));
        }
        if !self.working && self.is_due() {
            if let Err(error) = self.end() {
                return Poll::Ready(Err(error));
            }
        } else if !self.working && !self.held.is_empty() {
            self.send(false);
        }
        if self.held.is_empty() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
    fn wakes_at(&self) -> Option<Duration> {
        // What is under way wakes it by itself.
        self.rolls_at().filter(|_| !self.working)
    }
    fn poll_finish(&mut self) -> Poll<Result<(), Diagnostic>> {
        if let Err(error) = self.settle() {
            return Poll::Ready(Err(error));
        }
        if self.working {
            return Poll::Pending;
        }
        if self.is_empty() {
            // What is written is outside when it is committed.
            let is_outside = self.closed.is_empty() && self.prepared.is_empty() && self.committing.is_empty();
            return if is_outside { Poll::Ready(Ok(())) } else { Poll::Pending };
        }
        self.end().map_or_else(|error| Poll::Ready(Err(error)), |()| Poll::Pending)
    }
    fn poll_prepare(&mut self) -> Poll<Result<Option<String>, Diagnostic>> {
        if let Err(error) = self.settle() {
            return Poll::Ready(Err(error));
        }
        if self.working {
            return Poll::Pending;
        }
        if !self.is_empty() {
            return self.end().map_or_else(|error| Poll::Ready(Err(error)), |()| Poll::Pending);
        }
        self.prepared.push_back(mem::take(&mut self.closed));
        let mut kept = Kept { numbers: self.absent.iter().copied().collect(), ..Kept::default() };
        kept.numbers.insert(self.context.subtask, self.number);
        kept.pending = self.committing.values().chain(&self.prepared).flatten().cloned().collect();
        Poll::Ready(Ok(Some(kept.to_text())))
    }
    fn commit(&mut self, prepared: usize) {
        let names: Vec<String> = self.prepared.drain(..prepared.min(self.prepared.len())).flatten().collect();
        if names.is_empty() {
            return;
        }
        let (folder, commit) = (Arc::clone(&self.folder), self.next_commit);
        self.next_commit += 1;
        self.committing.insert(commit, names.clone());
        let faults = self.context.platform.faults.clone();
        let show = move || {
            faults.pass(Point::SinkCommit)?;
            for name in &names {
                if faults.pass_or_skip(Point::SinkRename)? {
                    continue;
                }
                if !kept::finish(&folder, name)? {
                    return Err(io::Error::new(io::ErrorKind::NotFound, format!("`{name}` is gone")));
                }
            }
            faults.pass(Point::SinkSyncFolder)?;
            File::open(&folder)?.sync_all()?;
            faults.pass(Point::SinkCommitted)
        };
        self.context.platform.io.submit(&self.committed, move || (commit, show()));
    }
}

impl Drop for Files {
    /// What a failed job leaves is no result.
    fn drop(&mut self) {
        let clock = &self.context.platform.clock;
        let patience = clock.now() + PATIENCE;
        // A write that is under way would make the file anew.
        while self.working && !clock.is_simulated() && clock.now() < patience {
            match self.done.take() {
                Some(_) => self.working = false,
                None => clock.sleep(Duration::from_millis(1)),
            }
        }
        if (self.is_ending || !self.is_empty()) && !self.working {
            // Nothing can be done about a file that cannot be removed; its name says what it is.
            drop(fs::remove_file(self.in_progress()));
        }
    }
}
