//! What is written down of a checkpoint: whose it is, what is in it, and a checksum of every file that it
//! names. It is written last, so that one that can be read is of a complete checkpoint.
//!
//! The form is JSON (of a checkpoint one line), then a line with the BLAKE3 checksum of the first: people can read it, and what is
//! cut off or changed is noticed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::coordinator::CheckpointId;

/// The version that is written, and the only one that is read.
pub const VERSION: u32 = 1;

/// The name in the first field: what the file is, whoever finds it.
const FORMAT: &str = "millstream checkpoint";

/// A checkpoint or savepoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    format: String,
    version: u32,
    /// Whose it is.
    pub job: JobName,
    /// Its number.
    pub checkpoint: CheckpointId,
    /// Somebody asked for it, and it is his.
    pub is_savepoint: bool,
    /// The job has nothing left to do: all input is handled, or it was drained.
    pub is_final: bool,
    /// When it began, in milliseconds since the epoch.
    pub began: i64,
    /// How long until every part was durable, in milliseconds.
    pub duration: u64,
    /// Which versions of the job have run, the first first; the last is the one that goes on from here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<Version>,
    /// The operators with what they keep, by uid.
    pub operators: BTreeMap<String, Operator>,
    /// The files that its parts lie in, by path: of a checkpoint below the folder of all checkpoints, of a
    /// savepoint below its own.
    pub files: BTreeMap<String, File>,
}

/// The job that a checkpoint is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobName {
    /// 32 hexadecimal digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The BLAKE3 digest of the component that made it, in hexadecimal.
    pub component: String,
}

/// A version of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Version {
    /// It runs from the barrier of this checkpoint on; 0 = from the beginning.
    pub from: CheckpointId,
    /// The BLAKE3 digest of the component, in hexadecimal.
    pub component: String,
    /// The name under which the component knows the job.
    pub job: String,
    /// The job's arguments.
    pub args: Vec<String>,
}

impl Version {
    /// Those that have run by a checkpoint, and this, if it is another, which goes on from there; none = it begins.
    #[must_use]
    pub fn follows(self, before: Option<&Manifest>) -> Vec<Self> {
        let mut versions = before.map(|manifest| manifest.versions.clone()).unwrap_or_default();
        if versions.last().is_none_or(|last| !last.is_same(&self)) {
            versions.push(Self { from: before.map_or(0, |manifest| manifest.checkpoint), ..self });
        }
        versions
    }

    /// Whether it is the same code with the same arguments.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.component, &self.job, &self.args) == (&other.component, &other.job, &other.args)
    }
}

/// What an operator keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operator {
    /// Its name, for people.
    pub name: String,
    /// How many subtasks it had.
    pub parallelism: u32,
    /// How many key groups its keys are in.
    pub max_parallelism: u32,
    /// What each subtask keeps, in their order.
    pub subtasks: Vec<Subtask>,
    /// What the tables of its keyed state are called.
    #[serde(default)]
    pub tables: Vec<Table>,
}

/// What a table of keyed state is called; its types are in the data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// The kind of the sections that its rows are in.
    pub section: String,
    /// The state's name.
    pub name: String,
    /// Which entries it has.
    pub kind: TableKind,
    /// The columns of the stream's key, and of what is behind it (windows).
    pub keys: Vec<String>,
    /// How many of them are the stream's.
    pub stream_keys: u32,
    /// Those of an entry's own key, as a dictionary has them.
    pub own_keys: Vec<String>,
    /// The other columns; one that is a record may stand as its own columns.
    pub values: Vec<String>,
}

/// Which entries a table of keyed state has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TableKind {
    /// One a key.
    Value,
    /// Several a key, in an order.
    Sequence,
    /// Several a key, by keys of their own.
    Dictionary,
    /// By keys of their own, without a key of the stream.
    Broadcast,
    /// The values of a running aggregate.
    Aggregate,
    /// Instants.
    Timers,
}

/// What a subtask of an operator keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subtask {
    /// It had handled all its input.
    pub is_finished: bool,
    /// Its parts, by what they are.
    pub sections: Vec<Section>,
}

/// A part of a subtask's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Section {
    /// What it is, in the words of the operator that wrote it.
    pub kind: String,
    /// Of keyed state: 0 = it is of a whole snapshot, others = of the changes upon that, the first, the second, …
    #[serde(default, skip_serializing_if = "is_whole")]
    pub layer: u32,
    /// Where it lies.
    pub place: Place,
}

