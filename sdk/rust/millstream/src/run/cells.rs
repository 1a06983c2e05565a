//! The named states of a process function while a call runs.
//!
//! Reads of what does not travel by value ask the host, once for each entry; writes stay here, and go
//! back with the outcome. If a row fails, the call runs again without it, from the beginning.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};

use millstream_sys::bindings::millstream::job::calls::{
    EntryChanges, KeyedBatch, RidingEntries, StateUpdate,
};
use millstream_sys::bindings::millstream::job::rows::Column;
use millstream_sys::host;

use crate::process::Slot;
use crate::record::{Builder, Cursor, Record, Row, finish_rows, is_set};
use crate::state::{Declared, MapKey};

/// One named state.
pub(crate) trait Cell: Any {
    fn name(&self) -> &'static str;

    /// Begins a pass over a call. `values` are at the columns of the states by value that are left.
    fn begin(&mut self, call: &KeyedBatch, values: &mut Cursor<'_>);

    /// Takes out what was written.
    fn finish(&mut self, updates: &mut Vec<StateUpdate>, changes: &mut Vec<EntryChanges>);
}

/// All named states of a function.
pub(crate) struct Cells {
    cells: Vec<Box<dyn Cell>>,
    /// the row that runs has written
    pub(crate) is_touched: bool,
}

impl Cells {
    pub(crate) fn new(declared: Vec<Declared>) -> Cells {
        Cells { cells: declared.into_iter().map(|declared| declared.cell).collect(), is_touched: false }
    }

    pub(crate) fn begin(&mut self, call: &KeyedBatch, values: &mut Cursor<'_>) {
        self.cells.iter_mut().for_each(|cell| cell.begin(call, values));
    }

    pub(crate) fn finish(&mut self, updates: &mut Vec<StateUpdate>, changes: &mut Vec<EntryChanges>) {
        self.cells.iter_mut().for_each(|cell| cell.finish(updates, changes));
    }

    /// The state of this name, and whether the row that runs has written.
    ///
    /// # Panics
    /// If there is none, or it is of another type.
    pub(crate) fn of<C: Cell>(&mut self, name: &'static str) -> (&mut C, &mut bool) {
        let cell = self.cells.iter_mut().find(|cell| cell.name() == name);
        let Some(cell) = cell else { panic!("the function does not declare a state `{name}`: see `states`") };
        let cell: &mut dyn Any = &mut **cell;
        let Some(cell) = cell.downcast_mut::<C>() else {
            panic!("the state `{name}` is declared with another kind or type")
        };
        (cell, &mut self.is_touched)
    }
}

/// One value a key.
pub(crate) struct ValueCell<T: Record> {
    name: &'static str,
    place: u32,
    slots: Vec<Slot<T>>,
    builder: <Option<T> as Record>::Builder,
}

impl<T: Record> ValueCell<T> {
    pub(crate) fn new(name: &'static str, place: u32) -> Self {
        ValueCell { name, place, slots: Vec::new(), builder: Default::default() }
    }

    pub(crate) fn slot(&mut self, group: usize) -> &mut Slot<T> {
        &mut self.slots[group]
    }
}

impl<T: Record> Cell for ValueCell<T> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn begin(&mut self, call: &KeyedBatch, values: &mut Cursor<'_>) {
        self.slots = read_slots(values, call.group_count);
    }

    fn finish(&mut self, updates: &mut Vec<StateUpdate>, _: &mut Vec<EntryChanges>) {
        updates.extend(state_update(self.place, &self.slots, &mut self.builder));
    }
}

fn read_slots<T: Record>(values: &mut Cursor<'_>, count: u32) -> Vec<Slot<T>> {
    let reader = Option::<T>::read(values);
    let slot = |row| Slot { value: Option::<T>::get(&reader, row).map(T::from_row), ..Slot::empty() };
    (0..count as usize).map(slot).collect()
}

