//! One value of a column, with its type erased, and columns of them.

use std::cmp::Ordering;
use std::ops::Range;

use millstream_sys::bindings::millstream::job::rows::{Batch, Column, DataType, Field, Values, Varlen};

use crate::record::is_set;

/// A value of a column that is no list and no structure.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Boolean(bool),
    Integer(i128),
    Float(f64),
    Bytes(Vec<u8>),
}

impl Value {
    /// Bytes that are equal for equal keys.
    pub(super) fn key(&self) -> Vec<u8> {
        match self {
            Value::Null => vec![0],
            Value::Boolean(value) => vec![1, u8::from(*value)],
            Value::Integer(value) => [&[2][..], &value.to_be_bytes()].concat(),
            Value::Float(value) => {
                let canonical = if value.is_nan() { f64::NAN } else { value + 0.0 };
                [&[3][..], &canonical.to_bits().to_be_bytes()].concat()
            }
            Value::Bytes(value) => [&[4][..], &(value.len() as u64).to_be_bytes(), value].concat(),
        }
    }
}

/// Values in the order of a dictionary's entries: nulls first.
#[derive(Clone, Debug)]
pub(super) struct Ordered(pub(super) Vec<Value>);

impl Ord for Ordered {
    fn cmp(&self, other: &Ordered) -> Ordering {
        let canonical = |float: &f64| if float.is_nan() { f64::NAN } else { float + 0.0 };
        let one = |(left, right): (&Value, &Value)| match (left, right) {
            (Value::Boolean(left), Value::Boolean(right)) => left.cmp(right),
            (Value::Integer(left), Value::Integer(right)) => left.cmp(right),
            (Value::Float(left), Value::Float(right)) => canonical(left).total_cmp(&canonical(right)),
            (Value::Bytes(left), Value::Bytes(right)) => left.cmp(right),
            (left, right) => (*right == Value::Null).cmp(&(*left == Value::Null)),
        };
        self.0.iter().zip(&other.0).map(one).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
    }
}

