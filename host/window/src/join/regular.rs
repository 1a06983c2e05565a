//! The join of all rows of equal keys, for as long as they live; of changelogs, too.
//!
//! As the key is the whole condition, the partners of a row are all rows of the other side with its
//! key: whether it has any is the count of that side, and rows without a partner turn all at once,
//! with the first row of the other side or the last. What a batch does to a key is one change.
//!
//! Source: Flink, `StreamingJoinOperator`, `StreamingSemiAntiJoinOperator`.

use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray};
use arrow_buffer::{NullBuffer, ScalarBuffer};
use arrow_schema::{DataType, SchemaRef};
use model::Batch;
use model::batch::RowKind;
use model::job_graph::{JoinSides, Ttl};
use state::backend::Ticket;
use state::key_index::KeyId;
use state::{Backend, Grouping};

use super::cross::{Cross, Members, Notes, Turn};
use super::final_join::Final;
use super::output::Output;
use super::retraction::{Retraction, copy_note_fields};
use super::store::{Position, RowStore, Run};
use super::{Coming, LEFT, RIGHT, side_of, whole_keys};
use crate::AggregateError;
use crate::changes::is_taken_back;
use crate::keys::{FinalKeys, key_columns};
use crate::operator::{Emit, Fired, KeyedOperator, Now, Setting};

/// A regular join, in one subtask.
pub(super) struct RegularJoin {
    output: Output,
    keys: Vec<Vec<usize>>,
    store: RowStore,
    grouping: Grouping,
    /// By side: takes rows of a changelog back.
    retractions: [Option<Retraction>; 2],
    has_ttl: bool,
    batch: bool,
    coming: Option<Coming>,
    work: Option<Cross>,
    /// The final rows of some keys, in work.
    finish: Option<Final>,
    finals: FinalKeys,
}

/// Keys' numbers that are looked at in a step.
const FINISH_KEYS: usize = 1024;

impl RegularJoin {
    pub(super) fn new(
        sides: JoinSides,
        ttl: Option<Ttl>,
        setting: Setting<'_>,
    ) -> Result<Self, AggregateError> {
        let output = Output::new(sides, &setting);
        let from_changes = [LEFT, RIGHT].map(|side| setting.from_changes.get(side) == Some(&true));
        let is_noted = |side| ttl.is_some() && output.is_of_interest(side);
        let notes = [LEFT, RIGHT].map(|side| match from_changes[side] {
            true => Some(DataType::Struct(copy_note_fields())),
            false => is_noted(side).then_some(DataType::Boolean),
        });
        let retractions = [LEFT, RIGHT].map(|side| -> Result<_, AggregateError> {
            let schema: &SchemaRef = &setting.inputs[side];
            from_changes[side].then(|| Retraction::new(side, schema)).transpose()
        });
        let [left, right] = retractions;
        let retractions = [left?, right?];
        let (keys, batch) = (setting.keys.to_vec(), setting.batch);
        let store = RowStore::new(setting, false, notes, from_changes.contains(&true), ttl)?;
        Ok(Self {
            output,
            keys,
            store,
            grouping: Grouping::default(),
            retractions,
            has_ttl: ttl.is_some(),
            batch,
            coming: None,
            work: None,
            finish: None,
            finals: FinalKeys::default(),
        })
    }

    /// All rows come to few slots.
    #[cfg(test)]
    pub(super) fn crowd(&mut self) {
        self.retractions.iter_mut().flatten().for_each(Retraction::crowd);
    }

    /// What is noted of the rows of a side.
    fn notes(&self, side: usize) -> Notes {
        match (&self.retractions[side], self.has_ttl && self.output.is_of_interest(side)) {
            (Some(_), _) => Notes::Copies,
            (None, true) => Notes::Shown,
            (None, false) => Notes::None,
        }
    }

    /// Kinds of rows that follow from rows: of pairs alone they stay as they are.
    fn kinds(&self, rows: &Batch) -> Option<ScalarBuffer<u8>> {
        let kinds = rows.kinds()?;
        if self.output.sides == JoinSides::Inner {
            return Some(kinds.clone());
        }
        let plain = |kind: &u8| if is_taken_back(*kind) { RowKind::Delete } else { RowKind::Insert } as u8;
        Some(kinds.iter().map(plain).collect())
    }