/// Where a section lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Place {
    /// Here: what is small.
    Inline(String),
    /// In a file.
    File {
        /// One of [`Manifest::files`].
        path: String,
        /// The first byte.
        offset: u64,
        /// How many bytes.
        length: u64,
    },
}

/// Whether a path leads below the folder that it begins in, whatever the system takes it for.
fn is_below(path: &str) -> bool {
    let is_name = |part: &str| !matches!(part, "" | "." | "..");
    path.split('/').all(is_name) && !path.contains(['\\', '\0'])
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_whole(layer: &u32) -> bool {
    *layer == 0
}

/// A file that a manifest names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// How long it is.
    pub bytes: u64,
    /// The BLAKE3 checksum of all of it, in hexadecimal.
    pub checksum: String,
}

/// Why a manifest, or a file that it names, is not what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// It is shorter or longer than it was, or its checksum is another.
    #[error("`{0}` is damaged: it is not what was written")]
    Changed(String),
    /// It is not there.
    #[error("`{0}` is missing")]
    Missing(String),
    /// It is no manifest.
    #[error("`{0}` is no manifest of a checkpoint: {1}")]
    NoManifest(String, String),
    /// It is no savepoint.
    #[error("`{0}` is no savepoint: {1}")]
    NoSavepoint(String, String),
    /// It is of a version of this program that this one does not know.
    #[error("`{path}` is of version {found} of the format, and this program reads version {VERSION}")]
    Version {
        /// The manifest.
        path: String,
        /// What it says.
        found: u32,
    },
}

impl Place {
    /// How many bytes lie there.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Inline(text) => text.len() as u64,
            Self::File { length, .. } => *length,
        }
    }
}

impl Operator {
    fn places(&self) -> impl Iterator<Item = &Place> {
        self.subtasks.iter().flat_map(|subtask| &subtask.sections).map(|section| &section.place)
    }

    /// Bytes of what it keeps.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.places().map(Place::bytes).sum()
    }
}

impl File {
    /// Of a file with these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self { bytes: bytes.len() as u64, checksum: checksum(bytes) }
    }

    /// # Errors
    /// If they are not the bytes that were written.
    pub fn check(&self, path: &str, bytes: &[u8]) -> Result<(), Damage> {
        match *self == Self::of(bytes) {
            true => Ok(()),
            false => Err(Damage::Changed(path.to_owned())),
        }
    }
}

