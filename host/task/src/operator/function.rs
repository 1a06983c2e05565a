//! A chain of guest functions in its subtask: cuts rows and due timers into calls, keeps their
//! state, finds the row or timer that traps.
//!
//! Timers fire before the rows that come after their watermark, in rounds of one a key, so that a
//! timer may set or delete the next; the watermark goes on after the last.
//!
//! A call has no effect until it has returned. So after a trap the call is repeated once in a new
//! instance; if it traps again it is halved, until the row is found, which then fails by policy.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use arrow_array::{Array, ArrayRef};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::{ArrowError, DataType, SchemaRef};
use guest::{Call, Chain, GuestError, Moment, Outcome, RowFailure};
use model::element::Mark;
use model::job_graph::{FailurePolicy, NodeId, State, TimeDomain};
use model::{Batch, Diagnostic};
use platform::Clock;
use state::StoreError;
use state::backend::Ticket;
use state::key_index::KeyId;
use state::value_table::VALUE_BYTES_MAX;
use state::{Backend, SharedBackend};
use window::Standing;

use super::function_windows::MergeJob;
use super::keyed_state::KeyedState;
use super::windowed::{InWindows, Index, Windowed};
use super::{Element, Input, Place, Ran, dead_letters, state_error};
use crate::metrics::{Counters, add, read};
use crate::swap::code::{Code, Output};
use crate::swap::probation::{Fall, Trial};

/// What a guest call should take.
const CALL_TIME: Duration = Duration::from_millis(1);
/// Rows of the first call, before anything has been measured.
pub(super) const FIRST_ROWS: usize = 128;

pub(crate) struct FunctionOperator {
    pub(crate) chain: Chain,
    pub(crate) clock: Clock,
    pub(crate) place: Place,
    /// For each node of the chain: its name and what becomes of its failed rows.
    pub(crate) nodes: Vec<(NodeId, String, FailurePolicy)>,
    /// For each place in `open`'s outputs: the node and its port.
    pub(crate) outputs: Vec<(NodeId, u32)>,
    /// Where diverted rows go: by input, one of the head's last ports.
    pub(crate) failures: Vec<(u32, SchemaRef)>,
    /// Which of the outputs that the stage was deployed with each of its own is; empty = they are those.
    pub(crate) ways: Vec<(Output, Output)>,
    /// What it keeps.
    pub(crate) states: Vec<State>,
    pub(crate) keyed: Option<KeyedState>,
    pub(crate) windows: Option<Box<Windowed>>,
    pub(crate) chaos_instances: bool,
    pub(crate) rows_max: usize,
    /// That its code is on probation.
    pub(crate) trial: Option<Arc<Trial>>,
    pub(crate) work: Work,
}

/// What is under way.
pub(crate) struct Work {
    /// What is to be called, the next last.
    pub(super) parts: Vec<Part>,
    /// Values that are being merged: that comes before the parts.
    pub(super) merge: Option<MergeJob>,
    /// The call that runs merges.
    pub(super) is_merging: bool,
    /// What the call that runs is about.
    running: Option<Part>,
    /// Rows whose calls have returned.
    rows_done: u64,
    /// Of calls with rows, with timers, and that merge.
    pub(super) nanoseconds_each: [Option<f64>; 3],
    /// How far event time is.
    watermark: i64,
    /// Up to this one all timers of event time have fired.
    fired: i64,
    /// There are no more rows.
    ended: bool,
    /// What follows the rows and timers at hand.
    mark: Option<Mark>,
    /// What of the rows or timers at hand has trapped, on probation.
    search: Option<Search>,
}

/// The search for the row that traps, by code on probation.
struct Search {
    /// The first trap.
    since: Duration,
    error: Diagnostic,
    /// It leads back.
    is_last: bool,
}

impl Default for Work {
    fn default() -> Self {
        Self {
            parts: Vec::new(),
            merge: None,
            is_merging: false,
            running: None,
            rows_done: 0,
            nanoseconds_each: [None; 3],
            watermark: i64::MIN,
            fired: i64::MIN,
            ended: false,
            mark: None,
            search: None,
        }
    }
}

/// Rows or timers for one call, or, before it is cut, for several.
pub(crate) struct Part {
    pub(super) what: Items,
    /// How often a call with them has trapped; 2 = it has been halved.
    pub(super) traps: u32,
    /// Whether their state has been asked for.
    pub(super) near: Near,
    /// Due timers of windows: those that are not for the guest are out. Sessions that go: they are out of
    /// the index.
    pub(super) is_sorted: bool,
}

impl Part {
    pub(super) fn new(what: Items) -> Self {
        Self { what, traps: 0, near: Near::NotAsked, is_sorted: false }
    }

