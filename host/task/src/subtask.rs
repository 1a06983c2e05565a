//! A subtask: one parallel instance of a chain, and its `step()`.
//!
//! A step runs the chain's stages, the deepest that can do something first, so that rows leave
//! before new ones come in. A stage runs only when the stages that it feeds have nothing waiting,
//! and the subtask only when all that it sent has found room: back-pressure is "not taking input".

use std::sync::Arc;
use std::time::Duration;

use checkpoint::coordinator::Stop;
use exchange::input_gate::Received;
use exchange::{InputGate, Moved};
use model::element::{Barrier, LatencyMarker, Mark};
use model::job_graph::NodeId;
use model::{Batch, Diagnostic};
use platform::Clock;
use platform::faults::Point;
use state::backend::{Held, Rest};
use state::{Backend, Extent, SharedBackend};

use crate::Sizes;
use crate::checkpoints::cut::{Chain, Cuts, Snapshot, Told, Written};
use crate::checkpoints::{Content, section};
use crate::metrics::times::TaskWatch;
use crate::metrics::{Counters, Standing, add};
use crate::operator::aggregate::AggregateOperator;
use crate::operator::function::FunctionOperator;
use crate::operator::keyed::KeyedStage;
use crate::operator::lookup::LookupOperator;
use crate::operator::native::NativeOperator;
use crate::operator::sink::SinkOperator;
use crate::operator::source::SourceOperator;
use crate::operator::watermarks::WatermarksOperator;
use crate::operator::{Element, Input, Ran, state_error};
use crate::output::Output;
use crate::swap::code::{Phase, StageCode, StageSwap, UnderWay};
use crate::swap::diff::losses;

/// One parallel instance of a chain.
pub(crate) struct Subtask {
    pub(crate) gate: Option<InputGate>,
    pub(crate) stages: Vec<StageInstance>,
    pub(crate) outputs: Vec<Output>,
    pub(crate) clock: Clock,
    pub(crate) sizes: Sizes,
    pub(crate) eaten: Eaten,
    /// It waits for room in what it feeds.
    pub(crate) blocked: bool,
    /// Where checkpoints are made.
    pub(crate) cuts: Option<Cuts>,
    /// The change to another version that is under way.
    pub(crate) swap: Option<UnderWay>,
    /// A deliberate fault of simulations: it changes before the barrier.
    pub(crate) swaps_early: bool,
    /// What can be seen of it from outside.
    pub(crate) watch: Arc<TaskWatch>,
    /// When it last said how much state it keeps.
    pub(crate) held_told: Duration,
    /// A source's: when it gives latency markers.
    pub(crate) pulse: Option<Pulse>,
}

/// When a source gives latency markers.
pub(crate) struct Pulse {
    /// Its vertex, by its place.
    pub(crate) source: u32,
    pub(crate) every: Duration,
    /// When it gives the next.
    pub(crate) next: Duration,
}

/// A stage of a subtask: an operator, and where its rows go.
pub(crate) struct StageInstance {
    pub(crate) operator: Operator,
    pub(crate) input: Input,
    pub(crate) targets: Vec<(NodeId, u32, Target)>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) ended: bool,
    /// It has passed the barrier that the job stops with: nothing more is done, unless that is given up.
    pub(crate) halted: Option<Barrier>,
    /// Its head.
    pub(crate) node: NodeId,
    /// Where its operator's keyed state is.
    pub(crate) backends: Vec<SharedBackend>,
    /// What is sealed of it and not yet written.
    pub(crate) snapshot: Option<Snapshot>,
    /// Those before it, upon which it may build.
    pub(crate) chain: Chain,
}

impl StageInstance {
    /// Puts a mark behind what the stage has to do.
    fn take(&mut self, mark: Mark) {
        if let Mark::Watermark(time) = mark {
            self.counters.set_input_watermark(time);
        }
        self.input.elements.push_back(Element::Mark(mark));
    }

