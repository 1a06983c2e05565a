//! Numbers, truth values, decimals.

use std::fmt;

use millstream_sys::bindings::millstream::job::rows::{Column, DataType, DecimalType, Field, Values};

use super::{Builder, Cursor, Record, Row, Sequence, is_set};

#[cold]
#[inline(never)]
fn misfit(value: i64, name: &str) -> ! {
    panic!("{value} does not fit a field of the type {name}")
}

#[cold]
#[inline(never)]
pub(super) fn other_type() -> ! {
    panic!("a column has another type than its field")
}

/// A number that lies in a list of the same or a wider type.
macro_rules! number {
    ($($rust:ty as $stored:ty, $values:ident, $data_type:expr, $list:ty, |$value:ident| $narrow:expr;)*) => {$(
        impl Record for $rust {
            type Ref<'a> = $rust;
            type Reader<'a> = &'a [$stored];
            type Builder = Vec<$stored>;
            type List = $list;
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
                let $value = reader[row];
                $narrow
            }

            fn as_row(&self) -> $rust {
                *self
            }

            fn from_row(row: $rust) -> $rust {
                row
            }
        }

        impl Row<$rust> for $rust {
            #[inline(always)]
            fn append_to(self, builder: &mut Vec<$stored>) {
                builder.push(<$stored>::from(self));
            }
        }

        impl Row<$rust> for &$rust {
            #[inline(always)]
            fn append_to(self, builder: &mut Vec<$stored>) {
                builder.push(<$stored>::from(*self));
            }
        }
    )*};
}

/// Reads a narrower number than the column's.
macro_rules! narrow {
    ($value:expr, $rust:ty) => {
        <$rust>::try_from($value).unwrap_or_else(|_| misfit(i64::from($value), stringify!($rust)))
    };
}

number! {
    i8 as i32, Int32, DataType::Int32, Sequence<i8>, |value| narrow!(value, i8);
    i16 as i32, Int32, DataType::Int32, Sequence<i16>, |value| narrow!(value, i16);
    i32 as i32, Int32, DataType::Int32, Sequence<i32>, |value| value;
    i64 as i64, Int64, DataType::Int64, Sequence<i64>, |value| value;
    u8 as i32, Int32, DataType::Int32, super::Binary, |value| narrow!(value, u8);
    u16 as i32, Int32, DataType::Int32, Sequence<u16>, |value| narrow!(value, u16);
    u32 as i64, Int64, DataType::Int64, Sequence<u32>, |value| narrow!(value, u32);
    f32 as f32, Float32, DataType::Float32, Sequence<f32>, |value| value;
    f64 as f64, Float64, DataType::Float64, Sequence<f64>, |value| value;
}

macro_rules! number_builder {
    ($($stored:ty, $values:ident;)*) => {$(
        impl Builder for Vec<$stored> {
            fn push_empty(&mut self) {
                self.push(<$stored>::default());
            }

            fn truncate(&mut self, rows: usize) {
                self.truncate(rows);
            }

            fn finish(&mut self, columns: &mut Vec<Column>) {
                let next = Vec::with_capacity(self.len());
                let values = Values::$values(std::mem::replace(self, next));
                columns.push(Column { values, validity: None });
            }
        }
    )*};
}

number_builder! {
    i32, Int32;
    i64, Int64;
    f32, Float32;
    f64, Float64;
}

/// A growing column of bits, least significant first.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct Bits {
    bytes: Vec<u8>,
    length: usize,
}

impl Bits {
    #[inline(always)]
    pub(crate) fn push(&mut self, bit: bool) {
        if self.length & 7 == 0 {
            self.bytes.push(0);
        }
        self.bytes[self.length >> 3] |= u8::from(bit) << (self.length & 7);
        self.length += 1;
    }

    pub(crate) fn truncate(&mut self, length: usize) {
        if length < self.length {
            self.bytes.truncate(length.div_ceil(8));
            if length & 7 != 0 {
                self.bytes[length >> 3] &= (1 << (length & 7)) - 1;
            }
            self.length = length;
        }
    }

    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.length = 0;
        std::mem::take(&mut self.bytes)
    }
}

impl Builder for Bits {
    fn push_empty(&mut self) {
        self.push(false);
    }

    fn truncate(&mut self, rows: usize) {
        self.truncate(rows);
    }

    fn finish(&mut self, columns: &mut Vec<Column>) {
        columns.push(Column { values: Values::Bits(self.take()), validity: None });
    }
}

