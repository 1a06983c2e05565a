//! Entries of numbers, times, booleans, and structures of them: a row of words for each key, so
//! that an entry is one or two lines of cache, and no allocation.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, BooleanArray, StructArray, make_array};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer};
use arrow_data::ArrayData;
use arrow_schema::{ArrowError, DataType, Fields, TimeUnit};

use crate::chunks::Chunks;
use crate::key_index::KeyId;

/// Each key's entry: a word of bits that say what is there (bit 0: the entry), then the values.
pub(super) struct FixedEntries {
    shape: Shape,
    words: Chunks<u64>,
}

/// A value within an entry.
enum Shape {
    Leaf { data_type: DataType, width: Width, bit: u32, word: usize },
    Structure { fields: Fields, bit: u32, members: Vec<Shape> },
}

/// How Arrow keeps a value: what it means does not matter here.
#[derive(Clone, Copy)]
enum Width {
    Bit,
    Bytes4,
    Bytes8,
}

impl FixedEntries {
    /// For entries of this type; none where it is not made of numbers alone, or of very many.
    pub(super) fn new(data_type: &DataType) -> Option<Self> {
        let (mut bits, mut words) = (0, 1);
        let shape = Shape::of(data_type, &mut bits, &mut words)?;
        (bits <= u64::BITS).then(|| Self { shape, words: Chunks::new(words) })
    }

    pub(super) fn load(&self, ids: &[KeyId]) -> Result<ArrayRef, ArrowError> {
        self.column(&self.shape, ids)
    }

    pub(super) fn store(&mut self, ids: &[(usize, KeyId)], values: &ArrayRef) {
        let Some(last) = ids.iter().map(|(_, id)| *id as usize).max() else { return };
        self.words.grow_to(last + 1, 0);
        for (_, id) in ids {
            *self.words.element_mut(*id as usize, 0) = 0;
        }
        write(&self.shape, values, ids, &mut self.words);
    }

    pub(super) fn bytes(&self, ids: &[KeyId]) -> usize {
        ids.len() * self.words.stride() * size_of::<u64>()
    }

    pub(super) fn is_present(&self, id: usize) -> bool {
        self.words.element(id, 0).is_some_and(|bits| bits & 1 == 1)
    }

    pub(super) fn remove(&mut self, id: usize) {
        *self.words.element_mut(id, 0) = 0;
    }

    /// Bytes of memory.
    pub(super) fn memory(&self) -> usize {
        self.words.memory()
    }

    /// Keys up to the last that has, or had, an entry.
    pub(super) fn len(&self) -> usize {
        self.words.len()
    }

    /// The word of each key's entry; 0 where there is none.
    fn word<'a>(&'a self, ids: &'a [KeyId], word: usize) -> impl Iterator<Item = u64> + 'a {
        ids.iter().map(move |id| self.words.element(*id as usize, word).unwrap_or(0))
    }

    fn nulls(&self, ids: &[KeyId], bit: u32) -> Option<NullBuffer> {
        let valid: BooleanBuffer = self.word(ids, 0).map(|bits| bits >> bit & 1 == 1).collect();
        Some(NullBuffer::new(valid)).filter(|nulls| nulls.null_count() > 0)
    }

    fn column(&self, shape: &Shape, ids: &[KeyId]) -> Result<ArrayRef, ArrowError> {
        let (data_type, width, bit, word) = match shape {
            Shape::Structure { fields, bit, members } => {
                let columns: Result<Vec<_>, _> =
                    members.iter().map(|member| self.column(member, ids)).collect();
                return Ok(Arc::new(StructArray::try_new(fields.clone(), columns?, self.nulls(ids, *bit))?));
            }
            Shape::Leaf { data_type, width, bit, word } => (data_type, *width, *bit, *word),
        };
        let (words, nulls) = (self.word(ids, word), self.nulls(ids, bit));
        let values: Buffer = match width {
            Width::Bit => {
                return Ok(Arc::new(BooleanArray::new(words.map(|word| word != 0).collect(), nulls)));
            }
            Width::Bytes4 => words.map(|word| word as u32).collect::<Vec<_>>().into(),
            Width::Bytes8 => words.collect::<Vec<_>>().into(),
        };
        let column = ArrayData::builder(data_type.clone()).len(ids.len()).add_buffer(values).nulls(nulls);
        Ok(make_array(column.build()?))
    }
}

impl Shape {
    fn of(data_type: &DataType, bits: &mut u32, words: &mut usize) -> Option<Self> {
        let bit = *bits;
        *bits += 1;
        match data_type {
            DataType::Struct(fields) => {
                let members = fields.iter().map(|field| Self::of(field.data_type(), bits, words));
                Some(Self::Structure {
                    fields: fields.clone(),
                    bit,
                    members: members.collect::<Option<_>>()?,
                })
            }
            leaf => {
                let width = Width::of(leaf)?;
                let word = *words;
                *words += 1;
                Some(Self::Leaf { data_type: leaf.clone(), width, bit, word })
            }
        }
    }
}

impl Width {
    /// None for what is not a number of at most 8 bytes.
    fn of(data_type: &DataType) -> Option<Self> {
        match data_type {
            DataType::Boolean => Some(Self::Bit),
            DataType::Int32 | DataType::Float32 | DataType::Date32 => Some(Self::Bytes4),
            DataType::Int64
            | DataType::Float64
            | DataType::Timestamp(
                TimeUnit::Millisecond | TimeUnit::Microsecond | TimeUnit::Nanosecond,
                None,
            ) => Some(Self::Bytes8),
            _ => None,
        }
    }
}

/// Writes a column's values into the entries; their first words are 0 before.
fn write(shape: &Shape, values: &ArrayRef, ids: &[(usize, KeyId)], words: &mut Chunks<u64>) {
    let (Shape::Leaf { bit, .. } | Shape::Structure { bit, .. }) = shape;
    for (row, id) in ids {
        *words.element_mut(*id as usize, 0) |= u64::from(values.is_valid(*row)) << bit;
    }
    let mut put = |word: usize, value: &dyn Fn(usize) -> u64| {
        for (row, id) in ids {
            *words.element_mut(*id as usize, word) = value(*row);
        }
    };
    match shape {
        Shape::Structure { members, .. } => {
            for (member, column) in members.iter().zip(values.as_struct().columns()) {
                write(member, column, ids, words);
            }
        }
        Shape::Leaf { width: Width::Bit, word, .. } => {
            let values = values.as_boolean();
            put(*word, &|row| u64::from(values.value(row)));
        }
        Shape::Leaf { width: Width::Bytes4, word, .. } => {
            let data = values.to_data();
            let values = data.buffer::<u32>(0);
            put(*word, &|row| u64::from(values[row]));
        }
        Shape::Leaf { width: Width::Bytes8, word, .. } => {
            let data = values.to_data();
            let values = data.buffer::<u64>(0);
            put(*word, &|row| values[row]);
        }
    }
}
