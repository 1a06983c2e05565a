//! Keyed state in memory: the tables, and their snapshots.
//!
//! A snapshot copies nothing when it is sealed. Each table is then swept in its order; a row that is
//! about to change before the sweep has come to it is given as it was. So the pause of a barrier does
//! not depend on how much state there is, one thread touches it, and a change costs one look at a bit.
//!
//! A snapshot of changes gives those rows only that have changed since the one before, of which a bit each is kept
//! too, and what has gone; [`layers`](crate::layers) says how they make one with those before.
//!
//! Source: copy-on-update checkpoints (Salles et al., VLDB 2009; Cao et al., SIGMOD 2011). Key groups
//! are told from the keys when a chunk is taken in: rows of a group do not lie together here.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, BooleanArray, Int64Array, UInt8Array};
use arrow_buffer::BooleanBuffer;
use arrow_schema::{ArrowError, DataType};
use arrow_select::concat::concat;
use model::job_graph::{State, StateKind, TimeDomain};

use crate::backend::{Backend, Extent, Held, NotSealed, StateChunk, StateTable, Sweep, Ticket, TimerChange};
use crate::chunks::Chunks;
use crate::entry_table::{EntryChange, EntryPage, EntryRows, EntryTable, Riders};
use crate::key_index::{KeyId, KeyIndex};
use crate::timers::{Due, Timers};
use crate::value_table::{StoreError, ValueTable};

/// The keyed state of an operator's subtask, in memory.
pub struct MemoryBackend {
    index: KeyIndex,
    seed: u64,
    /// There are columns in a key.
    is_keyed: bool,
    /// By the state's place in the function.
    tables: Vec<Table>,
    timers: Timers,
    sealed: Option<Sealed>,
    /// By state; at the end the timers.
    sealed_rows: Vec<SealedRows>,
    /// A snapshot has been sealed that others can build upon.
    is_tracked: bool,
    /// By number: some row of the key has been given to a snapshot.
    known: Bits,
    /// Such keys that have nothing any more, since the last snapshot that can be built upon.
    gone: Vec<Vec<ArrayRef>>,
    /// What could not be said when it happened.
    failure: Option<ArrowError>,
    /// Deliberate fault of the tests: what changes during a snapshot is not saved.
    #[cfg(test)]
    pub(crate) forgets_to_save: bool,
    /// Another: keys that have gone are not remembered.
    #[cfg(test)]
    pub(crate) forgets_gone: bool,
}

enum Table {
    Values(ValueTable),
    Entries { entries: EntryTable, is_broadcast: bool },
}

impl Table {
    fn new(state: &State, seed: u64) -> Result<Self, ArrowError> {
        let value = state.value.field(0).data_type();
        let keys: Vec<DataType> = state.key.fields().iter().map(|field| field.data_type().clone()).collect();
        let entries = match &state.kind {
            StateKind::Value => return Ok(Self::Values(ValueTable::new(value, state.ttl)?)),
            StateKind::Sequence => EntryTable::sequence(value, state.ttl)?,
            StateKind::Broadcast => EntryTable::dictionary(&keys, value, None, seed)?,
            StateKind::Dictionary(_) => EntryTable::dictionary(&keys, value, state.ttl, seed)?,
        };
        Ok(Self::Entries { entries, is_broadcast: state.kind == StateKind::Broadcast })
    }
}

/// A snapshot that is being written.
struct Sealed {
    epoch: u64,
    /// It has what has changed.
    is_delta: bool,
    /// The table that is swept: the states', then the timers.
    table: usize,
    /// Rows that have changed since, as they were.
    saved: VecDeque<StateChunk>,
}

/// A bit for each key number.
struct Bits(Chunks<u64>);

impl Bits {
    fn new() -> Self {
        Self(Chunks::new(1))
    }

    fn all_below(bound: usize) -> Self {
        let mut bits = Self::new();
        bits.0.grow_to(bound.div_ceil(64), u64::MAX);
        if let (last @ 1.., words @ 1..) = (bound % 64, bits.0.len()) {
            *bits.0.element_mut(words - 1, 0) = (1 << last) - 1;
        }
        bits
    }

    fn set(&mut self, id: KeyId) {
        let id = id as usize;
        self.0.grow_to(id / 64 + 1, 0);
        *self.0.element_mut(id / 64, 0) |= 1 << (id % 64);
    }

    fn is_set(&self, id: KeyId) -> bool {
        self.word(id as usize / 64) >> (id % 64) & 1 == 1
    }