    /// Changes places with the code of another version.
    fn change_places(&mut self, swap: &mut StageSwap) -> Result<(), Diagnostic> {
        let mut is_other = swap.is_renamed;
        match (&mut self.operator, &mut swap.code) {
            (Operator::Function(function), Some(StageCode::Function(code))) => {
                is_other |= function.change_places(code, self.backends.last_mut())?;
            }
            (Operator::Native(_, native), Some(StageCode::Native(function))) => {
                std::mem::swap(&mut native.function, function);
            }
            (Operator::Keyed(_, keyed), Some(StageCode::Windows { here, there })) => {
                if !keyed.change(there) {
                    return Err(Diagnostic::internal("windows were to become what they are not"));
                }
                std::mem::swap(here, there);
            }
            (Operator::Watermarks(_, watermarks), Some(StageCode::Watermarks(spec))) => {
                std::mem::swap(&mut watermarks.spec, spec);
            }
            (_, None) => {}
            _ => return Err(Diagnostic::internal("a stage was to become what it is not")),
        }
        if is_other {
            self.chain = Chain::default();
        }
        Ok(())
    }

    /// Goes back to the code that ran before. What is sealed of states that have gone is given up.
    fn go_back(&mut self, swap: &mut StageSwap) -> Result<(), Diagnostic> {
        if let (Operator::Function(function), Some(StageCode::Function(code))) = (&self.operator, &swap.code)
            && function.states != code.states
        {
            self.snapshot = None;
        }
        swap.has_changed = false;
        self.change_places(swap)
    }

    /// Says how much state the stage keeps in memory.
    fn tell_held(&self) {
        let mut held = Held::default();
        self.backends.iter().for_each(|backend| held += backend.held());
        if let Operator::Aggregate(_, aggregate) = &self.operator {
            held.keys += aggregate.aggregate.keys_held();
        }
        self.counters.set_held(held);
    }
}

/// Where rows of a port go.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    /// To a later stage of the same subtask.
    Stage(usize),
    /// Over an exchange.
    Output(usize),
}

pub(crate) enum Operator {
    Source(NodeId, Box<SourceOperator>),
    Watermarks(NodeId, Box<WatermarksOperator>),
    Function(Box<FunctionOperator>),
    Native(NodeId, NativeOperator),
    Aggregate(NodeId, Box<AggregateOperator>),
    Keyed(NodeId, Box<KeyedStage>),
    Lookup(NodeId, Box<LookupOperator>),
    Sink(Box<SinkOperator>),
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// There is more to do.
    More,
    /// Somebody else's turn; the subtask's waker says when.
    Idle,
    /// The subtask has finished.
    Done,
}

/// How long rows take, to bound what waits at the gate.
#[derive(Default)]
pub(crate) struct Eaten {
    rows: usize,
    time: Duration,
}

/// What may wait at a gate should take its subtask so long.
const QUEUE_TIME: Duration = Duration::from_millis(2);
/// After so many rows the gate's bound is set anew.
const MEASURED_ROWS: usize = 8 * 1024;
/// The bounds of that bound.
const QUEUE_ROWS: (usize, usize) = (1_024, 1 << 20);
/// How often a subtask that has always something to do says how much state it keeps.
const HELD_EVERY: Duration = Duration::from_millis(100);
/// How long a step writes sealed state.
const SWEEP_TIME: Duration = Duration::from_micros(200);

impl UnderWay {
    /// A stage is at the barrier.
    fn pass(&mut self, at: usize, stage: &mut StageInstance) -> Result<(), Diagnostic> {
        let Some(swap) = self.swap.stages.get_mut(at) else { return Ok(()) };
        match self.phase {
            Phase::Forth if !swap.has_changed && !self.has_left => {
                swap.has_changed = true;
                stage.change_places(swap)?;
            }
            Phase::Back if swap.has_changed => {
                stage.go_back(swap)?;
                self.swap.trial.iter().for_each(|trial| trial.is_back());
            }
            _ => {}
        }
        Ok(())
    }

    /// All stages that run the new version go back, between two calls.
    fn go_back(&mut self, stages: &mut [StageInstance]) -> Result<(), Diagnostic> {
        for (stage, swap) in stages.iter_mut().zip(&mut self.swap.stages) {
            if swap.has_changed {
                stage.go_back(swap)?;
            }
        }
        self.swap.trial.iter().for_each(|trial| trial.is_back());
        Ok(())
    }
}

