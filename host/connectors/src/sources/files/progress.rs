//! How far files have been read: ranges of them, in bytes or, where a format counts so, in rows.
//!
//! A range is done when all records that begin in it have been given. So what subtasks say at different
//! moments adds up: what none of them has done is still to be read, by whoever it is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use model::Diagnostic;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

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

/// A file's path as a number of 80 bits: of a million files two are taken for one once in 10¹² times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileName(u128);

impl FileName {
    /// How many digits it has as a text.
    const DIGITS: usize = 20;

    pub(super) fn of(path: &str) -> Self {
        Self(xxh3_128(path.as_bytes()) >> (128 - 4 * Self::DIGITS))
    }

    /// Whether a file that is read by one subtask is this one's.
    pub(super) fn is_of(self, subtask: u32, parallelism: u32) -> bool {
        self.0 % u128::from(parallelism.max(1)) == u128::from(subtask)
    }
}

/// Files that have been read to their end, of which nothing else is to be known: the digits of their names, one after
/// the other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Finished(String);

impl Finished {
    fn add(&mut self, name: FileName) {
        self.0.push_str(&format!("{:0width$x}", name.0, width = FileName::DIGITS));
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn names(&self) -> Result<BTreeSet<FileName>, String> {
        let digits = self.0.as_bytes().chunks(FileName::DIGITS);
        digits
            .map(|digits| {
                let text = str::from_utf8(digits).map_err(|error| error.to_string())?;
                let number = u128::from_str_radix(text, 16).map_err(|error| error.to_string())?;
                if digits.len() == FileName::DIGITS {
                    Ok(FileName(number))
                } else {
                    Err("digits are missing".into())
                }
            })
            .collect()
    }
}

/// What of which files has been read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Progress {
    /// By path.
    files: BTreeMap<String, OfFile>,
    #[serde(default, skip_serializing_if = "Finished::is_empty")]
    finished: Finished,
}

/// The same, by reference.
#[derive(Serialize)]
struct Position<'a> {
    files: &'a BTreeMap<String, OfFile>,
    #[serde(skip_serializing_if = "Finished::is_empty")]
    finished: &'a Finished,
}

/// What all subtasks of an earlier run have read together.
#[derive(Debug, Default)]
pub(super) struct Restored {
    files: BTreeMap<String, OfFile>,
    finished: BTreeSet<FileName>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OfFile {
    /// How long it was when the job began; the first subtask says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    /// A hash of its first bytes, where it has been read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    head: Option<u64>,
    done: Ranges,
}

impl Restored {
    /// What the positions say, of files that are there still: `now` gives the length of each, `misfit` what is wrong
    /// with one that was so long, is now so long, and of which it is known how it began.
    pub(super) fn of(
        positions: &[String],
        now: impl Fn(&str) -> Option<u64>,
        misfit: impl Fn(&str, (u64, u64), Option<u64>) -> Option<Diagnostic>,
    ) -> Result<Self, Diagnostic> {
        let all = Self::read(positions)?;
        for (path, length, done) in all.files() {
            match now(path) {
                // What has been read to its end is not asked for again.
                _ if all.finished.contains(&FileName::of(path)) => {}
                None if done.left_of(length).bytes() == 0 => {}
                None => {
                    return Err(Diagnostic::user(format!("`{path}` is not there any more"))
                        .detail("the job was in the middle of it when its checkpoint was made"));
                }
                Some(now) => misfit(path, (length, now), all.head(path)).map_or(Ok(()), Err)?,
            }
        }
        Ok(all)
    }

    fn read(positions: &[String]) -> Result<Self, Diagnostic> {
        let none = |why: String| Diagnostic::user("a checkpoint says no position in files").detail(why);
        let mut all = Self::default();
        for position in positions {
            let Progress { files, finished } =
                serde_json::from_str(position).map_err(|error| none(error.to_string()))?;
            for (path, OfFile { bytes, head, done }) in files {
                let file = all.files.entry(path).or_default();
                file.bytes = file.bytes.or(bytes);
                file.head = file.head.or(head);
                done.iter().for_each(|(start, end)| file.done.add(start, end));
            }
            all.finished.extend(finished.names().map_err(none)?);
        }
        Ok(all)
    }

    /// How long a file of this length counts, and what of it is to be read: after an earlier run as long as it was
    /// then, and what that has left.
    pub(super) fn to_read(&self, path: &str, length: u64) -> (u64, Ranges) {
        match self.of_file(path) {
            _ if self.finished.contains(&FileName::of(path)) => (length, Ranges::default()),
            Some((length, done)) => (length, done.left_of(length)),
            None => (length, Ranges::whole(length)),
        }
    }

    /// How a file began of which not all has been read, where that is known.
    pub(super) fn head(&self, path: &str) -> Option<u64> {
        let file = self.files.get(path)?;
        file.head.filter(|_| file.done.left_of(file.bytes.unwrap_or(0)).bytes() > 0)
    }

    /// How long a file was, and what of it has been read.
    fn of_file(&self, path: &str) -> Option<(u64, &Ranges)> {
        let file = self.files.get(path)?;
        Some((file.bytes?, &file.done))
    }

