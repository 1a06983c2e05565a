//! Entries of numbers, times, booleans, and structures of them: a row of words for each key, so
//! that an entry is one or two lines of cache, and no allocation.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Date32Type, Float32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType,
};
use arrow_array::{Array, ArrayRef, BooleanArray, PrimitiveArray, StructArray};
use arrow_buffer::{BooleanBuffer, NullBuffer};
use arrow_schema::{DataType, Fields, TimeUnit};

use crate::key_index::KeyId;

/// Each key's entry: a word of bits that say what is there (bit 0: the entry), then the values.
pub(super) struct FixedEntries {
    shape: Shape,
    /// Words of an entry.
    stride: usize,
    words: Vec<u64>,
}

/// A value within an entry.
enum Shape {
    Leaf { data_type: DataType, bit: u32, word: usize },
    Structure { fields: Fields, bit: u32, members: Vec<Shape> },
}

impl FixedEntries {
    /// For entries of this type; none where it is not made of numbers alone, or of very many.
    pub(super) fn new(data_type: &DataType) -> Option<Self> {
        let (mut bits, mut words) = (0, 1);
        let shape = Shape::of(data_type, &mut bits, &mut words)?;
        (bits <= u64::BITS).then(|| Self { shape, stride: words, words: Vec::new() })
    }

    pub(super) fn load(&self, ids: &[KeyId]) -> ArrayRef {
        self.column(&self.shape, ids)
    }

    pub(super) fn store(&mut self, ids: &[(usize, KeyId)], values: &ArrayRef) {
        let Some(last) = ids.iter().map(|(_, id)| *id as usize).max() else { return };
        let length = (last + 1) * self.stride;
        if length > self.words.len() {
            self.words.resize(length, 0);
        }
        for (_, id) in ids {
            let at = *id as usize * self.stride;
            self.words[at] = 0;
        }
        write(&self.shape, values, ids, &mut self.words, self.stride);
    }

    pub(super) fn bytes(&self, ids: &[KeyId]) -> usize {
        ids.len() * self.stride * size_of::<u64>()
    }

    pub(super) fn is_present(&self, id: usize) -> bool {
        self.words.get(id * self.stride).is_some_and(|bits| bits & 1 == 1)
    }

    pub(super) fn remove(&mut self, id: usize) {
        self.words[id * self.stride] = 0;
    }

    /// Keys up to the last that has, or had, an entry.
    pub(super) fn len(&self) -> usize {
        self.words.len() / self.stride
    }

    /// The word of each key's entry; 0 where there is none.
    fn word<'a>(&'a self, ids: &'a [KeyId], word: usize) -> impl Iterator<Item = u64> + 'a {
        ids.iter().map(move |id| {
            let at = *id as usize * self.stride + word;
            self.words.get(at).copied().unwrap_or(0)
        })
    }

    fn nulls(&self, ids: &[KeyId], bit: u32) -> Option<NullBuffer> {
        let valid: BooleanBuffer = self.word(ids, 0).map(|bits| bits >> bit & 1 == 1).collect();
        Some(NullBuffer::new(valid)).filter(|nulls| nulls.null_count() > 0)
    }

    fn numbers<T: ArrowPrimitiveType>(
        &self,
        ids: &[KeyId],
        word: usize,
        bit: u32,
        from: impl Fn(u64) -> T::Native,
    ) -> ArrayRef {
        let values: Vec<T::Native> = self.word(ids, word).map(from).collect();
        Arc::new(PrimitiveArray::<T>::new(values.into(), self.nulls(ids, bit)))
    }

