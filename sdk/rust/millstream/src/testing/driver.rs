//! A job run step by step, with time in the test's hand.

use std::time::Duration;

use millstream_sys::bindings::millstream::job::rows::{Batch, Column};

use super::graph::Output;
use super::{Run, batch_of, changes_of, place_of, rows_of};
use crate::changes::RowKind;
use crate::process::Timer;
use crate::record::{Cursor, Record, Row};
use crate::state::{BroadcastState, ListState, MapKey, MapState, ValueState};

/// A job that runs as its test says: the counterpart of Kafka Streams' `TopologyTestDriver`.
///
/// ```
/// use millstream::prelude::*;
/// use millstream::testing::Harness;
/// use std::time::Duration;
///
/// /// Says a word again, ten milliseconds later.
/// struct Echo;
///
/// impl ProcessFunction for Echo {
///     type In = (String,);
///     type Key = String;
///     type State = bool;
///     type Out = String;
///
///     fn process(&self, _word: (&str,), context: &mut Context<'_, Self>) -> Result<()> {
///         context.set_processing_timer(context.processing_time() + 10);
///         Ok(())
///     }
///
///     fn on_timer(&self, _timer: Timer, context: &mut Context<'_, Self>) -> Result<()> {
///         context.emit(context.key());
///         Ok(())
///     }
/// }
///
/// #[job]
/// fn echo(job: &Job) -> Result<()> {
///     job.json::<(String,)>(Connector::stdin()).key_by(F0).process(Echo).print();
///     Ok(())
/// }
///
/// let mut driver = Harness::of(echo).driver();
/// driver.push::<(String,)>("", ("hello",));
/// assert!(driver.take::<String>("Sink: print").is_empty());
/// driver.advance(Duration::from_millis(10));
/// assert_eq!(driver.take::<String>("Sink: print"), ["hello"]);
/// ```
///
/// With [`Harness::component`](super::Harness::component) the same test drives the job's component in
/// the engine itself.
pub struct Driver {
    pub(super) engine: Box<dyn Engine>,
}

/// What runs the job.
pub(super) trait Engine {
    /// Sets the clock of processing time.
    fn start_at(&mut self, time: i64);
    /// Rows into the source of this name or uid; `""` is the first.
    fn push(&mut self, source: &str, rows: Batch);
    /// Raises the watermark where it is made.
    fn raise(&mut self, time: i64);
    /// Moves the clock of processing time by so many milliseconds.
    fn advance(&mut self, by: i64);
    /// What has come to sinks.
    fn outputs(&mut self) -> &mut Vec<Output>;
    /// The value of a key, one row of its columns, in a state.
    fn value(&self, function: &str, state: &str, key: &Batch) -> Option<Vec<Column>>;
    /// The entries of a key, or of a broadcast state: their own keys, their values, how many.
    fn entries(&self, function: &str, state: &str, key: Option<&Batch>) -> (Vec<Column>, Vec<Column>, usize);
    /// The timers of a function.
    fn timers(&self, function: &str) -> Vec<Timer>;
    /// The input's end.
    fn end(self: Box<Self>) -> Run;
}

impl Driver {
    /// Sets the clock of processing time, which stands at 0 until then. From now on rows too far ahead
    /// of it fail where the job says `ahead_max`.
    pub fn start_at(&mut self, time: i64) {
        self.engine.start_at(time);
    }

    /// Pushes a row into the source of this name or uid; `""` is the job's first source. What follows of
    /// it is done when this returns; so is a watermark that it raises.
    ///
    /// # Panics
    /// If there is no such source, or a row fails where the policy is to fail.
    pub fn push<T: Record>(&mut self, source: &str, row: impl Row<T>) {
        self.engine.push(source, batch_of::<T>([row]));
    }

    /// Pushes a row with its event time.
    ///
    /// # Panics
    /// As [`push`](Self::push).
    pub fn push_at<T: Record>(&mut self, source: &str, time: i64, row: impl Row<T>) {
        self.engine.push(source, Batch { event_times: Some(vec![time]), ..batch_of::<T>([row]) });
    }

    /// Raises the watermark to a time, at every source and every `watermarks`; timers that are due fire.
    ///
    /// # Panics
    /// If a timer fails where the policy is to fail.
    pub fn watermark(&mut self, time: i64) {
        self.engine.raise(time);
    }

