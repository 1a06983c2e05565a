//! A store in memory, for simulation: the real one has threads of its own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::store::{OrderedStore, Row, StoreFailure, Write};

/// An ordered map in memory.
#[derive(Default)]
pub struct InMemoryStore(Mutex<BTreeMap<Vec<u8>, Vec<u8>>>);

impl InMemoryStore {
    fn rows<T>(&self, with: impl FnOnce(&mut BTreeMap<Vec<u8>, Vec<u8>>) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl OrderedStore for InMemoryStore {
    fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, StoreFailure> {
        Ok(self.rows(|rows| keys.iter().map(|key| rows.get(key).cloned()).collect()))
    }

    fn scan(&self, from: &[u8], end: &[u8], most: usize, bytes: usize) -> Result<Vec<Row>, StoreFailure> {
        Ok(self.rows(|rows| {
            let mut left = bytes;
            let mut found: Vec<Row> = Vec::new();
            for (key, value) in rows.range(from.to_vec()..end.to_vec()).take(most) {
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
        self.rows(|rows| {
            for write in writes {
                match write {
                    Write::Put(key, value) => drop(rows.insert(key.clone(), value.clone())),
                    Write::Delete(key) => drop(rows.remove(key)),
                }
            }
        });
        Ok(())
    }

    fn freeze(&self, _: u64) -> Result<Arc<dyn OrderedStore>, StoreFailure> {
        Ok(Arc::new(Self(Mutex::new(self.rows(|rows| rows.clone())))))
    }
}
