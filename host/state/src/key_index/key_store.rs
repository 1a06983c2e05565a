//! The keys themselves, by number: 8 bytes each where they are numbers, 16 where they are texts (with
//! the text, where it has at most 12 bytes).

use std::collections::BTreeMap;
use std::hash::BuildHasher;

use foldhash::fast::FixedState;

use super::KeyId;
use crate::chunks::Chunks;

/// Keys of one coding: their hashes, and which number has which key.
pub(super) trait KeyStore {
    /// What a key of a batch is compared by.
    type Code: Copy + Default;
    /// What is kept of a key by its number.
    type Key: Copy + Default;
    /// A column of keys.
    type Column<'a>: Copy;

    /// The codes of a column's rows from `start` on, as many as there is room for.
    fn codes(&self, column: Self::Column<'_>, start: usize, codes: &mut [Self::Code]);
    /// The bytes of a row; of a number none.
    fn bytes<'a>(column: Self::Column<'a>, row: usize) -> &'a [u8];
    /// Its hash: 64 good bits.
    fn hash(code: Self::Code) -> u64;
    /// What is kept of a number's key.
    fn key(&self, id: KeyId) -> Self::Key;
    /// Whether a key is this one; of a long text `bytes` says the rest.
    fn is_key<'a>(&self, key: Self::Key, code: Self::Code, bytes: impl FnOnce() -> &'a [u8]) -> bool;
    /// Gives a number its key; says what is kept of it.
    fn put(&mut self, id: KeyId, code: Self::Code, bytes: &[u8]) -> Self::Key;
    /// The hash of a number's key.
    fn hash_of(&self, id: KeyId) -> u64;
    /// A number has no key any more.
    fn drop_key(&mut self, id: KeyId);
    /// Bytes of memory, about.
    fn memory(&self) -> usize;
}

/// Two numbers that nobody knows.
#[derive(Clone, Copy)]
pub(super) struct Seed(u64, u64);

impl Seed {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed | 1, 0x9E37_79B9_7F4A_7C15 ^ seed.rotate_left(32))
    }

    /// Multiplies to 128 bits and folds the halves: every input bit reaches every output bit.
    /// Source: wyhash (Wang Yi).
    #[inline]
    fn fold(self, a: u64, b: u64) -> u64 {
        let product = u128::from(a ^ self.0) * u128::from(b ^ self.1);
        (product as u64) ^ ((product >> 64) as u64)
    }
}

/// Keys of at most 64 bits.
pub(super) struct Numbers {
    values: Chunks<u64>,
    seed: Seed,
}

#[derive(Clone, Copy, Default)]
pub(super) struct NumberCode {
    hash: u64,
    value: u64,
}

impl Numbers {
    pub(super) fn new(seed: u64) -> Self {
        Self { values: Chunks::new(1), seed: Seed::new(seed) }
    }

    #[inline]
    fn code(&self, value: u64) -> NumberCode {
        NumberCode { hash: self.seed.fold(value, 0), value }
    }

    #[inline]
    pub(super) fn value(&self, id: KeyId) -> u64 {
        self.values.element(id as usize, 0).unwrap_or(0)
    }
}

impl KeyStore for Numbers {
    type Code = NumberCode;
    type Key = u64;
    type Column<'a> = &'a [u64];

    fn codes(&self, column: &[u64], start: usize, codes: &mut [NumberCode]) {
        for (code, value) in codes.iter_mut().zip(&column[start..]) {
            *code = self.code(*value);
        }
    }

    fn bytes<'a>(_: Self::Column<'a>, _: usize) -> &'a [u8] {
        &[]
    }

    #[inline]
    fn hash(code: NumberCode) -> u64 {
        code.hash
    }

    #[inline]
    fn key(&self, id: KeyId) -> u64 {
        self.value(id)
    }

    #[inline]
    fn is_key<'a>(&self, key: u64, code: NumberCode, _: impl FnOnce() -> &'a [u8]) -> bool {
        key == code.value
    }

    fn put(&mut self, id: KeyId, code: NumberCode, _: &[u8]) -> u64 {
        self.values.grow_to(id as usize + 1, 0);
        *self.values.element_mut(id as usize, 0) = code.value;
        code.value
    }

    fn hash_of(&self, id: KeyId) -> u64 {
        self.code(self.value(id)).hash
    }

    fn drop_key(&mut self, _: KeyId) {}

    fn memory(&self) -> usize {
        self.values.memory()
    }
}

