//! Keyed state in memory: the tables, and their snapshots.
//!
//! A snapshot copies nothing when it is sealed. Each table is then swept in its order; a row that is
//! about to change before the sweep has come to it is given as it was. So the pause of a barrier does
//! not depend on how much state there is, one thread touches it, and a change costs one look at a bit.
//!
//! Source: copy-on-update checkpoints (Salles et al., VLDB 2009; Cao et al., SIGMOD 2011). Key groups
//! are told from the keys when a chunk is taken in: rows of a group do not lie together here.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{ArrayRef, Int64Array, UInt8Array};
use arrow_buffer::BooleanBuffer;
use arrow_schema::{ArrowError, DataType};
use model::job_graph::{State, StateKind, TimeDomain};

use crate::backend::{Backend, NotSealed, StateChunk, StateTable, Sweep, Ticket, TimerChange};
use crate::chunks::Chunks;
use crate::entry_table::{EntryChange, EntryPage, EntryRows, EntryTable, Riders};
use crate::key_index::{KeyId, KeyIndex};
use crate::timers::{Due, Timers};
use crate::value_table::{StoreError, ValueTable};

/// The keyed state of an operator's subtask, in memory.
pub struct MemoryBackend {
    index: KeyIndex,
    /// By the state's place in the function.
    tables: Vec<Table>,
    timers: Timers,
    sealed: Option<Sealed>,
    /// By state; at the end the timers.
    sealed_rows: Vec<SealedRows>,
    /// Deliberate fault of the tests: what changes during a snapshot is not saved.
    #[cfg(test)]
    pub(crate) forgets_to_save: bool,
}

enum Table {
    Values(ValueTable),
    Entries { entries: EntryTable, is_broadcast: bool },
}

/// A snapshot that is being written.
struct Sealed {
    epoch: u64,
    /// The table that is swept: the states', then the timers.
    table: usize,
    /// Rows that have changed since, as they were.
    saved: VecDeque<StateChunk>,
}

/// Rows of a table by key number, that belong to the snapshot.
struct SealedRows {
    /// These have been given.
    given: usize,
    /// Those below this were there.
    bound: usize,
    /// Of those that have not been given: a bit each, whether they have been saved. Kept from one
    /// snapshot to the next, as fresh memory costs more than what is done with it.
    saved: Chunks<u64>,
}

impl SealedRows {
    fn new() -> Self {
        Self { given: 0, bound: 0, saved: Chunks::new(1) }
    }

    fn seal(&mut self, bound: usize) {
        (self.given, self.bound) = (0, bound);
        self.saved.grow_to(bound.div_ceil(64), 0);
    }

    /// Whether the row is still to be given as it is now: then it is not any more.
    fn is_first_change(&mut self, id: KeyId) -> bool {
        let id = id as usize;
        if !(self.given..self.bound).contains(&id) {
            return false;
        }
        let (word, bit) = (self.saved.element_mut(id / 64, 0), 1 << (id % 64));
        let is_first = *word & bit == 0;
        *word |= bit;
        is_first
    }

