//! One state by value: at most one entry for each key, in rows numbered by the key index.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, new_null_array};
use arrow_row::{RowConverter, SortField};
use arrow_schema::{ArrowError, DataType};
use model::job_graph::Ttl;

use crate::key_index::KeyId;

/// The entries of one state. An entry is kept as `arrow-row` encodes it, so every type is one
/// case; the null value is "no entry".
pub struct ValueTable {
    data_type: DataType,
    converter: RowConverter,
    entries: Vec<Option<Box<[u8]>>>,
    aging: Option<Aging>,
}

/// When entries were touched last, and how long they live then.
struct Aging {
    ttl: Ttl,
    /// In milliseconds since the epoch, by key.
    touched: Vec<i64>,
    /// Where old entries are looked for next.
    swept: usize,
}

/// How many entries are looked at, whether they are too old, for each one that is loaded: so a table
/// that is used frees what has been forgotten, and one that is not costs nothing.
const SWEPT: usize = 4;

impl ValueTable {
    /// An empty table of values of this type; `ttl` = how long an entry lives.
    ///
    /// # Errors
    /// If values of the type cannot be encoded.
    pub fn new(data_type: &DataType, ttl: Option<Ttl>) -> Result<Self, ArrowError> {
        let converter = RowConverter::new(vec![SortField::new(data_type.clone())])?;
        let aging = ttl.map(|ttl| Aging { ttl, touched: Vec::new(), swept: 0 });
        Ok(Self { data_type: data_type.clone(), converter, entries: Vec::new(), aging })
    }

    /// The values of these keys, one row each, null where there is none. `now` is the processing
    /// time, in milliseconds since the epoch.
    ///
    /// # Errors
    /// If the column cannot be made (text of more than 2 GiB).
    pub fn load(&mut self, ids: &[KeyId], now: i64) -> Result<ArrayRef, ArrowError> {
        if let Some(aging) = &mut self.aging {
            aging.age(&mut self.entries, ids, now);
        }
        let parser = self.converter.parser();
        let entry = |id: &KeyId| self.entries.get(*id as usize).and_then(Option::as_deref);
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

    /// Writes a value for each of these keys; null removes it.
    ///
    /// # Errors
    /// If the values are not of the table's type.
    pub fn store(
        &mut self,
        ids: impl Iterator<Item = (usize, KeyId)>,
        values: &ArrayRef,
        now: i64,
    ) -> Result<(), ArrowError> {
        let rows = self.converter.convert_columns(&[Arc::clone(values)])?;
        for (row, id) in ids {
            let id = id as usize;
            if id >= self.entries.len() {
                self.entries.resize(id + 1, None);
            }
            self.entries[id] = (!values.is_null(row)).then(|| Box::from(rows.row(row).as_ref()));
            if let Some(aging) = &mut self.aging {
                aging.touch(id, now);
            }
        }
        Ok(())
    }

    /// How many entries there are, with those that are too old and not yet swept.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.entries.iter().flatten().count()
    }
}

impl Aging {
    fn touch(&mut self, id: usize, now: i64) {
        if id >= self.touched.len() {
            self.touched.resize(id + 1, i64::MIN);
        }
        self.touched[id] = now;
    }

    fn is_old(&self, id: usize, now: i64) -> bool {
        let after = i64::try_from(self.ttl.after.as_millis()).unwrap_or(i64::MAX);
        self.touched.get(id).is_some_and(|touched| now.saturating_sub(*touched) >= after)
    }

    /// Forgets what is too old of these keys, and of a few others.
    fn age(&mut self, entries: &mut [Option<Box<[u8]>>], ids: &[KeyId], now: i64) {
        let length = entries.len();
        for id in ids.iter().map(|id| *id as usize).filter(|id| *id < length) {
            if self.is_old(id, now) {
                entries[id] = None;
            } else if self.ttl.on_read && entries[id].is_some() {
                self.touch(id, now);
            }
        }
        for _ in 0..(SWEPT * ids.len()).min(entries.len()) {
            self.swept = (self.swept + 1) % entries.len();
            if self.is_old(self.swept, now) {
                entries[self.swept] = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::cast::AsArray;
    use arrow_array::types::Int64Type;
    use arrow_array::{Int64Array, StringArray, StructArray};
    use arrow_schema::{Field, Fields};
    use std::time::Duration;

    #[test]
    fn what_was_stored_is_loaded_and_null_removes() {
        let mut table = ValueTable::new(&DataType::Int64, None).unwrap();
        let values: ArrayRef = Arc::new(Int64Array::from(vec![Some(5), Some(6), None]));
        table.store([4, 2, 9].into_iter().enumerate(), &values, 0).unwrap();
        let loaded = table.load(&[2, 3, 4, 9], 0).unwrap();
        assert_eq!(loaded.as_primitive::<Int64Type>(), &Int64Array::from(vec![Some(6), None, Some(5), None]));
        let gone: ArrayRef = Arc::new(Int64Array::from(vec![None]));
        table.store([(0, 4)].into_iter(), &gone, 0).unwrap();
        assert_eq!(table.load(&[4], 0).unwrap().null_count(), 1);
    }

    #[test]
    fn structures_are_values_too() {
        let fields = Fields::from(vec![
            Field::new("word", DataType::Utf8, false),
            Field::new("count", DataType::Int64, true),
        ]);
        let mut table = ValueTable::new(&DataType::Struct(fields.clone()), None).unwrap();
        let values: ArrayRef = Arc::new(StructArray::new(
            fields,
            vec![
                Arc::new(StringArray::from(vec!["a", "b"])),
                Arc::new(Int64Array::from(vec![Some(1), None])),
            ],
            None,
        ));
        table.store([1, 0].into_iter().enumerate(), &values, 0).unwrap();
        assert_eq!(table.load(&[1, 0], 0).unwrap().as_ref(), values.as_ref());
    }

    #[test]
    fn entries_grow_old() {
        let numbers = |n: usize| -> ArrayRef { Arc::new(Int64Array::from_iter_values(0..n as i64)) };
        let there = |table: &mut ValueTable, id, now| table.load(&[id], now).unwrap().null_count() == 0;
        for on_read in [false, true] {
            let ttl = Ttl { after: Duration::from_millis(100), on_read };
            let mut table = ValueTable::new(&DataType::Int64, Some(ttl)).unwrap();
            table.store((0..50).map(|i| (i, i as u32)), &numbers(50), 1_000).unwrap();
            assert!(there(&mut table, 7, 1_099));
            assert_eq!(there(&mut table, 7, 1_100), on_read);
            table.store([(0, 8)].into_iter(), &numbers(1), 1_099).unwrap();
            assert!(there(&mut table, 8, 1_198));
            // What nobody asks for is swept as others are asked for.
            (0..20).for_each(|_| drop(table.load(&[8], 1_190).unwrap()));
            assert!(table.entries() <= 2, "{}", table.entries());
            assert!(!there(&mut table, 8, i64::MAX));
        }
    }
}
