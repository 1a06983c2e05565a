//! Runs functions in windows: aggregates and functions of all rows, called at windows' ends.
//!
//! In every call the window's bounds follow the key's columns, and a group is a key and window.

use millstream_sys::bindings::millstream::job::calls::{KeyedBatch, StateUpdate, TimerChanges};
use millstream_sys::bindings::millstream::job::graph;
use millstream_sys::bindings::millstream::job::rows::{Batch, Column};
use millstream_sys::bindings::millstream::job::state::Entries;
use millstream_sys::host;

use crate::aggregate_function::AggregateFunction;
use crate::emit::{Carried, Emit, Emits};
use crate::error::Error;
use crate::logging;
use crate::record::{Builder, Cursor, Record, Row, Timestamp, finish_rows, reader_of};
use crate::run::stage::{KeyedCode, KeyedFrame, Outcome, Stage};
use crate::task::TaskInfo;
use crate::window_function::{Window, WindowFunction, WindowRows, first_pages};
use crate::windows::CoGroupFunction;

/// The keys and windows of a call's groups.
pub(crate) struct Groups<'c, K: Record> {
    keys: K::Reader<'c>,
    starts: &'c [i64],
    ends: &'c [i64],
}

impl<'c, K: Record> Groups<'c, K> {
    pub(crate) fn of(call: &'c KeyedBatch) -> Self {
        let mut columns = Cursor::new(&call.keys, K::IS_STRUCT);
        let keys = K::read(&mut columns);
        Groups { keys, starts: Timestamp::read(&mut columns), ends: Timestamp::read(&mut columns) }
    }

    #[inline]
    pub(crate) fn key(&self, group: usize) -> K::Ref<'c> {
        K::get(&self.keys, group)
    }

    #[inline]
    pub(crate) fn window(&self, group: usize) -> Window {
        Window { start: self.starts[group], end: self.ends[group] }
    }
}

/// Rows, or timers, of a call that have failed: what they did is undone by running the call again without
/// them.
///
/// A later row of the group has met what the failed one left; so of each group only the first failure
/// counts in a pass, and the next pass tells of the others.
pub(crate) struct Failed {
    /// rows to leave out; empty in the first pass, if the host leaves out none
    pub(crate) skip: Vec<bool>,
    failures: Vec<(u32, String)>,
    /// groups that have failed in this pass
    groups: Vec<u32>,
}

impl Failed {
    pub(crate) fn new(frame: &KeyedFrame<'_>) -> Failed {
        Failed {
            skip: frame.skip.map_or_else(Vec::new, <[bool]>::to_vec),
            failures: Vec::new(),
            groups: Vec::new(),
        }
    }

    #[inline]
    pub(crate) fn is_left(&self, row: usize) -> bool {
        self.skip.get(row).is_some_and(|is_left| *is_left)
    }

    #[cold]
    pub(crate) fn add(&mut self, row: usize, group: u32, error: &Error) {
        if self.groups.contains(&group) {
            return;
        }
        self.groups.push(group);
        if self.skip.len() <= row {
            self.skip.resize(row + 1, false);
        }
        self.skip[row] = true;
        // Row numbers are the contract's, of 32 bits.
        self.failures.push((row as u32, error.to_string()));
    }

    /// Whether another pass has to run.
    pub(crate) fn begin_again(&mut self) -> bool {
        let has_failed = !self.groups.is_empty();
        self.groups.clear();
        has_failed
    }

    pub(crate) fn into_failures(mut self) -> Vec<(u32, String)> {
        self.failures.sort_by_key(|(row, _)| *row);
        self.failures
    }
}

/// What the rows that timers give carry: the timers' times.
pub(crate) fn carried_by_timers<'a>(
    (domain, times): (graph::TimeDomain, &'a [i64]),
    origins: bool,
) -> Carried<'a> {
    Carried {
        // A call has as many timers as groups.
        length: times.len() as u32,
        event_times: matches!(domain, graph::TimeDomain::EventTime).then_some(times),
        kinds: None,
        origins,
    }
}

/// New values of the first state, for the groups that have one.
fn written<T: Record>(
    values: &[Option<T>],
    builder: &mut <Option<T> as Record>::Builder,
) -> Option<StateUpdate> {
    let mut written = vec![0u8; values.len().div_ceil(8)];
    let mut count = 0;
    for (group, value) in values.iter().enumerate() {
        match value {
            Some(value) => {
                written[group >> 3] |= 1 << (group & 7);
                count += 1;
                Row::<Option<T>>::append_to(Some(value.as_row()), builder);
            }
            None => builder.push_empty(),
        }
    }
    let columns = finish_rows::<Option<T>>(builder);
    let written = (count < values.len()).then_some(written);
    (count > 0).then_some(StateUpdate { state: 0, written, columns })
}

