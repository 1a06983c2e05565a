//! A source's splits: who reads which, and which wait; for reading, and for event time.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How a source's splits come to its subtasks.
#[derive(Clone)]
pub enum SplitsOf {
    /// All are known from the beginning, and the subtasks share them.
    All(Arc<Splits>),
    /// The subtask finds its own as it goes.
    Found(Arc<FoundSplits>),
}

/// The splits of a source in their order, taken one by one by its subtasks.
///
/// Splits of one sequence (the byte ranges of a file) follow each other: the disorder that a
/// watermark allows for holds within a sequence, and says nothing of one sequence and another.
/// A sequence's splits are neighbours.
///
/// A subtask that takes a split has handed on all rows of the one before.
/// Source: Flink, FLIP-27 (`SplitEnumerator`).
pub struct Splits {
    /// Each split's sequence and name.
    all: Vec<SplitName>,
    state: Mutex<Taken>,
}

/// A split, as messages and watermarks see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitName {
    /// Equal for splits that follow each other.
    pub sequence: usize,
    /// As messages say it: a file's path, and the bytes where it is cut.
    pub name: String,
}

struct Taken {
    /// The first split that waits.
    next: usize,
    /// What each subtask reads.
    current: Vec<Option<usize>>,
}

/// What a subtask reads and may come to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What it reads; its rows may be still to come.
    pub current: Option<usize>,
    /// What nobody reads yet.
    pub waiting: Range<usize>,
}

impl Splits {
    /// All of them wait, for so many subtasks.
    #[must_use]
    pub fn new(all: Vec<SplitName>, parallelism: u32) -> Self {
        let current = vec![None; parallelism as usize];
        Self { all, state: Mutex::new(Taken { next: 0, current }) }
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a subtask the next split, and ends the one that it had.
    pub fn take(&self, subtask: u32) -> Option<usize> {
        let mut taken = self.lock();
        let split = (taken.next < self.all.len()).then_some(taken.next);
        taken.next += usize::from(split.is_some());
        taken.current[subtask as usize] = split;
        split
    }

    /// Where a subtask is.
    #[must_use]
    pub fn standing(&self, subtask: u32) -> Standing {
        let taken = self.lock();
        Standing { current: taken.current[subtask as usize], waiting: taken.next..self.all.len() }
    }

    /// All splits, in their order.
    #[must_use]
    pub fn all(&self) -> &[SplitName] {
        &self.all
    }

    /// The first of the waiting splits whose sequence has not begun: nothing is known of the times
    /// of its rows. None = there is no such split.
    #[must_use]
    pub fn first_unknown(&self, waiting: Range<usize>) -> Option<usize> {
        let begun = waiting.start.checked_sub(1).map(|last| self.all[last].sequence);
        // Sequences lie together: where the last split's has begun, all that wait are of it.
        let last = self.all[waiting.clone()].last()?.sequence;
        match Some(last) == begun {
            true => None,
            false => self.all[waiting.clone()]
                .iter()
                .position(|split| Some(split.sequence) != begun)
                .map(|at| waiting.start + at),
        }
    }

    /// A split and those before it in its sequence.
    #[must_use]
    pub fn up_to(&self, split: usize) -> Range<usize> {
        let sequence = self.all[split].sequence;
        let before = self.all[..split].iter().rev().take_while(|other| other.sequence == sequence).count();
        split - before..split + 1
    }
}

/// The splits of one subtask that finds more of them as it goes: those that it has found and not yet read. Each is a
/// sequence of its own.
///
/// A subtask that takes a split has handed on all rows of the one before.
#[derive(Default)]
pub struct FoundSplits(Mutex<Found>);

struct Found {
    /// The names of those that wait.
    waiting: VecDeque<String>,
    /// The name of the one that is read.
    current: Option<String>,
    /// How many have been taken.
    taken: u64,
    /// There may be some that it does not know of, though they are there.
    is_behind: bool,
}

impl Default for Found {
    /// It has not looked yet.
    fn default() -> Self {
        Self { waiting: VecDeque::new(), current: None, taken: 0, is_behind: true }
    }
}

/// What a subtask that finds its splits reads and may come to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundStanding {
    /// How many splits it has taken, if it reads the last of them.
    pub current: Option<u64>,
    /// There are some that it has not begun.
    pub waits: bool,
}

