//! Columns of text or binary made of whole rows of other such columns: what a valid column holds
//! need not be checked again, which for short texts takes as long as copying them.

use std::marker::PhantomData;

use arrow_array::types::ByteArrayType;
use arrow_array::{Array, GenericByteArray};
use arrow_buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::ArrowError;

/// How many bytes are moved at once.
const MOVED: usize = 16;

/// Rows copied from columns of this type, so far without nulls.
///
/// Invariants: `ends` begins with 0 and never falls; its last is the length of `bytes`; between two
/// ends lies a copy of one whole row of a column of type `T`.
pub(crate) struct WholeRows<T> {
    ends: Vec<i32>,
    bytes: Vec<u8>,
    of: PhantomData<T>,
}

impl<T: ByteArrayType<Offset = i32>> WholeRows<T> {
    /// None yet; room for so many rows and bytes.
    pub(crate) fn with_capacity(rows: usize, bytes: usize) -> Self {
        let mut ends = Vec::with_capacity(rows + 1);
        ends.push(0);
        Self { ends, bytes: Vec::with_capacity(bytes), of: PhantomData }
    }

    /// Copies the rows of `column` at `places`, in this order. The nulls are not looked at.
    ///
    /// None where the rows are long (a call for each costs nothing then), or where places come
    /// again (their sum is not known beforehand).
    pub(crate) fn gather(column: &GenericByteArray<T>, places: &[u32]) -> Option<Self> {
        let (offsets, data): (&[i32], &[u8]) = (column.offsets(), column.values());
        let rows = column.len();
        let held = usize::try_from(offsets[rows] - offsets[0]).ok()?;
        if rows == 0 || held / rows > 2 * MOVED {
            return None;
        }
        let mut ends = vec![0; places.len() + 1];
        // Room for what is moved too much at the end.
        let mut bytes = vec![0; held + MOVED];
        let (room, mut at) = (bytes.as_mut_slice(), 0usize);
        for (place, ends_at) in places.iter().zip(&mut ends[1..]) {
            let (start, end) = (offsets[*place as usize] as usize, offsets[*place as usize + 1] as usize);
            let moved = data.get(start..).and_then(<[u8]>::first_chunk::<MOVED>);
            let to = room.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<MOVED>)?;
            match moved {
                Some(moved) if end - start <= MOVED => *to = *moved,
                _ => copy(&mut room[at..], &data[start..end])?,
            }
            at += end - start;
            // At most what is held, which is an offset.
            *ends_at = at as i32;
        }
        bytes.truncate(at);
        Some(Self { ends, bytes, of: PhantomData })
    }

    /// Copies rows `offset .. offset + length` of `column`. The nulls are not looked at.
    ///
    /// # Errors
    /// If it becomes too long for one column (2 GiB).
    pub(crate) fn append(
        &mut self,
        column: &GenericByteArray<T>,
        offset: usize,
        length: usize,
    ) -> Result<(), ArrowError> {
        let offsets = &column.offsets()[offset..=offset + length];
        let (start, end) = (offsets[0], offsets[length]);
        let before =
            i32::try_from(self.bytes.len()).ok().filter(|before| before.checked_add(end - start).is_some());
        let before = before.ok_or_else(|| {
            ArrowError::ComputeError(
                "a column of more than 2 GiB of text or binary cannot be joined".to_owned(),
            )
        })?;
        self.bytes.extend_from_slice(&column.values()[start as usize..end as usize]);
        self.ends.extend(offsets[1..].iter().map(|end| end - start + before));
        Ok(())
    }

    /// The column, without nulls.
    #[expect(unsafe_code, reason = "checking short texts again costs what copying them costs")]
    pub(crate) fn finish(self) -> GenericByteArray<T> {
        let (ends, bytes) = (ScalarBuffer::from(self.ends), Buffer::from_vec(self.bytes));
        // SAFETY: ends begin with 0, never fall and are within the bytes; each pair bounds a copy of
        // one whole row of a valid column of the same type, so text is UTF-8, row by row.
        unsafe { GenericByteArray::new_unchecked(OffsetBuffer::new_unchecked(ends), bytes, None) }
    }
}

#[cold]
#[inline(never)]
fn copy(room: &mut [u8], row: &[u8]) -> Option<()> {
    room.get_mut(..row.len())?.copy_from_slice(row);
    Some(())
}
