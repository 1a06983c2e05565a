//! The subtask and its step(): where gate, guest, state, aggregates and output meet.
