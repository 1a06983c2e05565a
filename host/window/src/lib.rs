//! Native operators over keys: running aggregates, windows, joins, top-n.
#![forbid(unsafe_code)]

mod accumulator;
mod aggregates;
pub mod assigner;
#[cfg(test)]
mod benches;
mod change_aggregate;
mod changes;
mod grid;
mod join;
pub mod keyed_aggregate;
mod keys;
pub mod local;
pub mod lookup;
mod meeting;
pub mod operator;
pub mod running_aggregate;
mod schemas;
pub mod session_index;
pub mod slice_index;
mod states;
#[cfg(test)]
mod test_support;
mod timers;
mod top;
mod windows;

pub use keyed_aggregate::{AggregateError, KeyedAggregate, output_schema};
pub use operator::{Fired, KeyedOperator, Now};
pub use schemas::native_schema;
pub use windows::timing::{Standing, Timing, keep_alike};
pub use windows::{check_aggregates, window_schema};
