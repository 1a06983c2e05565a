//! Numbers the distinct keys of a stream, from 0, in the order in which they first come; numbers of
//! forgotten keys are given out again.
//!
//! Rows go in blocks: all their hashes, then all their first slots, then the keys of these, then the
//! comparisons, so that the misses of a block's loads overlap. Seeded, so that nobody can choose keys
//! that collide. Keys of several columns, decimals and structures are encoded by `arrow-row` first.

mod key_store;
mod key_table;

use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Float32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType,
};
use arrow_array::{Array, ArrayRef, PrimitiveArray};
use arrow_row::{RowConverter, SortField};
use arrow_schema::{ArrowError, DataType, TimeUnit};

use key_store::{KeyStore, Numbers, Texts};
use key_table::{Found, KeyTable, Slot};

/// The number of a key: its row in every table of the operator.
pub type KeyId = u32;

/// The distinct keys of an operator's subtask.
pub struct KeyIndex {
    types: Vec<DataType>,
    coding: Coding,
    numbering: Numbering,
}

/// How a key becomes bits.
enum Coding {
    /// One column of text or binary: its bytes.
    Bytes(Keys<Texts>),
    /// One column of numbers of at most 64 bits.
    Numbers(Keys<Numbers>),
    /// Anything else: `arrow-row`'s bytes.
    Rows(Box<RowConverter>, Keys<Texts>),
}

/// Keys of one coding, and where they are found.
struct Keys<S: KeyStore> {
    store: S,
    table: KeyTable<S::Key>,
}

/// Which numbers have been given out.
#[derive(Default)]
struct Numbering {
    /// That of the null key, of a single column.
    null: Option<KeyId>,
    /// Numbers below this have been given out,
    bound: usize,
    /// these of them for keys that have been forgotten.
    free: Vec<KeyId>,
}

/// Rows of a block: their codes and slots stay in the first-level cache.
const BLOCK: usize = 128;

impl KeyIndex {
    /// An empty index of keys of these types. `seed` is best unpredictable.
    ///
    /// # Errors
    /// If keys of these types cannot be encoded.
    pub fn new(types: &[DataType], seed: u64) -> Result<Self, ArrowError> {
        let coding = match types {
            [DataType::Utf8 | DataType::Binary] => Coding::Bytes(Keys::new(Texts::new(seed))),
            [
                DataType::Int32
                | DataType::Int64
                | DataType::Date32
                | DataType::Timestamp(..)
                | DataType::Float32
                | DataType::Float64,
            ] => Coding::Numbers(Keys::new(Numbers::new(seed))),
            _ => {
                let fields = types.iter().map(|data_type| SortField::new(data_type.clone())).collect();
                Coding::Rows(Box::new(RowConverter::new(fields)?), Keys::new(Texts::new(seed)))
            }
        };
        Ok(Self { types: types.to_vec(), coding, numbering: Numbering::default() })
    }

    /// How many distinct keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.numbering.bound - self.numbering.free.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All numbers are below this: as many rows a table by number needs.
    #[must_use]
    pub fn bound(&self) -> usize {
        self.numbering.bound
    }

    /// Numbers below the bound that are nobody's.
    pub(crate) fn free(&self) -> &[KeyId] {
        &self.numbering.free
    }

    /// Bytes of memory that the keys and their table take, about.
    #[must_use]
    pub fn memory(&self) -> usize {
        let keys = match &self.coding {
            Coding::Bytes(texts) | Coding::Rows(_, texts) => texts.memory(),
            Coding::Numbers(numbers) => numbers.memory(),
        };
        keys + self.numbering.free.capacity() * size_of::<KeyId>()
    }

    /// The number of each row's key, new keys numbered on. `ids` is cleared first.
    ///
    /// # Errors
    /// If keys cannot be encoded, or there are more than 2^32 − 2.
    pub fn ids(&mut self, columns: &[ArrayRef], rows: usize, ids: &mut Vec<KeyId>) -> Result<(), ArrowError> {
        ids.clear();
        let numbering = &mut self.numbering;
        if columns.is_empty() {
            // No key: all rows are one group.
            if rows > 0 {
                let id = numbering.null()?;
                ids.resize(rows, id);
            }
            return Ok(());
        }
        ids.reserve(rows);
        match &mut self.coding {
            Coding::Bytes(keys) => {
                let column = columns[0].as_ref();
                let (offsets, data) = match column.data_type() {
                    DataType::Utf8 => {
                        let text = column.as_string::<i32>();
                        (text.offsets(), text.values().as_slice())
                    }
                    _ => {
                        let binary = column.as_binary::<i32>();
                        (binary.offsets(), binary.values().as_slice())
                    }
                };
                keys.ids(numbering, column, (offsets, data), ids)
            }
            Coding::Numbers(keys) => {
                let column = columns[0].as_ref();
                keys.ids(numbering, column, &numbers(column), ids)
            }
            Coding::Rows(converter, keys) => {
                let canonical: Vec<ArrayRef> = columns.iter().map(canonical_floats).collect();
                let encoded = converter.convert_columns(&canonical)?.try_into_binary()?;
                keys.ids(numbering, &encoded, (encoded.offsets(), encoded.values()), ids)
            }
        }
    }

