//! A job's checkpoints.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use crate::Served;
use crate::answer::{Answer, Failure};

pub(crate) async fn all(State(served): State<Served>, Path(id): Path<String>) -> Answer {
    let (_, job) = served.running(&id)?;
    serde_json::to_value(job.checkpoints()).map(Json).map_err(|error| Failure::bad(error.to_string()))
}

pub(crate) async fn details(
    State(served): State<Served>,
    Path((id, checkpoint)): Path<(String, u64)>,
) -> Answer {
    let (_, job) = served.running(&id)?;
    let all = job.checkpoints();
    let latest = [&all.latest.completed, &all.latest.savepoint, &all.latest.failed];
    let found = all.history.iter().chain(latest.into_iter().flatten()).find(|report| report.id == checkpoint);
    let found = found.ok_or_else(|| {
        Failure::not_found(format!("Could not find checkpointing statistics for checkpoint {checkpoint}."))
    })?;
    serde_json::to_value(found).map(Json).map_err(|error| Failure::bad(error.to_string()))
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
        "timeout": ms("execution.checkpointing.timeout"),
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
    })))
}
