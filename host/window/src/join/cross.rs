//! Pairs rows of a side with the kept rows of the other, in bounded steps.
//!
//! Kept rows are read page by page, each once however many rows meet it. Before the pairs of a page,
//! those of its rows leave (or are taken back) that now have their first partner; after them those
//! that have lost their last.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, BooleanArray, StructArray};
use arrow_buffer::ScalarBuffer;
use model::Batch;
use model::batch::RowKind;
use state::key_index::KeyId;

use super::output::{Output, gather_all, is_all, kinds_of};
use super::store::{Position, RowStore, Run};
use crate::AggregateError;
use crate::operator::{Emit, Fired};

/// Rows that leave in one step, about.
const STEP_ROWS: usize = 2 * 1024;
/// Kept rows that are read at once.
pub(super) const PAGE_ROWS: usize = 512;
/// Pairs that are looked at in one step, where not all are partners.
const STEP_LOOKS: usize = 256 * 1024;

/// Rows of each of several groups.
pub(super) struct Members {
    offsets: Vec<u32>,
    rows: Vec<u32>,
}

impl Members {
    /// Of `(group, row)`, in their order.
    pub(super) fn new(groups: usize, of_rows: impl Iterator<Item = (u32, u32)> + Clone) -> Self {
        let mut offsets = vec![0u32; groups + 1];
        of_rows.clone().for_each(|(group, _)| offsets[group as usize + 1] += 1);
        for group in 0..groups {
            offsets[group + 1] += offsets[group];
        }
        let mut next = offsets.clone();
        let mut rows = vec![0u32; offsets[groups] as usize];
        for (group, row) in of_rows {
            let at = &mut next[group as usize];
            rows[*at as usize] = row;
            *at += 1;
        }
        Self { offsets, rows }
    }

    pub(super) fn of(&self, group: u32) -> &[u32] {
        let group = group as usize;
        &self.rows[self.offsets[group] as usize..self.offsets[group + 1] as usize]
    }
}

/// What becomes of the partners of the kept rows of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Turn {
    /// They have some as before, or none as before.
    #[default]
    Stays,
    /// They had none.
    Gains,
    /// They have none any more.
    Loses,
}

/// What is noted of kept rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notes {
    /// Nothing.
    None,
    /// How often the row is there, and its slot.
    Copies,
    /// Whether the row has left alone.
    Shown,
    /// Its event time, and whether it has had a partner.
    Times,
}

/// Rows of a side, and the kept rows of the other that they meet.
pub(super) struct Cross {
    /// Whose rows they are.
    pub(super) side: usize,
    pub(super) rows: Batch,
    /// The rows' kinds in pairs.
    pub(super) kinds: Option<ScalarBuffer<u8>>,
    /// The rows of each group.
    pub(super) members: Members,
    /// By group; none = all stay.
    pub(super) turns: Vec<Turn>,
    /// Event times of what leaves alone, by group.
    pub(super) group_times: Option<Vec<i64>>,
    /// Kept rows of the other side; their keys are in `keys`.
    pub(super) runs: Vec<Run>,
    pub(super) keys: Vec<ArrayRef>,
    pub(super) notes: Notes,
    /// Partners: those whose event time, less the row's, is within these bounds.
    pub(super) bounds: (i64, i64),
    /// Whether pairs are looked for: else rows leave alone only.
    pub(super) has_pairs: bool,
    /// Rows that have had a partner, where there are bounds.
    pub(super) matched: Vec<bool>,
    pub(super) at: Position,
    pub(super) page: Option<Entries>,
}

/// A page of kept rows, in work.
pub(super) struct Entries {
    rows: StructArray,
    ids: Vec<KeyId>,
    groups: Vec<u32>,
    /// Places in `rows`, each as often as it is there.
    places: Vec<u32>,
    times: Option<ScalarBuffer<i64>>,
    /// Whether they have left alone, or have had a partner; and as it was.
    flags: Vec<bool>,
    flags_before: Vec<bool>,
    /// The next pair: a place's place, a member's place.
    at: (usize, usize),
    has_begun: bool,
}

