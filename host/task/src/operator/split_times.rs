//! Event time by split: what a subtask may still come to read holds its watermark back.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use connectors::{FoundSplits, Splits};

/// The watermarks of a source's splits.
pub(crate) enum SplitTimes {
    /// Of splits that the subtasks share.
    All(AllTimes),
    /// Of those that the subtask finds.
    Found(FoundTimes),
}

/// The watermarks of a source's splits, shared by the subtasks of one *watermarks* operator.
///
/// The watermark of a split is the greatest of its sequence's up to it: a file's ranges follow each
/// other. One whose sequence has not begun has the least there is.
///
/// Source: Flink, FLIP-27 (`WatermarkOutputMultiplexer`), where splits that wait count for nothing
/// until a reader has them.
pub(crate) struct AllTimes {
    splits: Arc<Splits>,
    /// Of the rows of each split, so far; the least instant = none. They only rise, and so one
    /// that is read late only holds back.
    watermarks: Arc<[AtomicI64]>,
    subtask: u32,
}

/// The watermark of the split that a subtask reads, of those that it finds.
pub(crate) struct FoundTimes {
    splits: Arc<FoundSplits>,
    /// Which split has had rows last.
    of: Option<u64>,
    /// Of its rows, so far; the least instant = none.
    watermark: i64,
}

/// The watermarks of a source's splits, none of which has had rows.
pub(crate) fn none_yet(splits: &Splits) -> Arc<[AtomicI64]> {
    splits.all().iter().map(|_| AtomicI64::new(i64::MIN)).collect()
}

impl SplitTimes {
    /// Those of a subtask, of splits that all share.
    pub(crate) fn all(splits: Arc<Splits>, watermarks: Arc<[AtomicI64]>, subtask: u32) -> Self {
        Self::All(AllTimes { splits, watermarks, subtask })
    }

    /// Those of a subtask that finds its splits.
    pub(crate) fn found(splits: Arc<FoundSplits>) -> Self {
        Self::Found(FoundTimes { splits, of: None, watermark: i64::MIN })
    }

    /// Rows of the split that the subtask reads have brought it so far.
    pub(crate) fn raise(&mut self, watermark: i64) {
        match self {
            Self::All(times) => times.raise(watermark),
            Self::Found(times) => times.raise(watermark),
        }
    }

    /// The least of what the subtask reads and may come to read; none = there is no more.
    pub(crate) fn watermark(&self) -> Option<i64> {
        match self {
            Self::All(times) => times.watermark(),
            Self::Found(times) => times.watermark(),
        }
    }

    /// Whether the subtask has something to read, though no rows may come of it for long.
    pub(crate) fn is_busy(&self) -> bool {
        match self {
            // It ends when there is no more.
            Self::All(_) => false,
            Self::Found(times) => {
                let standing = times.splits.standing();
                standing.waits || standing.current.is_some()
            }
        }
    }
}

impl FoundTimes {
    fn raise(&mut self, watermark: i64) {
        let current = self.splits.standing().current;
        if std::mem::replace(&mut self.of, current) != current {
            self.watermark = i64::MIN;
        }
        self.watermark = self.watermark.max(watermark);
    }

    fn watermark(&self) -> Option<i64> {
        let standing = self.splits.standing();
        match standing.current {
            _ if standing.waits => Some(i64::MIN),
            None => None,
            current if current == self.of => Some(self.watermark),
            Some(_) => Some(i64::MIN),
        }
    }
}

impl AllTimes {
    fn raise(&self, watermark: i64) {
        if let Some(split) = self.splits.standing(self.subtask).current {
            self.watermarks[split].fetch_max(watermark, Ordering::Relaxed);
        }
    }

    fn watermark(&self) -> Option<i64> {
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
        let of = |subtask| SplitTimes::all(Arc::clone(&splits), Arc::clone(&watermarks), subtask);
        (Arc::clone(&splits), [0, 1].map(of))
    }

    #[test]
    fn a_file_that_waits_holds_all_subtasks_back() {
        let (splits, [mut first, mut second]) = times(&[0, 1, 2]);
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
        let (splits, [mut first, mut second]) = times(&[0, 0, 0, 0]);
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
        let (splits, [mut first, mut second]) = times(&[0, 1, 1]);
        splits.take(0);
        first.raise(500);
        splits.take(1);
        second.raise(90);
        // What waits may come to the first too.
        assert_eq!((first.watermark(), second.watermark()), (Some(90), Some(90)));
        splits.take(1);
        assert_eq!(first.watermark(), Some(500));
    }

    #[test]
    fn what_a_subtask_finds_has_its_own_watermark_and_holds_back_until_it_has_begun() {
        let splits = Arc::new(FoundSplits::default());
        let mut times = SplitTimes::found(Arc::clone(&splits));
        let find = |count: usize| splits.found((0..count).map(|_| String::new()), false);
        // It has not looked.
        assert_eq!((times.watermark(), times.is_busy()), (Some(i64::MIN), true));
        find(0);
        assert_eq!((times.watermark(), times.is_busy()), (None, false));
        find(2);
        splits.take();
        times.raise(100);
        assert_eq!(times.watermark(), Some(i64::MIN));
        splits.take();
        assert_eq!((times.watermark(), times.is_busy()), (Some(i64::MIN), true));
        times.raise(7);
        times.raise(5);
        assert_eq!(times.watermark(), Some(7));
        // One that comes meanwhile is waited for.
        find(1);
        assert_eq!(times.watermark(), Some(i64::MIN));
        splits.take();
        times.raise(50);
        assert_eq!((times.watermark(), times.is_busy()), (Some(50), true));
        splits.take();
        assert_eq!((times.watermark(), times.is_busy()), (None, false));
    }
}
