//! How often each value of a key is there: what distinct aggregates count once, and where the next
//! least or greatest value is found when one is taken back.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, BinaryArray, Int64Array, new_null_array};
use arrow_row::{RowConverter, SortField};
use arrow_schema::{DataType, Field, Schema, SortOptions};
use model::job_graph::{State, StateKind};
use state::key_index::KeyId;
use state::{Backend, EntryChange};

use crate::AggregateError;
use crate::accumulator::Accumulator;
use crate::states::state;

/// The values of one aggregate's column by key, each with how often it is there: a dictionary. In its
/// order the wanted value is the first.
pub(crate) struct Multiset {
    /// Which state.
    state: u32,
    pub(crate) column: usize,
    data_type: DataType,
    /// Values whose order is turned around, so that the greatest is the first.
    reversed: Option<RowConverter>,
    is_extreme: bool,
}

/// Keys whose first values are read at once.
const SCANNED: usize = 1_024;

impl Multiset {
    pub(crate) fn new(
        state: u32,
        column: usize,
        accumulator: &Accumulator,
        input: &Schema,
    ) -> Result<Self, AggregateError> {
        let data_type = input.field(column).data_type().clone();
        let reversed = if accumulator.is_greatest() {
            let options = SortOptions { descending: true, nulls_first: false };
            Some(RowConverter::new(vec![SortField::new_with_options(data_type.clone(), options)])?)
        } else {
            None
        };
        Ok(Self { state, column, data_type, reversed, is_extreme: accumulator.is_extreme() })
    }

    /// The state that it is, of the aggregate at this place.
    pub(crate) fn state(&self, place: usize) -> State {
        let key = if self.reversed.is_some() { DataType::Binary } else { self.data_type.clone() };
        let own = Schema::new(vec![Field::new("value", key, true)]);
        state(&format!("values{place}"), StateKind::Dictionary(Vec::new()), own, DataType::Int64)
    }

    /// Forgets the values of these keys.
    pub(crate) fn clear(
        &self,
        backend: &mut dyn Backend,
        ids: &[KeyId],
        now: i64,
    ) -> Result<(), AggregateError> {
        let key = new_null_array(
            if self.reversed.is_some() { &DataType::Binary } else { &self.data_type },
            ids.len(),
        );
        let values = new_null_array(&DataType::Int64, ids.len());
        let changes = vec![EntryChange::Clear; ids.len()];
        Ok(backend.change_entries(self.state, (&changes, ids), &[key], &values, now)?)
    }

    fn encoded(&self, column: &ArrayRef) -> Result<ArrayRef, AggregateError> {
        let Some(converter) = &self.reversed else { return Ok(Arc::clone(column)) };
        let rows = converter.convert_columns(std::slice::from_ref(column))?;
        Ok(Arc::new(rows.iter().map(|row| Some(row.data().to_vec())).collect::<BinaryArray>()))
    }

    fn decoded(&self, column: &ArrayRef) -> Result<ArrayRef, AggregateError> {
        let Some(converter) = &self.reversed else { return Ok(Arc::clone(column)) };
        let parser = converter.parser();
        let bytes = column.as_binary::<i32>();
        let rows = (0..bytes.len()).map(|row| parser.parse(bytes.value(row)));
        Ok(converter.convert_rows(rows)?.remove(0))
    }

    /// Takes rows of these keys (`ids`) and groups (of so many), those taken back where `backs` says
    /// so, and gives the aggregate what has changed of it. Nulls are left out.
    pub(crate) fn take_rows(
        &mut self,
        backend: &mut dyn Backend,
        accumulator: &mut Accumulator,
        (ids, groups, count): (&[KeyId], &[u32], usize),
        column: &ArrayRef,
        backs: Option<&[bool]>,
        now: i64,
    ) -> Result<(), AggregateError> {
        let places: Vec<u32> =
            (0u32..).take(ids.len()).filter(|row| column.is_valid(*row as usize)).collect();
        if places.is_empty() {
            return Ok(());
        }
        let pick = |of: &[u32]| -> Vec<u32> { places.iter().map(|row| of[*row as usize]).collect() };
        let (row_ids, row_groups) = (pick(ids), pick(groups));
        let values = model::gather(column, &places)?;
        let own = self.encoded(&values)?;
        let riders = backend.ride(self.state, &row_ids, std::slice::from_ref(&own), now)?;
        let mut deltas = vec![0i64; riders.ids.len()];
        // One row of each entry, for its group and its value.
        let mut some_row = vec![0u32; riders.ids.len()];
        for (row, entry) in riders.of_rows.iter().enumerate() {
            let back = backs.is_some_and(|backs| backs[places[row] as usize]);
            deltas[*entry as usize] += if back { -1 } else { 1 };
            some_row[*entry as usize] = row as u32;
        }
        let before = riders.values.as_primitive::<Int64Type>();
        let before = |entry: usize| if before.is_valid(entry) { before.value(entry) } else { 0 };
        let after: Int64Array = deltas
            .iter()
            .enumerate()
            .map(|(entry, by)| Some(before(entry) + by).filter(|n| *n != 0))
            .collect();
        if !self.is_extreme {
            let rows_where = |appeared: bool| -> Vec<u32> {
                let is = |entry: &usize| {
                    let (old, new) = (before(*entry), before(*entry) + deltas[*entry]);
                    if appeared { old <= 0 && new > 0 } else { old > 0 && new <= 0 }
                };
                (0..deltas.len()).filter(is).map(|entry| some_row[entry]).collect()
            };
            for (rows, back) in [(rows_where(true), false), (rows_where(false), true)] {
                let groups: Vec<u32> = rows.iter().map(|row| row_groups[*row as usize]).collect();
                let values = model::gather(&values, &rows)?;
                match back {
                    false => accumulator.absorb(&groups, count, Some(&values))?,
                    true => accumulator.retract(&groups, count, Some(&values))?,
                }
            }
        }
        let after: ArrayRef = Arc::new(after);
        backend.store_entries(self.state, &riders.ids, &riders.keys, None, &after, now)?;
        if self.is_extreme {
            self.first_values(backend, accumulator, (ids, groups, count), now)?;
        }
        Ok(())
    }

    /// Gives the aggregate each key's first value.
    fn first_values(
        &self,
        backend: &mut dyn Backend,
        accumulator: &mut Accumulator,
        (ids, groups, count): (&[KeyId], &[u32], usize),
        now: i64,
    ) -> Result<(), AggregateError> {
        let mut of_groups = vec![0; count];
        ids.iter().zip(groups).for_each(|(id, group)| of_groups[*group as usize] = *id);
        accumulator.clear(count);
        let mut from = 0;
        while from < count {
            let to = count.min(from + SCANNED);
            let page = backend.scan(self.state, &of_groups[from..to], None, 1, now)?;
            let (mut found, mut places) = (Vec::new(), Vec::new());
            for (place, range) in page.offsets.windows(2).enumerate() {
                if range[1] > range[0] {
                    found.push((from + place) as u32);
                    places.push(range[0]);
                }
            }
            let values = self.decoded(&model::gather(&page.keys[0], &places)?)?;
            accumulator.absorb(&found, count, Some(&values))?;
            from = to;
        }
        Ok(())
    }
}
