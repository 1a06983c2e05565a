//! The first of two phases of an aggregation over windows: before rows go to the subtask of their key, those of a
//! batch that have one key and one slice become one row with the state of their aggregates. So a key that is
//! very frequent does not keep one subtask busy, and the exchange has less to carry.
//!
//! What leaves is the key's columns, the columns of the aggregates' state, and how many rows they are; its event
//! time is that of the latest of them. It is complete with each batch: nothing is kept.
//!
//! Source: Flink, `LocalWindowAggregate` and `GlobalWindowAggregate` (`table.optimizer.agg-phase-strategy`).

use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array};
use arrow_buffer::ScalarBuffer;
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use model::Batch;
use model::job_graph::{Assigner, TimeDomain, Trigger, Window};
use state::Grouping;
use state::key_index::{KeyId, KeyIndex};

use crate::AggregateError;
use crate::accumulator::Accumulator;
use crate::aggregates::Aggregates;
use crate::grid::WindowGrid;
use crate::keys::key_columns;
use crate::windows::instants;
use crate::windows::sliced::edges::Edges;

/// Whether a window can be aggregated in two phases: by event time, with one result at its end and nothing done
/// with late rows; out of aggregates that can be merged in any order.
///
/// # Errors
/// If the aggregates cannot be taken over this input.
pub fn has_two_phases(window: &Window, input: &Schema) -> Result<bool, AggregateError> {
    let is_cut = match &window.assigner {
        Assigner::Tumbling(_) => true,
        Assigner::Sliding(grid) | Assigner::Cumulating(grid) => grid.zone.is_none() && grid.size > grid.step,
        Assigner::Session(_) | Assigner::Count { .. } | Assigner::Everything => false,
    };
    let is_plain = window.time == TimeDomain::EventTime
        && window.lateness.is_zero()
        && window.late_port.is_none()
        && window.trigger == Trigger::AtEnd;
    let aggregates = Aggregates::new(&window.aggregates, input)?;
    let is_folded = |of: &Accumulator| of.is_mergeable() && !of.is_wide();
    Ok(is_cut && is_plain && aggregates.list.iter().all(is_folded))
}

/// Whether a batch's rows are always folded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Folding {
    /// Yes.
    Always,
    /// While that makes them fewer.
    WhileItHelps,
}

/// The first phase, in a subtask that gives a window its rows.
pub struct LocalWindow {
    keys: Vec<usize>,
    slices: Slices,
    aggregates: Aggregates,
    index: KeyIndex,
    grouping: Grouping,
    schema: SchemaRef,
    folding: Folding,
    sample: Sample,
}

/// Where the slices that rows are in end.
enum Slices {
    /// One for each window.
    Windows(WindowGrid),
    /// What windows share.
    Shared(Edges),
}

/// What folding has come to, of late.
#[derive(Debug, Default)]
struct Sample {
    rows: usize,
    folded: usize,
    /// So many rows more pass as they are.
    passing: usize,
}

/// Rows after which it is looked whether they have become fewer.
const SAMPLED: usize = 16 * 1024;
/// Rows that pass as they are where they have not.
const PASSING: usize = 32 * SAMPLED;
/// Folding helps where so many rows, of ten, are left at most.
const LEFT_OF_TEN: usize = 6;

/// The schema of the rows that leave: of the key's columns, the aggregates' state, and how many rows they are.
///
/// # Errors
/// If the aggregates cannot be taken over this input.
pub fn local_schema(window: &Window, input: &Schema, keys: &[usize]) -> Result<SchemaRef, AggregateError> {
    let aggregates = Aggregates::new(&window.aggregates, input)?;
    Ok(schema_of(&aggregates, input, keys))
}

fn schema_of(aggregates: &Aggregates, input: &Schema, keys: &[usize]) -> SchemaRef {
    let mut fields: Vec<Field> = keys.iter().map(|key| input.field(*key).clone()).collect();
    fields.extend(aggregates.state_fields().iter().map(|field| field.as_ref().clone()));
    fields.push(Field::new("rows", DataType::Int64, false));
    Arc::new(Schema::new(fields))
}

