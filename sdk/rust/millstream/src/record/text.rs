//! Texts.

use millstream_sys::bindings::millstream::job::rows::{Column, DataType, Field, Values};
use millstream_sys::bytes::BytesBuilder;
use millstream_sys::text::Text;

use super::{Builder, Cursor, Record, Row, Sequence, scalar::other_type};

impl Builder for BytesBuilder {
    fn push_empty(&mut self) {
        self.push(b"");
    }

    fn truncate(&mut self, rows: usize) {
        self.truncate(rows);
    }

    fn finish(&mut self, columns: &mut Vec<Column>) {
        columns.push(Column { values: Values::Bytes(self.finish()), validity: None });
    }
}

impl Record for String {
    type Ref<'a> = &'a str;
    type Reader<'a> = Text<'a>;
    type Builder = BytesBuilder;
    type List = Sequence<String>;
    const WIDTH: u32 = 1;

    fn describe(name: &str, nullable: bool, fields: &mut Vec<Field>) {
        fields.push(Field { name: name.into(), data_type: DataType::Text, nullable });
    }

    fn read<'a>(columns: &mut Cursor<'a>) -> Text<'a> {
        match &columns.next_column().values {
            Values::Bytes(values) => Text::new(values),
            _ => other_type(),
        }
    }

    #[inline(always)]
    fn get<'a>(reader: &Self::Reader<'a>, row: usize) -> Self::Ref<'a> {
        reader.get(row)
    }

    fn as_row(&self) -> &str {
        self
    }

    fn from_row(row: &str) -> String {
        row.to_string()
    }
}

impl Row<String> for &str {
    #[inline(always)]
    fn append_to(self, builder: &mut BytesBuilder) {
        builder.push(self.as_bytes());
    }
}

impl Row<String> for String {
    #[inline(always)]
    fn append_to(self, builder: &mut BytesBuilder) {
        builder.push(self.as_bytes());
    }
}

impl Row<String> for &String {
    #[inline(always)]
    fn append_to(self, builder: &mut BytesBuilder) {
        builder.push(self.as_bytes());
    }
}
