//! A job's checkpoints.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use checkpoint::statistics::{CheckpointType, Report, Spread, Status, SubtaskPart};
use cluster::JobMaster;
use cluster::checkpoints::Restore;
use serde::Serialize;
use serde_json::{Map, Value, json};
use task::Job;
use task::metrics::description::VertexDescription;

use crate::Served;
use crate::answer::{Answer, Failure};

fn value(of: &impl Serialize) -> Value {
    serde_json::to_value(of).unwrap_or_default()
}

/// A spread of what there is nothing of has no quantiles.
fn spread(of: &Spread<u64>, count: u64) -> Value {
    let mut spread = value(of);
    if count == 0 {
        ["p50", "p90", "p95", "p99", "p999"].iter().for_each(|name| spread[name] = json!("NaN"));
    }
    spread
}

fn ms(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Where a checkpoint of the job is.
fn place(master: &JobMaster, checkpoint: u64) -> Option<String> {
    let code = master.code();
    let root = code.config.get("execution.checkpointing.dir").0.trim_end_matches('/');
    let root = root.strip_prefix("file://").or(root.strip_prefix("file:")).unwrap_or(root);
    let scheme = if root.contains("://") { "" } else { "file:" };
    (!root.is_empty()).then(|| format!("{scheme}{root}/{}/chk-{checkpoint}", master.id()))
}

/// What aligned checkpoints have nothing of: rows that a barrier has passed, or that wait in a buffer for it.
fn unaligned(of: &mut Value) {
    for name in ["alignment_buffered", "persisted_data"] {
        of[name] = json!(0);
    }
}

fn shown(master: &JobMaster, report: &Report, tasks: Map<String, Value>) -> Value {
    let is_complete = report.status == Status::Completed;
    let mut shown = value(report);
    shown["className"] = json!(match report.status {
        Status::InProgress => "in_progress",
        Status::Completed => "completed",
        Status::Failed => "failed",
    });
    let form = if report.is_native { "NATIVE" } else { "CANONICAL" };
    shown["savepointFormat"] = json!(report.location.as_ref().map(|_| form));
    unaligned(&mut shown);
    shown["tasks"] = tasks.into();
    if is_complete {
        shown["external_path"] = json!(match report.checkpoint_type {
            CheckpointType::Checkpoint => place(master, report.id),
            CheckpointType::Savepoint | CheckpointType::SyncSavepoint => report.location.clone(),
        });
    }
    shown
}

/// A vertex' part of a checkpoint: each of its subtasks, with all its operators.
struct OfVertex {
    subtasks: Vec<Option<SubtaskPart>>,
}

impl OfVertex {
    fn of(vertex: &VertexDescription, report: &Report) -> Self {
        let part = |subtask: u32| {
            let parts = vertex
                .operators
                .iter()
                .filter_map(|operator| report.tasks.get(&operator.uid)?.subtasks.get(&subtask).copied());
            parts.reduce(|all, part| SubtaskPart {
                ack_timestamp: all.ack_timestamp.max(part.ack_timestamp),
                end_to_end_duration: all.end_to_end_duration.max(part.end_to_end_duration),
                checkpointed_size: all.checkpointed_size + part.checkpointed_size,
                state_size: all.state_size + part.state_size,
                took: all.took.longer(part.took),
            })
        };
        Self { subtasks: (0..vertex.parallelism).map(part).collect() }
    }

    fn parts(&self) -> impl Iterator<Item = &SubtaskPart> {
        self.subtasks.iter().flatten()
    }

    fn shown(&self, report: &Report) -> Value {
        let sum = |of: fn(&SubtaskPart) -> u64| self.parts().map(of).sum::<u64>();
        let acknowledged = self.parts().count();
        let status = match acknowledged == self.subtasks.len() {
            true => Status::Completed,
            false => report.status,
        };
        let ended = self.parts().map(|part| part.end_to_end_duration).max();
        let mut shown = json!({
            "id": report.id,
            "status": status,
            "latest_ack_timestamp": self.parts().map(|part| part.ack_timestamp).max().unwrap_or(-1),
            "checkpointed_size": sum(|part| part.checkpointed_size),
            "state_size": sum(|part| part.state_size),
            "end_to_end_duration": ended.map_or(-1, |took| i64::try_from(ms(took)).unwrap_or(i64::MAX)),
            "num_subtasks": self.subtasks.len(),
            "num_acknowledged_subtasks": acknowledged,
            "processed_data": sum(|part| part.took.processed),
        });
        unaligned(&mut shown);
        shown
    }

    /// From the checkpoint's beginning until the barrier came to a subtask.
    fn start_delay(part: &SubtaskPart) -> u64 {
        let took = part.took.alignment + part.took.sync + part.took.rest;
        ms(part.end_to_end_duration.saturating_sub(took))
    }

    fn summary(&self) -> Value {
        let none = || spread(&Spread::of([]), 1);
        let of = |of: fn(&SubtaskPart) -> u64| {
            let values: Vec<u64> = self.parts().map(of).collect();
            let count = values.len() as u64;
            spread(&Spread::of(values), count)
        };
        json!({
            "checkpointed_size": of(|part| part.checkpointed_size),
            "state_size": of(|part| part.state_size),
            "end_to_end_duration": of(|part| ms(part.end_to_end_duration)),
            "checkpoint_duration": {
                "sync": of(|part| ms(part.took.sync)), "async": of(|part| ms(part.took.rest)),
            },
            "alignment": {
                "buffered": none(),
                "processed": of(|part| part.took.processed),
                "persisted": none(),
                "duration": of(|part| ms(part.took.alignment)),
            },
            "start_delay": of(Self::start_delay),
        })
    }

    fn subtasks(&self, is_given_up: bool) -> Value {
        let of = |(index, part): (usize, &Option<SubtaskPart>)| match part {
            None => json!({ "className": "pending", "index": index, "status": "pending_or_failed" }),
            Some(part) => json!({
                "className": "completed",
                "index": index,
                "ack_timestamp": part.ack_timestamp,
                "end_to_end_duration": ms(part.end_to_end_duration),
                "checkpointed_size": part.checkpointed_size,
                "state_size": part.state_size,
                "checkpoint": { "sync": ms(part.took.sync), "async": ms(part.took.rest) },
                "alignment": {
                    "buffered": 0,
                    "processed": part.took.processed,
                    "persisted": 0,
                    "duration": ms(part.took.alignment),
                },
                "start_delay": Self::start_delay(part),
                "unaligned_checkpoint": false,
                "aborted": is_given_up,
                "status": "completed",
            }),
        };
        self.subtasks.iter().enumerate().map(of).collect()
    }
}

pub(crate) async fn all(State(served): State<Served>, Path(id): Path<String>) -> Answer {
    let (master, job) = served.running(&id)?;
    let all = job.checkpoints();
    let (summary, count) = (&all.summary, all.counts.completed);
    let of_none = spread(&Spread::of([]), count);
    let durations = |name: &str| {
        let mut durations = value(summary)[name].take();
        if count == 0 {
            ["p50", "p90", "p95", "p99", "p999"].iter().for_each(|name| durations[name] = json!("NaN"));
        }
        durations
    };
    let brief = |report: &Report| shown(&master, report, Map::new());
    let restored = all.latest.restored.map(|restored| {
        let from = match restored.is_savepoint {
            false => place(&master, restored.id),
            true => master.paused_at().or_else(|| match &master.attempts().restore {
                Some(Restore::Path(path)) => Some(path.display().to_string()),
                _ => None,
            }),
        };
        let mut shown = value(&restored);
        shown["external_path"] = json!(from);
        shown
    });
    Ok(Json(json!({
        "counts": all.counts,
        "summary": {
            "checkpointed_size": spread(&summary.checkpointed_size, count),
            "state_size": spread(&summary.state_size, count),
            "end_to_end_duration": durations("end_to_end_duration"),
            "alignment_buffered": of_none,
            "processed_data": spread(&summary.processed_data, count),
            "persisted_data": of_none,
            // Ours alone.
            "alignment_duration": durations("alignment_duration"),
        },
        "latest": {
            "completed": all.latest.completed.as_ref().map(brief),
            "savepoint": all.latest.savepoint.as_ref().map(brief),
            "failed": all.latest.failed.as_ref().map(brief),
            "restored": restored,
        },
        "history": all.history.iter().map(brief).collect::<Value>(),
    })))
}

/// A checkpoint of a job of which something is known.
fn found(served: &Served, id: &str, checkpoint: u64) -> Result<(Arc<JobMaster>, Arc<Job>, Report), Failure> {
    let (master, job) = served.running(id)?;
    let all = job.checkpoints();
    let latest = [all.latest.completed, all.latest.savepoint, all.latest.failed];
    let found =
        all.history.into_iter().chain(latest.into_iter().flatten()).find(|report| report.id == checkpoint);
    let found = found.ok_or_else(|| {
        Failure::not_found(format!("Could not find checkpointing statistics for checkpoint {checkpoint}."))
    })?;
    Ok((master, job, found))
}

pub(crate) async fn details(
    State(served): State<Served>,
    Path((id, checkpoint)): Path<(String, u64)>,
) -> Answer {
    let (master, job, report) = found(&served, &id, checkpoint)?;
    let description = job.description();
    let vertices = description.vertices.iter();
    let tasks = vertices.map(|vertex| (vertex.id.clone(), OfVertex::of(vertex, &report).shown(&report)));
    Ok(Json(shown(&master, &report, tasks.collect())))
}

pub(crate) async fn subtasks(
    State(served): State<Served>,
    Path((id, checkpoint, vertex)): Path<(String, u64, String)>,
) -> Answer {
    let (_, job, report) = found(&served, &id, checkpoint)?;
    let at = crate::vertices::number_of(&job, &vertex)?;
    let of = OfVertex::of(&job.description().vertices[at], &report);
    let mut shown = of.shown(&report);
    shown["summary"] = of.summary();
    shown["subtasks"] = of.subtasks(report.status == Status::Failed);
    Ok(Json(shown))
}

pub(crate) async fn config(State(served): State<Served>, Path(id): Path<String>) -> Answer {
    let master = served.master(&id)?;
    let config = &master.code().config;
    let ms = |key: &str| config.optional_duration(key).map(|time| time.as_millis() as u64);
    let retention = config.get("execution.checkpointing.externalized-checkpoint-retention").0;
    let is = |name: &str| retention.eq_ignore_ascii_case(name);
    let backend: Value = match config.get("state.backend.type").0.eq_ignore_ascii_case("rocksdb") {
        true => json!("EmbeddedRocksDBStateBackend"),
        false => json!("HashMapStateBackend"),
    };
    Ok(Json(json!({
        "mode": "exactly_once",
        // Flink: without an interval it is the greatest number.
        "interval": ms("execution.checkpointing.interval").unwrap_or(i64::MAX as u64),
        "timeout": ms("execution.checkpointing.timeout").unwrap_or_default(),
        "min_pause": ms("execution.checkpointing.min-pause").unwrap_or_default(),
        "max_concurrent": 1,
        "externalization": {
            "enabled": !is("NO_EXTERNALIZED_CHECKPOINTS"),
            "delete_on_cancellation": !is("RETAIN_ON_CANCELLATION"),
        },
        "state_backend": backend,
        "checkpoint_storage": "FileSystemCheckpointStorage",
        "unaligned_checkpoints": false,
        "tolerable_failed_checkpoints":
            config.number("execution.checkpointing.tolerable-failed-checkpoints").unwrap_or(i32::MAX as u32),
        "aligned_checkpoint_timeout": 0,
        "checkpoints_after_tasks_finish": true,
        "state_changelog_enabled": false,
        "changelog_periodic_materialization_interval": 0,
        "changelog_storage": "",
    })))
}
