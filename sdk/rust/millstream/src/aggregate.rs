//! The native aggregates: `sum`, `count`, `min`, `max`, `avg`.

use millstream_sys::bindings::millstream::job::graph;

use crate::field::{FieldOf, Number, Ordered};
use crate::record::Record;

/// An aggregate over rows of `T`.
pub trait Aggregate<T> {
    /// The type of its result.
    type Output: Record;
    /// Its name.
    #[doc(hidden)]
    fn function(&self) -> &'static str;
    /// The column that it is of.
    #[doc(hidden)]
    fn column(&self) -> Option<u32>;
}

macro_rules! aggregates {
    ($($(#[doc = $doc:literal])+ $make:ident $name:ident($function:literal) $bound:path => $output:ty;)*) => {$(
        $(#[doc = $doc])+
        pub fn $make<F>(field: F) -> $name<F> {
            $name(field)
        }

        #[doc = concat!("The aggregate `", $function, "`.")]
        #[derive(Clone, Copy, Debug)]
        pub struct $name<F>(F);

        impl<T, F: FieldOf<T>> Aggregate<T> for $name<F>
        where
            F::Value: $bound,
        {
            type Output = $output;

            fn function(&self) -> &'static str {
                $function
            }

            fn column(&self) -> Option<u32> {
                Some(self.0.column())
            }
        }
    )*};
}

aggregates! {
    /// The sum of a field: i64 of integers, f64 of floats, 38 digits of decimals.
    sum Sum("sum") Number => <F::Value as Number>::Sum;
    /// The least value of a field.
    min Min("min") Ordered => F::Value;
    /// The greatest value of a field.
    max Max("max") Ordered => F::Value;
    /// The average of a field.
    avg Average("avg") Number => <F::Value as Number>::Average;
    /// The number of rows whose field is not null.
    count_of CountOf("count") Record => i64;
}

/// The number of rows.
pub fn count() -> Count {
    Count
}

/// The aggregate `count` of rows.
#[derive(Clone, Copy, Debug)]
pub struct Count;

impl<T> Aggregate<T> for Count {
    type Output = i64;

    fn function(&self) -> &'static str {
        "count"
    }

    fn column(&self) -> Option<u32> {
        None
    }
}

/// One to four aggregates over rows of `T`.
pub trait Aggregates<T> {
    /// Their results.
    type Outputs;
    /// The node of the graph.
    #[doc(hidden)]
    fn contract(&self) -> Vec<graph::Aggregate>;
}

fn contract<T>(aggregate: &impl Aggregate<T>) -> graph::Aggregate {
    graph::Aggregate {
        function: aggregate.function().into(),
        columns: aggregate.column().into_iter().collect(),
        options: Vec::new(),
    }
}

macro_rules! tuples {
    ($(($($member:ident $place:tt)*);)*) => {$(
        impl<T, $($member: Aggregate<T>),*> Aggregates<T> for ($($member,)*) {
            type Outputs = ($($member::Output,)*);

            fn contract(&self) -> Vec<graph::Aggregate> {
                vec![$(contract(&self.$place)),*]
            }
        }
    )*};
}

tuples! {
    (A 0);
    (A 0 B 1);
    (A 0 B 1 C 2);
    (A 0 B 1 C 2 D 3);
}
