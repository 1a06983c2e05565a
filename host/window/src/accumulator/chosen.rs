//! One of a group's values: the least, the greatest, the first, the last.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef};
use arrow_buffer::NullBuffer;
use arrow_schema::{ArrowError, DataType};
use state::key_index::KeyId;

use super::codes::{Code, Form};

/// Which of the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    Least,
    Greatest,
    First,
    Last,
}

impl Choice {
    /// Whether a value takes the place of the one before.
    #[inline]
    fn takes<T: Ord + ?Sized>(self, before: &T, value: &T) -> bool {
        match self {
            Self::Least => value < before,
            Self::Greatest => value > before,
            Self::First => false,
            Self::Last => true,
        }
    }
}

/// The chosen value of each group.
pub(super) enum Chosen {
    /// Of at most 64 bits.
    Numbers(Coded<u64>),
    Decimals(Coded<i128>),
    Bytes(Vec<Option<Box<[u8]>>>),
}

#[derive(Default)]
pub(super) struct Coded<C> {
    codes: Vec<C>,
    seen: Vec<bool>,
}

impl Chosen {
    /// None for a type whose values cannot be kept.
    pub(super) fn of(data_type: &DataType) -> Option<Self> {
        Some(match Form::of(data_type)? {
            Form::Number => Self::Numbers(Coded::default()),
            Form::Decimal => Self::Decimals(Coded::default()),
            Form::Bytes => Self::Bytes(Vec::new()),
        })
    }

    /// All groups are without a value, and so many.
    pub(super) fn clear(&mut self, groups: usize) {
        match self {
            Self::Numbers(coded) => coded.clear(groups),
            Self::Decimals(coded) => coded.clear(groups),
            Self::Bytes(values) => {
                values.clear();
                values.resize(groups, None);
            }
        }
    }

    /// Takes a value for each of these groups, nulls left out.
    pub(super) fn absorb(&mut self, choice: Choice, ids: &[KeyId], groups: usize, column: &ArrayRef) {
        match self {
            Self::Numbers(coded) => coded.absorb(choice, ids, groups, column),
            Self::Decimals(coded) => coded.absorb(choice, ids, groups, column),
            Self::Bytes(best) => {
                best.resize(groups, None);
                let value = bytes_of(column);
                for (row, id) in ids.iter().enumerate().filter(|(row, _)| column.is_valid(*row)) {
                    take_bytes(&mut best[*id as usize], choice, value(row));
                }
            }
        }
    }

    /// The same; the chosen value after each.
    pub(super) fn running(
        &mut self,
        choice: Choice,
        ids: &[KeyId],
        groups: usize,
        column: &ArrayRef,
    ) -> Result<ArrayRef, ArrowError> {
        match self {
            Self::Numbers(coded) => coded.running(choice, ids, groups, column),
            Self::Decimals(coded) => coded.running(choice, ids, groups, column),
            Self::Bytes(best) => {
                best.resize(groups, None);
                let value = bytes_of(column);
                let mut built = BytesBuilder::new(column.data_type());
                for (row, id) in ids.iter().enumerate() {
                    let best = &mut best[*id as usize];
                    if column.is_valid(row) {
                        take_bytes(best, choice, value(row));
                    }
                    built.append(best.as_deref());
                }
                Ok(built.finish())
            }
        }
    }

    /// The chosen values of these groups, null where there is none.
    pub(super) fn finals(&self, range: Range<usize>, data_type: &DataType) -> Result<ArrayRef, ArrowError> {
        match self {
            Self::Numbers(coded) => coded.finals(range, data_type),
            Self::Decimals(coded) => coded.finals(range, data_type),
            Self::Bytes(best) => {
                let mut built = BytesBuilder::new(data_type);
                best[range].iter().for_each(|value| built.append(value.as_deref()));
                Ok(built.finish())
            }
        }
    }
}

impl<C: Code> Coded<C> {
    fn clear(&mut self, groups: usize) {
        self.codes.clear();
        self.seen.clear();
        self.grow(groups);
    }

    fn grow(&mut self, groups: usize) {
        self.codes.resize(groups, C::default());
        self.seen.resize(groups, false);
    }

    #[inline]
    fn take(&mut self, choice: Choice, id: usize, code: C) {
        if !self.seen[id] || choice.takes(&self.codes[id], &code) {
            self.codes[id] = code;
        }
        self.seen[id] = true;
    }

    fn absorb(&mut self, choice: Choice, ids: &[KeyId], groups: usize, column: &ArrayRef) {
        self.grow(groups);
        let codes = C::of_column(column);
        if column.null_count() == 0 {
            ids.iter().zip(codes).for_each(|(id, code)| self.take(choice, *id as usize, code));
            return;
        }
        for (row, (id, code)) in ids.iter().zip(codes).enumerate() {
            if column.is_valid(row) {
                self.take(choice, *id as usize, code);
            }
        }
    }

    fn running(
        &mut self,
        choice: Choice,
        ids: &[KeyId],
        groups: usize,
        column: &ArrayRef,
    ) -> Result<ArrayRef, ArrowError> {
        self.grow(groups);
        let codes = C::of_column(column);
        let (mut out, mut valid) = (Vec::with_capacity(ids.len()), Vec::with_capacity(ids.len()));
        for (row, (id, code)) in ids.iter().zip(codes).enumerate() {
            let id = *id as usize;
            if column.is_valid(row) {
                self.take(choice, id, code);
            }
            out.push(self.codes[id]);
            valid.push(self.seen[id]);
        }
        C::column(column.data_type(), out, nulls(valid))
    }

    fn finals(&self, range: Range<usize>, data_type: &DataType) -> Result<ArrayRef, ArrowError> {
        let valid = self.seen[range.clone()].to_vec();
        C::column(data_type, self.codes[range].to_vec(), nulls(valid))
    }
}

fn nulls(valid: Vec<bool>) -> Option<NullBuffer> {
    valid.contains(&false).then(|| NullBuffer::from(valid))
}

fn take_bytes(best: &mut Option<Box<[u8]>>, choice: Choice, value: &[u8]) {
    if best.as_deref().is_none_or(|best| choice.takes(best, value)) {
        *best = Some(Box::from(value));
    }
}

/// The bytes of a text or binary column's values.
pub(super) fn bytes_of<'a>(column: &'a ArrayRef) -> impl Fn(usize) -> &'a [u8] {
    let text = (*column.data_type() == DataType::Utf8).then(|| column.as_string::<i32>());
    let binary = column.as_binary_opt::<i32>();
    move |row| match (text, binary) {
        (Some(text), _) => text.value(row).as_bytes(),
        (_, Some(binary)) => binary.value(row),
        _ => &[],
    }
}

pub(super) enum BytesBuilder {
    Text(StringBuilder),
    Binary(BinaryBuilder),
}

impl BytesBuilder {
    pub(super) fn new(data_type: &DataType) -> Self {
        match data_type {
            DataType::Utf8 => Self::Text(StringBuilder::new()),
            _ => Self::Binary(BinaryBuilder::new()),
        }
    }

    pub(super) fn append(&mut self, value: Option<&[u8]>) {
        match self {
            // The bytes came from a text column, so they are UTF-8.
            Self::Text(text) => {
                text.append_option(value.map(|bytes| std::str::from_utf8(bytes).unwrap_or("")))
            }
            Self::Binary(binary) => binary.append_option(value),
        }
    }

    pub(super) fn finish(self) -> ArrayRef {
        match self {
            Self::Text(mut text) => Arc::new(text.finish()),
            Self::Binary(mut binary) => Arc::new(binary.finish()),
        }
    }
}
