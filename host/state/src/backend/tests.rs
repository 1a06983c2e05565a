//! Snapshots that are written while the state changes, against a plain copy of what was sealed: in memory, and in
//! memory that has no room for anything that is not in use, over a store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, UInt8Type};
use arrow_array::{Array, StringArray};
use arrow_schema::{DataType, Field, Schema};
use model::job_graph::{State, StateKind, Ttl};
use platform::{IoPool, Random};
use proptest::prelude::*;

use super::*;
use crate::layers::fold;
use crate::memory::{BROADCAST, DOMAINS, MemoryBackend};
use crate::tiered::{InMemoryStore, StoreFiles, StoreReader, TieredBackend};

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

fn states() -> [State; 5] {
    [
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
    ]
}

/// Which backend, and its deliberate fault.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Memory { forgets: Forgets },
    Tiered { forgets_what_is_under_way: bool },
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Forgets {
    Nothing,
    WhatChanges,
    WhatHasGone,
}

const SOUND: [Kind; 2] =
    [Kind::Memory { forgets: Forgets::Nothing }, Kind::Tiered { forgets_what_is_under_way: false }];

/// Keys that are never asked for before they are used.
fn is_surprise(key: i64) -> bool {
    key % 3 == 0
}

/// Whether the subtask has been woken.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A backend, and what does its blocking work.
struct Backing {
    backend: Box<dyn Backend>,
    io: IoPool,
    woken: Arc<Woken>,
    random: Random,
    /// Those of the last snapshot.
    files: Option<FrozenFiles>,
}

impl Backing {
    fn new(kind: Kind) -> Self {
        let (io, woken) = (IoPool::simulated(), Arc::new(Woken::default()));
        let keys = [DataType::Int64];
        let backend: Box<dyn Backend> = match kind {
            Kind::Memory { forgets } => {
                let mut backend = MemoryBackend::new(&keys, &states(), 7).unwrap();
                backend.forgets_to_save = forgets == Forgets::WhatChanges;
                backend.forgets_gone = forgets == Forgets::WhatHasGone;
                Box::new(backend)
            }
            Kind::Tiered { forgets_what_is_under_way } => {
                let store = Arc::new(InMemoryStore::default());
                let pool = (io.clone(), &Arc::clone(&woken).into());
                let no_room = Box::new(|| 0);
                let mut backend = TieredBackend::new(&keys, &states(), 7, store, no_room, pool).unwrap();
                backend.forgets_what_is_under_way = forgets_what_is_under_way;
                Box::new(backend)
            }
        };
        Self { backend, io, woken, random: Random::of_seed(1), files: None }
    }

    /// What a subtask that waits does: it goes on when it has been woken.
    fn work(&mut self) {
        let is_woken = self.woken.0.swap(false, Ordering::Relaxed);
        assert!(is_woken || self.io.run_one(&mut self.random), "it waits for nothing");
    }

    /// The rows that are in the files of the last snapshot.
    fn far_rows(&mut self) -> Vec<StateChunk> {
        let Some(FrozenFiles { store, files, types }) = self.files.take() else { return Vec::new() };
        let kinds = states().map(|state| state.kind);
        let types: Vec<_> = types.into_iter().zip(kinds).collect();
        let files: Vec<Vec<u8>> = files.iter().map(|file| store.read_file(&file.name).unwrap()).collect();
        let files = StoreFiles::InMemory(files.iter().map(|file| &file[..]).collect());
        let mut reader = StoreReader::new(files, &types).unwrap();
        let mut rows = Vec::new();
        while let Some(next) = reader.next_rows().unwrap() {
            rows.extend(next);
        }
        rows
    }

    /// The number of a key, which is near then.
    fn id_of(&mut self, key: i64) -> KeyId {
        let column = [numbers([Some(key)])];
        if !is_surprise(key) {
            let ticket = self.backend.prefetch(&column, 1).unwrap();
            while !self.backend.is_ready(ticket) {
                self.work();
            }
        }
        let mut ids = Vec::new();
        self.backend.ids(&column, 1, &mut ids).unwrap();
        ids[0]
    }
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
    /// Keys are asked for, and not waited for.
    Ask(Vec<i64>),
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
        2 => proptest::collection::vec(key(), 1..12).prop_map(Deed::Ask),
        2 => (0..4usize).prop_map(Deed::Sweep),
    ]
}

