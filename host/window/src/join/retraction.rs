//! Takes rows of a changelog into the store: equal rows are kept once with how often they are there,
//! and are found again by their contents.
//!
//! A row's contents hash to a place below 0 of its key, its slot, where the row's own place is kept.
//! Different rows of one slot go on to the next; a slot that somebody has passed stays a stone when its
//! row is gone. A batch nets out first; where two of its rows come to the same slot, the second waits
//! for the next round, so that all others go together.

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, Int64Array, StructArray};
use arrow_row::{RowConverter, Rows, SortField};
use arrow_schema::{DataType, Field, Fields, SchemaRef};
use foldhash::fast::FixedState;
use hashbrown::hash_table::Entry::{Occupied, Vacant};
use hashbrown::{HashSet, HashTable};
use model::Batch;
use state::key_index::KeyId;

use super::output::gather_all;
use super::store::RowStore;
use crate::AggregateError;
use crate::changes::is_taken_back;

/// Slots are part of the state, so the hash is the same for ever.
const SEED: u64 = 0x6d69_6c6c_7374_7265;
/// A slot that was passed by, whose row is gone.
const STONE: i64 = -1;

/// Takes rows of one side.
pub(super) struct Retraction {
    side: usize,
    converter: RowConverter,
    /// Places that may have nothing left: forgotten when nobody holds their numbers any more.
    empty: Vec<KeyId>,
    /// Tests: all rows come to few slots.
    slot_mask: u64,
}

/// The keys of a batch's rows, and the numbers of each key's first place.
#[derive(Clone, Copy)]
struct Keys<'a> {
    columns: &'a [ArrayRef],
    bases: &'a [KeyId],
}

/// What a batch does to one row's contents.
struct Change {
    /// A row of the batch that has them.
    row: u32,
    group: u32,
    /// How many more there are.
    net: i64,
    hash: u64,
}

/// Where contents are kept.
#[derive(Clone, Copy)]
struct Found {
    place: i64,
    id: KeyId,
    copies: i64,
}

/// A search through slots.
struct Search {
    /// Which change.
    change: usize,
    /// The place looked at.
    slot: i64,
    /// Slots that hold other rows: their numbers and values.
    passed: Vec<(KeyId, i64)>,
    /// A slot that is free: place, number, and whether it was passed by.
    free: Option<(i64, KeyId, bool)>,
    found: Option<(Found, i64, KeyId, i64)>,
    /// The slot that nobody holds, at which it ended.
    end: Option<KeyId>,
    is_over: bool,
}

/// How often a row is there, and its slot.
pub(super) fn copy_note_fields() -> Fields {
    Fields::from(vec![Field::new("copies", DataType::Int64, true), Field::new("slot", DataType::Int64, true)])
}

/// Places, each as often as its row is there.
pub(super) fn repeated(places: &[u32], notes: &ArrayRef) -> Vec<u32> {
    let copies = notes.as_struct().column(0).as_primitive::<Int64Type>();
    let of = |place: &u32| {
        let copies = usize::try_from(copies.value(*place as usize)).unwrap_or(0);
        std::iter::repeat_n(*place, copies)
    };
    places.iter().flat_map(of).collect()
}

impl Retraction {
    pub(super) fn new(side: usize, schema: &SchemaRef) -> Result<Self, AggregateError> {
        let fields = schema.fields().iter().map(|field| SortField::new(field.data_type().clone()));
        Ok(Self {
            side,
            converter: RowConverter::new(fields.collect())?,
            empty: Vec::new(),
            slot_mask: u64::MAX,
        })
    }

    #[cfg(test)]
    pub(super) fn crowd(&mut self) {
        self.slot_mask = 3;
    }

    /// Takes rows of these groups, whose keys' first places are `bases`. `counts`, how many different
    /// rows there are, follow.
    pub(super) fn apply(
        &mut self,
        store: &mut RowStore,
        rows: &Batch,
        keys: &[ArrayRef],
        (groups, bases): (&[u32], &[KeyId]),
        counts: &mut [i64],
        now: i64,
    ) -> Result<(), AggregateError> {
        let encoded = self.converter.convert_columns(rows.rows().columns())?;
        let mut changes = self.net(rows, &encoded, groups);
        let keys = Keys { columns: keys, bases };
        while !changes.is_empty() {
            changes = self.round(store, (rows, &encoded), keys, changes, counts, now)?;
        }
        let written: Vec<(usize, KeyId)> = bases.iter().copied().enumerate().collect();
        store.store_counts(self.side, &written, counts, now)?;
        // A key's first place is in the caller's hands.
        let bases: HashSet<KeyId, FixedState> = bases.iter().copied().collect();
        self.empty.retain(|id| !bases.contains(id));
        store.backend.forget_empty(&self.empty);
        self.empty.clear();
        Ok(())
    }