    /// Whether it was set. It is not any more.
    fn take(&mut self, id: KeyId) -> bool {
        let is_set = self.is_set(id);
        if is_set {
            *self.0.element_mut(id as usize / 64, 0) &= !(1 << (id % 64));
        }
        is_set
    }

    fn word(&self, word: usize) -> u64 {
        self.0.element(word, 0).unwrap_or(0)
    }

    fn take_word(&mut self, word: usize) -> u64 {
        if word < self.0.len() { std::mem::take(self.0.element_mut(word, 0)) } else { 0 }
    }

    /// All numbers with bits are below this.
    fn bound(&self) -> usize {
        64 * self.0.len()
    }
}

/// Rows of a table by key number, that belong to the snapshot.
struct SealedRows {
    /// These have been given.
    given: usize,
    /// Those below this were there.
    bound: usize,
    /// What the snapshot has.
    extent: Extent,
    /// Of those that have not been given: whether they have been saved. Kept from one snapshot to the next, as fresh
    /// memory costs more than what is done with it.
    saved: Bits,
    /// What has changed since the last snapshot that can be built upon.
    changed: Bits,
    /// While that is written: what had changed before it, and has not been given.
    sealed: Bits,
}

impl SealedRows {
    fn new() -> Self {
        let (saved, changed, sealed) = (Bits::new(), Bits::new(), Bits::new());
        Self { given: 0, bound: 0, extent: Extent::Apart, saved, changed, sealed }
    }

    fn seal(&mut self, bound: usize, extent: Extent) {
        (self.given, self.bound, self.extent) = (0, bound, extent);
        if extent != Extent::Apart {
            // The sweep of the last one has left no bit in it.
            std::mem::swap(&mut self.changed, &mut self.sealed);
            self.bound = bound.max(self.sealed.bound());
        }
    }

    /// Whether the row is still to be given as it is now: then it is not any more.
    fn is_first_change(&mut self, id: KeyId) -> bool {
        if !(self.given..self.bound).contains(&(id as usize))
            || (self.extent == Extent::Changes && !self.sealed.is_set(id))
            || self.saved.is_set(id)
        {
            return false;
        }
        self.saved.set(id);
        true
    }

    /// The next rows, of so many words of bits that are looked at, that have not been saved.
    fn advance(&mut self, words: usize) -> Vec<KeyId> {
        // Few of them may have changed.
        let looked = if self.extent == Extent::Changes { 1_024 * words } else { words };
        let (start, end) = (self.given, (self.given + 64 * looked).min(self.bound));
        let mut ids = Vec::with_capacity(64 * words);
        for word in start / 64..end.div_ceil(64) {
            let mut wanted = !self.saved.take_word(word);
            if self.extent != Extent::Apart {
                let changed = self.sealed.take_word(word);
                wanted &= if self.extent == Extent::Changes { changed } else { u64::MAX };
            }
            self.given = end.min(64 * (word + 1));
            while wanted != 0 {
                let id = 64 * word + wanted.trailing_zeros() as usize;
                wanted &= wanted - 1;
                if id < end {
                    // Key numbers are of 32 bits.
                    ids.push(id as KeyId);
                }
            }
            if ids.len() >= 64 * words {
                break;
            }
        }
        ids
    }
}

/// All that some keys have, taken out of memory. Broadcast states are nobody's.
pub(crate) struct TakenOut {
    /// The keys' columns.
    pub(crate) keys: Vec<ArrayRef>,
    /// By state: a value a key, null where there is none, and when each was touched; none = a state of entries.
    pub(crate) values: Vec<Option<(ArrayRef, Option<Int64Array>)>>,
    /// By state: the entries, with the keys' numbers; none = a state by value.
    pub(crate) entries: Vec<Option<EntryRows>>,
    /// Timers, with the keys' numbers.
    pub(crate) timers: Vec<(KeyId, TimeDomain, i64)>,
}

/// The number that stands for the one key of a broadcast state.
pub const BROADCAST: KeyId = 0;
/// All is near, always.
const NEAR: Ticket = Ticket(0);
/// Rows that a sweep looks at, in words of bits.
const SWEPT_WORDS: usize = 16;
pub(crate) const DOMAINS: [TimeDomain; 2] = [TimeDomain::EventTime, TimeDomain::ProcessingTime];

