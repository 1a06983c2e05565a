//! Sliding and cumulating windows out of shared slices.
//!
//! Time is cut at every edge of a window; a row goes into the one slice that it is in. A key has a total
//! that goes from window to window: what comes in is added, what goes out is taken away where the
//! aggregates can (else the window's slices are added anew). So a row costs one change of a slice, and
//! a result two, however many windows a row is in.
//!
//! Source: "No pane, no gain" (Li et al., SIGMOD Record 2005), paired windows (Krishnamurthy et al.,
//! SIGMOD 2006); Flink, `SliceSharedWindowAggProcessor`.

pub(crate) mod edges;

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, Int64Array, StructArray, new_null_array};
use arrow_schema::{DataType, Field, Fields};
use model::Batch;
use model::job_graph::{TimeDomain, Trigger, Window};
use state::backend::Ticket;
use state::key_index::KeyId;
use state::{Backend, Grouping, TimerChange};

use super::{Frame, instants};
use crate::aggregates::{Aggregates, as_structure};
use crate::operator::{Emit, Fired, KeyedOperator, Now, Setting};
use crate::states::{store_all, value_state};
use crate::timers::{Due, DueTimers};
use crate::{AggregateError, Timing};
use edges::Edges;

/// Sliding or cumulating windows by key, in one subtask.
pub(super) struct Sliced {
    frame: Frame,
    edges: Edges,
    /// Of the rows at hand; of the totals.
    slices: Aggregates,
    totals: Aggregates,
    is_invertible: bool,
    /// By key and the slice's end: its aggregates.
    of_slices: Box<dyn Backend>,
    /// By key: [`Chain`] and the total; timers of windows.
    of_keys: Box<dyn Backend>,
    fields: Fields,
    grouping: Grouping,
    pending: Option<Prepared>,
    due: DueTimers,
    firing: Option<Firing>,
}

/// Rows whose state has been asked for.
struct Prepared {
    tickets: (Ticket, Ticket),
    /// Those that are not late.
    rows: Batch,
    /// Their slices' ends.
    ends: Vec<i64>,
    keys: Vec<ArrayRef>,
    /// Their keys, and the slices' ends.
    timed: Vec<ArrayRef>,
    late: Option<(Batch, Vec<u32>)>,
    /// Windows up to this instant have fired.
    passed: i64,
}

/// Where a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Chain {
    /// The window whose end this is has fired last, and the total is that window's; none = there is no total.
    fired: Option<i64>,
    /// The end of the last slice that has rows in the total.
    last: i64,
    /// The end of the first slice that has rows, while there is no total; the least instant where that is
    /// not known.
    first: i64,
    /// The end of the last slice that has ever had rows.
    ahead: i64,
}

/// Windows that fire in one call.
const FIRED: usize = 2 * 1024;

impl Sliced {
    pub(super) fn new(window: &Window, setting: Setting<'_>) -> Result<Self, AggregateError> {
        let frame = Frame::new(window, &setting);
        let slices = setting.aggregates(&window.aggregates)?;
        let totals = setting.aggregates(&window.aggregates)?;
        let mut fields: Vec<Field> =
            ["fired", "last", "first", "ahead"].map(|name| Field::new(name, DataType::Int64, true)).into();
        fields.extend(totals.state_fields().iter().map(|field| field.as_ref().clone()));
        let fields = Fields::from(fields);
        let of_slices =
            (setting.backend)(&frame.timed_key_types(), &[value_state("slices", slices.state_type())])?;
        let of_keys =
            (setting.backend)(&frame.key_types, &[value_state("totals", DataType::Struct(fields.clone()))])?;
        Ok(Self {
            edges: Edges::of(&window.assigner),
            is_invertible: slices.is_invertible(),
            frame,
            slices,
            totals,
            of_slices,
            of_keys,
            fields,
            grouping: Grouping::default(),
            pending: None,
            due: DueTimers::default(),
            firing: None,
        })
    }

