//! State that was written with other columns: values are mapped by the names of their columns.
//!
//! A column that is new is null or, where it cannot be, its type's zero; one that is gone is dropped; one whose
//! type has become wider is widened. Everything else does not fit: nothing is lost or guessed.
//!
//! Source: Flink, state schema evolution of POJOs; Avro's resolution of schemas.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Decimal128Array, Float32Array, Float64Array, Int8Array,
    Int16Array, Int32Array, Int64Array, ListArray, StringArray, StructArray, UInt8Array, UInt16Array,
    UInt32Array, UInt64Array, new_null_array,
};
use arrow_cast::cast;
use arrow_schema::{DataType, Field};

/// A column of a value that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column `{column}` was {old}, and is {new}")]
pub struct Misfit {
    /// Its name; of a column in a record inside, the names on the way, with dots.
    pub column: String,
    /// What it was.
    pub old: String,
    /// What it is.
    pub new: String,
}

fn misfit(column: &str, old: &DataType, new: &DataType) -> Misfit {
    Misfit { column: column.to_owned(), old: old.to_string(), new: new.to_string() }
}

fn inside(column: &str, name: &str) -> String {
    if column.is_empty() { name.to_owned() } else { format!("{column}.{name}") }
}

/// How many decimal digits an integer type takes, and whether it has a sign.
fn integer(data_type: &DataType) -> Option<(u8, u8, bool)> {
    Some(match data_type {
        DataType::Int8 => (8, 3, true),
        DataType::Int16 => (16, 5, true),
        DataType::Int32 => (32, 10, true),
        DataType::Int64 => (64, 19, true),
        DataType::UInt8 => (8, 3, false),
        DataType::UInt16 => (16, 5, false),
        DataType::UInt32 => (32, 10, false),
        DataType::UInt64 => (64, 20, false),
        _ => return None,
    })
}

/// Whether every value of the old type is one of the new.
fn is_wider(old: &DataType, new: &DataType) -> bool {
    match (integer(old), integer(new)) {
        (Some((from, _, old_signed)), Some((to, _, new_signed))) => match (old_signed, new_signed) {
            (true, false) => false,
            (false, true) => to > from,
            _ => to >= from,
        },
        (Some((bits, digits, _)), None) => match new {
            DataType::Float32 => bits <= 16,
            DataType::Float64 => bits <= 32,
            DataType::Decimal128(precision, scale) => {
                i16::from(*precision) - i16::from(*scale) >= i16::from(digits)
            }
            _ => false,
        },
        _ => match (old, new) {
            (DataType::Float32, DataType::Float64) => true,
            (DataType::Decimal128(p, s), DataType::Decimal128(q, t)) => {
                t >= s && i16::from(*q) - i16::from(*t) >= i16::from(*p) - i16::from(*s)
            }
            _ => false,
        },
    }
}

/// Whether values of one type can be made of those of another; `column` is the name of the whole for the error,
/// empty for a record that is all of the value.
///
/// # Errors
/// The first column that does not fit.
pub fn fits(column: &str, old: &DataType, new: &DataType) -> Result<(), Misfit> {
    match (old, new) {
        (DataType::Struct(old), DataType::Struct(new)) => new.iter().try_for_each(|field| {
            let name = inside(column, field.name());
            match old.find(field.name()) {
                Some((_, before)) => fits(&name, before.data_type(), field.data_type()),
                None => Ok(()),
            }
        }),
        (DataType::List(old), DataType::List(new)) => fits(column, old.data_type(), new.data_type()),
        (old, new) if old == new || is_wider(old, new) => Ok(()),
        (old, new) => Err(misfit(column, old, new)),
    }
}

