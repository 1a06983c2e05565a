//! A job driven step by step: a test pushes rows, moves event time and the clock, and looks at what
//! has come out and what is kept.
//!
//! It is the engine itself, in one thread and in virtual time; only sources and sinks are the test's.
//! The counterpart of Kafka Streams' `TopologyTestDriver`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, UInt8Type};
use arrow_array::{ArrayRef, BooleanArray, new_empty_array};
use arrow_row::{RowConverter, SortField};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use arrow_select::concat::concat;
use arrow_select::filter::filter;
use connectors::{Context, Decoded, Need, Sink, SinkFactory, Source, SourceFactory, SourcePoll};
use model::element::Mark;
use model::job_graph::{JobGraph, NodeId, NodeKind, StateKind, TimeDomain};
use model::{Batch, Diagnostic};
use platform::{Inbox, Platform, Random};
use state::StateChunk;
use state::backend::StateTable;

use crate::backends::NewBackend;
use crate::deploy::{Deployed, deploy};
use crate::metrics::{JobDescription, LogSink, UserMetrics};
use crate::operator::keyed_state::KeyedState;
use crate::operator::watermarks::WatermarksOperator;
use crate::subtask::{Operator, StageInstance, Step};
use crate::{JobOutcome, Plan};

/// A job that goes on when it is told to.
pub struct Driver {
    deployed: Deployed,
    platform: Platform,
    random: Random,
    graph: JobGraph,
    /// By node: what the test pushes; none = its end.
    sources: Vec<(NodeId, Slot<Inbox<Option<Batch>>>)>,
    sinks: Vec<(NodeId, Slot<Vec<Batch>>)>,
    /// How far rows may be ahead of the clock, as the job says, until that has been set.
    ahead_max: Vec<Option<Duration>>,
}

type Slot<T> = Arc<Mutex<T>>;

fn lock<T>(slot: &Slot<T>) -> MutexGuard<'_, T> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a key has in a state: each entry's own key (of a list its place), and its value.
pub struct Kept {
    /// The own key's columns; of a state by value none.
    pub keys: Vec<ArrayRef>,
    /// The value's column.
    pub values: ArrayRef,
}

impl Driver {
    /// Deploys a plan, whose operators have one subtask each. Its clock stands at 0 of 1970, and no
    /// row counts as ahead of it, until [`start_at`](Self::start_at).
    ///
    /// # Errors
    /// If it cannot be deployed.
    pub fn new(mut plan: Plan, platform: &Platform, log: &LogSink) -> Result<Self, Diagnostic> {
        platform.clock.set_wall_ms(0);
        let (mut sources, mut sinks) = (Vec::new(), Vec::new());
        for (node, factory) in &mut plan.sources {
            let inbox = Arc::new(Mutex::new(Inbox::new(Waker::noop().clone())));
            sources.push((*node, Arc::clone(&inbox)));
            *factory = Arc::new(Pushed(inbox));
        }
        for (node, factory) in &mut plan.sinks {
            let rows = Slot::default();
            sinks.push((*node, Arc::clone(&rows)));
            *factory = Arc::new(Collected(rows));
        }
        let graph = plan.physical.job.clone();
        let deployed = deploy(plan, platform, log, &mut |new: &NewBackend<'_>| new.in_memory())?;
        let platform = platform.clone();
        let random = Random::of_seed(0);
        let mut driver = Self { deployed, platform, random, graph, sources, sinks, ahead_max: Vec::new() };
        let forever = |watermarks: &mut WatermarksOperator| watermarks.spec.ahead_max.replace(Duration::MAX);
        driver.ahead_max = driver.watermarks().map(forever).collect();
        driver.settle()?;
        Ok(driver)
    }

    /// The job, as it runs.
    #[must_use]
    pub fn graph(&self) -> &JobGraph {
        &self.graph
    }

    /// Sets the clock of processing time. From now on rows can be too far ahead of it.
    pub fn start_at(&mut self, wall_ms: i64) {
        self.platform.clock.set_wall_ms(wall_ms);
        let ahead_max = std::mem::take(&mut self.ahead_max);
        for (watermarks, ahead_max) in self.watermarks().zip(ahead_max) {
            watermarks.spec.ahead_max = ahead_max;
        }
    }

    /// Pushes rows into a source; what follows of them is done when this returns.
    ///
    /// # Errors
    /// If the job fails.
    pub fn push(&mut self, source: NodeId, rows: Batch) -> Result<(), Diagnostic> {
        if let Some((_, inbox)) = self.sources.iter().find(|(node, _)| *node == source) {
            lock(inbox).put(Some(rows));
        }
        self.settle()
    }

    /// Raises the watermark at every source, and wherever watermarks are made.
    ///
    /// # Errors
    /// If the job fails.
    pub fn raise(&mut self, time: i64) -> Result<(), Diagnostic> {
        for worker in &mut self.deployed.workers {
            for (index, subtask) in worker.subtasks.iter_mut().enumerate() {
                let Some(subtask) = subtask else { continue };
                for at in 0..subtask.stages.len() {
                    match &mut subtask.stages[at].operator {
                        Operator::Source(..) => subtask.forward(at, Mark::Watermark(time)),
                        Operator::Watermarks(_, watermarks) => watermarks.progress.raise(time),
                        _ => {}
                    }
                }
                worker.ready.mark(index);
            }
        }
        self.settle()
    }

    /// Moves the clock of processing time forward, from timer to timer.
    ///
    /// # Errors
    /// If the job fails.
    pub fn advance(&mut self, by: Duration) -> Result<(), Diagnostic> {
        let clock = self.platform.clock.clone();
        let end = clock.now() + by;
        loop {
            let next = self.deployed.workers.iter().filter_map(|worker| worker.wakes.next()).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            clock.advance(next.saturating_sub(clock.now()));
            self.settle()?;
        }
        clock.advance(end.saturating_sub(clock.now()));
        self.settle()
    }

    /// Ends the input: the watermark is the greatest.
    ///
    /// # Errors
    /// If the job fails.
    pub fn end(&mut self) -> Result<(), Diagnostic> {
        for (_, inbox) in &self.sources {
            lock(inbox).put(None);
        }
        self.settle()
    }

    /// Takes the rows that have come to sinks, by the sink's node.
    #[must_use]
    pub fn take(&mut self) -> Vec<(NodeId, Batch)> {
        let of_sink = |(node, rows): &(NodeId, Slot<Vec<Batch>>)| {
            let rows = std::mem::take(&mut *lock(rows));
            rows.into_iter().map(|batch| (*node, batch)).collect::<Vec<_>>()
        };
        self.sinks.iter().flat_map(of_sink).collect()
    }

    /// What the job is made of.
    #[must_use]
    pub fn description(&self) -> Arc<JobDescription> {
        Arc::clone(&self.deployed.swaps.version().description)
    }

    /// What the guests' own metrics are.
    #[must_use]
    pub fn metrics(&self) -> UserMetrics {
        self.deployed.watch.user.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The columns of a function's key.
    ///
    /// # Errors
    /// If the function has none.
    pub fn key(&mut self, function: NodeId) -> Result<SchemaRef, Diagnostic> {
        let columns = self.keyed(function)?.no_keys().map_err(|error| internal(&error))?;
        let field = |column: &ArrayRef| Field::new("key", column.data_type().clone(), true);
        Ok(Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>())))
    }

