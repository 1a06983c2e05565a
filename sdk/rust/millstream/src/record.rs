//! What a row is made of: types that are columns, borrowed rows of them, and builders.
//!
//! A [`Record`] is anything that a stream can carry and a field can hold. As a field it is one
//! column (and its children); as a row, a struct or tuple is its members' columns side by side.

use std::fmt::Debug;

use millstream_sys::bindings::millstream::job::rows::{Batch, Column, DataType, Field, Values};

mod failed;
mod list;
mod optional;
mod scalar;
mod text;
mod time;
mod tuple;

pub use failed::{Failed, FailedRef};
pub use list::{Binary, Items, List, ListOf, Sequence};
pub use scalar::{Bits, Decimal};
pub use time::{Date, Timestamp, TimestampMicros, TimestampNanos};

/// A type that rows, and fields of rows, can have.
///
/// There is `#[derive(Record)]` for structs; tuples, numbers, `bool`, `String`, `Vec`, `Option`,
/// [`Decimal`], [`Date`] and the timestamps are records already.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a row, or a field of one",
    label = "not a record",
    note = "rows are made of bool, i8 to i64, u8 to u32, f32, f64, String, Vec, Option, Decimal, Date, \
            Timestamp, tuples, and structs with `#[derive(Record)]`"
)]
pub trait Record: Sized + 'static {
    /// A row of this type that borrows from its batch: `&str` for `String`, `EventRef<'_>` for
    /// a derived `Event`. Closures get it by value.
    type Ref<'a>: Copy + Debug + Row<Self>;
    /// How rows are read out of columns.
    #[doc(hidden)]
    type Reader<'a>: Copy;
    /// How columns are built of rows.
    #[doc(hidden)]
    type Builder: Builder;
    /// How `Vec<Self>` lies in columns.
    #[doc(hidden)]
    type List: ListOf<Self>;

    /// Number of columns as a field: itself and its children.
    #[doc(hidden)]
    const WIDTH: u32;
    /// Whether a row of this type is its members' columns, without a column of its own.
    #[doc(hidden)]
    const IS_STRUCT: bool = false;
    /// Whether this is an `Option`.
    #[doc(hidden)]
    const IS_OPTION: bool = false;

    /// Adds its field, and those of its children.
    #[doc(hidden)]
    fn describe(name: &str, nullable: bool, fields: &mut Vec<Field>);
    /// Takes its columns.
    #[doc(hidden)]
    fn read<'a>(columns: &mut Cursor<'a>) -> Self::Reader<'a>;
    /// The value in a row.
    #[doc(hidden)]
    fn get<'a>(reader: &Self::Reader<'a>, row: usize) -> Self::Ref<'a>;

    /// Borrows a row of a value.
    fn as_row(&self) -> Self::Ref<'_>;
    /// Makes a value of a row.
    fn from_row(row: Self::Ref<'_>) -> Self;
}

/// What can be emitted where a `T` is expected: the value itself, a reference to it, its
/// borrowed form. `(word, 1)` with a `word: &str` is a row of `(String, i64)`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no row of `{T}`",
    label = "this is emitted or returned where a row of `{T}` is expected"
)]
pub trait Row<T: Record> {
    /// Appends this row.
    #[doc(hidden)]
    fn append_to(self, builder: &mut T::Builder);
}

/// Columns under construction.
#[doc(hidden)]
pub trait Builder: Default + 'static {
    /// Appends a value that stands where there is null.
    fn push_empty(&mut self);
    /// Leaves the first `rows` rows.
    fn truncate(&mut self, rows: usize);
    /// Takes the columns out; the builder is empty then, with room for another batch of the size.
    fn finish(&mut self, columns: &mut Vec<Column>);
}

/// Hands out the columns of a batch, in the order of the schema.
#[doc(hidden)]
pub struct Cursor<'a> {
    columns: std::slice::Iter<'a, Column>,
    /// The next structure is the row itself, which has no column.
    row_next: bool,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(columns: &'a [Column], row_next: bool) -> Cursor<'a> {
        Cursor { columns: columns.iter(), row_next }
    }

    /// The next column.
    ///
    /// # Panics
    /// If there is none, which the host promises not to happen.
    pub fn next_column(&mut self) -> &'a Column {
        self.columns.next().expect("a batch has the columns of its schema")
    }

    /// Passes the column of a structure, if it has one.
    ///
    /// # Panics
    /// If there is another column.
    pub fn structure(&mut self) {
        if std::mem::take(&mut self.row_next) {
            return;
        }
        let column = self.next_column();
        assert!(matches!(column.values, Values::Nothing), "a column has the type of its field");
    }

    /// Says that the next structure has no column.
    pub(crate) fn enter_row(&mut self) {
        self.row_next = true;
    }

    /// The validity of the next column.
    pub(crate) fn validity(&self) -> Option<&'a [u8]> {
        self.columns.as_slice().first()?.validity.as_deref()
    }
}

/// The schema of a stream of `T`.
pub(crate) fn schema_of<T: Record>() -> Vec<Field> {
    let mut fields = Vec::new();
    T::describe("value", false, &mut fields);
    if T::IS_STRUCT {
        fields.remove(0);
    }
    fields
}

/// Reads the rows of a batch.
pub(crate) fn reader_of<T: Record>(rows: &Batch) -> T::Reader<'_> {
    T::read(&mut Cursor::new(&rows.columns, T::IS_STRUCT))
}

/// Takes a batch's columns out of a builder.
pub(crate) fn finish_rows<T: Record>(builder: &mut T::Builder) -> Vec<Column> {
    let mut columns = Vec::with_capacity(T::WIDTH as usize);
    builder.finish(&mut columns);
    if T::IS_STRUCT {
        columns.remove(0);
    }
    columns
}

/// Places of the top-level fields of a schema.
pub(crate) fn top_level(fields: &[Field]) -> Vec<usize> {
    let mut places = Vec::new();
    let mut place = 0;
    while place < fields.len() {
        places.push(place);
        place = end_of(fields, place);
    }
    places
}

/// Where the field at `place` and its children end.
pub(crate) fn end_of(fields: &[Field], place: usize) -> usize {
    match fields[place].data_type {
        DataType::Sequence => end_of(fields, place + 1),
        DataType::Structure(members) => (0..members).fold(place + 1, |place, _| end_of(fields, place)),
        _ => place + 1,
    }
}

/// Whether the bit of a row is set.
#[inline(always)]
pub(crate) fn is_set(bits: &[u8], row: usize) -> bool {
    bits[row >> 3] >> (row & 7) & 1 == 1
}

#[cfg(test)]
mod tests;
