//! The first row of each key in an order, over inserts: top-1, deduplication by the first or last row.
//!
//! What rows are ordered by is kept apart from the rows: a row that comes after the first costs no look
//! at it.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, BooleanArray, StructArray};
use arrow_schema::{DataType, Field, Fields, SchemaRef};
use model::Batch;
use model::job_graph::Top;
use state::backend::Ticket;
use state::key_index::KeyId;
use state::{Backend, Grouping};

use super::constant_rank;
use super::order::Order;
use crate::AggregateError;
use crate::changes::{Change, changelog};
use crate::keys::{FinalKeys, key_columns};
use crate::operator::{Emit, Fired, KeyedOperator, Now, Setting};
use crate::states::{store_all, value_state};

/// One row a key, in one subtask.
pub(super) struct First {
    keys: Vec<usize>,
    order: Order,
    order_type: DataType,
    fields: Fields,
    rank: bool,
    output: SchemaRef,
    backend: Box<dyn Backend>,
    grouping: Grouping,
    batch: bool,
    /// Rows that have come, and how many of them have been taken.
    coming: Option<(Batch, usize)>,
    finals: FinalKeys,
    ids: Vec<KeyId>,
    bases: Vec<KeyId>,
}

/// Rows that are taken in one step.
const CALL_ROWS: usize = 2 * 1024;
const ORDER: u32 = 0;
const ROW: u32 = 1;
/// Keys that are looked at in a step for their final rows.
const FINAL_KEYS: usize = 4 * 1024;

impl First {
    pub(super) fn new(top: &Top, setting: Setting<'_>) -> Result<Self, AggregateError> {
        let input = &setting.inputs[0];
        let nullable = |field: &Field| field.clone().with_nullable(true);
        let fields: Fields = input.fields().iter().map(|field| nullable(field)).collect();
        let ordered = top.order.iter().map(|order| nullable(&fields[order.column as usize]));
        let order_type = match &top.order[..] {
            [] => DataType::Boolean,
            _ => DataType::Struct(
                ordered.enumerate().map(|(at, field)| field.with_name(at.to_string())).collect(),
            ),
        };
        let states =
            [value_state("order", order_type.clone()), value_state("row", DataType::Struct(fields.clone()))];
        let types = setting.key_types();
        let backend = (setting.backend)(&types, &states)?;
        Ok(Self {
            keys: setting.keys[0].clone(),
            order: Order::new(&top.order, input)?,
            order_type,
            fields,
            rank: top.rank,
            output: Arc::clone(&setting.outputs[0]),
            backend,
            grouping: Grouping::default(),
            batch: setting.batch,
            coming: None,
            finals: FinalKeys::default(),
            ids: Vec::new(),
            bases: Vec::new(),
        })
    }

    /// Order columns as they are kept.
    fn kept_order(&self, columns: Vec<ArrayRef>, rows: usize) -> Result<ArrayRef, AggregateError> {
        Ok(match &self.order_type {
            DataType::Struct(fields) => Arc::new(StructArray::try_new(fields.clone(), columns, None)?),
            _ => Arc::new(BooleanArray::from(vec![true; rows])),
        })
    }

    fn with_rank(&self, mut columns: Vec<ArrayRef>, rows: usize) -> Vec<ArrayRef> {
        columns.extend(self.rank.then(|| constant_rank(1, rows)));
        columns
    }

