//! Numbers the distinct keys of a stream, from 0, in the order in which they first come.
//!
//! One open-addressing table whose entries hold keys of at most 16 bytes whole (every number, most
//! words), which are found without another look. Rows go in blocks: all their hashes, then all
//! their first entries, then the comparisons, so that the misses of a block's loads overlap.
//! Seeded, so that nobody can choose keys that collide. Keys of several columns, decimals and
//! structures are encoded by `arrow-row` first.

use std::hash::BuildHasher;
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
use foldhash::fast::FixedState;

/// The number of a key: its row in every table of the operator.
pub type KeyId = u32;

/// The distinct keys of an operator's subtask.
pub struct KeyIndex {
    types: Vec<DataType>,
    coding: Coding,
    table: Table,
}

/// How a key becomes bytes.
enum Coding {
    /// One column of text or binary: its bytes.
    Bytes,
    /// One column of numbers of at most 64 bits.
    Number,
    /// Anything else: `arrow-row`'s.
    Rows(Box<RowConverter>),
}

/// A key of the batch at hand: its hash; its first 8 bytes and its last 8 (of a key of more than 8
/// bytes); its length ([`NULL`] = null).
#[derive(Clone, Copy)]
struct Code {
    hash: u64,
    prefix: u64,
    last: u64,
    length: u32,
}

/// The length that stands for a null key.
const NULL: u32 = u32::MAX;
/// Keys up to this length lie in the table whole.
const INLINE: u32 = 16;
const INLINE_BYTES: usize = INLINE as usize;
/// Rows of a block: their codes and entries stay in the first-level cache.
const BLOCK: usize = 128;

impl KeyIndex {
    /// An empty index of keys of these types. `seed` is best unpredictable.
    ///
    /// # Errors
    /// If keys of these types cannot be encoded.
    pub fn new(types: &[DataType], seed: u64) -> Result<Self, ArrowError> {
        let coding = match types {
            [DataType::Utf8 | DataType::Binary] => Coding::Bytes,
            [
                DataType::Int32
                | DataType::Int64
                | DataType::Date32
                | DataType::Timestamp(..)
                | DataType::Float32
                | DataType::Float64,
            ] => Coding::Number,
            _ => Coding::Rows(Box::new(RowConverter::new(
                types.iter().map(|data_type| SortField::new(data_type.clone())).collect(),
            )?)),
        };
        Ok(Self { types: types.to_vec(), coding, table: Table::new(seed) })
    }

    /// How many distinct keys there have been.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.keys.len()
    }

    /// Whether there has been none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory that the keys and their table take.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.table.entries.capacity() * size_of::<Entry>()
            + self.table.keys.capacity() * size_of::<Key>()
            + self.table.arena.capacity()
    }

    /// The number of each row's key, new keys numbered on. `ids` is cleared first.
    ///
    /// # Errors
    /// If keys cannot be encoded, or there are more than 2^32 − 2.
    pub fn ids(&mut self, columns: &[ArrayRef], rows: usize, ids: &mut Vec<KeyId>) -> Result<(), ArrowError> {
        ids.clear();
        if columns.is_empty() {
            // No key: all rows are one group.
            if rows > 0 && self.is_empty() {
                self.table.find_or_insert(Code { hash: 0, prefix: 0, last: 0, length: 0 }, &[])?;
            }
            ids.resize(rows, 0);
            return Ok(());
        }
        match &self.coding {
            Coding::Bytes => {
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
                self.table.ids_of_bytes(offsets, data, column, ids)
            }
            Coding::Number => {
                let column = columns[0].as_ref();
                self.table.ids_of_numbers(&numbers(column), column, ids)
            }
            Coding::Rows(converter) => {
                let canonical: Vec<ArrayRef> = columns.iter().map(canonical_floats).collect();
                let encoded = converter.convert_columns(&canonical)?;
                ids.reserve(rows);
                for row in &encoded {
                    let bytes = row.as_ref();
                    let code = self.table.code(bytes);
                    ids.push(self.table.find_or_insert(code, bytes)?);
                }
                Ok(())
            }
        }
    }

    /// The keys of these numbers, as columns.
    ///
    /// # Errors
    /// If the columns cannot be made (text of more than 2 GiB).
    ///
    /// # Panics
    /// If a number has not been given out.
    pub fn keys(
        &self,
        ids: impl ExactSizeIterator<Item = KeyId> + Clone,
    ) -> Result<Vec<ArrayRef>, ArrowError> {
        if self.types.is_empty() {
            return Ok(Vec::new());
        }
        let keys = ids.clone().map(|id| &self.table.keys[id as usize]);
        match &self.coding {
            Coding::Bytes if self.types[0] == DataType::Utf8 => {
                let mut builder = StringBuilder::with_capacity(ids.len(), ids.len() * 8);
                for key in keys {
                    // The bytes came from a text column, so they are UTF-8.
                    builder
                        .append_option(self.table.bytes(key).map(|b| std::str::from_utf8(b).unwrap_or("")));
                }
                Ok(vec![Arc::new(builder.finish())])
            }
            Coding::Bytes => {
                let mut builder = BinaryBuilder::with_capacity(ids.len(), ids.len() * 8);
                keys.for_each(|key| builder.append_option(self.table.bytes(key)));
                Ok(vec![Arc::new(builder.finish())])
            }
            Coding::Number => {
                let values = keys.map(|key| (key.length != NULL).then_some(key.at.cast_signed()));
                Ok(vec![numbers_back(&self.types[0], values)])
            }
            Coding::Rows(converter) => {
                let parser = converter.parser();
                let rows: Vec<_> =
                    keys.map(|key| parser.parse(self.table.bytes(key).unwrap_or_default())).collect();
                converter.convert_rows(rows)
            }
        }
    }
}

