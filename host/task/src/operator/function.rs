//! A chain of guest functions in its subtask: cuts rows and due timers into calls, keeps their
//! state, finds the row or timer that traps.
//!
//! Timers fire before the rows that come after their watermark, in rounds of one a key, so that a
//! timer may set or delete the next; the watermark goes on after the last.
//!
//! A call has no effect until it has returned. So after a trap the call is repeated once in a new
//! instance; if it traps again it is halved, until the row is found, which then fails by policy.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use arrow_array::{Array, ArrayRef};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::{ArrowError, DataType, SchemaRef};
use guest::{Call, Chain, Groups, GuestError, Moment, Outcome, RowFailure, StateReader};
use model::element::Mark;
use model::job_graph::{FailurePolicy, NodeId, State, StateKind, TimeDomain};
use model::{Batch, Diagnostic};
use platform::Clock;
use state::key_index::KeyId;
use state::value_table::VALUE_BYTES_MAX;
use state::{KeyIndex, StoreError, Timers, ValueTable};

use super::entries::EntryStates;
use super::{Element, Input, Place, Ran, dead_letters};
use crate::metrics::{Counters, add, read};

/// What a guest call should take.
const CALL_TIME: Duration = Duration::from_millis(1);
/// Rows of the first call, before anything has been measured.
const FIRST_ROWS: usize = 128;

pub(crate) struct FunctionOperator {
    pub(crate) chain: Chain,
    pub(crate) clock: Clock,
    pub(crate) place: Place,
    /// For each node of the chain: its name and what becomes of its failed rows.
    pub(crate) nodes: Vec<(NodeId, String, FailurePolicy)>,
    /// For each place in `open`'s outputs: the node and its port.
    pub(crate) outputs: Vec<(NodeId, u32)>,
    /// Where diverted rows go, by the head's last port.
    pub(crate) failures: Option<(u32, SchemaRef)>,
    pub(crate) keyed: Option<KeyedState>,
    pub(crate) chaos_instances: bool,
    pub(crate) rows_max: usize,
    pub(crate) work: Work,
}

/// The state of a keyed function's subtask.
pub(crate) struct KeyedState {
    /// The key columns of each input; none = its rows have no key.
    keys: Vec<Option<Vec<usize>>>,
    index: KeyIndex,
    /// The states by value, by their places in the function.
    tables: BTreeMap<u32, ValueTable>,
    /// The others.
    entries: Option<EntryStates>,
    /// All states' names.
    names: Vec<String>,
    timers: Timers,
    /// The key of each row or timer of the call at hand.
    ids: Vec<KeyId>,
    /// By key: its group in the last call that had it; of another call, a group of another key or
    /// none (a sparse set: Briggs and Torczon, 1993).
    numbers: Vec<u32>,
}

/// What is under way.
pub(crate) struct Work {
    /// What is to be called, the next last.
    parts: Vec<Part>,
    /// What the call that runs is about.
    running: Option<Part>,
    /// The groups of the call that runs, as numbers of the key index.
    groups: Vec<u32>,
    /// The time as the call that runs sees it.
    now: Moment,
    /// Rows whose calls have returned.
    rows_done: u64,
    nanoseconds_a_row: Option<f64>,
    /// How far event time is.
    watermark: i64,
    /// What follows the rows and timers at hand.
    mark: Option<Mark>,
}

impl Default for Work {
    fn default() -> Self {
        Self {
            parts: Vec::new(),
            running: None,
            groups: Vec::new(),
            now: Moment { watermark: i64::MIN, processing_time: 0 },
            rows_done: 0,
            nanoseconds_a_row: None,
            watermark: i64::MIN,
            mark: None,
        }
    }
}

/// Rows or timers for one call, or, before it is cut, for several.
struct Part {
    what: Items,
    /// How often a call with them has trapped.
    traps: u32,
}