impl PartialOrd for Ordered {
    fn partial_cmp(&self, other: &Ordered) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ordered {
    fn eq(&self, other: &Ordered) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Ordered {}

/// The value in a row.
pub(super) fn value_at(column: &Column, row: usize) -> Value {
    if column.validity.as_ref().is_some_and(|bits| !is_set(bits, row)) {
        return Value::Null;
    }
    match &column.values {
        Values::Bits(bits) => Value::Boolean(is_set(bits, row)),
        Values::Int32(values) => Value::Integer(values[row].into()),
        Values::Int64(values) => Value::Integer(values[row].into()),
        Values::Float32(values) => Value::Float(values[row].into()),
        Values::Float64(values) => Value::Float(values[row]),
        Values::Wide(bytes) => Value::Integer(i128::from_le_bytes(bytes.as_chunks().0[row])),
        Values::Bytes(Varlen { offsets, data }) => {
            Value::Bytes(data[offsets[row] as usize..offsets[row + 1] as usize].to_vec())
        }
        Values::Offsets(_) | Values::Nothing => panic!("neither a key nor an aggregate is of lists"),
    }
}

/// A column of these values.
pub(super) fn column_of(field: &Field, values: &[Value]) -> Column {
    let integer = |value: &Value| if let Value::Integer(integer) = value { *integer } else { 0 };
    let float = |value: &Value| if let Value::Float(float) = value { *float } else { 0.0 };
    let narrow = |value: &Value| i32::try_from(integer(value)).expect("an aggregate of int32 is one");
    let long = |value: &Value| i64::try_from(integer(value)).expect("a sum is within 64 bits");
    let built = match field.data_type {
        DataType::Boolean => Values::Bits(bits(values.iter().map(|value| *value == Value::Boolean(true)))),
        DataType::Int32 | DataType::Date => Values::Int32(values.iter().map(narrow).collect()),
        DataType::Int64 | DataType::Timestamp(_) => Values::Int64(values.iter().map(long).collect()),
        DataType::Float32 => Values::Float32(values.iter().map(|value| float(value) as f32).collect()),
        DataType::Float64 => Values::Float64(values.iter().map(float).collect()),
        DataType::Decimal(_) => Values::Wide(values.iter().flat_map(|v| integer(v).to_le_bytes()).collect()),
        DataType::Text | DataType::Binary => {
            let mut column = Varlen { offsets: vec![0], data: Vec::new() };
            for value in values {
                if let Value::Bytes(bytes) = value {
                    column.data.extend_from_slice(bytes);
                }
                column.offsets.push(column.data.len() as u32);
            }
            Values::Bytes(column)
        }
        DataType::Sequence | DataType::Structure(_) => panic!("neither a key nor an aggregate is a list"),
    };
    let has_nulls = values.contains(&Value::Null);
    let validity = has_nulls.then(|| bits(values.iter().map(|value| *value != Value::Null)));
    Column { values: built, validity }
}

fn bits(values: impl Iterator<Item = bool>) -> Vec<u8> {
    let mut bits = Vec::new();
    for (row, bit) in values.enumerate() {
        if row % 8 == 0 {
            bits.push(0);
        }
        bits[row / 8] |= u8::from(bit) << (row % 8);
    }
    bits
}

/// One row of a batch, as a batch.
pub(super) fn row_of(fields: &[Field], batch: &Batch, row: usize) -> Batch {
    let mut columns = Vec::new();
    let mut place = 0;
    while place < fields.len() {
        place = take(fields, &batch.columns, place, row..row + 1, &mut columns);
    }
    Batch {
        length: 1,
        event_times: batch.event_times.as_ref().map(|times| vec![times[row]]),
        kinds: batch.kinds.as_ref().map(|kinds| vec![kinds[row]]),
        columns,
    }
}

/// Takes a range of a column and its children; returns the place after them.
fn take(
    fields: &[Field],
    columns: &[Column],
    place: usize,
    rows: Range<usize>,
    taken: &mut Vec<Column>,
) -> usize {
    let column = &columns[place];
    let validity = column.validity.as_ref().map(|set| bits(rows.clone().map(|row| is_set(set, row))));
    match (&fields[place].data_type, &column.values) {
        (DataType::Structure(members), Values::Nothing) => {
            taken.push(Column { values: Values::Nothing, validity });
            (0..*members).fold(place + 1, |place, _| take(fields, columns, place, rows.clone(), taken))
        }
        (DataType::Sequence, Values::Offsets(offsets)) => {
            let base = offsets[rows.start];
            let shifted = offsets[rows.start..=rows.end].iter().map(|offset| offset - base).collect();
            taken.push(Column { values: Values::Offsets(shifted), validity });
            take(fields, columns, place + 1, base as usize..offsets[rows.end] as usize, taken)
        }
        _ => {
            let values: Vec<Value> = rows.map(|row| value_at(column, row)).collect();
            taken.push(column_of(&fields[place], &values));
            place + 1
        }
    }
}

/// Some rows of columns; without columns, nulls.
pub(super) type Part<'a> = (Option<&'a [Column]>, Range<usize>);

/// Puts rows of parts together.
pub(super) fn concatenated(fields: &[Field], parts: &[Part<'_>]) -> Vec<Column> {
    let mut columns = Vec::new();
    let mut place = 0;
    while place < fields.len() {
        place = concatenate(fields, parts, place, &mut columns);
    }
    columns
}

/// Puts a column and its children together; returns the place after them.
fn concatenate(fields: &[Field], parts: &[Part<'_>], place: usize, built: &mut Vec<Column>) -> usize {
    let is_present = |part: &Part<'_>, row: usize| {
        let validity = part.0.map(|columns| columns[place].validity.as_ref());
        validity.is_some_and(|bits| bits.is_none_or(|bits| is_set(bits, row)))
    };
    let rows = || parts.iter().flat_map(|part| part.1.clone().map(move |row| (part, row)));
    let validity = || {
        let is_full = rows().all(|(part, row)| is_present(part, row));
        (!is_full).then(|| bits(rows().map(|(part, row)| is_present(part, row))))
    };
    match fields[place].data_type {
        DataType::Structure(members) => {
            built.push(Column { values: Values::Nothing, validity: validity() });
            (0..members).fold(place + 1, |place, _| concatenate(fields, parts, place, built))
        }
        DataType::Sequence => {
            let mut offsets = vec![0];
            let mut children: Vec<Part<'_>> = Vec::new();
            let mut end = 0;
            for (part, row) in rows() {
                if let Some(columns) = part.0
                    && let Values::Offsets(of_part) = &columns[place].values
                {
                    let range = of_part[row] as usize..of_part[row + 1] as usize;
                    end += range.len() as u32;
                    children.push((part.0, range));
                }
                offsets.push(end);
            }
            built.push(Column { values: Values::Offsets(offsets), validity: validity() });
            concatenate(fields, &children, place + 1, built)
        }
        _ => {
            let value = |(part, row): (&Part<'_>, usize)| match part.0 {
                Some(columns) => value_at(&columns[place], row),
                None => Value::Null,
            };
            built.push(column_of(&fields[place], &rows().map(value).collect::<Vec<_>>()));
            place + 1
        }
    }
}
