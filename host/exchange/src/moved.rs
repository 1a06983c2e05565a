//! How much has gone over an exchange.

use std::ops::AddAssign;

/// Rows, and the bytes that they take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// How many.
    pub rows: u64,
    /// About how many, as in [`model::BatchRange::bytes`].
    pub bytes: u64,
}

impl Moved {
    /// Adds so many.
    pub fn add(&mut self, rows: usize, bytes: usize) {
        *self += Self { rows: rows as u64, bytes: bytes as u64 };
    }
}

impl AddAssign for Moved {
    fn add_assign(&mut self, other: Self) {
        self.rows += other.rows;
        self.bytes += other.bytes;
    }
}
