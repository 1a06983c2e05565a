//! The native aggregates: `sum`, `count`, `min`, `max`, `avg`, `first`, `last`, `top`.

use millstream_sys::bindings::millstream::job::graph::{self, Setting};
use millstream_sys::bindings::millstream::job::rows::Field;

use crate::field::{FieldOf, Key, Number, Ordered};
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
    /// What is said of it beside.
    #[doc(hidden)]
    fn options(&self) -> Vec<Setting> {
        Vec::new()
    }
}

fn option(name: &str, value: impl ToString) -> Setting {
    Setting { name: name.into(), value: value.to_string() }
}

macro_rules! aggregates {
    ($($(#[doc = $doc:literal])+ $make:ident $name:ident($function:literal) $bound:path => $output:ty;)*) => {$(
        $(#[doc = $doc])+
        pub fn $make<F>(field: F) -> $name<F> {
            $name { field, is_distinct: false }
        }

        #[doc = concat!("The aggregate `", $function, "`.")]
        #[derive(Clone, Copy, Debug)]
        pub struct $name<F> {
            field: F,
            is_distinct: bool,
        }

        impl<T, F: FieldOf<T>> Aggregate<T> for $name<F>
        where
            F::Value: $bound,
        {
            type Output = $output;

            fn function(&self) -> &'static str {
                $function
            }

            fn column(&self) -> Option<u32> {
                Some(self.field.column())
            }

            fn options(&self) -> Vec<Setting> {
                if self.is_distinct { vec![option("distinct", true)] } else { Vec::new() }
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
    /// The value of a field in the first row where it is not null.
    first First("first") Key => F::Value;
    /// The value of a field in the last row where it is not null.
    last Last("last") Key => F::Value;
}

macro_rules! distinct {
    ($($name:ident)*) => {$(
        impl<F> $name<F> {
            /// Takes each value of a key once: SQL's `DISTINCT`. The host keeps all values of a key.
            #[must_use]
            pub fn distinct(self) -> $name<F> {
                $name { is_distinct: true, ..self }
            }
        }
    )*};
}

distinct!(Sum Average CountOf);

/// The number of different values of a field, null not counted.
pub fn count_distinct<F>(field: F) -> CountOf<F> {
    count_of(field).distinct()
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

/// The `n` greatest values of a field, the greatest first, as a list; nulls are left out. For windows.
pub fn top<F>(field: F, n: u32) -> Extremes<F> {
    Extremes { field, limit: n, order: "descending" }
}

/// The `n` least values of a field, the least first, as a list; nulls are left out. For windows.
pub fn bottom<F>(field: F, n: u32) -> Extremes<F> {
    Extremes { field, limit: n, order: "ascending" }
}

/// The aggregate `top`: the first values of a field in an order.
#[derive(Clone, Copy, Debug)]
pub struct Extremes<F> {
    field: F,
    limit: u32,
    order: &'static str,
}

impl<T, F: FieldOf<T>> Aggregate<T> for Extremes<F>
where
    F::Value: Ordered,
{
    type Output = Vec<<F::Value as Ordered>::Item>;

    fn function(&self) -> &'static str {
        "top"
    }

    fn column(&self) -> Option<u32> {
        Some(self.field.column())
    }

    fn options(&self) -> Vec<Setting> {
        vec![option("limit", self.limit), option("order", self.order)]
    }
}

/// One to sixteen aggregates over rows of `T`.
pub trait Aggregates<T> {
    /// Their results.
    type Outputs;
    /// The node of the graph.
    #[doc(hidden)]
    fn contract(&self) -> Vec<graph::Aggregate>;
    /// The columns of the results, without names.
    #[doc(hidden)]
    fn fields(&self) -> Vec<Field>;
}

fn contract<T>(aggregate: &impl Aggregate<T>) -> graph::Aggregate {
    graph::Aggregate {
        function: aggregate.function().into(),
        columns: aggregate.column().into_iter().collect(),
        options: aggregate.options(),
    }
}

macro_rules! tuples {
    ($(($($member:ident $place:tt)*);)*) => {$(
        impl<T, $($member: Aggregate<T>),*> Aggregates<T> for ($($member,)*) {
            type Outputs = ($($member::Output,)*);

            fn contract(&self) -> Vec<graph::Aggregate> {
                vec![$(contract(&self.$place)),*]
            }

            fn fields(&self) -> Vec<Field> {
                let mut fields = Vec::new();
                $($member::Output::describe("", false, &mut fields);)*
                fields
            }
        }
    )*};
}

tuples! {
    (A 0);
    (A 0 B 1);
    (A 0 B 1 C 2);
    (A 0 B 1 C 2 D 3);
    (A 0 B 1 C 2 D 3 E 4);
    (A 0 B 1 C 2 D 3 E 4 F 5);
    (A 0 B 1 C 2 D 3 E 4 F 5 G 6);
    (A 0 B 1 C 2 D 3 E 4 F 5 G 6 H 7);
    (A 0 B 1 C 2 D 3 E 4 F 5 G 6 H 7 I 8);
    (A 0 B 1 C 2 D 3 E 4 F 5 G 6 H 7 I 8 J 9);
    (A 0 B 1 C 2 D 3 E 4 F 5 G 6 H 7 I 8 J 9 K 10);
    (A 0 B 1 C 2 D 3 E 4 F 5 G 6 H 7 I 8 J 9 K 10 L 11);
    (A 0 B 1 C 2 D 3 E 4 F 5 G 6 H 7 I 8 J 9 K 10 L 11 M 12);
    (A 0 B 1 C 2 D 3 E 4 F 5 G 6 H 7 I 8 J 9 K 10 L 11 M 12 N 13);
    (A 0 B 1 C 2 D 3 E 4 F 5 G 6 H 7 I 8 J 9 K 10 L 11 M 12 N 13 O 14);
    (A 0 B 1 C 2 D 3 E 4 F 5 G 6 H 7 I 8 J 9 K 10 L 11 M 12 N 13 O 14 P 15);
}

/// Names of the columns of a key and its aggregates: the fields', or made of function and field where that
/// is taken.
pub(crate) fn names(
    input: &[Field],
    keys: &[u32],
    between: &[&str],
    aggregates: &[graph::Aggregate],
) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for key in keys {
        names.push(free_name(&names, [input[*key as usize].name.clone()]));
    }
    for name in between {
        names.push(free_name(&names, [name.to_string()]));
    }
    for aggregate in aggregates {
        let function = &aggregate.function;
        let field = aggregate.columns.first().map(|column| &input[*column as usize].name);
        let name = match field {
            Some(field) if function == "count" && !aggregate.options.is_empty() => {
                free_name(&names, [format!("distinct_{field}")])
            }
            Some(field) if function == "count" => {
                free_name(&names, ["count".to_string(), format!("count_{field}")])
            }
            Some(field) => free_name(&names, [field.clone(), format!("{function}_{field}")]),
            None => free_name(&names, ["count".to_string()]),
        };
        names.push(name);
    }
    names
}

/// The first name that is not taken, or the last with underscores.
pub(crate) fn free_name<const N: usize>(taken: &[String], names: [String; N]) -> String {
    let mut last = String::new();
    for name in names {
        if !taken.contains(&name) {
            return name;
        }
        last = name;
    }
    while taken.contains(&last) {
        last.push('_');
    }
    last
}