/// An aggregate of a window, emitted at its end. The state is one accumulator a key and window.
struct Aggregated<F: AggregateFunction> {
    function: F,
    emit: Emit<F::Out>,
    accumulators: Vec<Option<F::Accumulator>>,
    builder: <Option<F::Accumulator> as Record>::Builder,
}

pub(crate) fn aggregated<F: AggregateFunction>(function: F) -> Stage {
    Stage::Keyed(Box::new(Aggregated {
        function,
        emit: Emit::default(),
        accumulators: Vec::new(),
        builder: Default::default(),
    }))
}

impl<F: AggregateFunction> KeyedCode for Aggregated<F> {
    fn call(&mut self, frame: KeyedFrame<'_>) -> Outcome {
        match frame.timers {
            Some(timers) => self.emit(&frame, timers),
            None => self.add(&frame),
        }
    }

    fn merge(&mut self, count: u32, left: &[Column], right: &[Column]) -> Vec<Column> {
        let read = |columns| Option::<F::Accumulator>::read(&mut Cursor::new(columns, false));
        let (left, right) = (read(left), read(right));
        for row in 0..count as usize {
            match (Option::<F::Accumulator>::get(&left, row), Option::<F::Accumulator>::get(&right, row)) {
                (Some(earlier), Some(later)) => {
                    let mut merged = F::Accumulator::from_row(earlier);
                    self.function.merge(&mut merged, later);
                    Row::<Option<F::Accumulator>>::append_to(Some(merged.as_row()), &mut self.builder);
                }
                (one, None) | (None, one) => {
                    Row::<Option<F::Accumulator>>::append_to(one, &mut self.builder);
                }
            }
        }
        finish_rows::<Option<F::Accumulator>>(&mut self.builder)
    }
}

impl<F: AggregateFunction> Aggregated<F> {
    /// Adds rows to the accumulators of their groups. Nothing is emitted.
    fn add(&mut self, frame: &KeyedFrame<'_>) -> Outcome {
        let Self { function, accumulators, builder, .. } = self;
        let (call, input) = (frame.call, &frame.call.inputs[0]);
        let mut failed = Failed::new(frame);
        let before = Option::<F::Accumulator>::read(&mut Cursor::new(&call.state, false));
        let reader = reader_of::<F::In>(&input.rows);
        let mut muted = None;
        loop {
            accumulators.clear();
            accumulators.resize_with(call.group_count as usize, || None);
            let is_whole = failed.skip.is_empty();
            for (row, group) in input.groups.iter().enumerate() {
                if !is_whole && failed.is_left(row) {
                    continue;
                }
                let accumulator = &mut accumulators[*group as usize];
                let accumulator = match accumulator {
                    Some(accumulator) => accumulator,
                    None => accumulator.insert(begun(function, &before, *group as usize)),
                };
                if let Err(error) = function.add(F::In::get(&reader, row), accumulator) {
                    failed.add(row, *group, &error);
                }
            }
            if !failed.begin_again() {
                break;
            }
            // What it has logged and counted has been logged and counted.
            muted.get_or_insert_with(logging::mute);
        }
        drop(muted);
        let updates = written(accumulators, builder).into_iter().collect();
        Outcome { failures: failed.into_failures(), updates, ..Outcome::default() }
    }

    /// Emits the results of windows that have ended.
    fn emit(&mut self, frame: &KeyedFrame<'_>, timers: (graph::TimeDomain, &[i64])) -> Outcome {
        let groups = Groups::<F::Key>::of(frame.call);
        let carried = carried_by_timers(timers, frame.origins);
        let is_marked = carried.is_needed();
        let states = Option::<F::Accumulator>::read(&mut Cursor::new(&frame.call.state, false));
        for group in 0..timers.1.len() {
            if !frame.skip.is_some_and(|skip| skip[group])
                && let Some(accumulator) = Option::<F::Accumulator>::get(&states, group)
            {
                let accumulator = F::Accumulator::from_row(accumulator);
                let result =
                    self.function.window_result(groups.key(group), &groups.window(group), &accumulator);
                self.emit.emit(result.as_row());
            }
            if is_marked {
                self.emit.mark();
            }
        }
        Outcome { made: self.emit.finish(&carried), ..Outcome::default() }
    }
}

