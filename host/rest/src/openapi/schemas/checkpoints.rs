//! Checkpoints. Times are in milliseconds.

use serde_json::{Value, json};

use super::super::schema::{count, flag, list, map, named, object, one_of, or_null, text, whole, with};
use super::{number_or_none, time};

pub(super) fn all() -> Vec<(&'static str, Value)> {
    let spread = object([
        ("min", count()),
        ("max", count()),
        ("avg", count()),
        ("p50", number_or_none()),
        ("p90", number_or_none()),
        ("p95", number_or_none()),
        ("p99", number_or_none()),
        ("p999", number_or_none()),
    ]);
    let of_vertex = of_vertex();
    let more = [("summary", summary_of_vertex()), ("subtasks", list(named("SubtaskInCheckpoint")))];
    vec![
        ("Spread", spread),
        ("Checkpoints", checkpoints()),
        ("Checkpoint", checkpoint()),
        ("VertexInCheckpoint", of_vertex.clone()),
        ("CheckpointOfVertex", with(of_vertex, more)),
        ("SubtaskInCheckpoint", subtask()),
        ("CheckpointConfiguration", configuration()),
    ]
}

fn spreads<'a>(names: impl IntoIterator<Item = &'a str>) -> Value {
    object(names.into_iter().map(|name| (name, named("Spread"))))
}

fn checkpoints() -> Value {
    let counts = ["restored", "total", "in_progress", "completed", "failed"];
    let summary = [
        "checkpointed_size",
        "state_size",
        "end_to_end_duration",
        "alignment_buffered",
        "processed_data",
        "persisted_data",
        "alignment_duration",
    ];
    let restored = object([
        ("id", count()),
        ("restore_timestamp", time()),
        ("is_savepoint", flag()),
        ("external_path", or_null(text())),
    ]);
    let latest = object([
        ("completed", or_null(named("Checkpoint"))),
        ("savepoint", or_null(named("Checkpoint"))),
        ("failed", or_null(named("Checkpoint"))),
        ("restored", or_null(restored)),
    ]);
    object([
        ("counts", object(counts.map(|name| (name, count())))),
        ("summary", spreads(summary)),
        ("latest", latest),
        ("history", list(named("Checkpoint"))),
    ])
}

/// Flink's figures of what lies in front of barriers.
fn alignment<'a>() -> [(&'a str, Value); 3] {
    [("alignment_buffered", count()), ("processed_data", count()), ("persisted_data", count())]
}

fn status() -> Value {
    one_of(["IN_PROGRESS", "COMPLETED", "FAILED"])
}

fn checkpoint() -> Value {
    let about = [
        ("className", one_of(["in_progress", "completed", "failed"])),
        ("id", count()),
        ("status", status()),
        ("checkpoint_type", one_of(["CHECKPOINT", "SAVEPOINT", "SYNC_SAVEPOINT"])),
        ("is_savepoint", flag()),
        ("savepointFormat", or_null(text())),
        ("trigger_timestamp", time()),
        ("latest_ack_timestamp", or_null(time())),
        ("end_to_end_duration", count()),
        ("checkpointed_size", count()),
        ("state_size", count()),
        ("alignment_duration", count()),
        ("sync_duration", count()),
        ("async_duration", count()),
        ("num_subtasks", count()),
        ("num_acknowledged_subtasks", count()),
        ("failure_timestamp?", time()),
        ("failure_message?", text()),
        ("discarded", flag()),
        ("external_path?", or_null(text())),
        // By vertex; lists have none.
        ("tasks", map(named("VertexInCheckpoint"))),
    ];
    object(about.into_iter().chain(alignment()))
}

fn of_vertex() -> Value {
    let about = [
        ("id", count()),
        ("status", status()),
        ("latest_ack_timestamp", time()),
        ("checkpointed_size", count()),
        ("state_size", count()),
        ("end_to_end_duration", whole()),
        ("num_subtasks", count()),
        ("num_acknowledged_subtasks", count()),
    ];
    object(about.into_iter().chain(alignment()))
}

fn summary_of_vertex() -> Value {
    object([
        ("checkpointed_size", named("Spread")),
        ("state_size", named("Spread")),
        ("end_to_end_duration", named("Spread")),
        ("checkpoint_duration", spreads(["sync", "async"])),
        ("alignment", spreads(["buffered", "processed", "persisted", "duration"])),
        ("start_delay", named("Spread")),
    ])
}

fn subtask() -> Value {
    let pending = object([
        ("className", one_of(["pending"])),
        ("index", count()),
        ("status", one_of(["pending_or_failed"])),
    ]);
    let completed = object([
        ("className", one_of(["completed"])),
        ("index", count()),
        ("ack_timestamp", time()),
        ("end_to_end_duration", count()),
        ("checkpointed_size", count()),
        ("state_size", count()),
        ("checkpoint", object([("sync", count()), ("async", count())])),
        ("alignment", object(["buffered", "processed", "persisted", "duration"].map(|name| (name, count())))),
        ("start_delay", count()),
        ("unaligned_checkpoint", flag()),
        ("aborted", flag()),
        ("status", one_of(["completed"])),
    ]);
    json!({ "anyOf": [pending, completed] })
}

fn configuration() -> Value {
    object([
        ("mode", one_of(["exactly_once"])),
        ("interval", count()),
        ("timeout", count()),
        ("min_pause", count()),
        ("max_concurrent", count()),
        ("externalization", object([("enabled", flag()), ("delete_on_cancellation", flag())])),
        ("state_backend", text()),
        ("checkpoint_storage", text()),
        ("unaligned_checkpoints", flag()),
        ("tolerable_failed_checkpoints", count()),
        ("aligned_checkpoint_timeout", count()),
        ("checkpoints_after_tasks_finish", flag()),
        ("state_changelog_enabled", flag()),
        ("changelog_periodic_materialization_interval", count()),
        ("changelog_storage", text()),
    ])
}
