//! Vertices and their subtasks. Times are in milliseconds.

use serde_json::{Value, json};

use super::super::schema::{
    count, flag, list, map, named, nothing, number, object, one_of, text, whole, with,
};
use super::jobs::span;
use super::time;
use crate::jobs::STATES;
use crate::vertices::WAITING;

pub(super) fn all() -> Vec<(&'static str, Value)> {
    vec![
        ("IoMetrics", io()),
        ("JobVertex", of_job()),
        ("Subtask", subtask()),
        (
            "Quantiles",
            object(["min", "max", "avg", "sum", "median", "p25", "p75", "p95"].map(|of| (of, whole()))),
        ),
        // Of each figure of a subtask how it is spread over all.
        (
            "AggregatedSubtasks",
            object([("metrics", map(named("Quantiles"))), ("status-duration", map(named("Quantiles")))]),
        ),
        (
            "Vertex",
            object([
                ("id", text()),
                ("name", text()),
                ("parallelism", count()),
                ("maxParallelism", count()),
                ("now", time()),
                ("subtasks", list(named("Subtask"))),
                ("aggregated", named("AggregatedSubtasks")),
            ]),
        ),
        ("SubtaskTimes", times()),
        ("VertexOnTaskManagers", on_task_managers()),
        ("BackPressure", back_pressure()),
        ("VertexAccumulators", object([("id", text()), ("user-accumulators", nothing())])),
        ("SubtaskAccumulators", accumulators()),
        ("FlameGraph", object([("endTimestamp", whole())])),
    ]
}

fn io() -> Value {
    let counted = ["read-bytes", "write-bytes", "read-records", "write-records"];
    let complete =
        ["read-bytes-complete", "write-bytes-complete", "read-records-complete", "write-records-complete"];
    let times = [
        ("accumulated-backpressured-time", count()),
        ("accumulated-idle-time", count()),
        ("accumulated-busy-time", number()),
    ];
    let counted = counted.map(|name| (name, count()));
    object(counted.into_iter().chain(complete.map(|name| (name, flag()))).chain(times))
}

fn of_job() -> Value {
    let about = [
        ("id", text()),
        ("slotSharingGroupId", text()),
        ("name", text()),
        ("maxParallelism", count()),
        ("parallelism", count()),
        ("status", named("TaskState")),
        ("tasks", named("TaskCounts")),
        ("metrics", named("IoMetrics")),
    ];
    object(about.into_iter().chain(span()))
}

fn subtask() -> Value {
    let about = [
        ("subtask", count()),
        ("status", named("TaskState")),
        ("attempt", count()),
        ("endpoint", text()),
        ("metrics", named("IoMetrics")),
        ("taskmanager-id", text()),
        ("status-duration", object(WAITING.into_iter().chain(["RUNNING"]).map(|state| (state, whole())))),
        ("start_time", time()),
    ];
    object(about.into_iter().chain(span()))
}

fn times() -> Value {
    let subtask = object([
        ("subtask", count()),
        ("endpoint", text()),
        ("duration", whole()),
        ("timestamps", object(STATES.map(|state| (state, time())))),
    ]);
    object([("id", text()), ("name", text()), ("now", time()), ("subtasks", list(subtask))])
}

fn on_task_managers() -> Value {
    let about = [
        ("endpoint", text()),
        ("status", named("TaskState")),
        ("metrics", named("IoMetrics")),
        ("status-counts", named("TaskCounts")),
        ("taskmanager-id", text()),
        ("aggregated", named("AggregatedSubtasks")),
    ];
    let one = object(about.into_iter().chain(span()));
    object([("id", text()), ("name", text()), ("now", time()), ("taskmanagers", list(one))])
}

/// Flink says the level twice.
fn back_pressure() -> Value {
    let levels = || {
        let level = one_of(["ok", "low", "high"]);
        [("backpressureLevel", level.clone()), ("backpressure-level", level)]
    };
    let subtask =
        object([("subtask", count()), ("ratio", number()), ("idleRatio", number()), ("busyRatio", number())]);
    let about = object([
        ("status", json!({ "const": "ok" })),
        ("end-timestamp", time()),
        ("subtasks", list(with(subtask, levels()))),
    ]);
    with(about, levels())
}

fn accumulators() -> Value {
    let subtask = object([
        ("subtask", count()),
        ("attempt", count()),
        ("endpoint", text()),
        ("user-accumulators", nothing()),
    ]);
    object([("id", text()), ("parallelism", count()), ("subtasks", list(subtask))])
}