#[derive(Clone)]
enum Items {
    /// Of an input.
    Rows(u32, Batch),
    /// Due timers, at most one a key.
    Timers(TimeDomain, Vec<(i64, KeyId)>),
}

impl Items {
    fn len(&self) -> usize {
        match self {
            Self::Rows(_, rows) => rows.num_rows(),
            Self::Timers(_, timers) => timers.len(),
        }
    }

    /// Cuts off all but the first `length`.
    fn split_off(&mut self, length: usize) -> Self {
        match self {
            Self::Rows(input, rows) => {
                let rest = rows.slice(length, rows.num_rows() - length);
                *rows = rows.slice(0, length);
                Self::Rows(*input, rest)
            }
            Self::Timers(domain, timers) => Self::Timers(*domain, timers.split_off(length)),
        }
    }
}

/// Where the rows of an outcome go: the node and port of the chain.
pub(crate) type EmitFrom<'a> = dyn FnMut(NodeId, u32, Batch) -> Result<(), Diagnostic> + 'a;

/// A call with more state than this has fewer rows.
const CALL_STATE_BYTES: usize = 256 << 10;
/// At most so many timers are taken at once; the rest follows.
const ROUND_TIMERS: usize = 10_000;

impl FunctionOperator {
    pub(crate) fn run(
        &mut self,
        input: &mut Input,
        counters: &Counters,
        emit: &mut EmitFrom<'_>,
    ) -> Result<Ran, Diagnostic> {
        if self.work.running.is_none() {
            // A key's timers are in their order: those that were taken fire first.
            if !matches!(self.work.parts.last(), Some(Part { what: Items::Timers(..), .. }))
                && !self.take_timers()
            {
                return Ok(Ran::Progress);
            }
            if self.work.parts.is_empty() {
                if let Some(mark) = self.work.mark.take() {
                    return Ok(Ran::Forward(mark));
                }
                match input.elements.pop_front() {
                    Some(Element::Rows(from, rows)) => {
                        self.work.parts.push(Part { what: Items::Rows(from, rows), traps: 0 });
                    }
                    Some(Element::Mark(mark)) => {
                        if let Mark::Watermark(time) = mark {
                            self.work.watermark = self.work.watermark.max(time);
                        }
                        self.work.mark = Some(mark);
                        return Ok(Ran::Progress);
                    }
                    None if !input.ended => return Ok(Ran::Idle),
                    // The end is the greatest watermark: all timers of event time fire.
                    None if self.work.watermark < i64::MAX => {
                        self.work.watermark = i64::MAX;
                        return Ok(Ran::Progress);
                    }
                    None => return Ok(Ran::Ended),
                }
            }
            self.start()?;
        }
        match self.chain.poll() {
            Poll::Pending => Ok(Ran::Yield),
            Poll::Ready(Ok(outcome)) => {
                self.on_return(outcome, counters, emit)?;
                Ok(Ran::Progress)
            }
            Poll::Ready(Err(error)) => {
                self.on_trap(error, counters, emit)?;
                Ok(Ran::Progress)
            }
        }
    }

    /// Whether rows or timers are still in work.
    pub(crate) fn is_busy(&self) -> bool {
        self.work.running.is_some() || !self.work.parts.is_empty() || self.work.mark.is_some()
    }

    /// When the next timer of processing time is due, in milliseconds since the epoch.
    pub(crate) fn next_timer(&self) -> Option<i64> {
        self.keyed.as_ref()?.timers.next(TimeDomain::ProcessingTime)
    }

    /// Puts due timers to work: a round of one a key. False: there may be some that take longer to find.
    fn take_timers(&mut self) -> bool {
        let Some(keyed) = &mut self.keyed else { return true };
        if keyed.timers.is_empty() {
            return true;
        }
        for (domain, now) in
            [(TimeDomain::EventTime, self.work.watermark), (TimeDomain::ProcessingTime, self.clock.wall_ms())]
        {
            let due = keyed.timers.take_due(domain, now, ROUND_TIMERS);
            if due.is_partial {
                return false;
            }
            if !due.timers.is_empty() {
                self.work.parts.push(Part { what: Items::Timers(domain, due.timers), traps: 0 });
                return true;
            }
        }
        true
    }