impl FoundSplits {
    fn lock(&self) -> MutexGuard<'_, Found> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These have been found; `is_behind` = there are more.
    pub fn found(&self, names: impl Iterator<Item = String>, is_behind: bool) {
        let mut found = self.lock();
        found.waiting.extend(names);
        found.is_behind = is_behind;
    }

    /// The first that waits is read; where none waits, none is.
    pub fn take(&self) {
        let mut found = self.lock();
        found.current = found.waiting.pop_front();
        found.taken += u64::from(found.current.is_some());
    }

    /// Where the subtask is.
    #[must_use]
    pub fn standing(&self) -> FoundStanding {
        let found = self.lock();
        FoundStanding {
            current: found.current.is_some().then_some(found.taken),
            waits: found.is_behind || !found.waiting.is_empty(),
        }
    }

    /// The name of the first that waits, or else of the one that is read, and whether it waits.
    #[must_use]
    pub fn held_by(&self) -> Option<(String, bool)> {
        let found = self.lock();
        match (found.waiting.front(), &found.current) {
            (Some(name), _) => Some((name.clone(), true)),
            (None, Some(name)) => Some((name.clone(), false)),
            (None, None) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_that_are_found_wait_and_are_read_in_turn() {
        let splits = FoundSplits::default();
        let standing = |current, waits| FoundStanding { current, waits };
        assert_eq!((splits.standing(), splits.held_by()), (standing(None, true), None));
        splits.found(["a", "b"].map(str::to_owned).into_iter(), false);
        assert_eq!((splits.standing(), splits.held_by()), (standing(None, true), Some(("a".into(), true))));
        splits.take();
        assert_eq!(
            (splits.standing(), splits.held_by()),
            (standing(Some(1), true), Some(("b".into(), true)))
        );
        splits.take();
        assert_eq!(
            (splits.standing(), splits.held_by()),
            (standing(Some(2), false), Some(("b".into(), false)))
        );
        splits.take();
        assert_eq!((splits.standing(), splits.held_by()), (standing(None, false), None));
        splits.found(["c".to_owned()].into_iter(), true);
        splits.take();
        assert_eq!(
            (splits.standing(), splits.held_by()),
            (standing(Some(3), true), Some(("c".into(), false)))
        );
    }

    /// Three sequences: of two splits, of three, of one.
    fn splits() -> Splits {
        let of = |(sequence, name): (usize, &str)| SplitName { sequence, name: name.into() };
        let all = [(0, "a1"), (0, "a2"), (1, "b1"), (1, "b2"), (1, "b3"), (2, "c")];
        Splits::new(all.map(of).into(), 2)
    }

    #[test]
    fn splits_are_taken_in_order_and_end_with_the_next() {
        let splits = splits();
        assert_eq!(splits.standing(0), Standing { current: None, waiting: 0..6 });
        assert_eq!([0, 1, 0].map(|subtask| splits.take(subtask)), [Some(0), Some(1), Some(2)]);
        assert_eq!(splits.standing(0), Standing { current: Some(2), waiting: 3..6 });
        assert_eq!(splits.standing(1), Standing { current: Some(1), waiting: 3..6 });
        assert_eq!([1, 1, 1, 1].map(|subtask| splits.take(subtask)), [Some(3), Some(4), Some(5), None]);
        assert_eq!(splits.standing(1), Standing { current: None, waiting: 6..6 });
        assert_eq!(splits.standing(0).current, Some(2));
    }

    #[test]
    fn nothing_is_known_of_sequences_that_have_not_begun() {
        let splits = splits();
        let unknown = |next| splits.first_unknown(next..6);
        assert_eq!([0, 1, 2].map(unknown), [Some(0), Some(2), Some(2)]);
        assert_eq!([3, 4, 5, 6].map(unknown), [Some(5), Some(5), Some(5), None]);
        let two = Splits::new(splits.all()[..5].to_vec(), 1);
        assert_eq!([3, 4, 5].map(|next| two.first_unknown(next..5)), [None, None, None]);
        assert_eq!([0, 1, 3, 5].map(|split| splits.up_to(split)), [0..1, 0..2, 2..4, 5..6]);
    }
}
