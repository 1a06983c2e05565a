//! One state by value: at most one entry for each key, in rows numbered by the key index.

mod encoded;
mod fixed;

use arrow_array::{ArrayRef, Int64Array};
use arrow_schema::{ArrowError, DataType};
use model::job_graph::Ttl;
use thiserror::Error;

use crate::chunks::Chunks;
use crate::evolve::evolve;
use crate::key_index::KeyId;
use encoded::EncodedEntries;
use fixed::FixedEntries;

/// The bytes that one entry may take: it travels with every call that its key has rows in.
pub const VALUE_BYTES_MAX: usize = 1 << 20;

/// Why values cannot be kept.
#[derive(Debug, Error)]
pub enum StoreError {
    /// One is larger than [`VALUE_BYTES_MAX`].
    #[error("it takes {bytes} bytes")]
    TooLarge {
        /// Its key.
        key: KeyId,
        /// What it takes.
        bytes: usize,
    },
    /// They are not of the table's type.
    #[error(transparent)]
    Arrow(#[from] ArrowError),
}

/// The entries of one state; the null value is "no entry".
pub struct ValueTable {
    data_type: DataType,
    entries: Entries,
    /// Entries of the types that the table had before, the latest last. Each goes over to the others when it is
    /// touched, or given to a snapshot.
    older: Vec<Entries>,
    aging: Option<Aging>,
    /// Kept between calls.
    written: Vec<(usize, KeyId)>,
}

enum Entries {
    Fixed(FixedEntries),
    Encoded(Box<EncodedEntries>),
}

/// When entries were touched last, and how long they live then.
struct Aging {
    ttl: Ttl,
    /// In milliseconds since the epoch, by key.
    touched: Chunks<i64>,
    /// Where old entries are looked for next.
    swept: usize,
    /// Keys whose entries have gone.
    aged: Vec<KeyId>,
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
        let entries = Entries::new(data_type)?;
        let aging = ttl.map(|ttl| Aging { ttl, touched: Chunks::new(1), swept: 0, aged: Vec::new() });
        let data_type = data_type.clone();
        Ok(Self { data_type, entries, older: Vec::new(), aging, written: Vec::new() })
    }

    /// Its values are of this type from now on: those that are there are [mapped](crate::evolve) when they are
    /// touched.
    ///
    /// # Errors
    /// If values of the type cannot be encoded.
    pub(crate) fn evolve(&mut self, data_type: &DataType) -> Result<(), ArrowError> {
        if self.data_type != *data_type {
            let entries = std::mem::replace(&mut self.entries, Entries::new(data_type)?);
            self.older.push(entries);
            self.data_type = data_type.clone();
        }
        Ok(())
    }

    /// No value is of a type that the table had before.
    pub(crate) fn forget_older(&mut self) {
        self.older.clear();
    }

    /// Maps the values of these keys that are of types that the table had before.
    fn settle(&mut self, ids: &[KeyId]) -> Result<(), ArrowError> {
        for older in self.older.iter_mut().rev() {
            let found: Vec<KeyId> = ids.iter().copied().filter(|id| older.is_present(*id as usize)).collect();
            if found.is_empty() {
                continue;
            }
            let values = evolve("value", &older.load(&found)?, &self.data_type)
                .map_err(|misfit| ArrowError::CastError(misfit.to_string()))?;
            let found: Vec<(usize, KeyId)> = found.into_iter().enumerate().collect();
            self.entries.store(&found, &values).map_err(|error| match error {
                StoreError::Arrow(error) => error,
                too_large @ StoreError::TooLarge { .. } => ArrowError::ComputeError(too_large.to_string()),
            })?;
            found.iter().for_each(|(_, id)| older.remove(*id as usize));
        }
        Ok(())
    }

    /// The values of these keys, one row each, null where there is none. `now` is the processing
    /// time, in milliseconds since the epoch.
    ///
    /// # Errors
    /// If the column cannot be made (text of more than 2 GiB).
    pub fn load(&mut self, ids: &[KeyId], now: i64) -> Result<ArrayRef, ArrowError> {
        self.settle(ids)?;
        if let Some(aging) = &mut self.aging {
            aging.age(&mut self.entries, ids, now);
        }
        self.entries.load(ids)
    }

