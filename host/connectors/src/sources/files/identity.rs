//! Whether a file is still the one that was found: lines of two files, or of two contents of one, are never mixed.
//!
//! What is appended is left, so that a longer file is the same if it begins as it did. All else that is done to a file
//! while it is read is an error.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::OnceLock;

use model::Diagnostic;
use xxhash_rust::xxh3::xxh3_64;

use super::fill;

/// So many bytes from its beginning on tell a file from another.
const HEAD_BYTES: u64 = 4_096;

/// What a file was when it was found.
#[derive(Debug)]
pub(super) struct Identity {
    inode: (u64, u64),
    bytes: u64,
    /// In seconds and nanoseconds.
    modified: (i64, i64),
    /// Of its first bytes, when it was first read.
    head: OnceLock<u64>,
}

/// A hash of the first bytes of a file that counts so long.
pub(super) fn head_of(file: &File, length: u64) -> io::Result<u64> {
    let mut bytes = Vec::new();
    fill(&mut bytes, usize::try_from(length.min(HEAD_BYTES)).unwrap_or_default(), file, 0)?;
    Ok(xxh3_64(&bytes))
}

/// What is wrong with a file of which an earlier run has read some, if it does not begin as it did.
pub(super) fn other_head(path: &str, length: u64, head: Option<u64>) -> Option<Diagnostic> {
    let now = File::open(path).and_then(|file| head_of(&file, length));
    match (head, now) {
        (None, _) => None,
        (Some(head), Ok(now)) if head == now => None,
        (Some(_), Ok(_)) => Some(
            Diagnostic::user(format!("`{path}` is another file than it was"))
                .detail("it does not begin as it did, and the job was in the middle of it when its checkpoint was made")
                .hint(STAY),
        ),
        (Some(_), Err(error)) => {
            Some(Diagnostic::user(format!("cannot read `{path}`")).detail(error.to_string()))
        }
    }
}

pub(super) const STAY: &str = "an input file must stay as it is until the job has read it";

impl Identity {
    pub(super) fn of(about: &Metadata) -> Self {
        Self {
            inode: (about.dev(), about.ino()),
            bytes: about.len(),
            modified: (about.mtime(), about.mtime_nsec()),
            head: OnceLock::new(),
        }
    }

    /// How an earlier run has seen it begin, for which the file has been looked at.
    pub(super) fn began(&self, head: Option<u64>) {
        head.into_iter().for_each(|head| {
            self.head.get_or_init(|| head);
        });
    }

    /// How it begins, if it has been read.
    pub(super) fn head(&self) -> Option<u64> {
        self.head.get().copied()
    }

    /// Whether what has been read of the open file up to now is of the file that was found, which counts so long.
    ///
    /// # Errors
    /// What has been done to it.
    pub(super) fn check(&self, path: &Path, file: &File, length: u64) -> Result<(), Diagnostic> {
        let about = self.check_place(path, file)?;
        let is_touched = (about.mtime(), about.mtime_nsec()) != self.modified;
        if is_touched && about.len() == self.bytes {
            return Err(changed(path, "its length is what it was, and it has been written to"));
        }
        if !is_touched && self.head.get().is_some() {
            return Ok(());
        }
        let head = head_of(file, length).map_err(|error| unread(path, &error))?;
        match *self.head.get_or_init(|| head) == head {
            true => Ok(()),
            false => Err(changed(path, "it does not begin as it did")),
        }
    }

    /// The same, of a file that cannot be appended to.
    ///
    /// # Errors
    /// What has been done to it.
    pub(super) fn check_whole(&self, path: &Path, file: &File) -> Result<(), Diagnostic> {
        let about = self.check_place(path, file)?;
        if (about.mtime(), about.mtime_nsec()) != self.modified || about.len() != self.bytes {
            return Err(changed(path, "it has been written to"));
        }
        if self.head.get().is_none() {
            let head = head_of(file, self.bytes).map_err(|error| unread(path, &error))?;
            self.head.get_or_init(|| head);
        }
        Ok(())
    }

    fn check_place(&self, path: &Path, file: &File) -> Result<Metadata, Diagnostic> {
        let about = file.metadata().map_err(|error| unread(path, &error))?;
        if (about.dev(), about.ino()) != self.inode {
            return Err(Diagnostic::external(format!(
                "`{}` was replaced by another file while it was read",
                path.display()
            ))
            .hint(STAY));
        }
        if about.len() < self.bytes {
            return Err(Diagnostic::external(format!(
                "`{}` became shorter while it was read",
                path.display()
            ))
            .detail(format!("it had {} bytes, now it ends at {}", self.bytes, about.len()))
            .hint(STAY));
        }
        Ok(about)
    }
}

fn changed(path: &Path, how: &str) -> Diagnostic {
    Diagnostic::external(format!("`{}` was changed while it was read", path.display())).detail(how).hint(STAY)
}

pub(super) fn unread(path: &Path, error: &io::Error) -> Diagnostic {
    Diagnostic::external(format!("cannot read `{}`", path.display())).detail(error.to_string())
}