/// Does a deed to both.
fn do_deed(backing: &mut Backing, plain: &mut Plain, deed: &Deed, now: i64) {
    let put = |value: bool| if value { EntryChange::Put } else { EntryChange::Remove };
    let (key, id) = match deed {
        Deed::Count(key, _)
        | Deed::Text(key, _)
        | Deed::ByNumber(key, ..)
        | Deed::Append(key, _)
        | Deed::Clear(key)
        | Deed::Timer(key, ..) => (*key, backing.id_of(*key)),
        _ => (0, 0),
    };
    let backend = &mut backing.backend;
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
            let mut due = backing.backend.take_due(DOMAINS[*domain as usize], *now, 5).unwrap();
            while due.is_waiting {
                backing.work();
                due = backing.backend.take_due(DOMAINS[*domain as usize], *now, 5).unwrap();
            }
            let there = plain.timers.iter().any(|timer| timer.1 == *domain && timer.2 <= *now);
            assert_eq!(there, !due.timers.is_empty());
            for (time, id) in due.timers {
                let key = longs(&backing.backend.keys(&[id]).unwrap()[0])[0];
                let at = plain.timers.iter().position(|timer| *timer == (key, *domain, time)).unwrap();
                plain.timers.remove(at);
                backing.backend.forget_empty(&[id]);
            }
        }
        Deed::Ask(keys) => ask(backing, keys),
        Deed::Sweep(_) => {}
    }
    if !matches!(deed, Deed::Rule(..) | Deed::Fire(..) | Deed::Ask(_) | Deed::Sweep(_)) {
        backing.backend.forget_empty(&[id]);
    }
    while let rest @ (Rest::More | Rest::Waiting) = backing.backend.rest().unwrap() {
        if rest == Rest::Waiting {
            backing.work();
        }
    }
}

/// Asks for those of these keys that may be.
fn ask(backing: &mut Backing, keys: &[i64]) {
    let asked = numbers(keys.iter().copied().filter(|key| !is_surprise(*key)).map(Some));
    backing.backend.prefetch(&[Arc::clone(&asked)], asked.len()).unwrap();
}

/// All that a backend has, by a snapshot of it.
fn read(backing: &mut Backing) -> Plain {
    backing.backend.seal(99, Extent::Apart).unwrap();
    let mut chunks = Vec::new();
    while sweep(backing, 1, &mut chunks) {}
    plain_of(&chunks)
}

