//! The first rows of a key in an order: top-n and deduplication.

use std::panic::Location;

use millstream_sys::bindings::millstream::job::graph::{self, NodeKind, Ordering};
use millstream_sys::bindings::millstream::job::rows::{DataType, Field};

use crate::aggregate::free_name;
use crate::field::{FieldOf, Ordered};
use crate::keyed::KeyedStream;
use crate::plan::NewNode;
use crate::record::{Record, top_level};
use crate::stream::{Added, Stream, into_record};

/// An order by one field: [`asc`], [`desc`].
#[derive(Clone, Copy, Debug)]
pub struct Order<F> {
    field: F,
    descending: bool,
    nulls_last: bool,
}

/// From the least value of a field up; nulls come first, as in Flink.
pub fn asc<F>(field: F) -> Order<F> {
    Order { field, descending: false, nulls_last: false }
}

/// From the greatest value of a field down; nulls come last, as in Flink.
pub fn desc<F>(field: F) -> Order<F> {
    Order { field, descending: true, nulls_last: true }
}

impl<F> Order<F> {
    /// Puts nulls before all values.
    #[must_use]
    pub fn nulls_first(self) -> Order<F> {
        Order { nulls_last: false, ..self }
    }

    /// Puts nulls after all values.
    #[must_use]
    pub fn nulls_last(self) -> Order<F> {
        Order { nulls_last: true, ..self }
    }
}

/// An order of rows of `T`: [`asc`] or [`desc`] of a field, or a tuple of up to four of them.
#[diagnostic::on_unimplemented(
    message = "rows of `{T}` cannot be ordered by this",
    label = "not an order of `{T}`",
    note = "an order is `asc(FIELD)` or `desc(FIELD)`, or a tuple of them; fields are numbers, String, Decimal, \
            Date, the timestamps, and Options of them"
)]
pub trait Orders<T> {
    /// As the contract has it.
    #[doc(hidden)]
    fn contract(&self) -> Vec<Ordering>;
}

impl<T, F: FieldOf<T>> Orders<T> for Order<F>
where
    F::Value: Ordered,
{
    fn contract(&self) -> Vec<Ordering> {
        let Order { field, descending, nulls_last } = *self;
        vec![Ordering { column: field.column(), descending, nulls_last }]
    }
}

macro_rules! tuples {
    ($(($($member:ident $place:tt)*);)*) => {$(
        impl<T, $($member: Orders<T>),*> Orders<T> for ($($member,)*) {
            fn contract(&self) -> Vec<Ordering> {
                [$(self.$place.contract()),*].concat()
            }
        }
    )*};
}

tuples! {
    (A 0);
    (A 0 B 1);
    (A 0 B 1 C 2);
    (A 0 B 1 C 2 D 3);
}

/// # The first rows of a key
///
/// They run in the host, and give changelogs: a row that comes into the first `n` pushes another out.
/// With `--execution batch` the final rows come at the end. A tie is decided by the order of arrival.
impl<'j, T: Record, K> KeyedStream<'j, T, K> {
    /// The first `n` rows of each key in this order: `top(3, (desc(F2), asc(F0)))`.
    #[track_caller]
    pub fn top(self, n: u32, order: impl Orders<T>) -> Stream<'j, T> {
        let fields = self.fields();
        self.first_rows(n, order.contract(), fields, false).stream()
    }

    /// As [`top`](Self::top), with each row's number, from 1, as the last column: `O` is your record of the
    /// row's columns and an `i64`. It is an update of its rows when another comes before them, so it
    /// costs more.
    #[track_caller]
    pub fn top_ranked<O: Record>(self, n: u32, order: impl Orders<T>) -> Stream<'j, O> {
        let mut fields = self.fields();
        let names: Vec<String> = top_level(&fields).iter().map(|place| fields[*place].name.clone()).collect();
        let name = free_name(&names, ["rank".to_string()]);
        fields.push(Field { name, data_type: DataType::Int64, nullable: false });
        let fields = into_record::<O>(self.job(), fields, "the rows and their rank", Location::caller());
        self.first_rows(n, order.contract(), fields, true).stream()
    }

    /// The first row of each key, by a field such as its time. Of rows with the same value the one that
    /// came first.
    #[track_caller]
    pub fn deduplicate_first<F: FieldOf<T>>(self, by: F) -> Stream<'j, T>
    where
        F::Value: Ordered,
    {
        self.top(1, asc(by))
    }

    /// The last row of each key, by a field such as its time: a table that changes with the stream. Of rows
    /// with the same value the one that came first.
    #[track_caller]
    pub fn deduplicate_last<F: FieldOf<T>>(self, by: F) -> Stream<'j, T>
    where
        F::Value: Ordered,
    {
        self.top(1, desc(by))
    }

    #[track_caller]
    fn first_rows(self, limit: u32, order: Vec<Ordering>, fields: Vec<Field>, rank: bool) -> Added<'j> {
        let by: Vec<&str> =
            order.iter().filter_map(|order| Some(fields.get(order.column as usize)?.name.as_str())).collect();
        let name = format!("Top {limit}: {}", by.join(", "));
        let uid = self.uid("top", &by);
        let kind = NodeKind::Top(graph::Top { limit, order, rank });
        let outputs = vec![("main".into(), fields)];
        self.keyed_node(NewNode { name, uid: Some(uid), kind, outputs, stage: None }, None)
    }
}
