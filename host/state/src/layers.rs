//! A whole snapshot, and those of changes that build upon it, as one.
//!
//! In a snapshot of changes a row is as it was when that was sealed: it stands for all rows of its key (and own key)
//! in older ones. A row whose last column is null says that there is none any more, a row of [`StateTable::Gone`]
//! that the key has nothing any more, in no table. Of timers a snapshot of changes has all that its keys have.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use arrow_array::{Array, ArrayRef, BooleanArray};
use arrow_row::{RowConverter, Rows, SortField};
use arrow_schema::ArrowError;
use arrow_select::filter::filter;
use foldhash::HashSet;

use crate::backend::{StateChunk, StateTable};

/// Encoded keys.
type Keys = HashSet<Box<[u8]>>;

/// The rows of snapshots one upon the other, the oldest first: what was there when the last of them was sealed. If not
/// `is_null_gone`, a null is one like any other value.
///
/// # Errors
/// If they are not of the same tables.
pub fn fold(mut layers: Vec<Vec<StateChunk>>, is_null_gone: bool) -> Result<Vec<StateChunk>, ArrowError> {
    if layers.len() < 2 {
        return Ok(layers.pop().unwrap_or_default());
    }
    let mut newer = Newer::default();
    let mut folded = Vec::new();
    while let Some(layer) = layers.pop() {
        let is_first = layers.is_empty();
        let (mut seen, mut gone) = (Vec::new(), Vec::new());
        for chunk in layer {
            let keys = encoded(&mut newer.keys, &chunk.keys)?;
            if chunk.table == StateTable::Gone {
                gone.push((keys, chunk.rows()));
                continue;
            }
            let columns = identity(&chunk);
            let table = newer.tables.entry(chunk.table);
            let table = match table {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => new.insert(OfTable::new(&columns)?),
            };
            let rows = table.converter.as_ref().map(|converter| converter.convert_columns(&columns));
            let rows = rows.transpose()?;
            let is_there = |row: usize| {
                is_first || !is_null_gone || chunk.columns.last().is_none_or(|value| !value.is_null(row))
            };
            // Without key columns it is a broadcast state, or all rows are of one key.
            let is_nobodys = chunk.keys.is_empty() && matches!(chunk.table, StateTable::Entries(_));
            let is_newest = |row: usize| {
                !table.seen.contains(bytes_of(rows.as_ref(), row))
                    && (is_nobodys || !newer.gone.contains(bytes_of(keys.as_ref(), row)))
            };
            let wanted: BooleanArray =
                (0..chunk.rows()).map(|row| Some(is_there(row) && is_newest(row))).collect();
            if wanted.true_count() > 0 {
                folded.push(cut(&chunk, &wanted)?);
            }
            if !is_first {
                seen.push((chunk.table, rows, chunk.rows()));
            }
        }
        for (table, rows, count) in seen {
            if let Some(of_table) = newer.tables.get_mut(&table) {
                of_table.seen.extend((0..count).map(|row| bytes_of(rows.as_ref(), row).into()));
            }
        }
        for (keys, count) in gone {
            newer.gone.extend((0..count).map(|row| Box::from(bytes_of(keys.as_ref(), row))));
        }
    }
    folded.reverse();
    Ok(folded)
}

/// What newer layers say.
#[derive(Default)]
struct Newer {
    /// Made for the first chunk with keys.
    keys: Option<RowConverter>,
    gone: Keys,
    tables: BTreeMap<StateTable, OfTable>,
}

struct OfTable {
    /// None = there are no columns.
    converter: Option<RowConverter>,
    seen: Keys,
}

impl OfTable {
    fn new(columns: &[ArrayRef]) -> Result<Self, ArrowError> {
        Ok(Self { converter: converter(columns)?, seen: Keys::default() })
    }
}

/// The columns by which the rows of a table are told apart.
fn identity(chunk: &StateChunk) -> Vec<ArrayRef> {
    let own = match (chunk.table, chunk.columns.split_last()) {
        (StateTable::Entries(_), Some((_, own))) => own,
        _ => &[],
    };
    chunk.keys.iter().chain(own).cloned().collect()
}

fn converter(columns: &[ArrayRef]) -> Result<Option<RowConverter>, ArrowError> {
    let fields: Vec<SortField> =
        columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
    (!fields.is_empty()).then(|| RowConverter::new(fields)).transpose()
}

fn encoded(known: &mut Option<RowConverter>, keys: &[ArrayRef]) -> Result<Option<Rows>, ArrowError> {
    if known.is_none() {
        *known = converter(keys)?;
    }
    known.as_ref().filter(|_| !keys.is_empty()).map(|known| known.convert_columns(keys)).transpose()
}

/// Where there are no columns all rows are of one key.
fn bytes_of(rows: Option<&Rows>, row: usize) -> &[u8] {
    rows.map_or(&[], |rows| rows.row(row).data())
}

fn cut(chunk: &StateChunk, wanted: &BooleanArray) -> Result<StateChunk, ArrowError> {
    let cut = |columns: &[ArrayRef]| -> Result<Vec<ArrayRef>, ArrowError> {
        columns.iter().map(|column| filter(column, wanted)).collect()
    };
    let touched = chunk.touched.as_ref().map(|touched| filter(touched, wanted)).transpose()?;
    Ok(StateChunk {
        table: chunk.table,
        keys: cut(&chunk.keys)?,
        columns: cut(&chunk.columns)?,
        touched: touched.map(|touched| touched.to_data().into()),
    })
}
