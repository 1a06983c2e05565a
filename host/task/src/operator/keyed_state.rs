//! A keyed function's state, call by call: whose rows or timers are in it, what travels with it, and
//! what it has written.
//!
//! The guest may read states of many entries while its call runs; so the backend is shared with the
//! guest's side, under a lock that is taken for one read or write, never held while a call goes on.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow_array::ArrayRef;
use arrow_schema::ArrowError;
use guest::{Call, Entries, EntryChanges, Groups, Moment, Outcome, RidingEntries, StateReader, StateUpdate};
use model::Batch;
use model::job_graph::{Riding, State, StateKind, TimeDomain};
use state::backend::Ticket;
use state::key_index::KeyId;
use state::memory::BROADCAST;
use state::timers::Due;
use state::{Backend, EntryChange, Grouping, StateChunk, StoreError, Sweep, TimerChange};

use super::function::Items;

/// The state of a keyed function's subtask.
pub(crate) struct KeyedState {
    shared: Arc<Shared>,
    /// The key columns of each input; none = its rows have no key.
    keys: Vec<Option<Vec<usize>>>,
    /// All states' names.
    names: Vec<String>,
    /// The places of those by value.
    by_value: Vec<u32>,
    /// For each state its ridings.
    ridings: Vec<(u32, Riding)>,
    /// The entries that ride with the call at hand.
    riders: Vec<Riders>,
    /// The key of each row or timer of the call at hand.
    ids: Vec<KeyId>,
    grouping: Grouping,
    /// Kept between calls.
    written: Vec<(usize, KeyId)>,
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
struct Shared(Mutex<Held>);

struct Held {
    backend: Box<dyn Backend>,
    /// By state.
    is_broadcast: Vec<bool>,
    /// The groups of the call that runs, by number of their key.
    groups: Vec<KeyId>,
    /// Its processing time, in milliseconds since the epoch.
    now: i64,
}

impl KeyedState {
    /// That of a function with these states, whose inputs have these key columns.
    pub(crate) fn new(backend: Box<dyn Backend>, keys: Vec<Option<Vec<usize>>>, states: &[State]) -> Self {
        let ridings = (0..).zip(states).flat_map(|(place, state)| match &state.kind {
            StateKind::Dictionary(ridings) => ridings.iter().map(|riding| (place, riding.clone())).collect(),
            _ => Vec::new(),
        });
        let by_value = (0..).zip(states).filter(|(_, state)| state.kind == StateKind::Value);
        let is_broadcast = states.iter().map(|state| state.kind == StateKind::Broadcast).collect();
        let held = Held { backend, is_broadcast, groups: Vec::new(), now: 0 };
        Self {
            shared: Arc::new(Shared(Mutex::new(held))),
            keys,
            names: states.iter().map(|state| state.name.clone()).collect(),
            by_value: by_value.map(|(place, _)| place).collect(),
            ridings: ridings.collect(),
            riders: Vec::new(),
            ids: Vec::new(),
            grouping: Grouping::default(),
            written: Vec::new(),
        }
    }

    /// What the guest reads the states with that do not travel by value.
    pub(crate) fn reader(&self) -> Option<Arc<dyn StateReader>> {
        (self.by_value.len() < self.names.len()).then(|| Arc::clone(&self.shared) as Arc<dyn StateReader>)
    }

    /// The name of a state, and whether it is one by value.
    pub(crate) fn state(&self, state: u32) -> (&str, bool) {
        (&self.names[state as usize], self.by_value.contains(&state))
    }

    /// A key's columns; none if it is nobody's number.
    pub(crate) fn key(&self, key: KeyId) -> Option<Vec<ArrayRef>> {
        let held = self.shared.lock();
        ((key as usize) < held.backend.bound()).then(|| held.backend.keys(&[key]).ok()).flatten()
    }

    /// When to look for due timers of a clock again.
    pub(crate) fn next_timer(&self, domain: TimeDomain) -> Option<i64> {
        self.shared.lock().backend.next_timer(domain)
    }

    /// Takes due timers: the next one of each key, about `max` at most.
    pub(crate) fn take_due(&self, domain: TimeDomain, now: i64, max: usize) -> Result<Due, ArrowError> {
        let mut held = self.shared.lock();
        match held.backend.next_timer(domain) {
            Some(next) if next <= now => held.backend.take_due(domain, now, max),
            _ => Ok(Due::default()),
        }
    }

