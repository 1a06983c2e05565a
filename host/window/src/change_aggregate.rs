//! Running aggregates that give a changelog, and take one: the key's row inserted, updated, deleted.
//!
//! Changes of a key within a batch are one change. Counts, sums and averages take rows back by
//! arithmetic; the least and greatest value, and what is distinct, keep how often each value is there.
//!
//! Source: Flink, `GroupAggFunction` with mini-batches; retraction by accumulate and retract.

mod multiset;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, Int64Array, StructArray};
use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef};
use model::Batch;
use model::job_graph::Aggregate;
use state::backend::Ticket;
use state::key_index::KeyId;
use state::{Backend, Grouping};

use crate::AggregateError;
use crate::accumulator::Accumulator;
use crate::aggregates::{Aggregates, as_structure};
use crate::changes::{Change, changelog, is_taken_back};
use crate::keys::{FinalKeys, key_columns};
use crate::operator::{Emit, Fired, KeyedOperator, Now, Setting};
use crate::states::{store_all, value_state};
pub(crate) use multiset::Multiset;

/// Running aggregates by key as a changelog, in one subtask.
pub(crate) struct ChangeAggregate {
    keys: Vec<usize>,
    aggregates: Aggregates,
    /// Of the aggregates that keep how often each value is there, by their places.
    multisets: Vec<(usize, Multiset)>,
    /// The state: how many rows there are, then the aggregates'.
    fields: Fields,
    output: SchemaRef,
    backend: Box<dyn Backend>,
    grouping: Grouping,
    batch: bool,
    finals: FinalKeys,
}

/// Keys that are looked at in a step for their final rows.
const FINAL_KEYS: usize = 4 * 1024;

/// Refuses aggregates that a row for each row cannot give.
///
/// # Errors
/// Which one.
pub(crate) fn check(list: &[Aggregate], input: &Schema, changes: bool) -> Result<(), AggregateError> {
    for aggregate in list {
        let accumulator = Accumulator::new(aggregate, input)?;
        if accumulator.is_wide() {
            return Err(AggregateError::InWindows(aggregate.function.clone()));
        }
        if accumulator.is_distinct() && !changes {
            return Err(AggregateError::Distinct(aggregate.function.clone()));
        }
    }
    Ok(())
}

impl ChangeAggregate {
    pub(crate) fn new(list: &[Aggregate], setting: Setting<'_>) -> Result<Self, AggregateError> {
        let input = &setting.inputs[0];
        let is_changelog = setting.from_changes.contains(&true);
        let aggregates = Aggregates::new(list, input)?;
        let mut states = Vec::new();
        let mut fields = vec![Field::new("rows", DataType::Int64, true)];
        fields.extend(aggregates.state_fields().iter().map(|field| field.as_ref().clone()));
        let fields = Fields::from(fields);
        states.push(value_state("aggregates", DataType::Struct(fields.clone())));
        let mut multisets = Vec::new();
        for (place, accumulator) in aggregates.list.iter().enumerate() {
            if is_changelog && accumulator.is_of_order() {
                return Err(AggregateError::Retraction(list[place].function.clone()));
            }
            if let Some(column) = accumulator.column()
                && (accumulator.is_distinct() || is_changelog && accumulator.is_extreme())
            {
                let number = states.len() as u32;
                let multiset = Multiset::new(number, column, accumulator, input)?;
                states.push(multiset.state(place));
                multisets.push((place, multiset));
            }
        }
        let types = setting.key_types();
        let backend = (setting.backend)(&types, &states)?;
        Ok(Self {
            keys: setting.keys[0].clone(),
            aggregates,
            multisets,
            fields,
            output: Arc::clone(&setting.outputs[0]),
            backend,
            grouping: Grouping::default(),
            batch: setting.batch,
            finals: FinalKeys::default(),
        })
    }

    /// Takes the values of rows, of these groups and keys; those that are taken back apart.
    fn take_rows(
        &mut self,
        ids: &[KeyId],
        groups: &[u32],
        rows: &Batch,
        now: i64,
    ) -> Result<(), AggregateError> {
        let signs: Option<Vec<bool>> =
            rows.kinds().map(|kinds| kinds.iter().map(|k| is_taken_back(*k)).collect());
        let backs = signs.filter(|signs| signs.contains(&true));
        let split = backs.as_ref().map(|backs| {
            let of = |wanted: bool| -> Vec<u32> {
                (0u32..).zip(backs).filter(|(_, back)| **back == wanted).map(|(row, _)| row).collect()
            };
            (of(false), of(true))
        });
        let of_places =
            |places: &[u32]| -> Vec<u32> { places.iter().map(|row| groups[*row as usize]).collect() };
        let count = self.aggregates.groups();
        for (place, accumulator) in self.aggregates.list.iter_mut().enumerate() {
            if let Some((_, multiset)) = self.multisets.iter_mut().find(|(of, _)| *of == place) {
                let column = rows.column(multiset.column);
                multiset.take_rows(
                    &mut *self.backend,
                    accumulator,
                    (ids, groups, count),
                    column,
                    backs.as_deref(),
                    now,
                )?;
                continue;
            }
            let column = accumulator.column().map(|column| rows.column(column));
            let Some((added, taken)) = &split else {
                accumulator.absorb(groups, count, column)?;
                continue;
            };
            let pick = |places: &[u32]| column.map(|column| model::gather(column, places)).transpose();
            accumulator.absorb(&of_places(added), count, pick(added)?.as_ref())?;
            accumulator.retract(&of_places(taken), count, pick(taken)?.as_ref())?;
        }
        Ok(())
    }

