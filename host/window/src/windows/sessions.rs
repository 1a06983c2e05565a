//! Session windows: closed by a gap without rows, and one where they meet.
//!
//! Source: Flink, `MergingWindowSet`: windows that touch are merged; a row is late when the window that it
//! makes or joins is.

use std::sync::Arc;
use std::time::Duration;

use arrow_array::builder::{BooleanBufferBuilder, Int64Builder};
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, ListArray, StructArray};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::{DataType, Field, FieldRef, Fields};
use model::Batch;
use model::batch::RowKind;
use model::job_graph::{TimeDomain, Window};
use state::backend::Ticket;
use state::key_index::KeyId;
use state::{Backend, Grouping, TimerChange};

use super::{Frame, millis};
use crate::aggregates::Aggregates;
use crate::meeting::{Session, join, root};
use crate::operator::{Emit, Fired, KeyedOperator, Now, Setting};
use crate::states::{store_all, value_state};
use crate::timers::{Due, DueTimers};
use crate::{AggregateError, Standing, Timing};

/// Session windows by key, in one subtask.
pub(super) struct Sessions {
    frame: Frame,
    /// In milliseconds.
    gap: i64,
    aggregates: Aggregates,
    /// A session: its start and end, then the aggregates' state. A key's state is a list of them.
    fields: Fields,
    item: FieldRef,
    backend: Box<dyn Backend>,
    grouping: Grouping,
    passed: i64,
    due: DueTimers,
}

/// The sessions of the keys at hand, in order of time, and what they were before.
struct Loaded {
    of_keys: Vec<Vec<Session>>,
    state: StructArray,
}

const FIRED: usize = 2 * 1024;

impl Sessions {
    pub(super) fn new(gap: Duration, window: &Window, setting: Setting<'_>) -> Result<Self, AggregateError> {
        super::check_aggregates(window, &setting.inputs[0])?;
        let frame = Frame::new(window, &setting);
        let aggregates = Aggregates::new(&window.aggregates, &setting.inputs[0])?;
        let mut fields: Vec<Field> =
            ["start", "end"].map(|name| Field::new(name, DataType::Int64, false)).into();
        fields.extend(aggregates.state_fields().iter().map(|field| field.as_ref().clone()));
        let fields = Fields::from(fields);
        let item = Arc::new(Field::new("item", DataType::Struct(fields.clone()), false));
        let list = DataType::List(Arc::clone(&item));
        let backend = (setting.backend)(&frame.key_types, &[value_state("sessions", list)])?;
        Ok(Self {
            frame,
            gap: millis(gap),
            aggregates,
            fields,
            item,
            backend,
            grouping: Grouping::default(),
            passed: i64::MIN,
            due: DueTimers::default(),
        })
    }

    fn load(&mut self, ids: &[KeyId], now: i64) -> Result<Loaded, AggregateError> {
        let loaded = self.backend.load(0, ids, now)?;
        let lists = loaded.as_list::<i32>();
        let state = lists.values().as_struct().clone();
        let (starts, ends) =
            (state.column(0).as_primitive::<Int64Type>(), state.column(1).as_primitive::<Int64Type>());
        let offsets = lists.value_offsets();
        let of_key = |row: usize| -> Vec<Session> {
            if lists.is_null(row) {
                return Vec::new();
            }
            // Sessions of a call are fewer than 2^31.
            (offsets[row]..offsets[row + 1])
                .map(|at| Session {
                    start: starts.value(at as usize),
                    end: ends.value(at as usize),
                    group: at as u32,
                    is_changed: false,
                })
                .collect()
        };
        let of_keys = (0..ids.len()).map(of_key).collect();
        Ok(Loaded { of_keys, state })
    }

