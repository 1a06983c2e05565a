//! Windows over keyed streams: which there are, and what is said about them.

mod co_group;
mod functions;

use std::marker::PhantomData;
use std::time::Duration;

use millstream_sys::bindings::millstream::job::graph::{
    self, Assigner, Grid, NodeKind, RowWindow, TimeDomain, Trigger,
};

pub use co_group::{CoGroup, CoGroupFunction, CoGrouped, LateCoGrouped, OfTime};
pub use functions::{HostTrigger, OwnTrigger, TakesFunctions, TriggerChoice};

use crate::aggregate::{Aggregates, avg, count, max, min, sum};
use crate::field::{FieldOf, Join, Number, Ordered, WindowJoin};
use crate::keyed::{Aggregation, KeyedStream};
use crate::process::millis;
use crate::record::Record;
use crate::stream::{Added, Stream};

/// A length of time with a sign: [`before`] and [`after`]. A [`Duration`] is one too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Offset(i64);

/// So long before: a negative length of time.
pub fn before(duration: Duration) -> Offset {
    Offset(Offset::from(duration).0.saturating_neg())
}

/// So long after: a positive length of time.
pub fn after(duration: Duration) -> Offset {
    duration.into()
}

impl From<Duration> for Offset {
    fn from(duration: Duration) -> Offset {
        Offset(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
    }
}

impl Offset {
    /// In milliseconds.
    pub(crate) fn millis(self) -> i64 {
        self.0
    }
}

/// Says in which windows a row is: [`Tumbling`], [`Sliding`], [`Cumulating`], [`Session`], [`Global`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no kind of windows",
    label = "not a kind of windows",
    note = "windows are `Tumbling::of(size)`, `Sliding::of(size, slide)`, `Cumulating::of(size, step)`, \
            `Session::with_gap(gap)`, `Global`"
)]
pub trait Windows {
    /// As the contract has it.
    #[doc(hidden)]
    fn contract(self) -> Assigner;
}

/// The rows of native aggregates `A` by the key `K` over windows of this kind: with their start and end
/// between key and aggregates where windows are of time.
#[diagnostic::on_unimplemented(
    message = "these aggregates give no row by this key over these windows",
    label = "too many columns, or another kind of windows"
)]
pub trait WindowRow<K, A>: Windows {
    /// A tuple.
    type Row: Record;
}

/// Columns between the key's and the aggregates'.
fn between(assigner: &Assigner) -> &'static [&'static str] {
    match assigner {
        Assigner::Count(_) | Assigner::Everything => &[],
        _ => &["window_start", "window_end"],
    }
}

macro_rules! rows {
    ($join:ident: $($windows:ident)*) => {$(
        impl<A, K: $join<A>> WindowRow<K, A> for $windows {
            type Row = K::Output;
        }
    )*};
}

rows!(WindowJoin: Tumbling Sliding Cumulating Session);
rows!(Join: Global CountWindows SlidingCountWindows);

/// Windows whose edges lie on a grid, the same for all keys: all but [`Session`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` windows have no edges that two streams share",
    label = "not for a join",
    note = "a join is over `Tumbling`, `Sliding` or `Cumulating` windows: a session is of one stream"
)]
pub trait GridWindows: Windows {}

