//! A store in memory, for simulation: the real one has threads of its own. As that it consists of files that never
//! change, each of what was written since the one before, and makes one of many.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::store::{OrderedStore, Row, StoreFailure, StoreFile, Write};

/// An ordered map in memory.
#[derive(Default)]
pub struct InMemoryStore(Mutex<Map>);

#[derive(Clone, Default)]
struct Map {
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Keys that have been written since the last file.
    written: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// The files, with their numbers.
    files: Vec<(u64, Arc<Vec<u8>>)>,
}

/// The word for its files in checkpoints.
pub const IN_MEMORY: &str = "memory";
/// So many files are made one.
const FILES: usize = 4;
/// Of all stores.
static NEXT_FILE: AtomicU64 = AtomicU64::new(1);

impl InMemoryStore {
    /// What these files hold, the oldest first.
    pub(super) fn of_files(files: &[&[u8]]) -> Result<Self, StoreFailure> {
        let mut map = Map::default();
        for file in files {
            let mut rest = *file;
            while !rest.is_empty() {
                let row = take(&mut rest).zip(take(&mut rest));
                let (key, value) = row.ok_or_else(|| StoreFailure {
                    place: "memory".to_owned(),
                    why: "a file is cut off".to_owned(),
                })?;
                match value.split_first() {
                    Some((_, value)) => drop(map.rows.insert(key.to_vec(), value.to_vec())),
                    None => drop(map.rows.remove(key)),
                }
            }
        }
        Ok(Self(Mutex::new(map)))
    }

    fn with<T>(&self, with: impl FnOnce(&mut Map) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Bytes with their length before them.
fn put(bytes: &[u8], to: &mut Vec<u8>) {
    to.extend((bytes.len() as u64).to_le_bytes());
    to.extend(bytes);
}

fn take<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = from.split_first_chunk::<8>()?;
    let (bytes, rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    *from = rest;
    Some(bytes)
}

impl Map {
    /// Writes a file of what has been written.
    fn flush(&mut self) {
        if self.files.len() == FILES {
            self.files.clear();
            self.written = self.rows.iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect();
        }
        if self.written.is_empty() {
            return;
        }
        let mut file = Vec::new();
        for (key, value) in std::mem::take(&mut self.written) {
            put(&key, &mut file);
            put(&value.map_or_else(Vec::new, |value| [&[1], &value[..]].concat()), &mut file);
        }
        self.files.push((NEXT_FILE.fetch_add(1, Ordering::Relaxed), Arc::new(file)));
    }
}

impl OrderedStore for InMemoryStore {
    fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, StoreFailure> {
        Ok(self.with(|map| keys.iter().map(|key| map.rows.get(key).cloned()).collect()))
    }

    fn scan(&self, from: &[u8], end: &[u8], most: usize, bytes: usize) -> Result<Vec<Row>, StoreFailure> {
        Ok(self.with(|map| {
            let mut left = bytes;
            let mut found: Vec<Row> = Vec::new();
            for (key, value) in map.rows.range(from.to_vec()..end.to_vec()).take(most) {
                let row = key.len() + value.len();
                if row > left && !found.is_empty() {
                    break;
                }
                left = left.saturating_sub(row);
                found.push((key.clone(), value.clone()));
            }
            found
        }))
    }

    fn write(&self, writes: &[Write]) -> Result<(), StoreFailure> {
        self.with(|map| {
            for write in writes {
                match write {
                    Write::Put(key, value) => {
                        map.rows.insert(key.clone(), value.clone());
                        map.written.insert(key.clone(), Some(value.clone()));
                    }
                    Write::Delete(key) => {
                        map.rows.remove(key);
                        map.written.insert(key.clone(), None);
                    }
                }
            }
        });
        Ok(())
    }

    fn freeze(&self, _: u64) -> Result<Arc<dyn OrderedStore>, StoreFailure> {
        Ok(Arc::new(Self(Mutex::new(self.with(|map| {
            map.flush();
            map.clone()
        })))))
    }

    fn kind(&self) -> &'static str {
        IN_MEMORY
    }

    fn files(&self) -> Result<Vec<StoreFile>, StoreFailure> {
        let file = |(number, _): &(u64, Arc<Vec<u8>>)| {
            let name = format!("{number:020}");
            StoreFile { identity: Some(name.clone()), name }
        };
        Ok(self.with(|map| map.files.iter().map(file).collect()))
    }

    fn read_file(&self, name: &str) -> Result<Vec<u8>, StoreFailure> {
        let found = self.with(|map| {
            let file = map.files.iter().find(|(number, _)| name.parse() == Ok(*number));
            file.map(|(_, bytes)| bytes.to_vec())
        });
        found.ok_or_else(|| StoreFailure { place: "memory".to_owned(), why: format!("there is no `{name}`") })
    }
}
