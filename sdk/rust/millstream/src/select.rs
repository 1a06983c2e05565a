//! Columns of a stream, whole: `select`.

use std::borrow::Cow;
use std::ops::Range;
use std::panic::Location;

use millstream_sys::bindings::millstream::job::rows::{Batch, Column, Field};

use crate::aggregate::free_name;
use crate::emit::Made;
use crate::field::FieldOf;
use crate::record::Record;
use crate::run::{Outcome, Stage, filtered};
use crate::stream::{Stream, into_record};

/// Some fields of rows of `T`: a tuple of up to sixteen.
#[diagnostic::on_unimplemented(
    message = "these are not fields of `{T}`",
    label = "not a tuple of fields of `{T}`",
    note = "fields of a struct are constants of it, such as `Event::USER`; fields of a tuple are F0 … F11"
)]
pub trait Fields<T> {
    /// Their values, as a tuple.
    type Values;
    /// The columns of each.
    #[doc(hidden)]
    fn columns(&self) -> Vec<Range<usize>>;
}

fn columns_of<T, F: FieldOf<T>>(field: F) -> Range<usize> {
    let first = field.column() as usize;
    first..first + F::Value::WIDTH as usize
}

macro_rules! tuples {
    ($(($($member:ident $place:tt)*);)*) => {$(
        impl<T, $($member: FieldOf<T>),*> Fields<T> for ($($member,)*) {
            type Values = ($($member::Value,)*);

            fn columns(&self) -> Vec<Range<usize>> {
                vec![$(columns_of(self.$place)),*]
            }
        }
    )*};
}

tuples! {
    (A 0);
    (A 0 B 1);
    (A 0 B 1 C 2);
    (A 0 B 1 C 2 D 3);
    (A 0 B 1 C 2 D 3 E 4);
    (A 0 B 1 C 2 D 3 E 4 F 5);
    (A 0 B 1 C 2 D 3 E 4 F 5 G 6);
    (A 0 B 1 C 2 D 3 E 4 F 5 G 6 H 7);
    (A 0 B 1 C 2 D 3 E 4 F 5 G 6 H 7 I 8);
    (A 0 B 1 C 2 D 3 E 4 F 5 G 6 H 7 I 8 J 9);
    (A 0 B 1 C 2 D 3 E 4 F 5 G 6 H 7 I 8 J 9 K 10);
    (A 0 B 1 C 2 D 3 E 4 F 5 G 6 H 7 I 8 J 9 K 10 L 11);
    (A 0 B 1 C 2 D 3 E 4 F 5 G 6 H 7 I 8 J 9 K 10 L 11 M 12);
    (A 0 B 1 C 2 D 3 E 4 F 5 G 6 H 7 I 8 J 9 K 10 L 11 M 12 N 13);
    (A 0 B 1 C 2 D 3 E 4 F 5 G 6 H 7 I 8 J 9 K 10 L 11 M 12 N 13 O 14);
    (A 0 B 1 C 2 D 3 E 4 F 5 G 6 H 7 I 8 J 9 K 10 L 11 M 12 N 13 O 14 P 15);
}

/// # Columns of rows
impl<'j, T: Record> Stream<'j, T> {
    /// Leaves some fields of each row, in this order, under their names. Columns go on as they are, so it is
    /// cheaper than a `map`.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # #[derive(Record)]
    /// # struct Bid { auction: i64, bidder: i64, price: i64, url: String }
    /// # fn prices(bids: Stream<'_, Bid>) -> Stream<'_, (i64, i64)> {
    /// bids.select((Bid::AUCTION, Bid::PRICE))
    /// # }
    /// ```
    #[track_caller]
    pub fn select<F: Fields<T>>(self, fields: F) -> Stream<'j, F::Values>
    where
        F::Values: Record,
    {
        self.selected::<F::Values>(fields.columns())
    }

    /// As [`select`](Self::select), as a record of your own.
    #[track_caller]
    pub fn select_into<O: Record>(self, fields: impl Fields<T>) -> Stream<'j, O> {
        self.selected(fields.columns())
    }

    #[track_caller]
    fn selected<O: Record>(self, columns: Vec<Range<usize>>) -> Stream<'j, O> {
        let input = self.fields();
        let mut names = Vec::new();
        let mut fields: Vec<Field> = Vec::new();
        for columns in &columns {
            let place = fields.len();
            fields.extend_from_slice(&input[columns.clone()]);
            fields[place].name = free_name(&names, [fields[place].name.clone()]);
            names.push(fields[place].name.clone());
        }
        let fields = into_record::<O>(self.job, fields, "this selection", Location::caller());
        self.function("Select", selected::<T>(columns.into_iter().flatten().collect()), vec![fields]).stream()
    }
}

/// Leaves these columns of a batch.
fn selected<T: Record>(columns: Vec<usize>) -> Stage {
    let mut passing = filtered::<T>(|_| Ok(true));
    Stage::Stateless(Box::new(move |frame| {
        let (rows, origins) = match (&mut passing, frame.skip) {
            // Rows to be left out are few and rare.
            (Stage::Stateless(passing), Some(_)) => match passing(frame).made.pop() {
                Some((_, made)) => (Cow::Owned(made.rows), made.origins),
                None => return Outcome::default(),
            },
            _ => {
                let origins = frame.origins.then(|| (0..frame.rows.length).collect());
                (frame.rows, origins)
            }
        };
        if rows.length == 0 {
            return Outcome::default();
        }
        let rows = match rows {
            Cow::Borrowed(rows) => Batch {
                length: rows.length,
                event_times: rows.event_times.clone(),
                kinds: rows.kinds.clone(),
                columns: columns.iter().map(|column| rows.columns[*column].clone()).collect(),
            },
            Cow::Owned(rows) => Batch { columns: taken(rows.columns, &columns), ..rows },
        };
        Outcome { made: vec![(0, Made { rows, origins })], ..Outcome::default() }
    }))
}

/// Takes columns out, each moved where it is wanted last.
fn taken(columns: Vec<Column>, wanted: &[usize]) -> Vec<Column> {
    let mut columns: Vec<Option<Column>> = columns.into_iter().map(Some).collect();
    let take = |(place, column): (usize, &usize)| {
        if wanted[place + 1..].contains(column) { columns[*column].clone() } else { columns[*column].take() }
    };
    wanted.iter().enumerate().filter_map(take).collect()
}
