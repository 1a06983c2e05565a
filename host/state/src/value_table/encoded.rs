//! Entries of any type, each as `arrow-row` encodes it, in an allocation of its own.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, new_null_array};
use arrow_row::{RowConverter, SortField};
use arrow_schema::{ArrowError, DataType};

use super::{StoreError, VALUE_BYTES_MAX};
use crate::chunks::Chunks;
use crate::key_index::KeyId;

pub(super) struct EncodedEntries {
    data_type: DataType,
    converter: RowConverter,
    entries: Chunks<Option<Box<[u8]>>>,
    /// Of all entries.
    bytes: usize,
}

impl EncodedEntries {
    pub(super) fn new(data_type: &DataType) -> Result<Self, ArrowError> {
        let converter = RowConverter::new(vec![SortField::new(data_type.clone())])?;
        Ok(Self { data_type: data_type.clone(), converter, entries: Chunks::new(1), bytes: 0 })
    }

    fn entry(&self, id: usize) -> Option<&[u8]> {
        self.entries.get(id)?.first()?.as_deref()
    }

    pub(super) fn load(&self, ids: &[KeyId]) -> Result<ArrayRef, ArrowError> {
        let parser = self.converter.parser();
        let entry = |id: &KeyId| self.entry(*id as usize);
        if ids.iter().all(|id| entry(id).is_none()) {
            return Ok(new_null_array(&self.data_type, ids.len()));
        }
        let null = self.converter.convert_columns(&[new_null_array(&self.data_type, 1)])?;
        let rows: Vec<_> = ids
            .iter()
            .map(|id| match entry(id) {
                Some(bytes) => parser.parse(bytes),
                None => null.row(0),
            })
            .collect();
        Ok(Arc::clone(&self.converter.convert_rows(rows)?[0]))
    }

    pub(super) fn store(&mut self, ids: &[(usize, KeyId)], values: &ArrayRef) -> Result<(), StoreError> {
        let rows = self.converter.convert_columns(&[Arc::clone(values)])?;
        for (row, key) in ids {
            let bytes = rows.row(*row).as_ref().len();
            if bytes > VALUE_BYTES_MAX {
                return Err(StoreError::TooLarge { key: *key, bytes });
            }
        }
        for (row, id) in ids {
            let id = *id as usize;
            self.entries.grow_to(id + 1, None);
            let written: Option<Box<[u8]>> =
                (!values.is_null(*row)).then(|| Box::from(rows.row(*row).as_ref()));
            self.bytes += written.as_ref().map_or(0, |bytes| bytes.len());
            let before = std::mem::replace(self.entries.element_mut(id, 0), written);
            self.bytes -= before.map_or(0, |bytes| bytes.len());
        }
        Ok(())
    }

    pub(super) fn bytes(&self, ids: &[KeyId]) -> usize {
        ids.iter().map(|id| self.entry(*id as usize).map_or(0, <[u8]>::len)).sum()
    }

    pub(super) fn is_present(&self, id: usize) -> bool {
        self.entry(id).is_some()
    }

    pub(super) fn remove(&mut self, id: usize) {
        let before = self.entries.element_mut(id, 0).take();
        self.bytes -= before.map_or(0, |bytes| bytes.len());
    }

    /// Bytes of memory: by key, and of the entries.
    pub(super) fn memory(&self) -> (usize, usize) {
        (self.entries.memory(), self.bytes)
    }

    /// Keys up to the last that has, or had, an entry.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}