/// Keys of bytes, each as Arrow's view types have it: its length, and either all its bytes or the
/// first 4 and where it lies.
pub(super) struct Texts {
    views: Chunks<View>,
    arena: Arena,
    seed: Seed,
    long: FixedState,
}

#[derive(Clone, Copy, Default)]
pub(super) struct TextCode {
    hash: u64,
    head: u64,
    tail: u64,
}

/// What is kept of a text.
#[derive(Clone, Copy, Default, PartialEq)]
pub(super) struct View {
    /// The length, and above it the first 4 bytes.
    head: u64,
    /// The next 8 bytes, or where it lies.
    tail: u64,
}

/// Texts up to this length lie in their views.
const INLINE: usize = 12;

/// By how many of its first bytes are kept: the mask that keeps them. A look into this table costs
/// less than shifts of 128 bits.
const FIRST_BYTES: [u128; INLINE + 1] = {
    let mut masks = [0; INLINE + 1];
    let mut kept = 1;
    while kept <= INLINE {
        masks[kept] = masks[kept - 1] << 8 | 0xFF;
        kept += 1;
    }
    masks
};

/// The first 12 bytes of `data[start .. start + length]`, zeros where there are fewer.
#[inline(always)]
fn first_bytes(data: &[u8], start: usize, length: usize) -> u128 {
    let kept = length.min(INLINE);
    match data.get(start..start + 16) {
        Some(bytes) => {
            let bytes = u128::from_le_bytes(bytes.try_into().unwrap_or_default());
            bytes & FIRST_BYTES[kept]
        }
        None => {
            let mut bytes = [0; 16];
            bytes[..kept].copy_from_slice(&data[start..start + kept]);
            u128::from_le_bytes(bytes)
        }
    }
}

impl Texts {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            views: Chunks::new(1),
            arena: Arena::default(),
            seed: Seed::new(seed),
            long: FixedState::with_seed(seed),
        }
    }

    /// That of `data[start..end]`.
    #[inline(always)]
    pub(super) fn code(&self, data: &[u8], start: usize, end: usize) -> TextCode {
        let length = end - start;
        let first = first_bytes(data, start, length);
        // Columns hold fewer than 2^31 bytes.
        let (head, tail) = ((first as u64) << 32 | length as u64, (first >> 32) as u64);
        let hash = match length {
            0..=INLINE => self.seed.fold(head, tail),
            _ => self.long_hash(&data[start..end]),
        };
        TextCode { hash, head, tail }
    }

    #[cold]
    fn long_hash(&self, bytes: &[u8]) -> u64 {
        self.long.hash_one(bytes)
    }

    /// A number's key, appended.
    pub(super) fn append(&self, id: KeyId, bytes: &mut Vec<u8>) {
        let Some(View { head, tail }) = self.views.element(id as usize, 0) else { return };
        let length = head as u32 as usize;
        if length > INLINE {
            bytes.extend_from_slice(self.arena.get(tail, length));
        } else {
            let whole = (u128::from(tail) << 32 | u128::from(head >> 32)).to_le_bytes();
            bytes.extend_from_slice(&whole[..length]);
        }
    }
}

impl KeyStore for Texts {
    type Code = TextCode;
    type Key = View;
    type Column<'a> = (&'a [i32], &'a [u8]);

    fn codes(&self, (offsets, data): (&[i32], &[u8]), start: usize, codes: &mut [TextCode]) {
        let mut from = offsets[start] as usize;
        for (code, end) in codes.iter_mut().zip(&offsets[start + 1..]) {
            *code = self.code(data, from, *end as usize);
            from = *end as usize;
        }
    }

