//! States of many entries a key: dictionaries, sequences, broadcast states.
//!
//! One ordered map from *number of the key, then the entry's own key* to the entry, both as
//! `arrow-row` encodes them: so a key's entries lie side by side, in their order, a page of them is
//! found in logarithmic time, and a key with one entry costs one entry.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher;
use std::ops::Bound;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, Int64Array, UInt32Array, new_null_array};
use arrow_row::{Row, RowConverter, Rows, SortField};
use arrow_schema::{ArrowError, DataType};
use arrow_select::take::take;
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry::{Occupied, Vacant};
use model::job_graph::Ttl;

use crate::backend::Extent;
use crate::key_index::{KeyId, canonical_floats};
use crate::value_table::{StoreError, VALUE_BYTES_MAX};

/// A change of entries, by the contract's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryChange {
    /// The entry is written; of a sequence: added at the end.
    Put,
    /// The entry of this own key is removed.
    Remove,
    /// All entries of the key are removed.
    Clear,
}

/// Entries of several keys, key by key.
#[derive(Debug)]
pub struct EntryPage {
    /// Those of the i-th key are rows `offsets[i] .. offsets[i + 1]`.
    pub offsets: Vec<u32>,
    /// Their own keys; of a sequence one column, the entries' places.
    pub keys: Vec<ArrayRef>,
    /// The entries.
    pub values: ArrayRef,
    /// Whether the key has more.
    pub more: Vec<bool>,
}

/// Entries that rows name.
pub struct Riders {
    /// The entry of each row.
    pub of_rows: Vec<u32>,
    /// Whose each entry is.
    pub ids: Vec<KeyId>,
    /// Their own keys.
    pub keys: Vec<ArrayRef>,
    /// The entries, null where there is none.
    pub values: ArrayRef,
}

/// Entries of so few bytes need not be counted one by one.
const FEW_BYTES: usize = 64 << 10;
/// What a page holds at most, in bytes as they are encoded, but for one entry.
const PAGE_BYTES: usize = 1 << 20;
/// What one look-up gives at most.
const FOUND_BYTES_MAX: usize = 64 << 20;

/// The entries of one state.
pub struct EntryTable {
    own_key: OwnKey,
    value_type: DataType,
    values: RowConverter,
    entries: BTreeMap<Box<[u8]>, Entry>,
    ttl: Option<Ttl>,
    /// Counts the snapshots.
    generation: u32,
    sealed: Option<Sealed>,
    /// The generation that began with the last snapshot that can be built upon; none = there has been none.
    base: Option<u32>,
    /// Entries of that snapshot, or of those before, that have gone since.
    removed: BTreeSet<Box<[u8]>>,
    /// Where old entries are looked for next.
    swept: Box<[u8]>,
    /// Keys whose entries were too old and have gone.
    aged: Vec<KeyId>,
    version: u64,
    /// The bytes of the largest entry that there has been.
    largest: usize,
    /// The bytes of all places and entries.
    bytes: usize,
    /// Of the hash by which a call's entries are told apart.
    seed: u64,
}

enum OwnKey {
    /// Of a dictionary.
    Columns(RowConverter),
    /// Of a sequence: its place, 8 bytes, the highest first.
    Place,
}

/// Own keys as the map has them.
enum OwnKeys {
    Rows(Rows),
    Places(Vec<[u8; 8]>),
}

impl OwnKeys {
    fn len(&self) -> usize {
        match self {
            Self::Rows(rows) => rows.num_rows(),
            Self::Places(places) => places.len(),
        }
    }

    fn get(&self, row: usize) -> &[u8] {
        match self {
            Self::Rows(rows) => rows.row(row).data(),
            Self::Places(places) => &places[row],
        }
    }
}

struct Entry {
    value: Box<[u8]>,
    /// In milliseconds since the epoch.
    touched: i64,
    /// How many snapshots had been sealed when it was written.
    generation: u32,
    /// And when it was written, or touched.
    marked: u32,
    /// A snapshot that can be built upon has it, or what was there before.
    is_known: bool,
}

/// A snapshot that is being written: entries of an older generation than the table's.
struct Sealed {
    /// It has those only that were marked since.
    since: Option<u32>,
    /// What it has to say to be gone.
    removed: BTreeSet<Box<[u8]>>,
    /// Those up to this one have been given.
    given: Option<Box<[u8]>>,
    /// Those after it that have changed since, as they were: where they are, and their values.
    saved: Vec<(Box<[u8]>, Entry)>,
}

