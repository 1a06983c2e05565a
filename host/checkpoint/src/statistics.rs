//! What is known of a job's checkpoints: how many there were, how long they took and of what, how large they are, and
//! why some failed. It counts over all attempts of the job, and keeps the last few.
//!
//! As JSON it has the names of Flink's REST interface (`/jobs/:id/checkpoints`), with times in milliseconds; what
//! Flink has not (the longest alignment of a checkpoint) is named likewise.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::coordinator::{CheckpointId, Kind, Stop};
use crate::manifest::Manifest;

#[cfg(test)]
mod tests;

/// How many are kept, if nobody says. Flink: `web.checkpoints.history`.
pub const HISTORY: usize = 10;
/// Quantiles are those of so many, the last.
const SAMPLES: usize = 1_000;

/// All that is known.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Statistics {
    /// How many there were.
    pub counts: Counts,
    /// Of those that are complete: how long they took, and how large they are.
    pub summary: Summary,
    /// The last of each kind.
    pub latest: Latest,
    /// The last few, the newest first.
    pub history: Vec<Report>,
}

/// How many checkpoints there were, savepoints among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// How often the job has gone on from one.
    pub restored: u64,
    /// All that were begun.
    pub total: u64,
    /// Under way.
    pub in_progress: u64,
    /// Complete.
    pub completed: u64,
    /// Given up.
    pub failed: u64,
}

/// What complete checkpoints took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Bytes that were written for one.
    pub checkpointed_size: Spread<u64>,
    /// Bytes that one names: with what it has of those before it.
    pub state_size: Spread<u64>,
    /// From its beginning until it was complete.
    #[serde(serialize_with = "spread_ms")]
    pub end_to_end_duration: Spread<Duration>,
    /// Its longest alignment.
    #[serde(serialize_with = "spread_ms")]
    pub alignment_duration: Spread<Duration>,
    /// Bytes of rows that came while it was aligned.
    pub processed_data: Spread<u64>,
}

/// How values are spread. The quantiles are those of the last 1,000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Spread<T> {
    /// The least.
    pub min: T,
    /// The greatest.
    pub max: T,
    /// The mean.
    pub avg: T,
    /// The median.
    pub p50: T,
    /// 90 % are not above it.
    pub p90: T,
    /// 95 % are not above it.
    pub p95: T,
    /// 99 % are not above it.
    pub p99: T,
    /// 99.9 % are not above it.
    pub p999: T,
}

/// The last of each kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Latest {
    /// That is complete, savepoints apart.
    pub completed: Option<Report>,
    /// Savepoint that is complete.
    pub savepoint: Option<Report>,
    /// That failed.
    pub failed: Option<Report>,
    /// From which the job has gone on.
    pub restored: Option<Restoration>,
}

/// That a job has gone on from a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Restoration {
    /// Its number.
    pub id: CheckpointId,
    /// When, in milliseconds since the epoch.
    pub restore_timestamp: i64,
    /// It is a savepoint.
    pub is_savepoint: bool,
}

/// How far a checkpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    /// Under way.
    InProgress,
    /// Complete.
    Completed,
    /// Given up.
    Failed,
}

/// What a checkpoint is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CheckpointType {
    /// To go on from after a failure.
    Checkpoint,
    /// Asked for by somebody.
    Savepoint,
    /// The job stops with it.
    SyncSavepoint,
}

/// A checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Its number.
    pub id: CheckpointId,
    /// How far it is.
    pub status: Status,
    /// What it is for.
    pub checkpoint_type: CheckpointType,
    /// It is a savepoint.
    pub is_savepoint: bool,
    /// When it began, in milliseconds since the epoch.
    pub trigger_timestamp: i64,
    /// When the last subtask that has answered did.
    pub latest_ack_timestamp: Option<i64>,
    /// Until it was complete or given up, or, under way, until the last answer.
    #[serde(serialize_with = "ms")]
    pub end_to_end_duration: Duration,
    /// Bytes that were written for it.
    pub checkpointed_size: u64,
    /// Bytes that it names.
    pub state_size: u64,
    /// Bytes of rows that came to its subtasks while they aligned.
    pub processed_data: u64,
    /// The longest of its operators, each.
    #[serde(flatten)]
    pub longest: Took,
    /// How many subtasks have a part in it.
    pub num_subtasks: usize,
    /// How many of them have answered.
    pub num_acknowledged_subtasks: usize,
    /// When it was given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_timestamp: Option<i64>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_message: Option<String>,
    /// It has been removed, newer ones being kept in its place.
    pub discarded: bool,
    /// Of a savepoint that is complete: where it is, as users write it.
    #[serde(skip)]
    pub location: Option<String>,
    /// Of a savepoint: it is as checkpoints are.
    #[serde(skip)]
    pub is_native: bool,
    /// Its operators, by uid, as far as they have answered.
    pub tasks: BTreeMap<String, Task>,
}

