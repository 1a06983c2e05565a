//! Event time and watermarks.

use std::marker::PhantomData;
use std::time::Duration;

use millstream_sys::bindings::millstream::job::graph::{self, WatermarkStrategy};

use crate::field::FieldOf;
use crate::process::millis;
use crate::record::{Record, Timestamp, TimestampMicros, TimestampNanos};

/// A type that is a point in time.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no point in time",
    label = "not a time",
    note = "event time is a field of the type Timestamp, TimestampMicros or TimestampNanos, or an Option of one; \
            `map` text or numbers into one first"
)]
pub trait PointInTime: Record {}

impl PointInTime for Timestamp {}
impl PointInTime for TimestampMicros {}
impl PointInTime for TimestampNanos {}
impl<T: PointInTime> PointInTime for Option<T> {}

/// How rows of `T` get their event time, and how watermarks follow from it: Flink's
/// `WatermarkStrategy`, for [`Stream::watermarks`](crate::Stream::watermarks).
///
/// ```
/// # use millstream::prelude::*;
/// # use std::time::Duration;
/// # #[derive(Record)]
/// # struct Click { user: String, at: Timestamp }
/// # fn timed(clicks: Stream<'_, Click>) -> Stream<'_, Click> {
/// let strategy = Watermarks::bounded(Duration::from_secs(5)).time(Click::AT);
/// clicks.watermarks(strategy).stream()
/// # }
/// ```
pub struct Watermarks<T> {
    contract: graph::Watermarks,
    rows: PhantomData<fn() -> T>,
}

impl<T> Watermarks<T> {
    /// Rows are at most so long out of order: the watermark is the greatest time so far, less this,
    /// less a millisecond.
    pub fn bounded(disorder: Duration) -> Watermarks<T> {
        Watermarks::of(WatermarkStrategy::Bounded(millis(disorder)))
    }

    /// Times never fall: `bounded` by nothing.
    pub fn monotonous() -> Watermarks<T> {
        Watermarks::bounded(Duration::ZERO)
    }

    /// Some rows carry the watermark: it is the greatest value so far of this field, less a
    /// millisecond. The field is null in the others.
    pub fn punctuated<V: PointInTime, F: FieldOf<T, Value = Option<V>>>(field: F) -> Watermarks<T> {
        Watermarks::of(WatermarkStrategy::Punctuated(field.column()))
    }

    fn of(strategy: WatermarkStrategy) -> Watermarks<T> {
        let contract = graph::Watermarks {
            time_column: None,
            strategy,
            idle_after: None,
            ahead_max: None,
            alignment: None,
        };
        Watermarks { contract, rows: PhantomData }
    }

    /// The field of the event time. Without it, it is the connector's time, or else the time of
    /// arrival. A row whose field is null fails.
    #[must_use]
    pub fn time<F: FieldOf<T>>(mut self, field: F) -> Watermarks<T>
    where
        F::Value: PointInTime,
    {
        self.contract.time_column = Some(field.column());
        self
    }

    /// A subtask that has had no rows for so long holds back no watermark.
    #[must_use]
    pub fn idle_after(mut self, idle: Duration) -> Watermarks<T> {
        self.contract.idle_after = Some(millis(idle));
        self
    }

    /// A row whose time is further ahead of the machine's than this fails; a year unless set.
    #[must_use]
    pub fn ahead_max(mut self, ahead: Duration) -> Watermarks<T> {
        self.contract.ahead_max = Some(millis(ahead));
        self
    }

    /// Subtasks of all streams of this group stay near each other: one whose watermark is further
    /// than `drift` ahead of the least takes no rows until the others have followed.
    #[must_use]
    pub fn align(mut self, group: &str, drift: Duration) -> Watermarks<T> {
        self.contract.alignment = Some(graph::Alignment { group: group.into(), drift_max: millis(drift) });
        self
    }

    pub(crate) fn contract(self) -> graph::Watermarks {
        self.contract
    }
}
