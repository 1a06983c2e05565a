//! Runs a process function over the rows, or the timers, of a call.

use millstream_sys::bindings::millstream::job::calls::{KeyedBatch, StateUpdate, TimerChanges};
use millstream_sys::bindings::millstream::job::graph;

use crate::emit::{Carried, Emit, Emits};
use crate::error::Error;
use crate::logging;
use crate::process::{Context, ProcessFunction, Side, Slot, TimeDomain, Timer};
use crate::record::{Builder, Cursor, Record, Row, finish_rows, reader_of};
use crate::run::stage::{KeyedFrame, Outcome, Stage};

/// Which rows of a call ran in passes before, and which have failed.
struct Passes {
    skip: Vec<bool>,
    failures: Vec<(u32, String)>,
    /// For each group the row up to which it has run: what runs again is muted. Empty in the first pass.
    ran: Vec<u32>,
    /// Groups, in the pass that runs, with a row that failed after it had changed the state, and that row.
    spoilt: Vec<(u32, u32)>,
    is_spoilt: Vec<bool>,
}

/// Runs the function for each row, or timer. A state is read when its group first has one, changed in
/// place, and written at the end.
///
/// A row that fails leaves nothing. What it emitted and its timers are taken back; if it may have
/// changed the state, the group's further rows are left, and all run again without it.
pub(crate) fn processed<F: ProcessFunction<S>, S: Side>(function: F) -> Stage {
    let mut emits: (Emit<F::Out>, Emit<S::Rows>) = Default::default();
    let mut slots: Vec<Slot<F::State>> = Vec::new();
    let mut builder = <Option<F::State> as Record>::Builder::default();
    Stage::Keyed(Box::new(move |frame| {
        let carried = carried(&frame);
        let groups = frame.call.group_count as usize;
        let mut passes = Passes {
            skip: Vec::new(),
            failures: Vec::new(),
            ran: Vec::new(),
            spoilt: Vec::new(),
            is_spoilt: Vec::new(),
        };
        loop {
            slots.clear();
            slots.resize_with(groups, Slot::empty);
            let mut timers = TimerChanges { groups: Vec::new(), times: Vec::new(), changes: Vec::new() };
            pass(&function, &frame, &carried, &mut slots, &mut emits, &mut timers, &mut passes);
            if passes.spoilt.is_empty() {
                passes.failures.sort_by_key(|(row, _)| *row);
                return Outcome {
                    made: emits.finish(&carried),
                    failures: passes.failures,
                    updates: state_update(&slots, &mut builder).into_iter().collect(),
                    timers: Some(timers),
                };
            }
            drop(emits.finish(&carried));
            passes.ran.clear();
            passes.ran.resize(groups, u32::MAX);
            passes.is_spoilt.clear();
            for (group, row) in passes.spoilt.drain(..) {
                passes.ran[group as usize] = row;
            }
        }
    }))
}

/// What output rows get of the rows or timers that they are made of.
fn carried<'a>(frame: &KeyedFrame<'a>) -> Carried<'a> {
    match frame.timers {
        Some((domain, times)) => Carried {
            // A call has as many timers as groups.
            length: times.len() as u32,
            event_times: matches!(domain, graph::TimeDomain::EventTime).then_some(times),
            kinds: None,
            origins: frame.origins,
        },
        None => Carried::of(&frame.call.inputs[0].rows, frame.origins),
    }
}

/// What a pass has at hand for each row.
struct Step<'s, 'c, F: ProcessFunction<S>, S: Side> {
    context: Context<'c, F, S>,
    states: <Option<F::State> as Record>::Reader<'c>,
    event_times: Option<&'c [i64]>,
    skip: Option<&'c [bool]>,
    is_marked: bool,
    passes: &'s mut Passes,
    /// whether this pass is not the first
    is_again: bool,
}