macro_rules! on_a_grid {
    ($($(#[doc = $doc:literal])+ $name:ident;)*) => {$(
        $(#[doc = $doc])+
        #[derive(Clone, Debug)]
        pub struct $name(Grid);

        impl $name {
            /// Moves the edges by so much from the epoch, or from midnight where there is a zone; by less
            /// than a step.
            #[must_use]
            pub fn offset(mut self, offset: impl Into<Offset>) -> $name {
                self.0.offset = offset.into().millis();
                self
            }

            /// Puts the edges to midnights of a time zone, by its IANA name such as `Europe/Berlin`. Size
            /// and step are whole days then, and a day is as long as it is there.
            #[must_use]
            pub fn zone(mut self, zone: &str) -> $name {
                self.0.zone = Some(zone.into());
                self
            }
        }

        impl Windows for $name {
            fn contract(self) -> Assigner {
                Assigner::$name(self.0)
            }
        }

        impl GridWindows for $name {}
    )*};
}

on_a_grid! {
    /// Windows of one size, end to end: Flink's `TumblingEventTimeWindows`, SQL's `TUMBLE`.
    Tumbling;
    /// Windows of one size that begin each `slide`, so that a row is in several: Flink's
    /// `SlidingEventTimeWindows`, SQL's `HOP`.
    Sliding;
    /// Windows that begin each `size`, and grow by `step` until they are of that size: SQL's `CUMULATE`.
    Cumulating;
}

fn grid(size: Duration, step: Duration) -> Grid {
    Grid { size: millis(size), step: millis(step), offset: 0, zone: None }
}

impl Tumbling {
    /// Windows of this size.
    pub fn of(size: Duration) -> Tumbling {
        Tumbling(grid(size, size))
    }
}

impl Sliding {
    /// Windows of this size, one each `slide`.
    pub fn of(size: Duration, slide: Duration) -> Sliding {
        Sliding(grid(size, slide))
    }
}

impl Cumulating {
    /// Windows of up to this size, which is a multiple of the step.
    pub fn of(size: Duration, step: Duration) -> Cumulating {
        Cumulating(grid(size, step))
    }
}

/// Windows of a key's rows that are near to each other: Flink's `EventTimeSessionWindows`. A session ends
/// `gap` after its last row.
#[derive(Clone, Copy, Debug)]
pub struct Session(Duration);

impl Session {
    /// A session closes after so long without a row.
    pub fn with_gap(gap: Duration) -> Session {
        Session(gap)
    }
}

impl Windows for Session {
    fn contract(self) -> Assigner {
        Assigner::Session(millis(self.0))
    }
}

/// One window for all rows of a key: Flink's `GlobalWindows`. It is emitted at the end of the input, or
/// when a trigger says so: [`Windowed::each_rows`], [`Windowed::early`], [`Windowed::trigger`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Global;

impl Windows for Global {
    fn contract(self) -> Assigner {
        Assigner::Everything
    }
}

/// Windows of so many rows of a key: [`KeyedStream::count_window`].
#[derive(Clone, Copy, Debug)]
pub struct CountWindows(pub(crate) u64);

impl Windows for CountWindows {
    fn contract(self) -> Assigner {
        Assigner::Count(RowWindow { size: self.0, step: self.0 })
    }
}

/// Each so many rows of a key, its last ones: [`KeyedStream::sliding_count_window`].
#[derive(Clone, Copy, Debug)]
pub struct SlidingCountWindows {
    pub(crate) size: u64,
    pub(crate) slide: u64,
}

impl Windows for SlidingCountWindows {
    fn contract(self) -> Assigner {
        Assigner::Count(RowWindow { size: self.size, step: self.slide })
    }
}

/// The rows of aggregates `A` by the key `K` and window: `(key…, window_start, window_end, aggregate…)`, or
/// without the ends where windows have none.
type OfWindows<'j, K, A, W> = Stream<'j, <W as WindowRow<K, A>>::Row>;

/// A keyed stream in windows: [`KeyedStream::window`].
///
/// An aggregate gives one row a key and window, when the watermark has passed the window's end: the key,
/// `window_start`, `window_end`, the aggregates. The row's event time is the window's last millisecond.
///
/// ```
/// # use millstream::prelude::*;
/// # use std::time::Duration;
/// # fn hot(bids: Stream<'_, (i64, i64)>) -> Stream<'_, (i64, Timestamp, Timestamp, i64, i64)> {
/// bids.key_by(F0)
///     .window(Sliding::of(Duration::from_secs(10), Duration::from_secs(2)))
///     .aggregate((count(), max(F1)))
/// # }
/// ```
///
/// Functions of yours take the windows' rows too: [`aggregate_with`](Windowed::aggregate_with),
/// [`apply`](Windowed::apply); when a window is emitted then, [`trigger`](Windowed::trigger) says.
pub struct Windowed<'j, T, K, W, G = HostTrigger> {
    stream: KeyedStream<'j, T, K>,
    window: graph::Window,
    trigger: G,
    windows: PhantomData<W>,
}

impl<'j, T: Record, K, W: Windows> Windowed<'j, T, K, W> {
    pub(crate) fn new(stream: KeyedStream<'j, T, K>, windows: W) -> Self {
        let window = graph::Window {
            assigner: windows.contract(),
            time: TimeDomain::EventTime,
            lateness: 0,
            late_port: None,
            trigger: Trigger::AtEnd,
            purging: false,
            aggregates: Vec::new(),
        };
        Windowed { stream, window, trigger: HostTrigger, windows: PhantomData }
    }

    /// Gives a window's row also before its end, each so long, where the window has changed: Flink's
    /// `ContinuousEventTimeTrigger`.
    #[must_use]
    pub fn early(mut self, each: Duration) -> Self {
        self.window.trigger = Trigger::Early(millis(each));
        self
    }

    /// Gives a window's row each so many rows of it, and only then: Flink's `CountTrigger`.
    #[must_use]
    pub fn each_rows(mut self, rows: u64) -> Self {
        self.window.trigger = Trigger::Count(rows);
        self
    }

    /// Makes a changelog of the rows: a later row of a window updates the earlier. Without it, it is one
    /// more row.
    #[must_use]
    pub fn changes(mut self) -> Self {
        self.stream = self.stream.changes();
        self
    }

    /// Up to eight aggregates at once: `(sum(F1), avg(F2), count())`.
    #[track_caller]
    pub fn aggregate<A: Aggregates<T>>(self, aggregates: A) -> OfWindows<'j, K, A::Outputs, W>
    where
        W: WindowRow<K, A::Outputs>,
    {
        self.added(&aggregates, None, &[]).stream()
    }

    /// Up to sixteen aggregates, as a record of your own: of the key's columns, the window's start and end,
    /// and the aggregates.
    #[track_caller]
    pub fn aggregate_into<O: Record>(self, aggregates: impl Aggregates<T>) -> Stream<'j, O> {
        self.added(&aggregates, Some(Aggregation::columns_of::<O>()), &[]).stream()
    }

    #[track_caller]
    fn added(self, aggregates: &impl Aggregates<T>, into: Option<Aggregation>, late: &[String]) -> Added<'j> {
        let mut window = self.window;
        window.late_port = late.first().map(|_| 1);
        let (names, between) = (names_of(&window.assigner), between(&window.assigner));
        self.stream.aggregated(aggregates, into, names, between, late, |aggregates| {
            window.aggregates = aggregates;
            NodeKind::Window(window)
        })
    }
}

