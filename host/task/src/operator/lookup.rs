//! A lookup in its subtask: joins rows with a table that lies outside, as they come.
//!
//! The table is [shared](table::Table) by the node's subtasks. Rows wait until it has been read; a batch
//! meets one reading of it, whatever comes meanwhile.

pub(crate) mod table;

use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_buffer::ScalarBuffer;
use arrow_schema::{ArrowError, SchemaRef};
use model::{Batch, Diagnostic};
use window::lookup::{Found, LookupTable, Pairs};

use super::{Element, Emit, Input, Place, Ran};
use crate::metrics::{Counters, add};
use table::Table;

pub(crate) struct LookupOperator {
    pub(crate) table: Arc<Table>,
    /// The input's columns that are looked up.
    pub(crate) keys: Vec<usize>,
    /// A row that finds nothing leaves too.
    pub(crate) outer: bool,
    pub(crate) output: SchemaRef,
    pub(crate) place: Place,
    pub(crate) work: Option<Work>,
}

/// Rows that are being joined.
pub(crate) struct Work {
    rows: Batch,
    found: Found,
    table: Arc<LookupTable>,
}

/// Pairs that leave in one step.
const STEP_ROWS: usize = 4 * 1024;

impl LookupOperator {
    pub(crate) fn run(
        &mut self,
        input: &mut Input,
        counters: &Counters,
        emit: &mut Emit<'_>,
    ) -> Result<Ran, Diagnostic> {
        let table = self.table.current()?;
        self.table.report(counters);
        let Some(table) = table else { return Ok(Ran::Idle) };
        if self.work.is_none() {
            let rows = match input.elements.pop_front() {
                Some(Element::Rows(_, rows)) => rows,
                Some(Element::Mark(mark)) => return Ok(Ran::Forward(mark)),
                None => return Ok(if input.ended { Ran::Ended } else { Ran::Idle }),
            };
            let keys: Vec<ArrayRef> = self.keys.iter().map(|key| Arc::clone(rows.column(*key))).collect();
            let found = table.look_up(&keys).map_err(|error| self.broken(&error))?;
            self.work = Some(Work { rows, found, table });
        }
        let joined = self.step().map_err(|error| self.broken(&error))?;
        if let Some(rows) = joined {
            add(&counters.rows_out, rows.num_rows());
            emit(0, rows)?;
        }
        Ok(Ran::Progress)
    }

    /// The next pairs.
    fn step(&mut self) -> Result<Option<Batch>, ArrowError> {
        let Some(Work { rows, found, table }) = &mut self.work else { return Ok(None) };
        let Pairs { rows: places, partners } = found.next(table, self.outer, STEP_ROWS);
        let is_done = found.is_done();
        let mut joined = None;
        if !places.is_empty() {
            // Mostly each row has one partner, and stays as it is.
            let is_all =
                places.len() == rows.num_rows() && (0u32..).zip(&places).all(|(row, place)| row == *place);
            let taken = if is_all { rows.clone() } else { rows.take(&places)? };
            let mut columns = taken.rows().columns().to_vec();
            columns.extend(table.take(&partners)?);
            let times: Option<ScalarBuffer<i64>> = taken.event_times().cloned();
            let kinds = taken.kinds().cloned();
            let batch = Batch::of(Arc::clone(&self.output), places.len(), columns)?;
            joined = Some(batch.with_event_times(times).with_kinds(kinds));
        }
        if is_done {
            self.work = None;
        }
        Ok(joined)
    }

    fn broken(&self, error: &ArrowError) -> Diagnostic {
        Diagnostic::internal(error.to_string()).detail(self.place.text())
    }

    /// Whether rows are still in work.
    pub(crate) fn is_busy(&self) -> bool {
        self.work.is_some()
    }
}

#[cfg(test)]
mod tests;