    /// Adds rows to their slices. The slices that are new, as places of `rows`; and each row's slice.
    fn absorb(&mut self, prepared: &Prepared, now: i64) -> Result<(Vec<u32>, Vec<KeyId>), AggregateError> {
        let (mut ids, mut of_groups) = (Vec::new(), Vec::new());
        self.of_slices.ids(&prepared.timed, prepared.ends.len(), &mut ids)?;
        let groups = self.grouping.number(&ids, &mut of_groups);
        let loaded = self.of_slices.load(0, &of_groups, now)?;
        self.slices.load(as_structure(&loaded))?;
        self.slices.absorb(&groups, &prepared.rows)?;
        let state = self.slices.state()?;
        store_all(&mut *self.of_slices, 0, &of_groups, &state, now)?;
        if loaded.null_count() == 0 {
            return Ok((Vec::new(), ids));
        }
        let mut is_told: Vec<bool> = (0..of_groups.len()).map(|group| loaded.is_valid(group)).collect();
        let mut is_new = |group: u32| !std::mem::replace(&mut is_told[group as usize], true);
        let new = (0u32..).zip(&groups).filter(|(_, group)| is_new(**group)).map(|(row, _)| row).collect();
        Ok((new, ids))
    }

    /// Begins the chains of keys that have new slices, and adds rows to the totals that have passed them.
    fn follow(
        &mut self,
        prepared: &Prepared,
        new: &[u32],
        slices: &[KeyId],
        now: i64,
    ) -> Result<(), AggregateError> {
        let passed = prepared.passed;
        // Rows of slices whose first windows have fired may belong to a total.
        let behind: Vec<u32> =
            (0u32..).zip(&prepared.ends).filter(|(_, end)| **end - 1 <= passed).map(|(row, _)| row).collect();
        let mut places = new.to_vec();
        places.extend(&behind);
        if places.is_empty() {
            return Ok(());
        }
        let pick = |places: &[u32]| -> Result<Vec<ArrayRef>, AggregateError> {
            Ok(prepared.keys.iter().map(|key| model::gather(key, places)).collect::<Result<_, _>>()?)
        };
        let (mut ids, mut of_groups) = (Vec::new(), Vec::new());
        self.of_keys.ids(&pick(&places)?, places.len(), &mut ids)?;
        let groups = self.grouping.number(&ids, &mut of_groups);
        let loaded = self.of_keys.load(0, &of_groups, now)?;
        let mut chains = chains_of(&loaded);
        let mut timers = Vec::new();
        for (at, place) in new.iter().enumerate() {
            let end = prepared.ends[*place as usize];
            let chain = &mut chains[groups[at] as usize];
            (chain.first, chain.ahead) = (chain.first.min(end), chain.ahead.max(end));
            let window = self.edges.first_window(end, passed);
            timers.push(self.timer(ids[at], window));
        }
        self.load_totals(&loaded, &chains)?;
        if !behind.is_empty() {
            let of_total: Vec<usize> = (new.len()..places.len())
                .filter(|at| {
                    let chain = &chains[groups[*at] as usize];
                    chain
                        .fired
                        .is_some_and(|fired| self.edges.is_within(prepared.ends[places[*at] as usize], fired))
                })
                .collect();
            let rows: Vec<u32> = of_total.iter().map(|at| places[*at]).collect();
            let of_rows: Vec<u32> = of_total.iter().map(|at| groups[*at]).collect();
            self.totals.absorb(&of_rows, &prepared.rows.take(&rows)?)?;
            for (row, group) in rows.iter().zip(&of_rows) {
                let chain = &mut chains[*group as usize];
                chain.last = chain.last.max(prepared.ends[*row as usize]);
            }
            // What is in a cumulating total is never taken away: the slice is not needed.
            if self.edges.is_cumulating {
                let mut gone: Vec<KeyId> = rows.iter().map(|row| slices[*row as usize]).collect();
                gone.sort_unstable();
                gone.dedup();
                self.forget_slices(&gone, now)?;
            }
        }
        self.store_chains(&of_groups, &chains, now)?;
        Ok(self.of_keys.change_timers(&timers)?)
    }

    fn timer(&self, key: KeyId, window: i64) -> TimerChange {
        TimerChange { key, domain: self.frame.domain, time: window - 1, set: true }
    }

    /// The totals of these chains; what a chain without one has does not count.
    fn load_totals(&mut self, loaded: &ArrayRef, chains: &[Chain]) -> Result<(), AggregateError> {
        let has_total: Vec<bool> = chains.iter().map(|chain| chain.fired.is_some()).collect();
        let members = self.totals.part(as_structure(loaded), Some(has_total.into()))?;
        self.totals.load(&members)
    }