impl Cross {
    /// Goes on. [`Fired::Done`] when all have met.
    pub(super) fn step(
        &mut self,
        store: &mut RowStore,
        output: &Output,
        now: i64,
        emit: &mut Emit<'_>,
    ) -> Result<Fired, AggregateError> {
        let mut left = STEP_ROWS;
        while left > 0 {
            let Some(mut page) = self.page.take() else {
                if self.at.run >= self.runs.len() {
                    return Ok(Fired::Done);
                }
                self.page = Some(self.read(store, now)?);
                left = left.saturating_sub(PAGE_ROWS);
                continue;
            };
            if !page.has_begun {
                page.has_begun = true;
                left = left.saturating_sub(self.turn(&mut page, Turn::Gains, output, emit)?);
            }
            let (given, is_whole) = self.pair(&mut page, left, output, emit)?;
            left = left.saturating_sub(given);
            if !is_whole {
                self.page = Some(page);
                return Ok(Fired::More);
            }
            left = left.saturating_sub(self.turn(&mut page, Turn::Loses, output, emit)?);
            left = left.saturating_sub(self.end_page(&page, store, output, now, emit)?);
        }
        Ok(Fired::More)
    }

    fn other(&self) -> usize {
        1 - self.side
    }

    fn read(&mut self, store: &mut RowStore, now: i64) -> Result<Entries, AggregateError> {
        let other = self.other();
        if self.notes == Notes::Times {
            return self.read_by_time(store, now);
        }
        let page = store.next_page(other, &self.keys, &self.runs, &mut self.at, PAGE_ROWS, now)?;
        let is_there = |place: &u32| page.rows.is_valid(*place as usize);
        let mut flags = Vec::new();
        let mut places: Vec<u32> = (0..page.ids.len() as u32).filter(is_there).collect();
        match self.notes {
            Notes::Copies => {
                let copies = store.notes(other, &page.ids, now)?;
                let copies = copies.as_struct().column(0).as_primitive::<Int64Type>().values().clone();
                if places.iter().any(|place| copies[*place as usize] != 1) {
                    let repeat = |place: u32| {
                        let copies = usize::try_from(copies[place as usize]).unwrap_or(0);
                        std::iter::repeat_n(place, copies)
                    };
                    places = places.into_iter().flat_map(repeat).collect();
                }
            }
            Notes::Shown => {
                let shown = store.notes(other, &page.ids, now)?;
                flags = shown.as_boolean().iter().map(Option::unwrap_or_default).collect();
            }
            Notes::None | Notes::Times => {}
        }
        let groups = page.runs.iter().map(|run| self.runs[*run as usize].group).collect();
        Ok(Entries {
            rows: page.rows,
            ids: page.ids,
            groups,
            places,
            times: None,
            flags_before: flags.clone(),
            flags,
            at: (0, 0),
            has_begun: false,
        })
    }

