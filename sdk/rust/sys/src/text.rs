//! Reads columns of texts and byte strings.

use crate::bindings::millstream::job::rows::Varlen;

/// A column of byte strings.
///
/// Invariants, checked once when it is made: the offsets never fall, and end within the data.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a> {
    offsets: &'a [u32],
    data: &'a [u8],
}

impl<'a> Bytes<'a> {
    /// A view of a column.
    ///
    /// # Panics
    /// If its offsets are not those of its data.
    pub fn new(column: &'a Varlen) -> Bytes<'a> {
        let rises = column.offsets.windows(2).fold(true, |rises, pair| rises & (pair[0] <= pair[1]));
        let ends = column.offsets.last().is_some_and(|last| *last as usize <= column.data.len());
        assert!(rises && ends, "a column's offsets do not fit its data");
        Bytes { offsets: &column.offsets, data: &column.data }
    }

    /// The value in a row.
    ///
    /// # Panics
    /// If there is no such row.
    #[inline(always)]
    pub fn get(self, row: usize) -> &'a [u8] {
        let (start, end) = (self.offsets[row] as usize, self.offsets[row + 1] as usize);
        #[expect(unsafe_code, reason = "one check a batch instead of two a value")]
        // SAFETY: `new` checked that start <= end <= data.len() for each pair of neighbours.
        unsafe {
            self.data.get_unchecked(start..end)
        }
    }
}

/// A column of texts.
///
/// Invariant: each value is UTF-8. The contract has the host check every text that it hands in,
/// and what the SDK builds it builds of `str`s; natively, where anyone may make a column, it is
/// checked here.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a>(Bytes<'a>);

impl<'a> Text<'a> {
    /// A view of a column.
    ///
    /// # Panics
    /// If its offsets are not those of its data, and natively, if its values are not UTF-8.
    pub fn new(column: &'a Varlen) -> Text<'a> {
        let bytes = Bytes::new(column);
        if cfg!(not(target_arch = "wasm32")) {
            for row in 0..column.offsets.len() - 1 {
                assert!(std::str::from_utf8(bytes.get(row)).is_ok(), "a text that is not UTF-8");
            }
        }
        Text(bytes)
    }

    /// The value in a row.
    ///
    /// # Panics
    /// If there is no such row.
    #[inline(always)]
    pub fn get(self, row: usize) -> &'a str {
        #[expect(unsafe_code, reason = "the host has checked the text; once more would cost a tenth")]
        // SAFETY: the type's invariant.
        unsafe {
            std::str::from_utf8_unchecked(self.0.get(row))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_by_row() {
        let column = Varlen { offsets: vec![0, 2, 2, 5], data: "äabc".as_bytes().to_vec() };
        let text = Text::new(&column);
        assert_eq!([text.get(0), text.get(1), text.get(2)], ["ä", "", "abc"]);
    }

    #[test]
    #[should_panic(expected = "do not fit")]
    fn falling_offsets() {
        Bytes::new(&Varlen { offsets: vec![0, 2, 1], data: vec![0; 2] });
    }

    #[test]
    #[should_panic(expected = "not UTF-8")]
    fn half_a_character() {
        Text::new(&Varlen { offsets: vec![0, 1, 2], data: "ä".as_bytes().to_vec() });
    }
}
