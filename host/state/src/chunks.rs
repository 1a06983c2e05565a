//! A column of values by number, in chunks: growing moves nothing but a first chunk that is small.
//!
//! One vector would be copied whole, and be there twice meanwhile, each time it doubles.

/// Values of a chunk, as a power of two.
const CHUNK_BITS: u32 = 16;
/// Values of a chunk.
pub(crate) const CHUNK: usize = 1 << CHUNK_BITS;
/// So many values the first chunk may have before it is made whole.
const SMALL: usize = 1 << 12;

/// Values `0 .. len`, each of `stride` neighbouring elements.
pub(crate) struct Chunks<T> {
    chunks: Vec<Vec<T>>,
    stride: usize,
    len: usize,
}

impl<T: Clone> Chunks<T> {
    /// None, of so many elements each.
    pub(crate) fn new(stride: usize) -> Self {
        Self { chunks: Vec::new(), stride, len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Elements of a value.
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    /// Makes it at least so long; new elements are `fill`.
    pub(crate) fn grow_to(&mut self, len: usize, fill: T) {
        while self.len < len {
            let at = self.len & (CHUNK - 1);
            if at == 0 {
                self.chunks.push(Vec::new());
            }
            let more = (CHUNK - at).min(len - self.len);
            let is_first = self.chunks.len() == 1;
            if let Some(last) = self.chunks.last_mut() {
                let elements = (at + more) * self.stride;
                // Only the first is likely to stay small. Of another, what is not used yet has no memory.
                if elements > last.capacity() && !(is_first && at + more <= SMALL) {
                    last.reserve_exact(CHUNK * self.stride - last.len());
                }
                last.resize(elements, fill.clone());
            }
            self.len += more;
        }
    }

    /// The elements of a value; none beyond the end.
    #[inline]
    pub(crate) fn get(&self, at: usize) -> Option<&[T]> {
        let (chunk, start) = (at >> CHUNK_BITS, (at & (CHUNK - 1)) * self.stride);
        self.chunks.get(chunk)?.get(start..start + self.stride)
    }

    /// One element of a value; none beyond the end.
    #[inline]
    pub(crate) fn element(&self, at: usize, element: usize) -> Option<T> {
        self.chunks.get(at >> CHUNK_BITS)?.get((at & (CHUNK - 1)) * self.stride + element).cloned()
    }

    /// One element of a value.
    ///
    /// # Panics
    /// Beyond the end.
    #[inline]
    pub(crate) fn element_mut(&mut self, at: usize, element: usize) -> &mut T {
        &mut self.chunks[at >> CHUNK_BITS][(at & (CHUNK - 1)) * self.stride + element]
    }

    /// Bytes of memory, about.
    pub(crate) fn memory(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.capacity() * size_of::<T>()).sum::<usize>()
            + self.chunks.capacity() * size_of::<Vec<T>>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_where_they_are_as_it_grows() {
        let mut chunks = Chunks::new(3);
        for len in [1, 20, CHUNK, CHUNK + 1, 3 * CHUNK + 7] {
            chunks.grow_to(len, 0u64);
            (0..3).zip([len as u64, 1, 2]).for_each(|(i, value)| *chunks.element_mut(len - 1, i) = value);
            assert_eq!((chunks.len(), chunks.get(len)), (len, None));
        }
        for len in [1, 20, CHUNK, CHUNK + 1, 3 * CHUNK + 7] {
            assert_eq!(chunks.get(len - 1), Some(&[len as u64, 1, 2][..]));
            assert_eq!(chunks.element(len - 1, 0), Some(len as u64));
        }
        chunks.grow_to(1, 0);
        assert_eq!(chunks.len(), 3 * CHUNK + 7);
        // A full chunk has no slack.
        assert!(chunks.memory() < (4 * CHUNK) * 24 + 1_000);
    }
}
