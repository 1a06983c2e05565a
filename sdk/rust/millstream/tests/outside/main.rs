//! The SDK as a user has it: from another crate.

mod arguments;
mod compile_fail;
mod functions;
mod lookups;
mod messages;
mod plans;
mod process;
