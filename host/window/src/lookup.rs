//! A table in memory, in which rows are looked up by key.
//!
//! Made once of all its rows, then only read, so that subtasks share it. Rows of one key lie side by side
//! in a list, in the table's order.

use arrow_array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow_buffer::NullBuffer;
use arrow_row::{RowConverter, Rows, SortField};
use arrow_schema::{ArrowError, SchemaRef};
use arrow_select::concat::concat_batches;
use arrow_select::take::take;
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use state::key_index::canonical_floats;
use std::hash::BuildHasher;

/// A table, by some of its columns.
pub struct LookupTable {
    rows: RecordBatch,
    converter: RowConverter,
    /// The keys of all rows.
    keys: Rows,
    /// Groups, by the hash of their key.
    index: HashTable<u32>,
    /// The rows of the i-th group are `members[offsets[i] .. offsets[i + 1]]`; the first has its key.
    offsets: Vec<u32>,
    members: Vec<u32>,
    state: FixedState,
}

/// No group.
const NONE: u32 = u32::MAX;

impl LookupTable {
    /// A table of these rows, found by these columns. A row whose key has a null equals nothing, so it is
    /// never found. `seed` is best unpredictable: it keeps keys from being made to collide.
    ///
    /// # Errors
    /// If the columns cannot be keys, or the rows are too many for one table (2^31 bytes of text in a column).
    pub fn new(
        schema: &SchemaRef,
        batches: &[RecordBatch],
        key_columns: &[usize],
        seed: u64,
    ) -> Result<Self, ArrowError> {
        let rows = concat_batches(schema, batches)?;
        if u32::try_from(rows.num_rows()).is_err() {
            return Err(ArrowError::ComputeError(format!("a table of {} rows", rows.num_rows())));
        }
        let columns: Vec<ArrayRef> =
            key_columns.iter().map(|key| canonical_floats(rows.column(*key))).collect();
        let fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
        let converter = RowConverter::new(fields)?;
        let keys = converter.convert_columns(&columns)?;
        let whole = whole_keys(&columns);
        let state = FixedState::with_seed(seed);
        let mut index: HashTable<u32> = HashTable::new();
        let mut firsts: Vec<u32> = Vec::new();
        let mut groups = Vec::with_capacity(rows.num_rows());
        for row in 0..rows.num_rows() {
            if whole.as_ref().is_some_and(|whole| whole.is_null(row)) {
                groups.push(NONE);
                continue;
            }
            let key = keys.row(row);
            let of_group = |group: &u32| keys.row(firsts[*group as usize] as usize);
            let hash = state.hash_one(key.data());
            let group = match index.find(hash, |group| of_group(group) == key) {
                Some(group) => *group,
                None => {
                    let group = firsts.len() as u32;
                    index.insert_unique(hash, group, |group| state.hash_one(of_group(group).data()));
                    firsts.push(row as u32);
                    group
                }
            };
            groups.push(group);
        }
        let mut offsets = vec![0u32; firsts.len() + 1];
        for group in groups.iter().filter(|group| **group != NONE) {
            offsets[*group as usize + 1] += 1;
        }
        for group in 0..firsts.len() {
            offsets[group + 1] += offsets[group];
        }
        let mut next = offsets.clone();
        let mut members = vec![0; offsets[firsts.len()] as usize];
        for (row, group) in (0u32..).zip(&groups).filter(|(_, group)| **group != NONE) {
            let at = &mut next[*group as usize];
            members[*at as usize] = row;
            *at += 1;
        }
        Ok(Self { rows, converter, keys, index, offsets, members, state })
    }

    /// How many rows it has.
    #[must_use]
    pub fn num_rows(&self) -> usize {
        self.rows.num_rows()
    }

    /// Looks rows up whose keys are these columns.
    ///
    /// # Errors
    /// If they are not of the table's types.
    pub fn look_up(&self, keys: &[ArrayRef]) -> Result<Found, ArrowError> {
        let keys: Vec<ArrayRef> = keys.iter().map(canonical_floats).collect();
        // A null is never in the index.
        let keys = self.converter.convert_columns(&keys)?;
        let find = |key: arrow_row::Row<'_>| {
            let hash = self.state.hash_one(key.data());
            let is_key = |group: &u32| {
                let first = self.members[self.offsets[*group as usize] as usize];
                self.keys.row(first as usize).data() == key.data()
            };
            self.index.find(hash, is_key).copied().unwrap_or(NONE)
        };
        Ok(Found { groups: keys.iter().map(find).collect(), row: 0, member: 0 })
    }

    /// The columns of rows of the table, null where there is none.
    ///
    /// # Errors
    /// If they cannot be copied.
    pub fn take(&self, places: &[Option<u32>]) -> Result<Vec<ArrayRef>, ArrowError> {
        let places = UInt32Array::from(places.to_vec());
        self.rows.columns().iter().map(|column| take(column, &places, None)).collect()
    }
}

/// Which rows of a table rows have found: in pairs, to be taken a few at a time.
pub struct Found {
    /// By row.
    groups: Vec<u32>,
    /// The next pair: a row, and which of its group's members.
    row: usize,
    member: u32,
}

/// Rows, and the table's row for each.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Pairs {
    /// Places among the rows that were looked up, in their order.
    pub rows: Vec<u32>,
    /// Places in the table; none for a row that has found nothing.
    pub partners: Vec<Option<u32>>,
}

impl Found {
    /// The next pairs, at most so many; none when there are no more. `outer`: a row that has found nothing
    /// comes too.
    pub fn next(&mut self, table: &LookupTable, outer: bool, max: usize) -> Pairs {
        let mut pairs = Pairs::default();
        while pairs.rows.len() < max
            && let Some(group) = self.groups.get(self.row)
        {
            // A batch has fewer rows than 2^32.
            let row = self.row as u32;
            if *group == NONE {
                if outer {
                    pairs.rows.push(row);
                    pairs.partners.push(None);
                }
                self.row += 1;
                continue;
            }
            let (from, end) =
                (table.offsets[*group as usize] + self.member, table.offsets[*group as usize + 1]);
            let room = u32::try_from(max - pairs.rows.len()).unwrap_or(u32::MAX);
            let to = end.min(from.saturating_add(room));
            pairs.partners.extend(table.members[from as usize..to as usize].iter().copied().map(Some));
            pairs.rows.resize(pairs.partners.len(), row);
            if to == end {
                (self.row, self.member) = (self.row + 1, 0);
            } else {
                self.member += to - from;
            }
        }
        pairs
    }

    /// Whether there are no more pairs.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.row >= self.groups.len()
    }
}

/// Which rows have a key without a null; none = all.
fn whole_keys(keys: &[ArrayRef]) -> Option<NullBuffer> {
    keys.iter().fold(None, |nulls, key| NullBuffer::union(nulls.as_ref(), key.logical_nulls().as_ref()))
}

#[cfg(test)]
mod tests;
