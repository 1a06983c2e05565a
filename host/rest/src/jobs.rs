//! Jobs: what there are, one of them, its end.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use cluster::session::Known;
use cluster::{JobMaster, JobStatus};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use task::metrics::description::JobDescription;
use task::metrics::report::VertexMetrics;
use task::{Job, JobOutcome};

use crate::Served;
use crate::answer::{Answer, Failure, job_id, text};
use crate::vertices;

pub(crate) async fn jobs(State(served): State<Served>) -> Json<Value> {
    let jobs = served.session.jobs();
    let newest_first = jobs.iter().rev();
    let of_job = |job: &Known| json!({ "id": job.id(), "status": job.status() });
    Json(json!({ "jobs": newest_first.map(of_job).collect::<Value>() }))
}

/// What Flink has subtasks be.
pub(crate) const STATES: [&str; 10] = [
    "CREATED",
    "SCHEDULED",
    "DEPLOYING",
    "INITIALIZING",
    "RUNNING",
    "FINISHED",
    "CANCELING",
    "CANCELED",
    "FAILED",
    "RECONCILING",
];

/// How many subtasks are in each state, by the names that Flink's REST gives them; and the same in lower case.
fn task_counts(vertices: &[VertexMetrics], lower: bool) -> Map<String, Value> {
    let count = |state: &str| {
        let subtasks = vertices.iter().flat_map(|vertex| &vertex.subtasks);
        subtasks.filter(|subtask| subtask.state.name() == state).count()
    };
    let name = |state: &str| if lower { state.to_ascii_lowercase() } else { state.to_owned() };
    STATES.iter().map(|state| (name(state), json!(count(state)))).collect()
}

/// Counts of one vertex.
pub(crate) fn counts_of(vertex: &VertexMetrics) -> Map<String, Value> {
    task_counts(std::slice::from_ref(vertex), false)
}

fn attempt(known: &Known) -> Option<std::sync::Arc<Job>> {
    match known {
        Known::Live { master, .. } => master.job(),
        Known::Past(_) => None,
    }
}

/// When it began, when it ended (-1 = not yet), and how long it has lasted.
pub(crate) fn times(known: &Known, now: i64) -> (i64, i64, i64) {
    let began = known.timestamp(JobStatus::Initializing);
    let ended = known.ended_at();
    (began, ended.unwrap_or(-1), ended.unwrap_or(now) - began)
}

/// A job, as lists have it.
pub(crate) fn brief(known: &Known, now: i64) -> Value {
    let (began, ended, duration) = times(known, now);
    let vertices = attempt(known).map(|job| job.metrics().vertices).unwrap_or_default();
    let mut tasks = task_counts(&vertices, true);
    let total: usize = vertices.iter().map(|vertex| vertex.subtasks.len()).sum();
    tasks.insert("total".into(), json!(total));
    let modified = JobStatus::ALL.iter().map(|status| known.timestamp(*status)).max().unwrap_or_default();
    json!({
        "jid": known.id(),
        "name": known.name(),
        "jobType": "STREAMING",
        "schedulerType": "Default",
        "start-time": began,
        "end-time": ended,
        "duration": duration,
        "state": known.status(),
        "last-modification": modified,
        "tasks": tasks,
        "pending-operators": 0,
    })
}

pub(crate) async fn overview(State(served): State<Served>) -> Json<Value> {
    let (jobs, now) = (served.session.jobs(), served.session.now());
    Json(json!({ "jobs": jobs.iter().rev().map(|known| brief(known, now)).collect::<Value>() }))
}