    /// What a batch does to each row's contents, in the order in which they first come.
    fn net(&self, rows: &Batch, encoded: &Rows, groups: &[u32]) -> Vec<Change> {
        let state = FixedState::with_seed(SEED);
        let mut seen: HashTable<u32> = HashTable::with_capacity(groups.len());
        let mut changes: Vec<Change> = Vec::new();
        for (row, group) in (0u32..).zip(groups) {
            let bytes = encoded.row(row as usize);
            let hash = state.hash_one(bytes.as_ref());
            let of_group = hash ^ u64::from(*group).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let is = |at: &u32| {
                let change = &changes[*at as usize];
                change.group == *group && encoded.row(change.row as usize) == bytes
            };
            let rehash = |at: &u32| {
                let change = &changes[*at as usize];
                change.hash ^ u64::from(change.group).wrapping_mul(0x9E37_79B9_7F4A_7C15)
            };
            let at = match seen.entry(of_group, is, rehash) {
                Occupied(at) => *at.get(),
                Vacant(free) => {
                    let at = changes.len() as u32;
                    free.insert(at);
                    changes.push(Change { row, group: *group, net: 0, hash });
                    at
                }
            };
            let back = rows.kinds().is_some_and(|kinds| is_taken_back(kinds[row as usize]));
            changes[at as usize].net += if back { -1 } else { 1 };
        }
        changes.retain(|change| change.net != 0);
        changes
    }

    /// Makes changes whose slots are nobody else's; gives those that are left.
    fn round(
        &mut self,
        store: &mut RowStore,
        (rows, encoded): (&Batch, &Rows),
        keys: Keys<'_>,
        changes: Vec<Change>,
        counts: &mut [i64],
        now: i64,
    ) -> Result<Vec<Change>, AggregateError> {
        let side = self.side;
        let searches = self.search(store, encoded, keys, &changes, now)?;
        let mut touched: HashSet<KeyId, FixedState> = HashSet::with_hasher(FixedState::with_seed(SEED));
        let mut is_left = vec![false; changes.len()];
        // By group: places that are free now.
        let mut holes: BTreeMap<u32, Vec<(i64, KeyId)>> = BTreeMap::new();
        let mut slots: Vec<(KeyId, Option<i64>)> = Vec::new();
        let mut noted: Vec<(KeyId, i64, i64)> = Vec::new();
        let mut kept: Vec<(usize, KeyId)> = Vec::new();
        let mut added: Vec<&Search> = Vec::new();
        for search in &searches {
            let change = &changes[search.change];
            let last = search.found.map(|found| found.2).or(search.free.map(|free| free.1));
            let all = search.passed.iter().map(|passed| passed.0).chain(last);
            if all.clone().any(|slot| touched.contains(&slot)) {
                is_left[search.change] = true;
                continue;
            }
            touched.extend(all);
            match search.found {
                Some((found, slot, slot_id, value)) if found.copies + change.net > 0 => {
                    noted.push((found.id, found.copies + change.net, slot));
                    slots.push((slot_id, Some(value)));
                    kept.push((change.row as usize, found.id));
                }
                Some((found, _, slot_id, value)) => {
                    let was_passed = value & 1 == 1;
                    slots.push((slot_id, was_passed.then_some(STONE)));
                    holes.entry(change.group).or_default().push((found.place, found.id));
                }
                // What is not there cannot be taken back.
                None if change.net < 0 => {}
                None => added.push(search),
            }
        }
        let gone: Vec<KeyId> = holes.values().flatten().map(|hole| hole.1).collect();
        store.remove(side, &gone, now)?;
        let places = self.places_of_added(store, keys, &changes, &added, &mut holes, counts)?;
        for (search, (place, id)) in added.iter().zip(places) {
            let change = &changes[search.change];
            let Some((slot, slot_id, was_passed)) = search.free else { continue };
            slots.push((slot_id, Some(place << 1 | i64::from(was_passed))));
            slots.extend(search.passed.iter().map(|(id, value)| (*id, Some(value | 1))));
            noted.push((id, change.net, slot));
            kept.push((change.row as usize, id));
        }
        store.store_rows(side, &kept, rows, now)?;
        self.note(store, &noted, now)?;
        store_slots(store, side, &slots, now)?;
        let dropped: Vec<KeyId> = slots.iter().filter(|slot| slot.1.is_none()).map(|slot| slot.0).collect();
        self.close_holes(store, keys, &changes, holes, counts, now)?;
        // Slots that were looked at in vain.
        let sought = searches.iter().filter_map(|search| search.end);
        self.empty.extend(dropped.into_iter().chain(gone).chain(sought));
        let left = changes.into_iter().zip(is_left).filter(|(_, is_left)| *is_left);
        Ok(left.map(|(change, _)| change).collect())
    }

