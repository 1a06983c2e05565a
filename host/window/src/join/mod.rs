//! Joins: which rows of two inputs are partners.

use arrow_schema::ArrowError;
use model::job_graph::Join;

use crate::AggregateError;
use crate::operator::{KeyedOperator, Setting};

/// The join that a node is.
pub(crate) fn operator(
    _join: &Join,
    _setting: Setting<'_>,
) -> Result<Box<dyn KeyedOperator>, AggregateError> {
    Err(ArrowError::NotYetImplemented("joins".into()).into())
}
