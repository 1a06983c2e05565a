//! Values as numbers of the same order, and back: one code for every type that has a least and a greatest.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type};
use arrow_array::{Array, ArrayRef, BooleanArray, PrimitiveArray, make_array};
use arrow_buffer::{Buffer, NullBuffer};
use arrow_data::ArrayData;
use arrow_schema::{ArrowError, DataType};

/// How values of a type are kept where their order matters.
pub(super) enum Form {
    /// As codes of 64 bits.
    Number,
    /// As codes of 128 bits.
    Decimal,
    /// As they are.
    Bytes,
}

impl Form {
    /// None for a type whose values have no order.
    pub(super) fn of(data_type: &DataType) -> Option<Self> {
        Some(match data_type {
            DataType::Boolean
            | DataType::Int32
            | DataType::Int64
            | DataType::Date32
            | DataType::Timestamp(..)
            | DataType::Float32
            | DataType::Float64 => Self::Number,
            DataType::Decimal128(..) => Self::Decimal,
            DataType::Utf8 | DataType::Binary => Self::Bytes,
            _ => return None,
        })
    }
}

/// A number that stands for a value.
pub(super) trait Code: Ord + Copy + Default {
    /// Those of a column's values; what a null has does not matter.
    fn of_column(column: &ArrayRef) -> Vec<Self>;
    /// The values of these codes.
    fn column(
        data_type: &DataType,
        codes: Vec<Self>,
        nulls: Option<NullBuffer>,
    ) -> Result<ArrayRef, ArrowError>;
}

const SIGN: u64 = 1 << 63;

/// The order of `f64::total_cmp`, as Flink's and Java's: −0 below 0, NaN last.
fn of_float(value: f64) -> u64 {
    let bits = value.to_bits();
    if bits & SIGN == 0 { bits | SIGN } else { !bits }
}

fn to_float(code: u64) -> f64 {
    f64::from_bits(if code & SIGN == 0 { !code } else { code & !SIGN })
}

fn of_integer(value: i64) -> u64 {
    value.cast_unsigned() ^ SIGN
}

fn to_integer(code: u64) -> i64 {
    (code ^ SIGN).cast_signed()
}

impl Code for u64 {
    fn of_column(column: &ArrayRef) -> Vec<Self> {
        match column.data_type() {
            DataType::Boolean => {
                let values = column.as_boolean().values();
                values.iter().map(u64::from).collect()
            }
            DataType::Int32 => column
                .as_primitive::<Int32Type>()
                .values()
                .iter()
                .map(|v| of_integer(i64::from(*v)))
                .collect(),
            DataType::Date32 => column
                .as_primitive::<Date32Type>()
                .values()
                .iter()
                .map(|v| of_integer(i64::from(*v)))
                .collect(),
            DataType::Float32 => column
                .as_primitive::<Float32Type>()
                .values()
                .iter()
                .map(|v| of_float(f64::from(*v)))
                .collect(),
            DataType::Float64 => {
                column.as_primitive::<Float64Type>().values().iter().map(|v| of_float(*v)).collect()
            }
            // A timestamp of any unit lies as an int64 does.
            _ => column.to_data().buffer::<i64>(0)[..column.len()].iter().map(|v| of_integer(*v)).collect(),
        }
    }

    fn column(
        data_type: &DataType,
        codes: Vec<Self>,
        nulls: Option<NullBuffer>,
    ) -> Result<ArrayRef, ArrowError> {
        let length = codes.len();
        Ok(match data_type {
            DataType::Boolean => {
                Arc::new(BooleanArray::new(codes.iter().map(|code| *code != 0).collect(), nulls))
            }
            DataType::Int32 | DataType::Date32 => {
                // They were of 32 bits before.
                let values: Vec<i32> = codes.iter().map(|code| to_integer(*code) as i32).collect();
                plain(data_type, length, values.into(), nulls)?
            }
            DataType::Float32 => {
                let values: Vec<f32> = codes.iter().map(|code| to_float(*code) as f32).collect();
                plain(data_type, length, values.into(), nulls)?
            }
            DataType::Float64 => {
                let values: Vec<f64> = codes.iter().map(|code| to_float(*code)).collect();
                plain(data_type, length, values.into(), nulls)?
            }
            _ => {
                let values: Vec<i64> = codes.iter().map(|code| to_integer(*code)).collect();
                plain(data_type, length, values.into(), nulls)?
            }
        })
    }
}

fn plain(
    data_type: &DataType,
    length: usize,
    values: Buffer,
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef, ArrowError> {
    let column = ArrayData::builder(data_type.clone()).len(length).add_buffer(values).nulls(nulls);
    Ok(make_array(column.build()?))
}

impl Code for i128 {
    fn of_column(column: &ArrayRef) -> Vec<Self> {
        column.as_primitive::<Decimal128Type>().values().to_vec()
    }

    fn column(
        data_type: &DataType,
        codes: Vec<Self>,
        nulls: Option<NullBuffer>,
    ) -> Result<ArrayRef, ArrowError> {
        let column = PrimitiveArray::<Decimal128Type>::try_new(codes.into(), nulls)?;
        Ok(Arc::new(column.with_data_type(data_type.clone())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_the_order_of_values() {
        let floats = [f64::NEG_INFINITY, -1.5, -0.0, 0.0, 1e-300, 7.0, f64::INFINITY, f64::NAN];
        let codes = floats.map(of_float);
        assert!(codes.is_sorted_by(|a, b| a < b));
        assert!(floats.iter().zip(codes).all(|(float, code)| to_float(code).to_bits() == float.to_bits()));
        let integers = [i64::MIN, -7, 0, 1, i64::MAX];
        let codes = integers.map(of_integer);
        assert!(codes.is_sorted_by(|a, b| a < b));
        assert_eq!(codes.map(to_integer), integers);
    }
}