/// A change to another version has not happened: what has changed goes back.
fn go_back(stages: &mut [StageInstance], under_way: UnderWay) -> Result<(), Diagnostic> {
    for (stage, mut swap) in stages.iter_mut().zip(under_way.swap.stages) {
        if !swap.has_changed {
            continue;
        }
        // Where a trap may lead back nothing is lost.
        let states = match (&stage.operator, &swap.code) {
            (Operator::Function(function), Some(StageCode::Function(code))) => {
                (function.states != code.states).then_some((&function.states, &code.states))
            }
            _ => None,
        };
        if let Some(loss) = states.and_then(|(new, old)| losses(old, new).into_iter().next()) {
            return Err(Diagnostic::external("the change to another version has failed at its checkpoint")
                .detail(format!("the old version cannot go on from the new one's state: {loss}"))
                .hint("the job goes on from the checkpoint before, with the old version"));
        }
        stage.go_back(&mut swap)?;
    }
    Ok(())
}

impl Subtask {
    /// Does what there is to do, for about `step_time`. Never blocks.
    pub(crate) fn step(&mut self) -> Result<Step, Diagnostic> {
        let start = self.clock.now();
        self.watch.begins(start);
        self.blocked = false;
        self.hear()?;
        self.give_marker(start);
        let mut runs = 0;
        let step = loop {
            let mut room = true;
            for output in &mut self.outputs {
                room &= output.ready();
            }
            if !room {
                self.blocked = true;
                break Step::Idle;
            }
            match self.run_deepest()? {
                Ran::Progress | Ran::Forward(_) | Ran::GoesBack => {}
                Ran::Yield => break Step::More,
                Ran::Idle => break Step::Idle,
                Ran::Ended => break Step::Done,
            }
            runs += 1;
            if runs >= self.sizes.step_runs || self.clock.now() - start >= self.sizes.step_time {
                break Step::More;
            }
        };
        let step = self.checkpoint(step)?;
        match step {
            Step::Idle => self.flush()?,
            Step::Done => self.outputs.iter_mut().for_each(Output::end),
            Step::More => {}
        }
        let end = self.clock.now();
        self.measure(end - start);
        self.tell(end, step);
        Ok(step)
    }

    /// Gives a latency marker, if it is time for one and there is room for what the source gives.
    fn give_marker(&mut self, now: Duration) {
        let Some(pulse) = self.pulse.as_ref().filter(|pulse| pulse.next <= now) else { return };
        let head = &self.stages[0];
        let is_open = !head.ended && head.halted.is_none() && head.input.barrier.is_none();
        if !is_open || !self.has_room(head) {
            return;
        }
        let marker = LatencyMarker { given: now, source: pulse.source };
        let next = now + pulse.every;
        self.send(0, Mark::Latency(marker));
        self.pulse.iter_mut().for_each(|pulse| pulse.next = next);
    }

    /// Says how the subtask stands after a step.
    fn tell(&mut self, now: Duration, step: Step) {
        let standing = match step {
            Step::Idle if self.blocked => Standing::BackPressured,
            Step::Idle if !self.has_begun_something() => Standing::Idle,
            _ => Standing::Busy,
        };
        self.watch.stands(now, standing);
        let received = self.gate.as_ref().map_or(Moved::default(), InputGate::received);
        let mut sent = Moved::default();
        self.outputs.iter().for_each(|output| sent += output.sent());
        self.watch.moved(received, sent);
        if step != Step::More || now.saturating_sub(self.held_told) >= HELD_EVERY {
            self.held_told = now;
            self.stages.iter().for_each(StageInstance::tell_held);
        }
    }

    /// Whether a stage has what it is not done with, and waits for what it has asked for: a sink for its writing, a
    /// function for its state.
    fn has_begun_something(&self) -> bool {
        self.stages.iter().filter(|stage| !stage.ended && stage.halted.is_none()).any(|stage| {
            match &stage.operator {
                // A source has nothing until it comes; who is ahead in event time waits for others.
                Operator::Source(..) | Operator::Watermarks(..) => false,
                Operator::Function(function) if function.is_busy() => true,
                Operator::Keyed(_, keyed) if keyed.is_busy() => true,
                Operator::Lookup(_, lookup) if lookup.is_busy() => true,
                _ => !stage.input.elements.is_empty(),
            }
        })
    }