/// The new values of what was written; a state that was removed is null.
pub(crate) fn state_update<T: Record>(
    state: u32,
    slots: &[Slot<T>],
    builder: &mut <Option<T> as Record>::Builder,
) -> Option<StateUpdate> {
    let count = slots.iter().filter(|slot| slot.is_written).count();
    if count == 0 {
        return None;
    }
    let mut written = vec![0u8; slots.len().div_ceil(8)];
    for (group, slot) in slots.iter().enumerate() {
        match &slot.value {
            Some(value) if slot.is_written => Row::<Option<T>>::append_to(Some(value.as_row()), builder),
            _ => builder.push_empty(),
        }
        written[group >> 3] |= u8::from(slot.is_written) << (group & 7);
    }
    let columns = finish_rows::<Option<T>>(builder);
    Some(StateUpdate { state, written: (count < slots.len()).then_some(written), columns })
}

/// The numbers of the contract's changes of entries.
const PUT: u8 = 0;
const REMOVE: u8 = 1;
const CLEAR: u8 = 2;

/// Entries that a scan asks for at once.
const PAGE: u32 = 1_000;

/// What a call did to the entries of a dictionary.
struct Written<K: Record, V: Record> {
    /// by group and own key; none = removed
    entries: BTreeMap<(u32, K), Option<V>>,
    /// groups whose entries of before are gone
    cleared: BTreeSet<u32>,
}

impl<K: MapKey, V: Record + Clone> Written<K, V> {
    fn new() -> Self {
        Written { entries: BTreeMap::new(), cleared: BTreeSet::new() }
    }

    fn clear(&mut self, group: u32) {
        self.entries.retain(|(of, _), _| *of != group);
        self.cleared.insert(group);
    }

    /// The changes; with `groups`, those of keys.
    fn finish(&mut self, state: u32, groups: bool, all: &mut Vec<EntryChanges>) {
        let (cleared, entries) = (std::mem::take(&mut self.cleared), std::mem::take(&mut self.entries));
        if cleared.is_empty() && entries.is_empty() {
            return;
        }
        let (mut keys, mut values) = (K::Builder::default(), <Option<V> as Record>::Builder::default());
        let (mut changes, mut of_groups) = (Vec::new(), Vec::new());
        for group in cleared {
            keys.push_empty();
            values.push_empty();
            changes.push(CLEAR);
            of_groups.push(group);
        }
        for ((group, key), value) in entries {
            key.as_row().append_to(&mut keys);
            changes.push(if value.is_some() { PUT } else { REMOVE });
            Row::<Option<V>>::append_to(value.as_ref().map(V::as_row), &mut values);
            of_groups.push(group);
        }
        all.push(EntryChanges {
            state,
            changes,
            groups: if groups { of_groups } else { Vec::new() },
            keys: finish_rows::<K>(&mut keys),
            values: finish_rows::<Option<V>>(&mut values),
        });
    }
}

/// The columns of own keys.
fn key_columns<K: Record>(keys: &[&K]) -> Vec<Column> {
    let mut builder = K::Builder::default();
    keys.iter().for_each(|key| key.as_row().append_to(&mut builder));
    finish_rows::<K>(&mut builder)
}

/// All entries of a group (of a broadcast state: none) as the host has them.
fn scan<K: Record, V: Record>(state: u32, group: Option<u32>, mut take: impl FnMut(K, V)) {
    let groups: Vec<u32> = group.into_iter().collect();
    let mut after: Vec<Column> = Vec::new();
    loop {
        let page = host::scan_entries(state, &groups, &after, PAGE);
        let keys = K::read(&mut Cursor::new(&page.keys, K::IS_STRUCT));
        let values = V::read(&mut Cursor::new(&page.values, false));
        let count = page.offsets.last().map_or(0, |end| *end as usize);
        for row in 0..count {
            take(K::from_row(K::get(&keys, row)), V::from_row(V::get(&values, row)));
        }
        if count == 0 || !page.more.first().is_some_and(|more| is_set(std::slice::from_ref(more), 0)) {
            return;
        }
        after = key_columns(&[&K::from_row(K::get(&keys, count - 1))]);
    }
}

