//! Windows of which each has a state of its own, by key and the window's end; they fire by the clock.
//!
//! Source: Flink, `WindowOperator` with event-time, early and processing-time triggers.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, BooleanArray};
use arrow_schema::{DataType, Field};
use model::Batch;
use model::job_graph::Window;
use state::backend::Ticket;
use state::key_index::KeyId;
use state::{Backend, Grouping, TimerChange};

use super::kept::{Given, Kept, Prepared, ends_of};
use crate::aggregates::as_structure;
use crate::operator::{Emit, Fired, KeyedOperator, Now, Setting};
use crate::timers::{Due, DueTimers};
use crate::{AggregateError, Standing, Timing};

/// Windows by key, in one subtask.
pub(super) struct EachWindow {
    /// With whether a window has changed since its last result.
    kept: Kept,
    grouping: Grouping,
    pending: Option<Prepared>,
    due: DueTimers,
}

/// Timers that fire in one call.
const FIRED: usize = 2 * 1024;

impl EachWindow {
    pub(super) fn new(window: &Window, setting: Setting<'_>) -> Result<Self, AggregateError> {
        let own = Field::new("changed", DataType::Boolean, true);
        let repeats = !setting.batch || !window.lateness.is_zero();
        Ok(Self {
            kept: Kept::new(window, setting, own, repeats, false)?,
            grouping: Grouping::default(),
            pending: None,
            due: DueTimers::default(),
        })
    }

    fn timer(&self, key: KeyId, time: i64) -> TimerChange {
        TimerChange { key, domain: self.kept.frame.domain, time, set: true }
    }

    /// Adds rows to their windows.
    fn absorb(&mut self, prepared: &Prepared, now: i64, emit: &mut Emit<'_>) -> Result<(), AggregateError> {
        let (mut ids, mut of_groups) = (Vec::new(), Vec::new());
        self.kept.backend.ids(&prepared.keys, prepared.ends.len(), &mut ids)?;
        let groups = self.grouping.number(&ids, &mut of_groups);
        let loaded = self.kept.load(&of_groups, now)?;
        self.kept.absorb(&ids, &groups, &prepared.rows, now)?;
        let mut ends = vec![0; of_groups.len()];
        groups.iter().zip(&prepared.ends).for_each(|(group, end)| ends[*group as usize] = *end);
        let mut timers = Vec::new();
        for (at, (id, end)) in of_groups.iter().zip(&ends).enumerate() {
            if loaded.is_valid(at) {
                continue;
            }
            timers.push(self.timer(*id, end - 1));
            if self.kept.frame.lateness.clock().has_lateness() {
                let cleared = self.kept.frame.lateness.cleared_after(*end, prepared.passed);
                timers.push(self.timer(*id, cleared));
            }
            if let Some(time) = self.next_early(*end, prepared.passed) {
                timers.push(self.timer(*id, time));
            }
        }
        // The result of a window that has ended follows its late rows at once.
        let is_over = |end: &i64| end - 1 <= prepared.passed;
        let over: Vec<u32> =
            (0u32..).zip(&ends).filter(|(_, end)| is_over(end)).map(|(group, _)| group).collect();
        timers.retain(|timer| timer.time > prepared.passed);
        let changed: Vec<bool> = ends.iter().map(|end| !is_over(end)).collect();
        self.store(&of_groups, &changed, now)?;
        self.kept.backend.change_timers(&timers)?;
        if !over.is_empty() {
            let ids: Vec<KeyId> = over.iter().map(|group| of_groups[*group as usize]).collect();
            let keys = self.kept.backend.keys(&ids)?;
            let results = self.kept.aggregates.finals()?;
            let results =
                results.iter().map(|column| model::gather(column, &over)).collect::<Result<_, _>>()?;
            self.kept.show(Given { ids: &ids, keys: &keys, results, times: None }, now, emit)?;
            if self.kept.purging {
                self.kept.clear(&ids, now)?;
            }
        }
        Ok(())
    }

    fn store(&mut self, ids: &[KeyId], changed: &[bool], now: i64) -> Result<(), AggregateError> {
        self.kept.store(ids, Arc::new(BooleanArray::from(changed.to_vec())), now)
    }

    /// The first early result of a window after an instant.
    fn next_early(&self, end: i64, after: i64) -> Option<i64> {
        let early = self.kept.frame.lateness.early().filter(|_| after < end - 1)?;
        let start = self.kept.grid.as_ref()?.window_start(end);
        let passed = after.saturating_sub(start).max(0) / early;
        let time = start.saturating_add(early.checked_mul(passed + 1)?).saturating_sub(1);
        let time = if time <= after { time.saturating_add(early) } else { time };
        (time < end - 1).then_some(time)
    }

