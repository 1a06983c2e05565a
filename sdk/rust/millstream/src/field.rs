//! Names a field of a row, for `key_by` and aggregates.

use std::marker::PhantomData;

use crate::record::{Date, Decimal, Record, Timestamp, TimestampMicros, TimestampNanos};

/// A field `V` of the record `R`: `#[derive(Record)]` makes one for each member, an associated
/// constant in upper case, such as `Bid::AUCTION`.
pub struct Field<R, V> {
    column: u32,
    types: PhantomData<fn() -> (R, V)>,
}

impl<R, V> Clone for Field<R, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R, V> Copy for Field<R, V> {}

impl<R: Record, V: Record> Field<R, V> {
    /// The field at a column of a row, without the row's own.
    #[doc(hidden)]
    pub const fn new(column: u32) -> Field<R, V> {
        Field { column, types: PhantomData }
    }

    /// A field of this field: `Event::PLACE.then(Place::CITY)`.
    #[must_use]
    pub const fn then<W: Record>(self, inner: Field<V, W>) -> Field<R, W> {
        const { assert!(V::IS_STRUCT && !V::IS_OPTION, "only a struct has fields") }
        Field::new(self.column + 1 + inner.column)
    }
}

/// A field of the rows of a stream of `T`.
#[diagnostic::on_unimplemented(
    message = "this is not a field of `{T}`",
    label = "not a field of `{T}`",
    note = "fields of a struct are constants of it, such as `Event::USER`; fields of a tuple are F0 … F11"
)]
pub trait FieldOf<T>: Copy {
    /// Its type.
    type Value: Record;
    /// Its place among the row's columns.
    #[doc(hidden)]
    fn column(self) -> u32;
}

impl<R: Record, V: Record> FieldOf<R> for Field<R, V> {
    type Value = V;

    fn column(self) -> u32 {
        self.column
    }
}

macro_rules! place {
    ($($(#[doc = $doc:literal])+ $place:ident;)*) => {$(
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug)]
        pub struct $place;
    )*};
}

place! {
    /// The first field of a tuple.
    F0;
    /// The second field of a tuple.
    F1;
    /// The third field of a tuple.
    F2;
    /// The fourth field of a tuple.
    F3;
    /// The fifth field of a tuple.
    F4;
    /// The sixth field of a tuple.
    F5;
    /// The seventh field of a tuple.
    F6;
    /// The eighth field of a tuple.
    F7;
    /// The ninth field of a tuple.
    F8;
    /// The tenth field of a tuple.
    F9;
    /// The eleventh field of a tuple.
    F10;
    /// The twelfth field of a tuple.
    F11;
}

macro_rules! fields {
    (@one ($($all:ident)*) ($($before:ident)*) $field:ident $place:ident) => {
        impl<$($all: Record),*> FieldOf<($($all,)*)> for $place {
            type Value = $field;

            fn column(self) -> u32 {
                0 $(+ $before::WIDTH)*
            }
        }
    };
    (@each $all:tt ($($before:ident)*)) => {};
    (@each $all:tt ($($before:ident)*) $field:ident $place:ident $($rest:ident)*) => {
        fields!(@one $all ($($before)*) $field $place);
        fields!(@each $all ($($before)* $field) $($rest)*);
    };
    ($(($($all:ident)*) $($field:ident $place:ident)*;)*) => {
        $(fields!(@each ($($all)*) () $($field $place)*);)*
    };
}

fields! {
    (A) A F0;
    (A B) A F0 B F1;
    (A B C) A F0 B F1 C F2;
    (A B C D) A F0 B F1 C F2 D F3;
    (A B C D E) A F0 B F1 C F2 D F3 E F4;
    (A B C D E F) A F0 B F1 C F2 D F3 E F4 F F5;
    (A B C D E F G) A F0 B F1 C F2 D F3 E F4 F F5 G F6;
    (A B C D E F G H) A F0 B F1 C F2 D F3 E F4 F F5 G F6 H F7;
    (A B C D E F G H I) A F0 B F1 C F2 D F3 E F4 F F5 G F6 H F7 I F8;
    (A B C D E F G H I J) A F0 B F1 C F2 D F3 E F4 F F5 G F6 H F7 I F8 J F9;
    (A B C D E F G H I J K) A F0 B F1 C F2 D F3 E F4 F F5 G F6 H F7 I F8 J F9 K F10;
    (A B C D E F G H I J K L) A F0 B F1 C F2 D F3 E F4 F F5 G F6 H F7 I F8 J F9 K F10 L F11;
}

