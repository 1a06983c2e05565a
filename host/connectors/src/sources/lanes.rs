//! Which numbers of a made-up sequence a subtask makes: so that none is made twice and none is left out,
//! also when a later run goes on with another number of subtasks.
//!
//! The sequence is cut into blocks. A lane is every `step`-th block from a place on; at first each subtask has
//! one lane, and `step` is the parallelism.

use std::ops::Range;

use model::Diagnostic;
use serde::{Deserialize, Serialize};

use crate::Context;

/// The numbers that are left for one subtask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lanes {
    /// How many numbers a block has.
    block: u64,
    lanes: Vec<Lane>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lane {
    /// The next number.
    next: u64,
    /// From one block of it to the next, in blocks.
    step: u64,
}

impl Lane {
    /// As so many lanes, which have its numbers together.
    fn split(self, count: u64, block: u64) -> impl Iterator<Item = Self> {
        let step = self.step.saturating_mul(count);
        (0..count).map(move |place| {
            let ahead = place.saturating_mul(self.step).saturating_mul(block);
            // The first goes on in the middle of its block.
            let from = if place == 0 { self.next } else { self.next / block * block };
            Self { next: from.saturating_add(ahead), step }
        })
    }
}

impl Lanes {
    /// A subtask's part of the whole sequence.
    pub(super) fn new(block: u64, subtask: u32, parallelism: u32) -> Self {
        let next = u64::from(subtask).saturating_mul(block);
        Self { block, lanes: vec![Lane { next, step: u64::from(parallelism) }] }
    }

    /// A subtask's part of what the positions of an earlier run have left.
    ///
    /// # Errors
    /// If they are no positions.
    pub(super) fn restored(
        block: u64,
        positions: &[String],
        subtask: u32,
        parallelism: u32,
    ) -> Result<Self, Diagnostic> {
        let mut all: Vec<Lane> = Vec::new();
        for position in positions {
            let lanes: Vec<Lane> = serde_json::from_str(position).map_err(|error| {
                Diagnostic::user("a checkpoint says no position of a made-up sequence")
                    .detail(error.to_string())
            })?;
            all.extend(lanes);
        }
        let (have, want) = (all.len() as u64, u64::from(parallelism));
        let each = if have == 0 { 1 } else { want.div_ceil(have) };
        let all = all.into_iter().flat_map(|lane| lane.split(each, block));
        let own = (0u64..).zip(all).filter(|(place, _)| place % want == u64::from(subtask));
        Ok(Self { block, lanes: own.map(|(_, lane)| lane).collect() })
    }

    /// A subtask's part of the sequence, or of what an earlier run has left of it; and the first number of all parts.
    ///
    /// # Errors
    /// As [`restored`](Self::restored).
    pub(super) fn open(
        block: u64,
        restored: Option<&Vec<String>>,
        context: &Context,
    ) -> Result<(Self, u64), Diagnostic> {
        let (subtask, parallelism) = (context.subtask, context.parallelism);
        Ok(match restored {
            None => (Self::new(block, subtask, parallelism), 0),
            Some(positions) => {
                let first = Self::restored(block, positions, 0, 1)?.next().unwrap_or(0);
                (Self::restored(block, positions, subtask, parallelism)?, first)
            }
        })
    }

    /// In a form that [`restored`](Self::restored) reads.
    pub(super) fn position(&self) -> String {
        // Numbers are all that is in it.
        serde_json::to_string(&self.lanes).unwrap_or_default()
    }

    /// The next number; none = there are none for this subtask.
    pub(super) fn next(&self) -> Option<u64> {
        self.lanes.iter().map(|lane| lane.next).min()
    }

    /// Takes the next numbers below `due`, in one block, at most so many.
    pub(super) fn take(&mut self, due: u64, count: u64) -> Option<Range<u64>> {
        let block = self.block;
        let lane = self.lanes.iter_mut().min_by_key(|lane| lane.next)?;
        let place = lane.next % block;
        let end = lane.next.saturating_add((block - place).min(count)).min(due);
        if end <= lane.next {
            return None;
        }
        let taken = lane.next..end;
        let others = if end % block == 0 { (lane.step - 1).saturating_mul(block) } else { 0 };
        lane.next = end.saturating_add(others);
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TOTAL: u64 = 300;

    /// Which numbers are made by runs of these parallelisms, each stopped when its subtasks have taken so often.
    fn made(block: u64, runs: &[Vec<usize>]) -> Vec<u64> {
        let (mut numbers, mut positions) = (Vec::new(), None::<Vec<String>>);
        let end = [vec![usize::MAX; 2]];
        for polls in runs.iter().chain(&end) {
            // A handful.
            let parallelism = polls.len() as u32;
            let mut next = Vec::new();
            for (subtask, polls) in (0u32..).zip(polls) {
                let mut lanes = match &positions {
                    None => Lanes::new(block, subtask, parallelism),
                    Some(before) => Lanes::restored(block, before, subtask, parallelism).unwrap(),
                };
                let mut left = *polls;
                while left > 0
                    && let Some(taken) = lanes.take(TOTAL, 7)
                {
                    numbers.extend(taken);
                    left -= 1;
                }
                next.push(lanes.position());
            }
            positions = Some(next);
        }
        numbers.sort_unstable();
        numbers
    }

    proptest! {
        #[test]
        fn each_number_is_made_once(
            block in 1..20u64,
            runs in prop::collection::vec(prop::collection::vec(0..12usize, 1..6), 0..4),
        ) {
            prop_assert_eq!(made(block, &runs), (0..TOTAL).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_end_of_all_numbers_is_reached() {
        let mut lanes = Lanes::new(50, 1, 3);
        lanes.lanes[0].next = u64::MAX - 20;
        while lanes.take(u64::MAX, 1_000).is_some() {}
        assert_eq!(lanes.next(), Some(u64::MAX));
    }
}