    /// Looks for contents through their slots, all together.
    fn search(
        &mut self,
        store: &mut RowStore,
        encoded: &Rows,
        keys: Keys<'_>,
        changes: &[Change],
        now: i64,
    ) -> Result<Vec<Search>, AggregateError> {
        let first = |change: &Change| -1 - ((change.hash & self.slot_mask) >> 1).cast_signed();
        let mut searches: Vec<Search> = changes
            .iter()
            .enumerate()
            .map(|(at, change)| Search {
                change: at,
                slot: first(change),
                passed: Vec::new(),
                free: None,
                found: None,
                end: None,
                is_over: false,
            })
            .collect();
        let mut ids = Vec::new();
        loop {
            let open: Vec<usize> = (0..searches.len()).filter(|at| !searches[*at].is_over).collect();
            if open.is_empty() {
                return Ok(searches);
            }
            let rows: Vec<u32> = open.iter().map(|at| changes[searches[*at].change].row).collect();
            let places = open.iter().map(|at| searches[*at].slot).collect();
            let of_rows = gather_all(keys.columns, &rows)?;
            store.ids(&of_rows, &[], places, &mut ids)?;
            let slots = store.slots(self.side, &ids, now)?;
            // Rows that slots name.
            let (mut named, mut named_rows, mut named_places) = (Vec::new(), Vec::new(), Vec::new());
            for ((at, row), (id, slot)) in open.iter().zip(rows).zip(ids.iter().zip(slots.iter())) {
                let search = &mut searches[*at];
                match slot {
                    None => {
                        search.free.get_or_insert((search.slot, *id, false));
                        search.end = Some(*id);
                        search.is_over = true;
                    }
                    Some(STONE) => {
                        search.free.get_or_insert((search.slot, *id, true));
                        search.slot = next_slot(search.slot);
                    }
                    Some(value) => {
                        named.push((*at, *id, value));
                        named_rows.push(row);
                        named_places.push(value >> 1);
                    }
                }
            }
            if named.is_empty() {
                continue;
            }
            let of_rows = gather_all(keys.columns, &named_rows)?;
            let places = named_places.clone();
            store.ids(&of_rows, &[], named_places, &mut ids)?;
            let kept = store.rows(self.side, &ids, now)?;
            let notes = store.notes(self.side, &ids, now)?;
            let copies = notes.as_struct().column(0).as_primitive::<Int64Type>();
            let contents = self.converter.convert_columns(kept.columns())?;
            for (entry, (at, slot_id, value)) in named.into_iter().enumerate() {
                let search = &mut searches[at];
                let change = &changes[search.change];
                debug_assert!(places[entry] > 0 || ids[entry] == keys.bases[change.group as usize]);
                if kept.is_null(entry) {
                    // It has grown too old.
                    search.free.get_or_insert((search.slot, slot_id, true));
                    search.slot = next_slot(search.slot);
                } else if contents.row(entry) == encoded.row(change.row as usize) {
                    let copies = if notes.is_valid(entry) { copies.value(entry) } else { 1 };
                    let found = Found { place: places[entry], id: ids[entry], copies };
                    search.found = Some((found, search.slot, slot_id, value));
                    search.is_over = true;
                } else {
                    if search.free.is_none() {
                        search.passed.push((slot_id, value));
                    }
                    search.slot = next_slot(search.slot);
                }
            }
        }
    }

    /// Places for new rows: those that have just become free, else behind the others.
    fn places_of_added(
        &self,
        store: &mut RowStore,
        keys: Keys<'_>,
        changes: &[Change],
        added: &[&Search],
        holes: &mut BTreeMap<u32, Vec<(i64, KeyId)>>,
        counts: &mut [i64],
    ) -> Result<Vec<(i64, KeyId)>, AggregateError> {
        let mut places: Vec<(i64, KeyId)> = Vec::with_capacity(added.len());
        let (mut sought, mut rows, mut behind) = (Vec::new(), Vec::new(), Vec::new());
        for search in added {
            let change = &changes[search.change];
            if let Some(hole) = holes.get_mut(&change.group).and_then(Vec::pop) {
                places.push(hole);
                continue;
            }
            let count = &mut counts[change.group as usize];
            if *count > 0 {
                sought.push(places.len());
                rows.push(change.row);
                behind.push(*count);
            }
            places.push((*count, keys.bases[change.group as usize]));
            *count += 1;
        }
        if !sought.is_empty() {
            let mut ids = Vec::new();
            store.ids(&gather_all(keys.columns, &rows)?, &[], behind, &mut ids)?;
            sought.iter().zip(ids).for_each(|(at, id)| places[*at].1 = id);
        }
        Ok(places)
    }

