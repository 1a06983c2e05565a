//! The vertices of a job's graph and their subtasks.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use cluster::{JobMaster, JobStatus};
use serde_json::{Map, Value, json};
use task::Job;
use task::metrics::description::VertexDescription;
use task::metrics::report::{SubtaskMetrics, VertexMetrics};
use task::metrics::times::ExecutionState;

use crate::answer::{Answer, Failure};
use crate::jobs::counts_of;
use crate::overview::TASK_MANAGER;
use crate::{Served, spread};

/// What Flink calls I/O metrics, of some subtasks together.
fn io(subtasks: &[&SubtaskMetrics]) -> Value {
    let sum = |of: fn(&SubtaskMetrics) -> u64| subtasks.iter().map(|subtask| of(subtask)).sum::<u64>();
    let ms = |of: fn(&SubtaskMetrics) -> u128| subtasks.iter().map(|subtask| of(subtask)).sum::<u128>();
    json!({
        "read-bytes": sum(|of| of.bytes_in),
        "read-bytes-complete": true,
        "write-bytes": sum(|of| of.bytes_out),
        "write-bytes-complete": true,
        "read-records": sum(|of| of.records_in),
        "read-records-complete": true,
        "write-records": sum(|of| of.records_out),
        "write-records-complete": true,
        "accumulated-backpressured-time": ms(|of| of.spent.backpressured.as_millis()) as u64,
        "accumulated-idle-time": ms(|of| of.spent.idle.as_millis()) as u64,
        "accumulated-busy-time": ms(|of| of.spent.busy.as_millis()) as f64,
    })
}

/// When it began, when it ended (-1 = not yet), and how long it has lasted.
fn times(subtasks: &[&SubtaskMetrics], now: i64) -> (i64, i64, i64) {
    let began = subtasks.iter().map(|subtask| subtask.started_ms).min().unwrap_or(-1);
    let ended = subtasks.iter().map(|subtask| subtask.ended_ms).collect::<Option<Vec<_>>>();
    let ended = ended.and_then(|all| all.into_iter().max());
    (began, ended.unwrap_or(-1), ended.unwrap_or(now) - began)
}

/// A vertex, as `/jobs/:id` shows it.
pub(crate) fn of_job(vertex: &VertexDescription, metrics: &VertexMetrics, now: i64) -> Value {
    let subtasks: Vec<&SubtaskMetrics> = metrics.subtasks.iter().collect();
    let (began, ended, duration) = times(&subtasks, now);
    json!({
        "id": vertex.id,
        "slotSharingGroupId": "00000000000000000000000000000000",
        "name": vertex.name,
        "maxParallelism": vertex.max_parallelism,
        "parallelism": vertex.parallelism,
        "status": metrics.state().name(),
        "start-time": began,
        "end-time": ended,
        "duration": duration,
        "tasks": counts_of(metrics),
        "metrics": io(&subtasks),
    })
}

/// What a subtask is before it runs.
pub(crate) const WAITING: [&str; 4] = ["CREATED", "SCHEDULED", "DEPLOYING", "INITIALIZING"];

/// How long it was in each state. Nothing lies between being made and running.
fn in_states(subtask: &SubtaskMetrics, waited: i64, duration: i64) -> Value {
    let has_run = subtask.state != ExecutionState::Created;
    json!({
        "CREATED": if has_run { 0 } else { duration },
        "SCHEDULED": waited,
        "DEPLOYING": 0,
        "INITIALIZING": 0,
        "RUNNING": if has_run { duration } else { 0 },
    })
}

/// How long the job of a subtask has waited for slots.
fn waited(master: &JobMaster, subtask: &SubtaskMetrics) -> i64 {
    match master.timestamp(JobStatus::Created) {
        0 => 0,
        created => (subtask.started_ms - created).max(0),
    }
}

/// All subtasks as one: how their figures are spread.
fn together(master: &JobMaster, subtasks: &[SubtaskMetrics], now: i64) -> Value {
    let figures: Vec<Value> = subtasks.iter().map(|subtask| io(&[subtask])).collect();
    let states: Vec<Value> = subtasks
        .iter()
        .map(|subtask| in_states(subtask, waited(master, subtask), times(&[subtask], now).2))
        .collect();
    json!({ "metrics": spread::of_each(&figures), "status-duration": spread::of_each(&states) })
}

