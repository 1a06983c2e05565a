//! Joins the kept rows of both sides of some keys, once: at a window's end, or at the end of all.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_buffer::ScalarBuffer;
use model::Batch;

use super::cross::{Cross, Members, Notes, PAGE_ROWS, Turn};
use super::output::{Output, gather_all};
use super::retraction::repeated;
use super::store::{Position, RowStore, Run};
use super::{LEFT, RIGHT, whole_keys};
use crate::AggregateError;
use crate::operator::{Emit, Fired};

/// The kept rows of groups, each the rows of a key (in a window).
pub(super) struct Final {
    keys: Vec<ArrayRef>,
    /// By side; a group may have several.
    runs: [Vec<Run>; 2],
    /// How many rows each group has, by side.
    totals: [Vec<i64>; 2],
    /// Event times of what leaves, by group.
    times: Option<Vec<i64>>,
    has_copies: [bool; 2],
    has_begun: bool,
    /// How far the left side's rows have been read.
    at: Position,
    work: Option<Cross>,
}

impl Final {
    pub(super) fn new(
        keys: Vec<ArrayRef>,
        mut runs: [Vec<Run>; 2],
        groups: usize,
        mut times: Option<Vec<i64>>,
        has_copies: [bool; 2],
    ) -> Self {
        let mut groups = groups;
        if let Some(whole) = whole_keys(&keys) {
            // A null equals nothing: the right rows of such a key are a group of their own.
            for run in runs[RIGHT].iter_mut().filter(|run| whole.is_null(run.key as usize)) {
                let stranger = groups as u32;
                if let Some(times) = &mut times {
                    times.push(times[run.group as usize]);
                }
                run.group = stranger;
                groups += 1;
            }
        }
        runs.iter_mut().for_each(|runs| runs.retain(|run| run.count > 0));
        let totals = [LEFT, RIGHT].map(|side| {
            let mut totals = vec![0; groups];
            runs[side].iter().for_each(|run| totals[run.group as usize] += run.count);
            totals
        });
        Self { keys, runs, totals, times, has_copies, has_begun: false, at: Position::default(), work: None }
    }

    /// Goes on. [`Fired::Done`] when all has left.
    pub(super) fn step(
        &mut self,
        store: &mut RowStore,
        output: &Output,
        now: i64,
        emit: &mut Emit<'_>,
    ) -> Result<Fired, AggregateError> {
        if let Some(work) = &mut self.work {
            if work.step(store, output, now, emit)? == Fired::Done {
                self.work = None;
            }
            return Ok(Fired::More);
        }
        if !self.has_begun {
            self.has_begun = true;
            self.begin(store, output);
            return Ok(Fired::More);
        }
        if self.at.run >= self.runs[LEFT].len() || !(output.has_pairs() || output.is_of_interest(LEFT)) {
            return Ok(Fired::Done);
        }
        self.next_lefts(store, output, now, emit)?;
        Ok(Fired::More)
    }

    /// Rows of the right side alone.
    fn begin(&mut self, store: &RowStore, output: &Output) {
        if !output.without_partner(RIGHT) {
            return;
        }
        let is_alone = |run: &&Run| self.totals[LEFT][run.group as usize] == 0;
        let alone: Vec<Run> = self.runs[RIGHT].iter().filter(is_alone).copied().collect();
        let groups = self.totals[LEFT].len();
        let none = Batch::new(RecordBatch::new_empty(Arc::clone(store.schema(LEFT))));
        let cross = self.cross(none, Members::new(groups, std::iter::empty()), alone);
        let turns = vec![Turn::Loses; groups];
        self.work = Some(Cross { turns, group_times: self.times.clone(), has_pairs: false, ..cross });
    }

    fn cross(&self, rows: Batch, members: Members, runs: Vec<Run>) -> Cross {
        Cross {
            side: LEFT,
            rows,
            kinds: None,
            members,
            turns: Vec::new(),
            group_times: None,
            runs,
            keys: self.keys.clone(),
            notes: if self.has_copies[RIGHT] { Notes::Copies } else { Notes::None },
            bounds: (0, 0),
            has_pairs: true,
            matched: Vec::new(),
            at: Position::default(),
            page: None,
        }
    }

    /// The next rows of the left side, and whom they meet.
    fn next_lefts(
        &mut self,
        store: &mut RowStore,
        output: &Output,
        now: i64,
        emit: &mut Emit<'_>,
    ) -> Result<(), AggregateError> {
        let lefts = &self.runs[LEFT];
        let page = store.next_page(LEFT, &self.keys, lefts, &mut self.at, PAGE_ROWS, now)?;
        let is_there = |place: &u32| page.rows.is_valid(*place as usize);
        let mut places: Vec<u32> = (0..page.ids.len() as u32).filter(is_there).collect();
        if self.has_copies[LEFT] {
            places = repeated(&places, &store.notes(LEFT, &page.ids, now)?);
        }
        let group = |place: &u32| lefts[page.runs[*place as usize] as usize].group;
        let groups: Vec<u32> = places.iter().map(group).collect();
        let columns = gather_all(page.rows.columns(), &places)?;
        let times: Option<ScalarBuffer<i64>> =
            self.times.as_ref().map(|times| groups.iter().map(|group| times[*group as usize]).collect());
        let rows = Batch::of(Arc::clone(store.schema(LEFT)), places.len(), columns)?.with_event_times(times);
        let rights = &self.totals[RIGHT];
        if output.is_of_interest(LEFT) {
            let wanted = output.without_partner(LEFT);
            let leaves = |(_, group): &(u32, &u32)| (rights[**group as usize] == 0) == wanted;
            let alone: Vec<u32> = (0u32..).zip(&groups).filter(leaves).map(|(row, _)| row).collect();
            if !alone.is_empty() {
                let rows = rows.take(&alone)?;
                let times = rows.event_times().cloned();
                emit(0, output.alone(LEFT, rows.rows().columns().to_vec(), alone.len(), times, None)?);
            }
        }
        if output.has_pairs() {
            let mut is_met = vec![false; rights.len()];
            groups.iter().for_each(|group| is_met[*group as usize] = true);
            let runs: Vec<Run> =
                self.runs[RIGHT].iter().filter(|run| is_met[run.group as usize]).copied().collect();
            if !runs.is_empty() {
                let members = Members::new(rights.len(), groups.iter().copied().zip(0u32..));
                self.work = Some(self.cross(rows, members, runs));
            }
        }
        Ok(())
    }
}
