//! What every native operator over keys is to its subtask.

use arrow_schema::{ArrowError, DataType, SchemaRef};
use model::Batch;
use model::job_graph::{Aggregate, NodeKind, State};
use state::Backend;
use state::backend::Ticket;

use crate::aggregates::Aggregates;
use crate::{AggregateError, Standing, Timing};

/// The time as an operator sees it while it runs, in milliseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// No row of an event time up to this one is expected: `i64::MIN` at first, `i64::MAX` at the end.
    pub watermark: i64,
    /// The machine's.
    pub processing_time: i64,
}

/// Where an operator's rows go: `emit(port, rows)`.
pub type Emit<'a> = dyn FnMut(u32, Batch) + 'a;

/// How far an operator has come with what it has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fired {
    /// There is nothing to do any more.
    Done,
    /// There is more: call again.
    More,
    /// Its state is not near yet; the subtask is woken.
    Waiting,
}

/// A native operator over keys, in one subtask. Its state is kept by a [`state::Backend`], which may
/// take time to bring it near; so rows come in two steps.
///
/// The order of calls is that of the stream: rows, with [`resume`](Self::resume) until they are done;
/// then a watermark, by [`fire`](Self::fire) until it is done; then more rows. No call takes longer than
/// a millisecond or two.
pub trait KeyedOperator: Send {
    /// Begins to bring near what these rows of an input need. They are the next that it
    /// [processes](Self::process), and the watermark is the same then.
    ///
    /// # Errors
    /// If their keys cannot be made.
    fn prefetch(&mut self, input: u32, rows: &Batch, now: Now) -> Result<Ticket, AggregateError>;

    /// Whether it is near. If not, the backend wakes the subtask when it is.
    fn is_ready(&mut self, ticket: Ticket) -> bool;

    /// Takes rows of an input, which are near. After [`Fired::More`] or [`Fired::Waiting`] it is asked to
    /// [`resume`](Self::resume) before anything else.
    ///
    /// # Errors
    /// If a value leaves its type, or columns cannot be made.
    fn process(
        &mut self,
        input: u32,
        rows: &Batch,
        now: Now,
        emit: &mut Emit<'_>,
    ) -> Result<Fired, AggregateError>;

    /// Goes on with the rows that [`process`](Self::process) has taken.
    ///
    /// # Errors
    /// As [`process`](Self::process).
    fn resume(&mut self, _now: Now, _emit: &mut Emit<'_>) -> Result<Fired, AggregateError> {
        Ok(Fired::Done)
    }

    /// Does some of what is due by `now`, of both clocks. After [`Fired::Done`] the watermark goes on.
    ///
    /// # Errors
    /// As [`process`](Self::process).
    fn fire(&mut self, now: Now, emit: &mut Emit<'_>) -> Result<Fired, AggregateError>;

    /// When something is due by processing time, in milliseconds since the epoch.
    fn next_timer(&self) -> Option<i64> {
        None
    }

    /// Gives what it gives when the input has ended, bit by bit. After the last [`fire`](Self::fire).
    ///
    /// # Errors
    /// As [`process`](Self::process).
    fn finish(&mut self, _emit: &mut Emit<'_>) -> Result<Fired, AggregateError> {
        Ok(Fired::Done)
    }

    /// Takes other times over, between rows and watermarks, `now` as it was for the last of them. Whether it can; if
    /// not, nothing has changed.
    fn change(&mut self, _timing: &Timing, _now: Now) -> bool {
        false
    }

    /// What it knows beside its keyed state, for a snapshot.
    fn standing(&self, _now: Now) -> Option<Standing> {
        None
    }

    /// Goes on from what a snapshot has of that; after its state has been put back, before anything else.
    fn stand(&mut self, _standing: Standing) {}

    /// What keeps its state.
    fn backend(&mut self) -> Option<&mut dyn Backend> {
        None
    }

    /// How far behind the watermark the event times of its rows may lie, in milliseconds: the watermark
    /// goes on by so much less.
    fn held_back(&self) -> i64 {
        0
    }

    /// How many rows it has dropped as late, since it was asked last.
    fn take_late(&mut self) -> usize {
        0
    }
}

/// Makes a backend for keys of these types and these states.
pub type NewBackend<'a> = dyn FnMut(&[DataType], &[State]) -> Result<Box<dyn Backend>, ArrowError> + 'a;

/// Where an operator stands in its graph, and what it is made of.
pub struct Setting<'a> {
    /// The schema of each input.
    pub inputs: &'a [SchemaRef],
    /// The columns that each input is keyed by; of equal types, none = all rows are of one key.
    pub keys: &'a [Vec<usize>],
    /// The schema of each port.
    pub outputs: &'a [SchemaRef],
    /// Whether its main port declares changes.
    pub changes: bool,
    /// Whether each input is a changelog.
    pub from_changes: &'a [bool],
    /// Whether it gives final results only, at the end (`--execution batch`).
    pub batch: bool,
    /// Of a window whose rows come out of a [first phase](crate::local): the schema of the rows before it. Its input
    /// has the key's columns first.
    pub first_phase: Option<&'a SchemaRef>,
    /// Makes what keeps its state.
    pub backend: &'a mut NewBackend<'a>,
}

impl Setting<'_> {
    /// The types of the key's columns.
    #[must_use]
    pub fn key_types(&self) -> Vec<DataType> {
        let columns = self.keys.first().into_iter().flatten();
        columns.map(|column| self.inputs[0].field(*column).data_type().clone()).collect()
    }

    /// A window's aggregates, over its rows as they come.
    pub(crate) fn aggregates(&self, list: &[Aggregate]) -> Result<Aggregates, AggregateError> {
        match self.first_phase {
            Some(rows) => Aggregates::of_partials(list, rows, self.keys[0].len()),
            None => Aggregates::new(list, &self.inputs[0]),
        }
    }
}

/// The operator that a node is.
///
/// # Errors
/// If it cannot be made of these inputs.
pub fn operator_of(kind: &NodeKind, setting: Setting<'_>) -> Result<Box<dyn KeyedOperator>, AggregateError> {
    match kind {
        NodeKind::Join(join) => crate::join::operator(join, setting),
        NodeKind::Top(top) => crate::top::operator(top, setting),
        NodeKind::Window(window) => crate::windows::operator(window, setting),
        NodeKind::Aggregate(aggregates) => {
            Ok(Box::new(crate::change_aggregate::ChangeAggregate::new(aggregates, setting)?))
        }
        _ => Err(AggregateError::Arrow(ArrowError::InvalidArgumentError("not an operator over keys".into()))),
    }
}