    fn take_rows(&mut self, rows: &Batch, now: i64, emit: &mut Emit<'_>) -> Result<(), AggregateError> {
        let keys = key_columns(rows, &self.keys);
        self.backend.ids(&keys, rows.num_rows(), &mut self.ids)?;
        let groups = self.grouping.number(&self.ids, &mut self.bases);
        let columns = rows.rows().columns();
        let ordered = self.order.columns(columns);
        let order = self.order.keys(&ordered)?;
        // The first row of each key in the batch.
        let mut firsts = vec![u32::MAX; self.bases.len()];
        for (row, group) in (0u32..).zip(&groups) {
            let first = &mut firsts[*group as usize];
            if *first == u32::MAX || order.is_before(row as usize, &order, *first as usize) {
                *first = row;
            }
        }
        let kept = self.backend.load(ORDER, &self.bases, now)?;
        let kept_order = match &self.order_type {
            DataType::Struct(_) => self.order.keys(kept.as_struct().columns())?,
            _ => self.order.keys(&[])?,
        };
        let (mut changed, mut winners, mut changes) = (Vec::new(), Vec::new(), Vec::new());
        for (group, first) in firsts.iter().enumerate() {
            let change = match kept.is_null(group) {
                true => Change::Inserted,
                false if order.is_before(*first as usize, &kept_order, group) => Change::Updated,
                false => continue,
            };
            // A batch has fewer rows than 2^32.
            changes.push((winners.len() as u32, change));
            winners.push(*first);
            changed.push(self.bases[group]);
        }
        if winners.is_empty() {
            return Ok(());
        }
        let after =
            columns.iter().map(|column| model::gather(column, &winners)).collect::<Result<Vec<_>, _>>()?;
        if !self.batch {
            let times: Option<Vec<i64>> =
                rows.event_times().map(|times| winners.iter().map(|row| times[*row as usize]).collect());
            self.give(&changed, &after, &changes, times, now, emit)?;
        }
        let ordered = self.kept_order(self.order.columns(&after), changed.len())?;
        // Too large a row is refused here, before its order is kept.
        let values: ArrayRef = Arc::new(StructArray::try_new(self.fields.clone(), after, None)?);
        store_all(&mut *self.backend, ROW, &changed, &values, now)?;
        store_all(&mut *self.backend, ORDER, &changed, &ordered, now)?;
        Ok(())
    }

    fn give(
        &mut self,
        changed: &[KeyId],
        after: &[ArrayRef],
        changes: &[(u32, Change)],
        times: Option<Vec<i64>>,
        now: i64,
        emit: &mut Emit<'_>,
    ) -> Result<(), AggregateError> {
        let rows = changed.len();
        let after = self.with_rank(after.to_vec(), rows);
        if changes.iter().all(|(_, change)| *change == Change::Inserted) {
            let rows = Batch::of(Arc::clone(&self.output), rows, after)?;
            emit(0, rows.with_event_times(times.map(Into::into)));
            return Ok(());
        }
        let before = self.backend.load(ROW, changed, now)?;
        let before = self.with_rank(before.as_struct().columns().to_vec(), rows);
        emit(0, changelog(&self.output, &before, &after, changes, times.as_deref())?);
        Ok(())
    }
}

impl KeyedOperator for First {
    fn prefetch(&mut self, _input: u32, rows: &Batch, _now: Now) -> Result<Ticket, AggregateError> {
        Ok(self.backend.prefetch(&key_columns(rows, &self.keys), rows.num_rows())?)
    }

    fn is_ready(&mut self, ticket: Ticket) -> bool {
        self.backend.is_ready(ticket)
    }

    fn backend(&mut self) -> Option<&mut dyn Backend> {
        Some(&mut *self.backend)
    }

    fn process(
        &mut self,
        _input: u32,
        rows: &Batch,
        now: Now,
        emit: &mut Emit<'_>,
    ) -> Result<Fired, AggregateError> {
        self.coming = Some((rows.clone(), 0));
        self.resume(now, emit)
    }

    fn resume(&mut self, now: Now, emit: &mut Emit<'_>) -> Result<Fired, AggregateError> {
        let Some((rows, at)) = self.coming.take() else { return Ok(Fired::Done) };
        let length = CALL_ROWS.min(rows.num_rows() - at);
        self.take_rows(&rows.slice(at, length), now.processing_time, emit)?;
        if at + length == rows.num_rows() {
            return Ok(Fired::Done);
        }
        self.coming = Some((rows, at + length));
        Ok(Fired::More)
    }

    fn fire(&mut self, _now: Now, _emit: &mut Emit<'_>) -> Result<Fired, AggregateError> {
        Ok(Fired::Done)
    }

    fn finish(&mut self, emit: &mut Emit<'_>) -> Result<Fired, AggregateError> {
        if !self.batch {
            return Ok(Fired::Done);
        }
        let Some(ids) = self.finals.next(&*self.backend, FINAL_KEYS) else { return Ok(Fired::Done) };
        let rows = self.backend.load(ROW, &ids, i64::MIN)?;
        let there: Vec<u32> = (0u32..).take(ids.len()).filter(|at| rows.is_valid(*at as usize)).collect();
        if !there.is_empty() {
            let columns = rows.as_struct().columns().iter();
            let columns =
                columns.map(|column| model::gather(column, &there)).collect::<Result<Vec<_>, _>>()?;
            let columns = self.with_rank(columns, there.len());
            emit(0, Batch::of(Arc::clone(&self.output), there.len(), columns)?);
        }
        Ok(Fired::More)
    }
}