    /// Reads only those rows whose times are near enough.
    fn read_by_time(&mut self, store: &mut RowStore, now: i64) -> Result<Entries, AggregateError> {
        let other = self.other();
        let (runs, ids) = store.next_places(&self.keys, &self.runs, &mut self.at, 4 * PAGE_ROWS)?;
        let notes = store.notes(other, &ids, now)?;
        let notes = notes.as_struct();
        let (times, matched) = (notes.column(0).as_primitive::<Int64Type>(), notes.column(1).as_boolean());
        let own = self.rows.event_times();
        let mut spans: Vec<Option<(i64, i64)>> = vec![None; self.members.offsets.len() - 1];
        let mut near: Vec<u32> = Vec::new();
        for (entry, run) in (0u32..).zip(&runs) {
            let group = self.runs[*run as usize].group;
            let span = spans[group as usize].get_or_insert_with(|| {
                let of_row = |row: &u32| own.map_or(0, |times| times[*row as usize]);
                let members = self.members.of(group);
                let first = members.iter().map(of_row).min().unwrap_or(i64::MAX);
                let last = members.iter().map(of_row).max().unwrap_or(i64::MIN);
                (first.saturating_add(self.bounds.0), last.saturating_add(self.bounds.1))
            });
            let entry_time = times.value(entry as usize);
            if notes.is_valid(entry as usize) && span.0 <= entry_time && entry_time <= span.1 {
                near.push(entry);
            }
        }
        let ids: Vec<KeyId> = near.iter().map(|entry| ids[*entry as usize]).collect();
        let rows = store.rows(other, &ids, now)?;
        let flags: Vec<bool> = near.iter().map(|entry| matched.value(*entry as usize)).collect();
        Ok(Entries {
            places: (0..near.len() as u32).collect(),
            rows,
            ids,
            groups: near.iter().map(|entry| self.runs[runs[*entry as usize] as usize].group).collect(),
            times: Some(near.iter().map(|entry| times.value(*entry as usize)).collect()),
            flags_before: flags.clone(),
            flags,
            at: (0, 0),
            has_begun: false,
        })
    }

    /// What leaves alone, or is taken back, as groups turn.
    fn turn(
        &self,
        page: &mut Entries,
        turn: Turn,
        output: &Output,
        emit: &mut Emit<'_>,
    ) -> Result<usize, AggregateError> {
        let other = self.other();
        if !self.turns.contains(&turn) || !output.is_of_interest(other) {
            return Ok(0);
        }
        // Without a partner, or once with one: whether the row is to leave, or to be taken back.
        let leaves = output.without_partner(other) == (turn == Turn::Loses);
        let has_flags = self.notes == Notes::Shown;
        let (groups, flags) = (&page.groups, &mut page.flags);
        let turning = page.places.iter().copied().filter(|place| {
            let place = *place as usize;
            if self.turns[groups[place] as usize] != turn {
                return false;
            }
            !has_flags || std::mem::replace(&mut flags[place], leaves) != leaves
        });
        let turning: Vec<u32> = turning.collect();
        if turning.is_empty() {
            return Ok(0);
        }
        let kind = if leaves { RowKind::Insert } else { RowKind::Delete };
        let times = self
            .group_times
            .as_ref()
            .map(|times| turning.iter().map(|place| times[page.groups[*place as usize] as usize]).collect());
        let columns = gather_all(page.rows.columns(), &turning)?;
        let kinds = kinds_of(kind, turning.len());
        emit(0, output.alone(other, columns, turning.len(), times, kinds)?);
        Ok(turning.len())
    }

