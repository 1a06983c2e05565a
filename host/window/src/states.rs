//! The states that operators declare to their backends, and write.

use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_schema::{DataType, Field, Schema};
use model::job_graph::{State, StateKind};
use state::key_index::KeyId;
use state::{Backend, StoreError};

/// A state by value.
pub(crate) fn value_state(name: &str, data_type: DataType) -> State {
    state(name, StateKind::Value, Schema::empty(), data_type)
}

/// A state without a time to live.
pub(crate) fn state(name: &str, kind: StateKind, key: Schema, data_type: DataType) -> State {
    State {
        name: name.into(),
        kind,
        key: Arc::new(key),
        value: Arc::new(Schema::new(vec![Field::new(name, data_type, true)])),
        ttl: None,
    }
}

/// Writes a value for each of these keys, in their order; null removes it.
///
/// # Errors
/// As [`Backend::store`].
pub(crate) fn store_all(
    backend: &mut dyn Backend,
    state: u32,
    ids: &[KeyId],
    values: &ArrayRef,
    now: i64,
) -> Result<(), StoreError> {
    let written: Vec<(usize, KeyId)> = ids.iter().copied().enumerate().collect();
    backend.store(state, &written, values, now)
}
