//! What a subtask does with a barrier.
//!
//! A barrier waits in front of a stage until the stage has done all that came before it. Then the stage's state is
//! sealed, at once, and the barrier goes on; what is sealed is written bit by bit in later steps, while rows
//! go on. When all stages have written theirs, the subtask says so.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use checkpoint::Event;
use checkpoint::coordinator::{CheckpointId, Kind, Stop};
use checkpoint::manifest::Section;
use checkpoint::statistics::Took;
use model::Diagnostic;
use model::element::Barrier;
use model::job_graph::NodeId;
use platform::Clock;
use platform::faults::Point;
use state::backend::StateTable;
use state::encoded::SnapshotWriter;
use state::tiered::StoreFile;
use state::{Backend, Extent, FrozenFiles, SharedBackend, StateChunk, Sweep};
use window::running_aggregate::flat;

use super::{Command, Content, FileOfStore, Line, Part, StagePart, section};
use crate::operator::state_error;
use crate::swap::code::SubtaskSwap;

/// The checkpoints of a subtask.
pub(crate) struct Cuts {
    line: Line,
    /// The last that was heard of, and what for.
    heard: Option<(Barrier, Kind)>,
    /// The last checkpoint that is complete, but for savepoints.
    complete: Option<CheckpointId>,
    /// One that was triggered, and has not come to the first stage.
    triggered: Option<Barrier>,
    /// The last that has.
    last: Option<Barrier>,
    /// The barrier that some channels have brought and others have not, and since when.
    aligning: Option<(Barrier, Duration)>,
    /// The last that all have brought, how long that took, and bytes of rows that came meanwhile.
    aligned: Option<(Barrier, Duration, u64)>,
    /// Those under way, the oldest first, with the parts that are ready.
    under_way: VecDeque<(Barrier, Part)>,
    /// The last one is complete: what is left is to finish the sinks.
    pub(crate) is_over: bool,
    /// It has been said that all input is handled.
    has_ended: bool,
}

/// What is to be done of what a subtask was told.
pub(crate) enum Told {
    /// Gives a barrier up.
    Abort(Barrier),
    /// Commits what sinks have prepared up to a checkpoint.
    Commit(CheckpointId),
    /// At this barrier the stages change to another version.
    Swap(Barrier, SubtaskSwap),
    /// At this barrier those that have changed go back.
    Back(Barrier),
    /// The version that is on probation stays.
    Keep,
}

impl Cuts {
    pub(crate) fn new(line: Line) -> Self {
        Self {
            heard: None,
            complete: line.complete,
            line,
            triggered: None,
            last: None,
            aligning: None,
            aligned: None,
            under_way: VecDeque::new(),
            is_over: false,
            has_ended: false,
        }
    }

    /// Hears what the subtask is told.
    pub(crate) fn hear(&mut self) -> Option<Told> {
        loop {
            match self.line.commands.take()? {
                Command::Trigger(checkpoint, kind) => {
                    let barrier = Barrier { checkpoint };
                    self.heard = Some((barrier, kind));
                    // The barrier itself may have been faster.
                    self.triggered =
                        Some(barrier).filter(|barrier| self.last.is_none_or(|last| last < *barrier));
                    // What was put before the command is there.
                    if kind == Kind::Swap {
                        return Some(match self.line.swaps.take() {
                            Some(swap) => Told::Swap(barrier, swap),
                            None => Told::Back(barrier),
                        });
                    }
                }
                Command::Keep => return Some(Told::Keep),
                Command::Abort(checkpoint) => {
                    let barrier = Barrier { checkpoint };
                    self.triggered = self.triggered.filter(|triggered| *triggered > barrier);
                    self.under_way.retain(|(other, _)| *other > barrier);
                    return Some(Told::Abort(barrier));
                }
                Command::Complete(checkpoint, kind) => {
                    if !matches!(kind, Kind::Savepoint { .. }) {
                        self.complete = Some(checkpoint);
                    }
                    self.is_over |= matches!(kind, Kind::Final | Kind::Savepoint { stop: Some(_) });
                    return Some(Told::Commit(checkpoint));
                }
            }
        }
    }

    /// The barrier that the first stage of a source, or of a subtask without any input left, is to cut at.
    pub(crate) fn take_trigger(&mut self) -> Option<Barrier> {
        self.last = self.triggered.or(self.last);
        self.triggered.take()
    }

    /// Whether the job stops with a barrier, and how; none = it is not known yet, as the barrier was faster than
    /// the command.
    pub(crate) fn stop_of(&self, barrier: Barrier) -> Option<Option<Stop>> {
        let (heard, kind) = self.heard.filter(|(heard, _)| *heard >= barrier)?;
        let Kind::Savepoint { stop } = kind else { return Some(None) };
        Some(stop.filter(|_| heard == barrier))
    }

