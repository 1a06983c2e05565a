//! A stand-in for the host's keyed state and timers.

use std::collections::{BTreeMap, BTreeSet};

use millstream_sys::bindings::millstream::job::calls::{KeyedBatch, KeyedRows, Moment};
use millstream_sys::bindings::millstream::job::graph::{State, TimeDomain, Ttl};
use millstream_sys::bindings::millstream::job::rows::{Batch, Column, Field};

use super::value::{Value, column_of, concatenated, row_of, value_at};
use crate::record::is_set;
use crate::run::{KeyedFrame, Outcome};

/// A key as bytes.
type Key = Vec<u8>;

/// Places in `timers`.
pub(super) const EVENT: usize = 0;
pub(super) const PROCESSING: usize = 1;

/// A keyed function's keys, its state, one batch of one row a key, and its timers.
#[derive(Default)]
pub(super) struct KeyedState {
    keys: Vec<u32>,
    input: Vec<Field>,
    value: Vec<Field>,
    ttl: Option<Ttl>,
    /// the state, and when it was last written or, if that counts, used
    states: BTreeMap<Key, (Batch, i64)>,
    /// the keys' values, of those that have timers or state
    values: BTreeMap<Key, Vec<Value>>,
    /// of event time and of processing time
    pub(super) timers: [BTreeSet<(i64, Key)>; 2],
}

/// The keys of a call, each a group.
#[derive(Default)]
struct Groups {
    keys: Vec<(Key, Vec<Value>)>,
}

type Code = dyn FnMut(KeyedFrame<'_>) -> Outcome;

impl KeyedState {
    pub(super) fn new(keys: Vec<u32>, input: Vec<Field>, state: Option<&State>) -> KeyedState {
        let value = state.map_or_else(Vec::new, |state| state.value.clone());
        KeyedState { keys, input, value, ttl: state.and_then(|state| state.ttl), ..KeyedState::default() }
    }

    /// Calls the function with rows.
    pub(super) fn call(&mut self, code: &mut Code, now: Moment, rows: &Batch) -> Outcome {
        let mut places: BTreeMap<Key, u32> = BTreeMap::new();
        let mut order = Groups::default();
        let mut groups = Vec::new();
        for row in 0..rows.length as usize {
            let key: Vec<Value> =
                self.keys.iter().map(|key| value_at(&rows.columns[*key as usize], row)).collect();
            let bytes = bytes(&key);
            groups.push(*places.entry(bytes.clone()).or_insert_with(|| {
                order.keys.push((bytes, key));
                order.keys.len() as u32 - 1
            }));
        }
        let inputs = vec![KeyedRows { input: 0, groups, rows: rows.clone() }];
        self.run(code, now, &order, inputs, None)
    }

    /// Fires a round of timers that are due, the earliest of each key; none if none is.
    pub(super) fn fire(&mut self, code: &mut Code, now: Moment) -> Option<Outcome> {
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
            return Some(self.run(code, now, &order, Vec::new(), Some((domain, &times))));
        }
        None
    }

    fn run(
        &mut self,
        code: &mut Code,
        now: Moment,
        groups: &Groups,
        inputs: Vec<KeyedRows>,
        timers: Option<(TimeDomain, &[i64])>,
    ) -> Outcome {
        let key_columns = self.keys.iter().enumerate().map(|(place, key)| {
            let values: Vec<Value> = groups.keys.iter().map(|(_, key)| key[place].clone()).collect();
            column_of(&self.input[*key as usize], &values)
        });
        let key_columns: Vec<Column> = key_columns.collect();
        for (key, _) in &groups.keys {
            self.touch(key, now.processing_time);
        }
        let states = groups.keys.iter().map(|(key, _)| match self.states.get(key) {
            Some((state, _)) => (Some(&state.columns[..]), 0..1),
            None => (None, 0..1),
        });
        let call = KeyedBatch {
            group_count: groups.keys.len() as u32,
            keys: key_columns,
            state: concatenated(&self.value, &states.collect::<Vec<_>>()),
            inputs,
        };
        let outcome = code(KeyedFrame { now, call: &call, timers, skip: None, origins: false });
        self.apply(groups, now, &outcome);
        outcome
    }

    /// Drops a state whose time is over, and notes a use.
    fn touch(&mut self, key: &Key, now: i64) {
        let Some(ttl) = self.ttl else { return };
        let Some((_, since)) = self.states.get_mut(key) else { return };
        if is_over(ttl, *since, now) {
            self.states.remove(key);
        } else if ttl.on_read {
            *since = now;
        }
    }

    fn apply(&mut self, groups: &Groups, now: Moment, outcome: &Outcome) {
        for update in &outcome.updates {
            let length = groups.keys.len() as u32;
            let written = Batch { length, event_times: None, kinds: None, columns: update.columns.clone() };
            for (group, (key, _)) in groups.keys.iter().enumerate() {
                if update.written.as_ref().is_some_and(|bits| !is_set(bits, group)) {
                    continue;
                }
                let state = row_of(&self.value, &written, group);
                if state.columns[0].validity.as_ref().is_some_and(|bits| !is_set(bits, 0)) {
                    self.states.remove(key);
                } else {
                    self.states.insert(key.clone(), (state, now.processing_time));
                }
            }
        }
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

    /// The state of a key that is given as a row of its columns.
    pub(super) fn state(&self, key: &Batch, now: i64) -> Option<&Batch> {
        let values: Vec<Value> = key.columns.iter().map(|column| value_at(column, 0)).collect();
        let (state, since) = self.states.get(&bytes(&values))?;
        self.ttl.is_none_or(|ttl| !is_over(ttl, *since, now)).then_some(state)
    }
}

fn bytes(key: &[Value]) -> Key {
    key.iter().flat_map(Value::key).collect()
}

fn is_over(ttl: Ttl, since: i64, now: i64) -> bool {
    i128::from(now) >= i128::from(since) + i128::from(ttl.after)
}
