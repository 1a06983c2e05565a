//! Streams, and what can be done with them without keys.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::panic::Location;

use millstream_sys::bindings::millstream::job::graph::{
    Chaining, Connection, FailurePolicy, Function, NodeKind, Partition,
};
use millstream_sys::bindings::millstream::job::rows::{DataType, Field};

use crate::broadcast::ConnectedSpread;
use crate::connected::Connected;
use crate::connector::Sink;
use crate::emit::Emit;
use crate::error::Result;
use crate::field::KeyFields;
use crate::job::Job;
use crate::keyed::KeyedStream;
use crate::plan::{NewNode, OnFailure, Planned, StreamEntry};
use crate::record::{Failed, Record, Row, end_of, schema_of, top_level};
use crate::run::{Stage, each_row, filtered, partitioned};
use crate::side::OneSide;
use crate::watermarks::Watermarks;

/// A stream of rows of the type `T`, in a job under construction. It is a name for a place in the
/// graph, and may be used any number of times.
pub struct Stream<'j, T> {
    pub(crate) job: &'j Job,
    pub(crate) id: usize,
    rows: PhantomData<fn() -> T>,
}

impl<T> Clone for Stream<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Stream<'_, T> {}

/// # Functions
///
/// Closures get rows borrowed, by value: `&str` for `String`, a tuple of borrowed members, a
/// derived `EventRef`. They may run more than once for a row, in any instance: they keep nothing.
impl<'j, T: Record> Stream<'j, T> {
    /// Makes one row of each: a closure that returns an owned value. To emit what is borrowed, use
    /// [`flat_map`](Self::flat_map).
    #[track_caller]
    pub fn map<R: Row<O> + 'static, O: Record>(
        self,
        function: impl for<'a> Fn(T::Ref<'a>) -> R + 'static,
    ) -> Stream<'j, O> {
        let stage = each_row::<T, Emit<O>>(move |row, out| {
            out.emit(function(row));
            Ok(())
        });
        self.function("Map", stage, vec![schema_of::<O>()]).stream()
    }

    /// Makes any number of rows of each.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # fn words(lines: Stream<'_, String>) -> Stream<'_, (String, i64)> {
    /// lines.flat_map(|line, out| {
    ///     for word in line.split_whitespace() {
    ///         out.emit((word, 1));
    ///     }
    /// })
    /// # }
    /// ```
    #[track_caller]
    pub fn flat_map<O: Record>(
        self,
        function: impl for<'a> Fn(T::Ref<'a>, &mut Emit<O>) + 'static,
    ) -> Stream<'j, O> {
        let stage = each_row::<T, Emit<O>>(move |row, out| {
            function(row, out);
            Ok(())
        });
        self.function("Flat Map", stage, vec![schema_of::<O>()]).stream()
    }

    /// Leaves the rows for which the closure says so.
    #[track_caller]
    pub fn filter(self, predicate: impl for<'a> Fn(T::Ref<'a>) -> bool + 'static) -> Stream<'j, T> {
        let stage = filtered::<T>(move |row| Ok(predicate(row)));
        self.function("Filter", stage, vec![self.fields()]).stream()
    }

    /// As [`map`](Self::map), with a closure that may fail its row.
    #[track_caller]
    pub fn try_map<R: Row<O> + 'static, O: Record>(
        self,
        function: impl for<'a> Fn(T::Ref<'a>) -> Result<R> + 'static,
    ) -> Fallible<'j, T, O> {
        let stage = each_row::<T, Emit<O>>(move |row, out| {
            out.emit(function(row)?);
            Ok(())
        });
        self.fallible("Map", stage, schema_of::<O>())
    }

    /// As [`flat_map`](Self::flat_map), with a closure that may fail its row: then nothing of what
    /// the row has emitted is left.
    #[track_caller]
    pub fn try_flat_map<O: Record>(
        self,
        function: impl for<'a> Fn(T::Ref<'a>, &mut Emit<O>) -> Result<()> + 'static,
    ) -> Fallible<'j, T, O> {
        let stage = each_row::<T, Emit<O>>(function);
        self.fallible("Flat Map", stage, schema_of::<O>())
    }

    /// As [`filter`](Self::filter), with a closure that may fail its row.
    #[track_caller]
    pub fn try_filter(
        self,
        predicate: impl for<'a> Fn(T::Ref<'a>) -> Result<bool> + 'static,
    ) -> Fallible<'j, T, T> {
        self.fallible("Filter", filtered::<T>(predicate), self.fields())
    }

    /// Adds a side output to the function that follows: `flat_map` then gets a second place to
    /// emit to, and gives a second stream.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # fn split(numbers: Stream<'_, i64>) {
    /// let (even, odd) = numbers.side_output("odd").flat_map(|number, even, odd| {
    ///     if number % 2 == 0 { even.emit(number) } else { odd.emit(number) }
    /// });
    /// # let _: (Stream<'_, i64>, Stream<'_, i64>) = (even, odd);
    /// # }
    /// ```
    pub fn side_output(self, name: &str) -> OneSide<'j, T> {
        OneSide::new(self, name)
    }

    /// This stream and another, of any type, into one function that takes rows of both.
    pub fn connect<U: Record>(self, other: impl Into<Stream<'j, U>>) -> Connected<'j, T, U> {
        Connected::new(self, other.into())
    }

    /// This stream and one of which every row reaches all its subtasks.
    pub fn connect_broadcast<U: Record>(self, other: impl Into<Stream<'j, U>>) -> ConnectedSpread<'j, T, U> {
        ConnectedSpread::new(self, other.into())
    }

    /// This stream and others of the same type, as one; order between them is not promised.
    pub fn union(self, others: impl IntoIterator<Item = impl Into<Stream<'j, T>>>) -> Stream<'j, T> {
        let others: Vec<usize> = others.into_iter().map(|other| other.into().id).collect();
        let mut plan = self.job.plan.borrow_mut();
        let mut entry = plan.streams[self.id].clone();
        for other in others {
            let producers = plan.streams[other].producers.clone();
            entry.producers.extend(producers);
        }
        let id = plan.stream(entry);
        drop(plan);
        Stream::new(self.job, id)
    }

    /// Gives rows their event time, and makes watermarks of it. A row without a time, or with one too
    /// far ahead of the machine's, fails.
    #[track_caller]
    pub fn watermarks(self, watermarks: Watermarks<T>) -> Fallible<'j, T, T> {
        let fields = self.fields();
        let new = NewNode {
            name: "Timestamps/Watermarks".into(),
            uid: None,
            kind: NodeKind::Watermarks(watermarks.contract()),
            outputs: vec![("main".into(), fields.clone())],
            stage: None,
        };
        let node = self.add(new, Location::caller());
        Fallible::new(Added { job: self.job, node }.stream(), vec![fields])
    }

    /// Groups rows by fields: `F0` … `F7` of a tuple, a struct's constants such as `Event::USER`,
    /// a tuple of them, or `()` for all rows together.
    pub fn key_by<K: KeyFields<T>>(self, key: K) -> KeyedStream<'j, T, K::Keys> {
        KeyedStream::new(self, key.columns())
    }

    /// Writes the rows to a sink.
    #[track_caller]
    pub fn sink(self, sink: impl Into<Sink>) -> SinkHandle<'j> {
        let sink: Sink = sink.into();
        let connection = Connection {
            connector: sink.name,
            options: sink.options,
            format: sink.format,
            format_options: sink.format_options,
        };
        let new = NewNode {
            name: format!("Sink: {}", connection.connector),
            uid: None,
            kind: NodeKind::Sink(connection),
            outputs: Vec::new(),
            stage: None,
        };
        SinkHandle { job: self.job, node: self.add(new, Location::caller()) }
    }

    /// Prints the rows, in the text form: `3> (word,7)`.
    #[track_caller]
    pub fn print(self) -> SinkHandle<'j> {
        self.sink(Sink::print())
    }
}