/// A type that rows can be keyed by.
#[diagnostic::on_unimplemented(
    message = "rows cannot be keyed by a `{Self}`",
    label = "no type of keys",
    note = "keys are bool, numbers, String, Vec<u8>, Decimal, Date, the timestamps, and Options of them"
)]
pub trait Key: Record {}

/// A type whose values have a least and a greatest.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no min and max",
    label = "has no order here",
    note = "min and max are of numbers, String, Decimal, Date, the timestamps, and Options of them"
)]
pub trait Ordered: Record {
    /// A value that is there, as an item of a list.
    #[doc(hidden)]
    type Item: Record;
}

/// A number, for `sum` and `avg`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a number: it has no sum and no average",
    label = "not a number",
    note = "sums are of i8 to i64, u8 to u32, f32, f64, Decimal, and Options of them"
)]
pub trait Number: Record {
    /// The type of a sum.
    type Sum: Record;
    /// The type of an average: f64, optional if the field is.
    type Average: Record;
}

macro_rules! mark {
    ($marker:ident: $($type:ty)*) => {$(impl $marker for $type {})*};
}

mark!(Key: bool i8 i16 i32 i64 u8 u16 u32 f32 f64 String Vec<u8> Date Timestamp TimestampMicros TimestampNanos);

macro_rules! ordered {
    ($($type:ty)*) => {$(
        impl Ordered for $type {
            type Item = $type;
        }
    )*};
}

ordered!(i8 i16 i32 i64 u16 u32 f32 f64 String Date Timestamp TimestampMicros TimestampNanos);

impl Ordered for u8 {
    /// A list of bytes is another type of column.
    type Item = u16;
}

impl<const P: u8, const S: u8> Key for Decimal<P, S> {}
impl<const P: u8, const S: u8> Ordered for Decimal<P, S> {
    type Item = Self;
}
impl<K: Key> Key for Option<K> {}
impl<O: Ordered> Ordered for Option<O> {
    type Item = O::Item;
}

macro_rules! numbers {
    ($($sum:ty: $($type:ty)*;)*) => {$($(
        impl Number for $type {
            type Sum = $sum;
            type Average = f64;
        }
    )*)*};
}

numbers! {
    i64: i8 i16 i32 i64 u8 u16 u32;
    f64: f32 f64;
}

impl<const P: u8, const S: u8> Number for Decimal<P, S> {
    type Sum = Decimal<38, S>;
    type Average = f64;
}

impl<N: Number> Number for Option<N> {
    type Sum = Option<N::Sum>;
    type Average = Option<N::Average>;
}

/// What a stream of `T` can be keyed by: a field, a tuple of up to four fields, or `()` for one
/// key of all rows.
#[diagnostic::on_unimplemented(
    message = "a stream of `{T}` cannot be keyed by this",
    label = "not a field, nor a tuple of fields, of `{T}` that can be a key",
    note = "fields of a struct are constants of it, such as `Event::USER`; fields of a tuple are F0 … F11; \
            keys are bool, numbers, String, Vec<u8>, Decimal, Date, the timestamps, and Options of them"
)]
pub trait KeyFields<T> {
    /// The keys as a tuple.
    type Keys;
    /// Their columns.
    #[doc(hidden)]
    fn columns(self) -> Vec<u32>;
}

impl<T> KeyFields<T> for () {
    type Keys = ();

    fn columns(self) -> Vec<u32> {
        Vec::new()
    }
}

impl<R: Record, V: Key> KeyFields<R> for Field<R, V> {
    type Keys = (V,);

    fn columns(self) -> Vec<u32> {
        vec![self.column]
    }
}