    /// The keys of these numbers, as columns.
    ///
    /// # Errors
    /// If the columns cannot be made (text of more than 2 GiB).
    pub fn keys(
        &self,
        ids: impl ExactSizeIterator<Item = KeyId> + Clone,
    ) -> Result<Vec<ArrayRef>, ArrowError> {
        if self.types.is_empty() {
            return Ok(Vec::new());
        }
        let is_null = |id: KeyId| self.numbering.null == Some(id);
        let mut bytes = Vec::new();
        match &self.coding {
            Coding::Bytes(texts) if self.types[0] == DataType::Utf8 => {
                let mut builder = StringBuilder::with_capacity(ids.len(), ids.len() * 8);
                for id in ids {
                    bytes.clear();
                    texts.store.append(id, &mut bytes);
                    // The bytes came from a text column, so they are UTF-8.
                    let text = std::str::from_utf8(&bytes).unwrap_or("");
                    builder.append_option((!is_null(id)).then_some(text));
                }
                Ok(vec![Arc::new(builder.finish())])
            }
            Coding::Bytes(texts) => {
                let mut builder = BinaryBuilder::with_capacity(ids.len(), ids.len() * 8);
                for id in ids {
                    bytes.clear();
                    texts.store.append(id, &mut bytes);
                    builder.append_option((!is_null(id)).then_some(&bytes));
                }
                Ok(vec![Arc::new(builder.finish())])
            }
            Coding::Numbers(numbers) => {
                let values = ids.map(|id| (!is_null(id)).then(|| numbers.store.value(id).cast_signed()));
                Ok(vec![numbers_back(&self.types[0], values)])
            }
            Coding::Rows(converter, texts) => {
                let ends: Vec<usize> = ids
                    .map(|id| {
                        texts.store.append(id, &mut bytes);
                        bytes.len()
                    })
                    .collect();
                let starts = std::iter::once(0).chain(ends.iter().copied());
                let parser = converter.parser();
                converter
                    .convert_rows(starts.zip(&ends).map(|(start, end)| parser.parse(&bytes[start..*end])))
            }
        }
    }

    /// Forgets a key: its number will be another's. A number that is nobody's stays so.
    pub fn forget(&mut self, id: KeyId) {
        match &mut self.coding {
            _ if self.numbering.null == Some(id) => {
                self.numbering.null = None;
                self.numbering.free.push(id);
            }
            Coding::Bytes(keys) | Coding::Rows(_, keys) => keys.forget(&mut self.numbering, id),
            Coding::Numbers(keys) => keys.forget(&mut self.numbering, id),
        }
    }
}

impl<S: KeyStore> Keys<S> {
    fn new(store: S) -> Self {
        Self { store, table: KeyTable::new() }
    }

    fn memory(&self) -> usize {
        self.store.memory() + self.table.memory()
    }

    /// Block by block: the rows' codes, what is where they are looked for first, the keys that may be
    /// theirs, the comparisons. What these do not settle is looked up in full; a slot that was read
    /// before an insert or a growth still names its key rightly.
    fn ids(
        &mut self,
        numbering: &mut Numbering,
        array: &dyn Array,
        column: S::Column<'_>,
        ids: &mut Vec<KeyId>,
    ) -> Result<(), ArrowError> {
        let rows = array.len();
        let mut codes = [S::Code::default(); BLOCK];
        let mut places = [(0, 0); BLOCK];
        let mut found = [Found { slot: Slot::FREE, key: None }; BLOCK];
        let nulls = array.nulls().filter(|nulls| nulls.null_count() > 0);
        for start in (0..rows).step_by(BLOCK) {
            let length = BLOCK.min(rows - start);
            self.store.codes(column, start, &mut codes[..length]);
            let codes = &codes[..length];
            for (place, code) in places.iter_mut().zip(codes) {
                *place = self.table.place(S::hash(*code));
            }
            // Nothing but the loads that miss: the fewer instructions between them, the more overlap.
            for (found, place) in found.iter_mut().zip(&places[..length]) {
                *found = self.table.at(*place);
            }
            // While keys lie beside their slots there is nothing to fetch.
            if self.table.is_dense() {
                for (found, code) in found.iter_mut().zip(codes) {
                    let hash = S::hash(*code);
                    if !found.slot.is_of(hash)
                        && let Some(candidate) = self.table.find(hash, |_| true)
                    {
                        *found = candidate;
                    }
                    found.key.get_or_insert_with(|| self.store.key(found.slot.id()));
                }
            }
            for (i, (found, code)) in found.iter().zip(codes).enumerate() {
                let row = start + i;
                let bytes = || S::bytes(column, row);
                let settled = found.slot.is_of(S::hash(*code))
                    && found.key.is_some_and(|key| self.store.is_key(key, *code, bytes));
                ids.push(match settled {
                    _ if nulls.is_some_and(|nulls| nulls.is_null(row)) => numbering.null()?,
                    true => found.slot.id(),
                    false => self.id(numbering, *code, bytes())?,
                });
            }
        }
        Ok(())
    }