    fn store(&mut self, ids: &[KeyId], of_keys: &[Vec<Session>], now: i64) -> Result<(), AggregateError> {
        let sessions: Vec<&Session> = of_keys.iter().flatten().collect();
        let groups: Vec<u32> = sessions.iter().map(|session| session.group).collect();
        let (mut starts, mut ends) = (Int64Builder::new(), Int64Builder::new());
        for session in &sessions {
            starts.append_value(session.start);
            ends.append_value(session.end);
        }
        let mut columns: Vec<ArrayRef> = vec![Arc::new(starts.finish()), Arc::new(ends.finish())];
        for column in self.aggregates.state_columns()? {
            columns.push(model::gather(&column, &groups)?);
        }
        let items = StructArray::try_new(self.fields.clone(), columns, None)?;
        let mut present = BooleanBufferBuilder::new(of_keys.len());
        of_keys.iter().for_each(|sessions| present.append(!sessions.is_empty()));
        let offsets = OffsetBuffer::<i32>::from_lengths(of_keys.iter().map(Vec::len));
        let nulls = NullBuffer::new(present.finish());
        let lists: ArrayRef =
            Arc::new(ListArray::try_new(Arc::clone(&self.item), offsets, Arc::new(items), Some(nulls))?);
        Ok(store_all(&mut *self.backend, 0, ids, &lists, now)?)
    }

    fn timer(&self, key: KeyId, time: i64, set: bool) -> TimerChange {
        TimerChange { key, domain: self.frame.domain, time, set }
    }

    /// When a session's state goes.
    fn cleared_at(&self, end: i64) -> i64 {
        self.frame.lateness.clock().cleared_at(end)
    }

    /// Gives results of sessions: `(key's place, start, end, group)`, of this kind of row.
    fn show(
        &self,
        ids: &[KeyId],
        shown: &[(u32, i64, i64, u32)],
        kind: RowKind,
        emit: &mut Emit<'_>,
    ) -> Result<(), AggregateError> {
        if shown.is_empty() {
            return Ok(());
        }
        let of: Vec<KeyId> = shown.iter().map(|(at, ..)| ids[*at as usize]).collect();
        let keys = self.backend.keys(&of)?;
        let groups: Vec<u32> = shown.iter().map(|(.., group)| *group).collect();
        let results = self.aggregates.finals()?;
        let results =
            results.iter().map(|column| model::gather(column, &groups)).collect::<Result<_, _>>()?;
        let starts = shown.iter().map(|(_, start, ..)| *start).collect();
        let ends: Vec<i64> = shown.iter().map(|(_, _, end, _)| *end).collect();
        let rows = self.frame.results(keys, starts, &ends, results)?;
        let kinds = (kind != RowKind::Insert).then(|| vec![kind as u8; shown.len()].into());
        emit(0, rows.with_kinds(kinds));
        Ok(())
    }

    fn absorb(&mut self, rows: &Batch, now: Now, emit: &mut Emit<'_>) -> Result<(), AggregateError> {
        let (passed, clock) = (self.passed, now.processing_time);
        let times = match self.frame.domain {
            // The time at which they were asked for.
            TimeDomain::ProcessingTime => vec![Frame::passes_at(passed); rows.num_rows()].into(),
            TimeDomain::EventTime => self.frame.times(rows, now)?,
        };
        let (mut ids, mut of_groups) = (Vec::new(), Vec::new());
        self.backend.ids(&self.frame.key_columns(rows), rows.num_rows(), &mut ids)?;
        let of_rows = self.grouping.number(&ids, &mut of_groups);
        let Loaded { mut of_keys, state } = self.load(&of_groups, clock)?;
        let cleared = self.cleared_by(passed);
        if self.frame.domain == TimeDomain::EventTime {
            // All that was due has fired; those that have gone by another lateness may be there for a moment.
            of_keys.iter_mut().for_each(|sessions| sessions.retain(|session| session.end > cleared));
        }
        let before = of_keys.clone();
        // The session of each row, by a number that merged ones share in the end.
        let mut merged: Vec<u32> = (0..state.len() as u32).collect();
        let (mut row_sessions, mut kept, mut late) = (Vec::new(), Vec::new(), Vec::new());
        for ((row, time), key) in (0u32..).zip(times.iter()).zip(&of_rows) {
            let sessions = &mut of_keys[*key as usize];
            match join(sessions, *time, self.gap, cleared, &mut merged) {
                Some(number) => {
                    row_sessions.push(number);
                    kept.push(row);
                }
                None => late.push(row),
            }
        }
        if self.frame.changes {
            self.take_back(&of_groups, &before, &of_keys, &state, emit)?;
        }
        self.frame.on_late(rows, &late, emit)?;
        // Sessions get their groups, in their order; then all that is in them.
        let mut groups = vec![u32::MAX; merged.len()];
        let mut count = 0;
        for session in of_keys.iter_mut().flatten() {
            groups[session.group as usize] = count;
            session.group = count;
            count += 1;
        }
        // Those that have gone are all in one, which nobody asks for.
        let group_of = |number: u32| groups[root(&merged, number) as usize].min(count);
        self.aggregates.clear(count as usize + 1);
        let loaded: Vec<u32> = (0..state.len() as u32).map(group_of).collect();
        self.aggregates.merge(&loaded, &self.aggregates.part(&state, None)?)?;
        let of_rows: Vec<u32> = row_sessions.into_iter().map(group_of).collect();
        let rows = if late.is_empty() { rows.clone() } else { rows.take(&kept)? };
        self.aggregates.absorb(&of_rows, &rows)?;
        self.store(&of_groups, &of_keys, clock)?;
        self.set_timers(&of_groups, &before, &of_keys)?;
        let mut shown = Vec::new();
        for (at, sessions) in (0u32..).zip(&of_keys) {
            for session in sessions.iter().filter(|session| session.is_changed && session.end - 1 <= passed) {
                shown.push((at, session.start, session.end, session.group));
            }
        }
        self.show(&of_groups, &shown, RowKind::Insert, emit)?;
        self.backend.forget_empty(&of_groups);
        Ok(())
    }