    /// Cuts off all but the first `length`.
    fn split_off(&mut self, length: usize) -> Self {
        Self {
            what: self.what.split_off(length),
            traps: self.traps,
            near: self.near,
            is_sorted: self.is_sorted,
        }
    }
}

/// What came of starting a part.
pub(crate) enum Started {
    /// A call is under way.
    Call,
    /// There was nothing to call.
    Nothing,
    /// Its state is not near yet.
    Waiting,
}

/// How near the state of a part is.
#[derive(Clone, Copy)]
pub(crate) enum Near {
    NotAsked,
    Asked(Ticket),
    Yes,
}

#[derive(Clone)]
pub(crate) enum Items {
    /// Of an input, perhaps once for each of their windows.
    Rows(u32, Batch, Option<InWindows>),
    /// Due timers, at most one a key.
    Timers(TimeDomain, Vec<(i64, KeyId)>),
    /// Keys of windows that are over: what is kept for them goes.
    Clear(Vec<KeyId>),
    /// Keys of slices that have got their first rows.
    Slices(Vec<KeyId>),
    /// Ends of windows that have been made of slices: their keys' columns, timers and values.
    Windows { domain: TimeDomain, keys: Vec<ArrayRef>, times: Vec<i64>, values: ArrayRef },
}

impl Items {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Rows(_, rows, _) => rows.num_rows(),
            Self::Timers(_, timers) => timers.len(),
            Self::Clear(keys) | Self::Slices(keys) => keys.len(),
            Self::Windows { times, .. } => times.len(),
        }
    }

    /// Cuts off all but the first `length`.
    pub(super) fn split_off(&mut self, length: usize) -> Self {
        match self {
            Self::Rows(input, rows, windows) => {
                let more = rows.num_rows() - length;
                let rest = rows.slice(length, more);
                *rows = rows.slice(0, length);
                let rest_windows = windows.as_ref().map(|windows| windows.slice(length, more));
                *windows = windows.as_ref().map(|windows| windows.slice(0, length));
                Self::Rows(*input, rest, rest_windows)
            }
            Self::Timers(domain, timers) => Self::Timers(*domain, timers.split_off(length)),
            Self::Clear(keys) => Self::Clear(keys.split_off(length)),
            Self::Slices(keys) => Self::Slices(keys.split_off(length)),
            Self::Windows { domain, keys, times, values } => {
                let cut = |column: &mut ArrayRef| {
                    let rest = column.slice(length, column.len() - length);
                    *column = column.slice(0, length);
                    rest
                };
                let (domain, keys) = (*domain, keys.iter_mut().map(cut).collect());
                Self::Windows { domain, keys, times: times.split_off(length), values: cut(values) }
            }
        }
    }

    /// The place of its measurements.
    fn kind(&self) -> usize {
        match self {
            Self::Rows(..) => ROWS,
            Self::Timers(..) | Self::Windows { .. } | Self::Clear(_) | Self::Slices(_) => TIMERS,
        }
    }

    /// Whether it comes before other timers; and may name keys by their numbers, which must stay theirs
    /// until then.
    fn names_keys(&self) -> bool {
        !matches!(self, Self::Rows(..))
    }
}

/// Where the rows of an outcome go: the node and port of the chain.
pub(crate) type EmitFrom<'a> = dyn FnMut(NodeId, u32, Batch) -> Result<(), Diagnostic> + 'a;

/// Where calls are measured.
const ROWS: usize = 0;
const TIMERS: usize = 1;
pub(super) const MERGES: usize = 2;
/// A call with more state than this has fewer rows.
pub(super) const CALL_STATE_BYTES: usize = 256 << 10;
/// The row that leads back to the old code is searched for so long: then all that is at hand goes back.
const SEARCH_TIME: Duration = Duration::from_millis(20);
/// At most so many timers are taken at once; the rest follows.
const ROUND_TIMERS: usize = 10_000;

impl FunctionOperator {
    pub(crate) fn run(
        &mut self,
        input: &mut Input,
        counters: &Counters,
        emit: &mut EmitFrom<'_>,
    ) -> Result<Ran, Diagnostic> {
        if self.ways.is_empty() {
            return self.run_on(input, counters, emit);
        }
        let ways = std::mem::take(&mut self.ways);
        let ran = self.run_on(input, counters, &mut |node, port, rows| {
            // A port that leads nowhere has no way.
            match ways.iter().find(|(own, _)| *own == (node, port)) {
                Some((_, (node, port))) => emit(*node, *port, rows),
                None => Ok(()),
            }
        });
        self.ways = ways;
        ran
    }