/// # Partitions: how rows go to the next operator's subtasks
impl<'j, T: Record> Stream<'j, T> {
    /// To the subtask of the same number, which is so unless something else is said.
    pub fn forward(self) -> Stream<'j, T> {
        self.partition(Partition::Forward)
    }

    /// Evenly, in turn.
    pub fn rebalance(self) -> Stream<'j, T> {
        self.partition(Partition::Rebalance)
    }

    /// Each row to every subtask.
    pub fn broadcast(self) -> Stream<'j, T> {
        self.partition(Partition::Broadcast)
    }

    /// All rows to the first subtask.
    pub fn global(self) -> Stream<'j, T> {
        self.partition(Partition::Global)
    }

    /// To the subtask whose number the closure gives, modulo the parallelism.
    #[track_caller]
    pub fn partition_custom(self, choose: impl for<'a> Fn(T::Ref<'a>) -> u32 + 'static) -> Stream<'j, T> {
        let fields = self.fields();
        let mut schema = fields.clone();
        let mut name = "partition".to_string();
        while fields.iter().any(|field| field.name == name) {
            name.push('_');
        }
        // A schema has far fewer columns than 2^32.
        let column = schema.len() as u32;
        schema.push(Field { name, data_type: DataType::Int32, nullable: false });
        let node = self.function("Partition", partitioned::<T>(choose), vec![schema]).node;
        let producers = vec![(node, 0, Partition::Chosen(column))];
        let id = self.job.plan.borrow_mut().stream(StreamEntry { producers, fields });
        Stream::new(self.job, id)
    }

    fn partition(self, partition: Partition) -> Stream<'j, T> {
        let mut plan = self.job.plan.borrow_mut();
        let mut entry = plan.streams[self.id].clone();
        let mut is_chosen = false;
        for producer in &mut entry.producers {
            is_chosen |= matches!(producer.2, Partition::Chosen(_));
            producer.2 = partition.clone();
        }
        if is_chosen {
            plan.errors.push("a stream is partitioned twice, first by `partition_custom`".into());
        }
        let id = plan.stream(entry);
        drop(plan);
        Stream::new(self.job, id)
    }
}

