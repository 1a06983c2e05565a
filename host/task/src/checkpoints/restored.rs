//! A checkpoint that a job goes on from: what each operator has kept.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, new_empty_array};
use arrow_schema::{ArrowError, DataType, Field};
use checkpoint::manifest::{File, Operator, Place, Section, Subtask, Table, TableKind, Version};
use checkpoint::storage::StorageError;
use checkpoint::{Manifest, Savepoint, Storage};
use model::Diagnostic;
use model::job_graph::{State, StateKind};
use model::key::key_group_range;
use state::backend::StateTable;
use state::canonical::{Rows, read};
use state::evolve::{Misfit, evolve, fits};
use state::layers::fold;
use state::tiered::{IN_MEMORY, ROCKS, Scratch, StoreFiles, StoreReader};
use state::{Backend, SharedBackend, StateChunk};
use window::AggregateError;
use window::running_aggregate::flat;

use super::cut::Chain;
use super::kept::{Kept, kind_of, table_of};
use super::savepoint::table_of_section;
use super::section;
use crate::swap::RollBack;

/// A checkpoint, read and checked.
pub struct Restored {
    manifest: Manifest,
    /// The files that it names, but for those of RocksDB.
    files: BTreeMap<String, Vec<u8>>,
    /// In which folders these are.
    spooled: BTreeMap<String, PathBuf>,
    /// Holds the folders.
    _scratch: Option<Scratch>,
    /// State that nobody in the job asks for is left out.
    allows_non_restored: bool,
    /// It is a checkpoint of the job's own, where the next are put.
    is_own: bool,
}

/// Lays the files of RocksDB's stores where RocksDB can read them, a folder a store: together they may be larger than
/// memory.
struct Spool {
    scratch: Option<Scratch>,
    /// By path: the folder, and the name in it.
    names: BTreeMap<String, (PathBuf, String)>,
}

impl Spool {
    fn of(manifest: &Manifest) -> io::Result<Self> {
        let mut spool = Self { scratch: None, names: BTreeMap::new() };
        let operators = manifest.operators.values();
        for (number, subtask) in operators.flat_map(|operator| &operator.subtasks).enumerate() {
            for section in &subtask.sections {
                let (Some((backend, ROCKS, file)), Place::File { path, .. }) =
                    (section::store_of(&section.kind), &section.place)
                else {
                    continue;
                };
                let scratch = match &mut spool.scratch {
                    Some(scratch) => scratch,
                    none => none.insert(Scratch::new(&std::env::temp_dir()).map_err(io::Error::other)?),
                };
                let folder = scratch.path().join(format!("{number}-{backend}"));
                std::fs::create_dir_all(&folder)?;
                // What tells a table from all others is before its own name.
                let name = match file.ends_with(".sst") {
                    true => file.rsplit('-').next().unwrap_or(file),
                    false => file,
                };
                spool.names.insert(path.clone(), (folder, name.to_owned()));
            }
        }
        Ok(spool)
    }

    /// Gives back what is not of RocksDB.
    fn keep(&mut self, path: &str, bytes: Vec<u8>) -> io::Result<Option<Vec<u8>>> {
        let Some((folder, name)) = self.names.get(path) else { return Ok(Some(bytes)) };
        std::fs::write(folder.join(name), bytes).map(|()| None)
    }
}

/// The rows that a backend of a subtask has kept.
pub(super) struct RowsOfBackend<'a> {
    /// Those of the sections that are not read yet.
    near: VecDeque<Rows<'a>>,
    ready: VecDeque<StateChunk>,
    far: Option<StoreReader>,
    is_aggregate: bool,
    /// Those that come are of the store.
    pub(super) is_far: bool,
}

