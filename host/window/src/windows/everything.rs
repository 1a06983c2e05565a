//! One window for all rows of a key, which has no end: given at the end of the input, and early.
//!
//! Source: Flink, `GlobalWindows` with `ContinuousEventTimeTrigger` and `PurgingTrigger`.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, Int64Array};
use arrow_schema::{DataType, Field};
use model::Batch;
use model::job_graph::{TimeDomain, Window};
use state::backend::Ticket;
use state::key_index::KeyId;
use state::{Grouping, TimerChange};

use super::kept::{Given, Kept, Prepared};
use crate::aggregates::as_structure;
use crate::keys::FinalKeys;
use crate::operator::{Emit, Fired, KeyedOperator, Now, Setting};
use crate::timers::{Due, DueTimers};
use crate::{AggregateError, Standing, Timing};

/// The window of each key, in one subtask.
pub(super) struct Everything {
    /// With the instant of the next result; none where there is nothing new since the last.
    kept: Kept,
    grouping: Grouping,
    pending: Option<Prepared>,
    due: DueTimers,
    finals: FinalKeys,
}

/// Timers that fire, or keys that end, in one call.
const FIRED: usize = 2 * 1024;
/// The instant of a result that comes at the end of the input.
const AT_END: i64 = i64::MAX;

impl Everything {
    pub(super) fn new(window: &Window, setting: Setting<'_>) -> Result<Self, AggregateError> {
        let own = Field::new("due", DataType::Int64, true);
        let repeats = !setting.batch;
        Ok(Self {
            kept: Kept::new(window, setting, own, repeats, false)?,
            grouping: Grouping::default(),
            pending: None,
            due: DueTimers::default(),
            finals: FinalKeys::default(),
        })
    }

    fn absorb(&mut self, prepared: &Prepared, now: Now) -> Result<(), AggregateError> {
        let (mut ids, mut of_groups) = (Vec::new(), Vec::new());
        self.kept.backend.ids(&prepared.keys, prepared.rows.num_rows(), &mut ids)?;
        let groups = self.grouping.number(&ids, &mut of_groups);
        let loaded = self.kept.load(&of_groups, now.processing_time)?;
        self.kept.absorb(&ids, &groups, &prepared.rows, now.processing_time)?;
        let before = as_structure(&loaded).column(0).as_primitive::<Int64Type>();
        let before = |at: usize| (loaded.is_valid(at) && before.is_valid(at)).then(|| before.value(at));
        let mut due = vec![AT_END; of_groups.len()];
        if let Some(early) = self.kept.frame.lateness.early() {
            let first = prepared.passed.saturating_add(1);
            match (self.kept.frame.domain, prepared.rows.event_times()) {
                (TimeDomain::EventTime, Some(times)) => {
                    for (group, time) in groups.iter().zip(times.iter()) {
                        let due = &mut due[*group as usize];
                        *due = (*due).min(*time);
                    }
                    due.iter_mut().for_each(|due| *due = result_after((*due).max(first), early));
                }
                _ => due.fill(result_after(first, early)),
            }
        }
        let mut timers = Vec::new();
        for (at, due) in due.iter_mut().enumerate() {
            let before = before(at);
            let timer = |time: i64, set: bool| TimerChange {
                key: of_groups[at],
                domain: self.kept.frame.domain,
                time,
                set,
            };
            match before {
                Some(before) if before <= *due => *due = before,
                _ => {
                    timers.extend(before.filter(|time| *time < AT_END).map(|time| timer(time, false)));
                    if *due < AT_END {
                        timers.push(timer(*due, true));
                    }
                }
            }
        }
        self.kept.store(&of_groups, Arc::new(Int64Array::from(due)), now.processing_time)?;
        Ok(self.kept.backend.change_timers(&timers)?)
    }

