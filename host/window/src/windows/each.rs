//! Windows of which each has a state of its own, by key and the window's end.
//!
//! Source: Flink, `WindowOperator` with event-time, early and processing-time triggers.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMillisecondType;
use arrow_array::{Array, ArrayRef, BooleanArray, StructArray, new_null_array};
use arrow_schema::{DataType, Field, Fields};
use model::Batch;
use model::job_graph::{State, TimeDomain, Trigger, Window};
use state::backend::Ticket;
use state::key_index::KeyId;
use state::{Backend, Grouping, TimerChange};

use super::{Frame, instants, millis};
use crate::AggregateError;
use crate::aggregates::{Aggregates, as_structure};
use crate::change_aggregate::Multiset;
use crate::changes::{Change, changelog};
use crate::grid::WindowGrid;
use crate::operator::{Emit, Fired, KeyedOperator, Now, Setting};
use crate::states::{store_all, value_state};
use crate::timers::{Due, DueTimers};

/// Windows by key, in one subtask.
pub(super) struct EachWindow {
    frame: Frame,
    grid: WindowGrid,
    aggregates: Aggregates,
    /// Of distinct aggregates, by their places.
    multisets: Vec<(usize, Multiset)>,
    /// From one early result to the next, in milliseconds.
    early: Option<i64>,
    /// Whether the window has changed since its last result, then the aggregates' state.
    fields: Fields,
    /// The results that were given last, where they have to be taken back.
    shown: Option<Fields>,
    backend: Box<dyn Backend>,
    grouping: Grouping,
    pending: Option<Prepared>,
    due: DueTimers,
}

/// Rows whose state has been asked for: once for each window that a row is in.
struct Prepared {
    rows: Batch,
    ends: Vec<i64>,
    /// Their keys, and the windows' ends.
    keys: Vec<ArrayRef>,
    late: Option<(Batch, Vec<u32>)>,
    passed: i64,
}

/// The places of the states.
const WINDOWS: u32 = 0;
const SHOWN: u32 = 1;
/// Timers that fire in one call.
const FIRED: usize = 2 * 1024;

impl EachWindow {
    pub(super) fn new(window: &Window, setting: Setting<'_>) -> Result<Self, AggregateError> {
        let input = &setting.inputs[0];
        let frame = Frame::new(window, &setting);
        let aggregates = Aggregates::new(&window.aggregates, input)?;
        let early = match window.trigger {
            Trigger::Early(each) => Some(millis(each)),
            Trigger::AtEnd | Trigger::Count(_) => None,
        };
        let mut fields = vec![Field::new("changed", DataType::Boolean, true)];
        fields.extend(aggregates.state_fields().iter().map(|field| field.as_ref().clone()));
        let fields = Fields::from(fields);
        let is_shown_again = frame.changes && (early.is_some() || frame.lateness > 0);
        let shown = is_shown_again.then(|| -> Fields {
            let results = aggregates.outputs().enumerate();
            results.map(|(at, (data_type, _))| Field::new(format!("r{at}"), data_type, true)).collect()
        });
        let nothing = Fields::empty();
        let mut states: Vec<State> = vec![
            value_state("windows", DataType::Struct(fields.clone())),
            value_state("shown", DataType::Struct(shown.as_ref().unwrap_or(&nothing).clone())),
        ];
        if shown.is_none() {
            states.pop();
        }
        let mut multisets = Vec::new();
        for (place, accumulator) in aggregates.list.iter().enumerate().filter(|(_, a)| a.is_distinct()) {
            let Some(column) = accumulator.column() else { continue };
            // An operator has few states.
            let multiset = Multiset::new(states.len() as u32, column, accumulator, input)?;
            states.push(multiset.state(place));
            multisets.push((place, multiset));
        }
        let backend = (setting.backend)(&frame.timed_key_types(), &states)?;
        Ok(Self {
            grid: WindowGrid::new(&window.assigner)?,
            frame,
            aggregates,
            multisets,
            early,
            fields,
            shown,
            backend,
            grouping: Grouping::default(),
            pending: None,
            due: DueTimers::default(),
        })
    }

    fn timer(&self, key: KeyId, time: i64) -> TimerChange {
        TimerChange { key, domain: self.frame.domain, time, set: true }
    }

