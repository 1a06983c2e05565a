//! Two streams into one function.

use std::marker::PhantomData;
use std::panic::Location;

use millstream_sys::bindings::millstream::job::graph::{Function, NodeKind};
use millstream_sys::bindings::millstream::job::rows::Field;

use crate::emit::Emit;
use crate::error::Result;
use crate::keyed::{Dispatched, KeyedStream};
use crate::plan::NewNode;
use crate::process::{Context, KeyOf, NoSide, ProcessFunction, Side, Timer, Ttl};
use crate::record::{Record, Row, schema_of};
use crate::run::{TwoInputs, each_row, of_two};
use crate::state::States;
use crate::stream::{Added, Either, Fallible, Stream};
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
        let fallible = self.try_flat_map(
            move |row, out| {
                first(row, out);
                Ok(())
            },
            move |row, out| {
                second(row, out);
                Ok(())
            },
        );
        fallible.stream()
    }

    /// As [`flat_map`](Self::flat_map), with closures that may fail their row.
    #[track_caller]
    pub fn try_flat_map<O: Record>(
        self,
        first: impl for<'a> Fn(T::Ref<'a>, &mut Emit<O>) -> Result<()> + 'static,
        second: impl for<'a> Fn(U::Ref<'a>, &mut Emit<O>) -> Result<()> + 'static,
    ) -> Fallible<'j, Either<T, U>, O> {
        let stage = of_two(each_row::<T, Emit<O>>(first), each_row::<U, Emit<O>>(second));
        let job = self.first.job;
        let mut plan = job.plan.borrow_mut();
        let inputs = [self.first.id, self.second.id].map(|id| plan.streams[id].clone());
        let fields: Vec<_> = inputs.iter().map(|input| input.fields.clone()).collect();
        let function = Function {
            inputs: fields.clone(),
            states: Vec::new(),
            timers: false,
            changes: false,
            windows: None,
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
        Fallible::new(Added { job, node }.stream(), fields)
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
    pub fn process<F>(self, function: F) -> Fallible<'j, Either<T, U>, F::Out>
    where
        F: CoProcessFunction<First = T, Second = U>,
        F::Key: KeyOf<K>,
    {
        let fields = self.fields();
        Fallible::new(self.dispatched::<F, NoSide>(function, Vec::new()).stream(), fields)
    }

    /// As [`process`](Self::process), of a function with a side output of this name.
    #[track_caller]
    #[expect(clippy::type_complexity, reason = "the main stream and the side output")]
    pub fn process_with_side<F, S: Record>(
        self,
        function: F,
        side: &str,
    ) -> (Fallible<'j, Either<T, U>, F::Out>, Stream<'j, S>)
    where
        F: CoProcessFunction<S, First = T, Second = U>,
        F::Key: KeyOf<K>,
    {
        let fields = self.fields();
        let added = self.dispatched::<F, S>(function, vec![(side.into(), schema_of::<S>())]);
        (Fallible::new(added.stream(), fields), added.port(1))
    }

    /// The columns of each input.
    fn fields(&self) -> Vec<Vec<Field>> {
        vec![self.first.fields(), self.second.fields()]
    }

    #[track_caller]
    fn dispatched<F, S: Side>(self, function: F, sides: Vec<(String, Vec<Field>)>) -> Added<'j>
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
