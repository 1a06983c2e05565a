//! The files of one subtask in a folder to which new ones come.
//!
//! A file is one subtask's, by its name, so that subtasks need not know of each other and each finds its own, however
//! many there are. A name is read once. The folder is looked through again and again, in the I/O pool.
//!
//! Source: Flink, `ContinuousFileSplitEnumerator`, where one enumerator knows all names.

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use model::Diagnostic;
use platform::faults::Point;
use platform::{Inbox, Platform};

use super::find::{InputFile, find_one, find_wanted};
use super::progress::{FileName, Progress};
use crate::{Context, FoundSplits};

/// How long a file counts, and its splits that are to be read.
pub(super) type Cut<S> = Box<dyn Fn(InputFile) -> Result<(u64, VecDeque<S>), Diagnostic> + Send + Sync>;

/// So many files wait at most; others are found when these have been read.
const WAITING_MAX: usize = 1_000;

/// What a subtask has found.
pub(super) struct Watched<S> {
    looker: Arc<Looker<S>>,
    /// The names of all files that it has found; none = they are away, looking.
    known: Option<BTreeSet<FileName>>,
    looks: Inbox<Looked<S>>,
    next_look: Duration,
    interval: Duration,
    /// There are more than may wait.
    is_behind: bool,
    waiting: VecDeque<Found<S>>,
    current: Option<Found<S>>,
    /// The same, for event time.
    splits: Arc<FoundSplits>,
}

/// Looks for files, elsewhere.
struct Looker<S> {
    pattern: String,
    subtask: u32,
    parallelism: u32,
    cut: Cut<S>,
}

/// A file that is to be read.
struct Found<S> {
    path: String,
    /// How long it counts.
    length: u64,
    /// What of it is to be read.
    left: VecDeque<S>,
}

/// The names come back from looking, with what has been found.
type Looked<S> = (BTreeSet<FileName>, Result<Look<S>, Diagnostic>);

/// What has been found by looking once.
struct Look<S> {
    found: Vec<Found<S>>,
    is_behind: bool,
}

impl<S> Looker<S> {
    /// The subtask's files that are not known yet, which then are.
    fn look(&self, known: &mut BTreeSet<FileName>) -> Result<Look<S>, Diagnostic> {
        let mut is_new = |path: &str| {
            let name = FileName::of(path);
            name.is_of(self.subtask, self.parallelism) && !known.contains(&name)
        };
        let paths: Vec<PathBuf> = find_wanted(&self.pattern, &mut is_new)?;
        let mut look = Look { found: Vec::new(), is_behind: false };
        for path in paths {
            if look.found.len() == WAITING_MAX {
                look.is_behind = true;
                break;
            }
            let path_text = path.to_string_lossy().into_owned();
            // One without anything in it may be one that is about to be written.
            let Some(file) = find_one(path)? else { continue };
            let (length, left) = (self.cut)(file)?;
            known.insert(FileName::of(&path_text));
            look.found.push(Found { path: path_text, length, left });
        }
        Ok(look)
    }
}

impl<S: Send + 'static> Watched<S> {
    /// Those of a subtask that knows these already; it looks at once.
    pub(super) fn new(
        pattern: &str,
        interval: Duration,
        known: BTreeSet<FileName>,
        cut: Cut<S>,
        context: &Context,
    ) -> Self {
        let (subtask, parallelism) = (context.subtask, context.parallelism);
        Self {
            looker: Arc::new(Looker { pattern: pattern.to_owned(), subtask, parallelism, cut }),
            known: Some(known),
            looks: Inbox::new(context.waker.clone()),
            next_look: context.platform.clock.now(),
            interval,
            is_behind: false,
            waiting: VecDeque::new(),
            current: None,
            splits: Arc::default(),
        }
    }

    /// Takes what has been found, and looks again when it is time. More than may wait is looked for when nothing
    /// waits.
    pub(super) fn look(&mut self, platform: &Platform) -> Result<(), Diagnostic> {
        if let Some((known, look)) = self.looks.take() {
            self.known = Some(known);
            self.next_look = platform.clock.now().saturating_add(self.interval);
            let Look { found, is_behind } = look?;
            self.is_behind = is_behind;
            self.splits.found(found.iter().map(|file| format!("`{}`", file.path)), is_behind);
            self.waiting.extend(found);
        }
        let is_time = match self.is_behind {
            true => self.waiting.is_empty(),
            false => self.next_look <= platform.clock.now(),
        };
        if is_time && let Some(mut known) = self.known.take() {
            let (looker, faults) = (Arc::clone(&self.looker), platform.faults.clone());
            platform.io.submit(&self.looks, move || {
                let look = faults.pass(Point::SourceLook).map_err(|error| {
                    Diagnostic::external(format!("cannot look for new files in `{}`", looker.pattern))
                        .detail(error.to_string())
                });
                let look = look.and_then(|()| looker.look(&mut known));
                (known, look)
            });
        }
        Ok(())
    }

    /// The next split; the one before has been read to its end.
    pub(super) fn take(&mut self, progress: &mut Progress) -> Option<S> {
        loop {
            if let Some(current) = &mut self.current {
                if let Some(split) = current.left.pop_front() {
                    return Some(split);
                }
                progress.finish(&current.path);
            }
            self.splits.take();
            self.current = self.waiting.pop_front();
            let current = self.current.as_ref()?;
            progress.begin_new(&current.path, current.length);
        }
    }

    pub(super) fn splits(&self) -> Arc<FoundSplits> {
        Arc::clone(&self.splits)
    }

    /// When it is to look again; what is under way wakes the subtask by itself.
    pub(super) fn wakes_at(&self) -> Option<Duration> {
        (self.known.is_some() && !self.is_behind).then_some(self.next_look)
    }
}