/// What windows are called in a uid, and to people.
fn names_of(assigner: &Assigner) -> (&'static str, &'static str) {
    match assigner {
        Assigner::Tumbling(_) => ("tumbling", "Tumbling Window"),
        Assigner::Sliding(_) => ("sliding", "Sliding Window"),
        Assigner::Cumulating(_) => ("cumulating", "Cumulating Window"),
        Assigner::Session(_) => ("session", "Session Window"),
        Assigner::Count(_) => ("count", "Count Window"),
        Assigner::Everything => ("global", "Global Window"),
    }
}

/// # What windows are like
impl<'j, T: Record, K, W: Windows, G> Windowed<'j, T, K, W, G> {
    /// Keeps a window so long after its end: a row that still comes gives the window's row once more.
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

    /// Forgets what a window has been emitted with: the next result is of the rows that came since. Flink's
    /// `PurgingTrigger`.
    #[must_use]
    pub fn purging(mut self) -> Self {
        self.window.purging = true;
        self
    }

    /// Gives rows that come too late for their window as a second stream. Without it they are dropped and
    /// counted.
    pub fn side_output_late(self, name: &str) -> LateWindowed<'j, T, K, W, G> {
        LateWindowed { windowed: self, name: name.into() }
    }
}

/// # One aggregate
impl<'j, T: Record, K, W: Windows> Windowed<'j, T, K, W> {
    /// The number of rows, in a column `count`.
    #[track_caller]
    pub fn count(self) -> OfWindows<'j, K, (i64,), W>
    where
        W: WindowRow<K, (i64,)>,
    {
        self.aggregate((count(),))
    }

    /// The sum of a field.
    #[track_caller]
    pub fn sum<F: FieldOf<T>>(self, field: F) -> OfWindows<'j, K, (<F::Value as Number>::Sum,), W>
    where
        F::Value: Number,
        W: WindowRow<K, (<F::Value as Number>::Sum,)>,
    {
        self.aggregate((sum(field),))
    }

    /// The least value of a field.
    #[track_caller]
    pub fn min<F: FieldOf<T>>(self, field: F) -> OfWindows<'j, K, (F::Value,), W>
    where
        F::Value: Ordered,
        W: WindowRow<K, (F::Value,)>,
    {
        self.aggregate((min(field),))
    }

    /// The greatest value of a field.
    #[track_caller]
    pub fn max<F: FieldOf<T>>(self, field: F) -> OfWindows<'j, K, (F::Value,), W>
    where
        F::Value: Ordered,
        W: WindowRow<K, (F::Value,)>,
    {
        self.aggregate((max(field),))
    }

    /// The average of a field.
    #[track_caller]
    pub fn avg<F: FieldOf<T>>(self, field: F) -> OfWindows<'j, K, (<F::Value as Number>::Average,), W>
    where
        F::Value: Number,
        W: WindowRow<K, (<F::Value as Number>::Average,)>,
    {
        self.aggregate((avg(field),))
    }
}

/// A keyed stream in windows whose late rows are a stream of their own: [`Windowed::side_output_late`].
pub struct LateWindowed<'j, T, K, W, G = HostTrigger> {
    windowed: Windowed<'j, T, K, W, G>,
    name: String,
}

impl<'j, T: Record, K, W: Windows> LateWindowed<'j, T, K, W> {
    /// As [`Windowed::aggregate`], and the stream of late rows.
    #[track_caller]
    pub fn aggregate<A: Aggregates<T>>(
        self,
        aggregates: A,
    ) -> (OfWindows<'j, K, A::Outputs, W>, Stream<'j, T>)
    where
        W: WindowRow<K, A::Outputs>,
    {
        let added = self.windowed.added(&aggregates, None, &[self.name]);
        (added.stream(), added.port(1))
    }

    /// As [`Windowed::aggregate_into`], and the stream of late rows.
    #[track_caller]
    pub fn aggregate_into<O: Record>(self, aggregates: impl Aggregates<T>) -> (Stream<'j, O>, Stream<'j, T>) {
        let added = self.windowed.added(&aggregates, Some(Aggregation::columns_of::<O>()), &[self.name]);
        (added.stream(), added.port(1))
    }
}
