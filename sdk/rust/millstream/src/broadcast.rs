//! A stream, and one whose rows reach all its subtasks.

use std::marker::PhantomData;
use std::panic::Location;

use millstream_sys::bindings::millstream::job::graph::{Function, NodeKind};

use crate::error::Result;
use crate::keyed::{Dispatched, KeyedStream};
use crate::plan::{NewNode, StreamEntry};
use crate::process::{Context, KeyOf, NoSide, ProcessFunction, Side, Timer, Ttl};
use crate::record::{Record, Row, schema_of};
use crate::run::{BroadcastCell, BroadcastInput, processed};
use crate::state::{BroadcastState, MapKey, States};
use crate::stream::{Added, Either, Fallible, Stream};
use crate::task::TaskInfo;

/// A function of a keyed stream and one that reaches all keys, in all subtasks: Flink's
/// `KeyedBroadcastProcessFunction`. Rows of the broadcast stream change broadcast states, which rows of
/// the keyed one read.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no process function of a broadcast stream",
    label = "not a `KeyedBroadcastProcessFunction`"
)]
pub trait KeyedBroadcastProcessFunction<S: Side = NoSide>: Sized + 'static {
    /// The rows of the keyed stream.
    type In: Record;
    /// The rows of the broadcast stream.
    type Broadcast: Record;
    /// The key.
    type Key: Record;
    /// What is kept for each key, by the host.
    type State: Record;
    /// The rows that leave.
    type Out: Record;

    /// Declares named states, the broadcast ones among them.
    fn states(&self, states: &mut States<Self::In>);

    /// Takes a row of the keyed stream.
    ///
    /// # Errors
    /// If the row cannot be taken.
    fn process(
        &self,
        row: <Self::In as Record>::Ref<'_>,
        context: &mut Context<'_, Broadcasting<Self>, S>,
    ) -> Result<()>;

    /// Takes a row of the broadcast stream. Every subtask does: it must do the same in each.
    ///
    /// # Errors
    /// If the row cannot be taken.
    fn process_broadcast(
        &self,
        row: <Self::Broadcast as Record>::Ref<'_>,
        context: &mut BroadcastContext<'_, '_, Self, S>,
    ) -> Result<()>;

    /// Takes a timer that is due.
    ///
    /// # Errors
    /// As for a row.
    fn on_timer(&self, timer: Timer, context: &mut Context<'_, Broadcasting<Self>, S>) -> Result<()> {
        let _ = (timer, context);
        Ok(())
    }

    /// Begins an instance, before its first row.
    ///
    /// # Errors
    /// If it cannot begin: the job fails.
    fn open(&mut self, task: &TaskInfo) -> Result<()> {
        let _ = task;
        Ok(())
    }

    /// How long `State` lives; without it, until it is cleared.
    fn state_ttl(&self) -> Option<Ttl> {
        None
    }

    /// Whether its rows have a key.
    #[doc(hidden)]
    const IS_KEYED: bool = true;
}

/// A [`KeyedBroadcastProcessFunction`] as a [`ProcessFunction`] of its keyed input.
#[doc(hidden)]
pub struct Broadcasting<F>(pub(crate) F);

impl<F: KeyedBroadcastProcessFunction<S>, S: Side> ProcessFunction<S> for Broadcasting<F> {
    type In = F::In;
    type Key = F::Key;
    type State = F::State;
    type Out = F::Out;
    const IS_KEYED: bool = F::IS_KEYED;

    fn process(&self, row: <F::In as Record>::Ref<'_>, context: &mut Context<'_, Self, S>) -> Result<()> {
        self.0.process(row, context)
    }

    fn on_timer(&self, timer: Timer, context: &mut Context<'_, Self, S>) -> Result<()> {
        self.0.on_timer(timer, context)
    }

    fn states(&self, states: &mut States<F::In>) {
        self.0.states(states);
    }

    fn open(&mut self, task: &TaskInfo) -> Result<()> {
        self.0.open(task)
    }

    fn state_ttl(&self) -> Option<Ttl> {
        self.0.state_ttl()
    }
}