/// The table: entries point to keys, keys to their bytes.
struct Table {
    entries: Vec<Entry>,
    keys: Vec<Key>,
    arena: Vec<u8>,
    seed: u64,
    long: FixedState,
}

#[derive(Clone, Copy)]
struct Entry {
    prefix: u64,
    last: u64,
    length: u32,
    /// The key's number plus 1; 0 = free.
    id: u32,
}

/// A key: where its bytes lie (of a number, or null: the value itself).
#[derive(Clone, Copy)]
struct Key {
    at: u64,
    length: u32,
}

const FREE: Entry = Entry { prefix: 0, last: 0, length: 0, id: 0 };

impl Entry {
    /// Whether this is the key with this code, as far as the code tells.
    #[inline]
    fn has(&self, code: &Code) -> bool {
        // No branch between the comparisons: one that goes wrong costs more than all of them.
        (self.prefix ^ code.prefix) | (self.last ^ code.last) | u64::from(self.length ^ code.length) == 0
            && self.id != 0
    }
}

/// Multiplies to 128 bits and folds the halves: every input bit reaches every output bit.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

/// The first 8 bytes of `data[start .. start + length]`, zeros where there are fewer.
#[inline]
fn prefix(data: &[u8], start: usize, length: usize) -> u64 {
    if let Some(eight) = data.get(start..start + 8) {
        let value = u64::from_le_bytes(eight.try_into().unwrap_or_default());
        if length >= 8 { value } else { value & ((1 << (8 * length)) - 1) }
    } else {
        let mut eight = [0; 8];
        let kept = length.min(8);
        eight[..kept].copy_from_slice(&data[start..start + kept]);
        u64::from_le_bytes(eight)
    }
}

impl Table {
    fn new(seed: u64) -> Self {
        Self {
            entries: vec![FREE; 64],
            keys: Vec::new(),
            arena: Vec::new(),
            seed: seed | 1,
            long: FixedState::with_seed(seed),
        }
    }

    #[inline]
    fn hash_short(&self, prefix: u64, length: u32) -> u64 {
        fold(prefix ^ self.seed, 0x9E37_79B9_7F4A_7C15 ^ self.seed.rotate_left(32) ^ u64::from(length))
    }

    /// The hash of a key of at most 16 bytes, or of null.
    #[inline]
    fn hash_inline(&self, prefix: u64, last: u64, length: u32) -> u64 {
        let short = self.hash_short(prefix, length);
        match length {
            9..=INLINE => fold(short ^ last, self.seed.rotate_left(17) | 1),
            _ => short,
        }
    }

    #[inline]
    fn code_at(&self, data: &[u8], start: usize, length: usize) -> Code {
        let (prefix, end) = (prefix(data, start, length), start + length);
        let last = match length {
            ..=8 => 0,
            _ => u64::from_le_bytes(data[end - 8..end].try_into().unwrap_or_default()),
        };
        let hash = match length {
            // Columns hold fewer than 2^31 bytes.
            0..=INLINE_BYTES => self.hash_inline(prefix, last, length as u32),
            _ => self.long.hash_one(&data[start..end]),
        };
        Code { hash, prefix, last, length: length as u32 }
    }

    fn code(&self, bytes: &[u8]) -> Code {
        self.code_at(bytes, 0, bytes.len())
    }

    fn null(&self) -> Code {
        Code { hash: self.hash_short(0, NULL), prefix: 0, last: 0, length: NULL }
    }

    fn number(&self, value: u64) -> Code {
        Code { hash: self.hash_short(value, 8), prefix: value, last: 0, length: 8 }
    }

    fn ids_of_bytes(
        &mut self,
        offsets: &[i32],
        data: &[u8],
        column: &dyn Array,
        ids: &mut Vec<KeyId>,
    ) -> Result<(), ArrowError> {
        let rows = offsets.len() - 1;
        let (null, nulls) = (self.null(), column.nulls());
        self.ids_of_codes(
            rows,
            ids,
            |table, row| match nulls {
                Some(nulls) if nulls.is_null(row) => null,
                _ => {
                    let (start, end) = (offsets[row] as usize, offsets[row + 1] as usize);
                    table.code_at(data, start, end - start)
                }
            },
            |table, row, code| {
                table.find_or_insert(code, &data[offsets[row] as usize..offsets[row + 1] as usize])
            },
        )
    }

