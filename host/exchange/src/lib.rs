//! Partitioning, bounded channels and the input gate.