impl MemoryBackend {
    /// No key yet. `seed` is best unpredictable.
    ///
    /// # Errors
    /// If keys or states of these types cannot be kept.
    pub fn new(key_types: &[DataType], states: &[State], seed: u64) -> Result<Self, ArrowError> {
        Ok(Self {
            index: KeyIndex::new(key_types, seed)?,
            seed,
            is_keyed: !key_types.is_empty(),
            tables: states.iter().map(|state| Table::new(state, seed)).collect::<Result<_, ArrowError>>()?,
            timers: Timers::default(),
            sealed: None,
            sealed_rows: (0..=states.len()).map(|_| SealedRows::new()).collect(),
            is_tracked: false,
            known: Bits::new(),
            gone: Vec::new(),
            failure: None,
            #[cfg(test)]
            forgets_to_save: false,
            #[cfg(test)]
            forgets_gone: false,
        })
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Bytes of memory that what is there takes, about; places of keys that have gone are not counted.
    pub(crate) fn memory(&self) -> usize {
        let (mut by_key, mut beside) = (self.index.memory() + self.timers.memory(), 0);
        for table in &self.tables {
            let (keys, values) = match table {
                Table::Values(values) => values.memory(),
                Table::Entries { entries, .. } => (0, entries.memory()),
            };
            by_key += keys;
            beside += values;
        }
        beside + by_key / self.index.bound().max(1) * self.index.len()
    }

    /// Takes these keys out, each once, with all they have: their numbers are nobody's then. What a snapshot
    /// still needs of them is saved for it.
    ///
    /// # Errors
    /// If columns cannot be made.
    pub(crate) fn take_out(&mut self, ids: &[KeyId]) -> Result<TakenOut, ArrowError> {
        let keys = self.index.keys(ids.iter().copied())?;
        let (mut values, mut entries) = (Vec::new(), Vec::new());
        // A state's place is of 32 bits.
        for state in 0..self.tables.len() as u32 {
            let changed = self.first_changes(Some(state), ids.iter().copied());
            if !changed.is_empty() {
                let chunk = self.value_rows(state, changed)?;
                self.save(chunk);
            }
            let (of_values, of_entries) = match &mut self.tables[state as usize] {
                Table::Values(table) => {
                    let there = table.peek(ids)?;
                    table.remove(ids);
                    (Some(there), None)
                }
                Table::Entries { is_broadcast: true, .. } => (None, None),
                Table::Entries { entries, .. } => (None, Some(entries.take_out(ids)?)),
            };
            if of_entries.is_some() {
                self.save_entries(state)?;
            }
            values.push(of_values);
            entries.push(of_entries);
        }
        let timers: Vec<_> = ids.iter().flat_map(|id| self.timers_of(*id)).collect();
        let deleted: Vec<TimerChange> = timers
            .iter()
            .map(|(key, domain, time)| TimerChange { key: *key, domain: *domain, time: *time, set: false })
            .collect();
        self.change_timers(&deleted)?;
        self.forget(ids)?;
        Ok(TakenOut { keys, values, entries, timers })
    }

    /// Puts rows back that were taken out, of keys that have none of the table. Of a snapshot under way they are
    /// only if `is_sealed` says so; then it is given them here, as they are.
    ///
    /// # Errors
    /// If they are not of this operator's types.
    pub(crate) fn put_back(&mut self, chunk: StateChunk, is_sealed: bool) -> Result<(), StoreError> {
        let mut ids = Vec::new();
        self.index.ids(&chunk.keys, chunk.rows(), &mut ids)?;
        let rows = match chunk.table {
            StateTable::Values(state) => Some(Some(state)),
            StateTable::Timers => Some(None),
            // What is written while a snapshot is under way is none of its.
            StateTable::Entries(_) | StateTable::Gone => None,
        };
        if let Some(state) = rows {
            self.first_changes(state, ids.iter().copied());
        }
        drop(self.take_in(&chunk, is_sealed)?);
        if is_sealed {
            ids.iter().for_each(|id| self.known.set(*id));
            self.save(Some(chunk));
        }
        Ok(())
    }

    /// Forgets those of these keys, and of others that have lost theirs meanwhile, that `may` be forgotten and
    /// have neither state nor timer left; which they were.
    pub(crate) fn forget_some(&mut self, ids: &[KeyId], may: impl Fn(KeyId) -> bool) -> Vec<KeyId> {
        let mut aged = Vec::new();
        for table in &mut self.tables {
            match table {
                Table::Values(values) => aged.extend(values.take_aged()),
                Table::Entries { entries, .. } => aged.extend(entries.take_aged()),
            }
        }
        let is_over = |id: &KeyId| may(*id) && !self.has_anything(*id);
        let mut gone: Vec<KeyId> = ids.iter().chain(&aged).copied().filter(is_over).collect();
        if !aged.is_empty() {
            gone.sort_unstable();
            gone.dedup();
        }
        if let Err(error) = self.forget(&gone) {
            self.failure = Some(error);
        }
        gone
    }

    /// Forgets keys, each once, that have nothing.
    fn forget(&mut self, ids: &[KeyId]) -> Result<(), ArrowError> {
        // Where there are no key columns there is one key, whose rows are told apart from nobody's by nothing.
        if self.is_tracked && self.is_keyed && !ids.is_empty() {
            // What a snapshot under way has to say of them.
            for state in 0..self.tables.len() as u32 {
                let rows = &mut self.sealed_rows[state as usize];
                let is_sealed = self.sealed.is_some();
                let pending = ids.iter().filter(|id| is_sealed && rows.is_first_change(**id)).copied();
                let pending: Vec<KeyId> = pending.collect();
                let chunk = self.value_rows(state, pending)?;
                self.save(chunk);
                if let Some(Table::Entries { entries, is_broadcast: false }) =
                    self.tables.get_mut(state as usize)
                    && let Some(rows) = entries.forget(ids)?
                {
                    let chunk = self.entry_rows(state, rows)?;
                    self.save(chunk);
                }
            }
            if let (true, Some(rows)) = (self.sealed.is_some(), self.sealed_rows.last_mut()) {
                let pending: Vec<KeyId> =
                    ids.iter().copied().filter(|id| rows.is_first_change(*id)).collect();
                let chunk = self.timer_rows_of(&pending)?;
                self.save(chunk);
            }
            let known: Vec<KeyId> = ids.iter().copied().filter(|id| self.known.take(*id)).collect();
            #[cfg(test)]
            let known = if self.forgets_gone { Vec::new() } else { known };
            if !known.is_empty() {
                self.gone.push(self.index.keys(known.into_iter())?);
                join_the_small(&mut self.gone)?;
            }
        }
        ids.iter().for_each(|id| self.index.forget(*id));
        Ok(())
    }

    /// Whether the snapshot under way has what has changed.
    fn is_delta(&self) -> bool {
        self.sealed.as_ref().is_some_and(|sealed| sealed.is_delta)
    }

    fn values(&mut self, state: u32) -> Result<&mut ValueTable, ArrowError> {
        match self.tables.get_mut(state as usize) {
            Some(Table::Values(table)) => Ok(table),
            _ => Err(no_state(state)),
        }
    }

    fn table(&mut self, state: u32) -> Result<&mut EntryTable, ArrowError> {
        match self.tables.get_mut(state as usize) {
            Some(Table::Entries { entries, .. }) => Ok(entries),
            _ => Err(no_state(state)),
        }
    }

    fn has_anything(&self, id: KeyId) -> bool {
        self.tables.iter().any(|table| match table {
            Table::Values(values) => values.is_present(id),
            Table::Entries { entries, is_broadcast } => !is_broadcast && entries.has(id),
        }) || self.timers.has(id)
    }

    /// Those rows of a snapshot that are there, of these keys.
    fn value_rows(&mut self, state: u32, mut ids: Vec<KeyId>) -> Result<Option<StateChunk>, ArrowError> {
        let is_delta = self.is_delta();
        let Some(Table::Values(table)) = self.tables.get_mut(state as usize) else { return Ok(None) };
        // In one of changes null says that there is none any more.
        ids.retain(|id| table.is_present(*id) || (is_delta && self.known.is_set(*id)));
        if ids.is_empty() {
            return Ok(None);
        }
        let (values, touched) = table.peek(&ids)?;
        ids.iter().for_each(|id| self.known.set(*id));
        let keys = self.index.keys(ids.into_iter())?;
        Ok(Some(StateChunk { table: StateTable::Values(state), keys, columns: vec![values], touched }))
    }

    fn entry_rows(&mut self, state: u32, rows: EntryRows) -> Result<Option<StateChunk>, ArrowError> {
        let Some(Table::Entries { is_broadcast, entries }) = self.tables.get(state as usize) else {
            return Ok(None);
        };
        if rows.ids.is_empty() {
            return Ok(None);
        }
        if !is_broadcast {
            rows.ids.iter().for_each(|id| self.known.set(*id));
        }
        let keys = if *is_broadcast { Vec::new() } else { self.index.keys(rows.ids.into_iter())? };
        let touched = entries.is_aging().then_some(rows.touched);
        Ok(Some(StateChunk { table: StateTable::Entries(state), keys, columns: rows.columns, touched }))
    }

    /// Rows of timers `(key, domain, instant)`; of a key without any, none.
    fn timer_rows(
        &mut self,
        timers: &[(KeyId, Option<(TimeDomain, i64)>)],
    ) -> Result<Option<StateChunk>, ArrowError> {
        if timers.is_empty() {
            return Ok(None);
        }
        let keys = self.index.keys(timers.iter().map(|(key, _)| *key))?;
        timers.iter().for_each(|(key, _)| self.known.set(*key));
        let domain = |domain| u8::from(domain == TimeDomain::ProcessingTime);
        let domains: UInt8Array = timers.iter().map(|(_, timer)| timer.map(|(of, _)| domain(of))).collect();
        let times: Int64Array = timers.iter().map(|(_, timer)| timer.map(|(_, time)| time)).collect();
        let columns: Vec<ArrayRef> = vec![Arc::new(domains), Arc::new(times)];
        Ok(Some(StateChunk { table: StateTable::Timers, keys, columns, touched: None }))
    }

    /// The rows of all timers of these keys, in a snapshot of changes behind one that says that there were others.
    fn timer_rows_of(&mut self, keys: &[KeyId]) -> Result<Option<StateChunk>, ArrowError> {
        let is_delta = self.is_delta();
        let mut timers = Vec::new();
        for key in keys {
            timers.extend((is_delta && self.known.is_set(*key)).then_some((*key, None)));
            timers.extend(self.timers_of(*key).map(|(key, domain, time)| (key, Some((domain, time)))));
        }
        self.timer_rows(&timers)
    }

    fn timers_of(&self, key: KeyId) -> impl Iterator<Item = (KeyId, TimeDomain, i64)> + '_ {
        DOMAINS
            .into_iter()
            .flat_map(move |domain| self.timers.of_key(domain, key).map(move |time| (key, domain, time)))
    }