    /// Moves the clock of processing time; timers that are due fire in their order, each at its time.
    ///
    /// # Panics
    /// If a timer fails where the policy is to fail.
    pub fn advance(&mut self, by: Duration) {
        self.engine.advance(i64::try_from(by.as_millis()).unwrap_or(i64::MAX));
    }

    /// The rows that have come to a sink since they were last taken.
    ///
    /// # Panics
    /// If there is no such sink, or its rows are not of the type `T`.
    pub fn take<T: Record>(&mut self, sink: &str) -> Vec<T> {
        let outputs = self.engine.outputs();
        let place = place_of(outputs, sink);
        let output = &mut outputs[place];
        let rows = rows_of(&output.batches[output.taken..]);
        output.taken = output.batches.len();
        rows
    }

    /// As [`take`](Self::take), with what each row does to the table that the stream describes.
    ///
    /// # Panics
    /// As [`take`](Self::take).
    pub fn take_changes<T: Record>(&mut self, sink: &str) -> Vec<(RowKind, T)> {
        let outputs = self.engine.outputs();
        let place = place_of(outputs, sink);
        let output = &mut outputs[place];
        let changes = changes_of(&output.batches[output.taken..]);
        output.taken = output.batches.len();
        changes
    }

    /// The `State` of a key in the function of this name or uid.
    ///
    /// # Panics
    /// If there is no such function.
    pub fn state<K: Record, S: Record>(&self, function: &str, key: impl Row<K>) -> Option<S> {
        self.value_named(function, "state", key)
    }

    /// The value of a key in a named state.
    ///
    /// # Panics
    /// If there is no such function, or it does not declare the state.
    pub fn value<K: Record, T: Record>(
        &self,
        function: &str,
        state: ValueState<T>,
        key: impl Row<K>,
    ) -> Option<T> {
        self.value_named(function, state.name, key)
    }

    fn value_named<K: Record, T: Record>(&self, function: &str, name: &str, key: impl Row<K>) -> Option<T> {
        let columns = self.engine.value(function, name, &batch_of::<K>([key]))?;
        Option::<T>::get(&Option::<T>::read(&mut Cursor::new(&columns, false)), 0).map(T::from_row)
    }

    /// The entries of a key in a map, in the order of their own keys.
    ///
    /// # Panics
    /// As [`value`](Self::value).
    pub fn map<K: Record, M: MapKey, V: Record + Clone>(
        &self,
        function: &str,
        state: MapState<M, V>,
        key: impl Row<K>,
    ) -> Vec<(M, V)> {
        self.entries(function, state.name, Some(&batch_of::<K>([key])))
    }

    /// The entries of a key in a list.
    ///
    /// # Panics
    /// As [`value`](Self::value).
    pub fn list<K: Record, V: Record + Clone>(
        &self,
        function: &str,
        state: ListState<V>,
        key: impl Row<K>,
    ) -> Vec<V> {
        let entries = self.entries::<i64, V>(function, state.name, Some(&batch_of::<K>([key])));
        entries.into_iter().map(|(_, value)| value).collect()
    }

    /// The entries of a broadcast state.
    ///
    /// # Panics
    /// As [`value`](Self::value).
    pub fn broadcast<M: MapKey, V: Record + Clone>(
        &self,
        function: &str,
        state: BroadcastState<M, V>,
    ) -> Vec<(M, V)> {
        self.entries(function, state.name, None)
    }

    fn entries<M: Record, V: Record>(&self, function: &str, name: &str, key: Option<&Batch>) -> Vec<(M, V)> {
        let (keys, values, count) = self.engine.entries(function, name, key);
        let keys = M::read(&mut Cursor::new(&keys, M::IS_STRUCT));
        let values = V::read(&mut Cursor::new(&values, false));
        let entry = |row| (M::from_row(M::get(&keys, row)), V::from_row(V::get(&values, row)));
        (0..count).map(entry).collect()
    }

    /// The timers that are set in the function of this name or uid, in their order, of all keys.
    ///
    /// # Panics
    /// If there is no such function.
    pub fn timers(&self, function: &str) -> Vec<Timer> {
        let mut timers = self.engine.timers(function);
        timers.sort_by_key(|timer| (timer.domain, timer.time));
        timers
    }

    /// Ends the input: the watermark is the greatest, and all timers of event time fire. Gives all that
    /// has come out, also what was taken.
    ///
    /// # Panics
    /// If a timer fails where the policy is to fail.
    pub fn finish(self) -> Run {
        self.engine.end()
    }
}
