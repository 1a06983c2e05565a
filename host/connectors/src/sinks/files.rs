//! Files in a folder: `part-<subtask>-<number>.<format>`.
//!
//! A file under way has a dot in front; it is given its name when it is whole and on the disk.

#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::{self, Write};
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use model::job_graph::Connection;
use model::{Batch, Diagnostic};
use platform::Inbox;

use super::changelog::{self, Arriving, Changelog};
use crate::formats::Encoding;
use crate::options::Options;
use crate::{Context, Need, Sink, SinkFactory};

/// A folder, with the format of its files.
pub struct FilesFactory {
    path: String,
    /// A file that has become so long is finished, and the next begun.
    roll_bytes: u64,
    encoding: Encoding,
    changelog: Changelog,
}

/// As Flink's default rolling policy.
const ROLL_BYTES: u64 = 128 << 20;
/// How long the end of a failed job waits for a write that is under way.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes that are held back for a larger write.
const HELD_BYTES: usize = 256 << 10;

impl FilesFactory {
    pub(super) fn of(connection: &Connection, arriving: &Arriving) -> Result<Self, Diagnostic> {
        let known = [&["path", "roll-bytes"], &changelog::OPTIONS[..]].concat();
        let options = Options::new("files", &connection.options, &known)?;
        let changelog = Changelog::of("files", &options, arriving)?;
        let encoding = Encoding::of(connection, "json")?;
        encoding.fits(&arriving.schema, changelog.has_kinds())?;
        Ok(Self {
            path: options.required("path")?.to_owned(),
            roll_bytes: options.parsed("roll-bytes")?.unwrap_or(ROLL_BYTES).max(1),
            encoding,
            changelog,
        })
    }
}

impl SinkFactory for FilesFactory {
    fn needs(&self) -> Vec<Need> {
        vec![Need::Write(self.path.clone())]
    }
    fn prepare(&self) -> Result<(), Diagnostic> {
        let failed = |error: io::Error| {
            Diagnostic::user(format!("cannot write to the folder `{}`", self.path)).detail(error.to_string())
        };
        let folder = Path::new(&self.path);
        if folder.exists() && !folder.is_dir() {
            return Err(Diagnostic::user(format!("the output `{}` is not a folder", self.path)));
        }
        fs::create_dir_all(folder).map_err(failed)?;
        for entry in fs::read_dir(folder).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            // Names with a dot in front are left over from a job that did not end.
            if !name.as_encoded_bytes().starts_with(b".") {
                return Err(Diagnostic::user(format!("the output folder `{}` is not empty", self.path))
                    .detail(format!("`{}` is in it", name.to_string_lossy()))
                    .hint("name another folder, or empty this one"));
            }
        }
        let probe = folder.join(".millstream-probe");
        File::create(&probe).and_then(|_| fs::remove_file(&probe)).map_err(failed)
    }
    fn open(&self, context: Context) -> Result<Box<dyn Sink>, Diagnostic> {
        Ok(Box::new(Files {
            folder: Path::new(&self.path).into(),
            encoding: self.encoding.clone(),
            changelog: self.changelog.clone(),
            roll_bytes: self.roll_bytes,
            number: 0,
            file: None,
            file_bytes: 0,
            held: Vec::new(),
            done: Inbox::new(context.waker.clone()),
            working: false,
            context,
        }))
    }
}

struct Files {
    folder: Arc<Path>,
    encoding: Encoding,
    changelog: Changelog,
    roll_bytes: u64,
    /// Of the file under way, or of the next.
    number: u64,
    file: Option<Arc<File>>,
    /// Bytes of the file under way, those that are held back too.
    file_bytes: u64,
    /// Whole rows, not yet on their way.
    held: Vec<u8>,
    done: Inbox<io::Result<Option<Arc<File>>>>,
    /// Something is under way in the I/O pool.
    working: bool,
    context: Context,
}

impl Files {
    fn name(&self) -> String {
        format!("part-{}-{}.{}", self.context.subtask, self.number, self.encoding.extension())
    }

    fn in_progress(&self) -> PathBuf {
        self.folder.join(format!(".{}.inprogress", self.name()))
    }

    fn settle(&mut self) -> Result<(), Diagnostic> {
        let Some(done) = self.done.take() else { return Ok(()) };
        self.working = false;
        self.file = done.map_err(|error| {
            Diagnostic::external(format!("cannot write `{}`", self.folder.join(self.name()).display()))
                .detail(error.to_string())
        })?;
        if self.file.is_none() {
            // It was finished: the next file has the next number.
            self.number += 1;
            self.file_bytes = 0;
        }
        Ok(())
    }

    /// Sends on what is held back; with `finish` the file gets its name.
    fn send(&mut self, finish: bool) {
        let bytes = mem::take(&mut self.held);
        let (file, path) = (self.file.take(), self.in_progress());
        let named = finish.then(|| self.folder.join(self.name()));
        let folder = Arc::clone(&self.folder);
        self.working = true;
        self.context.platform.io.submit(&self.done, move || {
            let file = match file {
                Some(file) => file,
                None => Arc::new(File::create(&path)?),
            };
            (&*file).write_all(&bytes)?;
            let Some(named) = named else { return Ok(Some(file)) };
            file.sync_all()?;
            // Another sink of the same folder would be overwritten without a word.
            if named.exists() {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    "another sink has written this file",
                ));
            }
            fs::rename(&path, named)?;
            File::open(folder)?.sync_all()?;
            Ok(None)
        });
    }

    fn is_full(&self) -> bool {
        self.file_bytes >= self.roll_bytes
    }
}

impl Sink for Files {
    fn poll_ready(&mut self) -> Poll<Result<(), Diagnostic>> {
        if let Err(error) = self.settle() {
            return Poll::Ready(Err(error));
        }
        if !self.working && (self.held.len() >= HELD_BYTES || self.is_full()) {
            self.send(self.is_full());
        }
        // A full file is finished before its next row is taken.
        if self.held.len() >= HELD_BYTES || self.is_full() { Poll::Pending } else { Poll::Ready(Ok(())) }
    }
    fn write(&mut self, batch: &Batch) -> Result<(), Diagnostic> {
        let before = self.held.len();
        let (rows, kinds) = (self.changelog.rows(batch)?, self.changelog.has_kinds());
        self.encoding.encode(&rows, kinds, "", self.file_bytes == 0, &mut self.held)?;
        self.file_bytes += (self.held.len() - before) as u64;
        Ok(())
    }
    fn poll_flush(&mut self) -> Poll<Result<(), Diagnostic>> {
        if let Err(error) = self.settle() {
            return Poll::Ready(Err(error));
        }
        if !self.working && !self.held.is_empty() {
            self.send(false);
        }
        if self.held.is_empty() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
    fn poll_finish(&mut self) -> Poll<Result<(), Diagnostic>> {
        if let Err(error) = self.settle() {
            return Poll::Ready(Err(error));
        }
        if self.working {
            return Poll::Pending;
        }
        if self.file_bytes == 0 {
            return Poll::Ready(Ok(()));
        }
        self.send(true);
        Poll::Pending
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
        if self.file_bytes > 0 && !self.working {
            // Nothing can be done about a file that cannot be removed; its name says what it is.
            drop(fs::remove_file(self.in_progress()));
        }
    }
}
