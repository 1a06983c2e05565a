//! Two streams into one function.

use std::marker::PhantomData;
use std::panic::Location;

use millstream_sys::bindings::millstream::job::graph::{Function, NodeKind};

use crate::emit::Emit;
use crate::error::Result;
use crate::keyed::{Dispatched, KeyedStream};
use crate::plan::{NewNode, StreamEntry};
use crate::process::{Context, KeyOf, NoSide, ProcessFunction, Side, Timer, Ttl};
use crate::record::{Record, Row, schema_of};
use crate::run::{BroadcastCell, BroadcastInput, TwoInputs, each_row, of_two};
use crate::state::{BroadcastState, MapKey, States};
use crate::stream::{Added, Stream};
use crate::task::TaskInfo;

/// A function of two keyed streams, whose keys share state and timers: Flink's
/// `KeyedCoProcessFunction`. As [`ProcessFunction`], but for its two kinds of rows.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no process function of two streams",
    label = "not a `CoProcessFunction`"
)]
pub trait CoProcessFunction<S: Side = NoSide>: Sized + 'static {
    /// The rows of the first stream.
    type First: Record;
    /// The rows of the second stream.
    type Second: Record;
    /// The key, of both.
    type Key: Record;
    /// What is kept for each key, by the host.
    type State: Record;
    /// The rows that leave.
    type Out: Record;

    /// Takes a row of the first stream.
    ///
    /// # Errors
    /// If the row cannot be taken.
    fn process_first(
        &self,
        row: <Self::First as Record>::Ref<'_>,
        context: &mut CoContext<'_, Self, S>,
    ) -> Result<()>;

    /// Takes a row of the second stream.
    ///
    /// # Errors
    /// If the row cannot be taken.
    fn process_second(
        &self,
        row: <Self::Second as Record>::Ref<'_>,
        context: &mut CoContext<'_, Self, S>,
    ) -> Result<()>;

    /// Takes a timer that is due.
    ///
    /// # Errors
    /// As for a row.
    fn on_timer(&self, timer: Timer, context: &mut CoContext<'_, Self, S>) -> Result<()> {
        let _ = (timer, context);
        Ok(())
    }

    /// Declares named states.
    fn states(&self, states: &mut States<Self::First, Self::Second>) {
        let _ = states;
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
}

/// The context of a [`CoProcessFunction`].
pub type CoContext<'c, F, S = NoSide> = Context<'c, Co<F>, S>;

/// A [`CoProcessFunction`] as a [`ProcessFunction`] of its first input.
#[doc(hidden)]
pub struct Co<F>(pub(crate) F);

impl<F: CoProcessFunction<S>, S: Side> ProcessFunction<S> for Co<F> {
    type In = F::First;
    type Key = F::Key;
    type State = F::State;
    type Out = F::Out;

    fn process(&self, row: <F::First as Record>::Ref<'_>, context: &mut Context<'_, Self, S>) -> Result<()> {
        self.0.process_first(row, context)
    }

    fn on_timer(&self, timer: Timer, context: &mut Context<'_, Self, S>) -> Result<()> {
        self.0.on_timer(timer, context)
    }

    fn open(&mut self, task: &TaskInfo) -> Result<()> {
        self.0.open(task)
    }

    fn state_ttl(&self) -> Option<Ttl> {
        self.0.state_ttl()
    }
}

/// A function of a keyed stream and one that reaches all keys, in all subtasks: Flink's
/// `KeyedBroadcastProcessFunction`. Rows of the broadcast stream change broadcast states, which rows of
/// the keyed one read.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no process function of a broadcast stream",
    label = "not a `BroadcastProcessFunction`"
)]
pub trait BroadcastProcessFunction<S: Side = NoSide>: Sized + 'static {
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
}

/// A [`BroadcastProcessFunction`] as a [`ProcessFunction`] of its keyed input.
#[doc(hidden)]
pub struct Broadcasting<F>(pub(crate) F);

impl<F: BroadcastProcessFunction<S>, S: Side> ProcessFunction<S> for Broadcasting<F> {
    type In = F::In;
    type Key = F::Key;
    type State = F::State;
    type Out = F::Out;

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

/// What a row of a broadcast stream can do: it has no key, so it changes broadcast states, and emits.
pub struct BroadcastContext<'s, 'c, F: BroadcastProcessFunction<S>, S: Side = NoSide>(
    pub(crate) &'s mut Context<'c, Broadcasting<F>, S>,
);

impl<F: BroadcastProcessFunction<S>, S: Side> BroadcastContext<'_, '_, F, S> {
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

/// Two streams that one function takes: [`Stream::connect`].
pub struct Connected<'j, T, U> {
    first: Stream<'j, T>,
    second: Stream<'j, U>,
}

impl<'j, T: Record, U: Record> Connected<'j, T, U> {
    pub(crate) fn new(first: Stream<'j, T>, second: Stream<'j, U>) -> Self {
        Connected { first, second }
    }

