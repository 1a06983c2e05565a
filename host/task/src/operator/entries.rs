//! A function's states that do not travel by value: dictionaries, sequences, broadcast states.
//!
//! The guest reads them while its call runs; what it writes comes back with the call's outcome. So they
//! are shared with the guest's side, under a lock that is taken for one read or one write, never held
//! while a call goes on.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow_array::ArrayRef;
use arrow_schema::{ArrowError, DataType};
use guest::{Entries, EntryChanges, RidingEntries, StateReader, StateUpdate};
use model::Batch;
use model::job_graph::{Riding, State, StateKind};
use state::key_index::KeyId;
use state::{EntryChange, EntryTable, StoreError};

/// The tables, by place of the state in its function, and what of them rides with the call at hand.
pub(crate) struct EntryStates {
    tables: Arc<Shared>,
    /// For each state its ridings.
    ridings: Vec<(u32, Riding)>,
    /// The entries that ride with the call at hand.
    riders: Vec<Riders>,
}

/// Entries that ride.
struct Riders {
    state: u32,
    /// Whose they are.
    ids: Vec<KeyId>,
    /// Their own keys.
    keys: Vec<ArrayRef>,
}

/// What the guest's reads see.
struct Shared(Mutex<Tables>);

struct Tables {
    by_state: Vec<Option<Table>>,
    /// The groups of the call that runs, by number of their key.
    groups: Vec<KeyId>,
    /// Its processing time, in milliseconds since the epoch.
    now: i64,
}

struct Table {
    entries: EntryTable,
    is_broadcast: bool,
}

/// The number that stands for the one key of a broadcast state.
const BROADCAST: KeyId = 0;

impl EntryStates {
    /// Empty tables for the states of a function that do not travel by value; none if there are none.
    ///
    /// # Errors
    /// If keys or entries of their types cannot be encoded.
    pub(crate) fn new(states: &[State], seed: u64) -> Result<Option<Self>, ArrowError> {
        let mut ridings = Vec::new();
        let by_state = (0..)
            .zip(states)
            .map(|(place, state)| {
                let value = state.value.field(0).data_type();
                let keys: Vec<DataType> =
                    state.key.fields().iter().map(|field| field.data_type().clone()).collect();
                let entries = match &state.kind {
                    StateKind::Value => return Ok(None),
                    StateKind::Sequence => EntryTable::sequence(value, state.ttl)?,
                    StateKind::Broadcast => EntryTable::dictionary(&keys, value, None, seed)?,
                    StateKind::Dictionary(of_inputs) => {
                        ridings.extend(of_inputs.iter().map(|riding| (place, riding.clone())));
                        EntryTable::dictionary(&keys, value, state.ttl, seed)?
                    }
                };
                Ok(Some(Table { entries, is_broadcast: state.kind == StateKind::Broadcast }))
            })
            .collect::<Result<Vec<_>, ArrowError>>()?;
        if by_state.iter().all(Option::is_none) {
            return Ok(None);
        }
        let tables = Tables { by_state, groups: Vec::new(), now: 0 };
        let tables = Arc::new(Shared(Mutex::new(tables)));
        Ok(Some(Self { tables, ridings, riders: Vec::new() }))
    }

    /// What the guest reads with.
    pub(crate) fn reader(&self) -> Arc<dyn StateReader> {
        Arc::clone(&self.tables) as Arc<dyn StateReader>
    }

    /// The bytes of entries that ride with rows of these keys, at most.
    pub(crate) fn bytes(&self, input: u32, rows: &Batch, ids: &[KeyId]) -> Result<usize, ArrowError> {
        let mut tables = self.tables.lock();
        let mut bytes = 0;
        for (state, riding) in self.ridings.iter().filter(|(_, riding)| riding.input == input) {
            bytes += tables.table(*state)?.bytes(ids, &columns(rows, riding))?;
        }
        Ok(bytes)
    }

