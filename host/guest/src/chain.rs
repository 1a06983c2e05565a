//! An instance of a component that is one chain of functions, and the calls into it.
//!
//! Between two calls the host may drop the instance: the next call makes and opens a new one. A
//! trapped instance is always dropped.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use arrow_array::{Array, ArrayRef};
use arrow_buffer::BooleanBuffer;
use arrow_schema::SchemaRef;
use model::Batch;
use model::job_graph::{NodeId, State, StateKind, TimeDomain};
use wasmtime::Store;

use crate::bindings::exports::millstream::job::{functions, keyed_functions, window_functions};
use crate::bindings::millstream::job::rows::ColumnResult;
use crate::bindings::millstream::job::{calls, graph};
use crate::entries::{Reading, StateAccess, StateReader};
use crate::hooks::{Hooks, Host, LogLevel, tame};
use crate::lift::{self, lied};
use crate::lower::{self, Lowered};
use crate::program::{cpu_or, failure, wait};
use crate::runtime::CallMark;
use crate::{GuestError, Program};

/// Where a chain runs. Results do not depend on it, but for `job` and `args`.
#[derive(Clone, Debug)]
pub struct Task {
    /// The job's name in the component.
    pub job: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// From 0.
    pub subtask: u32,
    /// Of the operator.
    pub parallelism: u32,
    /// 0 at first, one more with each restart.
    pub attempt: u32,
}

/// An output of a node of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodePort {
    /// The node.
    pub node: NodeId,
    /// Its port.
    pub port: u32,
}

/// What a chain is made of.
pub struct Opening {
    /// Where it runs.
    pub task: Task,
    /// The head, then stateless functions.
    pub chain: Vec<NodeId>,
    /// The outputs whose rows are returned.
    pub outputs: Vec<NodePort>,
    /// The schema of each.
    pub schemas: Vec<SchemaRef>,
    /// The head's states.
    pub states: Arc<[State]>,
    /// The input whose rows alone change broadcast states.
    pub broadcast_input: Option<u32>,
    /// Reads those of them that do not travel by value; none = there are no such.
    pub reader: Option<Arc<dyn StateReader>>,
    /// What takes logs and metrics.
    pub hooks: Arc<dyn Hooks>,
}

/// The time as a call sees it, in milliseconds since the epoch.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The least i64 = none yet.
    pub watermark: i64,
    /// The wall clock's.
    pub processing_time: i64,
}

/// A call into a chain.
pub enum Call {
    /// Rows of an input.
    Process {
        /// The time.
        now: Moment,
        /// The head's input.
        input: u32,
        /// The rows.
        rows: Batch,
    },
    /// Rows with their keys and state.
    ProcessKeyed {
        /// The time.
        now: Moment,
        /// The head's input.
        input: u32,
        /// Their keys and state.
        groups: Groups,
        /// The group of each row; empty = rows without a key.
        of_rows: Vec<u32>,
        /// The rows.
        rows: Batch,
        /// The entries that ride with them.
        entries: Vec<RidingEntries>,
    },
    /// Timers that are due, one a group.
    Timers {
        /// The time.
        now: Moment,
        /// Of which clock they are.
        domain: TimeDomain,
        /// When each was due, in milliseconds since the epoch.
        times: Vec<i64>,
        /// Their keys and state.
        groups: Groups,
    },
    /// Values of the head's state, of windows that meet: pair by pair they are made one.
    Merge {
        /// The earlier windows'.
        left: ArrayRef,
        /// As many of the later windows'.
        right: ArrayRef,
    },
}

/// The keys of a call, each once, with their state.
pub struct Groups {
    /// How many there are.
    pub count: u32,
    /// The key columns, a row a group.
    pub keys: Vec<ArrayRef>,
    /// The head's states by value, a row a group, null where there is none.
    pub state: Vec<ArrayRef>,
}

