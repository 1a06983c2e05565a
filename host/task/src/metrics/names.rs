//! What the figures of a job are called: Flink's names where Flink has the thing, ours in the same manner where it has
//! not. Each stands in one table here, with its unit and its meaning; lists, Prometheus and the page of the
//! documentation are made of them.

use std::fmt;

use super::rates::Rates;
use super::{JobDescription, JobMetrics, StageKind, StageMetrics, Standing, SubtaskMetrics};

/// Of what a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// The job.
    Job,
    /// A subtask of a vertex, by their places.
    Task {
        /// The vertex.
        vertex: usize,
        /// Its subtask.
        subtask: u32,
    },
    /// A stage of a subtask.
    Operator {
        /// The vertex.
        vertex: usize,
        /// Its subtask.
        subtask: u32,
        /// The stage.
        stage: usize,
    },
}

/// A metric and its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// Of what it is.
    pub scope: Scope,
    /// What it is.
    pub about: &'static About,
    /// How much it is.
    pub value: Value,
}

impl Metric {
    /// Its name among all of its vertex, or of the job, as Flink's REST interface has it: `0.Source__files.numRecordsIn`.
    #[must_use]
    pub fn id(&self, description: &JobDescription) -> String {
        let name = self.about.name;
        match self.scope {
            Scope::Job => name.to_owned(),
            Scope::Task { subtask, .. } => format!("{subtask}.{name}"),
            Scope::Operator { vertex, subtask, stage } => {
                let stage = description.vertices.get(vertex).and_then(|vertex| vertex.stages.get(stage));
                format!("{subtask}.{}.{name}", stage.map(|stage| id_part(&stage.name)).unwrap_or_default())
            }
        }
    }
}

/// A name as part of such an id.
fn id_part(name: &str) -> String {
    name.replace([' ', '.', ':', ','], "_")
}

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About {
    /// `numRecordsIn`.
    pub name: &'static str,
    /// How it moves.
    pub sort: Sort,
    /// What it is counted in; empty = pieces.
    pub unit: &'static str,
    /// What it says.
    pub meaning: &'static str,
    /// Flink has it under this name.
    pub is_flinks: bool,
}

/// How a metric moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// It only rises, until the job is started again.
    Counter,
    /// It is what it is now.
    Gauge,
    /// How much a counter has risen in a second, over the last minute.
    Rate,
}

/// A metric's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// How many.
    Count(u64),
    /// A number that may be below 0.
    Integer(i64),
    /// A number that need not be whole.
    Real(f64),
    /// Whether it is so.
    Flag(bool),
}

impl fmt::Display for Value {
    /// As Flink's REST interface shows it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Integer(number) => write!(f, "{number}"),
            // `0.0`, as Java does.
            Self::Real(number) => write!(f, "{number:?}"),
            Self::Flag(flag) => write!(f, "{flag}"),
        }
    }
}

impl Value {
    /// As a number: 1 = it is so.
    #[must_use]
    pub fn number(self) -> f64 {
        match self {
            Self::Count(count) => count as f64,
            Self::Integer(number) => number as f64,
            Self::Real(number) => number,
            Self::Flag(flag) => f64::from(u8::from(flag)),
        }
    }
}