/// # The operator that makes this stream
impl<'j, T> Stream<'j, T> {
    /// Sets its number of subtasks.
    #[track_caller]
    pub fn parallelism(self, parallelism: u32) -> Self {
        self.configure("parallelism", |planned| planned.node.parallelism = Some(parallelism))
    }

    /// Sets the greatest parallelism that it may have; the number of key groups is the job's.
    #[track_caller]
    pub fn max_parallelism(self, max_parallelism: u32) -> Self {
        self.configure("max_parallelism", |planned| planned.node.max_parallelism = Some(max_parallelism))
    }

    /// Names its state, over versions of the job.
    #[track_caller]
    pub fn uid(self, uid: &str) -> Self {
        self.configure("uid", |planned| planned.node.uid = Some(uid.into()))
    }

    /// Sets the name that people see.
    #[track_caller]
    pub fn name(self, name: &str) -> Self {
        self.configure("name", |planned| planned.node.name = name.into())
    }

    /// Begins a chain with it: it shares no thread with the operator before it.
    #[track_caller]
    pub fn start_new_chain(self) -> Self {
        self.configure("start_new_chain", |planned| planned.node.chaining = Chaining::Head)
    }

    /// Leaves it out of any chain.
    #[track_caller]
    pub fn disable_chaining(self) -> Self {
        self.configure("disable_chaining", |planned| planned.node.chaining = Chaining::Never)
    }

    /// Says what becomes of a row that fails. A function can fail a row by an error, by a panic,
    /// or by running too long.
    #[track_caller]
    pub fn on_failure(self, policy: OnFailure) -> Self {
        self.configure("on_failure", |planned| {
            planned.node.on_failure = match policy {
                OnFailure::Fail => FailurePolicy::Fail,
                OnFailure::Skip => FailurePolicy::Skip,
            };
        })
    }

