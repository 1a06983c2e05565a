//! Flink's applications: each job is one of its own, of the same id.

use axum::Json;
use axum::extract::{Path, State};
use cluster::JobStatus;
use cluster::session::Known;
use serde_json::{Map, Value, json};

use crate::Served;
use crate::answer::{Answer, job_id};
use crate::jobs::{self, times};

/// What Flink has applications be.
pub(crate) const STATES: [&str; 7] =
    ["CREATED", "RUNNING", "FAILING", "FAILED", "CANCELING", "CANCELED", "FINISHED"];

fn name(known: &Known) -> String {
    format!("SingleJobApplication({})", known.name())
}

/// Flink has less states of applications than of jobs.
fn state(status: JobStatus) -> &'static str {
    match status {
        JobStatus::Initializing | JobStatus::Created => "CREATED",
        JobStatus::Failing => "FAILING",
        JobStatus::Failed => "FAILED",
        JobStatus::Cancelling => "CANCELING",
        JobStatus::Canceled => "CANCELED",
        JobStatus::Finished => "FINISHED",
        _ => "RUNNING",
    }
}

pub(crate) async fn overview(State(served): State<Served>) -> Json<Value> {
    let now = served.session.now();
    let of_job = |known: &Known| {
        let (began, ended, duration) = times(known, now);
        json!({
            "id": known.id(),
            "name": name(known),
            "start-time": began,
            "end-time": ended,
            "duration": duration,
            "status": state(known.status()),
            "jobs": { known.status().name(): 1 },
        })
    };
    let jobs = served.session.jobs();
    Json(json!({ "applications": jobs.iter().rev().map(of_job).collect::<Value>() }))
}

pub(crate) async fn application(State(served): State<Served>, Path(id): Path<String>) -> Answer {
    let known = served.session.job(job_id(&id)?)?;
    let now = served.session.now();
    let (began, ended, duration) = times(&known, now);
    let mut timestamps: Map<String, Value> =
        STATES.iter().map(|name| ((*name).to_owned(), json!(0))).collect();
    for status in JobStatus::ALL {
        let at = known.timestamp(status);
        let name = state(status);
        // The first of several: when it came to that.
        if at > 0
            && timestamps.get(name).and_then(Value::as_i64).is_none_or(|before| before == 0 || at < before)
        {
            timestamps.insert(name.to_owned(), json!(at));
        }
    }
    Ok(Json(json!({
        "id": id,
        "name": name(&known),
        "status": state(known.status()),
        "start-time": began,
        "end-time": ended,
        "duration": duration,
        "timestamps": timestamps,
        "jobs": [jobs::brief(&known, now)],
    })))
}