    fn store_chains(&mut self, ids: &[KeyId], chains: &[Chain], now: i64) -> Result<(), AggregateError> {
        let column = |of: &dyn Fn(&Chain) -> Option<i64>| -> ArrayRef {
            Arc::new(chains.iter().map(of).collect::<Int64Array>())
        };
        let mut columns = vec![
            column(&|chain| chain.fired),
            column(&|chain| Some(chain.last)),
            column(&|chain| Some(chain.first)),
            column(&|chain| Some(chain.ahead)),
        ];
        columns.extend(self.totals.state_columns()?);
        let present: Vec<bool> = chains.iter().map(|chain| *chain != Chain::NONE).collect();
        let nulls = present.contains(&false).then(|| present.into());
        let values: ArrayRef = Arc::new(StructArray::try_new(self.fields.clone(), columns, nulls)?);
        Ok(store_all(&mut *self.of_keys, 0, ids, &values, now)?)
    }

    /// Which slices the windows that are due take in, and which are gone after them.
    fn plan(&mut self, due: Vec<(i64, KeyId)>, now: i64) -> Result<Firing, AggregateError> {
        let ids: Vec<KeyId> = due.iter().map(|(_, id)| *id).collect();
        let ends: Vec<i64> = due.iter().map(|(at, _)| at + 1).collect();
        let keys = self.of_keys.keys(&ids)?;
        let loaded = self.of_keys.load(0, &ids, now)?;
        let chains = chains_of(&loaded);
        let (mut added, mut removed) = (Lookup::default(), Lookup::default());
        let edges = &self.edges;
        for (at, (chain, end)) in (0u32..).zip(chains.iter().zip(&ends)) {
            let start = edges.window_start(*end);
            let from = match chain.fired {
                Some(fired) => {
                    if !edges.is_cumulating {
                        removed.slices(at, edges, edges.window_start(fired), start);
                    }
                    if self.is_invertible || edges.is_cumulating { fired } else { start }
                }
                None if chain.first == i64::MIN => start,
                None => edges.before(chain.first).max(start),
            };
            added.slices(at, edges, from, *end);
        }
        // Also those that go where this was a key's last window.
        let mut all = Lookup {
            of: [&added.of[..], &removed.of].concat(),
            ends: [&added.ends[..], &removed.ends].concat(),
        };
        if !edges.is_cumulating {
            for (at, end) in (0u32..).zip(&ends) {
                all.slices(at, edges, edges.window_start(*end), edges.window_start(end + edges.step));
            }
        }
        let ticket = self.of_slices.prefetch(&all.columns(&keys)?, all.of.len())?;
        Ok(Firing { ticket, ids, ends, keys, loaded, chains, added, removed })
    }

    /// Fires windows whose state is near.
    fn fire_windows(&mut self, firing: Firing, now: i64, emit: &mut Emit<'_>) -> Result<(), AggregateError> {
        let Firing { ids, ends, keys, loaded, mut chains, added, removed, .. } = firing;
        if self.is_invertible || self.edges.is_cumulating {
            self.load_totals(&loaded, &chains)?;
        } else {
            self.totals.clear(ids.len());
        }
        let (added_ids, values) = added.load(&mut *self.of_slices, &keys, now)?;
        self.totals.merge(&added.of, as_structure(&values))?;
        for (row, (at, end)) in added.of.iter().zip(&added.ends).enumerate() {
            let chain = &mut chains[*at as usize];
            if values.is_valid(row) {
                chain.last = chain.last.max(*end);
            }
        }
        let (removed_ids, values) = removed.load(&mut *self.of_slices, &keys, now)?;
        if self.is_invertible {
            self.totals.unmerge(&removed.of, as_structure(&values))?;
        }
        self.emit_results(&ends, &chains, &keys, emit)?;
        // What no window needs any more.
        let mut gone = removed_ids;
        if self.edges.is_cumulating {
            gone.extend(added_ids);
        }
        let mut rest = Lookup::default();
        let mut timers = Vec::new();
        for (at, (chain, end)) in (0u32..).zip(chains.iter_mut().zip(&ends)) {
            let (start, next) = (self.edges.window_start(*end), end + self.edges.step);
            let next_start = self.edges.window_start(next);
            let goes_on = if self.edges.is_cumulating {
                next_start == start && chain.last > start
            } else {
                chain.last > next_start
            };
            if goes_on {
                (chain.fired, chain.first) = (Some(*end), i64::MAX);
                timers.push(self.timer(ids[at as usize], next));
            } else {
                let is_ahead = chain.ahead > *end;
                *chain = match is_ahead {
                    true => Chain { first: i64::MIN, ahead: chain.ahead, ..Chain::NONE },
                    false => Chain::NONE,
                };
                if !self.edges.is_cumulating {
                    rest.slices(at, &self.edges, start, next_start);
                }
            }
        }
        if !rest.of.is_empty() {
            let (rest_ids, _) = rest.load(&mut *self.of_slices, &keys, now)?;
            gone.extend(rest_ids);
        }
        self.forget_slices(&gone, now)?;
        self.store_chains(&ids, &chains, now)?;
        self.of_keys.change_timers(&timers)?;
        self.of_keys.forget_empty(&ids);
        Ok(())
    }