impl Iterator for RowsOfBackend<'_> {
    type Item = Result<StateChunk, String>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(rows) = self.near.front_mut() {
            match rows.next() {
                Some(chunk) => return Some(chunk.map_err(|error| error.to_string())),
                None => drop(self.near.pop_front()),
            }
        }
        while self.ready.is_empty() {
            match self.far.as_mut()?.next_rows() {
                Ok(None) => return None,
                Ok(Some(rows)) => self.ready = rows.into(),
                Err(error) => {
                    self.far = None;
                    return Some(Err(error.to_string()));
                }
            }
            self.is_far = true;
        }
        let chunk = self.ready.pop_front()?;
        let is_flat = self.is_aggregate && self.is_far;
        Some(if is_flat { flat(chunk).map_err(|error| error.to_string()) } else { Ok(chunk) })
    }
}

/// A running aggregate's columns as the one value that its store has.
fn as_structure((chunk, kind): (StateChunk, StateKind)) -> (StateChunk, StateKind) {
    let field = |(place, column): (usize, &ArrayRef)| {
        Arc::new(Field::new(format!("c{place}"), column.data_type().clone(), true))
    };
    let fields = chunk.columns.iter().enumerate().map(field).collect();
    let value = new_empty_array(&DataType::Struct(fields));
    (StateChunk { columns: vec![value], ..chunk }, kind)
}

/// Whether a backend of a subtask has a store.
fn has_store(subtask: &Subtask, backend: &str) -> bool {
    let of_store = |section: &Section| section::store_of(&section.kind).is_some_and(|(of, ..)| of == backend);
    subtask.sections.iter().any(of_store)
}

/// Which entries the table of a section has; none = it is of timers, or of what has gone.
fn kind_of_section(operator: &Operator, section: &Section) -> Option<StateKind> {
    let table = operator.tables.iter().find(|table| table.section == section.kind)?;
    match table.kind {
        TableKind::Value | TableKind::Aggregate => Some(StateKind::Value),
        TableKind::Sequence => Some(StateKind::Sequence),
        TableKind::Dictionary => Some(StateKind::Dictionary(Vec::new())),
        TableKind::Broadcast => Some(StateKind::Broadcast),
        TableKind::Timers => None,
    }
}

/// Why a state cannot be restored.
pub(crate) enum Unfit {
    /// The operator has none of this name.
    Gone(String),
    /// It is another kind of state, or of another type.
    Other(String, String),
    /// The data is not what it should be.
    Unreadable(String),
}

impl Unfit {
    /// As the user reads it.
    pub(crate) fn diagnostic(&self, uid: &str, name: &str) -> Diagnostic {
        match self {
            Self::Gone(state) => Diagnostic::user(format!(
                "state `{state}` of `{name}` (uid `{uid}`) cannot be restored: the operator has none of this name"
            ))
            .hint("to leave it out: -n (--allowNonRestoredState)"),
            Self::Other(state, what) => Diagnostic::user(format!(
                "state `{state}` of `{name}` (uid `{uid}`) cannot be restored: {what}"
            ))
            .detail("columns can be added, dropped and widened; those of a key stay as they are")
            .hint("keep the type, or give the state another name and leave the old one out: -n"),
            Self::Unreadable(what) => Diagnostic::user(format!(
                "the state of `{name}` (uid `{uid}`) cannot be restored: {what}"
            )),
        }
    }
}

fn unreadable(error: &arrow_schema::ArrowError) -> Unfit {
    Unfit::Unreadable(error.to_string())
}

impl Restored {
    /// Reads all that a manifest names.
    ///
    /// # Errors
    /// If anything is damaged or missing.
    pub fn read(manifest: Manifest, storage: &Storage) -> Result<Self, StorageError> {
        let read = Self::with(manifest, |path, file| storage.file(path, file))?;
        Ok(Self { is_own: !read.manifest.is_savepoint, ..read })
    }

    /// Reads a savepoint.
    ///
    /// # Errors
    /// If anything is damaged or missing.
    pub fn of_savepoint(savepoint: &Savepoint) -> Result<Self, StorageError> {
        Self::with(savepoint.manifest()?, |path, file| savepoint.file(path, file))
    }

