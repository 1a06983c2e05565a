//! How a subtask spends its time, and how far it is.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use exchange::Moved;
use platform::Clock;

use super::Counters;

/// Flink's states of a subtask that there are in one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExecutionState {
    /// It has not begun.
    Created,
    /// It runs.
    Running,
    /// It ends because it was told to.
    Canceling,
    /// It has handled all its input.
    Finished,
    /// It was ended before that.
    Canceled,
    /// It could not go on.
    Failed,
}

impl ExecutionState {
    /// Flink's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "CREATED",
            Self::Running => "RUNNING",
            Self::Canceling => "CANCELING",
            Self::Finished => "FINISHED",
            Self::Canceled => "CANCELED",
            Self::Failed => "FAILED",
        }
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Finished | Self::Canceled | Self::Failed)
    }
}

/// What a subtask spends its time with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It works, waits for its turn to, or for what it has asked for to do that: a sink's writing, state from disk.
    Busy,
    /// It has nothing to do.
    Idle,
    /// It has something to do, but what it would give finds no room.
    BackPressured,
}

/// How a subtask has spent its time, from when it was made to its end or until now. The three make up all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Working, or waiting for its turn.
    pub busy: Duration,
    /// With nothing to do.
    pub idle: Duration,
    /// Waiting for room in what it feeds.
    pub backpressured: Duration,
}

/// What can be seen of a subtask from outside.
pub(crate) struct TaskWatch {
    clock: Clock,
    life: Mutex<Life>,
    received: (AtomicU64, AtomicU64),
    sent: (AtomicU64, AtomicU64),
    /// Those of its stages.
    pub(crate) stages: Vec<Arc<Counters>>,
}

/// What has become of a subtask, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Life {
    pub(crate) state: ExecutionState,
    /// In milliseconds since the epoch.
    pub(crate) started_ms: i64,
    pub(crate) ended_ms: Option<i64>,
    pub(crate) spent: Spent,
    pub(crate) standing: Standing,
    since: Duration,
}

impl Life {
    /// Adds the time since the last change to what it was spent with.
    fn turn(&mut self, now: Duration, standing: Standing) {
        let time = now.saturating_sub(self.since);
        *match self.standing {
            Standing::Busy => &mut self.spent.busy,
            Standing::Idle => &mut self.spent.idle,
            Standing::BackPressured => &mut self.spent.backpressured,
        } += time;
        self.since = now.max(self.since);
        self.standing = standing;
    }
}

impl TaskWatch {
    /// Of a subtask that has not begun.
    pub(crate) fn new(clock: Clock) -> Self {
        let life = Life {
            state: ExecutionState::Created,
            started_ms: clock.wall_ms(),
            ended_ms: None,
            spent: Spent::default(),
            // It waits for its turn.
            standing: Standing::Busy,
            since: clock.now(),
        };
        Self {
            clock,
            life: Mutex::new(life),
            received: Default::default(),
            sent: Default::default(),
            stages: Vec::new(),
        }
    }

    fn with(&self, change: impl FnOnce(&mut Life)) {
        change(&mut self.life.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// A step begins.
    pub(crate) fn begins(&self, now: Duration) {
        self.with(|life| {
            if life.state == ExecutionState::Created {
                life.state = ExecutionState::Running;
            }
            life.turn(now, Standing::Busy);
        });
    }

    /// A step has ended; until the next one the subtask stands so.
    pub(crate) fn stands(&self, now: Duration, standing: Standing) {
        self.with(|life| life.turn(now, standing));
    }

    /// The subtask ends, or is going to. The first end stays.
    pub(crate) fn ends(&self, how: ExecutionState) {
        let (now, wall_ms) = (self.clock.now(), self.clock.wall_ms());
        self.with(|life| {
            if life.state.is_final() {
                return;
            }
            life.turn(now, life.standing);
            life.state = how;
            life.ended_ms = how.is_final().then_some(wall_ms);
        });
    }

    /// Rows, and their bytes, that have come over exchanges, and that have gone.
    pub(crate) fn moved(&self, received: Moved, sent: Moved) {
        for ((rows, bytes), moved) in [(&self.received, received), (&self.sent, sent)] {
            rows.store(moved.rows, Ordering::Relaxed);
            bytes.store(moved.bytes, Ordering::Relaxed);
        }
    }

    /// What has come over exchanges, and what has gone.
    pub(crate) fn all_moved(&self) -> [Moved; 2] {
        [&self.received, &self.sent].map(|(rows, bytes)| Moved {
            rows: rows.load(Ordering::Relaxed),
            bytes: bytes.load(Ordering::Relaxed),
        })
    }

    /// What has become of it until now.
    pub(crate) fn life(&self) -> Life {
        let mut life = *self.life.lock().unwrap_or_else(PoisonError::into_inner);
        if !life.state.is_final() {
            life.turn(self.clock.now(), life.standing);
        }
        life
    }
}
