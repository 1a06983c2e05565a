//! Streams by key: aggregates in the host, `reduce` and process functions in the guest.

use std::marker::PhantomData;
use std::panic::Location;

use millstream_sys::bindings::millstream::job::graph::{
    Aggregate, Function, NodeKind, Partition, State, StateKind,
};
use millstream_sys::bindings::millstream::job::rows::Field;

use crate::aggregate::{self, Aggregates, avg, count, max, min, sum};
use crate::aggregate_function::{AggregateFunction, Running};
use crate::broadcast::ConnectedBroadcast;
use crate::connected::ConnectedKeyed;
use crate::error::Result;
use crate::field::{FieldOf, Join, Number, Ordered};
use crate::job::Job;
use crate::joins::KeyedJoin;
use crate::plan::{NewNode, StreamEntry};
use crate::process::{KeyOf, NoSide, ProcessFunction, Side, Ttl};
use crate::record::{Record, Timestamp, schema_of, top_level};
use crate::run::{Inputs, OneInput, Stage, processed, reduced};
use crate::state::{Declared, States};
use crate::stream::{Added, Fallible, Stream, into_record};
use crate::windows::{CoGroup, CountWindows, SlidingCountWindows, Windowed, Windows};

/// A stream whose rows are grouped by the key `K`, a tuple.
pub struct KeyedStream<'j, T, K> {
    stream: Stream<'j, T>,
    keys: Vec<u32>,
    wants_changes: bool,
    types: PhantomData<fn() -> K>,
}