impl LocalWindow {
    /// That of a window that [can have it](has_two_phases), over rows of this schema, by these columns of them.
    ///
    /// # Errors
    /// If it cannot be made of this input.
    pub fn new(
        window: &Window,
        input: &Schema,
        keys: &[usize],
        folding: Folding,
        seed: u64,
    ) -> Result<Self, AggregateError> {
        let aggregates = Aggregates::new(&window.aggregates, input)?;
        let mut types: Vec<DataType> = keys.iter().map(|key| input.field(*key).data_type().clone()).collect();
        types.push(crate::assigner::instant_type());
        let slices = match &window.assigner {
            Assigner::Tumbling(_) => Slices::Windows(WindowGrid::new(&window.assigner)?),
            shared => Slices::Shared(Edges::of(shared)),
        };
        Ok(Self {
            schema: schema_of(&aggregates, input, keys),
            keys: keys.to_vec(),
            slices,
            aggregates,
            index: KeyIndex::new(&types, seed)?,
            grouping: Grouping::default(),
            folding,
            sample: Sample::default(),
        })
    }

    /// The slice of each row, by its end.
    fn ends(&self, times: &[i64]) -> Vec<i64> {
        match &self.slices {
            Slices::Shared(edges) => {
                // Neighbours are mostly in one slice.
                let (mut start, mut end) = (i64::MAX, i64::MIN);
                let mut end_of = |time: &i64| {
                    if !(start..end).contains(time) {
                        end = edges.slice_end(*time);
                        start = edges.before(end);
                    }
                    end
                };
                times.iter().map(&mut end_of).collect()
            }
            Slices::Windows(grid) => {
                let mut ends = Vec::new();
                grid.slice_ends(times, &mut ends);
                ends
            }
        }
    }

    /// What goes to the subtasks of the keys in place of these rows.
    ///
    /// # Errors
    /// If the rows have no event times, or a sum leaves its type.
    pub fn fold(&mut self, rows: &Batch) -> Result<Batch, AggregateError> {
        let times = rows.event_times().ok_or(AggregateError::NoTime)?.clone();
        let count = rows.num_rows();
        let keys = key_columns(rows, &self.keys);
        if self.sample.passing > 0 && self.folding == Folding::WhileItHelps {
            self.sample.passing = self.sample.passing.saturating_sub(count);
            // Batches are cut far below 2^32 rows.
            let groups: Vec<KeyId> = (0..count as KeyId).collect();
            return self.out(rows, &groups, count, (keys, times, vec![1; count]));
        }
        let mut timed = keys.clone();
        timed.push(instants(self.ends(&times)));
        let (mut ids, mut of_groups) = (Vec::new(), Vec::new());
        self.index.ids(&timed, count, &mut ids)?;
        let groups = self.grouping.number(&ids, &mut of_groups);
        of_groups.iter().for_each(|id| self.index.forget(*id));
        self.sample.take(count, of_groups.len());
        let mut first = vec![u32::MAX; of_groups.len()];
        let mut latest = vec![i64::MIN; of_groups.len()];
        let mut counts = vec![0i64; of_groups.len()];
        for ((row, group), time) in (0u32..).zip(&groups).zip(times.iter()) {
            let group = *group as usize;
            first[group] = first[group].min(row);
            latest[group] = latest[group].max(*time);
            counts[group] += 1;
        }
        let keys = keys.iter().map(|key| model::gather(key, &first)).collect::<Result<_, _>>()?;
        self.out(rows, &groups, of_groups.len(), (keys, latest.into(), counts))
    }

    fn out(
        &mut self,
        rows: &Batch,
        groups: &[KeyId],
        count: usize,
        (mut columns, times, counts): (Vec<ArrayRef>, ScalarBuffer<i64>, Vec<i64>),
    ) -> Result<Batch, AggregateError> {
        self.aggregates.clear(count);
        self.aggregates.absorb(groups, rows)?;
        columns.extend(self.aggregates.state_columns()?);
        columns.push(Arc::new(Int64Array::from(counts)));
        Ok(Batch::of(Arc::clone(&self.schema), count, columns)?.with_event_times(Some(times)))
    }
}

impl Sample {
    /// Rows have become so many.
    fn take(&mut self, rows: usize, folded: usize) {
        (self.rows, self.folded) = (self.rows + rows, self.folded + folded);
        if self.rows >= SAMPLED {
            let passing = if self.folded * 10 > self.rows * LEFT_OF_TEN { PASSING } else { 0 };
            *self = Self { passing, ..Self::default() };
        }
    }
}
