//! A store in RocksDB: the one place that knows it.
//!
//! It is scratch: no log of writes, no fsync, and its folder goes when it is dropped. A row is put once before it
//! is deleted, so that deletes are RocksDB's single deletes, which leave nothing behind.
//! Source of the settings: RocksDB's tuning guide; Flink's `RocksDBMemoryControllerUtils` (one cache and one write
//! buffer manager for all stores of a process).

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use platform::faults::Point;
use platform::{Faults, Random};
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, Error, IteratorMode, LogLevel, Options, ReadOptions,
    WriteBatch, WriteBufferManager, WriteOptions,
};

use super::store::{OrderedStore, Row, StoreFailure, StoreFile, Write};

/// What the stores of a job share: a folder, and memory.
pub struct Rocks {
    folder: Arc<Folder>,
    cache: Cache,
    buffers: WriteBufferManager,
    /// Of one store's write buffer.
    buffer_bytes: usize,
    /// How many have been made.
    stores: usize,
    faults: Faults,
}

impl Rocks {
    /// A new folder in this one, which goes with the last store; so many bytes of memory, a third of them for what
    /// has been written, for about so many stores. Folders of processes that are gone are removed.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn new(root: &Path, bytes: usize, stores: usize, faults: &Faults) -> Result<Self, StoreFailure> {
        let folder = Arc::new(Folder::of_process(root)?);
        let cache = Cache::new_lru_cache(bytes);
        let of_buffers = bytes / 3;
        // What buffers take is taken from the cache.
        let buffers =
            WriteBufferManager::new_write_buffer_manager_with_cache(of_buffers, false, cache.clone());
        let buffer_bytes = (of_buffers / stores.max(1) / 2).clamp(64 << 10, 64 << 20);
        Ok(Self { folder, cache, buffers, buffer_bytes, stores: 0, faults: faults.clone() })
    }

    /// A new store, which is empty.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn store(&mut self) -> Result<RocksStore, StoreFailure> {
        self.stores += 1;
        let folder = Folder { path: self.folder.path.join(self.stores.to_string()), lock: None };
        RocksStore::create(folder, self)
    }
}

/// An ordered map of bytes in RocksDB.
pub struct RocksStore {
    /// Dropped before its folder.
    db: DB,
    path: PathBuf,
    options: Options,
    /// What no other store has, with its frozen ones.
    identity: String,
    faults: Faults,
    /// What goes with it, and the job's; none = the files are somebody else's.
    folders: Option<(Folder, Arc<Folder>)>,
}

/// The word for its files in checkpoints.
pub const ROCKS: &str = "rocksdb";

/// A folder of this process for a while.
pub struct Scratch(Folder);

impl Scratch {
    /// A new one in this one. Those of processes that are gone are removed.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn new(root: &Path) -> Result<Self, StoreFailure> {
        Folder::of_process(root).map(Self)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }
}

/// A folder that goes when nobody needs it.
struct Folder {
    path: PathBuf,
    /// Held while the folder is used, if it is a process's.
    lock: Option<File>,
}

/// What folders of processes begin with.
const FOLDERS: &str = "millstream-state-";

impl Drop for Folder {
    fn drop(&mut self) {
        drop(self.lock.take());
        // What cannot be removed now is by the next process.
        drop(std::fs::remove_dir_all(&self.path));
    }
}

impl Folder {
    /// A new one of this process.
    fn of_process(root: &Path) -> Result<Self, StoreFailure> {
        let failure = |error: std::io::Error| failure(root, &error);
        std::fs::create_dir_all(root).map_err(failure)?;
        for other in std::fs::read_dir(root).map_err(failure)?.flatten() {
            if other.file_name().to_string_lossy().starts_with(FOLDERS)
                && let Ok(lock) = File::open(other.path().join("lock"))
                && lock.try_lock().is_ok()
            {
                drop(Self { path: other.path(), lock: Some(lock) });
            }
        }
        for number in 0u32.. {
            let path = root.join(format!("{FOLDERS}{}-{number}", std::process::id()));
            match std::fs::create_dir(&path) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                made => {
                    made.map_err(failure)?;
                    let lock = File::create(path.join("lock")).map_err(failure)?;
                    lock.lock().map_err(failure)?;
                    return Ok(Self { path, lock: Some(lock) });
                }
            }
        }
        Err(failure(ErrorKind::AlreadyExists.into()))
    }
}

fn failure(place: &Path, why: &dyn std::fmt::Display) -> StoreFailure {
    StoreFailure { place: place.display().to_string(), why: why.to_string() }
}

