//! A stand-in for the host's keyed state and timers.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use millstream_sys::bindings::millstream::job::calls::{KeyedBatch, KeyedRows, Moment};
use millstream_sys::bindings::millstream::job::graph::{Function, StateKind, TimeDomain, Ttl};
use millstream_sys::bindings::millstream::job::rows::{Batch, Column, Field};
use millstream_sys::host::stub::{StateSource, with_state};

use super::entries::Entries;
use super::value::{Value, column_of, concatenated, row_of, value_at};
use crate::record::is_set;
use crate::run::{KeyedCode, KeyedFrame, Outcome};

/// A key as bytes.
pub(super) type Key = Vec<u8>;

/// Places in `timers`.
pub(super) const EVENT: usize = 0;
pub(super) const PROCESSING: usize = 1;

/// A keyed function's keys, its states, and its timers.
pub(super) struct KeyedState {
    /// the key's columns in each input; none = its rows have no key
    keys: Vec<Option<Vec<u32>>>,
    /// the key's fields
    key_fields: Vec<Field>,
    /// the states by value
    by_value: Vec<ValueState>,
    pub(super) entries: Rc<Entries>,
    /// the keys' values, of those that have timers or state
    values: BTreeMap<Key, Vec<Value>>,
    /// of event time and of processing time
    pub(super) timers: [BTreeSet<(i64, Key)>; 2],
}

/// A state by value, and its place in the function.
struct ValueState {
    place: u32,
    name: String,
    value: Vec<Field>,
    ttl: Option<Ttl>,
    /// the state, and when it was last written or, if that counts, used
    of_keys: BTreeMap<Key, (Batch, i64)>,
}

/// The keys of a call, each a group.
#[derive(Default)]
struct Groups {
    keys: Vec<(Key, Vec<Value>)>,
}

impl KeyedState {
    /// Of a function's inputs: their key columns, and their fields.
    pub(super) fn new(keys: Vec<Option<Vec<u32>>>, inputs: &[Vec<Field>], function: &Function) -> KeyedState {
        let key_fields = keys.iter().zip(inputs).find_map(|(keys, fields)| {
            Some(keys.as_ref()?.iter().map(|key| fields[*key as usize].clone()).collect())
        });
        let by_value =
            (0..).zip(&function.states).filter(|(_, state)| matches!(state.kind, StateKind::Value));
        let by_value = by_value.map(|(place, state)| ValueState {
            place,
            name: state.name.clone(),
            value: state.value.clone(),
            ttl: state.ttl,
            of_keys: BTreeMap::new(),
        });
        KeyedState {
            keys,
            key_fields: key_fields.unwrap_or_default(),
            by_value: by_value.collect(),
            entries: Rc::new(Entries::new(&function.states)),
            values: BTreeMap::new(),
            timers: Default::default(),
        }
    }

    /// Calls the function with rows of an input.
    pub(super) fn call(
        &mut self,
        code: &mut dyn KeyedCode,
        now: Moment,
        input: u32,
        rows: &Batch,
    ) -> Outcome {
        let mut places: BTreeMap<Key, u32> = BTreeMap::new();
        let mut order = Groups::default();
        let (mut groups, mut keys_of_rows) = (Vec::new(), Vec::new());
        if let Some(keys) = &self.keys[input as usize] {
            for row in 0..rows.length as usize {
                let key: Vec<Value> =
                    keys.iter().map(|key| value_at(&rows.columns[*key as usize], row)).collect();
                let bytes = bytes(&key);
                keys_of_rows.push(bytes.clone());
                groups.push(*places.entry(bytes.clone()).or_insert_with(|| {
                    order.keys.push((bytes, key));
                    order.keys.len() as u32 - 1
                }));
            }
        }
        let of_call = order.keys.iter().map(|(key, _)| key.clone()).collect();
        let riding = self.entries.begin(Some((input, rows, &keys_of_rows)), of_call, now.processing_time);
        let inputs = vec![KeyedRows { input, groups, rows: rows.clone(), entries: riding }];
        self.run(code, now, &order, inputs, None)
    }

    /// Fires a round of timers that are due, the earliest of each key; none if none is.
    pub(super) fn fire(&mut self, code: &mut dyn KeyedCode, now: Moment) -> Option<Outcome> {
        let clocks = [
            (EVENT, TimeDomain::EventTime, now.watermark),
            (PROCESSING, TimeDomain::ProcessingTime, now.processing_time),
        ];
        for (place, domain, clock) in clocks {
            let mut round: Vec<(i64, Key)> = Vec::new();
            let mut taken = BTreeSet::new();
            for (time, key) in self.timers[place].iter().take_while(|(time, _)| *time <= clock) {
                if taken.insert(key) {
                    round.push((*time, key.clone()));
                }
            }
            if round.is_empty() {
                continue;
            }
            for timer in &round {
                self.timers[place].remove(timer);
            }
            let times: Vec<i64> = round.iter().map(|(time, _)| *time).collect();
            let values = &self.values;
            let keys = round.into_iter().map(|(_, key)| {
                let value = values[&key].clone();
                (key, value)
            });
            let order = Groups { keys: keys.collect() };
            let of_call = order.keys.iter().map(|(key, _)| key.clone()).collect();
            self.entries.begin(None, of_call, now.processing_time);
            return Some(self.run(code, now, &order, Vec::new(), Some((domain, &times))));
        }
        None
    }