    /// Runs the deepest stage that has something to do.
    fn run_deepest(&mut self) -> Result<Ran, Diagnostic> {
        let mut all_ended = true;
        for at in (0..self.stages.len()).rev() {
            if self.stages[at].input.barrier.is_some() && self.cut(at)? {
                return Ok(Ran::Progress);
            }
            if self.stages[at].ended {
                continue;
            }
            all_ended = false;
            if self.stages[at].halted.is_some() {
                continue;
            }
            if at == 0 && self.is_drained() {
                self.end_stage(0);
                return Ok(Ran::Progress);
            }
            if !self.has_room(&self.stages[at]) {
                continue;
            }
            if at == 0 {
                let had_barrier = self.stages[0].input.barrier.is_some();
                self.receive()?;
                if !had_barrier && self.stages[0].input.barrier.is_some() {
                    return Ok(Ran::Progress);
                }
            }
            match self.make_room(at)? {
                Rest::Done => {}
                Rest::More => return Ok(Ran::Progress),
                Rest::Waiting => continue,
            }
            match self.run_stage(at)? {
                Ran::Idle => {}
                Ran::Ended => {
                    self.end_stage(at);
                    return Ok(Ran::Progress);
                }
                Ran::Forward(mark) => {
                    self.forward(at, mark);
                    return Ok(Ran::Progress);
                }
                Ran::GoesBack => {
                    self.leave()?;
                    return Ok(Ran::Progress);
                }
                ran => return Ok(ran),
            }
        }
        Ok(if all_ended { Ran::Ended } else { Ran::Idle })
    }

    /// The new version has trapped too often here: the subtask goes back to the old code where it stands.
    fn leave(&mut self) -> Result<(), Diagnostic> {
        let Some(under_way) = &mut self.swap else {
            return Err(Diagnostic::internal("there is no code to go back to"));
        };
        self.cuts.iter().try_for_each(|cuts| cuts.pass(Point::SwapLeave))?;
        if let Some(trap) =
            under_way.swap.trial.as_ref().filter(|trial| trial.is_exact()).and_then(|t| t.fall())
        {
            let mut detail =
                "the new version was on probation, and the job goes back to the old one".to_owned();
            trap.error.detail.iter().for_each(|more| detail.extend(["\n", more]));
            return Err(Diagnostic { detail: Some(detail), ..trap.error });
        }
        under_way.has_left = true;
        under_way.go_back(&mut self.stages)?;
        let reason = "the new version has trapped, and the job goes back to the old one";
        self.cuts.iter().for_each(|cuts| cuts.disturb(reason.to_owned()));
        Ok(())
    }

    /// Lets a stage's backends put keys away, where the stage uses none.
    fn make_room(&mut self, at: usize) -> Result<Rest, Diagnostic> {
        let stage = &mut self.stages[at];
        let is_at_rest = match &stage.operator {
            Operator::Function(function) => function.is_at_rest(),
            Operator::Keyed(_, keyed) => !keyed.is_busy(),
            _ => return Ok(Rest::Done),
        };
        if is_at_rest {
            for backend in &mut stage.backends {
                let rest = backend.rest().map_err(|error| state_error(None, &error))?;
                if rest != Rest::Done {
                    return Ok(rest);
                }
            }
        }
        Ok(Rest::Done)
    }

    /// Takes rows from the gate, when the head has none.
    fn receive(&mut self) -> Result<(), Diagnostic> {
        let head = &mut self.stages[0];
        let Some(gate) = &mut self.gate else { return Ok(()) };
        let busy = match &head.operator {
            Operator::Function(function) => function.is_busy(),
            Operator::Keyed(_, keyed) => keyed.is_busy(),
            Operator::Lookup(_, lookup) => lookup.is_busy(),
            _ => false,
        };
        if busy || head.input.ended || !head.input.elements.is_empty() || head.input.barrier.is_some() {
            return Ok(());
        }
        let received = gate.receive(self.sizes.native_rows);
        if let (Some(cuts), Some(barrier)) = (&mut self.cuts, gate.aligning()) {
            cuts.aligns(barrier, &self.clock);
        }
        match received.map_err(|e| Diagnostic::internal(e.to_string()))? {
            Received::Rows(from, rows) => {
                self.eaten.rows += rows.num_rows();
                add(&head.counters.rows_in, rows.num_rows());
                head.input.elements.push_back(Element::Rows(from, rows));
            }
            Received::Mark(mark) => head.take(mark),
            Received::Barrier(barrier) => {
                head.input.barrier = Some(barrier);
                let bytes = gate.bytes_aligned();
                self.cuts.iter_mut().for_each(|cuts| cuts.came(barrier, bytes, &self.clock));
            }
            Received::Nothing => {}
            Received::End => head.input.ended = true,
        }
        Ok(())
    }

