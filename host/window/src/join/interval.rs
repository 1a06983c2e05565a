//! The join of rows of equal keys whose event times are near enough.
//!
//! Rows are kept by key and bucket of time, a bucket as long as the interval, so that a row's partners
//! lie in two buckets or three. A bucket goes by a timer when no partner of its rows can come any more;
//! rows of it that have had none leave alone then, where they do.
//!
//! Source: Flink, `IntervalJoinOperator`, `RowTimeIntervalJoin`.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, BooleanArray};
use arrow_buffer::ScalarBuffer;
use arrow_schema::DataType;
use model::Batch;
use model::job_graph::{JoinSides, TimeDomain};
use state::backend::Ticket;
use state::key_index::KeyId;
use state::{Backend, Grouping, TimerChange};

use super::cross::{Cross, Members, Notes, PAGE_ROWS, time_note_fields, time_notes};
use super::output::{Output, gather_all};
use super::store::{Position, RowStore, Run};
use super::{Coming, LEFT, RIGHT, side_of, whole_keys};
use crate::AggregateError;
use crate::keys::key_columns;
use crate::operator::{Emit, Fired, KeyedOperator, Now, Setting};
use crate::timers::{Due, DueTimers};

/// An interval join, in one subtask.
pub(super) struct IntervalJoin {
    output: Output,
    keys: Vec<Vec<usize>>,
    store: RowStore,
    grouping: Grouping,
    /// Of the right row's time less the left's, in milliseconds.
    lower: i64,
    upper: i64,
    /// A bucket's length, in milliseconds.
    width: i64,
    coming: Option<Coming>,
    work: Option<Work>,
    expiry: Option<Expiry>,
    late: usize,
    due: DueTimers,
}

/// Rows that meet the other side's.
struct Work {
    cross: Cross,
    /// Where they are kept.
    ids: Vec<KeyId>,
}

/// Buckets that are done with.
struct Expiry {
    keys: Vec<ArrayRef>,
    runs: [Vec<Run>; 2],
    /// At which side it is.
    side: usize,
    given: Position,
    removed: Position,
}

/// Buckets are no shorter, in milliseconds: each costs a timer.
const WIDTH_MIN: i64 = 100;
/// Buckets that go in one step.
const EXPIRED_MAX: usize = 256;

impl IntervalJoin {
    pub(super) fn new(
        sides: JoinSides,
        (lower, upper): (i64, i64),
        setting: Setting<'_>,
    ) -> Result<Self, AggregateError> {
        let output = Output::new(sides, &setting);
        let keys = setting.keys.to_vec();
        let notes = || Some(DataType::Struct(time_note_fields()));
        let store = RowStore::new(setting, true, [notes(), notes()], false, None)?;
        Ok(Self {
            output,
            keys,
            store,
            grouping: Grouping::default(),
            lower,
            upper,
            width: upper.saturating_sub(lower).max(WIDTH_MIN),
            coming: None,
            work: None,
            expiry: None,
            late: 0,
            due: DueTimers::default(),
        })
    }

    /// The bounds of a partner's time, less that of a row of a side.
    fn bounds(&self, side: usize) -> (i64, i64) {
        match side {
            LEFT => (self.lower, self.upper),
            _ => (-self.upper, -self.lower),
        }
    }

    fn bucket(&self, time: i64) -> i64 {
        time.div_euclid(self.width)
    }

    /// From this watermark on the rows of a bucket meet no new ones.
    fn expiry_of(&self, side: usize, bucket: i64) -> i64 {
        let last = bucket.saturating_mul(self.width).saturating_add(self.width - 1);
        last.saturating_add(self.bounds(side).1)
    }

    /// Rows that are not late, with their times, and have a whole key; those that leave alone, leave.
    fn admit(
        &mut self,
        side: usize,
        rows: &Batch,
        watermark: i64,
        emit: &mut Emit<'_>,
    ) -> Result<Batch, AggregateError> {
        let times = rows.event_times().ok_or(AggregateError::NoTime)?;
        let whole = whole_keys(&key_columns(rows, &self.keys[side]));
        let is_late = |row: u32| times[row as usize] <= watermark;
        let late = times.iter().filter(|time| **time <= watermark).count();
        if late == 0 && whole.is_none() {
            return Ok(rows.clone());
        }
        self.late += late;
        let is_whole = |row: &u32| whole.as_ref().is_none_or(|whole| whole.is_valid(*row as usize));
        let in_time = (0..rows.num_rows() as u32).filter(|row| !is_late(*row));
        let (admitted, strangers): (Vec<u32>, Vec<u32>) = in_time.partition(is_whole);
        if self.output.without_partner(side) && !strangers.is_empty() {
            let alone = rows.take(&strangers)?;
            let times = alone.event_times().cloned();
            emit(0, self.output.alone(side, alone.rows().columns().to_vec(), strangers.len(), times, None)?);
        }
        Ok(rows.take(&admitted)?)
    }

