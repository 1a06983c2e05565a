//! The border: the contract's bindings, the host's log and metrics, and fast columns of text.
//!
//! The only crate of the SDK with unsafe code. On targets other than wasm32 nothing is exported,
//! and a [stub host](host::stub) stands in for log and metrics, so that a job runs natively in tests.

#![warn(missing_docs)]

pub mod bindings;
pub mod bytes;
pub mod host;
pub mod text;
