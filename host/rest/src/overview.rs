//! The session as a whole, and its one TaskManager.

use axum::Json;
use axum::extract::{Path, State};
use cluster::config::KEYS;
use cluster::session::Known;
use cluster::{Config, JobStatus};
use serde_json::{Value, json};

use crate::Served;
use crate::answer::{Answer, Failure, job_id};
use crate::process::{Process, threads};

/// Version of Flink whose interface this is.
const FLINK: &str = "2.3.0";
/// The one TaskManager's id: the process is all there is.
pub(crate) const TASK_MANAGER: &str = "localhost:0-000000";

/// Parts of memory that Flink tells apart, and there are not here.
pub(crate) const SIZES: [&str; 15] = [
    "nonHeapUsed",
    "nonHeapCommitted",
    "nonHeapMax",
    "directCount",
    "directUsed",
    "directMax",
    "mappedCount",
    "mappedUsed",
    "mappedMax",
    "nettyShuffleMemorySegmentsAvailable",
    "nettyShuffleMemorySegmentsUsed",
    "nettyShuffleMemorySegmentsTotal",
    "nettyShuffleMemoryAvailable",
    "nettyShuffleMemoryUsed",
    "nettyShuffleMemoryTotal",
];

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

fn keys_of(config: &Config) -> Value {
    let of_key = |key: &cluster::config::Key| {
        let (value, _) = config.shown(key.name);
        json!({ "key": key.name, "value": value })
    };
    KEYS.iter().map(of_key).collect()
}

pub(crate) async fn job_manager_config(State(served): State<Served>) -> Json<Value> {
    Json(keys_of(served.session.config()))
}

/// The files that messages go to.
fn logs(served: &Served) -> Value {
    let of_file = |file: std::path::PathBuf| {
        let about = file.metadata().ok()?;
        let changed = about.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
        let name = file.file_name()?.to_string_lossy().into_owned();
        Some(json!({ "name": name, "size": about.len(), "mtime": changed.as_millis() as u64 }))
    };
    json!({ "logs": served.session.log_file().and_then(of_file).into_iter().collect::<Value>() })
}

pub(crate) async fn job_manager_logs(State(served): State<Served>) -> Json<Value> {
    Json(logs(&served))
}

pub(crate) async fn task_manager_logs(State(served): State<Served>, Path(id): Path<String>) -> Answer {
    is_task_manager(&id)?;
    Ok(Json(logs(&served)))
}

