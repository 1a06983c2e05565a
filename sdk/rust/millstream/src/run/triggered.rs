//! Runs functions in windows whose emission a trigger decides.
//!
//! One value a key and window has what is kept for it and the trigger's state. A window function's rows
//! are added to a sequence: the host cannot collect them, since the trigger sees each.

use millstream_sys::bindings::millstream::job::calls::{
    EntryChanges, KeyedBatch, Moment, StateUpdate, TimerChanges,
};
use millstream_sys::bindings::millstream::job::graph::TimeDomain;
use millstream_sys::bindings::millstream::job::rows::{Batch, Column, Values};

use crate::aggregate_function::AggregateFunction;
use crate::emit::{Carried, Emit, Emits};
use crate::error::Error;
use crate::logging;
use crate::record::{Builder, Cursor, Record, Row, finish_rows, reader_of};
use crate::run::stage::{KeyedCode, KeyedFrame, Outcome, Stage};
use crate::run::windowed::{Failed, Groups, Picked, carried_by_timers, no_timers};
use crate::task::TaskInfo;
use crate::trigger::{Trigger, TriggerContext, TriggerResult};
use crate::window_function::{Window, WindowFunction, WindowRows};

/// What is kept of a window's rows, and what is made of it.
pub(crate) trait Contents: 'static {
    type In: Record;
    type Key: Record;
    type Out: Record;
    /// What is kept by value.
    type Kept: Record;
    /// Whether rows are kept, in the second state.
    const KEEPS_ROWS: bool;

    fn open(&mut self, task: &TaskInfo) -> Result<(), Error>;

    fn add(&self, row: <Self::In as Record>::Ref<'_>, kept: &mut Option<Self::Kept>) -> Result<(), Error>;

    /// Emits a window, unless it is empty.
    fn fire(
        &self,
        key: <Self::Key as Record>::Ref<'_>,
        window: &Window,
        kept: Option<&Self::Kept>,
        rows: &WindowRows<'_, Self::In>,
        emit: &mut Emit<Self::Out>,
    ) -> Result<(), Error>;

    fn merge(&self, into: &mut Self::Kept, other: <Self::Kept as Record>::Ref<'_>);
}

/// An [`AggregateFunction`]: it keeps an accumulator.
pub(crate) struct Accumulating<F>(pub(crate) F);

impl<F: AggregateFunction> Contents for Accumulating<F> {
    type In = F::In;
    type Key = F::Key;
    type Out = F::Out;
    type Kept = F::Accumulator;
    const KEEPS_ROWS: bool = false;

    fn open(&mut self, _: &TaskInfo) -> Result<(), Error> {
        Ok(())
    }

    fn add(&self, row: <F::In as Record>::Ref<'_>, kept: &mut Option<F::Accumulator>) -> Result<(), Error> {
        self.0.add(row, kept.get_or_insert_with(|| self.0.create()))
    }

    fn fire(
        &self,
        key: <F::Key as Record>::Ref<'_>,
        window: &Window,
        kept: Option<&F::Accumulator>,
        _: &WindowRows<'_, F::In>,
        emit: &mut Emit<F::Out>,
    ) -> Result<(), Error> {
        if let Some(accumulator) = kept {
            emit.emit(self.0.window_result(key, window, accumulator).as_row());
        }
        Ok(())
    }

    fn merge(&self, into: &mut F::Accumulator, other: <F::Accumulator as Record>::Ref<'_>) {
        self.0.merge(into, other);
    }
}

/// A [`WindowFunction`]: it keeps the rows.
pub(crate) struct Listing<F>(pub(crate) F);

impl<F: WindowFunction> Contents for Listing<F> {
    type In = F::In;
    type Key = F::Key;
    type Out = F::Out;
    /// Nothing.
    type Kept = bool;
    const KEEPS_ROWS: bool = true;

    fn open(&mut self, task: &TaskInfo) -> Result<(), Error> {
        self.0.open(task)
    }

    fn add(&self, _: <F::In as Record>::Ref<'_>, _: &mut Option<bool>) -> Result<(), Error> {
        Ok(())
    }

    fn fire(
        &self,
        key: <F::Key as Record>::Ref<'_>,
        window: &Window,
        _: Option<&bool>,
        rows: &WindowRows<'_, F::In>,
        emit: &mut Emit<F::Out>,
    ) -> Result<(), Error> {
        if rows.is_empty() { Ok(()) } else { self.0.apply(key, window, rows, emit) }
    }

    fn merge(&self, _: &mut bool, _: bool) {}
}

/// The place of the rows that are kept among the states.
const ROWS: u32 = 1;

/// The value that is kept: what there is of the rows, and the trigger's state.
type Value<K, S> = (Option<K>, Option<S>);

/// A window while a call runs.
struct Live<K, S> {
    is_loaded: bool,
    is_touched: bool,
    kept: Option<K>,
    state: Option<S>,
    /// what the host has of its rows is gone
    is_purged: bool,
    /// rows of the call that are in it
    added: Vec<u32>,
}

impl<K, S> Default for Live<K, S> {
    fn default() -> Self {
        Live {
            is_loaded: false,
            is_touched: false,
            kept: None,
            state: None,
            is_purged: false,
            added: Vec::new(),
        }
    }
}

/// What a trigger is asked with.
struct Asked {
    group: usize,
    now: Moment,
    timestamp: Option<i64>,
}

impl<K, S: Record> Live<K, S> {
    #[inline]
    fn ask(
        &mut self,
        Asked { group, now, timestamp }: Asked,
        timers: &mut TimerChanges,
        trigger: impl FnOnce(&mut TriggerContext<'_, S>) -> TriggerResult,
    ) -> TriggerResult {
        trigger(&mut TriggerContext {
            state: &mut self.state,
            is_touched: &mut self.is_touched,
            timers,
            // A call has fewer groups than 2^32.
            group: group as u32,
            now,
            timestamp,
        })
    }
}

/// Changes of the rows that are kept, in their order.
struct RowChanges<T: Record> {
    changes: Vec<u8>,
    groups: Vec<u32>,
    rows: T::Builder,
}

/// The numbers of the contract's changes of entries.
const ADD: u8 = 0;
const CLEAR: u8 = 2;

impl<T: Record> RowChanges<T> {
    fn new() -> Self {
        RowChanges { changes: Vec::new(), groups: Vec::new(), rows: T::Builder::default() }
    }

    fn clear(&mut self) {
        self.changes.clear();
        self.groups.clear();
        self.rows.truncate(0);
    }

    fn finish(&mut self) -> Option<EntryChanges> {
        if self.changes.is_empty() {
            return None;
        }
        let mut values = Vec::new();
        if !T::IS_STRUCT {
            // An entry is a structure of the row's columns.
            values.push(Column { values: Values::Nothing, validity: None });
        }
        self.rows.finish(&mut values);
        let (changes, groups) = (std::mem::take(&mut self.changes), std::mem::take(&mut self.groups));
        Some(EntryChanges { state: ROWS, changes, groups, keys: Vec::new(), values })
    }
}

struct Triggered<C: Contents, G: Trigger<C::In>> {
    code: C,
    trigger: G,
    /// each result is the last of the rows that it is of
    is_purging: bool,
    /// windows are by the rows' time
    by_event_time: bool,
    emit: Emit<C::Out>,
    windows: Vec<Live<C::Kept, G::State>>,
    changes: RowChanges<C::In>,
    builder: <Option<Value<C::Kept, G::State>> as Record>::Builder,
}

pub(crate) fn triggered<C: Contents, G: Trigger<C::In>>(
    code: C,
    trigger: G,
    is_purging: bool,
    by_event_time: bool,
) -> Stage {
    Stage::Keyed(Box::new(Triggered {
        code,
        trigger,
        is_purging,
        by_event_time,
        emit: Emit::default(),
        windows: Vec::new(),
        changes: RowChanges::new(),
        builder: Default::default(),
    }))
}

/// What a row or a timer has come to: its group, and the rows that its window's are among.
struct At<'c> {
    group: usize,
    window: Window,
    /// the rows of the call
    rows: Option<&'c Batch>,
}

impl<C: Contents, G: Trigger<C::In>> KeyedCode for Triggered<C, G> {
    fn open(&mut self, task: &TaskInfo) -> Result<(), Error> {
        self.code.open(task)?;
        self.trigger.open(task)
    }

    fn call(&mut self, frame: KeyedFrame<'_>) -> Outcome {
        let groups = Groups::<C::Key>::of(frame.call);
        let times = self.event_times(&frame, &groups);
        let carried = match frame.timers {
            Some(timers) => carried_by_timers(timers, frame.origins),
            None => Carried::of(&frame.call.inputs[0].rows, frame.origins),
        };
        let carried =
            Carried { event_times: times.as_deref().or(carried.event_times), kinds: None, ..carried };
        let mut failed = Failed::new(&frame);
        let mut muted = None;
        loop {
            self.windows.clear();
            self.windows.resize_with(frame.call.group_count as usize, Live::default);
            self.changes.clear();
            let mut timers = no_timers();
            self.pass(&frame, &groups, carried.is_needed(), &mut failed, &mut timers);
            if !failed.begin_again() {
                drop(muted);
                return Outcome {
                    made: self.emit.finish(&carried),
                    failures: failed.into_failures(),
                    updates: self.update().into_iter().collect(),
                    entries: self.changes.finish().into_iter().collect(),
                    timers: Some(timers),
                };
            }
            drop(self.emit.finish(&carried));
            // What it has logged and counted has been logged and counted.
            muted.get_or_insert_with(logging::mute);
        }
    }

    fn merge(&mut self, count: u32, left: &[Column], right: &[Column]) -> Vec<Column> {
        let read = |columns| Option::<Value<C::Kept, G::State>>::read(&mut Cursor::new(columns, false));
        let (left, right) = (read(left), read(right));
        for row in 0..count as usize {
            let of = |reader| Option::<Value<C::Kept, G::State>>::get(reader, row).unwrap_or((None, None));
            let ((kept, state), (later, later_state)) = (of(&left), of(&right));
            let kept = merged::<C::Kept>(kept, later, |into, other| self.code.merge(into, other));
            let state = merged::<G::State>(state, later_state, |into, other| self.trigger.merge(into, other));
            push(kept.as_ref(), state.as_ref(), &mut self.builder);
        }
        finish_rows::<Option<Value<C::Kept, G::State>>>(&mut self.builder)
    }
}

/// One value of two of which either may be missing.
fn merged<T: Record>(
    earlier: Option<T::Ref<'_>>,
    later: Option<T::Ref<'_>>,
    merge: impl FnOnce(&mut T, T::Ref<'_>),
) -> Option<T> {
    match (earlier, later) {
        (Some(earlier), Some(later)) => {
            let mut value = T::from_row(earlier);
            merge(&mut value, later);
            Some(value)
        }
        (Some(one), None) => Some(T::from_row(one)),
        (None, Some(one)) => Some(T::from_row(one)),
        (None, None) => None,
    }
}

/// Appends what is kept of a window; null if nothing is.
fn push<K: Record, S: Record>(
    kept: Option<&K>,
    state: Option<&S>,
    builder: &mut <Option<Value<K, S>> as Record>::Builder,
) {
    if kept.is_none() && state.is_none() {
        builder.push_empty();
    } else {
        let value = (kept.map(K::as_row), state.map(S::as_row));
        Row::<Option<Value<K, S>>>::append_to(Some(value), builder);
    }
}

impl<C: Contents, G: Trigger<C::In>> Triggered<C, G> {
    /// The event times of what each row or timer emits: its window's last instant, by the rows' time and if
    /// the window has an end.
    fn event_times(&self, frame: &KeyedFrame<'_>, groups: &Groups<'_, C::Key>) -> Option<Vec<i64>> {
        if !self.by_event_time || frame.call.group_count == 0 || !groups.window(0).has_end() {
            return None;
        }
        let last = |group: usize| groups.window(group).max_timestamp();
        Some(match frame.timers {
            Some((_, times)) => (0..times.len()).map(last).collect(),
            None => frame.call.inputs[0].groups.iter().map(|group| last(*group as usize)).collect(),
        })
    }

    fn pass(
        &mut self,
        frame: &KeyedFrame<'_>,
        groups: &Groups<'_, C::Key>,
        is_marked: bool,
        failed: &mut Failed,
        timers: &mut TimerChanges,
    ) {
        let call: &KeyedBatch = frame.call;
        let before = Option::<Value<C::Kept, G::State>>::read(&mut Cursor::new(&call.state, false));
        let now = frame.now;
        if let Some((domain, times)) = frame.timers {
            for (group, time) in times.iter().enumerate() {
                if !failed.is_left(group) {
                    let window = groups.window(group);
                    self.load(&before, group);
                    let trigger = &self.trigger;
                    let is_event_time = matches!(domain, TimeDomain::EventTime);
                    let asked = Asked { group, now, timestamp: is_event_time.then_some(*time) };
                    let result = self.windows[group].ask(asked, timers, |context| match is_event_time {
                        true => trigger.on_event_time(*time, &window, context),
                        false => trigger.on_processing_time(*time, &window, context),
                    });
                    self.act(result, groups.key(group), &At { group, window, rows: None }, group, failed);
                }
                if is_marked {
                    self.emit.mark();
                }
            }
            return;
        }
        let input = &call.inputs[0];
        let reader = reader_of::<C::In>(&input.rows);
        for (row, group) in input.groups.iter().enumerate() {
            if !failed.is_left(row) {
                let group = *group as usize;
                let window = groups.window(group);
                self.load(&before, group);
                let one = C::In::get(&reader, row);
                let live = &mut self.windows[group];
                live.is_touched |= !C::KEEPS_ROWS;
                if let Err(error) = self.code.add(one, &mut live.kept) {
                    failed.add(row, group as u32, &error);
                } else {
                    if C::KEEPS_ROWS {
                        live.added.push(row as u32);
                        self.changes.changes.push(ADD);
                        self.changes.groups.push(group as u32);
                        one.append_to(&mut self.changes.rows);
                    }
                    let times = input.rows.event_times.as_deref();
                    let timestamp = times.map(|times| times[row]).filter(|time| *time != i64::MIN);
                    let trigger = &self.trigger;
                    let asked = Asked { group, now, timestamp };
                    let result = live.ask(asked, timers, |context| trigger.on_row(one, &window, context));
                    let at = At { group, window, rows: Some(&input.rows) };
                    self.act(result, groups.key(group), &at, row, failed);
                }
            }
            if is_marked {
                self.emit.mark();
            }
        }
    }

    /// Reads what is kept of a group, when it first has a row or a timer.
    fn load(&mut self, before: &<Option<Value<C::Kept, G::State>> as Record>::Reader<'_>, group: usize) {
        let live = &mut self.windows[group];
        if !live.is_loaded {
            live.is_loaded = true;
            if let Some((kept, state)) = Option::<Value<C::Kept, G::State>>::get(before, group) {
                (live.kept, live.state) = (kept.map(C::Kept::from_row), state.map(G::State::from_row));
            }
        }
    }

    /// Does what the trigger says.
    fn act(
        &mut self,
        result: TriggerResult,
        key: <C::Key as Record>::Ref<'_>,
        at: &At<'_>,
        row: usize,
        failed: &mut Failed,
    ) {
        let Self { code, emit, windows, changes, is_purging, .. } = self;
        let live = &mut windows[at.group];
        if result.fires() {
            // Groups have numbers of 32 bits.
            let group = (!live.is_purged).then_some(at.group as u32);
            let added: Option<Picked<'_>> = at.rows.map(|rows| (rows, &live.added[..]));
            let before = emit.lengths();
            let rows = WindowRows::with(ROWS, group, added);
            let fired = code.fire(key, &at.window, live.kept.as_ref(), &rows, emit);
            drop(rows);
            if let Err(error) = fired {
                emit.truncate(before);
                failed.add(row, at.group as u32, &error);
                return;
            }
        }
        if result.purges() || (*is_purging && result.fires()) {
            live.is_touched |= !C::KEEPS_ROWS;
            live.kept = None;
            live.added.clear();
            live.is_purged = true;
            if C::KEEPS_ROWS {
                changes.changes.push(CLEAR);
                changes.groups.push(at.group as u32);
                changes.rows.push_empty();
            }
        }
    }

    /// The new values of the groups that were touched.
    fn update(&mut self) -> Option<StateUpdate> {
        let count = self.windows.iter().filter(|live| live.is_touched).count();
        if count == 0 {
            return None;
        }
        let mut written = vec![0u8; self.windows.len().div_ceil(8)];
        for (group, live) in self.windows.iter().enumerate() {
            match live.is_touched {
                true => push(live.kept.as_ref(), live.state.as_ref(), &mut self.builder),
                false => self.builder.push_empty(),
            }
            written[group >> 3] |= u8::from(live.is_touched) << (group & 7);
        }
        let columns = finish_rows::<Option<Value<C::Kept, G::State>>>(&mut self.builder);
        let written = (count < self.windows.len()).then_some(written);
        Some(StateUpdate { state: 0, written, columns })
    }
}