    /// The rows of a table by key number (none = the timers) that these keys are about to change, and
    /// that a snapshot still needs.
    fn first_changes(&mut self, state: Option<u32>, ids: impl Iterator<Item = KeyId>) -> Vec<KeyId> {
        let (last, is_sealed, is_tracked) = (self.tables.len(), self.sealed.is_some(), self.is_tracked);
        if !is_sealed && !is_tracked {
            return Vec::new();
        }
        let rows = &mut self.sealed_rows[state.map_or(last, |state| state as usize)];
        let of_snapshot = |id: &KeyId| {
            if is_tracked {
                rows.changed.set(*id);
            }
            is_sealed && rows.is_first_change(*id)
        };
        let ids = ids.filter(of_snapshot).collect();
        #[cfg(test)]
        if self.forgets_to_save {
            return Vec::new();
        }
        ids
    }

    fn save(&mut self, chunk: Option<StateChunk>) {
        if let Some(sealed) = &mut self.sealed {
            sealed.saved.extend(chunk);
        }
    }

    /// Saves what the change of entries that has just been made needs.
    fn save_entries(&mut self, state: u32) -> Result<(), ArrowError> {
        if self.sealed.is_none() {
            return Ok(());
        }
        let Some(rows) = self.table(state)?.take_saved()? else { return Ok(()) };
        let chunk = self.entry_rows(state, rows)?;
        #[cfg(test)]
        let chunk = chunk.filter(|_| !self.forgets_to_save);
        self.save(chunk);
        Ok(())
    }
}