    /// The next pairs of a page, `max` at most: how many, and whether these are all.
    fn pair(
        &mut self,
        page: &mut Entries,
        max: usize,
        output: &Output,
        emit: &mut Emit<'_>,
    ) -> Result<(usize, bool), AggregateError> {
        if !self.has_pairs {
            return Ok((0, true));
        }
        let (mut rows, mut partners) = (Vec::with_capacity(max), Vec::with_capacity(max));
        let mut looks = STEP_LOOKS;
        let (lower, upper) = self.bounds;
        let (mut at, mut from) = page.at;
        while rows.len() < max
            && looks > 0
            && let Some(place) = page.places.get(at)
        {
            let members = self.members.of(page.groups[*place as usize]);
            let mut to = members.len();
            match (&page.times, self.rows.event_times()) {
                (Some(times), Some(own)) if self.notes == Notes::Times => {
                    let time = times[*place as usize];
                    to = to.min(from + looks);
                    let mut last = from;
                    for row in &members[from..to] {
                        last += 1;
                        let of_row = own[*row as usize];
                        if of_row.saturating_add(lower) <= time && time <= of_row.saturating_add(upper) {
                            rows.push(*row);
                            partners.push(*place);
                            page.flags[*place as usize] = true;
                            self.matched[*row as usize] = true;
                            if rows.len() == max {
                                break;
                            }
                        }
                    }
                    looks -= last - from;
                    to = last;
                }
                _ => {
                    to = to.min(from + (max - rows.len()));
                    rows.extend_from_slice(&members[from..to]);
                    partners.resize(rows.len(), *place);
                }
            }
            (at, from) = if to == members.len() { (at + 1, 0) } else { (at, to) };
        }
        page.at = (at, from);
        let is_whole = at >= page.places.len();
        if rows.is_empty() || !output.has_pairs() {
            return Ok((rows.len(), is_whole));
        }
        let own = self.rows.rows().columns();
        let columns = if is_all(&rows, own.first()) { own.to_vec() } else { gather_all(own, &rows)? };
        let kept = page.rows.columns();
        let of_kept =
            if is_all(&partners, kept.first()) { kept.to_vec() } else { gather_all(kept, &partners)? };
        let times = self.rows.event_times().map(|own| {
            let time = |(row, partner): (&u32, &u32)| {
                let kept = page.times.as_ref().map_or(i64::MIN, |times| times[*partner as usize]);
                own[*row as usize].max(kept)
            };
            rows.iter().zip(&partners).map(time).collect()
        });
        let kinds = self.kinds.as_ref().map(|kinds| rows.iter().map(|row| kinds[*row as usize]).collect());
        let pairs = output.pairs(self.side, columns, of_kept, rows.len(), times, kinds)?;
        emit(0, pairs);
        Ok((rows.len(), is_whole))
    }

    /// Notes what has changed of a page's rows; of those that leave once with a partner, these do.
    fn end_page(
        &self,
        page: &Entries,
        store: &mut RowStore,
        output: &Output,
        now: i64,
        emit: &mut Emit<'_>,
    ) -> Result<usize, AggregateError> {
        let other = self.other();
        if page.flags == page.flags_before || !output.is_of_interest(other) {
            return Ok(0);
        }
        let is_changed = |place: &u32| page.flags[*place as usize] != page.flags_before[*place as usize];
        let mut changed: Vec<u32> = (0..page.flags.len() as u32).filter(is_changed).collect();
        // A row that rows of two groups meet is there twice.
        let id = |place: &u32| page.ids[*place as usize];
        changed.sort_by_key(id);
        changed.dedup_by_key(|place| id(place));
        let written: Vec<(usize, KeyId)> =
            changed.iter().map(|place| (*place as usize, page.ids[*place as usize])).collect();
        let flags: ArrayRef = Arc::new(BooleanArray::from(page.flags.clone()));
        let Some(times) = &page.times else {
            store.store_notes(other, &written, &flags, now)?;
            return Ok(0);
        };
        store.store_notes(other, &written, &time_notes(times.clone(), flags)?, now)?;
        if !output.once_with_partner(other) {
            return Ok(0);
        }
        let columns = gather_all(page.rows.columns(), &changed)?;
        let times = changed.iter().map(|place| times[*place as usize]).collect();
        emit(0, output.alone(other, columns, changed.len(), Some(times), None)?);
        Ok(changed.len())
    }
}

/// The type of [`Notes::Times`].
pub(super) fn time_note_fields() -> arrow_schema::Fields {
    use arrow_schema::{DataType, Field, Fields};
    Fields::from(vec![
        Field::new("time", DataType::Int64, true),
        Field::new("matched", DataType::Boolean, true),
    ])
}

/// Notes of event times, and of who has had a partner.
pub(super) fn time_notes(times: ScalarBuffer<i64>, matched: ArrayRef) -> Result<ArrayRef, AggregateError> {
    let times: ArrayRef = Arc::new(arrow_array::Int64Array::new(times, None));
    Ok(Arc::new(StructArray::try_new(time_note_fields(), vec![times, matched], None)?))
}