    /// Calls the guest with the next rows or timers: as many as take about a millisecond.
    fn start(&mut self) -> Result<(), Diagnostic> {
        let Some(mut part) = self.work.parts.pop() else { return Ok(()) };
        let fit = match self.work.nanoseconds_a_row {
            None => FIRST_ROWS,
            Some(each) => (CALL_TIME.as_nanos() as f64 / each.max(1.0)) as usize,
        };
        let fit = fit.clamp(1, self.rows_max);
        // A rest of a few rows rides with the call.
        if part.what.len() > fit + fit / 4 {
            let rest = part.what.split_off(fit);
            self.work.parts.push(Part { what: rest, traps: part.traps });
        }
        let now = Moment { watermark: self.work.watermark, processing_time: self.clock.wall_ms() };
        self.work.now = now;
        let internal = |error: ArrowError| Diagnostic::internal(error.to_string()).detail(self.place.text());
        if let Some(keyed) = &mut self.keyed {
            keyed.find_keys(&part.what).map_err(internal)?;
            // State rides along, so it counts for the size of a call too.
            while part.what.len() > 1 && keyed.state_bytes(&part.what).map_err(internal)? > CALL_STATE_BYTES {
                let rest = part.what.split_off(part.what.len().div_ceil(4));
                self.work.parts.push(Part { what: rest, traps: part.traps });
                keyed.ids.truncate(part.what.len());
            }
        }
        let call = match (&part.what, &mut self.keyed) {
            (Items::Rows(input, rows), None) => Call::Process { now, input: *input, rows: rows.clone() },
            (what, Some(keyed)) => keyed.call(now, what, &mut self.work.groups).map_err(internal)?,
            // Only keyed functions set timers.
            (Items::Timers(..), None) => return Ok(()),
        };
        self.chain.start(call);
        self.work.running = Some(part);
        Ok(())
    }

