//! Runs the functions of a chain, batch by batch.

mod chain;
mod stage;

pub use chain::{open, process, process_keyed};
pub(crate) use stage::{Frame, KeyedFrame, Outcome, Stage, each_row, filtered, partitioned, reduced};

#[cfg(test)]
mod tests;
