//! One aggregate's values, a row a group; as they are kept as state, merged and taken back.

mod chosen;
mod codes;
mod sums;
mod tops;

use std::ops::Range;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type};
use arrow_array::{Array, ArrayRef, Int64Array, PrimitiveArray, RecordBatch};
use arrow_buffer::ScalarBuffer;
use arrow_schema::{DataType, Field, FieldRef, Schema};
use model::job_graph::Aggregate;
use state::key_index::KeyId;

use crate::AggregateError;
use chosen::{Choice, Chosen};
use sums::Sums;
use tops::{LIMIT_MAX, Order, Tops};

/// The values of one aggregate for all groups.
///
/// Source of the shape (update, merge, state, final): DataFusion, `GroupsAccumulator`.
pub(crate) struct Accumulator {
    column: Option<usize>,
    name: String,
    output: DataType,
    nullable: bool,
    distinct: bool,
    /// Of integers: sums of them are exact.
    of_integers: bool,
    values: Values,
}

enum Values {
    /// Rows, or rows whose column is not null.
    Count(Vec<i64>),
    Integers(Sums<i64>),
    Floats(Sums<f64>),
    Decimals(Sums<i128>),
    Average {
        sums: Vec<f64>,
        counts: Vec<i64>,
    },
    Chosen(Choice, Chosen),
    /// The first values in an order.
    Top(Order, FieldRef, Tops),
}

impl Accumulator {
    pub(crate) fn new(aggregate: &Aggregate, input: &Schema) -> Result<Self, AggregateError> {
        let function = &aggregate.function;
        let mut distinct = false;
        let (mut limit, mut descending) = (None, true);
        let is_top = function == "top";
        for (option, value) in &aggregate.options {
            match (option.as_str(), value.as_str()) {
                ("distinct", "true" | "false") => distinct = value == "true",
                ("order", "ascending" | "descending") if is_top => descending = value == "descending",
                ("limit", _) if is_top => {
                    let some = value.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
                    limit = Some(some.ok_or_else(|| AggregateError::Limit(value.clone(), LIMIT_MAX))?);
                }
                _ => return Err(AggregateError::Option(function.clone(), format!("{option} = {value}"))),
            }
        }
        let column = match aggregate.columns[..] {
            [] if function == "count" && !distinct => None,
            [column] => Some(column),
            ref columns => return Err(AggregateError::Columns(function.clone(), columns.len())),
        };
        let field = match column {
            None => None,
            Some(c) if (c as usize) < input.fields().len() => Some(input.field(c as usize)),
            Some(c) => return Err(AggregateError::OutOfBounds(function.clone(), c, input.fields().len())),
        };
        let column = column.map(|column| column as usize);
        let (Some(field), false) = (field, function == "count") else {
            return Ok(Self {
                column,
                name: String::new(),
                output: DataType::Int64,
                nullable: false,
                distinct,
                of_integers: true,
                values: Values::Count(Vec::new()),
            });
        };
        let data_type = field.data_type();
        let refused = || AggregateError::Type {
            function: function.clone(),
            column: field.name().clone(),
            data_type: data_type.to_string(),
        };
        let chosen = |choice| {
            let chosen = Chosen::of(data_type).ok_or_else(refused)?;
            Ok::<_, AggregateError>((data_type.clone(), Values::Chosen(choice, chosen)))
        };
        let (output, values) = match function.as_str() {
            "sum" => match data_type {
                DataType::Int32 | DataType::Int64 => (DataType::Int64, Values::Integers(Sums::default())),
                DataType::Float32 | DataType::Float64 => (DataType::Float64, Values::Floats(Sums::default())),
                DataType::Decimal128(_, scale) => {
                    (DataType::Decimal128(38, *scale), Values::Decimals(Sums::default()))
                }
                _ => return Err(refused()),
            },
            "min" => chosen(Choice::Least)?,
            "max" => chosen(Choice::Greatest)?,
            "first" => chosen(Choice::First)?,
            "last" => chosen(Choice::Last)?,
            "top" => {
                let limit = limit.ok_or_else(|| AggregateError::Limit("nothing".into(), LIMIT_MAX))?;
                let item: FieldRef = Arc::new(Field::new("item", data_type.clone(), false));
                let tops = Tops::of(data_type).ok_or_else(refused)?;
                let order = Order { limit, descending, distinct };
                (DataType::List(Arc::clone(&item)), Values::Top(order, item, tops))
            }
            "avg" if data_type.is_integer() || data_type.is_floating() || is_decimal(data_type) => {
                (DataType::Float64, Values::Average { sums: Vec::new(), counts: Vec::new() })
            }
            "avg" => return Err(refused()),
            _ => return Err(AggregateError::Unknown(function.clone())),
        };
        // A sequence of nothing is empty.
        let nullable = field.is_nullable() && !is_top;
        let of_integers = data_type.is_integer();
        Ok(Self { column, name: field.name().clone(), output, nullable, distinct, of_integers, values })
    }