/// A function of a stream without a key, and of one whose rows reach all subtasks: Flink's
/// `BroadcastProcessFunction`.
///
/// It has broadcast states alone, and no timers: for others the stream needs a key.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no process function of a stream without a key and a broadcast one",
    label = "not a `BroadcastProcessFunction`"
)]
pub trait BroadcastProcessFunction: Sized + 'static {
    /// The rows of the stream.
    type In: Record;
    /// The rows of the broadcast stream.
    type Broadcast: Record;
    /// The rows that leave.
    type Out: Record;

    /// Declares the broadcast states.
    fn states(&self, states: &mut BroadcastStates);

    /// Takes a row of the stream.
    ///
    /// # Errors
    /// If the row cannot be taken.
    fn process(
        &self,
        row: <Self::In as Record>::Ref<'_>,
        context: &mut ReadOnlyContext<'_, '_, Self>,
    ) -> Result<()>;

    /// Takes a row of the broadcast stream. Every subtask does: it must do the same in each.
    ///
    /// # Errors
    /// If the row cannot be taken.
    fn process_broadcast(
        &self,
        row: <Self::Broadcast as Record>::Ref<'_>,
        context: &mut BroadcastContext<'_, '_, Unkeyed<Self>>,
    ) -> Result<()>;

    /// Begins an instance, before its first row.
    ///
    /// # Errors
    /// If it cannot begin: the job fails.
    fn open(&mut self, task: &TaskInfo) -> Result<()> {
        let _ = task;
        Ok(())
    }
}

/// A [`BroadcastProcessFunction`] as a [`KeyedBroadcastProcessFunction`] of rows that have no key.
#[doc(hidden)]
pub struct Unkeyed<F>(F);

impl<F: BroadcastProcessFunction> KeyedBroadcastProcessFunction for Unkeyed<F> {
    type In = F::In;
    type Broadcast = F::Broadcast;
    // No row has a key or state: nothing is read by these.
    type Key = bool;
    type State = bool;
    type Out = F::Out;
    const IS_KEYED: bool = false;

    fn states(&self, states: &mut States<F::In>) {
        let mut broadcast = BroadcastStates(States::unkeyed());
        self.0.states(&mut broadcast);
        states.declared = broadcast.0.declared;
    }

    fn process(
        &self,
        row: <F::In as Record>::Ref<'_>,
        context: &mut Context<'_, Broadcasting<Self>>,
    ) -> Result<()> {
        self.0.process(row, &mut ReadOnlyContext(context))
    }

    fn process_broadcast(
        &self,
        row: <F::Broadcast as Record>::Ref<'_>,
        context: &mut BroadcastContext<'_, '_, Self>,
    ) -> Result<()> {
        self.0.process_broadcast(row, context)
    }

    fn open(&mut self, task: &TaskInfo) -> Result<()> {
        self.0.open(task)
    }
}

/// The broadcast states that a [`BroadcastProcessFunction`] declares.
pub struct BroadcastStates(States<()>);

impl BroadcastStates {
    /// Declares a broadcast state.
    pub fn broadcast<K: MapKey, V: Record + Clone>(&mut self, state: BroadcastState<K, V>) {
        self.0.broadcast(state);
    }
}

/// What every row can ask of its context.
macro_rules! times {
    () => {
        /// The event time of the row; none where there is none.
        pub fn timestamp(&self) -> Option<i64> {
            self.0.timestamp()
        }

        /// The watermark, as for any row.
        pub fn watermark(&self) -> Option<i64> {
            self.0.watermark()
        }

        /// The machine's time; it stands still during a call.
        pub fn processing_time(&self) -> i64 {
            self.0.processing_time()
        }
    };
}

/// What a row without a key can do beside being looked at: read broadcast states, and emit.
pub struct ReadOnlyContext<'s, 'c, F: BroadcastProcessFunction>(
    &'s mut Context<'c, Broadcasting<Unkeyed<F>>>,
);

impl<F: BroadcastProcessFunction> ReadOnlyContext<'_, '_, F> {
    /// The entries of a broadcast state.
    ///
    /// # Panics
    /// If the function does not declare it, or with other types.
    pub fn broadcast<K: MapKey, V: Record + Clone>(
        &mut self,
        state: BroadcastState<K, V>,
    ) -> &std::collections::BTreeMap<K, V> {
        self.0.broadcast(state)
    }

    times!();

    /// Emits a row. It has the event time of the row that it is made of.
    pub fn emit(&mut self, row: impl Row<F::Out>) {
        self.0.emit(row);
    }
}

/// A stream without a key, and one that reaches all its subtasks: [`Stream::connect_broadcast`].
pub struct ConnectedSpread<'j, T, U> {
    stream: Stream<'j, T>,
    broadcast: Stream<'j, U>,
}

impl<'j, T: Record, U: Record> ConnectedSpread<'j, T, U> {
    pub(crate) fn new(stream: Stream<'j, T>, broadcast: Stream<'j, U>) -> Self {
        ConnectedSpread { stream, broadcast }
    }

