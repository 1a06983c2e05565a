//! Running aggregates that give a row for each row, over a backend: what [`KeyedAggregate`](crate::KeyedAggregate)
//! does where all keys are in memory.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{ArrayRef, StructArray};
use arrow_schema::{ArrowError, Field, Fields, SchemaRef};
use model::Batch;
use model::job_graph::Aggregate;
use state::backend::{StateChunk, Ticket};
use state::key_index::KeyId;
use state::{Backend, Grouping};

use crate::AggregateError;
use crate::aggregates::{Aggregates, as_structure};
use crate::keys::key_columns;
use crate::operator::{Emit, Fired, KeyedOperator, Now, Setting};
use crate::states::{store_all, value_state};

/// The one state of running aggregates over a backend.
const AGGREGATES: u32 = 0;

/// Running aggregates by key, in one subtask.
struct RunningAggregate {
    keys: Vec<usize>,
    aggregates: Aggregates,
    output: SchemaRef,
    backend: Box<dyn Backend>,
    grouping: Grouping,
    /// One row for each key of a batch.
    fold: bool,
    ids: Vec<KeyId>,
    of_groups: Vec<KeyId>,
}

/// Running aggregates that give a row for each row, or, by `fold`, for each key of a batch.
///
/// # Errors
/// If an aggregate cannot be taken over this input.
pub fn running_aggregate(
    list: &[Aggregate],
    setting: Setting<'_>,
    fold: bool,
) -> Result<Box<dyn KeyedOperator>, AggregateError> {
    Ok(Box::new(RunningAggregate::new(list, setting, fold)?))
}

impl RunningAggregate {
    fn new(list: &[Aggregate], setting: Setting<'_>, fold: bool) -> Result<Self, AggregateError> {
        let aggregates = Aggregates::new(list, &setting.inputs[0])?;
        let states = [value_state("aggregates", aggregates.state_type())];
        let types = setting.key_types();
        let backend = (setting.backend)(&types, &states)?;
        Ok(Self {
            keys: setting.keys[0].clone(),
            aggregates,
            output: Arc::clone(&setting.outputs[0]),
            backend,
            grouping: Grouping::default(),
            fold,
            ids: Vec::new(),
            of_groups: Vec::new(),
        })
    }
}

impl KeyedOperator for RunningAggregate {
    fn prefetch(&mut self, _input: u32, rows: &Batch, _now: Now) -> Result<Ticket, AggregateError> {
        Ok(self.backend.prefetch(&key_columns(rows, &self.keys), rows.num_rows())?)
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
        let mut columns = key_columns(rows, &self.keys);
        self.backend.ids(&columns, rows.num_rows(), &mut self.ids)?;
        let groups = self.grouping.number(&self.ids, &mut self.of_groups);
        let loaded = self.backend.load(AGGREGATES, &self.of_groups, now)?;
        self.aggregates.load(as_structure(&loaded))?;
        columns.extend(self.aggregates.running(&groups, rows)?);
        let values = self.aggregates.state()?;
        store_all(&mut *self.backend, AGGREGATES, &self.of_groups, &values, now)?;
        let updates = Batch::of(Arc::clone(&self.output), rows.num_rows(), columns)?
            .with_event_times(rows.event_times().cloned());
        if !self.fold {
            emit(0, updates);
            return Ok(Fired::Done);
        }
        let mut last = vec![0; self.of_groups.len()];
        (0u32..).zip(&groups).for_each(|(row, group)| last[*group as usize] = row);
        last.sort_unstable();
        emit(0, updates.take(&last)?);
        Ok(Fired::Done)
    }

    fn fire(&mut self, _now: Now, _emit: &mut Emit<'_>) -> Result<Fired, AggregateError> {
        Ok(Fired::Done)
    }
}

/// Rows of a snapshot of running aggregates as [`KeyedAggregate`](crate::KeyedAggregate) has them: a column for each
/// column of their state.
///
/// # Errors
/// If they are others.
pub fn flat(chunk: StateChunk) -> Result<StateChunk, ArrowError> {
    let state = chunk.columns.first().and_then(|column| column.as_struct_opt());
    let state = state.ok_or_else(|| ArrowError::SchemaError("not the state of aggregates".to_owned()))?;
    Ok(StateChunk { columns: state.columns().to_vec(), ..chunk })
}

/// The same, back. `input` and `list` are those of the aggregates.
///
/// # Errors
/// If the rows are not of these aggregates.
pub fn as_one_value(
    chunk: StateChunk,
    list: &[Aggregate],
    input: &SchemaRef,
) -> Result<StateChunk, AggregateError> {
    let aggregates = Aggregates::new(list, input)?;
    let fields: Fields = aggregates.state_fields().clone();
    let types = chunk.columns.iter().map(|column| column.data_type());
    if !types.eq(fields.iter().map(|field: &Arc<Field>| field.data_type())) {
        return Err(ArrowError::SchemaError("the checkpoint is of other aggregates".to_owned()).into());
    }
    let value: ArrayRef = Arc::new(StructArray::try_new(fields, chunk.columns, None)?);
    Ok(StateChunk { columns: vec![value], ..chunk })
}
