//! What a running job has counted until now.

use std::collections::BTreeMap;
use std::time::Duration;

use super::times::{ExecutionState, Spent, Standing, TaskWatch};
use super::{Counters, Latency, UserMetrics, read};

/// All that is counted of a job, at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct JobMetrics {
    /// When, in milliseconds since the epoch.
    pub now_ms: i64,
    /// When this attempt was started.
    pub started_ms: i64,
    /// How often the job has been started again.
    pub restarts: u32,
    /// How long the job has been up or down, where somebody leads it over its attempts; none = there is this one only.
    pub availability: Option<Availability>,
    /// By vertex, in the order of the description.
    pub vertices: Vec<VertexMetrics>,
    /// The guests' own.
    pub user: UserMetrics,
    /// What is known of the job's checkpoints, over all its attempts.
    pub checkpoints: checkpoint::Statistics,
}

/// How long a job has been up or down, over its attempts, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Availability {
    /// How long it has run without interruption; 0 = it does not run now, -1 = it has ended.
    pub up: i64,
    /// How long it has been down since it failed; 0 = it is not, -1 = it has ended.
    pub down: i64,
    /// How long its last restart took, or the one under way has taken; 0 = there was none.
    pub restarting: i64,
}

/// Of a vertex.
#[derive(Clone, Debug, PartialEq)]
pub struct VertexMetrics {
    /// By subtask.
    pub subtasks: Vec<SubtaskMetrics>,
}

/// Of a subtask. All counts only rise.
#[derive(Clone, Debug, PartialEq)]
pub struct SubtaskMetrics {
    /// From 0.
    pub subtask: u32,
    /// What has become of it.
    pub state: ExecutionState,
    /// When it was made, in milliseconds since the epoch.
    pub started_ms: i64,
    /// When it ended.
    pub ended_ms: Option<i64>,
    /// It has no input from other subtasks.
    pub is_source: bool,
    /// Rows that have come from other subtasks.
    pub records_in: u64,
    /// Rows that have gone to other subtasks, each to as many as it went to.
    pub records_out: u64,
    /// The bytes of those that have come.
    pub bytes_in: u64,
    /// The bytes of those that have gone.
    pub bytes_out: u64,
    /// How it has spent its time.
    pub spent: Spent,
    /// What it spends it with now; after its end, what it did last.
    pub standing: Standing,
    /// By stage, in the order of the description.
    pub stages: Vec<StageMetrics>,
}

/// Of a stage of a subtask: an operator, or functions that run as one. Counts only rise.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StageMetrics {
    /// Rows that came in (a source: that were read).
    pub records_in: u64,
    /// Rows that went out (a sink: that were written), those that were diverted too.
    pub records_out: u64,
    /// Bytes that a source has read.
    pub bytes_read: u64,
    /// How far the event time is that has come, in milliseconds since the epoch.
    pub input_watermark: Option<i64>,
    /// And that has gone on.
    pub output_watermark: Option<i64>,
    /// Rows that came too late for their window, and were dropped.
    pub late_dropped: u64,
    /// Rows that failed and were skipped.
    pub skipped: u64,
    /// Rows that failed and were diverted.
    pub diverted: u64,
    /// Timers that have fired.
    pub timers_fired: u64,
    /// Timers that failed and were dropped.
    pub timers_skipped: u64,
    /// Guest calls that trapped.
    pub traps: u64,
    /// Guest calls.
    pub calls: u64,
    /// CPU time of guest calls.
    pub guest: Duration,
    /// Of it, what the host did with the columns before and after.
    pub boundary: Duration,
    /// Bytes of the guest instance's memory; it may fall.
    pub guest_memory: u64,
    /// Keys whose state is in memory; it may fall.
    pub state_keys: u64,
    /// Their timers that are still to fire.
    pub state_timers: u64,
    /// Bytes that they take, about; 0 of running aggregates of the engine's own without checkpoints.
    pub state_bytes: u64,
    /// How often a lookup's table has been read.
    pub tables_read: u64,
    /// How often it could not be read again.
    pub tables_failed: u64,
    /// How long latency markers have taken from the vertices of sources, by their places; empty where none are given.
    pub latencies: BTreeMap<u32, Latency>,
}