    /// Parts rows whose keys have a null: they have no partner. Gives the others.
    fn part_nulls(
        &self,
        side: usize,
        rows: &Batch,
        whole: &NullBuffer,
        emit: &mut Emit<'_>,
    ) -> Result<Batch, AggregateError> {
        let of = |wanted: bool| -> Vec<u32> {
            (0u32..)
                .zip(whole.iter())
                .filter(|(_, is_whole)| *is_whole == wanted)
                .map(|(row, _)| row)
                .collect()
        };
        if self.output.without_partner(side) {
            self.leave_alone(side, &rows.take(&of(false))?, emit)?;
        }
        Ok(rows.take(&of(true))?)
    }

    fn leave_alone(&self, side: usize, rows: &Batch, emit: &mut Emit<'_>) -> Result<(), AggregateError> {
        let columns = rows.rows().columns().to_vec();
        let times = rows.event_times().cloned();
        emit(0, self.output.alone(side, columns, rows.num_rows(), times, self.kinds(rows))?);
        Ok(())
    }

    fn take_rows(
        &mut self,
        side: usize,
        rows: &Batch,
        now: i64,
        emit: &mut Emit<'_>,
    ) -> Result<(), AggregateError> {
        if self.has_ttl {
            // What has grown too old meanwhile.
            self.store.backend.forget_empty(&[]);
        }
        let keys = key_columns(rows, &self.keys[side]);
        let (mut ids, mut bases) = (Vec::new(), Vec::new());
        self.store.ids(&keys, &[], vec![0; rows.num_rows()], &mut ids)?;
        let groups = self.grouping.number(&ids, &mut bases);
        let before = self.store.counts(side, &bases, now)?;
        let partners = self.store.counts(1 - side, &bases, now)?;
        let mut counts = before.clone();
        match &mut self.retractions[side] {
            Some(retraction) => {
                retraction.apply(&mut self.store, rows, &keys, (&groups, &bases), &mut counts, now)?;
            }
            None => {
                let ids = self.store.append(side, rows, (&keys, &[]), (&groups, &bases), &mut counts, now)?;
                if self.notes(side) == Notes::Shown && !self.batch {
                    let written: Vec<(usize, KeyId)> = ids.into_iter().enumerate().collect();
                    let is_shown =
                        |group: &u32| (partners[*group as usize] == 0) == self.output.without_partner(side);
                    let shown: ArrayRef =
                        Arc::new(BooleanArray::from_iter(groups.iter().map(|g| Some(is_shown(g)))));
                    self.store.store_notes(side, &written, &shown, now)?;
                }
            }
        }
        if self.batch {
            return Ok(());
        }
        // Rows that leave alone, whatever comes.
        let wanted_without = self.output.without_partner(side);
        if self.output.is_of_interest(side) {
            let leaves = |(_, group): &(u32, &u32)| (partners[**group as usize] == 0) == wanted_without;
            let alone: Vec<u32> = (0u32..).zip(&groups).filter(leaves).map(|(row, _)| row).collect();
            if !alone.is_empty() {
                self.leave_alone(side, &rows.take(&alone)?, emit)?;
            }
        }
        let is_seen = self.output.is_of_interest(1 - side);
        let turns: Vec<Turn> = before
            .iter()
            .zip(&counts)
            .map(|(before, after)| match (before, after) {
                (0, 1..) if is_seen => Turn::Gains,
                (1.., 0) if is_seen => Turn::Loses,
                _ => Turn::Stays,
            })
            .collect();
        let has_pairs = self.output.has_pairs();
        let mut last = vec![0u32; bases.len()];
        (0u32..).zip(&groups).for_each(|(row, group)| last[*group as usize] = row);
        let runs: Vec<Run> = (0u32..)
            .zip(&bases)
            .filter(|(group, _)| {
                partners[*group as usize] > 0 && (has_pairs || turns[*group as usize] != Turn::Stays)
            })
            .map(|(group, id)| Run {
                id: *id,
                key: last[group as usize],
                bucket: 0,
                count: partners[group as usize],
                group,
            })
            .collect();
        if !runs.is_empty() {
            let times = rows.event_times();
            self.work = Some(Cross {
                side,
                rows: rows.clone(),
                kinds: self.kinds(rows),
                members: Members::new(bases.len(), groups.iter().copied().zip(0u32..)),
                group_times: times.map(|times| last.iter().map(|row| times[*row as usize]).collect()),
                turns,
                runs,
                keys,
                notes: self.notes(1 - side),
                bounds: (0, 0),
                has_pairs,
                matched: Vec::new(),
                at: Position::default(),
                page: None,
            });
        }
        if self.retractions[side].is_some() {
            let gone = (0..bases.len()).filter(|group| counts[*group] == 0 && partners[*group] == 0);
            let gone: Vec<KeyId> = gone.map(|group| bases[group]).collect();
            self.store.backend.forget_empty(&gone);
        }
        Ok(())
    }

