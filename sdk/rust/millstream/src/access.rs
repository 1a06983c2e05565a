//! Named states of the key at hand, as a process function uses them.

use std::collections::BTreeMap;

use crate::process::{Context, ProcessFunction, Side};
use crate::record::Record;
use crate::run::{BroadcastCell, ListCell, MapCell, ValueCell};
use crate::state::{
    AggregatingState, BroadcastState, ListState, MapKey, MapState, ReducingState, ValueState,
};

/// # Named states
///
/// Each method panics if the function does not declare the state, or declares it with other types.
impl<F: ProcessFunction<S>, S: Side> Context<'_, F, S> {
    /// A value.
    #[inline]
    pub fn value<T: Record>(&mut self, state: ValueState<T>) -> ValueAccess<'_, T> {
        let (cell, is_touched) = self.cells.of::<ValueCell<T>>(state.name);
        ValueAccess { cell, is_touched, group: self.group }
    }

    /// A value that others are folded into.
    #[inline]
    pub fn reducing<T: Record>(&mut self, state: ReducingState<T>) -> ReducingAccess<'_, T> {
        let combine = state.combine;
        ReducingAccess { value: self.value(ValueState::new(state.name)), combine }
    }

    /// An accumulator.
    #[inline]
    pub fn aggregating<I, A: Record, O>(
        &mut self,
        state: AggregatingState<I, A, O>,
    ) -> AggregatingAccess<'_, I, A, O> {
        AggregatingAccess { value: self.value(ValueState::new(state.name)), state }
    }

    /// A map.
    #[inline]
    pub fn map<K: MapKey, V: Record + Clone>(&mut self, state: MapState<K, V>) -> MapAccess<'_, K, V> {
        let (cell, is_touched) = self.cells.of::<MapCell<K, V>>(state.name);
        // A call has fewer groups than 2^32.
        MapAccess { cell, is_touched, group: self.group as u32 }
    }

    /// The entry of a map that the row names by its fields: of a map that is declared so
    /// ([`DeclaredMap::by`](crate::DeclaredMap::by)).
    #[inline]
    pub fn entry<K: MapKey, V: Record + Clone>(&mut self, state: MapState<K, V>) -> EntryAccess<'_, K, V> {
        let (cell, is_touched) = self.cells.of::<MapCell<K, V>>(state.name);
        EntryAccess { cell, is_touched, row: self.row }
    }

    /// A list.
    #[inline]
    pub fn list<T: Record + Clone>(&mut self, state: ListState<T>) -> ListAccess<'_, T> {
        let (cell, is_touched) = self.cells.of::<ListCell<T>>(state.name);
        // As in `map`.
        ListAccess { cell, is_touched, group: self.group as u32 }
    }

    /// The entries of a broadcast state; to be changed only by rows of the broadcast stream.
    #[inline]
    pub fn broadcast<K: MapKey, V: Record + Clone>(
        &mut self,
        state: BroadcastState<K, V>,
    ) -> &BTreeMap<K, V> {
        self.cells.of::<BroadcastCell<K, V>>(state.name).0.entries()
    }
}

/// A value of the key at hand.
pub struct ValueAccess<'c, T: Record> {
    cell: &'c mut ValueCell<T>,
    is_touched: &'c mut bool,
    group: usize,
}

impl<T: Record> ValueAccess<'_, T> {
    /// The value.
    pub fn get(&mut self) -> Option<&T> {
        self.cell.slot(self.group).value.as_ref()
    }

    /// The value, to be changed in place.
    pub fn get_mut(&mut self) -> Option<&mut T> {
        self.written().as_mut()
    }

    /// The value, to be changed in place; if there is none, its type's default.
    pub fn or_default(&mut self) -> &mut T
    where
        T: Default,
    {
        self.written().get_or_insert_default()
    }

    /// Sets the value.
    pub fn set(&mut self, value: T) {
        *self.written() = Some(value);
    }

    /// Takes the value out: there is none then.
    pub fn take(&mut self) -> Option<T> {
        self.written().take()
    }

    /// Removes the value.
    pub fn clear(&mut self) {
        *self.written() = None;
    }

    fn written(&mut self) -> &mut Option<T> {
        *self.is_touched = true;
        let slot = self.cell.slot(self.group);
        slot.is_written = true;
        &mut slot.value
    }
}