    /// The type of the result, and whether it may be null.
    pub(crate) fn output(&self) -> (DataType, bool) {
        (self.output.clone(), self.nullable)
    }

    /// The column that it is of.
    pub(crate) fn column(&self) -> Option<usize> {
        self.column
    }

    /// Whether each value of a group counts once.
    pub(crate) fn is_distinct(&self) -> bool {
        self.distinct && !self.is_extreme() && !self.is_wide()
    }

    /// Whether it is the least or the greatest value.
    pub(crate) fn is_extreme(&self) -> bool {
        matches!(self.values, Values::Chosen(Choice::Least | Choice::Greatest, _))
    }

    /// Whether it is the greatest value.
    pub(crate) fn is_greatest(&self) -> bool {
        matches!(self.values, Values::Chosen(Choice::Greatest, _))
    }

    /// Whether its results may be much larger than a row's value.
    pub(crate) fn is_wide(&self) -> bool {
        matches!(self.values, Values::Top(..))
    }

    /// Whether states of rows that came apart make the state of all of them, in whatever order.
    pub(crate) fn is_mergeable(&self) -> bool {
        !self.is_of_order() && !self.is_distinct()
    }

    /// Whether it depends on the order of rows.
    pub(crate) fn is_of_order(&self) -> bool {
        matches!(self.values, Values::Chosen(Choice::First | Choice::Last, _))
    }

    /// Whether what was added can be taken away again, exactly.
    pub(crate) fn is_invertible(&self) -> bool {
        match &self.values {
            Values::Count(_) | Values::Integers(_) | Values::Decimals(_) => true,
            Values::Average { .. } => self.of_integers,
            Values::Floats(_) | Values::Chosen(..) | Values::Top(..) => false,
        }
    }