/// Some entries of a snapshot.
pub(crate) struct EntryRows {
    /// Whose each is.
    pub(crate) ids: Vec<KeyId>,
    /// Their own keys (of a sequence their places), then the entries.
    pub(crate) columns: Vec<ArrayRef>,
    /// When each was touched.
    pub(crate) touched: Int64Array,
}

/// Bytes of a key's number in an entry's place.
const ID_BYTES: usize = size_of::<KeyId>();

/// How many entries are looked at, whether they are too old, for each one that is asked for.
const SWEPT: usize = 4;

/// What an entry takes beside its bytes: its part of the map, two allocations.
const ENTRY_BYTES: usize = 96;

/// How many entries of a key are removed at once, so that it costs little memory.
const CLEARED: usize = 4 * 1024;

impl EntryTable {
    /// An empty dictionary (or broadcast state) of entries of this type by keys of those types; `ttl` =
    /// how long an entry lives; `seed` is best unpredictable.
    ///
    /// # Errors
    /// If keys or entries of the types cannot be encoded.
    pub fn dictionary(
        keys: &[DataType],
        value_type: &DataType,
        ttl: Option<Ttl>,
        seed: u64,
    ) -> Result<Self, ArrowError> {
        let keys = keys.iter().map(|data_type| SortField::new(data_type.clone())).collect();
        Self::new(OwnKey::Columns(RowConverter::new(keys)?), value_type, ttl, seed)
    }

    /// An empty sequence.
    ///
    /// # Errors
    /// If entries of the type cannot be encoded.
    pub fn sequence(value_type: &DataType, ttl: Option<Ttl>) -> Result<Self, ArrowError> {
        Self::new(OwnKey::Place, value_type, ttl, 0)
    }

    fn new(own_key: OwnKey, value_type: &DataType, ttl: Option<Ttl>, seed: u64) -> Result<Self, ArrowError> {
        Ok(Self {
            own_key,
            value_type: value_type.clone(),
            values: RowConverter::new(vec![SortField::new(value_type.clone())])?,
            entries: BTreeMap::new(),
            ttl,
            generation: 0,
            sealed: None,
            base: None,
            removed: BTreeSet::new(),
            swept: Box::default(),
            aged: Vec::new(),
            version: 0,
            largest: 0,
            bytes: 0,
            seed,
        })
    }

    /// How many entries there are, with those that are too old and not yet swept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether a key has an entry, perhaps one that is too old and not yet swept.
    #[must_use]
    pub fn has(&self, id: KeyId) -> bool {
        let first = self.entries.range::<[u8], _>(from(&id.to_be_bytes())).next();
        first.is_some_and(|(key, _)| key.starts_with(&id.to_be_bytes()))
    }

    /// A number that changes with every change.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The entries of these keys with these own keys, one row each, null where there is none. `now` is
    /// the processing time, in milliseconds since the epoch.
    ///
    /// # Errors
    /// If the own keys are not of the table's types, or the entries take more than 64 MiB.
    pub fn get(&mut self, ids: &[KeyId], keys: &[ArrayRef], now: i64) -> Result<ArrayRef, ArrowError> {
        let keys = self.encode(keys)?;
        self.sweep(ids.len(), now);
        let mut at = Vec::new();
        let (mut found, mut bytes) = (Vec::with_capacity(ids.len()), 0);
        if self.ttl.is_some_and(|ttl| ttl.on_read) {
            for (row, id) in ids.iter().enumerate() {
                place(&mut at, *id, keys.get(row));
                if let Some(entry) = self.entries.get_mut(&at[..])
                    && !is_old(self.ttl, entry.touched, now)
                {
                    (entry.touched, entry.marked) = (now, self.generation);
                }
            }
        }
        for (row, id) in ids.iter().enumerate() {
            place(&mut at, *id, keys.get(row));
            let entry = self.entries.get(&at[..]).filter(|entry| !is_old(self.ttl, entry.touched, now));
            bytes += entry.map_or(0, |entry| entry.value.len());
            found.push(entry.map(|entry| &*entry.value));
        }
        if bytes > FOUND_BYTES_MAX {
            return Err(ArrowError::ComputeError(format!(
                "a look-up of {bytes} bytes, above {FOUND_BYTES_MAX}"
            )));
        }
        self.column(&found)
    }