    /// What of a stage's state its part of a checkpoint has.
    pub(crate) fn extent(&self, barrier: Barrier, chain: &Chain) -> Extent {
        match self.heard {
            Some((heard, Kind::Savepoint { .. })) if heard == barrier => Extent::Apart,
            Some((heard, Kind::Full)) if heard == barrier => Extent::Whole,
            _ if chain.can_grow() && chain.last == self.complete => Extent::Changes,
            _ => Extent::Whole,
        }
    }

    /// Whether all input is to end, before the barrier that was triggered.
    pub(crate) fn drains(&self) -> bool {
        self.triggered.is_some_and(|barrier| self.stop_of(barrier) == Some(Some(Stop::Drain)))
    }

    pub(crate) fn is_triggered(&self) -> bool {
        self.triggered.is_some()
    }

    /// Some channels have brought this barrier, and others have not.
    pub(crate) fn aligns(&mut self, barrier: Barrier, clock: &Clock) {
        if self.aligning.is_none_or(|(other, _)| other != barrier) {
            self.aligning = Some((barrier, clock.now()));
        }
    }

    /// How long the gate has aligned a barrier, and bytes of rows that came meanwhile.
    pub(crate) fn alignment(&self, barrier: Barrier) -> (Duration, u64) {
        let aligned = self.aligned.filter(|(aligned, ..)| *aligned == barrier);
        aligned.map_or((Duration::ZERO, 0), |(_, took, bytes)| (took, bytes))
    }

    /// A barrier has come by the gate, which has had so many bytes of rows while it aligned: what was triggered has
    /// its way.
    pub(crate) fn came(&mut self, barrier: Barrier, bytes: usize, clock: &Clock) {
        let since = self.aligning.take().filter(|(aligning, _)| *aligning == barrier);
        let took = since.map_or(Duration::ZERO, |(_, since)| clock.now().saturating_sub(since));
        self.aligned = Some((barrier, took, bytes as u64));
        self.last = Some(barrier);
        self.triggered = self.triggered.filter(|triggered| *triggered > barrier);
    }

    /// A stage's part is ready; of so many stages.
    ///
    /// # Errors
    /// If that cannot be said.
    pub(crate) fn ready(
        &mut self,
        barrier: Barrier,
        part: StagePart,
        stages: usize,
    ) -> Result<(), Diagnostic> {
        let at = match self.under_way.iter().position(|(other, _)| *other == barrier) {
            Some(at) => at,
            None => {
                self.under_way.push_back((barrier, Vec::new()));
                self.under_way.len() - 1
            }
        };
        self.under_way[at].1.push(part);
        if self.under_way[at].1.len() == stages
            && let Some((barrier, part)) = self.under_way.remove(at)
        {
            let (checkpoint, subtask) = (barrier.checkpoint, self.line.number);
            self.pass(Point::SubtaskAcknowledge)?;
            self.line.events.put(Event::Acknowledged { checkpoint, subtask, part });
            self.pass(Point::SubtaskAcknowledged)?;
        }
        Ok(())
    }

    /// The subtask runs other code than checkpoints that are under way are to be of.
    pub(crate) fn disturb(&self, reason: String) {
        self.line.events.put(Event::Disturbed { reason, first: None });
    }

    /// Passes a point.
    ///
    /// # Errors
    /// If it is to fail there.
    pub(crate) fn pass(&self, point: Point) -> Result<(), Diagnostic> {
        self.line.faults.pass(point).map_err(|error| {
            Diagnostic::external("a subtask cannot do its part of a checkpoint").detail(error.to_string())
        })
    }

    /// All input is handled.
    pub(crate) fn ended(&mut self) {
        if !std::mem::replace(&mut self.has_ended, true) {
            self.line.events.put(Event::Ended { subtask: self.line.number });
        }
    }
}

/// A stage's snapshots that build one upon the other.
#[derive(Default)]
pub(crate) struct Chain {
    /// The last; none = there is none to build upon.
    last: Option<CheckpointId>,
    /// Bytes of the whole one, and of those of changes.
    bytes: (usize, usize),
    /// How many these are.
    changes: usize,
}

/// So many snapshots of changes may build upon a whole one. All have to be read to go on from the last.
const CHANGES: usize = 20;

impl Chain {
    /// Of a stage whose backends have been filled with what a checkpoint has in these sections of keyed state. One
    /// more may build upon them even if the changes come to more than the whole, so that the first checkpoint after
    /// a crash is soon there.
    pub(crate) fn upon<'a>(checkpoint: CheckpointId, sections: impl Iterator<Item = &'a Section>) -> Self {
        let (mut whole, mut changes, mut layers) = (0, 0, 0);
        for Section { layer, place, .. } in sections {
            let bytes = usize::try_from(place.bytes()).unwrap_or(usize::MAX);
            let of = if *layer == 0 { &mut whole } else { &mut changes };
            *of = bytes.saturating_add(*of);
            layers = layers.max(*layer as usize);
        }
        let bytes = (whole, changes.min(whole.saturating_sub(1)));
        Self { last: Some(checkpoint), bytes, changes: layers }
    }

    /// Whether one more of changes costs less than to begin anew.
    fn can_grow(&self) -> bool {
        self.last.is_some() && self.changes < CHANGES && self.bytes.1 < self.bytes.0
    }

    /// A snapshot is written.
    fn add(&mut self, checkpoint: CheckpointId, extent: Extent, bytes: usize) {
        match extent {
            Extent::Apart => return,
            Extent::Whole => (self.bytes, self.changes) = ((bytes, 0), 0),
            Extent::Changes => {
                self.bytes.1 += bytes;
                self.changes += 1;
            }
        }
        self.last = Some(checkpoint);
    }
}