    fn on_return(
        &mut self,
        outcome: Outcome,
        counters: &Counters,
        emit: &mut EmitFrom<'_>,
    ) -> Result<(), Diagnostic> {
        let Some(part) = self.work.running.take() else { return Ok(()) };
        let cpu = self.chain.cpu().as_nanos() as f64;
        let each = self.chain.cpu_of_rows().as_nanos() as f64 / part.what.len().max(1) as f64;
        self.work.nanoseconds_a_row = Some(match self.work.nanoseconds_a_row {
            None => each,
            // An instance's first call may be slower (it fills caches), which says nothing of rows.
            Some(before) if self.chain.was_first_call() => before.min(each),
            Some(before) => before * 0.75 + each * 0.25,
        });
        add(&counters.calls, 1);
        add(&counters.guest_nanoseconds, cpu as usize);
        if !outcome.failures.is_empty() {
            self.on_failures(&part.what, &outcome.failures, counters, emit)?;
        }
        if let Some(keyed) = &mut self.keyed
            && let Err((state, error)) = keyed.apply(&outcome, &self.work.groups, self.work.now)
        {
            return Err(self.not_stored(state, &error));
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
        Ok(())
    }

    fn done(&mut self, what: &Items, counters: &Counters) {
        match what {
            Items::Rows(_, rows) => self.work.rows_done += rows.num_rows() as u64,
            Items::Timers(_, timers) => add(&counters.timers_fired, timers.len()),
        }
    }

    fn on_trap(
        &mut self,
        error: GuestError,
        counters: &Counters,
        emit: &mut EmitFrom<'_>,
    ) -> Result<(), Diagnostic> {
        let Some(mut part) = self.work.running.take() else { return Ok(()) };
        add(&counters.traps, 1);
        if !error.is_of_a_row() {
            return Err(self.trapped(&error, None));
        }
        match (part.traps, part.what.len()) {
            (0, _) => self.work.parts.push(Part { traps: 1, ..part }),
            (_, length @ 2..) => {
                let second = part.what.split_off(length / 2);
                self.work.parts.push(Part { what: second, traps: 1 });
                self.work.parts.push(Part { traps: 1, ..part });
            }
            _ => {
                let (head, _, policy) = self.nodes[0].clone();
                if policy == FailurePolicy::Fail {
                    return Err(self.trapped(&error, Some(&part.what)));
                }
                let message = error.to_string();
                let failure = [RowFailure { node: head, row: 0, message }];
                self.on_failures(&part.what, &failure, counters, emit)?;
                self.done(&part.what, counters);
            }
        }
        Ok(())
    }

    fn on_failures(
        &self,
        what: &Items,
        failures: &[RowFailure],
        counters: &Counters,
        emit: &mut EmitFrom<'_>,
    ) -> Result<(), Diagnostic> {
        let mut diverted: Vec<&RowFailure> = Vec::new();
        for failure in failures {
            let known = self.nodes.iter().find(|(node, _, _)| *node == failure.node);
            let (_, name, policy) = known.unwrap_or(&self.nodes[0]);
            match (policy, what) {
                // A timer has no row that could go aside.
                (FailurePolicy::Skip | FailurePolicy::Divert, Items::Timers(..)) => {
                    add(&counters.timers_skipped, 1);
                    // The first is said, all are counted.
                    if read(&counters.timers_skipped) == 1 {
                        let timer = self.item(what, failure.row as usize);
                        self.chain.warn(&format!("{timer} failed: {}", failure.message));
                    }
                }
                (FailurePolicy::Skip, _) => add(&counters.rows_skipped, 1),
                (FailurePolicy::Divert, _) => diverted.push(failure),
                (FailurePolicy::Fail, _) => {
                    let mut lines = failure.message.splitn(2, '\n');
                    let message = lines.next().unwrap_or_default();
                    let more = lines.next().map(|more| format!("\n{more}")).unwrap_or_default();
                    return Err(Diagnostic::user(format!("function `{name}` failed: {message}"))
                        .detail(format!("{}, {}{more}", self.place.text(), self.item(what, failure.row as usize)))
                        .hint("to go on without such rows, give the function a failure policy: skip, or a side output"));
                }
            }
        }
        let (false, Some((port, schema)), Items::Rows(_, rows)) = (diverted.is_empty(), &self.failures, what)
        else {
            return Ok(());
        };
        add(&counters.rows_diverted, diverted.len());
        let letters = diverted.iter().map(|failure| (failure.row, failure.message.as_str()));
        emit(self.nodes[0].0, *port, dead_letters(rows, letters, schema)?)
    }

    /// A state that cannot be kept as the user reads it.
    fn not_stored(&self, state: u32, error: &StoreError) -> Diagnostic {
        match error {
            StoreError::Arrow(error) => Diagnostic::internal(error.to_string()).detail(self.place.text()),
            StoreError::TooLarge { key, .. } => {
                let keyed = self.keyed.as_ref();
                let name = keyed.map_or("", |keyed| &keyed.names[state as usize]);
                let is_value = keyed.is_some_and(|keyed| keyed.tables.contains_key(&state));
                let of_what = if is_value { "the" } else { "an entry of the" };
                let limit = VALUE_BYTES_MAX >> 20;
                let of_key = match keyed.is_some_and(|keyed| (*key as usize) < keyed.index.bound()) {
                    true => format!(", key ({})", self.key_text(*key)),
                    // A broadcast state has no keys.
                    false => String::new(),
                };
                let hint = match is_value {
                    true => {
                        "a value travels with every call of its key: keep less in it, or a state of many entries"
                    }
                    false => "keep less in an entry, or spread it over several",
                };
                Diagnostic::user(format!("{of_what} state `{name}` is larger than {limit} MiB: {error}"))
                    .detail(format!("{}{of_key}", self.place.text()))
                    .hint(hint)
            }
        }
    }

    fn key_text(&self, key: KeyId) -> String {
        let columns = self.keyed.as_ref().and_then(|keyed| keyed.index.keys([key].into_iter()).ok());
        let columns = columns.unwrap_or_default();
        columns.iter().map(|column| value_text(column, 0)).collect::<Vec<_>>().join(",")
    }

    /// A row or timer of a call as the user reads it.
    fn item(&self, what: &Items, at: usize) -> String {
        match what {
            Items::Rows(_, rows) => {
                format!("row {}: {}", self.work.rows_done + at as u64 + 1, row_text(rows, at))
            }
            Items::Timers(domain, timers) => {
                let clock = match domain {
                    TimeDomain::EventTime => "event time",
                    TimeDomain::ProcessingTime => "processing time",
                };
                let (time, key) = timers[at];
                format!("timer of {clock} {time} of the key ({})", self.key_text(key))
            }
        }
    }

    /// A trap as the user reads it: function, subtask, row, and what the guest said.
    fn trapped(&self, error: &GuestError, item: Option<&Items>) -> Diagnostic {
        let of_guest = error.diagnostic();
        let names: Vec<&str> = self.nodes.iter().map(|(_, name, _)| name.as_str()).collect();
        let mut detail = self.place.text();
        if let Some(item) = item {
            detail.push_str(&format!(", {}", self.item(item, 0)));
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

impl KeyedState {
    /// No key yet, of these columns of each input.
    ///
    /// # Errors
    /// If keys or states of their types cannot be kept.
    pub(crate) fn new(
        keys: Vec<Option<Vec<usize>>>,
        key_types: &[DataType],
        states: &[State],
        seed: u64,
    ) -> Result<Self, ArrowError> {
        let by_value = (0..).zip(states).filter(|(_, state)| state.kind == StateKind::Value);
        let tables = by_value
            .map(|(place, state)| Ok((place, ValueTable::new(state.value.field(0).data_type(), state.ttl)?)))
            .collect::<Result<_, ArrowError>>()?;
        Ok(Self {
            keys,
            index: KeyIndex::new(key_types, seed)?,
            tables,
            entries: EntryStates::new(states, seed)?,
            names: states.iter().map(|state| state.name.clone()).collect(),
            timers: Timers::default(),
            ids: Vec::new(),
            numbers: Vec::new(),
        })
    }

    /// What the guest reads the states with that do not travel by value.
    pub(crate) fn reader(&self) -> Option<Arc<dyn StateReader>> {
        self.entries.as_ref().map(EntryStates::reader)
    }

    /// A call with rows, grouped by key in the order of first occurrence, or with timers; with the
    /// groups' state. Their keys have been found.
    fn call(&mut self, now: Moment, what: &Items, groups: &mut Vec<KeyId>) -> Result<Call, ArrowError> {
        groups.clear();
        match what {
            Items::Rows(input, rows) => {
                let of_rows = self
                    .ids
                    .iter()
                    .map(|id| {
                        let number = &mut self.numbers[*id as usize];
                        if groups.get(*number as usize) != Some(id) {
                            // A call has fewer than 2^32 rows.
                            *number = groups.len() as u32;
                            groups.push(*id);
                        }
                        *number
                    })
                    .collect();
                let of_entries = Some((*input, rows, &self.ids[..]));
                let entries = match &mut self.entries {
                    Some(entries) => entries.begin(of_entries, groups, now.processing_time)?,
                    None => Vec::new(),
                };
                Ok(Call::ProcessKeyed {
                    now,
                    input: *input,
                    groups: self.groups(groups, now)?,
                    of_rows,
                    rows: rows.clone(),
                    entries,
                })
            }
            Items::Timers(domain, timers) => {
                groups.extend_from_slice(&self.ids);
                if let Some(entries) = &mut self.entries {
                    entries.begin(None, groups, now.processing_time)?;
                }
                let times = timers.iter().map(|(time, _)| *time).collect();
                Ok(Call::Timers { now, domain: *domain, times, groups: self.groups(groups, now)? })
            }
        }
    }

    fn groups(&mut self, groups: &[KeyId], now: Moment) -> Result<Groups, ArrowError> {
        let time = now.processing_time;
        Ok(Groups {
            count: u32::try_from(groups.len()).unwrap_or(u32::MAX),
            keys: self.index.keys(groups.iter().copied())?,
            state: self
                .tables
                .values_mut()
                .map(|table| table.load(groups, time))
                .collect::<Result<_, _>>()?,
        })
    }

    /// Sets `ids`, the key of each row or timer.
    fn find_keys(&mut self, what: &Items) -> Result<(), ArrowError> {
        match what {
            Items::Rows(input, rows) => {
                self.ids.clear();
                let Some(keys) = &self.keys[*input as usize] else { return Ok(()) };
                let columns: Vec<ArrayRef> = keys.iter().map(|k| Arc::clone(rows.column(*k))).collect();
                self.index.ids(&columns, rows.num_rows(), &mut self.ids)?;
                self.numbers.resize(self.index.bound(), 0);
            }
            Items::Timers(_, timers) => {
                self.ids.clear();
                self.ids.extend(timers.iter().map(|(_, key)| *key));
            }
        }
        Ok(())
    }

    /// The bytes of state that a call with the rows or timers of `ids` carries, at most.
    fn state_bytes(&self, what: &Items) -> Result<usize, ArrowError> {
        // Keys that come several times count several times.
        let by_value: usize = self.tables.values().map(|table| table.bytes(&self.ids)).sum();
        let riding = match (what, &self.entries) {
            (Items::Rows(input, rows), Some(entries)) => entries.bytes(*input, rows, &self.ids)?,
            _ => 0,
        };
        Ok(by_value + riding)
    }

    /// Takes what a call has written; or the state that cannot be kept, and why.
    fn apply(&mut self, outcome: &Outcome, groups: &[KeyId], now: Moment) -> Result<(), (u32, StoreError)> {
        for update in &outcome.updates {
            let stored = match (self.tables.get_mut(&update.state), &self.entries) {
                (Some(table), _) => {
                    let written = (0..groups.len())
                        .filter(|g| update.written.as_ref().is_none_or(|written| written.value(*g)))
                        .map(|g| (g, groups[g]));
                    table.store(written, &update.values, now.processing_time)
                }
                (None, Some(entries)) => entries.update(update),
                (None, None) => Ok(()),
            };
            stored.map_err(|error| (update.state, error))?;
        }
        if let Some(entries) = &self.entries {
            for changes in &outcome.entries {
                entries.apply(changes).map_err(|error| (changes.state, error))?;
            }
        }
        for change in &outcome.timers {
            let key = groups[change.group as usize];
            match change.set {
                true => self.timers.set(change.domain, key, change.time),
                false => self.timers.delete(change.domain, key, change.time),
            }
        }
        Ok(())
    }
}

/// A row as people read it, cut.
pub(crate) fn row_text(rows: &Batch, row: usize) -> String {
    let values: Vec<String> = rows.rows().columns().iter().map(|column| value_text(column, row)).collect();
    let text = format!("({})", values.join(","));
    let cut: String = text.chars().take(300).map(|c| if c.is_control() { '\u{FFFD}' } else { c }).collect();
    if cut.len() < text.len() { format!("{cut} …") } else { cut }
}

fn value_text(column: &ArrayRef, row: usize) -> String {
    let options = FormatOptions::default().with_null("null");
    match ArrayFormatter::try_new(column.as_ref(), &options) {
        Ok(formatter) if row < column.len() => formatter.value(row).to_string(),
        _ => "?".to_owned(),
    }
}
