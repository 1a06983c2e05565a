//! A running job: started, watched, cancelled, waited for.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;

use arrow_array::{ArrayRef, TimestampMillisecondArray};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use checkpoint::Statistics;
use connectors::{SinkFactory, Splits, SplitsOf};
use model::Diagnostic;
use model::job_graph::{NodeId, NodeKind};
use platform::{Clock, Inbox, Platform, ReadySet, spawn_thread};

use crate::backends::Maker;
use crate::checkpoints::savepoint::{Ask, Asked};
use crate::checkpoints::teller;
use crate::deploy::deploy;
use crate::metrics::times::TaskWatch;
use crate::metrics::{Counters, JobDescription, JobMetrics, LogSink, UserMetrics, read};
use crate::metrics::{SubtaskMetrics, VertexMetrics};
use crate::operator::state_error;
use crate::swap::asking::Swaps;
use crate::swap::{Difference, RollBack, Standing, SwapAnswer, SwapOptions, Version};
use crate::{Answer, CheckpointTracker, Plan, SavepointRequest};

/// How a job ended.
#[derive(Clone, Debug)]
pub enum JobOutcome {
    /// All its input was handled.
    Finished,
    /// It was told to stop.
    Cancelled,
    /// It could not go on.
    Failed(Diagnostic),
}

/// How far a job is. All counts only rise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Rows that sources have read, bad ones too.
    pub rows_in: u64,
    /// Rows that sinks have written.
    pub rows_out: u64,
    /// Rows that failed and were skipped.
    pub rows_skipped: u64,
    /// Rows that failed and were diverted.
    pub rows_diverted: u64,
    /// Timers that have fired.
    pub timers_fired: u64,
    /// Timers that failed and were dropped.
    pub timers_skipped: u64,
    /// How often tables of lookups have been read.
    pub tables_read: u64,
    /// How often one could not be read again, and stayed as it was.
    pub tables_failed: u64,
    /// Guest calls that trapped (and were made again).
    pub traps: u64,
    /// Guest calls.
    pub calls: u64,
    /// CPU time of guest calls, in nanoseconds.
    pub guest_nanoseconds: u64,
    /// Bytes that sources have read.
    pub bytes_read: u64,
    /// Bytes that they will have read at the end, where that is known.
    pub bytes_total: Option<u64>,
}

/// How far event time is in a running job: the least of the subtasks that make watermarks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventTime {
    /// In milliseconds since the epoch; none = the subtask has had no rows with a time.
    pub watermark: Option<i64>,
    /// The operator that holds event time back.
    pub operator: String,
    /// Its subtask, from 0.
    pub subtask: u32,
    /// And of how many.
    pub parallelism: u32,
    /// What of the source it waits for, where that has several splits.
    pub split: Option<SplitHolds>,
}

/// The split of a source that holds event time back, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SplitHolds {
    /// The subtask reads it.
    Reading(String),
    /// No subtask has come to it yet, so that nothing is known of its times.
    Waiting(String),
}

impl SplitHolds {
    /// What holds a subtask back, if the source has several splits.
    fn of(splits: &SplitsOf, subtask: u32) -> Option<Self> {
        match splits {
            SplitsOf::All(splits) => Self::of_all(splits, subtask),
            SplitsOf::Found(splits) => splits.held_by().map(|(name, waits)| match waits {
                true => Self::Waiting(name),
                false => Self::Reading(name),
            }),
        }
    }

    fn of_all(splits: &Splits, subtask: u32) -> Option<Self> {
        if splits.all().len() < 2 {
            return None;
        }
        let name = |split: usize| splits.all()[split].name.clone();
        let standing = splits.standing(subtask);
        match splits.first_unknown(standing.waiting) {
            Some(split) => Some(Self::Waiting(name(split))),
            None => standing.current.map(|split| Self::Reading(name(split))),
        }
    }
}

