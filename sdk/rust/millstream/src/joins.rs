//! Joins of two keyed streams: of a window, of an interval of time, of versions, or of all rows.

use std::marker::PhantomData;
use std::panic::Location;

use millstream_sys::bindings::millstream::job::graph::{
    self, Assigner, Interval, JoinForm, JoinSides, NodeKind, TimeDomain,
};
use millstream_sys::bindings::millstream::job::rows::Field;

use crate::aggregate::free_name;
use crate::keyed::KeyedStream;
use crate::plan::NewNode;
use crate::process::Ttl;
use crate::record::{Record, top_level};
use crate::stream::{Added, Stream, into_record};
use crate::windows::{GridWindows, Offset};

/// Two streams by the same key, to be joined: [`KeyedStream::join`].
pub struct KeyedJoin<'j, L, R, K> {
    left: KeyedStream<'j, L, K>,
    right: KeyedStream<'j, R, K>,
}

/// A join of which it is said which rows of a key meet, and not yet what becomes of a row without a match.
///
/// `O` is your record of the left columns, then the right ones; those of a side that may be missing are
/// `Option`s. That is checked when the job is planned.
///
/// ```
/// # use millstream::prelude::*;
/// # use std::time::Duration;
/// # #[derive(Record)]
/// # struct Order { id: i64, customer: String }
/// # #[derive(Record)]
/// # struct Payment { order: i64, cents: i64 }
/// #[derive(Record)]
/// struct Paid { id: i64, customer: String, order: Option<i64>, cents: Option<i64> }
///
/// # fn paid<'j>(orders: Stream<'j, Order>, payments: Stream<'j, Payment>) -> Stream<'j, Paid> {
/// orders
///     .key_by(Order::ID)
///     .join(payments.key_by(Payment::ORDER))
///     .between(Duration::ZERO, Duration::from_secs(60 * 60))
///     .left::<Paid>()
/// # }
/// ```
pub struct Joined<'j, L, R, K, F> {
    left: KeyedStream<'j, L, K>,
    right: KeyedStream<'j, R, K>,
    form: JoinForm,
    kind: PhantomData<F>,
}

/// A join by time, as a type.
#[derive(Debug)]
pub enum ByTime {}

/// A join of all rows, as a type.
#[derive(Debug)]
pub enum Unbounded {}

impl<'j, L: Record, R: Record, K> KeyedJoin<'j, L, R, K> {
    pub(crate) fn new(left: KeyedStream<'j, L, K>, right: KeyedStream<'j, R, K>) -> Self {
        KeyedJoin { left, right }
    }

    /// Rows of the same window meet; pairs are given at its end.
    pub fn window(self, windows: impl GridWindows) -> Joined<'j, L, R, K, ByTime> {
        self.of(JoinForm::Window(windows.contract()))
    }

    /// Rows meet where the right one's event time is from `lower` to `upper` after the left one's, both
    /// included: Flink's interval join. `.between(before(ten_minutes), Duration::ZERO)`: at most ten minutes
    /// earlier.
    pub fn between(self, lower: impl Into<Offset>, upper: impl Into<Offset>) -> Joined<'j, L, R, K, ByTime> {
        let (lower, upper) = (lower.into().millis(), upper.into().millis());
        self.of(JoinForm::Interval(Interval { lower, upper }))
    }

    /// All rows of a key meet, whenever they come: SQL's regular join. Both sides are kept, for ever
    /// without [`ttl`](Joined::ttl). It takes changelogs.
    pub fn unbounded(self) -> Joined<'j, L, R, K, Unbounded> {
        self.of(JoinForm::Unbounded(None))
    }

    fn of<F>(self, form: JoinForm) -> Joined<'j, L, R, K, F> {
        Joined { left: self.left, right: self.right, form, kind: PhantomData }
    }
}

impl<L: Record, R: Record, K> Joined<'_, L, R, K, Unbounded> {
    /// How long a row is kept.
    #[must_use]
    pub fn ttl(mut self, ttl: Ttl) -> Self {
        self.form = JoinForm::Unbounded(Some(ttl.contract()));
        self
    }
}