    /// Takes rows; the value after each.
    pub(crate) fn running(
        &mut self,
        ids: &[KeyId],
        groups: usize,
        rows: &RecordBatch,
    ) -> Result<ArrayRef, AggregateError> {
        let column = self.column.map(|column| rows.column(column));
        let overflow = || AggregateError::Overflow(self.name.clone());
        let some = || AggregateError::Columns(self.name.clone(), 0);
        Ok(match &mut self.values {
            Values::Count(counts) => {
                counts.resize(groups, 0);
                let add = |id: &KeyId, by: i64| {
                    let count = &mut counts[*id as usize];
                    *count += by;
                    *count
                };
                let out: Vec<i64> = counted(ids, column, add).collect();
                Arc::new(Int64Array::from(out))
            }
            Values::Integers(sums) => {
                let column = column.ok_or_else(some)?;
                let values = as_integers(column);
                let out = sums.running::<Int64Type>(ids, groups, column, |i, sum| sum.checked_add(values[i]));
                Arc::new(out.ok_or_else(overflow)?)
            }
            Values::Floats(sums) => {
                let column = column.ok_or_else(some)?;
                let values = as_floats(column);
                let out =
                    sums.running::<Float64Type>(ids, groups, column, |i, sum| Some(sum + values.value(i)));
                Arc::new(out.ok_or_else(overflow)?)
            }
            Values::Decimals(sums) => {
                let column = column.ok_or_else(some)?;
                let values = column.as_primitive::<Decimal128Type>();
                let out = sums.running::<Decimal128Type>(ids, groups, column, |i, sum| {
                    sum.checked_add(values.value(i)).filter(fits_decimal)
                });
                Arc::new(out.ok_or_else(overflow)?.with_data_type(self.output.clone()))
            }
            Values::Average { sums, counts } => {
                sums.resize(groups, 0.0);
                counts.resize(groups, 0);
                let column = column.ok_or_else(some)?;
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
            Values::Chosen(choice, chosen) => {
                chosen.running(*choice, ids, groups, column.ok_or_else(some)?)?
            }
            Values::Top(..) => return Err(AggregateError::InWindows("top".into())),
        })
    }

    /// Takes rows: their values of its column, none for a count of rows.
    pub(crate) fn absorb(
        &mut self,
        ids: &[KeyId],
        groups: usize,
        column: Option<&ArrayRef>,
    ) -> Result<(), AggregateError> {
        self.add(ids, groups, column, false, 1)
    }

    /// Takes back rows that it has taken: of counts, sums and averages.
    pub(crate) fn retract(
        &mut self,
        ids: &[KeyId],
        groups: usize,
        column: Option<&ArrayRef>,
    ) -> Result<(), AggregateError> {
        self.add(ids, groups, column, true, -1)
    }

    /// Adds values, or takes them back; each changes its group's number of values by `by`.
    fn add(
        &mut self,
        ids: &[KeyId],
        groups: usize,
        column: Option<&ArrayRef>,
        back: bool,
        by: i64,
    ) -> Result<(), AggregateError> {
        let overflow = || AggregateError::Overflow(self.name.clone());
        let some = || AggregateError::Columns(self.name.clone(), 0);
        match &mut self.values {
            Values::Count(counts) => {
                counts.resize(groups, 0);
                counted(ids, column, |id, one| counts[*id as usize] += by * one).for_each(drop);
            }
            Values::Integers(sums) => {
                let column = column.ok_or_else(some)?;
                let values = as_integers(column);
                let add = |i: usize, sum: i64| {
                    if back { sum.checked_sub(values[i]) } else { sum.checked_add(values[i]) }
                };
                sums.absorb(ids, groups, column, by, add).ok_or_else(overflow)?;
            }
            Values::Floats(sums) => {
                let column = column.ok_or_else(some)?;
                let values = as_floats(column);
                let sign = if back { -1.0 } else { 1.0 };
                let add = |i: usize, sum: f64| Some(sum + sign * values.value(i));
                sums.absorb(ids, groups, column, by, add).ok_or_else(overflow)?;
            }
            Values::Decimals(sums) => {
                let column = column.ok_or_else(some)?;
                let values = column.as_primitive::<Decimal128Type>();
                let add = |i: usize, sum: i128| {
                    let value = values.value(i);
                    let sum = if back { sum.checked_sub(value) } else { sum.checked_add(value) };
                    sum.filter(fits_decimal)
                };
                sums.absorb(ids, groups, column, by, add).ok_or_else(overflow)?;
            }
            Values::Average { sums, counts } => {
                sums.resize(groups, 0.0);
                counts.resize(groups, 0);
                let column = column.ok_or_else(some)?;
                let values = as_floats(column);
                for (i, id) in ids.iter().enumerate().filter(|(i, _)| column.is_valid(*i)) {
                    sums[*id as usize] += by as f64 * values.value(i);
                    counts[*id as usize] += by;
                }
            }
            Values::Chosen(choice, chosen) => chosen.absorb(*choice, ids, groups, column.ok_or_else(some)?),
            Values::Top(order, _, tops) => tops.absorb(*order, ids, groups, column.ok_or_else(some)?),
        }
        Ok(())
    }

    /// The values of these groups, as they stand.
    pub(crate) fn finals(&self, range: Range<usize>) -> Result<ArrayRef, AggregateError> {
        Ok(match &self.values {
            Values::Count(counts) => Arc::new(Int64Array::from(counts[range].to_vec())),
            Values::Integers(sums) => Arc::new(sums.finals::<Int64Type>(range, self.nullable)),
            Values::Floats(sums) => Arc::new(sums.finals::<Float64Type>(range, self.nullable)),
            Values::Decimals(sums) => Arc::new(
                sums.finals::<Decimal128Type>(range, self.nullable).with_data_type(self.output.clone()),
            ),
            Values::Average { sums, counts } => Arc::new(
                range.map(|id| average(sums[id], counts[id])).collect::<PrimitiveArray<Float64Type>>(),
            ),
            Values::Chosen(_, chosen) => chosen.finals(range, &self.output)?,
            Values::Top(order, item, tops) => tops.finals(range, *order, item)?,
        })
    }
}

/// # As state
///
/// A group's state is one or two columns, which are merged as rows are taken.
impl Accumulator {
    /// The columns of the state.
    pub(crate) fn state_fields(&self, name: &str) -> Vec<Field> {
        let value = |data_type: DataType| Field::new(name, data_type, true);
        match &self.values {
            Values::Average { .. } => {
                vec![value(DataType::Float64), Field::new(format!("{name}_count"), DataType::Int64, true)]
            }
            // A sum of which nothing is left is null again: how many values are in it is kept too.
            Values::Integers(_) | Values::Floats(_) | Values::Decimals(_) if self.nullable => {
                vec![value(self.output.clone()), Field::new(format!("{name}_count"), DataType::Int64, true)]
            }
            _ => vec![value(self.output.clone())],
        }
    }

    /// So many groups, all new.
    pub(crate) fn clear(&mut self, groups: usize) {
        match &mut self.values {
            Values::Count(counts) => {
                counts.clear();
                counts.resize(groups, 0);
            }
            Values::Integers(sums) => sums.clear(groups),
            Values::Floats(sums) => sums.clear(groups),
            Values::Decimals(sums) => sums.clear(groups),
            Values::Average { sums, counts } => {
                sums.clear();
                sums.resize(groups, 0.0);
                counts.clear();
                counts.resize(groups, 0);
            }
            Values::Chosen(_, chosen) => chosen.clear(groups),
            Values::Top(_, _, tops) => tops.clear(groups),
        }
    }

