//! What a running job counts, and what its guests say.
//!
//! Subtasks count while they work ([`Counters`], [`times`]); whoever wants to know takes a [`JobMetrics`] of a job and
//! shows it by what its [`JobDescription`] calls things: as a list of [`names`] and values, or for [`prometheus`].

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::job_graph::NodeId;
use state::backend::Held;

pub mod description;
pub mod latency;
pub mod names;
pub mod prometheus;
pub mod rates;
pub mod report;
#[cfg(test)]
pub(crate) mod tests;
pub mod times;

pub use description::{
    InputDescription, JobDescription, OperatorDescription, StageDescription, StageKind, VertexDescription,
};
pub use latency::Latency;
pub use report::{JobMetrics, StageMetrics, SubtaskMetrics, VertexMetrics};
pub use times::{ExecutionState, Spent, Standing};

use latency::Latencies;

/// A message of a guest's or of the engine's, on its way to the user.
#[derive(Clone, Debug)]
pub struct LogRecord {
    /// How grave it is.
    pub level: guest::LogLevel,
    /// The name of the function chain, or of what else has something to say.
    pub function: String,
    /// From 0; none = it is of no subtask.
    pub subtask: Option<u32>,
    /// Already cut and without terminal escapes.
    pub message: String,
}

/// Takes the messages of a job's guests. Called from worker threads; must not block for long.
pub type LogSink = Arc<dyn Fn(LogRecord) + Send + Sync>;

/// Counts of one subtask, or of a chain. All but what is kept in memory only rise.
#[derive(Debug, Default)]
pub struct Counters {
    /// Rows that came in (a source: that were read).
    pub rows_in: AtomicU64,
    /// Rows that went out (a sink: that were written), but for those that were diverted.
    pub rows_out: AtomicU64,
    /// Bytes that sources have read.
    pub bytes_read: AtomicU64,
    /// Rows that failed and were skipped.
    pub rows_skipped: AtomicU64,
    /// Rows that failed and were diverted.
    pub rows_diverted: AtomicU64,
    /// Rows that came too late for their window, and were dropped.
    pub rows_late: AtomicU64,
    /// Guest calls that trapped.
    pub traps: AtomicU64,
    /// Guest calls.
    pub calls: AtomicU64,
    /// CPU time of guest calls, in nanoseconds.
    pub guest_nanoseconds: AtomicU64,
    /// Of it, what the host did with the columns before and after, in nanoseconds.
    pub boundary_nanoseconds: AtomicU64,
    /// Bytes of the guest instance's memory, as the last call has left it. It falls when the instance is dropped.
    guest_memory: AtomicU64,
    /// Keys, timers and bytes of the keyed state in memory.
    held: [AtomicU64; 3],
    /// Timers that have fired.
    pub timers_fired: AtomicU64,
    /// Timers that failed and were dropped.
    pub timers_skipped: AtomicU64,
    /// How often a lookup's table has been read.
    pub tables_read: AtomicU64,
    /// How often it could not be read again, and stayed as it was.
    pub tables_failed: AtomicU64,
    /// The last watermark that came to it.
    input: LastWatermark,
    /// The last that it sent on.
    output: LastWatermark,
    holds_nothing: AtomicBool,
    latencies: Mutex<Latencies>,
}

/// A watermark, in milliseconds since the epoch; none at first.
#[derive(Debug, Default)]
struct LastWatermark {
    time: AtomicI64,
    is_there: AtomicBool,
}

impl LastWatermark {
    fn set(&self, time: i64) {
        self.time.store(time, Ordering::Relaxed);
        self.is_there.store(true, Ordering::Release);
    }

    fn get(&self) -> Option<i64> {
        self.is_there.load(Ordering::Acquire).then(|| self.time.load(Ordering::Relaxed))
    }
}

impl Counters {
    /// Says how far event time is, in milliseconds since the epoch.
    pub(crate) fn set_watermark(&self, time: i64) {
        self.output.set(time);
        self.hold();
    }

    /// Says how far the event time is that comes to it.
    pub(crate) fn set_input_watermark(&self, time: i64) {
        self.input.set(time);
    }

    /// Says how long a marker has taken from a source's vertex.
    pub(crate) fn took(&self, source: u32, time: Duration) {
        self.latencies.lock().unwrap_or_else(PoisonError::into_inner).add(source, time);
    }

    /// How long markers have taken, by the source's vertex.
    #[must_use]
    pub fn latencies(&self) -> BTreeMap<u32, Latency> {
        self.latencies.lock().unwrap_or_else(PoisonError::into_inner).all()
    }

    /// Says how large the guest instance's memory is.
    pub(crate) fn set_guest_memory(&self, bytes: usize) {
        self.guest_memory.store(bytes as u64, Ordering::Relaxed);
    }

    /// Says how much keyed state is kept in memory.
    pub(crate) fn set_held(&self, held: Held) {
        for (counter, value) in self.held.iter().zip([held.keys, held.timers, held.bytes]) {
            counter.store(value as u64, Ordering::Relaxed);
        }
    }