    fn take_rows(&mut self, side: usize, rows: Batch, now: Now) -> Result<(), AggregateError> {
        let Some(times) = rows.event_times().cloned().filter(|times| !times.is_empty()) else {
            return Ok(());
        };
        let clock = now.processing_time;
        let keys = key_columns(&rows, &self.keys[side]);
        let buckets: Vec<i64> = times.iter().map(|time| self.bucket(*time)).collect();
        let (mut ids, mut bases) = (Vec::new(), Vec::new());
        self.store.ids(&keys, &buckets, vec![0; times.len()], &mut ids)?;
        let groups = self.grouping.number(&ids, &mut bases);
        let mut counts = self.store.counts(side, &bases, clock)?;
        let mut last = vec![0u32; bases.len()];
        let mut spans = vec![(i64::MAX, i64::MIN); bases.len()];
        for (row, (group, time)) in (0u32..).zip(groups.iter().zip(&times)) {
            last[*group as usize] = row;
            let span = &mut spans[*group as usize];
            *span = (span.0.min(*time), span.1.max(*time));
        }
        let fresh = (0..bases.len()).filter(|group| counts[*group] == 0);
        let timers: Vec<TimerChange> = fresh
            .map(|group| TimerChange {
                key: bases[group],
                domain: TimeDomain::EventTime,
                time: self.expiry_of(side, buckets[last[group] as usize]),
                set: true,
            })
            .collect();
        self.store.backend.change_timers(&timers)?;
        let ids = self.store.append(side, &rows, (&keys, &buckets), (&groups, &bases), &mut counts, clock)?;
        let written: Vec<(usize, KeyId)> = ids.iter().copied().enumerate().collect();
        let unmatched: ArrayRef = Arc::new(BooleanArray::from(vec![false; times.len()]));
        self.store.store_notes(side, &written, &time_notes(times.clone(), unmatched)?, clock)?;
        let runs = self.runs_met(side, &keys, &last, &spans, clock)?;
        if !runs.is_empty() {
            let cross = Cross {
                side,
                kinds: None,
                members: Members::new(bases.len(), groups.iter().copied().zip(0u32..)),
                turns: Vec::new(),
                group_times: None,
                runs,
                keys,
                notes: Notes::Times,
                bounds: self.bounds(side),
                has_pairs: true,
                matched: vec![false; times.len()],
                at: Position::default(),
                page: None,
                rows,
            };
            self.work = Some(Work { cross, ids });
        }
        Ok(())
    }

    /// The other side's buckets in which partners may be, of groups of one key and these spans of time.
    fn runs_met(
        &mut self,
        side: usize,
        keys: &[ArrayRef],
        last: &[u32],
        spans: &[(i64, i64)],
        now: i64,
    ) -> Result<Vec<Run>, AggregateError> {
        let (lower, upper) = self.bounds(side);
        let (mut rows, mut buckets, mut groups) = (Vec::new(), Vec::new(), Vec::new());
        for (group, (row, (first, end))) in (0u32..).zip(last.iter().zip(spans)) {
            let first = self.bucket(first.saturating_add(lower));
            let end = self.bucket(end.saturating_add(upper));
            for bucket in first..=end {
                rows.push(*row);
                buckets.push(bucket);
                groups.push(group);
            }
        }
        let mut ids = Vec::new();
        self.store.ids(&gather_all(keys, &rows)?, &buckets, vec![0; rows.len()], &mut ids)?;
        let counts = self.store.counts(1 - side, &ids, now)?;
        let vain: Vec<KeyId> =
            ids.iter().zip(&counts).filter(|(_, count)| **count == 0).map(|(id, _)| *id).collect();
        self.store.backend.forget_empty(&vain);
        let runs = (0..ids.len()).filter(|at| counts[*at] > 0).map(|at| Run {
            id: ids[at],
            key: rows[at],
            bucket: buckets[at],
            count: counts[at],
            group: groups[at],
        });
        Ok(runs.collect())
    }

    /// Goes on with the pairs of rows.
    fn work(&mut self, now: i64, emit: &mut Emit<'_>) -> Result<(), AggregateError> {
        let Some(work) = &mut self.work else { return Ok(()) };
        if work.cross.step(&mut self.store, &self.output, now, emit)? != Fired::Done {
            return Ok(());
        }
        let Some(Work { cross, ids }) = self.work.take() else { return Ok(()) };
        let side = cross.side;
        if !self.output.is_of_interest(side) || !cross.matched.contains(&true) {
            return Ok(());
        }
        let matched: Vec<u32> =
            (0u32..).zip(&cross.matched).filter(|(_, matched)| **matched).map(|(row, _)| row).collect();
        let written: Vec<(usize, KeyId)> =
            matched.iter().map(|row| (*row as usize, ids[*row as usize])).collect();
        if let Some(times) = cross.rows.event_times() {
            let flags: ArrayRef = Arc::new(BooleanArray::from(cross.matched));
            self.store.store_notes(side, &written, &time_notes(times.clone(), flags)?, now)?;
        }
        if self.output.once_with_partner(side) {
            let rows = cross.rows.take(&matched)?;
            let times = rows.event_times().cloned();
            emit(0, self.output.alone(side, rows.rows().columns().to_vec(), matched.len(), times, None)?);
        }
        Ok(())
    }

