//! Windows that fire each so many of their rows, and only then: of time, or one for all rows of a key.
//!
//! Rows of one batch may fill a window many times. The aggregates after each row are made in one pass;
//! where what has been given is forgotten, each run of rows that fill a window is a group of its own.
//! Aggregates that keep their values apart take the rows run by run instead.
//!
//! Source: Flink, `CountTrigger` and `PurgingTrigger`.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, Int64Array};
use arrow_schema::{DataType, Field};
use model::Batch;
use model::job_graph::{Trigger, Window};
use state::backend::Ticket;
use state::key_index::KeyId;
use state::{Grouping, TimerChange};

use super::kept::{Given, Kept, Prepared, ends_of};
use crate::aggregates::as_structure;
use crate::keys::FinalKeys;
use crate::operator::{Emit, Fired, KeyedOperator, Now, Setting};
use crate::timers::{Due, DueTimers};
use crate::{AggregateError, Standing, Timing};

/// Windows by key, in one subtask.
pub(super) struct EachRows {
    /// With how many rows a window has had since its last result.
    kept: Kept,
    each: i64,
    grouping: Grouping,
    pending: Option<Prepared>,
    /// Rows that are taken run by run.
    runs: Option<Runs>,
    due: DueTimers,
    finals: FinalKeys,
}

/// Rows in runs: of each window, the rows that fill it once. First all windows' first runs.
struct Runs {
    prepared: Prepared,
    /// Places of rows, and where each turn's end.
    places: Vec<u32>,
    ends: Vec<usize>,
    turn: usize,
}

/// Timers that fire, or keys that end, in one call.
const FIRED: usize = 2 * 1024;
/// Rows that are taken in one call, about, where they are taken run by run.
const STEP_ROWS: usize = 256;

impl EachRows {
    pub(super) fn new(each: u64, window: &Window, setting: Setting<'_>) -> Result<Self, AggregateError> {
        let own = Field::new("rows", DataType::Int64, true);
        // At the end of the input a table has its last rows only.
        let withheld = setting.batch;
        Ok(Self {
            kept: Kept::new(window, setting, own, true, withheld)?,
            each: i64::try_from(each).unwrap_or(i64::MAX),
            grouping: Grouping::default(),
            pending: None,
            runs: None,
            due: DueTimers::default(),
            finals: FinalKeys::default(),
        })
    }

    /// How many rows windows have had since their last results.
    fn counts(loaded: &ArrayRef) -> Vec<i64> {
        let counts = as_structure(loaded).column(0).as_primitive::<Int64Type>();
        (0..loaded.len()).map(|at| if loaded.is_valid(at) { counts.value(at) } else { 0 }).collect()
    }

    /// Adds rows to their windows, and gives the results of those that they fill.
    fn absorb(&mut self, prepared: Prepared, now: i64, emit: &mut Emit<'_>) -> Result<(), AggregateError> {
        let (mut ids, mut of_groups) = (Vec::new(), Vec::new());
        self.kept.backend.ids(&prepared.keys, prepared.rows.num_rows(), &mut ids)?;
        let groups = self.grouping.number(&ids, &mut of_groups);
        let loaded = self.kept.state(&of_groups, now)?;
        self.set_timers(&prepared, &groups, &of_groups, &loaded)?;
        let mut counts = Self::counts(&loaded);
        if self.kept.has_multisets() || self.kept.aggregates.is_wide() {
            self.runs = Some(Runs::new(prepared, &groups, &counts, self.each));
            return Ok(());
        }
        // Rows that fill a window.
        let mut full: Vec<u32> = Vec::new();
        for (row, group) in (0u32..).zip(&groups) {
            let count = &mut counts[*group as usize];
            *count += 1;
            if *count >= self.each {
                *count = 0;
                full.push(row);
            }
        }
        let pick = |columns: &[ArrayRef], places: &[u32]| -> Result<Vec<ArrayRef>, AggregateError> {
            Ok(columns.iter().map(|column| model::gather(column, places)).collect::<Result<_, _>>()?)
        };
        let state = self.kept.aggregates_of(&loaded)?;
        if full.is_empty() {
            self.kept.aggregates.load(&state)?;
            self.kept.aggregates.absorb(&groups, &prepared.rows)?;
            return self.kept.store(&of_groups, Arc::new(Int64Array::from(counts)), now);
        }
        let results = if self.kept.purging {
            // What follows a row that fills a window is a group of its own.
            let known = of_groups.len() as u32;
            let mut current: Vec<u32> = (0..known).collect();
            let (mut of_rows, mut of_full) = (Vec::with_capacity(groups.len()), Vec::new());
            let (mut next, mut fills) = (known, full.iter().peekable());
            for (row, group) in (0u32..).zip(&groups) {
                let current = &mut current[*group as usize];
                of_rows.push(*current);
                if fills.next_if_eq(&&row).is_some() {
                    of_full.push(*current);
                    *current = next;
                    next += 1;
                }
            }
            self.kept.aggregates.clear(next as usize);
            self.kept.aggregates.merge(&(0..known).collect::<Vec<_>>(), &state)?;
            self.kept.aggregates.absorb(&of_rows, &prepared.rows)?;
            let results = pick(&self.kept.aggregates.finals()?, &of_full)?;
            // Those of which nothing is left go below.
            let left = pick(&self.kept.aggregates.state_columns()?, &current)?;
            self.kept.store_columns(&of_groups, Arc::new(Int64Array::from(counts.clone())), left, now)?;
            results
        } else {
            self.kept.aggregates.load(&state)?;
            let after_each = self.kept.aggregates.running(&groups, &prepared.rows)?;
            self.kept.store(&of_groups, Arc::new(Int64Array::from(counts.clone())), now)?;
            pick(&after_each, &full)?
        };
        let of_full: Vec<KeyId> = full.iter().map(|row| ids[*row as usize]).collect();
        let keys = pick(&prepared.keys, &full)?;
        let times = times_of(&prepared.rows, &full);
        self.kept.show(Given { ids: &of_full, keys: &keys, results, times }, now, emit)?;
        if self.kept.purging {
            let is_gone = |(_, count): &(&KeyId, &i64)| **count == 0;
            let gone: Vec<KeyId> = of_groups.iter().zip(&counts).filter(is_gone).map(|(id, _)| *id).collect();
            self.kept.clear(&gone, now)?;
        }
        Ok(())
    }

