//! What a checkpoint keeps of part files, and how a folder is brought back to it.
//!
//! Source: Flink, `FileSink`: files are in progress, then pending, then finished by being renamed, which can be
//! done again.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use model::Diagnostic;
use platform::Faults;
use platform::faults::Point;
use serde::{Deserialize, Serialize};

/// What a subtask keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kept {
    /// The number of the next file: of this subtask, and by the first of those that an earlier run had more.
    pub(super) numbers: BTreeMap<u32, u64>,
    /// Files, by their later names, that are whole and on the disk, and not to be seen yet.
    pub(super) pending: Vec<String>,
}

impl Kept {
    pub(super) fn to_text(&self) -> String {
        // Texts and numbers are all that is in it.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// What all subtasks have kept together.
    pub(super) fn read(states: &[String]) -> Result<Self, Diagnostic> {
        let mut all = Self::default();
        for state in states {
            let kept: Self = serde_json::from_str(state).map_err(|error| {
                Diagnostic::user("a checkpoint says nothing of part files").detail(error.to_string())
            })?;
            all.numbers.extend(kept.numbers);
            all.pending.extend(kept.pending);
        }
        Ok(all)
    }

    /// Brings a folder back to where it was: what was pending is finished, what came later is not seen any more,
    /// what was in progress goes. Doing it again changes nothing.
    ///
    /// # Errors
    /// If a file that was pending is not there under either name, or the folder cannot be changed.
    pub(super) fn bring_back(&self, folder: &Path, faults: &Faults) -> Result<(), Diagnostic> {
        let failed = |error: io::Error| {
            Diagnostic::external(format!("cannot bring the folder `{}` back", folder.display()))
                .detail(error.to_string())
        };
        faults.pass(Point::SinkRestore).map_err(failed)?;
        for name in &self.pending {
            if !finish(folder, name).map_err(failed)? {
                let path = folder.join(name);
                return Err(Diagnostic::user(format!("`{}` is not there any more", path.display()))
                    .detail("the checkpoint counts its rows as written")
                    .hint("put it back, or begin without the checkpoint in another folder"));
            }
        }
        for entry in fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if is_in_progress(&name) {
                faults.pass(Point::SinkClear).map_err(failed)?;
                fs::remove_file(entry.path()).map_err(failed)?;
            } else if let Some((subtask, number)) = part(&name)
                && number >= self.numbers.get(&subtask).copied().unwrap_or(0)
            {
                faults.pass(Point::SinkClear).map_err(failed)?;
                // Its rows come again; whoever wants to compare finds it.
                fs::rename(entry.path(), folder.join(format!(".superseded-{name}"))).map_err(failed)?;
            }
        }
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        faults.pass(Point::SinkRestored).map_err(failed)
    }
}

/// The name of a file that is not to be seen yet.
pub(super) fn hidden(name: &str) -> String {
    format!(".{name}.inprogress")
}

fn is_in_progress(name: &str) -> bool {
    name.starts_with(".part-") && name.ends_with(".inprogress")
}

/// The subtask and number of a part's name.
fn part(name: &str) -> Option<(u32, u64)> {
    let (stem, _) = name.strip_prefix("part-")?.split_once('.')?;
    let (subtask, number) = stem.split_once('-')?;
    Some((subtask.parse().ok()?, number.parse().ok()?))
}

/// Gives a pending file its name, if it has not got it yet. Whether it is there.
pub(super) fn finish(folder: &Path, name: &str) -> io::Result<bool> {
    let (from, to) = (folder.join(hidden(name)), folder.join(name));
    match (from.try_exists()?, to.try_exists()?) {
        (true, false) => fs::rename(from, to).map(|()| true),
        (true, true) => {
            Err(io::Error::new(io::ErrorKind::AlreadyExists, "another sink has written this file"))
        }
        (false, is_there) => Ok(is_there),
    }
}