    /// The join of the keys of these numbers.
    fn next_final(&mut self, ids: &[KeyId]) -> Result<(), AggregateError> {
        let counts = [self.store.counts(LEFT, ids, i64::MIN)?, self.store.counts(RIGHT, ids, i64::MIN)?];
        let (mut found, mut runs) = (Vec::new(), [Vec::new(), Vec::new()]);
        for (at, id) in ids.iter().enumerate() {
            if counts[LEFT][at] > 0 || counts[RIGHT][at] > 0 {
                let key = found.len() as u32;
                found.push(*id);
                for side in [LEFT, RIGHT] {
                    let count = counts[side][at];
                    runs[side].push(Run { id: *id, key, bucket: 0, count, group: key });
                }
            }
        }
        let mut keys = self.store.backend.keys(&found)?;
        // The place.
        keys.pop();
        let has_copies = [LEFT, RIGHT].map(|side| self.retractions[side].is_some());
        self.finish = Some(Final::new(keys, runs, found.len(), None, has_copies));
        Ok(())
    }

    /// Goes on with the rows that have come.
    fn advance(&mut self, now: i64, emit: &mut Emit<'_>) -> Result<Fired, AggregateError> {
        if let Some(work) = &mut self.work {
            if work.step(&mut self.store, &self.output, now, emit)? == Fired::Done {
                self.work = None;
            }
        } else if let Some(mut coming) = self.coming.take() {
            let side = coming.side;
            let (rows, is_last) = coming.next();
            self.coming = (!is_last).then_some(coming);
            // Where only final rows leave, those with a null wait as well: they may be taken back.
            let whole = if self.batch { None } else { whole_keys(&key_columns(&rows, &self.keys[side])) };
            match whole {
                Some(whole) => {
                    let rows = self.part_nulls(side, &rows, &whole, emit)?;
                    self.take_rows(side, &rows, now, emit)?;
                }
                None => self.take_rows(side, &rows, now, emit)?,
            }
        }
        let is_done = self.work.is_none() && self.coming.is_none();
        Ok(if is_done { Fired::Done } else { Fired::More })
    }
}

impl KeyedOperator for RegularJoin {
    fn prefetch(&mut self, input: u32, rows: &Batch, _now: Now) -> Result<Ticket, AggregateError> {
        let keys = key_columns(rows, &self.keys[side_of(input)]);
        self.store.prefetch(&keys, &[], rows.num_rows())
    }

    fn is_ready(&mut self, ticket: Ticket) -> bool {
        self.store.backend.is_ready(ticket)
    }

    fn backend(&mut self) -> Option<&mut dyn Backend> {
        Some(&mut *self.store.backend)
    }

    fn process(
        &mut self,
        input: u32,
        rows: &Batch,
        now: Now,
        emit: &mut Emit<'_>,
    ) -> Result<Fired, AggregateError> {
        self.coming = Some(Coming::new(side_of(input), rows));
        self.advance(now.processing_time, emit)
    }

    fn resume(&mut self, now: Now, emit: &mut Emit<'_>) -> Result<Fired, AggregateError> {
        self.advance(now.processing_time, emit)
    }

    fn fire(&mut self, _now: Now, _emit: &mut Emit<'_>) -> Result<Fired, AggregateError> {
        Ok(Fired::Done)
    }

    fn finish(&mut self, emit: &mut Emit<'_>) -> Result<Fired, AggregateError> {
        if !self.batch {
            return Ok(Fired::Done);
        }
        if let Some(finish) = &mut self.finish {
            if finish.step(&mut self.store, &self.output, i64::MIN, emit)? == Fired::Done {
                self.finish = None;
            }
            return Ok(Fired::More);
        }
        // Looking rows up makes no new keys.
        let ids = self.finals.next(&*self.store.backend, FINISH_KEYS);
        let Some(ids) = ids else { return Ok(Fired::Done) };
        self.next_final(&ids)?;
        Ok(Fired::More)
    }
}
