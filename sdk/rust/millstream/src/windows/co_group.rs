//! Two streams whose rows meet in windows.

use std::marker::PhantomData;
use std::time::Duration;

use millstream_sys::bindings::millstream::job::graph::{self, TimeDomain, Trigger};
use millstream_sys::bindings::millstream::job::rows::Field;

use super::functions::{InWindows, add, rows_state};
use super::{TakesFunctions, Windows};
use crate::emit::Emit;
use crate::error::Result;
use crate::keyed::{KeyedStream, short_name};
use crate::process::{KeyOf, millis};
use crate::record::{Record, schema_of};
use crate::run::{OfBoth, collected};
use crate::stream::{Added, Either, Fallible, Stream};
use crate::task::TaskInfo;
use crate::window_function::{Window, WindowRows};

/// A function that is called with the rows of two streams that have one key and window: Flink's
/// `CoGroupFunction`. Either may have none, but not both.
///
/// ```
/// use millstream::prelude::*;
///
/// /// What was ordered and paid of an order, by the minute.
/// struct Compared;
///
/// impl CoGroupFunction for Compared {
///     type First = (String, i64);
///     type Second = (String, i64);
///     type Key = String;
///     type Out = (String, Timestamp, i64, i64);
///
///     fn co_group(
///         &self,
///         order: &str,
///         window: &Window,
///         ordered: &WindowRows<'_, (String, i64)>,
///         paid: &WindowRows<'_, (String, i64)>,
///         out: &mut Emit<(String, Timestamp, i64, i64)>,
///     ) -> Result<()> {
///         let sum = |rows: &WindowRows<'_, (String, i64)>| rows.iter().map(|(_, amount)| amount).sum::<i64>();
///         out.emit((order, Timestamp(window.start), sum(ordered), sum(paid)));
///         Ok(())
///     }
/// }
///
/// # use std::time::Duration;
/// # type Amounts<'j> = Stream<'j, (String, i64)>;
/// fn compared<'j>(ordered: Amounts<'j>, paid: Amounts<'j>) -> Stream<'j, (String, Timestamp, i64, i64)> {
///     ordered
///         .key_by(F0)
///         .co_group(paid.key_by(F0))
///         .window(Tumbling::of(Duration::from_secs(60)))
///         .apply(Compared)
///         .stream()
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no function of the windows of two streams",
    label = "not a `CoGroupFunction`"
)]
pub trait CoGroupFunction: Sized + 'static {
    /// The rows of the first stream.
    type First: Record;
    /// The rows of the second stream.
    type Second: Record;
    /// The key, of both.
    type Key: Record;
    /// The rows that leave.
    type Out: Record;

    /// Takes the rows of a window, each stream's in the order in which they came. Where rows come late but
    /// in time, it is called again, with them too.
    ///
    /// # Errors
    /// If it cannot: then nothing is emitted, and the failure policy says what becomes of it, as of a timer.
    fn co_group(
        &self,
        key: <Self::Key as Record>::Ref<'_>,
        window: &Window,
        first: &WindowRows<'_, Self::First>,
        second: &WindowRows<'_, Self::Second>,
        out: &mut Emit<Self::Out>,
    ) -> Result<()>;

    /// Begins an instance, before its first window.
    ///
    /// # Errors
    /// If it cannot begin: the job fails.
    fn open(&mut self, task: &TaskInfo) -> Result<()> {
        let _ = task;
        Ok(())
    }
}

/// Two streams by one key whose rows are to be put into windows: [`KeyedStream::co_group`].
pub struct CoGroup<'j, T, U, K> {
    first: KeyedStream<'j, T, K>,
    second: KeyedStream<'j, U, K>,
}

impl<'j, T: Record, U: Record, K> CoGroup<'j, T, U, K> {
    pub(crate) fn new(first: KeyedStream<'j, T, K>, second: KeyedStream<'j, U, K>) -> Self {
        CoGroup { first, second }
    }