/// Entries of a dictionary that ride with rows, each once.
pub struct RidingEntries {
    /// The state's place in [`Opening::states`].
    pub state: u32,
    /// The entry of each row.
    pub of_rows: Vec<u32>,
    /// The entries, null where there is none.
    pub values: ArrayRef,
}

impl Call {
    /// How many rows, timers or pairs it has.
    fn length(&self) -> usize {
        match self {
            Self::Process { rows, .. } | Self::ProcessKeyed { rows, .. } => rows.num_rows(),
            Self::Timers { times, .. } => times.len(),
            Self::Merge { left, .. } => left.len(),
        }
    }

    fn group_count(&self) -> usize {
        match self {
            Self::Process { .. } | Self::Merge { .. } => 0,
            Self::ProcessKeyed { groups, .. } | Self::Timers { groups, .. } => groups.count as usize,
        }
    }

    fn riding(&self, state: u32) -> Option<&RidingEntries> {
        match self {
            Self::ProcessKeyed { entries, .. } => entries.iter().find(|riding| riding.state == state),
            Self::Process { .. } | Self::Timers { .. } | Self::Merge { .. } => None,
        }
    }

    /// The input that its rows are of.
    fn input(&self) -> Option<u32> {
        match self {
            Self::Process { input, .. } | Self::ProcessKeyed { input, .. } => Some(*input),
            Self::Timers { .. } | Self::Merge { .. } => None,
        }
    }
}

/// What a call gave, checked.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Rows, by place in [`Opening::outputs`]; each at most once.
    pub outputs: Vec<(u32, Batch)>,
    /// New values of states, or of entries that rode in.
    pub updates: Vec<StateUpdate>,
    /// Changes of other entries.
    pub entries: Vec<EntryChanges>,
    /// Timers set and deleted, in this order.
    pub timers: Vec<TimerChange>,
    /// Rows that failed, while the others went on.
    pub failures: Vec<RowFailure>,
    /// What pairs of values have become, a row each.
    pub merged: Option<ArrayRef>,
}

/// New values of a state, or of its entries that rode in.
#[derive(Debug)]
pub struct StateUpdate {
    /// Its place in [`Opening::states`].
    pub state: u32,
    /// Which groups, or entries, have been written; none = all.
    pub written: Option<BooleanBuffer>,
    /// A row a group, or an entry; null = removed.
    pub values: ArrayRef,
}

/// Changes of entries, in their order, a row each.
#[derive(Debug)]
pub struct EntryChanges {
    /// The state's place in [`Opening::states`].
    pub state: u32,
    /// What is done.
    pub changes: Vec<EntryChange>,
    /// In which group of the call; empty for a broadcast state.
    pub groups: Vec<u32>,
    /// The entries' own keys.
    pub keys: Vec<ArrayRef>,
    /// The entries.
    pub values: ArrayRef,
}

/// A change of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryChange {
    /// It is written; of a sequence: added at the end.
    Put,
    /// It is removed.
    Remove,
    /// All of its group are removed.
    Clear,
}

/// A timer set or deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerChange {
    /// Of this group of the call.
    pub group: u32,
    /// When it is due, in milliseconds since the epoch.
    pub time: i64,
    /// By which clock.
    pub domain: TimeDomain,
    /// Set, or deleted.
    pub set: bool,
}

/// A row that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowFailure {
    /// The function that failed.
    pub node: NodeId,
    /// The row's place in the call.
    pub row: u32,
    /// What went wrong.
    pub message: String,
}

struct Instance {
    store: Store<Host>,
    functions: functions::Guest,
    keyed: Option<keyed_functions::Guest>,
    windows: Option<window_functions::Guest>,
}

type Finished = (Option<Instance>, Result<Outcome, GuestError>);

struct Running {
    future: Pin<Box<dyn Future<Output = Finished> + Send>>,
    /// The instance has been made and opened; the call itself comes with the next slice.
    opened: Arc<AtomicBool>,
    _mark: CallMark,
}