impl<'j, L: Record, R: Record, K, F> Joined<'j, L, R, K, F> {
    /// Pairs only.
    #[track_caller]
    pub fn inner<O: Record>(self) -> Stream<'j, O> {
        self.pairs(JoinSides::Inner)
    }

    /// Pairs, and left rows without one.
    #[track_caller]
    pub fn left<O: Record>(self) -> Stream<'j, O> {
        self.pairs(JoinSides::Left)
    }

    /// Pairs, and right rows without one.
    #[track_caller]
    pub fn right<O: Record>(self) -> Stream<'j, O> {
        self.pairs(JoinSides::Right)
    }

    /// Pairs, and rows of both sides without one.
    #[track_caller]
    pub fn full<O: Record>(self) -> Stream<'j, O> {
        self.pairs(JoinSides::Full)
    }

    /// Left rows that have a match, once.
    #[track_caller]
    pub fn semi(self) -> Stream<'j, L> {
        let fields = self.left.fields();
        self.added(JoinSides::Semi, fields).stream()
    }

    /// Left rows that have no match.
    #[track_caller]
    pub fn anti(self) -> Stream<'j, L> {
        let fields = self.left.fields();
        self.added(JoinSides::Anti, fields).stream()
    }

    #[track_caller]
    fn pairs<O: Record>(self, sides: JoinSides) -> Stream<'j, O> {
        let is_left_missing = matches!(sides, JoinSides::Right | JoinSides::Full);
        let is_right_missing = matches!(sides, JoinSides::Left | JoinSides::Full);
        let mut names = Vec::new();
        let mut fields = side(self.left.fields(), is_left_missing, "left", &mut names);
        fields.extend(side(self.right.fields(), is_right_missing, "right", &mut names));
        let fields = into_record::<O>(self.left.job(), fields, "this join", Location::caller());
        self.added(sides, fields).stream()
    }

    #[track_caller]
    fn added(self, sides: JoinSides, fields: Vec<Field>) -> Added<'j> {
        let (kind, name) = match &self.form {
            JoinForm::Window(Assigner::Tumbling(_)) => ("tumbling-join", "Tumbling Window Join"),
            JoinForm::Window(_) => ("window-join", "Window Join"),
            JoinForm::Interval(_) => ("interval-join", "Interval Join"),
            JoinForm::Unbounded(_) => ("join", "Join"),
            JoinForm::Temporal(_) => ("temporal-join", "Temporal Join"),
        };
        let side = match sides {
            JoinSides::Inner => "inner",
            JoinSides::Left => "left",
            JoinSides::Right => "right",
            JoinSides::Full => "full",
            JoinSides::Semi => "semi",
            JoinSides::Anti => "anti",
        };
        let uid = [self.left.uid(kind, &[side]), self.right.key_names()].join("-and-");
        let new = NewNode {
            name: format!("{name}: {side}"),
            uid: Some(uid),
            kind: NodeKind::Join(graph::Join { sides, form: self.form }),
            outputs: vec![("main".into(), fields)],
            stage: None,
        };
        let right = self.right.keyed_entry();
        self.left.keyed_node(new, Some(right))
    }
}

/// A stream and a table in versions, to be joined: [`KeyedStream::temporal_join`].
///
/// By event time a row waits until the watermark has reached its time, and meets the table's row that is
/// valid then: the last of its key up to and including its time. Rows that are later than the watermark
/// wait for the next one, and meet what versions there still are.
///
/// ```
/// # use millstream::prelude::*;
/// # #[derive(Record)]
/// # struct Order { id: i64, currency: String, cents: i64 }
/// # #[derive(Record)]
/// # struct Rate { currency: String, rate: f64 }
/// #[derive(Record)]
/// struct Priced { id: i64, currency: String, cents: i64, of: Option<String>, rate: Option<f64> }
///
/// # fn priced<'j>(orders: Stream<'j, Order>, rates: Stream<'j, Rate>) -> Stream<'j, Priced> {
/// orders
///     .key_by(Order::CURRENCY)
///     .temporal_join(rates.key_by(Rate::CURRENCY))
///     .left::<Priced>()
/// # }
/// ```
pub struct TemporalJoin<'j, L, R, K> {
    join: KeyedJoin<'j, L, R, K>,
    time: TimeDomain,
}

impl<'j, L: Record, K> KeyedStream<'j, L, K> {
    /// This stream and a table in versions by the same key, to be joined: Flink's temporal join, SQL's
    /// `FOR SYSTEM_TIME AS OF`. The versions are a changelog, such as that of
    /// [`deduplicate_last`](KeyedStream::deduplicate_last) or of an aggregate, or a stream of rows each of which takes the
    /// place of the one before it of its key.
    pub fn temporal_join<R: Record>(self, versions: KeyedStream<'j, R, K>) -> TemporalJoin<'j, L, R, K> {
        TemporalJoin { join: KeyedJoin::new(self, versions), time: TimeDomain::EventTime }
    }
}

impl<'j, L: Record, R: Record, K> TemporalJoin<'j, L, R, K> {
    /// Rows meet the table's last row of their key as they come, whatever their times.
    #[must_use]
    pub fn processing_time(mut self) -> Self {
        self.time = TimeDomain::ProcessingTime;
        self
    }

    /// Rows that have a version, with it.
    #[track_caller]
    pub fn inner<O: Record>(self) -> Stream<'j, O> {
        self.joined().inner()
    }

    /// All rows, with their version where they have one.
    #[track_caller]
    pub fn left<O: Record>(self) -> Stream<'j, O> {
        self.joined().left()
    }

    fn joined(self) -> Joined<'j, L, R, K, ByTime> {
        self.join.of(JoinForm::Temporal(self.time))
    }
}

/// The columns of a side: nullable where it may be missing, under names that are not taken.
pub(crate) fn side(
    mut fields: Vec<Field>,
    is_missing: bool,
    side: &str,
    names: &mut Vec<String>,
) -> Vec<Field> {
    for place in top_level(&fields) {
        let name = fields[place].name.clone();
        let name = free_name(names, [name.clone(), format!("{side}_{name}")]);
        fields[place].name.clone_from(&name);
        names.push(name);
        // A structure that is null has members that are null or anything.
        fields[place].nullable |= is_missing;
    }
    fields
}