/// The columns of a record that aggregates are given as.
pub(crate) struct Aggregation(fn(&Job, Vec<Field>, &str, &Location<'_>) -> Vec<Field>);

impl Aggregation {
    pub(crate) fn columns_of<O: Record>() -> Aggregation {
        Aggregation(into_record::<O>)
    }

    fn named(&self, job: &Job, fields: Vec<Field>, what: &str, location: &Location<'_>) -> Vec<Field> {
        (self.0)(job, fields, what, location)
    }
}

/// The rows of an aggregate `A` by the key `K`: `(key…, aggregate…)`.
type Aggregated<'j, K, A> = Stream<'j, <K as Join<A>>::Output>;

/// # Aggregates
///
/// They run in the host. Each row gives one: the key and the aggregate of all rows of the key so
/// far; with `--execution batch` there is one row a key, at the end. Columns are named after the
/// fields.
impl<'j, T: Record, K> KeyedStream<'j, T, K> {
    /// The sum of a field.
    #[track_caller]
    pub fn sum<F: FieldOf<T>>(self, field: F) -> Aggregated<'j, K, (<F::Value as Number>::Sum,)>
    where
        F::Value: Number,
        K: Join<(<F::Value as Number>::Sum,)>,
    {
        self.aggregate((sum(field),))
    }

    /// The number of rows, in a column `count`.
    #[track_caller]
    pub fn count(self) -> Aggregated<'j, K, (i64,)>
    where
        K: Join<(i64,)>,
    {
        self.aggregate((count(),))
    }

    /// The least value of a field.
    #[track_caller]
    pub fn min<F: FieldOf<T>>(self, field: F) -> Aggregated<'j, K, (F::Value,)>
    where
        F::Value: Ordered,
        K: Join<(F::Value,)>,
    {
        self.aggregate((min(field),))
    }

    /// The greatest value of a field.
    #[track_caller]
    pub fn max<F: FieldOf<T>>(self, field: F) -> Aggregated<'j, K, (F::Value,)>
    where
        F::Value: Ordered,
        K: Join<(F::Value,)>,
    {
        self.aggregate((max(field),))
    }

    /// The average of a field.
    #[track_caller]
    pub fn avg<F: FieldOf<T>>(self, field: F) -> Aggregated<'j, K, (<F::Value as Number>::Average,)>
    where
        F::Value: Number,
        K: Join<(<F::Value as Number>::Average,)>,
    {
        self.aggregate((avg(field),))
    }

    /// Up to eight aggregates at once: `(sum(F1), avg(F2), count())`.
    #[track_caller]
    pub fn aggregate<A: Aggregates<T>>(self, aggregates: A) -> Aggregated<'j, K, A::Outputs>
    where
        K: Join<A::Outputs>,
    {
        self.running(&aggregates, None).stream()
    }

    /// Up to sixteen aggregates, as a record of your own: of the key's columns and the aggregates.
    #[track_caller]
    pub fn aggregate_into<O: Record>(self, aggregates: impl Aggregates<T>) -> Stream<'j, O> {
        self.running(&aggregates, Some(Aggregation::columns_of::<O>())).stream()
    }

    #[track_caller]
    fn running(self, aggregates: &impl Aggregates<T>, into: Option<Aggregation>) -> Added<'j> {
        let names = ("aggregate", "Keyed Aggregation");
        self.aggregated(aggregates, into, names, &[], &[], NodeKind::Aggregate)
    }

    /// Adds the node of aggregates, whose kind is made of them; `between` are columns of timestamps
    /// between the key and the aggregates, `sides` ports that take rows of the input.
    #[track_caller]
    pub(crate) fn aggregated(
        self,
        aggregates: &impl Aggregates<T>,
        into: Option<Aggregation>,
        (kind, name): (&str, &str),
        between: &[&str],
        sides: &[String],
        kind_of: impl FnOnce(Vec<Aggregate>) -> NodeKind,
    ) -> Added<'j> {
        let contract = aggregates.contract();
        let input = self.stream.fields();
        let mut fields: Vec<Field> = self.keys.iter().map(|key| input[*key as usize].clone()).collect();
        between.iter().for_each(|name| Timestamp::describe(name, false, &mut fields));
        fields.extend(aggregates.fields());
        let names = aggregate::names(&input, &self.keys, between, &contract);
        for (place, name) in top_level(&fields).into_iter().zip(names) {
            fields[place].name = name;
        }
        if let Some(into) = into {
            fields = into.named(self.stream.job, fields, "these aggregates", Location::caller());
        }
        let functions: Vec<&str> = contract.iter().map(|aggregate| aggregate.function.as_str()).collect();
        let name = format!("{name}: {}", functions.join(", "));
        let uid = self.uid(kind, &functions);
        let mut outputs = vec![("main".into(), fields)];
        outputs.extend(sides.iter().map(|side| (side.clone(), input.clone())));
        let kind = kind_of(contract);
        self.keyed_node(NewNode { name, uid: Some(uid), kind, outputs, stage: None }, None)
    }

    /// Makes a changelog of the aggregate that follows: a row is inserted with the first row of its key,
    /// and updated then, instead of a row for each that came. So is an aggregate of a changelog anyway.
    ///
    /// A process function that follows takes a changelog then; what it emits for a row has the row's
    /// kind, see [`Context::row_kind`](crate::Context::row_kind).
    #[must_use]
    pub fn changes(mut self) -> Self {
        self.wants_changes = true;
        self
    }

    /// Puts the rows of each key into windows.
    pub fn window<W: Windows>(self, windows: W) -> Windowed<'j, T, K, W> {
        Windowed::new(self, windows)
    }

    /// Puts the rows of each key into windows of `size` rows, by the order of arrival. What is not full at
    /// the end of the input is dropped.
    pub fn count_window(self, size: u64) -> Windowed<'j, T, K, CountWindows> {
        Windowed::new(self, CountWindows(size))
    }

    /// Each `slide` rows of a key gives its last `size` rows, at first fewer.
    pub fn sliding_count_window(self, size: u64, slide: u64) -> Windowed<'j, T, K, SlidingCountWindows> {
        Windowed::new(self, SlidingCountWindows { size, slide })
    }

    /// This stream and another by the same key, whose rows are put into the same windows.
    pub fn co_group<U: Record>(self, other: KeyedStream<'j, U, K>) -> CoGroup<'j, T, U, K> {
        CoGroup::new(self, other)
    }

    /// This stream and another by the same key, to be joined.
    pub fn join<R: Record>(self, right: KeyedStream<'j, R, K>) -> KeyedJoin<'j, T, R, K> {
        KeyedJoin::new(self, right)
    }

    pub(crate) fn uid(&self, kind: &str, functions: &[&str]) -> String {
        let keys = self.key_names();
        let mut words = vec![kind];
        words.extend(functions);
        words.push("by");
        if !keys.is_empty() {
            words.push(&keys);
        }
        words.join("-")
    }

    /// The names of the key's columns.
    pub(crate) fn key_names(&self) -> String {
        let input = self.stream.fields();
        let keys: Vec<&str> = self.keys.iter().map(|key| input[*key as usize].name.as_str()).collect();
        keys.join("-")
    }

    pub(crate) fn job(&self) -> &'j Job {
        self.stream.job
    }

    pub(crate) fn wants_changes(&self) -> bool {
        self.wants_changes
    }

    /// Whether all rows have one key: `key_by(())`.
    pub(crate) fn is_of_all(&self) -> bool {
        self.keys.is_empty()
    }

    #[track_caller]
    pub(crate) fn keyed_node(self, new: NewNode, second: Option<StreamEntry>) -> Added<'j> {
        let (job, wants_changes) = (self.stream.job, self.wants_changes);
        let inputs: Vec<StreamEntry> = std::iter::once(self.keyed_entry()).chain(second).collect();
        let mut plan = job.plan.borrow_mut();
        let node = plan.add(new, &inputs, Location::caller());
        plan.nodes[node as usize].wants_changes = wants_changes;
        Added { job, node }
    }
}