fn pass<'c, F: ProcessFunction<S>, S: Side>(
    function: &F,
    frame: &KeyedFrame<'c>,
    carried: &Carried<'c>,
    slots: &'c mut [Slot<F::State>],
    emits: &'c mut (Emit<F::Out>, Emit<S::Rows>),
    timers: &'c mut TimerChanges,
    passes: &mut Passes,
) {
    let call: &'c KeyedBatch = frame.call;
    let keys = F::Key::read(&mut Cursor::new(&call.keys, F::Key::IS_STRUCT));
    let mut step = Step {
        context: Context::<F, S> { keys, slots, emits, timers, now: frame.now, group: 0, timestamp: None },
        states: Option::<F::State>::read(&mut Cursor::new(&call.state, false)),
        event_times: carried.event_times,
        skip: frame.skip,
        is_marked: carried.is_needed(),
        is_again: !passes.ran.is_empty(),
        passes,
    };
    if let Some((domain, times)) = frame.timers {
        let domain = match domain {
            graph::TimeDomain::EventTime => TimeDomain::EventTime,
            graph::TimeDomain::ProcessingTime => TimeDomain::ProcessingTime,
        };
        for (row, time) in times.iter().enumerate() {
            let timer = Timer { domain, time: *time };
            step.run(row, row, |context| function.on_timer(timer, context));
        }
    } else {
        let input = &call.inputs[0];
        let reader = reader_of::<F::In>(&input.rows);
        for (row, group) in input.groups.iter().enumerate() {
            step.run(row, *group as usize, |context| function.process(F::In::get(&reader, row), context));
        }
    }
}

impl<'c, F: ProcessFunction<S>, S: Side> Step<'_, 'c, F, S> {
    #[inline(always)]
    fn run(
        &mut self,
        row: usize,
        group: usize,
        function: impl FnOnce(&mut Context<'c, F, S>) -> Result<(), Error>,
    ) {
        let is_left = self.skip.is_some_and(|skip| skip[row])
            || (self.passes.has_failures() && self.passes.leaves(row, group));
        if !is_left {
            let context = &mut self.context;
            context.group = group;
            context.timestamp = self.event_times.map(|times| times[row]).filter(|time| *time != i64::MIN);
            let slot = &mut context.slots[group];
            if !slot.is_loaded {
                slot.is_loaded = true;
                slot.value = Option::<F::State>::get(&self.states, group).map(F::State::from_row);
            }
            slot.is_touched = false;
            let was_written = slot.is_written;
            let emitted = context.emits.lengths();
            let changes = context.timers.groups.len();
            // Row numbers are the contract's, of 32 bits.
            let muted = (self.is_again && row as u32 <= self.passes.ran[group]).then(logging::mute);
            let result = function(context);
            drop(muted);
            if let Err(error) = result {
                context.emits.truncate(emitted);
                context.timers.groups.truncate(changes);
                context.timers.times.truncate(changes);
                context.timers.changes.truncate(changes);
                let slot = &mut context.slots[group];
                let is_spoilt = slot.is_touched;
                slot.is_written &= was_written || is_spoilt;
                self.passes.failed(row, group, context.slots.len(), is_spoilt, &error);
            }
        }
        if self.is_marked {
            self.context.emits.mark();
        }
    }
}

impl Passes {
    #[inline(always)]
    fn has_failures(&self) -> bool {
        !self.failures.is_empty()
    }

    /// Whether the pass leaves this row: it has failed before, or an earlier one of its group just has.
    fn leaves(&self, row: usize, group: usize) -> bool {
        self.skip.get(row).is_some_and(|is_skipped| *is_skipped)
            || self.is_spoilt.get(group).is_some_and(|is_spoilt| *is_spoilt)
    }

    #[cold]
    fn failed(&mut self, row: usize, group: usize, groups: usize, is_spoilt: bool, error: &Error) {
        // Rows and groups have numbers of 32 bits.
        self.failures.push((row as u32, error.to_string()));
        if self.skip.len() <= row {
            self.skip.resize(row + 1, false);
        }
        self.skip[row] = true;
        if is_spoilt {
            self.is_spoilt.resize(groups, false);
            self.is_spoilt[group] = true;
            self.spoilt.push((group as u32, row as u32));
        }
    }
}

/// The new values of the groups that were written; a state that was removed is null.
fn state_update<T: Record>(
    slots: &[Slot<T>],
    builder: &mut <Option<T> as Record>::Builder,
) -> Option<StateUpdate> {
    let count = slots.iter().filter(|slot| slot.is_written).count();
    if count == 0 {
        return None;
    }
    let mut written = vec![0u8; slots.len().div_ceil(8)];
    for (group, slot) in slots.iter().enumerate() {
        match &slot.value {
            Some(value) if slot.is_written => Row::<Option<T>>::append_to(Some(value.as_row()), builder),
            _ => builder.push_empty(),
        }
        written[group >> 3] |= u8::from(slot.is_written) << (group & 7);
    }
    let columns = finish_rows::<Option<T>>(builder);
    Some(StateUpdate { state: 0, written: (count < slots.len()).then_some(written), columns })
}