    /// The entries that rows of these keys name by these own keys, each once, in the order in which they
    /// first come.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn ride(&mut self, ids: &[KeyId], keys: &[ArrayRef], now: i64) -> Result<Riders, ArrowError> {
        let encoded = self.encode(keys)?;
        let state = FixedState::with_seed(self.seed);
        let mut seen: HashTable<u32> = HashTable::with_capacity(ids.len());
        let mut firsts: Vec<u32> = Vec::new();
        let mut of_rows = Vec::with_capacity(ids.len());
        for (row, id) in ids.iter().enumerate() {
            let key = (*id, encoded.get(row));
            let of_entry = |entry: &u32| {
                let first = firsts[*entry as usize] as usize;
                (ids[first], encoded.get(first))
            };
            let hash = state.hash_one(key);
            let found =
                seen.entry(hash, |entry| of_entry(entry) == key, |entry| state.hash_one(of_entry(entry)));
            let entry = match found {
                Occupied(found) => *found.get(),
                Vacant(free) => {
                    // A call has fewer rows than 2^32.
                    let entry = firsts.len() as u32;
                    free.insert(entry);
                    firsts.push(row as u32);
                    entry
                }
            };
            of_rows.push(entry);
        }
        let ids: Vec<KeyId> = firsts.iter().map(|row| ids[*row as usize]).collect();
        let firsts = UInt32Array::from(firsts);
        let keys: Vec<ArrayRef> =
            keys.iter().map(|column| take(column, &firsts, None)).collect::<Result<_, _>>()?;
        let values = self.get(&ids, &keys, now)?;
        Ok(Riders { of_rows, ids, keys, values })
    }

    /// The bytes of the entries that rows of these keys name by these own keys, at most.
    ///
    /// # Errors
    /// If the own keys are not of the table's types.
    pub fn bytes(&self, ids: &[KeyId], keys: &[ArrayRef]) -> Result<usize, ArrowError> {
        let most = self.largest.saturating_mul(ids.len());
        if most <= FEW_BYTES {
            return Ok(most);
        }
        let keys = self.encode(keys)?;
        let mut at = Vec::new();
        let of_row = |(row, id): (usize, &KeyId)| {
            place(&mut at, *id, keys.get(row));
            self.entries.get(&at[..]).map_or(0, |entry| entry.value.len())
        };
        Ok(ids.iter().enumerate().map(of_row).sum())
    }

    /// The first entries of these keys (each in the order of their own keys), or the first after these
    /// own keys: at most `limit` of each, and fewer where they are large, but at least one where there is one.
    ///
    /// # Errors
    /// If the own keys are not of the table's types, or the columns cannot be made.
    pub fn scan(
        &mut self,
        ids: &[KeyId],
        after: Option<&[ArrayRef]>,
        limit: usize,
        now: i64,
    ) -> Result<EntryPage, ArrowError> {
        let after = after.map(|keys| self.encode(keys)).transpose()?;
        if let Some(after) = &after
            && after.len() != ids.len()
        {
            return Err(ArrowError::InvalidArgumentError("a key for each group".into()));
        }
        self.sweep(ids.len(), now);
        let (mut offsets, mut more, mut left) = (vec![0], Vec::with_capacity(ids.len()), PAGE_BYTES);
        let mut found: Vec<(&[u8], &[u8])> = Vec::new();
        let mut at = Vec::new();
        let mut touched: Vec<Box<[u8]>> = Vec::new();
        for (row, id) in ids.iter().enumerate() {
            let prefix = id.to_be_bytes();
            let start = match &after {
                Some(after) => {
                    place(&mut at, *id, after.get(row));
                    Bound::Excluded(&at[..])
                }
                None => Bound::Included(&prefix[..]),
            };
            let mut given = 0;
            let mut has_more = false;
            for (key, entry) in self.entries.range::<[u8], _>((start, Bound::Unbounded)) {
                if !key.starts_with(&prefix) {
                    break;
                }
                if is_old(self.ttl, entry.touched, now) {
                    continue;
                }
                let bytes = key.len() + entry.value.len();
                if given == limit || (bytes > left && !found.is_empty()) {
                    has_more = true;
                    break;
                }
                left = left.saturating_sub(bytes);
                given += 1;
                found.push((&key[prefix.len()..], &entry.value));
                if self.ttl.is_some_and(|ttl| ttl.on_read) {
                    touched.push(key.clone());
                }
            }
            more.push(has_more);
            offsets.push(u32::try_from(found.len()).unwrap_or(u32::MAX));
        }
        let values: Vec<Option<&[u8]>> = found.iter().map(|(_, value)| Some(*value)).collect();
        let page = EntryPage { offsets, keys: self.own_keys(&found)?, values: self.column(&values)?, more };
        for key in touched {
            if let Some(entry) = self.entries.get_mut(&key) {
                (entry.touched, entry.marked) = (now, self.generation);
            }
        }
        Ok(page)
    }

    /// Applies changes in their order: of these keys, with these own keys (of a sequence none) and these
    /// entries, one row a change.
    ///
    /// # Errors
    /// If an entry is too large, or columns are not of the table's types; then nothing is changed.
    pub fn apply(
        &mut self,
        changes: &[EntryChange],
        ids: &[KeyId],
        keys: &[ArrayRef],
        values: &ArrayRef,
        now: i64,
    ) -> Result<(), StoreError> {
        let keys = match self.own_key {
            OwnKey::Columns(_) => Some(self.encode(keys)?),
            OwnKey::Place => None,
        };
        let values =
            self.encoded(values, changes.iter().zip(ids).map(|(c, id)| (*c == EntryChange::Put, *id)))?;
        let mut at = Vec::new();
        for (row, (change, id)) in changes.iter().zip(ids).enumerate() {
            match (change, &keys) {
                (EntryChange::Clear, _) => self.clear(*id),
                (EntryChange::Remove, Some(keys)) => {
                    place(&mut at, *id, keys.get(row));
                    self.remove(&at);
                }
                // An entry of a sequence has no own key.
                (EntryChange::Remove, None) => {}
                (EntryChange::Put, Some(keys)) => {
                    place(&mut at, *id, keys.get(row));
                    self.put(&at, values.row(row), now);
                }
                (EntryChange::Put, None) => {
                    let next = self.last_place(*id).map_or(0, |last| last + 1);
                    place(&mut at, *id, &next.to_be_bytes());
                    self.put(&at, values.row(row), now);
                }
            }
        }
        self.version += u64::from(!changes.is_empty());
        Ok(())
    }

    /// Writes the entries of these keys with these own keys where `written` says so; null removes.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub fn store(
        &mut self,
        ids: &[KeyId],
        keys: &[ArrayRef],
        written: impl Fn(usize) -> bool,
        values: &ArrayRef,
        now: i64,
    ) -> Result<(), StoreError> {
        let keys = self.encode(keys)?;
        let is_put = |row: usize| written(row) && !values.is_null(row);
        let encoded = self.encoded(values, ids.iter().enumerate().map(|(row, id)| (is_put(row), *id)))?;
        let mut at = Vec::new();
        for (row, id) in ids.iter().enumerate().filter(|(row, _)| written(*row)) {
            place(&mut at, *id, keys.get(row));
            if is_put(row) {
                self.put(&at, encoded.row(row), now);
            } else {
                self.remove(&at);
            }
        }
        self.version += 1;
        Ok(())
    }

    /// The entries as bytes; of those that are put none is too large.
    fn encoded(
        &self,
        values: &ArrayRef,
        puts: impl Iterator<Item = (bool, KeyId)>,
    ) -> Result<Rows, StoreError> {
        let encoded = self.values.convert_columns(&[Arc::clone(values)])?;
        for (row, (is_put, key)) in puts.enumerate() {
            let bytes = if is_put { encoded.row(row).data().len() } else { 0 };
            if bytes > VALUE_BYTES_MAX {
                return Err(StoreError::TooLarge { key, bytes });
            }
        }
        Ok(encoded)
    }

    fn put(&mut self, at: &[u8], value: Row<'_>, touched: i64) {
        self.largest = self.largest.max(value.data().len());
        let (generation, base) = (self.generation, self.base);
        let entry = |is_known| Entry {
            value: value.data().into(),
            touched,
            generation,
            marked: generation,
            is_known,
        };
        match self.entries.get_mut(at) {
            Some(there) => {
                if there.value.as_ref() == value.data() && there.generation == generation {
                    there.touched = touched;
                    return;
                }
                let written = entry(there.is_known_since(base));
                let before = std::mem::replace(there, written);
                self.bytes = self.bytes + value.data().len() - before.value.len();
                self.save(at, before);
            }
            None => {
                self.bytes += at.len() + value.data().len();
                let is_known = !self.removed.is_empty() && self.removed.remove(at);
                self.entries.insert(at.into(), entry(is_known));
            }
        }
    }

    fn remove(&mut self, at: &[u8]) {
        if let Some(before) = self.entries.remove(at) {
            self.bytes -= at.len() + before.value.len();
            if before.is_known_since(self.base) {
                self.removed.insert(at.into());
            }
            self.save(at, before);
        }
    }

    /// Keeps what an entry was, if a snapshot still needs it.
    fn save(&mut self, at: &[u8], before: Entry) {
        if let Some(sealed) = &mut self.sealed
            && sealed.has(&before, self.generation)
            && sealed.given.as_deref().is_none_or(|given| given < at)
        {
            sealed.saved.push((at.into(), before));
        }
    }

    /// The entries as they are now are a snapshot.
    pub(crate) fn seal(&mut self, extent: Extent) {
        self.generation = self.generation.wrapping_add(1);
        let since = self.base.filter(|_| extent == Extent::Changes);
        let mut removed = BTreeSet::new();
        if extent != Extent::Apart {
            removed = std::mem::take(&mut self.removed);
            self.base = Some(self.generation);
        }
        if since.is_none() {
            removed.clear();
        }
        self.sealed = Some(Sealed { since, removed, given: None, saved: Vec::new() });
    }

    /// The entries as they are now are those of a snapshot that can be built upon.
    pub(crate) fn build_upon(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        self.base = Some(self.generation);
        self.removed.clear();
    }

    /// These keys, which have no entry, are forgotten: what the snapshot under way still has to say of them.
    pub(crate) fn forget(&mut self, ids: &[KeyId]) -> Result<Option<EntryRows>, ArrowError> {
        take_of_keys(&mut self.removed, ids);
        let Some(sealed) = &mut self.sealed else { return Ok(None) };
        let removed = take_of_keys(&mut sealed.removed, ids);
        (!removed.is_empty()).then(|| self.removed_rows(&removed)).transpose()
    }

    fn removed_rows(&self, removed: &[Box<[u8]>]) -> Result<EntryRows, ArrowError> {
        let found: Vec<(&[u8], &[u8])> = removed.iter().map(|at| (&at[ID_BYTES..], &[][..])).collect();
        let mut columns = self.own_keys(&found)?;
        columns.push(new_null_array(&self.value_type, removed.len()));
        let ids = removed.iter().map(|at| id_of(at)).collect();
        Ok(EntryRows { ids, columns, touched: Int64Array::from(vec![i64::MIN; removed.len()]) })
    }

    /// Entries of the snapshot that have changed since this was asked last.
    pub(crate) fn take_saved(&mut self) -> Result<Option<EntryRows>, ArrowError> {
        let Some(sealed) = self.sealed.as_mut().filter(|sealed| !sealed.saved.is_empty()) else {
            return Ok(None);
        };
        let saved = std::mem::take(&mut sealed.saved);
        self.rows(saved.iter().map(|(key, entry)| (&**key, entry)).collect()).map(Some)
    }

    /// The next entries of the snapshot, of so many that are looked at; none = there are no more.
    pub(crate) fn sweep_sealed(&mut self, looked: usize) -> Result<Option<EntryRows>, ArrowError> {
        let Some(sealed) = &mut self.sealed else { return Ok(None) };
        let mut removed = Vec::new();
        while removed.len() < looked
            && let Some(at) = sealed.removed.pop_first()
        {
            removed.push(at);
        }
        if !removed.is_empty() {
            return self.removed_rows(&removed).map(Some);
        }
        let Some(sealed) = &self.sealed else { return Ok(None) };
        let from = sealed.given.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let next: Vec<_> = self.entries.range::<[u8], _>((from, Bound::Unbounded)).take(looked).collect();
        let Some((last, _)) = next.last() else {
            self.sealed = None;
            return Ok(None);
        };
        let given = Some((*last).clone());
        let old = next.iter().filter(|(_, entry)| sealed.has(entry, self.generation));
        let rows = self.rows(old.map(|(key, entry)| (&***key, *entry)).collect())?;
        if let Some(sealed) = &mut self.sealed {
            sealed.given = given;
        }
        Ok(Some(rows))
    }

    fn rows(&self, entries: Vec<(&[u8], &Entry)>) -> Result<EntryRows, ArrowError> {
        let found: Vec<(&[u8], &[u8])> =
            entries.iter().map(|(key, entry)| (&key[ID_BYTES..], &*entry.value)).collect();
        let values: Vec<Option<&[u8]>> = found.iter().map(|(_, value)| Some(*value)).collect();
        let mut columns = self.own_keys(&found)?;
        columns.push(self.column(&values)?);
        Ok(EntryRows {
            ids: entries.iter().map(|(key, _)| id_of(key)).collect(),
            columns,
            touched: entries.iter().map(|(_, entry)| entry.touched).collect(),
        })
    }

    /// Puts entries of a snapshot back, by `is_known` of the one under way: `columns` are their own keys (of a sequence their places) and
    /// they themselves.
    ///
    /// # Errors
    /// If they are not of the table's types.
    pub(crate) fn import(
        &mut self,
        ids: &[KeyId],
        columns: &[ArrayRef],
        touched: &Int64Array,
        is_known: bool,
    ) -> Result<(), StoreError> {
        let Some((values, keys)) = columns.split_last() else { return Ok(()) };
        let keys = self.encode(keys)?;
        let encoded = self.encoded(values, ids.iter().map(|id| (true, *id)))?;
        let mut at = Vec::new();
        for (row, id) in ids.iter().enumerate() {
            place(&mut at, *id, keys.get(row));
            if values.is_null(row) {
                self.remove(&at);
                continue;
            }
            self.put(&at, encoded.row(row), touched.value(row));
            if is_known && let Some(entry) = self.entries.get_mut(&at[..]) {
                entry.is_known = true;
            }
        }
        self.version += 1;
        Ok(())
    }

    /// Takes all entries of these keys out, key by key.
    pub(crate) fn take_out(&mut self, ids: &[KeyId]) -> Result<EntryRows, ArrowError> {
        let mut places = Vec::new();
        for id in ids {
            let prefix = id.to_be_bytes();
            let of_key = self.entries.range::<[u8], _>(from(&prefix));
            places.extend(of_key.take_while(|(at, _)| at.starts_with(&prefix)));
        }
        let rows = self.rows(places.iter().map(|(at, entry)| (&***at, *entry)).collect())?;
        let places: Vec<Box<[u8]>> = places.into_iter().map(|(at, _)| at.clone()).collect();
        places.iter().for_each(|at| self.remove(at));
        Ok(rows)
    }

    /// Bytes of memory, about.
    pub(crate) fn memory(&self) -> usize {
        self.bytes + self.entries.len() * ENTRY_BYTES
    }

    /// Takes the numbers of keys some of whose entries were too old and have gone.
    pub(crate) fn take_aged(&mut self) -> Vec<KeyId> {
        std::mem::take(&mut self.aged)
    }

    /// Whether entries have a time to live.
    pub(crate) fn is_aging(&self) -> bool {
        self.ttl.is_some()
    }

    fn clear(&mut self, id: KeyId) {
        while self.clear_some(id, CLEARED) == CLEARED {}
    }

    /// Removes the first entries of a key, at most so many; how many they were.
    pub(crate) fn clear_some(&mut self, id: KeyId, max: usize) -> usize {
        let prefix = id.to_be_bytes();
        let keys = self.entries.range::<[u8], _>(from(&prefix)).map(|(key, _)| key);
        let keys: Vec<_> = keys.take_while(|key| key.starts_with(&prefix)).take(max).cloned().collect();
        keys.iter().for_each(|key| self.remove(key));
        self.version += u64::from(!keys.is_empty());
        keys.len()
    }

    /// The place of a sequence's last entry.
    fn last_place(&self, id: KeyId) -> Option<u64> {
        let prefix = id.to_be_bytes();
        let mut end = Vec::new();
        place(&mut end, id, &[u8::MAX; 9]);
        let (key, _) =
            self.entries.range::<[u8], _>((Bound::Unbounded, Bound::Excluded(&end[..]))).next_back()?;
        let place = key.strip_prefix(&prefix)?;
        Some(u64::from_be_bytes(place.try_into().ok()?))
    }

    fn encode(&self, keys: &[ArrayRef]) -> Result<OwnKeys, ArrowError> {
        match &self.own_key {
            OwnKey::Columns(converter) => {
                let canonical: Vec<ArrayRef> = keys.iter().map(canonical_floats).collect();
                Ok(OwnKeys::Rows(converter.convert_columns(&canonical)?))
            }
            OwnKey::Place => {
                let places = keys.first().and_then(|column| column.as_primitive_opt::<Int64Type>());
                let places = places.ok_or_else(|| {
                    ArrowError::InvalidArgumentError("a place in a sequence is an int64".into())
                })?;
                Ok(OwnKeys::Places(places.values().iter().map(|place| place.to_be_bytes()).collect()))
            }
        }
    }

    fn own_keys(&self, found: &[(&[u8], &[u8])]) -> Result<Vec<ArrayRef>, ArrowError> {
        match &self.own_key {
            OwnKey::Columns(converter) => {
                let parser = converter.parser();
                converter.convert_rows(found.iter().map(|(key, _)| parser.parse(key)))
            }
            OwnKey::Place => {
                let place = |key: &[u8]| i64::from_be_bytes(key.try_into().unwrap_or_default());
                let places: Int64Array = found.iter().map(|(key, _)| Some(place(key))).collect();
                Ok(vec![Arc::new(places)])
            }
        }
    }

    /// A column of entries.
    fn column(&self, entries: &[Option<&[u8]>]) -> Result<ArrayRef, ArrowError> {
        if entries.iter().all(Option::is_none) {
            return Ok(new_null_array(&self.value_type, entries.len()));
        }
        let parser = self.values.parser();
        let null = self.values.convert_columns(&[new_null_array(&self.value_type, 1)])?;
        let rows = entries.iter().map(|entry| match entry {
            Some(bytes) => parser.parse(bytes),
            None => null.row(0),
        });
        Ok(Arc::clone(&self.values.convert_rows(rows)?[0]))
    }

    /// Removes old entries among the next few, for as many as are asked for.
    fn sweep(&mut self, asked: usize, now: i64) {
        if self.ttl.is_none() || self.entries.is_empty() {
            return;
        }
        let looked = (SWEPT * asked.max(1)).min(self.entries.len());
        let (mut old, mut last) = (Vec::new(), None);
        for (key, entry) in self.entries.range::<[u8], _>(from(&self.swept)).take(looked) {
            if is_old(self.ttl, entry.touched, now) {
                old.push(key.clone());
            }
            last = Some(key);
        }
        self.swept = match last {
            // The next round begins after it.
            Some(key) => [key, &[0][..]].concat().into(),
            None => Box::default(),
        };
        for key in old {
            let gone = self.entries.remove(&key);
            self.bytes -= gone.map_or(0, |gone| key.len() + gone.value.len());
            self.aged.push(id_of(&key));
            self.version += 1;
        }
    }
}