/// An operator's part of a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Task {
    /// The operator's name.
    pub name: String,
    /// How many of its subtasks have answered.
    pub num_acknowledged_subtasks: usize,
    /// When the last of them did, in milliseconds since the epoch.
    pub latest_ack_timestamp: i64,
    /// From the checkpoint's beginning until then.
    #[serde(serialize_with = "ms")]
    pub end_to_end_duration: Duration,
    /// Bytes that were written for it.
    pub checkpointed_size: u64,
    /// Bytes that are named of it.
    pub state_size: u64,
    /// The longest of its subtasks, each.
    #[serde(flatten)]
    pub longest: Took,
    /// Its subtasks, as far as they have answered.
    #[serde(skip)]
    pub subtasks: BTreeMap<u32, SubtaskPart>,
}

/// What a subtask of an operator has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubtaskPart {
    /// When, in milliseconds since the epoch.
    pub ack_timestamp: i64,
    /// From the checkpoint's beginning until then.
    pub end_to_end_duration: Duration,
    /// Bytes that were written for it.
    pub checkpointed_size: u64,
    /// Bytes that are named of it.
    pub state_size: u64,
    /// How long it took.
    pub took: Took,
}

/// How long a subtask of an operator took with its part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Took {
    /// From the first channel that brought the barrier to the last.
    #[serde(rename = "alignment_duration", serialize_with = "ms")]
    pub alignment: Duration,
    /// To seal its state; rows waited.
    #[serde(rename = "sync_duration", serialize_with = "ms")]
    pub sync: Duration,
    /// Then, to write it, while rows went on.
    #[serde(rename = "async_duration", serialize_with = "ms")]
    pub rest: Duration,
    /// Bytes of rows that came between the first channel's barrier and the last's: of a subtask, and so the same for
    /// all operators in it.
    #[serde(skip)]
    pub processed: u64,
}

/// An operator's subtask has answered.
#[derive(Clone, Debug)]
pub struct Answer<'a> {
    /// The operator's uid.
    pub uid: &'a str,
    /// Its name.
    pub name: &'a str,
    /// The subtask's number within the operator.
    pub subtask: u32,
    /// Bytes of its part.
    pub bytes: u64,
    /// How long it took.
    pub took: Took,
}

/// An instant, on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// In milliseconds since the epoch.
    pub wall_ms: i64,
    /// On the clock that goes evenly.
    pub now: Duration,
}

fn ms<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

fn spread_ms<S: Serializer>(spread: &Spread<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    spread.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)).serialize(serializer)
}

impl Spread<u64> {
    /// Of these values.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = u64>) -> Self {
        let mut samples = Samples::default();
        values.into_iter().for_each(|value| samples.add(value));
        samples.spread()
    }
}

impl<T: Copy> Spread<T> {
    fn map<U>(&self, of: impl Fn(T) -> U) -> Spread<U> {
        Spread {
            min: of(self.min),
            max: of(self.max),
            avg: of(self.avg),
            p50: of(self.p50),
            p90: of(self.p90),
            p95: of(self.p95),
            p99: of(self.p99),
            p999: of(self.p999),
        }
    }
}

impl Took {
    fn longest(&mut self, other: Self) {
        *self = self.longer(other);
    }

    /// Of the two the longer, each.
    #[must_use]
    pub fn longer(self, other: Self) -> Self {
        Self {
            alignment: self.alignment.max(other.alignment),
            sync: self.sync.max(other.sync),
            rest: self.rest.max(other.rest),
            processed: self.processed.max(other.processed),
        }
    }
}

/// Values that are to be told as a [`Spread`].
#[derive(Clone, Debug, Default)]
struct Samples {
    count: u64,
    sum: u128,
    min: u64,
    max: u64,
    last: VecDeque<u64>,
}

impl Samples {
    fn add(&mut self, value: u64) {
        self.min = if self.count == 0 { value } else { self.min.min(value) };
        self.max = self.max.max(value);
        self.count += 1;
        self.sum += u128::from(value);
        self.last.push_back(value);
        if self.last.len() > SAMPLES {
            self.last.pop_front();
        }
    }

