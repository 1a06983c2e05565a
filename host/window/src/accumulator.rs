//! One aggregate's values, a row a key.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
};
use arrow_array::{Array, ArrayRef, BooleanArray, Int64Array, PrimitiveArray, RecordBatch};
use arrow_buffer::{ArrowNativeType, BooleanBuffer, NullBuffer};
use arrow_schema::{DataType, Schema, TimeUnit};
use model::job_graph::Aggregate;
use state::key_index::KeyId;

use crate::AggregateError;

/// The values of one aggregate for all keys.
pub(crate) struct Accumulator {
    column: usize,
    name: String,
    output: DataType,
    nullable: bool,
    values: Values,
}

enum Values {
    /// Rows, or rows whose column is not null.
    Count {
        counts: Vec<i64>,
        of_column: bool,
    },
    Sum(Sums),
    Extreme {
        wanted: Ordering,
        best: Extremes,
    },
    Average {
        sums: Vec<f64>,
        counts: Vec<i64>,
    },
}

enum Sums {
    Integers(Seen<i64>),
    Floats(Seen<f64>),
    Decimals(Seen<i128>),
}

enum Extremes {
    Int32(Seen<i32>),
    Int64(Seen<i64>),
    Float32(Seen<f32>),
    Float64(Seen<f64>),
    Decimal(Seen<i128>),
    Boolean(Seen<bool>),
    Bytes(Vec<Option<Box<[u8]>>>),
}

/// A value for each key, and whether it has had one.
#[derive(Default)]
struct Seen<T> {
    values: Vec<T>,
    seen: Vec<bool>,
    /// Some key may have had none: once there has been a null.
    gaps: bool,
}

impl<T: Copy + Default> Seen<T> {
    fn grow(&mut self, groups: usize) {
        self.values.resize(groups, T::default());
        self.seen.resize(groups, false);
        self.gaps = true;
    }

    /// For rows without nulls: their keys all get a value, and every new key is among them.
    fn grow_seen(&mut self, ids: &[KeyId], groups: usize) {
        self.values.resize(groups, T::default());
        self.seen.resize(groups, true);
        if self.gaps {
            ids.iter().for_each(|id| self.seen[*id as usize] = true);
        }
    }
}

impl<T: Copy + ArrowNativeType> Seen<T> {
    fn finals<P: ArrowPrimitiveType<Native = T>>(&self, range: Range<usize>) -> PrimitiveArray<P> {
        let nulls = NullBuffer::new(BooleanBuffer::collect_bool(range.len(), |i| self.seen[range.start + i]));
        PrimitiveArray::new(self.values[range].to_vec().into(), Some(nulls))
    }
}

impl Accumulator {
    pub(crate) fn new(aggregate: &Aggregate, input: &Schema) -> Result<Self, AggregateError> {
        let function = &aggregate.function;
        if let Some(option) = aggregate.options.keys().next() {
            return Err(AggregateError::Option(function.clone(), option.clone()));
        }
        let column = match aggregate.columns[..] {
            [] if function == "count" => None,
            [column] => Some(column),
            ref columns => return Err(AggregateError::Columns(function.clone(), columns.len())),
        };
        let field = match column {
            None => None,
            Some(c) if (c as usize) < input.fields().len() => Some(input.field(c as usize)),
            Some(c) => return Err(AggregateError::OutOfBounds(function.clone(), c, input.fields().len())),
        };
        let (Some(field), false) = (field, function == "count") else {
            return Ok(Self {
                column: column.unwrap_or(0) as usize,
                name: String::new(),
                output: DataType::Int64,
                nullable: false,
                values: Values::Count { counts: Vec::new(), of_column: column.is_some() },
            });
        };
        let data_type = field.data_type();
        let refused = || AggregateError::Type {
            function: function.clone(),
            column: field.name().clone(),
            data_type: data_type.to_string(),
        };
        let (output, values) = match function.as_str() {
            "sum" => match data_type {
                DataType::Int32 | DataType::Int64 => {
                    (DataType::Int64, Values::Sum(Sums::Integers(Seen::default())))
                }
                DataType::Float32 | DataType::Float64 => {
                    (DataType::Float64, Values::Sum(Sums::Floats(Seen::default())))
                }
                DataType::Decimal128(_, scale) => {
                    (DataType::Decimal128(38, *scale), Values::Sum(Sums::Decimals(Seen::default())))
                }
                _ => return Err(refused()),
            },
            "min" | "max" => {
                let best = Extremes::of(data_type).ok_or_else(refused)?;
                let wanted = if function == "min" { Ordering::Less } else { Ordering::Greater };
                (data_type.clone(), Values::Extreme { wanted, best })
            }
            "avg" if data_type.is_integer() || data_type.is_floating() || is_decimal(data_type) => {
                (DataType::Float64, Values::Average { sums: Vec::new(), counts: Vec::new() })
            }
            "avg" => return Err(refused()),
            _ => return Err(AggregateError::Unknown(function.clone())),
        };
        Ok(Self {
            column: column.unwrap_or(0) as usize,
            name: field.name().clone(),
            output,
            nullable: field.is_nullable(),
            values,
        })
    }

