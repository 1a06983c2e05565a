//! Event time by split: what a subtask may still come to read holds its watermark back.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use connectors::Splits;

/// The watermarks of a source's splits, shared by the subtasks of one *watermarks* operator.
///
/// The watermark of a split is the greatest of its sequence's up to it: a file's ranges follow each
/// other. One whose sequence has not begun has the least there is.
///
/// Source: Flink, FLIP-27 (`WatermarkOutputMultiplexer`), where splits that wait count for nothing
/// until a reader has them.
pub(crate) struct SplitTimes {
    splits: Arc<Splits>,
    /// Of the rows of each split, so far; the least instant = none. They only rise, and so one
    /// that is read late only holds back.
    watermarks: Arc<[AtomicI64]>,
    subtask: u32,
}

/// The watermarks of a source's splits, none of which has had rows.
pub(crate) fn none_yet(splits: &Splits) -> Arc<[AtomicI64]> {
    splits.all().iter().map(|_| AtomicI64::new(i64::MIN)).collect()
}

impl SplitTimes {
    /// Those of a subtask.
    pub(crate) fn new(splits: Arc<Splits>, watermarks: Arc<[AtomicI64]>, subtask: u32) -> Self {
        Self { splits, watermarks, subtask }
    }

    /// Rows of the split that the subtask reads have brought it so far.
    pub(crate) fn raise(&self, watermark: i64) {
        if let Some(split) = self.splits.standing(self.subtask).current {
            self.watermarks[split].fetch_max(watermark, Ordering::Relaxed);
        }
    }

    /// The least of what the subtask reads and may come to read; none = there is no more.
    pub(crate) fn watermark(&self) -> Option<i64> {
        let standing = self.splits.standing(self.subtask);
        if self.splits.first_unknown(standing.waiting.clone()).is_some() {
            return Some(i64::MIN);
        }
        let waiting = (!standing.waiting.is_empty()).then_some(standing.waiting.start);
        let held = standing.current.into_iter().chain(waiting);
        held.map(|split| self.of_split(split)).min()
    }

    fn of_split(&self, split: usize) -> i64 {
        let so_far = &self.watermarks[self.splits.up_to(split)];
        so_far.iter().map(|watermark| watermark.load(Ordering::Relaxed)).max().unwrap_or(i64::MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use connectors::splits::SplitName;

    /// Splits of these sequences, and the times of two subtasks.
    fn times(sequences: &[usize]) -> (Arc<Splits>, [SplitTimes; 2]) {
        let name = |sequence: &usize| SplitName { sequence: *sequence, name: String::new() };
        let splits = Arc::new(Splits::new(sequences.iter().map(name).collect(), 2));
        let watermarks = none_yet(&splits);
        let of = |subtask| SplitTimes::new(Arc::clone(&splits), Arc::clone(&watermarks), subtask);
        (Arc::clone(&splits), [0, 1].map(of))
    }

    #[test]
    fn a_file_that_waits_holds_all_subtasks_back() {
        let (splits, [first, second]) = times(&[0, 1, 2]);
        splits.take(0);
        first.raise(100);
        splits.take(1);
        second.raise(7);
        assert_eq!((first.watermark(), second.watermark()), (Some(i64::MIN), Some(i64::MIN)));
        // The last has begun: it holds back who reads it, until it has rows.
        splits.take(1);
        assert_eq!((first.watermark(), second.watermark()), (Some(100), Some(i64::MIN)));
        second.raise(-50);
        assert_eq!((first.watermark(), second.watermark()), (Some(100), Some(-50)));
        splits.take(1);
        assert_eq!((first.watermark(), second.watermark()), (Some(100), None));
    }

    #[test]
    fn ranges_of_a_file_follow_each_other() {
        let (splits, [first, second]) = times(&[0, 0, 0, 0]);
        splits.take(0);
        first.raise(10);
        splits.take(1);
        assert_eq!((first.watermark(), second.watermark()), (Some(10), Some(10)));
        second.raise(40);
        assert_eq!((first.watermark(), second.watermark()), (Some(10), Some(40)));
        // What follows is not before what has been.
        splits.take(0);
        assert_eq!(first.watermark(), Some(40));
        first.raise(30);
        assert_eq!(first.watermark(), Some(40));
        first.raise(70);
        assert_eq!((first.watermark(), second.watermark()), (Some(70), Some(40)));
    }

    #[test]
    fn ranges_of_an_earlier_file_count_while_they_are_read() {
        let (splits, [first, second]) = times(&[0, 1, 1]);
        splits.take(0);
        first.raise(500);
        splits.take(1);
        second.raise(90);
        // What waits may come to the first too.
        assert_eq!((first.watermark(), second.watermark()), (Some(90), Some(90)));
        splits.take(1);
        assert_eq!(first.watermark(), Some(500));
    }
}