/// # Functions by key
impl<'j, T: Record, K> KeyedStream<'j, T, K> {
    pub(crate) fn new(stream: Stream<'j, T>, keys: Vec<u32>) -> KeyedStream<'j, T, K> {
        KeyedStream { stream, keys, wants_changes: false, types: PhantomData }
    }

    /// Folds the rows of a key into one, by a closure that gets the row so far and the next one.
    /// Each row gives the reduced row as it is then; a key's first row comes as it is.
    #[track_caller]
    pub fn reduce(
        self,
        combine: impl for<'a, 'b> Fn(T::Ref<'a>, T::Ref<'b>) -> T + 'static,
    ) -> Stream<'j, T> {
        self.reduced(reduced::<T>(move |so_far, next| Ok(combine(so_far, next))))
    }

    /// As [`reduce`](Self::reduce), with a closure that may fail its row.
    #[track_caller]
    pub fn try_reduce(
        self,
        combine: impl for<'a, 'b> Fn(T::Ref<'a>, T::Ref<'b>) -> Result<T> + 'static,
    ) -> Fallible<'j, T, T> {
        let input = self.stream.fields();
        Fallible::new(self.reduced(reduced::<T>(combine)), vec![input])
    }

    /// Calls a function for each row, with the state and the timers of its key.
    #[track_caller]
    pub fn process<F>(self, function: F) -> Fallible<'j, T, F::Out>
    where
        F: ProcessFunction<In = T>,
        F::Key: KeyOf<K>,
    {
        let input = self.stream.fields();
        Fallible::new(self.processed(function, Vec::new()).stream(), vec![input])
    }

    /// Folds the rows of a key by an accumulator of the function's own. Each row gives the result as it
    /// is then.
    #[track_caller]
    pub fn aggregate_with<F>(self, function: F) -> Fallible<'j, T, F::Out>
    where
        F: AggregateFunction<In = T>,
        F::Key: KeyOf<K>,
    {
        let input = self.stream.fields();
        let added = self.dispatched::<Running<F>, NoSide, OneInput>(Dispatched {
            function: Running(function),
            declared: Vec::new(),
            second: None,
            sides: Vec::new(),
            name: short_name::<F>(),
            inputs: PhantomData,
        });
        Fallible::new(added.stream(), vec![input])
    }

    /// This stream and another by the same key, into one function whose keys share state and timers.
    pub fn connect<U: Record>(self, other: KeyedStream<'j, U, K>) -> ConnectedKeyed<'j, T, U, K> {
        ConnectedKeyed::new(self, other)
    }

    /// This stream and one of which every row reaches all keys, in all subtasks.
    pub fn connect_broadcast<U: Record>(
        self,
        other: impl Into<Stream<'j, U>>,
    ) -> ConnectedBroadcast<'j, T, U, K> {
        ConnectedBroadcast::new(self, other.into())
    }

    /// Adds a side output to the process function that follows.
    pub fn side_output(self, name: &str) -> KeyedSide<'j, T, K> {
        KeyedSide { stream: self, name: name.into() }
    }

    #[track_caller]
    fn processed<F, S: Side>(self, function: F, sides: Vec<(String, Vec<Field>)>) -> Added<'j>
    where
        F: ProcessFunction<S, In = T>,
    {
        let mut states = States::default();
        function.states(&mut states);
        self.dispatched::<F, S, OneInput>(Dispatched {
            function,
            declared: states.declared,
            second: None,
            sides,
            name: short_name::<F>(),
            inputs: PhantomData,
        })
    }

    #[track_caller]
    pub(crate) fn dispatched<F, S: Side, I: Inputs<F, S>>(self, new: Dispatched<F, I>) -> Added<'j>
    where
        F: ProcessFunction<S, In = T>,
    {
        let Dispatched { function, declared, second, sides, name, .. } = new;
        let mut value = Vec::new();
        Option::<F::State>::describe("state", true, &mut value);
        let ttl = function.state_ttl().map(Ttl::contract);
        let mut states =
            vec![State { name: "state".into(), kind: StateKind::Value, key: Vec::new(), value, ttl }];
        states.extend(declared.iter().map(|declared| declared.state.clone()));
        let mut inputs = vec![self.stream.fields()];
        inputs.extend(second.iter().map(|second| second.fields.clone()));
        let kind =
            NodeKind::Function(Function { inputs, states, timers: true, changes: false, windows: None });
        let uid = self.uid("process", &[&name]);
        let mut outputs = vec![("main".to_string(), schema_of::<F::Out>())];
        outputs.extend(sides);
        let stage = processed::<F, S, I>(function, declared);
        self.keyed_node(NewNode { name, uid: Some(uid), kind, outputs, stage: Some(stage) }, second)
    }

    /// The columns of its rows.
    pub(crate) fn fields(&self) -> Vec<Field> {
        self.stream.fields()
    }

    /// The stream, on its way by key.
    pub(crate) fn keyed_entry(self) -> StreamEntry {
        let partition = if self.keys.is_empty() { Partition::Global } else { Partition::Hash(self.keys) };
        let mut plan = self.stream.job.plan.borrow_mut();
        let mut input: StreamEntry = plan.streams[self.stream.id].clone();
        let mut is_chosen = false;
        for producer in &mut input.producers {
            is_chosen |= matches!(producer.2, Partition::Chosen(_));
            producer.2 = partition.clone();
        }
        if is_chosen {
            plan.errors.push("`key_by` decides where rows go: `partition_custom` before it does not".into());
        }
        input
    }

    #[track_caller]
    fn reduced(self, stage: Stage) -> Stream<'j, T> {
        let mut value = Vec::new();
        Option::<T>::describe("reduced", true, &mut value);
        let fields = self.stream.fields();
        let states =
            vec![State { name: "reduced".into(), kind: StateKind::Value, key: Vec::new(), value, ttl: None }];
        let function =
            Function { inputs: vec![fields.clone()], states, timers: false, changes: false, windows: None };
        let kind = NodeKind::Function(function);
        let uid = self.uid("reduce", &[]);
        if self.keys.is_empty() {
            let error = "`reduce` wants a key: `key_by(())` is for aggregates".to_string();
            self.stream.job.plan.borrow_mut().errors.push(error);
        }
        if self.wants_changes {
            let error = "`reduce` cannot take a row back, so it takes no changelog".to_string();
            self.stream.job.plan.borrow_mut().errors.push(error);
        }
        let outputs = vec![("main".into(), fields)];
        let new = NewNode { name: "Reduce".into(), uid: Some(uid), kind, outputs, stage: Some(stage) };
        self.keyed_node(new, None).stream()
    }
}