    /// Changes places with the code of another version, between two calls: one that is under way is given up, as if
    /// it had not begun. Whether the states are others now.
    ///
    /// # Errors
    /// If the state cannot be kept as the other code keeps it.
    pub(crate) fn change_places(
        &mut self,
        code: &mut Code,
        backend: Option<&mut SharedBackend>,
    ) -> Result<bool, Diagnostic> {
        self.chain.reset();
        self.work.is_merging = false;
        self.work.parts.extend(self.work.running.take());
        let has_other_states = self.states != code.states;
        if let (Some(keyed), Some(backend)) = (&self.keyed, backend)
            && self.windows.is_none()
        {
            keyed.forget_empty(self.work.parts.iter().any(|part| part.what.names_keys()));
            if has_other_states {
                backend
                    .evolve(&self.states, &code.states)
                    .map_err(|error| state_error(Some(&self.place), &error))?;
            }
            let make = || KeyedState::new(Box::new(backend.clone()), code.keys.clone(), &code.states);
            let keyed = code.keyed.take().unwrap_or_else(make);
            code.keyed = self.keyed.replace(keyed);
        }
        // What is due may be at hand still.
        let fired = window::Now { watermark: self.work.fired, ..self.now() };
        if let (Some(windows), Some(lateness)) = (&mut self.windows, &mut code.lateness) {
            *lateness = windows.change(*lateness, fired);
            self.keyed.iter_mut().for_each(|keyed| keyed.set_clock(windows.clock()));
        }
        code.reader.set(self.keyed.as_ref().and_then(KeyedState::reader));
        std::mem::swap(&mut self.chain, &mut code.chain);
        std::mem::swap(&mut self.place, &mut code.place);
        std::mem::swap(&mut self.nodes, &mut code.nodes);
        std::mem::swap(&mut self.outputs, &mut code.outputs);
        std::mem::swap(&mut self.failures, &mut code.failures);
        std::mem::swap(&mut self.ways, &mut code.ways);
        std::mem::swap(&mut self.states, &mut code.states);
        std::mem::swap(&mut self.trial, &mut code.trial);
        self.work.nanoseconds_each = [None; 3];
        // The other code has not trapped.
        self.work.parts.iter_mut().for_each(|part| part.traps = 0);
        self.work.search = None;
        Ok(has_other_states)
    }

    fn run_on(
        &mut self,
        input: &mut Input,
        counters: &Counters,
        emit: &mut EmitFrom<'_>,
    ) -> Result<Ran, Diagnostic> {
        if !self.is_calling() && self.goes_back_after_search() {
            return Ok(Ran::GoesBack);
        }
        if !self.is_calling() && self.reset_timers()? {
            return Ok(Ran::Progress);
        }
        if !self.is_calling()
            && let Some(ran) = self.prepare(counters, emit)?
        {
            return Ok(ran);
        }
        if !self.is_calling() {
            // A key's timers are in their order: those that were taken fire first.
            if !self.work.parts.last().is_some_and(|part| part.what.names_keys())
                && let Some(ran) = self.take_timers()?
            {
                return Ok(ran);
            }
            if self.work.parts.is_empty() && self.windows.as_ref().is_some_and(|windows| windows.is_waiting())
            {
                self.assign(counters, emit)?;
                return Ok(Ran::Progress);
            }
            if self.work.parts.is_empty() {
                if let Some(mark) = self.work.mark.take() {
                    self.work.fired = self.work.watermark;
                    return Ok(Ran::Forward(mark));
                }
                match input.elements.pop_front() {
                    Some(Element::Rows(from, rows)) => match &mut self.windows {
                        None => self.work.parts.push(Part::new(Items::Rows(from, rows, None))),
                        Some(windows) => {
                            windows.put(from, rows);
                            return Ok(Ran::Progress);
                        }
                    },
                    Some(Element::Mark(mark)) => {
                        let is_batch = self.windows.as_ref().is_some_and(|windows| windows.batch);
                        if is_batch && mark != Mark::Watermark(i64::MAX) {
                            return Ok(Ran::Forward(mark));
                        }
                        if let Mark::Watermark(time) = mark {
                            self.work.watermark = self.work.watermark.max(time);
                        }
                        self.work.mark = Some(mark);
                        return Ok(Ran::Progress);
                    }
                    None if !input.ended => return Ok(Ran::Idle),
                    // The end is the greatest watermark: all timers of event time fire.
                    None if !self.work.ended => {
                        (self.work.watermark, self.work.ended) = (i64::MAX, true);
                        return Ok(Ran::Progress);
                    }
                    None => return Ok(Ran::Ended),
                }
            }
            match self.start()? {
                Started::Call => {}
                Started::Nothing => return Ok(Ran::Progress),
                Started::Waiting => return Ok(Ran::Idle),
            }
        }
        match self.chain.poll() {
            Poll::Pending => Ok(Ran::Yield),
            Poll::Ready(Ok(outcome)) if self.work.is_merging => {
                self.on_merged(outcome, counters);
                Ok(Ran::Progress)
            }
            Poll::Ready(Err(error)) if self.work.is_merging => self.on_merge_trap(&error, counters),
            Poll::Ready(Ok(outcome)) => self.on_return(outcome, counters, emit),
            Poll::Ready(Err(error)) => self.on_trap(&error, counters, emit),
        }
    }

