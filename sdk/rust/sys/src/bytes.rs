//! Builds a column of texts or byte strings, one short copy a value.

use crate::bindings::millstream::job::rows::Varlen;

/// The contract's limit: a column's data is below 2^31 bytes.
const DATA_MAX: usize = (1 << 31) - 1;

/// A growing column of byte strings: `offsets` has one entry more than there are values.
#[derive(Debug)]
pub struct BytesBuilder {
    offsets: Vec<u32>,
    data: Vec<u8>,
}

impl Default for BytesBuilder {
    fn default() -> BytesBuilder {
        BytesBuilder { offsets: vec![0], data: Vec::new() }
    }
}

impl BytesBuilder {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a value.
    ///
    /// # Panics
    /// If the column would reach 2 GiB.
    #[inline(always)]
    pub fn push(&mut self, value: &[u8]) {
        let (start, length) = (self.data.len(), value.len());
        if self.data.capacity() - start < length {
            self.grow(length);
        }
        #[expect(
            unsafe_code,
            reason = "a copy of seven bytes by memory.copy is a slow call out of wasm code"
        )]
        // SAFETY: there is room for `length` bytes after `start`, `value` cannot overlap the
        // buffer that `self` holds alone, and all bytes up to the new length are written.
        unsafe {
            copy(value.as_ptr(), self.data.as_mut_ptr().add(start), length);
            self.data.set_len(start + length);
        }
        // `grow` keeps the data below 2^31 bytes; without it the capacity did not change.
        self.offsets.push((start + length) as u32);
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self, more: usize) {
        assert!(self.data.len() + more <= DATA_MAX / 2, "a column of a call's result is over 1 GiB");
        self.data.reserve(more.max(4096));
    }

    /// Leaves the first `length` values.
    pub fn truncate(&mut self, length: usize) {
        if length < self.len() {
            self.offsets.truncate(length + 1);
            self.data.truncate(self.offsets[length] as usize);
        }
    }

    /// Makes room for more values.
    pub fn reserve(&mut self, values: usize) {
        self.offsets.reserve(values);
    }

    /// Takes the column out and leaves an empty builder with room for another as large.
    pub fn finish(&mut self) -> Varlen {
        let mut offsets = Vec::with_capacity(self.offsets.len());
        offsets.push(0);
        let data = Vec::with_capacity(self.data.len());
        Varlen {
            offsets: std::mem::replace(&mut self.offsets, offsets),
            data: std::mem::replace(&mut self.data, data),
        }
    }
}

/// Copies `length` bytes; short ones by two loads and stores that may overlap.
///
/// # Safety
/// As for `copy_nonoverlapping::<u8>`.
#[expect(unsafe_code, reason = "see `push`")]
#[inline(always)]
unsafe fn copy(from: *const u8, to: *mut u8, length: usize) {
    /// Copies the first and the last `size_of::<T>()` bytes.
    #[inline(always)]
    unsafe fn ends<T: Copy>(from: *const u8, to: *mut u8, length: usize) {
        let last = length - size_of::<T>();
        // SAFETY: the caller has size_of::<T>() <= length, so both ends lie within the ranges.
        unsafe {
            let head = from.cast::<T>().read_unaligned();
            let tail = from.add(last).cast::<T>().read_unaligned();
            to.cast::<T>().write_unaligned(head);
            to.add(last).cast::<T>().write_unaligned(tail);
        }
    }
    // SAFETY: each case has at least as many bytes as it reads and writes.
    unsafe {
        match length {
            0 => {}
            1 => *to = *from,
            2..=3 => ends::<u16>(from, to, length),
            4..=7 => ends::<u32>(from, to, length),
            8..=16 => ends::<u64>(from, to, length),
            17..=32 => ends::<[u64; 2]>(from, to, length),
            _ => std::ptr::copy_nonoverlapping(from, to, length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_is_copied_whole() {
        let source: Vec<u8> = (0..200u8).collect();
        let mut builder = BytesBuilder::default();
        for length in 0..100 {
            builder.push(&source[length..2 * length]);
        }
        let column = builder.finish();
        assert_eq!(column.offsets.len(), 101);
        for length in 0..100 {
            let range = column.offsets[length] as usize..column.offsets[length + 1] as usize;
            assert_eq!(&column.data[range], &source[length..2 * length]);
        }
        assert!(builder.is_empty());
    }

    #[test]
    fn truncation_takes_values_back() {
        let mut builder = BytesBuilder::default();
        for value in ["one", "two", "three"] {
            builder.push(value.as_bytes());
        }
        builder.truncate(1);
        builder.push(b"zwei");
        let column = builder.finish();
        assert_eq!((&column.offsets[..], &column.data[..]), (&[0, 3, 7][..], &b"onezwei"[..]));
    }
}
