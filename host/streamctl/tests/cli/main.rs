//! The binary as a user meets it: arguments, exit codes, messages, streams, signals.
#![allow(clippy::unwrap_used, reason = "what a test cannot go on without")]

mod arguments;
mod backends;
mod bombs;
mod checkpoints;
mod counts;
mod dev;
mod embedded;
mod flink;
mod flink_rest;
mod input;
mod ledger;
mod lookups;
mod new_files;
mod openapi;
mod operators;
mod output;
mod project;
mod recovery;
mod request_paths;
mod restarts;
mod s3;
mod savepoints;
mod secured;
mod session;
mod session_ledger;
mod signals;
mod sockets;
mod support;
mod swap;
mod swap_faults;
mod swap_live;
mod timers;
mod verbs;
mod windows;
