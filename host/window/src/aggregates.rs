//! The aggregates of an operator: their state as one value of a key, their results as columns.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, StructArray};
use arrow_buffer::NullBuffer;
use arrow_schema::{DataType, Fields, Schema};
use model::job_graph::Aggregate;
use model::{Batch, gather};
use state::key_index::KeyId;

use crate::AggregateError;
use crate::accumulator::Accumulator;

/// Several aggregates over the same groups. Groups are numbered from 0 within a call: their state is
/// loaded, changed and stored.
pub(crate) struct Aggregates {
    pub(crate) list: Vec<Accumulator>,
    fields: Fields,
    /// The columns of each aggregate's state.
    columns: Vec<Range<usize>>,
    groups: usize,
    /// Rows come with their state, from this column on: what an earlier phase has made of them.
    partials: Option<usize>,
}

impl Aggregates {
    pub(crate) fn new(list: &[Aggregate], input: &Schema) -> Result<Self, AggregateError> {
        let list: Vec<_> = list.iter().map(|a| Accumulator::new(a, input)).collect::<Result<_, _>>()?;
        let (mut fields, mut columns) = (Vec::new(), Vec::new());
        for (place, accumulator) in list.iter().enumerate() {
            let start = fields.len();
            fields.extend(accumulator.state_fields(&format!("a{place}")));
            columns.push(start..fields.len());
        }
        Ok(Self { list, fields: fields.into(), columns, groups: 0, partials: None })
    }

    /// Those of rows that a first phase has made of rows of `input`: their state begins at this column.
    pub(crate) fn of_partials(
        list: &[Aggregate],
        input: &Schema,
        first: usize,
    ) -> Result<Self, AggregateError> {
        Ok(Self { partials: Some(first), ..Self::new(list, input)? })
    }

    /// The columns of the state.
    pub(crate) fn state_fields(&self) -> &Fields {
        &self.fields
    }

    /// The type of the state.
    pub(crate) fn state_type(&self) -> DataType {
        DataType::Struct(self.fields.clone())
    }

    /// The results' types, and whether they may be null.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = (DataType, bool)> + '_ {
        self.list.iter().map(Accumulator::output)
    }

    /// Whether all that was added can be taken away again.
    pub(crate) fn is_invertible(&self) -> bool {
        self.list.iter().all(Accumulator::is_invertible)
    }

    /// Whether a result may be much larger than a row, so that there is not one made for each.
    pub(crate) fn is_wide(&self) -> bool {
        self.list.iter().any(Accumulator::is_wide)
    }

    /// How many groups there are.
    pub(crate) fn groups(&self) -> usize {
        self.groups
    }

    /// So many groups, all new.
    pub(crate) fn clear(&mut self, groups: usize) {
        self.groups = groups;
        self.list.iter_mut().for_each(|accumulator| accumulator.clear(groups));
    }

    /// The aggregates' part of an operator's state, which is its last columns. Rows that are null here have none.
    pub(crate) fn part(
        &self,
        state: &StructArray,
        nulls: Option<NullBuffer>,
    ) -> Result<StructArray, AggregateError> {
        let columns = state.columns()[state.num_columns() - self.fields.len()..].to_vec();
        Ok(StructArray::try_new(self.fields.clone(), columns, nulls)?)
    }

    /// As many groups as there are rows of state, each as it is there; null = new.
    pub(crate) fn load(&mut self, state: &StructArray) -> Result<(), AggregateError> {
        self.clear(state.len());
        // As many as rows of a call.
        let groups: Vec<KeyId> = (0..state.len() as KeyId).collect();
        self.merge(&groups, state)
    }

    /// Takes the values of rows.
    pub(crate) fn absorb(&mut self, groups: &[KeyId], rows: &Batch) -> Result<(), AggregateError> {
        if let Some(first) = self.partials {
            let columns = rows.rows().columns()[first..first + self.fields.len()].to_vec();
            return self.merge(groups, &StructArray::try_new(self.fields.clone(), columns, None)?);
        }
        for accumulator in &mut self.list {
            let column = accumulator.column().map(|column| rows.column(column));
            accumulator.absorb(groups, self.groups, column)?;
        }
        Ok(())
    }

    /// Takes the values of rows; the results of each one's group after it.
    pub(crate) fn running(
        &mut self,
        groups: &[KeyId],
        rows: &Batch,
    ) -> Result<Vec<ArrayRef>, AggregateError> {
        let count = self.groups;
        self.list.iter_mut().map(|accumulator| accumulator.running(groups, count, rows.rows())).collect()
    }

    /// Adds the state in each row to a group.
    pub(crate) fn merge(&mut self, groups: &[KeyId], state: &StructArray) -> Result<(), AggregateError> {
        self.join(groups, state, Accumulator::merge)
    }

    /// Takes the state in each row away from a group that it is in.
    pub(crate) fn unmerge(&mut self, groups: &[KeyId], state: &StructArray) -> Result<(), AggregateError> {
        self.join(groups, state, Accumulator::unmerge)
    }

    fn join(
        &mut self,
        groups: &[KeyId],
        state: &StructArray,
        join: impl Fn(&mut Accumulator, &[KeyId], usize, &[ArrayRef]) -> Result<(), AggregateError>,
    ) -> Result<(), AggregateError> {
        // What members of a null structure have does not count.
        if state.null_count() > 0 {
            let places: Vec<u32> =
                (0u32..).take(state.len()).filter(|place| state.is_valid(*place as usize)).collect();
            let groups: Vec<KeyId> = places.iter().map(|place| groups[*place as usize]).collect();
            for (accumulator, range) in self.list.iter_mut().zip(&self.columns) {
                let columns = &state.columns()[range.clone()];
                let columns: Vec<ArrayRef> =
                    columns.iter().map(|column| gather(column, &places)).collect::<Result<_, _>>()?;
                join(accumulator, &groups, self.groups, &columns)?;
            }
            return Ok(());
        }
        for (accumulator, range) in self.list.iter_mut().zip(&self.columns) {
            join(accumulator, groups, self.groups, &state.columns()[range.clone()])?;
        }
        Ok(())
    }

    /// The state's columns, a row a group.
    pub(crate) fn state_columns(&mut self) -> Result<Vec<ArrayRef>, AggregateError> {
        let mut columns = Vec::with_capacity(self.fields.len());
        for accumulator in &mut self.list {
            columns.extend(accumulator.state(self.groups)?);
        }
        Ok(columns)
    }

    /// The state, a row a group.
    pub(crate) fn state(&mut self) -> Result<ArrayRef, AggregateError> {
        let columns = self.state_columns()?;
        Ok(Arc::new(StructArray::try_new(self.fields.clone(), columns, None)?))
    }

    /// The results of the groups.
    pub(crate) fn finals(&self) -> Result<Vec<ArrayRef>, AggregateError> {
        self.list.iter().map(|accumulator| accumulator.finals(0..self.groups)).collect()
    }
}

/// A loaded state as the structure that it is.
pub(crate) fn as_structure(state: &ArrayRef) -> &StructArray {
    state.as_struct()
}