/// A value of the key at hand that others are folded into.
pub struct ReducingAccess<'c, T: Record> {
    value: ValueAccess<'c, T>,
    combine: fn(&mut T, T),
}

impl<T: Record> ReducingAccess<'_, T> {
    /// Folds a value into it; the first is it.
    pub fn add(&mut self, value: T) {
        let combine = self.combine;
        match self.value.written() {
            Some(so_far) => combine(so_far, value),
            none => *none = Some(value),
        }
    }

    /// The value.
    pub fn get(&mut self) -> Option<&T> {
        self.value.get()
    }

    /// Removes the value.
    pub fn clear(&mut self) {
        self.value.clear();
    }
}

/// An accumulator of the key at hand.
pub struct AggregatingAccess<'c, I, A: Record, O> {
    value: ValueAccess<'c, A>,
    state: AggregatingState<I, A, O>,
}

impl<I, A: Record, O> AggregatingAccess<'_, I, A, O> {
    /// Folds an input into the accumulator.
    pub fn add(&mut self, input: I)
    where
        A: Default,
    {
        (self.state.add)(self.value.or_default(), input);
    }

    /// The result so far; none where nothing was added.
    pub fn get(&mut self) -> Option<O> {
        self.value.get().map(self.state.result)
    }

    /// Removes the accumulator.
    pub fn clear(&mut self) {
        self.value.clear();
    }
}

/// A map of the key at hand. What it reads it asks the host for, entry by entry, once a call.
pub struct MapAccess<'c, K: Record, V: Record> {
    cell: &'c mut MapCell<K, V>,
    is_touched: &'c mut bool,
    group: u32,
}

impl<K: MapKey, V: Record + Clone> MapAccess<'_, K, V> {
    /// The entry of a key.
    pub fn get(&mut self, key: &K) -> Option<V> {
        self.cell.get(self.group, key)
    }

    /// Whether there is an entry of a key.
    pub fn contains(&mut self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// Writes the entry of a key.
    pub fn put(&mut self, key: K, value: V) {
        *self.is_touched = true;
        self.cell.set(self.group, key, Some(value));
    }

    /// Removes the entry of a key, if there is one.
    pub fn remove(&mut self, key: K) {
        *self.is_touched = true;
        self.cell.set(self.group, key, None);
    }

    /// Removes all entries.
    pub fn clear(&mut self) {
        *self.is_touched = true;
        self.cell.clear(self.group);
    }

    /// All entries, in the order of their keys.
    pub fn entries(&mut self) -> BTreeMap<K, V> {
        self.cell.entries(self.group)
    }
}

/// The entry that the row at hand names.
pub struct EntryAccess<'c, K: Record, V: Record> {
    cell: &'c mut MapCell<K, V>,
    is_touched: &'c mut bool,
    row: usize,
}

impl<K: MapKey, V: Record + Clone> EntryAccess<'_, K, V> {
    /// The entry.
    pub fn get(&mut self) -> Option<&V> {
        self.cell.entry(self.row).value.as_ref()
    }

    /// The entry, to be changed in place; if there is none, its type's default.
    pub fn or_default(&mut self) -> &mut V
    where
        V: Default,
    {
        self.written().get_or_insert_default()
    }

    /// Writes the entry.
    pub fn set(&mut self, value: V) {
        *self.written() = Some(value);
    }

    /// Removes the entry.
    pub fn remove(&mut self) {
        *self.written() = None;
    }

    fn written(&mut self) -> &mut Option<V> {
        *self.is_touched = true;
        let slot = self.cell.entry(self.row);
        slot.is_written = true;
        &mut slot.value
    }
}

/// A list of the key at hand.
pub struct ListAccess<'c, T: Record> {
    cell: &'c mut ListCell<T>,
    is_touched: &'c mut bool,
    group: u32,
}

impl<T: Record + Clone> ListAccess<'_, T> {
    /// All entries, in the order in which they were added.
    pub fn get(&self) -> Vec<T> {
        self.cell.get(self.group)
    }

    /// Adds an entry at the end.
    pub fn add(&mut self, value: T) {
        *self.is_touched = true;
        self.cell.add(self.group, value);
    }

    /// Removes all entries.
    pub fn clear(&mut self) {
        *self.is_touched = true;
        self.cell.clear(self.group);
    }
}