    /// Writes a value for each of these keys, none of them twice: `(row of values, key)`; null
    /// removes it.
    ///
    /// # Errors
    /// If one is too large, or the values are not of the table's type; then nothing is written.
    pub fn store(
        &mut self,
        ids: impl Iterator<Item = (usize, KeyId)>,
        values: &ArrayRef,
        now: i64,
    ) -> Result<(), StoreError> {
        self.written.clear();
        self.written.extend(ids);
        self.entries.store(&self.written, values)?;
        for older in &mut self.older {
            self.written.iter().for_each(|(_, id)| older.remove(*id as usize));
        }
        if let Some(aging) = &mut self.aging {
            self.written.iter().for_each(|(_, id)| aging.touch(*id as usize, now));
        }
        Ok(())
    }

    /// The values of these keys as they lie there, however old, and when each was touched, if they have
    /// a time to live.
    pub(crate) fn peek(&mut self, ids: &[KeyId]) -> Result<(ArrayRef, Option<Int64Array>), ArrowError> {
        self.settle(ids)?;
        let values = self.entries.load(ids)?;
        let touched = self.aging.as_ref().map(|aging| {
            ids.iter().map(|id| aging.touched.element(*id as usize, 0).unwrap_or(i64::MIN)).collect()
        });
        Ok((values, touched))
    }

    /// Puts values of a snapshot back.
    ///
    /// # Errors
    /// As [`store`](Self::store).
    pub(crate) fn import(
        &mut self,
        ids: &[KeyId],
        values: &ArrayRef,
        touched: Option<&Int64Array>,
    ) -> Result<(), StoreError> {
        self.store(ids.iter().copied().enumerate(), values, i64::MIN)?;
        if let (Some(aging), Some(touched)) = (&mut self.aging, touched) {
            ids.iter().zip(touched.values()).for_each(|(id, at)| aging.touch(*id as usize, *at));
        }
        Ok(())
    }

    /// Whether a value lives longer by being read.
    pub(crate) fn is_touched_by_reading(&self) -> bool {
        self.aging.as_ref().is_some_and(|aging| aging.ttl.on_read)
    }

    /// Removes the values of these keys.
    pub(crate) fn remove(&mut self, ids: &[KeyId]) {
        for entries in self.older.iter_mut().chain([&mut self.entries]) {
            ids.iter().for_each(|id| entries.remove(*id as usize));
        }
    }

    /// Bytes of memory, about: what each key that there has been takes, and what values take beside.
    pub(crate) fn memory(&self) -> (usize, usize) {
        let of_keys = self.aging.as_ref().map_or(0, |aging| aging.touched.memory());
        let all = self.older.iter().chain([&self.entries]).map(|entries| match entries {
            Entries::Fixed(entries) => (entries.memory(), 0),
            Entries::Encoded(entries) => entries.memory(),
        });
        all.fold((of_keys, 0), |(keys, values), (by_key, of_values)| (keys + by_key, values + of_values))
    }

    /// Whether a key has a value, however old.
    #[must_use]
    pub fn is_present(&self, id: KeyId) -> bool {
        self.all().any(|entries| entries.is_present(id as usize))
    }

    /// The entries of its type, and of those that it had before.
    fn all(&self) -> impl Iterator<Item = &Entries> {
        self.older.iter().chain([&self.entries])
    }

    /// Keys with values are below this.
    #[must_use]
    pub fn bound(&self) -> usize {
        self.all().map(Entries::len).max().unwrap_or(0)
    }

    /// Takes the numbers of keys whose values were too old and have gone.
    pub(crate) fn take_aged(&mut self) -> Vec<KeyId> {
        self.aging.as_mut().map(|aging| std::mem::take(&mut aging.aged)).unwrap_or_default()
    }

    /// The bytes that the entries of these keys take, about.
    #[must_use]
    pub fn bytes(&self, ids: &[KeyId]) -> usize {
        let bytes = |entries: &Entries| match entries {
            Entries::Fixed(entries) => entries.bytes(ids),
            Entries::Encoded(entries) => entries.bytes(ids),
        };
        self.all().map(bytes).sum()
    }

    /// How many entries there are, with those that are too old and not yet swept.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.all().map(|entries| (0..entries.len()).filter(|id| entries.is_present(*id)).count()).sum()
    }
}

impl Entries {
    fn new(data_type: &DataType) -> Result<Self, ArrowError> {
        Ok(match FixedEntries::new(data_type) {
            Some(fixed) => Self::Fixed(fixed),
            None => Self::Encoded(Box::new(EncodedEntries::new(data_type)?)),
        })
    }

    fn load(&self, ids: &[KeyId]) -> Result<ArrayRef, ArrowError> {
        match self {
            Self::Fixed(entries) => entries.load(ids),
            Self::Encoded(entries) => entries.load(ids),
        }
    }

