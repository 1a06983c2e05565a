//! Whole jobs in one thread under seeds.
//!
//! Every seed draws other sizes (rows of a batch, of a call, of a queue), another order of steps
//! and of finished reads. The output must not change; a seed run twice must do the same twice.
//! A failing seed is run alone with `SEED=8412 cargo test --release -p simulation`.
#![cfg(test)]
#![forbid(unsafe_code)]

mod aborts;
mod checkpoints;
mod evolution;
mod files;
mod nexmark;
mod probation;
mod savepoints;
mod simulated;
mod splits;
mod states;
mod swaps;
mod timers;
mod timing;
mod windows;
mod word_count;
