//! Checkpoints of a job: when one begins and when it is complete ([`coordinator`]), what is written down of
//! it ([`manifest`]), and where ([`storage`], [`savepoint`]), and what is told of all of them ([`statistics`]). What is in
//! a checkpoint is made elsewhere: this crate knows neither states nor connectors.
#![forbid(unsafe_code)]

pub mod coordinator;
pub mod manifest;
pub mod savepoint;
pub mod statistics;
pub mod storage;

pub use coordinator::{Action, Coordinator, Event, Settings};
pub use manifest::Manifest;
pub use savepoint::Savepoint;
pub use statistics::{Statistics, Tracker};
pub use storage::Storage;
