//! Runs the functions of a chain, batch by batch.

mod chain;
mod process;
mod stage;

pub use chain::{on_timers, open, process, process_keyed};
pub(crate) use process::processed;
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use stage::{Frame, KeyedFrame, Outcome};
pub(crate) use stage::{Stage, each_row, filtered, partitioned, reduced};

#[cfg(test)]
mod tests;