    fn store(&mut self, written: &[(usize, KeyId)], values: &ArrayRef) -> Result<(), StoreError> {
        match self {
            Self::Fixed(entries) => entries.store(written, values),
            Self::Encoded(entries) => entries.store(written, values)?,
        }
        Ok(())
    }

    fn len(&self) -> usize {
        match self {
            Self::Fixed(entries) => entries.len(),
            Self::Encoded(entries) => entries.len(),
        }
    }

    fn is_present(&self, id: usize) -> bool {
        match self {
            Self::Fixed(entries) => entries.is_present(id),
            Self::Encoded(entries) => entries.is_present(id),
        }
    }

    /// Also what is beyond the last.
    fn remove(&mut self, id: usize) {
        if id >= self.len() {
            return;
        }
        match self {
            Self::Fixed(entries) => entries.remove(id),
            Self::Encoded(entries) => entries.remove(id),
        }
    }
}

impl Aging {
    fn touch(&mut self, id: usize, now: i64) {
        self.touched.grow_to(id + 1, i64::MIN);
        *self.touched.element_mut(id, 0) = now;
    }

    fn is_old(&self, id: usize, now: i64) -> bool {
        self.touched.element(id, 0).is_some_and(|touched| self.ttl.is_over(touched, now))
    }

    /// Forgets what is too old of these keys, and of a few others.
    fn age(&mut self, entries: &mut Entries, ids: &[KeyId], now: i64) {
        let length = entries.len();
        for id in ids.iter().map(|id| *id as usize).filter(|id| *id < length) {
            if self.is_old(id, now) {
                self.remove(entries, id);
            } else if self.ttl.on_read && entries.is_present(id) {
                self.touch(id, now);
            }
        }
        for _ in 0..(SWEPT * ids.len()).min(length) {
            self.swept = (self.swept + 1) % length;
            if self.is_old(self.swept, now) {
                self.remove(entries, self.swept);
            }
        }
    }

