//! The first rows of each key in an order: top-n, deduplication.

use arrow_schema::ArrowError;
use model::Batch;
use model::job_graph::Top;
use state::backend::Ticket;

use crate::AggregateError;
use crate::operator::{Emit, Fired, KeyedOperator, Now, Setting};

pub(crate) struct TopOperator;

impl TopOperator {
    pub(crate) fn new(_top: &Top, _setting: Setting<'_>) -> Result<Self, AggregateError> {
        Err(ArrowError::NotYetImplemented("top-n".into()).into())
    }
}

impl KeyedOperator for TopOperator {
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