/// The text of such a file. Only a name that the list has leads to one.
fn log(served: &Served, name: Option<&str>) -> Result<String, Failure> {
    let file = served.session.log_file();
    let file = file.filter(|file| name.is_none_or(|name| file.file_name().is_some_and(|of| of == name)));
    let file = file.ok_or_else(|| Failure::not_found("There is no such log file."))?;
    let bytes = std::fs::read(file).map_err(|error| Failure::not_found(error.to_string()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

pub(crate) async fn job_manager_log(State(served): State<Served>) -> Result<String, Failure> {
    log(&served, None)
}

pub(crate) async fn job_manager_log_of(
    State(served): State<Served>,
    Path(name): Path<String>,
) -> Result<String, Failure> {
    log(&served, Some(&name))
}

pub(crate) async fn task_manager_log(
    State(served): State<Served>,
    Path(id): Path<String>,
) -> Result<String, Failure> {
    is_task_manager(&id)?;
    log(&served, None)
}

pub(crate) async fn task_manager_log_of(
    State(served): State<Served>,
    Path((id, name)): Path<(String, String)>,
) -> Result<String, Failure> {
    is_task_manager(&id)?;
    log(&served, Some(&name))
}

/// What runs the session. There is no JVM, and so no options and no class path.
pub(crate) async fn environment() -> Json<Value> {
    Json(json!({
        "jvm": {
            "version": concat!("millstream ", env!("CARGO_PKG_VERSION")),
            "arch": std::env::consts::ARCH,
            "options": [],
        },
        "classpath": [],
    }))
}

/// The same, of a job.
pub(crate) async fn environment_of(State(served): State<Served>, Path(id): Path<String>) -> Answer {
    served.session.job(job_id(&id)?)?;
    Ok(environment().await)
}

/// The configuration, as a job has it.
pub(crate) async fn config_of(State(served): State<Served>, Path(id): Path<String>) -> Answer {
    let known = served.session.job(job_id(&id)?)?;
    Ok(Json(match &known {
        Known::Live { master, .. } => keys_of(&master.code().config),
        Known::Past(_) => keys_of(served.session.config()),
    }))
}

/// The threads, by name: what they are at is not known.
fn thread_dump() -> Value {
    let of_thread = |name: String| json!({ "threadName": name, "stringifiedThreadInfo": name });
    json!({ "threadInfos": threads().into_iter().map(of_thread).collect::<Value>() })
}

pub(crate) async fn job_manager_threads() -> Json<Value> {
    Json(thread_dump())
}

pub(crate) async fn task_manager_threads(Path(id): Path<String>) -> Answer {
    is_task_manager(&id)?;
    Ok(Json(thread_dump()))
}

/// There are no sets of data that outlive their job.
pub(crate) async fn data_sets() -> Json<Value> {
    Json(json!({ "dataSets": [] }))
}

pub(crate) fn is_task_manager(id: &str) -> Result<(), Failure> {
    match id == TASK_MANAGER {
        true => Ok(()),
        false => Err(Failure::not_found(format!("TaskManager {id} not found"))),
    }
}

/// So many slots' part of the machine. Nothing of its memory is set apart but that for keyed state with RocksDB.
fn resource(served: &Served, slots: u32) -> Value {
    let per_slot = served.session.config().size("state.backend.rocksdb.memory.fixed-per-slot") as u64;
    let (all, machine) = (u64::from(served.session.slots().0.max(1)), Process::now().machine);
    json!({
        "cpuCores": f64::from(slots),
        "taskHeapMemory": (machine / all * u64::from(slots)) >> 20,
        "taskOffHeapMemory": 0,
        "managedMemory": (per_slot * u64::from(slots)) >> 20,
        "networkMemory": 0,
        "extendedResources": {},
    })
}

fn of_task_manager(served: &Served) -> Value {
    let (total, free) = served.session.slots();
    let jobs = served.session.masters().into_iter().filter_map(|master| master.job());
    let subtasks = jobs.map(|job| {
        job.description().vertices.iter().map(|vertex| u64::from(vertex.parallelism)).sum::<u64>()
    });
    let assigned: u64 = subtasks.sum();
    let process = Process::now();
    let per_slot = served.session.config().size("state.backend.rocksdb.memory.fixed-per-slot") as u64;
    let managed = per_slot * u64::from(total);
    json!({
        "id": TASK_MANAGER,
        "path": "local",
        "dataPort": 0,
        "jmxPort": -1,
        "timeSinceLastHeartbeat": served.session.now(),
        "slotsNumber": total,
        "freeSlots": free,
        "assignedTasks": assigned,
        "totalResource": resource(served, total),
        "freeResource": resource(served, free),
        "hardware": {
            "cpuCores": platform::available_parallelism(),
            "physicalMemory": process.machine,
            "freeMemory": process.free,
            "managedMemory": managed,
        },
        "memoryConfiguration": {
            "frameworkHeap": 0,
            "taskHeap": process.machine,
            "frameworkOffHeap": 0,
            "taskOffHeap": 0,
            "networkMemory": 0,
            "managedMemory": managed,
            "jvmMetaspace": 0,
            "jvmOverhead": 0,
            "totalFlinkMemory": process.machine,
            "totalProcessMemory": process.machine,
        },
    })
}

pub(crate) async fn task_managers(State(served): State<Served>) -> Json<Value> {
    Json(json!({ "taskmanagers": [of_task_manager(&served)] }))
}

pub(crate) async fn task_manager(State(served): State<Served>, Path(id): Path<String>) -> Answer {
    is_task_manager(&id)?;
    let mut shown = of_task_manager(&served);
    let mut slots = Vec::new();
    for master in served.session.masters() {
        // Those that wait for slots have none.
        let Some(job) = master.job().filter(|_| master.status() == JobStatus::Running) else { continue };
        let description = job.description();
        for slot in 0..master.slots() {
            let vertices = &description.vertices;
            // Subtask n of each vertex is in slot n.
            let tasks = vertices.iter().filter(|vertex| vertex.parallelism > slot).count();
            slots.push(json!({
                "jobId": master.id(), "resource": resource(&served, 1), "assignedTasks": tasks,
            }));
        }
    }
    let process = Process::now();
    shown["allocatedSlots"] = slots.into();
    let mut metrics: serde_json::Map<String, Value> =
        SIZES.iter().map(|name| ((*name).to_owned(), json!(0))).collect();
    metrics.insert("heapUsed".into(), json!(process.memory));
    metrics.insert("heapCommitted".into(), json!(process.memory));
    metrics.insert("heapMax".into(), json!(process.machine));
    metrics.insert("garbageCollectors".into(), json!([]));
    shown["metrics"] = metrics.into();
    Ok(Json(shown))
}
