//! Values of windows that meet are made one: pair by pair, of many keys in a call, in rounds.
//!
//! A round makes one of each two neighbours, so the values of a window of n slices are one after log2(n)
//! rounds. A pair whose call traps twice is found by halving, as rows are; then its window has no value.

use arrow_array::{Array, ArrayRef, UInt32Array};
use arrow_schema::ArrowError;
use arrow_select::concat::concat;
use arrow_select::take::take;

/// Values that are being made one, group by group.
pub(crate) struct Merging {
    /// Those of a group side by side, in order of time; none is null.
    values: ArrayRef,
    /// The group of each; they never fall.
    of: Vec<u32>,
    groups: usize,
    /// The left rows of this round's pairs; those that have been merged come first.
    pairs: Vec<u32>,
    merged: Vec<ArrayRef>,
    done: usize,
    /// Pairs of the call that is under way, or was, and how often it has trapped.
    length: usize,
    traps: u32,
    /// Groups of which a pair has failed.
    failed: Vec<bool>,
}

/// What becomes of a call that has trapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trapped {
    /// It is called again, perhaps with fewer pairs.
    Again,
    /// The pair that trapped is of this group.
    Pair(u32),
}

impl Merging {
    /// Of values, each of the group beside it; null is nothing.
    pub(crate) fn new(values: &ArrayRef, of: &[u32], groups: usize) -> Result<Self, ArrowError> {
        let mut merging = Self {
            values: ArrayRef::clone(values),
            of: of.to_vec(),
            groups,
            pairs: Vec::new(),
            merged: Vec::new(),
            done: 0,
            length: 0,
            traps: 0,
            failed: vec![false; groups],
        };
        merging.keep_present(&(0..values.len() as u32).collect::<Vec<_>>())?;
        merging.begin_round();
        Ok(merging)
    }

    /// Keeps the rows at these places whose values are not null.
    fn keep_present(&mut self, places: &[u32]) -> Result<(), ArrowError> {
        let kept: Vec<u32> =
            places.iter().copied().filter(|place| self.values.is_valid(*place as usize)).collect();
        if kept.len() < self.values.len() {
            self.values = take(&self.values, &UInt32Array::from(kept.clone()), None)?;
        }
        self.of = kept.iter().map(|place| self.of[*place as usize]).collect();
        Ok(())
    }

    fn begin_round(&mut self) {
        (self.done, self.length, self.traps) = (0, 0, 0);
        self.pairs.clear();
        let mut row = 0;
        while row + 1 < self.of.len() {
            let is_pair = self.of[row] == self.of[row + 1];
            if is_pair {
                // Values of a call are fewer than 2^32.
                self.pairs.push(row as u32);
            }
            row += if is_pair { 2 } else { 1 };
        }
    }

    /// The next pairs, about `fit` of them, left and right; none = all groups have one value, or none.
    pub(crate) fn next(&mut self, fit: usize) -> Result<Option<(ArrayRef, ArrayRef)>, ArrowError> {
        if self.done == self.pairs.len() && !self.pairs.is_empty() {
            self.end_round()?;
        }
        if self.pairs.is_empty() {
            return Ok(None);
        }
        if self.traps == 0 {
            self.length = fit.clamp(1, self.pairs.len() - self.done);
        }
        let lefts = &self.pairs[self.done..self.done + self.length];
        let left = take(&self.values, &UInt32Array::from(lefts.to_vec()), None)?;
        let rights: UInt32Array = lefts.iter().map(|left| left + 1).collect();
        Ok(Some((left, take(&self.values, &rights, None)?)))
    }

    /// How many pairs are under way.
    pub(crate) fn under_way(&self) -> usize {
        self.length
    }

    /// Takes what the pairs have become.
    pub(crate) fn on_merged(&mut self, merged: ArrayRef) {
        self.done += self.length;
        self.merged.push(merged);
        self.traps = 0;
    }

    /// The call with the pairs has trapped.
    pub(crate) fn on_trap(&mut self) -> Trapped {
        self.traps += 1;
        match (self.traps, self.length) {
            (1, _) => Trapped::Again,
            (_, 2..) => {
                self.length /= 2;
                Trapped::Again
            }
            _ => {
                let group = self.of[self.pairs[self.done] as usize];
                self.failed[group as usize] = true;
                // The rest of the group does not matter any more.
                let of_failed = |pair: &u32| self.of[*pair as usize] == group;
                let gone = self.pairs[self.done..].iter().take_while(|pair| of_failed(pair)).count();
                self.pairs.drain(self.done..self.done + gone);
                self.traps = 0;
                Trapped::Pair(group)
            }
        }
    }

