//! The session as a whole, and its one TaskManager.

use axum::Json;
use axum::extract::{Path, State};
use cluster::JobStatus;
use cluster::config::KEYS;
use serde_json::{Value, json};

use crate::Served;
use crate::answer::{Answer, Failure};

/// Version of Flink whose interface this is.
const FLINK: &str = "2.3.0";
/// The one TaskManager's id: the process is all there is.
pub(crate) const TASK_MANAGER: &str = "localhost:0-000000";

pub(crate) async fn config() -> Json<Value> {
    Json(json!({
        "refresh-interval": 3000,
        "timezone-name": "Coordinated Universal Time",
        "timezone-offset": 0,
        "flink-version": FLINK,
        "flink-revision": concat!("millstream ", env!("CARGO_PKG_VERSION")),
        "features": {
            "web-submit": true, "web-cancel": true, "web-rescale": false, "web-history": false,
        },
    }))
}

pub(crate) async fn overview(State(served): State<Served>) -> Json<Value> {
    let (total, free) = served.session.slots();
    let jobs = served.session.jobs();
    let count = |wanted: &dyn Fn(JobStatus) -> bool| jobs.iter().filter(|job| wanted(job.status())).count();
    Json(json!({
        "taskmanagers": 1,
        "slots-total": total,
        "slots-available": free,
        "jobs-running": count(&|status| !status.is_terminal()),
        "jobs-finished": count(&|status| status == JobStatus::Finished),
        "jobs-cancelled": count(&|status| status == JobStatus::Canceled),
        "jobs-failed": count(&|status| status == JobStatus::Failed),
        "flink-version": FLINK,
        "flink-commit": concat!("millstream ", env!("CARGO_PKG_VERSION")),
    }))
}

/// Ends the session: its jobs come back with it.
pub(crate) async fn shutdown(State(served): State<Served>) -> Json<Value> {
    served.end.notify_one();
    Json(json!({}))
}

pub(crate) async fn job_manager_config(State(served): State<Served>) -> Json<Value> {
    let of_key = |key: &cluster::config::Key| {
        let (value, _) = served.session.config().shown(key.name);
        json!({ "key": key.name, "value": value })
    };
    Json(KEYS.iter().map(of_key).collect())
}

pub(crate) async fn job_manager_metrics(State(served): State<Served>) -> Json<Value> {
    let (total, free) = served.session.slots();
    let running = served.session.masters().len();
    let metrics = [
        ("taskSlotsTotal", u64::from(total)),
        ("taskSlotsAvailable", u64::from(free)),
        ("numRegisteredTaskManagers", 1),
        ("numRunningJobs", running as u64),
    ];
    Json(metrics.iter().map(|(id, value)| json!({ "id": id, "value": value.to_string() })).collect())
}

fn of_task_manager(served: &Served) -> Value {
    let (total, free) = served.session.slots();
    let jobs = served.session.masters().into_iter().filter_map(|master| master.job());
    let subtasks = jobs.map(|job| {
        job.description().vertices.iter().map(|vertex| u64::from(vertex.parallelism)).sum::<u64>()
    });
    let assigned: u64 = subtasks.sum();
    json!({
        "id": TASK_MANAGER,
        "path": "local",
        "dataPort": 0,
        "jmxPort": -1,
        "timeSinceLastHeartbeat": served.session.now(),
        "slotsNumber": total,
        "freeSlots": free,
        "assignedTasks": assigned,
        "hardware": {
            "cpuCores": platform::available_parallelism(),
            "physicalMemory": 0, "freeMemory": 0, "managedMemory": 0,
        },
    })
}

pub(crate) async fn task_managers(State(served): State<Served>) -> Json<Value> {
    Json(json!({ "taskmanagers": [of_task_manager(&served)] }))
}

pub(crate) async fn task_manager(State(served): State<Served>, Path(id): Path<String>) -> Answer {
    match id == TASK_MANAGER {
        true => Ok(Json(of_task_manager(&served))),
        false => Err(Failure::not_found(format!("TaskManager {id} not found"))),
    }
}