pub(crate) async fn job(State(served): State<Served>, Path(id): Path<String>) -> Answer {
    let known = served.session.job(job_id(&id)?)?;
    let now = served.session.now();
    let (began, ended, duration) = times(&known, now);
    let timestamps: Map<String, Value> = JobStatus::ALL
        .iter()
        .map(|status| (status.name().to_owned(), json!(known.timestamp(*status))))
        .collect();
    let attempt = attempt(&known);
    let (vertices, counts, plan) = match &attempt {
        Some(job) => {
            let (description, metrics) = (job.description(), job.metrics());
            let all = description.vertices.iter().zip(&metrics.vertices);
            let vertices: Value = all.map(|(vertex, of)| vertices::of_job(vertex, of, now)).collect();
            let counts = task_counts(&metrics.vertices, false);
            (vertices, counts, plan_of(&id, known.name(), &description))
        }
        None => {
            let plan = json!({ "jid": id, "name": known.name(), "type": "STREAMING", "nodes": [] });
            (json!([]), task_counts(&[], false), plan)
        }
    };
    Ok(Json(json!({
        "jid": id,
        "application-id": id,
        "name": known.name(),
        "isStoppable": false,
        "state": known.status(),
        "job-type": "STREAMING",
        "schedulerType": "Default",
        "start-time": began,
        "end-time": ended,
        "duration": duration,
        "maxParallelism": -1,
        "now": now,
        "timestamps": timestamps,
        "vertices": vertices,
        "status-counts": counts,
        "plan": plan,
        "pending-operators": 0,
        // Ours alone.
        "waits-for": served.session.waits_for(&id),
    })))
}

/// A job's plan.
pub(crate) fn plan_of(id: &str, name: &str, description: &JobDescription) -> Value {
    let node = |vertex: &task::metrics::description::VertexDescription| {
        let inputs: Value = vertex
            .inputs
            .iter()
            .map(|input| {
                json!({
                    "id": input.from_id,
                    "num": input.input,
                    "exchange": "pipelined_bounded",
                    "ship_strategy": input.ship_strategy,
                })
            })
            .collect();
        let mut node = json!({
            "id": vertex.id,
            "operator": "",
            "parallelism": vertex.parallelism,
            "operator_strategy": "",
            "description": vertex.tree(),
            "optimizer_properties": {},
        });
        if !vertex.inputs.is_empty() {
            node["inputs"] = inputs;
        }
        node
    };
    // As Flink has them: who is fed before who feeds.
    let nodes: Value = description.vertices.iter().rev().map(node).collect();
    json!({ "jid": id, "name": name, "type": "STREAMING", "nodes": nodes })
}

pub(crate) async fn plan(State(served): State<Served>, Path(id): Path<String>) -> Answer {
    let (master, job) = served.running(&id)?;
    Ok(Json(json!({ "plan": plan_of(&id, master.name(), &job.description()) })))
}

pub(crate) async fn status(State(served): State<Served>, Path(id): Path<String>) -> Answer {
    let status = served.session.job(job_id(&id)?)?.status();
    if status.is_terminal() {
        served.triggers.told_end(&id);
    }
    Ok(Json(json!({ "status": status })))
}

pub(crate) async fn config(State(served): State<Served>, Path(id): Path<String>) -> Answer {
    let known = served.session.job(job_id(&id)?)?;
    let parallelism = match &known {
        Known::Live { master, .. } => master.code().options.parallelism,
        Known::Past(record) => record.submission.parallelism.unwrap_or(1),
    };
    let strategy = match &known {
        Known::Live { master, .. } => match master.code().config.get("restart-strategy.type").0 {
            "" => "Cluster level default restart strategy".to_owned(),
            named => named.to_owned(),
        },
        Known::Past(_) => String::new(),
    };
    Ok(Json(json!({
        "jid": id,
        "name": known.name(),
        "execution-config": {
            "restart-strategy": strategy,
            "job-parallelism": parallelism,
            "object-reuse-mode": false,
            "user-config": {},
        },
    })))
}

pub(crate) async fn exceptions(State(served): State<Served>, Path(id): Path<String>) -> Answer {
    let entries: Vec<Value> = match served.session.job(job_id(&id)?)? {
        Known::Live { master, .. } => entries(&master),
        Known::Past(record) => {
            let failed = record.error.as_ref();
            let at = record.timestamps.get(JobStatus::Failed.name()).copied().unwrap_or_default();
            failed.map(|error| entry(error, error, at)).into_iter().collect()
        }
    };
    Ok(Json(json!({ "exceptionHistory": { "entries": entries, "truncated": false } })))
}

