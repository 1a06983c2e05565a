//! Guests that mean harm: each can stop its own subtask, never the process, never another slot.
#![cfg(test)]
#![forbid(unsafe_code)]

mod bytes;
mod deeds;
mod echo;
mod plans;
mod residue;
mod support;
mod windows;
