//! Checkpoints and savepoints that somebody asks for, and how savepoints are written.

use std::collections::BTreeSet;
use std::io;

use checkpoint::coordinator::{CheckpointId, Kind, Stop};
use checkpoint::manifest::{Operator, Place, Table};
use checkpoint::{Manifest, Savepoint};
use state::backend::StateTable;
use state::canonical::{Names, can_be_flat, named, read, to_file};

use super::checkpointer::DATA;
use super::restored::part;
use super::section;

/// The form of a savepoint. Flink: `SavepointFormatType`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// Tables with names, that other programs read.
    #[default]
    Canonical,
    /// As checkpoints are: faster.
    Native,
}

/// What is asked for.
#[derive(Clone)]
pub struct SavepointRequest {
    /// Where it is put.
    pub savepoint: Savepoint,
    /// In which form.
    pub form: Form,
    /// That the job stops with it, and how.
    pub stop: Option<Stop>,
}

/// Hears the number of the checkpoint or savepoint, which is complete, or why there is none. It is dropped where the job ends
/// before.
pub type Answer = Box<dyn FnOnce(Result<CheckpointId, String>) + Send>;

/// What somebody asks for.
pub(crate) enum Asked {
    /// A savepoint.
    Savepoint(SavepointRequest),
    /// A checkpoint, out of turn.
    Checkpoint {
        /// It builds upon none before it.
        full: bool,
    },
}

impl Asked {
    /// What it is to the coordinator.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Savepoint(request) => Kind::Savepoint { stop: request.stop },
            Self::Checkpoint { full: true } => Kind::Full,
            Self::Checkpoint { full: false } => Kind::Checkpoint,
        }
    }

    /// The savepoint, if it is one.
    pub(crate) fn savepoint(&self) -> Option<&SavepointRequest> {
        match self {
            Self::Savepoint(request) => Some(request),
            Self::Checkpoint { .. } => None,
        }
    }
}

/// What is asked for, and who waits for it.
pub(crate) struct Ask {
    pub(crate) asked: Asked,
    pub(crate) answer: Answer,
}

/// Writes a savepoint: `data` is what the manifest's sections in files are parts of. What was begun is removed if
/// it cannot be ended.
pub(crate) fn put(request: &SavepointRequest, mut manifest: Manifest, data: &[u8]) -> Result<(), String> {
    let written = match request.form {
        Form::Native => native(&request.savepoint, &mut manifest, data),
        Form::Canonical => canonical(&request.savepoint, &mut manifest, data),
    };
    let written = written.and_then(|()| request.savepoint.put_manifest(&manifest).map_err(|e| e.to_string()));
    if written.is_err() {
        // What cannot be removed has no manifest, and is no savepoint.
        drop(request.savepoint.remove());
    }
    written
}

fn native(savepoint: &Savepoint, manifest: &mut Manifest, data: &[u8]) -> Result<(), String> {
    if !data.is_empty() {
        let file = savepoint.put_part(DATA, data).map_err(|error: io::Error| error.to_string())?;
        manifest.files.insert(DATA.to_owned(), file);
    }
    Ok(())
}

fn canonical(savepoint: &Savepoint, manifest: &mut Manifest, data: &[u8]) -> Result<(), String> {
    let (mut files, mut taken) = (std::collections::BTreeMap::new(), BTreeSet::new());
    for (uid, operator) in &mut manifest.operators {
        let Operator { parallelism, max_parallelism, subtasks, tables, .. } = operator;
        for (number, subtask) in (0..).zip(subtasks) {
            let groups = model::key::key_group_range(*max_parallelism, *parallelism, number);
            for section in &mut subtask.sections {
                let Place::File { offset, length, .. } = &section.place else { continue };
                let bytes = part(data, *offset, *length).ok_or("a section lies outside of the data")?;
                let of_kind = |table: &&Table| table.section == section.kind;
                let (mut name, bytes) = match tables.iter().find(of_kind) {
                    None => {
                        let name = format!("{}/{}/{number}.json", folder(uid), folder(&section.kind));
                        (name, bytes.to_vec())
                    }
                    Some(table) => {
                        let bytes = file_of(table, *max_parallelism, bytes).map_err(|error| {
                            format!("the state `{}` of `{uid}` cannot be written: {error}", table.name)
                        })?;
                        (path_of(uid, table, groups.clone()), bytes)
                    }
                };
                while !taken.insert(name.to_lowercase()) {
                    name.insert(0, '_');
                }
                let file = savepoint.put_part(&name, &bytes).map_err(|error| error.to_string())?;
                section.place = Place::File { path: name.clone(), offset: 0, length: file.bytes };
                files.insert(name, file);
            }
        }
    }
    manifest.files = files;
    Ok(())
}

/// The path of a table's file, of the rows in these key groups. A state of an operator's second backend may have the
/// name of one of its first.
pub(crate) fn path_of(uid: &str, table: &Table, groups: std::ops::Range<u32>) -> String {
    let of_backend = match table.section.split_once('.') {
        None | Some(("0", _)) => String::new(),
        Some((backend, _)) => format!(".{backend}"),
    };
    let file = format!("key-groups-{}-{}.arrow", groups.start, groups.end.max(1) - 1);
    format!("{}/{}{of_backend}/{file}", folder(uid), folder(&table.name))
}

/// The names of a table's columns.
pub(crate) fn names_of(table: &Table, max_parallelism: u32) -> Names<'_> {
    Names {
        state: &table.name,
        keys: &table.keys,
        stream_keys: table.stream_keys as usize,
        own_keys: &table.own_keys,
        values: &table.values,
        max_parallelism,
    }
}

/// The table of a section, of the kinds that a backend has; that of a running aggregate is one of values.
pub(crate) fn table_of_section(kind: &str) -> Option<StateTable> {
    match kind.split_once('.') {
        None => (kind == section::AGGREGATE).then_some(StateTable::Values(0)),
        Some((_, table)) => StateTable::of_name(table),
    }
}

/// A section as a file with names.
fn file_of(table: &Table, max_parallelism: u32, bytes: &[u8]) -> Result<Vec<u8>, String> {
    let of = table_of_section(&table.section).ok_or("it is of no table that there is")?;
    let chunks: Result<Vec<_>, _> = read(of, bytes).and_then(Iterator::collect);
    let chunks = chunks.map_err(|error| error.to_string())?;
    let (names, flat) = (names_of(table, max_parallelism), can_be_flat(&chunks));
    let batches = chunks.iter().map(|chunk| named(chunk, &names, flat)).collect::<Result<Vec<_>, _>>();
    let batches = batches.map_err(|error| error.to_string())?;
    let Some(first) = batches.first() else { return Ok(Vec::new()) };
    to_file(&first.schema(), &batches).map_err(|error| error.to_string())
}

/// A name as that of a folder: what is not a letter, a digit, `-` or `_` is `%` and two hexadecimal digits.
fn folder(name: &str) -> String {
    name.bytes().fold(String::new(), |mut folder, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => folder.push(char::from(byte)),
            _ => folder.push_str(&format!("%{byte:02x}")),
        }
        folder
    })
}

#[cfg(test)]
mod tests {
    use super::folder;

    #[test]
    fn names_of_folders_are_names_of_no_other() {
        let names = ["count-by_word2", "a/b", "..", "a%2fb", "Größe", ""];
        let folders = ["count-by_word2", "a%2fb", "%2e%2e", "a%252fb", "Gr%c3%b6%c3%9fe", ""];
        assert_eq!(names.map(folder), folders);
    }
}