impl RocksStore {
    fn create(folder: Folder, of: &Rocks) -> Result<Self, StoreFailure> {
        std::fs::create_dir(&folder.path).map_err(|error| failure(&folder.path, &error))?;
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(&of.cache);
        blocks.set_block_size(8 << 10);
        blocks.set_bloom_filter(10.0, false);
        blocks.set_cache_index_and_filter_blocks(true);
        blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
        blocks.set_format_version(5);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_error_if_exists(true);
        options.set_block_based_table_factory(&blocks);
        options.set_write_buffer_manager(&of.buffers);
        options.set_write_buffer_size(of.buffer_bytes);
        options.set_target_file_size_base((2 * of.buffer_bytes as u64).max(2 << 20));
        options.set_max_bytes_for_level_base((8 * of.buffer_bytes as u64).max(16 << 20));
        options.set_max_background_jobs(2);
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_use_fsync(false);
        options.set_log_level(LogLevel::Warn);
        options.set_keep_log_file_num(1);
        let db =
            DB::open(&options, folder.path.join("now")).map_err(|error| failure(&folder.path, &error))?;
        let identity = format!("{:016x}", Random::unpredictable_seed());
        let (path, faults) = (folder.path.clone(), of.faults.clone());
        Ok(Self { db, path, options, identity, faults, folders: Some((folder, Arc::clone(&of.folder))) })
    }

    /// A frozen one whose files have been laid in a folder, which stays.
    pub(super) fn read_only(files: &Path) -> Result<Self, StoreFailure> {
        let options = Options::default();
        let db = DB::open_for_read_only(&options, files, false).map_err(|error| failure(files, &error))?;
        let (path, faults) = (files.to_owned(), Faults::none());
        Ok(Self { db, path, options, identity: String::new(), faults, folders: None })
    }

    /// How many bytes have been written from memory to files; none of them twice, as by compaction. RocksDB says it
    /// in millions.
    #[must_use]
    pub fn flushed_bytes(&self) -> Option<u64> {
        let stats = self.db.property_value("rocksdb.cfstats-no-file-histogram").ok()??;
        let said = stats.split_once("Flush(GB): cumulative ")?.1.split(',').next()?;
        // In thousandths of 2^30 bytes.
        Some((said.trim().parse::<f64>().ok()? * (1u64 << 30) as f64) as u64)
    }

    fn failed(&self, error: &Error) -> StoreFailure {
        failure(&self.path, error)
    }

    fn pass(&self, point: Point) -> Result<(), StoreFailure> {
        self.faults.pass(point).map_err(|error| failure(&self.path, &error))
    }
}

impl OrderedStore for RocksStore {
    fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, StoreFailure> {
        self.pass(Point::StateRead)?;
        // In order, neighbours share blocks.
        let mut order: Vec<usize> = (0..keys.len()).collect();
        order.sort_unstable_by_key(|at| &keys[*at]);
        let sorted = order.iter().map(|at| &keys[*at]);
        let found = self.db.multi_get(sorted);
        let mut values = vec![None; keys.len()];
        for (at, value) in order.into_iter().zip(found) {
            values[at] = value.map_err(|error| self.failed(&error))?;
        }
        Ok(values)
    }

    fn scan(&self, from: &[u8], end: &[u8], rows: usize, bytes: usize) -> Result<Vec<Row>, StoreFailure> {
        self.pass(Point::StateRead)?;
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(end);
        let start = IteratorMode::From(from, rocksdb::Direction::Forward);
        let (mut found, mut left): (Vec<Row>, _) = (Vec::new(), bytes);
        for row in self.db.iterator_opt(start, options).take(rows) {
            let (key, value) = row.map_err(|error| self.failed(&error))?;
            let taken = key.len() + value.len();
            if taken > left && !found.is_empty() {
                break;
            }
            left = left.saturating_sub(taken);
            found.push((key.into(), value.into()));
        }
        Ok(found)
    }

    fn write(&self, writes: &[Write]) -> Result<(), StoreFailure> {
        self.pass(Point::StateWrite)?;
        let mut batch = WriteBatch::default();
        for write in writes {
            match write {
                Write::Put(key, value) => batch.put(key, value),
                Write::Delete(key) => batch.single_delete(key),
            }
        }
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.db.write_opt(batch, &options).map_err(|error| self.failed(&error))
    }

    fn freeze(&self, epoch: u64) -> Result<Arc<dyn OrderedStore>, StoreFailure> {
        self.pass(Point::StateFreeze)?;
        let folder = Folder { path: self.path.join(format!("frozen-{epoch}")), lock: None };
        // What is in memory is written first: there is no log.
        let made =
            Checkpoint::new(&self.db).and_then(|checkpoint| checkpoint.create_checkpoint(&folder.path));
        made.map_err(|error| self.failed(&error))?;
        let mut options = self.options.clone();
        options.set_error_if_exists(false);
        let db =
            DB::open_for_read_only(&options, &folder.path, false).map_err(|error| self.failed(&error))?;
        self.pass(Point::StateFrozen)?;
        let path = folder.path.clone();
        let (identity, faults) = (self.identity.clone(), self.faults.clone());
        let folders = self.folders.as_ref().map(|(_, home)| (folder, Arc::clone(home)));
        Ok(Arc::new(Self { db, path, options, identity, faults, folders }))
    }