    /// Begins to bring near what a call with these rows or timers needs; none = it is near.
    pub(crate) fn prefetch(&mut self, what: &Items) -> Result<Option<Ticket>, ArrowError> {
        let mut held = self.shared.lock();
        let ticket = match what {
            Items::Rows(input, rows) => match self.columns(*input, rows) {
                Some(columns) => held.backend.prefetch(&columns, rows.num_rows())?,
                None => return Ok(None),
            },
            Items::Timers(_, timers) => {
                let ids: Vec<KeyId> = timers.iter().map(|(_, key)| *key).collect();
                held.backend.prefetch_known(&ids)
            }
        };
        Ok((!held.backend.is_ready(ticket)).then_some(ticket))
    }

    pub(crate) fn is_ready(&self, ticket: Ticket) -> bool {
        self.shared.lock().backend.is_ready(ticket)
    }

    /// The key columns of an input's rows.
    fn columns(&self, input: u32, rows: &Batch) -> Option<Vec<ArrayRef>> {
        let keys = self.keys[input as usize].as_ref()?;
        Some(keys.iter().map(|key| Arc::clone(rows.column(*key))).collect())
    }

    /// Finds the key of each row or timer. They are those of the next call, or of the first of them.
    pub(crate) fn find_keys(&mut self, what: &Items) -> Result<(), ArrowError> {
        match what {
            Items::Rows(input, rows) => {
                self.ids.clear();
                let Some(columns) = self.columns(*input, rows) else { return Ok(()) };
                let mut held = self.shared.lock();
                held.backend.ids(&columns, rows.num_rows(), &mut self.ids)?;
            }
            Items::Timers(_, timers) => {
                self.ids.clear();
                self.ids.extend(timers.iter().map(|(_, key)| *key));
            }
        }
        Ok(())
    }

    /// Only the first rows or timers are in the next call.
    pub(crate) fn truncate(&mut self, length: usize) {
        self.ids.truncate(length);
    }

    /// The bytes of state that a call with the rows or timers carries, at most. Keys that come several
    /// times count several times.
    pub(crate) fn bytes(&self, what: &Items) -> Result<usize, ArrowError> {
        let mut held = self.shared.lock();
        let mut bytes = if self.by_value.is_empty() { 0 } else { held.backend.value_bytes(&self.ids) };
        if let Items::Rows(input, rows) = what {
            for (state, riding) in self.ridings.iter().filter(|(_, riding)| riding.input == *input) {
                bytes += held.backend.entry_bytes(*state, &self.ids, &named_by(rows, riding))?;
            }
        }
        Ok(bytes)
    }

    /// A call with rows, grouped by key in the order of first occurrence, or with timers; with the
    /// groups' state. Their keys have been found.
    pub(crate) fn call(&mut self, now: Moment, what: &Items) -> Result<Call, ArrowError> {
        let shared = Arc::clone(&self.shared);
        let mut held = shared.lock();
        held.now = now.processing_time;
        held.groups.clear();
        self.riders.clear();
        match what {
            Items::Rows(input, rows) => {
                let of_rows = self.grouping.number(&self.ids, &mut held.groups);
                let entries = self.ride(&mut held, *input, rows)?;
                let groups = self.groups(&mut held)?;
                Ok(Call::ProcessKeyed { now, input: *input, groups, of_rows, rows: rows.clone(), entries })
            }
            Items::Timers(domain, timers) => {
                held.groups.extend_from_slice(&self.ids);
                let times = timers.iter().map(|(time, _)| *time).collect();
                Ok(Call::Timers { now, domain: *domain, times, groups: self.groups(&mut held)? })
            }
        }
    }

    fn groups(&self, held: &mut Held) -> Result<Groups, ArrowError> {
        let Held { backend, groups, now, .. } = held;
        let states = self.by_value.iter().map(|state| backend.load(*state, groups, *now));
        Ok(Groups {
            count: u32::try_from(groups.len()).unwrap_or(u32::MAX),
            state: states.collect::<Result<_, _>>()?,
            keys: backend.keys(groups)?,
        })
    }

    fn ride(&mut self, held: &mut Held, input: u32, rows: &Batch) -> Result<Vec<RidingEntries>, ArrowError> {
        let mut riding_entries = Vec::new();
        for (state, riding) in self.ridings.iter().filter(|(_, riding)| riding.input == input) {
            let riders = held.backend.ride(*state, &self.ids, &named_by(rows, riding), held.now)?;
            let (of_rows, values) = (riders.of_rows, riders.values);
            riding_entries.push(RidingEntries { state: *state, of_rows, values });
            self.riders.push(Riders { state: *state, ids: riders.ids, keys: riders.keys });
        }
        Ok(riding_entries)
    }

