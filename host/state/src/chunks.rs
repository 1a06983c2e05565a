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

impl<T: Clone + Default + PartialEq> Chunks<T> {
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
            let more = (CHUNK - at).min(len - self.len);
            // Only the first is likely to stay small.
            let is_small = self.len < CHUNK && at + more <= SMALL;
            if at == 0 {
                // Zeros come from the system, page by page as they are used: to write them would touch them all, and a
                // table that is grown at once would wait for that. What is not used has no memory.
                let made = if is_small { 0 } else { CHUNK * self.stride };
                self.chunks.push(vec![T::default(); made]);
            }
            if let Some(last) = self.chunks.last_mut() {
                let elements = (at + more) * self.stride;
                if elements > last.len() {
                    if !is_small {
                        last.reserve_exact(CHUNK * self.stride - last.len());
                    }
                    last.resize(if is_small { elements } else { CHUNK * self.stride }, T::default());
                }
                if fill != T::default() {
                    last[at * self.stride..elements].fill(fill.clone());
                }
            }
            self.len += more;
        }
    }

    /// The elements of a value; none beyond the end.
    #[inline]
    pub(crate) fn get(&self, at: usize) -> Option<&[T]> {
        let (chunk, start) = (at >> CHUNK_BITS, (at & (CHUNK - 1)) * self.stride);
        if at >= self.len {
            return None;
        }
        self.chunks.get(chunk)?.get(start..start + self.stride)
    }

    /// One element of a value; none beyond the end.
    #[inline]
    pub(crate) fn element(&self, at: usize, element: usize) -> Option<T> {
        if at >= self.len {
            return None;
        }
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
        // Other elements than zeros, beyond those that were made.
        chunks.grow_to(3 * CHUNK + 9, 5);
        chunks.grow_to(3 * CHUNK + 10, 0);
        let last = [7, 8, 9, 10].map(|at| chunks.element(3 * CHUNK + at, 2));
        assert_eq!(last, [Some(5), Some(5), Some(0), None]);
        // A full chunk has no slack.
        assert!(chunks.memory() < (4 * CHUNK) * 24 + 1_000);
    }
}