    /// Calls a function for each row of both streams.
    #[track_caller]
    pub fn process<F>(self, function: F) -> Fallible<'j, Either<T, U>, F::Out>
    where
        F: BroadcastProcessFunction<In = T, Broadcast = U>,
    {
        let function = Broadcasting(Unkeyed(function));
        let mut states = States::default();
        function.states(&mut states);
        let broadcast = self.broadcast.broadcast();
        let job = self.stream.job;
        let inputs = [self.stream.id, broadcast.id].map(|id| job.plan.borrow().streams[id].clone());
        let fields: Vec<_> = inputs.iter().map(|input| input.fields.clone()).collect();
        let kind = NodeKind::Function(Function {
            inputs: fields.clone(),
            states: states.declared.iter().map(|declared| declared.state.clone()).collect(),
            timers: false,
            changes: false,
            windows: None,
        });
        let new = NewNode {
            name: crate::keyed::short_name::<F>(),
            uid: None,
            kind,
            outputs: vec![("main".into(), schema_of::<F::Out>())],
            stage: Some(processed::<_, NoSide, BroadcastInput>(function, states.declared)),
        };
        let node = job.plan.borrow_mut().add(new, &inputs, Location::caller());
        Fallible::new(Added { job, node }.stream(), fields)
    }
}

/// What a row of a broadcast stream can do: it has no key, so it changes broadcast states, and emits.
pub struct BroadcastContext<'s, 'c, F: KeyedBroadcastProcessFunction<S>, S: Side = NoSide>(
    pub(crate) &'s mut Context<'c, Broadcasting<F>, S>,
);

impl<F: KeyedBroadcastProcessFunction<S>, S: Side> BroadcastContext<'_, '_, F, S> {
    /// A broadcast state, to be changed.
    ///
    /// # Panics
    /// If the function does not declare it, or with other types.
    pub fn broadcast<K: MapKey, V: Record + Clone>(
        &mut self,
        state: BroadcastState<K, V>,
    ) -> BroadcastAccess<'_, K, V> {
        let (cell, is_touched) = self.0.cells.of::<BroadcastCell<K, V>>(state.name);
        BroadcastAccess { cell, is_touched }
    }

    times!();

    /// Emits a row. Every subtask does.
    pub fn emit(&mut self, row: impl Row<F::Out>) {
        self.0.emit(row);
    }
}

/// A broadcast state, to be changed.
pub struct BroadcastAccess<'c, K: Record, V: Record> {
    cell: &'c mut BroadcastCell<K, V>,
    is_touched: &'c mut bool,
}

impl<K: MapKey, V: Record + Clone> BroadcastAccess<'_, K, V> {
    /// All entries.
    pub fn entries(&mut self) -> &std::collections::BTreeMap<K, V> {
        self.cell.entries()
    }

    /// The entry of a key.
    pub fn get(&mut self, key: &K) -> Option<&V> {
        self.cell.entries().get(key)
    }

    /// Writes the entry of a key.
    pub fn put(&mut self, key: K, value: V) {
        *self.is_touched = true;
        self.cell.set(key, Some(value));
    }

    /// Removes the entry of a key, if there is one.
    pub fn remove(&mut self, key: K) {
        *self.is_touched = true;
        self.cell.set(key, None);
    }

    /// Removes all entries.
    pub fn clear(&mut self) {
        *self.is_touched = true;
        self.cell.clear();
    }
}

/// A keyed stream and one that reaches all keys: [`KeyedStream::connect_broadcast`].
pub struct ConnectedBroadcast<'j, T, U, K> {
    keyed: KeyedStream<'j, T, K>,
    broadcast: Stream<'j, U>,
}

impl<'j, T: Record, U: Record, K> ConnectedBroadcast<'j, T, U, K> {
    pub(crate) fn new(keyed: KeyedStream<'j, T, K>, broadcast: Stream<'j, U>) -> Self {
        ConnectedBroadcast { keyed, broadcast }
    }

    /// Calls a function for each row of both streams.
    #[track_caller]
    pub fn process<F>(self, function: F) -> Fallible<'j, Either<T, U>, F::Out>
    where
        F: KeyedBroadcastProcessFunction<In = T, Broadcast = U>,
        F::Key: KeyOf<K>,
    {
        let mut states = States::default();
        function.states(&mut states);
        let broadcast = self.broadcast.broadcast();
        let second: StreamEntry = broadcast.job.plan.borrow().streams[broadcast.id].clone();
        let dispatched = Dispatched {
            function: Broadcasting(function),
            declared: states.declared,
            second: Some(second),
            sides: Vec::new(),
            name: crate::keyed::short_name::<F>(),
            inputs: PhantomData,
        };
        let fields = vec![self.keyed.fields(), self.broadcast.fields()];
        let added = self.keyed.dispatched::<Broadcasting<F>, NoSide, BroadcastInput>(dispatched);
        Fallible::new(added.stream(), fields)
    }
}