    fn bytes<'a>((offsets, data): Self::Column<'a>, row: usize) -> &'a [u8] {
        &data[offsets[row] as usize..offsets[row + 1] as usize]
    }

    #[inline]
    fn hash(code: TextCode) -> u64 {
        code.hash
    }

    #[inline]
    fn key(&self, id: KeyId) -> View {
        self.views.element(id as usize, 0).unwrap_or_default()
    }

    #[inline]
    fn is_key<'a>(&self, key: View, code: TextCode, bytes: impl FnOnce() -> &'a [u8]) -> bool {
        match key.head as u32 as usize {
            // No branch between the comparisons: one that goes wrong costs more than both.
            0..=INLINE => (key.head ^ code.head) | (key.tail ^ code.tail) == 0,
            length => key.head == code.head && self.arena.get(key.tail, length) == bytes(),
        }
    }

    fn put(&mut self, id: KeyId, code: TextCode, bytes: &[u8]) -> View {
        self.views.grow_to(id as usize + 1, View::default());
        let tail = if bytes.len() > INLINE { self.arena.add(bytes) } else { code.tail };
        let view = View { head: code.head, tail };
        *self.views.element_mut(id as usize, 0) = view;
        view
    }

    fn hash_of(&self, id: KeyId) -> u64 {
        let View { head, tail } = self.key(id);
        match head as u32 as usize {
            0..=INLINE => self.seed.fold(head, tail),
            length => self.long_hash(self.arena.get(tail, length)),
        }
    }

    fn drop_key(&mut self, id: KeyId) {
        let Some(View { head, tail }) = self.views.element(id as usize, 0) else { return };
        let length = head as u32 as usize;
        if length > INLINE {
            self.arena.remove(tail, length);
        }
        *self.views.element_mut(id as usize, 0) = View::default();
    }

    fn memory(&self) -> usize {
        self.views.memory() + self.arena.memory()
    }
}

/// Long texts, each in one piece. What is removed makes room for texts of about the same length.
#[derive(Default)]
struct Arena {
    pieces: Vec<Vec<u8>>,
    /// Where there is room, by its size.
    free: BTreeMap<usize, Vec<u64>>,
}

/// Sizes of pieces, the first and the largest; a longer text has one of its own.
const PIECE_BYTES: (usize, usize) = (1 << 10, 1 << 20);

/// The room that a text of this length has.
fn room(length: usize) -> usize {
    length.next_multiple_of(8)
}

impl Arena {
    /// The piece and the place in it.
    fn place(at: u64) -> (usize, usize) {
        ((at >> 32) as usize, at as u32 as usize)
    }

    fn get(&self, at: u64, length: usize) -> &[u8] {
        let (piece, start) = Self::place(at);
        &self.pieces[piece][start..start + length]
    }

    fn add(&mut self, bytes: &[u8]) -> u64 {
        let room = room(bytes.len());
        if let Some(at) = self.free.get_mut(&room).and_then(Vec::pop) {
            let (piece, start) = Self::place(at);
            self.pieces[piece][start..start + bytes.len()].copy_from_slice(bytes);
            return at;
        }
        let fits = |piece: &Vec<u8>| piece.capacity() - piece.len() >= room;
        if !self.pieces.last().is_some_and(fits) {
            let (least, most) = PIECE_BYTES;
            let size = (least << self.pieces.len().min(20)).min(most);
            self.pieces.push(Vec::with_capacity(size.max(room)));
        }
        let number = self.pieces.len() - 1;
        let piece = &mut self.pieces[number];
        // Of less than 2^32 bytes, as a column is.
        let at = (number as u64) << 32 | piece.len() as u64;
        piece.extend_from_slice(bytes);
        piece.resize((at as u32 as usize) + room, 0);
        at
    }

    fn remove(&mut self, at: u64, length: usize) {
        self.free.entry(room(length)).or_default().push(at);
    }

    fn memory(&self) -> usize {
        self.pieces.iter().map(Vec::capacity).sum()
    }
}