    /// Does what timers of windows ask for: an early result, the result, the end of its state. The
    /// clock says that instants up to `passed` have passed.
    fn on_timers(
        &mut self,
        due: &[(i64, KeyId)],
        passed: i64,
        now: i64,
        emit: &mut Emit<'_>,
    ) -> Result<(), AggregateError> {
        let ids: Vec<KeyId> = due.iter().map(|(_, id)| *id).collect();
        let keys = self.kept.backend.keys(&ids)?;
        let ends = ends_of(&keys);
        let loaded = self.kept.load(&ids, now)?;
        let changed = as_structure(&loaded).column(0).as_boolean().clone();
        let (mut shown, mut cleared, mut timers) = (Vec::new(), Vec::new(), Vec::new());
        for (at, ((time, id), end)) in due.iter().zip(&ends).enumerate() {
            let is_there = loaded.is_valid(at);
            // Without lateness the result and the end are one.
            let is_shown = is_there && *time < *end && changed.is_valid(at) && changed.value(at);
            if is_shown {
                shown.push(at as u32);
            }
            if is_shown && self.kept.purging {
                // The next row begins anew, its timers too.
            } else if *time >= self.kept.cleared_at(*end) {
                cleared.push(*id);
            } else if *time >= *end - 1 {
                // It is set, unless by another lateness.
                timers.extend(is_there.then(|| self.timer(*id, self.kept.cleared_at(*end))));
            } else if is_there
                // Until the clock's instant nothing changes any more.
                && let Some(next) = self.next_early(*end, passed.max(*time))
            {
                timers.push(self.timer(*id, next));
            }
        }
        self.kept.backend.change_timers(&timers)?;
        if !shown.is_empty() {
            let pick = |column: &ArrayRef| model::gather(column, &shown);
            let results = self.kept.aggregates.finals()?.iter().map(pick).collect::<Result<Vec<_>, _>>()?;
            let keys = keys.iter().map(pick).collect::<Result<Vec<_>, _>>()?;
            let ids: Vec<KeyId> = shown.iter().map(|at| ids[*at as usize]).collect();
            self.kept.show(Given { ids: &ids, keys: &keys, results, times: None }, now, emit)?;
            if self.kept.purging {
                self.kept.clear(&ids, now)?;
            } else if cleared.len() < due.len() {
                let state = model::gather(&self.kept.aggregates.state()?, &shown)?;
                self.kept.aggregates.load(as_structure(&state))?;
                self.store(&ids, &vec![false; ids.len()], now)?;
            }
        }
        self.kept.clear(&cleared, now)
    }

    /// Sets timers of some windows anew that were set by other times. Whether there may be more.
    fn reset(&mut self) -> Result<bool, AggregateError> {
        let (lateness, backend) = (&mut self.kept.frame.lateness, &mut self.kept.backend);
        let Some((passed, ids)) = lateness.next_resets(&**backend) else { return Ok(false) };
        let had = lateness.with_timers(&ids, &**backend);
        let ids: Vec<KeyId> = had.iter().map(|(id, _)| *id).collect();
        let ends = ends_of(&backend.keys(&ids)?);
        let mut changes = Vec::new();
        for ((id, had), end) in had.iter().zip(ends) {
            let lateness = &self.kept.frame.lateness;
            let mut wanted = vec![lateness.cleared_after(end, passed)];
            wanted.extend(had.contains(&(end - 1)).then_some(end - 1));
            wanted.extend(self.next_early(end, passed));
            lateness.changes(*id, had, &wanted, &mut changes);
        }
        self.kept.backend.change_timers(&changes)?;
        Ok(true)
    }

    /// Does what is due by an instant of the windows' clock, bit by bit.
    fn advance(&mut self, passed: i64, now: i64, emit: &mut Emit<'_>) -> Result<Fired, AggregateError> {
        if self.reset()? {
            return Ok(Fired::More);
        }
        match self.due.next(&mut *self.kept.backend, self.kept.frame.domain, passed, FIRED)? {
            Due::None(fired) => Ok(fired),
            Due::Timers(due) => {
                self.on_timers(&due, passed, now, emit)?;
                Ok(Fired::More)
            }
        }
    }
}

impl KeyedOperator for EachWindow {
    fn prefetch(&mut self, _input: u32, rows: &Batch, now: Now) -> Result<Ticket, AggregateError> {
        let (ticket, prepared) = self.kept.prepare(rows, now)?;
        self.pending = Some(prepared);
        Ok(ticket)
    }

    fn is_ready(&mut self, ticket: Ticket) -> bool {
        self.kept.backend.is_ready(ticket)
    }

    fn process(
        &mut self,
        _input: u32,
        _rows: &Batch,
        now: Now,
        emit: &mut Emit<'_>,
    ) -> Result<Fired, AggregateError> {
        let Some(prepared) = self.pending.take() else { return Ok(Fired::Done) };
        self.kept.on_late(&prepared, emit)?;
        if prepared.rows.num_rows() > 0 {
            self.absorb(&prepared, now.processing_time, emit)?;
        }
        Ok(Fired::Done)
    }

    fn fire(&mut self, now: Now, emit: &mut Emit<'_>) -> Result<Fired, AggregateError> {
        self.advance(self.kept.frame.passed(now), now.processing_time, emit)
    }

    fn next_timer(&self) -> Option<i64> {
        self.kept.next_timer()
    }

    fn change(&mut self, timing: &Timing, now: Now) -> bool {
        self.kept.change_uncounted(timing, now)
    }

    fn standing(&self, now: Now) -> Option<Standing> {
        Some(self.kept.frame.standing(now))
    }

    fn stand(&mut self, standing: Standing) {
        self.kept.frame.lateness.stand(standing);
    }

    fn finish(&mut self, emit: &mut Emit<'_>) -> Result<Fired, AggregateError> {
        self.advance(i64::MAX, i64::MIN, emit)
    }

    fn backend(&mut self) -> Option<&mut dyn Backend> {
        Some(&mut *self.kept.backend)
    }

    fn take_late(&mut self) -> usize {
        std::mem::take(&mut self.kept.frame.late)
    }
}