    /// Takes what the call has written; or the state that cannot be kept, and why.
    pub(crate) fn apply(&mut self, outcome: &Outcome) -> Result<(), (u32, StoreError)> {
        let shared = Arc::clone(&self.shared);
        let mut held = shared.lock();
        for update in &outcome.updates {
            self.update(&mut held, update).map_err(|error| (update.state, error))?;
        }
        for changes in &outcome.entries {
            held.change_entries(changes).map_err(|error| (changes.state, error))?;
        }
        if !outcome.timers.is_empty() {
            let Held { backend, groups, .. } = &mut *held;
            let change = |change: &guest::TimerChange| TimerChange {
                key: groups[change.group as usize],
                domain: change.domain,
                time: change.time,
                set: change.set,
            };
            let changes: Vec<TimerChange> = outcome.timers.iter().map(change).collect();
            backend.change_timers(&changes).map_err(|error| (0, error.into()))?;
        }
        Ok(())
    }

    fn update(&mut self, held: &mut Held, update: &StateUpdate) -> Result<(), StoreError> {
        let StateUpdate { state, written, values } = update;
        let Held { backend, groups, now, .. } = held;
        if !self.by_value.contains(state) {
            let Some(riders) = self.riders.iter().find(|riders| riders.state == *state) else {
                return Ok(());
            };
            return backend.store_entries(*state, &riders.ids, &riders.keys, written.as_ref(), values, *now);
        }
        self.written.clear();
        let groups = groups.iter().copied().enumerate();
        match written {
            None => self.written.extend(groups),
            Some(written) => self.written.extend(groups.filter(|(group, _)| written.value(*group))),
        }
        backend.store(*state, &self.written, values, *now)
    }

    /// All that is kept, as a snapshot has it. No other may be under way.
    pub(crate) fn snapshot(&self) -> Result<Vec<StateChunk>, ArrowError> {
        let mut held = self.shared.lock();
        held.backend.seal(0).map_err(|error| ArrowError::ComputeError(error.to_string()))?;
        let mut chunks = Vec::new();
        loop {
            match held.backend.sweep()? {
                Sweep::Rows(chunk) => chunks.push(chunk),
                Sweep::Nothing => {}
                Sweep::Done(_) | Sweep::Idle => return Ok(chunks),
            }
        }
    }

    /// No key: its columns, without rows.
    pub(crate) fn no_keys(&self) -> Result<Vec<ArrayRef>, ArrowError> {
        self.shared.lock().backend.keys(&[])
    }

    /// Forgets those keys of the call that has returned, and those that have lost theirs by their
    /// age, that have no state and no timer left. No timer may wait to be called.
    pub(crate) fn forget_empty(&self) {
        let Held { backend, groups, .. } = &mut *self.shared.lock();
        backend.forget_empty(groups);
        groups.clear();
    }
}

/// The columns that name the entries of a riding.
fn named_by(rows: &Batch, riding: &Riding) -> Vec<ArrayRef> {
    riding.columns.iter().map(|column| Arc::clone(rows.column(*column as usize))).collect()
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// The numbers of the keys of groups of the call that runs.
    fn ids(&self, state: u32, groups: &[u32], count: usize) -> Vec<KeyId> {
        match self.is_broadcast.get(state as usize) {
            Some(true) => vec![BROADCAST; count],
            _ => groups.iter().map(|group| self.groups[*group as usize]).collect(),
        }
    }

    fn change_entries(&mut self, changes: &EntryChanges) -> Result<(), StoreError> {
        let ids = self.ids(changes.state, &changes.groups, changes.changes.len());
        let change = |change: &guest::EntryChange| match change {
            guest::EntryChange::Put => EntryChange::Put,
            guest::EntryChange::Remove => EntryChange::Remove,
            guest::EntryChange::Clear => EntryChange::Clear,
        };
        let deeds: Vec<EntryChange> = changes.changes.iter().map(change).collect();
        self.backend.change_entries(changes.state, (&deeds, &ids), &changes.keys, &changes.values, self.now)
    }
}

impl StateReader for Shared {
    fn get(&self, state: u32, groups: &[u32], keys: &[ArrayRef]) -> Result<ArrayRef, String> {
        let mut held = self.lock();
        let count = keys.first().map_or(0, |column| column.len());
        let (ids, now) = (held.ids(state, groups, count), held.now);
        held.backend.entries(state, &ids, keys, now).map_err(|error| error.to_string())
    }

    fn scan(
        &self,
        state: u32,
        groups: &[u32],
        after: Option<&[ArrayRef]>,
        limit: usize,
    ) -> Result<Entries, String> {
        let mut held = self.lock();
        let (ids, now) = (held.ids(state, groups, 1), held.now);
        let page = held.backend.scan(state, &ids, after, limit, now).map_err(|error| error.to_string())?;
        Ok(Entries { offsets: page.offsets, keys: page.keys, values: page.values, more: page.more })
    }

    fn version(&self, state: u32) -> u64 {
        self.lock().backend.version(state)
    }
}