macro_rules! key_places {
    ($($place:ident)*) => {$(
        impl<T> KeyFields<T> for $place
        where
            $place: FieldOf<T>,
            <$place as FieldOf<T>>::Value: Key,
        {
            type Keys = (<$place as FieldOf<T>>::Value,);

            fn columns(self) -> Vec<u32> {
                vec![self.column()]
            }
        }
    )*};
}

key_places!(F0 F1 F2 F3 F4 F5 F6 F7 F8 F9 F10 F11);

macro_rules! key_tuples {
    ($(($($key:ident $place:tt)*);)*) => {$(
        impl<T, $($key: FieldOf<T>),*> KeyFields<T> for ($($key,)*)
        where
            $($key::Value: Key,)*
        {
            type Keys = ($($key::Value,)*);

            fn columns(self) -> Vec<u32> {
                vec![$(self.$place.column()),*]
            }
        }
    )*};
}

key_tuples! {
    (A 0);
    (A 0 B 1);
    (A 0 B 1 C 2);
    (A 0 B 1 C 2 D 3);
}

/// Puts the members of two tuples into one.
pub trait Join<A> {
    /// The tuple of all.
    type Output: Record;
}

/// Puts the members of two tuples into one, the two ends of a window between them.
pub trait WindowJoin<A> {
    /// The tuple of all.
    type Output: Record;
}

macro_rules! join {
    ($([$($key:ident)*] [$($value:ident)*];)*) => {$(
        impl<$($key: Record,)* $($value: Record),*> Join<($($value,)*)> for ($($key,)*) {
            type Output = ($($key,)* $($value,)*);
        }
    )*};
}

macro_rules! window_join {
    ($([$($key:ident)*] [$($value:ident)*];)*) => {$(
        impl<$($key: Record,)* $($value: Record),*> WindowJoin<($($value,)*)> for ($($key,)*) {
            type Output = ($($key,)* Timestamp, Timestamp, $($value,)*);
        }
    )*};
}

join! {
    [] [A]; [] [A B]; [] [A B C]; [] [A B C D]; [] [A B C D E]; [] [A B C D E F]; [] [A B C D E F G]; [] [A B C D E F G H];
    [K] [A]; [K] [A B]; [K] [A B C]; [K] [A B C D]; [K] [A B C D E]; [K] [A B C D E F]; [K] [A B C D E F G]; [K] [A B C D E F G H];
    [K L] [A]; [K L] [A B]; [K L] [A B C]; [K L] [A B C D]; [K L] [A B C D E]; [K L] [A B C D E F]; [K L] [A B C D E F G]; [K L] [A B C D E F G H];
    [K L M] [A]; [K L M] [A B]; [K L M] [A B C]; [K L M] [A B C D]; [K L M] [A B C D E]; [K L M] [A B C D E F]; [K L M] [A B C D E F G]; [K L M] [A B C D E F G H];
    [K L M N] [A]; [K L M N] [A B]; [K L M N] [A B C]; [K L M N] [A B C D]; [K L M N] [A B C D E]; [K L M N] [A B C D E F]; [K L M N] [A B C D E F G]; [K L M N] [A B C D E F G H];
}

window_join! {
    [] [A]; [] [A B]; [] [A B C]; [] [A B C D]; [] [A B C D E]; [] [A B C D E F]; [] [A B C D E F G]; [] [A B C D E F G H];
    [K] [A]; [K] [A B]; [K] [A B C]; [K] [A B C D]; [K] [A B C D E]; [K] [A B C D E F]; [K] [A B C D E F G]; [K] [A B C D E F G H];
    [K L] [A]; [K L] [A B]; [K L] [A B C]; [K L] [A B C D]; [K L] [A B C D E]; [K L] [A B C D E F]; [K L] [A B C D E F G]; [K L] [A B C D E F G H];
    [K L M] [A]; [K L M] [A B]; [K L M] [A B C]; [K L M] [A B C D]; [K L M] [A B C D E]; [K L M] [A B C D E F]; [K L M] [A B C D E F G];
    [K L M N] [A]; [K L M N] [A B]; [K L M N] [A B C]; [K L M N] [A B C D]; [K L M N] [A B C D E]; [K L M N] [A B C D E F];
}
