//! A stand-in for the host's states of many entries a key.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Bound;

use millstream_sys::bindings::millstream::job::calls::{EntryChanges, RidingEntries, StateUpdate};
use millstream_sys::bindings::millstream::job::graph::{State, StateKind, Ttl};
use millstream_sys::bindings::millstream::job::rows::{Batch, Column, DataType, Field};
use millstream_sys::bindings::millstream::job::state;
use millstream_sys::host::stub::StateSource;

use super::keyed::{Key, is_over};
use super::value::{Ordered, Value, column_of, concatenated, row_of, value_at};
use crate::record::is_set;

/// The states of a function, by their places; those by value have no table.
pub(super) struct Entries(RefCell<Tables>);

struct Tables {
    states: Vec<State>,
    tables: Vec<BTreeMap<(Key, Ordered), Entry>>,
    versions: Vec<u64>,
    /// the groups of the call that runs
    groups: Vec<Key>,
    now: i64,
    /// what rode with it: by state the entries
    riders: BTreeMap<u32, Vec<(Key, Ordered)>>,
}

struct Entry {
    value: Batch,
    since: i64,
}

impl Entries {
    pub(super) fn new(states: &[State]) -> Entries {
        let tables = states.iter().map(|_| BTreeMap::new()).collect();
        let versions = vec![0; states.len()];
        let (groups, riders) = (Vec::new(), BTreeMap::new());
        Entries(RefCell::new(Tables { states: states.to_vec(), tables, versions, groups, now: 0, riders }))
    }

    /// Begins a call with these groups; gives what rides with its rows, whose keys are `keys`.
    pub(super) fn begin(
        &self,
        rows: Option<(u32, &Batch, &[Key])>,
        groups: Vec<Key>,
        now: i64,
    ) -> Vec<RidingEntries> {
        let mut tables = self.0.borrow_mut();
        (tables.groups, tables.now, tables.riders) = (groups, now, BTreeMap::new());
        let Some((input, rows, keys)) = rows else { return Vec::new() };
        let mut riding_entries = Vec::new();
        for place in 0..tables.states.len() as u32 {
            let StateKind::Dictionary(ridings) = tables.states[place as usize].kind.clone() else { continue };
            let Some(riding) = ridings.into_iter().find(|riding| riding.input == input) else { continue };
            let mut entries: Vec<(Key, Ordered)> = Vec::new();
            let of_row = |row: usize| {
                let own = riding.columns.iter().map(|column| value_at(&rows.columns[*column as usize], row));
                let entry = (keys[row].clone(), Ordered(own.collect()));
                let known = entries.iter().position(|other| *other == entry);
                known.unwrap_or_else(|| {
                    entries.push(entry);
                    entries.len() - 1
                }) as u32
            };
            let of_rows = (0..rows.length as usize).map(of_row).collect();
            let values = tables.values(place, &entries);
            riding_entries.push(RidingEntries { state: place, of_rows, count: entries.len() as u32, values });
            tables.riders.insert(place, entries);
        }
        riding_entries
    }

    /// Takes new values of what rode; false if the state did not.
    pub(super) fn update(&self, update: &StateUpdate) -> bool {
        let mut tables = self.0.borrow_mut();
        let Some(riders) = tables.riders.get(&update.state).cloned() else { return false };
        let written = batch(riders.len(), &update.columns);
        for (row, at) in riders.into_iter().enumerate() {
            if update.written.as_ref().is_none_or(|bits| is_set(bits, row)) {
                tables.write(update.state, at, &written, row);
            }
        }
        true
    }

    pub(super) fn apply(&self, changes: &EntryChanges) {
        let mut tables = self.0.borrow_mut();
        let place = changes.state as usize;
        tables.versions[place] += 1;
        let values = batch(changes.changes.len(), &changes.values);
        for (row, change) in changes.changes.iter().enumerate() {
            let key =
                changes.groups.get(row).map_or_else(Key::new, |group| tables.groups[*group as usize].clone());
            let own = match tables.states[place].kind {
                StateKind::Sequence => {
                    let last = tables.tables[place].range(..=(key.clone(), last())).next_back();
                    let last = last.filter(|((of, _), _)| *of == key).map(|((_, own), _)| own.0[0].clone());
                    Ordered(vec![Value::Integer(match last {
                        Some(Value::Integer(last)) => last + 1,
                        _ => 0,
                    })])
                }
                _ => Ordered(changes.keys.iter().map(|column| value_at(column, row)).collect()),
            };
            match change {
                0 => tables.write(changes.state, (key, own), &values, row),
                1 => drop(tables.tables[place].remove(&(key, own))),
                _ => tables.tables[place].retain(|(of, _), _| *of != key),
            }
        }
    }