    /// Gives the results of the windows in which there are rows.
    fn emit_results(
        &self,
        ends: &[i64],
        chains: &[Chain],
        keys: &[ArrayRef],
        emit: &mut Emit<'_>,
    ) -> Result<(), AggregateError> {
        let has_rows = |at: &u32| chains[*at as usize].last > self.edges.window_start(ends[*at as usize]);
        let places: Vec<u32> = (0u32..).take(ends.len()).filter(has_rows).collect();
        let pick = |columns: &[ArrayRef]| -> Result<Vec<ArrayRef>, AggregateError> {
            if places.len() == ends.len() {
                return Ok(columns.to_vec());
            }
            Ok(columns.iter().map(|column| model::gather(column, &places)).collect::<Result<_, _>>()?)
        };
        if places.is_empty() {
            return Ok(());
        }
        let ends: Vec<i64> = places.iter().map(|at| ends[*at as usize]).collect();
        let starts = ends.iter().map(|end| self.edges.window_start(*end)).collect();
        let results = pick(&self.totals.finals()?)?;
        emit(0, self.frame.results(pick(keys)?, starts, &ends, results)?);
        Ok(())
    }

    fn forget_slices(&mut self, gone: &[KeyId], now: i64) -> Result<(), AggregateError> {
        if gone.is_empty() {
            return Ok(());
        }
        let nothing = new_null_array(&self.slices.state_type(), gone.len());
        store_all(&mut *self.of_slices, 0, gone, &nothing, now)?;
        self.of_slices.forget_empty(gone);
        Ok(())
    }

    /// Fires what is due by an instant of the windows' clock, bit by bit.
    fn advance(&mut self, passed: i64, now: i64, emit: &mut Emit<'_>) -> Result<Fired, AggregateError> {
        if self.firing.is_none() {
            match self.due.next(&mut *self.of_keys, self.frame.domain, passed, FIRED)? {
                Due::None(fired) => return Ok(fired),
                Due::Timers(due) => self.firing = Some(self.plan(due, now)?),
            }
        }
        if let Some(firing) = &self.firing
            && !self.of_slices.is_ready(firing.ticket)
        {
            return Ok(Fired::Waiting);
        }
        if let Some(firing) = self.firing.take() {
            self.fire_windows(firing, now, emit)?;
        }
        Ok(Fired::More)
    }
}

impl KeyedOperator for Sliced {
    fn prefetch(&mut self, _input: u32, rows: &Batch, now: Now) -> Result<Ticket, AggregateError> {
        let times = self.frame.times(rows, now)?;
        let passed = self.frame.passed(now);
        let all: Vec<i64> = times.iter().map(|time| self.edges.slice_end(*time)).collect();
        let is_late = |end: &i64| self.edges.last_window(*end) - 1 <= passed;
        let late: Vec<u32> = (0u32..).zip(&all).filter(|(_, end)| is_late(end)).map(|(row, _)| row).collect();
        let (kept, ends) = if late.is_empty() {
            (rows.clone(), all)
        } else {
            let places: Vec<u32> =
                (0u32..).zip(&all).filter(|(_, end)| !is_late(end)).map(|(row, _)| row).collect();
            (rows.take(&places)?, places.iter().map(|row| all[*row as usize]).collect())
        };
        let keys = self.frame.key_columns(&kept);
        let of_keys = self.of_keys.prefetch(&keys, kept.num_rows())?;
        let timed: Vec<ArrayRef> = keys.iter().cloned().chain([instants(ends.clone())]).collect();
        let of_slices = self.of_slices.prefetch(&timed, kept.num_rows())?;
        let late = (!late.is_empty()).then(|| (rows.clone(), late));
        self.pending =
            Some(Prepared { tickets: (of_slices, of_keys), rows: kept, ends, keys, timed, late, passed });
        Ok(of_slices)
    }