/// A row for each key that has gone; there may be no column in a key.
fn gone_rows(keys: Vec<ArrayRef>) -> StateChunk {
    let rows = keys.first().map_or(1, |column| column.len());
    let says_nothing: ArrayRef = Arc::new(BooleanArray::from(vec![true; rows]));
    StateChunk { table: StateTable::Gone, keys, columns: vec![says_nothing], touched: None }
}

/// Joins columns of a few rows each when there are many of them.
fn join_the_small(columns: &mut Vec<Vec<ArrayRef>>) -> Result<(), ArrowError> {
    const FEW_ROWS: usize = 512;
    const MANY: usize = 64;
    let is_small = |columns: &&Vec<ArrayRef>| columns.first().is_none_or(|column| column.len() < FEW_ROWS);
    let small = columns.iter().rev().take(MANY).take_while(is_small).count();
    if small < MANY {
        return Ok(());
    }
    let parts = columns.split_off(columns.len() - MANY);
    let of_column = |at: usize| -> Result<ArrayRef, ArrowError> {
        let parts: Vec<&dyn arrow_array::Array> = parts.iter().map(|part| &*part[at]).collect();
        concat(&parts)
    };
    let joined = (0..parts[0].len()).map(of_column).collect::<Result<_, _>>()?;
    columns.push(joined);
    Ok(())
}

