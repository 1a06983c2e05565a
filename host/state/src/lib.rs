//! Keyed state and timers of an operator's subtask: keys by number, tables by these numbers, and their
//! snapshots.
#![forbid(unsafe_code)]

pub mod backend;
pub mod canonical;
mod chunks;
pub mod encoded;
pub mod entry_table;
pub mod evolve;
pub mod grouping;
pub mod key_index;
pub mod layers;
pub mod memory;
mod shared;
pub mod tiered;
pub mod timers;
pub mod value_table;

pub use backend::{Backend, Extent, FrozenFiles, StateChunk, Sweep, TimerChange};
pub use entry_table::{EntryChange, EntryPage, EntryTable, Riders};
pub use grouping::Grouping;
pub use key_index::KeyIndex;
pub use memory::MemoryBackend;
pub use shared::SharedBackend;
pub use tiered::TieredBackend;
pub use timers::Timers;
pub use value_table::{StoreError, ValueTable};