/// Entries by an own key, for each key.
pub(crate) struct MapCell<K: Record, V: Record> {
    name: &'static str,
    place: u32,
    /// what rode in with the rows: the entry of each, and the entries
    riding: Option<(Vec<u32>, Vec<Slot<V>>)>,
    /// what was looked up, so that it is asked for once
    read: BTreeMap<(u32, K), Option<V>>,
    written: Written<K, V>,
    builder: <Option<V> as Record>::Builder,
}

impl<K: MapKey, V: Record + Clone> MapCell<K, V> {
    pub(crate) fn new(name: &'static str, place: u32) -> Self {
        let (read, written) = (BTreeMap::new(), Written::new());
        MapCell { name, place, riding: None, read, written, builder: Default::default() }
    }

    /// The entry that a row names.
    pub(crate) fn entry(&mut self, row: usize) -> &mut Slot<V> {
        match &mut self.riding {
            Some((of_rows, slots)) => &mut slots[of_rows[row] as usize],
            None => panic!("a row names no entry of `{}`: see `by` in `states`", self.name),
        }
    }

    fn check(&self) {
        let name = self.name;
        assert!(self.riding.is_none(), "entries of `{name}` come with these rows: use `context.entry`");
    }

    pub(crate) fn get(&mut self, group: u32, key: &K) -> Option<V> {
        self.check();
        let at = (group, key.clone());
        if let Some(written) = self.written.entries.get(&at) {
            return written.clone();
        }
        if self.written.cleared.contains(&group) {
            return None;
        }
        let place = self.place;
        let found = self.read.entry(at).or_insert_with(|| {
            let columns = host::get_entries(place, 1, &[group], &key_columns(&[key]));
            Option::<V>::get(&Option::<V>::read(&mut Cursor::new(&columns, false)), 0).map(V::from_row)
        });
        found.clone()
    }

    pub(crate) fn set(&mut self, group: u32, key: K, value: Option<V>) {
        self.check();
        self.written.entries.insert((group, key), value);
    }

    pub(crate) fn clear(&mut self, group: u32) {
        self.check();
        self.written.clear(group);
    }

    pub(crate) fn entries(&mut self, group: u32) -> BTreeMap<K, V> {
        self.check();
        let mut entries = BTreeMap::new();
        if !self.written.cleared.contains(&group) {
            scan(self.place, Some(group), |key, value| drop(entries.insert(key, value)));
        }
        for ((_, key), value) in self.written.entries.iter().filter(|((of, _), _)| *of == group) {
            match value {
                Some(value) => drop(entries.insert(key.clone(), value.clone())),
                None => drop(entries.remove(key)),
            }
        }
        entries
    }
}

impl<K: MapKey, V: Record + Clone> Cell for MapCell<K, V> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn begin(&mut self, call: &KeyedBatch, _: &mut Cursor<'_>) {
        (self.read, self.written) = (BTreeMap::new(), Written::new());
        let mut riding = call.inputs.iter().flat_map(|input| &input.entries);
        self.riding = riding.find(|riding| riding.state == self.place).map(|riding| {
            let RidingEntries { of_rows, count, values, .. } = riding;
            (of_rows.clone(), read_slots(&mut Cursor::new(values, false), *count))
        });
    }

    fn finish(&mut self, updates: &mut Vec<StateUpdate>, changes: &mut Vec<EntryChanges>) {
        if let Some((_, slots)) = &self.riding {
            updates.extend(state_update(self.place, slots, &mut self.builder));
        }
        self.written.finish(self.place, true, changes);
    }
}

/// Entries in the order in which they were added, for each key.
pub(crate) struct ListCell<T: Record> {
    name: &'static str,
    place: u32,
    added: Vec<(u32, T)>,
    cleared: BTreeSet<u32>,
}