    /// The type of the result, and whether it may be null.
    pub(crate) fn output(&self) -> (DataType, bool) {
        (self.output.clone(), self.nullable)
    }

    /// Takes rows; the value after each.
    pub(crate) fn running(
        &mut self,
        ids: &[KeyId],
        groups: usize,
        rows: &RecordBatch,
    ) -> Result<ArrayRef, AggregateError> {
        let overflow = || AggregateError::Overflow(self.name.clone());
        let out: ArrayRef = match &mut self.values {
            Values::Count { counts, of_column } => {
                counts.resize(groups, 0);
                let nulls = if *of_column { rows.column(self.column).nulls() } else { None };
                let out: Vec<i64> = match nulls {
                    None => ids
                        .iter()
                        .map(|id| {
                            let count = &mut counts[*id as usize];
                            *count += 1;
                            *count
                        })
                        .collect(),
                    Some(nulls) => ids
                        .iter()
                        .zip(nulls)
                        .map(|(id, valid)| {
                            let count = &mut counts[*id as usize];
                            *count += i64::from(valid);
                            *count
                        })
                        .collect(),
                };
                Arc::new(Int64Array::from(out))
            }
            Values::Sum(Sums::Integers(sums)) => {
                let column = rows.column(self.column);
                let narrow;
                let values: &[i64] = match column.data_type() {
                    DataType::Int64 => column.as_primitive::<Int64Type>().values(),
                    _ => {
                        narrow = column.as_primitive::<Int32Type>().unary::<_, Int64Type>(i64::from);
                        narrow.values()
                    }
                };
                if column.null_count() == 0 {
                    sums.grow_seen(ids, groups);
                    let mut out = Vec::with_capacity(ids.len());
                    for (id, value) in ids.iter().zip(values) {
                        let id = *id as usize;
                        let sum = sums.values[id].checked_add(*value).ok_or_else(overflow)?;
                        sums.values[id] = sum;
                        out.push(sum);
                    }
                    Arc::new(Int64Array::from(out))
                } else {
                    sums.grow(groups);
                    Arc::new(fold::<Int64Type, _>(sums, ids, column, |i, sum, _| {
                        sum.checked_add(values[i]).ok_or_else(overflow)
                    })?)
                }
            }
            Values::Sum(Sums::Floats(sums)) => {
                sums.grow(groups);
                let column = rows.column(self.column);
                let values = as_floats(column);
                Arc::new(fold::<Float64Type, _>(sums, ids, column, |i, sum, _| Ok(sum + values.value(i)))?)
            }
            Values::Sum(Sums::Decimals(sums)) => {
                sums.grow(groups);
                let column = rows.column(self.column);
                let values = column.as_primitive::<Decimal128Type>();
                let sums = fold::<Decimal128Type, _>(sums, ids, column, |i, sum, _| {
                    sum.checked_add(values.value(i)).filter(fits_decimal).ok_or_else(overflow)
                })?;
                Arc::new(sums.with_data_type(self.output.clone()))
            }
            Values::Average { sums, counts } => {
                sums.resize(groups, 0.0);
                counts.resize(groups, 0);
                let column = rows.column(self.column);
                let values = as_floats(column);
                let out = ids.iter().enumerate().map(|(i, id)| {
                    let id = *id as usize;
                    if column.is_valid(i) {
                        sums[id] += values.value(i);
                        counts[id] += 1;
                    }
                    average(sums[id], counts[id])
                });
                Arc::new(out.collect::<PrimitiveArray<Float64Type>>())
            }
            Values::Extreme { wanted, best } => {
                best.running(*wanted, ids, groups, rows.column(self.column), &self.output)?
            }
        };
        Ok(out)
    }

    /// Takes rows.
    pub(crate) fn absorb(
        &mut self,
        ids: &[KeyId],
        groups: usize,
        rows: &RecordBatch,
    ) -> Result<(), AggregateError> {
        self.running(ids, groups, rows).map(drop)
    }

