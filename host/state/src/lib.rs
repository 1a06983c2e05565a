//! Keyed tables in memory: which row of a table a key has, and the values in those rows.
#![forbid(unsafe_code)]

pub mod entry_table;
pub mod key_index;
pub mod timers;
pub mod value_table;

pub use entry_table::{EntryChange, EntryPage, EntryTable, Riders};
pub use key_index::KeyIndex;
pub use timers::Timers;
pub use value_table::{StoreError, ValueTable};
