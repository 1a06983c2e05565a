//! How a job is to run.

use std::time::Duration;

use crate::{CheckpointTracker, Checkpoints, StateBackend};

/// Whether results come as they change, or once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Execution {
    /// Every change is a row.
    #[default]
    Streaming,
    /// Final results only, at the end of the (bounded) input.
    Batch,
}

/// Whether windows aggregate their rows before they go to the subtask of their key, too.
/// Flink: `table.optimizer.agg-phase-strategy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum AggPhase {
    /// Where all rows go to one subtask from several, while it makes them fewer.
    #[default]
    Auto,
    /// Never.
    OnePhase,
    /// Wherever that gives the same.
    TwoPhase,
}

/// What the command line and the configuration ask for.
#[derive(Clone)]
pub struct RunOptions {
    /// Of operators that do not set their own; at least 1.
    pub parallelism: u32,
    /// Number of key groups; none = by Flink's formula from the parallelism.
    pub max_parallelism: Option<u32>,
    /// Changes, or final results.
    pub execution: Execution,
    /// Streaming aggregates give one update for each key of a batch instead of one for each row.
    pub fold_updates: bool,
    /// In how many phases windows aggregate.
    pub agg_phase: AggPhase,
    /// Gives every guest call a fresh instance. No result may change.
    pub chaos_instances: bool,
    /// What the plan may ask of the outside beyond what the job's arguments name.
    pub allow: Vec<String>,
    /// Seed of hash tables; none = unpredictable.
    pub seed: Option<u64>,
    /// Sizes of calls, batches, queues and steps.
    pub sizes: Sizes,
    /// Where keyed state lies. In batch execution it lies in memory.
    pub state_backend: StateBackend,
    /// That checkpoints are made; none = a failure loses all.
    pub checkpoints: Option<Checkpoints>,
    /// Where they are counted, over all attempts.
    pub checkpoint_tracker: CheckpointTracker,
    /// How often sources give markers that measure how long rows take; none = never.
    /// Flink: `metrics.latency.interval`.
    pub latency_interval: Option<Duration>,
    /// 0 at first, one more with each restart of the job, which takes over what the one before has left.
    pub attempt: u32,
}

impl RunOptions {
    /// Those to plan another version with, to which a running job of these is to change: what the job has gone on from
    /// is behind it.
    #[must_use]
    pub fn of_next_version(&self) -> Self {
        let mut options = self.clone();
        if let Some(restored) =
            options.checkpoints.as_mut().and_then(|checkpoints| checkpoints.restored.take())
        {
            let kept = restored.manifest().operators.values().next();
            options.max_parallelism =
                kept.map(|operator| operator.max_parallelism).or(options.max_parallelism);
        }
        options
    }

    /// Whether running aggregates lie in a backend, which can give snapshots bit by bit and of what has changed.
    /// Without it they are quicker, and copied whole.
    #[must_use]
    pub fn keeps_aggregates_in_a_backend(&self) -> bool {
        self.keeps_state_on_disk() || (self.execution == Execution::Streaming && self.checkpoints.is_some())
    }

    /// Whether keyed state may lie on disk. What is read to its end once has no use for it, as in Flink.
    #[must_use]
    pub fn keeps_state_on_disk(&self) -> bool {
        self.execution == Execution::Streaming && self.state_backend != StateBackend::HashMap
    }
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            parallelism: 1,
            max_parallelism: None,
            execution: Execution::Streaming,
            fold_updates: false,
            agg_phase: AggPhase::Auto,
            chaos_instances: false,
            allow: Vec::new(),
            seed: None,
            sizes: Sizes::default(),
            state_backend: StateBackend::HashMap,
            checkpoints: None,
            checkpoint_tracker: CheckpointTracker::default(),
            latency_interval: None,
            attempt: 0,
        }
    }
}

/// How much is done at once. Simulation draws these small.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Rows of a source's batch, at most.
    pub batch_rows: usize,
    /// Bytes of a source's batch, about.
    pub batch_bytes: usize,
    /// Rows of a guest call, at most; its measured time bounds it further.
    pub call_rows: usize,
    /// Rows that a native operator takes at once, about.
    pub native_rows: usize,
    /// Rows that may wait at a gate; none = what the subtask eats in 2 ms, measured.
    pub queue_rows: Option<usize>,
    /// Bytes that all subtasks together may have in flight over exchanges.
    pub flight_bytes: usize,
    /// How long a step goes on.
    pub step_time: Duration,
    /// How many operator runs a step makes at most.
    pub step_runs: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            batch_rows: 1_024,
            batch_bytes: 64 * 1024,
            call_rows: 1_024,
            native_rows: 8 * 1_024,
            queue_rows: None,
            flight_bytes: 64 << 20,
            step_time: Duration::from_millis(1),
            step_runs: usize::MAX,
        }
    }
}
