//! Aggregates over windows.

use arrow_schema::ArrowError;
use model::job_graph::Window;

use crate::AggregateError;
use crate::operator::{KeyedOperator, Setting};

/// The operator of windows that a node is.
pub(crate) fn operator(
    _window: &Window,
    _setting: Setting<'_>,
) -> Result<Box<dyn KeyedOperator>, AggregateError> {
    Err(ArrowError::NotYetImplemented("windows".into()).into())
}