fn of_subtask(subtask: &SubtaskMetrics, waited: i64, now: i64) -> Value {
    let (began, ended, duration) = times(&[subtask], now);
    json!({
        "subtask": subtask.subtask,
        "status": subtask.state.name(),
        "attempt": 0,
        "endpoint": "localhost:0",
        "start-time": began,
        "end-time": ended,
        "duration": duration,
        "metrics": io(&[subtask]),
        "taskmanager-id": TASK_MANAGER,
        "status-duration": in_states(subtask, waited, duration),
        "start_time": began,
    })
}

/// The number of the vertex of this id in its job.
pub(crate) fn number_of(job: &Job, vertex: &str) -> Result<usize, Failure> {
    let description = job.description();
    let found = description.vertex(vertex);
    found.map(|(at, _)| at).ok_or_else(|| Failure::not_found(format!("Vertex {vertex} not found")))
}

/// The vertex of this id: what it is, and what it has counted.
fn found(
    served: &Served,
    id: &str,
    vertex: &str,
) -> Result<(Arc<JobMaster>, VertexDescription, VertexMetrics), Failure> {
    let (master, job) = served.running(id)?;
    let at = number_of(&job, vertex)?;
    let metrics = job.metrics().vertices.swap_remove(at);
    Ok((master, job.description().vertices[at].clone(), metrics))
}

pub(crate) async fn vertex(
    State(served): State<Served>,
    Path((id, vertex)): Path<(String, String)>,
) -> Answer {
    let (master, vertex, metrics) = found(&served, &id, &vertex)?;
    let now = served.session.now();
    let subtasks = metrics.subtasks.iter();
    let subtasks = subtasks.map(|subtask| of_subtask(subtask, waited(&master, subtask), now));
    Ok(Json(json!({
        "id": vertex.id,
        "name": vertex.name,
        "parallelism": vertex.parallelism,
        "maxParallelism": vertex.max_parallelism,
        "now": now,
        "subtasks": subtasks.collect::<Value>(),
        "aggregated": together(&master, &metrics.subtasks, now),
    })))
}

pub(crate) async fn subtask(
    State(served): State<Served>,
    Path((id, vertex, subtask)): Path<(String, String, u32)>,
) -> Answer {
    let (master, _, metrics) = found(&served, &id, &vertex)?;
    let found = metrics.subtasks.iter().find(|of| of.subtask == subtask);
    let found = found.ok_or_else(|| Failure::not_found(format!("Invalid subtask index {subtask}")))?;
    Ok(Json(of_subtask(found, waited(&master, found), served.session.now())))
}

pub(crate) async fn subtask_times(
    State(served): State<Served>,
    Path((id, vertex)): Path<(String, String)>,
) -> Answer {
    let (_, vertex, metrics) = found(&served, &id, &vertex)?;
    let now = served.session.now();
    let of_subtask = |subtask: &SubtaskMetrics| {
        let (_, ended, duration) = times(&[subtask], now);
        let mut at: Map<String, Value> =
            WAITING.iter().map(|name| ((*name).to_owned(), json!(subtask.started_ms))).collect();
        at.insert(ExecutionState::Running.name().to_owned(), json!(subtask.started_ms));
        if subtask.state.is_final() {
            at.insert(subtask.state.name().to_owned(), json!(ended));
        }
        for name in ["FAILED", "FINISHED", "CANCELED", "CANCELING", "RECONCILING"] {
            at.entry(name).or_insert(json!(0));
        }
        json!({
            "subtask": subtask.subtask, "endpoint": "localhost:0", "duration": duration, "timestamps": at,
        })
    };
    Ok(Json(json!({
        "id": vertex.id,
        "name": vertex.name,
        "now": now,
        "subtasks": metrics.subtasks.iter().map(of_subtask).collect::<Value>(),
    })))
}