    /// Puts the rows of both streams into the same windows. A session is of the rows of both.
    pub fn window<W: OfTime>(self, windows: W) -> CoGrouped<'j, T, U, K, W> {
        let window = graph::Window {
            assigner: windows.contract(),
            time: TimeDomain::EventTime,
            lateness: 0,
            late_port: None,
            trigger: Trigger::AtEnd,
            purging: false,
            aggregates: Vec::new(),
        };
        CoGrouped { streams: self, window, windows: PhantomData }
    }
}

/// Windows that are emitted at an end: not those of so many rows.
#[diagnostic::on_unimplemented(
    message = "two streams do not meet in `{Self}`",
    label = "not for two streams",
    note = "rows of two streams meet in `Tumbling`, `Sliding`, `Cumulating`, `Session` or `Global` windows"
)]
pub trait OfTime: TakesFunctions {}

impl OfTime for super::Tumbling {}
impl OfTime for super::Sliding {}
impl OfTime for super::Cumulating {}
impl OfTime for super::Session {}
impl OfTime for super::Global {}

/// Two streams in the same windows: [`CoGroup::window`].
pub struct CoGrouped<'j, T, U, K, W> {
    streams: CoGroup<'j, T, U, K>,
    window: graph::Window,
    windows: PhantomData<W>,
}

impl<'j, T: Record, U: Record, K, W: Windows> CoGrouped<'j, T, U, K, W> {
    /// Keeps a window so long after its end: a row that still comes has the function called once more.
    #[must_use]
    pub fn allowed_lateness(mut self, lateness: Duration) -> Self {
        self.window.lateness = millis(lateness);
        self
    }

    /// Puts rows into windows by the machine's time instead of their own.
    #[must_use]
    pub fn processing_time(mut self) -> Self {
        self.window.time = TimeDomain::ProcessingTime;
        self
    }

    /// Gives rows that come too late for their window as streams of their own, one for each input. Without
    /// it they are dropped and counted.
    pub fn side_outputs_late(self, first: &str, second: &str) -> LateCoGrouped<'j, T, U, K, W> {
        LateCoGrouped { grouped: self, names: [first.into(), second.into()] }
    }

    /// Calls a function with the rows of both streams at the end of each window.
    #[track_caller]
    pub fn apply<F>(self, function: F) -> Fallible<'j, Either<T, U>, F::Out>
    where
        F: CoGroupFunction<First = T, Second = U>,
        F::Key: KeyOf<K>,
    {
        let fields = self.fields();
        Fallible::new(self.applied(function, &[]).stream(), fields)
    }

    /// The columns of each input.
    fn fields(&self) -> Vec<Vec<Field>> {
        vec![self.streams.first.fields(), self.streams.second.fields()]
    }

    #[track_caller]
    fn applied<F>(self, function: F, late: &[String]) -> Added<'j>
    where
        F: CoGroupFunction<First = T, Second = U>,
    {
        let CoGroup { first, second } = self.streams;
        let function = InWindows {
            name: short_name::<F>(),
            states: vec![rows_state("first", first.fields()), rows_state("second", second.fields())],
            timers: false,
            collects: true,
            merges: false,
            output: schema_of::<F::Out>(),
            stage: collected(OfBoth(function)),
        };
        add(first, Some(second.keyed_entry()), self.window, function, late)
    }
}

/// Two streams in the same windows whose late rows are streams of their own:
/// [`CoGrouped::side_outputs_late`].
pub struct LateCoGrouped<'j, T, U, K, W> {
    grouped: CoGrouped<'j, T, U, K, W>,
    names: [String; 2],
}

impl<'j, T: Record, U: Record, K, W: Windows> LateCoGrouped<'j, T, U, K, W> {
    /// As [`CoGrouped::apply`], and the streams of late rows.
    #[track_caller]
    #[expect(clippy::type_complexity, reason = "the main stream and two of late rows")]
    pub fn apply<F>(self, function: F) -> (Fallible<'j, Either<T, U>, F::Out>, Stream<'j, T>, Stream<'j, U>)
    where
        F: CoGroupFunction<First = T, Second = U>,
        F::Key: KeyOf<K>,
    {
        let fields = self.grouped.fields();
        let added = self.grouped.applied(function, &self.names);
        (Fallible::new(added.stream(), fields), added.port(1), added.port(2))
    }
}