    /// The next rows, of so many words of bits that are looked at, that have not been saved.
    fn advance(&mut self, words: usize) -> Vec<KeyId> {
        let (start, end) = (self.given, (self.given + 64 * words).min(self.bound));
        let mut ids = Vec::with_capacity(end - start);
        for word in start / 64..end.div_ceil(64) {
            let saved = std::mem::take(self.saved.element_mut(word, 0));
            // Key numbers are of 32 bits.
            let of_word = (64 * word..end.min(64 * (word + 1))).filter(|id| saved >> (id % 64) & 1 == 0);
            ids.extend(of_word.map(|id| id as KeyId));
        }
        self.given = end;
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
        let table = |state: &State| {
            let value = state.value.field(0).data_type();
            let keys: Vec<DataType> =
                state.key.fields().iter().map(|field| field.data_type().clone()).collect();
            let entries = match &state.kind {
                StateKind::Value => return Ok(Table::Values(ValueTable::new(value, state.ttl)?)),
                StateKind::Sequence => EntryTable::sequence(value, state.ttl)?,
                StateKind::Broadcast => EntryTable::dictionary(&keys, value, None, seed)?,
                StateKind::Dictionary(_) => EntryTable::dictionary(&keys, value, state.ttl, seed)?,
            };
            Ok(Table::Entries { entries, is_broadcast: state.kind == StateKind::Broadcast })
        };
        Ok(Self {
            index: KeyIndex::new(key_types, seed)?,
            tables: states.iter().map(table).collect::<Result<_, ArrowError>>()?,
            timers: Timers::default(),
            sealed: None,
            sealed_rows: (0..=states.len()).map(|_| SealedRows::new()).collect(),
            #[cfg(test)]
            forgets_to_save: false,
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
        ids.iter().for_each(|id| self.index.forget(*id));
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
            StateTable::Entries(_) => None,
        };
        if let Some(state) = rows {
            self.first_changes(state, ids.into_iter());
        }
        self.import(&chunk)?;
        self.save(Some(chunk).filter(|_| is_sealed));
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
        let mut gone = Vec::new();
        for id in ids.iter().chain(&aged) {
            if may(*id) && !self.has_anything(*id) {
                self.index.forget(*id);
                gone.push(*id);
            }
        }
        gone
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
    fn value_rows(&self, state: u32, mut ids: Vec<KeyId>) -> Result<Option<StateChunk>, ArrowError> {
        let Some(Table::Values(table)) = self.tables.get(state as usize) else { return Ok(None) };
        ids.retain(|id| table.is_present(*id));
        if ids.is_empty() {
            return Ok(None);
        }
        let (values, touched) = table.peek(&ids)?;
        let keys = self.index.keys(ids.into_iter())?;
        Ok(Some(StateChunk { table: StateTable::Values(state), keys, columns: vec![values], touched }))
    }

    fn entry_rows(&self, state: u32, rows: EntryRows) -> Result<Option<StateChunk>, ArrowError> {
        let Some(Table::Entries { is_broadcast, entries }) = self.tables.get(state as usize) else {
            return Ok(None);
        };
        if rows.ids.is_empty() {
            return Ok(None);
        }
        let keys = if *is_broadcast { Vec::new() } else { self.index.keys(rows.ids.into_iter())? };
        let touched = entries.is_aging().then_some(rows.touched);
        Ok(Some(StateChunk { table: StateTable::Entries(state), keys, columns: rows.columns, touched }))
    }

    /// Rows of timers `(key, domain, instant)`.
    fn timer_rows(&self, timers: &[(KeyId, TimeDomain, i64)]) -> Result<Option<StateChunk>, ArrowError> {
        if timers.is_empty() {
            return Ok(None);
        }
        let keys = self.index.keys(timers.iter().map(|(key, ..)| *key))?;
        let domain = |domain| u8::from(domain == TimeDomain::ProcessingTime);
        let domains: UInt8Array = timers.iter().map(|(_, of, _)| Some(domain(*of))).collect();
        let times: Int64Array = timers.iter().map(|(.., time)| Some(*time)).collect();
        let columns: Vec<ArrayRef> = vec![Arc::new(domains), Arc::new(times)];
        Ok(Some(StateChunk { table: StateTable::Timers, keys, columns, touched: None }))
    }

    fn timers_of(&self, key: KeyId) -> impl Iterator<Item = (KeyId, TimeDomain, i64)> + '_ {
        DOMAINS
            .into_iter()
            .flat_map(move |domain| self.timers.of_key(domain, key).map(move |time| (key, domain, time)))
    }

    /// The rows of a table by key number (none = the timers) that these keys are about to change, and
    /// that a snapshot still needs.
    fn first_changes(&mut self, state: Option<u32>, ids: impl Iterator<Item = KeyId>) -> Vec<KeyId> {
        let last = self.tables.len();
        if self.sealed.is_none() {
            return Vec::new();
        }
        let rows = &mut self.sealed_rows[state.map_or(last, |state| state as usize)];
        let ids = ids.filter(|id| rows.is_first_change(*id)).collect();
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
            let before: Vec<_> = changed.iter().flat_map(|key| self.timers_of(*key)).collect();
            let chunk = self.timer_rows(&before)?;
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
                    before.push((*key, domain, *time));
                    before.extend(self.timers_of(*key));
                }
            }
            let chunk = self.timer_rows(&before)?;
            self.save(chunk);
        }
        Ok(due)
    }

    fn seal(&mut self, epoch: u64) -> Result<(), NotSealed> {
        if let Some(sealed) = &self.sealed {
            return Err(NotSealed(sealed.epoch));
        }
        let [of_states @ .., of_timers] = &mut self.sealed_rows[..] else { return Ok(()) };
        for (rows, table) in of_states.iter_mut().zip(&mut self.tables) {
            match table {
                Table::Values(values) => rows.seal(values.bound()),
                Table::Entries { entries, .. } => entries.seal(),
            }
        }
        of_timers.seal(self.timers.bound());
        self.sealed = Some(Sealed { epoch, table: 0, saved: VecDeque::new() });
        Ok(())
    }

    fn sweep(&mut self) -> Result<Sweep, ArrowError> {
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
                let timers: Vec<_> = ids.into_iter().flat_map(|key| self.timers_of(key)).collect();
                (self.timer_rows(&timers)?, false)
            }
            None => {
                let epoch = sealed.epoch;
                self.sealed = None;
                return Ok(Sweep::Done(epoch));
            }
        };
        if let Some(sealed) = self.sealed.as_mut().filter(|_| is_done) {
            sealed.table += 1;
        }
        Ok(chunk.map_or(Sweep::Nothing, Sweep::Rows))
    }

    fn import(&mut self, chunk: &StateChunk) -> Result<(), StoreError> {
        let mut ids = Vec::new();
        match chunk.table {
            StateTable::Entries(_) if chunk.keys.is_empty() => ids.resize(chunk.rows(), BROADCAST),
            _ => self.index.ids(&chunk.keys, chunk.rows(), &mut ids)?,
        }
        match (chunk.table, &chunk.columns[..]) {
            (StateTable::Values(state), [values]) => {
                self.values(state)?.import(&ids, values, chunk.touched.as_ref())
            }
            (StateTable::Entries(state), columns) => {
                let none = || Int64Array::from(vec![i64::MIN; ids.len()]);
                let touched = chunk.touched.clone().unwrap_or_else(none);
                self.table(state)?.import(&ids, columns, &touched)
            }
            (StateTable::Timers, [domains, times]) => {
                let (domains, times) = (domains.as_primitive_opt(), times.as_primitive_opt());
                let (Some(domains), Some(times)) = (domains, times) else {
                    return Err(ArrowError::InvalidArgumentError("columns of timers".into()).into());
                };
                let (domains, times): (&UInt8Array, &Int64Array) = (domains, times);
                for ((key, domain), time) in ids.iter().zip(domains.values()).zip(times.values()) {
                    self.timers.set(DOMAINS[usize::from(*domain == 1)], *key, *time);
                }
                Ok(())
            }
            _ => Err(ArrowError::InvalidArgumentError("not the columns of the table".into()).into()),
        }
    }
}
