//! Aggregates over groups of rows, loaded from state and stored back.