    fn column(&self, shape: &Shape, ids: &[KeyId]) -> ArrayRef {
        match shape {
            Shape::Structure { fields, bit, members } => {
                let columns = members.iter().map(|member| self.column(member, ids)).collect();
                Arc::new(StructArray::new(fields.clone(), columns, self.nulls(ids, *bit)))
            }
            Shape::Leaf { data_type, bit, word } => {
                let signed = u64::cast_signed;
                match data_type {
                    DataType::Boolean => {
                        let values: BooleanBuffer = self.word(ids, *word).map(|word| word != 0).collect();
                        Arc::new(BooleanArray::new(values, self.nulls(ids, *bit)))
                    }
                    DataType::Int32 => self.numbers::<Int32Type>(ids, *word, *bit, |w| w as u32 as i32),
                    DataType::Date32 => self.numbers::<Date32Type>(ids, *word, *bit, |w| w as u32 as i32),
                    DataType::Float32 => {
                        self.numbers::<Float32Type>(ids, *word, *bit, |w| f32::from_bits(w as u32))
                    }
                    DataType::Float64 => self.numbers::<Float64Type>(ids, *word, *bit, f64::from_bits),
                    DataType::Timestamp(TimeUnit::Microsecond, _) => {
                        self.numbers::<TimestampMicrosecondType>(ids, *word, *bit, signed)
                    }
                    DataType::Timestamp(TimeUnit::Nanosecond, _) => {
                        self.numbers::<TimestampNanosecondType>(ids, *word, *bit, signed)
                    }
                    DataType::Timestamp(..) => {
                        self.numbers::<TimestampMillisecondType>(ids, *word, *bit, signed)
                    }
                    _ => self.numbers::<Int64Type>(ids, *word, *bit, signed),
                }
            }
        }
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
            DataType::Boolean
            | DataType::Int32
            | DataType::Int64
            | DataType::Float32
            | DataType::Float64
            | DataType::Date32
            | DataType::Timestamp(
                TimeUnit::Millisecond | TimeUnit::Microsecond | TimeUnit::Nanosecond,
                None,
            ) => {
                let word = *words;
                *words += 1;
                Some(Self::Leaf { data_type: data_type.clone(), bit, word })
            }
            _ => None,
        }
    }
}

/// Writes a column's values into the entries; their first words are 0 before.
fn write(shape: &Shape, values: &ArrayRef, ids: &[(usize, KeyId)], words: &mut [u64], stride: usize) {
    let (Shape::Leaf { bit, .. } | Shape::Structure { bit, .. }) = shape;
    for (row, id) in ids {
        words[*id as usize * stride] |= u64::from(values.is_valid(*row)) << bit;
    }
    let mut put = |word: usize, value: &dyn Fn(usize) -> u64| {
        for (row, id) in ids {
            words[*id as usize * stride + word] = value(*row);
        }
    };
    match shape {
        Shape::Structure { members, .. } => {
            for (member, column) in members.iter().zip(values.as_struct().columns()) {
                write(member, column, ids, words, stride);
            }
        }
        Shape::Leaf { data_type, word, .. } => match data_type {
            DataType::Boolean => {
                let values = values.as_boolean();
                put(*word, &|row| u64::from(values.value(row)));
            }
            DataType::Int32 => {
                let values = values.as_primitive::<Int32Type>().values();
                put(*word, &|row| u64::from(values[row].cast_unsigned()));
            }
            DataType::Date32 => {
                let values = values.as_primitive::<Date32Type>().values();
                put(*word, &|row| u64::from(values[row].cast_unsigned()));
            }
            DataType::Float32 => {
                let values = values.as_primitive::<Float32Type>().values();
                put(*word, &|row| u64::from(values[row].to_bits()));
            }
            DataType::Float64 => {
                let values = values.as_primitive::<Float64Type>().values();
                put(*word, &|row| values[row].to_bits());
            }
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                let values = values.as_primitive::<TimestampMicrosecondType>().values();
                put(*word, &|row| values[row].cast_unsigned());
            }
            DataType::Timestamp(TimeUnit::Nanosecond, _) => {
                let values = values.as_primitive::<TimestampNanosecondType>().values();
                put(*word, &|row| values[row].cast_unsigned());
            }
            DataType::Timestamp(..) => {
                let values = values.as_primitive::<TimestampMillisecondType>().values();
                put(*word, &|row| values[row].cast_unsigned());
            }
            _ => {
                let values = values.as_primitive::<Int64Type>().values();
                put(*word, &|row| values[row].cast_unsigned());
            }
        },
    }
}
