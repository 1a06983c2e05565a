//! Native operators over keys: running aggregates, windows, joins, top-n.
#![forbid(unsafe_code)]

mod accumulator;
mod aggregates;
#[cfg(test)]
mod benches;
mod change_aggregate;
mod changes;
mod grid;
mod join;
pub mod keyed_aggregate;
mod keys;
pub mod lookup;
pub mod operator;
mod schemas;
mod states;
#[cfg(test)]
mod test_support;
mod timers;
mod top;
mod windows;

pub use keyed_aggregate::{AggregateError, KeyedAggregate, output_schema};
pub use operator::{Fired, KeyedOperator, Now};
pub use schemas::native_schema;
pub use windows::{check_aggregates, window_schema};