    fn run(
        &mut self,
        code: &mut dyn KeyedCode,
        now: Moment,
        groups: &Groups,
        inputs: Vec<KeyedRows>,
        timers: Option<(TimeDomain, &[i64])>,
    ) -> Outcome {
        let key_columns = self.key_fields.iter().enumerate().map(|(place, field)| {
            let values: Vec<Value> = groups.keys.iter().map(|(_, key)| key[place].clone()).collect();
            column_of(field, &values)
        });
        let key_columns: Vec<Column> = key_columns.collect();
        let mut columns = Vec::new();
        for state in &mut self.by_value {
            groups.keys.iter().for_each(|(key, _)| state.touch(key, now.processing_time));
            let parts = groups.keys.iter().map(|(key, _)| match state.of_keys.get(key) {
                Some((state, _)) => (Some(&state.columns[..]), 0..1),
                None => (None, 0..1),
            });
            columns.extend(concatenated(&state.value, &parts.collect::<Vec<_>>()));
        }
        let call =
            KeyedBatch { group_count: groups.keys.len() as u32, keys: key_columns, state: columns, inputs };
        let frame = KeyedFrame { now, call: &call, timers, skip: None, origins: false };
        let entries: Rc<dyn StateSource> = Rc::clone(&self.entries) as Rc<dyn StateSource>;
        let outcome = with_state(entries, || code.call(frame));
        self.apply(groups, now, &outcome);
        outcome
    }

    fn apply(&mut self, groups: &Groups, now: Moment, outcome: &Outcome) {
        for update in &outcome.updates {
            if self.entries.update(update) {
                continue;
            }
            let state = self.by_value.iter_mut().find(|state| state.place == update.state);
            let Some(state) = state else { panic!("an update of a state that does not travel by value") };
            let length = groups.keys.len() as u32;
            let written = Batch { length, event_times: None, kinds: None, columns: update.columns.clone() };
            for (group, (key, _)) in groups.keys.iter().enumerate() {
                if update.written.as_ref().is_some_and(|bits| !is_set(bits, group)) {
                    continue;
                }
                let value = row_of(&state.value, &written, group);
                if value.columns[0].validity.as_ref().is_some_and(|bits| !is_set(bits, 0)) {
                    state.of_keys.remove(key);
                } else {
                    state.of_keys.insert(key.clone(), (value, now.processing_time));
                }
            }
        }
        outcome.entries.iter().for_each(|changes| self.entries.apply(changes));
        let Some(timers) = &outcome.timers else { return };
        for ((group, time), change) in timers.groups.iter().zip(&timers.times).zip(&timers.changes) {
            let (key, value) = &groups.keys[*group as usize];
            let timer = (*time, key.clone());
            let domain = &mut self.timers[usize::from(change / 2)];
            if change % 2 == 0 {
                domain.insert(timer);
                self.values.entry(key.clone()).or_insert_with(|| value.clone());
            } else {
                domain.remove(&timer);
            }
        }
    }

    /// The value of a key, given as a row of its columns, in the state of this name.
    ///
    /// # Panics
    /// If the function has no such state by value.
    pub(super) fn state(&self, name: &str, key: &Batch, now: i64) -> Option<&Batch> {
        let state = self.by_value.iter().find(|state| state.name == name);
        let Some(state) = state else { panic!("the function has no state `{name}` of one value a key") };
        let (value, since) = state.of_keys.get(&key_of(key))?;
        state.ttl.is_none_or(|ttl| !is_over(ttl, *since, now)).then_some(value)
    }
}

impl ValueState {
    /// Drops a state whose time is over, and notes a use.
    fn touch(&mut self, key: &Key, now: i64) {
        let Some(ttl) = self.ttl else { return };
        let Some((_, since)) = self.of_keys.get_mut(key) else { return };
        if is_over(ttl, *since, now) {
            self.of_keys.remove(key);
        } else if ttl.on_read {
            *since = now;
        }
    }
}

/// A key that is given as a row of its columns.
pub(super) fn key_of(key: &Batch) -> Key {
    bytes(&key.columns.iter().map(|column| value_at(column, 0)).collect::<Vec<_>>())
}

fn bytes(key: &[Value]) -> Key {
    key.iter().flat_map(Value::key).collect()
}

pub(super) fn is_over(ttl: Ttl, since: i64, now: i64) -> bool {
    i128::from(now) >= i128::from(since) + i128::from(ttl.after)
}