    /// The values of these keys, as they stand.
    pub(crate) fn finals(&mut self, range: Range<usize>) -> Result<ArrayRef, AggregateError> {
        Ok(match &self.values {
            Values::Count { counts, .. } => Arc::new(Int64Array::from(counts[range].to_vec())),
            Values::Sum(Sums::Integers(sums)) => Arc::new(sums.finals::<Int64Type>(range)),
            Values::Sum(Sums::Floats(sums)) => Arc::new(sums.finals::<Float64Type>(range)),
            Values::Sum(Sums::Decimals(sums)) => {
                Arc::new(sums.finals::<Decimal128Type>(range).with_data_type(self.output.clone()))
            }
            Values::Average { sums, counts } => Arc::new(
                range.map(|id| average(sums[id], counts[id])).collect::<PrimitiveArray<Float64Type>>(),
            ),
            Values::Extreme { best, .. } => best.finals(range, &self.output),
        })
    }
}

fn is_decimal(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Decimal128(..))
}

/// 38 digits.
fn fits_decimal(value: &i128) -> bool {
    value.unsigned_abs() < 10u128.pow(38)
}

fn average(sum: f64, count: i64) -> Option<f64> {
    (count > 0).then(|| sum / count as f64)
}

fn as_floats(column: &ArrayRef) -> PrimitiveArray<Float64Type> {
    match column.data_type() {
        DataType::Float64 => column.as_primitive::<Float64Type>().clone(),
        DataType::Float32 => column.as_primitive::<Float32Type>().unary(f64::from),
        DataType::Int32 => column.as_primitive::<Int32Type>().unary(f64::from),
        DataType::Decimal128(_, scale) => {
            let unit = 10f64.powi(i32::from(*scale));
            column.as_primitive::<Decimal128Type>().unary(|v| v as f64 / unit)
        }
        _ => column.as_primitive::<Int64Type>().unary(|v| v as f64),
    }
}

/// Folds each row that is not null into its key's value; the value after each row.
fn fold<P, F>(
    state: &mut Seen<P::Native>,
    ids: &[KeyId],
    column: &dyn Array,
    mut next: F,
) -> Result<PrimitiveArray<P>, AggregateError>
where
    P: ArrowPrimitiveType,
    P::Native: Copy + Default,
    F: FnMut(usize, P::Native, bool) -> Result<P::Native, AggregateError>,
{
    let mut out = Vec::with_capacity(ids.len());
    let mut any_null = false;
    let mut valid = Vec::with_capacity(ids.len());
    for (i, id) in ids.iter().enumerate() {
        let id = *id as usize;
        if column.is_valid(i) {
            state.values[id] = next(i, state.values[id], state.seen[id])?;
            state.seen[id] = true;
        }
        any_null |= !state.seen[id];
        valid.push(state.seen[id]);
        out.push(state.values[id]);
    }
    Ok(PrimitiveArray::new(out.into(), any_null.then(|| NullBuffer::from(valid))))
}

impl Extremes {
    fn of(data_type: &DataType) -> Option<Self> {
        Some(match data_type {
            DataType::Int32 | DataType::Date32 => Self::Int32(Seen::default()),
            DataType::Int64 | DataType::Timestamp(..) => Self::Int64(Seen::default()),
            DataType::Float32 => Self::Float32(Seen::default()),
            DataType::Float64 => Self::Float64(Seen::default()),
            DataType::Decimal128(..) => Self::Decimal(Seen::default()),
            DataType::Boolean => Self::Boolean(Seen::default()),
            DataType::Utf8 | DataType::Binary => Self::Bytes(Vec::new()),
            _ => return None,
        })
    }