    fn with(
        manifest: Manifest,
        read: impl Fn(&str, &File) -> Result<Vec<u8>, StorageError>,
    ) -> Result<Self, StorageError> {
        let mut spool = Spool::of(&manifest)?;
        let mut files = BTreeMap::new();
        for (path, file) in &manifest.files {
            let bytes = read(path, file)?;
            if let Some(bytes) = spool.keep(path, bytes)? {
                files.insert(path.clone(), bytes);
            }
        }
        let Spool { scratch, names, .. } = spool;
        let spooled = names.into_iter().map(|(path, (folder, _))| (path, folder)).collect();
        Ok(Self { manifest, files, spooled, _scratch: scratch, allows_non_restored: false, is_own: false })
    }

    /// State that nobody in the job asks for is left out, instead of refused. Flink: `--allowNonRestoredState`.
    pub fn allow_non_restored(&mut self) {
        self.allows_non_restored = true;
    }

    /// An older version than the checkpoint's goes on from it: its operators have the names that they have in that, and
    /// what only the newer one kept is left out.
    pub fn take_back(&mut self, back: &RollBack) {
        self.allows_non_restored = true;
        // It may be from before the change.
        if self.version().is_none_or(|version| version.is_same(&back.version)) {
            return;
        }
        let operators = std::mem::take(&mut self.manifest.operators);
        let name = |uid: String| back.uids.get(&uid).cloned().unwrap_or(uid);
        self.manifest.operators = operators.into_iter().map(|(uid, of)| (name(uid), of)).collect();
        // The next checkpoint is whole, and calls all by their own names.
        self.is_own = false;
    }

    /// The job's next checkpoints are put elsewhere.
    pub fn lies_elsewhere(&mut self) {
        self.is_own = false;
    }

    /// Whether checkpoints can name its files.
    pub(crate) fn can_be_built_upon(&self) -> bool {
        self.is_own
    }

    pub(crate) fn allows_non_restored(&self) -> bool {
        self.allows_non_restored
    }

    /// The manifest.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The version of the job that goes on from it; none = the checkpoint does not say.
    #[must_use]
    pub fn version(&self) -> Option<&Version> {
        self.manifest.versions.last()
    }

    /// The component of a version, by its digest. The last one's and the one's before lie beside a checkpoint, and not
    /// beside a savepoint.
    #[must_use]
    pub fn component(&self, digest: &str) -> Option<&[u8]> {
        let name = format!("/{digest}.wasm");
        let found = self.files.iter().find(|(path, _)| path.ends_with(&name));
        found.map(|(_, bytes)| bytes.as_slice())
    }

    pub(crate) fn operator(&self, uid: &str) -> Option<&Operator> {
        self.manifest.operators.get(uid)
    }

