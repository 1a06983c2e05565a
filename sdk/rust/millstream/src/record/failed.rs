//! A row that a function or a source could not take, with the reason.

use std::fmt;

use millstream_sys::bindings::millstream::job::rows::{Column, DataType, Field, Values};
use millstream_sys::bytes::BytesBuilder;
use millstream_sys::text::Text;

use super::{Builder, Cursor, Record, Row, Sequence};

/// A row that failed: what `divert_failures` gives.
///
/// Its columns are those of the row, and `failure`. Of a source the row is the record as it was,
/// `Failed<Vec<u8>>`, in the column `record`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Failed<T> {
    /// the row
    pub row: T,
    /// why it failed
    pub failure: String,
}

/// A borrowed [`Failed`].
pub struct FailedRef<'a, T: Record> {
    /// the row
    pub row: T::Ref<'a>,
    /// why it failed
    pub failure: &'a str,
}

impl<T: Record> Clone for FailedRef<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: Record> Copy for FailedRef<'_, T> {}

impl<T: Record> fmt::Debug for FailedRef<'_, T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Failed").field("row", &self.row).field("failure", &self.failure).finish()
    }
}

/// A growing batch of failed rows.
#[doc(hidden)]
#[derive(Debug)]
pub struct RowBuilder<T: Record> {
    row: T::Builder,
    failure: BytesBuilder,
}

impl<T: Record> Default for RowBuilder<T> {
    fn default() -> Self {
        RowBuilder { row: T::Builder::default(), failure: BytesBuilder::default() }
    }
}

impl<T: Record> Builder for RowBuilder<T> {
    fn push_empty(&mut self) {
        self.row.push_empty();
        self.failure.push_empty();
    }

    fn truncate(&mut self, rows: usize) {
        self.row.truncate(rows);
        self.failure.truncate(rows);
    }

    fn finish(&mut self, columns: &mut Vec<Column>) {
        columns.push(Column { values: Values::Nothing, validity: None });
        columns.append(&mut super::finish_rows::<T>(&mut self.row));
        Builder::finish(&mut self.failure, columns);
    }
}

impl<T: Record> Record for Failed<T> {
    type Ref<'a> = FailedRef<'a, T>;
    type Reader<'a> = (T::Reader<'a>, Text<'a>);
    type Builder = RowBuilder<T>;
    type List = Sequence<Self>;
    const WIDTH: u32 = T::WIDTH + if T::IS_STRUCT { 1 } else { 2 };
    const IS_STRUCT: bool = true;

    fn describe(name: &str, nullable: bool, fields: &mut Vec<Field>) {
        let mut row = super::schema_of::<T>();
        // A schema has fewer fields than 2^32.
        let members = super::top_level(&row).len() as u32 + 1;
        fields.push(Field { name: name.into(), data_type: DataType::Structure(members), nullable });
        fields.append(&mut row);
        String::describe("failure", false, fields);
    }

    fn read<'a>(columns: &mut Cursor<'a>) -> Self::Reader<'a> {
        columns.structure();
        if T::IS_STRUCT {
            columns.enter_row();
        }
        (T::read(columns), String::read(columns))
    }

    fn get<'a>(reader: &Self::Reader<'a>, row: usize) -> Self::Ref<'a> {
        FailedRef { row: T::get(&reader.0, row), failure: reader.1.get(row) }
    }

    fn as_row(&self) -> FailedRef<'_, T> {
        FailedRef { row: self.row.as_row(), failure: &self.failure }
    }

    fn from_row(row: FailedRef<'_, T>) -> Failed<T> {
        Failed { row: T::from_row(row.row), failure: row.failure.to_string() }
    }
}

impl<T: Record> Row<Failed<T>> for FailedRef<'_, T> {
    fn append_to(self, builder: &mut RowBuilder<T>) {
        self.row.append_to(&mut builder.row);
        builder.failure.push(self.failure.as_bytes());
    }
}

impl<T: Record> Row<Failed<T>> for Failed<T> {
    fn append_to(self, builder: &mut RowBuilder<T>) {
        self.as_row().append_to(builder);
    }
}

impl<T: Record> Row<Failed<T>> for &Failed<T> {
    fn append_to(self, builder: &mut RowBuilder<T>) {
        self.as_row().append_to(builder);
    }
}