impl EventTime {
    /// ``watermark 2026-03-02T10:31:56.138, by subtask 2 of 3 of `Watermarks` ``
    #[must_use]
    pub fn text(&self) -> String {
        let (subtask, parallelism, operator) = (self.subtask + 1, self.parallelism, &self.operator);
        let by = format!("subtask {subtask} of {parallelism} of `{operator}`");
        let Some(watermark) = self.watermark else {
            return match &self.split {
                Some(SplitHolds::Waiting(split)) => format!("no watermark yet: {split} waits to be read"),
                Some(SplitHolds::Reading(split)) => {
                    format!("no watermark yet: {by} has had no rows of {split}")
                }
                None => format!("no watermark yet: {by} has had no rows"),
            };
        };
        let by = match &self.split {
            Some(SplitHolds::Reading(split)) => format!("{by}, which reads {split}"),
            _ => by,
        };
        let column: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![watermark]));
        match ArrayFormatter::try_new(&column, &FormatOptions::default()) {
            Ok(formatter) => format!("watermark {}, by {by}", formatter.value(0)),
            Err(_) => format!("watermark {watermark} ms, by {by}"),
        }
    }
}

/// A running job.
pub struct Job {
    control: Arc<Control>,
    workers: Mutex<Vec<JoinHandle<()>>>,
    checkpointer: Mutex<Option<CheckpointThread>>,
    asks: Option<Inbox<Ask>>,
    watch: Watch,
    tracker: CheckpointTracker,
    swaps: Swaps,
}

/// The thread that decides of checkpoints.
struct CheckpointThread {
    thread: JoinHandle<()>,
    /// It has nothing to do any more.
    over: Arc<AtomicBool>,
    ready: Arc<ReadySet>,
}

/// What can be seen of a job from outside.
pub(crate) struct Watch {
    /// Each operator's counters: its node, one entry a subtask.
    pub(crate) counters: Vec<(NodeId, Arc<Counters>)>,
    pub(crate) user: Arc<Mutex<UserMetrics>>,
    pub(crate) sinks: BTreeMap<NodeId, Arc<dyn SinkFactory>>,
    pub(crate) sources: Vec<NodeId>,
    /// The operators that make watermarks, and their names.
    pub(crate) timed: Vec<(NodeId, String)>,
    /// The splits that their subtasks follow one by one.
    pub(crate) splits: BTreeMap<(NodeId, u32), SplitsOf>,
    pub(crate) sink_nodes: Vec<NodeId>,
    pub(crate) bytes_total: Option<u64>,
    /// By vertex, whether rows come from none before it.
    are_first: Vec<bool>,
    /// By vertex and subtask.
    pub(crate) tasks: Vec<Vec<Arc<TaskWatch>>>,
    restarts: u32,
    started_ms: i64,
    clock: Clock,
}

const RUNNING: u8 = 0;
const CANCELLED: u8 = 1;
const FAILED: u8 = 2;

/// What a job's workers are told, and tell.
pub(crate) struct Control {
    state: AtomicU8,
    error: Mutex<Option<Diagnostic>>,
    workers: OnceLock<Vec<Arc<ReadySet>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Control {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { state: AtomicU8::new(RUNNING), error: Mutex::default(), workers: OnceLock::new() })
    }

    pub(crate) fn set_workers(&self, workers: Vec<Arc<ReadySet>>) {
        // Set once, by `deploy`.
        drop(self.workers.set(workers));
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.state.load(Ordering::Acquire) != RUNNING
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.state.load(Ordering::Acquire) == FAILED
    }

    /// The first error ends the job; later ones follow from it.
    pub(crate) fn fail(&self, error: Diagnostic) {
        {
            let mut first = lock(&self.error);
            if first.is_some() || self.is_stopping() {
                return;
            }
            *first = Some(error);
        }
        self.stop(FAILED);
    }

    fn stop(&self, how: u8) {
        // The first to stop the job says how.
        let stopped = self.state.compare_exchange(RUNNING, how, Ordering::AcqRel, Ordering::Acquire);
        if stopped.is_err() {
            return;
        }
        self.workers.get().into_iter().flatten().for_each(|ready| ready.mark(0));
    }

    pub(crate) fn outcome(&self) -> JobOutcome {
        match self.state.load(Ordering::Acquire) {
            RUNNING => JobOutcome::Finished,
            CANCELLED => JobOutcome::Cancelled,
            _ => JobOutcome::Failed(
                lock(&self.error).clone().unwrap_or_else(|| Diagnostic::internal("the job failed")),
            ),
        }
    }
}