fn no_state(state: u32) -> ArrowError {
    ArrowError::InvalidArgumentError(format!("no table of state {state} of this kind"))
}

impl Backend for MemoryBackend {
    fn prefetch(&mut self, _: &[ArrayRef], _: usize) -> Result<Ticket, ArrowError> {
        Ok(NEAR)
    }

    fn prefetch_known(&mut self, _: &[KeyId]) -> Ticket {
        NEAR
    }

    fn is_ready(&mut self, _: Ticket) -> bool {
        true
    }

    fn ids(&mut self, keys: &[ArrayRef], rows: usize, ids: &mut Vec<KeyId>) -> Result<(), ArrowError> {
        self.index.ids(keys, rows, ids)
    }

    fn bound(&self) -> usize {
        self.index.bound()
    }

    fn held(&self) -> Held {
        Held { keys: self.index.len(), timers: self.timers.len(), bytes: self.memory() }
    }

    fn keys(&self, ids: &[KeyId]) -> Result<Vec<ArrayRef>, ArrowError> {
        self.index.keys(ids.iter().copied())
    }

    fn forget_empty(&mut self, ids: &[KeyId]) {
        self.forget_some(ids, |_| true);
    }

    fn value_bytes(&self, ids: &[KeyId]) -> usize {
        let of_table = |table: &Table| match table {
            Table::Values(values) => values.bytes(ids),
            Table::Entries { .. } => 0,
        };
        self.tables.iter().map(of_table).sum()
    }

    fn load(&mut self, state: u32, ids: &[KeyId], now: i64) -> Result<ArrayRef, ArrowError> {
        let is_touched = self.is_tracked && self.values(state)?.is_touched_by_reading();
        if let Some(rows) = self.sealed_rows.get_mut(state as usize).filter(|_| is_touched) {
            ids.iter().for_each(|id| rows.changed.set(*id));
        }
        self.values(state)?.load(ids, now)
    }

    fn store(
        &mut self,
        state: u32,
        written: &[(usize, KeyId)],
        values: &ArrayRef,
        now: i64,
    ) -> Result<(), StoreError> {
        let changed = self.first_changes(Some(state), written.iter().map(|(_, id)| *id));
        if !changed.is_empty() {
            let chunk = self.value_rows(state, changed)?;
            self.save(chunk);
        }
        self.values(state)?.store(written.iter().copied(), values, now)
    }

    fn entry_bytes(&mut self, state: u32, ids: &[KeyId], keys: &[ArrayRef]) -> Result<usize, ArrowError> {
        self.table(state)?.bytes(ids, keys)
    }

    fn ride(&mut self, state: u32, ids: &[KeyId], keys: &[ArrayRef], now: i64) -> Result<Riders, ArrowError> {
        self.table(state)?.ride(ids, keys, now)
    }

    fn store_entries(
        &mut self,
        state: u32,
        ids: &[KeyId],
        keys: &[ArrayRef],
        written: Option<&BooleanBuffer>,
        values: &ArrayRef,
        now: i64,
    ) -> Result<(), StoreError> {
        let is_written = |row: usize| written.is_none_or(|written| written.value(row));
        self.table(state)?.store(ids, keys, is_written, values, now)?;
        Ok(self.save_entries(state)?)
    }

    fn change_entries(
        &mut self,
        state: u32,
        (changes, ids): (&[EntryChange], &[KeyId]),
        keys: &[ArrayRef],
        values: &ArrayRef,
        now: i64,
    ) -> Result<(), StoreError> {
        self.table(state)?.apply(changes, ids, keys, values, now)?;
        Ok(self.save_entries(state)?)
    }

    fn clear_entries(&mut self, state: u32, id: KeyId, max: usize) -> Result<usize, ArrowError> {
        let cleared = self.table(state)?.clear_some(id, max);
        self.save_entries(state)?;
        Ok(cleared)
    }

    fn entries(
        &mut self,
        state: u32,
        ids: &[KeyId],
        keys: &[ArrayRef],
        now: i64,
    ) -> Result<ArrayRef, ArrowError> {
        self.table(state)?.get(ids, keys, now)
    }

    fn scan(
        &mut self,
        state: u32,
        ids: &[KeyId],
        after: Option<&[ArrayRef]>,
        limit: usize,
        now: i64,
    ) -> Result<EntryPage, ArrowError> {
        self.table(state)?.scan(ids, after, limit, now)
    }

