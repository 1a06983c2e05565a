//! Where rows go between subtasks: partitioning, bounded channels, the input gate.
#![forbid(unsafe_code)]

pub mod input_gate;
mod moved;
pub mod partition;

pub use input_gate::{Channel, Credit, InputGate, SendBudget};
pub use moved::Moved;
pub use partition::Partitioner;