    fn spread(&self) -> Spread<u64> {
        let mut sorted: Vec<u64> = self.last.iter().copied().collect();
        sorted.sort_unstable();
        // The least value that so many of a thousand are not above.
        let quantile = |of_thousand: usize| {
            let rank = (sorted.len() * of_thousand).div_ceil(1_000);
            sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
        };
        let avg = u64::try_from(self.sum / u128::from(self.count.max(1))).unwrap_or(u64::MAX);
        Spread {
            min: self.min,
            max: self.max,
            avg,
            p50: quantile(500),
            p90: quantile(900),
            p95: quantile(950),
            p99: quantile(990),
            p999: quantile(999),
        }
    }
}

/// Takes note of a job's checkpoints, over all its attempts.
#[derive(Debug)]
pub struct Tracker {
    history_max: usize,
    counts: Counts,
    /// The one under way, and when it began.
    under_way: Option<(Report, Duration)>,
    /// Others, the newest first.
    history: VecDeque<Report>,
    latest: Latest,
    checkpointed_sizes: Samples,
    state_sizes: Samples,
    /// In microseconds, as are alignments.
    durations: Samples,
    alignments: Samples,
    processed: Samples,
}

impl Default for Tracker {
    fn default() -> Self {
        Self::new(HISTORY)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Tracker {
    /// Keeps the last so many.
    #[must_use]
    pub fn new(history: usize) -> Self {
        Self {
            history_max: history,
            counts: Counts::default(),
            under_way: None,
            history: VecDeque::new(),
            latest: Latest::default(),
            checkpointed_sizes: Samples::default(),
            state_sizes: Samples::default(),
            durations: Samples::default(),
            alignments: Samples::default(),
            processed: Samples::default(),
        }
    }

    /// The job goes on from this one.
    pub fn restored(&mut self, manifest: &Manifest, at: Moment) {
        self.counts.restored += 1;
        self.latest.restored = Some(Restoration {
            id: manifest.checkpoint,
            restore_timestamp: at.wall_ms,
            is_savepoint: manifest.is_savepoint,
        });
    }

    /// One begins, of so many subtasks. One that is under way is given up.
    pub fn triggered(&mut self, id: CheckpointId, kind: Kind, subtasks: usize, at: Moment) {
        self.ended("another has begun", at);
        self.counts.total += 1;
        let checkpoint_type = match kind {
            Kind::Checkpoint | Kind::Full | Kind::Swap | Kind::Final => CheckpointType::Checkpoint,
            Kind::Savepoint { stop: None } => CheckpointType::Savepoint,
            Kind::Savepoint { stop: Some(Stop::Suspend | Stop::Drain) } => CheckpointType::SyncSavepoint,
        };
        let report = Report {
            id,
            status: Status::InProgress,
            checkpoint_type,
            is_savepoint: checkpoint_type != CheckpointType::Checkpoint,
            trigger_timestamp: at.wall_ms,
            latest_ack_timestamp: None,
            end_to_end_duration: Duration::ZERO,
            checkpointed_size: 0,
            state_size: 0,
            processed_data: 0,
            longest: Took::default(),
            num_subtasks: subtasks,
            num_acknowledged_subtasks: 0,
            failure_timestamp: None,
            failure_message: None,
            discarded: false,
            location: None,
            is_native: false,
            tasks: BTreeMap::new(),
        };
        self.under_way = Some((report, at.now));
    }

    /// The one under way, if it is this.
    fn current(&mut self, id: CheckpointId) -> Option<&mut (Report, Duration)> {
        self.under_way.as_mut().filter(|(report, _)| report.id == id)
    }

    /// A subtask has answered, for each of its operators.
    pub fn acknowledged<'a>(
        &mut self,
        id: CheckpointId,
        answers: impl IntoIterator<Item = Answer<'a>>,
        at: Moment,
    ) {
        let Some((report, began)) = self.current(id) else { return };
        let took = at.now.saturating_sub(*began);
        report.num_acknowledged_subtasks += 1;
        report.latest_ack_timestamp = Some(at.wall_ms);
        report.end_to_end_duration = took;
        let mut processed = 0;
        for Answer { uid, name, subtask, bytes, took: of_part } in answers {
            report.checkpointed_size += bytes;
            report.state_size += bytes;
            report.longest.longest(of_part);
            processed = of_part.processed.max(processed);
            let task = report.tasks.entry(uid.to_owned()).or_insert_with(|| Task {
                name: name.to_owned(),
                num_acknowledged_subtasks: 0,
                latest_ack_timestamp: at.wall_ms,
                end_to_end_duration: took,
                checkpointed_size: 0,
                state_size: 0,
                longest: Took::default(),
                subtasks: BTreeMap::new(),
            });
            let part = SubtaskPart {
                ack_timestamp: at.wall_ms,
                end_to_end_duration: took,
                checkpointed_size: bytes,
                state_size: bytes,
                took: of_part,
            };
            task.subtasks.insert(subtask, part);
            task.num_acknowledged_subtasks += 1;
            task.latest_ack_timestamp = at.wall_ms;
            task.end_to_end_duration = took;
            task.checkpointed_size += bytes;
            task.state_size += bytes;
            task.longest.longest(of_part);
        }
        report.processed_data += processed;
    }

    /// This is written of it: it names also what was written for others.
    pub fn sized(&mut self, manifest: &Manifest) {
        let Some((report, _)) = self.current(manifest.checkpoint) else { return };
        (report.state_size, report.checkpointed_size) = (0, 0);
        for (uid, operator) in &manifest.operators {
            let (all, own) = (operator.bytes(), manifest.own_bytes(operator));
            report.state_size += all;
            report.checkpointed_size += own;
            if let Some(task) = report.tasks.get_mut(uid) {
                (task.state_size, task.checkpointed_size) = (all, own);
                for (subtask, part) in operator.subtasks.iter().zip(task.subtasks.values_mut()) {
                    (part.state_size, part.checkpointed_size) = manifest.bytes_of(subtask);
                }
            }
        }
    }

    /// The savepoint is at this place, in this form.
    pub fn placed(&mut self, id: CheckpointId, location: &str, is_native: bool) {
        if let Some((report, _)) = self.current(id) {
            (report.location, report.is_native) = (Some(location.to_owned()), is_native);
        }
    }

    /// It is complete.
    pub fn completed(&mut self, id: CheckpointId, at: Moment) {
        let Some((mut report, began)) = self.under_way.take_if(|(report, _)| report.id == id) else { return };
        report.status = Status::Completed;
        report.end_to_end_duration = at.now.saturating_sub(began);
        self.counts.completed += 1;
        self.durations.add(micros(report.end_to_end_duration));
        self.alignments.add(micros(report.longest.alignment));
        self.checkpointed_sizes.add(report.checkpointed_size);
        self.state_sizes.add(report.state_size);
        self.processed.add(report.processed_data);
        match report.is_savepoint {
            true => self.latest.savepoint = Some(report.clone()),
            false => self.latest.completed = Some(report.clone()),
        }
        self.keep(report);
    }

    /// It is given up. What is known of it.
    pub fn failed(&mut self, id: CheckpointId, reason: &str, at: Moment) -> Option<&Report> {
        let (mut report, began) = self.under_way.take_if(|(report, _)| report.id == id)?;
        report.status = Status::Failed;
        report.end_to_end_duration = at.now.saturating_sub(began);
        report.failure_timestamp = Some(at.wall_ms);
        report.failure_message = Some(reason.to_owned());
        self.counts.failed += 1;
        self.latest.failed = Some(report.clone());
        self.keep(report);
        self.latest.failed.as_ref()
    }

    /// None is under way any more.
    pub fn ended(&mut self, reason: &str, at: Moment) {
        if let Some(id) = self.under_way.as_ref().map(|(report, _)| report.id) {
            self.failed(id, reason, at);
        }
    }

    /// A complete one has been removed.
    pub fn removed(&mut self, id: CheckpointId) {
        let latest = [&mut self.latest.completed, &mut self.latest.savepoint].into_iter().flatten();
        let all = self.history.iter_mut().chain(latest);
        let complete = all.filter(|report| report.id == id && report.status == Status::Completed);
        complete.for_each(|report| report.discarded = true);
    }

    fn keep(&mut self, report: Report) {
        self.history.push_front(report);
        self.history.truncate(self.history_max);
    }

    /// All that is known now.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let counts = Counts { in_progress: u64::from(self.under_way.is_some()), ..self.counts };
        let under_way = self.under_way.iter().map(|(report, _)| report);
        let history = under_way.chain(&self.history).take(self.history_max).cloned().collect();
        let summary = Summary {
            checkpointed_size: self.checkpointed_sizes.spread(),
            state_size: self.state_sizes.spread(),
            end_to_end_duration: self.durations.spread().map(Duration::from_micros),
            alignment_duration: self.alignments.spread().map(Duration::from_micros),
            processed_data: self.processed.spread(),
        };
        Statistics { counts, summary, latest: self.latest.clone(), history }
    }
}
