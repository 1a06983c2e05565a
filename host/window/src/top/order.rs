//! Compares rows by columns: ascending or descending, nulls first or last.

use arrow_array::cast::AsArray;
use arrow_array::types::{Date32Type, Int32Type, Int64Type};
use arrow_array::{Array, ArrayRef, BinaryArray};
use arrow_row::{RowConverter, Rows, SortField};
use arrow_schema::{ArrowError, DataType, Schema, SortOptions};
use model::Batch;
use model::job_graph::Ordering;

/// An order of rows.
pub(super) struct Order {
    orderings: Vec<Ordering>,
    converter: RowConverter,
    /// There is one column, of whole numbers.
    is_number: bool,
}

/// What rows are compared by.
pub(super) enum OrderKeys {
    /// All are equal.
    Equal,
    Numbers(Vec<u128>),
    Bytes(Rows),
}

impl Order {
    pub(super) fn new(orderings: &[Ordering], schema: &Schema) -> Result<Self, ArrowError> {
        let field = |ordering: &Ordering| {
            let options = SortOptions { descending: ordering.descending, nulls_first: !ordering.nulls_last };
            SortField::new_with_options(schema.field(ordering.column as usize).data_type().clone(), options)
        };
        let is_whole = |ordering: &Ordering| {
            matches!(
                schema.field(ordering.column as usize).data_type(),
                DataType::Int64 | DataType::Int32 | DataType::Date32 | DataType::Timestamp(..)
            )
        };
        Ok(Self {
            orderings: orderings.to_vec(),
            converter: RowConverter::new(orderings.iter().map(field).collect())?,
            is_number: matches!(orderings, [one] if is_whole(one)),
        })
    }

    /// The columns that rows are ordered by.
    pub(super) fn columns(&self, columns: &[ArrayRef]) -> Vec<ArrayRef> {
        self.orderings.iter().map(|ordering| ArrayRef::clone(&columns[ordering.column as usize])).collect()
    }

    /// What rows are compared by, of these columns.
    pub(super) fn keys(&self, columns: &[ArrayRef]) -> Result<OrderKeys, ArrowError> {
        Ok(match columns {
            [] => OrderKeys::Equal,
            [column] if self.is_number => OrderKeys::Numbers(self.numbers(column)),
            _ => OrderKeys::Bytes(self.rows(columns)?),
        })
    }

    /// What rows are ordered by, as bytes.
    pub(super) fn bytes(&self, rows: &Batch) -> Result<BinaryArray, ArrowError> {
        if self.orderings.is_empty() {
            return Ok(BinaryArray::from_iter_values(vec![b""; rows.num_rows()]));
        }
        self.rows(&self.columns(rows.rows().columns()))?.try_into_binary()
    }

    /// The same as rows, of at least one column.
    fn rows(&self, columns: &[ArrayRef]) -> Result<Rows, ArrowError> {
        self.converter.convert_columns(columns)
    }

    /// Numbers of the same order, nulls before or after all.
    fn numbers(&self, column: &ArrayRef) -> Vec<u128> {
        let Ordering { descending, nulls_last, .. } = self.orderings[0];
        let flip = if descending { u64::MAX } else { 0 };
        let number = |value: i64| u128::from((value.cast_unsigned() ^ (1 << 63)) ^ flip) + 1;
        let mut numbers: Vec<u128> = match column.data_type() {
            DataType::Int32 => {
                column.as_primitive::<Int32Type>().values().iter().map(|v| number((*v).into())).collect()
            }
            DataType::Date32 => {
                column.as_primitive::<Date32Type>().values().iter().map(|v| number((*v).into())).collect()
            }
            DataType::Int64 => {
                column.as_primitive::<Int64Type>().values().iter().map(|v| number(*v)).collect()
            }
            _ => column.to_data().buffer::<i64>(0)[..column.len()].iter().map(|v| number(*v)).collect(),
        };
        if let Some(nulls) = column.nulls() {
            let null = if nulls_last { u128::MAX } else { 0 };
            numbers.iter_mut().zip(nulls.iter()).filter(|(_, valid)| !valid).for_each(|(n, _)| *n = null);
        }
        numbers
    }
}

impl OrderKeys {
    /// Whether a row comes before another, of keys of the same order.
    #[inline]
    pub(super) fn is_before(&self, row: usize, others: &Self, other: usize) -> bool {
        match (self, others) {
            (Self::Numbers(rows), Self::Numbers(others)) => rows[row] < others[other],
            (Self::Bytes(rows), Self::Bytes(others)) => rows.row(row) < others.row(other),
            _ => false,
        }
    }
}