    /// A session that ends up to this instant has gone.
    fn cleared_by(&self, passed: i64) -> i64 {
        self.frame.lateness.clock().cleared_by(passed)
    }

    /// Takes back results of sessions that have become others.
    fn take_back(
        &mut self,
        ids: &[KeyId],
        before: &[Vec<Session>],
        after: &[Vec<Session>],
        state: &StructArray,
        emit: &mut Emit<'_>,
    ) -> Result<(), AggregateError> {
        let mut shown = Vec::new();
        for ((at, before), after) in (0u32..).zip(before).zip(after) {
            for session in before.iter().filter(|session| session.end - 1 <= self.passed) {
                if !after.contains(session) {
                    shown.push((at, session.start, session.end, session.group));
                }
            }
        }
        if shown.is_empty() {
            return Ok(());
        }
        self.aggregates.load(&self.aggregates.part(state, None)?)?;
        self.show(ids, &shown, RowKind::Delete, emit)
    }

    /// Moves the timers of sessions whose ends have moved.
    fn set_timers(
        &mut self,
        ids: &[KeyId],
        before: &[Vec<Session>],
        after: &[Vec<Session>],
    ) -> Result<(), AggregateError> {
        let mut timers = Vec::new();
        // One session's end may be the other's last instant.
        let times = |sessions: &[Session]| -> Vec<i64> {
            let both = |session: &Session| [session.end - 1, self.cleared_at(session.end)];
            let mut times: Vec<i64> = sessions.iter().flat_map(both).collect();
            times.sort_unstable();
            times.dedup();
            times
        };
        for ((id, before), after) in
            ids.iter().zip(before).zip(after).filter(|((_, before), after)| before != after)
        {
            let (before, after) = (times(before), times(after));
            let less = before.iter().filter(|time| !after.contains(time));
            timers.extend(less.map(|time| self.timer(*id, *time, false)));
            // Those of before may be set by another lateness.
            timers.extend(after.iter().map(|time| self.timer(*id, *time, true)));
        }
        timers.retain(|timer| !timer.set || timer.time > self.passed);
        Ok(self.backend.change_timers(&timers)?)
    }