    fn results(&self) -> Result<Vec<ArrayRef>, AggregateError> {
        self.aggregates.finals()
    }
}

impl KeyedOperator for ChangeAggregate {
    fn prefetch(&mut self, _input: u32, rows: &Batch, _now: Now) -> Result<Ticket, AggregateError> {
        let keys = key_columns(rows, &self.keys);
        Ok(self.backend.prefetch(&keys, rows.num_rows())?)
    }

    fn is_ready(&mut self, ticket: Ticket) -> bool {
        self.backend.is_ready(ticket)
    }

    fn process(
        &mut self,
        _input: u32,
        rows: &Batch,
        now: Now,
        emit: &mut Emit<'_>,
    ) -> Result<Fired, AggregateError> {
        let now = now.processing_time;
        let keys = key_columns(rows, &self.keys);
        let (mut ids, mut of_groups) = (Vec::new(), Vec::new());
        self.backend.ids(&keys, rows.num_rows(), &mut ids)?;
        let groups = self.grouping.number(&ids, &mut of_groups);
        let loaded = self.backend.load(0, &of_groups, now)?;
        let state = as_structure(&loaded);
        let members = self.aggregates.part(state, state.nulls().cloned())?;
        let rows_before = state.column(0).as_primitive::<Int64Type>();
        let mut counts: Vec<i64> = (0..state.len())
            .map(|group| if state.is_valid(group) { rows_before.value(group) } else { 0 })
            .collect();
        let before_counts = counts.clone();
        self.aggregates.load(&members)?;
        let before = if self.batch { Vec::new() } else { self.results()? };
        let mut last = vec![0u32; of_groups.len()];
        for (row, group) in (0u32..).zip(&groups) {
            let back = rows.kinds().is_some_and(|kinds| is_taken_back(kinds[row as usize]));
            counts[*group as usize] += if back { -1 } else { 1 };
            last[*group as usize] = row;
        }
        self.take_rows(&ids, &groups, rows, now)?;
        let mut columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(counts.clone()))];
        columns.extend(self.aggregates.state_columns()?);
        // A key without rows has no state.
        let present: Vec<bool> = counts.iter().map(|count| *count > 0).collect();
        let nulls = present.contains(&false).then(|| present.into());
        let values: ArrayRef = Arc::new(StructArray::try_new(self.fields.clone(), columns, nulls)?);
        store_all(&mut *self.backend, 0, &of_groups, &values, now)?;
        if !self.batch {
            let after = self.results()?;
            let changed = differing(&before, &after)?;
            let changes: Vec<(u32, Change)> = (0u32..)
                .take(of_groups.len())
                .filter_map(|group| {
                    let place = group as usize;
                    let change = match (before_counts[place] > 0, counts[place] > 0) {
                        (false, true) => Change::Inserted,
                        (true, false) => Change::Deleted,
                        (true, true) if changed[place] => Change::Updated,
                        _ => return None,
                    };
                    Some((group, change))
                })
                .collect();
            if !changes.is_empty() {
                let keys = keys.iter().map(|key| model::gather(key, &last)).collect::<Result<Vec<_>, _>>()?;
                let times: Option<Vec<i64>> =
                    rows.event_times().map(|times| last.iter().map(|row| times[*row as usize]).collect());
                let with = |results: Vec<ArrayRef>| -> Vec<ArrayRef> {
                    keys.iter().cloned().chain(results).collect()
                };
                let (before, after) = (with(before), with(after));
                emit(0, changelog(&self.output, &before, &after, &changes, times.as_deref())?);
            }
        }
        let gone: Vec<KeyId> =
            of_groups.iter().zip(&counts).filter(|(_, count)| **count <= 0).map(|(id, _)| *id).collect();
        if !gone.is_empty() {
            self.backend.forget_empty(&gone);
        }
        Ok(Fired::Done)
    }

    fn fire(&mut self, _now: Now, _emit: &mut Emit<'_>) -> Result<Fired, AggregateError> {
        Ok(Fired::Done)
    }

    fn finish(&mut self, emit: &mut Emit<'_>) -> Result<Fired, AggregateError> {
        if !self.batch {
            return Ok(Fired::Done);
        }
        let Some(ids) = self.finals.next(&*self.backend, FINAL_KEYS) else { return Ok(Fired::Done) };
        let loaded = self.backend.load(0, &ids, i64::MIN)?;
        let places: Vec<u32> =
            (0u32..).take(ids.len()).filter(|place| loaded.is_valid(*place as usize)).collect();
        if places.is_empty() {
            return Ok(Fired::More);
        }
        let ids: Vec<KeyId> = places.iter().map(|place| ids[*place as usize]).collect();
        let loaded = model::gather(&loaded, &places)?;
        let members = self.aggregates.part(as_structure(&loaded), None)?;
        self.aggregates.load(&members)?;
        let mut columns = self.backend.keys(&ids)?;
        columns.extend(self.results()?);
        emit(0, Batch::of(Arc::clone(&self.output), ids.len(), columns)?);
        Ok(Fired::More)
    }
}

/// Whether each row differs in some column.
fn differing(before: &[ArrayRef], after: &[ArrayRef]) -> Result<Vec<bool>, AggregateError> {
    let rows = before.first().map_or(0, |column| column.len());
    let mut differs = vec![false; rows];
    for (before, after) in before.iter().zip(after) {
        let different = arrow_ord::cmp::distinct(before, after)?;
        differs.iter_mut().zip(different.values()).for_each(|(differs, different)| *differs |= different);
    }
    Ok(differs)
}
