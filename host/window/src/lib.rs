//! Native operators over keys: running aggregates, windows, joins, top-n.
#![forbid(unsafe_code)]

mod accumulator;
mod change_aggregate;
pub mod groups;
mod join;
pub mod keyed_aggregate;
pub mod operator;
mod top;
mod windows;

pub use keyed_aggregate::{AggregateError, KeyedAggregate, output_schema};
pub use operator::{Fired, KeyedOperator, Now};