/// Values of another type made of these, as far as [`fits`] says that they can be.
///
/// # Errors
/// If a column does not fit, or has nulls and may not.
pub fn evolve(column: &str, old: &ArrayRef, new: &DataType) -> Result<ArrayRef, Misfit> {
    if old.data_type() == new {
        return Ok(Arc::clone(old));
    }
    match new {
        DataType::Struct(fields) if matches!(old.data_type(), DataType::Struct(_)) => {
            let old = old.as_struct();
            let there = |field: &Field| old.column_by_name(field.name());
            let members = fields.iter().map(|field| {
                let name = inside(column, field.name());
                let Some(before) = there(field) else { return Ok(added(field, old.len())) };
                let member = evolve(&name, before, field.data_type())?;
                let nulls = (0..old.len()).any(|row| old.is_valid(row) && member.is_null(row));
                match field.is_nullable() || !nulls {
                    true => Ok(member),
                    false => Err(Misfit {
                        column: name,
                        old: format!("{} with nulls", before.data_type()),
                        new: format!("{} without", field.data_type()),
                    }),
                }
            });
            let members = members.collect::<Result<Vec<_>, Misfit>>()?;
            StructArray::try_new_with_length(fields.clone(), members, old.nulls().cloned(), old.len())
                .map(|record| Arc::new(record) as ArrayRef)
                .map_err(|_| misfit(column, old.data_type(), new))
        }
        DataType::List(field) if matches!(old.data_type(), DataType::List(_)) => {
            let list = old.as_list::<i32>();
            let values = evolve(column, list.values(), field.data_type())?;
            ListArray::try_new(Arc::clone(field), list.offsets().clone(), values, list.nulls().cloned())
                .map(|list| Arc::new(list) as ArrayRef)
                .map_err(|_| misfit(column, old.data_type(), new))
        }
        new => {
            fits(column, old.data_type(), new)?;
            cast(old, new).map_err(|_| misfit(column, old.data_type(), new))
        }
    }
}

/// A column that was not there.
fn added(field: &Field, rows: usize) -> ArrayRef {
    match field.is_nullable() {
        true => new_null_array(field.data_type(), rows),
        false => zeros(field.data_type(), rows),
    }
}

