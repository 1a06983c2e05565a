//! Tuples, whose members are called `f0`, `f1`, … as in Flink.

use millstream_sys::bindings::millstream::job::rows::{Column, DataType, Field, Values};

use super::{Builder, Cursor, Record, Row, Sequence};

macro_rules! tuple {
    ($count:literal: $($member:ident $row:ident $place:tt)*) => {
        impl<$($member: Builder),*> Builder for ($($member,)*) {
            fn push_empty(&mut self) {
                $(self.$place.push_empty();)*
            }

            fn truncate(&mut self, rows: usize) {
                $(self.$place.truncate(rows);)*
            }

            fn finish(&mut self, columns: &mut Vec<Column>) {
                columns.push(Column { values: Values::Nothing, validity: None });
                $(self.$place.finish(columns);)*
            }
        }

        impl<$($member: Record),*> Record for ($($member,)*) {
            type Ref<'a> = ($($member::Ref<'a>,)*);
            type Reader<'a> = ($($member::Reader<'a>,)*);
            type Builder = ($($member::Builder,)*);
            type List = Sequence<Self>;
            const WIDTH: u32 = 1 $(+ $member::WIDTH)*;
            const IS_STRUCT: bool = true;

            fn describe(name: &str, nullable: bool, fields: &mut Vec<Field>) {
                fields.push(Field { name: name.into(), data_type: DataType::Structure($count), nullable });
                $($member::describe(concat!("f", $place), false, fields);)*
            }

            fn read<'a>(columns: &mut Cursor<'a>) -> Self::Reader<'a> {
                columns.structure();
                ($($member::read(columns),)*)
            }

            #[inline(always)]
            fn get<'a>(reader: &Self::Reader<'a>, row: usize) -> Self::Ref<'a> {
                ($($member::get(&reader.$place, row),)*)
            }

            fn as_row(&self) -> Self::Ref<'_> {
                ($(self.$place.as_row(),)*)
            }

            fn from_row(row: Self::Ref<'_>) -> Self {
                ($($member::from_row(row.$place),)*)
            }
        }

        impl<$($member: Record, $row: Row<$member>),*> Row<($($member,)*)> for ($($row,)*) {
            #[inline(always)]
            fn append_to(self, builder: &mut ($($member::Builder,)*)) {
                $(self.$place.append_to(&mut builder.$place);)*
            }
        }

        impl<$($member: Record),*> Row<($($member,)*)> for &($($member,)*) {
            #[inline(always)]
            fn append_to(self, builder: &mut ($($member::Builder,)*)) {
                self.as_row().append_to(builder);
            }
        }
    };
}

tuple!(1: A R0 0);
tuple!(2: A R0 0 B R1 1);
tuple!(3: A R0 0 B R1 1 C R2 2);
tuple!(4: A R0 0 B R1 1 C R2 2 D R3 3);
tuple!(5: A R0 0 B R1 1 C R2 2 D R3 3 E R4 4);
tuple!(6: A R0 0 B R1 1 C R2 2 D R3 3 E R4 4 F R5 5);
tuple!(7: A R0 0 B R1 1 C R2 2 D R3 3 E R4 4 F R5 5 G R6 6);
tuple!(8: A R0 0 B R1 1 C R2 2 D R3 3 E R4 4 F R5 5 G R6 6 H R7 7);
tuple!(9: A R0 0 B R1 1 C R2 2 D R3 3 E R4 4 F R5 5 G R6 6 H R7 7 I R8 8);
tuple!(10: A R0 0 B R1 1 C R2 2 D R3 3 E R4 4 F R5 5 G R6 6 H R7 7 I R8 8 J R9 9);
tuple!(11: A R0 0 B R1 1 C R2 2 D R3 3 E R4 4 F R5 5 G R6 6 H R7 7 I R8 8 J R9 9 K R10 10);
tuple!(12: A R0 0 B R1 1 C R2 2 D R3 3 E R4 4 F R5 5 G R6 6 H R7 7 I R8 8 J R9 9 K R10 10 L R11 11);
