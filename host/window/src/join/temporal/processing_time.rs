//! The temporal join by processing time: rows meet the last right row of their key as they come.

use arrow_array::cast::AsArray;
use arrow_array::{Array, UInt32Array};
use arrow_schema::{DataType, Fields};
use model::Batch;
use model::job_graph::JoinSides;
use state::backend::Ticket;
use state::key_index::KeyId;
use state::{Backend, Grouping};

use super::super::output::{Output, gather_all, is_all};
use super::super::{Coming, LEFT, RIGHT, side_of};
use super::{admit, kept_fields, rows_of, take_all};
use crate::AggregateError;
use crate::keys::key_columns;
use crate::operator::{Emit, Fired, KeyedOperator, Now, Setting};
use crate::states::{store_all, value_state};

/// A temporal join by processing time, in one subtask.
pub(super) struct ProcessingTimeJoin {
    output: Output,
    keys: Vec<Vec<usize>>,
    fields: Fields,
    backend: Box<dyn Backend>,
    grouping: Grouping,
    coming: Option<Coming>,
}

/// The key's last right row.
const LAST: u32 = 0;

impl ProcessingTimeJoin {
    pub(super) fn new(sides: JoinSides, setting: Setting<'_>) -> Result<Self, AggregateError> {
        let [_, fields] = kept_fields(&setting);
        let states = [value_state("last", DataType::Struct(fields.clone()))];
        let types = setting.key_types();
        let backend = (setting.backend)(&types, &states)?;
        Ok(Self {
            output: Output::new(sides, &setting),
            keys: setting.keys.to_vec(),
            fields,
            backend,
            grouping: Grouping::default(),
            coming: None,
        })
    }

    /// Goes on with the rows that have come.
    fn advance(&mut self, now: Now, emit: &mut Emit<'_>) -> Result<Fired, AggregateError> {
        let Some(mut coming) = self.coming.take() else { return Ok(Fired::Done) };
        let side = coming.side;
        let (rows, is_last) = coming.next();
        self.coming = (!is_last).then_some(coming);
        let rows = admit(&self.output, &self.keys[side], side, rows, emit)?;
        if rows.num_rows() > 0 {
            match side {
                LEFT => self.meet(&rows, now.processing_time, emit)?,
                _ => self.keep(&rows, now.processing_time)?,
            }
        }
        Ok(if is_last { Fired::Done } else { Fired::More })
    }

    /// Of each key the last row stays, or none after a delete.
    fn keep(&mut self, rows: &Batch, now: i64) -> Result<(), AggregateError> {
        let (groups, bases) = self.groups(RIGHT, rows)?;
        let mut last = vec![0u32; bases.len()];
        (0u32..).zip(&groups).for_each(|(row, group)| last[*group as usize] = row);
        let kept = rows_of(&self.fields, &rows.take(&last)?, true)?;
        store_all(&mut *self.backend, LAST, &bases, &kept, now)?;
        if kept.null_count() > 0 {
            self.backend.forget_empty(&bases);
        }
        Ok(())
    }

    fn meet(&mut self, rows: &Batch, now: i64, emit: &mut Emit<'_>) -> Result<(), AggregateError> {
        let (groups, bases) = self.groups(LEFT, rows)?;
        let last = self.backend.load(LAST, &bases, now)?;
        if last.null_count() > 0 {
            let vain = bases.iter().enumerate().filter(|(at, _)| last.is_null(*at));
            let vain: Vec<KeyId> = vain.map(|(_, id)| *id).collect();
            self.backend.forget_empty(&vain);
        }
        let is_alone = |group: &u32| last.is_null(*group as usize);
        let leaves = |(_, group): &(u32, &u32)| self.output.without_partner(LEFT) || !is_alone(group);
        let (rows_met, partners): (Vec<u32>, Vec<Option<u32>>) = (0u32..)
            .zip(&groups)
            .filter(leaves)
            .map(|(row, group)| (row, (!is_alone(group)).then_some(*group)))
            .unzip();
        if rows_met.is_empty() {
            return Ok(());
        }
        let own = rows.rows().columns();
        let columns = if is_all(&rows_met, own.first()) { own.to_vec() } else { gather_all(own, &rows_met)? };
        let partners = take_all(last.as_struct().columns(), &UInt32Array::from(partners))?;
        let times = rows.event_times();
        let times = times.map(|times| rows_met.iter().map(|row| times[*row as usize]).collect());
        emit(0, self.output.pairs(LEFT, columns, partners, rows_met.len(), times, None)?);
        Ok(())
    }

    /// The group of each row, by its key; and the keys.
    fn groups(&mut self, side: usize, rows: &Batch) -> Result<(Vec<u32>, Vec<KeyId>), AggregateError> {
        let (mut ids, mut bases) = (Vec::new(), Vec::new());
        self.backend.ids(&key_columns(rows, &self.keys[side]), rows.num_rows(), &mut ids)?;
        Ok((self.grouping.number(&ids, &mut bases), bases))
    }
}

impl KeyedOperator for ProcessingTimeJoin {
    fn prefetch(&mut self, input: u32, rows: &Batch, _now: Now) -> Result<Ticket, AggregateError> {
        Ok(self.backend.prefetch(&key_columns(rows, &self.keys[side_of(input)]), rows.num_rows())?)
    }

    fn is_ready(&mut self, ticket: Ticket) -> bool {
        self.backend.is_ready(ticket)
    }

    fn backend(&mut self) -> Option<&mut dyn Backend> {
        Some(&mut *self.backend)
    }

    fn process(
        &mut self,
        input: u32,
        rows: &Batch,
        now: Now,
        emit: &mut Emit<'_>,
    ) -> Result<Fired, AggregateError> {
        self.coming = Some(Coming::new(side_of(input), rows));
        self.advance(now, emit)
    }

    fn resume(&mut self, now: Now, emit: &mut Emit<'_>) -> Result<Fired, AggregateError> {
        self.advance(now, emit)
    }

    fn fire(&mut self, _now: Now, _emit: &mut Emit<'_>) -> Result<Fired, AggregateError> {
        Ok(Fired::Done)
    }
}