impl<T: Record + Clone> ListCell<T> {
    pub(crate) fn new(name: &'static str, place: u32) -> Self {
        ListCell { name, place, added: Vec::new(), cleared: BTreeSet::new() }
    }

    pub(crate) fn get(&self, group: u32) -> Vec<T> {
        let mut entries = Vec::new();
        if !self.cleared.contains(&group) {
            scan(self.place, Some(group), |_: i64, value| entries.push(value));
        }
        entries.extend(self.added.iter().filter(|(of, _)| *of == group).map(|(_, value)| value.clone()));
        entries
    }

    pub(crate) fn add(&mut self, group: u32, value: T) {
        self.added.push((group, value));
    }

    pub(crate) fn clear(&mut self, group: u32) {
        self.added.retain(|(of, _)| *of != group);
        self.cleared.insert(group);
    }
}

impl<T: Record + Clone> Cell for ListCell<T> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn begin(&mut self, _: &KeyedBatch, _: &mut Cursor<'_>) {
        self.added.clear();
        self.cleared.clear();
    }

    fn finish(&mut self, _: &mut Vec<StateUpdate>, all: &mut Vec<EntryChanges>) {
        if self.added.is_empty() && self.cleared.is_empty() {
            return;
        }
        let mut values = <Option<T> as Record>::Builder::default();
        let (mut changes, mut groups) = (Vec::new(), Vec::new());
        for group in std::mem::take(&mut self.cleared) {
            values.push_empty();
            changes.push(CLEAR);
            groups.push(group);
        }
        for (group, value) in self.added.drain(..) {
            Row::<Option<T>>::append_to(Some(value.as_row()), &mut values);
            changes.push(PUT);
            groups.push(group);
        }
        let values = finish_rows::<Option<T>>(&mut values);
        all.push(EntryChanges { state: self.place, changes, groups, keys: Vec::new(), values });
    }
}

/// Entries by an own key that all keys share. What was read stays from call to call, for as long as the
/// host says that the state has not changed.
pub(crate) struct BroadcastCell<K: Record, V: Record> {
    name: &'static str,
    place: u32,
    read: BTreeMap<K, V>,
    version: Option<u64>,
    /// `read` was compared with the host's in this pass
    is_fresh: bool,
    written: Written<K, V>,
}

impl<K: MapKey, V: Record + Clone> BroadcastCell<K, V> {
    pub(crate) fn new(name: &'static str, place: u32) -> Self {
        let (read, written) = (BTreeMap::new(), Written::new());
        BroadcastCell { name, place, read, version: None, is_fresh: false, written }
    }

    /// The entries, with what this call has written.
    pub(crate) fn entries(&mut self) -> &BTreeMap<K, V> {
        if !self.is_fresh {
            self.is_fresh = true;
            let version = host::state_version(self.place);
            if self.version != Some(version) {
                let read = &mut self.read;
                read.clear();
                scan(self.place, None, |key, value| drop(read.insert(key, value)));
                self.version = Some(version);
            }
        }
        &self.read
    }

    pub(crate) fn set(&mut self, key: K, value: Option<V>) {
        self.entries();
        match &value {
            Some(value) => drop(self.read.insert(key.clone(), value.clone())),
            None => drop(self.read.remove(&key)),
        }
        // What is read is no longer the host's, whose number will be another.
        self.version = None;
        self.written.entries.insert((0, key), value);
    }

    pub(crate) fn clear(&mut self) {
        (self.is_fresh, self.version) = (true, None);
        self.read.clear();
        self.written.clear(0);
    }
}

impl<K: MapKey, V: Record + Clone> Cell for BroadcastCell<K, V> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn begin(&mut self, _: &KeyedBatch, _: &mut Cursor<'_>) {
        (self.is_fresh, self.written) = (false, Written::new());
    }

    fn finish(&mut self, _: &mut Vec<StateUpdate>, changes: &mut Vec<EntryChanges>) {
        self.written.finish(self.place, false, changes);
    }
}
