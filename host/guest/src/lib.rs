//! Runs guests: compiles, caches, links, instantiates and calls components in a sandbox.
//!
//! The only crate that knows wasmtime. A [`Runtime`] is one per process, a [`Program`] one per
//! component, a [`Chain`] one per subtask: an instance, opened once, then called batch by batch.
//! Calls run on fibers that [`Chain::poll`] resumes for a slice, so nothing here blocks.
//!
//! `unsafe` is used in two places: `Component::deserialize`, for code that this binary's compiler gave (`cache`), and
//! the limits of a process that compiles (`compiler`).

mod bindings;
mod cache;
mod chain;
pub mod compiler;
mod entries;
mod error;
mod hooks;
mod lift;
mod lower;
mod plan;
mod program;
mod runtime;
mod wire;

pub use chain::{
    Call, Chain, EntryChange, EntryChanges, Groups, Moment, NodePort, Opening, Outcome, RidingEntries,
    RowFailure, StateUpdate, Task, TimerChange,
};
pub use compiler::CompileLimits;
pub use entries::{Entries, StateReader};
pub use error::GuestError;
pub use hooks::{Hooks, LogLevel, NoHooks};
pub use program::{JobInfo, Program, Refusal};
pub use runtime::{Limits, Runtime, RuntimeConfig, Yielding};
pub use wire::{WireBatch, WireColumn, wire_columns};