    fn ids_of_numbers(
        &mut self,
        values: &[u64],
        column: &dyn Array,
        ids: &mut Vec<KeyId>,
    ) -> Result<(), ArrowError> {
        let (null, nulls) = (self.null(), column.nulls());
        self.ids_of_codes(
            values.len(),
            ids,
            |table, row| match nulls {
                Some(nulls) if nulls.is_null(row) => null,
                _ => table.number(values[row]),
            },
            |table, row, code| {
                let before = table.keys.len();
                let id = table.find_or_insert(code, &[])?;
                if table.keys.len() > before {
                    table.keys[before].at = values[row];
                }
                Ok(id)
            },
        )
    }

    /// Block by block: the rows' codes, the entries where they begin to look, the comparisons.
    /// What the first entry does not settle is looked up in full; an entry that was read before an
    /// insert or a growth still names its key rightly.
    #[inline]
    fn ids_of_codes(
        &mut self,
        rows: usize,
        ids: &mut Vec<KeyId>,
        code: impl Fn(&Self, usize) -> Code,
        look_up: impl Fn(&mut Self, usize, Code) -> Result<KeyId, ArrowError>,
    ) -> Result<(), ArrowError> {
        ids.reserve(rows);
        let mut codes = [Code { hash: 0, prefix: 0, last: 0, length: 0 }; BLOCK];
        let mut firsts = [FREE; BLOCK];
        let mut start = 0;
        while start < rows {
            let length = BLOCK.min(rows - start);
            for (i, slot) in codes[..length].iter_mut().enumerate() {
                *slot = code(self, start + i);
            }
            let mask = self.entries.len() - 1;
            for (slot, code) in firsts[..length].iter_mut().zip(&codes) {
                *slot = self.entries[code.hash as usize & mask];
            }
            for (i, (code, first)) in codes[..length].iter().zip(&firsts).enumerate() {
                let settled = first.has(code) && (code.length <= INLINE || code.length == NULL);
                ids.push(if settled { first.id - 1 } else { look_up(self, start + i, *code)? });
            }
            start += length;
        }
        Ok(())
    }

    /// The key with this code and these bytes (which are looked at only where the code is not enough).
    fn find_or_insert(&mut self, code: Code, bytes: &[u8]) -> Result<KeyId, ArrowError> {
        let mask = self.entries.len() - 1;
        let mut at = code.hash as usize & mask;
        loop {
            let entry = &self.entries[at];
            if entry.has(&code) {
                let id = entry.id - 1;
                if code.length <= INLINE || code.length == NULL || self.same_middle(id, bytes) {
                    return Ok(id);
                }
            }
            if entry.id == 0 {
                return self.insert(at, code, bytes);
            }
            at = (at + 1) & mask;
        }
    }

    /// Whether a long key with the same ends is the same.
    fn same_middle(&self, id: KeyId, bytes: &[u8]) -> bool {
        let at = self.keys[id as usize].at as usize;
        self.arena[at + 8..at + bytes.len() - 8] == bytes[8..bytes.len() - 8]
    }

    #[cold]
    fn insert(&mut self, at: usize, code: Code, bytes: &[u8]) -> Result<KeyId, ArrowError> {
        let id = u32::try_from(self.keys.len()).ok().filter(|id| *id < u32::MAX - 1).ok_or_else(|| {
            ArrowError::ComputeError("a subtask has more than 4,294,967,294 keys".to_owned())
        })?;
        self.keys.push(Key { at: self.arena.len() as u64, length: code.length });
        if code.length != NULL {
            self.arena.extend_from_slice(bytes);
        }
        let Code { prefix, last, length, .. } = code;
        self.entries[at] = Entry { prefix, last, length, id: id + 1 };
        if self.keys.len() * 2 > self.entries.len() {
            self.grow();
        }
        Ok(id)
    }

    fn grow(&mut self) {
        let old = std::mem::take(&mut self.entries);
        let mask = old.len() * 2 - 1;
        let mut entries = vec![FREE; old.len() * 2];
        let mut by_id = vec![FREE; self.keys.len()];
        for entry in old.into_iter().filter(|entry| entry.id != 0) {
            by_id[entry.id as usize - 1] = entry;
        }
        // In the order in which they came: what came first comes often, and gets its first place.
        for entry in by_id {
            let hash = match entry.length {
                0..=INLINE | NULL => self.hash_inline(entry.prefix, entry.last, entry.length),
                _ => {
                    let key = self.keys[entry.id as usize - 1];
                    self.code_at(&self.arena, key.at as usize, key.length as usize).hash
                }
            };
            let mut at = hash as usize & mask;
            while entries[at].id != 0 {
                at = (at + 1) & mask;
            }
            entries[at] = entry;
        }
        self.entries = entries;
    }

    fn bytes(&self, key: &Key) -> Option<&[u8]> {
        (key.length != NULL).then(|| &self.arena[key.at as usize..key.at as usize + key.length as usize])
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
pub(crate) fn canonical_floats(column: &ArrayRef) -> ArrayRef {
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
