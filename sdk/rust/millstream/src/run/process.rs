//! Runs a process function over the rows, or the timers, of a call.

use std::marker::PhantomData;

use millstream_sys::bindings::millstream::job::calls::{KeyedBatch, KeyedRows, TimerChanges};
use millstream_sys::bindings::millstream::job::graph;
use millstream_sys::bindings::millstream::job::rows::{Column, Values};

use crate::broadcast::{BroadcastContext, Broadcasting, KeyedBroadcastProcessFunction};
use crate::changes::RowKind;
use crate::connected::{Co, CoProcessFunction};
use crate::emit::{Carried, Emit, Emits};
use crate::error::Error;
use crate::logging;
use crate::process::{Context, ProcessFunction, Side, Slot, TimeDomain, Timer};
use crate::record::{Cursor, Record, reader_of};
use crate::run::cells::{Cells, state_update};
use crate::run::stage::{KeyedCode, KeyedFrame, Outcome, Stage};
use crate::state::Declared;
use crate::task::TaskInfo;

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

/// Which rows of a call a function is given, and how.
pub(crate) trait Inputs<F: ProcessFunction<S>, S: Side>: 'static {
    fn run<'c>(function: &F, input: &'c KeyedRows, step: &mut Step<'_, 'c, F, S>);
}

/// Rows of one input.
pub(crate) struct OneInput;

impl<F: ProcessFunction<S>, S: Side> Inputs<F, S> for OneInput {
    fn run<'c>(function: &F, input: &'c KeyedRows, step: &mut Step<'_, 'c, F, S>) {
        let reader = reader_of::<F::In>(&input.rows);
        for (row, group) in input.groups.iter().enumerate() {
            step.run(row, *group as usize, |context| function.process(F::In::get(&reader, row), context));
        }
    }
}

/// Rows of two inputs with one key.
pub(crate) struct TwoInputs;

impl<F: CoProcessFunction<S>, S: Side> Inputs<Co<F>, S> for TwoInputs {
    fn run<'c>(function: &Co<F>, input: &'c KeyedRows, step: &mut Step<'_, 'c, Co<F>, S>) {
        if input.input == 0 {
            return OneInput::run(function, input, step);
        }
        let reader = reader_of::<F::Second>(&input.rows);
        for (row, group) in input.groups.iter().enumerate() {
            step.run(row, *group as usize, |context| {
                function.0.process_second(F::Second::get(&reader, row), context)
            });
        }
    }
}

/// Rows with a key, and rows that reach all keys.
pub(crate) struct BroadcastInput;

impl<F: KeyedBroadcastProcessFunction<S>, S: Side> Inputs<Broadcasting<F>, S> for BroadcastInput {
    fn run<'c>(
        function: &Broadcasting<F>,
        input: &'c KeyedRows,
        step: &mut Step<'_, 'c, Broadcasting<F>, S>,
    ) {
        // Rows without a key have no groups.
        let rows = 0..input.rows.length as usize;
        match (input.input, F::IS_KEYED) {
            (0, true) => OneInput::run(function, input, step),
            (0, false) => {
                let reader = reader_of::<F::In>(&input.rows);
                rows.for_each(|row| {
                    step.run(row, 0, |context| function.process(F::In::get(&reader, row), context))
                });
            }
            _ => {
                let reader = reader_of::<F::Broadcast>(&input.rows);
                rows.for_each(|row| {
                    step.run(row, 0, |context| {
                        let row = F::Broadcast::get(&reader, row);
                        function.0.process_broadcast(row, &mut BroadcastContext(context))
                    })
                });
            }
        }
    }
}

/// A process function with what it keeps from call to call: room.
struct Processed<F: ProcessFunction<S>, S: Side, I> {
    function: F,
    emits: (Emit<F::Out>, Emit<S::Rows>),
    slots: Vec<Slot<F::State>>,
    cells: Cells,
    builder: <Option<F::State> as Record>::Builder,
    inputs: PhantomData<I>,
}

/// Runs the function for each row, or timer. A state is read when its group first has one, changed in
/// place, and written at the end.
///
/// A row that fails leaves nothing. What it emitted and its timers are taken back; if it may have
/// changed the state, the group's further rows are left, and all run again without it.
pub(crate) fn processed<F: ProcessFunction<S>, S: Side, I: Inputs<F, S>>(
    function: F,
    declared: Vec<Declared>,
) -> Stage {
    Stage::Keyed(Box::new(Processed::<F, S, I> {
        function,
        emits: Default::default(),
        slots: Vec::new(),
        cells: Cells::new(declared),
        builder: Default::default(),
        inputs: PhantomData,
    }))
}