    /// Makes one row of each, by a closure for each stream.
    #[track_caller]
    pub fn map<R: Row<O> + 'static, Q: Row<O> + 'static, O: Record>(
        self,
        first: impl for<'a> Fn(T::Ref<'a>) -> R + 'static,
        second: impl for<'a> Fn(U::Ref<'a>) -> Q + 'static,
    ) -> Stream<'j, O> {
        self.flat_map(move |row, out| out.emit(first(row)), move |row, out| out.emit(second(row)))
    }

    /// Makes any number of rows of each, by a closure for each stream.
    #[track_caller]
    pub fn flat_map<O: Record>(
        self,
        first: impl for<'a> Fn(T::Ref<'a>, &mut Emit<O>) + 'static,
        second: impl for<'a> Fn(U::Ref<'a>, &mut Emit<O>) + 'static,
    ) -> Stream<'j, O> {
        self.try_flat_map(
            move |row, out| {
                first(row, out);
                Ok(())
            },
            move |row, out| {
                second(row, out);
                Ok(())
            },
        )
    }

    /// As [`flat_map`](Self::flat_map), with closures that may fail their row.
    #[track_caller]
    pub fn try_flat_map<O: Record>(
        self,
        first: impl for<'a> Fn(T::Ref<'a>, &mut Emit<O>) -> Result<()> + 'static,
        second: impl for<'a> Fn(U::Ref<'a>, &mut Emit<O>) -> Result<()> + 'static,
    ) -> Stream<'j, O> {
        let stage = of_two(each_row::<T, Emit<O>>(first), each_row::<U, Emit<O>>(second));
        let job = self.first.job;
        let mut plan = job.plan.borrow_mut();
        let inputs = [self.first.id, self.second.id].map(|id| plan.streams[id].clone());
        let function = Function {
            inputs: inputs.iter().map(|input| input.fields.clone()).collect(),
            states: Vec::new(),
            timers: false,
        };
        let new = NewNode {
            name: "Co-Flat Map".into(),
            uid: None,
            kind: NodeKind::Function(function),
            outputs: vec![("main".into(), schema_of::<O>())],
            stage: Some(stage),
        };
        let node = plan.add(new, &inputs, Location::caller());
        drop(plan);
        Added { job, node }.stream()
    }
}

/// Two streams by one key that a function takes: [`KeyedStream::connect`].
pub struct ConnectedKeyed<'j, T, U, K> {
    first: KeyedStream<'j, T, K>,
    second: KeyedStream<'j, U, K>,
}

impl<'j, T: Record, U: Record, K> ConnectedKeyed<'j, T, U, K> {
    pub(crate) fn new(first: KeyedStream<'j, T, K>, second: KeyedStream<'j, U, K>) -> Self {
        ConnectedKeyed { first, second }
    }

    /// Calls a function for each row of both streams, with the state and the timers of its key.
    #[track_caller]
    pub fn process<F>(self, function: F) -> Stream<'j, F::Out>
    where
        F: CoProcessFunction<First = T, Second = U>,
        F::Key: KeyOf<K>,
    {
        self.dispatched::<F, NoSide>(function, Vec::new()).stream()
    }

    /// As [`process`](Self::process), of a function with a side output of this name.
    #[track_caller]
    pub fn process_with_side<F, S: Record>(
        self,
        function: F,
        side: &str,
    ) -> (Stream<'j, F::Out>, Stream<'j, S>)
    where
        F: CoProcessFunction<S, First = T, Second = U>,
        F::Key: KeyOf<K>,
    {
        let added = self.dispatched::<F, S>(function, vec![(side.into(), schema_of::<S>())]);
        (added.stream(), added.port(1))
    }

    #[track_caller]
    fn dispatched<F, S: Side>(
        self,
        function: F,
        sides: Vec<(String, Vec<millstream_sys::bindings::millstream::job::rows::Field>)>,
    ) -> Added<'j>
    where
        F: CoProcessFunction<S, First = T, Second = U>,
    {
        let mut states = States::default();
        function.states(&mut states);
        let second = self.second.keyed_entry();
        self.first.dispatched::<Co<F>, S, TwoInputs>(Dispatched {
            function: Co(function),
            declared: states.declared,
            second: Some(second),
            sides,
            name: crate::keyed::short_name::<F>(),
            inputs: PhantomData,
        })
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
    pub fn process<F>(self, function: F) -> Stream<'j, F::Out>
    where
        F: BroadcastProcessFunction<In = T, Broadcast = U>,
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
        self.keyed.dispatched::<Broadcasting<F>, NoSide, BroadcastInput>(dispatched).stream()
    }
}