    /// Sets some timers of windows anew, that were set by another lateness. Whether there may be more.
    fn reset_timers(&mut self) -> Result<bool, Diagnostic> {
        let now = self.clock.wall_ms();
        let (Some(windows), Some(keyed)) = (&mut self.windows, &self.keyed) else { return Ok(false) };
        if !windows.is_resetting() {
            return Ok(false);
        }
        // With the last of them a barrier may be next.
        let Some(resets) = windows.next_resets(keyed.bound()) else { return Ok(true) };
        keyed.reset_timers(resets, now).map_err(|error| state_error(Some(&self.place), &error))?;
        Ok(true)
    }

    /// What a checkpoint keeps of its windows beside their state.
    pub(crate) fn standing(&self) -> Option<Standing> {
        Some(self.windows.as_ref()?.standing(self.now()))
    }

    /// Goes on from what a checkpoint has kept of its windows.
    pub(crate) fn stand(&mut self, standing: Standing) {
        if let Some(windows) = &mut self.windows {
            windows.stand(standing);
            self.keyed.iter_mut().for_each(|keyed| keyed.set_clock(windows.clock()));
        }
    }

    /// Whether rows or timers are still in work.
    pub(crate) fn is_busy(&self) -> bool {
        let is_resetting = self.windows.as_ref().is_some_and(|windows| windows.is_resetting());
        !self.is_at_rest() || self.work.mark.is_some() || is_resetting
    }

    /// Whether no numbers of keys are in work.
    pub(crate) fn is_at_rest(&self) -> bool {
        !self.is_calling()
            && self.work.merge.is_none()
            && self.work.parts.is_empty()
            && self.windows.as_ref().is_none_or(|windows| !windows.is_waiting() && !windows.is_preparing())
    }

    fn is_calling(&self) -> bool {
        self.work.running.is_some() || self.work.is_merging
    }

    /// When to look for due timers of processing time again, in milliseconds since the epoch.
    pub(crate) fn next_timer(&self) -> Option<i64> {
        let next = self.keyed.as_ref()?.next_timer(TimeDomain::ProcessingTime);
        let Some(windows) =
            self.windows.as_ref().filter(|w| w.clock().domain() == TimeDomain::ProcessingTime)
        else {
            return next;
        };
        let of_slices = match &windows.index {
            Index::Slices(index) => index.next_timer(),
            _ => None,
        };
        // A window's last millisecond has to pass.
        next.into_iter().chain(of_slices).min().map(|next| next.saturating_add(1))
    }

    pub(super) fn now(&self) -> window::Now {
        window::Now { watermark: self.work.watermark, processing_time: self.clock.wall_ms() }
    }

