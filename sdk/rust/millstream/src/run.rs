//! Runs the functions of a chain, batch by batch.

mod cells;
mod chain;
mod process;
mod stage;
mod triggered;
mod windowed;

pub(crate) use cells::{BroadcastCell, Cell, Cells, ListCell, MapCell, ValueCell};
pub use chain::{merge, on_timers, open, process, process_keyed};
pub(crate) use process::{BroadcastInput, Inputs, OneInput, TwoInputs, processed};
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use stage::{Frame, KeyedCode, KeyedFrame};
pub(crate) use stage::{Outcome, Stage, each_row, filtered, of_two, partitioned, reduced};
pub(crate) use triggered::{Accumulating, Listing, triggered};
pub(crate) use windowed::{OfBoth, OfRows, aggregated, collected};

#[cfg(test)]
mod tests;