impl<F: ProcessFunction<S>, S: Side, I: Inputs<F, S>> KeyedCode for Processed<F, S, I> {
    fn open(&mut self, task: &TaskInfo) -> Result<(), Error> {
        self.function.open(task)
    }

    fn call(&mut self, frame: KeyedFrame<'_>) -> Outcome {
        let carried = carried(&frame);
        // Rows without a key are as of one.
        let groups = frame.call.group_count.max(1) as usize;
        let mut passes = Passes {
            skip: Vec::new(),
            failures: Vec::new(),
            ran: Vec::new(),
            spoilt: Vec::new(),
            is_spoilt: Vec::new(),
        };
        loop {
            self.slots.clear();
            self.slots.resize_with(groups, Slot::empty);
            let mut timers = TimerChanges { groups: Vec::new(), times: Vec::new(), changes: Vec::new() };
            self.pass(&frame, &carried, &mut timers, &mut passes);
            if passes.spoilt.is_empty() {
                passes.failures.sort_by_key(|(row, _)| *row);
                let mut updates: Vec<_> =
                    state_update(0, &self.slots, &mut self.builder).into_iter().collect();
                let mut entries = Vec::new();
                self.cells.finish(&mut updates, &mut entries);
                return Outcome {
                    made: self.emits.finish(&carried),
                    failures: passes.failures,
                    updates,
                    entries,
                    timers: Some(timers),
                };
            }
            drop(self.emits.finish(&carried));
            passes.ran.clear();
            passes.ran.resize(groups, u32::MAX);
            passes.is_spoilt.clear();
            for (group, row) in passes.spoilt.drain(..) {
                passes.ran[group as usize] = row;
            }
        }
    }
}

/// A column of booleans without rows.
const NOTHING: &[Column] = &[Column { values: Values::Bits(Vec::new()), validity: None }];

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
pub(crate) struct Step<'s, 'c, F: ProcessFunction<S>, S: Side> {
    context: Context<'c, F, S>,
    states: <Option<F::State> as Record>::Reader<'c>,
    event_times: Option<&'c [i64]>,
    kinds: Option<&'c [u8]>,
    skip: Option<&'c [bool]>,
    is_marked: bool,
    passes: &'s mut Passes,
    /// whether this pass is not the first
    is_again: bool,
    /// whether the rows have keys, and so state
    has_groups: bool,
}

impl<F: ProcessFunction<S>, S: Side, I: Inputs<F, S>> Processed<F, S, I> {
    fn pass<'c>(
        &'c mut self,
        frame: &KeyedFrame<'c>,
        carried: &Carried<'c>,
        timers: &'c mut TimerChanges,
        passes: &mut Passes,
    ) {
        let Self { function, emits, slots, cells, .. } = self;
        let call: &'c KeyedBatch = frame.call;
        // Rows without a key have no columns of keys and states: empty ones stand for them.
        let (keys, mut by_value) = match F::IS_KEYED {
            true => (&call.keys[..], Cursor::new(&call.state, false)),
            false => (NOTHING, Cursor::new(NOTHING, false)),
        };
        let keys = F::Key::read(&mut Cursor::new(keys, F::Key::IS_STRUCT));
        let states = Option::<F::State>::read(&mut by_value);
        cells.begin(call, &mut by_value);
        let context = Context::<F, S> {
            keys,
            slots,
            cells,
            emits,
            timers,
            now: frame.now,
            group: 0,
            row: 0,
            timestamp: None,
            kind: RowKind::Insert,
        };
        let mut step = Step {
            context,
            states,
            event_times: carried.event_times,
            kinds: carried.kinds,
            skip: frame.skip,
            is_marked: carried.is_needed(),
            is_again: !passes.ran.is_empty(),
            has_groups: call.group_count > 0,
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
            I::run(function, &call.inputs[0], &mut step);
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
            (context.group, context.row) = (group, row);
            context.kind = self.kinds.map_or(RowKind::Insert, |kinds| RowKind::of(kinds[row]));
            context.timestamp = self.event_times.map(|times| times[row]).filter(|time| *time != i64::MIN);
            let slot = &mut context.slots[group];
            if !slot.is_loaded && self.has_groups {
                slot.is_loaded = true;
                slot.value = Option::<F::State>::get(&self.states, group).map(F::State::from_row);
            }
            slot.is_touched = false;
            context.cells.is_touched = false;
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
                slot.is_written &= was_written || slot.is_touched;
                let is_spoilt = slot.is_touched || context.cells.is_touched;
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