/// A failure of the whole job: there are none of parts of it.
fn entry(name: &str, trace: &str, at: i64) -> Value {
    json!({
        "exceptionName": name,
        "stacktrace": trace,
        "timestamp": at,
        "failureLabels": {},
        "taskName": null,
        "endpoint": null,
        "taskManagerId": null,
        "concurrentExceptions": [],
    })
}

fn entries(master: &JobMaster) -> Vec<Value> {
    let of_failure = |failure: &cluster::lifecycle::Failure| {
        entry(&failure.error.message, &text(&failure.error), failure.at)
    };
    master.failures().iter().rev().map(of_failure).collect()
}

pub(crate) async fn execution_result(State(served): State<Served>, Path(id): Path<String>) -> Answer {
    let known = served.session.job(job_id(&id)?)?;
    let Some(ended) = known.ended_at() else {
        return Ok(Json(json!({ "status": { "id": "IN_PROGRESS" } })));
    };
    let runtime = ended - known.timestamp(JobStatus::Initializing);
    let why = match &known {
        Known::Live { master, .. } => match master.ended().map(|ended| ended.outcome) {
            Some(JobOutcome::Failed(error)) => Some(text(&error)),
            _ => None,
        },
        Known::Past(record) => record.error.clone(),
    };
    let mut result = json!({
        "id": id,
        "application-status": match known.status() {
            JobStatus::Finished => "SUCCEEDED",
            JobStatus::Canceled => "CANCELED",
            _ => "FAILED",
        },
        "accumulator-results": {},
        "net-runtime": runtime,
    });
    if let Some(why) = why {
        result["failure-cause"] = json!({ "class": "", "stack-trace": why });
    }
    Ok(Json(json!({ "status": { "id": "COMPLETED" }, "job-execution-result": result })))
}

pub(crate) async fn accumulators(State(served): State<Served>, Path(id): Path<String>) -> Answer {
    served.session.job(job_id(&id)?)?;
    Ok(Json(json!({
        "job-accumulators": [],
        "user-task-accumulators": [],
        "serialized-user-task-accumulators": {},
    })))
}

/// What the job has said, the last of it. Ours alone.
pub(crate) async fn logs(State(served): State<Served>, Path(id): Path<String>) -> Answer {
    match served.session.job(job_id(&id)?)? {
        Known::Live { log, .. } => Ok(Json(json!({ "lines": log.lines() }))),
        Known::Past(_) => Ok(Json(json!({ "lines": [] }))),
    }
}

/// How a job is to end.
#[derive(Deserialize)]
pub(crate) struct Mode {
    #[serde(default)]
    mode: Option<String>,
}

pub(crate) async fn cancel(
    State(served): State<Served>,
    Path(id): Path<String>,
    Query(Mode { mode }): Query<Mode>,
) -> Result<(StatusCode, Json<Value>), Failure> {
    let known = served.session.job(job_id(&id)?)?;
    match mode.as_deref() {
        None | Some("cancel") => {}
        Some("stop") => {
            return Err(Failure(
                StatusCode::GONE,
                "The termination mode \"stop\" is not supported any more: POST /jobs/:jobid/stop.".into(),
            ));
        }
        Some(other) => return Err(Failure::bad(format!("There is no termination mode \"{other}\"."))),
    }
    match (known.status(), known) {
        (JobStatus::Canceled, _) => {}
        (status, _) if status.is_terminal() => {
            return Err(Failure(
                StatusCode::CONFLICT,
                format!(
                    "Job cancellation failed because the job has already reached another terminal state ({}).",
                    status.name()
                ),
            ));
        }
        (_, Known::Live { master, .. }) => {
            served.triggers.owes_end(&id);
            master.cancel();
        }
        (_, Known::Past(_)) => {}
    }
    Ok((StatusCode::ACCEPTED, Json(json!({}))))
}
