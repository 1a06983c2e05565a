//! Running aggregates that give a changelog, and take one.

use arrow_schema::ArrowError;
use model::Batch;
use model::job_graph::Aggregate;
use state::backend::Ticket;

use crate::AggregateError;
use crate::operator::{Emit, Fired, KeyedOperator, Now, Setting};

pub(crate) struct ChangeAggregate;

impl ChangeAggregate {
    pub(crate) fn new(_aggregates: &[Aggregate], _setting: Setting<'_>) -> Result<Self, AggregateError> {
        Err(ArrowError::NotYetImplemented("aggregates of changes".into()).into())
    }
}

impl KeyedOperator for ChangeAggregate {
    fn prefetch(&mut self, _input: u32, _rows: &Batch, _now: Now) -> Result<Ticket, AggregateError> {
        Ok(Ticket(0))
    }

    fn is_ready(&mut self, _ticket: Ticket) -> bool {
        true
    }

    fn process(
        &mut self,
        _input: u32,
        _rows: &Batch,
        _now: Now,
        _emit: &mut Emit<'_>,
    ) -> Result<Fired, AggregateError> {
        Ok(Fired::Done)
    }

    fn fire(&mut self, _now: Now, _emit: &mut Emit<'_>) -> Result<Fired, AggregateError> {
        Ok(Fired::Done)
    }
}