    /// Makes ready for a call with these groups; gives the entries that ride with its rows, of which
    /// `ids` are the keys. Without rows (timers) none ride.
    pub(crate) fn begin(
        &mut self,
        rows: Option<(u32, &Batch, &[KeyId])>,
        groups: &[KeyId],
        now: i64,
    ) -> Result<Vec<RidingEntries>, ArrowError> {
        let mut tables = self.tables.lock();
        tables.groups.clear();
        tables.groups.extend_from_slice(groups);
        tables.now = now;
        self.riders.clear();
        let Some((input, rows, ids)) = rows else { return Ok(Vec::new()) };
        let mut riding_entries = Vec::new();
        for (state, riding) in self.ridings.iter().filter(|(_, riding)| riding.input == input) {
            let riders = tables.table(*state)?.ride(ids, &columns(rows, riding), now)?;
            riding_entries.push(RidingEntries {
                state: *state,
                of_rows: riders.of_rows,
                values: riders.values,
            });
            self.riders.push(Riders { state: *state, ids: riders.ids, keys: riders.keys });
        }
        Ok(riding_entries)
    }

    /// Takes new values of entries that rode with the call at hand.
    pub(crate) fn update(&self, update: &StateUpdate) -> Result<(), StoreError> {
        let riders = self.riders.iter().find(|riders| riders.state == update.state);
        let Some(riders) = riders else { return Ok(()) };
        let written = |row: usize| update.written.as_ref().is_none_or(|written| written.value(row));
        let mut tables = self.tables.lock();
        let now = tables.now;
        tables.table(update.state)?.store(&riders.ids, &riders.keys, written, &update.values, now)
    }

    /// Applies changes of entries.
    pub(crate) fn apply(&self, changes: &EntryChanges) -> Result<(), StoreError> {
        let mut tables = self.tables.lock();
        let now = tables.now;
        let ids = match changes.groups.is_empty() {
            true => vec![BROADCAST; changes.changes.len()],
            false => changes.groups.iter().map(|group| tables.groups[*group as usize]).collect(),
        };
        let deeds: Vec<EntryChange> = changes
            .changes
            .iter()
            .map(|change| match change {
                guest::EntryChange::Put => EntryChange::Put,
                guest::EntryChange::Remove => EntryChange::Remove,
                guest::EntryChange::Clear => EntryChange::Clear,
            })
            .collect();
        tables.table(changes.state)?.apply(&deeds, &ids, &changes.keys, &changes.values, now)
    }
}

/// The columns that name the entries.
fn columns(rows: &Batch, riding: &Riding) -> Vec<ArrayRef> {
    riding.columns.iter().map(|column| Arc::clone(rows.column(*column as usize))).collect()
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    fn table(&mut self, state: u32) -> Result<&mut EntryTable, ArrowError> {
        let table = self.by_state.get_mut(state as usize).and_then(Option::as_mut);
        let table =
            table.ok_or_else(|| ArrowError::InvalidArgumentError(format!("no table of state {state}")))?;
        Ok(&mut table.entries)
    }

    /// The numbers of the keys of groups of the call that runs.
    fn ids(&self, state: u32, groups: &[u32], count: usize) -> Vec<KeyId> {
        match self.by_state.get(state as usize) {
            Some(Some(table)) if table.is_broadcast => vec![BROADCAST; count],
            _ => groups.iter().map(|group| self.groups[*group as usize]).collect(),
        }
    }
}

impl StateReader for Shared {
    fn get(&self, state: u32, groups: &[u32], keys: &[ArrayRef]) -> Result<ArrayRef, String> {
        let mut tables = self.lock();
        let count = keys.first().map_or(0, |column| column.len());
        let (ids, now) = (tables.ids(state, groups, count), tables.now);
        let found = tables.table(state).and_then(|table| table.get(&ids, keys, now));
        found.map_err(|error| error.to_string())
    }

    fn scan(
        &self,
        state: u32,
        groups: &[u32],
        after: Option<&[ArrayRef]>,
        limit: usize,
    ) -> Result<Entries, String> {
        let mut tables = self.lock();
        let (ids, now) = (tables.ids(state, groups, 1), tables.now);
        let page = tables.table(state).and_then(|table| table.scan(&ids, after, limit, now));
        let page = page.map_err(|error| error.to_string())?;
        Ok(Entries { offsets: page.offsets, keys: page.keys, values: page.values, more: page.more })
    }

    fn version(&self, state: u32) -> u64 {
        self.lock().table(state).map_or(0, |table| table.version())
    }
}
