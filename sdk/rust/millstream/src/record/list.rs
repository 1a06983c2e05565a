//! Lists, and byte strings, which are lists of `u8`.

use std::fmt;
use std::marker::PhantomData;

use millstream_sys::bindings::millstream::job::rows::{Column, DataType, Field, Values};
use millstream_sys::bytes::BytesBuilder;
use millstream_sys::text::Bytes;

use super::{Builder, Cursor, Record, Row, scalar::other_type};

/// How `Vec<T>` lies in columns.
#[doc(hidden)]
pub trait ListOf<T: Record>: 'static {
    type Ref<'a>: Copy + fmt::Debug + Row<Vec<T>>;
    type Reader<'a>: Copy;
    type Builder: Builder;
    const WIDTH: u32;
    fn describe(name: &str, nullable: bool, fields: &mut Vec<Field>);
    fn read<'a>(columns: &mut Cursor<'a>) -> Self::Reader<'a>;
    fn get<'a>(reader: &Self::Reader<'a>, row: usize) -> Self::Ref<'a>;
    fn as_row(list: &[T]) -> Self::Ref<'_>;
    fn from_row(row: Self::Ref<'_>) -> Vec<T>;
    fn append(list: &[T], builder: &mut Self::Builder);
}

impl<T: Record> Record for Vec<T> {
    type Ref<'a> = <T::List as ListOf<T>>::Ref<'a>;
    type Reader<'a> = <T::List as ListOf<T>>::Reader<'a>;
    type Builder = <T::List as ListOf<T>>::Builder;
    type List = Sequence<Vec<T>>;
    const WIDTH: u32 = <T::List as ListOf<T>>::WIDTH;

    fn describe(name: &str, nullable: bool, fields: &mut Vec<Field>) {
        T::List::describe(name, nullable, fields);
    }

    fn read<'a>(columns: &mut Cursor<'a>) -> Self::Reader<'a> {
        T::List::read(columns)
    }

    #[inline(always)]
    fn get<'a>(reader: &Self::Reader<'a>, row: usize) -> Self::Ref<'a> {
        T::List::get(reader, row)
    }

    fn as_row(&self) -> Self::Ref<'_> {
        T::List::as_row(self)
    }

    fn from_row(row: Self::Ref<'_>) -> Vec<T> {
        T::List::from_row(row)
    }
}

impl<T: Record> Row<Vec<T>> for Vec<T> {
    fn append_to(self, builder: &mut <Vec<T> as Record>::Builder) {
        T::List::append(&self, builder);
    }
}

impl<T: Record> Row<Vec<T>> for &Vec<T> {
    fn append_to(self, builder: &mut <Vec<T> as Record>::Builder) {
        T::List::append(self, builder);
    }
}

impl<T: Record> Row<Vec<T>> for &[T] {
    fn append_to(self, builder: &mut <Vec<T> as Record>::Builder) {
        T::List::append(self, builder);
    }
}

/// Emits the items of an iterator as one list: `Items(line.split(','))` is a row of `Vec<String>`.
#[derive(Clone, Debug)]
pub struct Items<I>(
    /// anything to iterate over
    pub I,
);

impl<T, I> Row<Vec<T>> for Items<I>
where
    T: Record<List = Sequence<T>>,
    I: IntoIterator,
    I::Item: Row<T>,
{
    fn append_to(self, builder: &mut ListBuilder<T::Builder>) {
        let mut length = 0;
        for item in self.0 {
            item.append_to(&mut builder.items);
            length += 1;
        }
        builder.close(length);
    }
}

/// Lists of what is not a byte: offsets into the items' columns.
#[doc(hidden)]
pub struct Sequence<T>(PhantomData<T>);

/// A growing column of lists.
#[doc(hidden)]
#[derive(Debug)]
pub struct ListBuilder<B> {
    offsets: Vec<u32>,
    items: B,
}

impl<B: Builder> Default for ListBuilder<B> {
    fn default() -> ListBuilder<B> {
        ListBuilder { offsets: vec![0], items: B::default() }
    }
}

impl<B> ListBuilder<B> {
    fn close(&mut self, length: u32) {
        self.offsets.push(self.offsets[self.offsets.len() - 1] + length);
    }
}

impl<B: Builder> Builder for ListBuilder<B> {
    fn push_empty(&mut self) {
        self.close(0);
    }

    fn truncate(&mut self, rows: usize) {
        self.offsets.truncate(rows + 1);
        // Items of a row that failed half-way go too.
        self.items.truncate(self.offsets[self.offsets.len() - 1] as usize);
    }