/// A metric of the job.
pub struct OfJob(pub About, pub(crate) fn(&JobMetrics) -> Value);
/// A metric of subtasks; none = this one has it not.
pub struct OfTask(pub About, pub(crate) fn(&SubtaskMetrics) -> Option<Value>);
/// A metric of stages of these kinds.
pub struct OfOperator(pub About, pub(crate) &'static [StageKind], pub(crate) fn(&StageMetrics) -> Value);
/// A rate of subtasks: of what it is one.
pub struct TaskRate(pub About, pub(crate) fn(&SubtaskMetrics) -> f64);
/// A rate of stages.
pub struct OperatorRate(pub About, pub(crate) fn(&StageMetrics) -> f64);

const fn flinks(name: &'static str, sort: Sort, unit: &'static str, meaning: &'static str) -> About {
    About { name, sort, unit, meaning, is_flinks: true }
}

const fn ours(name: &'static str, sort: Sort, unit: &'static str, meaning: &'static str) -> About {
    About { name, sort, unit, meaning, is_flinks: false }
}

use Sort::{Counter, Gauge, Rate};
use StageKind::{Function, Native, Sink, Source};

/// Any stage.
const ANY: &[StageKind] = &[Source, Sink, Function, Native];
/// Stages that rows come to from others.
const INNER: &[StageKind] = &[Sink, Function, Native];
/// Stages that may have windows.
const WINDOWS: &[StageKind] = &[Function, Native];
/// Stages that run in a guest.
const GUEST: &[StageKind] = &[Function];

/// What Flink says where there is no watermark yet.
const NO_WATERMARK: i64 = i64::MIN;
/// And where there is no such checkpoint.
const NO_CHECKPOINT: i64 = -1;

fn ms(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn nanos(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn of_last_checkpoint(metrics: &JobMetrics, of: fn(&checkpoint::statistics::Report) -> i64) -> Value {
    Value::Integer(metrics.checkpoints.latest.completed.as_ref().map_or(NO_CHECKPOINT, of))
}

/// Those of the job.
pub const JOB: &[OfJob] = &[
    OfJob(flinks("numRestarts", Counter, "", "How often the job has been started again."), |job| {
        Value::Count(u64::from(job.restarts))
    }),
    OfJob(
        flinks(
            "uptime",
            Gauge,
            "ms",
            "How long the job has run without interruption; 0 = it does not run now, -1 = it has ended.",
        ),
        |job| Value::Integer(job.availability().up),
    ),
    OfJob(
        flinks(
            "downtime",
            Gauge,
            "ms",
            "How long the job has been down since it failed; 0 = it is not, -1 = it has ended.",
        ),
        |job| Value::Integer(job.availability().down),
    ),
    OfJob(flinks("runningTime", Gauge, "ms", "As `uptime`; 0 = the job does not run."), |job| {
        Value::Integer(job.availability().up.max(0))
    }),
    OfJob(
        flinks(
            "restartingTime",
            Gauge,
            "ms",
            "How long the last restart took, from the failure until the job ran again, or how long the one under way has taken; 0 = there was none.",
        ),
        |job| Value::Integer(job.availability().restarting),
    ),
    OfJob(
        flinks("totalNumberOfCheckpoints", Counter, "", "Checkpoints that were begun, savepoints too."),
        |job| Value::Count(job.checkpoints.counts.total),
    ),
    OfJob(flinks("numberOfInProgressCheckpoints", Gauge, "", "Checkpoints under way."), |job| {
        Value::Count(job.checkpoints.counts.in_progress)
    }),
    OfJob(flinks("numberOfCompletedCheckpoints", Counter, "", "Checkpoints that are complete."), |job| {
        Value::Count(job.checkpoints.counts.completed)
    }),
    OfJob(flinks("numberOfFailedCheckpoints", Counter, "", "Checkpoints that were given up."), |job| {
        Value::Count(job.checkpoints.counts.failed)
    }),
    OfJob(
        flinks("lastCompletedCheckpointId", Gauge, "", "The last complete checkpoint; -1 = none."),
        |job| of_last_checkpoint(job, |last| whole(last.id)),
    ),
    OfJob(flinks("lastCheckpointDuration", Gauge, "ms", "How long it took; -1 = there is none."), |job| {
        of_last_checkpoint(job, |last| whole(ms(last.end_to_end_duration)))
    }),
    OfJob(
        flinks("lastCheckpointSize", Gauge, "bytes", "What was written for it; -1 = there is none."),
        |job| of_last_checkpoint(job, |last| whole(last.checkpointed_size)),
    ),
    OfJob(
        flinks(
            "lastCheckpointFullSize",
            Gauge,
            "bytes",
            "The same with what it has of those before it; -1 = there is none.",
        ),
        |job| of_last_checkpoint(job, |last| whole(last.state_size)),
    ),
    OfJob(
        flinks(
            "lastCheckpointCompletedTimestamp",
            Gauge,
            "ms since 1970",
            "When it was complete; -1 = there is none.",
        ),
        |job| {
            of_last_checkpoint(job, |last| {
                last.trigger_timestamp.saturating_add(whole(ms(last.end_to_end_duration)))
            })
        },
    ),
    OfJob(
        flinks(
            "lastCheckpointRestoreTimestamp",
            Gauge,
            "ms since 1970",
            "When the job last went on from a checkpoint; -1 = never.",
        ),
        |job| {
            let restored = job.checkpoints.latest.restored;
            Value::Integer(restored.map_or(NO_CHECKPOINT, |restored| restored.restore_timestamp))
        },
    ),
];

/// Those of subtasks.
pub const TASK: &[OfTask] = &[
    OfTask(flinks("numRecordsIn", Counter, "", "Rows that have come from other subtasks."), |task| {
        Some(Value::Count(task.records_in))
    }),
    OfTask(
        flinks("numRecordsOut", Counter, "", "Rows that have gone to other subtasks, once for each of them."),
        |task| Some(Value::Count(task.records_out)),
    ),
    OfTask(
        flinks("numBytesIn", Counter, "bytes", "What the rows that have come took in memory, about."),
        |task| Some(Value::Count(task.bytes_in)),
    ),
    OfTask(flinks("numBytesOut", Counter, "bytes", "The same of those that have gone."), |task| {
        Some(Value::Count(task.bytes_out))
    }),
    OfTask(
        flinks(
            "accumulateBusyTimeMs",
            Counter,
            "ms",
            "Time that the subtask worked, waited for its turn to, or for what it had asked for (a sink for its \
             writing, a function for state from disk).",
        ),
        |task| Some(Value::Count(ms(task.spent.busy))),
    ),
    OfTask(flinks("accumulateIdleTimeMs", Counter, "ms", "Time that it had nothing to do."), |task| {
        Some(Value::Count(ms(task.spent.idle)))
    }),
    OfTask(
        flinks(
            "accumulateBackPressuredTimeMs",
            Counter,
            "ms",
            "Time that it had something to do, but no room for what it would have given.",
        ),
        |task| Some(Value::Count(ms(task.spent.backpressured))),
    ),
    OfTask(flinks("isBackPressured", Gauge, "", "Whether it waits for room now: 1 = yes."), |task| {
        Some(Value::Flag(!task.state.is_final() && task.standing == Standing::BackPressured))
    }),
    OfTask(
        flinks(
            "currentInputWatermark",
            Gauge,
            "ms since 1970",
            "How far the event time is that has come; the least number there is = none yet. Sources have it not.",
        ),
        |task| match task.is_source {
            true => None,
            false => Some(Value::Integer(task.input_watermark().unwrap_or(NO_WATERMARK))),
        },
    ),
    OfTask(flinks("numFiredTimers", Counter, "", "Timers that have fired."), |task| {
        Some(Value::Count(fired(task)))
    }),
];

fn fired(task: &SubtaskMetrics) -> u64 {
    task.stages.iter().map(|stage| stage.timers_fired).sum()
}

/// Those of operators.
pub const OPERATOR: &[OfOperator] = &[
    OfOperator(
        flinks(
            "numRecordsIn",
            Counter,
            "",
            "Rows that have come (a source: that it has read, bad ones too).",
        ),
        ANY,
        |stage| Value::Count(stage.records_in),
    ),
    OfOperator(
        flinks(
            "numRecordsOut",
            Counter,
            "",
            "Rows that it has given, those that it diverted too (a sink: that it has written).",
        ),
        ANY,
        |stage| Value::Count(stage.records_out),
    ),
    OfOperator(flinks("numRecordsSend", Counter, "", "Rows that a sink has written."), &[Sink], |stage| {
        Value::Count(stage.records_out)
    }),
    OfOperator(flinks("numBytesIn", Counter, "bytes", "What a source has read."), &[Source], |stage| {
        Value::Count(stage.bytes_read)
    }),
    OfOperator(
        flinks("numRecordsInErrors", Counter, "", "Rows that a source could not decode."),
        &[Source],
        |stage| Value::Count(stage.skipped + stage.diverted),
    ),
    OfOperator(
        flinks(
            "currentInputWatermark",
            Gauge,
            "ms since 1970",
            "How far the event time is that has come; the least number there is = none yet.",
        ),
        INNER,
        |stage| Value::Integer(stage.input_watermark.unwrap_or(NO_WATERMARK)),
    ),
    OfOperator(
        flinks("currentOutputWatermark", Gauge, "ms since 1970", "The same of what has gone on."),
        ANY,
        |stage| Value::Integer(stage.output_watermark.unwrap_or(NO_WATERMARK)),
    ),
    OfOperator(
        flinks(
            "numLateRecordsDropped",
            Counter,
            "",
            "Rows that came too late for their window, and were dropped.",
        ),
        WINDOWS,
        |stage| Value::Count(stage.late_dropped),
    ),
    OfOperator(
        ours(
            "numRecordsSkipped",
            Counter,
            "",
            "Rows that failed and were skipped, by the operator's policy.",
        ),
        ANY,
        |stage| Value::Count(stage.skipped),
    ),
    OfOperator(
        ours("numRecordsDiverted", Counter, "", "Rows that failed and were diverted to its output for such."),
        ANY,
        |stage| Value::Count(stage.diverted),
    ),
    OfOperator(ours("numTimersFired", Counter, "", "Timers that have fired."), WINDOWS, |stage| {
        Value::Count(stage.timers_fired)
    }),
    OfOperator(
        ours("numTimersSkipped", Counter, "", "Timers that failed and were dropped."),
        GUEST,
        |stage| Value::Count(stage.timers_skipped),
    ),
    OfOperator(ours("numGuestCalls", Counter, "", "Calls into the component."), GUEST, |stage| {
        Value::Count(stage.calls)
    }),
    OfOperator(ours("numTraps", Counter, "", "Calls that trapped, and were made again."), GUEST, |stage| {
        Value::Count(stage.traps)
    }),
    OfOperator(
        ours(
            "guestTimeNanos",
            Counter,
            "ns",
            "Time of calls into the component that returned, with what goes over the boundary.",
        ),
        GUEST,
        |stage| Value::Count(nanos(stage.guest)),
    ),
    OfOperator(
        ours(
            "boundaryTimeNanos",
            Counter,
            "ns",
            "Of it, what the host did with the columns before and after: lending, checking, lifting. The copying into \
             the guest's memory and out of it counts as the guest's.",
        ),
        GUEST,
        |stage| Value::Count(nanos(stage.boundary)),
    ),
    OfOperator(
        ours(
            "guestMemoryBytes",
            Gauge,
            "bytes",
            "Linear memory of the component's instance, as the last call left it; 0 = there is no instance.",
        ),
        GUEST,
        |stage| Value::Count(stage.guest_memory),
    ),
    OfOperator(ours("stateKeys", Gauge, "", "Keys whose state is in memory."), WINDOWS, |stage| {
        Value::Count(stage.state_keys)
    }),
    OfOperator(ours("stateTimers", Gauge, "", "Their timers that are still to fire."), WINDOWS, |stage| {
        Value::Count(stage.state_timers)
    }),
    OfOperator(
        ours(
            "stateMemoryBytes",
            Gauge,
            "bytes",
            "What they take, about; running aggregates of the engine's own are in it only where the job makes checkpoints.",
        ),
        WINDOWS,
        |stage| Value::Count(stage.state_bytes),
    ),
    OfOperator(
        ours("numTableReads", Counter, "", "How often a lookup's table has been read."),
        &[Native],
        |stage| Value::Count(stage.tables_read),
    ),
    OfOperator(
        ours(
            "numTableReadFailures",
            Counter,
            "",
            "How often it could not be read again, and stayed as it was.",
        ),
        &[Native],
        |stage| Value::Count(stage.tables_failed),
    ),
];

/// Rates of subtasks.
pub const TASK_RATES: &[TaskRate] = &[
    TaskRate(flinks("numRecordsInPerSecond", Rate, "1/s", "`numRecordsIn` in a second."), |task| {
        task.records_in as f64
    }),
    TaskRate(flinks("numRecordsOutPerSecond", Rate, "1/s", "`numRecordsOut` in a second."), |task| {
        task.records_out as f64
    }),
    TaskRate(flinks("numBytesInPerSecond", Rate, "bytes/s", "`numBytesIn` in a second."), |task| {
        task.bytes_in as f64
    }),
    TaskRate(flinks("numBytesOutPerSecond", Rate, "bytes/s", "`numBytesOut` in a second."), |task| {
        task.bytes_out as f64
    }),
    TaskRate(
        flinks("busyTimeMsPerSecond", Rate, "ms/s", "`accumulateBusyTimeMs` in a second: 0 to 1,000."),
        |task| task.spent.busy.as_secs_f64() * 1e3,
    ),
    TaskRate(
        flinks("idleTimeMsPerSecond", Rate, "ms/s", "`accumulateIdleTimeMs` in a second: 0 to 1,000."),
        |task| task.spent.idle.as_secs_f64() * 1e3,
    ),
    TaskRate(
        flinks(
            "backPressuredTimeMsPerSecond",
            Rate,
            "ms/s",
            "`accumulateBackPressuredTimeMs` in a second: 0 to 1,000.",
        ),
        |task| task.spent.backpressured.as_secs_f64() * 1e3,
    ),
    TaskRate(flinks("numFiredTimersPerSecond", Rate, "1/s", "`numFiredTimers` in a second."), |task| {
        fired(task) as f64
    }),
];

/// Rates of operators.
pub const OPERATOR_RATES: &[OperatorRate] = &[
    OperatorRate(flinks("numRecordsInPerSecond", Rate, "1/s", "`numRecordsIn` in a second."), |stage| {
        stage.records_in as f64
    }),
    OperatorRate(flinks("numRecordsOutPerSecond", Rate, "1/s", "`numRecordsOut` in a second."), |stage| {
        stage.records_out as f64
    }),
];

/// All metrics of a job but the guests' own; with rates where they are known.
#[must_use]
pub fn list(description: &JobDescription, metrics: &JobMetrics, rates: Option<&Rates>) -> Vec<Metric> {
    let mut list: Vec<Metric> = JOB
        .iter()
        .map(|OfJob(about, value)| Metric { scope: Scope::Job, about, value: value(metrics) })
        .collect();
    for (vertex, (of, measured)) in description.vertices.iter().zip(&metrics.vertices).enumerate() {
        for task in &measured.subtasks {
            let subtask = task.subtask;
            let scope = Scope::Task { vertex, subtask };
            let rates = rates.and_then(|rates| rates.of(vertex, subtask));
            list.extend(
                TASK.iter()
                    .filter_map(|OfTask(about, value)| Some(Metric { scope, about, value: value(task)? })),
            );
            let of_task = rates.iter().flat_map(|rates| TASK_RATES.iter().zip(&rates.task));
            list.extend(of_task.map(|(TaskRate(about, _), rate)| Metric {
                scope,
                about,
                value: Value::Real(*rate),
            }));
            for (stage, (kind, counted)) in of.stages.iter().map(|s| s.kind).zip(&task.stages).enumerate() {
                let scope = Scope::Operator { vertex, subtask, stage };
                list.extend(
                    OPERATOR
                        .iter()
                        .filter(|OfOperator(_, kinds, _)| kinds.contains(&kind))
                        .map(|OfOperator(about, _, value)| Metric { scope, about, value: value(counted) }),
                );
                let of_stage = rates.and_then(|rates| rates.stages.get(stage));
                let of_stage = of_stage.into_iter().flat_map(|rates| OPERATOR_RATES.iter().zip(rates));
                list.extend(of_stage.map(|(OperatorRate(about, _), rate)| Metric {
                    scope,
                    about,
                    value: Value::Real(*rate),
                }));
            }
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::tests::{described, job};

    #[test]
    fn ids_are_flinks() {
        let description = described();
        let list = list(&description, &job(), None);
        let ids: Vec<String> = list.iter().map(|metric| metric.id(&description)).collect();
        for id in ["numRestarts", "0.numRecordsOut", "0.Source__a.numRecordsOut", "0.Sink__b.numRecordsSend"]
        {
            assert!(ids.iter().any(|other| other == id), "{id} is not in {ids:?}");
        }
        assert_eq!(id_part("Source: gen -> Map"), "Source__gen_->_Map");
    }

    #[test]
    fn values_are_written_as_flink_does() {
        let values =
            [Value::Count(3), Value::Integer(-1), Value::Real(94.65), Value::Real(0.0), Value::Flag(false)];
        assert_eq!(values.map(|value| value.to_string()), ["3", "-1", "94.65", "0.0", "false"]);
        let list = list(&described(), &job(), None);
        let watermark = list.iter().find(|metric| metric.about.name == "currentInputWatermark").unwrap();
        assert_eq!(watermark.value.to_string(), "-9223372036854775808");
    }
}
