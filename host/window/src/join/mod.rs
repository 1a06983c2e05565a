//! Joins: which rows of two inputs are partners.
//!
//! All forms keep the rows of each side in one [store](store::RowStore), and pair rows of a side with
//! those that are kept of the other [page by page](cross::Cross), so that a key of very many rows
//! takes many short steps. They differ in which rows may meet, and when rows leave without a partner.

mod cross;
mod final_join;
mod interval;
mod output;
mod regular;
mod retraction;
mod store;
mod temporal;
mod window;

use arrow_array::{Array, ArrayRef};
use arrow_buffer::NullBuffer;
use model::Batch;
use model::job_graph::{Join, JoinForm};

use crate::AggregateError;
use crate::operator::{KeyedOperator, Setting};

/// The inputs by number.
const LEFT: usize = 0;
const RIGHT: usize = 1;

/// The join that a node is.
pub(crate) fn operator(join: &Join, setting: Setting<'_>) -> Result<Box<dyn KeyedOperator>, AggregateError> {
    Ok(match &join.form {
        JoinForm::Unbounded(ttl) => Box::new(regular::RegularJoin::new(join.sides, *ttl, setting)?),
        JoinForm::Interval { lower, upper } => {
            Box::new(interval::IntervalJoin::new(join.sides, (*lower, *upper), setting)?)
        }
        JoinForm::Temporal(time) => temporal::operator(join.sides, *time, setting)?,
        JoinForm::Window(assigner) => Box::new(window::WindowJoin::new(join.sides, assigner, setting)?),
    })
}

/// The input of this number as a side.
fn side_of(input: u32) -> usize {
    usize::from(input != 0)
}

/// Rows that have come, to be taken a few at a time.
struct Coming {
    side: usize,
    rows: Batch,
    at: usize,
}

/// Rows that are taken in one step.
const CALL_ROWS: usize = 1024;

impl Coming {
    fn new(side: usize, rows: &Batch) -> Self {
        Self { side, rows: rows.clone(), at: 0 }
    }

    /// The next rows; whether these are the last.
    fn next(&mut self) -> (Batch, bool) {
        let length = CALL_ROWS.min(self.rows.num_rows() - self.at);
        let rows = self.rows.slice(self.at, length);
        self.at += length;
        (rows, self.at >= self.rows.num_rows())
    }
}

/// Which rows have a key without a null; none = all. A null equals nothing.
fn whole_keys(keys: &[ArrayRef]) -> Option<NullBuffer> {
    let nulls =
        keys.iter().fold(None, |nulls, key| NullBuffer::union(nulls.as_ref(), key.logical_nulls().as_ref()));
    nulls.filter(|nulls| nulls.null_count() > 0)
}

#[cfg(test)]
mod tests;
