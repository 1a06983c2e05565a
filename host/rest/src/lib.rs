//! The REST interface: Flink's paths and JSON.
#![forbid(unsafe_code)]
