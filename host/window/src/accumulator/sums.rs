//! Sums by group, and how many values are in each.

use std::ops::Range;

use arrow_array::{Array, ArrayRef, ArrowPrimitiveType, PrimitiveArray};
use arrow_buffer::{ArrowNativeType, BooleanBuffer, NullBuffer};
use state::key_index::KeyId;

/// A sum for each group.
#[derive(Default)]
pub(super) struct Sums<T> {
    values: Vec<T>,
    /// How many values each has had: only where some column has had nulls.
    counts: Vec<i64>,
    /// Some group may have had none: once there has been a null.
    gaps: bool,
}

impl<T: Copy + Default> Sums<T> {
    pub(super) fn clear(&mut self, groups: usize) {
        self.values.clear();
        self.values.resize(groups, T::default());
        self.counts.clear();
        self.counts.resize(groups, 0);
        self.gaps = true;
    }

    pub(super) fn counts_mut(&mut self) -> &mut Vec<i64> {
        &mut self.counts
    }

    fn grow(&mut self, groups: usize) {
        self.values.resize(groups, T::default());
        self.counts.resize(groups, 0);
        self.gaps = true;
    }

    /// For rows without nulls: their groups all get a value, and every new group is among them.
    fn grow_seen(&mut self, ids: &[KeyId], groups: usize, by: i64) {
        self.values.resize(groups, T::default());
        self.counts.resize(groups, 1);
        if self.gaps {
            ids.iter().for_each(|id| self.counts[*id as usize] += by);
        }
    }

    /// Changes the group's sum for each value that is not null by `next(row, sum)`, and its number of
    /// values by `by`; none where a sum left its type.
    pub(super) fn absorb(
        &mut self,
        ids: &[KeyId],
        groups: usize,
        column: &ArrayRef,
        by: i64,
        mut next: impl FnMut(usize, T) -> Option<T>,
    ) -> Option<()> {
        if column.null_count() == 0 {
            self.grow_seen(ids, groups, by);
            for (i, id) in ids.iter().enumerate() {
                let sum = &mut self.values[*id as usize];
                *sum = next(i, *sum)?;
            }
            return Some(());
        }
        self.grow(groups);
        for (i, id) in ids.iter().enumerate().filter(|(i, _)| column.is_valid(*i)) {
            let id = *id as usize;
            self.values[id] = next(i, self.values[id])?;
            self.counts[id] += by;
        }
        Some(())
    }
}

impl<T: ArrowNativeType + Default> Sums<T> {
    /// The same; the sums after each row.
    pub(super) fn running<P: ArrowPrimitiveType<Native = T>>(
        &mut self,
        ids: &[KeyId],
        groups: usize,
        column: &ArrayRef,
        mut next: impl FnMut(usize, T) -> Option<T>,
    ) -> Option<PrimitiveArray<P>> {
        let mut out = Vec::with_capacity(ids.len());
        if column.null_count() == 0 {
            self.grow_seen(ids, groups, 1);
            for (i, id) in ids.iter().enumerate() {
                let sum = &mut self.values[*id as usize];
                *sum = next(i, *sum)?;
                out.push(*sum);
            }
            return Some(PrimitiveArray::new(out.into(), None));
        }
        self.grow(groups);
        let mut valid = Vec::with_capacity(ids.len());
        for (i, id) in ids.iter().enumerate() {
            let id = *id as usize;
            if column.is_valid(i) {
                self.values[id] = next(i, self.values[id])?;
                self.counts[id] += 1;
            }
            valid.push(self.counts[id] > 0);
            out.push(self.values[id]);
        }
        let nulls = valid.contains(&false).then(|| NullBuffer::from(valid));
        Some(PrimitiveArray::new(out.into(), nulls))
    }

    /// The sums of these groups; null, where they may be, in which there is no value.
    pub(super) fn finals<P: ArrowPrimitiveType<Native = T>>(
        &self,
        range: Range<usize>,
        nullable: bool,
    ) -> PrimitiveArray<P> {
        if !nullable {
            return PrimitiveArray::new(self.values[range].to_vec().into(), None);
        }
        let valid = BooleanBuffer::collect_bool(range.len(), |i| self.counts[range.start + i] > 0);
        let nulls = Some(NullBuffer::new(valid)).filter(|nulls| nulls.null_count() > 0);
        PrimitiveArray::new(self.values[range].to_vec().into(), nulls)
    }
}