/// The sealed state of a stage, on its way out.
pub(crate) struct Snapshot {
    barrier: Barrier,
    node: NodeId,
    is_finished: bool,
    extent: Extent,
    /// What is ready.
    sections: Vec<(String, Content)>,
    /// The backend that is swept.
    at: usize,
    /// The stage is a running aggregate: its one table is in its own section.
    is_aggregate: bool,
    writer: SnapshotWriter,
    /// When it was sealed.
    pub(crate) sealed: Duration,
    /// What that took.
    pub(crate) took: Took,
}

/// How far a stage's state has been written.
pub(crate) enum Written {
    /// There is more.
    Some,
    /// There is more, which is being read; the subtask is woken.
    Waiting,
    /// It is whole.
    Whole(Barrier, StagePart),
}

fn failed(error: &dyn std::error::Error) -> Diagnostic {
    Diagnostic::internal(error.to_string()).detail("while a checkpoint was made")
}

impl Snapshot {
    /// Seals the backends of a stage.
    pub(crate) fn seal(
        barrier: Barrier,
        node: NodeId,
        is_finished: bool,
        sections: Vec<(String, Content)>,
        (backends, is_aggregate): (&mut [SharedBackend], bool),
        mut extent: Extent,
    ) -> Result<Self, Diagnostic> {
        for (at, backend) in backends.iter_mut().enumerate() {
            let sealed = backend.seal(barrier.checkpoint, extent).map_err(|error| failed(&error))?;
            if at > 0 && sealed != extent {
                return Err(Diagnostic::internal("the backends of a stage do not agree on a snapshot"));
            }
            extent = sealed;
        }
        let writer = SnapshotWriter::default();
        let (at, sealed, took) = (0, Duration::ZERO, Took::default());
        Ok(Self { barrier, node, is_finished, extent, sections, at, is_aggregate, writer, sealed, took })
    }

    fn add(&mut self, chunk: StateChunk) -> Result<(), Diagnostic> {
        let is_flat = self.is_aggregate && chunk.table != StateTable::Gone;
        let chunk = if is_flat { flat(chunk) } else { Ok(chunk) };
        chunk.and_then(|chunk| self.writer.add(&chunk)).map_err(|error| failed(&error))
    }

    /// Writes on, a bit.
    pub(crate) fn write(
        &mut self,
        backends: &mut [SharedBackend],
        chain: &mut Chain,
    ) -> Result<Written, Diagnostic> {
        if let Some(backend) = backends.get_mut(self.at) {
            match backend.sweep().map_err(|error| state_error(None, &error))? {
                Sweep::Rows(chunk) => self.add(chunk)?,
                Sweep::Nothing => {}
                Sweep::Files(FrozenFiles { store, files, types }) => {
                    types.into_iter().try_for_each(|chunk| self.add(chunk))?;
                    self.sections.extend(files.into_iter().map(|StoreFile { name, identity }| {
                        let file = identity.as_deref().unwrap_or(&name);
                        let section = section::of_store(self.at, store.kind(), file);
                        let (store, is_shared) = (Arc::clone(&store), identity.is_some());
                        (section, Content::File(FileOfStore { store, name, is_shared }))
                    }));
                }
                Sweep::Waiting => return Ok(Written::Waiting),
                Sweep::Done(_) | Sweep::Idle => {
                    let tables = std::mem::take(&mut self.writer).finish().map_err(|error| failed(&error))?;
                    let named = tables.into_iter().map(|(table, bytes)| {
                        let name = match (self.is_aggregate, table) {
                            (true, StateTable::Gone) => section::AGGREGATE_GONE.to_owned(),
                            (true, _) => section::AGGREGATE.to_owned(),
                            (false, table) => section::of_table(self.at, table),
                        };
                        (name, Content::Bytes(bytes))
                    });
                    self.sections.extend(named);
                    self.at += 1;
                }
            }
            return Ok(Written::Some);
        }
        let sections = std::mem::take(&mut self.sections);
        let upon = chain.last.filter(|_| self.extent == Extent::Changes);
        let (node, is_finished, took) = (self.node, self.is_finished, self.took);
        let part = StagePart { node, is_finished, upon, sections, took };
        let bytes = part.sections.iter().map(|(_, content)| content.bytes()).sum();
        chain.add(self.barrier.checkpoint, self.extent, bytes);
        Ok(Written::Whole(self.barrier, part))
    }
}
