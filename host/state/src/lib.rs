//! Keyed tables in memory.