    /// Gives the results of sessions that end, and forgets those whose time is over.
    fn on_timers(
        &mut self,
        due: &[(i64, KeyId)],
        now: i64,
        emit: &mut Emit<'_>,
    ) -> Result<(), AggregateError> {
        let ids: Vec<KeyId> = due.iter().map(|(_, id)| *id).collect();
        let Loaded { mut of_keys, state } = self.load(&ids, now)?;
        self.aggregates.load(&self.aggregates.part(&state, None)?)?;
        let mut shown = Vec::new();
        let mut is_less = false;
        for ((at, (time, _)), sessions) in (0u32..).zip(due).zip(&mut of_keys) {
            for session in sessions.iter().filter(|session| session.end - 1 == *time) {
                shown.push((at, session.start, session.end, session.group));
            }
            let length = sessions.len();
            sessions.retain(|session| self.cleared_at(session.end) > *time);
            is_less |= sessions.len() < length;
        }
        self.show(&ids, &shown, RowKind::Insert, emit)?;
        // Those of sessions that are kept are set, unless by another lateness.
        let mut timers = Vec::new();
        for ((time, id), sessions) in due.iter().zip(&of_keys) {
            let ended = sessions.iter().filter(|session| session.end - 1 <= *time);
            timers.extend(ended.map(|session| self.timer(*id, self.cleared_at(session.end), true)));
        }
        self.backend.change_timers(&timers)?;
        if is_less {
            self.store(&ids, &of_keys, now)?;
        }
        self.backend.forget_empty(&ids);
        Ok(())
    }

    /// Sets timers of some keys anew that were set by another lateness. Whether there may be more.
    fn reset(&mut self, now: i64) -> Result<bool, AggregateError> {
        let lateness = &mut self.frame.lateness;
        let Some((passed, ids)) = lateness.next_resets(&*self.backend) else { return Ok(false) };
        let had = lateness.with_timers(&ids, &*self.backend);
        let ids: Vec<KeyId> = had.iter().map(|(id, _)| *id).collect();
        let Loaded { of_keys, .. } = self.load(&ids, now)?;
        let (lateness, mut changes) = (&self.frame.lateness, Vec::new());
        for ((id, had), sessions) in had.iter().zip(&of_keys) {
            let ends = sessions.iter().map(|session| session.end);
            let mut wanted: Vec<i64> = ends.clone().map(|end| lateness.cleared_after(end, passed)).collect();
            wanted.extend(ends.map(|end| end - 1).filter(|time| had.contains(time)));
            lateness.changes(*id, had, &wanted, &mut changes);
        }
        self.backend.change_timers(&changes)?;
        self.backend.forget_empty(&ids);
        Ok(true)
    }

    /// Does what is due by an instant of the windows' clock, bit by bit.
    fn advance(&mut self, passed: i64, now: i64, emit: &mut Emit<'_>) -> Result<Fired, AggregateError> {
        if self.reset(now)? {
            return Ok(Fired::More);
        }
        match self.due.next(&mut *self.backend, self.frame.domain, passed, FIRED)? {
            Due::None(fired) => Ok(fired),
            Due::Timers(due) => {
                self.on_timers(&due, now, emit)?;
                Ok(Fired::More)
            }
        }
    }
}

impl KeyedOperator for Sessions {
    fn prefetch(&mut self, _input: u32, rows: &Batch, now: Now) -> Result<Ticket, AggregateError> {
        self.passed = self.frame.passed(now);
        Ok(self.backend.prefetch(&self.frame.key_columns(rows), rows.num_rows())?)
    }

    fn is_ready(&mut self, ticket: Ticket) -> bool {
        self.backend.is_ready(ticket)
    }

    fn process(
        &mut self,
        _input: u32,
        rows: &Batch,
        now: Now,
        emit: &mut Emit<'_>,
    ) -> Result<Fired, AggregateError> {
        self.absorb(rows, now, emit)?;
        Ok(Fired::Done)
    }

    fn fire(&mut self, now: Now, emit: &mut Emit<'_>) -> Result<Fired, AggregateError> {
        self.advance(self.frame.passed(now), now.processing_time, emit)
    }

    fn next_timer(&self) -> Option<i64> {
        self.frame.next_timer(&*self.backend)
    }

    fn change(&mut self, timing: &Timing, now: Now) -> bool {
        self.frame.change(timing, now);
        true
    }

    fn standing(&self, now: Now) -> Option<Standing> {
        Some(self.frame.standing(now))
    }

    fn stand(&mut self, standing: Standing) {
        self.frame.lateness.stand(standing);
    }

    fn finish(&mut self, emit: &mut Emit<'_>) -> Result<Fired, AggregateError> {
        self.advance(i64::MAX, i64::MIN, emit)
    }

    fn backend(&mut self) -> Option<&mut dyn Backend> {
        Some(&mut *self.backend)
    }

    fn take_late(&mut self) -> usize {
        std::mem::take(&mut self.frame.late)
    }
}