    /// How much keyed state is kept in memory: keys, timers and bytes.
    #[must_use]
    pub fn held(&self) -> [u64; 3] {
        [0, 1, 2].map(|of: usize| read(&self.held[of]))
    }

    /// How large the guest instance's memory is, in bytes.
    #[must_use]
    pub fn guest_memory(&self) -> u64 {
        self.guest_memory.load(Ordering::Relaxed)
    }

    /// Says that the subtask holds no watermark back: it is idle, or has ended.
    pub(crate) fn hold_nothing(&self) {
        self.holds_nothing.store(true, Ordering::Relaxed);
    }

    /// Says that it has rows again.
    pub(crate) fn hold(&self) {
        self.holds_nothing.store(false, Ordering::Relaxed);
    }

    /// Whether it is idle, or has ended.
    pub(crate) fn holds_nothing_back(&self) -> bool {
        self.holds_nothing.load(Ordering::Relaxed)
    }

    /// How far event time is; none = there has been no watermark.
    #[must_use]
    pub fn watermark(&self) -> Option<i64> {
        self.output.get()
    }

    /// How far the event time is that comes to it; none = there has been no watermark.
    #[must_use]
    pub fn input_watermark(&self) -> Option<i64> {
        self.input.get()
    }
}

/// Adds to a counter.
pub(crate) fn add(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Ordering::Relaxed);
}

/// Reads a counter.
pub(crate) fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// The metrics of the guests' own, by the operator's uid and their name: a version that has other operators goes on
/// with what those that it keeps have counted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UserMetrics {
    /// Sums.
    pub counters: BTreeMap<(Arc<str>, String), u64>,
    /// Last values.
    pub gauges: BTreeMap<(Arc<str>, String), f64>,
    /// Samples: how many, their sum, least and greatest.
    pub histograms: BTreeMap<(Arc<str>, String), Histogram>,
}

/// A histogram, as far as it is kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Histogram {
    /// How many samples.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

/// At most so many names a job; the contract says 100 a function.
const NAMES_MAX: usize = 100;

/// The hooks of one guest instance: logs to the job's sink, metrics to the job's table.
pub(crate) struct GuestHooks {
    pub(crate) log: LogSink,
    pub(crate) function: String,
    pub(crate) subtask: u32,
    pub(crate) metrics: Arc<Mutex<UserMetrics>>,
    /// Of the nodes of its chain.
    pub(crate) uids: BTreeMap<NodeId, Arc<str>>,
    /// The user has been told that a function has too many names.
    pub(crate) told: AtomicBool,
}

impl GuestHooks {
    fn uid(&self, node: NodeId) -> Option<Arc<str>> {
        self.uids.get(&node).map(Arc::clone)
    }

    /// Makes a change; it says whether there was room for the name.
    fn with(&self, name: &str, change: impl FnOnce(&mut UserMetrics) -> Option<()>) {
        let changed = change(&mut self.metrics.lock().unwrap_or_else(PoisonError::into_inner));
        if changed.is_none() && !self.told.swap(true, Ordering::Relaxed) {
            let message =
                format!("metric `{name}` and others are dropped: a function has {NAMES_MAX} names at most");
            guest::Hooks::log(self, guest::LogLevel::Warn, &message);
        }
    }
}

fn entry<'a, V: Default>(
    map: &'a mut BTreeMap<(Arc<str>, String), V>,
    uid: Arc<str>,
    name: &str,
) -> Option<&'a mut V> {
    let key = (Arc::clone(&uid), name.to_owned());
    if !map.contains_key(&key)
        && map.range((Arc::clone(&uid), String::new())..).take_while(|(k, _)| k.0 == uid).count() >= NAMES_MAX
    {
        return None;
    }
    Some(map.entry(key).or_default())
}

impl Default for Histogram {
    fn default() -> Self {
        Self { count: 0, sum: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY }
    }
}

impl guest::Hooks for GuestHooks {
    fn log_enabled(&self, level: guest::LogLevel) -> bool {
        level >= guest::LogLevel::Info
    }

    fn log(&self, level: guest::LogLevel, message: &str) {
        (self.log)(LogRecord {
            level,
            function: self.function.clone(),
            subtask: Some(self.subtask),
            message: message.to_owned(),
        });
    }

    fn count(&self, node: NodeId, name: &str, delta: u64) {
        self.with(name, |metrics| {
            let value = entry(&mut metrics.counters, self.uid(node)?, name)?;
            *value = value.wrapping_add(delta);
            Some(())
        });
    }

    fn gauge(&self, node: NodeId, name: &str, value: f64) {
        self.with(name, |metrics| {
            *entry(&mut metrics.gauges, self.uid(node)?, name)? = value;
            Some(())
        });
    }

    fn histogram(&self, node: NodeId, name: &str, samples: &[f64]) {
        self.with(name, |metrics| {
            let histogram = entry(&mut metrics.histograms, self.uid(node)?, name)?;
            for sample in samples {
                histogram.count += 1;
                histogram.sum += sample;
                histogram.min = histogram.min.min(*sample);
                histogram.max = histogram.max.max(*sample);
            }
            Some(())
        });
    }
}