    #[track_caller]
    fn configure(self, what: &str, change: impl FnOnce(&mut Planned)) -> Self {
        let location = Location::caller();
        let mut plan = self.job.plan.borrow_mut();
        let node = match &plan.streams[self.id].producers[..] {
            [(node, ..)] => *node as usize,
            _ => {
                plan.errors.push(format!(
                    "`{what}` at {}:{} is of an operator, and a union is none",
                    location.file(),
                    location.line()
                ));
                return self;
            }
        };
        change(&mut plan.nodes[node]);
        drop(plan);
        self
    }
}

/// # Columns
impl<'j, T: Record> Stream<'j, T> {
    /// Renames the columns: what a sink calls them.
    #[track_caller]
    pub fn names<const N: usize>(self, names: [&str; N]) -> Self {
        self.rename(&names.map(str::to_string));
        self
    }

    #[track_caller]
    pub(crate) fn rename(self, names: &[String]) {
        let location = Location::caller();
        let mut plan = self.job.plan.borrow_mut();
        if let Err(error) = plan.rename(self.id, names) {
            plan.errors.push(format!("{error} at {}:{}", location.file(), location.line()));
        }
    }

    /// The same rows as another type of the same columns, such as a struct for a tuple; columns
    /// get the names of its fields.
    #[track_caller]
    pub fn cast<R: Record>(self) -> Stream<'j, R> {
        let location = Location::caller();
        let (from, to) = (self.fields(), schema_of::<R>());
        if shape(&from) == shape(&to) {
            let places = top_level(&to);
            self.rename(&places.iter().map(|place| to[*place].name.clone()).collect::<Vec<_>>());
        } else {
            self.job.plan.borrow_mut().errors.push(format!(
                "rows of {} cannot be cast to {} at {}:{}",
                describe(&from),
                describe(&to),
                location.file(),
                location.line()
            ));
        }
        Stream::new(self.job, self.id)
    }
}

/// The columns of what an operator gives as a record of the user's: under its names, or those that they have
/// where it is a tuple.
pub(crate) fn into_record<R: Record>(
    job: &Job,
    mut fields: Vec<Field>,
    what: &str,
    location: &Location<'_>,
) -> Vec<Field> {
    let to = schema_of::<R>();
    if shape(&fields) == shape(&to) {
        let is_tuple = top_level(&to).iter().enumerate().all(|(n, place)| to[*place].name == format!("f{n}"));
        if !is_tuple {
            fields = to;
        }
    } else {
        job.plan.borrow_mut().errors.push(format!(
            "{what} has the columns {}, which are not those of {} at {}:{}",
            describe(&fields),
            describe(&to),
            location.file(),
            location.line()
        ));
    }
    fields
}

/// What has to be equal for columns to be read as others.
fn shape(fields: &[Field]) -> Vec<(String, bool)> {
    fields.iter().map(|field| (format!("{:?}", field.data_type), field.nullable)).collect()
}

/// Fields as a message to the user.
fn describe(fields: &[Field]) -> String {
    let mut words = Vec::new();
    let mut place = 0;
    while place < fields.len() {
        let field = &fields[place];
        words.push(format!("{} {:?}{}", field.name, field.data_type, if field.nullable { "?" } else { "" }));
        place = end_of(fields, place);
    }
    format!("({})", words.join(", "))
}

impl<'j, T> Stream<'j, T> {
    pub(crate) fn new(job: &'j Job, id: usize) -> Stream<'j, T> {
        Stream { job, id, rows: PhantomData }
    }

    pub(crate) fn fields(self) -> Vec<Field> {
        self.job.plan.borrow().streams[self.id].fields.clone()
    }

    /// Adds a node that takes this stream.
    pub(crate) fn add(self, new: NewNode, location: &Location<'_>) -> u32 {
        let mut plan = self.job.plan.borrow_mut();
        let input = plan.streams[self.id].clone();
        plan.add(new, &[input], location)
    }

    /// Adds a stateless function with these outputs.
    #[track_caller]
    pub(crate) fn function(self, name: &str, stage: Stage, outputs: Vec<Vec<Field>>) -> Added<'j> {
        let names = std::iter::once("main".to_string()).chain((1..).map(|port| format!("side-{port}")));
        let new = NewNode {
            name: name.into(),
            uid: None,
            kind: NodeKind::Function(Function {
                inputs: vec![self.fields()],
                states: Vec::new(),
                timers: false,
                changes: false,
                windows: None,
            }),
            outputs: names.zip(outputs).collect(),
            stage: Some(stage),
        };
        Added { job: self.job, node: self.add(new, Location::caller()) }
    }