    /// Adds rows to their windows.
    fn absorb(&mut self, prepared: &Prepared, now: i64, emit: &mut Emit<'_>) -> Result<(), AggregateError> {
        let (mut ids, mut of_groups) = (Vec::new(), Vec::new());
        self.backend.ids(&prepared.keys, prepared.ends.len(), &mut ids)?;
        let groups = self.grouping.number(&ids, &mut of_groups);
        let loaded = self.backend.load(WINDOWS, &of_groups, now)?;
        self.load(&loaded)?;
        let count = self.aggregates.groups();
        for (place, accumulator) in self.aggregates.list.iter_mut().enumerate() {
            let column = accumulator.column().map(|column| prepared.rows.column(column));
            match (self.multisets.iter_mut().find(|(of, _)| *of == place), column) {
                (Some((_, multiset)), Some(column)) => {
                    let of = (&ids[..], &groups[..], count);
                    multiset.take_rows(&mut *self.backend, accumulator, of, column, None, now)?;
                }
                _ => accumulator.absorb(&groups, count, column)?,
            }
        }
        let mut ends = vec![0; of_groups.len()];
        groups.iter().zip(&prepared.ends).for_each(|(group, end)| ends[*group as usize] = *end);
        let mut timers = Vec::new();
        for (at, (id, end)) in of_groups.iter().zip(&ends).enumerate() {
            if loaded.is_valid(at) {
                continue;
            }
            timers.push(self.timer(*id, end - 1));
            if self.frame.lateness > 0 {
                timers.push(self.timer(*id, self.cleared_at(*end)));
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
        self.backend.change_timers(&timers)?;
        if !over.is_empty() {
            let ids: Vec<KeyId> = over.iter().map(|group| of_groups[*group as usize]).collect();
            let ends: Vec<i64> = over.iter().map(|group| ends[*group as usize]).collect();
            let keys = self.backend.keys(&ids)?;
            let results = self.aggregates.finals()?;
            let results: Vec<ArrayRef> =
                results.iter().map(|column| model::gather(column, &over)).collect::<Result<_, _>>()?;
            self.show(&ids, &ends, &keys, results, now, emit)?;
        }
        Ok(())
    }

    fn load(&mut self, loaded: &ArrayRef) -> Result<(), AggregateError> {
        let state = as_structure(loaded);
        let members = self.aggregates.part(state, state.nulls().cloned())?;
        self.aggregates.load(&members)
    }

    fn store(&mut self, ids: &[KeyId], changed: &[bool], now: i64) -> Result<(), AggregateError> {
        let mut columns: Vec<ArrayRef> = vec![Arc::new(BooleanArray::from(changed.to_vec()))];
        columns.extend(self.aggregates.state_columns()?);
        let values: ArrayRef = Arc::new(StructArray::try_new(self.fields.clone(), columns, None)?);
        Ok(store_all(&mut *self.backend, WINDOWS, ids, &values, now)?)
    }

    /// When a window's state goes.
    fn cleared_at(&self, end: i64) -> i64 {
        (end - 1).saturating_add(self.frame.lateness)
    }

    /// The first early result of a window after an instant.
    fn next_early(&self, end: i64, after: i64) -> Option<i64> {
        let early = self.early?;
        let start = self.grid.window_start(end);
        let passed = after.saturating_sub(start).max(0) / early;
        let time = start.saturating_add(early.checked_mul(passed + 1)?).saturating_sub(1);
        let time = if time <= after { time.saturating_add(early) } else { time };
        (time < end - 1).then_some(time)
    }

    /// Gives the results of these windows, taking back those that were given before.
    fn show(
        &mut self,
        ids: &[KeyId],
        ends: &[i64],
        keys: &[ArrayRef],
        results: Vec<ArrayRef>,
        now: i64,
        emit: &mut Emit<'_>,
    ) -> Result<(), AggregateError> {
        let starts = ends.iter().map(|end| self.grid.window_start(*end)).collect();
        let of_keys = keys[..self.frame.keys.len()].to_vec();
        let rows = self.frame.results(of_keys, starts, ends, results.clone())?;
        let Some(shown) = &self.shown else {
            emit(0, rows);
            return Ok(());
        };
        let loaded = self.backend.load(SHOWN, ids, now)?;
        let before_results = as_structure(&loaded).columns().to_vec();
        let changes: Vec<(u32, Change)> = (0u32..)
            .take(ids.len())
            .map(|at| (at, if loaded.is_valid(at as usize) { Change::Updated } else { Change::Inserted }))
            .collect();
        let after = rows.rows().columns().to_vec();
        let mut before = after[..after.len() - before_results.len()].to_vec();
        before.extend(before_results);
        let times = rows.event_times().map(|times| &times[..]);
        emit(0, changelog(&self.frame.output, &before, &after, &changes, times)?);
        let values: ArrayRef = Arc::new(StructArray::try_new(shown.clone(), results, None)?);
        Ok(store_all(&mut *self.backend, SHOWN, ids, &values, now)?)
    }

    /// Does what timers of windows ask for: an early result, the result, the end of its state.
    fn on_timers(
        &mut self,
        due: &[(i64, KeyId)],
        now: i64,
        emit: &mut Emit<'_>,
    ) -> Result<(), AggregateError> {
        let ids: Vec<KeyId> = due.iter().map(|(_, id)| *id).collect();
        let keys = self.backend.keys(&ids)?;
        let Some(ends) = keys.last() else { return Ok(()) };
        let ends = ends.as_primitive::<TimestampMillisecondType>().values().to_vec();
        let loaded = self.backend.load(WINDOWS, &ids, now)?;
        self.load(&loaded)?;
        let changed = as_structure(&loaded).column(0).as_boolean().clone();
        let (mut shown, mut cleared, mut timers) = (Vec::new(), Vec::new(), Vec::new());
        for (at, ((time, id), end)) in due.iter().zip(&ends).enumerate() {
            let is_there = loaded.is_valid(at);
            // Without lateness the result and the end are one.
            if is_there && *time < *end && changed.is_valid(at) && changed.value(at) {
                shown.push(at as u32);
            }
            if *time >= self.cleared_at(*end) {
                cleared.push(*id);
            } else if *time < *end - 1
                && let Some(next) = self.next_early(*end, *time)
            {
                timers.push(self.timer(*id, next));
            }
        }
        if !shown.is_empty() {
            let pick = |column: &ArrayRef| model::gather(column, &shown);
            let results = self.aggregates.finals()?.iter().map(pick).collect::<Result<Vec<_>, _>>()?;
            let keys = keys.iter().map(pick).collect::<Result<Vec<_>, _>>()?;
            let ids: Vec<KeyId> = shown.iter().map(|at| ids[*at as usize]).collect();
            let of_ends: Vec<i64> = shown.iter().map(|at| ends[*at as usize]).collect();
            self.show(&ids, &of_ends, &keys, results, now, emit)?;
            if cleared.len() < due.len() {
                let state = model::gather(&self.aggregates.state()?, &shown)?;
                self.aggregates.load(as_structure(&state))?;
                self.store(&ids, &vec![false; ids.len()], now)?;
            }
        }
        self.backend.change_timers(&timers)?;
        self.clear(&cleared, now)
    }

    /// Forgets windows.
    fn clear(&mut self, ids: &[KeyId], now: i64) -> Result<(), AggregateError> {
        if ids.is_empty() {
            return Ok(());
        }
        let nothing = new_null_array(&DataType::Struct(self.fields.clone()), ids.len());
        store_all(&mut *self.backend, WINDOWS, ids, &nothing, now)?;
        if let Some(shown) = &self.shown {
            let nothing = new_null_array(&DataType::Struct(shown.clone()), ids.len());
            store_all(&mut *self.backend, SHOWN, ids, &nothing, now)?;
        }
        for (_, multiset) in &self.multisets {
            multiset.clear(&mut *self.backend, ids, now)?;
        }
        self.backend.forget_empty(ids);
        Ok(())
    }

    /// Does what is due by an instant of the windows' clock, bit by bit.
    fn advance(&mut self, passed: i64, now: i64, emit: &mut Emit<'_>) -> Result<Fired, AggregateError> {
        match self.due.next(&mut *self.backend, self.frame.domain, passed, FIRED)? {
            Due::None(fired) => Ok(fired),
            Due::Timers(due) => {
                self.on_timers(&due, now, emit)?;
                Ok(Fired::More)
            }
        }
    }

    /// Each row once for every window that it is in and that is not over: places and the windows' ends.
    /// Then the rows that are in none.
    fn assign(&self, times: &[i64], passed: i64) -> (Vec<u32>, Vec<i64>, Vec<u32>) {
        self.grid.assign(times, |end| self.cleared_at(end) > passed, |_, end| end)
    }
}

impl KeyedOperator for EachWindow {
    fn prefetch(&mut self, _input: u32, rows: &Batch, now: Now) -> Result<Ticket, AggregateError> {
        let passed = self.frame.passed(now);
        let (places, ends, late) = self.assign(&self.frame.times(rows, now)?, passed);
        let is_whole = late.is_empty() && places.len() == rows.num_rows();
        let kept = if is_whole { rows.clone() } else { rows.take(&places)? };
        let mut keys = self.frame.key_columns(&kept);
        keys.push(instants(ends.clone()));
        let ticket = self.backend.prefetch(&keys, kept.num_rows())?;
        let late = (!late.is_empty()).then(|| (rows.clone(), late));
        self.pending = Some(Prepared { rows: kept, ends, keys, late, passed });
        Ok(ticket)
    }

    fn is_ready(&mut self, ticket: Ticket) -> bool {
        self.backend.is_ready(ticket)
    }

    fn process(
        &mut self,
        _input: u32,
        _rows: &Batch,
        now: Now,
        emit: &mut Emit<'_>,
    ) -> Result<Fired, AggregateError> {
        let Some(prepared) = self.pending.take() else { return Ok(Fired::Done) };
        if let Some((rows, places)) = &prepared.late {
            self.frame.on_late(rows, places, emit)?;
        }
        if prepared.rows.num_rows() > 0 {
            self.absorb(&prepared, now.processing_time, emit)?;
        }
        Ok(Fired::Done)
    }

    fn fire(&mut self, now: Now, emit: &mut Emit<'_>) -> Result<Fired, AggregateError> {
        self.advance(self.frame.passed(now), now.processing_time, emit)
    }

    fn next_timer(&self) -> Option<i64> {
        self.backend.next_timer(TimeDomain::ProcessingTime).map(Frame::passes_at)
    }

    fn finish(&mut self, emit: &mut Emit<'_>) -> Result<Fired, AggregateError> {
        self.advance(i64::MAX, i64::MIN, emit)
    }

    fn take_late(&mut self) -> usize {
        std::mem::take(&mut self.frame.late)
    }
}
