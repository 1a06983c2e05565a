//! A checkpoint that a job goes on from: what each operator has kept.

use std::collections::BTreeMap;

use checkpoint::manifest::{Operator, Place};
use checkpoint::storage::StorageError;
use checkpoint::{Manifest, Storage};
use model::Diagnostic;
use model::key::key_group_range;
use state::backend::StateTable;
use state::encoded::read_table;
use state::{Backend, SharedBackend, StateChunk};
use window::KeyedAggregate;

use super::section;

/// A checkpoint, read and checked.
pub struct Restored {
    manifest: Manifest,
    /// The files that it names.
    files: BTreeMap<String, Vec<u8>>,
}

impl Restored {
    /// Reads all that a manifest names.
    ///
    /// # Errors
    /// If anything is damaged or missing.
    pub fn read(manifest: Manifest, storage: &Storage) -> Result<Self, StorageError> {
        let mut files = BTreeMap::new();
        for (path, file) in &manifest.files {
            files.insert(path.clone(), storage.file(path, file)?);
        }
        Ok(Self { manifest, files })
    }

    /// The manifest.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    pub(crate) fn operator(&self, uid: &str) -> Option<&Operator> {
        self.manifest.operators.get(uid)
    }

    fn bytes<'a>(&'a self, place: &'a Place) -> Option<&'a [u8]> {
        match place {
            Place::Inline(text) => Some(text.as_bytes()),
            Place::File { path, offset, length } => {
                let start = usize::try_from(*offset).ok()?;
                let end = start.checked_add(usize::try_from(*length).ok()?)?;
                self.files.get(path)?.get(start..end)
            }
        }
    }

    /// The sections of an operator of this kind, by subtask: whether that had ended, and what it kept.
    pub(crate) fn sections<'a>(&'a self, uid: &str, kind: &'a str) -> impl Iterator<Item = (bool, &'a [u8])> {
        let subtasks = self.operator(uid).into_iter().flat_map(|operator| &operator.subtasks);
        subtasks.flat_map(move |subtask| {
            let of_kind = subtask.sections.iter().filter(move |section| section.kind == kind);
            of_kind.filter_map(move |section| Some((subtask.is_finished, self.bytes(&section.place)?)))
        })
    }

    /// The same, as texts.
    pub(crate) fn texts(&self, uid: &str, kind: &str) -> Vec<String> {
        let sections = self.sections(uid, kind);
        sections.map(|(_, bytes)| String::from_utf8_lossy(bytes).into_owned()).collect()
    }

    /// Fills the backends of an operator's subtask with its key groups' rows.
    pub(crate) fn fill_all(
        &self,
        share: &Share<'_>,
        backends: &mut [SharedBackend],
    ) -> Result<(), Diagnostic> {
        let wrong = |what: String| {
            Diagnostic::user(format!("the state of `{}` cannot be restored: {what}", share.uid))
        };
        if share.is_elsewhere() {
            return Ok(());
        }
        for (number, backend) in backends.iter_mut().enumerate() {
            for chunk in self.chunks(share, number).map_err(&wrong)? {
                backend.import(&chunk).map_err(|error| wrong(error.to_string()))?;
            }
        }
        Ok(())
    }

    /// Fills a subtask's running aggregate with its key groups' rows.
    pub(crate) fn fill_aggregate(
        &self,
        share: &Share<'_>,
        aggregate: &mut KeyedAggregate,
    ) -> Result<(), Diagnostic> {
        let wrong = |what: String| {
            Diagnostic::user(format!("the state of `{}` cannot be restored: {what}", share.uid))
        };
        if share.is_elsewhere() {
            return Ok(());
        }
        let groups = key_group_range(share.max_parallelism, share.parallelism, share.subtask);
        for (is_finished, bytes) in self.sections(share.uid, section::AGGREGATE) {
            if is_finished || bytes.is_empty() {
                continue;
            }
            for chunk in read_table(StateTable::Values(0), bytes).map_err(|error| wrong(error.to_string()))? {
                let own = chunk.of_key_groups(&groups, share.max_parallelism, share.key_columns);
                let own = own.map_err(|error| wrong(error.to_string()))?;
                aggregate.import(&own).map_err(|error| wrong(error.to_string()))?;
            }
        }
        Ok(())
    }

    /// How far event time was: the least of the subtasks that had not ended.
    pub(crate) fn watermark(&self, uid: &str) -> i64 {
        let sections = self.sections(uid, section::WATERMARK).filter(|(is_finished, _)| !is_finished);
        let times = sections.filter_map(|(_, text)| std::str::from_utf8(text).ok()?.parse().ok());
        times.min().unwrap_or(i64::MIN)
    }

    /// A subtask's rows of the tables of a backend.
    fn chunks(&self, share: &Share<'_>, number: usize) -> Result<Vec<StateChunk>, String> {
        let groups = key_group_range(share.max_parallelism, share.parallelism, share.subtask);
        let mut chunks = Vec::new();
        let Some(operator) = self.operator(share.uid) else { return Ok(chunks) };
        // Nothing comes any more of what had ended.
        for subtask in operator.subtasks.iter().filter(|subtask| !subtask.is_finished) {
            for section in &subtask.sections {
                let Some((of, table)) = section.kind.split_once('.') else { continue };
                if of.parse() != Ok(number) {
                    continue;
                }
                let table =
                    StateTable::of_name(table).ok_or_else(|| format!("there is no table `{table}`"))?;
                let bytes = self.bytes(&section.place).ok_or("a section is missing")?;
                for chunk in read_table(table, bytes).map_err(|error| error.to_string())? {
                    let own = chunk.of_key_groups(&groups, share.max_parallelism, share.key_columns);
                    chunks.push(own.map_err(|error| error.to_string())?);
                }
            }
        }
        Ok(chunks)
    }
}

/// Which part of an operator's state is a subtask's.
pub(crate) struct Share<'a> {
    pub(crate) uid: &'a str,
    pub(crate) subtask: u32,
    pub(crate) parallelism: u32,
    pub(crate) max_parallelism: u32,
    /// How many columns the stream is keyed by.
    pub(crate) key_columns: usize,
    /// All rows go to the first subtask.
    pub(crate) is_global: bool,
}

impl Share<'_> {
    /// All the state is another subtask's.
    fn is_elsewhere(&self) -> bool {
        self.is_global && self.subtask > 0
    }
}