    fn note(
        &self,
        store: &mut RowStore,
        noted: &[(KeyId, i64, i64)],
        now: i64,
    ) -> Result<(), AggregateError> {
        let copies: ArrayRef = Arc::new(noted.iter().map(|note| Some(note.1)).collect::<Int64Array>());
        let slots: ArrayRef = Arc::new(noted.iter().map(|note| Some(note.2)).collect::<Int64Array>());
        let notes: ArrayRef = Arc::new(StructArray::try_new(copy_note_fields(), vec![copies, slots], None)?);
        let written: Vec<(usize, KeyId)> = noted.iter().map(|note| note.0).enumerate().collect();
        store.store_notes(self.side, &written, &notes, now)
    }

    /// Moves the last rows of keys into places that have become free.
    fn close_holes(
        &mut self,
        store: &mut RowStore,
        keys: Keys<'_>,
        changes: &[Change],
        holes: BTreeMap<u32, Vec<(i64, KeyId)>>,
        counts: &mut [i64],
        now: i64,
    ) -> Result<(), AggregateError> {
        let row_of: BTreeMap<u32, u32> = changes.iter().map(|change| (change.group, change.row)).collect();
        let (mut rows, mut from, mut to) = (Vec::new(), Vec::new(), Vec::new());
        for (group, mut free) in holes {
            let count = counts[group as usize];
            let after = count - free.len() as i64;
            counts[group as usize] = after;
            free.sort_unstable();
            let is_free = |place: i64| free.binary_search_by_key(&place, |hole| hole.0).is_ok();
            let movers: Vec<i64> = (after..count).filter(|place| !is_free(*place)).collect();
            for (mover, hole) in movers.into_iter().zip(free.iter().filter(|hole| hole.0 < after)) {
                rows.push(row_of[&group]);
                from.push(mover);
                to.push(*hole);
            }
        }
        if rows.is_empty() {
            return Ok(());
        }
        let of_rows = gather_all(keys.columns, &rows)?;
        let (mut ids, mut slot_ids) = (Vec::new(), Vec::new());
        store.ids(&of_rows, &[], from, &mut ids)?;
        let moved = store.rows(self.side, &ids, now)?;
        let notes = store.notes(self.side, &ids, now)?;
        let slots = notes.as_struct().column(1).as_primitive::<Int64Type>();
        // What has grown too old is not moved: there is nothing.
        let there: Vec<usize> =
            (0..ids.len()).filter(|at| moved.is_valid(*at) && notes.is_valid(*at)).collect();
        let written: Vec<(usize, KeyId)> = there.iter().map(|at| (*at, to[*at].1)).collect();
        let length = moved.len();
        let columns = moved.columns().to_vec();
        let batch = Batch::of(Arc::clone(store.kept_schema(self.side)), length, columns)?;
        store.store_rows(self.side, &written, &batch, now)?;
        store.store_notes(self.side, &written, &notes, now)?;
        let rows: Vec<u32> = there.iter().map(|at| rows[*at]).collect();
        let places = there.iter().map(|at| slots.value(*at)).collect();
        store.ids(&gather_all(keys.columns, &rows)?, &[], places, &mut slot_ids)?;
        let values = store.slots(self.side, &slot_ids, now)?;
        let renamed: Vec<(KeyId, Option<i64>)> = there
            .iter()
            .zip(slot_ids.iter().zip(values.iter()))
            .map(|(at, (id, value))| (*id, Some(to[*at].0 << 1 | (value.unwrap_or(0) & 1))))
            .collect();
        store_slots(store, self.side, &renamed, now)?;
        store.remove(self.side, &ids, now)?;
        self.empty.extend(ids);
        Ok(())
    }
}

fn next_slot(slot: i64) -> i64 {
    if slot == i64::MIN { -1 } else { slot - 1 }
}

fn store_slots(
    store: &mut RowStore,
    side: usize,
    slots: &[(KeyId, Option<i64>)],
    now: i64,
) -> Result<(), AggregateError> {
    let written: Vec<(usize, KeyId)> = slots.iter().map(|slot| slot.0).enumerate().collect();
    store.store_slots(side, &written, slots.iter().map(|slot| slot.1).collect(), now)
}
