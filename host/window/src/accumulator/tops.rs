//! The first few values of a group in an order, as a sequence.
//!
//! A group has a list of at most twice as many values as are wanted, in no order: when it is full, it is
//! cut to those that are wanted. So a value costs the same however many are kept.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, ListArray};
use arrow_buffer::OffsetBuffer;
use arrow_schema::{ArrowError, DataType, FieldRef};
use state::key_index::KeyId;

use super::chosen::{BytesBuilder, bytes_of};
use super::codes::{Code, Form};

/// Which values are first, and how many are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) limit: usize,
    pub(super) descending: bool,
    /// Each value once.
    pub(super) distinct: bool,
}

/// The most values that are kept of a group.
pub(super) const LIMIT_MAX: usize = 10_000;

/// The first values of each group.
pub(super) enum Tops {
    /// Of at most 64 bits.
    Numbers(Vec<First<u64>>),
    Decimals(Vec<First<i128>>),
    Bytes(Vec<First<Box<[u8]>>>),
}

/// Those of one group.
pub(super) struct First<T> {
    values: Vec<T>,
    /// Values after this one are not wanted any more.
    last: Option<T>,
}

impl<T: Ord + Clone> First<T> {
    const NONE: Self = Self { values: Vec::new(), last: None };

    #[inline]
    fn is_wanted(&self, value: &T, order: Order) -> bool {
        match &self.last {
            None => true,
            Some(last) if order.descending => value > last,
            Some(last) => value < last,
        }
    }

    #[inline]
    fn add(&mut self, value: T, order: Order) {
        self.values.push(value);
        if self.values.len() >= 2 * order.limit {
            self.sort(order);
            self.last = self.values.get(order.limit - 1).cloned();
        }
    }

    /// The values in their order, and no more than are wanted.
    fn sort(&mut self, order: Order) {
        match order.descending {
            true => self.values.sort_unstable_by(|a, b| b.cmp(a)),
            false => self.values.sort_unstable(),
        }
        if order.distinct {
            self.values.dedup();
        }
        self.values.truncate(order.limit);
    }
}

fn grow<T: Ord + Clone>(groups: &mut Vec<First<T>>, count: usize) {
    groups.resize_with(count, || First::NONE);
}

impl Tops {
    /// None for a type whose values have no order.
    pub(super) fn of(data_type: &DataType) -> Option<Self> {
        Some(match Form::of(data_type)? {
            Form::Number => Self::Numbers(Vec::new()),
            Form::Decimal => Self::Decimals(Vec::new()),
            Form::Bytes => Self::Bytes(Vec::new()),
        })
    }

    /// All groups are without a value, and so many.
    pub(super) fn clear(&mut self, groups: usize) {
        match self {
            Self::Numbers(of) => of.clear(),
            Self::Decimals(of) => of.clear(),
            Self::Bytes(of) => of.clear(),
        }
        self.grow(groups);
    }

    fn grow(&mut self, groups: usize) {
        match self {
            Self::Numbers(of) => grow(of, groups),
            Self::Decimals(of) => grow(of, groups),
            Self::Bytes(of) => grow(of, groups),
        }
    }

    /// Takes a value for each of these groups, nulls left out.
    pub(super) fn absorb(&mut self, order: Order, ids: &[KeyId], groups: usize, column: &ArrayRef) {
        self.grow(groups);
        let rows = ids.iter().enumerate().filter(|(row, _)| column.is_valid(*row));
        match self {
            Self::Numbers(of) => take(of, order, rows, &u64::of_column(column)),
            Self::Decimals(of) => take(of, order, rows, &i128::of_column(column)),
            Self::Bytes(of) => {
                let value = bytes_of(column);
                for (row, id) in rows {
                    let first = &mut of[*id as usize];
                    let value = Box::from(value(row));
                    if first.is_wanted(&value, order) {
                        first.add(value, order);
                    }
                }
            }
        }
    }

    /// Adds the values in each row of a state to a group.
    pub(super) fn merge(&mut self, order: Order, ids: &[KeyId], groups: usize, state: &ArrayRef) {
        let lists = state.as_list::<i32>();
        let offsets = lists.value_offsets();
        let (mut of_values, mut from, mut to) = (Vec::new(), 0, 0);
        for (row, id) in ids.iter().enumerate() {
            // Offsets of a list are not negative.
            let range = offsets[row] as usize..offsets[row + 1] as usize;
            if lists.is_null(row) || range.is_empty() {
                continue;
            }
            if to != range.start {
                self.absorb(order, &of_values, groups, &lists.values().slice(from, to - from));
                (of_values, from) = (Vec::new(), range.start);
            }
            to = range.end;
            of_values.resize(to - from, *id);
        }
        self.absorb(order, &of_values, groups, &lists.values().slice(from, to - from));
    }

