//! The keys of rows, and all keys in turn.

use arrow_array::ArrayRef;
use model::Batch;
use state::Backend;
use state::key_index::KeyId;

/// The key's columns of rows.
pub(crate) fn key_columns(rows: &Batch, keys: &[usize]) -> Vec<ArrayRef> {
    keys.iter().map(|key| ArrayRef::clone(rows.column(*key))).collect()
}

/// Goes through the numbers of a backend's keys once, some at a time: for final results.
#[derive(Default)]
pub(crate) struct FinalKeys {
    given: usize,
}

impl FinalKeys {
    /// The next numbers, at most so many; none when there are no more. Some may be nobody's.
    pub(crate) fn next(&mut self, backend: &dyn Backend, max: usize) -> Option<Vec<KeyId>> {
        let from = self.given;
        self.given = backend.bound().min(from + max);
        // Key numbers are of 32 bits.
        (self.given > from).then(|| (from as KeyId..self.given as KeyId).collect())
    }
}
