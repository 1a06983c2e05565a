//! What is told of a job's checkpoints: to whoever counts them, and to the user of those that fail.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use checkpoint::coordinator::{CheckpointId, Kind, SubtaskId};
use checkpoint::statistics::{Answer, Moment};
use checkpoint::{Manifest, Tracker};
use platform::Clock;

use super::Part;
use super::checkpointer::About;
use crate::metrics::{LogRecord, LogSink};

/// Where a job's checkpoints are counted, over all its attempts.
pub type CheckpointTracker = Arc<Mutex<Tracker>>;

pub(crate) fn lock(tracker: &CheckpointTracker) -> MutexGuard<'_, Tracker> {
    tracker.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells of checkpoints.
pub(crate) struct Teller {
    tracker: CheckpointTracker,
    log: LogSink,
    clock: Clock,
    /// Why the last has failed, as the user was told, without the numbers of checkpoints and files in it; none = the
    /// last was complete.
    told: Option<String>,
}

impl Teller {
    pub(crate) fn new(tracker: &CheckpointTracker, log: &LogSink, clock: &Clock) -> Self {
        Self { tracker: Arc::clone(tracker), log: Arc::clone(log), clock: clock.clone(), told: None }
    }

    /// Where they are counted.
    pub(crate) fn tracker(&self) -> &CheckpointTracker {
        &self.tracker
    }

    fn now(&self) -> Moment {
        Moment { wall_ms: self.clock.wall_ms(), now: self.clock.now() }
    }

    pub(crate) fn restored(&self, manifest: &Manifest) {
        lock(&self.tracker).restored(manifest, self.now());
    }

    pub(crate) fn triggered(&self, checkpoint: CheckpointId, kind: Kind, subtasks: usize) {
        lock(&self.tracker).triggered(checkpoint, kind, subtasks, self.now());
    }

    /// A subtask has answered; `number` = its place among all.
    pub(crate) fn acknowledged(
        &self,
        checkpoint: CheckpointId,
        number: SubtaskId,
        part: &Part,
        about: &About,
    ) {
        let subtask = about.places.get(number as usize).copied().unwrap_or_default();
        let answers = part.iter().filter_map(|stage| {
            let (uid, name, ..) = about.operators.get(&stage.node)?;
            let bytes = stage.sections.iter().map(|(_, content)| content.bytes() as u64).sum();
            Some(Answer { uid, name, subtask, bytes, took: stage.took })
        });
        lock(&self.tracker).acknowledged(checkpoint, answers, self.now());
    }

    pub(crate) fn completed(&mut self, checkpoint: CheckpointId) {
        lock(&self.tracker).completed(checkpoint, self.now());
        self.told = None;
    }

    /// One is given up. The user hears of the first of those that fail for one reason; who has asked for a savepoint
    /// is answered by others.
    pub(crate) fn failed(&mut self, checkpoint: CheckpointId, reason: &str) {
        let now = self.now();
        let is_savepoint =
            lock(&self.tracker).failed(checkpoint, reason, now).is_some_and(|report| report.is_savepoint);
        let why: String = reason.chars().filter(|char| !char.is_ascii_digit()).collect();
        if is_savepoint || self.told.as_ref() == Some(&why) {
            return;
        }
        self.told = Some(why);
        (self.log)(LogRecord {
            level: guest::LogLevel::Warn,
            function: "checkpoints".to_owned(),
            subtask: None,
            message: format!("checkpoint {checkpoint} has failed: {reason}"),
        });
    }

    pub(crate) fn removed(&self, checkpoint: CheckpointId) {
        lock(&self.tracker).removed(checkpoint);
    }

    /// None is under way any more.
    pub(crate) fn ended(&self, reason: &str) {
        lock(&self.tracker).ended(reason, self.now());
    }
}