/// The zero of a type, so many times: 0, false, empty, of a record that of each column.
fn zeros(data_type: &DataType, rows: usize) -> ArrayRef {
    match data_type {
        DataType::Boolean => Arc::new(BooleanArray::from(vec![false; rows])),
        DataType::Int8 => Arc::new(Int8Array::from(vec![0; rows])),
        DataType::Int16 => Arc::new(Int16Array::from(vec![0; rows])),
        DataType::Int32 => Arc::new(Int32Array::from(vec![0; rows])),
        DataType::Int64 => Arc::new(Int64Array::from(vec![0; rows])),
        DataType::UInt8 => Arc::new(UInt8Array::from(vec![0; rows])),
        DataType::UInt16 => Arc::new(UInt16Array::from(vec![0; rows])),
        DataType::UInt32 => Arc::new(UInt32Array::from(vec![0; rows])),
        DataType::UInt64 => Arc::new(UInt64Array::from(vec![0; rows])),
        DataType::Float32 => Arc::new(Float32Array::from(vec![0.0; rows])),
        DataType::Float64 => Arc::new(Float64Array::from(vec![0.0; rows])),
        DataType::Utf8 => Arc::new(StringArray::from(vec![""; rows])),
        DataType::Binary => Arc::new(BinaryArray::from(vec![&b""[..]; rows])),
        DataType::Decimal128(..) => {
            Arc::new(Decimal128Array::from(vec![0; rows]).with_data_type(data_type.clone()))
        }
        DataType::List(field) => {
            let empty = arrow_buffer::OffsetBuffer::new_zeroed(rows);
            Arc::new(ListArray::new(Arc::clone(field), empty, new_null_array(field.data_type(), 0), None))
        }
        DataType::Struct(fields) => {
            let members = fields.iter().map(|field| added(field, rows)).collect();
            Arc::new(StructArray::new(fields.clone(), members, None))
        }
        // Instants, and what else is a number.
        other => {
            let zeros: ArrayRef = Arc::new(Int64Array::from(vec![0; rows]));
            cast(&zeros, other).unwrap_or_else(|_| new_null_array(other, rows))
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow_schema::Fields;
    use proptest::prelude::*;

    use super::*;

    const NUMBERS: [DataType; 10] = [
        DataType::Int8,
        DataType::Int16,
        DataType::Int32,
        DataType::Int64,
        DataType::UInt8,
        DataType::UInt16,
        DataType::UInt32,
        DataType::UInt64,
        DataType::Float32,
        DataType::Float64,
    ];

    fn record(columns: &[(&str, ArrayRef, bool)]) -> ArrayRef {
        let field = |(name, array, nullable): &(&str, ArrayRef, bool)| {
            Field::new(*name, array.data_type().clone(), *nullable)
        };
        let fields: Fields = columns.iter().map(field).collect();
        let arrays = columns.iter().map(|(_, array, _)| Arc::clone(array)).collect();
        Arc::new(StructArray::new(fields, arrays, None))
    }

    fn ints(values: &[i32]) -> ArrayRef {
        Arc::new(Int32Array::from(values.to_vec()))
    }

    #[test]
    fn columns_are_mapped_by_name() {
        let old = record(&[("gone", ints(&[1, 2]), false), ("n", ints(&[3, 4]), false)]);
        let long = |values: Vec<i64>| Arc::new(Int64Array::from(values)) as ArrayRef;
        let new = record(&[
            ("text", Arc::new(StringArray::from(vec!["", ""])), false),
            ("n", long(vec![3, 4]), false),
            ("perhaps", Arc::new(Float64Array::from(vec![None, None])), true),
        ]);
        assert_eq!(fits("", old.data_type(), new.data_type()), Ok(()));
        assert_eq!(evolve("", &old, new.data_type()).unwrap().as_ref(), new.as_ref());
        let refused = fits("", new.data_type(), old.data_type()).unwrap_err();
        assert_eq!(refused.to_string(), "column `n` was Int64, and is Int32");
        let deep = |of: &ArrayRef| record(&[("inner", Arc::clone(of), false)]);
        let refused = fits("", deep(&new).data_type(), deep(&old).data_type()).unwrap_err();
        assert_eq!(refused.column, "inner.n");
    }

    #[test]
    fn nulls_do_not_go_where_none_may_be() {
        let some: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), None]));
        let (old, new) = (record(&[("n", some, true)]), record(&[("n", ints(&[1]), false)]));
        let refused = evolve("", &old, new.data_type()).unwrap_err().to_string();
        assert_eq!(refused, "column `n` was Int32 with nulls, and is Int32 without");
    }

    /// The least and greatest values that a type has, and some between.
    fn values(data_type: &DataType) -> ArrayRef {
        macro_rules! of {
            ($array:ident, $t:ty) => {
                Arc::new($array::from(vec![<$t>::MIN, 0 as $t, 1 as $t, <$t>::MAX - 1 as $t, <$t>::MAX]))
            };
        }
        match data_type {
            DataType::Int8 => of!(Int8Array, i8),
            DataType::Int16 => of!(Int16Array, i16),
            DataType::Int32 => of!(Int32Array, i32),
            DataType::Int64 => of!(Int64Array, i64),
            DataType::UInt8 => of!(UInt8Array, u8),
            DataType::UInt16 => of!(UInt16Array, u16),
            DataType::UInt32 => of!(UInt32Array, u32),
            DataType::UInt64 => of!(UInt64Array, u64),
            DataType::Float32 => {
                Arc::new(Float32Array::from(vec![f32::MIN, 0.0, 0.1, f32::MAX, f32::EPSILON]))
            }
            _ => Arc::new(Float64Array::from(vec![f64::MIN, 0.0, 0.1, f64::MAX, f64::EPSILON])),
        }
    }

    proptest! {
        /// What is widened comes back as it was when it is cast to the old type, and what is not wider does not fit
        /// or would not come back.
        #[test]
        fn what_is_widened_loses_nothing(old in 0..10usize, new in 0..10usize) {
            let (old, new) = (&NUMBERS[old], &NUMBERS[new]);
            let before = values(old);
            let keeps_all = cast(&before, new).and_then(|after| cast(&after, old)).is_ok_and(|back| {
                back.as_ref() == before.as_ref() && cast(&before, new).is_ok_and(|after| after.null_count() == 0)
            });
            match evolve("n", &before, new) {
                Ok(after) => {
                    prop_assert_eq!(after.data_type(), new);
                    prop_assert!(keeps_all, "{} to {} loses something", old, new);
                }
                Err(refused) => {
                    prop_assert_eq!(refused.column, "n");
                    prop_assert!(old != new);
                }
            }
        }
    }

    #[test]
    fn what_is_not_wider_is_reported() {
        for (old, new) in [
            (DataType::Int64, DataType::Int32),
            (DataType::Int64, DataType::Float64),
            (DataType::Int32, DataType::UInt64),
            (DataType::UInt64, DataType::Int64),
            (DataType::Float64, DataType::Float32),
            (DataType::Utf8, DataType::Int64),
            (DataType::Int64, DataType::Utf8),
            (DataType::Int64, DataType::Decimal128(20, 2)),
            (DataType::Decimal128(10, 3), DataType::Decimal128(12, 2)),
        ] {
            assert!(fits("n", &old, &new).is_err(), "{old} to {new}");
        }
        assert_eq!(fits("n", &DataType::Int64, &DataType::Decimal128(21, 2)), Ok(()));
    }
}
