//! Native operators over keys: running aggregates (windows come here later).
#![forbid(unsafe_code)]

mod accumulator;
pub mod keyed_aggregate;

pub use keyed_aggregate::{AggregateError, KeyedAggregate, output_schema};