    /// What some keys have new since their last results is given at the next instant by the times that are now.
    /// Whether there may be more keys.
    fn reset(&mut self, now: Now) -> Result<bool, AggregateError> {
        let (lateness, backend) = (&mut self.kept.frame.lateness, &mut self.kept.backend);
        let Some((passed, ids)) = lateness.next_resets(&**backend) else { return Ok(false) };
        let (early, early_before) = (lateness.early(), lateness.early_before());
        let next = |before: i64| match (early, before, passed) {
            (None, ..) | (_, AT_END, i64::MIN) => AT_END,
            (Some(early), AT_END, _) => result_after(passed.saturating_add(1), early),
            // What is new is of that instant or later.
            (Some(early), before, _) => {
                let first = before.saturating_sub(early_before).max(passed).saturating_add(1);
                result_after(first, early)
            }
        };
        let state = self.kept.state(&ids, now.processing_time)?;
        let due = as_structure(&state).column(0).as_primitive::<Int64Type>();
        let is_new = |at: usize| state.is_valid(at) && due.is_valid(at);
        let of = ids.iter().enumerate().filter(|(at, _)| is_new(*at));
        let of: Vec<(KeyId, i64)> = of.map(|(at, id)| (*id, due.value(at))).collect();
        let domain = self.kept.frame.domain;
        let timer = |key, time, set| TimerChange { key, domain, time, set };
        let mut timers = Vec::new();
        for (id, before) in &of {
            let next = next(*before);
            timers.extend((*before < AT_END && next != *before).then(|| timer(*id, *before, false)));
            timers.extend((next < AT_END).then(|| timer(*id, next, true)));
        }
        let ids: Vec<KeyId> = of.iter().map(|(id, _)| *id).collect();
        if !ids.is_empty() {
            self.kept.load(&ids, now.processing_time)?;
            let due: ArrayRef =
                Arc::new(of.iter().map(|(_, before)| Some(next(*before))).collect::<Int64Array>());
            self.kept.store(&ids, due, now.processing_time)?;
        }
        self.kept.backend.change_timers(&timers)?;
        Ok(true)
    }

    /// Gives the results of these keys that have something new: with these times, where they have some.
    fn show(
        &mut self,
        ids: &[KeyId],
        times: Option<&[i64]>,
        now: i64,
        emit: &mut Emit<'_>,
    ) -> Result<(), AggregateError> {
        let state = self.kept.state(ids, now)?;
        let due = as_structure(&state).column(0).as_primitive::<Int64Type>().clone();
        let is_new = |at: &u32| state.is_valid(*at as usize) && due.is_valid(*at as usize);
        let places: Vec<u32> = (0u32..).take(ids.len()).filter(is_new).collect();
        if places.is_empty() {
            return Ok(());
        }
        let ids: Vec<KeyId> = places.iter().map(|at| ids[*at as usize]).collect();
        self.kept.load(&ids, now)?;
        let keys = self.kept.backend.keys(&ids)?;
        let results = self.kept.aggregates.finals()?;
        let times = times.map(|times| places.iter().map(|at| times[*at as usize]).collect());
        self.kept.show(Given { ids: &ids, keys: &keys, results, times }, now, emit)?;
        if self.kept.purging {
            return self.kept.clear(&ids, now);
        }
        let nothing: ArrayRef = Arc::new(Int64Array::new_null(ids.len()));
        self.kept.store(&ids, nothing, now)
    }
}

/// The first early result at an instant or after it: they come in the last millisecond of each
/// interval, counted from the epoch.
fn result_after(instant: i64, early: i64) -> i64 {
    let (instant, early) = (i128::from(instant), i128::from(early));
    let time = (instant.div_euclid(early) + 1) * early - 1;
    i64::try_from(time).unwrap_or(AT_END)
}

impl KeyedOperator for Everything {
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
        _emit: &mut Emit<'_>,
    ) -> Result<Fired, AggregateError> {
        if let Some(prepared) = self.pending.take() {
            self.absorb(&prepared, now)?;
        }
        Ok(Fired::Done)
    }

    fn fire(&mut self, now: Now, emit: &mut Emit<'_>) -> Result<Fired, AggregateError> {
        if self.reset(now)? {
            return Ok(Fired::More);
        }
        let (domain, passed) = (self.kept.frame.domain, self.kept.frame.passed(now));
        match self.due.next(&mut *self.kept.backend, domain, passed, FIRED)? {
            Due::None(fired) => Ok(fired),
            Due::Timers(due) => {
                let ids: Vec<KeyId> = due.iter().map(|(_, id)| *id).collect();
                let times: Vec<i64> = due.iter().map(|(time, _)| *time).collect();
                let times = (domain == TimeDomain::EventTime).then_some(&times[..]);
                self.show(&ids, times, now.processing_time, emit)?;
                Ok(Fired::More)
            }
        }
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
        let Some(ids) = self.finals.next(&*self.kept.backend, FIRED) else { return Ok(Fired::Done) };
        self.show(&ids, None, i64::MIN, emit)?;
        Ok(Fired::More)
    }
}
