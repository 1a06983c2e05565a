//! A keyed function's state, call by call: whose rows or timers are in it, what travels with it, and
//! what it has written.
//!
//! The guest may read states of many entries while its call runs; so the backend is shared with the
//! guest's side, under a lock that is taken for one read or write, never held while a call goes on.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow_array::{Array, ArrayRef, StructArray, new_null_array};
use arrow_schema::{ArrowError, DataType};
use guest::{Call, Entries, EntryChanges, Groups, Moment, Outcome, RidingEntries, StateReader, StateUpdate};
use model::Batch;
use model::job_graph::{Riding, State, StateKind, TimeDomain};
use state::backend::{Extent, Ticket};
use state::key_index::KeyId;
use state::memory::BROADCAST;
use state::timers::Due;
use state::{Backend, EntryChange, Grouping, StateChunk, StoreError, Sweep, TimerChange};

use window::Now;
use window::assigner::WindowClock;

use super::function::Items;
use super::window_keys::{
    KeyedBy, Meeting, Met, OfWindows, Sorted, extent_columns, extent_fields, extent_type, times, windows_of,
};
use super::windowed::{InWindows, Resets};

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
    /// What the states hold, in their order.
    types: Vec<(StateKind, DataType)>,
    windows: Option<OfWindows>,
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
    /// Those of calls before it that may have nothing left.
    unforgotten: Vec<KeyId>,
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
        let held = Held { backend, is_broadcast, groups: Vec::new(), unforgotten: Vec::new(), now: 0 };
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
            types: states
                .iter()
                .map(|state| (state.kind.clone(), state.value.field(0).data_type().clone()))
                .collect(),
            windows: None,
        }
    }

    /// The same, by windows: the last two columns of the backend's key are the window's start and end, or
    /// the last one is the id of a session, whose start and end are in one more state, the last.
    pub(crate) fn in_windows(self, clock: WindowClock, kind: KeyedBy, merges: bool) -> Self {
        let extents = (kind == KeyedBy::Session).then_some(self.names.len() as u32);
        let is_slice = kind == KeyedBy::Slice;
        let (of_groups, is_last, new_slices) = (Vec::new(), Vec::new(), Vec::new());
        let windows = OfWindows { clock, extents, merges, is_slice, new_slices, of_groups, is_last };
        Self { windows: Some(windows), ..self }
    }

    /// Goes on by another clock of windows.
    pub(crate) fn set_clock(&mut self, clock: WindowClock) {
        self.windows.iter_mut().for_each(|windows| windows.clock = clock);
    }

    /// All numbers of keys are below this.
    pub(crate) fn bound(&self) -> usize {
        self.shared.lock().backend.bound()
    }

    /// Sets timers of windows anew that were set by another lateness.
    pub(crate) fn reset_timers(&self, resets: Resets, now: i64) -> Result<(), ArrowError> {
        let Some(OfWindows { clock, extents, .. }) = &self.windows else { return Ok(()) };
        let Held { backend, .. } = &mut *self.shared.lock();
        // Key numbers are of 32 bits.
        let all = resets.from as KeyId..resets.to as KeyId;
        let had = all.map(|id| (id, backend.timers_of(id, clock.domain())));
        let had: Vec<(KeyId, Vec<i64>)> = had.filter(|(_, timers)| !timers.is_empty()).collect();
        let ids: Vec<KeyId> = had.iter().map(|(id, _)| *id).collect();
        let mut keys = backend.keys(&ids)?;
        let windows = windows_of(*extents, &mut **backend, &ids, &mut keys, now)?;
        let mut changes = Vec::new();
        for ((id, had), (start, end)) in had.iter().zip(windows) {
            if start < end {
                clock.reset((*id, had), (resets.by, resets.passed), end, &mut changes);
            }
        }
        backend.change_timers(&changes)
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
            Items::Rows(input, rows, windows) => match self.columns(*input, rows, windows.as_ref()) {
                Some(columns) => held.backend.prefetch(&columns, rows.num_rows())?,
                None => return Ok(None),
            },
            Items::Timers(_, timers) => {
                let ids: Vec<KeyId> = timers.iter().map(|(_, key)| *key).collect();
                held.backend.prefetch_known(&ids)
            }
            Items::Clear(ids) | Items::Slices(ids) => held.backend.prefetch_known(ids),
            Items::Windows { .. } => return Ok(None),
        };
        Ok((!held.backend.is_ready(ticket)).then_some(ticket))
    }

    pub(crate) fn is_ready(&self, ticket: Ticket) -> bool {
        self.shared.lock().backend.is_ready(ticket)
    }

    /// The key columns of an input's rows, with their windows'.
    fn columns(&self, input: u32, rows: &Batch, windows: Option<&InWindows>) -> Option<Vec<ArrayRef>> {
        let keys = self.keys[input as usize].as_ref()?;
        let of_windows = windows.into_iter().flat_map(|windows| &windows.columns);
        Some(keys.iter().map(|key| rows.column(*key)).chain(of_windows).map(Arc::clone).collect())
    }

    /// Finds the key of each row or timer. They are those of the next call, or of the first of them.
    pub(crate) fn find_keys(&mut self, what: &Items) -> Result<(), ArrowError> {
        match what {
            Items::Rows(input, rows, windows) => {
                self.ids.clear();
                let Some(columns) = self.columns(*input, rows, windows.as_ref()) else { return Ok(()) };
                let mut held = self.shared.lock();
                held.backend.ids(&columns, rows.num_rows(), &mut self.ids)?;
            }
            Items::Timers(_, timers) => {
                self.ids.clear();
                self.ids.extend(timers.iter().map(|(_, key)| *key));
            }
            Items::Clear(_) | Items::Slices(_) | Items::Windows { .. } => self.ids.clear(),
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
        if let Items::Rows(input, rows, _) = what {
            for (state, riding) in self.ridings.iter().filter(|(_, riding)| riding.input == *input) {
                bytes += held.backend.entry_bytes(*state, &self.ids, &named_by(rows, riding))?;
            }
        }
        Ok(bytes)
    }

    /// A call with rows, grouped by key in the order of first occurrence, or with timers; with the
    /// groups' state. Their keys have been found.
    /// None where there is nothing to call.
    pub(crate) fn call(&mut self, now: Moment, what: &Items) -> Result<Option<Call>, ArrowError> {
        let shared = Arc::clone(&self.shared);
        let mut held = shared.lock();
        held.now = now.processing_time;
        held.groups.clear();
        self.riders.clear();
        let call = match what {
            Items::Rows(input, rows, _) => {
                let of_rows = self.grouping.number(&self.ids, &mut held.groups);
                let entries = self.ride(&mut held, *input, rows)?;
                let groups = self.groups(&mut held)?;
                Call::ProcessKeyed { now, input: *input, groups, of_rows, rows: rows.clone(), entries }
            }
            Items::Timers(domain, timers) => {
                held.groups.extend_from_slice(&self.ids);
                let groups = self.groups(&mut held)?;
                if let Some(OfWindows { clock, of_groups, is_last, .. }) = &mut self.windows {
                    let of_timers = timers.iter().zip(of_groups);
                    *is_last = of_timers
                        .map(|((time, _), window)| clock.is_last(*domain, *time, window.1))
                        .collect();
                }
                let times = timers.iter().map(|(time, _)| *time).collect();
                Call::Timers { now, domain: *domain, times, groups }
            }
            Items::Windows { domain, keys, times, values } => {
                // There are no more of them than slices that are gathered at once.
                let count = times.len() as u32;
                let groups = Groups { count, keys: keys.clone(), state: vec![Arc::clone(values)] };
                Call::Timers { now, domain: *domain, times: times.clone(), groups }
            }
            Items::Clear(_) | Items::Slices(_) => return Ok(None),
        };
        Ok(Some(call))
    }

    fn groups(&mut self, held: &mut Held) -> Result<Groups, ArrowError> {
        let Held { backend, groups, now, .. } = held;
        let states = self.by_value.iter().map(|state| backend.load(*state, groups, *now));
        let state: Vec<ArrayRef> = states.collect::<Result<_, _>>()?;
        let mut keys = backend.keys(groups)?;
        if let Some(windows) = &mut self.windows {
            windows.is_last.clear();
            windows.of_groups = windows_of(windows.extents, &mut **backend, groups, &mut keys, *now)?;
            windows.new_slices.clear();
            if let (true, Some(values)) = (windows.is_slice, state.first()) {
                let new = groups.iter().enumerate().filter(|(group, _)| values.is_null(*group));
                windows.new_slices.extend(new.map(|(_, id)| *id));
            }
        }
        Ok(Groups { count: u32::try_from(groups.len()).unwrap_or(u32::MAX), state, keys })
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
        // What the last call of a window writes goes with it.
        if let Some(windows) = &self.windows
            && !windows.is_last.is_empty()
            && windows.is_last.iter().all(|is_last| *is_last)
        {
            return Ok(());
        }
        for update in &outcome.updates {
            self.update(&mut held, update).map_err(|error| (update.state, error))?;
        }
        for changes in &outcome.entries {
            held.change_entries(changes).map_err(|error| (changes.state, error))?;
        }
        let change = |change: &guest::TimerChange| TimerChange {
            key: held.groups[change.group as usize],
            domain: change.domain,
            time: change.time,
            set: change.set,
        };
        let mut changes: Vec<TimerChange> = match &self.windows {
            None => outcome.timers.iter().map(change).collect(),
            Some(windows) => outcome.timers.iter().filter(|c| windows.takes(c)).map(change).collect(),
        };
        if self.windows.as_ref().is_some_and(|windows| !windows.is_slice) {
            self.timers_of_windows(&held.groups, outcome, &mut changes);
        }
        if !changes.is_empty() {
            held.backend.change_timers(&changes).map_err(|error| (0, error.into()))?;
        }
        Ok(())
    }

    /// The timers of the windows that rows of the call have come to, but for those that failed.
    fn timers_of_windows(&mut self, groups: &[KeyId], outcome: &Outcome, changes: &mut Vec<TimerChange>) {
        // A call with timers has found no rows' keys.
        let Some(windows) = self.windows.as_ref().filter(|windows| windows.is_last.is_empty()) else {
            return;
        };
        if outcome.failures.is_empty() {
            let all = groups.iter().zip(&windows.of_groups);
            all.for_each(|(id, (_, end))| windows.clock.set_timers(*id, *end, changes));
            return;
        }
        let mut has_failed = vec![false; self.ids.len()];
        outcome.failures.iter().for_each(|failed| has_failed[failed.row as usize] = true);
        let of_rows = self.grouping.number(&self.ids, &mut Vec::new());
        let mut touched = vec![false; groups.len()];
        of_rows.iter().zip(has_failed).for_each(|(group, failed)| touched[*group as usize] |= !failed);
        let touched = groups.iter().zip(&windows.of_groups).zip(touched).filter(|(_, touched)| *touched);
        touched.for_each(|((id, (_, end)), _)| windows.clock.set_timers(*id, *end, changes));
    }

    /// Adds the rows to the sequence of their input, and sets their windows' timers. Their keys have been
    /// found.
    pub(crate) fn collect(&mut self, input: u32, rows: &Batch, now: i64) -> Result<(), (u32, StoreError)> {
        let failed = |error: ArrowError| (input, error.into());
        let shared = Arc::clone(&self.shared);
        let mut held = shared.lock();
        let Held { backend, groups, .. } = &mut *held;
        self.grouping.number(&self.ids, groups);
        let (fields, columns) = (rows.schema().fields().clone(), rows.rows().columns().to_vec());
        let rows = StructArray::try_new_with_length(fields, columns, None, rows.num_rows());
        let rows: ArrayRef = Arc::new(rows.map_err(failed)?);
        let puts = vec![EntryChange::Put; self.ids.len()];
        backend.change_entries(input, (&puts, &self.ids), &[], &rows, now).map_err(|error| (input, error))?;
        let mut changes = Vec::new();
        if let Some(windows) = &self.windows {
            let mut keys = backend.keys(groups).map_err(failed)?;
            let of_groups =
                windows_of(windows.extents, &mut **backend, groups, &mut keys, now).map_err(failed)?;
            groups
                .iter()
                .zip(of_groups)
                .for_each(|(id, (_, end))| windows.clock.set_timers(*id, end, &mut changes));
        }
        backend.change_timers(&changes).map_err(failed)
    }

    /// What is to be done with due timers of windows, which are near. `at_end`: the input has ended, and
    /// instants of processing time after this have not passed.
    pub(crate) fn sort_due(
        &self,
        domain: TimeDomain,
        timers: Vec<(i64, KeyId)>,
        passed: i64,
        (at_end, now): (Option<i64>, i64),
    ) -> Result<Sorted, ArrowError> {
        let Some(OfWindows { clock, extents, merges, .. }) = &self.windows else {
            return Ok(Sorted { called: timers, ..Sorted::default() });
        };
        let ids: Vec<KeyId> = timers.iter().map(|(_, id)| *id).collect();
        let mut held = self.shared.lock();
        let mut keys = held.backend.keys(&ids)?;
        let windows = windows_of(*extents, &mut *held.backend, &ids, &mut keys, now)?;
        // Sessions in which all rows have failed have no value.
        let values = match extents {
            Some(_) if *merges => Some(held.backend.load(0, &ids, now)?),
            _ => None,
        };
        let mut sorted = Sorted::default();
        let mut gone = Vec::new();
        for (at, ((time, id), (start, end))) in timers.into_iter().zip(windows).enumerate() {
            if start >= end {
                gone.push(id);
                continue;
            }
            if domain != clock.domain() {
                // It has outlived its window.
                match clock.takes(end, passed) {
                    false => gone.push(id),
                    true => sorted.called.push((time, id)),
                }
                continue;
            }
            // At the end of the input windows end, other timers of processing time do not fire.
            let is_ahead = domain == TimeDomain::ProcessingTime && at_end.is_some_and(|wall| time > wall);
            if clock.is_over(time, end) {
                sorted.cleared.push(id);
                continue;
            }
            let is_empty = time == end - 1 && values.as_ref().is_some_and(|values| values.is_null(at));
            if (!is_ahead || time == end - 1) && !is_empty {
                sorted.called.push((time, id));
            }
            if time == end - 1 && !clock.has_lateness() {
                sorted.cleared.push(id);
            }
        }
        held.backend.forget_empty(&gone);
        Ok(sorted)
    }

    /// Removes what is kept for the last of these keys, some of it. False: there is more.
    pub(crate) fn clear(&mut self, ids: &mut Vec<KeyId>, now: i64) -> Result<bool, StoreError> {
        let shared = Arc::clone(&self.shared);
        let Held { backend, .. } = &mut *shared.lock();
        let last = ids.len().saturating_sub(CLEARED_KEYS);
        let mut left = CLEARED_ENTRIES;
        let entries = (0u32..).zip(&self.types).filter(|(_, (kind, _))| *kind != StateKind::Value);
        let mut cleared = ids.len();
        // Entries first, key by key: how many there are is not known.
        'keys: for id in ids[last..].iter().rev() {
            for (state, _) in entries.clone() {
                left -= backend.clear_entries(state, *id, left)?;
                if left == 0 {
                    break 'keys;
                }
            }
            cleared -= 1;
        }
        let gone = ids.split_off(cleared);
        self.written.clear();
        self.written.extend(gone.iter().copied().enumerate());
        for state in &self.by_value {
            let nothing = new_null_array(&self.types[*state as usize].1, gone.len());
            backend.store(*state, &self.written, &nothing, now)?;
        }
        if let Some(extents) = self.windows.as_ref().and_then(|windows| windows.extents) {
            backend.store(extents, &self.written, &new_null_array(&extent_type(), gone.len()), now)?;
        }
        backend.forget_empty(&gone);
        Ok(ids.is_empty())
    }

    /// The stream's keys of these numbers, and what follows them: the id of a session, or a slice's start
    /// and end.
    pub(crate) fn split_keys(&self, ids: &[KeyId]) -> Result<(Vec<ArrayRef>, Vec<Vec<i64>>), ArrowError> {
        let mut keys = self.shared.lock().backend.keys(ids)?;
        let is_session = self.windows.as_ref().is_some_and(|windows| windows.extents.is_some());
        let of_windows = keys.split_off(keys.len().saturating_sub(if is_session { 1 } else { 2 }));
        Ok((keys, of_windows.iter().map(|column| times(column).to_vec()).collect()))
    }

    /// Begins to bring near what there is of these keys.
    pub(crate) fn prefetch_keys(&self, keys: &[ArrayRef], rows: usize) -> Result<Ticket, ArrowError> {
        self.shared.lock().backend.prefetch(keys, rows)
    }

    /// The key columns of an input's rows, without their windows.
    pub(crate) fn stream_keys(&self, input: u32, rows: &Batch) -> Vec<ArrayRef> {
        self.columns(input, rows, None).unwrap_or_default()
    }

    /// Gives sessions their extents, and those that have met their timers. The values that are to be made
    /// one, or the entries that are to be moved, are the caller's.
    pub(crate) fn meet(&mut self, meeting: &Meeting, now: Now) -> Result<Met, StoreError> {
        let shared = Arc::clone(&self.shared);
        let Held { backend, .. } = &mut *shared.lock();
        let Some(OfWindows { clock, extents: Some(extents), .. }) = &self.windows else {
            return Ok(Met::default());
        };
        let mut ids = Vec::new();
        backend.ids(&meeting.keys, meeting.rows(), &mut ids)?;
        let mut next = ids.iter().copied();
        let (mut after, mut written) = (Vec::new(), Vec::new());
        let (mut met, mut changes, mut gone) = (Met::default(), Vec::new(), Vec::new());
        for session in &meeting.sessions {
            let Some(id) = next.next() else { break };
            written.push((after.len(), id));
            after.push((session.now.start, session.now.end));
            let timer = |domain, time, set| TimerChange { key: id, domain, time, set };
            for (at, before) in session.before.iter().enumerate() {
                let mut own = Vec::new();
                clock.set_timers(id, before.end, &mut own);
                if at == 0 {
                    // Its timers move with its end.
                    changes.extend(own.iter().map(|own| TimerChange { set: false, ..*own }));
                    continue;
                }
                let Some(other) = next.next() else { break };
                gone.push(other);
                met.merged.push((other, id));
                for domain in [TimeDomain::EventTime, TimeDomain::ProcessingTime] {
                    for time in backend.timers_of(other, domain) {
                        changes.push(TimerChange { key: other, ..timer(domain, time, false) });
                        if domain != clock.domain() || own.iter().all(|own| own.time != time) {
                            changes.push(timer(domain, time, true));
                        }
                    }
                }
            }
            let mut own = Vec::new();
            clock.set_timers(id, session.now.end, &mut own);
            // What has passed is for those whose rows do not fail.
            own.retain(|own| own.time > clock.passed(now));
            changes.extend(own);
        }
        backend.change_timers(&changes)?;
        let values = StructArray::try_new(extent_fields(), extent_columns(after), None)?;
        let values: ArrayRef = Arc::new(values);
        backend.store(*extents, &written, &values, now.processing_time)?;
        let gone: Vec<(usize, KeyId)> = gone.into_iter().enumerate().collect();
        let nothing = new_null_array(&extent_type(), gone.len());
        backend.store(*extents, &gone, &nothing, now.processing_time)?;
        Ok(met)
    }

    /// Values of a function whose only state they are.
    pub(crate) fn values(&self, ids: &[KeyId], now: i64) -> Result<ArrayRef, ArrowError> {
        self.shared.lock().backend.load(0, ids, now)
    }

    /// Writes what values have become, and removes those that have become others.
    pub(crate) fn store_merged(
        &self,
        into: &[KeyId],
        values: &ArrayRef,
        gone: &[KeyId],
        now: i64,
    ) -> Result<(), StoreError> {
        let backend = &mut self.shared.lock().backend;
        let numbered = |ids: &[KeyId]| ids.iter().copied().enumerate().collect::<Vec<_>>();
        backend.store(0, &numbered(into), values, now)?;
        backend.store(0, &numbered(gone), &new_null_array(&self.types[0].1, gone.len()), now)?;
        backend.forget_empty(gone);
        Ok(())
    }

    /// Moves some of what has been collected for a key to the end of another's. False: there is more.
    pub(crate) fn move_entries(&self, from: KeyId, to: KeyId, now: i64) -> Result<bool, (u32, StoreError)> {
        let backend = &mut self.shared.lock().backend;
        for state in 0..self.types.len() as u32 {
            let failed = |error: ArrowError| (state, error.into());
            let page = backend.scan(state, &[from], None, MOVED_ENTRIES, now).map_err(failed)?;
            let count = page.values.len();
            if count == 0 {
                continue;
            }
            let puts = vec![EntryChange::Put; count];
            backend
                .change_entries(state, (&puts, &vec![to; count]), &[], &page.values, now)
                .map_err(|error| (state, error))?;
            backend.clear_entries(state, from, count).map_err(failed)?;
            return Ok(false);
        }
        backend.forget_empty(&[from]);
        Ok(true)
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
        held.backend.seal(0, Extent::Apart).map_err(|error| ArrowError::ComputeError(error.to_string()))?;
        let mut chunks = Vec::new();
        loop {
            match held.backend.sweep()? {
                Sweep::Rows(chunk) => chunks.push(chunk),
                Sweep::Nothing | Sweep::Waiting | Sweep::Files(_) => {}
                Sweep::Done(_) | Sweep::Idle => return Ok(chunks),
            }
        }
    }

    /// No key: its columns, without rows.
    pub(crate) fn no_keys(&self) -> Result<Vec<ArrayRef>, ArrowError> {
        self.shared.lock().backend.keys(&[])
    }

    /// Forgets those keys of the calls that have returned, and those that have lost theirs by their
    /// age, that have no state and no timer left; later, where timers wait that name keys.
    pub(crate) fn forget_empty(&self, is_later: bool) {
        let Held { backend, groups, unforgotten, .. } = &mut *self.shared.lock();
        unforgotten.append(groups);
        if !is_later {
            backend.forget_empty(unforgotten);
            unforgotten.clear();
        }
    }

    /// Forgets those of these keys that have nothing left.
    pub(crate) fn forget(&self, ids: &[KeyId]) {
        self.shared.lock().backend.forget_empty(ids);
    }

    /// The slices that have got their first rows with the call that has returned.
    pub(crate) fn take_new_slices(&mut self) -> Vec<KeyId> {
        self.windows.as_mut().map(|windows| std::mem::take(&mut windows.new_slices)).unwrap_or_default()
    }

    /// The values of slices with these keys; the last that need them take them out.
    pub(crate) fn gather(
        &self,
        slices: &[ArrayRef],
        is_last: &[bool],
        now: i64,
    ) -> Result<ArrayRef, StoreError> {
        let backend = &mut self.shared.lock().backend;
        let mut ids = Vec::new();
        backend.ids(slices, is_last.len(), &mut ids)?;
        let values = backend.load(0, &ids, now)?;
        let gone = ids.iter().copied().zip(is_last).filter(|(_, is_last)| **is_last).map(|(id, _)| id);
        let gone: Vec<(usize, KeyId)> = gone.enumerate().collect();
        backend.store(0, &gone, &new_null_array(&self.types[0].1, gone.len()), now)?;
        // Those that are not there are forgotten too.
        backend.forget_empty(&ids);
        Ok(values)
    }
}

/// Keys whose states are removed at once, and their entries, at most.
const CLEARED_KEYS: usize = 2 * 1024;
const CLEARED_ENTRIES: usize = 4 * 1024;
/// Entries that go from one key to another at once, at most.
const MOVED_ENTRIES: usize = 1024;

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