    #[track_caller]
    fn fallible<O: Record>(self, name: &str, stage: Stage, output: Vec<Field>) -> Fallible<'j, T, O> {
        let input = self.fields();
        let stream = self.function(name, stage, vec![output]).stream();
        Fallible::new(stream, vec![input])
    }
}

/// A node that has just been added.
pub(crate) struct Added<'j> {
    pub(crate) job: &'j Job,
    pub(crate) node: u32,
}

impl<'j> Added<'j> {
    pub(crate) fn stream<T>(&self) -> Stream<'j, T> {
        self.port(0)
    }

    pub(crate) fn port<T>(&self, port: u32) -> Stream<'j, T> {
        Stream::new(self.job, self.job.plan.borrow_mut().stream_of(self.node, port))
    }
}

/// Adds the port of the rows that fail, and says that they go there.
fn divert<'j, T, F>(stream: Stream<'j, T>, mut schema: Vec<Field>) -> (Stream<'j, T>, Stream<'j, F>) {
    let mut name = "failure".to_string();
    while schema.iter().any(|field| field.name == name) {
        name.push('_');
    }
    schema.push(Field { name, data_type: DataType::Text, nullable: false });
    let mut plan = stream.job.plan.borrow_mut();
    let node = plan.streams[stream.id].producers[0].0;
    let planned = &mut plan.nodes[node as usize].node;
    planned.on_failure = FailurePolicy::Divert;
    planned.outputs.push(crate::plan::port("failures", schema));
    // A node has far fewer ports than 2^32.
    let port = planned.outputs.len() as u32 - 1;
    let failures = plan.stream_of(node, port);
    drop(plan);
    (stream, Stream::new(stream.job, failures))
}

macro_rules! modifiers {
    () => {
        /// Sets its number of subtasks.
        #[track_caller]
        pub fn parallelism(mut self, parallelism: u32) -> Self {
            self.stream = self.stream.parallelism(parallelism);
            self
        }

        /// Names its state, over versions of the job.
        #[track_caller]
        pub fn uid(mut self, uid: &str) -> Self {
            self.stream = self.stream.uid(uid);
            self
        }

        /// Sets the name that people see.
        #[track_caller]
        pub fn name(mut self, name: &str) -> Self {
            self.stream = self.stream.name(name);
            self
        }

        /// Begins a chain with it.
        #[track_caller]
        pub fn start_new_chain(mut self) -> Self {
            self.stream = self.stream.start_new_chain();
            self
        }

        /// Leaves it out of any chain.
        #[track_caller]
        pub fn disable_chaining(mut self) -> Self {
            self.stream = self.stream.disable_chaining();
            self
        }

        /// Says what becomes of a row that fails.
        #[track_caller]
        pub fn on_failure(mut self, policy: OnFailure) -> Self {
            self.stream = self.stream.on_failure(policy);
            self
        }
    };
}

/// The stream of a function that may fail rows of the type `T` (or of [`Either`] of two): a [`Stream`]
/// of `O`, which can also divert the rows that failed.
pub struct Fallible<'j, T, O> {
    stream: Stream<'j, O>,
    /// the columns of each input
    inputs: Vec<Vec<Field>>,
    rows: PhantomData<fn() -> T>,
}

/// Rows of two inputs: `T` of the first, `U` of the second. It stands for them as a type, and has no
/// values.
#[derive(Debug)]
pub struct Either<T, U>(PhantomData<fn() -> (T, U)>);