    /// When the state of windows that are new goes.
    fn set_timers(
        &mut self,
        prepared: &Prepared,
        groups: &[u32],
        of_groups: &[KeyId],
        loaded: &ArrayRef,
    ) -> Result<(), AggregateError> {
        if prepared.ends.is_empty() || loaded.null_count() == 0 {
            return Ok(());
        }
        let mut ends = vec![0; of_groups.len()];
        groups.iter().zip(&prepared.ends).for_each(|(group, end)| ends[*group as usize] = *end);
        let is_new = |(at, _): &(usize, _)| loaded.is_null(*at);
        let timers: Vec<TimerChange> = of_groups
            .iter()
            .zip(&ends)
            .enumerate()
            .filter(is_new)
            .map(|(_, (id, end))| TimerChange {
                key: *id,
                domain: self.kept.frame.domain,
                time: self.kept.cleared_at(*end),
                set: true,
            })
            .collect();
        Ok(self.kept.backend.change_timers(&timers)?)
    }

    /// Those windows of due timers whose state goes. Others are kept longer by now.
    fn over(&mut self, due: Vec<(i64, KeyId)>) -> Result<Vec<KeyId>, AggregateError> {
        let (mut over, mut timers) = (Vec::with_capacity(due.len()), Vec::new());
        let ids: Vec<KeyId> = due.iter().map(|(_, id)| *id).collect();
        let ends = ends_of(&self.kept.backend.keys(&ids)?);
        for ((time, key), end) in due.into_iter().zip(ends) {
            let cleared = self.kept.cleared_at(end);
            if time >= cleared {
                over.push(key);
            } else {
                timers.push(TimerChange { key, domain: self.kept.frame.domain, time: cleared, set: true });
            }
        }
        self.kept.backend.change_timers(&timers)?;
        Ok(over)
    }

    /// Sets timers of some windows anew that were set by another lateness. Whether there may be more.
    fn reset(&mut self) -> Result<bool, AggregateError> {
        let (lateness, backend) = (&mut self.kept.frame.lateness, &mut self.kept.backend);
        let Some((passed, ids)) = lateness.next_resets(&**backend) else { return Ok(false) };
        // Windows without an end have no timers.
        let had = lateness.with_timers(&ids, &**backend);
        if had.is_empty() {
            return Ok(true);
        }
        let ids: Vec<KeyId> = had.iter().map(|(id, _)| *id).collect();
        let ends = ends_of(&backend.keys(&ids)?);
        let mut changes = Vec::new();
        for ((id, had), end) in had.iter().zip(ends) {
            lateness.changes(*id, had, &[lateness.cleared_after(end, passed)], &mut changes);
        }
        backend.change_timers(&changes)?;
        Ok(true)
    }

    /// Takes the next runs of rows.
    fn go_on(&mut self, now: i64, emit: &mut Emit<'_>) -> Result<Fired, AggregateError> {
        let Some(mut runs) = self.runs.take() else { return Ok(Fired::Done) };
        let mut taken = 0;
        while let Some(places) = runs.next() {
            taken += places.len();
            self.take_run(&runs.prepared, &places, now, emit)?;
            if taken >= STEP_ROWS {
                break;
            }
        }
        if runs.turn == runs.ends.len() {
            return Ok(Fired::Done);
        }
        self.runs = Some(runs);
        Ok(Fired::More)
    }

