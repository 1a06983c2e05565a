//! What leaves a join: pairs, and rows with nothing in the place of a partner.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, new_null_array};
use arrow_buffer::ScalarBuffer;
use arrow_schema::SchemaRef;
use model::Batch;
use model::batch::RowKind;
use model::job_graph::JoinSides;

use super::LEFT;
use crate::AggregateError;
use crate::operator::Setting;

/// The rows that leave.
pub(super) struct Output {
    pub(super) sides: JoinSides,
    schema: SchemaRef,
    /// Columns of each side.
    widths: [usize; 2],
}

impl Output {
    pub(super) fn new(sides: JoinSides, setting: &Setting<'_>) -> Self {
        let widths = [0, 1].map(|side| setting.inputs[side].fields().len());
        Self { sides, schema: Arc::clone(&setting.outputs[0]), widths }
    }

    /// Whether pairs leave; else rows of the left side alone.
    pub(super) fn has_pairs(&self) -> bool {
        !matches!(self.sides, JoinSides::Semi | JoinSides::Anti)
    }

    /// Whether rows of a side leave alone while they have no partner.
    pub(super) fn without_partner(&self, side: usize) -> bool {
        match self.sides {
            JoinSides::Left | JoinSides::Anti => side == LEFT,
            JoinSides::Right => side != LEFT,
            JoinSides::Full => true,
            JoinSides::Inner | JoinSides::Semi => false,
        }
    }

    /// Whether rows of a side leave alone while they have a partner.
    pub(super) fn once_with_partner(&self, side: usize) -> bool {
        self.sides == JoinSides::Semi && side == LEFT
    }

    /// Whether it matters to rows of a side whether they have a partner.
    pub(super) fn is_of_interest(&self, side: usize) -> bool {
        self.without_partner(side) || self.once_with_partner(side)
    }

    /// Pairs: columns of a side's rows, and those of their partners.
    pub(super) fn pairs(
        &self,
        side: usize,
        mut rows: Vec<ArrayRef>,
        mut partners: Vec<ArrayRef>,
        length: usize,
        times: Option<ScalarBuffer<i64>>,
        kinds: Option<ScalarBuffer<u8>>,
    ) -> Result<Batch, AggregateError> {
        let columns = match side {
            LEFT => {
                rows.append(&mut partners);
                rows
            }
            _ => {
                partners.append(&mut rows);
                partners
            }
        };
        Ok(self.batch(columns, length)?.with_event_times(times).with_kinds(kinds))
    }

    /// Rows of a side alone.
    pub(super) fn alone(
        &self,
        side: usize,
        rows: Vec<ArrayRef>,
        length: usize,
        times: Option<ScalarBuffer<i64>>,
        kinds: Option<ScalarBuffer<u8>>,
    ) -> Result<Batch, AggregateError> {
        if !self.has_pairs() {
            return Ok(self.batch(rows, length)?.with_event_times(times).with_kinds(kinds));
        }
        let missing = match side {
            LEFT => self.widths[0]..self.widths[0] + self.widths[1],
            _ => 0..self.widths[0],
        };
        let missing = missing.map(|column| new_null_array(self.schema.field(column).data_type(), length));
        let missing: Vec<ArrayRef> = missing.collect();
        self.pairs(side, rows, missing, length, times, kinds)
    }

    fn batch(&self, columns: Vec<ArrayRef>, length: usize) -> Result<Batch, AggregateError> {
        Ok(Batch::of(Arc::clone(&self.schema), length, columns)?)
    }
}

/// So many rows of a kind; none for inserts.
pub(super) fn kinds_of(kind: RowKind, length: usize) -> Option<ScalarBuffer<u8>> {
    (kind != RowKind::Insert).then(|| vec![kind as u8; length].into())
}

/// Rows of columns at these places.
pub(super) fn gather_all(columns: &[ArrayRef], places: &[u32]) -> Result<Vec<ArrayRef>, AggregateError> {
    Ok(columns.iter().map(|column| model::gather(column, places)).collect::<Result<_, _>>()?)
}

/// Whether each place is there once, in order.
pub(super) fn is_all(places: &[u32], column: Option<&ArrayRef>) -> bool {
    column.is_some_and(|column| column.len() == places.len())
        && (0u32..).zip(places).all(|(row, place)| row == *place)
}
