//! Dates and points in time.

use std::time::Duration;

use millstream_sys::bindings::millstream::job::rows::{DataType, Field, TimeUnit, Values};

use super::{Cursor, Record, Row, Sequence, scalar::other_type};

macro_rules! time {
    ($(#[doc = $doc:literal] $name:ident($stored:ty), $values:ident, $data_type:expr;)*) => {$(
        #[doc = $doc]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(
            /// the number of units since 1970
            pub $stored,
        );

        impl Record for $name {
            type Ref<'a> = $name;
            type Reader<'a> = &'a [$stored];
            type Builder = Vec<$stored>;
            type List = Sequence<$name>;
            const WIDTH: u32 = 1;

            fn describe(name: &str, nullable: bool, fields: &mut Vec<Field>) {
                fields.push(Field { name: name.into(), data_type: $data_type, nullable });
            }

            fn read<'a>(columns: &mut Cursor<'a>) -> &'a [$stored] {
                match &columns.next_column().values {
                    Values::$values(values) => values,
                    _ => other_type(),
                }
            }

            #[inline(always)]
            fn get<'a>(reader: &Self::Reader<'a>, row: usize) -> Self::Ref<'a> {
                $name(reader[row])
            }

            fn as_row(&self) -> $name {
                *self
            }

            fn from_row(row: $name) -> $name {
                row
            }
        }

        impl Row<$name> for $name {
            #[inline(always)]
            fn append_to(self, builder: &mut Vec<$stored>) {
                builder.push(self.0);
            }
        }

        impl Row<$name> for &$name {
            #[inline(always)]
            fn append_to(self, builder: &mut Vec<$stored>) {
                builder.push(self.0);
            }
        }
    )*};
}

time! {
    #[doc = "A day: days since 1970-01-01."]
    Date(i32), Int32, DataType::Date;
    #[doc = "A point in time, UTC: milliseconds since 1970-01-01T00:00:00Z."]
    Timestamp(i64), Int64, DataType::Timestamp(TimeUnit::Milliseconds);
    #[doc = "A point in time, UTC: microseconds since 1970-01-01T00:00:00Z."]
    TimestampMicros(i64), Int64, DataType::Timestamp(TimeUnit::Microseconds);
    #[doc = "A point in time, UTC: nanoseconds since 1970-01-01T00:00:00Z."]
    TimestampNanos(i64), Int64, DataType::Timestamp(TimeUnit::Nanoseconds);
}

/// A day in milliseconds.
const DAY: i64 = 24 * 60 * 60 * 1_000;

impl Timestamp {
    /// The day, UTC.
    #[must_use]
    pub const fn date(self) -> Date {
        // As many days as 64 bits of milliseconds are may be more than 32 bits hold: that is no date.
        Date(self.0.div_euclid(DAY) as i32)
    }

    /// The time since midnight, UTC.
    #[must_use]
    pub const fn time_of_day(self) -> Duration {
        Duration::from_millis(self.0.rem_euclid(DAY) as u64)
    }
}
