//! How far files have been read: ranges of them, in bytes or, where a format counts so, in rows.
//!
//! A range is done when all records that begin in it have been given. So what subtasks say at different
//! moments adds up: what none of them has done is still to be read, by whoever it is.

use std::collections::BTreeMap;

use model::Diagnostic;
use serde::{Deserialize, Serialize};

/// Byte ranges `[start, end)`, in order and apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// All of so many bytes.
    pub(super) fn whole(bytes: u64) -> Self {
        Self((bytes > 0).then_some((0, bytes)).into_iter().collect())
    }

    fn add(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        // Those that it touches become one with it.
        let from = self.0.partition_point(|range| range.1 < start);
        let to = from + self.0[from..].partition_point(|range| range.0 <= end);
        let first = self.0[from..to].first().map_or(start, |range| range.0.min(start));
        let last = self.0[from..to].last().map_or(end, |range| range.1.max(end));
        self.0.splice(from..to, [(first, last)]);
    }

    /// What of so many bytes is in none of them.
    pub(super) fn left_of(&self, bytes: u64) -> Self {
        let ends = self.0.iter().map(|range| range.0).chain([bytes]);
        let starts = [0].into_iter().chain(self.0.iter().map(|range| range.1));
        Self(starts.zip(ends).filter(|(start, end)| start < end).collect())
    }

    /// How many bytes they have together.
    pub(super) fn bytes(&self) -> u64 {
        self.0.iter().map(|(start, end)| end - start).sum()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().copied()
    }
}

/// What of which files has been read, by path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress(BTreeMap<String, OfFile>);

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OfFile {
    /// How long it was when the job began; the first subtask says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    done: Ranges,
}

impl Progress {
    /// What all subtasks have read together.
    fn read(positions: &[String]) -> Result<Self, Diagnostic> {
        let mut all = Self::default();
        for position in positions {
            let Self(files) = serde_json::from_str(position).map_err(|error| {
                Diagnostic::user("a checkpoint says no position in files").detail(error.to_string())
            })?;
            for (path, OfFile { bytes, done }) in files {
                let file = all.0.entry(path).or_default();
                file.bytes = file.bytes.or(bytes);
                done.iter().for_each(|(start, end)| file.done.add(start, end));
            }
        }
        Ok(all)
    }

    /// The same, of files that are there still: `now` gives the length of each, `misfit` what is wrong with one
    /// whose length was another.
    pub(super) fn restored(
        positions: &[String],
        now: impl Fn(&str) -> Option<u64>,
        misfit: impl Fn(&str, u64, u64) -> Option<Diagnostic>,
    ) -> Result<Self, Diagnostic> {
        let progress = Self::read(positions)?;
        for (path, length, done) in progress.files() {
            match now(path) {
                // What has been read to its end is not asked for again.
                None if done.left_of(length).bytes() == 0 => {}
                None => {
                    return Err(Diagnostic::user(format!("`{path}` is not there any more"))
                        .detail("the job was in the middle of it when its checkpoint was made"));
                }
                Some(now) => misfit(path, length, now).map_or(Ok(()), Err)?,
            }
        }
        Ok(progress)
    }

    /// How long a file of this length counts, and what of it is to be read: after an earlier run as long as it was
    /// then, and what that has left.
    pub(super) fn to_read(restored: Option<&Self>, path: &str, length: u64) -> (u64, Ranges) {
        match restored.and_then(|progress| progress.of(path)) {
            Some((length, done)) => (length, done.left_of(length)),
            None => (length, Ranges::whole(length)),
        }
    }

    /// What a subtask says that it has read before it has read anything: by the first subtask the files, by path and
    /// length, so that a later run knows how long they were.
    pub(super) fn nothing_read(
        subtask: u32,
        restored: Option<&Self>,
        files: impl Iterator<Item = (String, u64)>,
    ) -> Self {
        let mut progress = Self::default();
        for (path, length) in files.filter(|_| subtask == 0) {
            let before = restored.and_then(|before| before.of(&path));
            let (length, done) =
                before.map_or((length, Ranges::default()), |(length, done)| (length, done.clone()));
            progress.add_file(&path, length, done);
        }
        progress
    }

    pub(super) fn to_text(&self) -> String {
        // Texts and numbers are all that is in it.
        serde_json::to_string(self).unwrap_or_default()
    }

    fn add_file(&mut self, path: &str, bytes: u64, done: Ranges) {
        self.0.insert(path.to_owned(), OfFile { bytes: Some(bytes), done });
    }

    /// All records that begin in this range have been given.
    pub(super) fn done(&mut self, path: &str, start: u64, end: u64) {
        if start < end {
            self.0.entry(path.to_owned()).or_default().done.add(start, end);
        }
    }

    /// How long a file was, and what of it has been read.
    fn of(&self, path: &str) -> Option<(u64, &Ranges)> {
        let file = self.0.get(path)?;
        Some((file.bytes?, &file.done))
    }

    /// All files: how long they were, and what of them has been read.
    fn files(&self) -> impl Iterator<Item = (&String, u64, &Ranges)> {
        self.0.iter().filter_map(|(path, file)| Some((path, file.bytes?, &file.done)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranges_are_the_bytes_that_were_added(added in prop::collection::vec((0..40u64, 0..40u64), 0..12)) {
            let mut ranges = Ranges::default();
            let mut bytes = [false; 40];
            for (start, end) in added {
                ranges.add(start, end);
                (start..end).for_each(|byte| bytes[byte as usize] = true);
            }
            let is_in = |ranges: &Ranges, byte: u64| ranges.iter().any(|(start, end)| (start..end).contains(&byte));
            let left = ranges.left_of(40);
            for byte in 0..40 {
                prop_assert_eq!(is_in(&ranges, byte), bytes[byte as usize]);
                prop_assert_eq!(is_in(&left, byte), !bytes[byte as usize]);
            }
            prop_assert!(ranges.0.windows(2).all(|pair| pair[0].1 < pair[1].0), "{:?}", ranges);
            prop_assert_eq!(left.bytes() + ranges.bytes(), 40);
        }
    }
}