    fn run_stage(&mut self, at: usize) -> Result<Ran, Diagnostic> {
        let (before, after) = self.stages.split_at_mut(at + 1);
        let StageInstance { operator, input, targets, counters, .. } = &mut before[at];
        let outputs = &mut self.outputs;
        let mut route = |node: NodeId, port: u32, rows: Batch| {
            let mut rows = Some(rows);
            let mut left = targets.iter().filter(|(n, p, _)| *n == node && *p == port).peekable();
            while let Some((_, _, target)) = left.next() {
                let rows = if left.peek().is_some() { rows.clone() } else { rows.take() };
                let Some(rows) = rows else { break };
                match target {
                    Target::Stage(stage) => {
                        let next = &mut after[*stage - at - 1];
                        add(&next.counters.rows_in, rows.num_rows());
                        next.input.elements.push_back(Element::Rows(0, rows));
                    }
                    Target::Output(output) => {
                        outputs[*output].send(rows)?;
                    }
                }
            }
            Ok(())
        };
        match operator {
            Operator::Source(node, source) => {
                source.run(counters, &mut |port, rows| route(*node, port, rows))
            }
            Operator::Aggregate(node, aggregate) => {
                aggregate.run(input, counters, &mut |port, rows| route(*node, port, rows))
            }
            Operator::Keyed(node, keyed) => {
                keyed.run(input, counters, &mut |port, rows| route(*node, port, rows))
            }
            Operator::Lookup(node, lookup) => {
                lookup.run(input, counters, &mut |port, rows| route(*node, port, rows))
            }
            Operator::Watermarks(node, watermarks) => {
                watermarks.run(input, counters, &mut |port, rows| route(*node, port, rows))
            }
            Operator::Function(function) => function.run(input, counters, &mut route),
            Operator::Native(node, native) => {
                native.run(input, counters, &mut |port, rows| route(*node, port, rows))
            }
            Operator::Sink(sink) => sink.run(input, counters),
        }
    }

    /// Takes note of a mark that has passed a stage, and sends it on.
    pub(crate) fn forward(&mut self, at: usize, mark: Mark) {
        match mark {
            Mark::Watermark(time) => self.stages[at].counters.set_watermark(time),
            Mark::Idle => self.stages[at].counters.hold_nothing(),
            Mark::Latency(LatencyMarker { given, source }) => {
                self.stages[at].counters.took(source, self.clock.now().saturating_sub(given));
            }
        }
        self.send(at, mark);
    }

    /// Sends a mark to all that a stage feeds.
    fn send(&mut self, at: usize, mark: Mark) {
        for i in 0..self.stages[at].targets.len() {
            match self.stages[at].targets[i].2 {
                Target::Stage(stage) => self.stages[stage].take(mark),
                Target::Output(output) => self.outputs[output].mark(mark),
            }
        }
    }

    /// Whether nothing waits in what a stage feeds.
    fn has_room(&self, stage: &StageInstance) -> bool {
        stage.targets.iter().all(|(_, _, target)| match target {
            Target::Stage(stage) => {
                let input = &self.stages[*stage].input;
                input.elements.is_empty() && input.barrier.is_none()
            }
            Target::Output(output) => !self.outputs[*output].has_pending(),
        })
    }

    /// When the subtask has something to do though nothing comes: a timer, or idleness. None
    /// also where what it would give has no room yet.
    pub(crate) fn wakes_at(&self) -> Option<Duration> {
        if self.blocked {
            return None;
        }
        let (now, wall) = (self.clock.now(), self.clock.wall_ms());
        let timer_at = |time: i64| {
            let ahead = time.saturating_sub(wall);
            now + Duration::from_millis(u64::try_from(ahead).unwrap_or(0))
        };
        self.stages
            .iter()
            .filter(|stage| !stage.ended && stage.halted.is_none() && self.has_room(stage))
            .filter_map(|stage| match &stage.operator {
                Operator::Source(_, source) => source
                    .source
                    .wakes_at()
                    .into_iter()
                    .chain(self.pulse.as_ref().map(|pulse| pulse.next))
                    .min(),
                Operator::Watermarks(_, watermarks) => watermarks.idle_at(),
                Operator::Function(function) => function.next_timer().map(timer_at),
                Operator::Keyed(_, keyed) => keyed.next_timer().map(timer_at),
                Operator::Lookup(_, lookup) => lookup.table.next_at(),
                // One that prepares for a checkpoint does all by itself.
                Operator::Sink(sink) if stage.input.barrier.is_none() => sink.sink.wakes_at(),
                _ => None,
            })
            .min()
    }