    /// The values of these groups, each in their order.
    pub(super) fn finals(
        &self,
        range: Range<usize>,
        order: Order,
        item: &FieldRef,
    ) -> Result<ArrayRef, ArrowError> {
        let (lengths, values) = match self {
            Self::Numbers(of) => {
                let (lengths, codes) = sorted(&of[range], order);
                (lengths, u64::column(item.data_type(), codes, None)?)
            }
            Self::Decimals(of) => {
                let (lengths, codes) = sorted(&of[range], order);
                (lengths, i128::column(item.data_type(), codes, None)?)
            }
            Self::Bytes(of) => {
                let (lengths, all) = sorted(&of[range], order);
                let mut built = BytesBuilder::new(item.data_type());
                all.iter().for_each(|value| built.append(Some(value)));
                (lengths, built.finish())
            }
        };
        let offsets = OffsetBuffer::<i32>::from_lengths(lengths);
        Ok(Arc::new(ListArray::try_new(Arc::clone(item), offsets, values, None)?))
    }
}

fn take<'a, T: Ord + Copy>(
    of: &mut [First<T>],
    order: Order,
    rows: impl Iterator<Item = (usize, &'a KeyId)>,
    values: &[T],
) {
    for (row, id) in rows {
        let first = &mut of[*id as usize];
        if first.is_wanted(&values[row], order) {
            first.add(values[row], order);
        }
    }
}

/// How many values each group has, and all of them in their order.
fn sorted<T: Ord + Clone>(of: &[First<T>], order: Order) -> (Vec<usize>, Vec<T>) {
    let (mut lengths, mut all) = (Vec::with_capacity(of.len()), Vec::new());
    for first in of {
        let mut first = First { values: first.values.clone(), last: None };
        first.sort(order);
        lengths.push(first.values.len());
        all.append(&mut first.values);
    }
    (lengths, all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::{BinaryArray, Decimal128Array, Float64Array, StringArray};
    use arrow_schema::Field;
    use proptest::prelude::*;

    /// The values of two groups, out of two parts that are merged, as one row each.
    fn firsts(column: &ArrayRef, order: Order) -> ArrayRef {
        let item: FieldRef = Arc::new(Field::new("item", column.data_type().clone(), false));
        let half = column.len() / 2;
        let mut whole = Tops::of(column.data_type()).unwrap();
        whole.clear(2);
        for part in [column.slice(0, half), column.slice(half, column.len() - half)] {
            let mut tops = Tops::of(column.data_type()).unwrap();
            tops.clear(2);
            let groups: Vec<KeyId> = (0..part.len() as KeyId).map(|row| row % 2).collect();
            tops.absorb(order, &groups, 2, &part);
            let state = tops.finals(0..2, order, &item).unwrap();
            whole.merge(order, &[1, 1], 2, &state);
        }
        whole.finals(1..2, order, &item).unwrap().as_list::<i32>().value(0)
    }

    fn expected<T: PartialEq + Clone>(
        mut values: Vec<T>,
        order: Order,
        compare: impl Fn(&T, &T) -> std::cmp::Ordering,
    ) -> Vec<T> {
        values.sort_by(|a, b| if order.descending { compare(b, a) } else { compare(a, b) });
        if order.distinct {
            values.dedup();
        }
        values.truncate(order.limit);
        values
    }

    proptest! {
        /// Of every kind of value, against a sorted list.
        #[test]
        fn first_values_are_those_of_a_sorted_list(
            numbers in proptest::collection::vec(-9i8..9, 0..80),
            limit in 1usize..9,
            descending in any::<bool>(),
            distinct in any::<bool>(),
        ) {
            let order = Order { limit, descending, distinct };
            let floats: Vec<f64> = numbers.iter().map(|n| f64::from(*n) / 2.0).collect();
            let column: ArrayRef = Arc::new(Float64Array::from(floats.clone()));
            let wanted = Float64Array::from(expected(floats, order, f64::total_cmp));
            prop_assert_eq!(&firsts(&column, order), &(Arc::new(wanted) as ArrayRef));
            let decimals: Vec<i128> = numbers.iter().map(|n| i128::from(*n) << 70).collect();
            let typed = |values: Vec<i128>| Decimal128Array::from(values).with_precision_and_scale(38, 2).unwrap();
            let column: ArrayRef = Arc::new(typed(decimals.clone()));
            let wanted = typed(expected(decimals, order, i128::cmp));
            prop_assert_eq!(&firsts(&column, order), &(Arc::new(wanted) as ArrayRef));
            let texts: Vec<String> = numbers.iter().map(|n| "é".repeat(n.unsigned_abs().into())).collect();
            let column: ArrayRef = Arc::new(StringArray::from(texts.clone()));
            let texts = expected(texts, order, String::cmp);
            prop_assert_eq!(&firsts(&column, order), &(Arc::new(StringArray::from(texts.clone())) as ArrayRef));
            let column: ArrayRef = Arc::new(BinaryArray::from_iter_values(&texts));
            let wanted = BinaryArray::from_iter_values(expected(texts, order, String::cmp));
            prop_assert_eq!(&firsts(&column, order), &(Arc::new(wanted) as ArrayRef));
        }
    }

    #[test]
    fn another_order_is_noticed() {
        let column: ArrayRef = Arc::new(Float64Array::from(vec![0.0, 1.0, 0.0, 2.0]));
        let order = Order { limit: 1, descending: true, distinct: false };
        let faulty = Order { descending: false, ..order };
        assert_ne!(&firsts(&column, order), &firsts(&column, faulty));
    }
}