    /// Goes on with the rows that have come.
    fn advance(&mut self, now: Now, emit: &mut Emit<'_>) -> Result<Fired, AggregateError> {
        if self.work.is_some() {
            self.work(now.processing_time, emit)?;
        } else if let Some(mut coming) = self.coming.take() {
            let side = coming.side;
            let (rows, is_last) = coming.next();
            self.coming = (!is_last).then_some(coming);
            let rows = self.admit(side, &rows, now.watermark, emit)?;
            self.take_rows(side, rows, now)?;
        }
        let is_done = self.work.is_none() && self.coming.is_none();
        Ok(if is_done { Fired::Done } else { Fired::More })
    }

    /// Buckets that are due by a watermark.
    fn take_due(&mut self, watermark: i64) -> Result<Fired, AggregateError> {
        let timers =
            match self.due.next(&mut *self.store.backend, TimeDomain::EventTime, watermark, EXPIRED_MAX)? {
                Due::None(fired) => return Ok(fired),
                Due::Timers(timers) => timers,
            };
        let ids: Vec<KeyId> = timers.iter().map(|(_, id)| *id).collect();
        let mut keys = self.store.backend.keys(&ids)?;
        keys.pop();
        let Some(buckets) = keys.pop() else { return Ok(Fired::Done) };
        let buckets = buckets.as_primitive::<Int64Type>();
        let mut runs = [Vec::new(), Vec::new()];
        for side in [LEFT, RIGHT] {
            let counts = self.store.counts(side, &ids, i64::MIN)?;
            for (at, (id, count)) in ids.iter().zip(counts).enumerate() {
                let bucket = buckets.value(at);
                if count > 0 && self.expiry_of(side, bucket) <= watermark {
                    let at = at as u32;
                    runs[side].push(Run { id: *id, key: at, bucket, count, group: at });
                }
            }
        }
        self.store.backend.forget_empty(&ids);
        let (given, removed) = (Position::default(), Position::default());
        self.expiry = Some(Expiry { keys, runs, side: LEFT, given, removed });
        Ok(Fired::More)
    }

    /// Rows of buckets that are due leave where they have had no partner, and go.
    fn expire(&mut self, now: i64, emit: &mut Emit<'_>) -> Result<(), AggregateError> {
        let Some(Expiry { keys, runs, side, given, removed }) = &mut self.expiry else { return Ok(()) };
        let of_side = &runs[*side];
        if removed.run >= of_side.len() {
            match *side {
                LEFT => (*side, *given, *removed) = (RIGHT, Position::default(), Position::default()),
                _ => self.expiry = None,
            }
            return Ok(());
        }
        if self.output.without_partner(*side) {
            let page = self.store.next_page(*side, keys, of_side, given, PAGE_ROWS, now)?;
            let notes = self.store.notes(*side, &page.ids, now)?;
            let notes = notes.as_struct();
            let (times, matched) =
                (notes.column(0).as_primitive::<Int64Type>(), notes.column(1).as_boolean());
            let alone: Vec<u32> =
                (0..page.ids.len() as u32).filter(|place| !matched.value(*place as usize)).collect();
            if !alone.is_empty() {
                let columns = gather_all(page.rows.columns(), &alone)?;
                let times: ScalarBuffer<i64> =
                    alone.iter().map(|place| times.value(*place as usize)).collect();
                emit(0, self.output.alone(*side, columns, alone.len(), Some(times), None)?);
            }
        }
        self.store.remove_next(*side, keys, of_side, removed, PAGE_ROWS, now)
    }
}

impl KeyedOperator for IntervalJoin {
    fn prefetch(&mut self, input: u32, rows: &Batch, _now: Now) -> Result<Ticket, AggregateError> {
        let times = rows.event_times().ok_or(AggregateError::NoTime)?;
        let buckets: Vec<i64> = times.iter().map(|time| self.bucket(*time)).collect();
        let keys = key_columns(rows, &self.keys[side_of(input)]);
        self.store.prefetch(&keys, &buckets, rows.num_rows())
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
        self.advance(now, emit)
    }

    fn resume(&mut self, now: Now, emit: &mut Emit<'_>) -> Result<Fired, AggregateError> {
        self.advance(now, emit)
    }

    fn fire(&mut self, now: Now, emit: &mut Emit<'_>) -> Result<Fired, AggregateError> {
        if self.expiry.is_some() {
            self.expire(now.processing_time, emit)?;
            return Ok(Fired::More);
        }
        self.take_due(now.watermark)
    }

    fn held_back(&self) -> i64 {
        // A row leaves alone when its bucket goes, or with a partner that comes later than it.
        let of_side =
            |side: usize| match (self.output.without_partner(side), self.output.once_with_partner(side)) {
                (true, _) => self.bounds(side).1.saturating_add(self.width - 1),
                (_, true) => self.bounds(side).1,
                _ => 0,
            };
        of_side(LEFT).max(of_side(RIGHT)).max(0)
    }

    fn take_late(&mut self) -> usize {
        std::mem::take(&mut self.late)
    }
}
