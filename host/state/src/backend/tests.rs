//! Snapshots that are written while the state changes, against a plain copy of what was sealed.

use std::collections::BTreeMap;
use std::time::Duration;

use arrow_array::types::{Int64Type, UInt8Type};
use arrow_array::{Array, StringArray};
use arrow_schema::{Field, Schema};
use model::job_graph::Ttl;
use proptest::prelude::*;

use super::*;

fn numbers(values: impl IntoIterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<Int64Array>())
}

fn longs(column: &ArrayRef) -> Vec<i64> {
    column.as_primitive::<Int64Type>().values().to_vec()
}

fn texts(values: impl IntoIterator<Item = Option<String>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<StringArray>())
}

fn state(name: &str, kind: StateKind, key: &[DataType], value: DataType, ttl: Option<Ttl>) -> State {
    let fields = key.iter().map(|of| Field::new("key", of.clone(), true));
    State {
        name: name.to_owned(),
        kind,
        key: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
        value: Arc::new(Schema::new(vec![Field::new("value", value, true)])),
        ttl,
    }
}

const COUNT: u32 = 0;
const TEXT: u32 = 1;
const BY_NUMBER: u32 = 2;
const LIST: u32 = 3;
const RULES: u32 = 4;

fn backend() -> MemoryBackend {
    let states = [
        state("count", StateKind::Value, &[], DataType::Int64, None),
        state(
            "text",
            StateKind::Value,
            &[],
            DataType::Utf8,
            Some(Ttl { after: Duration::MAX, on_read: false }),
        ),
        state("by number", StateKind::Dictionary(Vec::new()), &[DataType::Int64], DataType::Utf8, None),
        state("list", StateKind::Sequence, &[], DataType::Int64, None),
        state("rules", StateKind::Broadcast, &[DataType::Int64], DataType::Int64, None),
    ];
    MemoryBackend::new(&[DataType::Int64], &states, 7).unwrap()
}

/// What keys have, plainly.
#[derive(Clone, Debug, Default, PartialEq)]
struct Plain {
    counts: BTreeMap<i64, i64>,
    /// With when they were touched.
    texts: BTreeMap<i64, (String, i64)>,
    by_number: BTreeMap<(i64, i64), String>,
    lists: BTreeMap<i64, Vec<i64>>,
    rules: BTreeMap<i64, i64>,
    /// Key, domain, instant.
    timers: Vec<(i64, u8, i64)>,
}

#[derive(Clone, Debug)]
enum Deed {
    Count(i64, Option<i64>),
    Text(i64, Option<u8>),
    ByNumber(i64, i64, Option<u8>),
    Append(i64, i64),
    Clear(i64),
    Rule(i64, Option<i64>),
    Timer(i64, u8, i64, bool),
    Fire(u8, i64),
    Sweep(usize),
}

fn deed() -> impl Strategy<Value = Deed> {
    let key = || 0i64..40;
    prop_oneof![
        4 => (key(), any::<Option<i64>>()).prop_map(|(key, value)| Deed::Count(key, value)),
        3 => (key(), any::<Option<u8>>()).prop_map(|(key, value)| Deed::Text(key, value)),
        4 => (key(), 0..5i64, any::<Option<u8>>()).prop_map(|(key, own, value)| Deed::ByNumber(key, own, value)),
        3 => (key(), any::<i64>()).prop_map(|(key, value)| Deed::Append(key, value)),
        1 => key().prop_map(Deed::Clear),
        1 => (0..4i64, any::<Option<i64>>()).prop_map(|(own, value)| Deed::Rule(own, value)),
        4 => (key(), 0..2u8, 0..50i64, any::<bool>())
            .prop_map(|(key, domain, time, set)| Deed::Timer(key, domain, time, set)),
        1 => (0..2u8, 0..50i64).prop_map(|(domain, now)| Deed::Fire(domain, now)),
        2 => (0..4usize).prop_map(Deed::Sweep),
    ]
}

fn id_of(backend: &mut MemoryBackend, key: i64) -> KeyId {
    let mut ids = Vec::new();
    backend.ids(&[numbers([Some(key)])], 1, &mut ids).unwrap();
    ids[0]
}