    pub(crate) fn bytes<'a>(&'a self, place: &'a Place) -> Option<&'a [u8]> {
        match place {
            Place::Inline(text) => Some(text.as_bytes()),
            Place::File { path, offset, length } => part(self.files.get(path)?, *offset, *length),
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

    /// The rows of a backend of a subtask (or of its aggregate), as a backend takes them in: those of the whole snapshot,
    /// of the changes upon it in their order, then those of its store. By `is_folded` what changes replace, and what
    /// they say to have gone, is left out.
    pub(super) fn rows_of_backend<'a>(
        &'a self,
        operator: &Operator,
        (subtask, backend): (&'a Subtask, &str),
        is_folded: bool,
    ) -> Result<RowsOfBackend<'a>, String> {
        let said = |error: ArrowError| error.to_string();
        let rows_of = |section: &'a Section| -> Result<(StateTable, Rows<'a>), String> {
            let table = table_of_section(&section.kind);
            let table = table.ok_or_else(|| format!("there is no table `{}`", section.kind))?;
            let bytes = self.bytes(&section.place).ok_or("a section is missing")?;
            Ok((table, read(table, bytes).map_err(said)?))
        };
        let of_backend = |section: &&Section| section::backend_of(&section.kind) == Some(backend);
        let sections = subtask.sections.iter().filter(of_backend);
        // A running aggregate's columns stand for themselves, and may be null.
        let is_aggregate = backend == section::AGGREGATE;
        let store = if is_aggregate { "0" } else { backend };
        let (mut types, mut seen): (Vec<(StateChunk, StateKind)>, Vec<&str>) = (Vec::new(), Vec::new());
        let mut layers: BTreeMap<u32, Vec<(StateTable, Rows<'a>)>> = BTreeMap::new();
        let has_store = has_store(subtask, store);
        for section in sections {
            if has_store
                && !seen.contains(&&*section.kind)
                && let Some(first) = rows_of(section)?.1.next()
            {
                seen.push(&section.kind);
                let first = first.map_err(said)?;
                types.extend(kind_of_section(operator, section).map(|kind| (first, kind)));
            }
            layers.entry(section.layer).or_default().push(rows_of(section)?);
        }
        let (mut near, mut ready) = (VecDeque::new(), VecDeque::new());
        if is_folded {
            let all =
                |layer: Vec<(StateTable, Rows<'a>)>| layer.into_iter().flat_map(|(_, rows)| rows).collect();
            let layers: Result<_, _> = layers.into_values().map(all).collect();
            ready = fold(layers.map_err(said)?, !is_aggregate).map_err(said)?.into();
        } else {
            for mut layer in layers.into_values() {
                layer.sort_by_key(|(table, _)| *table != StateTable::Gone);
                near.extend(layer.into_iter().map(|(_, rows)| rows));
            }
        }
        let far = self.store_of(subtask, store, types, is_aggregate).map_err(said)?;
        Ok(RowsOfBackend { near, ready, far, is_aggregate, is_far: false })
    }

    /// What reads a backend's store; none = it has had none.
    fn store_of(
        &self,
        subtask: &Subtask,
        backend: &str,
        types: Vec<(StateChunk, StateKind)>,
        is_aggregate: bool,
    ) -> Result<Option<StoreReader>, ArrowError> {
        let (mut folder, mut in_memory) = (None, Vec::new());
        for section in &subtask.sections {
            match (section::store_of(&section.kind), &section.place) {
                (Some((of, ROCKS, _)), Place::File { path, .. }) if of == backend => {
                    folder = self.spooled.get(path);
                }
                (Some((of, IN_MEMORY, name)), place) if of == backend => in_memory.push((name, place)),
                _ => {}
            }
        }
        in_memory.sort_unstable_by_key(|(name, _)| *name);
        let files = match folder {
            Some(folder) => StoreFiles::Folder(folder),
            None if in_memory.is_empty() => return Ok(None),
            None => {
                StoreFiles::InMemory(in_memory.iter().filter_map(|(_, place)| self.bytes(place)).collect())
            }
        };
        let types = if is_aggregate { types.into_iter().map(as_structure).collect() } else { types };
        StoreReader::new(files, &types).map(Some)
    }

    /// What the next snapshot of a subtask's stage may build upon, if its backends have been filled with rows as they
    /// were: it has the same keys as it had, and its tables are called as they were.
    pub(crate) fn chain(&self, share: &Share, tables: &[Table]) -> Option<Chain> {
        let operator = self.operator(&share.uid).filter(|_| self.is_own)?;
        let is_by_key =
            share.key_columns > 0 && tables.iter().all(|table| table.kind != TableKind::Broadcast);
        let has_same_keys =
            (operator.parallelism, operator.max_parallelism) == (share.parallelism, share.max_parallelism);
        if !is_by_key || !has_same_keys || operator.tables != tables {
            return None;
        }
        let Subtask { is_finished: false, sections } = operator.subtasks.get(share.subtask as usize)? else {
            return None;
        };
        if sections.iter().any(|section| section::store_of(&section.kind).is_some()) {
            return None;
        }
        let keyed = sections.iter().filter(|section| section::backend_of(&section.kind).is_some());
        Some(Chain::upon(self.manifest.checkpoint, keyed))
    }

    /// Fills the backends of an operator's subtask with its key groups' rows. Whether they are as they were.
    pub(super) fn fill_all(
        &self,
        share: &Share,
        backends: &mut [SharedBackend],
        kept: &[Kept],
    ) -> Result<bool, Diagnostic> {
        let Some(operator) = self.operator(&share.uid).filter(|_| !share.is_elsewhere()) else {
            return Ok(false);
        };
        let mut are_as_they_were = true;
        let wrong = |unfit: Unfit| unfit.diagnostic(&share.uid, &operator.name);
        for ((number, backend), kept) in backends.iter_mut().enumerate().zip(kept) {
            let import = &mut |chunk: StateChunk| {
                backend.import(&chunk).map_err(|error| Unfit::Unreadable(error.to_string()))
            };
            are_as_they_were &= self.each_chunk(share, number, kept, import).map_err(&wrong)?;
        }
        Ok(are_as_they_were)
    }

    /// Looks whether an operator's state can be restored, by the types of its first rows. If not `whole`, `kept` is
    /// not all of its states.
    pub(crate) fn check(&self, uid: &str, kept: &Kept, whole: bool) -> Result<(), Diagnostic> {
        let Some(operator) = self.operator(uid) else { return Ok(()) };
        let mut seen: Vec<&str> = Vec::new();
        for subtask in operator.subtasks.iter().filter(|subtask| !subtask.is_finished) {
            for section in &subtask.sections {
                let Some(old) = table_named(&section.kind).filter(|_| !seen.contains(&section.kind.as_str()))
                else {
                    continue;
                };
                seen.push(&section.kind);
                let wrong = |unfit: Unfit| unfit.diagnostic(uid, &operator.name);
                let (new, state) = match self.resolve(operator, &section.kind, old, kept) {
                    Ok(Some(resolved)) => resolved,
                    Ok(None) => continue,
                    Err(Unfit::Gone(_)) if !whole => continue,
                    Err(unfit) => return Err(wrong(unfit)),
                };
                let bytes = self.bytes(&section.place).unwrap_or_default();
                let first = read(old, bytes).and_then(|mut rows| rows.next().transpose());
                let Some(chunk) = first.map_err(|error| wrong(unreadable(&error)))? else { continue };
                types_fit(&chunk, new, state, kept).map_err(wrong)?;
            }
        }
        Ok(())
    }

    /// Which table a section's rows go to, and the state that it is (of timers none); none = it is left out.
    fn resolve<'a>(
        &self,
        operator: &Operator,
        section: &str,
        old: StateTable,
        kept: &'a Kept,
    ) -> Result<Option<(StateTable, Option<&'a State>)>, Unfit> {
        let place = match old {
            StateTable::Timers | StateTable::Gone => return Ok(Some((old, None))),
            StateTable::Values(place) | StateTable::Entries(place) => place,
        };
        let Some(table) = operator.tables.iter().find(|table| table.section == section) else {
            // Without names, by the place.
            let state = kept.states.get(place as usize);
            return match state.filter(|state| table_of(place, state) == old) {
                Some(state) => Ok(Some((old, Some(state)))),
                None => Err(Unfit::Unreadable(format!("there is no state `{section}`"))),
            };
        };
        match kept.state(&table.name) {
            Some((place, state)) if kind_of(state) == table.kind => {
                Ok(Some((table_of(place, state), Some(state))))
            }
            Some((_, state)) => Err(Unfit::Other(
                table.name.clone(),
                format!("it was a {}, and is a {}", word(table.kind), word(kind_of(state))),
            )),
            None if self.allows_non_restored => Ok(None),
            None => Err(Unfit::Gone(table.name.clone())),
        }
    }

    /// Gives a subtask's running aggregate its key groups' rows.
    pub(crate) fn fill_aggregate(
        &self,
        share: &Share,
        import: &mut dyn FnMut(StateChunk) -> Result<(), AggregateError>,
    ) -> Result<(), Diagnostic> {
        let wrong = |what: String| {
            Diagnostic::user(format!("the state of `{}` cannot be restored: {what}", share.uid))
        };
        if share.is_elsewhere() {
            return Ok(());
        }
        let Some(operator) = self.operator(&share.uid) else { return Ok(()) };
        for (subtask, is_whole) in share.parts_of(operator) {
            for chunk in
                self.rows_of_backend(operator, (subtask, section::AGGREGATE), false).map_err(wrong)?
            {
                let own = share.own(chunk.map_err(wrong)?, is_whole);
                let own = own.map_err(|error| wrong(error.to_string()))?;
                import(own).map_err(|error| wrong(error.to_string()))?;
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

    /// Gives a subtask's rows of the tables of a backend, as they are kept now. Whether that is as they were.
    fn each_chunk(
        &self,
        share: &Share,
        number: usize,
        kept: &Kept,
        give: &mut dyn FnMut(StateChunk) -> Result<(), Unfit>,
    ) -> Result<bool, Unfit> {
        let Some(operator) = self.operator(&share.uid) else { return Ok(false) };
        let mut are_as_they_were = true;
        for (subtask, is_whole) in share.parts_of(operator) {
            let backend = number.to_string();
            for chunk in
                self.rows_of_backend(operator, (subtask, &backend), false).map_err(Unfit::Unreadable)?
            {
                let chunk = chunk.map_err(Unfit::Unreadable)?;
                let section = section::of_table(number, chunk.table);
                let Some((new, state)) = self.resolve(operator, &section, chunk.table, kept)? else {
                    are_as_they_were = false;
                    continue;
                };
                let type_of =
                    |chunk: &StateChunk| chunk.columns.last().map(|value| value.data_type().clone());
                let before = (chunk.table, type_of(&chunk), chunk.touched.is_some());
                types_fit(&chunk, new, state, kept)?;
                let own = share.own(chunk, is_whole);
                let mut own = evolved(own.map_err(|error| unreadable(&error))?, new, state)?;
                if own.touched.is_none() && state.is_some_and(|state| state.ttl.is_some()) {
                    // It has a time to live from now on, which begins with the checkpoint.
                    own.touched = Some(Int64Array::from_value(self.manifest.began, own.rows()));
                }
                are_as_they_were &= before == (own.table, type_of(&own), own.touched.is_some());
                give(own)?;
            }
        }
        Ok(are_as_they_were)
    }
}

/// A section's bytes in those of its file.
pub(super) fn part(data: &[u8], offset: u64, length: u64) -> Option<&[u8]> {
    let start = usize::try_from(offset).ok()?;
    data.get(start..start.checked_add(usize::try_from(length).ok()?)?)
}

/// The table of a backend that a section is.
fn table_named(section: &str) -> Option<StateTable> {
    StateTable::of_name(section.split_once('.')?.1)
}

fn word(kind: TableKind) -> &'static str {
    match kind {
        TableKind::Value => "value",
        TableKind::Sequence => "list",
        TableKind::Dictionary => "map",
        TableKind::Broadcast => "broadcast state",
        TableKind::Aggregate => "running aggregate",
        TableKind::Timers => "timer",
    }
}

fn other(state: &State, what: impl Into<String>) -> Unfit {
    Unfit::Other(state.name.clone(), what.into())
}

/// Whether rows are of a state's types, or can be made so.
fn types_fit(chunk: &StateChunk, new: StateTable, state: Option<&State>, kept: &Kept) -> Result<(), Unfit> {
    let Some(state) = state else { return Ok(()) };
    let types = |columns: &[arrow_array::ArrayRef]| -> Vec<DataType> {
        columns.iter().map(|column| column.data_type().clone()).collect()
    };
    let text = |types: &[DataType]| types.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let keys = types(&chunk.keys);
    if !keys.is_empty() && keys != kept.key_types {
        let what = format!("its key was ({}), and is ({})", text(&keys), text(&kept.key_types));
        return Err(other(state, what));
    }
    let Some((value, own)) = chunk.columns.split_last() else { return Ok(()) };
    let own = types(own);
    let expected: Vec<DataType> = state.key.fields().iter().map(|field| field.data_type().clone()).collect();
    let is_dictionary = matches!(new, StateTable::Entries(_)) && !expected.is_empty();
    if is_dictionary && own != expected {
        let what = format!("its entries' key was ({}), and is ({})", text(&own), text(&expected));
        return Err(other(state, what));
    }
    let field = state.value.field(0);
    fits(of_value(field.data_type(), field.name()), value.data_type(), field.data_type())
        .map_err(|misfit: Misfit| other(state, misfit.to_string()))
}

/// A record's columns stand for themselves.
fn of_value<'a>(data_type: &DataType, name: &'a str) -> &'a str {
    if matches!(data_type, DataType::Struct(_)) { "" } else { name }
}

/// Rows as they are kept now.
fn evolved(mut chunk: StateChunk, new: StateTable, state: Option<&State>) -> Result<StateChunk, Unfit> {
    chunk.table = new;
    if let (Some(state), Some(value)) = (state, chunk.columns.last_mut()) {
        let field = state.value.field(0);
        let name = of_value(field.data_type(), field.name());
        let evolved = evolve(name, value, field.data_type());
        *value = evolved.map_err(|misfit| other(state, misfit.to_string()))?;
    }
    Ok(chunk)
}

/// Which part of an operator's state is a subtask's.
pub(crate) struct Share {
    pub(crate) uid: String,
    pub(crate) subtask: u32,
    pub(crate) parallelism: u32,
    pub(crate) max_parallelism: u32,
    /// How many columns the stream is keyed by.
    pub(crate) key_columns: usize,
    /// All rows go to the first subtask.
    pub(crate) is_global: bool,
}

impl Share {
    fn key_groups(&self) -> Range<u32> {
        key_group_range(self.max_parallelism, self.parallelism, self.subtask)
    }