    fn finish(&mut self, columns: &mut Vec<Column>) {
        let offsets = std::mem::replace(&mut self.offsets, vec![0]);
        columns.push(Column { values: Values::Offsets(offsets), validity: None });
        self.items.finish(columns);
    }
}

impl<T: Record<List = Sequence<T>>> ListOf<T> for Sequence<T> {
    type Ref<'a> = List<'a, T>;
    type Reader<'a> = (&'a [u32], T::Reader<'a>);
    type Builder = ListBuilder<T::Builder>;
    const WIDTH: u32 = 1 + T::WIDTH;

    fn describe(name: &str, nullable: bool, fields: &mut Vec<Field>) {
        fields.push(Field { name: name.into(), data_type: DataType::Sequence, nullable });
        T::describe("item", false, fields);
    }

    fn read<'a>(columns: &mut Cursor<'a>) -> Self::Reader<'a> {
        let Values::Offsets(offsets) = &columns.next_column().values else { other_type() };
        (offsets, T::read(columns))
    }

    #[inline(always)]
    fn get<'a>(reader: &Self::Reader<'a>, row: usize) -> Self::Ref<'a> {
        let (start, end) = (reader.0[row] as usize, reader.0[row + 1] as usize);
        List(Place::Column { reader: reader.1, start, end })
    }

    fn as_row(list: &[T]) -> List<'_, T> {
        List(Place::Slice(list))
    }

    fn from_row(row: List<'_, T>) -> Vec<T> {
        row.to_vec()
    }

    fn append(list: &[T], builder: &mut Self::Builder) {
        List(Place::Slice(list)).append_to(builder);
    }
}

/// A borrowed list, in a batch or in a `Vec`.
pub struct List<'a, T: Record>(Place<'a, T>);

enum Place<'a, T: Record> {
    Column { reader: T::Reader<'a>, start: usize, end: usize },
    Slice(&'a [T]),
}

impl<T: Record> Clone for List<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: Record> Copy for List<'_, T> {}

impl<T: Record> Clone for Place<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: Record> Copy for Place<'_, T> {}

impl<'a, T: Record> List<'a, T> {
    /// Number of items.
    pub fn len(self) -> usize {
        match self.0 {
            Place::Column { start, end, .. } => end - start,
            Place::Slice(slice) => slice.len(),
        }
    }

    /// Whether there are no items.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// An item.
    pub fn get(self, index: usize) -> Option<T::Ref<'a>> {
        (index < self.len()).then(|| match self.0 {
            Place::Column { reader, start, .. } => T::get(&reader, start + index),
            Place::Slice(slice) => slice[index].as_row(),
        })
    }

    /// The items, in order.
    pub fn iter(self) -> impl Iterator<Item = T::Ref<'a>> + 'a {
        (0..self.len()).filter_map(move |index| self.get(index))
    }

    /// The items as values.
    pub fn to_vec(self) -> Vec<T> {
        self.iter().map(T::from_row).collect()
    }
}

impl<T: Record> fmt::Debug for List<'_, T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.iter()).finish()
    }
}

impl<T: Record<List = Sequence<T>>> Row<Vec<T>> for List<'_, T> {
    fn append_to(self, builder: &mut ListBuilder<T::Builder>) {
        for item in self.iter() {
            item.append_to(&mut builder.items);
        }
        // A batch has far fewer rows than 2^32.
        builder.close(self.len() as u32);
    }
}

/// Byte strings.
#[doc(hidden)]
pub struct Binary;

impl ListOf<u8> for Binary {
    type Ref<'a> = &'a [u8];
    type Reader<'a> = Bytes<'a>;
    type Builder = BytesBuilder;
    const WIDTH: u32 = 1;

    fn describe(name: &str, nullable: bool, fields: &mut Vec<Field>) {
        fields.push(Field { name: name.into(), data_type: DataType::Binary, nullable });
    }

    fn read<'a>(columns: &mut Cursor<'a>) -> Bytes<'a> {
        match &columns.next_column().values {
            Values::Bytes(values) => Bytes::new(values),
            _ => other_type(),
        }
    }

    #[inline(always)]
    fn get<'a>(reader: &Self::Reader<'a>, row: usize) -> Self::Ref<'a> {
        reader.get(row)
    }

    fn as_row(list: &[u8]) -> &[u8] {
        list
    }

    fn from_row(row: &[u8]) -> Vec<u8> {
        row.to_vec()
    }

    fn append(list: &[u8], builder: &mut BytesBuilder) {
        builder.push(list);
    }
}