impl JobMetrics {
    /// When the last of its subtasks ended, in milliseconds since the epoch; none = one has not.
    #[must_use]
    pub fn ended_ms(&self) -> Option<i64> {
        let subtasks = self.vertices.iter().flat_map(|vertex| &vertex.subtasks);
        subtasks
            .map(|subtask| subtask.ended_ms)
            .try_fold(self.started_ms, |last, ended| Some(last.max(ended?)))
    }

    /// How long the job has been up or down. Who knows one attempt only knows of no failure before it.
    #[must_use]
    pub fn availability(&self) -> Availability {
        let is_over = self.ended_ms().is_some();
        let of_attempt = || match is_over {
            true => Availability { up: -1, down: -1, restarting: 0 },
            false => Availability { up: self.uptime_ms(), down: 0, restarting: 0 },
        };
        self.availability.unwrap_or_else(of_attempt)
    }

    /// How long this attempt has run, or ran, in milliseconds.
    #[must_use]
    pub fn uptime_ms(&self) -> i64 {
        self.ended_ms().unwrap_or(self.now_ms).saturating_sub(self.started_ms)
    }
}

impl VertexMetrics {
    /// What has become of all of it, as Flink says it: failed, or ending, if one subtask is; finished when all are.
    #[must_use]
    pub fn state(&self) -> ExecutionState {
        let states = || self.subtasks.iter().map(|subtask| subtask.state);
        let any = |state| states().any(|of| of == state);
        let all = |state| states().all(|of| of == state);
        if any(ExecutionState::Failed) {
            ExecutionState::Failed
        } else if any(ExecutionState::Canceling) {
            ExecutionState::Canceling
        } else if any(ExecutionState::Canceled) {
            ExecutionState::Canceled
        } else if all(ExecutionState::Finished) {
            ExecutionState::Finished
        } else if all(ExecutionState::Created) {
            ExecutionState::Created
        } else {
            ExecutionState::Running
        }
    }

    /// The sum of a count over the subtasks.
    #[must_use]
    pub fn sum(&self, of: impl Fn(&SubtaskMetrics) -> u64) -> u64 {
        self.subtasks.iter().map(of).sum()
    }
}

impl SubtaskMetrics {
    pub(crate) fn of(subtask: u32, is_source: bool, watch: &TaskWatch) -> Self {
        let life = watch.life();
        let [received, sent] = watch.all_moved();
        Self {
            subtask,
            state: life.state,
            started_ms: life.started_ms,
            ended_ms: life.ended_ms,
            is_source,
            records_in: received.rows,
            records_out: sent.rows,
            bytes_in: received.bytes,
            bytes_out: sent.bytes,
            spent: life.spent,
            standing: life.standing,
            stages: watch.stages.iter().map(|counters| StageMetrics::of(counters)).collect(),
        }
    }

    /// How far the event time is that has come to it; none = a source, or nothing has come.
    #[must_use]
    pub fn input_watermark(&self) -> Option<i64> {
        self.stages.first().and_then(|head| head.input_watermark)
    }
}

impl StageMetrics {
    fn of(counters: &Counters) -> Self {
        let [state_keys, state_timers, state_bytes] = counters.held();
        Self {
            records_in: read(&counters.rows_in),
            records_out: read(&counters.rows_out) + read(&counters.rows_diverted),
            bytes_read: read(&counters.bytes_read),
            input_watermark: counters.input_watermark(),
            output_watermark: counters.watermark(),
            late_dropped: read(&counters.rows_late),
            skipped: read(&counters.rows_skipped),
            diverted: read(&counters.rows_diverted),
            timers_fired: read(&counters.timers_fired),
            timers_skipped: read(&counters.timers_skipped),
            traps: read(&counters.traps),
            calls: read(&counters.calls),
            guest: Duration::from_nanos(read(&counters.guest_nanoseconds)),
            boundary: Duration::from_nanos(read(&counters.boundary_nanoseconds)),
            guest_memory: counters.guest_memory(),
            state_keys,
            state_timers,
            state_bytes,
            tables_read: read(&counters.tables_read),
            tables_failed: read(&counters.tables_failed),
            latencies: counters.latencies(),
        }
    }
}