    fn end_round(&mut self) -> Result<(), ArrowError> {
        let before = self.values.len() as u32;
        let mut all: Vec<&dyn Array> = vec![self.values.as_ref()];
        all.extend(self.merged.iter().map(AsRef::as_ref));
        let values = concat(&all)?;
        let mut pairs = self.pairs.iter().zip(before..).peekable();
        let (mut places, mut of) = (Vec::new(), Vec::new());
        let mut row = 0;
        while row < before {
            let group = self.of[row as usize];
            let pair = pairs.next_if(|(left, _)| **left == row);
            let place = pair.map_or(row, |(_, merged)| merged);
            if !self.failed[group as usize] {
                places.push(place);
                of.push(group);
            }
            row += if pair.is_some() { 2 } else { 1 };
        }
        self.values = take(&values, &UInt32Array::from(places), None)?;
        self.of = of;
        self.merged.clear();
        self.keep_present(&(0..self.values.len() as u32).collect::<Vec<_>>())?;
        self.begin_round();
        Ok(())
    }

    /// One value a group; null where there is none, or a pair has failed.
    pub(crate) fn finish(&self) -> Result<ArrayRef, ArrowError> {
        let mut rows: Vec<Option<u32>> = vec![None; self.groups];
        for (row, group) in (0u32..).zip(&self.of) {
            rows[*group as usize] = (!self.failed[*group as usize]).then_some(row);
        }
        take(&self.values, &UInt32Array::from(rows), None)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use arrow_array::StringArray;
    use arrow_array::cast::AsArray;
    use proptest::prelude::*;

    /// A merge that joins texts, and traps where the right one begins with `bad`.
    fn run(
        values: &[Option<String>],
        of: &[u32],
        groups: usize,
        fit: usize,
        bad: Option<char>,
    ) -> (Vec<Option<String>>, Vec<u32>, usize) {
        let column: ArrayRef = Arc::new(StringArray::from(values.to_vec()));
        let mut merging = Merging::new(&column, of, groups).unwrap();
        let (mut failed, mut calls) = (Vec::new(), 0);
        while let Some((left, right)) = merging.next(fit).unwrap() {
            calls += 1;
            assert_eq!(left.len(), merging.under_way());
            let pairs: Vec<(&str, &str)> = left
                .as_string::<i32>()
                .iter()
                .zip(right.as_string::<i32>())
                .map(|(left, right)| (left.unwrap(), right.unwrap()))
                .collect();
            if pairs.iter().any(|(_, right)| bad.is_some_and(|bad| right.starts_with(bad))) {
                if let Trapped::Pair(group) = merging.on_trap() {
                    failed.push(group);
                }
                continue;
            }
            let merged: StringArray =
                pairs.iter().map(|(left, right)| Some(format!("{left}{right}"))).collect();
            merging.on_merged(Arc::new(merged));
        }
        let merged = merging.finish().unwrap();
        let merged = merged.as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect();
        (merged, failed, calls)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]
        /// In their order, whatever the calls; groups with a pair that traps have nothing.
        #[test]
        fn values_are_made_one_in_their_order(
            groups in proptest::collection::vec(
                proptest::collection::vec(proptest::option::of("[a-e]"), 0..12), 1..8),
            fit in 1usize..20,
            has_bad in any::<bool>(),
        ) {
            let of: Vec<u32> =
                (0u32..).zip(&groups).flat_map(|(group, values)| vec![group; values.len()]).collect();
            let values: Vec<Option<String>> = groups.concat();
            let (merged, failed, _) = run(&values, &of, groups.len(), fit, has_bad.then_some('e'));
            for (group, values) in groups.iter().enumerate() {
                let present: Vec<&String> = values.iter().flatten().collect();
                // A text is on the right where it is not the first of those that are joined to it.
                let mut parts: Vec<String> = present.iter().map(|text| (*text).clone()).collect();
                let mut fails = false;
                while parts.len() > 1 {
                    fails |= has_bad && parts.chunks(2).any(|pair| pair.len() == 2 && pair[1].starts_with('e'));
                    parts = parts.chunks(2).map(|pair| pair.concat()).collect();
                }
                let expected = if fails { None } else { parts.pop() };
                prop_assert_eq!(&merged[group], &expected);
                prop_assert_eq!(failed.contains(&(group as u32)), fails);
            }
        }
    }

    #[test]
    fn a_thousand_values_take_ten_rounds() {
        let values: Vec<Option<String>> = (0..1_000).map(|n| Some(format!("{n} "))).collect();
        let (merged, _, calls) = run(&values, &vec![0; 1_000], 1, 10_000, None);
        assert_eq!(calls, 10);
        assert!(merged[0].as_ref().unwrap().starts_with("0 1 2 3 "));
    }

    /// The deliberate fault: a pair that traps and is not found must show.
    #[test]
    fn a_pair_that_traps_is_reported_once() {
        let values: Vec<Option<String>> =
            ["a", "b", "c", "e", "a", "b"].iter().map(|text| Some((*text).to_owned())).collect();
        let of = [0, 0, 1, 1, 2, 2];
        assert_eq!(run(&values, &of, 3, 9, Some('e')).1, [1]);
        assert_ne!(run(&values, &of, 3, 9, Some('e')).0, run(&values, &of, 3, 9, None).0);
    }
}