    /// The subtasks that may have had rows of it, and whether all their rows are its own. Nothing comes any more of
    /// what had ended.
    fn parts_of<'a>(&self, operator: &'a Operator) -> Vec<(&'a Subtask, bool)> {
        let groups = self.key_groups();
        // Rows without a key are everybody's.
        let is_by_key = self.key_columns > 0
            && operator.max_parallelism == self.max_parallelism
            && operator.tables.iter().all(|table| table.kind != TableKind::Broadcast);
        let part = |(number, subtask): (u32, &'a Subtask)| {
            let theirs = key_group_range(operator.max_parallelism, operator.parallelism, number);
            let has_any = theirs.start < groups.end && groups.start < theirs.end;
            let is_whole = groups.start <= theirs.start && theirs.end <= groups.end;
            (has_any || !is_by_key).then_some((subtask, is_whole && is_by_key))
        };
        let subtasks = (0..operator.parallelism).zip(&operator.subtasks);
        subtasks.filter(|(_, subtask)| !subtask.is_finished).filter_map(part).collect()
    }

    /// Those of a subtask's rows that are its own.
    fn own(&self, chunk: StateChunk, is_whole: bool) -> Result<StateChunk, ArrowError> {
        if is_whole {
            return Ok(chunk);
        }
        chunk.of_key_groups(&self.key_groups(), self.max_parallelism, self.key_columns)
    }

    /// All the state is another subtask's.
    fn is_elsewhere(&self) -> bool {
        self.is_global && self.subtask > 0
    }
}