impl Entry {
    /// Whether a snapshot that can be built upon has it, or what was there before.
    fn is_known_since(&self, base: Option<u32>) -> bool {
        self.is_known || base.is_some_and(|base| self.generation < base)
    }
}

impl Sealed {
    /// Whether an entry is to be given as it is, in this generation.
    fn has(&self, entry: &Entry, generation: u32) -> bool {
        entry.generation < generation && self.since.is_none_or(|since| entry.marked >= since)
    }
}

/// Takes what is of these keys.
fn take_of_keys(places: &mut BTreeSet<Box<[u8]>>, ids: &[KeyId]) -> Vec<Box<[u8]>> {
    let mut taken = Vec::new();
    for id in ids.iter().filter(|_| !places.is_empty()) {
        let prefix = id.to_be_bytes();
        let of_key = places.range::<[u8], _>(from(&prefix)).take_while(|at| at.starts_with(&prefix));
        taken.extend(of_key.cloned());
    }
    for at in &taken {
        places.remove(at);
    }
    taken
}

fn is_old(ttl: Option<Ttl>, touched: i64, now: i64) -> bool {
    ttl.is_some_and(|ttl| ttl.is_over(touched, now))
}

/// Whose an entry is.
fn id_of(at: &[u8]) -> KeyId {
    KeyId::from_be_bytes(at[..ID_BYTES].try_into().unwrap_or_default())
}

/// An entry's place in the map.
fn place(at: &mut Vec<u8>, id: KeyId, own_key: &[u8]) {
    at.clear();
    at.extend_from_slice(&id.to_be_bytes());
    at.extend_from_slice(own_key);
}

fn from(start: &[u8]) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (Bound::Included(start), Bound::Unbounded)
}

#[cfg(test)]
mod tests;