/// Starts a job: its workers run from now on.
///
/// # Errors
/// If a source or sink cannot be opened.
pub fn start(plan: Plan, platform: &Platform, log: LogSink) -> Result<Job, Diagnostic> {
    let slots = plan.physical.slots() as usize;
    let mut maker = match plan.options.keeps_state_on_disk() {
        true => Maker::new(&plan.options.state_backend, slots, platform)
            .map_err(|error| state_error(None, &error))?,
        false => Maker::InMemory,
    };
    let tracker = Arc::clone(&plan.options.checkpoint_tracker);
    let deployed = deploy(plan, platform, &log, &mut |new| maker.make(new))?;
    let workers = deployed
        .workers
        .into_iter()
        .enumerate()
        .map(|(number, worker)| spawn_thread(format!("worker-{number}"), move || worker.run()))
        .collect();
    let asks = deployed.checkpointer.as_ref().map(|(checkpointer, _)| checkpointer.asks());
    let checkpointer = deployed.checkpointer.map(|(mut checkpointer, ready)| {
        let (waker, over, clock) =
            (Arc::clone(&ready), Arc::new(AtomicBool::new(false)), platform.clock.clone());
        let is_over = Arc::clone(&over);
        let thread = spawn_thread("checkpoints", move || {
            let mut marked = Vec::new();
            while !is_over.load(Ordering::Acquire) {
                let at = checkpointer.step();
                ready.park(at.map(|at| at.saturating_sub(clock.now())));
                ready.take(&mut marked);
            }
            checkpointer.finish();
        });
        CheckpointThread { thread, over, ready: waker }
    });
    Ok(Job {
        control: deployed.control,
        workers: Mutex::new(workers),
        checkpointer: Mutex::new(checkpointer),
        asks,
        watch: deployed.watch,
        tracker,
        swaps: deployed.swaps,
    })
}

impl Job {
    /// Waits for the job's end.
    pub fn wait(&self) -> JobOutcome {
        let workers = std::mem::take(&mut *lock(&self.workers));
        for worker in workers {
            if worker.join().is_err() {
                self.control.fail(Diagnostic::internal("Millstream has a bug: a worker panicked"));
            }
        }
        if let Some(CheckpointThread { thread, over, ready }) = lock(&self.checkpointer).take() {
            over.store(true, Ordering::Release);
            ready.mark(0);
            if thread.join().is_err() {
                self.control.fail(Diagnostic::internal("Millstream has a bug: the checkpoints panicked"));
            }
        }
        self.control.outcome()
    }

    /// Tells the job to stop: it takes no more input, finishes what its sinks have, and ends.
    pub fn cancel(&self) {
        self.control.stop(CANCELLED);
    }

    /// Asks for a savepoint. `answer` is called in a thread of the job's once it is complete or given up, and is
    /// dropped if the job ends before. A job that is to stop ends with [`JobOutcome::Finished`] when it is complete;
    /// if it is given up the job goes on, but for one that was drained, whose input has ended.
    ///
    /// # Errors
    /// If the job makes no checkpoints.
    pub fn savepoint(&self, request: SavepointRequest, answer: Answer) -> Result<(), Diagnostic> {
        let Some(asks) = &self.asks else {
            return Err(Diagnostic::user("a job without checkpoints makes no savepoints")
                .hint("give it a folder for them: -D execution.checkpointing.dir=DIR"));
        };
        asks.put(Ask { asked: Asked::Savepoint(request), answer });
        Ok(())
    }

    /// Asks for a checkpoint, out of turn: it comes as soon as one that is under way is over, and the next regular one
    /// comes after its interval. A full one builds upon none before it. `answer` is as for
    /// [`savepoint`](Self::savepoint).
    ///
    /// # Errors
    /// If the job makes no checkpoints.
    pub fn checkpoint(&self, full: bool, answer: Answer) -> Result<(), Diagnostic> {
        let Some(asks) = &self.asks else {
            return Err(Diagnostic::user("the job makes no checkpoints")
                .hint("give it a folder for them: -D execution.checkpointing.dir=DIR"));
        };
        asks.put(Ask { asked: Asked::Checkpoint { full }, answer });
        Ok(())
    }