    /// The entries of a key in the state of this name: the own keys' columns, and the values'.
    ///
    /// # Panics
    /// If the function has no such state.
    pub(super) fn of(&self, name: &str, key: &Key, now: i64) -> (Vec<Column>, Vec<Column>, usize) {
        let mut tables = self.0.borrow_mut();
        tables.now = now;
        let place = tables.states.iter().position(|state| state.name == name);
        let Some(place) = place else { panic!("the function has no state `{name}`") };
        let key =
            if matches!(tables.states[place].kind, StateKind::Broadcast) { Key::new() } else { key.clone() };
        let found: Vec<(Key, Ordered)> =
            tables.tables[place].keys().filter(|(of, _)| *of == key).cloned().collect();
        let found: Vec<_> = found.into_iter().filter(|at| tables.is_there(place, at)).collect();
        (tables.own_keys(place, &found), tables.values(place as u32, &found), found.len())
    }
}

/// More than any place in a sequence.
fn last() -> Ordered {
    Ordered(vec![Value::Integer(i128::MAX)])
}

fn batch(length: usize, columns: &[Column]) -> Batch {
    Batch { length: length as u32, event_times: None, kinds: None, columns: columns.to_vec() }
}

impl Tables {
    /// Writes a row of values; null removes.
    fn write(&mut self, state: u32, at: (Key, Ordered), values: &Batch, row: usize) {
        let place = state as usize;
        let value = row_of(&self.states[place].value, values, row);
        if value.columns[0].validity.as_ref().is_some_and(|bits| !is_set(bits, 0)) {
            self.tables[place].remove(&at);
        } else {
            self.tables[place].insert(at, Entry { value, since: self.now });
        }
    }

    fn ttl(&self, place: usize) -> Option<Ttl> {
        self.states[place].ttl
    }

    /// Whether there is an entry that is not too old; notes the use of it.
    fn is_there(&mut self, place: usize, at: &(Key, Ordered)) -> bool {
        let (ttl, now) = (self.ttl(place), self.now);
        let Some(entry) = self.tables[place].get_mut(at) else { return false };
        let Some(ttl) = ttl else { return true };
        let is_over = is_over(ttl, entry.since, now);
        if !is_over && ttl.on_read {
            entry.since = now;
        }
        !is_over
    }

    fn values(&mut self, state: u32, entries: &[(Key, Ordered)]) -> Vec<Column> {
        let place = state as usize;
        let there: Vec<bool> = entries.iter().map(|at| self.is_there(place, at)).collect();
        let parts = entries.iter().zip(there).map(|(at, is_there)| {
            let entry = self.tables[place].get(at).filter(|_| is_there);
            (entry.map(|entry| &entry.value.columns[..]), 0..1)
        });
        concatenated(&self.states[place].value, &parts.collect::<Vec<_>>())
    }

    fn own_keys(&self, place: usize, entries: &[(Key, Ordered)]) -> Vec<Column> {
        let state = &self.states[place];
        let at = Field { name: "place".into(), data_type: DataType::Int64, nullable: false };
        let fields = match state.kind {
            StateKind::Sequence => std::slice::from_ref(&at),
            _ => &state.key[..],
        };
        let column = |(number, field): (usize, &Field)| {
            let values: Vec<Value> = entries.iter().map(|(_, own)| own.0[number].clone()).collect();
            column_of(field, &values)
        };
        fields.iter().enumerate().map(column).collect()
    }

    fn keys(&self, state: u32, groups: &[u32], count: usize) -> Vec<Key> {
        match self.states[state as usize].kind {
            StateKind::Broadcast => vec![Key::new(); count],
            _ => groups.iter().map(|group| self.groups[*group as usize].clone()).collect(),
        }
    }
}

impl StateSource for Entries {
    fn get(&self, state: u32, count: u32, groups: &[u32], keys: &[Column]) -> Vec<Column> {
        let mut tables = self.0.borrow_mut();
        let own = |row: usize| Ordered(keys.iter().map(|column| value_at(column, row)).collect());
        let keys = tables.keys(state, groups, count as usize);
        let entries: Vec<_> = keys.into_iter().enumerate().map(|(row, key)| (key, own(row))).collect();
        tables.values(state, &entries)
    }

    fn scan(&self, state: u32, groups: &[u32], after: &[Column], limit: u32) -> state::Entries {
        let mut tables = self.0.borrow_mut();
        let place = state as usize;
        let (mut offsets, mut more, mut all) = (vec![0], Vec::new(), Vec::new());
        for (row, key) in tables.keys(state, groups, 1).into_iter().enumerate() {
            let own = Ordered(after.iter().map(|column| value_at(column, row)).collect());
            let start = match after.is_empty() {
                true => Bound::Unbounded,
                false => Bound::Excluded((key.clone(), own)),
            };
            let range = tables.tables[place].range((start, Bound::Unbounded));
            let mut found: Vec<_> = range.map(|(at, _)| at).filter(|(of, _)| *of == key).cloned().collect();
            found.retain(|at| tables.is_there(place, at));
            if row % 8 == 0 {
                more.push(0u8);
            }
            more[row / 8] |= u8::from(found.len() > limit as usize) << (row % 8);
            found.truncate(limit as usize);
            all.extend(found);
            offsets.push(all.len() as u32);
        }
        let keys = tables.own_keys(place, &all);
        state::Entries { offsets, keys, values: tables.values(state, &all), more }
    }

    fn version(&self, state: u32) -> u64 {
        self.0.borrow().versions[state as usize]
    }
}
