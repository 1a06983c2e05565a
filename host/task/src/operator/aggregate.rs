//! A native aggregate in its subtask: a row for each row, or one a key at the end.

use model::Diagnostic;
use state::encoded::{Pieces, SnapshotWriter};
use window::{AggregateError, KeyedAggregate};

use super::{Element, Emit, Input, Place, Ran, native_error};
use crate::Execution;
use crate::metrics::{Counters, add};

pub(crate) struct AggregateOperator {
    pub(crate) aggregate: KeyedAggregate,
    pub(crate) execution: Execution,
    /// One update for each key of a batch.
    pub(crate) fold: bool,
    /// How many final rows have been given.
    pub(crate) given: usize,
    pub(crate) place: Place,
}

impl AggregateOperator {
    pub(crate) fn run(
        &mut self,
        input: &mut Input,
        counters: &Counters,
        emit: &mut Emit<'_>,
    ) -> Result<Ran, Diagnostic> {
        let rows = match input.elements.pop_front() {
            Some(Element::Rows(_, rows)) => rows,
            Some(Element::Mark(mark)) => return Ok(Ran::Forward(mark)),
            None if !input.ended => return Ok(Ran::Idle),
            None => return self.end(counters, emit),
        };
        match self.execution {
            Execution::Streaming => {
                let updates =
                    if self.fold { self.aggregate.fold(&rows) } else { self.aggregate.update(&rows) };
                let updates = updates.map_err(|e| self.failed(&e))?;
                add(&counters.rows_out, updates.num_rows());
                emit(0, updates)?;
            }
            Execution::Batch => self.aggregate.absorb(&rows).map_err(|e| self.failed(&e))?,
        }
        Ok(Ran::Progress)
    }

    /// All keys with what is kept of them.
    pub(crate) fn snapshot(&mut self) -> Result<Pieces, Diagnostic> {
        let chunk = self.aggregate.snapshot().map_err(|error| self.failed(&error))?;
        let mut writer = SnapshotWriter::default();
        let written = writer.add(&chunk).and_then(|()| writer.finish());
        let tables = written.map_err(|error| Diagnostic::internal(error.to_string()))?;
        Ok(tables.into_iter().map(|(_, bytes)| bytes).next().unwrap_or_default())
    }

    fn end(&mut self, counters: &Counters, emit: &mut Emit<'_>) -> Result<Ran, Diagnostic> {
        match self.execution {
            Execution::Streaming => Ok(Ran::Ended),
            Execution::Batch => match self.aggregate.finals(self.given).map_err(|e| self.failed(&e))? {
                None => Ok(Ran::Ended),
                Some(rows) => {
                    self.given += rows.num_rows();
                    add(&counters.rows_out, rows.num_rows());
                    emit(0, rows)?;
                    Ok(Ran::Progress)
                }
            },
        }
    }

    fn failed(&self, error: &AggregateError) -> Diagnostic {
        native_error(&self.place, error)
    }
}