/// Does a deed to both.
fn do_deed(backend: &mut MemoryBackend, plain: &mut Plain, deed: &Deed, now: i64) {
    let put = |value: bool| if value { EntryChange::Put } else { EntryChange::Remove };
    let (key, id) = match deed {
        Deed::Count(key, _)
        | Deed::Text(key, _)
        | Deed::ByNumber(key, ..)
        | Deed::Append(key, _)
        | Deed::Clear(key)
        | Deed::Timer(key, ..) => (*key, id_of(backend, *key)),
        _ => (0, 0),
    };
    match deed {
        Deed::Count(_, value) => {
            backend.store(COUNT, &[(0, id)], &numbers([*value]), now).unwrap();
            match value {
                Some(value) => drop(plain.counts.insert(key, *value)),
                None => drop(plain.counts.remove(&key)),
            }
        }
        Deed::Text(_, value) => {
            let value = value.map(|value| value.to_string());
            backend.store(TEXT, &[(0, id)], &texts([value.clone()]), now).unwrap();
            match value {
                Some(value) => drop(plain.texts.insert(key, (value, now))),
                None => drop(plain.texts.remove(&key)),
            }
        }
        Deed::ByNumber(_, own, value) => {
            let value = value.map(|value| value.to_string());
            let changes = [put(value.is_some())];
            let (keys, values) = ([numbers([Some(*own)])], texts([value.clone()]));
            backend.change_entries(BY_NUMBER, (&changes, &[id]), &keys, &values, now).unwrap();
            match value {
                Some(value) => drop(plain.by_number.insert((key, *own), value)),
                None => drop(plain.by_number.remove(&(key, *own))),
            }
        }
        Deed::Append(_, value) => {
            let values = numbers([Some(*value)]);
            backend.change_entries(LIST, (&[EntryChange::Put], &[id]), &[], &values, now).unwrap();
            plain.lists.entry(key).or_default().push(*value);
        }
        Deed::Clear(_) => {
            // Bit by bit.
            while backend.clear_entries(LIST, id, 2).unwrap() == 2 {}
            let (keys, values) = ([numbers([None])], texts([None]));
            backend.change_entries(BY_NUMBER, (&[EntryChange::Clear], &[id]), &keys, &values, now).unwrap();
            plain.lists.remove(&key);
            plain.by_number.retain(|(of, _), _| *of != key);
        }
        Deed::Rule(own, value) => {
            let (changes, keys) = ([put(value.is_some())], [numbers([Some(*own)])]);
            let values = numbers([*value]);
            backend.change_entries(RULES, (&changes, &[BROADCAST]), &keys, &values, now).unwrap();
            match value {
                Some(value) => drop(plain.rules.insert(*own, *value)),
                None => drop(plain.rules.remove(own)),
            }
        }
        Deed::Timer(_, domain, time, set) => {
            let change = TimerChange { key: id, domain: DOMAINS[*domain as usize], time: *time, set: *set };
            backend.change_timers(&[change]).unwrap();
            let timer = (key, *domain, *time);
            plain.timers.retain(|other| *other != timer);
            plain.timers.extend(set.then_some(timer));
        }
        Deed::Fire(domain, now) => {
            let due = backend.take_due(DOMAINS[*domain as usize], *now, 5).unwrap();
            for (time, id) in due.timers {
                let key = longs(&backend.keys(&[id]).unwrap()[0])[0];
                let at = plain.timers.iter().position(|timer| *timer == (key, *domain, time)).unwrap();
                plain.timers.remove(at);
                backend.forget_empty(&[id]);
            }
        }
        Deed::Sweep(_) => {}
    }
    if !matches!(deed, Deed::Rule(..) | Deed::Fire(..) | Deed::Sweep(_)) {
        backend.forget_empty(&[id]);
    }
}

/// All that a backend has, by a snapshot of it.
fn read(backend: &mut MemoryBackend) -> Plain {
    backend.seal(99).unwrap();
    let mut chunks = Vec::new();
    while sweep(backend, 1, &mut chunks) {}
    plain_of(&chunks)
}

/// Sweeps so many times; whether there is more.
fn sweep(backend: &mut MemoryBackend, times: usize, chunks: &mut Vec<StateChunk>) -> bool {
    for _ in 0..times {
        match backend.sweep().unwrap() {
            Sweep::Rows(chunk) => chunks.push(chunk),
            Sweep::Nothing => {}
            Sweep::Done(_) | Sweep::Idle => return false,
        }
    }
    true
}

/// A snapshot, read plainly; no row comes twice.
fn plain_of(chunks: &[StateChunk]) -> Plain {
    let mut plain = Plain::default();
    let mut lists: BTreeMap<(i64, i64), i64> = BTreeMap::new();
    for StateChunk { table, keys, columns, touched } in chunks {
        let key = |row: usize| longs(&keys[0])[row];
        for row in 0..columns[0].len() {
            let twice = match table {
                StateTable::Values(COUNT) => plain.counts.insert(key(row), longs(&columns[0])[row]).is_some(),
                StateTable::Values(_) => {
                    let touched = touched.as_ref().unwrap().value(row);
                    let text = columns[0].as_string::<i32>().value(row).to_owned();
                    plain.texts.insert(key(row), (text, touched)).is_some()
                }
                StateTable::Entries(BY_NUMBER) => {
                    let text = columns[1].as_string::<i32>().value(row).to_owned();
                    plain.by_number.insert((key(row), longs(&columns[0])[row]), text).is_some()
                }
                StateTable::Entries(LIST) => {
                    lists.insert((key(row), longs(&columns[0])[row]), longs(&columns[1])[row]).is_some()
                }
                StateTable::Entries(_) => {
                    plain.rules.insert(longs(&columns[0])[row], longs(&columns[1])[row]).is_some()
                }
                StateTable::Timers => {
                    let domain = columns[0].as_primitive::<UInt8Type>().value(row);
                    plain.timers.push((key(row), domain, longs(&columns[1])[row]));
                    false
                }
            };
            assert!(!twice, "a row of {table:?} comes twice");
        }
    }
    for ((key, _), value) in lists {
        plain.lists.entry(key).or_default().push(value);
    }
    plain
}