    /// Adds the state in each row to a group; null adds nothing.
    pub(crate) fn merge(
        &mut self,
        ids: &[KeyId],
        groups: usize,
        state: &[ArrayRef],
    ) -> Result<(), AggregateError> {
        self.join(ids, groups, state, false)
    }

    /// Takes the state in each row away from a group that it was merged into: of counts and sums.
    pub(crate) fn unmerge(
        &mut self,
        ids: &[KeyId],
        groups: usize,
        state: &[ArrayRef],
    ) -> Result<(), AggregateError> {
        self.join(ids, groups, state, true)
    }

    fn join(
        &mut self,
        ids: &[KeyId],
        groups: usize,
        state: &[ArrayRef],
        back: bool,
    ) -> Result<(), AggregateError> {
        let sign = if back { -1 } else { 1 };
        match &mut self.values {
            Values::Count(counts) => {
                counts.resize(groups, 0);
                for_each_count(&state[0], ids, |id, by| counts[id] += sign * by);
                Ok(())
            }
            Values::Average { sums, counts } => {
                sums.resize(groups, 0.0);
                counts.resize(groups, 0);
                let column = state[0].as_primitive::<Float64Type>();
                for (i, id) in ids.iter().enumerate().filter(|(i, _)| column.is_valid(*i)) {
                    sums[*id as usize] += sign as f64 * column.value(i);
                }
                for_each_count(&state[1], ids, |id, by| counts[id] += sign * by);
                Ok(())
            }
            Values::Chosen(choice, chosen) => {
                chosen.absorb(*choice, ids, groups, &state[0]);
                Ok(())
            }
            Values::Top(order, _, tops) => {
                tops.merge(*order, ids, groups, &state[0]);
                Ok(())
            }
            _ => {
                let of_values = self.nullable.then(|| state.get(1)).flatten();
                // Where the number of values is kept it is added by itself.
                let by = if of_values.is_some() { 0 } else { sign };
                self.add(ids, groups, Some(&state[0]), back, by)?;
                if let (Some(counts), Some(column)) = (self.counts(), of_values) {
                    for_each_count(column, ids, |id, by| counts[id] += sign * by);
                }
                Ok(())
            }
        }
    }

    fn counts(&mut self) -> Option<&mut Vec<i64>> {
        if !self.nullable {
            return None;
        }
        match &mut self.values {
            Values::Integers(sums) => Some(sums.counts_mut()),
            Values::Floats(sums) => Some(sums.counts_mut()),
            Values::Decimals(sums) => Some(sums.counts_mut()),
            _ => None,
        }
    }

    /// The state of the groups.
    pub(crate) fn state(&mut self, groups: usize) -> Result<Vec<ArrayRef>, AggregateError> {
        let count = |counts: &[i64]| -> ArrayRef {
            Arc::new(Int64Array::new(ScalarBuffer::from(counts[..groups].to_vec()), None))
        };
        if let Values::Average { sums, counts } = &self.values {
            let sums: ArrayRef =
                Arc::new(PrimitiveArray::<Float64Type>::from_iter_values(sums[..groups].iter().copied()));
            return Ok(vec![sums, count(counts)]);
        }
        let mut columns = vec![self.finals(0..groups)?];
        if let Some(counts) = self.counts() {
            columns.push(count(counts));
        }
        Ok(columns)
    }
}

/// Counts rows, or those whose column is not null: `add(group, 0 or 1)`.
fn counted<'a, T>(
    ids: &'a [KeyId],
    column: Option<&'a ArrayRef>,
    mut add: impl FnMut(&KeyId, i64) -> T + 'a,
) -> impl Iterator<Item = T> + 'a {
    let nulls = column.and_then(|column| column.nulls());
    ids.iter()
        .enumerate()
        .map(move |(row, id)| add(id, nulls.map_or(1, |nulls| i64::from(nulls.is_valid(row)))))
}

fn for_each_count(column: &ArrayRef, ids: &[KeyId], mut add: impl FnMut(usize, i64)) {
    let column = column.as_primitive::<Int64Type>();
    for (i, id) in ids.iter().enumerate().filter(|(i, _)| column.is_valid(*i)) {
        add(*id as usize, column.value(i));
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

fn as_integers(column: &ArrayRef) -> ScalarBuffer<i64> {
    match column.data_type() {
        DataType::Int64 => column.as_primitive::<Int64Type>().values().clone(),
        _ => column.as_primitive::<Int32Type>().values().iter().map(|value| i64::from(*value)).collect(),
    }
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