/// A chain of a component's functions, in an instance of its own.
pub struct Chain {
    program: Program,
    opening: Arc<Opening>,
    instance: Option<Instance>,
    running: Option<Running>,
    cpu: Duration,
    /// Of it, what making and opening the instance took.
    opening_cpu: Duration,
    /// Counts the pages after which a call's time begins anew; those seen, and the CPU time then.
    pages: Arc<AtomicU64>,
    pages_seen: u64,
    page_cpu: Duration,
    slices: u32,
    was_first_call: bool,
    boundary: Duration,
    memory_bytes: usize,
}

/// A failure's message is cut after so many bytes.
const MESSAGE_BYTES_MAX: usize = 8 * 1024;

impl Chain {
    pub(crate) fn new(program: Program, opening: Opening) -> Self {
        let opening = Arc::new(opening);
        Self {
            program,
            opening,
            instance: None,
            running: None,
            cpu: Duration::ZERO,
            opening_cpu: Duration::ZERO,
            pages: Arc::default(),
            pages_seen: 0,
            page_cpu: Duration::ZERO,
            slices: 0,
            was_first_call: false,
            boundary: Duration::ZERO,
            memory_bytes: 0,
        }
    }

    /// Begins a call; [`poll`](Self::poll) runs it.
    ///
    /// # Panics
    /// If a call is under way.
    pub fn start(&mut self, call: Call) {
        assert!(self.running.is_none(), "one call at a time");
        let (program, opening) = (self.program.clone(), Arc::clone(&self.opening));
        let instance = self.instance.take();
        self.was_first_call = instance.is_none();
        let mark = self.program.0.runtime.begin_call();
        let opened = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&opened);
        let pages = Arc::clone(&self.pages);
        let future = Box::pin(async move {
            let instance = match instance {
                Some(instance) => Ok(instance),
                None => {
                    let instance = instantiate(&program, &opening, pages).await;
                    // A slice ends here, so that the time of the call is known without this.
                    told.store(true, Ordering::Relaxed);
                    give_way().await;
                    instance
                }
            };
            match instance {
                Ok(instance) => run(&program, &opening, instance, &call).await,
                Err(error) => (None, Err(error)),
            }
        });
        self.running = Some(Running { future, opened, _mark: mark });
        (self.cpu, self.opening_cpu, self.slices) = (Duration::ZERO, Duration::ZERO, 0);
        self.page_cpu = Duration::ZERO;
    }

    /// Runs the call for a slice, about 2 ms at most. Pending: call it again in the next step.
    /// Ready also when no call is under way, with nothing.
    pub fn poll(&mut self) -> Poll<Result<Outcome, GuestError>> {
        let Some(running) = &mut self.running else { return Poll::Ready(Ok(Outcome::default())) };
        let runtime = &self.program.0.runtime;
        let clock = &runtime.platform.clock;
        // The CPU clock costs microseconds: it is asked only once a call has shown to be long.
        let time = |slices: u32| if slices == 0 { clock.now() } else { cpu_or(clock) };
        let before = time(self.slices);
        let polled = running.future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        self.cpu += time(self.slices).saturating_sub(before);
        self.slices += 1;
        if running.opened.swap(false, Ordering::Relaxed) {
            self.opening_cpu = self.cpu;
        }
        let pages = self.pages.load(Ordering::Relaxed);
        if std::mem::replace(&mut self.pages_seen, pages) != pages {
            self.page_cpu = self.cpu;
        }
        match polled {
            Poll::Ready((instance, outcome)) => {
                self.running = None;
                self.keep(instance);
                Poll::Ready(outcome)
            }
            Poll::Pending if self.cpu - self.page_cpu > runtime.config.limits.call_time => {
                // Dropping the future drops the instance with it.
                self.running = None;
                let timed_out = GuestError::TimedOut(runtime.config.limits.call_time);
                self.keep(None);
                Poll::Ready(Err(timed_out))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// Makes and opens the instance now, where there is none. Blocks.
    ///
    /// # Errors
    /// If it cannot be opened, or that takes too long.
    pub fn open(&mut self) -> Result<(), GuestError> {
        if self.instance.is_some() || self.running.is_some() {
            return Ok(());
        }
        let runtime = &self.program.0.runtime;
        let (limit, mark) = (runtime.config.limits.call_time, runtime.begin_call());
        let made = {
            let future = std::pin::pin!(instantiate(&self.program, &self.opening, Arc::clone(&self.pages)));
            wait(future, limit, &runtime.platform.clock)
        };
        drop(mark);
        self.instance = Some(made.ok_or(GuestError::TimedOut(limit))??);
        Ok(())
    }

    /// Tells the user of the job, as if the guest had.
    pub fn warn(&self, message: &str) {
        self.opening.hooks.log(LogLevel::Warn, message);
    }

    /// CPU time of the last call so far.
    #[must_use]
    pub fn cpu(&self) -> Duration {
        self.cpu
    }

    /// The same without making and opening the instance, where the call had to.
    #[must_use]
    pub fn cpu_of_rows(&self) -> Duration {
        self.cpu.saturating_sub(self.opening_cpu)
    }

    /// Of the last call that has returned: what the host did with its columns before and after. The copying into the
    /// guest's memory and out of it is not in this, but in [`cpu`](Self::cpu), as the other is too.
    #[must_use]
    pub fn boundary(&self) -> Duration {
        self.boundary
    }

    /// The linear memory of the instance as the last call left it; 0 = there is none.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// Whether the last call had to make its instance first.
    #[must_use]
    pub fn was_first_call(&self) -> bool {
        self.was_first_call
    }

    /// Throws the instance away, and a call that is under way; the next call makes a new one.
    pub fn reset(&mut self) {
        self.running = None;
        self.keep(None);
    }

    /// Keeps the instance for the next call, if there is one.
    fn keep(&mut self, instance: Option<Instance>) {
        let host = instance.as_ref().map(|instance| instance.store.data());
        (self.boundary, self.memory_bytes) =
            host.map_or_else(Default::default, |host| (host.boundary, host.memory_bytes));
        self.instance = instance;
    }
}

/// Pending once.
async fn give_way() {
    let mut asked = false;
    std::future::poll_fn(|_| match std::mem::replace(&mut asked, true) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
    .await;
}

async fn instantiate(
    program: &Program,
    opening: &Opening,
    pages: Arc<AtomicU64>,
) -> Result<Instance, GuestError> {
    let shared = &program.0;
    let mut store = shared.runtime.store(Arc::clone(&opening.hooks))?;
    store.data_mut().state = StateAccess {
        states: Arc::clone(&opening.states),
        reader: opening.reader.clone(),
        groups: None,
        reading: Reading::new(pages),
    };
    let opened = async {
        let instance = shared.pre.instantiate_async(&mut store).await?;
        let functions = shared.functions.load(&mut store, &instance)?;
        let keyed = shared.keyed.as_ref().map(|keyed| keyed.load(&mut store, &instance)).transpose()?;
        let windows =
            shared.windows.as_ref().map(|windows| windows.load(&mut store, &instance)).transpose()?;
        let task = &opening.task;
        let args: Vec<&str> = task.args.iter().map(String::as_str).collect();
        let task = functions::Task {
            job: &task.job,
            args: &args,
            subtask: task.subtask,
            parallelism: task.parallelism,
            attempt: task.attempt,
        };
        let outputs: Vec<functions::NodePort> = opening
            .outputs
            .iter()
            .map(|output| functions::NodePort { node: output.node, port: output.port })
            .collect();
        let answer = functions.call_open(&mut store, task, &opening.chain, &outputs).await?;
        wasmtime::Result::Ok((functions, keyed, windows, answer))
    }
    .await;
    match opened {
        Ok((functions, keyed, windows, Ok(()))) => Ok(Instance { store, functions, keyed, windows }),
        Ok((_, _, _, Err(why))) => Err(GuestError::OpenRefused(tame(&why, MESSAGE_BYTES_MAX))),
        Err(error) => Err(failure(&error, &store, &shared.runtime)),
    }
}

async fn run(program: &Program, opening: &Opening, mut instance: Instance, call: &Call) -> Finished {
    instance.store.data_mut().state.groups = match call {
        Call::Process { .. } | Call::Merge { .. } => None,
        Call::ProcessKeyed { groups, .. } | Call::Timers { groups, .. } => Some(groups.count),
    };
    instance.store.data_mut().state.reading.restart();
    let clock = &program.0.runtime.platform.clock;
    let start = clock.now();
    let entered;
    let returned = match call {
        Call::Process { now, input, rows } => {
            let flat = lower::flat(rows.rows().columns());
            let lowered = Lowered::of(&flat);
            let columns = lowered.lent();
            let batch = lower::batch(rows, &columns);
            entered = clock.now();
            instance.functions.call_process(&mut instance.store, moment(*now), *input, batch).await.map(
                |outcome| Returned {
                    outputs: outcome.outputs,
                    failures: outcome.failures,
                    ..Returned::default()
                },
            )
        }
        Call::ProcessKeyed { now, input, groups, of_rows, rows, entries } => {
            let Some(keyed) = &instance.keyed else { return (None, Err(not_exported())) };
            let flat = lower::flat(rows.rows().columns());
            let lowered = Lowered::of(&flat);
            let columns = lowered.lent();
            let riding: Vec<_> =
                entries.iter().map(|riding| lower::flat(std::slice::from_ref(&riding.values))).collect();
            let riding: Vec<_> = riding.iter().map(|flat| Lowered::of(flat)).collect();
            let riding: Vec<_> = riding.iter().map(Lowered::lent).collect();
            let entries: Vec<_> = entries
                .iter()
                .zip(&riding)
                .map(|(entries, values)| calls::RidingEntries {
                    state: entries.state,
                    of_rows: &entries.of_rows,
                    // There are no more of them than rows.
                    count: entries.values.len() as u32,
                    values,
                })
                .collect();
            let input = calls::KeyedRows {
                input: *input,
                groups: of_rows,
                rows: lower::batch(rows, &columns),
                entries: &entries,
            };
            let lent = LentGroups::of(groups);
            let (keys, state) = (lent.keys(), lent.state());
            let batch = calls::KeyedBatch {
                group_count: groups.count,
                keys: &keys.lent(),
                state: &state.lent(),
                inputs: &[input],
            };
            entered = clock.now();
            keyed.call_process_keyed(&mut instance.store, moment(*now), batch).await.map(Returned::from)
        }
        Call::Timers { now, domain, times, groups } => {
            let Some(keyed) = &instance.keyed else { return (None, Err(not_exported())) };
            let domain = match domain {
                TimeDomain::EventTime => graph::TimeDomain::EventTime,
                TimeDomain::ProcessingTime => graph::TimeDomain::ProcessingTime,
            };
            let lent = LentGroups::of(groups);
            let (keys, state) = (lent.keys(), lent.state());
            let batch = calls::KeyedBatch {
                group_count: groups.count,
                keys: &keys.lent(),
                state: &state.lent(),
                inputs: &[],
            };
            entered = clock.now();
            keyed
                .call_on_timers(&mut instance.store, moment(*now), domain, times, batch)
                .await
                .map(Returned::from)
        }
        Call::Merge { left, right } => {
            let Some(windows) = &instance.windows else {
                return (None, Err(lied("windows meet, but `window-functions` is not exported")));
            };
            let [left, right] = [left, right].map(|side| lower::flat(std::slice::from_ref(side)));
            let (left, right) = (Lowered::of(&left), Lowered::of(&right));
            // There are no more of them than rows of a call.
            let count = call.length() as u32;
            let (left, right) = (left.lent(), right.lent());
            entered = clock.now();
            windows
                .call_merge(&mut instance.store, count, &left, &right)
                .await
                .map(|merged| Returned { merged: Some(merged), ..Returned::default() })
        }
    };
    let returned = match returned {
        Ok(returned) => returned,
        Err(error) => return (None, Err(failure(&error, &instance.store, &program.0.runtime))),
    };
    let left = clock.now();
    let checked = check(opening, call, returned);
    instance.store.data_mut().boundary = entered.saturating_sub(start) + clock.now().saturating_sub(left);
    // An instance that lied is not asked again.
    (checked.is_ok().then_some(instance), checked)
}

fn not_exported() -> GuestError {
    lied("the plan has keyed functions, but `keyed-functions` is not exported")
}

/// The keys and states of a call, flattened.
struct LentGroups {
    keys: Vec<ArrayRef>,
    state: Vec<ArrayRef>,
}

impl LentGroups {
    fn of(groups: &Groups) -> Self {
        Self { keys: lower::flat(&groups.keys), state: lower::flat(&groups.state) }
    }

    fn keys(&self) -> Lowered<'_> {
        Lowered::of(&self.keys)
    }

    fn state(&self) -> Lowered<'_> {
        Lowered::of(&self.state)
    }
}

/// What a call returned, unchecked.
#[derive(Default)]
struct Returned {
    outputs: Vec<calls::Output>,
    updates: Vec<calls::StateUpdate>,
    entries: Vec<calls::EntryChanges>,
    timers: Option<calls::TimerChanges>,
    failures: Vec<calls::Failure>,
    merged: Option<Vec<ColumnResult>>,
}

impl From<calls::KeyedOutcome> for Returned {
    fn from(outcome: calls::KeyedOutcome) -> Self {
        let calls::KeyedOutcome { outputs, updates, entries, timers, failures } = outcome;
        Self { outputs, updates, entries, timers: Some(timers), failures, merged: None }
    }
}

fn moment(now: Moment) -> calls::Moment {
    calls::Moment { watermark: now.watermark, processing_time: now.processing_time }
}

fn check(opening: &Opening, call: &Call, returned: Returned) -> Result<Outcome, GuestError> {
    let Returned { outputs, updates, entries, timers, failures, merged } = returned;
    let mut outcome = Outcome::default();
    for output in outputs {
        let schema = opening
            .schemas
            .get(output.port as usize)
            .ok_or_else(|| lied(format!("rows for port {}, which was not asked for", output.port)))?;
        if outcome.outputs.iter().any(|(port, _)| *port == output.port) {
            return Err(lied(format!("rows for port {} twice", output.port)));
        }
        let batch = lift::batch(schema, output.rows)?;
        if batch.num_rows() > 0 {
            outcome.outputs.push((output.port, batch));
        }
    }
    if let Some(merged) = merged {
        let [state] = &opening.states[..] else { return Err(lied("there is not one state to be merged")) };
        outcome.merged = Some(lift::value(state, call.length(), merged)?);
    }
    let groups = call.group_count();
    for update in updates {
        if outcome.updates.iter().any(|other| other.state == update.state) {
            return Err(lied(format!("two updates of state {}", update.state)));
        }
        outcome.updates.push(state_update(opening, call, update)?);
    }
    for changes in entries {
        if outcome.entries.iter().any(|other| other.state == changes.state) {
            return Err(lied(format!("changes of state {} twice", changes.state)));
        }
        outcome.entries.push(entry_changes(opening, call, changes)?);
    }
    if let Some(timers) = timers {
        outcome.timers = timer_changes(&timers, groups)?;
    }
    let rows = call.length();
    let mut seen = vec![false; if failures.is_empty() { 0 } else { rows }];
    for failed in failures {
        match seen.get_mut(failed.row as usize) {
            Some(seen) if !*seen && opening.chain.contains(&failed.node) => *seen = true,
            _ => {
                let (row, node) = (failed.row, failed.node);
                return Err(lied(format!(
                    "a failure of row {row} of {rows} in node {node}, or twice of one row"
                )));
            }
        }
        let message = tame(&failed.message, MESSAGE_BYTES_MAX);
        outcome.failures.push(RowFailure { node: failed.node, row: failed.row, message });
    }
    outcome.failures.sort_by_key(|failed| failed.row);
    Ok(outcome)
}

fn state_update(
    opening: &Opening,
    call: &Call,
    update: calls::StateUpdate,
) -> Result<StateUpdate, GuestError> {
    let calls::StateUpdate { state, written, columns } = update;
    let declared = opening.states.get(state as usize);
    let (declared, length) = match (declared, call.riding(state)) {
        (Some(declared), Some(riding)) => (declared, riding.values.len()),
        (Some(declared), None) if declared.kind == StateKind::Value => (declared, call.group_count()),
        _ => return Err(lied(format!("an update of state {state}, which did not travel by value"))),
    };
    let written = written
        .map(|bits| {
            lift::bitmap(bits, length).ok_or_else(|| lied(format!("no `written` for {length} of them")))
        })
        .transpose()?;
    Ok(StateUpdate { state, written, values: lift::value(declared, length, columns)? })
}

fn entry_changes(
    opening: &Opening,
    call: &Call,
    entries: calls::EntryChanges,
) -> Result<EntryChanges, GuestError> {
    let calls::EntryChanges { state, changes, groups, keys, values } = entries;
    let wrong = |what: &str| Err(lied(format!("changes of entries of state {state}: {what}")));
    let Some(declared) = opening.states.get(state as usize) else { return wrong("there is no such state") };
    let is_sequence = declared.kind == StateKind::Sequence;
    let has_groups = match declared.kind {
        StateKind::Value => return wrong("it travels by value"),
        StateKind::Dictionary(_) if call.riding(state).is_some() => return wrong("they rode in"),
        StateKind::Broadcast if call.input().is_none() || call.input() != opening.broadcast_input => {
            return wrong("only rows of the broadcast input change it");
        }
        StateKind::Dictionary(_) | StateKind::Sequence => true,
        StateKind::Broadcast => false,
    };
    let length = changes.len();
    let (expected, count) = (if has_groups { length } else { 0 }, call.group_count());
    if groups.len() != expected || groups.iter().any(|group| *group as usize >= count) {
        return wrong(&format!("groups that are not {expected}, each below {count}"));
    }
    let changes = changes
        .into_iter()
        .map(|change| match change {
            0 => Ok(EntryChange::Put),
            1 if !is_sequence => Ok(EntryChange::Remove),
            2 => Ok(EntryChange::Clear),
            other => Err(lied(format!("a change {other} of an entry of state {state}"))),
        })
        .collect::<Result<_, _>>()?;
    let keys = lift::nullable(declared.key.fields(), length, keys)?;
    Ok(EntryChanges { state, changes, groups, keys, values: lift::value(declared, length, values)? })
}

fn timer_changes(timers: &calls::TimerChanges, groups: usize) -> Result<Vec<TimerChange>, GuestError> {
    let calls::TimerChanges { groups: of_groups, times, changes } = timers;
    if of_groups.len() != times.len() || of_groups.len() != changes.len() {
        return Err(lied("changes of timers in columns of unequal length"));
    }
    of_groups
        .iter()
        .zip(times)
        .zip(changes)
        .map(|((group, time), change)| {
            if *group as usize >= groups {
                return Err(lied(format!("a timer of group {group} of {groups}")));
            }
            let (domain, set) = match change {
                0 => (TimeDomain::EventTime, true),
                1 => (TimeDomain::EventTime, false),
                2 => (TimeDomain::ProcessingTime, true),
                3 => (TimeDomain::ProcessingTime, false),
                other => return Err(lied(format!("a change of a timer {other}, not 0 to 3"))),
            };
            Ok(TimerChange { group: *group, time: *time, domain, set })
        })
        .collect()
}