/// Sweeps so many times; whether there is more.
fn sweep(backing: &mut Backing, times: usize, chunks: &mut Vec<StateChunk>) -> bool {
    for _ in 0..times {
        match backing.backend.sweep().unwrap() {
            Sweep::Waiting => backing.work(),
            Sweep::Rows(chunk) => chunks.push(chunk),
            Sweep::Files(files) => backing.files = Some(files),
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
                StateTable::Gone => panic!("not of a whole snapshot"),
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

/// Deeds, a seal, deeds between sweeps: the chunks of the snapshot, and what they must hold. Some keys are asked for
/// when it is sealed, and are not near yet.
fn snapshot(kind: Kind, before: &[Deed], asked: &[i64], after: &[Deed]) -> (Vec<StateChunk>, Plain) {
    let (mut backing, mut plain) = (Backing::new(kind), Plain::default());
    for (now, deed) in (0..).zip(before) {
        do_deed(&mut backing, &mut plain, deed, now);
    }
    ask(&mut backing, asked);
    backing.backend.seal(3, Extent::Whole).unwrap();
    assert_eq!(backing.backend.seal(4, Extent::Changes), Err(NotSealed(3)));
    let (sealed, mut chunks) = (plain.clone(), Vec::new());
    for (now, deed) in (1_000..).zip(after) {
        do_deed(&mut backing, &mut plain, deed, now);
        if let Deed::Sweep(times) = deed {
            sweep(&mut backing, *times, &mut chunks);
        }
    }
    while sweep(&mut backing, 1, &mut chunks) {}
    chunks.extend(backing.far_rows());
    if SOUND.iter().any(|sound| format!("{sound:?}") == format!("{kind:?}")) {
        // The state itself has come to no harm, and the next snapshot has it.
        assert_eq!(sorted(read(&mut backing)), sorted(plain));
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
        asked in proptest::collection::vec(0i64..40, 0..20),
        after in proptest::collection::vec(deed(), 0..150),
        kinds in (0..2usize, 0..2usize).prop_map(|(from, to)| (SOUND[from], SOUND[to])),
    ) {
        let (chunks, sealed) = snapshot(kinds.0, &before, &asked, &after);
        let sealed = sorted(sealed);
        prop_assert_eq!(&sorted(plain_of(&chunks)), &sealed);
        // Put back, from the last to the first, it is the same; as it is by key groups.
        let mut whole = Backing::new(kinds.1);
        chunks.iter().rev().for_each(|chunk| whole.backend.import(chunk).unwrap());
        prop_assert_eq!(&sorted(read(&mut whole)), &sealed);
        let mut parts = Plain::default();
        for groups in thirds() {
            let mut part = Backing::new(kinds.1);
            for chunk in &chunks {
                part.backend.import(&chunk.of_key_groups(&groups, 128, chunk.keys.len()).unwrap()).unwrap();
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

/// The deliberate faults: a backend that does not save what changes, or what is on its way, gives other snapshots.
#[test]
fn what_is_not_saved_is_missed() {
    let count = |value: fn(i64) -> i64| -> Vec<Deed> {
        (0..40).map(|key| Deed::Count(key, Some(value(key)))).collect()
    };
    let keys: Vec<i64> = (0..40).collect();
    let (before, after) = (count(|key| key), count(|_| -1));
    let faults =
        [Kind::Memory { forgets: Forgets::WhatChanges }, Kind::Tiered { forgets_what_is_under_way: true }];
    for (fault, sound) in faults.into_iter().zip(SOUND) {
        let (chunks, sealed) = snapshot(fault, &before, &keys, &after);
        assert_ne!(plain_of(&chunks), sealed, "{fault:?}");
        let (chunks, sealed) = snapshot(sound, &before, &keys, &after);
        assert_eq!(plain_of(&chunks), sealed);
    }
}

/// Snapshots one after the other, with deeds before each and between its sweeps: whether each, with those that it
/// builds upon, has what was there.
fn chain(kind: Kind, rounds: &[(Extent, Vec<Deed>, Vec<Deed>)]) -> Result<(), String> {
    let (mut backing, mut plain) = (Backing::new(kind), Plain::default());
    let (mut layers, mut now): (Vec<Vec<StateChunk>>, i64) = (Vec::new(), 0);
    for (epoch, (extent, before, during)) in (1..).zip(rounds) {
        for deed in before {
            do_deed(&mut backing, &mut plain, deed, now);
            now += 1;
        }
        let extent = backing.backend.seal(epoch, *extent).unwrap();
        let (sealed, mut chunks) = (sorted(plain.clone()), Vec::new());
        for deed in during {
            do_deed(&mut backing, &mut plain, deed, now);
            now += 1;
            if let Deed::Sweep(times) = deed {
                sweep(&mut backing, *times, &mut chunks);
            }
        }
        while sweep(&mut backing, 1, &mut chunks) {}
        let mut far = Vec::new();
        let folded = match extent {
            Extent::Apart => chunks,
            Extent::Whole | Extent::Changes => {
                if extent == Extent::Whole {
                    layers.clear();
                }
                layers.push(chunks);
                let mut rows = fold(layers.clone(), true).unwrap();
                far = backing.far_rows();
                rows.extend(far.iter().cloned());
                rows
            }
        };
        let folded = sorted(plain_of(&folded));
        if folded != sealed {
            return Err(format!("{extent:?} {epoch}: {folded:?} instead of {sealed:?}"));
        }
        if extent == Extent::Apart {
            continue;
        }
        // Put back one upon the other they are the same. In some rounds the job goes on so, its next snapshots
        // building upon them.
        for kind in SOUND.into_iter().chain((epoch % 3 == 0).then_some(kind)) {
            let goes_on = matches!(kind, Kind::Memory { .. }) && epoch % 3 == 0;
            let mut again = Backing::new(kind);
            for layer in &layers {
                let (gone, others): (Vec<_>, Vec<_>) =
                    layer.iter().partition(|chunk| chunk.table == StateTable::Gone);
                for chunk in gone.into_iter().chain(others) {
                    again.backend.import(chunk).unwrap();
                }
            }
            far.iter().for_each(|chunk| again.backend.import(chunk).unwrap());
            let builds_upon = goes_on && far.is_empty() && again.backend.build_upon();
            let there = sorted(read(&mut again));
            if there != sealed {
                return Err(format!("{extent:?} {epoch} put back: {there:?} instead of {sealed:?}"));
            }
            if builds_upon {
                (backing, plain) = (again, sealed.clone());
            }
        }
    }
    Ok(())
}

fn rounds() -> impl Strategy<Value = Vec<(Extent, Vec<Deed>, Vec<Deed>)>> {
    let extent = prop_oneof![
        1 => Just(Extent::Whole),
        5 => Just(Extent::Changes),
        1 => Just(Extent::Apart),
    ];
    let deeds = || proptest::collection::vec(deed(), 0..60);
    proptest::collection::vec((extent, deeds(), deeds()), 1..7)
}

proptest! {
    #[test]
    fn snapshots_of_changes_make_one_with_those_before(
        rounds in rounds(),
        kind in (0..2usize).prop_map(|kind| SOUND[kind]),
    ) {
        let held = chain(kind, &rounds);
        prop_assert!(held.is_ok(), "{}", held.unwrap_err());
    }
}

/// The deliberate fault: a key that has gone is still there.
#[test]
fn a_key_that_is_not_said_to_have_gone_is_missed() {
    let deeds = |value: Option<i64>| -> Vec<Deed> { (1..40).map(|key| Deed::Count(key, value)).collect() };
    let rounds = [(Extent::Whole, deeds(Some(1)), Vec::new()), (Extent::Changes, deeds(None), Vec::new())];
    let of = |forgets, rounds: &[_]| chain(Kind::Memory { forgets }, rounds);
    assert_eq!(of(Forgets::Nothing, &rounds), Ok(()));
    assert!(of(Forgets::WhatHasGone, &rounds).is_err());
    // So it is with one that was put back.
    let [first, last] = rounds;
    let nothing = || (Extent::Changes, Vec::new(), Vec::new());
    let put_back = [first, nothing(), nothing(), last];
    assert_eq!(of(Forgets::Nothing, &put_back), Ok(()));
    assert!(of(Forgets::WhatHasGone, &put_back).is_err());
}

/// The one key of a stream without a key has snapshots of changes, too.
#[test]
fn changes_without_a_key_column() {
    let mut backend = MemoryBackend::new(&[], &states(), 7).unwrap();
    let mut layers = Vec::new();
    for epoch in 1..=4i64 {
        let mut ids = Vec::new();
        backend.ids(&[], 1, &mut ids).unwrap();
        let change = if epoch % 2 == 1 { EntryChange::Put } else { EntryChange::Remove };
        let (own, values) = (numbers([Some(5)]), texts([Some("a".to_owned())]));
        backend.change_entries(BY_NUMBER, (&[change], &ids), &[own], &values, 0).unwrap();
        let count = (epoch % 2 == 1).then_some(epoch);
        backend.store(COUNT, &[(0, ids[0])], &numbers([count]), 0).unwrap();
        backend.forget_empty(&ids);
        backend.seal(epoch as u64, if epoch == 1 { Extent::Whole } else { Extent::Changes }).unwrap();
        let mut chunks = Vec::new();
        loop {
            match backend.sweep().unwrap() {
                Sweep::Rows(chunk) => chunks.push(chunk),
                Sweep::Nothing | Sweep::Waiting | Sweep::Files(_) => {}
                Sweep::Done(_) | Sweep::Idle => break,
            }
        }
        layers.push(chunks);
        let rows: usize = fold(layers.clone(), true).unwrap().iter().map(StateChunk::rows).sum();
        assert_eq!(rows, if epoch % 2 == 1 { 2 } else { 0 }, "{epoch}");
    }
}

/// A snapshot of changes has little more than what has changed.
#[test]
fn changes_of_few_keys_take_few_rows() {
    let mut backing = Backing::new(SOUND[0]);
    let mut plain = Plain::default();
    let keys = 50_000;
    let column = numbers((0..keys).map(Some));
    let mut ids = Vec::new();
    backing.backend.ids(&[Arc::clone(&column)], column.len(), &mut ids).unwrap();
    let written: Vec<_> = ids.iter().copied().enumerate().collect();
    backing.backend.store(COUNT, &written, &column, 0).unwrap();
    let mut rows = Vec::new();
    for (epoch, extent) in [(1, Extent::Whole), (2, Extent::Changes), (3, Extent::Changes)] {
        backing.backend.seal(epoch, extent).unwrap();
        let mut chunks = Vec::new();
        while sweep(&mut backing, 1, &mut chunks) {}
        rows.push(chunks.iter().map(StateChunk::rows).sum::<usize>());
        (0..30).for_each(|key| do_deed(&mut backing, &mut plain, &Deed::Count(key * 1_001, Some(7)), 1));
    }
    assert_eq!(rows, [keys as usize, 30, 30]);
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
