//! The aggregate operator: the key and its aggregates, updated for each row; or once, at the end.

use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_schema::{ArrowError, Field, Schema, SchemaRef};
use model::Batch;
use model::job_graph::Aggregate;
use state::KeyIndex;
use state::backend::{StateChunk, StateTable};
use state::key_index::KeyId;
use thiserror::Error;

use crate::accumulator::Accumulator;

/// Why an aggregate cannot be planned or go on.
#[derive(Debug, Error)]
pub enum AggregateError {
    /// There is no such function.
    #[error("there is no aggregate `{0}` (there are count, sum, min, max, avg, first, last, top)")]
    Unknown(String),
    /// A function over a type that it is not made for.
    #[error("`{function}` of column `{column}` cannot be: it is {data_type}")]
    Type {
        /// The aggregate.
        function: String,
        /// Its column.
        column: String,
        /// The column's type.
        data_type: String,
    },
    /// Not one column (or none, for `count`).
    #[error("`{0}` takes one column, not {1}")]
    Columns(String, usize),
    /// A column that the input does not have.
    #[error("`{0}` names column {1}, but the input has {2} columns")]
    OutOfBounds(String, u32, usize),
    /// An option that the function does not have.
    #[error("`{0}` has no option `{1}`")]
    Option(String, String),
    /// A number of values that cannot be kept.
    #[error("`top` keeps 1 to {1} values, and its option `limit` says {0}")]
    Limit(String, usize),
    /// One that has no running value.
    #[error("`{0}` is there in windows only")]
    InWindows(String),
    /// One that cannot take a row back.
    #[error("`{0}` cannot take back a row of a changelog")]
    Retraction(String),
    /// A sum that left its type.
    #[error("the sum of column `{0}` is out of range")]
    Overflow(String),
    /// Rows without an event time, where it is needed.
    #[error("rows have no event time, and they are windowed by it")]
    NoTime,
    /// One whose output must be a changelog.
    #[error("`{0}` of distinct values gives a changelog, which its output does not declare")]
    Distinct(String),
    /// One that windows that merge cannot have.
    #[error("`{0}` of distinct values is not there for session windows")]
    Sessions(String),
    /// One that windows of so many rows cannot have.
    #[error("`{0}` of distinct values is not there for windows of so many rows")]
    Rows(String),
    /// What cannot be kept.
    #[error(transparent)]
    Store(#[from] state::StoreError),
    /// Columns that cannot be made.
    #[error(transparent)]
    Arrow(#[from] ArrowError),
    /// Windows without a grid.
    #[error("there is no grid of windows: {0}")]
    Grid(String),
    /// A row whose windows would not lie within all time.
    #[error("the event time {0} ms is too far from the epoch for its windows")]
    TooFar(i64),
}

/// Running aggregates by key, in one subtask.
pub struct KeyedAggregate {
    keys: Vec<usize>,
    index: KeyIndex,
    accumulators: Vec<Accumulator>,
    output: SchemaRef,
    ids: Vec<KeyId>,
    /// The last row of each key in the batch at hand; of keys that are not in it, any.
    last: Vec<u32>,
}

/// How many rows [`KeyedAggregate::finals`] gives at a time.
pub const FINAL_ROWS: usize = 4 * 1024;

/// The columns that leave: the key's, then one for each aggregate, named after its column
/// (`count` for a count without one); a name that is taken gets the function's before it.
///
/// # Errors
/// If an aggregate cannot be taken over this input.
pub fn output_schema(
    input: &Schema,
    keys: &[u32],
    aggregates: &[Aggregate],
) -> Result<SchemaRef, AggregateError> {
    let mut fields: Vec<Field> = keys.iter().map(|k| input.field(*k as usize).clone()).collect();
    for aggregate in aggregates {
        let (data_type, nullable) = Accumulator::new(aggregate, input)?.output();
        let mut name = match aggregate.columns.first() {
            Some(column) => input.field(*column as usize).name().clone(),
            None => aggregate.function.clone(),
        };
        while fields.iter().any(|field| *field.name() == name) {
            name = format!("{}_{name}", aggregate.function);
        }
        fields.push(Field::new(name, data_type, nullable));
    }
    Ok(Arc::new(Schema::new(fields)))
}

/// The names of a snapshot's columns, behind those of the key: of aggregates over rows of `input`, whose results are
/// the last columns of `output`.
///
/// # Errors
/// If an aggregate cannot be taken over this input.
pub fn state_names(
    list: &[Aggregate],
    input: &Schema,
    output: &Schema,
) -> Result<Vec<String>, AggregateError> {
    let names = output.fields().iter().skip(output.fields().len() - list.len());
    let mut of_all = Vec::new();
    for (aggregate, result) in list.iter().zip(names) {
        let fields = Accumulator::new(aggregate, input)?.state_fields(result.name());
        of_all.extend(fields.iter().map(|field| field.name().clone()));
    }
    Ok(of_all)
}

impl KeyedAggregate {
    /// For rows of `input`, keyed by these columns. `output` names the columns that leave; its
    /// types are [`output_schema`]'s.
    ///
    /// # Errors
    /// If an aggregate cannot be taken over this input.
    pub fn new(
        input: &Schema,
        keys: &[u32],
        aggregates: &[Aggregate],
        output: SchemaRef,
        seed: u64,
    ) -> Result<Self, AggregateError> {
        let keys: Vec<usize> = keys.iter().map(|k| *k as usize).collect();
        let types: Vec<_> = keys.iter().map(|k| input.field(*k).data_type().clone()).collect();
        let accumulators =
            aggregates.iter().map(|a| Accumulator::new(a, input)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            keys,
            index: KeyIndex::new(&types, seed)?,
            accumulators,
            output,
            ids: Vec::new(),
            last: Vec::new(),
        })
    }

    /// Takes rows and gives one for each of them, in their order: its key, and the key's
    /// aggregates up to and with this row.
    ///
    /// # Errors
    /// If a sum leaves its type, or columns cannot be made.
    pub fn update(&mut self, batch: &Batch) -> Result<Batch, AggregateError> {
        self.number(batch)?;
        let mut columns: Vec<ArrayRef> = self.keys.iter().map(|k| Arc::clone(batch.column(*k))).collect();
        let groups = self.index.bound();
        for accumulator in &mut self.accumulators {
            columns.push(accumulator.running(&self.ids, groups, batch.rows())?);
        }
        Ok(Batch::of(Arc::clone(&self.output), batch.num_rows(), columns)?
            .with_event_times(batch.event_times().cloned()))
    }

    /// Takes rows and gives one for each of their keys, in the order of the keys' last rows: the
    /// key, and its aggregates up to and with all of them.
    ///
    /// # Errors
    /// If a sum leaves its type, or columns cannot be made.
    pub fn fold(&mut self, batch: &Batch) -> Result<Batch, AggregateError> {
        let updates = self.update(batch)?;
        self.last.resize(self.index.bound(), 0);
        for (row, id) in (0u32..).zip(&self.ids) {
            self.last[*id as usize] = row;
        }
        let last = &self.last;
        let places: Vec<u32> = (0u32..)
            .zip(&self.ids)
            .filter(|(row, id)| last[**id as usize] == *row)
            .map(|(row, _)| row)
            .collect();
        Ok(updates.take(&places)?)
    }

    /// Takes rows and gives none.
    ///
    /// # Errors
    /// If a sum leaves its type.
    pub fn absorb(&mut self, batch: &Batch) -> Result<(), AggregateError> {
        self.number(batch)?;
        let groups = self.index.bound();
        for accumulator in &mut self.accumulators {
            let column = accumulator.column().map(|column| batch.column(column));
            accumulator.absorb(&self.ids, groups, column)?;
        }
        Ok(())
    }

    /// The keys and their aggregates, as they stand, from key number `from` on, at most
    /// [`FINAL_ROWS`]; none when there are no more.
    ///
    /// # Errors
    /// If columns cannot be made.
    pub fn finals(&mut self, from: usize) -> Result<Option<Batch>, AggregateError> {
        let to = self.index.len().min(from + FINAL_ROWS);
        if from >= to {
            return Ok(None);
        }
        // Key numbers are below 2^32.
        let mut columns = self.index.keys(from as u32..to as u32)?;
        for accumulator in &mut self.accumulators {
            columns.push(accumulator.finals(from..to)?);
        }
        Ok(Some(Batch::of(Arc::clone(&self.output), to - from, columns)?))
    }

    /// All keys with what is kept of them, as a snapshot has it.
    ///
    /// # Errors
    /// If columns cannot be made.
    pub fn snapshot(&mut self) -> Result<StateChunk, AggregateError> {
        let groups = self.index.len();
        // Key numbers are below 2^32.
        let keys = self.index.keys(0..groups as u32)?;
        let mut columns = Vec::new();
        for accumulator in &mut self.accumulators {
            columns.extend(accumulator.state(groups)?);
        }
        Ok(StateChunk { table: StateTable::Values(0), keys, columns, touched: None })
    }

    /// Takes back rows of a [`snapshot`](Self::snapshot), before any others.
    ///
    /// # Errors
    /// If they are not of these aggregates.
    pub fn import(&mut self, chunk: &StateChunk) -> Result<(), AggregateError> {
        let mut ids = Vec::new();
        self.index.ids(&chunk.keys, chunk.rows(), &mut ids)?;
        let (groups, mut at) = (self.index.bound(), 0);
        for (place, accumulator) in self.accumulators.iter_mut().enumerate() {
            let fields = accumulator.state_fields(&place.to_string());
            let columns = chunk.columns.get(at..at + fields.len()).unwrap_or_default();
            let types = columns.iter().map(|column| column.data_type());
            if !types.eq(fields.iter().map(Field::data_type)) {
                let what = "the checkpoint is of other aggregates".to_owned();
                return Err(ArrowError::SchemaError(what).into());
            }
            accumulator.merge(&ids, groups, columns)?;
            at += fields.len();
        }
        Ok(())
    }

    /// How many keys there are.
    #[must_use]
    pub fn keys_held(&self) -> usize {
        self.index.len()
    }

    fn number(&mut self, batch: &Batch) -> Result<(), AggregateError> {
        let keys: Vec<ArrayRef> = self.keys.iter().map(|k| Arc::clone(batch.column(*k))).collect();
        Ok(self.index.ids(&keys, batch.num_rows(), &mut self.ids)?)
    }
}

#[cfg(test)]
mod tests;