fn sorted(mut plain: Plain) -> Plain {
    plain.timers.sort_unstable();
    plain
}

/// Deeds, a seal, deeds between sweeps: the chunks of the snapshot, and what they must hold.
fn snapshot(before: &[Deed], after: &[Deed], forgets_to_save: bool) -> (Vec<StateChunk>, Plain) {
    let (mut backend, mut plain) = (backend(), Plain::default());
    backend.forgets_to_save = forgets_to_save;
    for (now, deed) in (0..).zip(before) {
        do_deed(&mut backend, &mut plain, deed, now);
    }
    backend.seal(3).unwrap();
    assert_eq!(backend.seal(4), Err(NotSealed(3)));
    let (sealed, mut chunks) = (plain.clone(), Vec::new());
    for (now, deed) in (1_000..).zip(after) {
        do_deed(&mut backend, &mut plain, deed, now);
        if let Deed::Sweep(times) = deed {
            sweep(&mut backend, *times, &mut chunks);
        }
    }
    while sweep(&mut backend, 1, &mut chunks) {}
    if !forgets_to_save {
        // The state itself has come to no harm, and the next snapshot has it.
        assert_eq!(sorted(read(&mut backend)), sorted(plain));
    }
    (chunks, sealed)
}

/// A third of the key groups each.
fn thirds() -> [std::ops::Range<u32>; 3] {
    [0..40, 40..90, 90..128]
}

proptest! {
    #[test]
    fn a_snapshot_is_what_was_there_when_it_was_sealed(
        before in proptest::collection::vec(deed(), 0..150),
        after in proptest::collection::vec(deed(), 0..150),
    ) {
        let (chunks, sealed) = snapshot(&before, &after, false);
        let sealed = sorted(sealed);
        prop_assert_eq!(&sorted(plain_of(&chunks)), &sealed);
        // Put back, from the last to the first, it is the same; as it is by key groups.
        let mut whole = backend();
        chunks.iter().rev().for_each(|chunk| whole.import(chunk).unwrap());
        prop_assert_eq!(&sorted(read(&mut whole)), &sealed);
        let mut parts = Plain::default();
        for groups in thirds() {
            let mut part = backend();
            for chunk in &chunks {
                part.import(&chunk.of_key_groups(&groups, 128, chunk.keys.len()).unwrap()).unwrap();
            }
            let Plain { counts, texts, by_number, lists, rules, timers } = read(&mut part);
            parts.counts.extend(counts);
            parts.texts.extend(texts);
            parts.by_number.extend(by_number);
            parts.lists.extend(lists);
            parts.timers.extend(timers);
            // Everybody has them all.
            prop_assert_eq!(&rules, &sealed.rules);
            parts.rules = rules;
        }
        prop_assert_eq!(&sorted(parts), &sealed);
    }
}

/// The deliberate fault: a backend that does not save what changes gives other snapshots.
#[test]
fn what_is_not_saved_is_missed() {
    let before: Vec<Deed> = (0..40).map(|key| Deed::Count(key, Some(key))).collect();
    let after: Vec<Deed> = (0..40).map(|key| Deed::Count(key, Some(-1))).collect();
    let (chunks, sealed) = snapshot(&before, &after, true);
    assert_ne!(plain_of(&chunks), sealed);
    let (chunks, sealed) = snapshot(&before, &after, false);
    assert_eq!(plain_of(&chunks), sealed);
}

/// Keys that come once and go, by hand or by their time to live, leave no memory behind.
#[test]
fn keys_that_go_leave_their_numbers() {
    let ttl = Some(Ttl { after: Duration::from_millis(50), on_read: false });
    let states = [
        state("value", StateKind::Value, &[], DataType::Int64, ttl),
        state("by number", StateKind::Dictionary(Vec::new()), &[DataType::Int64], DataType::Utf8, ttl),
    ];
    let mut backend = MemoryBackend::new(&[DataType::Utf8], &states, 7).unwrap();
    let mut ids = Vec::new();
    for round in 0..2_000i64 {
        let keys = texts((0..100).map(|i| Some(format!("a longer key {round} {i}"))));
        backend.ids(&[keys], 100, &mut ids).unwrap();
        backend.load(0, &ids, round).unwrap();
        // Half have a value, a quarter an entry, the others nothing.
        let written: Vec<_> = ids.iter().copied().take(50).enumerate().collect();
        backend.store(0, &written, &numbers((0..100).map(Some)), round).unwrap();
        let (entries, own) = (&ids[50..75], numbers((0..25).map(Some)));
        backend.ride(1, entries, &[Arc::clone(&own)], round).unwrap();
        let values = texts((0..25).map(|i| Some(i.to_string())));
        backend.change_entries(1, (&[EntryChange::Put; 25], entries), &[own], &values, round).unwrap();
        backend.forget_empty(&ids);
    }
    assert!(backend.len() < 100 * 200, "{} keys are left", backend.len());
    assert!(backend.bound() < 100 * 200);
}
