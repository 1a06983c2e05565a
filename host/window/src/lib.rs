//! Native operators over keys: running aggregates, windows, joins, top-n.
#![forbid(unsafe_code)]

mod accumulator;
mod change_aggregate;
mod changes;
mod grid;
pub mod groups;
mod join;
pub mod keyed_aggregate;
pub mod operator;
#[cfg(test)]
mod test_support;
mod top;
mod windows;

pub use keyed_aggregate::{AggregateError, KeyedAggregate, output_schema};
pub use operator::{Fired, KeyedOperator, Now};