    /// Changes the running job to another version of it.
    ///
    /// `plan` is the new version's, made of its component as for a start ([`crate::plan`]), with the options that the
    /// job was started with ([`crate::RunOptions::of_next_version`]); it is not to be prepared. This compares it with the version that runs, checks what it
    /// asks of the outside against what is granted, and makes and opens its instances, while the job runs: it blocks
    /// for that. Then a checkpoint is asked for, after one that is under way. At its barrier every subtask changes:
    /// rows before it are handled by the old code, rows after it by the new, with state, timers and windows as they
    /// are; none is lost, and none comes twice. `answer` is called in a thread of the job's when that checkpoint is
    /// complete, with its number; or with the reason why it has been given up. Then the change has not happened: the
    /// subtasks that had changed are back, and what they have done meanwhile stays done. `answer` is dropped if the job
    /// ends before.
    ///
    /// On [probation](crate::swap::Probation) every subtask keeps the old code beside the new. After a trap too many
    /// the subtask that trapped goes on with the old code at that row, and the others at the next barrier, of a
    /// checkpoint that is asked for at once; nothing is replayed. If the rollback is to be exact the job fails instead,
    /// with [`roll_back`](Self::roll_back) saying where to go on. How the new version stands is told to the options'
    /// observer, and by [`standing`](Self::standing). Until that is decided no other change is taken.
    ///
    /// Returns what differs. Where nothing does, that is no error.
    ///
    /// # Errors
    /// If the job makes no checkpoints or is changing already; if a trap could not lead back from a version that is to
    /// be on probation; if the version differs in what is laid out when a job starts ([`crate::swap::Difference::obstacles`]); if something is not granted; if an instance cannot be opened.
    /// Then nothing has happened.
    pub fn swap(
        &self,
        plan: &Plan,
        options: SwapOptions,
        answer: SwapAnswer,
    ) -> Result<Difference, Diagnostic> {
        self.swaps.swap(plan, options, answer)
    }

    /// How the version stands that the job has last changed to on probation; none = there was none in this attempt.
    #[must_use]
    pub fn standing(&self) -> Option<Standing> {
        self.swaps.standing()
    }

    /// Where the job is to go on from, and as which version, if a trap on probation has ended it by an exact rollback:
    /// after [`wait`](Self::wait) has given [`JobOutcome::Failed`] with the trap. The version's component lies beside
    /// the checkpoints.
    #[must_use]
    pub fn roll_back(&self) -> Option<RollBack> {
        self.swaps.roll_back()
    }

    /// The version that runs: what others are compared with ([`crate::swap::diff()`]).
    #[must_use]
    pub fn version(&self) -> Arc<Version> {
        self.swaps.version()
    }

    /// Whether the job has been told to stop, or has failed.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.control.is_stopping()
    }

    /// How far the job is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.watch.progress()
    }

    /// What is known of the job's checkpoints, over all its attempts.
    #[must_use]
    pub fn checkpoints(&self) -> Statistics {
        teller::lock(&self.tracker).statistics()
    }

    /// What the job is made of, as the version that runs. Vertices, stages and subtasks of all versions that a job has
    /// changed to while it ran are the same in number and order.
    #[must_use]
    pub fn description(&self) -> Arc<JobDescription> {
        Arc::clone(&self.swaps.version().description)
    }

    /// All that has been counted until now.
    #[must_use]
    pub fn metrics(&self) -> JobMetrics {
        JobMetrics { checkpoints: self.checkpoints(), ..self.watch.metrics() }
    }

    /// The metrics of the guests' own.
    #[must_use]
    pub fn user_metrics(&self) -> UserMetrics {
        lock(&self.watch.user).clone()
    }

    /// How far event time is, and which subtask holds it back; none where no operator makes
    /// watermarks, or all that do are idle or have ended.
    #[must_use]
    pub fn event_time(&self) -> Option<EventTime> {
        self.watch.event_time()
    }

    /// What the sinks have to say once the job has ended.
    #[must_use]
    pub fn summary(&self) -> Vec<String> {
        self.watch.sinks.values().flat_map(|sink| sink.summary()).collect()
    }
}

impl Watch {
    fn event_time(&self) -> Option<EventTime> {
        let of_operator = |(id, name): &(NodeId, String)| {
            let subtasks: Vec<_> =
                self.counters.iter().filter(|(node, _)| node == id).map(|(_, counters)| counters).collect();
            let parallelism = u32::try_from(subtasks.len()).unwrap_or(u32::MAX);
            let held = (0..).zip(subtasks).filter(|(_, counters)| !counters.holds_nothing_back());
            held.map(|(subtask, counters)| EventTime {
                watermark: counters.watermark(),
                operator: name.clone(),
                subtask,
                parallelism,
                split: self.splits.get(&(*id, subtask)).and_then(|splits| SplitHolds::of(splits, subtask)),
            })
            .min_by_key(|time| time.watermark)
        };
        self.timed.iter().filter_map(of_operator).min_by_key(|time| time.watermark)
    }