fn checksum(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// What every version says first.
#[derive(Deserialize)]
struct Head {
    format: String,
    version: u32,
}

impl Manifest {
    /// Of a checkpoint in which nothing is yet.
    #[must_use]
    pub fn new(job: JobName, checkpoint: CheckpointId) -> Self {
        Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            job,
            checkpoint,
            is_savepoint: false,
            is_final: false,
            began: 0,
            duration: 0,
            versions: Vec::new(),
            operators: BTreeMap::new(),
            files: BTreeMap::new(),
        }
    }

    /// Whether the job was drained: its windows and timers have fired, and are not to fire again.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.is_savepoint && self.is_final
    }

    /// Bytes of what its operators keep.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.operators.values().map(Operator::bytes).sum()
    }

    /// Of what an operator keeps, the bytes that were written for this one.
    #[must_use]
    pub fn own_bytes(&self, operator: &Operator) -> u64 {
        operator.subtasks.iter().map(|subtask| self.bytes_of(subtask).1).sum()
    }

    /// Of what a subtask of an operator keeps: all bytes, and those that were written for this checkpoint.
    #[must_use]
    pub fn bytes_of(&self, subtask: &Subtask) -> (u64, u64) {
        let folder = format!("{}/chk-{}/", self.job.id, self.checkpoint);
        // A name without a folder is of a file that has not been put yet.
        let is_own = |place: &&Place| match place {
            Place::Inline(_) => true,
            Place::File { path, .. } => self.is_savepoint || !path.contains('/') || path.starts_with(&folder),
        };
        let places = || subtask.sections.iter().map(|section| &section.place);
        (places().map(Place::bytes).sum(), places().filter(is_own).map(Place::bytes).sum())
    }

    /// As it is written.
    ///
    /// # Panics
    /// Never: it has nothing that JSON has not.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        // Savepoints are for people, too.
        let body = if self.is_savepoint { serde_json::to_vec_pretty(self) } else { serde_json::to_vec(self) };
        let mut bytes = body.expect("a manifest is JSON");
        let checksum = checksum(&bytes);
        bytes.extend_from_slice(format!("\n{checksum}\n").as_bytes());
        bytes
    }

    /// Reads one; `path` is for the error.
    ///
    /// # Errors
    /// If it is damaged, or of a version that is not known.
    pub fn from_bytes(path: &str, bytes: &[u8]) -> Result<Self, Damage> {
        let changed = || Damage::Changed(path.to_owned());
        let (last, rest) = bytes.split_last().ok_or_else(changed)?;
        let at = rest.iter().rposition(|byte| *byte == b'\n').filter(|_| *last == b'\n');
        let (body, sum) = rest.split_at(at.ok_or_else(changed)?);
        if sum.get(1..) != Some(checksum(body).as_bytes()) {
            return Err(changed());
        }
        let no_manifest = |why: String| Damage::NoManifest(path.to_owned(), why);
        let head: Head = serde_json::from_slice(body).map_err(|error| no_manifest(error.to_string()))?;
        if head.format != FORMAT {
            return Err(no_manifest(format!("it says that it is `{}`", head.format)));
        }
        if head.version != VERSION {
            return Err(Damage::Version { path: path.to_owned(), found: head.version });
        }
        let manifest: Self = serde_json::from_slice(body).map_err(|error| no_manifest(error.to_string()))?;
        // Whoever writes a manifest leads nobody out of its folder.
        if let Some(outside) = manifest.files.keys().find(|name| !is_below(name)) {
            return Err(no_manifest(format!("`{}` lies outside of its folder", outside.escape_debug())));
        }
        let sections = manifest.operators.values().flat_map(|of| &of.subtasks).flat_map(|of| &of.sections);
        for section in sections {
            let Place::File { path: of, offset, length } = &section.place else { continue };
            let end = offset.checked_add(*length);
            let is_in = manifest.files.get(of).zip(end).is_some_and(|(file, end)| end <= file.bytes);
            if !is_in {
                return Err(no_manifest(format!("a `{}` lies outside of `{of}`", section.kind)));
            }
        }
        Ok(manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let job = JobName { id: "ab".repeat(16), name: "word_count".into(), component: "cd".into() };
        let mut manifest = Manifest::new(job, 42);
        let place = Place::File { path: "chk-42/data".into(), offset: 1, length: 3 };
        let sections = vec![
            Section { kind: "values".into(), layer: 1, place },
            Section { kind: "offsets".into(), layer: 0, place: Place::Inline("[1, 2]\n".into()) },
        ];
        let subtasks = vec![Subtask { is_finished: true, sections }];
        let operator = Operator {
            name: "Count".into(),
            parallelism: 1,
            max_parallelism: 128,
            subtasks,
            tables: Vec::new(),
        };
        manifest.operators.insert("count-by-word".into(), operator);
        manifest.files.insert("chk-42/data".into(), File::of(b"four"));
        manifest
    }

    #[test]
    fn comes_back_as_it_was_written() {
        let bytes = manifest().to_bytes();
        assert_eq!(Manifest::from_bytes("m", &bytes).unwrap(), manifest());
        assert!(
            String::from_utf8(bytes)
                .unwrap()
                .starts_with(r#"{"format":"millstream checkpoint","version":1,"#)
        );
    }

    #[test]
    fn every_changed_or_missing_byte_is_noticed() {
        let bytes = manifest().to_bytes();
        for length in 0..bytes.len() {
            assert!(Manifest::from_bytes("m", &bytes[..length]).is_err(), "cut at {length}");
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(
                Manifest::from_bytes("m", &changed),
                Err(Damage::Changed("m".into())),
                "flipped at {at}"
            );
        }
        let file = File::of(b"four");
        assert_eq!(file.check("f", b"four"), Ok(()));
        for bytes in [&b"fou"[..], b"fours", b"fouR"] {
            assert_eq!(file.check("f", bytes), Err(Damage::Changed("f".into())));
        }
    }

    #[test]
    fn another_version_and_a_section_outside_are_refused() {
        let other = Manifest { version: 2, ..manifest() };
        let refused = Manifest::from_bytes("m", &other.to_bytes()).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "`m` is of version 2 of the format, and this program reads version 1"
        );
        let mut short = manifest();
        short.files.insert("chk-42/data".into(), File::of(b"fou"));
        let refused = Manifest::from_bytes("m", &short.to_bytes()).unwrap_err();
        let why = "a `values` lies outside of `chk-42/data`";
        assert_eq!(refused, Damage::NoManifest("m".into(), why.into()));
    }
}