    /// Hears what is said of checkpoints.
    fn hear(&mut self) -> Result<(), Diagnostic> {
        let Some(cuts) = &mut self.cuts else { return Ok(()) };
        while let Some(told) = cuts.hear() {
            match told {
                Told::Abort(barrier) => {
                    self.gate.iter_mut().for_each(|gate| gate.abort(barrier));
                    // A job that was to stop goes on.
                    for stage in &mut self.stages {
                        stage.halted = stage.halted.filter(|halted| *halted > barrier);
                    }
                    let is_of_it = |swap: &mut UnderWay| swap.barrier == barrier;
                    match self.swap.take_if(is_of_it) {
                        Some(mut under_way) if under_way.phase == Phase::Back => {
                            under_way.go_back(&mut self.stages)?;
                        }
                        Some(under_way) => go_back(&mut self.stages, under_way)?,
                        None => {}
                    }
                }
                Told::Back(barrier) => {
                    if let Some(swap) = &mut self.swap {
                        (swap.barrier, swap.phase) = (barrier, Phase::Back);
                    }
                }
                Told::Keep => {
                    let held = self.swap.take().and_then(|swap| swap.held);
                    for stage in &mut self.stages {
                        match (&mut stage.operator, held) {
                            (Operator::Function(function), _) => function.trial = None,
                            (Operator::Sink(sink), Some(held)) => {
                                cuts.pass(Point::SubtaskCommit)?;
                                sink.commit(held);
                            }
                            _ => {}
                        }
                    }
                }
                Told::Swap(barrier, mut swap) => {
                    if self.swaps_early {
                        for (stage, swap) in self.stages.iter_mut().zip(&mut swap.stages) {
                            swap.has_changed = true;
                            stage.change_places(swap)?;
                        }
                    }
                    self.swap =
                        Some(UnderWay { barrier, swap, phase: Phase::Forth, has_left: false, held: None });
                }
                Told::Commit(checkpoint) => {
                    if let Some(swap) =
                        self.swap.as_mut().filter(|swap| swap.barrier.checkpoint == checkpoint)
                    {
                        match swap.phase {
                            Phase::Forth if swap.swap.trial.is_some() => swap.phase = Phase::OnProbation,
                            Phase::Forth | Phase::Back => self.swap = None,
                            Phase::OnProbation => {}
                        }
                    }
                    // What is over cannot be gone back from.
                    if let Some(swap) = self.swap.as_mut().filter(|_| !cuts.is_over)
                        && swap.swap.trial.as_ref().is_some_and(|trial| trial.holds_back(checkpoint))
                    {
                        swap.held = Some(checkpoint);
                        continue;
                    }
                    for stage in &mut self.stages {
                        if let Operator::Sink(sink) = &mut stage.operator {
                            cuts.pass(Point::SubtaskCommit)?;
                            sink.commit(checkpoint);
                        }
                    }
                }
            }
        }
        // A source cuts where it stands; what has no input left that could bring a barrier, too.
        if self.may_take_trigger() && self.stages[0].input.barrier.is_none() {
            self.stages[0].input.barrier = self.cuts.as_mut().and_then(Cuts::take_trigger);
        }
        Ok(())
    }

    /// Whether no barrier that was triggered is to be waited for. When the job is drained its barrier follows the
    /// end.
    fn may_take_trigger(&self) -> bool {
        let Some(cuts) = self.cuts.as_ref().filter(|cuts| cuts.is_triggered()) else { return false };
        match cuts.drains() {
            true => self.stages.iter().all(|stage| stage.ended),
            false => self.gate.is_none() || self.stages[0].ended,
        }
    }