/// The accumulator of a group as it was before the call, or a new one.
#[inline]
fn begun<F: AggregateFunction>(
    function: &F,
    before: &<Option<F::Accumulator> as Record>::Reader<'_>,
    group: usize,
) -> F::Accumulator {
    match Option::<F::Accumulator>::get(before, group) {
        Some(accumulator) => F::Accumulator::from_row(accumulator),
        None => function.create(),
    }
}

/// What is called at a window's end with the rows that the host has collected: of one input, or of two.
pub(crate) trait Collecting: 'static {
    type Key: Record;
    type Out: Record;
    /// First pages of the rows of all groups.
    type Pages;

    fn open(&mut self, task: &TaskInfo) -> Result<(), Error>;
    fn pages(groups: u32) -> Self::Pages;
    fn apply(
        &self,
        groups: &Groups<'_, Self::Key>,
        group: usize,
        pages: &Self::Pages,
        emit: &mut Emit<Self::Out>,
    ) -> Result<(), Error>;
}

/// A [`WindowFunction`].
pub(crate) struct OfRows<F>(pub(crate) F);

impl<F: WindowFunction> Collecting for OfRows<F> {
    type Key = F::Key;
    type Out = F::Out;
    type Pages = Entries;

    fn open(&mut self, task: &TaskInfo) -> Result<(), Error> {
        self.0.open(task)
    }

    fn pages(groups: u32) -> Entries {
        first_pages(0, groups)
    }

    fn apply(
        &self,
        groups: &Groups<'_, F::Key>,
        group: usize,
        pages: &Entries,
        emit: &mut Emit<F::Out>,
    ) -> Result<(), Error> {
        // Groups have numbers of 32 bits.
        let rows = WindowRows::after(0, group as u32, (pages, group));
        self.0.apply(groups.key(group), &groups.window(group), &rows, emit)
    }
}

/// A [`CoGroupFunction`].
pub(crate) struct OfBoth<F>(pub(crate) F);

impl<F: CoGroupFunction> Collecting for OfBoth<F> {
    type Key = F::Key;
    type Out = F::Out;
    type Pages = (Entries, Entries);

    fn open(&mut self, task: &TaskInfo) -> Result<(), Error> {
        self.0.open(task)
    }

    fn pages(groups: u32) -> (Entries, Entries) {
        (first_pages(0, groups), first_pages(1, groups))
    }

    fn apply(
        &self,
        groups: &Groups<'_, F::Key>,
        group: usize,
        pages: &(Entries, Entries),
        emit: &mut Emit<F::Out>,
    ) -> Result<(), Error> {
        // Groups have numbers of 32 bits.
        let first = WindowRows::after(0, group as u32, (&pages.0, group));
        let second = WindowRows::after(1, group as u32, (&pages.1, group));
        self.0.co_group(groups.key(group), &groups.window(group), &first, &second, emit)
    }
}

struct Collected<C: Collecting> {
    code: C,
    emit: Emit<C::Out>,
}

pub(crate) fn collected<C: Collecting>(code: C) -> Stage {
    Stage::Keyed(Box::new(Collected { code, emit: Emit::default() }))
}

impl<C: Collecting> KeyedCode for Collected<C> {
    fn open(&mut self, task: &TaskInfo) -> Result<(), Error> {
        self.code.open(task)
    }

    fn call(&mut self, frame: KeyedFrame<'_>) -> Outcome {
        let Some(timers) = frame.timers else {
            host::abort("rows of this function are the host's to collect")
        };
        let groups = Groups::<C::Key>::of(frame.call);
        let carried = carried_by_timers(timers, frame.origins);
        let is_marked = carried.is_needed();
        let pages = C::pages(frame.call.group_count);
        let mut failures = Vec::new();
        for group in 0..timers.1.len() {
            if !frame.skip.is_some_and(|skip| skip[group]) {
                let before = self.emit.lengths();
                if let Err(error) = self.code.apply(&groups, group, &pages, &mut self.emit) {
                    self.emit.truncate(before);
                    failures.push((group as u32, error.to_string()));
                }
            }
            if is_marked {
                self.emit.mark();
            }
        }
        Outcome { made: self.emit.finish(&carried), failures, ..Outcome::default() }
    }
}

/// No changes of timers.
pub(crate) fn no_timers() -> TimerChanges {
    TimerChanges { groups: Vec::new(), times: Vec::new(), changes: Vec::new() }
}

/// Rows of a call, which a window's rows are picked of.
pub(crate) type Picked<'c> = (&'c Batch, &'c [u32]);