/// A process function on its way into the plan.
pub(crate) struct Dispatched<F, I> {
    pub(crate) function: F,
    pub(crate) declared: Vec<Declared>,
    /// the stream of the second input
    pub(crate) second: Option<StreamEntry>,
    /// names and schemas of side outputs
    pub(crate) sides: Vec<(String, Vec<Field>)>,
    pub(crate) name: String,
    pub(crate) inputs: PhantomData<I>,
}

/// A keyed stream whose process function has a side output: [`KeyedStream::side_output`].
pub struct KeyedSide<'j, T, K> {
    stream: KeyedStream<'j, T, K>,
    name: String,
}

impl<'j, T: Record, K> KeyedSide<'j, T, K> {
    /// Calls a function for each row, with the state and the timers of its key; gives its main output
    /// and its side output.
    #[track_caller]
    pub fn process<F, S: Record>(self, function: F) -> (Fallible<'j, T, F::Out>, Stream<'j, S>)
    where
        F: ProcessFunction<S, In = T>,
        F::Key: KeyOf<K>,
    {
        let input = self.stream.stream.fields();
        let added = self.stream.processed(function, vec![(self.name, schema_of::<S>())]);
        (Fallible::new(added.stream(), vec![input]), added.port(1))
    }
}

/// The name of a type, without its path and parameters.
pub(crate) fn short_name<F>() -> String {
    let name = std::any::type_name::<F>();
    let name = name.split('<').next().unwrap_or(name);
    name.rsplit("::").next().unwrap_or(name).into()
}