impl Record for bool {
    type Ref<'a> = bool;
    type Reader<'a> = &'a [u8];
    type Builder = Bits;
    type List = Sequence<bool>;
    const WIDTH: u32 = 1;

    fn describe(name: &str, nullable: bool, fields: &mut Vec<Field>) {
        fields.push(Field { name: name.into(), data_type: DataType::Boolean, nullable });
    }

    fn read<'a>(columns: &mut Cursor<'a>) -> &'a [u8] {
        match &columns.next_column().values {
            Values::Bits(bits) => bits,
            _ => other_type(),
        }
    }

    #[inline(always)]
    fn get<'a>(reader: &Self::Reader<'a>, row: usize) -> Self::Ref<'a> {
        is_set(reader, row)
    }

    fn as_row(&self) -> bool {
        *self
    }

    fn from_row(row: bool) -> bool {
        row
    }
}

impl Row<bool> for bool {
    #[inline(always)]
    fn append_to(self, builder: &mut Bits) {
        builder.push(self);
    }
}

impl Row<bool> for &bool {
    #[inline(always)]
    fn append_to(self, builder: &mut Bits) {
        builder.push(*self);
    }
}

/// A decimal of at most `PRECISION` digits (38 or fewer), `SCALE` of them after the point: the
/// value is the whole number times 10^-`SCALE`.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Decimal<const PRECISION: u8, const SCALE: u8>(
    /// the whole number
    pub i128,
);

impl<const PRECISION: u8, const SCALE: u8> fmt::Display for Decimal<PRECISION, SCALE> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if SCALE == 0 {
            return write!(formatter, "{}", self.0);
        }
        let unit = 10u128.pow(u32::from(SCALE));
        let (sign, digits) = (if self.0 < 0 { "-" } else { "" }, self.0.unsigned_abs());
        write!(formatter, "{sign}{}.{:0width$}", digits / unit, digits % unit, width = usize::from(SCALE))
    }
}

impl<const PRECISION: u8, const SCALE: u8> fmt::Debug for Decimal<PRECISION, SCALE> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// A growing column of 16 bytes a row.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct Wide(Vec<u8>);

impl Builder for Wide {
    fn push_empty(&mut self) {
        self.0.extend_from_slice(&[0; 16]);
    }

    fn truncate(&mut self, rows: usize) {
        self.0.truncate(16 * rows);
    }

    fn finish(&mut self, columns: &mut Vec<Column>) {
        columns.push(Column { values: Values::Wide(std::mem::take(&mut self.0)), validity: None });
    }
}

impl<const PRECISION: u8, const SCALE: u8> Record for Decimal<PRECISION, SCALE> {
    type Ref<'a> = Self;
    type Reader<'a> = &'a [[u8; 16]];
    type Builder = Wide;
    type List = Sequence<Self>;
    const WIDTH: u32 = 1;

    fn describe(name: &str, nullable: bool, fields: &mut Vec<Field>) {
        const {
            assert!(0 < PRECISION && PRECISION <= 38, "a decimal has 1 to 38 digits");
            assert!(SCALE <= PRECISION, "a decimal has no more digits after the point than digits");
        }
        let data_type = DataType::Decimal(DecimalType { precision: PRECISION, scale: SCALE });
        fields.push(Field { name: name.into(), data_type, nullable });
    }

    fn read<'a>(columns: &mut Cursor<'a>) -> &'a [[u8; 16]] {
        match &columns.next_column().values {
            Values::Wide(bytes) => bytes.as_chunks().0,
            _ => other_type(),
        }
    }

    #[inline(always)]
    fn get<'a>(reader: &Self::Reader<'a>, row: usize) -> Self::Ref<'a> {
        Decimal(i128::from_le_bytes(reader[row]))
    }

    fn as_row(&self) -> Self {
        *self
    }

    fn from_row(row: Self) -> Self {
        row
    }
}

impl<const PRECISION: u8, const SCALE: u8> Row<Self> for Decimal<PRECISION, SCALE> {
    #[inline(always)]
    fn append_to(self, builder: &mut Wide) {
        builder.0.extend_from_slice(&self.0.to_le_bytes());
    }
}

impl<const PRECISION: u8, const SCALE: u8> Row<Decimal<PRECISION, SCALE>> for &Decimal<PRECISION, SCALE> {
    #[inline(always)]
    fn append_to(self, builder: &mut Wide) {
        (*self).append_to(builder);
    }
}