    /// All but the checkpoints.
    pub(crate) fn metrics(&self) -> JobMetrics {
        let subtasks = |(tasks, is_first): (&Vec<Arc<TaskWatch>>, &bool)| {
            let of_subtask =
                |(subtask, watch): (u32, &Arc<TaskWatch>)| SubtaskMetrics::of(subtask, *is_first, watch);
            VertexMetrics { subtasks: (0..).zip(tasks).map(of_subtask).collect() }
        };
        JobMetrics {
            now_ms: self.clock.wall_ms(),
            started_ms: self.started_ms,
            restarts: self.restarts,
            availability: None,
            vertices: self.tasks.iter().zip(&self.are_first).map(subtasks).collect(),
            user: lock(&self.user).clone(),
            checkpoints: Statistics::default(),
        }
    }

    pub(crate) fn progress(&self) -> Progress {
        let mut progress = Progress { bytes_total: self.bytes_total, ..Progress::default() };
        for (node, counters) in &self.counters {
            if self.sources.contains(node) {
                progress.rows_in += read(&counters.rows_in);
                progress.bytes_read += read(&counters.bytes_read);
            }
            if self.sink_nodes.contains(node) {
                progress.rows_out += read(&counters.rows_out);
            }
            progress.rows_skipped += read(&counters.rows_skipped);
            progress.rows_diverted += read(&counters.rows_diverted);
            progress.timers_fired += read(&counters.timers_fired);
            progress.timers_skipped += read(&counters.timers_skipped);
            progress.tables_read += read(&counters.tables_read);
            progress.tables_failed += read(&counters.tables_failed);
            progress.traps += read(&counters.traps);
            progress.calls += read(&counters.calls);
            progress.guest_nanoseconds += read(&counters.guest_nanoseconds);
        }
        progress
    }

    pub(crate) fn of(plan: &Plan, clock: &Clock) -> Self {
        let nodes = |wanted: fn(&NodeKind) -> bool| -> Vec<NodeId> {
            (0..).zip(&plan.physical.job.nodes).filter(|(_, n)| wanted(&n.kind)).map(|(id, _)| id).collect()
        };
        let bytes_total = plan.sources.values().map(|source| source.bytes_total()).sum::<Option<u64>>();
        Self {
            counters: Vec::new(),
            user: Arc::default(),
            sinks: plan.sinks.clone(),
            sources: nodes(|kind| matches!(kind, NodeKind::Source(_))),
            timed: nodes(|kind| matches!(kind, NodeKind::Watermarks(_)))
                .into_iter()
                .map(|id| (id, plan.physical.job.nodes[id as usize].name.clone()))
                .collect(),
            splits: BTreeMap::new(),
            sink_nodes: nodes(|kind| matches!(kind, NodeKind::Sink(_))),
            bytes_total,
            are_first: (0..plan.physical.vertices.len())
                .map(|vertex| plan.physical.edges_into(vertex).next().is_none())
                .collect(),
            tasks: vec![Vec::new(); plan.physical.vertices.len()],
            restarts: plan.options.attempt,
            started_ms: clock.wall_ms(),
            clock: clock.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use connectors::splits::SplitName;

    #[test]
    fn the_split_that_holds_event_time_back_is_named() {
        let name = |name: &str| SplitName { sequence: name.len(), name: name.to_owned() };
        let splits = Splits::new(vec![name("`a`"), name("`bb`")], 1);
        let text = |watermark, splits: &Splits| {
            let split = SplitHolds::of_all(splits, 0);
            EventTime { watermark, operator: "W".into(), subtask: 0, parallelism: 1, split }.text()
        };
        splits.take(0);
        assert_eq!(text(None, &splits), "no watermark yet: `bb` waits to be read");
        splits.take(0);
        assert_eq!(text(None, &splits), "no watermark yet: subtask 1 of 1 of `W` has had no rows of `bb`");
        let moved = "watermark 1970-01-01T00:00:00.007, by subtask 1 of 1 of `W`, which reads `bb`";
        assert_eq!(text(Some(7), &splits), moved);
        // A source of one split is not worth the words.
        let one = Splits::new(vec![name("`a`")], 1);
        assert_eq!(text(None, &one), "no watermark yet: subtask 1 of 1 of `W` has had no rows");
    }
}
