//! Named states of a process function, beside its `type State`.

use std::marker::PhantomData;

use millstream_sys::bindings::millstream::job::graph::{self, Riding, StateKind};
use millstream_sys::bindings::millstream::job::rows::Field;

use crate::field::KeyFields;
use crate::process::{KeyOf, NoSide, Side, Ttl};
use crate::record::{Record, schema_of};
use crate::run::{BroadcastCell, Cell, ListCell, MapCell, ValueCell};

macro_rules! handle {
    ($(#[doc = $doc:literal])+ $name:ident<$($type:ident),*>) => {
        $(#[doc = $doc])+
        pub struct $name<$($type),*> {
            pub(crate) name: &'static str,
            types: PhantomData<fn() -> ($($type,)*)>,
        }

        impl<$($type),*> Clone for $name<$($type),*> {
            fn clone(&self) -> Self {
                *self
            }
        }

        impl<$($type),*> Copy for $name<$($type),*> {}

        impl<$($type),*> $name<$($type),*> {
            /// A name for the state; it says nothing until a function declares it.
            pub const fn new(name: &'static str) -> Self {
                Self { name, types: PhantomData }
            }
        }
    };
}

handle! {
    /// Names a state of one value a key: Flink's `ValueState`.
    ValueState<T>
}
handle! {
    /// Names a state of entries by an own key, for each key of the stream: Flink's `MapState`.
    MapState<K, V>
}
handle! {
    /// Names a state of entries in the order in which they were added, for each key of the stream:
    /// Flink's `ListState`.
    ListState<T>
}
handle! {
    /// Names a state of entries by an own key that all keys, in all subtasks, share: Flink's broadcast
    /// state.
    BroadcastState<K, V>
}

/// Names a state that folds what is added to it into one value a key: Flink's `ReducingState`.
pub struct ReducingState<T> {
    pub(crate) name: &'static str,
    pub(crate) combine: fn(&mut T, T),
}

impl<T> Clone for ReducingState<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for ReducingState<T> {}

impl<T> ReducingState<T> {
    /// A name for the state, and how a value is folded into the one so far.
    pub const fn new(name: &'static str, combine: fn(&mut T, T)) -> Self {
        Self { name, combine }
    }
}

/// Names a state that folds what is added to it, `I`, into an accumulator a key, `A`, of which it gives
/// a result, `O`: Flink's `AggregatingState`.
pub struct AggregatingState<I, A, O> {
    pub(crate) name: &'static str,
    pub(crate) add: fn(&mut A, I),
    pub(crate) result: fn(&A) -> O,
}

impl<I, A, O> Clone for AggregatingState<I, A, O> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<I, A, O> Copy for AggregatingState<I, A, O> {}

impl<I, A: Default, O> AggregatingState<I, A, O> {
    /// A name for the state, how an input is folded into the accumulator, which begins as its type's
    /// default, and what it gives.
    pub const fn new(name: &'static str, add: fn(&mut A, I), result: fn(&A) -> O) -> Self {
        Self { name, add, result }
    }
}

/// A key of a [`MapState`] or [`BroadcastState`]: a record that has an order.
pub trait MapKey: Record + Ord + Clone {}

impl<K: Record + Ord + Clone> MapKey for K {}

/// The states that a function declares: what [`ProcessFunction::states`](crate::ProcessFunction::states)
/// fills. `T` is the type of the rows of its input, `U` of its second one.
pub struct States<T, U: Side = NoSide> {
    pub(crate) declared: Vec<Declared>,
    /// the place of the first: after `type State`, where there is one
    first: u32,
    types: PhantomData<fn() -> (T, U)>,
}

pub(crate) struct Declared {
    pub(crate) state: graph::State,
    pub(crate) cell: Box<dyn Cell>,
}

impl<T, U: Side> Default for States<T, U> {
    fn default() -> Self {
        States { declared: Vec::new(), first: 1, types: PhantomData }
    }
}

impl<T, U: Side> States<T, U> {
    /// Of a function without `type State`.
    pub(crate) fn unkeyed() -> Self {
        States { first: 0, ..States::default() }
    }
}

/// A state that has just been declared.
pub struct DeclaredState<'s> {
    state: &'s mut graph::State,
}

impl DeclaredState<'_> {
    /// Says how long an entry lives; without it, until it is removed.
    pub fn ttl(self, ttl: Ttl) -> Self {
        self.state.ttl = Some(ttl.contract());
        self
    }
}