    /// What a key (of a broadcast state, none) has in a state.
    ///
    /// # Errors
    /// If the function has no such state.
    pub fn state(&mut self, function: NodeId, name: &str, key: &[ArrayRef]) -> Result<Kept, Diagnostic> {
        let NodeKind::Function(of_node) = &self.graph.nodes[function as usize].kind else {
            return Err(no_state(name));
        };
        let place =
            of_node.states.iter().position(|state| state.name == name).ok_or_else(|| no_state(name))?;
        let state = of_node.states[place].clone();
        let now = self.platform.clock.wall_ms();
        // States are few.
        let place = place as u32;
        let chunks = self.keyed(function)?.snapshot().map_err(|error| internal(&error))?;
        let chunks = chunks.iter().filter(
            |chunk| matches!(chunk.table, StateTable::Values(of) | StateTable::Entries(of) if of == place),
        );
        let is_over = |chunk: &StateChunk, row| match (&chunk.touched, state.ttl) {
            (Some(touched), Some(ttl)) => ttl.is_over(touched.value(row), now),
            _ => false,
        };
        let none = state.value.field(0).data_type();
        let own = state.key.fields().iter().map(|field| field.data_type().clone());
        let own = match state.kind {
            StateKind::Sequence => vec![DataType::Int64],
            _ => own.collect(),
        };
        let mut columns: Vec<Vec<ArrayRef>> =
            own.iter().chain([none]).map(|of| vec![new_empty_array(of)]).collect();
        for chunk in chunks {
            let wanted = rows_of(chunk, key).map_err(|error| internal(&error))?;
            let wanted: BooleanArray =
                wanted.into_iter().enumerate().map(|(row, is)| Some(is && !is_over(chunk, row))).collect();
            for (all, column) in columns.iter_mut().zip(&chunk.columns) {
                all.push(filter(column, &wanted).map_err(|error| internal(&error))?);
            }
        }
        let whole = |parts: Vec<ArrayRef>| concat(&parts.iter().map(AsRef::as_ref).collect::<Vec<_>>());
        let mut columns: Vec<ArrayRef> =
            columns.into_iter().map(whole).collect::<Result<_, _>>().map_err(|error| internal(&error))?;
        let values = columns.pop().ok_or_else(|| no_state(name))?;
        Ok(Kept { keys: columns, values })
    }

