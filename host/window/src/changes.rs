//! Makes a changelog of what rows of keys were before and are after.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, UInt32Array};
use arrow_buffer::ScalarBuffer;
use arrow_schema::{ArrowError, SchemaRef};
use arrow_select::concat::concat;
use arrow_select::take::take;
use model::Batch;
use model::batch::RowKind;

/// What became of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It was not there.
    Inserted,
    /// It was otherwise.
    Updated,
    /// It is not there any more.
    Deleted,
}

/// The changelog of rows `(place in before and after, what became of it)`: update-before and
/// update-after are neighbours. `times` are the event times of the places.
pub(crate) fn changelog(
    schema: &SchemaRef,
    before: &[ArrayRef],
    after: &[ArrayRef],
    changes: &[(u32, Change)],
    times: Option<&[i64]>,
) -> Result<Batch, ArrowError> {
    // Places of the rows before come first in the columns that are joined.
    let length = before.first().or(after.first()).map_or(0, |column| column.len()) as u32;
    let (mut places, mut kinds) =
        (Vec::with_capacity(2 * changes.len()), Vec::with_capacity(2 * changes.len()));
    let mut row = |place: u32, kind: RowKind| {
        places.push(place);
        kinds.push(kind as u8);
    };
    for (place, change) in changes {
        match change {
            Change::Inserted => row(length + place, RowKind::Insert),
            Change::Deleted => row(*place, RowKind::Delete),
            Change::Updated => {
                row(*place, RowKind::UpdateBefore);
                row(length + place, RowKind::UpdateAfter);
            }
        }
    }
    let indices = UInt32Array::from(places.clone());
    let columns = before.iter().zip(after).map(|(before, after)| {
        if Arc::ptr_eq(before, after) {
            let places: UInt32Array = places.iter().map(|place| place % length.max(1)).collect();
            return take(before, &places, None);
        }
        take(&concat(&[before.as_ref(), after.as_ref()])?, &indices, None)
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let times: Option<ScalarBuffer<i64>> =
        times.map(|times| places.iter().map(|place| times[(place % length) as usize]).collect());
    let kinds = kinds.iter().any(|kind| *kind != 0).then(|| ScalarBuffer::from(kinds));
    Ok(Batch::of(Arc::clone(schema), places.len(), columns)?.with_event_times(times).with_kinds(kinds))
}

/// Whether a row takes something back: update-before and delete.
pub(crate) fn is_taken_back(kind: u8) -> bool {
    kind == RowKind::UpdateBefore as u8 || kind == RowKind::Delete as u8
}