    fn kind(&self) -> &'static str {
        ROCKS
    }

    fn files(&self) -> Result<Vec<StoreFile>, StoreFailure> {
        let failed = |error: std::io::Error| failure(&self.path, &error);
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_table = name.ends_with(".sst");
            // Tables are numbered, and a number is given once. Reading alone writes a log of messages.
            if is_table || name == "CURRENT" || name.starts_with("MANIFEST-") {
                let identity = is_table.then(|| format!("{}-{name}", self.identity));
                files.push(StoreFile { name, identity });
            }
        }
        files.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        Ok(files)
    }

    fn read_file(&self, name: &str) -> Result<Vec<u8>, StoreFailure> {
        let path = self.path.join(name);
        std::fs::read(&path).map_err(|error| failure(&path, &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tiered::InMemoryStore;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Deed {
        /// Of these keys those that are not there are put, the others deleted.
        Turn(Vec<u8>),
        Freeze,
    }

    fn deed() -> impl Strategy<Value = Deed> {
        prop_oneof![
            8 => proptest::collection::vec(any::<u8>(), 1..40).prop_map(Deed::Turn),
            1 => Just(Deed::Freeze),
        ]
    }

    fn all(store: &dyn OrderedStore) -> Vec<Row> {
        let rows = store.scan(&[0], &[9], usize::MAX, usize::MAX).unwrap();
        let keys: Vec<Vec<u8>> = (0..=u8::MAX).map(|key| vec![1, key]).collect();
        let found = store.get_many(&keys).unwrap();
        let found: Vec<Row> =
            keys.into_iter().zip(found).filter_map(|(key, value)| Some((key, value?))).collect();
        assert_eq!(rows, found, "what is found by key is what is found in order");
        rows
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
        /// Against a map in memory, over flushes; what is frozen stays.
        #[test]
        fn it_is_an_ordered_map(deeds in proptest::collection::vec(deed(), 1..30)) {
            let root = std::env::temp_dir().join(format!("rocks-{}", std::process::id()));
            let mut rocks = Rocks::new(&root, 1 << 20, 1, &Faults::none()).unwrap();
            let (store, plain) = (rocks.store().unwrap(), InMemoryStore::default());
            let mut frozen = Vec::new();
            for (epoch, deed) in (0..).zip(deeds) {
                match deed {
                    Deed::Turn(mut keys) => {
                        keys.sort_unstable();
                        keys.dedup();
                        let there = plain.get_many(&keys.iter().map(|key| vec![1, *key]).collect::<Vec<_>>()).unwrap();
                        let turn = |(key, there): (&u8, Option<Vec<u8>>)| match there {
                            Some(_) => Write::Delete(vec![1, *key]),
                            None => Write::Put(vec![1, *key], vec![*key; 1_000 + usize::from(*key)]),
                        };
                        let writes: Vec<Write> = keys.iter().zip(there).map(turn).collect();
                        store.write(&writes).unwrap();
                        plain.write(&writes).unwrap();
                    }
                    Deed::Freeze => frozen.push((store.freeze(epoch).unwrap(), plain.freeze(epoch).unwrap())),
                }
                prop_assert_eq!(all(&store), all(&plain));
            }
            for (store, plain) in frozen {
                prop_assert_eq!(all(&*store), all(&*plain));
            }
            let folder = rocks.folder.path.clone();
            prop_assert!(folder.exists());
            drop((store, rocks));
            prop_assert!(!folder.exists(), "its folder is left");
        }
    }

    /// What a process that was killed has left is removed by the next.
    #[test]
    fn folders_of_processes_that_are_gone_are_removed() {
        let root = std::env::temp_dir().join(format!("rocks-left-{}", std::process::id()));
        let left = root.join(format!("{FOLDERS}1-0"));
        std::fs::create_dir_all(left.join("1")).unwrap();
        File::create(left.join("lock")).unwrap();
        let held = Rocks::new(&root, 1 << 20, 1, &Faults::none()).unwrap();
        assert!(!left.exists());
        let other = Rocks::new(&root, 1 << 20, 1, &Faults::none()).unwrap();
        assert!(held.folder.path.exists(), "that of a job that runs stays");
        drop((held, other));
        assert_eq!(std::fs::read_dir(&root).unwrap().count(), 0);
        std::fs::remove_dir(root).unwrap();
    }
}