    /// Takes rows that fill no window more than once.
    fn take_run(
        &mut self,
        prepared: &Prepared,
        places: &[u32],
        now: i64,
        emit: &mut Emit<'_>,
    ) -> Result<(), AggregateError> {
        let rows = prepared.rows.take(places)?;
        let keys: Vec<ArrayRef> =
            prepared.keys.iter().map(|key| model::gather(key, places)).collect::<Result<_, _>>()?;
        let (mut ids, mut of_groups) = (Vec::new(), Vec::new());
        self.kept.backend.ids(&keys, places.len(), &mut ids)?;
        let groups = self.grouping.number(&ids, &mut of_groups);
        let loaded = self.kept.load(&of_groups, now)?;
        self.kept.absorb(&ids, &groups, &rows, now)?;
        let mut counts = Self::counts(&loaded);
        let mut full = Vec::new();
        for (row, group) in (0u32..).zip(&groups) {
            let count = &mut counts[*group as usize];
            *count += 1;
            if *count >= self.each {
                *count = 0;
                full.push(row);
            }
        }
        self.kept.store(&of_groups, Arc::new(Int64Array::from(counts)), now)?;
        if full.is_empty() {
            return Ok(());
        }
        let of_full: Vec<KeyId> = full.iter().map(|row| ids[*row as usize]).collect();
        let of_results: Vec<u32> = full.iter().map(|row| groups[*row as usize]).collect();
        let results = self.kept.aggregates.finals()?;
        let results =
            results.iter().map(|column| model::gather(column, &of_results)).collect::<Result<_, _>>()?;
        let keys: Vec<ArrayRef> =
            keys.iter().map(|key| model::gather(key, &full)).collect::<Result<_, _>>()?;
        let times = times_of(&rows, &full);
        self.kept.show(Given { ids: &of_full, keys: &keys, results, times }, now, emit)?;
        if self.kept.purging {
            self.kept.clear(&of_full, now)?;
        }
        Ok(())
    }
}

/// The event times of rows at these places.
fn times_of(rows: &Batch, places: &[u32]) -> Option<Vec<i64>> {
    rows.event_times().map(|times| places.iter().map(|row| times[*row as usize]).collect())
}

impl Runs {
    fn new(prepared: Prepared, groups: &[u32], counts: &[i64], each: i64) -> Self {
        let mut counts = counts.to_vec();
        let mut turns: Vec<u32> = vec![0; counts.len()];
        let mut of_rows = Vec::with_capacity(groups.len());
        for group in groups {
            let (count, turn) = (&mut counts[*group as usize], &mut turns[*group as usize]);
            of_rows.push(*turn);
            *count += 1;
            if *count >= each {
                *count = 0;
                *turn += 1;
            }
        }
        let mut places: Vec<u32> = (0..groups.len() as u32).collect();
        places.sort_by_key(|row| of_rows[*row as usize]);
        let is_last = |at: &usize| {
            let turn = |at: usize| places.get(at).map(|row| of_rows[*row as usize]);
            turn(*at) != turn(at - 1)
        };
        let ends = (1..=places.len()).filter(is_last).collect();
        Self { prepared, places, ends, turn: 0 }
    }

    fn next(&mut self) -> Option<Vec<u32>> {
        let to = *self.ends.get(self.turn)?;
        let from = if self.turn == 0 { 0 } else { self.ends[self.turn - 1] };
        self.turn += 1;
        Some(self.places[from..to].to_vec())
    }
}

impl KeyedOperator for EachRows {
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
            self.absorb(prepared, now.processing_time, emit)?;
        }
        self.go_on(now.processing_time, emit)
    }

    fn resume(&mut self, now: Now, emit: &mut Emit<'_>) -> Result<Fired, AggregateError> {
        self.go_on(now.processing_time, emit)
    }

    fn fire(&mut self, now: Now, emit: &mut Emit<'_>) -> Result<Fired, AggregateError> {
        if self.reset()? {
            return Ok(Fired::More);
        }
        let (domain, passed) = (self.kept.frame.domain, self.kept.frame.passed(now));
        match self.due.next(&mut *self.kept.backend, domain, passed, FIRED)? {
            Due::None(fired) => Ok(fired),
            Due::Timers(due) => {
                let ids = self.over(due)?;
                self.kept.show_withheld(&ids, now.processing_time, emit)?;
                self.kept.clear(&ids, now.processing_time)?;
                Ok(Fired::More)
            }
        }
    }

    fn next_timer(&self) -> Option<i64> {
        self.kept.next_timer()
    }

    fn change(&mut self, timing: &Timing, now: Now) -> bool {
        let Trigger::Count(each) = timing.trigger else { return false };
        self.each = i64::try_from(each).unwrap_or(i64::MAX);
        self.kept.change(timing, now);
        true
    }

    fn standing(&self, now: Now) -> Option<Standing> {
        Some(self.kept.frame.standing(now))
    }

    fn stand(&mut self, standing: Standing) {
        self.kept.frame.lateness.stand(standing);
    }

    fn finish(&mut self, emit: &mut Emit<'_>) -> Result<Fired, AggregateError> {
        if self.kept.is_withheld() {
            // Also what is left of windows of processing time, which no clock ends any more.
            let Some(ids) = self.finals.next(&*self.kept.backend, FIRED) else { return Ok(Fired::Done) };
            self.kept.show_withheld(&ids, i64::MIN, emit)?;
            return Ok(Fired::More);
        }
        Ok(Fired::Done)
    }

    fn take_late(&mut self) -> usize {
        std::mem::take(&mut self.kept.frame.late)
    }
}