    /// The timers that are set in a function, of all keys, in no order.
    ///
    /// # Errors
    /// If it is none with a key.
    pub fn timers(&mut self, function: NodeId) -> Result<Vec<(TimeDomain, i64)>, Diagnostic> {
        let chunks = self.keyed(function)?.snapshot().map_err(|error| internal(&error))?;
        let mut timers = Vec::new();
        for chunk in chunks.iter().filter(|chunk| chunk.table == StateTable::Timers) {
            let domains = chunk.columns[0].as_primitive::<UInt8Type>().values().iter();
            let times = chunk.columns[1].as_primitive::<Int64Type>().values();
            timers.extend(domains.zip(times).map(|(domain, time)| match domain {
                0 => (TimeDomain::EventTime, *time),
                _ => (TimeDomain::ProcessingTime, *time),
            }));
        }
        Ok(timers)
    }

    fn stages(&mut self) -> impl Iterator<Item = &mut StageInstance> {
        let subtasks =
            self.deployed.workers.iter_mut().flat_map(|worker| worker.subtasks.iter_mut().flatten());
        subtasks.flat_map(|subtask| &mut subtask.stages)
    }

    fn watermarks(&mut self) -> impl Iterator<Item = &mut WatermarksOperator> {
        self.stages().filter_map(|stage| match &mut stage.operator {
            Operator::Watermarks(_, watermarks) => Some(&mut **watermarks),
            _ => None,
        })
    }

    fn keyed(&mut self, function: NodeId) -> Result<&mut KeyedState, Diagnostic> {
        let name = self.graph.nodes[function as usize].name.clone();
        let found = self.stages().find_map(|stage| match &mut stage.operator {
            Operator::Function(operator) if operator.nodes[0].0 == function => operator.keyed.as_mut(),
            _ => None,
        });
        found.ok_or_else(|| Diagnostic::user(format!("the function `{name}` keeps no state, or has ended")))
    }

    /// Steps subtasks until none has anything to do at this time.
    fn settle(&mut self) -> Result<(), Diagnostic> {
        let mut marked = Vec::new();
        loop {
            let mut has_stepped = false;
            for worker in &mut self.deployed.workers {
                worker.wake_due();
                worker.ready.take(&mut marked);
                for index in marked.drain(..) {
                    has_stepped = true;
                    if worker.step(index) == Some(Step::More) {
                        worker.ready.mark(index);
                    }
                }
            }
            if let JobOutcome::Failed(error) = self.deployed.control.outcome() {
                return Err(error);
            }
            if !has_stepped && !self.platform.io.run_one(&mut self.random) {
                return Ok(());
            }
        }
    }
}

fn internal(error: &ArrowError) -> Diagnostic {
    Diagnostic::internal(error.to_string())
}

fn no_state(name: &str) -> Diagnostic {
    Diagnostic::user(format!("the function has no state `{name}`"))
}

/// Which rows are of this key.
fn rows_of(chunk: &StateChunk, key: &[ArrayRef]) -> Result<Vec<bool>, ArrowError> {
    if chunk.keys.is_empty() {
        return Ok(vec![true; chunk.rows()]);
    }
    let fields = chunk.keys.iter().map(|column| SortField::new(column.data_type().clone())).collect();
    let converter = RowConverter::new(fields)?;
    let (rows, key) = (converter.convert_columns(&chunk.keys)?, converter.convert_columns(key)?);
    Ok(rows.iter().map(|row| key.num_rows() == 1 && row == key.row(0)).collect())
}

/// A source whose rows a test pushes.
struct Pushed(Slot<Inbox<Option<Batch>>>);

impl SourceFactory for Pushed {
    fn needs(&self) -> Vec<Need> {
        Vec::new()
    }
    fn parallelism_max(&self) -> Option<u32> {
        Some(1)
    }
    fn bounded(&self) -> bool {
        true
    }
    fn open(&self, context: Context) -> Result<Box<dyn Source>, Diagnostic> {
        let inbox = Inbox::new(context.waker);
        *lock(&self.0) = inbox.clone();
        Ok(Box::new(PushedRows(inbox)))
    }
}

struct PushedRows(Inbox<Option<Batch>>);

impl Source for PushedRows {
    fn poll(&mut self) -> Result<SourcePoll, Diagnostic> {
        Ok(match self.0.take() {
            Some(Some(batch)) => SourcePoll::Rows(Decoded::rows(0, batch)),
            Some(None) => SourcePoll::End,
            None => SourcePoll::Pending,
        })
    }
    fn bytes_read(&self) -> u64 {
        0
    }
}

/// A sink whose rows a test takes.
struct Collected(Slot<Vec<Batch>>);

impl SinkFactory for Collected {
    fn needs(&self) -> Vec<Need> {
        Vec::new()
    }
    fn open(&self, _: Context) -> Result<Box<dyn Sink>, Diagnostic> {
        Ok(Box::new(CollectedRows(Arc::clone(&self.0))))
    }
}

struct CollectedRows(Slot<Vec<Batch>>);

impl Sink for CollectedRows {
    fn write(&mut self, batch: &Batch) -> Result<(), Diagnostic> {
        lock(&self.0).push(batch.clone());
        Ok(())
    }
}
