//! The first rows of each key in an order: top-n, deduplication.
//!
//! One row of each key over inserts lies beside its order (`first`), a few lie in slots (`few`); many,
//! and all rows of a changelog, lie in their order (`ranked`). What a batch does to a key is one change.
//!
//! Source: Flink, `AppendOnlyTopNFunction`, `RetractableTopNFunction`, `RowTimeDeduplicateFunction`.

mod few;
mod first;
mod order;
mod ranked;

use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array};
use model::job_graph::Top;

use crate::AggregateError;
use crate::operator::{KeyedOperator, Setting};

/// The operator of a top-n.
pub(crate) fn operator(top: &Top, setting: Setting<'_>) -> Result<Box<dyn KeyedOperator>, AggregateError> {
    let is_changelog = setting.from_changes.contains(&true);
    if top.limit == 1 && !is_changelog {
        return Ok(Box::new(first::First::new(top, setting)?));
    }
    if top.limit <= few::FEW && !is_changelog {
        return Ok(Box::new(few::Few::new(top, setting)?));
    }
    Ok(Box::new(ranked::Ranked::new(top, setting, is_changelog)?))
}

/// So many times this rank.
fn constant_rank(rank: i64, rows: usize) -> ArrayRef {
    Arc::new(Int64Array::from(vec![rank; rows]))
}

/// The rows of each group: those of the i-th are `offsets[i] .. offsets[i + 1]` of the second.
fn members(groups: &[u32], count: usize) -> (Vec<usize>, Vec<u32>) {
    let mut offsets = vec![0usize; count + 1];
    groups.iter().for_each(|group| offsets[*group as usize + 1] += 1);
    (0..count).for_each(|group| offsets[group + 1] += offsets[group]);
    let mut next = offsets.clone();
    let mut members = vec![0u32; groups.len()];
    for (row, group) in (0u32..).zip(groups) {
        members[next[*group as usize]] = row;
        next[*group as usize] += 1;
    }
    (offsets, members)
}

#[cfg(test)]
mod tests;