    fn running(
        &mut self,
        wanted: Ordering,
        ids: &[KeyId],
        groups: usize,
        column: &ArrayRef,
        output: &DataType,
    ) -> Result<ArrayRef, AggregateError> {
        macro_rules! primitive {
            ($seen:expr, $native:ty, $type:ty, $compare:expr) => {{
                $seen.grow(groups);
                let values = column.as_primitive::<$type>();
                let compare: fn(&$native, &$native) -> Ordering = $compare;
                Arc::new(
                    fold::<$type, _>($seen, ids, column, |i, best, seen| {
                        let value = values.value(i);
                        Ok(if !seen || compare(&value, &best) == wanted { value } else { best })
                    })?
                    .with_data_type(output.clone()),
                )
            }};
        }
        Ok(match self {
            Self::Int32(seen) if *output == DataType::Date32 => primitive!(seen, i32, Date32Type, Ord::cmp),
            Self::Int32(seen) => primitive!(seen, i32, Int32Type, Ord::cmp),
            Self::Int64(seen) => match output {
                DataType::Timestamp(TimeUnit::Millisecond, _) => {
                    primitive!(seen, i64, TimestampMillisecondType, Ord::cmp)
                }
                DataType::Timestamp(TimeUnit::Microsecond, _) => {
                    primitive!(seen, i64, TimestampMicrosecondType, Ord::cmp)
                }
                DataType::Timestamp(..) => primitive!(seen, i64, TimestampNanosecondType, Ord::cmp),
                _ => primitive!(seen, i64, Int64Type, Ord::cmp),
            },
            Self::Float32(seen) => primitive!(seen, f32, Float32Type, f32::total_cmp),
            Self::Float64(seen) => primitive!(seen, f64, Float64Type, f64::total_cmp),
            Self::Decimal(seen) => primitive!(seen, i128, Decimal128Type, Ord::cmp),
            Self::Boolean(seen) => {
                seen.grow(groups);
                let values = column.as_boolean();
                let out = ids.iter().enumerate().map(|(i, id)| {
                    let id = *id as usize;
                    if column.is_valid(i) {
                        let value = values.value(i);
                        if !seen.seen[id] || value.cmp(&seen.values[id]) == wanted {
                            seen.values[id] = value;
                        }
                        seen.seen[id] = true;
                    }
                    seen.seen[id].then_some(seen.values[id])
                });
                Arc::new(out.collect::<BooleanArray>())
            }
            Self::Bytes(best) => {
                best.resize(groups, None);
                let is_text = *output == DataType::Utf8;
                let (mut text, mut binary) = (StringBuilder::new(), BinaryBuilder::new());
                for (i, id) in ids.iter().enumerate() {
                    let id = *id as usize;
                    if column.is_valid(i) {
                        let value = if is_text {
                            column.as_string::<i32>().value(i).as_bytes()
                        } else {
                            column.as_binary::<i32>().value(i)
                        };
                        if best[id].as_deref().is_none_or(|best| value.cmp(best) == wanted) {
                            best[id] = Some(Box::from(value));
                        }
                    }
                    append(is_text, &mut text, &mut binary, best[id].as_deref());
                }
                if is_text { Arc::new(text.finish()) } else { Arc::new(binary.finish()) }
            }
        })
    }

    fn finals(&self, range: Range<usize>, output: &DataType) -> ArrayRef {
        macro_rules! primitive {
            ($seen:expr, $type:ty) => {
                Arc::new($seen.finals::<$type>(range).with_data_type(output.clone()))
            };
        }
        match self {
            Self::Int32(seen) if *output == DataType::Date32 => primitive!(seen, Date32Type),
            Self::Int32(seen) => primitive!(seen, Int32Type),
            Self::Int64(seen) => match output {
                DataType::Timestamp(TimeUnit::Millisecond, _) => primitive!(seen, TimestampMillisecondType),
                DataType::Timestamp(TimeUnit::Microsecond, _) => primitive!(seen, TimestampMicrosecondType),
                DataType::Timestamp(..) => primitive!(seen, TimestampNanosecondType),
                _ => primitive!(seen, Int64Type),
            },
            Self::Float32(seen) => primitive!(seen, Float32Type),
            Self::Float64(seen) => primitive!(seen, Float64Type),
            Self::Decimal(seen) => primitive!(seen, Decimal128Type),
            Self::Boolean(seen) => {
                Arc::new(range.map(|id| seen.seen[id].then_some(seen.values[id])).collect::<BooleanArray>())
            }
            Self::Bytes(best) => {
                let is_text = *output == DataType::Utf8;
                let (mut text, mut binary) = (StringBuilder::new(), BinaryBuilder::new());
                best[range]
                    .iter()
                    .for_each(|value| append(is_text, &mut text, &mut binary, value.as_deref()));
                if is_text { Arc::new(text.finish()) } else { Arc::new(binary.finish()) }
            }
        }
    }
}

fn append(is_text: bool, text: &mut StringBuilder, binary: &mut BinaryBuilder, value: Option<&[u8]>) {
    if is_text {
        // The bytes came from a text column, so they are UTF-8.
        text.append_option(value.map(|bytes| std::str::from_utf8(bytes).unwrap_or("")));
    } else {
        binary.append_option(value);
    }
}