/// A map that has just been declared.
pub struct DeclaredMap<'s, K, T, U> {
    state: &'s mut graph::State,
    key: PhantomData<fn() -> K>,
    inputs: PhantomData<fn() -> (T, U)>,
}

impl<K: Record, T, U: Side> DeclaredMap<'_, K, T, U> {
    /// Says how long an entry lives; without it, until it is removed.
    pub fn ttl(self, ttl: Ttl) -> Self {
        self.state.ttl = Some(ttl.contract());
        self
    }

    /// Says that a row names its entry by these fields. The entry then comes with the row, which is much
    /// faster than looking it up: [`Context::entry`](crate::Context::entry).
    pub fn by<F: KeyFields<T>>(self, fields: F) -> Self
    where
        K: KeyOf<F::Keys>,
    {
        self.riding(0, fields.columns())
    }

    /// As [`by`](Self::by), for rows of the second input.
    pub fn by_second<F: KeyFields<U::Rows>>(self, fields: F) -> Self
    where
        K: KeyOf<F::Keys>,
    {
        self.riding(1, fields.columns())
    }

    fn riding(self, input: u32, columns: Vec<u32>) -> Self {
        if let StateKind::Dictionary(riding) = &mut self.state.kind {
            riding.push(Riding { input, columns });
        }
        self
    }
}

impl<T, U: Side> States<T, U> {
    /// Declares a value.
    pub fn value<V: Record>(&mut self, state: ValueState<V>) -> DeclaredState<'_> {
        self.of_value::<V>(state.name)
    }

    /// Declares a value that others are folded into.
    pub fn reducing<V: Record>(&mut self, state: ReducingState<V>) -> DeclaredState<'_> {
        self.of_value::<V>(state.name)
    }

    /// Declares an accumulator.
    pub fn aggregating<I, A: Record, O>(&mut self, state: AggregatingState<I, A, O>) -> DeclaredState<'_> {
        self.of_value::<A>(state.name)
    }

    /// Declares a map.
    pub fn map<K: MapKey, V: Record + Clone>(&mut self, state: MapState<K, V>) -> DeclaredMap<'_, K, T, U> {
        let place = self.place();
        let cell = Box::new(MapCell::<K, V>::new(state.name, place));
        let state =
            self.declare(state.name, StateKind::Dictionary(Vec::new()), key_of::<K>(), value_of::<V>(), cell);
        DeclaredMap { state, key: PhantomData, inputs: PhantomData }
    }

    /// Declares a list.
    pub fn list<V: Record + Clone>(&mut self, state: ListState<V>) -> DeclaredState<'_> {
        let place = self.place();
        let cell = Box::new(ListCell::<V>::new(state.name, place));
        let state = self.declare(state.name, StateKind::Sequence, Vec::new(), value_of::<V>(), cell);
        DeclaredState { state }
    }

    /// Declares a broadcast state.
    pub fn broadcast<K: MapKey, V: Record + Clone>(&mut self, state: BroadcastState<K, V>) {
        let place = self.place();
        let cell = Box::new(BroadcastCell::<K, V>::new(state.name, place));
        self.declare(state.name, StateKind::Broadcast, key_of::<K>(), value_of::<V>(), cell);
    }

    fn of_value<V: Record>(&mut self, name: &'static str) -> DeclaredState<'_> {
        let place = self.place();
        let cell = Box::new(ValueCell::<V>::new(name, place));
        DeclaredState { state: self.declare(name, StateKind::Value, Vec::new(), value_of::<V>(), cell) }
    }

    /// The place of the next state in the function.
    fn place(&self) -> u32 {
        // A function has far fewer states than 2^32.
        self.declared.len() as u32 + self.first
    }

    fn declare(
        &mut self,
        name: &str,
        kind: StateKind,
        key: Vec<Field>,
        value: Vec<Field>,
        cell: Box<dyn Cell>,
    ) -> &mut graph::State {
        let state = graph::State { name: name.into(), kind, key, value, ttl: None };
        self.declared.push(Declared { state, cell });
        let last = self.declared.len() - 1;
        &mut self.declared[last].state
    }
}

fn key_of<K: Record>() -> Vec<Field> {
    let mut fields = schema_of::<K>();
    if !K::IS_STRUCT {
        fields[0].name = "key".into();
    }
    fields
}

pub(crate) fn value_of<V: Record>() -> Vec<Field> {
    let mut fields = Vec::new();
    Option::<V>::describe("value", true, &mut fields);
    fields
}