    /// Whether the subtask's source is to give no more, and stands where it can go on from.
    fn is_drained(&self) -> bool {
        let Operator::Source(_, source) = &self.stages[0].operator else { return false };
        self.cuts.as_ref().is_some_and(Cuts::drains)
            && (!source.can_go_back || source.source.position().is_some())
    }

    /// Cuts at the barrier in front of a stage, if the stage has done all that came before. Whether it has.
    fn cut(&mut self, at: usize) -> Result<bool, Diagnostic> {
        let has_room = self.has_room(&self.stages[at]);
        let stage = &mut self.stages[at];
        let Some(barrier) = stage.input.barrier else { return Ok(false) };
        // The command is on its way.
        let Some(stop) = self.cuts.as_ref().and_then(|cuts| cuts.stop_of(barrier)) else { return Ok(false) };
        let is_busy = match &stage.operator {
            Operator::Function(function) => function.is_busy(),
            Operator::Keyed(_, keyed) => keyed.is_busy(),
            Operator::Watermarks(_, watermarks) => watermarks.progress.is_unsaid(),
            Operator::Lookup(_, lookup) => lookup.is_busy(),
            _ => false,
        };
        let is_quiet = stage.ended || !is_busy;
        if !has_room || !is_quiet || !stage.input.elements.is_empty() || stage.snapshot.is_some() {
            return Ok(false);
        }
        let start = self.clock.now();
        if let Some(under_way) = self.swap.as_mut().filter(|swap| swap.barrier == barrier) {
            self.cuts.iter().try_for_each(|cuts| cuts.pass(Point::SwapChange))?;
            under_way.pass(at, stage)?;
            self.cuts.iter().try_for_each(|cuts| cuts.pass(Point::SwapChanged))?;
        }
        let text = |kind: &str, text: String| vec![(kind.to_owned(), Content::Text(text))];
        let sections = match &mut stage.operator {
            Operator::Source(_, source) => match source.source.position() {
                Some(position) => text(section::POSITION, position),
                None if !source.can_go_back => Vec::new(),
                // It is in the middle of something.
                None => return Ok(false),
            },
            Operator::Sink(sink) => match sink.prepare(barrier.checkpoint)? {
                Some(Some(prepared)) => text(section::PREPARED, prepared),
                Some(None) => Vec::new(),
                None => return Ok(false),
            },
            Operator::Watermarks(_, watermarks) => {
                text(section::WATERMARK, watermarks.progress.watermark().to_string())
            }
            Operator::Aggregate(_, aggregate) if !stage.ended || stop == Some(Stop::Drain) => {
                vec![(section::AGGREGATE.to_owned(), Content::Bytes(aggregate.snapshot()?))]
            }
            operator if !stage.ended => {
                let standing = match operator {
                    Operator::Function(function) => function.standing(),
                    Operator::Keyed(_, keyed) => keyed.standing(),
                    _ => None,
                };
                standing.map_or_else(Vec::new, |standing| text(section::WINDOWS, standing.text()))
            }
            _ => Vec::new(),
        };
        self.cuts.iter().try_for_each(|cuts| cuts.pass(Point::BarrierCut))?;
        stage.input.barrier = None;
        // What was drained has ended by command, and not because there was no more.
        let is_finished = stage.ended && stop != Some(Stop::Drain);
        let is_aggregate = matches!(&stage.operator, Operator::Keyed(_, keyed) if keyed.is_aggregate);
        let backends = (&mut stage.backends[..], is_aggregate);
        let extent = self.cuts.as_ref().map_or(Extent::Apart, |cuts| cuts.extent(barrier, &stage.chain));
        let mut sealed = Snapshot::seal(barrier, stage.node, is_finished, sections, backends, extent)?;
        sealed.sealed = self.clock.now();
        sealed.took.sync = sealed.sealed.saturating_sub(start);
        if let Some(cuts) = &self.cuts {
            (sealed.took.alignment, sealed.took.processed) = cuts.alignment(barrier);
        }
        stage.snapshot = Some(sealed);
        stage.halted = Some(barrier).filter(|_| stop == Some(Stop::Suspend) && !stage.ended);
        self.cuts.iter().try_for_each(|cuts| cuts.pass(Point::BarrierSend))?;
        self.forward_barrier(at, barrier, stop);
        self.cuts.iter().try_for_each(|cuts| cuts.pass(Point::BarrierSent))?;
        Ok(true)
    }