    fn remove(&mut self, entries: &mut Entries, id: usize) {
        if entries.is_present(id) {
            entries.remove(id);
            // As many as there are keys, of 32 bits.
            self.aged.push(id as KeyId);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::cast::AsArray;
    use arrow_array::types::Int64Type;
    use arrow_array::{Array, BooleanArray, Date32Array, Float32Array, Int64Array, StringArray, StructArray};
    use arrow_cast::display::{ArrayFormatter, FormatOptions};
    use arrow_schema::{Field, Fields};
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;
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

    /// A table of two columns becomes one of other two while it is used: each value is mapped once, when it is
    /// touched, whichever way.
    #[test]
    fn values_of_another_type_are_mapped_when_they_are_touched() {
        let record = |fields: &[(&str, DataType)]| -> Fields {
            fields.iter().map(|(name, of)| Field::new(*name, of.clone(), true)).collect()
        };
        let old = record(&[("n", DataType::Int32), ("gone", DataType::Boolean)]);
        let new = record(&[("since", DataType::Int64), ("n", DataType::Int64), ("text", DataType::Utf8)]);
        let mut table = ValueTable::new(&DataType::Struct(old.clone()), None).unwrap();
        let numbers: ArrayRef = Arc::new(arrow_array::Int32Array::from_iter_values(0..100));
        let flags: ArrayRef = Arc::new(BooleanArray::from(vec![true; 100]));
        let values: ArrayRef = Arc::new(StructArray::new(old.clone(), vec![numbers, flags], None));
        table.store((0..100).map(|i| (i, i as u32)), &values, 0).unwrap();
        table.evolve(&DataType::Struct(new.clone())).unwrap();
        assert_eq!((table.entries(), table.bound()), (100, 100));
        let n = |values: &ArrayRef| -> Vec<Option<i64>> {
            values.as_struct().column_by_name("n").unwrap().as_primitive::<Int64Type>().iter().collect()
        };
        let loaded = table.load(&[7, 200, 3], 0).unwrap();
        assert_eq!(loaded.data_type(), &DataType::Struct(new.clone()));
        assert_eq!((n(&loaded), loaded.null_count()), (vec![Some(7), None, Some(3)], 1));
        // What is written or removed is not what was.
        let five: ArrayRef = Arc::new(StructArray::new(
            new.clone(),
            vec![
                Arc::new(Int64Array::from(vec![Some(1), None])),
                Arc::new(Int64Array::from(vec![500, 600])),
                Arc::new(StringArray::from(vec!["five", "six"])),
            ],
            Some(vec![true, false].into()),
        ));
        table.store([(0, 5), (1, 6)].into_iter(), &five, 0).unwrap();
        table.remove(&[8]);
        assert_eq!(n(&table.load(&[5, 6, 8, 9], 0).unwrap()), [Some(500), None, None, Some(9)]);
        assert_eq!((table.entries(), table.is_present(6), table.is_present(10)), (98, false, true));
        // And back: what was not touched is as it was.
        let back = record(&[("n", DataType::Int64), ("gone", DataType::Boolean)]);
        table.evolve(&DataType::Struct(back)).unwrap();
        let loaded = table.load(&[5, 7, 50, 6], 0).unwrap();
        let gone: Vec<_> = loaded.as_struct().column(1).as_boolean().iter().collect();
        assert_eq!(
            (n(&loaded), gone),
            (vec![Some(500), Some(7), Some(50), None], vec![None, None, Some(true), None])
        );
        table.peek(&(0..100).collect::<Vec<_>>()).unwrap();
        table.forget_older();
        assert_eq!((table.entries(), table.bound()), (98, 100));
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

    type Value = (Option<i64>, Option<bool>, Option<f32>, Option<i32>);

    proptest! {
        /// Numbers lie otherwise than texts: both give back what was stored, at every null.
        #[test]
        fn both_forms_keep_what_is_stored(
            rows in proptest::collection::vec(
                (0u32..40, any::<Option<Value>>()), 1..80),
            text in any::<bool>(),
        ) {
            let inner = Fields::from(vec![
                Field::new("f", DataType::Float32, true),
                Field::new("d", DataType::Date32, true),
            ]);
            let mut fields = vec![
                Field::new("i", DataType::Int64, true),
                Field::new("b", DataType::Boolean, true),
                Field::new("s", DataType::Struct(inner.clone()), true),
            ];
            fields.extend(text.then(|| Field::new("t", DataType::Utf8, true)));
            let fields = Fields::from(fields);
            let mut table = ValueTable::new(&DataType::Struct(fields.clone()), None).unwrap();
            prop_assert_eq!(matches!(table.entries, Entries::Fixed(_)), !text);
            let column = |values: &[Option<Value>]| -> ArrayRef {
                let floats: Float32Array = values.iter().map(|v| v.and_then(|v| v.2)).collect();
                let dates: Date32Array = values.iter().map(|v| v.and_then(|v| v.3)).collect();
                let has_inner: Vec<bool> = values.iter().map(|v| v.is_some_and(|v| v.3 != Some(7))).collect();
                let structure = StructArray::new(
                    inner.clone(), vec![Arc::new(floats), Arc::new(dates)], Some(has_inner.into()));
                let mut columns: Vec<ArrayRef> = vec![
                    Arc::new(values.iter().map(|v| v.and_then(|v| v.0)).collect::<Int64Array>()),
                    Arc::new(values.iter().map(|v| v.and_then(|v| v.1)).collect::<BooleanArray>()),
                    Arc::new(structure),
                ];
                if text {
                    let texts = values.iter().map(|v| v.and_then(|v| v.0).map(|i| i.to_string()));
                    columns.push(Arc::new(texts.collect::<StringArray>()));
                }
                let present: Vec<bool> = values.iter().map(Option::is_some).collect();
                Arc::new(StructArray::new(fields.clone(), columns, Some(present.into())))
            };
            let mut plain = BTreeMap::new();
            for some in rows.chunks(7) {
                // A call names a key once.
                let some: BTreeMap<_, _> = some.iter().copied().collect();
                let some: Vec<_> = some.into_iter().collect();
                let values: Vec<_> = some.iter().map(|(_, value)| *value).collect();
                let ids = some.iter().enumerate().map(|(row, (id, _))| (row, *id));
                table.store(ids, &column(&values), 0).unwrap();
                plain.extend(some.iter().copied());
            }
            let ids: Vec<u32> = (0..45).collect();
            let expected: Vec<_> = ids.iter().map(|id| plain.get(id).copied().flatten()).collect();
            let (loaded, expected) = (table.load(&ids, 0).unwrap(), column(&expected));
            let text = |array: &ArrayRef| -> Vec<String> {
                let options = FormatOptions::default().with_null("null");
                let formatter = ArrayFormatter::try_new(array.as_ref(), &options).unwrap();
                (0..array.len()).map(|row| formatter.value(row).to_string()).collect()
            };
            prop_assert_eq!(text(&loaded), text(&expected));
        }
    }
}