    fn version(&self, state: u32) -> u64 {
        match self.tables.get(state as usize) {
            Some(Table::Entries { entries, .. }) => entries.version(),
            _ => 0,
        }
    }

    fn change_timers(&mut self, changes: &[TimerChange]) -> Result<(), ArrowError> {
        let changed = self.first_changes(None, changes.iter().map(|change| change.key));
        if !changed.is_empty() {
            let chunk = self.timer_rows_of(&changed)?;
            self.save(chunk);
        }
        for TimerChange { key, domain, time, set } in changes {
            match set {
                true => self.timers.set(*domain, *key, *time),
                false => self.timers.delete(*domain, *key, *time),
            }
        }
        Ok(())
    }

    fn timers_of(&self, key: KeyId, domain: TimeDomain) -> Vec<i64> {
        self.timers.of_key(domain, key).collect()
    }

    fn next_timer(&self, domain: TimeDomain) -> Option<i64> {
        self.timers.next(domain)
    }

    fn take_due(&mut self, domain: TimeDomain, now: i64, max: usize) -> Result<Due, ArrowError> {
        let due = self.timers.take_due(domain, now, max);
        // They have gone, the keys' others are still there.
        let changed = self.first_changes(None, due.timers.iter().map(|(_, key)| *key));
        if !changed.is_empty() {
            let mut changed_in_order = changed.iter().peekable();
            let mut before = Vec::new();
            for (time, key) in &due.timers {
                if changed_in_order.next_if(|changed| **changed == *key).is_some() {
                    before.extend((self.is_delta() && self.known.is_set(*key)).then_some((*key, None)));
                    before.push((*key, Some((domain, *time))));
                    before.extend(self.timers_of(*key).map(|(key, of, time)| (key, Some((of, time)))));
                }
            }
            let chunk = self.timer_rows(&before)?;
            self.save(chunk);
        }
        Ok(due)
    }

    fn evolve(&mut self, old: &[State], new: &[State]) -> Result<(), ArrowError> {
        let mut made: Vec<Option<Table>> = Vec::with_capacity(new.len());
        for state in new {
            // What cannot be kept is noticed before anything changes.
            ValueTable::new(state.value.field(0).data_type(), None)?;
            let is_there = old.iter().any(|old| old.name == state.name);
            made.push(if is_there { None } else { Some(Table::new(state, self.seed)?) });
        }
        let mut before: Vec<Option<Table>> = std::mem::take(&mut self.tables).into_iter().map(Some).collect();
        for (state, made) in new.iter().zip(made) {
            let place = old.iter().position(|old| old.name == state.name);
            let kept = place.and_then(|place| before.get_mut(place)?.take());
            let mut table = match kept.or(made) {
                Some(table) => table,
                None => Table::new(state, self.seed)?,
            };
            if let Table::Values(values) = &mut table {
                values.evolve(state.value.field(0).data_type())?;
            }
            self.tables.push(table);
        }
        self.sealed_rows = (0..=new.len()).map(|_| SealedRows::new()).collect();
        // A snapshot that was being written is given up.
        if self.sealed.take().is_some() {
            for table in &mut self.tables {
                if let Table::Entries { entries, .. } = table {
                    while entries.sweep_sealed(64 * SWEPT_WORDS)?.is_some() {}
                }
            }
        }
        Ok(())
    }

    fn seal(&mut self, epoch: u64, extent: Extent) -> Result<Extent, NotSealed> {
        if let Some(sealed) = &self.sealed {
            return Err(NotSealed(sealed.epoch));
        }
        let is_first = !self.is_tracked && extent == Extent::Changes;
        let extent = if is_first { Extent::Whole } else { extent };
        let [of_states @ .., of_timers] = &mut self.sealed_rows[..] else { return Ok(extent) };
        for (rows, table) in of_states.iter_mut().zip(&mut self.tables) {
            match table {
                Table::Values(values) => rows.seal(values.bound(), extent),
                Table::Entries { entries, .. } => entries.seal(extent),
            }
        }
        of_timers.seal(self.timers.bound(), extent);
        self.is_tracked |= extent == Extent::Whole;
        let mut saved = VecDeque::new();
        if extent != Extent::Apart {
            let gone = std::mem::take(&mut self.gone);
            if extent == Extent::Changes {
                saved.extend(gone.into_iter().map(gone_rows));
            }
        }
        let is_delta = extent == Extent::Changes;
        self.sealed = Some(Sealed { epoch, is_delta, table: 0, saved });
        Ok(extent)
    }