    fn forward_barrier(&mut self, at: usize, barrier: Barrier, stop: Option<Stop>) {
        for i in 0..self.stages[at].targets.len() {
            match self.stages[at].targets[i].2 {
                Target::Stage(stage) => self.stages[stage].input.barrier = Some(barrier),
                // Each subtask takes it at its own end.
                Target::Output(_) if stop == Some(Stop::Drain) => {}
                Target::Output(output) => self.outputs[output].barrier(barrier),
            }
        }
    }

    /// Writes on what is sealed, for a while; says what is ready; waits at the end for the last checkpoint.
    fn checkpoint(&mut self, step: Step) -> Result<Step, Diagnostic> {
        let stages = self.stages.len();
        let Some(cuts) = &mut self.cuts else { return Ok(step) };
        let end = self.clock.now() + SWEEP_TIME;
        let mut is_writing = false;
        for stage in &mut self.stages {
            while let Some(snapshot) = &mut stage.snapshot {
                let sealed = snapshot.sealed;
                match snapshot.write(&mut stage.backends, &mut stage.chain)? {
                    Written::Whole(barrier, mut part) => {
                        part.took.rest = self.clock.now().saturating_sub(sealed);
                        stage.snapshot = None;
                        cuts.ready(barrier, part, stages)?;
                    }
                    Written::Waiting => break,
                    Written::Some if self.clock.now() < end => {}
                    Written::Some => {
                        is_writing = true;
                        break;
                    }
                }
            }
        }
        let is_over = cuts.is_over;
        // What was triggered before all input had ended is heard of in the next step.
        let is_missed = self.may_take_trigger() && self.stages[0].ended;
        if is_writing || is_missed {
            return Ok(Step::More);
        }
        let is_stopped = is_over && self.stages.iter().all(|stage| stage.ended || stage.halted.is_some());
        if step != Step::Done && !is_stopped {
            return Ok(step);
        }
        // Nothing follows; but what was written is to be committed.
        self.outputs.iter_mut().for_each(Output::end);
        if step == Step::Done {
            self.cuts.iter_mut().for_each(Cuts::ended);
        }
        let mut is_outside = is_over;
        if is_over {
            for stage in &mut self.stages {
                if let Operator::Sink(sink) = &mut stage.operator {
                    is_outside &= sink.finish()?;
                }
            }
        }
        // A command wakes it, or what a sink waits for.
        Ok(if is_outside { Step::Done } else { Step::Idle })
    }

    fn end_stage(&mut self, at: usize) {
        self.stages[at].ended = true;
        self.stages[at].counters.hold_nothing();
        for i in 0..self.stages[at].targets.len() {
            if let (_, _, Target::Stage(stage)) = self.stages[at].targets[i] {
                self.stages[stage].input.ended = true;
            }
        }
    }

    /// Sends on what sinks hold back.
    fn flush(&mut self) -> Result<(), Diagnostic> {
        for stage in self.stages.iter_mut().filter(|stage| !stage.ended) {
            // One that prepares for a checkpoint sends all on by itself, and is to hear of it alone.
            if let Operator::Sink(sink) = &mut stage.operator
                && stage.input.barrier.is_none()
            {
                sink.flush()?;
            }
        }
        Ok(())
    }

    /// The subtask's sinks: for ending them when the job is stopped.
    pub(crate) fn sinks(&mut self) -> impl Iterator<Item = &mut SinkOperator> {
        self.stages.iter_mut().filter_map(|stage| match &mut stage.operator {
            Operator::Sink(sink) if !stage.ended => Some(&mut **sink),
            _ => None,
        })
    }

    fn measure(&mut self, time: Duration) {
        self.eaten.time += time;
        let Some(gate) = &self.gate else { return };
        if self.eaten.rows < MEASURED_ROWS {
            return;
        }
        let each = (self.eaten.time.as_nanos() as f64 / self.eaten.rows as f64).max(0.5);
        let rows = (QUEUE_TIME.as_nanos() as f64 / each) as usize;
        gate.set_rows_max(self.sizes.queue_rows.unwrap_or(rows.clamp(QUEUE_ROWS.0, QUEUE_ROWS.1)));
        self.eaten = Eaten::default();
    }
}
