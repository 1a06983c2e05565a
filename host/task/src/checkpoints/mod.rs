//! Checkpoints of a running job: what a subtask does with a barrier ([`cut`]), who decides and writes
//! ([`checkpointer`], [`savepoint`]), what the parts are called ([`kept`]), and how a job goes on from one
//! ([`restored`], [`filling`]). What is in one is shown by `tables`, and made of rows by [`bootstrap`]; what is told of all of them
//! is told by [`teller`].

pub mod bootstrap;
pub(crate) mod checkpointer;
pub(crate) mod cut;
pub(crate) mod filling;
pub(crate) mod kept;
pub(crate) mod restored;
pub(crate) mod savepoint;
mod tables;
pub(crate) mod teller;

use std::sync::Arc;

use checkpoint::coordinator::{CheckpointId, Kind, SubtaskId};
use checkpoint::statistics::Took;
use checkpoint::{Event, Settings, Storage};
use model::job_graph::NodeId;
use platform::{Faults, Inbox};
use state::encoded::Pieces;
use state::tiered::OrderedStore;

use crate::swap::code::SubtaskSwap;

pub use restored::Restored;
pub use savepoint::{Answer, Form, SavepointRequest};
pub use tables::KeptTable;
pub use teller::CheckpointTracker;

/// That a job makes checkpoints, and where.
#[derive(Clone)]
pub struct Checkpoints {
    /// How often, and what is done when they fail.
    pub settings: Settings,
    /// Where they are put.
    pub storage: Storage,
    /// 32 hexadecimal digits, the same over restarts.
    pub job_id: String,
    /// What the job goes on from; none = from the beginning.
    pub restored: Option<Arc<Restored>>,
    /// An attempt before this one may have left something outside, of which this one takes over what it goes on
    /// from, and nothing else.
    pub takes_over: bool,
    /// Above the numbers of all checkpoints that the job has had.
    pub next: CheckpointId,
    /// The complete ones that are there, in their order.
    pub retained: Vec<CheckpointId>,
}

/// What a subtask is told.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Command {
    /// Begin a checkpoint.
    Trigger(CheckpointId, Kind),
    /// It is complete.
    Complete(CheckpointId, Kind),
    /// It is given up.
    Abort(CheckpointId),
    /// The version that is on probation stays.
    Keep,
}

/// A subtask's part of a checkpoint: of each stage.
pub(crate) type Part = Vec<StagePart>;

/// What a stage keeps.
#[derive(Debug)]
pub(crate) struct StagePart {
    /// Its head.
    pub(crate) node: NodeId,
    /// It had handled all its input.
    pub(crate) is_finished: bool,
    /// Its keyed state is what has changed since this checkpoint, which is complete; none = it is whole.
    pub(crate) upon: Option<CheckpointId>,
    /// By what they are.
    pub(crate) sections: Vec<(String, Content)>,
    /// How long that took.
    pub(crate) took: Took,
}

/// A section, small or large.
#[derive(Debug)]
pub(crate) enum Content {
    Text(String),
    Bytes(Pieces),
    /// A file of a backend's store.
    File(FileOfStore),
}

/// A file that a frozen store has.
pub(crate) struct FileOfStore {
    pub(crate) store: Arc<dyn OrderedStore>,
    /// Its name there.
    pub(crate) name: String,
    /// It is in the section of this kind of whatever checkpoint has it.
    pub(crate) is_shared: bool,
}

impl std::fmt::Debug for FileOfStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileOfStore").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Content {
    /// Bytes that are in memory.
    fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Bytes(pieces) => pieces.bytes(),
            Self::File(_) => 0,
        }
    }
}

/// A subtask's line to the job's checkpoints.
pub(crate) struct Line {
    pub(crate) number: SubtaskId,
    /// The checkpoint that the job goes on from, if others can build upon it.
    pub(crate) complete: Option<CheckpointId>,
    pub(crate) commands: Inbox<Command>,
    /// What changes at the barrier of the next change to another version.
    pub(crate) swaps: Inbox<SubtaskSwap>,
    pub(crate) events: Inbox<Event<Part>>,
    pub(crate) faults: Faults,
}

/// The sections that stages keep, besides the tables of their backends, which are named
/// `<number of the backend>.<table>`.
pub(crate) mod section {
    use state::backend::StateTable;

    /// Where a source stands.
    pub(crate) const POSITION: &str = "position";
    /// What a sink has prepared.
    pub(crate) const PREPARED: &str = "prepared";
    /// How far event time is.
    pub(crate) const WATERMARK: &str = "watermark";
    /// By which times the timers of windows are set, and which windows have gone.
    pub(crate) const WINDOWS: &str = "windows";
    /// The keys of a running aggregate.
    pub(crate) const AGGREGATE: &str = "aggregate";
    /// Of such, those that have gone, in a snapshot of changes.
    pub(crate) const AGGREGATE_GONE: &str = "aggregate.gone";

    /// What the sections of a backend's store begin with.
    const STORE: &str = "store/";

    /// The section of a table of a backend.
    pub(crate) fn of_table(backend: usize, table: StateTable) -> String {
        format!("{backend}.{}", table.name())
    }

    /// The section of a file of a backend's store: `store/<number of the backend>/<kind of store>/<file>`, of a file
    /// that other checkpoints have too by what no other file has.
    pub(crate) fn of_store(backend: usize, kind: &str, file: &str) -> String {
        format!("{STORE}{backend}/{kind}/{file}")
    }

    /// The backend, the kind of store and the file.
    pub(crate) fn store_of(section: &str) -> Option<(&str, &str, &str)> {
        let (backend, rest) = section.strip_prefix(STORE)?.split_once('/')?;
        let (kind, file) = rest.split_once('/')?;
        Some((backend, kind, file))
    }

    /// Whose keyed state a section is: of a backend, by its number, or of the aggregate; none = it is something
    /// else.
    pub(crate) fn backend_of(kind: &str) -> Option<&str> {
        if kind.starts_with(STORE) {
            return None;
        }
        match kind.split_once('.') {
            Some((backend, _)) => Some(backend),
            None => (kind == AGGREGATE).then_some(kind),
        }
    }
}
