//! Values that may be null.

use millstream_sys::bindings::millstream::job::rows::{Column, Field};

use super::{Bits, Builder, Cursor, Record, Row, Sequence, is_set};

/// A growing column with a bit a row that says whether there is a value.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct OptionBuilder<B> {
    present: Bits,
    nulls: usize,
    values: B,
}

impl<B: Builder> Builder for OptionBuilder<B> {
    fn push_empty(&mut self) {
        self.present.push(false);
        self.nulls += 1;
        self.values.push_empty();
    }

    fn truncate(&mut self, rows: usize) {
        // `nulls` may then be too high, which costs a bitmap that need not be.
        self.present.truncate(rows);
        self.values.truncate(rows);
    }

    fn finish(&mut self, columns: &mut Vec<Column>) {
        let place = columns.len();
        self.values.finish(columns);
        let present = self.present.take();
        if std::mem::take(&mut self.nulls) > 0 {
            columns[place].validity = Some(present);
        }
    }
}

impl<T: Record> Record for Option<T> {
    type Ref<'a> = Option<T::Ref<'a>>;
    type Reader<'a> = (Option<&'a [u8]>, T::Reader<'a>);
    type Builder = OptionBuilder<T::Builder>;
    type List = Sequence<Option<T>>;
    const WIDTH: u32 = T::WIDTH;
    const IS_OPTION: bool = true;

    fn describe(name: &str, _nullable: bool, fields: &mut Vec<Field>) {
        const { assert!(!T::IS_OPTION, "an Option of an Option has no column of its own") }
        T::describe(name, true, fields);
    }

    fn read<'a>(columns: &mut Cursor<'a>) -> Self::Reader<'a> {
        let validity = columns.validity();
        (validity, T::read(columns))
    }

    #[inline(always)]
    fn get<'a>(reader: &Self::Reader<'a>, row: usize) -> Self::Ref<'a> {
        let present = reader.0.is_none_or(|bits| is_set(bits, row));
        present.then(|| T::get(&reader.1, row))
    }

    fn as_row(&self) -> Option<T::Ref<'_>> {
        self.as_ref().map(T::as_row)
    }

    fn from_row(row: Option<T::Ref<'_>>) -> Option<T> {
        row.map(T::from_row)
    }
}

impl<T: Record, R: Row<T>> Row<Option<T>> for Option<R> {
    #[inline(always)]
    fn append_to(self, builder: &mut OptionBuilder<T::Builder>) {
        match self {
            Some(row) => {
                builder.present.push(true);
                row.append_to(&mut builder.values);
            }
            None => builder.push_empty(),
        }
    }
}

impl<T: Record> Row<Option<T>> for &Option<T> {
    #[inline(always)]
    fn append_to(self, builder: &mut OptionBuilder<T::Builder>) {
        self.as_row().append_to(builder);
    }
}