    /// All files that are known by their paths: how long they were, and what of them has been read.
    fn files(&self) -> impl Iterator<Item = (&String, u64, &Ranges)> {
        self.files.iter().filter_map(|(path, file)| Some((path, file.bytes?, &file.done)))
    }
}

impl Progress {
    /// What a subtask says that it has read before it has read anything, where all share the files: by the first
    /// subtask the files, by path and length, so that a later run knows how long they were.
    pub(super) fn of_shared(
        subtask: u32,
        restored: &Restored,
        files: impl Iterator<Item = (String, u64)>,
    ) -> Self {
        let mut progress = Self::default();
        if subtask != 0 {
            return progress;
        }
        for (path, length) in files {
            let before = restored.of_file(&path);
            let (length, done) =
                before.map_or((length, Ranges::default()), |(length, done)| (length, done.clone()));
            progress.begin(&path, length, done);
            restored.head(&path).into_iter().for_each(|head| progress.began(&path, head));
        }
        restored.finished.iter().for_each(|name| progress.finished.add(*name));
        progress
    }

    /// The same, where each has its own files: what of its own has been read before. And which of them have been read
    /// to their end.
    pub(super) fn of_own(subtask: u32, parallelism: u32, restored: &Restored) -> (Self, BTreeSet<FileName>) {
        let mut progress = Self::default();
        let finished = restored.finished.iter().filter(|name| name.is_of(subtask, parallelism));
        let mut finished: BTreeSet<FileName> = finished.copied().collect();
        for (path, length, done) in restored.files() {
            let name = FileName::of(path);
            if !name.is_of(subtask, parallelism) || finished.contains(&name) {
            } else if done.left_of(length).bytes() == 0 {
                finished.insert(name);
            } else {
                progress.begin(path, length, done.clone());
                restored.head(path).into_iter().for_each(|head| progress.began(path, head));
            }
        }
        finished.iter().for_each(|name| progress.finished.add(*name));
        (progress, finished)
    }

    /// A file, how long it counts, and what of it has been read.
    fn begin(&mut self, path: &str, length: u64, done: Ranges) {
        self.files.insert(path.to_owned(), OfFile { bytes: Some(length), head: None, done });
    }

    /// How a file begins that has been read.
    pub(super) fn began(&mut self, path: &str, head: u64) {
        self.files.entry(path.to_owned()).or_default().head = Some(head);
    }

    /// A file that is read now, so long, unless it was begun before.
    pub(super) fn begin_new(&mut self, path: &str, length: u64) {
        if !self.files.contains_key(path) {
            self.begin(path, length, Ranges::default());
        }
    }

    /// A file has been read to its end, and nothing more is to be known of it.
    pub(super) fn finish(&mut self, path: &str) {
        self.files.remove(path);
        self.finished.add(FileName::of(path));
    }

    /// All records that begin in this range have been given.
    pub(super) fn done(&mut self, path: &str, start: u64, end: u64) {
        done(&mut self.files, path, start, end);
    }

    /// In a form that [`Restored`] reads; with a range of one more file.
    pub(super) fn position(&self, current: Option<(&Path, u64, u64)>) -> String {
        let mut files = self.files.clone();
        if let Some((path, start, end)) = current {
            done(&mut files, &path.to_string_lossy(), start, end);
        }
        // Texts and numbers are all that is in it.
        serde_json::to_string(&Position { files: &files, finished: &self.finished }).unwrap_or_default()
    }
}

fn done(files: &mut BTreeMap<String, OfFile>, path: &str, start: u64, end: u64) {
    if start < end {
        files.entry(path.to_owned()).or_default().done.add(start, end);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn files_that_are_finished_are_twenty_digits_each() {
        let mut progress = Progress::default();
        let paths: Vec<String> = (0..1_000).map(|number| format!("in/part-{number}.json")).collect();
        for path in &paths {
            progress.begin_new(path, 7);
            progress.done(path, 0, 7);
            progress.finish(path);
        }
        let position = progress.position(None);
        assert_eq!(position.len(), r#"{"files":{},"finished":""}"#.len() + 20 * paths.len());
        let restored = Restored::read(&[position]).unwrap();
        let left = |path: &str| restored.to_read(path, 9).1.bytes();
        assert!(paths.iter().all(|path| left(path) == 0) && left("in/part-1000.json") == 9);
        // Each subtask has its own, and none has another's.
        let mut all = BTreeSet::new();
        for subtask in 0..3 {
            let (_, own) = Progress::of_own(subtask, 3, &restored);
            assert!(own.len() > 200 && own.iter().all(|name| all.insert(*name)));
        }
        assert_eq!(all, restored.finished);
    }

    #[test]
    fn what_is_no_position_is_refused() {
        for text in
            ["", "[]", r#"{"files":{},"finished":"00"}"#, r#"{"files":{},"finished":"0000000000000000000x"}"#]
        {
            assert!(Restored::read(&[text.to_owned()]).is_err(), "{text}");
        }
    }

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