    fn sweep(&mut self) -> Result<Sweep, ArrowError> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let Some(sealed) = &mut self.sealed else { return Ok(Sweep::Idle) };
        if let Some(saved) = sealed.saved.pop_front() {
            return Ok(Sweep::Rows(saved));
        }
        let at = sealed.table;
        let rows = &mut self.sealed_rows[at];
        let (chunk, is_done) = match self.tables.get_mut(at) {
            Some(Table::Values(_)) => {
                let ids = rows.advance(SWEPT_WORDS);
                let is_done = rows.given == rows.bound;
                // A state's place is of 32 bits.
                (self.value_rows(at as u32, ids)?, is_done)
            }
            Some(Table::Entries { entries, .. }) => match entries.sweep_sealed(64 * SWEPT_WORDS)? {
                Some(rows) => (self.entry_rows(at as u32, rows)?, false),
                None => (None, true),
            },
            None if rows.given < rows.bound => {
                let ids = rows.advance(SWEPT_WORDS);
                (self.timer_rows_of(&ids)?, false)
            }
            None => {
                let (epoch, is_delta) = (sealed.epoch, sealed.is_delta);
                self.sealed = None;
                for table in &mut self.tables {
                    // All that there was has been given, and so is of the types that there are now.
                    if let (Table::Values(values), false) = (table, is_delta) {
                        values.forget_older();
                    }
                }
                return Ok(Sweep::Done(epoch));
            }
        };
        if let Some(sealed) = self.sealed.as_mut().filter(|_| is_done) {
            sealed.table += 1;
        }
        Ok(chunk.map_or(Sweep::Nothing, Sweep::Rows))
    }

    fn import(&mut self, chunk: &StateChunk) -> Result<(), StoreError> {
        self.take_in(chunk, false).map(drop)
    }

    fn build_upon(&mut self) -> bool {
        for table in &mut self.tables {
            if let Table::Entries { entries, .. } = table {
                entries.build_upon();
            }
        }
        // Every key that is there has come out of the snapshot.
        self.known = Bits::all_below(self.index.bound());
        for id in self.index.free() {
            self.known.take(*id);
        }
        #[cfg(test)]
        if self.forgets_gone {
            self.known = Bits::new();
        }
        self.gone.clear();
        self.is_tracked = true;
        true
    }
}

impl MemoryBackend {
    /// Takes rows of a snapshot in; by `is_known` they are of the one under way. The keys that have nothing after it.
    pub(crate) fn take_in(&mut self, chunk: &StateChunk, is_known: bool) -> Result<Vec<KeyId>, StoreError> {
        let mut ids = Vec::new();
        match chunk.table {
            StateTable::Entries(_) if chunk.keys.is_empty() => ids.resize(chunk.rows(), BROADCAST),
            _ => self.index.ids(&chunk.keys, chunk.rows(), &mut ids)?,
        }
        let has_nulls = chunk.columns.last().is_some_and(|column| column.null_count() > 0);
        match (chunk.table, &chunk.columns[..]) {
            (StateTable::Gone, _) => {
                self.take_out(&ids)?;
                return Ok(ids);
            }
            (StateTable::Values(state), [values]) => {
                self.values(state)?.import(&ids, values, chunk.touched.as_ref())?;
            }
            (StateTable::Entries(state), columns) => {
                let none = || Int64Array::from(vec![i64::MIN; ids.len()]);
                let touched = chunk.touched.clone().unwrap_or_else(none);
                self.table(state)?.import(&ids, columns, &touched, is_known)?;
            }
            (StateTable::Timers, [domains, times]) => {
                let (domains, times) = (domains.as_primitive_opt(), times.as_primitive_opt());
                let (Some(domains), Some(times)) = (domains, times) else {
                    return Err(ArrowError::InvalidArgumentError("columns of timers".into()).into());
                };
                let (domains, times): (&UInt8Array, &Int64Array) = (domains, times);
                for (row, key) in ids.iter().enumerate() {
                    if times.is_null(row) {
                        let before: Vec<_> = self.timers_of(*key).collect();
                        for (key, domain, time) in before {
                            self.timers.delete(domain, key, time);
                        }
                        continue;
                    }
                    self.timers.set(DOMAINS[usize::from(domains.value(row) == 1)], *key, times.value(row));
                }
            }
            _ => {
                let wrong = "not the columns of the table".to_owned();
                return Err(ArrowError::InvalidArgumentError(wrong).into());
            }
        }
        Ok(if has_nulls && !chunk.keys.is_empty() { self.forget_some(&ids, |_| true) } else { Vec::new() })
    }
}
