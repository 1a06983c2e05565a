//! Reads the files of a store that lies in a checkpoint.

use std::path::Path;
use std::sync::Arc;

use arrow_schema::{ArrowError, DataType, Field, Schema};
use model::job_graph::{State, StateKind, Ttl};

use super::layout::{self, Layout};
use super::store::OrderedStore;
use super::{InMemoryStore, PAGE, RocksStore};
use crate::backend::{StateChunk, StateTable};

/// Where the files of a store have been laid.
pub enum StoreFiles<'a> {
    /// Of RocksDB: in a folder, under their names.
    Folder(&'a Path),
    /// Of the store of simulation, in their order.
    InMemory(Vec<&'a [u8]>),
}

/// The rows of a store, page by page.
pub struct StoreReader {
    layout: Layout,
    store: Arc<dyn OrderedStore>,
    after: Option<Vec<u8>>,
}

impl StoreReader {
    /// Of a store with states like these rows, each with its kind.
    ///
    /// # Errors
    /// If it is no such store.
    pub fn new(files: StoreFiles<'_>, types: &[(StateChunk, StateKind)]) -> Result<Self, ArrowError> {
        let store: Arc<dyn OrderedStore> = match files {
            StoreFiles::Folder(folder) => Arc::new(RocksStore::read_only(folder)?),
            StoreFiles::InMemory(files) => Arc::new(InMemoryStore::of_files(&files)?),
        };
        let (mut states, mut keys) = (Vec::new(), Vec::new());
        for (chunk, kind) in types {
            let place = match chunk.table {
                StateTable::Values(place) | StateTable::Entries(place) => place as usize,
                StateTable::Timers | StateTable::Gone => continue,
            };
            let Some((value, own)) = chunk.columns.split_last() else { continue };
            let types = |columns: &[arrow_array::ArrayRef]| -> Vec<DataType> {
                columns.iter().map(|column| column.data_type().clone()).collect()
            };
            if *kind != StateKind::Broadcast {
                keys = types(&chunk.keys);
            }
            let own = if *kind == StateKind::Sequence { &[] } else { own };
            let fields: Vec<Field> = types(own).into_iter().map(|of| Field::new("key", of, true)).collect();
            let value = Field::new("value", value.data_type().clone(), true);
            let ttl = chunk.touched.as_ref().map(|_| Ttl { after: std::time::Duration::MAX, on_read: false });
            let state = State {
                name: String::new(),
                kind: kind.clone(),
                key: Arc::new(Schema::new(fields)),
                value: Arc::new(Schema::new(vec![value])),
                ttl,
            };
            states.push((place, state));
        }
        states.sort_by_key(|(place, _)| *place);
        if !states.iter().map(|(place, _)| *place).eq(0..states.len()) {
            return Err(ArrowError::SchemaError("a store of states that are not all known".to_owned()));
        }
        let states: Vec<State> = states.into_iter().map(|(_, state)| state).collect();
        Ok(Self { layout: Layout::new(&keys, &states)?, store, after: None })
    }

    /// The next rows; none = there are no more.
    ///
    /// # Errors
    /// If the files cannot be read.
    pub fn next_rows(&mut self) -> Result<Option<Vec<StateChunk>>, ArrowError> {
        let rows = layout::page(&*self.store, self.after.as_deref(), PAGE)?;
        let Some((last, _)) = rows.last() else { return Ok(None) };
        self.after = Some(last.clone());
        self.layout.chunks(&rows).map(Some)
    }
}