impl<'j, T: Record, O: Record> Fallible<'j, T, O> {
    /// The stream of rows that came through, and the stream of rows that failed.
    pub fn divert_failures(self) -> (Stream<'j, O>, Stream<'j, Failed<T>>) {
        divert(self.stream, self.inputs.concat())
    }
}

impl<'j, T: Record, U: Record, O: Record> Fallible<'j, Either<T, U>, O> {
    /// The stream of rows that came through, and for each input the stream of its rows that failed.
    pub fn divert_failures(self) -> (Stream<'j, O>, Stream<'j, Failed<T>>, Stream<'j, Failed<U>>) {
        let mut inputs = self.inputs.into_iter();
        let (stream, first) = divert(self.stream, inputs.next().unwrap_or_default());
        let (stream, second) = divert(stream, inputs.next().unwrap_or_default());
        (stream, first, second)
    }
}

impl<'j, T, O: Record> Fallible<'j, T, O> {
    modifiers!();

    pub(crate) fn new(stream: Stream<'j, O>, inputs: Vec<Vec<Field>>) -> Fallible<'j, T, O> {
        Fallible { stream, inputs, rows: PhantomData }
    }

    /// The stream itself, where something asks for one.
    pub fn stream(self) -> Stream<'j, O> {
        self.stream
    }
}

impl<'j, T, O> Deref for Fallible<'j, T, O> {
    type Target = Stream<'j, O>;

    fn deref(&self) -> &Stream<'j, O> {
        &self.stream
    }
}

impl<'j, T, O> From<Fallible<'j, T, O>> for Stream<'j, O> {
    fn from(fallible: Fallible<'j, T, O>) -> Stream<'j, O> {
        fallible.stream
    }
}

/// The stream of a source: a [`Stream`] of `T`, which can also divert the records that could not
/// be read.
pub struct Source<'j, T> {
    stream: Stream<'j, T>,
}

impl<'j, T: Record> Source<'j, T> {
    modifiers!();

    pub(crate) fn new(stream: Stream<'j, T>) -> Source<'j, T> {
        Source { stream }
    }

    /// The stream of rows, and the stream of records that could not be read as one, as they were.
    pub fn divert_failures(self) -> (Stream<'j, T>, Stream<'j, Failed<Vec<u8>>>) {
        let record = Field { name: "record".into(), data_type: DataType::Binary, nullable: false };
        divert(self.stream, vec![record])
    }

    /// The stream itself, where something asks for one.
    pub fn stream(&self) -> Stream<'j, T> {
        self.stream
    }
}

impl<'j, T> Deref for Source<'j, T> {
    type Target = Stream<'j, T>;

    fn deref(&self) -> &Stream<'j, T> {
        &self.stream
    }
}

impl<'j, T> From<Source<'j, T>> for Stream<'j, T> {
    fn from(source: Source<'j, T>) -> Stream<'j, T> {
        source.stream
    }
}

/// A sink, to be named and set.
pub struct SinkHandle<'j> {
    job: &'j Job,
    node: u32,
}

impl SinkHandle<'_> {
    /// Sets its number of subtasks.
    pub fn parallelism(self, parallelism: u32) -> Self {
        self.configure(|planned| planned.node.parallelism = Some(parallelism))
    }

    /// Names its state, over versions of the job.
    pub fn uid(self, uid: &str) -> Self {
        self.configure(|planned| planned.node.uid = Some(uid.into()))
    }

    /// Sets the name that people see.
    pub fn name(self, name: &str) -> Self {
        self.configure(|planned| planned.node.name = name.into())
    }

    /// Leaves it out of any chain.
    pub fn disable_chaining(self) -> Self {
        self.configure(|planned| planned.node.chaining = Chaining::Never)
    }

    fn configure(self, change: impl FnOnce(&mut Planned)) -> Self {
        change(&mut self.job.plan.borrow_mut().nodes[self.node as usize]);
        self
    }
}

impl<T> fmt::Debug for Stream<'_, T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Stream").field("id", &self.id).finish_non_exhaustive()
    }
}