    /// Puts due timers to work: a round of one a key. What it gives, there may be some that take longer to find.
    fn take_timers(&mut self) -> Result<Option<Ran>, Diagnostic> {
        let now = self.now();
        if self.keyed.is_none() {
            return Ok(None);
        }
        let mut clocks =
            [(TimeDomain::EventTime, now.watermark), (TimeDomain::ProcessingTime, now.processing_time)];
        if let Some(windows) = &self.windows {
            for (domain, now_of) in &mut clocks {
                *now_of = windows.due_by(*domain, now);
            }
            if windows.clock().domain() == TimeDomain::ProcessingTime {
                // Windows do not end while rows that are in them wait.
                match (self.work.parts.is_empty() && !windows.is_waiting(), self.work.ended) {
                    (false, _) => clocks[1].1 = i64::MIN,
                    (true, true) => clocks[1].1 = i64::MAX,
                    (true, false) => {}
                }
            }
            let of_windows = clocks[usize::from(windows.clock().domain() == TimeDomain::ProcessingTime)].1;
            if let Some(ran) = self.take_windows(of_windows)? {
                return Ok(Some(ran));
            }
        }
        let Some(keyed) = &mut self.keyed else { return Ok(None) };
        for (domain, now) in clocks {
            let due = keyed.take_due(domain, now, ROUND_TIMERS);
            let due = due.map_err(|error| state_error(Some(&self.place), &error))?;
            if due.is_partial {
                return Ok(Some(if due.is_waiting { Ran::Idle } else { Ran::Progress }));
            }
            if !due.timers.is_empty() {
                self.work.parts.push(Part::new(Items::Timers(domain, due.timers)));
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// Calls the guest with the next rows or timers: as many as take about a millisecond.
    fn start(&mut self) -> Result<Started, Diagnostic> {
        let Some(mut part) = self.work.parts.pop() else { return Ok(Started::Nothing) };
        let is_collected = self.windows.as_ref().is_some_and(|windows| windows.collects);
        if let Some(started) = self.change_index(&mut part)? {
            if matches!(started, Started::Waiting) {
                self.work.parts.push(part);
            }
            return Ok(started);
        }
        // What is collected takes no call.
        let fit = match is_collected && part.what.kind() == ROWS {
            true => self.rows_max,
            false => call_fit(self.work.nanoseconds_each[part.what.kind()], FIRST_ROWS, self.rows_max),
        };
        // A rest of a few rows rides with the call.
        if part.what.len() > fit + fit / 4 && !matches!(part.what, Items::Clear(_)) {
            let rest = part.split_off(fit);
            self.work.parts.push(Part { near: Near::NotAsked, ..rest });
        }
        let self_now = self.now();
        let now = Moment { watermark: self_now.watermark, processing_time: self_now.processing_time };
        let place = &self.place;
        let internal = |error: ArrowError| state_error(Some(place), &error);
        if let Some(keyed) = &mut self.keyed {
            let asked = match part.near {
                Near::NotAsked => keyed.prefetch(&part.what).map_err(internal)?,
                Near::Asked(ticket) => (!keyed.is_ready(ticket)).then_some(ticket),
                Near::Yes => None,
            };
            if let Some(ticket) = asked {
                self.work.parts.push(Part { near: Near::Asked(ticket), ..part });
                return Ok(Started::Waiting);
            }
            part.near = Near::Yes;
            if let Some(windows) = &self.windows {
                let at_end = self.work.ended.then_some(now.processing_time);
                if !before_call(&mut part, keyed, windows, &mut self.work.parts, (self_now, at_end))
                    .map_err(|(state, error)| not_stored(place, Some(keyed), state, &error))?
                {
                    return Ok(Started::Nothing);
                }
            }
            keyed.find_keys(&part.what).map_err(internal)?;
            // State rides along, so it counts for the size of a call too.
            while part.what.len() > 1 && keyed.bytes(&part.what).map_err(internal)? > CALL_STATE_BYTES {
                let first = part.what.len().div_ceil(4);
                let rest = part.split_off(first);
                self.work.parts.push(rest);
                keyed.truncate(part.what.len());
            }
        }
        let call = match (&part.what, &mut self.keyed) {
            (Items::Rows(input, rows, _), None) => {
                Some(Call::Process { now, input: *input, rows: rows.clone() })
            }
            (what, Some(keyed)) => keyed.call(now, what).map_err(internal)?,
            // Only keyed functions set timers.
            (_, None) => None,
        };
        let Some(call) = call else { return Ok(Started::Nothing) };
        self.chain.start(call);
        self.work.running = Some(part);
        Ok(Started::Call)
    }

    fn on_return(
        &mut self,
        outcome: Outcome,
        counters: &Counters,
        emit: &mut EmitFrom<'_>,
    ) -> Result<Ran, Diagnostic> {
        let Some(part) = self.work.running.take() else { return Ok(Ran::Progress) };
        self.measure(part.what.kind(), part.what.len());
        self.count_call(counters);
        self.passes_again(&part);
        if !outcome.failures.is_empty() {
            // What would end the job leads back.
            if let (Some(trial), Some(failure)) = (self.trial.clone(), self.ends_job(&outcome.failures)) {
                let error = self.failed(failure, &part.what);
                if trial.count() && trial.fails(Fall { at: self.clock.now(), error }) {
                    self.work.parts.push(part);
                    return Ok(Ran::GoesBack);
                }
            }
            self.on_failures(&part.what, &outcome.failures, counters, emit)?;
        }
        if let Some(keyed) = &mut self.keyed
            && !matches!(part.what, Items::Windows { .. })
        {
            keyed
                .apply(&outcome)
                .map_err(|(state, error)| not_stored(&self.place, Some(keyed), state, &error))?;
            let slices = keyed.take_new_slices();
            if !slices.is_empty() {
                self.work.parts.push(Part::new(Items::Slices(slices)));
            }
            keyed.forget_empty(self.work.parts.iter().any(|part| part.what.names_keys()));
        }
        self.done(&part.what, counters);
        for (output, rows) in outcome.outputs {
            add(&counters.rows_out, rows.num_rows());
            let (node, port) = self.outputs[output as usize];
            emit(node, port, rows)?;
        }
        if self.chaos_instances {
            self.chain.reset();
        }
        Ok(Ran::Progress)
    }

    /// On probation: a call that has trapped has returned when it was made again.
    fn passes_again(&mut self, part: &Part) {
        if part.traps == 1
            && let Some(trial) = &self.trial
            && let Some(search) = &mut self.work.search
        {
            search.is_last |= trial.count();
            if !search.is_last {
                self.work.search = None;
            }
        }
    }

    /// On probation: what trapped once too often is over, and did not trap when it was made again. Whether the code
    /// goes back now.
    fn goes_back_after_search(&mut self) -> bool {
        let has_more = self.work.parts.last().is_some_and(|part| part.traps > 0);
        let Some(search) = self.work.search.take_if(|search| search.is_last && !has_more) else {
            return false;
        };
        let fall = Fall { at: search.since, error: search.error };
        self.trial.as_ref().is_some_and(|trial| trial.fails(fall))
    }

    /// On probation: the call that runs has trapped. None: it is handled as at any time.
    fn on_trial(&mut self, error: &GuestError) -> Option<Ran> {
        let (trial, part) = (Arc::clone(self.trial.as_ref()?), self.work.running.as_ref()?);
        let (now, length, traps) = (self.clock.now(), part.what.len(), part.traps);
        let is_last = trial.is_last_chance();
        let said = self.trapped(error, (length == 1).then(|| self.item(&part.what, 0)));
        let since = self.work.search.as_ref().map_or(now, |search| search.since);
        let is_found = if is_last {
            // One whose time was over takes as long each time.
            let takes_long = matches!(error, GuestError::TimedOut(_)) || now - since > SEARCH_TIME;
            // What is done again is not worth a search.
            length == 1 || takes_long || trial.is_exact() || !error.is_of_a_row()
        } else {
            length == 1 && traps > 0 && trial.count()
        };
        if is_found {
            self.work.search = None;
            // Its rows stay at hand.
            return trial.fails(Fall { at: since, error: said }).then_some(Ran::GoesBack);
        }
        self.work.search = Some(Search { since, error: said, is_last });
        if !is_last {
            return None;
        }
        let mut part = self.work.running.take()?;
        part.traps = 2;
        let second = part.split_off(length / 2);
        self.work.parts.extend([second, part]);
        Some(Ran::Progress)
    }

    /// Counts the last call, which has returned.
    pub(super) fn count_call(&self, counters: &Counters) {
        add(&counters.calls, 1);
        add(&counters.guest_nanoseconds, self.chain.cpu().as_nanos() as usize);
        add(&counters.boundary_nanoseconds, self.chain.boundary().as_nanos() as usize);
        counters.set_guest_memory(self.chain.memory_bytes());
    }

    /// Counts the last call, which has trapped.
    pub(super) fn count_trap(&self, counters: &Counters) {
        add(&counters.traps, 1);
        counters.set_guest_memory(self.chain.memory_bytes());
    }

    /// Takes into account what each row, timer or pair of the last call has taken.
    pub(super) fn measure(&mut self, kind: usize, count: usize) {
        let each = self.chain.cpu_of_rows().as_nanos() as f64 / count.max(1) as f64;
        let measured = &mut self.work.nanoseconds_each[kind];
        *measured = Some(match *measured {
            None => each,
            // An instance's first call may be slower (it fills caches), which says nothing of rows.
            Some(before) if self.chain.was_first_call() => before.min(each),
            Some(before) => before * 0.75 + each * 0.25,
        });
    }

    fn done(&mut self, what: &Items, counters: &Counters) {
        match what {
            Items::Rows(_, rows, _) => self.work.rows_done += rows.num_rows() as u64,
            Items::Timers(..) | Items::Windows { .. } => add(&counters.timers_fired, what.len()),
            Items::Clear(_) | Items::Slices(_) => {}
        }
    }

    fn on_trap(
        &mut self,
        error: &GuestError,
        counters: &Counters,
        emit: &mut EmitFrom<'_>,
    ) -> Result<Ran, Diagnostic> {
        self.count_trap(counters);
        if let Some(ran) = self.on_trial(error) {
            return Ok(ran);
        }
        let Some(mut part) = self.work.running.take() else { return Ok(Ran::Progress) };
        if !error.is_of_a_row() {
            return Err(self.trapped(error, None));
        }
        match (part.traps, part.what.len()) {
            (0, _) => self.work.parts.push(Part { traps: 1, ..part }),
            (_, length @ 2..) => {
                part.traps = 2;
                let second = part.split_off(length / 2);
                self.work.parts.push(second);
                self.work.parts.push(part);
            }
            _ => {
                let (head, _, policy) = self.nodes[0].clone();
                if policy == FailurePolicy::Fail {
                    return Err(self.trapped(error, Some(self.item(&part.what, 0))));
                }
                let message = error.to_string();
                let failure = [RowFailure { node: head, row: 0, message }];
                self.on_failures(&part.what, &failure, counters, emit)?;
                self.done(&part.what, counters);
            }
        }
        Ok(Ran::Progress)
    }

    /// What becomes of a failed row.
    fn policy(&self, failure: &RowFailure) -> (&str, FailurePolicy) {
        let known = self.nodes.iter().find(|(node, _, _)| *node == failure.node);
        let (_, name, policy) = known.unwrap_or(&self.nodes[0]);
        (name, *policy)
    }

    /// The first of these rows whose failure is not to be gone on from.
    fn ends_job<'a>(&self, failures: &'a [RowFailure]) -> Option<&'a RowFailure> {
        failures.iter().find(|failure| self.policy(failure).1 == FailurePolicy::Fail)
    }

    /// A failed row as the user reads it.
    fn failed(&self, failure: &RowFailure, what: &Items) -> Diagnostic {
        let mut lines = failure.message.splitn(2, '\n');
        let message = lines.next().unwrap_or_default();
        let more = lines.next().map(|more| format!("\n{more}")).unwrap_or_default();
        Diagnostic::user(format!("function `{}` failed: {message}", self.policy(failure).0))
            .detail(format!("{}, {}{more}", self.place.text(), self.item(what, failure.row as usize)))
            .hint("to go on without such rows, give the function a failure policy: skip, or a side output")
    }

    fn on_failures(
        &self,
        what: &Items,
        failures: &[RowFailure],
        counters: &Counters,
        emit: &mut EmitFrom<'_>,
    ) -> Result<(), Diagnostic> {
        let mut diverted: Vec<&RowFailure> = Vec::new();
        let mut failed_before = None;
        for failure in failures {
            // A row that fails in several windows has failed once.
            if let Items::Rows(_, _, Some(windows)) = what {
                let row = windows.rows.get(failure.row as usize);
                if std::mem::replace(&mut failed_before, row) == row {
                    continue;
                }
            }
            match (self.policy(failure).1, what) {
                // A timer has no row that could go aside.
                (FailurePolicy::Skip | FailurePolicy::Divert, Items::Timers(..) | Items::Windows { .. }) => {
                    add(&counters.timers_skipped, 1);
                    // The first is said, all are counted.
                    if read(&counters.timers_skipped) == 1 {
                        let timer = self.item(what, failure.row as usize);
                        self.chain.warn(&format!("{timer} failed: {}", failure.message));
                    }
                }
                (FailurePolicy::Skip, _) => add(&counters.rows_skipped, 1),
                (FailurePolicy::Divert, _) => diverted.push(failure),
                (FailurePolicy::Fail, _) => return Err(self.failed(failure, what)),
            }
        }
        let (false, Items::Rows(input, rows, _)) = (diverted.is_empty(), what) else { return Ok(()) };
        let Some((port, schema)) = self.failures.get(*input as usize) else { return Ok(()) };
        add(&counters.rows_diverted, diverted.len());
        let letters = diverted.iter().map(|failure| (failure.row, failure.message.as_str()));
        emit(self.nodes[0].0, *port, dead_letters(rows, letters, schema)?)
    }

    /// A row or timer of a call as the user reads it.
    fn item(&self, what: &Items, at: usize) -> String {
        match what {
            Items::Rows(_, rows, windows) => {
                let of_windows = windows.as_ref().and_then(|windows| windows.rows.get(at).copied());
                let number = of_windows.unwrap_or(self.work.rows_done + at as u64);
                format!("row {}: {}", number + 1, row_text(rows, at))
            }
            Items::Windows { keys, .. } => {
                let texts: Vec<String> = keys.iter().map(|column| value_text(column, at)).collect();
                format!("the end of the window ({})", texts.join(","))
            }
            Items::Clear(_) | Items::Slices(_) => "a window".to_owned(),
            Items::Timers(domain, timers) => {
                let clock = match domain {
                    TimeDomain::EventTime => "event time",
                    TimeDomain::ProcessingTime => "processing time",
                };
                let (time, key) = timers[at];
                format!(
                    "timer of {clock} {time} of the key ({})",
                    self.keyed.as_ref().and_then(|keyed| key_text(keyed, key)).unwrap_or_default()
                )
            }
        }
    }

    /// A trap as the user reads it: function, subtask, row, and what the guest said.
    pub(super) fn trapped(&self, error: &GuestError, item: Option<String>) -> Diagnostic {
        let of_guest = error.diagnostic();
        let names: Vec<&str> = self.nodes.iter().map(|(_, name, _)| name.as_str()).collect();
        let mut detail = self.place.text();
        if let Some(item) = item {
            detail.push_str(&format!(", {item}"));
        }
        if let Some(more) = of_guest.detail {
            detail.push('\n');
            detail.push_str(&more);
        }
        let diagnostic = Diagnostic {
            message: format!("function `{}` {}", names.join(" -> "), of_guest.message),
            detail: Some(detail),
            ..of_guest
        };
        match diagnostic.hint {
            Some(_) => diagnostic,
            None => diagnostic.hint(
                "in a project in Rust, `streamctl test` runs this function natively, under your debugger",
            ),
        }
    }
}

/// A state that cannot be kept as the user reads it.
pub(super) fn not_stored(
    place: &Place,
    keyed: Option<&KeyedState>,
    state: u32,
    error: &StoreError,
) -> Diagnostic {
    match error {
        StoreError::Arrow(error) => state_error(Some(place), error),
        StoreError::TooLarge { key, .. } => {
            let (name, is_value) = keyed.map_or(("", true), |keyed| keyed.state(state));
            let of_what = if is_value { "the" } else { "an entry of the" };
            let limit = VALUE_BYTES_MAX >> 20;
            // A broadcast state has no keys.
            let of_key = keyed
                .and_then(|keyed| key_text(keyed, *key))
                .map(|key| format!(", key ({key})"))
                .unwrap_or_default();
            let hint = match is_value {
                true => {
                    "a value travels with every call of its key: keep less in it, or a state of many entries"
                }
                false => "keep less in an entry, or spread it over several",
            };
            Diagnostic::user(format!("{of_what} state `{name}` is larger than {limit} MiB: {error}"))
                .detail(format!("{}{of_key}", place.text()))
                .hint(hint)
        }
    }
}

fn key_text(keyed: &KeyedState, key: KeyId) -> Option<String> {
    let columns = keyed.key(key)?;
    Some(columns.iter().map(|column| value_text(column, 0)).collect::<Vec<_>>().join(","))
}

/// What is done with a part of a function in windows that is near, before a call or in the place of one.
/// False: there is no call. `now`: also the processing time if the input has ended.
fn before_call(
    part: &mut Part,
    keyed: &mut KeyedState,
    windows: &Windowed,
    parts: &mut Vec<Part>,
    (now, at_end): (window::Now, Option<i64>),
) -> Result<bool, (u32, StoreError)> {
    if let Items::Rows(input, rows, _) = &part.what {
        if windows.collects {
            keyed.find_keys(&part.what).map_err(|error| (0, error.into()))?;
            keyed.collect(*input, rows, now.processing_time)?;
        }
        return Ok(!windows.collects);
    }
    match &mut part.what {
        Items::Rows(..) => {}
        Items::Timers(domain, timers) if !part.is_sorted => {
            let passed = windows.clock().passed(now);
            let sorted =
                keyed.sort_due(*domain, std::mem::take(timers), passed, (at_end, now.processing_time));
            let sorted = sorted.map_err(|error| (0, error.into()))?;
            // They are near; the index of sessions may not be.
            let near = if matches!(windows.index, Index::Sessions(_)) { Near::NotAsked } else { Near::Yes };
            if !sorted.cleared.is_empty() {
                parts.push(Part { near, ..Part::new(Items::Clear(sorted.cleared)) });
            }
            *timers = sorted.called;
            part.is_sorted = true;
            return Ok(!timers.is_empty());
        }
        Items::Timers(..) => {}
        Items::Slices(_) | Items::Windows { .. } => {}
        Items::Clear(ids) => {
            let is_done = keyed.clear(ids, now.processing_time).map_err(|error| (0, error))?;
            if !is_done {
                let rest = Items::Clear(std::mem::take(ids));
                parts.push(Part { near: Near::Yes, is_sorted: true, ..Part::new(rest) });
            }
            return Ok(false);
        }
    }
    Ok(true)
}

/// How many rows, timers or pairs a call should have, by what each takes.
pub(super) fn call_fit(nanoseconds_each: Option<f64>, first: usize, max: usize) -> usize {
    let fit = match nanoseconds_each {
        None => first,
        Some(each) => (CALL_TIME.as_nanos() as f64 / each.max(1.0)) as usize,
    };
    fit.clamp(1, max)
}

/// A row as people read it, cut.
pub(crate) fn row_text(rows: &Batch, row: usize) -> String {
    let values: Vec<String> = rows.rows().columns().iter().map(|column| value_text(column, row)).collect();
    let text = format!("({})", values.join(","));
    let cut: String = text.chars().take(300).map(|c| if c.is_control() { '\u{FFFD}' } else { c }).collect();
    if cut.len() < text.len() { format!("{cut} …") } else { cut }
}

pub(super) fn value_text(column: &ArrayRef, row: usize) -> String {
    let options = FormatOptions::default().with_null("null");
    // All zones are UTC, which the formatter does not know by name.
    if let DataType::Timestamp(unit, Some(_)) = column.data_type()
        && row < column.len()
        && let Ok(plain) = arrow_cast::cast(&column.slice(row, 1), &DataType::Timestamp(*unit, None))
        && let Ok(formatter) = ArrayFormatter::try_new(plain.as_ref(), &options)
    {
        let zone = if plain.is_null(0) { "" } else { "Z" };
        return format!("{}{zone}", formatter.value(0));
    }
    match ArrayFormatter::try_new(column.as_ref(), &options) {
        Ok(formatter) if row < column.len() => formatter.value(row).to_string(),
        _ => "?".to_owned(),
    }
}