    /// The number of a key, a new one if need be.
    fn id(&mut self, numbering: &mut Numbering, code: S::Code, bytes: &[u8]) -> Result<KeyId, ArrowError> {
        let hash = S::hash(code);
        let store = &self.store;
        let is = |found: Found<S::Key>| {
            let key = found.key.unwrap_or_else(|| store.key(found.slot.id()));
            store.is_key(key, code, || bytes)
        };
        if let Some(found) = self.table.find(hash, is) {
            return Ok(found.slot.id());
        }
        let id = numbering.number()?;
        let key = self.store.put(id, code, bytes);
        self.table.insert(hash, id, key);
        Ok(id)
    }

    fn forget(&mut self, numbering: &mut Numbering, id: KeyId) {
        let hash = self.store.hash_of(id);
        if self.table.remove(hash, id) {
            self.store.drop_key(id);
            numbering.free.push(id);
        }
    }
}

impl Numbering {
    /// The number of the null key.
    fn null(&mut self) -> Result<KeyId, ArrowError> {
        let id = match self.null {
            Some(id) => id,
            None => self.number()?,
        };
        self.null = Some(id);
        Ok(id)
    }

    /// A number that is nobody's.
    fn number(&mut self) -> Result<KeyId, ArrowError> {
        if let Some(id) = self.free.pop() {
            return Ok(id);
        }
        let id = u32::try_from(self.bound).ok().filter(|id| *id < u32::MAX - 1).ok_or_else(|| {
            ArrowError::ComputeError("a subtask has more than 4,294,967,294 keys".to_owned())
        })?;
        self.bound += 1;
        Ok(id)
    }
}

/// A column of numbers as 64 bits each; equal keys have equal bits.
fn numbers(column: &dyn Array) -> Vec<u64> {
    match column.data_type() {
        DataType::Int32 => column
            .as_primitive::<Int32Type>()
            .values()
            .iter()
            .map(|v| i64::from(*v).cast_unsigned())
            .collect(),
        DataType::Date32 => column
            .as_primitive::<Date32Type>()
            .values()
            .iter()
            .map(|v| i64::from(*v).cast_unsigned())
            .collect(),
        DataType::Float32 => column
            .as_primitive::<Float32Type>()
            .values()
            .iter()
            .map(|v| canonical_float(f64::from(*v)).to_bits())
            .collect(),
        DataType::Float64 => column
            .as_primitive::<Float64Type>()
            .values()
            .iter()
            .map(|v| canonical_float(*v).to_bits())
            .collect(),
        DataType::Int64 => {
            column.as_primitive::<Int64Type>().values().iter().map(|v| v.cast_unsigned()).collect()
        }
        _ => column.to_data().buffer::<i64>(0)[..column.len()].iter().map(|v| v.cast_unsigned()).collect(),
    }
}

fn numbers_back(data_type: &DataType, values: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    let float = |v: Option<i64>| v.map(|v| f64::from_bits(v.cast_unsigned()));
    match data_type {
        DataType::Int32 => {
            Arc::new(PrimitiveArray::<Int32Type>::from_iter(values.map(|v| v.map(|v| v as i32))))
        }
        DataType::Date32 => {
            Arc::new(PrimitiveArray::<Date32Type>::from_iter(values.map(|v| v.map(|v| v as i32))))
        }
        DataType::Float32 => {
            Arc::new(PrimitiveArray::<Float32Type>::from_iter(values.map(|v| float(v).map(|v| v as f32))))
        }
        DataType::Float64 => Arc::new(PrimitiveArray::<Float64Type>::from_iter(values.map(float))),
        DataType::Timestamp(unit, zone) => {
            let zone = zone.clone();
            match unit {
                TimeUnit::Microsecond => Arc::new(
                    PrimitiveArray::<TimestampMicrosecondType>::from_iter(values).with_timezone_opt(zone),
                ),
                TimeUnit::Nanosecond => Arc::new(
                    PrimitiveArray::<TimestampNanosecondType>::from_iter(values).with_timezone_opt(zone),
                ),
                _ => Arc::new(
                    PrimitiveArray::<TimestampMillisecondType>::from_iter(values).with_timezone_opt(zone),
                ),
            }
        }
        _ => Arc::new(PrimitiveArray::<Int64Type>::from_iter(values)),
    }
}

fn canonical_float(value: f64) -> f64 {
    if value.is_nan() {
        f64::NAN
    } else if value == 0.0 {
        0.0
    } else {
        value
    }
}

/// Floats with one zero and one NaN, so that equal keys have equal bytes.
pub fn canonical_floats(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Float64 => {
            Arc::new(column.as_primitive::<Float64Type>().unary::<_, Float64Type>(canonical_float))
        }
        DataType::Float32 => Arc::new(
            column
                .as_primitive::<Float32Type>()
                .unary::<_, Float32Type>(|v| canonical_float(f64::from(v)) as f32),
        ),
        _ => Arc::clone(column),
    }
}

#[cfg(test)]
mod tests;