    fn is_ready(&mut self, _ticket: Ticket) -> bool {
        self.pending.as_ref().is_none_or(|pending| {
            self.of_slices.is_ready(pending.tickets.0) && self.of_keys.is_ready(pending.tickets.1)
        })
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
            let (new, slices) = self.absorb(&prepared, now.processing_time)?;
            self.follow(&prepared, &new, &slices, now.processing_time)?;
        }
        Ok(Fired::Done)
    }

    fn fire(&mut self, now: Now, emit: &mut Emit<'_>) -> Result<Fired, AggregateError> {
        self.advance(self.frame.passed(now), now.processing_time, emit)
    }

    fn next_timer(&self) -> Option<i64> {
        self.of_keys.next_timer(TimeDomain::ProcessingTime).map(Frame::passes_at)
    }

    fn finish(&mut self, emit: &mut Emit<'_>) -> Result<Fired, AggregateError> {
        self.advance(i64::MAX, i64::MIN, emit)
    }

    fn change(&mut self, timing: &Timing, _now: Now) -> bool {
        // A window is forgotten when it has been emitted.
        timing.lateness.is_zero() && timing.trigger == Trigger::AtEnd
    }

    fn take_late(&mut self) -> usize {
        std::mem::take(&mut self.frame.late)
    }
}

/// Windows on their way to fire.
struct Firing {
    ticket: Ticket,
    ids: Vec<KeyId>,
    ends: Vec<i64>,
    keys: Vec<ArrayRef>,
    loaded: ArrayRef,
    chains: Vec<Chain>,
    added: Lookup,
    removed: Lookup,
}

/// Slices of the keys at hand.
#[derive(Default)]
struct Lookup {
    /// The key of each, by its place.
    of: Vec<u32>,
    ends: Vec<i64>,
}

impl Lookup {
    /// The slices that end in `(from, to]`.
    fn slices(&mut self, at: u32, edges: &Edges, from: i64, to: i64) {
        let mut end = from;
        while end < to {
            end = edges.slice_end(end);
            self.of.push(at);
            self.ends.push(end);
        }
    }

    fn columns(&self, keys: &[ArrayRef]) -> Result<Vec<ArrayRef>, AggregateError> {
        let mut columns: Vec<ArrayRef> =
            keys.iter().map(|key| model::gather(key, &self.of)).collect::<Result<_, _>>()?;
        columns.push(instants(self.ends.clone()));
        Ok(columns)
    }

    /// Their numbers and states. Those that are not there are forgotten again.
    fn load(
        &self,
        backend: &mut dyn Backend,
        keys: &[ArrayRef],
        now: i64,
    ) -> Result<(Vec<KeyId>, ArrayRef), AggregateError> {
        let mut ids = Vec::new();
        backend.ids(&self.columns(keys)?, self.of.len(), &mut ids)?;
        let values = backend.load(0, &ids, now)?;
        if values.null_count() > 0 {
            let absent: Vec<KeyId> =
                ids.iter().enumerate().filter(|(row, _)| values.is_null(*row)).map(|(_, id)| *id).collect();
            backend.forget_empty(&absent);
            ids =
                ids.iter().enumerate().filter(|(row, _)| values.is_valid(*row)).map(|(_, id)| *id).collect();
        }
        Ok((ids, values))
    }
}

impl Chain {
    const NONE: Self = Self { fired: None, last: i64::MIN, first: i64::MAX, ahead: i64::MIN };
}

fn chains_of(loaded: &ArrayRef) -> Vec<Chain> {
    let state = as_structure(loaded);
    let column = |at: usize| state.column(at).as_primitive::<Int64Type>();
    let (fired, last, first, ahead) = (column(0), column(1), column(2), column(3));
    let chain = |row: usize| match state.is_valid(row) {
        true => Chain {
            fired: fired.is_valid(row).then(|| fired.value(row)),
            last: last.value(row),
            first: first.value(row),
            ahead: ahead.value(row),
        },
        false => Chain::NONE,
    };
    (0..state.len()).map(chain).collect()
}
