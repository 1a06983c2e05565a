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

/// A file of a frozen store. It never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreFile {
    /// Its name in the store.
    pub name: String,
    /// What no other file has, of any store that there is or has been; the store as it is frozen next may have the
    /// same file. None = only this one has it.
    pub identity: Option<String>,
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
    /// The word for this kind of store, where its files lie.
    fn kind(&self) -> &'static str;
    /// All files of a store that is frozen.
    ///
    /// # Errors
    /// If they cannot be found.
    fn files(&self) -> Result<Vec<StoreFile>, StoreFailure>;
    /// What is in a file of a store that is frozen.
    ///
    /// # Errors
    /// If it cannot be read.
    fn read_file(&self, name: &str) -> Result<Vec<u8>, StoreFailure>;
}