pub(crate) async fn task_managers(
    State(served): State<Served>,
    Path((id, vertex)): Path<(String, String)>,
) -> Answer {
    let (master, vertex, metrics) = found(&served, &id, &vertex)?;
    let now = served.session.now();
    let subtasks: Vec<&SubtaskMetrics> = metrics.subtasks.iter().collect();
    let (began, ended, duration) = times(&subtasks, now);
    Ok(Json(json!({
        "id": vertex.id,
        "name": vertex.name,
        "now": now,
        "taskmanagers": [{
            "endpoint": "localhost:0",
            "status": metrics.state().name(),
            "start-time": began,
            "end-time": ended,
            "duration": duration,
            "metrics": io(&subtasks),
            "status-counts": counts_of(&metrics),
            "taskmanager-id": TASK_MANAGER,
            "aggregated": together(&master, &metrics.subtasks, now),
        }],
    })))
}

pub(crate) async fn watermarks(
    State(served): State<Served>,
    Path((id, vertex)): Path<(String, String)>,
) -> Answer {
    let (_, _, metrics) = found(&served, &id, &vertex)?;
    let of_subtask = |subtask: &SubtaskMetrics| {
        let watermark = subtask.input_watermark().unwrap_or(i64::MIN);
        json!({ "id": format!("{}.currentInputWatermark", subtask.subtask), "value": watermark.to_string() })
    };
    Ok(Json(metrics.subtasks.iter().filter(|of| !of.is_source).map(of_subtask).collect()))
}

/// Flink's levels: of the time that a subtask is back-pressured.
fn level(ratio: f64) -> &'static str {
    match ratio {
        _ if ratio <= 0.1 => "ok",
        _ if ratio <= 0.5 => "low",
        _ => "high",
    }
}

pub(crate) async fn backpressure(
    State(served): State<Served>,
    Path((id, vertex)): Path<(String, String)>,
) -> Answer {
    let (_, job) = served.running(&id)?;
    let at = number_of(&job, &vertex)?;
    let metrics = job.metrics().vertices.swap_remove(at);
    let rates = crate::metrics::rates(&served, &id);
    let (mut most, mut subtasks) = (0.0_f64, Vec::new());
    for subtask in &metrics.subtasks {
        let of = |name: &str| {
            let rate = rates.as_ref().and_then(|rates| rates.of_task(at, subtask.subtask, name));
            rate.unwrap_or_default() / 1e3
        };
        let ratio = of("backPressuredTimeMsPerSecond");
        most = most.max(ratio);
        subtasks.push(json!({
            "subtask": subtask.subtask,
            "backpressureLevel": level(ratio),
            "ratio": ratio,
            "idleRatio": of("idleTimeMsPerSecond"),
            "busyRatio": of("busyTimeMsPerSecond"),
            "backpressure-level": level(ratio),
        }));
    }
    Ok(Json(json!({
        "status": "ok",
        "backpressureLevel": level(most),
        "end-timestamp": served.session.now(),
        "subtasks": subtasks,
        "backpressure-level": level(most),
    })))
}

pub(crate) async fn accumulators(
    State(served): State<Served>,
    Path((id, vertex)): Path<(String, String)>,
) -> Answer {
    let (_, vertex, _) = found(&served, &id, &vertex)?;
    Ok(Json(json!({ "id": vertex.id, "user-accumulators": [] })))
}

/// There are no accumulators: a guest's own figures are metrics.
pub(crate) async fn accumulators_of_subtasks(
    State(served): State<Served>,
    Path((id, vertex)): Path<(String, String)>,
) -> Answer {
    let (_, vertex, _) = found(&served, &id, &vertex)?;
    let of_subtask = |subtask: u32| json!({ "subtask": subtask, "attempt": 0, "endpoint": "localhost:0", "user-accumulators": [] });
    Ok(Json(json!({
        "id": vertex.id,
        "parallelism": vertex.parallelism,
        "subtasks": (0..vertex.parallelism).map(of_subtask).collect::<Value>(),
    })))
}

/// None are drawn: as Flink says it where they are switched off.
pub(crate) async fn flame_graph(
    State(served): State<Served>,
    Path((id, vertex)): Path<(String, String)>,
) -> Answer {
    found(&served, &id, &vertex)?;
    Ok(Json(json!({ "endTimestamp": -3 })))
}

/// No operator has a part outside of its subtasks.
pub(crate) async fn coordinators(
    State(served): State<Served>,
    Path((id, vertex)): Path<(String, String)>,
) -> Answer {
    found(&served, &id, &vertex)?;
    Ok(Json(json!([])))
}
