//! What far state lies in: an ordered map of bytes.

use std::sync::Arc;

/// A key and its value.
pub type Row = (Vec<u8>, Vec<u8>);

/// A change of the map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// The key has this value.
    Put(Vec<u8>, Vec<u8>),
    /// The key is gone.
    Delete(Vec<u8>),
}

/// Why state on disk cannot be read or written. After it the store is not used any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the state on disk, in {place}: {why}")]
pub struct StoreFailure {
    /// The store's folder.
    pub place: String,
    /// What its library, or the system, says.
    pub why: String,
}

/// An ordered map of bytes, larger than memory. It lives as long as the job does: what is to outlive the process
/// is in checkpoints. Calls may block.
pub trait OrderedStore: Send + Sync {
    /// The values of these keys.
    ///
    /// # Errors
    /// If they cannot be read.
    fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, StoreFailure>;
    /// The first rows of those from `from` on and before `end`: at most `rows`, and only one where it alone has
    /// more than `bytes`.
    ///
    /// # Errors
    /// If they cannot be read.
    fn scan(&self, from: &[u8], end: &[u8], rows: usize, bytes: usize) -> Result<Vec<Row>, StoreFailure>;
    /// Changes the map, all or nothing.
    ///
    /// # Errors
    /// If it cannot be written.
    fn write(&self, writes: &[Write]) -> Result<(), StoreFailure>;
    /// The map as it is now, whatever becomes of it; it takes disk for as long as it is held.
    ///
    /// # Errors
    /// If it cannot be written.
    fn freeze(&self, epoch: u64) -> Result<Arc<dyn OrderedStore>, StoreFailure>;
}
