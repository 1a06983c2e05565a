//! Windows over keyed streams: which there are, and what is said about them.

use std::time::Duration;

use millstream_sys::bindings::millstream::job::graph::{self, Assigner, Grid, NodeKind, TimeDomain, Trigger};

use crate::aggregate::{Aggregates, avg, count, max, min, sum};
use crate::field::{FieldOf, Number, Ordered, WindowJoin};
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

/// Says in which windows a row is: [`Tumbling`], [`Sliding`], [`Cumulating`], [`Session`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no kind of windows",
    label = "not a kind of windows",
    note = "windows are `Tumbling::of(size)`, `Sliding::of(size, slide)`, `Cumulating::of(size, step)`, \
            `Session::with_gap(gap)`"
)]
pub trait Windows {
    /// As the contract has it.
    #[doc(hidden)]
    fn contract(self) -> Assigner;
}

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

/// The rows of aggregates `A` by the key `K` and window: `(key…, window_start, window_end, aggregate…)`.
type OfWindows<'j, K, A> = Stream<'j, <K as WindowJoin<A>>::Output>;

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
pub struct Windowed<'j, T, K> {
    stream: KeyedStream<'j, T, K>,
    window: graph::Window,
}

impl<'j, T: Record, K> Windowed<'j, T, K> {
    pub(crate) fn new(stream: KeyedStream<'j, T, K>, windows: impl Windows) -> Windowed<'j, T, K> {
        let window = graph::Window {
            assigner: windows.contract(),
            time: TimeDomain::EventTime,
            lateness: 0,
            late_port: None,
            trigger: Trigger::AtEnd,
            purging: false,
            aggregates: Vec::new(),
        };
        Windowed { stream, window }
    }

    /// Keeps a window so long after its end: a row that still comes gives the window's row once more.
    #[must_use]
    pub fn allowed_lateness(mut self, lateness: Duration) -> Self {
        self.window.lateness = millis(lateness);
        self
    }

    /// Gives a window's row also before its end, each so long, where the window has changed.
    #[must_use]
    pub fn early(mut self, each: Duration) -> Self {
        self.window.trigger = Trigger::Early(millis(each));
        self
    }

    /// Puts rows into windows by the machine's time instead of their own.
    #[must_use]
    pub fn processing_time(mut self) -> Self {
        self.window.time = TimeDomain::ProcessingTime;
        self
    }

    /// Makes a changelog of the rows: a later row of a window updates the earlier. Without it, it is one
    /// more row.
    #[must_use]
    pub fn changes(mut self) -> Self {
        self.stream = self.stream.changes();
        self
    }

    /// Gives rows that come too late for their window as a second stream. Without it they are dropped and
    /// counted.
    pub fn side_output_late(self, name: &str) -> LateWindowed<'j, T, K> {
        LateWindowed { windowed: self, name: name.into() }
    }

    /// Up to eight aggregates at once: `(sum(F1), avg(F2), count())`.
    #[track_caller]
    pub fn aggregate<A: Aggregates<T>>(self, aggregates: A) -> OfWindows<'j, K, A::Outputs>
    where
        K: WindowJoin<A::Outputs>,
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
        let (kind, name) = match &window.assigner {
            Assigner::Tumbling(_) => ("tumbling", "Tumbling Window"),
            Assigner::Sliding(_) => ("sliding", "Sliding Window"),
            Assigner::Cumulating(_) => ("cumulating", "Cumulating Window"),
            Assigner::Session(_) => ("session", "Session Window"),
            Assigner::Count(_) => ("count", "Count Window"),
            Assigner::Everything => ("global", "Global Window"),
        };
        window.late_port = late.first().map(|_| 1);
        let between = ["window_start", "window_end"];
        self.stream.aggregated(aggregates, into, (kind, name), &between, late, |aggregates| {
            window.aggregates = aggregates;
            NodeKind::Window(window)
        })
    }
}

/// # One aggregate
impl<'j, T: Record, K> Windowed<'j, T, K> {
    /// The number of rows, in a column `count`.
    #[track_caller]
    pub fn count(self) -> OfWindows<'j, K, (i64,)>
    where
        K: WindowJoin<(i64,)>,
    {
        self.aggregate((count(),))
    }

    /// The sum of a field.
    #[track_caller]
    pub fn sum<F: FieldOf<T>>(self, field: F) -> OfWindows<'j, K, (<F::Value as Number>::Sum,)>
    where
        F::Value: Number,
        K: WindowJoin<(<F::Value as Number>::Sum,)>,
    {
        self.aggregate((sum(field),))
    }

    /// The least value of a field.
    #[track_caller]
    pub fn min<F: FieldOf<T>>(self, field: F) -> OfWindows<'j, K, (F::Value,)>
    where
        F::Value: Ordered,
        K: WindowJoin<(F::Value,)>,
    {
        self.aggregate((min(field),))
    }

    /// The greatest value of a field.
    #[track_caller]
    pub fn max<F: FieldOf<T>>(self, field: F) -> OfWindows<'j, K, (F::Value,)>
    where
        F::Value: Ordered,
        K: WindowJoin<(F::Value,)>,
    {
        self.aggregate((max(field),))
    }

    /// The average of a field.
    #[track_caller]
    pub fn avg<F: FieldOf<T>>(self, field: F) -> OfWindows<'j, K, (<F::Value as Number>::Average,)>
    where
        F::Value: Number,
        K: WindowJoin<(<F::Value as Number>::Average,)>,
    {
        self.aggregate((avg(field),))
    }
}

/// A keyed stream in windows whose late rows are a stream of their own: [`Windowed::side_output_late`].
pub struct LateWindowed<'j, T, K> {
    windowed: Windowed<'j, T, K>,
    name: String,
}

impl<'j, T: Record, K> LateWindowed<'j, T, K> {
    /// As [`Windowed::aggregate`], and the stream of late rows.
    #[track_caller]
    pub fn aggregate<A: Aggregates<T>>(self, aggregates: A) -> (OfWindows<'j, K, A::Outputs>, Stream<'j, T>)
    where
        K: WindowJoin<A::Outputs>,
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
